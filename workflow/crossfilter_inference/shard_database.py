"""A shard database: written behind the encoder, and appearing by rename when all is in it.

It has the tables of the final database for its own images, and their thumbnails. Its provenance says what the
encoder was (`encoder_*`), digests its contents (`shard_digest`), and keeps the job's own figures (`timing_*`).
"""

import hashlib
import logging
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from .database import Tables, pack_embedding, write_provenance, writing
from .decode import DecodedImage
from .encoders import provenance_to_text
from .files import new_part, printable, publish

logger = logging.getLogger(__name__)

_BATCHES_BEHIND = 4  # encoded, waiting for the writer
_MOST_IMAGES = 100  # in a transaction


@dataclass
class Embedded:
    """What became of a shard's images, and where the time went.

    The times are in seconds, from start to end: `loading` the encoder, `encoding` in it, `waiting` of the encoder for
    images, `total`; and beside these `decoding`, the sum over all workers, and `writing`.
    """

    n_computed: int = 0
    n_copied: int = 0
    n_adopted: int = 0
    n_failed: int = 0
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
        return (self.n_computed + self.n_copied + self.n_adopted + self.n_failed) / self.total if self.total else 0


class ShardWriter:
    """Write a shard database behind the encoder, one transaction per batch; it appears when all is in it."""

    def __init__(self, output: str, provenance: dict):
        self.counts = Embedded()
        self._start = time.perf_counter()
        self._output, self._provenance = Path(output), provenance
        self._tables = Tables(provenance["name"])
        self._rows: dict[sa.Table, list[dict[str, Any]]] = {}
        self._n_waiting = 0
        self._pool = ThreadPoolExecutor(1, "write")
        self._written: deque[Future[None]] = deque()
        self._part = new_part(output)
        tables = self._tables
        with writing(self._part) as connection:
            tables.create(
                connection,
                *(tables.embeddings, tables.images, tables.failures, tables.thumbnails, tables.provenance),
            )

    def add(self, item: DecodedImage, embedding: np.ndarray, *, n_copied: int = 0, n_adopted: int = 0) -> None:
        """Take one embedded image; it counts as computed unless it was copied or adopted."""
        image, loaded = item.image, item.loaded
        self._add(self._tables.embeddings, {"UUID": image.uuid, "EMBEDDING": pack_embedding(embedding)})
        self._add(self._tables.thumbnails, {"UUID": image.uuid, "JPEG": loaded.thumbnail})
        self._add(
            self._tables.images,
            {
                "UUID": image.uuid,
                "PATH": printable(image.path),
                "SIZE": image.size,
                "MTIME_NS": image.mtime_ns,
                "DIGEST": item.digest,
                "WIDTH": loaded.width,
                "HEIGHT": loaded.height,
                "TAKEN": loaded.taken,
                "SHARD": image.shard,
            },
        )
        self.counts.n_copied += n_copied
        self.counts.n_adopted += n_adopted
        self.counts.n_computed += not (n_copied or n_adopted)
        self._end_image()

    def add_failure(self, item: DecodedImage) -> None:
        """Take an image that could not be embedded."""
        path = printable(item.image.path)
        logger.warning("%s: %s (%s)", path, item.error.reason, item.error)
        self._add(
            self._tables.failures,
            {
                "UUID": item.image.uuid,
                "PATH": path,
                "REASON": item.error.reason,
                "MESSAGE": str(item.error),
                "SHARD": item.image.shard,
            },
        )
        self.counts.n_failed += 1
        self._end_image()

    def flush(self) -> None:
        """Have written what has come, behind the caller, in one transaction."""
        rows, self._rows, self._n_waiting = self._rows, {}, 0
        self._written.append(self._pool.submit(self._write, rows))
        while len(self._written) > _BATCHES_BEHIND:
            self._written.popleft().result()

    def _add(self, table: sa.Table, row: dict[str, Any]) -> None:
        self._rows.setdefault(table, []).append(row)

    def _end_image(self) -> None:
        self._n_waiting += 1
        if self._n_waiting == _MOST_IMAGES:
            self.flush()

    def _write(self, rows: dict[sa.Table, list[dict[str, Any]]]) -> None:
        start = time.perf_counter()
        with writing(self._part) as connection:
            for table, values in rows.items():
                connection.execute(sa.insert(table), values)
        self.counts.writing += time.perf_counter() - start

    def _finish(self) -> None:
        self.flush()
        while self._written:
            self._written.popleft().result()
        self.counts.total = time.perf_counter() - self._start
        with writing(self._part) as connection:
            encoder = provenance_to_text(self._provenance)
            write_provenance(connection, self._provenance["name"], "encoder_", encoder)
            digest = {"digest": self._content_digest(connection)}
            write_provenance(connection, self._provenance["name"], "shard_", digest)
            timing = {key: str(value) for key, value in asdict(self.counts).items()}
            write_provenance(connection, self._provenance["name"], "timing_", timing)
        publish(self._part, self._output)

    def _content_digest(self, connection: sa.Connection) -> str:
        """Digest what a merge takes from here, but for paths, which the manifest knows better."""
        digest = hashlib.sha256()
        for table in (self._tables.embeddings, self._tables.images, self._tables.failures):
            columns = [column for column in table.c if column.name != "PATH"]
            for row in connection.execute(sa.select(*columns).order_by(table.c.UUID)):
                digest.update(repr(tuple(row)).encode())
        return digest.hexdigest()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._part.unlink(missing_ok=True)
