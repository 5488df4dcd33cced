"""Every row and shard that is damaged is told in its own line, with a way out that mends it."""

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
    ("blob", "what"),
    [
        (pack_embedding(np.full(48, np.nan)), "rows are not finite"),
        (pack_embedding(np.full(48, np.inf)), "rows are not finite"),
        (pack_embedding(np.full(48, 1e30)), "rows are not of length 1"),
        (pack_embedding(np.zeros(48)), "rows are not of length 1"),
        (pack_embedding(np.ones(49) / 7), "rows are not 48 float32 numbers in msgpack"),
        (b"garbage", "rows are not 48 float32 numbers in msgpack"),
        (pack_embedding(np.ones(48) / 48**0.5).replace(b"<f4", b">f4"), "rows are not 48 float32 numbers in msgpack"),
    ],
)
def test_a_row_that_is_no_embedding_is_named(collection, blob, what):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?", (blob, UUID(3)))
    collection.stamp_rows()
    name, text = collection.failed()
    assert name == "embeddings"
    assert text.startswith(f"1 {what} ({UUID(3)}): delete '{collection.database}' and run snakemake")
    collection.rebuild()
    assert collection.is_well()


def test_of_many_rows_the_first_are_named(collection):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = x'00'")
    collection.stamp_rows()
    _, text = collection.failed()
    assert f"7 rows are not 48 float32 numbers in msgpack ({UUID(0)}, {UUID(1)}, {UUID(2)}, ...): delete" in text


@pytest.mark.parametrize("value", ["text", 3])
def test_a_row_of_another_type_is_no_traceback(collection, value):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?", (value, UUID(3)))
    found = collection.verify(sample=20)
    assert {name for name, (state, _) in found.items() if state == "FAILED"} == {"embeddings", "digest", "sample"}
    assert found["embeddings"][1].startswith(f"1 rows are not 48 float32 numbers in msgpack ({UUID(3)}): delete")
    assert "there are values that no run has written" in found["digest"][1]


def test_a_row_that_something_else_has_changed_is_noticed(collection):
    collection.sql(
        "UPDATE T_EMBEDDINGS SET EMBEDDING = (SELECT EMBEDDING FROM T_EMBEDDINGS WHERE UUID = ?) WHERE UUID = ?",
        (UUID(1), UUID(2)),
    )
    name, text = collection.failed()
    assert name == "digest"
    assert re.match(r"something else has changed rows: 7 with digest \w{8} are there, 7 with \w{8} were stored: ", text)
    assert text.endswith(f"delete '{collection.database}' and run snakemake, it is rebuilt from the shards")
    collection.rebuild()
    assert collection.is_well()


@pytest.mark.parametrize("key", ["digest", "n_embeddings"])
def test_a_receipt_of_another_database_is_noticed(collection, key):
    receipt = collection.folder / "embeddings.json"
    write_json(receipt, {**read_json(receipt), key: 0})
    os.utime(collection.folder / "map_stored.json")
    assert collection.failed() == (
        "digest",
        f"'{receipt}' is of another database: delete '{receipt}' and run snakemake",
    )
    receipt.unlink()
    collection.run()
    assert collection.is_well()


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
        *((how, "1 shard databases are missing or damaged ({database})") for how in ("missing", "garbage", "cut off")),
        *((how, "1 shard databases are missing or damaged ({database})") for how in ("another row", "a text")),
        ("another index", "1 shard databases are missing or damaged ({database})"),
        ("no list", "1 shards without their list ({shard_list} and {database})"),
        ("damaged list", "1 shards without their list ({shard_list} and {database})"),
        ("another merged", "1 shard databases are not those that were merged ({database})"),
    ],
)
def test_every_shard_has_its_list_and_its_sound_database(collection, how, what):
    database, shard_list = damage_shard(collection, how)
    receipt = collection.folder / "embeddings.json"
    what = what.format(database=database, shard_list=shard_list)
    assert collection.failed() == ("shards", f"{what}: delete these, and '{receipt}', and run snakemake")
    for path in (database, receipt, *([shard_list] if "list" in how else [])):
        path.unlink(missing_ok=True)
    collection.run()
    assert collection.is_well()


def test_a_shard_that_was_embedded_anew_waits_for_its_merge(collection):
    collection.sql("UPDATE T_SHARDS SET DIGEST = 'x' WHERE SHARD = '000002'")
    os.utime(collection.folder / "embeddings" / "000002.sqlite")
    name, text = collection.failed()
    assert name == "shards"
    assert text.endswith("000002.sqlite): run snakemake")
    collection.run()
    assert collection.is_well()


def test_shards_are_looked_at_also_without_their_database(collection):
    collection.database.write_bytes(b"no database " * 999)
    damage_shard(collection, "garbage")
    found = collection.verify()
    assert {name for name, (state, _) in found.items() if state == "FAILED"} == {"database", "shards"}
