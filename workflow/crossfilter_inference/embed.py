"""Embed the images of one shard: decode workers -> encoder -> writer.

Threads decode ahead of the encoder (Pillow lets go of the interpreter while it decodes) and one writes behind
it, both by a bounded number of images, so that the encoder waits for neither. Every batch has the same shape,
the last one is padded: an embedding does not depend on what else was in its batch. The shard database appears
by rename.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .encoders import Encoder, load_encoder
from .errors import InputError
from .files import printable, read_json
from .images import ImageError, Preprocessing, load_image, read_image_file
from .plan import PlannedImage, read_plan, read_shard_list
from .progress import Progress
from .shard_database import DecodedImage, Embedded, KnownRows, ShardWriter

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-2  # of an embedding's length; bfloat16 has 8 bits
_IDLE_SHARE = 0.25  # of the time that a GPU may wait without a warning
_BATCHES_AHEAD = 3  # decoded, waiting for the encoder


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

    Raises
    ------
    InputError
        If the encoder gives embeddings of another shape, or not of unit length.
    """
    provenance = read_json(encoder_json)
    name = Path(output).stem
    listed = set(read_shard_list(shard_list))
    # An image that has changed since its list was written belongs to a newer shard.
    images = [image for image in read_plan(plan, name)[0] if image.identity in listed]
    preprocessing = Preprocessing.from_json(provenance["preprocessing"])
    known = KnownRows(database, provenance)
    with (
        ShardWriter(output, provenance, batch_size) as writer,
        Progress(len(images), f"shard {name}") as progress,
        _decoding(images, preprocessing, n_threads, _BATCHES_AHEAD * batch_size) as decoded,
    ):
        encode = _Encoding(provenance, batch_size, writer.counts)
        batch: list[DecodedImage] = []
        for item in _timed(decoded, writer.counts):
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
    _warn_of_idle_gpu(writer.counts)
    return writer.counts


def _warn_of_idle_gpu(counts: Embedded) -> None:
    if counts.device not in ("none", "cpu") and counts.waiting > _IDLE_SHARE * counts.total:
        logger.warning(
            "the %s waited for decoding %.0f %% of the time: give the job more cores",
            *(counts.device, 100 * counts.waiting / counts.total),
        )


def _decode(image: PlannedImage, preprocessing: Preprocessing) -> DecodedImage:
    start = time.perf_counter()
    try:
        data, digest = read_image_file(image.path)
        loaded = load_image(data, preprocessing)
        return DecodedImage(image, digest, loaded, seconds=time.perf_counter() - start)
    except ImageError as error:
        return DecodedImage(image, error=error, seconds=time.perf_counter() - start)


def _timed(decoded: Iterator[DecodedImage], counts: Embedded) -> Iterator[DecodedImage]:
    """Pass images on, and count the time that they took and the time that they were waited for."""
    start = time.perf_counter()
    for item in decoded:
        counts.waiting += time.perf_counter() - start
        counts.decoding += item.seconds
        yield item
        start = time.perf_counter()


@contextmanager
def _decoding(
    images: list[PlannedImage], preprocessing: Preprocessing, n_threads: int, n_ahead: int
) -> Iterator[Iterator[DecodedImage]]:
    """Decode in threads, at most `n_ahead` images ahead, in order."""
    pool = ThreadPoolExecutor(n_threads, "decode")

    def decoded() -> Iterator[DecodedImage]:
        waiting: deque[Future[DecodedImage]] = deque()
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

    def __init__(self, provenance: dict, batch_size: int, counts: Embedded):
        self._provenance, self._batch_size, self._counts = provenance, batch_size, counts
        self._encoder: Encoder | None = None

    def __call__(self, batch: list[DecodedImage]) -> np.ndarray:
        start = time.perf_counter()
        if self._encoder is None:
            self._encoder = load_encoder(self._provenance)
            self._counts.device = str(getattr(self._encoder, "device", "cpu"))
        size = self._encoder.preprocessing.size
        pixels = np.zeros((self._batch_size, size, size, 3), np.uint8)
        for row, item in zip(pixels, batch, strict=False):
            row[:] = item.loaded.pixels
        embeddings = self._encoder.encode_images(pixels)[: len(batch)]
        self._check(batch, embeddings)
        self._counts.encoding += time.perf_counter() - start
        return embeddings

    def _check(self, batch: list[DecodedImage], embeddings: np.ndarray) -> None:
        name, shape = self._provenance["name"], (len(batch), self._provenance["dimension"])
        if embeddings.shape != shape:
            raise InputError(f"{name}: the encoder gives embeddings of shape {embeddings.shape}, expected {shape}")
        length = np.linalg.norm(embeddings, axis=1)
        bad = ~(np.abs(length - 1) < _TOLERANCE)  # so written, it is true of NaN too
        if bad.any():
            item = batch[bad.argmax()]
            raise InputError(
                f"{name}: the encoder gives an embedding of length {length[bad.argmax()]:.4g} for "
                f"{printable(item.image.path)}, expected 1; nothing of this shard is stored"
            )
