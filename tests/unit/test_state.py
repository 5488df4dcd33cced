import multiprocessing
import os
import sqlite3

import pytest

from crossfilter_inference import state
from crossfilter_inference.errors import InputError
from crossfilter_inference.files import write_json
from crossfilter_inference.plan import Plan

NO_PLAN = Plan([], [], [])


def test_no_two_databases_share_a_state_folder():
    databases = ["r/photos.sqlite", "r/photos.db", "r/photos", "r/.sqlite", "r/photos.sqlite3", "photos.sqlite"]
    folders = [state.state_folder(database) for database in databases]
    assert folders[0] == "r/photos"
    assert folders[1] == "r/photos.db.state"
    assert len(set(folders)) == len(databases)
    assert not set(folders) & {"r/photos.db", "r/photos.sqlite", "r/.sqlite"}


def database_with(path, digest):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE T_PROVENANCE (KEY TEXT PRIMARY KEY, VALUE TEXT)")
        connection.execute("INSERT INTO T_PROVENANCE VALUES ('embeddings_digest', ?)", (digest,))
    connection.close()


@pytest.mark.parametrize(
    ("database", "expected"),
    [("ours", 7), ("another", 8), ("missing", 8), ("empty", 8), ("garbage", 8), ("locked", 7)],
)
def test_the_generation_rises_when_the_database_is_not_the_one_we_left(tmp_path, database, expected):
    path, receipt = str(tmp_path / "x.sqlite"), tmp_path / "receipt.json"
    write_json(receipt, {"generation": 7, "digest": "ours"})
    if database in ("ours", "another", "locked"):
        database_with(path, database)
    if database == "empty":
        sqlite3.connect(path).close()
    if database == "garbage":
        (tmp_path / "x.sqlite").write_text("no database " * 100)
    other = sqlite3.connect(tmp_path / "other.sqlite" if database != "locked" else path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert state.generation(path, str(receipt), "T", "embeddings_digest") == expected
    finally:
        other.close()


@pytest.mark.parametrize("receipt", [None, "", "[]", '{"generation": 3}'])
def test_without_a_receipt_the_first_generation_is_due(tmp_path, receipt):
    if receipt is not None:
        (tmp_path / "receipt.json").write_text(receipt)
    assert state.generation(str(tmp_path / "x.sqlite"), str(tmp_path / "receipt.json"), "T", "digest") == 1


def start(database, folder, known, queue):
    try:
        state.start_run(database, folder, known, NO_PLAN)
        queue.put("started")
    except InputError as error:
        queue.put(str(error))


def start_elsewhere(*arguments):
    """Start a run in a process of its own, which ends at once."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=start, args=(*arguments, queue))
    process.start()
    answer = queue.get(timeout=30)
    process.join()
    return answer


def test_a_second_run_is_refused_until_the_first_process_ends(tmp_path):
    database, folder = str(tmp_path / "x.sqlite"), str(tmp_path / "x" / "T")
    assert start_elsewhere(database, folder, []) == "started"
    state.start_run(database, folder, [], NO_PLAN)
    assert "another run is at work on" in start_elsewhere(database, folder, [])
    state._held.pop().close()
    assert start_elsewhere(database, folder, []) == "started"


def test_a_plan_made_before_another_run_ended_is_refused(tmp_path):
    (tmp_path / "x" / "T" / "shards").mkdir(parents=True)
    (tmp_path / "x" / "T" / "shards" / "000001.tsv").write_text("UUID\tSIZE\tMTIME_NS\n")
    answer = start_elsewhere(str(tmp_path / "x.sqlite"), str(tmp_path / "x" / "T"), [])
    assert "ended while this one was planned; start it again" in answer


def test_parts_of_killed_jobs_are_removed(tmp_path):
    folder = tmp_path / "x" / "T"
    (folder / "embeddings").mkdir(parents=True)
    for name in (".000001.sqlite.abc.part", ".000001.sqlite.abc.part-journal", "000002.sqlite"):
        (folder / "embeddings" / name).touch()
    assert start_elsewhere(str(tmp_path / "x.sqlite"), str(folder), []) == "started"
    assert [path.name for path in (folder / "embeddings").iterdir()] == ["000002.sqlite"]


def test_the_errors_of_this_run_are_collected(tmp_path):
    logs = tmp_path / "logs" / "fit_umap"
    logs.mkdir(parents=True)
    (logs / "old.log").write_text("error: long ago\n")
    os.utime(logs / "old.log", (1, 1))
    (logs / "new.log").write_text("working\nerror: n_neighbors: too many\n")
    (logs / "good.log").write_text("error: overcome\nmap: fitted\n")
    (logs / "empty.log").touch()
    assert state.last_errors(str(tmp_path), since=100) == ["error: n_neighbors: too many"]
