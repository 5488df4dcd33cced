"""Embed the images of one shard: decode workers -> encoder -> writer.

Threads decode ahead of the encoder (Pillow lets go of the interpreter while it decodes) and one writes behind
it, both by a bounded number of images, so that the encoder waits for neither. Every batch has the same shape,
the last one is padded: an embedding does not depend on what else was in its batch. The shard database appears
by rename.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from .database import Tables, pack_embedding, read_provenance, reading, write_provenance, writing
from .encoders import Encoder, load_encoder, provenance_digest
from .files import printable, read_json
from .images import ImageError, LoadedImage, Preprocessing, load_image, read_image_file
from .plan import PlannedImage, read_plan, read_shard_list
from .progress import Progress

logger = logging.getLogger(__name__)

_BATCHES_AHEAD = 3  # decoded, waiting for the encoder
_BATCHES_BEHIND = 4  # encoded, waiting for the writer


@dataclass
class Embedded:
    """What became of a shard's images."""

    n_computed: int = 0
    n_copied: int = 0
    n_failed: int = 0


def embed_shard(
    shard_list: str,
    plan: str,
    encoder_json: str,
    output: str,
    *,
    database: str | None,
    batch_size: int,
    n_threads: int,
) -> Embedded:
    """Embed one shard into a shard database.

    Parameters
    ----------
    shard_list, plan, encoder_json : str
        Paths of the shard's list, the plan of this run, and what `resolve_encoder` wrote.
    output : str
        Path of the shard database.
    database : str or None
        Rows of the same content under the same provenance are copied from here instead of computed.
    batch_size : int
        Images per call of the encoder.
    n_threads : int
        Threads that decode.

    Returns
    -------
    Embedded
    """
    provenance = read_json(encoder_json)
    name = Path(output).stem
    listed = set(read_shard_list(shard_list))
    # An image that has changed since its list was written belongs to a newer shard.
    images = [image for image in read_plan(plan, name)[0] if image.identity in listed]
    preprocessing = Preprocessing.from_json(provenance["preprocessing"])
    with (
        _KnownRows(database, provenance) as known,
        _ShardWriter(output, provenance, batch_size) as writer,
        Progress(len(images), f"shard {name}") as progress,
        _decoding(images, preprocessing, n_threads, _BATCHES_AHEAD * batch_size) as decoded,
    ):
        encode = _Encoding(provenance, batch_size)
        batch: list[_Decoded] = []
        for item in decoded:
            if item.error is not None:
                writer.add_failure(item)
                progress.update(1)
            elif blob := known.find(item.digest):
                writer.add(item, blob, copied=True)
                progress.update(1)
            else:
                batch.append(item)
            if len(batch) == batch_size:
                writer.add_all(batch, encode(batch))
                progress.update(len(batch))
                batch = []
        if batch:
            writer.add_all(batch, encode(batch))
    return writer.counts


@dataclass(frozen=True)
class _Decoded:
    """One image on its way: its pixels, or why there are none."""

    image: PlannedImage
    digest: str = ""
    loaded: LoadedImage | None = None
    error: ImageError | None = None


def _decode(image: PlannedImage, preprocessing: Preprocessing) -> _Decoded:
    try:
        data, digest = read_image_file(image.path)
        return _Decoded(image, digest, load_image(data, preprocessing))
    except ImageError as error:
        return _Decoded(image, error=error)


@contextmanager
def _decoding(
    images: list[PlannedImage], preprocessing: Preprocessing, n_threads: int, n_ahead: int
) -> Iterator[Iterator[_Decoded]]:
    """Decode in threads, at most `n_ahead` images ahead, in order."""
    pool = ThreadPoolExecutor(n_threads, "decode")

    def decoded() -> Iterator[_Decoded]:
        waiting: deque[Future[_Decoded]] = deque()
        for image in images:
            waiting.append(pool.submit(_decode, image, preprocessing))
            if len(waiting) == n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield decoded()
    finally:
        pool.shutdown(cancel_futures=True)


class _Encoding:
    """Encode batches of one fixed shape; the encoder is loaded for the first of them."""

    def __init__(self, provenance: dict, batch_size: int):
        self._provenance, self._batch_size = provenance, batch_size
        self._encoder: Encoder | None = None

    def __call__(self, batch: list[_Decoded]) -> np.ndarray:
        if self._encoder is None:
            self._encoder = load_encoder(self._provenance)
        size = self._encoder.preprocessing.size
        pixels = np.zeros((self._batch_size, size, size, 3), np.uint8)
        for row, item in zip(pixels, batch, strict=False):
            row[:] = item.loaded.pixels
        return self._encoder.encode_images(pixels)[: len(batch)]


