"""Merge shard databases into the tables of the database, inside a transaction.

Every image's row comes from the shard that owns it. Of an image that has gone, the newest shard that tells its fate has
its row. The digest of all rows follows what is put in and taken out, so that a merge costs what it brings, and a table
that something else has changed can be told (`verify`).
"""

import json
import sqlite3
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TypeVar

from sqlalchemy import TEXT, Column, Connection, MetaData, Table

from .database import RowsDigest, Tables, digest_rows, read_provenance, row_digest
from .files import printable, read_tsv
from .plan import MANIFEST_COLUMNS
from .shard_database import ShardFailure, chunks
from .shard_reading import ShardRows, read_shard

# The manifest as a table of the transaction, so that memory does not grow with the collection.
manifest_table = Table(
    "MANIFEST",
    MetaData(),
    Column("UUID", TEXT, primary_key=True),
    Column("PATH", TEXT),
    Column("SHARD", TEXT),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,  # one tree instead of two
)
_Item = TypeVar("_Item")
_GIVEN = "UUID IN (SELECT value FROM json_each(?))"


def load_manifest(connection: Connection, path: str | Path) -> None:
    """Make the manifest a table of this connection."""
    connection.exec_driver_sql("PRAGMA temp.cache_size = -32000")
    manifest_table.create(connection)
    rows = ((uuid, printable(file), shard) for uuid, file, _, _, shard in read_tsv(path, MANIFEST_COLUMNS))
    for chunk in chunks(rows):
        _insert(connection.connection.cursor(), "MANIFEST (UUID, PATH, SHARD)", chunk)


