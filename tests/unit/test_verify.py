"""Verify a database: each problem is reported with a fix that works, and nothing is written."""

import errno
import fcntl
import os
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from conftest import leave_hot_journal
from verified import CHECKS, UUID

from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.errors import InputError
from crossfilter_inference.verify.checks import Check, closing_line, verify

pytest_plugins = "verified"


def test_every_check_passes_after_a_run(collection):
    found = collection.verify(sample=20)
    assert list(found) == [*CHECKS, "sample"]
    assert {state for state, _ in found.values()} == {"ok"}
    texts = {name: text for name, (_, text) in found.items()}
    assert texts["embeddings"] == "7 rows: 48 dimensions, finite, unit length"
    assert texts["outcomes"] == "9 files = 7 embedded + 1 failed + 1 rejected"
    assert texts["shards"] == "3 shards: lists and databases intact, as merged"
    assert texts["sample"] == "7 photos re-embedded, lowest cosine 1.000000"


@pytest.mark.parametrize(
    ("states", "line"),
    [
        (["ok", "ok"], "all checks passed"),
        (["ok", "skipped"], "all checks passed, 1 skipped"),
        (["ok", "FAILED", "skipped"], "1 of 3 checks failed"),
    ],
)
def test_the_closing_line_counts_failures(states, line):
    assert closing_line([Check("name", state, "text") for state in states]) == line


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
        f"'{collection.database}' is missing: run the workflow to rebuild it from the shards",
    )
    collection.run()
    assert collection.passes()


@pytest.mark.parametrize("damage", ["no database", "cut off"])
def test_an_unreadable_database_is_rebuilt(collection, damage):
    whole = collection.database.read_bytes()
    collection.database.write_bytes(b"no database " * 999 if damage == "no database" else whole[: len(whole) // 2])
    found = collection.verify()
    name, text = next((name, text) for name, (state, text) in found.items() if state == "FAILED")
    assert name == "database"
    assert re.search("move it aside|aside and run the workflow to rebuild it", text)
    assert found["shards"][0] == "ok"
    assert [state for state, _ in found.values()].count("skipped") == 5
    collection.rebuild()
    assert collection.passes()


def test_an_inconsistent_database_is_rebuilt(collection):
    collection.sql("CREATE TABLE more (x)")
    collection.sql("INSERT INTO more VALUES (NULL)")
    connection = sqlite3.connect(collection.database)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE more (x NOT NULL)' WHERE name = 'more'")
    connection.commit()
    connection.close()
    name, text = collection.failed()
    assert name == "database"
    assert re.match(r"'.*x\.sqlite' is damaged \(NULL value in more\.x\): move '.*' aside and run the workflow", text)
    collection.rebuild()
    assert collection.passes()


def test_a_run_rolls_back_a_killed_writer(collection):
    leave_hot_journal(collection.database)
    name, text = collection.failed()
    assert name == "database"
    assert "a program was killed while writing to it: run the workflow" in text
    assert Path(f"{collection.database}-journal").exists()
    collection.run()
    assert collection.passes()


def test_a_missing_table_is_reported(collection):
    collection.sql("DROP TABLE T_FAILURES")
    name, text = collection.failed()
    assert name == "database"
    assert text.startswith(f"'{collection.database}': table T_FAILURES is missing: move '")
    collection.rebuild()
    assert collection.passes()


def test_a_missing_column_is_reported(collection):
    collection.sql("ALTER TABLE T_IMAGES DROP COLUMN DIGEST")
    name, text = collection.failed()
    assert name == "database"
    assert text.startswith(f"'{collection.database}': column DIGEST of table T_IMAGES is missing: move '")
    collection.rebuild()
    assert collection.passes()


def test_a_database_of_another_type_is_filled_by_a_run(collection):
    collection.database.unlink()
    collection.sql("CREATE TABLE U_EMBEDDINGS (UUID TEXT PRIMARY KEY, EMBEDDING BLOB)")
    name, text = collection.failed()
    assert name == "database"
    assert text == f"'{collection.database}': table T_EMBEDDINGS is missing: run the workflow"
    collection.run()
    assert collection.passes()


def test_tables_of_the_application_are_no_embedding_type(collection):
    collection.sql("CREATE TABLE IMAGE_EMBEDDINGS (UUID_STRING STRING, SEMANTIC_EMBEDDING TEXT)")
    assert collection.passes()
    collection.sql("DELETE FROM T_EMBEDDINGS WHERE UUID = ?", (UUID(1),))
    text = collection.verify()["digest"][1]
    assert text.endswith("; copy what you added (IMAGE_EMBEDDINGS) from the old file")


def test_a_fix_names_its_cost(collection):
    collection.sql("CREATE TABLE U_EMBEDDINGS (UUID TEXT PRIMARY KEY, EMBEDDING BLOB)")
    collection.sql("INSERT INTO T_EMBEDDINGS VALUES (?, ?)", (UUID(99), pack_embedding(np.ones(48) / 48**0.5)))
    state, text = collection.verify()["digest"]
    assert state == "FAILED"
    assert text.endswith(
        "to rebuild it from the shards, then again with embedding_type U; "
        "keep a copy, because no shard holds the 1 row of unknown origin"
    )


def test_a_run_in_progress_is_not_disturbed(collection):
    with open(collection.root / "x" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"^a run is in progress on '.*x\.sqlite'; verify again after it ends$"):
            next(verify(collection.config(), n_sample=0, n_threads=1))


def test_a_file_system_without_locks_is_verified(collection, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (collection.root / "x" / ".lock").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    checks = verify(collection.config(), n_sample=0, n_threads=1)
    assert [check for check in checks if check.state == "FAILED"] == []


def test_a_run_that_starts_during_verification_is_noticed(collection):
    (collection.root / "x" / ".lock").touch()
    checks = verify(collection.config(), n_sample=0, n_threads=1)
    next(checks)
    with open(collection.root / "x" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(InputError, match="a run is in progress"):
            list(checks)
    checks = verify(collection.config(), n_sample=0, n_threads=1)
    next(checks)
    (collection.folder / "plan.tsv").touch()
    with pytest.raises(InputError, match=r"^a run took place during verification; verify again$"):
        list(checks)


def test_a_database_that_never_existed_is_reported(tmp_path, made):
    found = made.verify(output_embeddings_db=str(tmp_path / "y.sqlite"))
    state, text = found["database"]
    assert state == "FAILED"
    database = str(tmp_path / "y.sqlite")
    assert text == f"{database!r} does not exist, and has no shards: run the workflow, or name another database"
    assert found["shards"] == ("ok", "0 shards: lists and databases intact, as merged")
    assert list(tmp_path.iterdir()) == []
