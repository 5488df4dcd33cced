"""Merge shard databases into the database: one writer, one transaction.

The database is a function of the shard databases and the manifest: every image's row comes from the shard that owns the
image. Rows of missing images stay, except those that the plan tells to delete (`missing_images: delete`). If one stays,
its row comes from the newest shard that has an outcome for it. The digest of all rows is updated with each row that is
added or removed. So the cost of a merge is that of its new rows, and `verify` can detect changes by other programs.
"""

import json
import sqlite3
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import TEXT, Column, Connection, MetaData, Table

from ..db.connect import chunks, driver_cursor, writing, written_early
from ..db.digest import RowsDigest, digest_rows, row_digest
from ..db.photos_view import create_photos_view
from ..db.provenance import recorded_encoder, write_provenance
from ..db.tables import Row, Tables, migrate, read_provenance
from ..encoders.identity import is_another_version, provenance_digest, provenance_to_text, read_encoder
from ..util.files import read_tsv, write_json, write_tsv
from ..util.text import stored_path
from .guard import check_shard, gone_rows_of_another_encoder, gone_rows_of_unknown_origin
from .plan import MANIFEST_COLUMNS, RETIRED_COLUMNS, shard_lists
from .shard import ShardRows, as_columns, outcomes, read_shard, read_shard_provenance

# Raise it when the rows of a database would change for the same shards and the same manifest.
STORE_VERSION = 2

# A temporary table, so that memory does not grow with the collection.
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
    """Load the manifest into a temporary table of this connection."""
    connection.exec_driver_sql("PRAGMA temp.cache_size = -32000")
    manifest_table.create(connection, checkfirst=False)  # it hides a user's table of the same name
    cursor = driver_cursor(connection)
    for chunk in chunks(read_tsv(path, MANIFEST_COLUMNS)):
        columns = dict(zip(MANIFEST_COLUMNS, zip(*chunk, strict=True), strict=True))
        _insert(cursor, manifest_table, {**columns, "PATH": map(stored_path, columns["PATH"])})


