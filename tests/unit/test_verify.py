"""Verifying: what is wrong with a database is told, with a way out that mends it; nothing is written."""

import fcntl
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from conftest import leave_hot_journal
from verified import CHECKS, UUID

from crossfilter_inference.config import read_config
from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.errors import InputError
from crossfilter_inference.verify.checks import verify

pytest_plugins = "verified"


def test_what_a_run_leaves_is_all_right(collection):
    found = collection.verify(sample=20)
    assert list(found) == [*CHECKS, "sample"]
    assert {state for state, _ in found.values()} == {"ok"}
    texts = {name: text for name, (_, text) in found.items()}
    assert texts["embeddings"] == "7 rows of 48 dimensions, finite, of length 1"
    assert texts["fates"] == "9 files = 7 embedded + 1 failed + 1 rejected"
    assert texts["shards"] == "3 with their lists, sound and as merged"
    assert texts["sample"] == "7 photos embedded again, least cosine 1.000000"


def test_nothing_is_written(collection):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in collection.root.rglob("*")}

    before = files()
    collection.verify(sample=20)
    assert files() == before


def test_a_missing_database_is_rebuilt(collection):
    collection.database.unlink()
    assert collection.failed() == (
        "database",
        f"'{collection.database}' is missing: run snakemake, it is made of the shards that there are",
    )
    collection.run()
    assert collection.is_well()


@pytest.mark.parametrize("damage", ["no database", "cut off"])
def test_what_sqlite_cannot_read_is_moved_away(collection, damage):
    whole = collection.database.read_bytes()
    collection.database.write_bytes(b"no database " * 999 if damage == "no database" else whole[: len(whole) // 2])
    found = collection.verify()
    name, text = next((name, text) for name, (state, text) in found.items() if state == "FAILED")
    assert name == "database"
    assert "move it aside, and run snakemake, which rebuilds it" in text or "and run snakemake, it is rebuilt" in text
    assert found["shards"] == ("ok", "3 with their lists, sound and as merged")
    assert [state for state, _ in found.values()].count("skipped") == 5
    collection.rebuild()
    assert collection.is_well()


def test_what_sqlite_finds_fault_with_is_rebuilt(collection):
    collection.sql("CREATE TABLE more (x)")
    collection.sql("INSERT INTO more VALUES (NULL)")
    connection = sqlite3.connect(collection.database)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE more (x NOT NULL)' WHERE name = 'more'")
    connection.commit()
    connection.close()
    name, text = collection.failed()
    assert name == "database"
    assert re.fullmatch(r"'.*x\.sqlite' is damaged \(NULL value in more\.x\): delete '.*' and run snakemake, .*", text)
    collection.rebuild()
    assert collection.is_well()


def test_what_a_killed_writer_left_is_taken_back_by_a_run(collection):
    leave_hot_journal(collection.database)
    name, text = collection.failed()
    assert name == "database"
    assert "a program was killed while writing to it: run snakemake, which rolls back the unfinished" in text
    assert Path(f"{collection.database}-journal").exists()
    collection.run()
    assert collection.is_well()


def test_a_table_that_is_not_there_is_missed(collection):
    collection.sql("DROP TABLE T_FAILURES")
    name, text = collection.failed()
    assert name == "database"
    assert "has no table T_FAILURES with its columns: delete" in text
    collection.rebuild()
    assert collection.is_well()


def test_a_database_of_another_type_is_filled_by_a_run(collection):
    collection.database.unlink()
    collection.sql("CREATE TABLE U_EMBEDDINGS (UUID TEXT PRIMARY KEY, EMBEDDING BLOB)")
    name, text = collection.failed()
    assert name == "database"
    assert text.endswith("has no table T_EMBEDDINGS with its columns: run snakemake")
    collection.run()
    assert collection.is_well()


def test_a_way_out_says_what_it_would_cost(collection):
    collection.sql("CREATE TABLE U_EMBEDDINGS (UUID TEXT PRIMARY KEY, EMBEDDING BLOB)")
    collection.sql("INSERT INTO T_EMBEDDINGS VALUES (?, ?)", (UUID(99), pack_embedding(np.ones(48) / 48**0.5)))
    state, text = collection.verify()["digest"]
    assert state == "FAILED"
    assert "(run it for U_EMBEDDINGS too); but keep a copy: 1 rows of unknown origin are in no shard" in text


def config_of(collection):
    return read_config([str(collection.root / "config.yaml")], {})


def test_a_run_at_work_is_left_alone(collection):
    with open(collection.root / "x" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"^a run is at work on '.*x\.sqlite'; verify when it has ended$"):
            next(verify(config_of(collection), n_sample=0, n_threads=1))


def test_a_run_may_begin_meanwhile_and_is_noticed(collection):
    (collection.root / "x" / ".lock").touch()
    checks = verify(config_of(collection), n_sample=0, n_threads=1)
    next(checks)
    with open(collection.root / "x" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(InputError, match="a run is at work"):
            list(checks)
    checks = verify(config_of(collection), n_sample=0, n_threads=1)
    next(checks)
    (collection.folder / "plan.tsv").touch()
    with pytest.raises(InputError, match=r"^a run was at work meanwhile; verify again$"):
        list(checks)


def test_of_a_database_that_was_never_made_all_is_missing(tmp_path, made, capsys):
    made.capsys = capsys
    found = made.verify(output_embeddings_db=str(tmp_path / "y.sqlite"))
    state, text = found["database"]
    assert state == "FAILED"
    assert text == f"there is no '{tmp_path / 'y.sqlite'}', and no shards of it; run snakemake, or name another one"
    assert found["shards"] == ("ok", "0 with their lists, sound and as merged")
    assert list(tmp_path.iterdir()) == []
