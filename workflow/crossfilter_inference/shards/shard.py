"""A shard database: the rows of one shard, written once, published by rename, and checked when read.

It has the tables of the final database for its own images, and their thumbnails. Its provenance records the encoder
(`encoder_*`), the digests of its contents and of its list (`shard_*`), and the figures of its job (`timing_*`: the
fields of `Embedded`, and the time when it finished, in seconds since the epoch).

A shard is never migrated. The columns that an older one lacks are None in what `read_shard` yields, but for the embed
version, which is its encoder's. Its digest is of the columns that it has.

A job that writes a shard database again keeps the rows and failures of missing photos (`Remains`): nothing can replace
them. If its encoder has another embed version, the embed version of these rows tells.
"""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..db.connect import CHUNK, UnusableDatabase, chunks, driver_cursor, reading, writing
from ..db.digest import RowsDigest, row_digest
from ..db.provenance import with_prefix, write_provenance
from ..db.tables import VERSION_COLUMN, VERSION_KEY, Row, Tables, columns_in, migrate, read_provenance
from ..encoders.identity import is_another_version, provenance_digest, provenance_to_text
from ..util.files import damaged, new_part, publish, writing_to
from ..util.text import read_path

# Columns of images and failures outside the digest: the manifest has the current paths, and the file name the shard.
_NOT_DIGESTED = ("PATH", "SHARD")


@dataclass
class Embedded:
    """The numbers of a shard's images by outcome, and the times of its job.

    Times are in seconds: `loading` the encoder, `encoding`, `waiting` (the encoder for images), `decoding` (the sum
    over all workers), `writing`, and `total` (from start to end).
    """

    n_computed: int = 0
    n_copied: int = 0
    n_adopted: int = 0
    n_resumed: int = 0
    n_kept: int = 0
    n_failed: int = 0
    n_threads: int = 1
    device: str = "none"
    loading: float = 0
    encoding: float = 0
    waiting: float = 0
    decoding: float = 0
    writing: float = 0
    total: float = 0

    @property
    def images_per_second(self) -> float:
        """Finished images per second, from start to end."""
        n_done = self.n_computed + self.n_copied + self.n_adopted + self.n_failed
        return n_done / self.total if self.total else 0


def write_shard_database(
    output: str | Path,
    provenance: dict[str, Any],
    list_digest: str,
    rows: Iterable[Row],
    failures: Iterable[Row],
    counts: Embedded,
    *,
    scratch: str | Path | None = None,
) -> None:
    """Write a shard database, and publish it by rename.

    Parameters
    ----------
    output : str or Path
    provenance : dict
        The contents of `encoder.json`.
    list_digest : str
        Digest of the shard's list.
    rows : iterable of Row
        Values for all columns of the embedding, image and thumbnail tables but SHARD.
    failures : iterable of Row
        Values for all columns of the failure table but SHARD.
    counts : Embedded
        Its `writing` and `total` are completed here.
    scratch : str, Path or None
        Folder to build the database in, if SQLite must not work on the file system of `output`.

    Raises
    ------
    UnusableDatabase
        If SQLite cannot write it.
    """
    start = time.perf_counter()
    name, shard = provenance["name"], Path(output).stem
    tables = Tables(name)
    digest = ShardDigest(tables.images.c.keys(), tables.failures.c.keys())
    part = new_part(output)
    built = new_part(Path(scratch) / part.name) if scratch else part
    try:
        with writing(built) as connection:
            migrate(connection, name)
            tables.create(connection, tables.embeddings, tables.images, tables.failures, tables.thumbnails)
            for chunk in chunks(rows):
                for table in (tables.embeddings, tables.images, tables.thumbnails):
                    _insert(connection, table, chunk, shard)
                digest.add(as_columns(chunk), [row_digest(row["UUID"], row["EMBEDDING"]) for row in chunk])
            for chunk in chunks(failures):
                _insert(connection, tables.failures, chunk, shard)
                digest.add_failures(as_columns(chunk))
            write_provenance(connection, name, "encoder_", provenance_to_text(provenance))
            write_provenance(connection, name, "shard_", {"digest": str(digest), "list": list_digest})
            counts.writing += time.perf_counter() - start
            counts.total += time.perf_counter() - start
            timing = {**asdict(counts), "finished": time.time()}
            write_provenance(connection, name, "timing_", {key: str(value) for key, value in timing.items()})
        if scratch:
            with writing_to(output):
                shutil.copyfile(built, part)
        publish(part, output)
    finally:
        for file in (built, part):
            file.unlink(missing_ok=True)


def _insert(connection: sa.Connection, table: sa.Table, rows: list[Row], shard: str) -> None:
    values = [{**row, "SHARD": shard} for row in rows]
    connection.execute(sa.insert(table), [{c.name: row[c.name] for c in table.c} for row in values])


def as_columns(rows: list[Row]) -> dict[str, list[Any]]:
    """Turn rows with the same columns into the list of values of each column."""
    return {name: [row[name] for row in rows] for name in rows[0]}


