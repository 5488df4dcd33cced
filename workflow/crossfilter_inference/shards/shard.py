"""A shard database: the rows of one shard, made in one go, appearing by rename, and read back checked.

It has the tables of the final database for its own images, and their thumbnails. Its provenance says what the
encoder was (`encoder_*`), digests its contents and its list (`shard_*`), and keeps the job's own figures (`timing_*`:
those of `Embedded`, and when it was finished, in seconds since the epoch).
"""

import hashlib
import json
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from ..db.connect import CHUNK, UnusableDatabase, chunks, reading, writing
from ..db.digest import RowsDigest, row_digest
from ..db.provenance import read_provenance, write_provenance
from ..db.tables import Tables
from ..encoders.identity import provenance_to_text
from ..util.files import damaged, new_part, publish


class ShardRow(NamedTuple):
    """An embedded image: what its file is, what was seen in it, and its packed embedding.

    The fields are columns of the tables.
    """

    uuid: str
    size: int
    mtime_ns: int
    digest: str
    width: int
    height: int
    taken: str | None
    embedding: bytes
    thumbnail: bytes = b""
    path: str = ""


class ShardFailure(NamedTuple):
    """An image that could not be embedded, and why."""

    uuid: str
    path: str
    reason: str
    message: str


@dataclass
class Embedded:
    """What became of a shard's images, and where the time went.

    The times are in seconds, from start to end: `loading` the encoder, `encoding` in it, `waiting` of the encoder for
    images, `total`; and beside these `decoding`, the sum over all workers, and `writing`.
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
        """Images of every fate per second, from start to end."""
        n_done = self.n_computed + self.n_copied + self.n_adopted + self.n_failed
        return n_done / self.total if self.total else 0


def write_shard_database(
    output: str | Path,
    provenance: dict,
    list_digest: str,
    rows: Iterable[ShardRow],
    failures: list[ShardFailure],
    counts: Embedded,
    *,
    scratch: str | Path | None = None,
) -> None:
    """Write a shard database, which appears by rename.

    Parameters
    ----------
    output : str or Path
    provenance : dict
        The contents of `encoder.json`.
    list_digest : str
        Of the shard's list.
    rows : iterable of ShardRow
    failures : list of ShardFailure
    counts : Embedded
        Its times end here.
    scratch : str, Path or None
        Folder in which it is built, where SQLite is not to work on the file system of `output`.

    Raises
    ------
    UnusableDatabase
        If it cannot be written.
    """
    start = time.perf_counter()
    tables, shard, digest = Tables(provenance["name"]), Path(output).stem, ShardDigest()
    part = new_part(output)
    built = new_part(Path(scratch) / part.name) if scratch else part
    try:
        with writing(built) as connection:
            tables.create(
                connection,
                *(tables.embeddings, tables.images, tables.failures, tables.thumbnails, tables.provenance),
            )
            for chunk in chunks(rows):
                values = [
                    {
                        "UUID": row.uuid,
                        "PATH": row.path,
                        "SIZE": row.size,
                        "MTIME_NS": row.mtime_ns,
                        "DIGEST": row.digest,
                        "WIDTH": row.width,
                        "HEIGHT": row.height,
                        "TAKEN": row.taken,
                        "SHARD": shard,
                        "EMBEDDING": row.embedding,
                        "JPEG": row.thumbnail,
                    }
                    for row in chunk
                ]
                for table in (tables.embeddings, tables.images, tables.thumbnails):
                    names = table.c.keys()
                    connection.execute(sa.insert(table), [{name: row[name] for name in names} for row in values])
                digest.add(chunk, [row_digest(row.uuid, row.embedding) for row in chunk])
            for failure in failures:
                values = dict(zip(("UUID", "PATH", "REASON", "MESSAGE"), failure, strict=True))
                connection.execute(sa.insert(tables.failures), {**values, "SHARD": shard})
                digest.add_failure(failure)
            write_provenance(connection, provenance["name"], "encoder_", provenance_to_text(provenance))
            write_provenance(connection, provenance["name"], "shard_", {"digest": str(digest), "list": list_digest})
            counts.writing += time.perf_counter() - start
            counts.total += time.perf_counter() - start
            timing = {**asdict(counts), "finished": time.time()}
            timing = {key: str(value) for key, value in timing.items()}
            write_provenance(connection, provenance["name"], "timing_", timing)
        if scratch:
            shutil.copyfile(built, part)
        publish(part, output)
    finally:
        for file in (built, part):
            file.unlink(missing_ok=True)


class ShardDigest:
    """The digest of what a merge takes from a shard, but for paths, which the manifest knows better."""

    def __init__(self):
        self._rows, self._others = RowsDigest(), hashlib.sha256()

    def add(self, images: Iterable[Sequence], digests: list[int]) -> None:
        """Take images in, by their first seven columns, with the digests of their rows."""
        self._rows.add(sum(digests))
        self._others.update("".join([repr(tuple(image[:7])) for image in images]).encode())

    def add_failure(self, failure: ShardFailure) -> None:
        """Take a failure in."""
        self._others.update(repr((failure.uuid, failure.reason, failure.message)).encode())

    def __str__(self) -> str:
        return hashlib.sha256(f"{self._rows} {self._others.hexdigest()}".encode()).hexdigest()


def read_shard_provenance(path: str | Path, embedding_type: str) -> dict[str, str]:
    """Read what made a shard database.

    Raises
    ------
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
    """Some rows of a shard, in the pieces in which SQLite takes and gives many at once.

    Attributes
    ----------
    images : list of list
        UUID, size, mtime_ns, digest, width, height, time taken and path of every image.
    embeddings : bytes
        The packed embeddings in the same order, one behind the other, all of the same length.
    digests : list of int
        Of every row.
    """

    images: list[list]
    embeddings: bytes
    digests: list[int]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def uuids(self) -> list[str]:
        """UUID of every image."""
        return [image[0] for image in self.images]

    @property
    def n_bytes(self) -> int:
        """Length of one packed embedding."""
        return len(self.embeddings) // len(self.images)

    def only(self, uuids: Collection[str]) -> "ShardRows":
        """Choose the rows of some images."""
        chosen = [number for number, image in enumerate(self.images) if image[0] in uuids]
        blobs = (self.embeddings[number * self.n_bytes : (number + 1) * self.n_bytes] for number in chosen)
        return ShardRows([self.images[n] for n in chosen], b"".join(blobs), [self.digests[n] for n in chosen])