class _KnownRows:
    """The rows that the database holds already, by the digest of the image file."""

    def __init__(self, database: str | None, provenance: dict):
        self._tables = Tables(provenance["name"])
        self._uuids: dict[str, str] = {}
        self._open = ExitStack()
        if not (database and Path(database).exists()):
            return
        self._connection = self._open.enter_context(reading(database))
        recorded = read_provenance(self._connection, provenance["name"]).get("encoder_digest")
        if recorded == provenance_digest(provenance):
            images = self._tables.images
            self._uuids = dict(self._connection.execute(sa.select(images.c.DIGEST, images.c.UUID)).tuples().all())

    def find(self, digest: str) -> bytes | None:
        """Return the packed embedding of the same content, if there is one."""
        embeddings = self._tables.embeddings
        uuid = self._uuids.get(digest)
        return uuid and self._connection.scalar(sa.select(embeddings.c.EMBEDDING).where(embeddings.c.UUID == uuid))

    def __enter__(self) -> "_KnownRows":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


class _ShardWriter:
    """Write a shard database behind the encoder, one transaction per batch; it appears when all is in it."""

    def __init__(self, output: str, provenance: dict, batch_size: int):
        self.counts = Embedded()
        self._output, self._provenance, self._batch_size = Path(output), provenance, batch_size
        self._tables = Tables(provenance["name"])
        self._rows: dict[sa.Table, list[dict[str, Any]]] = {}
        self._pool = ThreadPoolExecutor(1, "write")
        self._written: deque[Future[None]] = deque()
        self._output.parent.mkdir(parents=True, exist_ok=True)
        # A job that outlived its Snakemake may still write to a part of its own: it is not ours to share.
        for stale in self._output.parent.glob(f".{self._output.name}.*"):
            stale.unlink(missing_ok=True)
        handle, part = tempfile.mkstemp(f".{os.getpid()}", f".{self._output.name}.", self._output.parent)
        os.close(handle)
        self._part = Path(part)
        tables = self._tables
        with writing(self._part) as connection:
            tables.create(
                connection,
                *(tables.embeddings, tables.images, tables.failures, tables.thumbnails, tables.provenance),
            )

    def add(self, item: _Decoded, blob: bytes, *, copied: bool = False) -> None:
        """Take one embedded image."""
        image, loaded = item.image, item.loaded
        self._add(self._tables.embeddings, {"UUID": image.uuid, "EMBEDDING": blob})
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
        self.counts.n_copied += copied
        self.counts.n_computed += not copied

    def add_all(self, batch: list[_Decoded], embeddings: np.ndarray) -> None:
        """Take a batch of embedded images."""
        for item, embedding in zip(batch, embeddings, strict=True):
            self.add(item, pack_embedding(embedding))

    def add_failure(self, item: _Decoded) -> None:
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

    def _add(self, table: sa.Table, row: dict[str, Any]) -> None:
        rows = self._rows.setdefault(table, [])
        rows.append(row)
        if table is not self._tables.embeddings and len(rows) >= self._batch_size:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, {}
        self._written.append(self._pool.submit(self._write, rows))
        while len(self._written) > _BATCHES_BEHIND:
            self._written.popleft().result()

    def _write(self, rows: dict[sa.Table, list[dict[str, Any]]]) -> None:
        with writing(self._part) as connection:
            for table, values in rows.items():
                connection.execute(sa.insert(table), values)

    def _finish(self) -> None:
        self._flush()
        while self._written:
            self._written.popleft().result()
        with writing(self._part) as connection:
            values = {
                key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                for key, value in self._provenance.items()
            }
            encoder = {**values, "digest": provenance_digest(self._provenance)}
            write_provenance(connection, self._provenance["name"], "encoder_", encoder)
            digest = {"digest": self._content_digest(connection)}
            write_provenance(connection, self._provenance["name"], "shard_", digest)
        os.chmod(self._part, 0o644)
        os.replace(self._part, self._output)

    def _content_digest(self, connection: sa.Connection) -> str:
        """Digest what a merge takes from here, but for paths, which the manifest knows better."""
        digest = hashlib.sha256()
        for table in (self._tables.embeddings, self._tables.images, self._tables.failures):
            columns = [column for column in table.c if column.name != "PATH"]
            for row in connection.execute(sa.select(*columns).order_by(table.c.UUID)):
                digest.update(repr(tuple(row)).encode())
        return digest.hexdigest()

    def __enter__(self) -> "_ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._part.unlink(missing_ok=True)