class ShardDigest:
    """The digest of the rows that a merge takes from a shard.

    Parameters
    ----------
    images, failures : sequence of str
        The columns that the shard has, in the order of `Tables`.
    """

    def __init__(self, images: Sequence[str], failures: Sequence[str]):
        self._images = [name for name in images if name not in _NOT_DIGESTED]
        self._failures = [name for name in failures if name not in _NOT_DIGESTED]
        self._rows, self._others = RowsDigest(), hashlib.sha256()

    def add(self, images: Mapping[str, Sequence[Any]], digests: list[int]) -> None:
        """Add images, as the values of each column, and the digests of their embeddings."""
        self._rows.add(sum(digests))
        self._add(self._images, images)

    def add_failures(self, failures: Mapping[str, Sequence[Any]]) -> None:
        """Add failures, as the values of each column."""
        self._add(self._failures, failures)

    def _add(self, names: list[str], columns: Mapping[str, Sequence[Any]]) -> None:
        rows = zip(*(columns[name] for name in names), strict=True)
        self._others.update("".join(map(repr, rows)).encode())

    def __str__(self) -> str:
        return hashlib.sha256(f"{self._rows} {self._others.hexdigest()}".encode()).hexdigest()


def read_shard_provenance(path: str | Path, embedding_type: str) -> dict[str, str]:
    """Read the provenance of a shard database.

    Raises
    ------
    NewerFormat
        If a newer version wrote it.
    InputError
        If it is damaged.
    """
    with _reading_shard(path) as connection:
        provenance = read_provenance(connection, embedding_type)
    if "shard_digest" not in provenance:
        raise damaged(path)
    return provenance


@dataclass(frozen=True)
class ShardRows:
    """Some rows of a shard, in the form in which SQLite reads and writes many at once.

    Attributes
    ----------
    images : dict of str to list
        The values of each column of the image table but SHARD; None in columns that the shard lacks.
    embeddings : bytes
        The packed embeddings in the same order, concatenated, all of the same length.
    digests : list of int
        The digest of every embedding.
    """

    images: dict[str, list[Any]]
    embeddings: bytes
    digests: list[int]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def uuids(self) -> list[str]:
        """UUID of every image."""
        return self.images["UUID"]

    @property
    def n_bytes(self) -> int:
        """Length of one packed embedding."""
        return len(self.embeddings) // len(self)

    def only(self, uuids: Collection[str]) -> "ShardRows":
        """Select the rows of some images."""
        chosen = [number for number, uuid in enumerate(self.uuids) if uuid in uuids]
        images = {name: [values[n] for n in chosen] for name, values in self.images.items()}
        blobs = (self.embeddings[n * self.n_bytes : (n + 1) * self.n_bytes] for n in chosen)
        return ShardRows(images, b"".join(blobs), [self.digests[n] for n in chosen])


def read_shard(path: str | Path, embedding_type: str) -> Iterator[tuple[ShardRows | None, list[Row]]]:
    """Yield the rows of a shard database without thumbnails, in chunks, and then its failures.

    Raises
    ------
    NewerFormat
        If a newer version wrote it.
    InputError
        If it is damaged, or, at the end, if its rows do not match its digest.
    """
    tables = Tables(embedding_type)
    with _reading_shard(path) as connection:
        recorded = read_provenance(connection, embedding_type)
        columns, failure_columns = columns_in(connection, tables.images), columns_in(connection, tables.failures)
        digest = ShardDigest(columns, failure_columns)
        for rows in _read_rows(connection, tables, columns):
            digest.add(rows.images, rows.digests)
            if VERSION_COLUMN not in columns:
                rows.images[VERSION_COLUMN] = [_version(recorded)] * len(rows)
            yield rows, []
        failures = connection.execute(sa.select(*(tables.failures.c[name] for name in failure_columns)))
        for chunk in chunks(failures.mappings()):
            digest.add_failures(as_columns([dict(row) for row in chunk]))
            yield None, [dict.fromkeys(tables.failures.c.keys()) | dict(row) for row in chunk]
        if recorded.get("shard_digest") != str(digest):
            raise damaged(path)


def _version(recorded: Mapping[str, str]) -> int | None:
    version = recorded.get(VERSION_KEY, "")
    return int(version) if version.isdecimal() else None