def read_shard(path: str | Path, embedding_type: str) -> Iterator[tuple[ShardRows | None, list[ShardFailure]]]:
    """Yield the rows of a shard database, without thumbnails, some at a time, and then its failures.

    Raises
    ------
    InputError
        If it is damaged, or, at the end, if the rows are not those that were written.
    """
    digest = ShardDigest()
    failures = Tables(embedding_type).failures
    with _reading_shard(path) as connection:
        for rows in _read_rows(connection, embedding_type):
            digest.add(rows.images, rows.digests)
            yield rows, []
        columns = (failures.c.UUID, failures.c.PATH, failures.c.REASON, failures.c.MESSAGE)
        for chunk in chunks(map(ShardFailure._make, connection.execute(sa.select(*columns)))):
            for failure in chunk:
                digest.add_failure(failure)
            yield None, chunk
        if read_provenance(connection, embedding_type).get("shard_digest") != str(digest):
            raise damaged(path)


def _read_rows(connection: sa.Connection, embedding_type: str) -> Iterator[ShardRows]:
    tables = Tables(embedding_type)
    # A thousand rows come as one: with each the interpreter's lock would change hands, and a merge, which reads in one
    # thread and inserts in another, would wait for it. Bytes that are joined as text stay the same bytes.
    query = (
        "SELECT max(id), CAST(group_concat(EMBEDDING, '') AS BLOB),"
        " json_group_array(json_array(UUID, SIZE, MTIME_NS, DIGEST, WIDTH, HEIGHT, TAKEN, PATH))"
        f" FROM (SELECT i.rowid AS id, i.*, EMBEDDING FROM {tables.images} i"
        f" JOIN {tables.embeddings} e ON e.rowid = i.rowid AND e.UUID = i.UUID"
        f" WHERE i.rowid > ? ORDER BY i.rowid LIMIT {CHUNK})"
    )
    cursor, last = connection.connection.cursor(), 0
    while True:
        last, embeddings, images = cursor.execute(query, [last]).fetchone()
        if last is None:
            return
        images = json.loads(images)
        # Were rows of different length, their digests would be wrong, which ends the merge.
        n_bytes, blobs = len(embeddings) // len(images), memoryview(embeddings)
        digests = [row_digest(image[0], blobs[n * n_bytes : (n + 1) * n_bytes]) for n, image in enumerate(images)]
        yield ShardRows(images, embeddings, digests)


def outcomes(path: str | Path, embedding_type: str) -> tuple[set[tuple[str, int, int]], set[str]]:
    """Read what became of a shard's images.

    Returns
    -------
    embedded : set of (UUID, size, mtime_ns)
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
        embedded = connection.execute(sa.select(images.c.UUID, images.c.SIZE, images.c.MTIME_NS))
        return {tuple(row) for row in embedded}, set(connection.scalars(sa.select(failures.c.UUID)))


@contextmanager
def _reading_shard(path: str | Path) -> Iterator[sa.Connection]:
    try:
        with reading(path) as connection:
            yield connection
    except UnusableDatabase as error:
        if error.is_locked:
            raise
        raise damaged(path) from None
