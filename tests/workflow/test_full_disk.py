"""A disk that fills up during a run: one clear line, and existing files stay intact."""

import shlex
import shutil
import subprocess

import pytest

UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("unshare") or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode,
        reason="this system does not allow mounting a small disk",
    ),
]


def run_on_small_disk(collection, folder, size, before="", after=""):
    """Run with an empty disk of `size` bytes mounted on a folder, visible to this run only."""
    program = f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(folder))}; {before}\n"
    program += f"status=0; {shlex.join(collection.command())} 2>&1 || status=$?\n{after}\nexit $status"
    command = [*UNSHARE, program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=collection.folder)


def test_a_full_disk_under_the_shards(make_collection):
    collection = make_collection(40)
    (collection.folder / "results").mkdir()
    done = run_on_small_disk(collection, collection.folder / "results", 200_000)
    assert done.returncode == 1, done.stderr
    [line] = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert line.startswith("error: cannot write to the database '") and "(database or disk is full)" in line
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