class Merge:
    """Merge the rows of shards into the tables of an embedding type; `load_manifest` comes first.

    Parameters
    ----------
    connection : Connection
        In a transaction for writing.
    embedding_type : str
    deleted : set of str
        Missing images whose rows are deleted.

    Attributes
    ----------
    n_merged, n_deleted : int
        Embeddings that were merged from shards, and that were deleted.
    """

    def __init__(self, connection: Connection, embedding_type: str, *, deleted: Set[str]):
        self.n_merged = self.n_deleted = 0
        self._type, self._deleted = embedding_type, deleted
        self._cursor = driver_cursor(connection)
        tables = Tables(embedding_type)
        self._embeddings, self._images, self._failures = tables.embeddings, tables.images, tables.failures
        self._merged = set(connection.scalars(sa.select(tables.shards.c.SHARD)))
        recorded = read_provenance(connection, embedding_type)
        all_tables = (self._embeddings, self._images, self._failures)
        self._was_empty = not any(
            self._cursor.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in all_tables
        )
        if recorded.get("embeddings_rows") == str(self._n_rows()):
            self._digest = RowsDigest(recorded["embeddings_digest"])
        else:  # the first merge, or another program has changed rows
            self._digest = RowsDigest(digest_rows(connection, embedding_type)[1])

    def take(self, shards: dict[str, str]) -> None:
        """Merge the rows of shards: of the images that they own, and of missing images.

        Parameters
        ----------
        shards : dict
            Path of each shard database, by the shard's name; the oldest first.
        """
        read = ((shard, *part) for shard, path in shards.items() for part in read_shard(path, self._type))
        for shard, rows, failures in _ahead(read):
            if rows:
                self._take_rows(shard, rows)
            self._take_failures(shard, failures)

    def forget(self) -> None:
        """Delete the rows of removed images, and rows whose image exists under another spelling of its UUID."""
        gone = "UUID NOT IN (SELECT UUID FROM MANIFEST)"
        self._cursor.execute(f"DELETE FROM {self._failures} WHERE {gone}")
        rows = self._cursor.execute(
            f"SELECT e.UUID, coalesce(i.SHARD, '') FROM {self._embeddings} e LEFT JOIN {self._images} i"
            f" ON i.UUID = e.UUID WHERE e.{gone} ORDER BY 2, 1"
        ).fetchall()
        if not rows:
            return
        newest = {_spelling(uuid): uuid for uuid, _ in rows}
        there = self._cursor.execute("SELECT UUID FROM MANIFEST")
        respelled = {spelling for (uuid,) in there if (spelling := _spelling(uuid)) in newest}
        kept = {uuid for spelling, uuid in newest.items() if spelling not in respelled} - self._deleted
        dropped = [uuid for uuid, _ in rows if uuid not in kept]
        self._drop(dropped)
        self.n_deleted += len(dropped)

    def totals(self) -> tuple[int, str]:
        """Return the number of embeddings and their digest."""
        return self._n_rows(), str(self._digest)

    def _take_rows(self, shard: str, rows: ShardRows) -> None:
        paths = self._owned(rows.uuids, shard)
        gone = []
        if len(paths) < len(rows):
            others = {u: path for u, path in zip(rows.uuids, rows.images["PATH"], strict=True) if u not in paths}
            gone = self._gone(others, shard)
            paths |= {uuid: others[uuid] for uuid in gone}
            rows = rows.only(paths)
        if not rows:
            return
        # In a new database, only rows of missing photos can exist already, from an older shard.
        self._drop(gone if self._was_empty else rows.uuids)
        self._cursor.execute(
            f"INSERT INTO {self._embeddings} (UUID, EMBEDDING)"
            " SELECT value, substr(:embeddings, 1 + key * :n_bytes, :n_bytes) FROM json_each(:uuids)",
            {"embeddings": rows.embeddings, "n_bytes": rows.n_bytes, "uuids": json.dumps(rows.uuids)},
        )
        today = {"PATH": [paths[uuid] for uuid in rows.uuids], "SHARD": [shard] * len(rows)}
        _insert(self._cursor, self._images, {**rows.images, **today})
        self._digest.add(sum(rows.digests))
        self.n_merged += len(rows)

    def _take_failures(self, shard: str, failures: list[Row]) -> None:
        uuids = {failure["UUID"] for failure in failures}
        paths = self._owned([*uuids], shard)
        self._drop([*paths, *self._gone(uuids - paths.keys(), shard)])
        owned = [{**row, "PATH": paths[row["UUID"]], "SHARD": shard} for row in failures if row["UUID"] in paths]
        if owned:
            _insert(self._cursor, self._failures, as_columns(owned))

    def _owned(self, uuids: list[str], shard: str) -> dict[str, str]:
        """Select the images that a shard owns, and return their current paths by UUID."""
        query = "SELECT json_group_object(UUID, MANIFEST.PATH) FROM json_each(?) JOIN MANIFEST ON UUID = value"
        given = [json.dumps(uuids), shard]
        paths: dict[str, str] = json.loads(self._cursor.execute(f"{query} WHERE SHARD = ?", given).fetchone()[0])
        return paths

    def _gone(self, uuids: Collection[str], shard: str) -> list[str]:
        """Select the missing images whose rows are kept, and of which no newer shard has a row.

        If the shard was merged before and the table has no row of an image, a newer shard has a failure of it.
        """
        uuids = [uuid for uuid in uuids if uuid not in self._deleted]
        if not uuids:
            return []
        query = (
            "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT UUID FROM MANIFEST)"
            f" AND value NOT IN (SELECT UUID FROM {self._images} WHERE SHARD > ?)"
        )
        if shard in self._merged:
            query += f" AND value IN (SELECT UUID FROM {self._embeddings})"
        return [uuid for (uuid,) in self._cursor.execute(query, [json.dumps(uuids), shard])]

    def _drop(self, uuids: list[str]) -> None:
        """Delete all rows of images."""
        if not uuids:
            return
        given = [json.dumps(uuids)]
        for row in self._cursor.execute(f"SELECT UUID, EMBEDDING FROM {self._embeddings} WHERE {_GIVEN}", given):
            self._digest.remove(row_digest(*row))
        for table in (self._embeddings, self._images, self._failures):
            self._cursor.execute(f"DELETE FROM {table} WHERE {_GIVEN}", given)

    def _n_rows(self) -> int:
        return int(self._cursor.execute(f"SELECT count(*) FROM {self._embeddings}").fetchone()[0])


