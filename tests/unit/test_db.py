import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import sqlalchemy as sa
from conftest import leave_hot_journal

from crossfilter_inference.db import connect as connections
from crossfilter_inference.db.connect import UnusableDatabase, reading, recover, writing, written_early
from crossfilter_inference.db.embeddings import pack_embedding, read_embeddings, unpack_embedding
from crossfilter_inference.db.provenance import with_prefix, write_provenance
from crossfilter_inference.db.tables import Tables, read_provenance
from crossfilter_inference.errors import InputError
from crossfilter_inference.shards.shard import read_shard_provenance


@pytest.mark.parametrize("n_dims", [1, 15, 16, 64, 768, 1280, 70_000])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_a_row_is_what_msgpack_numpy_writes(n_dims, dtype):
    vector = np.random.default_rng(n_dims).normal(size=n_dims)
    blob = pack_embedding(vector.astype(dtype))
    assert blob == msgpack.packb(vector.astype("<f4"), default=msgpack_numpy.encode)
    assert np.array_equal(msgpack.unpackb(blob, object_hook=msgpack_numpy.decode), vector.astype("<f4"))
    assert np.array_equal(unpack_embedding(blob), vector.astype("<f4"))
    assert blob.endswith(vector.astype("<f4").tobytes())


def test_the_tables_are_the_originals(tmp_path):
    tables = Tables("SIGLIP2")
    with writing(tmp_path / "x.sqlite") as connection:
        tables.create(connection, tables.embeddings, tables.umap_model, tables.umap_haversine)
    connection = sqlite3.connect(tmp_path / "x.sqlite")
    columns = {
        table: [(*row[1:4], row[5]) for row in connection.execute(f"PRAGMA table_info({table})")]
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    connection.close()
    assert columns == {
        "SIGLIP2_EMBEDDINGS": [("UUID", "TEXT", 1, 1), ("EMBEDDING", "BLOB", 1, 0)],
        "SIGLIP2_UMAP_MODEL": [("MODEL", "BLOB", 1, 0)],
        "SIGLIP2_UMAP_HAVERSINE": [
            ("UUID", "TEXT", 1, 1),
            ("SEMANTIC_EMBEDDING_UMAP_LATITUDE", "REAL", 0, 0),
            ("SEMANTIC_EMBEDDING_UMAP_LONGITUDE", "REAL", 0, 0),
        ],
    }


def write_rows(path, rows):
    tables = Tables("T")
    with writing(path) as connection:
        tables.create(connection, tables.embeddings)
        values = [{"UUID": uuid, "EMBEDDING": pack_embedding(vector)} for uuid, vector in rows.items()]
        if values:
            connection.execute(sa.insert(tables.embeddings), values)


def test_all_embeddings_come_as_one_matrix_in_order_of_uuid(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    write_rows(tmp_path / "x.sqlite", dict(zip("ecadb", vectors, strict=True)))
    with reading(tmp_path / "x.sqlite") as connection:
        uuids, embeddings = read_embeddings(connection, "T")
    assert uuids == list("abcde")
    assert np.array_equal(embeddings, vectors[[2, 4, 1, 3, 0]])
    assert embeddings.dtype == np.float32


def test_a_table_without_rows_is_an_empty_matrix(tmp_path):
    write_rows(tmp_path / "x.sqlite", {})
    with reading(tmp_path / "x.sqlite") as connection:
        uuids, embeddings = read_embeddings(connection, "T")
    assert uuids == []
    assert embeddings.shape == (0, 0)


def test_embeddings_of_different_length_are_refused(tmp_path):
    write_rows(tmp_path / "x.sqlite", {"a": np.ones(3), "b": np.ones(4)})
    with reading(tmp_path / "x.sqlite") as connection, pytest.raises(InputError, match="T_EMBEDDINGS mixes embeddings"):
        read_embeddings(connection, "T")


def test_a_failed_transaction_leaves_nothing(tmp_path):
    path = tmp_path / "x.sqlite"
    write_rows(path, {"a": np.ones(3)})
    tables = Tables("T")
    with pytest.raises(ZeroDivisionError), writing(path) as connection:
        connection.execute(sa.delete(tables.embeddings))
        tables.create(connection, tables.shards)
        raise ZeroDivisionError
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM T_EMBEDDINGS").fetchone() == (1,)
    assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("T_EMBEDDINGS",)]
    connection.close()


def test_a_reader_cannot_write(tmp_path):
    write_rows(tmp_path / "x.sqlite", {"a": np.ones(3)})
    with (
        pytest.raises(UnusableDatabase, match="readonly"),
        reading(tmp_path / "x.sqlite") as connection,
    ):
        connection.execute(sa.delete(Tables("T").embeddings))


def test_an_unwritable_output_is_one_line(tmp_path):
    (tmp_path / "x.sqlite").write_text("no database, but long enough to be mistaken for one" * 30)
    with (
        pytest.raises(InputError, match=r"cannot write to the database .* \(file is not a database\); move it aside"),
        writing(tmp_path / "x.sqlite"),
    ):
        pass


def test_recovery_rolls_back_a_killed_writer(tmp_path):
    path = tmp_path / "x.sqlite"
    write_rows(path, {"a": np.ones(3)})
    leave_hot_journal(path)
    with pytest.raises(UnusableDatabase, match="readonly"), reading(path) as connection:
        read_embeddings(connection, "T")
    recover(path)
    with reading(path) as connection:
        uuids, _ = read_embeddings(connection, "T")
    assert uuids == ["a"]


def test_without_an_unfinished_transaction_recovery_only_reads(tmp_path):
    path = tmp_path / "x.sqlite"
    with pytest.raises(UnusableDatabase, match="unable to open"):
        recover(path)
    assert list(tmp_path.iterdir()) == []
    path.write_text("no database, but long enough to be mistaken for one" * 30)
    with pytest.raises(UnusableDatabase, match=r"cannot read .* \(file is not a database\)"):
        recover(path)


def test_recovery_does_not_wait_for_readers(tmp_path):
    path = tmp_path / "x.sqlite"
    write_rows(path, {"a": np.ones(3)})
    Path(f"{path}-journal").touch()
    with reading(path) as connection:
        read_embeddings(connection, "T")
        recover(path)


def test_provenance_is_replaced_by_prefix(tmp_path):
    tables = Tables("T")
    with writing(tmp_path / "x.sqlite") as connection:
        assert read_provenance(connection, "T") == {}
        tables.create(connection, tables.provenance)
        write_provenance(connection, "T", "encoder_", {"model": "a", "old": "x"})
        write_provenance(connection, "T", "map_", {"digest": "m"})
        write_provenance(connection, "T", "encoder_", {"model": "b"})
        assert read_provenance(connection, "T") == {"encoder_model": "b", "map_digest": "m"}
        assert with_prefix("map_", read_provenance(connection, "T")) == {"digest": "m"}


def test_a_database_that_is_written_early_stays_locked(tmp_path, monkeypatch):
    def sync(descriptor):
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError("a disk that has a bad moment")

    synced, path = [], tmp_path / "x.sqlite"
    monkeypatch.setattr(connections, "_SYNC_SECONDS", 0.01)
    monkeypatch.setattr(os, "fsync", sync)
    other = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
    )
    command = [sys.executable, "-c", other, path]
    with written_early(path), writing(path) as connection:
        connection.exec_driver_sql("CREATE TABLE a (b)")
        while len(synced) < 9:
            time.sleep(0.01)
        refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "database is locked" in refused.stderr
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def make_undecodable(path):
    """Damage the schema so that SQLite's message about it is not UTF-8."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE QQQQ (VALUE)")
    connection.commit()
    connection.close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE QQQQ", b"CREATE TABLX QQQQ").replace(b"QQQQ", b"QQ\xafQ"))


@pytest.mark.parametrize("action", [reading, writing])
def test_a_schema_that_is_not_text_is_damage_with_a_way_out(tmp_path, action):
    path = tmp_path / "x.sqlite"
    make_undecodable(path)
    with (
        pytest.raises(UnusableDatabase, match=r"malformed database schema: it is not UTF-8\); move it aside, and run"),
        action(path) as connection,
    ):
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")


def test_such_a_shard_is_damaged(tmp_path):
    make_undecodable(tmp_path / "000001.sqlite")
    with pytest.raises(InputError, match="damaged"):
        read_shard_provenance(tmp_path / "000001.sqlite", "T")
