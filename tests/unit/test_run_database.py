import os
import sqlite3

import pytest

from crossfilter_inference.db.tables import FORMAT_KEY, FORMAT_VERSION
from crossfilter_inference.errors import InputError
from crossfilter_inference.run import database as state
from crossfilter_inference.util.files import write_json


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
        rows = [("embeddings_digest", digest), (FORMAT_KEY, str(FORMAT_VERSION))]
        connection.executemany("INSERT INTO T_PROVENANCE VALUES (?, ?)", rows)
    connection.close()


@pytest.mark.parametrize(
    ("database", "expected"),
    [("ours", 7), ("another", 8), ("missing", 8), ("empty", 8), ("garbage", 8), ("locked", 7)],
)
def test_the_generation_rises_if_the_database_was_replaced(tmp_path, database, expected):
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


@pytest.mark.parametrize("path", ["SIGLIP2/embeddings/000001.sqlite", "SIGLIP2/new.sqlite", "SIGLIP2/a/b/c.sqlite"])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_database_in_the_state_of_another_collection_is_refused(tmp_path, path, through_a_link):
    state_of_other = tmp_path / "photos" / "SIGLIP2"
    (state_of_other / "embeddings").mkdir(parents=True)
    (state_of_other / "shards").mkdir()
    (state_of_other / "encoder.json").write_text("x")
    (tmp_path / "photos" / ".lock").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    database = tmp_path / ("link" if through_a_link else "photos") / path
    with pytest.raises(InputError, match=r"it is in .*photos', the state folder of another collection"):
        state.check_database_path(str(database), [])
    state.check_database_path(str(tmp_path / "photos.sqlite"), [])


def test_a_path_that_ends_like_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="it is a folder"):
        state.check_database_path(f"{tmp_path}/new/", [])


def test_without_a_receipt_the_generation_is_the_first(tmp_path):
    assert state.generation(str(tmp_path / "x.sqlite"), str(tmp_path / "receipt.json"), "T", "digest") == 1


@pytest.mark.parametrize("receipt", ["", "[]", '{"generation": 3}'])
def test_a_damaged_receipt_is_refused(tmp_path, receipt):
    (tmp_path / "receipt.json").write_text(receipt)
    with pytest.raises(InputError, match=r"receipt\.json' is damaged; delete it, and the next run rebuilds it"):
        state.generation(str(tmp_path / "x.sqlite"), str(tmp_path / "receipt.json"), "T", "digest")


def test_a_database_whose_path_snakemake_cannot_record_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot write to '.*caf\\udce9\.sqlite' \(its path is not UTF-8"):
        state.check_database_path(str(tmp_path / os.fsdecode(b"caf\xe9.sqlite")), [])