class Merge:
    """Bring the rows of shards into the tables of an embedding type, beside a loaded manifest.

    Parameters
    ----------
    connection : Connection
        In a transaction for writing.
    embedding_type : str
    keep : bool
        Keep rows of images that have gone.

    Attributes
    ----------
    n_merged, n_deleted : int
        Embeddings that came from shards, and that were dropped.
    """

    def __init__(self, connection: Connection, embedding_type: str, *, keep: bool):
        self.n_merged = self.n_deleted = 0
        self._type, self._keep = embedding_type, keep
        # The driver's own cursor: SQLAlchemy would take most of the time.
        self._cursor = connection.connection.cursor()
        tables = Tables(embedding_type)
        self._embeddings, self._images, self._failures = tables.embeddings, tables.images, tables.failures
        recorded = read_provenance(connection, embedding_type)
        all_tables = (self._embeddings, self._images, self._failures)
        self._was_empty = not any(
            self._cursor.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in all_tables
        )
        if recorded.get("embeddings_rows") == str(self._n_rows()):
            self._digest = RowsDigest(recorded["embeddings_digest"])
        else:  # the first merge, or one into rows that came from elsewhere
            self._digest = RowsDigest(digest_rows(connection, embedding_type)[1])

    def take(self, shards: dict[str, str]) -> None:
        """Take over the rows of shards: of the images that they own, and of those that have gone.

        Parameters
        ----------
        shards : dict
            Path of the shard database by the shard's name, the oldest first.
        """
        read = ((shard, *part) for shard, path in shards.items() for part in read_shard(path, self._type))
        for shard, rows, failures in _ahead(read):
            if rows:
                self._take_rows(shard, rows)
            self._take_failures(shard, failures)

    def forget(self) -> None:
        """Drop rows of images that have gone, or that are there under another spelling of their UUID."""
        gone = "UUID NOT IN (SELECT UUID FROM MANIFEST)"
        self._cursor.execute(f"DELETE FROM {self._failures} WHERE {gone}")
        rows = self._cursor.execute(
            f"SELECT e.UUID, coalesce(SHARD, '') FROM {self._embeddings} e LEFT JOIN {self._images} i"
            f" ON i.UUID = e.UUID WHERE e.{gone} ORDER BY 2, 1"
        ).fetchall()
        if not rows:
            return
        dropped = [uuid for uuid, _ in rows]
        if self._keep:
            newest = {_spelling(uuid): uuid for uuid in dropped}
            there = self._cursor.execute("SELECT UUID FROM MANIFEST")
            respelled = {spelling for (uuid,) in there if (spelling := _spelling(uuid)) in newest}
            dropped = [u for u in dropped if newest[_spelling(u)] != u or _spelling(u) in respelled]
        self._drop(dropped)
        self.n_deleted += len(dropped)

    def totals(self) -> tuple[int, str]:
        """Count the embeddings, and digest them."""
        return self._n_rows(), str(self._digest)

    def _take_rows(self, shard: str, rows: ShardRows) -> None:
        paths = self._owned(rows.uuids, shard)
        gone = []
        if len(paths) < len(rows):
            others = {image[0]: image[7] for image in rows.images if image[0] not in paths}
            gone = self._gone(others, shard)
            paths |= {uuid: others[uuid] for uuid in gone}
            rows = rows.only(paths)
        if not rows:
            return
        # Where there was nothing, only photos that have gone can be in several shards.
        self._drop(gone if self._was_empty else rows.uuids)
        self._cursor.execute(
            f"INSERT INTO {self._embeddings} (UUID, EMBEDDING)"
            " SELECT value, substr(:embeddings, 1 + key * :n_bytes, :n_bytes) FROM json_each(:uuids)",
            {"embeddings": rows.embeddings, "n_bytes": rows.n_bytes, "uuids": json.dumps(rows.uuids)},
        )
        into = f"{self._images} (UUID, SIZE, MTIME_NS, DIGEST, WIDTH, HEIGHT, TAKEN, PATH, SHARD)"
        _insert(self._cursor, into, [(*image[:7], paths[image[0]], shard) for image in rows.images])
        self._digest.add(sum(rows.digests))
        self.n_merged += len(rows)

    def _take_failures(self, shard: str, failures: list[ShardFailure]) -> None:
        paths = self._owned([failure.uuid for failure in failures], shard)
        others = {failure.uuid for failure in failures if failure.uuid not in paths}
        self._drop([*paths, *self._gone(others, shard)])
        into = f"{self._failures} (UUID, PATH, REASON, MESSAGE, SHARD)"
        failures = [failure._replace(path=paths[failure.uuid]) for failure in failures if failure.uuid in paths]
        _insert(self._cursor, into, [(*failure, shard) for failure in failures])

    def _owned(self, uuids: list[str], shard: str) -> dict[str, str]:
        """Choose those of a shard's images that it owns, and say where they are today."""
        query = "SELECT json_group_object(UUID, MANIFEST.PATH) FROM json_each(?) JOIN MANIFEST ON UUID = value"
        given = [json.dumps(uuids), shard]
        return json.loads(self._cursor.execute(f"{query} WHERE SHARD = ?", given).fetchone()[0])

    def _gone(self, uuids: Collection[str], shard: str) -> list[str]:
        """Choose those that have gone and may stay, and of which no newer shard has a row."""
        if not (uuids and self._keep):
            return []
        query = (
            "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT UUID FROM MANIFEST)"
            f" AND value NOT IN (SELECT UUID FROM {self._images} WHERE SHARD > ?)"
        )
        return [uuid for (uuid,) in self._cursor.execute(query, [json.dumps([*uuids]), shard])]

    def _drop(self, uuids: list[str]) -> None:
        """Take out whatever is there of images."""
        if not uuids:
            return
        given = [json.dumps(uuids)]
        for row in self._cursor.execute(f"SELECT UUID, EMBEDDING FROM {self._embeddings} WHERE {_GIVEN}", given):
            self._digest.remove(row_digest(*row))
        for table in (self._embeddings, self._images, self._failures):
            self._cursor.execute(f"DELETE FROM {table} WHERE {_GIVEN}", given)

    def _n_rows(self) -> int:
        return self._cursor.execute(f"SELECT count(*) FROM {self._embeddings}").fetchone()[0]


def _insert(cursor: sqlite3.Cursor, into: str, rows: list[tuple]) -> None:
    if rows:  # by one statement, which takes two thirds of the time of one for each
        row = f"({', '.join('?' * len(rows[0]))})"
        cursor.execute(f"INSERT INTO {into} VALUES {', '.join([row] * len(rows))}", [*chain(*rows)])


def _ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield items; a thread fetches the next one while the caller has this one."""
    with ThreadPoolExecutor(1, "ahead") as pool:
        fetched = pool.submit(next, items, None)
        try:
            while (item := fetched.result()) is not None:
                fetched = pool.submit(next, items, None)
                yield item
        finally:
            pool.submit(items.close)


def _spelling(uuid: str) -> str:
    return uuid.replace("-", "").lower()
