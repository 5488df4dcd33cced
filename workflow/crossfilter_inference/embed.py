"""Embed the images of one shard: decode workers -> encoder -> writer.

Images are decoded ahead of the encoder and written behind it, both by a bounded number, so that it waits for neither.
Every batch has the same shape, the last one is padded: an embedding does not depend on what else was in its batch. The
shard database appears by rename.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .decode import DecodedImage, decoding
from .encoders import Encoder, devices, load_encoder
from .errors import InputError
from .files import printable, read_json
from .images import Preprocessing
from .known_rows import LENGTH_TOLERANCE, KnownRows
from .plan import read_plan, read_shard_list
from .progress import Progress
from .shard_database import Embedded, ShardWriter

logger = logging.getLogger(__name__)

_IDLE_SHARE = 0.25  # of the time that a GPU may wait without a warning
_BATCHES_AHEAD = 3  # decoded, waiting for each stream of the encoder
_BATCH_SIZE = 10  # of an encoder that has no wish


def embed_shard(
    shard_list: str,
    plan: str,
    encoder_json: str,
    output: str,
    *,
    database: str | None,
    batch_size: int | None,
    n_threads: int,
    device: str = "auto",
) -> Embedded:
    """Embed one shard into a shard database.

    Parameters
    ----------
    shard_list, plan, encoder_json : str
        Paths of the shard's list, the plan of this run, and what `resolve_encoder` wrote.
    output : str
        Path of the shard database.
    database : str or None
        Rows of the same content under the same provenance are copied from here instead of computed, and rows of
        unknown origin adopted.
    batch_size : int or None
        Images per call of the encoder; None leaves it to the encoder.
    n_threads : int
        Cores to use.
    device : {"auto", "cpu", "cuda", "mps"}

    Returns
    -------
    Embedded

    Raises
    ------
    InputError
        If the encoder gives embeddings of another shape, or not of unit length, or too little memory is there for a
        single image; if rows of unknown origin are not this encoder's.
    """
    provenance = read_json(encoder_json)
    name = Path(output).stem
    listed = set(read_shard_list(shard_list))
    # An image that has changed since its list was written belongs to a newer shard.
    images = [image for image in read_plan(plan, name)[0] if image.identity in listed]
    known = KnownRows(database, provenance, images)
    with (
        ShardWriter(output, provenance) as writer,
        Progress(len(images), f"shard {name}") as progress,
        _Encoding(provenance, batch_size, device, n_threads, writer.counts) as encoding,
        decoding(
            images,
            Preprocessing.from_json(provenance["preprocessing"]),
            n_workers=n_threads,
            n_ahead=encoding.n_ahead,
            in_processes=device != "cpu" and devices.may_have_gpu(),
        ) as decoded,
    ):
        batches = _to_encode(encoding.timed(decoded), known, writer, progress, encoding)
        for batch, embeddings in encoding.encoded(batches):
            for item, embedding in zip(batch, embeddings, strict=True):
                adopted = known.check(item, embedding)
                writer.add(item, embedding if adopted is None else adopted, n_adopted=adopted is not None)
            writer.flush()
            progress.update(len(batch))
    _warn_of_idle_gpu(writer.counts)
    return writer.counts


def _to_encode(
    decoded: Iterator[DecodedImage],
    known: KnownRows,
    writer: ShardWriter,
    progress: Progress,
    encoding: "_Encoding",
) -> Iterator[list[DecodedImage]]:
    """Yield batches of the images that have to be computed; the others are done here."""
    batch: list[DecodedImage] = []
    for item in decoded:
        if item.error is not None:
            writer.add_failure(item)
            progress.update(1)
        elif (row := known.find(item)) is not None:
            writer.add(item, row.embedding, n_copied=not row.is_adopted, n_adopted=row.is_adopted)
            progress.update(1)
        else:
            batch.append(item)
            if len(batch) >= encoding.batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def _warn_of_idle_gpu(counts: Embedded) -> None:
    if counts.device not in ("none", "cpu") and counts.waiting > _IDLE_SHARE * (counts.total - counts.loading):
        logger.warning(
            "the %s waited for decoding %.0f %% of the time: give the job more cores",
            *(counts.device, 100 * counts.waiting / (counts.total - counts.loading)),
        )


class _Encoding:
    """Encode batches of one fixed shape; the encoder is loaded when the first image needs it."""

    def __init__(self, provenance: dict, batch_size: int | None, device: str, n_threads: int, counts: Embedded):
        self._provenance, self._asked, self._counts = provenance, batch_size, counts
        self._device, self._n_threads = device, n_threads
        self._encoder: Encoder | None = None
        self._batch_size = batch_size or _BATCH_SIZE
        self._n_streams = 1
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: deque[tuple[list[DecodedImage], Future]] = deque()

    @property
    def batch_size(self) -> int:
        """Images per call of the encoder."""
        if self._encoder is None:
            self._load()
        return self._batch_size

    def n_ahead(self) -> int:
        """Say how many images may be decoded and wait."""
        return _BATCHES_AHEAD * self._batch_size * self._n_streams

    def timed(self, decoded: Iterator[DecodedImage]) -> Iterator[DecodedImage]:
        """Pass images on, and count the time that they took and the time that the encoder waited for them."""
        start = time.perf_counter()
        for item in decoded:
            if sum(not future.done() for _, future in self._under_way) < self._n_streams:
                self._counts.waiting += time.perf_counter() - start
            self._counts.decoding += item.seconds
            yield item
            start = time.perf_counter()

    def encoded(self, batches: Iterator[list[DecodedImage]]) -> Iterator[tuple[list[DecodedImage], np.ndarray]]:
        """Encode batches, several at once where the encoder can; they come out in order."""
        for batch in batches:
            self._under_way.append((batch, self._pool.submit(self._encode, batch)))
            if len(self._under_way) == 2 * self._n_streams:
                yield self._oldest()
        while self._under_way:
            yield self._oldest()

    def _load(self) -> None:
        start = time.perf_counter()
        self._encoder = load_encoder(self._provenance, self._device, self._n_threads)
        self._counts.device = str(getattr(self._encoder, "device", "cpu"))
        self._batch_size = self._asked or getattr(self._encoder, "batch_size", _BATCH_SIZE)
        self._n_streams = getattr(self._encoder, "n_streams", 1)
        self._pool = ThreadPoolExecutor(self._n_streams, "encode")
        self._counts.loading = time.perf_counter() - start

    def _oldest(self) -> tuple[list[DecodedImage], np.ndarray]:
        batch, future = self._under_way.popleft()
        embeddings, seconds = future.result()
        self._counts.encoding += seconds / self._n_streams
        return batch, embeddings

    def _encode(self, batch: list[DecodedImage]) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        size = self._encoder.preprocessing.size
        embeddings: list[np.ndarray] = []
        while len(embeddings) < len(batch):
            n_images = self._batch_size
            part = batch[len(embeddings) : len(embeddings) + n_images]
            pixels = np.zeros((n_images, size, size, 3), np.uint8)
            for row, item in zip(pixels, part, strict=False):
                row[:] = item.loaded.pixels
            try:
                rows = self._encoder.encode_images(pixels)[: len(part)]
            except MemoryError as error:
                self._take_smaller_batches(n_images, error)
                continue
            self._check(part, rows)
            embeddings.extend(rows)
        return np.array(embeddings), time.perf_counter() - start

    def _take_smaller_batches(self, n_images: int, error: MemoryError) -> None:
        if n_images == 1:
            raise InputError(
                f"{self._provenance['name']}: the memory of {self._counts.device} is too small for one image "
                f"({error}); free some, or choose another device or a smaller model"
            ) from None
        with self._lock:  # another stream may have found out already
            if self._batch_size == n_images:
                self._batch_size = n_images // 2
                logger.warning(
                    "the memory of %s is too small for batches of %d images: going on with %d",
                    *(self._counts.device, n_images, self._batch_size),
                )

    def _check(self, batch: list[DecodedImage], embeddings: np.ndarray) -> None:
        name, shape = self._provenance["name"], (len(batch), self._provenance["dimension"])
        if embeddings.shape != shape:
            raise InputError(f"{name}: the encoder gives embeddings of shape {embeddings.shape}, expected {shape}")
        length = np.linalg.norm(embeddings, axis=1)
        bad = ~(np.abs(length - 1) < LENGTH_TOLERANCE)  # so written, it is true of NaN too
        if bad.any():
            item = batch[bad.argmax()]
            raise InputError(
                f"{name}: the encoder gives an embedding of length {length[bad.argmax()]:.4g} for "
                f"{printable(item.image.path)}, expected 1; nothing of this shard is stored"
            )

    def __enter__(self) -> "_Encoding":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._pool is not None:
            # After an error or a signal nobody wants what is still in the encoder.
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
