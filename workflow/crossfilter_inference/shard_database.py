"""A shard database: the rows of one shard, made in one go and appearing by rename.

It has the tables of the final database for its own images, and their thumbnails. Its provenance says what the
encoder was (`encoder_*`), digests its contents and its list (`shard_*`), and keeps the job's own figures (`timing_*`:
those of `Embedded`, and when it was finished, in seconds since the epoch).
"""

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from .connections import writing
from .database import RowsDigest, Tables, row_digest, write_provenance
from .encoders import provenance_to_text
from .files import new_part, publish

CHUNK = 1000  # rows


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


def chunks(rows: Iterable) -> Iterator[list]:
    """Yield rows by the thousand."""
    chunk = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


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