def _insert(cursor: sqlite3.Cursor, table: Table, columns: Mapping[str, Iterable[Any]]) -> None:
    """Insert rows, given as the values of each column of the table; other columns are ignored."""
    names = table.c.keys()
    rows = [*zip(*(columns[name] for name in names), strict=True)]
    # One statement for all rows takes two thirds of the time of one for each.
    values = ", ".join([f"({', '.join('?' * len(names))})"] * len(rows))
    cursor.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES {values}", [*chain(*rows)])


def _ahead(items: Generator[_Item, None, None]) -> Iterator[_Item]:
    """Yield items; a thread computes the next one while the caller uses this one."""
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


# Enough for the upper levels of the tables' trees: UUIDs come in random order.
_CACHE_KB = 64_000


@dataclass
class Stored:
    """What a merge changed, and the contents of the database after it."""

    n_merged: int = 0
    n_deleted: int = 0
    n_retired: int = 0
    n_embeddings: int = 0
    n_failures: int = 0


def store_embeddings(
    encoder_json: str,
    manifest: str,
    database: str,
    shards_folder: str,
    embeddings_folder: str,
    receipt: str,
    *,
    generation: int,
    deleted: Set[str],
) -> Stored:
    """Bring the database, and its format, up to date with the manifest and the shards.

    Parameters
    ----------
    encoder_json, manifest, database, receipt : str
        Paths; the receipt is written last.
    shards_folder, embeddings_folder : str
        Folders of the shard lists and of the shard databases.
    generation : int
        Number to write to the receipt.
    deleted : set of str
        UUIDs of missing images whose rows are deleted, because they are known to be removed.

    Raises
    ------
    InputError
        If rows of another encoder would be mixed with the new ones, if a shard database is missing or damaged, or if
        the database or a shard has a newer format. The database is unchanged.
    """
    encoder = read_encoder(encoder_json)
    embedding_type = encoder["name"]
    tables = Tables(embedding_type)
    Path(database).parent.mkdir(parents=True, exist_ok=True)
    with written_early(database), writing(database) as connection:
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KB}")
        migrate(connection, embedding_type)
        tables.create(connection, tables.embeddings, tables.images, tables.failures, tables.shards)
        load_manifest(connection, manifest)
        shards = _shards(connection, shards_folder, embeddings_folder)
        provenances = {shard: read_shard_provenance(path, embedding_type) for shard, path in shards.items()}
        for shard, provenance in provenances.items():
            check_shard(shards[shard], provenance, encoder)
        digests = {shard: provenance["shard_digest"] for shard, provenance in provenances.items()}
        n_adopted = sum(int(provenance.get("timing_n_adopted", 0)) for provenance in provenances.values())

        _follow_moves(connection, tables)
        merge = Merge(connection, embedding_type, deleted=deleted)
        merge.take({shard: shards[shard] for shard in _shards_to_merge(connection, tables, digests)})
        merge.forget()
        _refuse_mixture(connection, tables, encoder, n_adopted)
        retired = _retired(connection, embedding_type, shards)
        connection.execute(sa.delete(tables.shards))
        kept = [{"SHARD": shard, "DIGEST": value} for shard, value in digests.items() if shard not in retired]
        connection.execute(sa.insert(tables.shards), kept)
        stored = Stored(n_merged=merge.n_merged, n_deleted=merge.n_deleted, n_retired=len(retired))
        stored.n_embeddings, digest = merge.totals()
        stored.n_failures = connection.execute(sa.select(sa.func.count()).select_from(tables.failures)).scalar_one()
        write_provenance(connection, embedding_type, "encoder_", provenance_to_text(encoder))
        recorded = {"digest": digest, "rows": str(stored.n_embeddings)}
        write_provenance(connection, embedding_type, "embeddings_", recorded)
        create_photos_view(connection)
    write_tsv(Path(receipt).with_name("retired.tsv"), RETIRED_COLUMNS, [(shard,) for shard in sorted(retired)])
    counts = {"n_embeddings": stored.n_embeddings, "n_failures": stored.n_failures}
    write_json(receipt, {"generation": generation, "digest": digest, **counts})
    return stored


