"""Read shard databases: what a merge takes from them, checked against the digest of what was written."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from .connections import UnusableDatabase, reading
from .database import Tables, read_provenance, row_digest
from .files import damaged
from .shard_database import CHUNK, ShardDigest, ShardFailure, chunks


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
