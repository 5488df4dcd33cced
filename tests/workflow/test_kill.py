"""SIGKILL in each rule, three photos added, then plain `snakemake`: the right database, then nothing to be done."""

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import hear_ctrl_c, leave_hot_journal

pytestmark = pytest.mark.slow
MAP = {"reproject_umap_embeddings": True}


def wait_until(condition, process, what):
    """Wait for a moment of the run, which must come before the run ends."""
    deadline = time.monotonic() + 280
    while not condition():
        assert process.poll() is None, f"the run ended before {what}:\n{process.stdout.read()[-4000:]}"
        assert time.monotonic() < deadline, f"no sign of {what}"
        time.sleep(0.001)


def is_running(script, collection):
    """Return whether a process of this rule's script is running on the collection."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if (process / "cwd").readlink() != collection.folder:
                continue
        except OSError:
            continue
        if b"python" in arguments[0] and any(word.endswith(f"/{script}.py".encode()) for word in arguments[1:3]):
            return True
    return False


@contextmanager
def started(collection, **environment):
    process = subprocess.Popen(
        collection.command(),
        cwd=collection.folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )
    try:
        yield process
    finally:
        kill(process)
        process.stdout.close()


def kill(process):
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def locked(database, begin):
    """Hold a lock on a database, as a slow reader does."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute(begin)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    try:
        yield
    finally:
        connection.close()


def test_a_writer_killed_in_the_middle_is_rolled_back(make_collection, expected):
    collection = make_collection(12)
    collection.run()
    leave_hot_journal(collection.database)
    collection.add_photos(3)
    assert collection.dry_run() == {"write_manifest": 1, "embed_shard": 1, "store_embeddings": 1}
    complete(collection, expected)


def complete(collection, expected):
    """Run to the end, and compare with a collection that was never killed."""
    new = collection.add_photos(3)
    collection.run()
    uuids = {path.stem for path in (collection.folder / "photos").iterdir()}
    assert set(new) < uuids
    rows = collection.embeddings()
    assert rows.keys() == uuids
    assert rows == {uuid: expected[uuid] for uuid in uuids}
    assert collection.sql("PRAGMA integrity_check") == [("ok",)]
    if collection.config()["reproject_umap_embeddings"]:
        assert {row[0] for row in collection.sql("SELECT UUID FROM {T}_UMAP_HAVERSINE")} == uuids
    assert collection.dry_run() == {}
    hidden = [path.name for path in collection.state.rglob(".*") if path.is_file()]
    assert hidden == [], "left-overs of the killed run"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The rows of an undisturbed run over 62 photos."""
    from conftest import new_collection

    collection = new_collection(tmp_path_factory.mktemp("undisturbed") / "collection", 62)
    collection.run()
    return collection.embeddings()


@pytest.mark.parametrize("where", ["resolve", "encode"])
def test_killed_in_resolve_encoder_and_in_embed_shard(make_collection, expected, tmp_path, where):
    collection = make_collection(12, shard_size=5, batch_size=2)
    (tmp_path / where).touch()
    with started(collection, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
        wait_until((tmp_path / f"{where}-reached").exists, process, where)
        kill(process)
    (tmp_path / where).unlink()
    complete(collection, expected)


def test_killed_in_write_manifest(make_collection, expected):
    collection = make_collection(12, shard_size=1)
    with started(collection) as process:
        wait_until((collection.state / "shards" / "000002.tsv").exists, process, "the second of 12 shard lists")
        kill(process)
    complete(collection, expected)


def test_killed_in_store_embeddings(make_collection, expected):
    collection = make_collection(12, shard_size=5)
    collection.run()
    collection.add_photos(4)
    journal = Path(f"{collection.database}-journal")
    # A reader keeps the writer from committing after it has written everything.
    with locked(collection.database, "BEGIN"), started(collection) as process:
        wait_until(journal.exists, process, "the transaction")
        time.sleep(0.3)
        kill(process)
    assert journal.exists()
    complete(collection, expected)


def test_killed_in_fit_umap(make_collection, expected):
    collection = make_collection(12, **MAP)
    with started(collection) as process:
        wait_until(lambda: is_running("fit_umap", collection), process, "fit_umap")
        kill(process)
    assert not (collection.state / "map.tsv").exists()
    complete(collection, expected)


def test_killed_in_store_map(make_collection, expected):
    collection = make_collection(12, **MAP)
    with started(collection) as process:
        wait_until((collection.state / "map.tsv").exists, process, "the map")
        with locked(collection.database, "BEGIN"):
            wait_until(Path(f"{collection.database}-journal").exists, process, "the transaction")
            kill(process)
    complete(collection, expected)


def test_killed_in_draw_map(make_collection, expected):
    collection = make_collection(12, **MAP)
    with started(collection) as process:
        wait_until((collection.state / "map.tsv").exists, process, "the map")
        with locked(collection.state / "embeddings" / "000001.sqlite", "BEGIN EXCLUSIVE"):
            wait_until(lambda: is_running("draw_map", collection), process, "draw_map")
            wait_until((collection.state / "map_stored.json").exists, process, "the stored map")
            kill(process)
    assert not (collection.state / "map.png").exists()
    complete(collection, expected)


@pytest.mark.parametrize(
    ("send", "number"),
    [(os.killpg, signal.SIGINT), (os.killpg, signal.SIGTERM), (os.kill, signal.SIGTERM)],
    ids=["Ctrl-C", "SIGTERM to all", "SIGTERM to Snakemake"],
)
def test_a_signal_ends_the_run_quickly_and_leaves_nothing_broken(make_collection, expected, tmp_path, send, number):
    collection = make_collection(12, batch_size=2)
    (tmp_path / "encode").touch()
    with started(collection, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
        wait_until((tmp_path / "encode-reached").exists, process, "the encoder")
        began = time.monotonic()
        send(process.pid, number)
        process.wait(timeout=20)
        assert time.monotonic() - began < 10
        assert process.returncode != 0
        last = process.stdout.read().splitlines()[-1]
        assert last.endswith("stopped: finished work is kept; to resume, run the same command again")
    assert not is_running("embed_shard", collection)
    (tmp_path / "encode").unlink()
    complete(collection, expected)


def test_two_runs_on_one_database_the_second_ends_in_one_line(make_collection, expected, tmp_path):
    collection = make_collection(12, batch_size=2)
    (tmp_path / "encode").touch()
    with started(collection, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
        wait_until((tmp_path / "encode-reached").exists, process, "the encoder")
        second = collection.snakemake()
        assert second.returncode == 1
        assert "another run is using 'results/photos.sqlite'; wait until it ends" in second.stdout
        assert "Traceback" not in second.stdout
        (tmp_path / "encode").unlink()
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    complete(collection, expected)
