"""Damaged rows and shards are named, with a fix that works."""

import os
import re
import sqlite3

import numpy as np
import pytest
from verified import UUID

from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.util.files import read_json, write_json

pytest_plugins = "verified"


@pytest.mark.parametrize(
    ("blob", "fault"),
    [
        (pack_embedding(np.full(48, np.nan)), "not finite"),
        (pack_embedding(np.full(48, np.inf)), "not finite"),
        (pack_embedding(np.full(48, 1e30)), "not of unit length"),
        (pack_embedding(np.zeros(48)), "not of unit length"),
        (pack_embedding(np.ones(49) / 7), "not 48 float32 values in msgpack"),
        (b"garbage", "not 48 float32 values in msgpack"),
        (pack_embedding(np.ones(48) / 48**0.5).replace(b"<f4", b">f4"), "not 48 float32 values in msgpack"),
    ],
)
def test_a_row_that_is_not_an_embedding_is_named(collection, blob, fault):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?", (blob, UUID(3)))
    collection.stamp_rows()
    name, text = collection.failed()
    assert name == "embeddings"
    assert text.startswith(f"1 row {fault} ({UUID(3)}): move '{collection.database}' aside and run the workflow")
    collection.rebuild()
    assert collection.passes()


def test_the_first_of_many_rows_are_named(collection):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = x'00'")
    collection.stamp_rows()
    _, text = collection.failed()
    assert f"7 rows not 48 float32 values in msgpack ({UUID(0)}, {UUID(1)}, {UUID(2)}, ...): move" in text


@pytest.mark.parametrize("value", ["text", 3])
def test_a_row_of_another_type_is_reported(collection, value):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?", (value, UUID(3)))
    found = collection.verify(sample=20)
    assert {name for name, (state, _) in found.items() if state == "FAILED"} == {"database"}
    expected = (
        rf"1 value that no run writes \(T_EMBEDDINGS.EMBEDDING, row \d\): move '{collection.database}' aside and run"
    )
    assert re.match(expected, found["database"][1])


def test_a_row_changed_outside_the_workflow_is_noticed(collection):
    collection.sql(
        "UPDATE T_EMBEDDINGS SET EMBEDDING = (SELECT EMBEDDING FROM T_EMBEDDINGS WHERE UUID = ?) WHERE UUID = ?",
        (UUID(1), UUID(2)),
    )
    name, text = collection.failed()
    assert name == "digest"
    assert re.match(
        r"rows were changed outside the workflow \(found 7 with digest \w{8}, stored 7 with \w{8}\): ", text
    )
    assert text.endswith(f": move '{collection.database}' aside and run the workflow to rebuild it from the shards")
    collection.rebuild()
    assert collection.passes()


@pytest.mark.parametrize("key", ["digest", "n_embeddings"])
def test_a_receipt_of_another_database_is_noticed(collection, key):
    receipt = collection.folder / "embeddings.json"
    write_json(receipt, {**read_json(receipt), key: 0})
    os.utime(collection.folder / "map_stored.json")
    assert collection.failed() == (
        "digest",
        f"'{receipt}' belongs to another database: delete '{receipt}' and run the workflow",
    )
    receipt.unlink()
    collection.run()
    assert collection.passes()


def test_a_missing_receipt_is_recreated(collection):
    receipt = collection.folder / "embeddings.json"
    receipt.unlink()
    assert collection.verify()["digest"] == (
        "FAILED",
        f"'{receipt}' is missing or damaged: delete '{receipt}' and run the workflow",
    )
    collection.run()
    assert collection.passes()


def damage_shard(collection, how):
    database, shard_list = (collection.folder / name for name in ("embeddings/000002.sqlite", "shards/000002.tsv"))
    match how:
        case "missing":
            database.unlink()
        case "garbage":
            database.write_bytes(b"no database " * 999)
        case "cut off":
            database.write_bytes(database.read_bytes()[:20_000])
        case "another row":
            collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = x'00'", database=database)
        case "a text":
            collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = 'text'", database=database)
        case "another index":
            collection.sql("CREATE TABLE more (x)", database=database)
            collection.sql("INSERT INTO more VALUES (NULL)", database=database)
            connection = sqlite3.connect(database)
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE more (x NOT NULL)' WHERE name = 'more'")
            connection.commit()
            connection.close()
        case "no list":
            shard_list.unlink()
        case "damaged list":
            shard_list.write_text("damaged")
        case "another merged":
            collection.sql("UPDATE T_SHARDS SET DIGEST = 'x' WHERE SHARD = '000002'")
    return database, shard_list


@pytest.mark.parametrize(
    ("how", "what"),
    [
        *((how, "1 shard database missing or damaged ({database})") for how in ("missing", "garbage", "cut off")),
        *((how, "1 shard database missing or damaged ({database})") for how in ("another row", "a text")),
        ("another index", "1 shard database missing or damaged ({database})"),
        ("no list", "1 shard with missing or damaged list ({shard_list} and {database})"),
        ("damaged list", "1 shard with missing or damaged list ({shard_list} and {database})"),
        ("another merged", "1 shard database other than the merged one ({database})"),
    ],
)
def test_every_shard_has_a_list_and_an_intact_database(collection, how, what):
    database, shard_list = damage_shard(collection, how)
    receipt = collection.folder / "embeddings.json"
    what = what.format(database=database, shard_list=shard_list)
    assert collection.failed() == ("shards", f"{what}: delete these and '{receipt}', and run the workflow")
    for path in (database, receipt, *([shard_list] if "list" in how else [])):
        path.unlink(missing_ok=True)
    collection.run()
    assert collection.passes()


def test_a_recomputed_shard_waits_for_its_merge(collection):
    collection.sql("UPDATE T_SHARDS SET DIGEST = 'x' WHERE SHARD = '000002'")
    os.utime(collection.folder / "embeddings" / "000002.sqlite")
    name, text = collection.failed()
    assert name == "shards"
    assert text.endswith("000002.sqlite): run the workflow")
    collection.run()
    assert collection.passes()


def test_shards_are_checked_without_the_database(collection):
    collection.database.write_bytes(b"no database " * 999)
    damage_shard(collection, "garbage")
    found = collection.verify()
    assert {name for name, (state, _) in found.items() if state == "FAILED"} == {"database", "shards"}
