"""A disk that fills up during a run: one clear line, and existing files stay intact."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import PROJECT

UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("unshare") or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode,
        reason="this system does not allow mounting a small disk",
    ),
]


REASON = re.compile(r"'[^']+'.*(No space left on device|database or disk is full)")


def run_on_small_disk(collection, folder, size, before="", after=""):
    """Run with an empty disk of `size` bytes mounted on a folder, visible to this run only."""
    program = f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(folder))}; {before}\n"
    program += f"status=0; {shlex.join(collection.command())} 2>&1 || status=$?\n{after}\nexit $status"
    command = [*UNSHARE, program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=collection.folder)


@pytest.mark.parametrize("n_bytes", [4_096, 20_000, 40_000, 100_000, 200_000, 500_000])
def test_a_full_disk_under_the_shards(make_collection, n_bytes):
    collection = make_collection(40)
    (collection.folder / "results").mkdir()
    done = run_on_small_disk(collection, collection.folder / "results", n_bytes)
    assert done.returncode == 1, done.stderr
    [line] = {line for line in done.stdout.splitlines() if REASON.search(line)}
    assert "results/photos/COLOUR/" in line
    assert "Traceback" not in done.stdout
    assert not collection.database.exists()
    collection.run()
    assert len(collection.embeddings()) == 40


def test_a_full_disk_under_the_database(make_collection, tmp_path):
    collection = make_collection(12, output_embeddings_db="small/photos.sqlite")
    collection.database = collection.folder / "small" / "photos.sqlite"
    (tmp_path / "state").mkdir()
    (collection.folder / "small").mkdir()
    (collection.folder / "small" / "photos").symlink_to(tmp_path / "state")
    collection.run()
    shutil.copy(collection.database, tmp_path / "before.sqlite")
    before = collection.embeddings()
    collection.add_photos(40)
    copies = {name: shlex.quote(str(tmp_path / name)) for name in ("state", "before.sqlite", "after.sqlite")}
    done = run_on_small_disk(
        collection,
        collection.folder / "small",
        collection.database.stat().st_size + 20_000,
        before=f"ln -s {copies['state']} small/photos; cp {copies['before.sqlite']} small/photos.sqlite",
        after=f"cp small/photos.sqlite {copies['after.sqlite']}",
    )
    assert done.returncode == 1, done.stderr
    [line] = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert line.endswith("(database or disk is full); the database is unchanged")
    assert "Traceback" not in done.stdout
    rows = collection.sql("SELECT UUID, EMBEDDING FROM {T}_EMBEDDINGS", tmp_path / "after.sqlite")
    assert dict(rows) == before
    assert collection.sql("PRAGMA integrity_check", tmp_path / "after.sqlite") == [("ok",)]
    assert collection.run() == {"store_embeddings": 1}
    assert len(collection.embeddings()) == 52


@pytest.mark.parametrize("what", ["--npy out/all.npy", "--parquet out/all.parquet", "--atlas out/all.parquet"])
@pytest.mark.parametrize("n_bytes", [8_192, 100_000])
def test_a_full_disk_under_an_export(demo, n_bytes, what):
    out = demo.folder / "out"
    out.mkdir()
    program = [
        sys.executable,
        str(PROJECT / "scripts" / "export.py"),
        "--output_embeddings_db",
        str(demo.database),
        *what.split(),
    ]
    command = (
        f"mount -t tmpfs -o size={n_bytes} tmpfs out; status=0; {shlex.join(program)} 2>&1 || status=$?; ls -A out"
    )
    done = subprocess.run(
        [*UNSHARE, f"{command}; exit $status"], capture_output=True, text=True, check=False, cwd=demo.folder
    )
    assert done.returncode == 1, done.stdout
    [line] = [line for line in done.stdout.splitlines() if REASON.search(line)]
    assert "out/all" in line and done.stdout.endswith(f"{line}\n"), done.stdout