def _read_rows(connection: sa.Connection, tables: Tables, columns: list[str]) -> Iterator[ShardRows]:
    # SQLite joins a thousand rows to one: the interpreter's lock changes hands at each row that it returns. A merge,
    # which reads in one thread and inserts in another, would wait for it. Bytes joined as text stay the same bytes.
    names = [name for name in columns if name != "SHARD"]
    missing = set(tables.images.columns.keys()) - {*columns}
    lists = ", ".join(f"'{name}', json_group_array({name})" for name in names)
    query = (
        f"SELECT max(id), CAST(group_concat(EMBEDDING, '') AS BLOB), json_object({lists})"
        f" FROM (SELECT i.rowid AS id, {', '.join(f'i.{name}' for name in names)}, EMBEDDING FROM {tables.images} i"
        f" JOIN {tables.embeddings} e ON e.rowid = i.rowid AND e.UUID = i.UUID"
        f" WHERE i.rowid > ? ORDER BY i.rowid LIMIT {CHUNK})"
    )
    cursor, last = driver_cursor(connection), 0
    while True:
        last, embeddings, text = cursor.execute(query, [last]).fetchone()
        if last is None:
            return
        images: dict[str, list[Any]] = json.loads(text)
        uuids = images["UUID"]
        # If rows had different lengths, their digests would be wrong, which ends the merge.
        n_bytes, blobs = len(embeddings) // len(uuids), memoryview(embeddings)
        digests = [row_digest(uuid, blobs[n * n_bytes : (n + 1) * n_bytes]) for n, uuid in enumerate(uuids)]
        images |= {name: [None] * len(uuids) for name in missing}
        yield ShardRows(images, embeddings, digests)


def outcomes(path: str | Path, embedding_type: str) -> tuple[set[tuple[str, int, int]], set[str]]:
    """Read the outcome of a shard's images.

    Returns
    -------
    embedded : set of (UUID, size, mtime_ns)
        Without rows of another embed version.
    failed : set of str
        UUIDs.

    Raises
    ------
    InputError
        If the shard database is damaged.
    """
    tables = Tables(embedding_type)
    images, failures = tables.images, tables.failures
    with _reading_shard(path) as connection:
        query = sa.select(images.c.UUID, images.c.SIZE, images.c.MTIME_NS)
        if VERSION_COLUMN in columns_in(connection, images):
            version = _version(read_provenance(connection, embedding_type))
            query = query.where(images.c[VERSION_COLUMN] == version)
        embedded = connection.execute(query)
        return set(embedded.tuples()), set(connection.scalars(sa.select(failures.c.UUID)))


def read_thumbnails(path: str | Path, embedding_type: str, uuids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield UUIDs and thumbnails of a shard's images: JPEG, 96 pixels on the long side.

    Raises
    ------
    InputError
        If the shard database or a thumbnail is damaged.
    """
    thumbnails = Tables(embedding_type).thumbnails
    with _reading_shard(path) as connection:
        for chunk in chunks(uuids):
            query = sa.select(thumbnails).where(thumbnails.c.UUID.in_(chunk))
            for uuid, jpeg in connection.execute(query).tuples():
                if not is_whole_jpeg(jpeg):
                    raise damaged(path)
                yield uuid, jpeg


class Remains:
    """The rows and failures of missing photos in a shard database that is to be written again.

    Parameters
    ----------
    path : str or Path
        The present shard database.
    provenance : dict
        The contents of `encoder.json`. If it differs in more than the embed version, nothing remains.
    uuids : set of str
        The missing photos.
    """

    def __init__(self, path: str | Path, provenance: dict[str, Any], uuids: Set[str]):
        self._path, self._type, self._uuids = path, provenance["name"], uuids
        self.failures: list[Row] = []
        self._has_rows = False
        if not uuids or not Path(path).exists():
            return
        recorded = with_prefix("encoder_", read_shard_provenance(path, self._type))
        if recorded.get("digest") != provenance_digest(provenance) and not is_another_version(recorded, provenance):
            return
        for rows, failures in read_shard(path, self._type):  # to the end, which checks the digest
            self._has_rows |= rows is not None and not uuids.isdisjoint(rows.uuids)
            self.failures += [row for row in failures if row["UUID"] in uuids]

    def rows(self) -> Iterator[Row]:
        """Yield the rows, with thumbnails, as `write_shard_database` takes them."""
        if not self._has_rows:
            return
        for rows, _ in read_shard(self._path, self._type):
            chosen = self._uuids & {*rows.uuids} if rows else ()
            if rows and chosen:
                rows = rows.only(chosen)
                thumbnails = dict(read_thumbnails(self._path, self._type, rows.uuids))
                if thumbnails.keys() != chosen:
                    raise damaged(self._path)
                for number, uuid in enumerate(rows.uuids):
                    row = {name: values[number] for name, values in rows.images.items()}
                    row["PATH"] = read_path(row["PATH"])  # the merge reads what is stored
                    blob = rows.embeddings[number * rows.n_bytes : (number + 1) * rows.n_bytes]
                    yield {**row, "EMBEDDING": blob, "JPEG": thumbnails[uuid]}


def is_whole_jpeg(data: object, *, with_pixels: bool = False) -> bool:
    """Return whether a value is a JPEG file with all its parts; its pixels are decoded only on request."""
    if not (isinstance(data, bytes) and data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
        return False
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if with_pixels:
                image.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True


@contextmanager
def _reading_shard(path: str | Path) -> Iterator[sa.Connection]:
    try:
        with reading(path) as connection:
            yield connection
    except UnusableDatabase as error:
        if error.is_locked:
            raise
        raise damaged(path) from None