def _shards(connection: Connection, shards_folder: str, embeddings_folder: str) -> dict[str, str]:
    """Find the shard databases: of all shards that own an image, and of others whose database exists."""
    owners = set(connection.scalars(sa.select(manifest_table.c.SHARD).distinct()))
    paths = {path.stem: f"{embeddings_folder}/{path.stem}.sqlite" for path in shard_lists(shards_folder)}
    return {shard: path for shard, path in paths.items() if shard in owners or Path(path).exists()}


def _shards_to_merge(connection: Connection, tables: Tables, digests: dict[str, str]) -> list[str]:
    """Return the shards that changed, and those that own an image with a row from another shard."""
    merged = dict(connection.execute(sa.select(tables.shards)).tuples().all())
    changed = [shard for shard, digest in digests.items() if merged.get(shard) != digest]
    if len(changed) == len(digests):
        return changed
    elsewhere = sa.select(manifest_table.c.SHARD).distinct().where(~_is_merged(tables))
    return sorted({*changed, *connection.scalars(elsewhere)} & digests.keys())


def _retired(connection: Connection, embedding_type: str, shards: dict[str, str]) -> set[str]:
    """Return the shards that a rebuild of the database would not need.

    A shard with a failure of a missing photo is needed: without it, the row of an older shard would reappear.
    """
    idle = shards.keys() - set(connection.scalars(sa.select(manifest_table.c.SHARD).distinct()))
    if idle:
        idle -= set(connection.scalars(sa.select(Tables(embedding_type).images.c.SHARD).distinct()))
    there = sa.select(manifest_table.c.UUID)
    retired = set()
    for shard in idle:
        _, failed = outcomes(shards[shard], embedding_type)
        if failed <= set(connection.scalars(there.where(manifest_table.c.UUID.in_(failed)))):
            retired.add(shard)
    return retired


def _is_merged(tables: Tables) -> sa.ColumnElement[bool]:
    return sa.or_(
        *(
            sa.exists().where(table.c.UUID == manifest_table.c.UUID, table.c.SHARD == manifest_table.c.SHARD)
            for table in (tables.images, tables.failures)
        )
    )


def _follow_moves(connection: Connection, tables: Tables) -> None:
    for table in (tables.images, tables.failures):
        moved = (table.c.UUID == manifest_table.c.UUID) & (table.c.PATH != manifest_table.c.PATH)
        connection.execute(sa.update(table).values(PATH=manifest_table.c.PATH).where(moved))


def _refuse_mixture(connection: Connection, tables: Tables, encoder: dict[str, Any], n_adopted: int) -> None:
    """Refuse rows of another encoder that would stay, of missing photos."""
    name = encoder["name"]
    recorded = recorded_encoder(connection, name)
    if recorded.get("digest") == provenance_digest(encoder) or is_another_version(recorded, encoder):
        return
    gone = tables.embeddings.c.UUID.not_in(sa.select(manifest_table.c.UUID))
    if "digest" in recorded:
        if n_gone := connection.scalar(sa.select(sa.func.count()).where(gone)):
            raise gone_rows_of_another_encoder(name, n_gone, recorded, provenance_to_text(encoder))
    elif not n_adopted:
        unknown = gone & tables.embeddings.c.UUID.not_in(sa.select(tables.images.c.UUID))
        if n_unknown := connection.scalar(sa.select(sa.func.count()).where(unknown)):
            raise gone_rows_of_unknown_origin(name, n_unknown, "no photo remained to check them")
