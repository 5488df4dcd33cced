"""Encode images in batches of one fixed shape, several at once where the encoder can."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ..encoders.protocol import Encoder
from ..encoders.registry import load_encoder
from ..errors import InputError
from ..shards.shard import Embedded
from ..util.text import printable
from .decode_pool import DecodedImage
from .reuse import LENGTH_TOLERANCE

logger = logging.getLogger(__name__)

BATCHES_AHEAD = 3  # decoded, waiting for each stream of the encoder
_BATCH_SIZE = 10  # of an encoder that has no wish


class Encoding:
    """Encode batches; the encoder is loaded when the first image needs it.

    Parameters
    ----------
    provenance : dict
        What `resolve_encoder` wrote.
    batch_size : int or None
        Images per call of the encoder; None leaves it to the encoder.
    device : {"auto", "cpu", "cuda", "mps"}
    n_threads : int
    counts : Embedded
        Where times are added up.
    """

    def __init__(self, provenance: dict, batch_size: int | None, device: str, n_threads: int, counts: Embedded):
        self._provenance, self._asked, self._counts = provenance, batch_size, counts
        self._device, self._n_threads = device, n_threads
        self._encoder: Encoder | None = None
        self._batch_size = batch_size or _BATCH_SIZE
        self._n_streams = 1
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: deque[Future[float]] = deque()

    @property
    def batch_size(self) -> int:
        """Images per call of the encoder."""
        if self._encoder is None:
            self._load()
        return self._batch_size

    def n_ahead(self) -> int:
        """Say how many images may be decoded and wait."""
        return BATCHES_AHEAD * self._batch_size * self._n_streams

    def timed(self, decoded: Iterator[DecodedImage]) -> Iterator[DecodedImage]:
        """Pass images on, and count the time that they took and the time that the encoder waited for them."""
        start = time.perf_counter()
        for item in decoded:
            if sum(not future.done() for future in self._under_way) < self._n_streams:
                self._counts.waiting += time.perf_counter() - start
            self._counts.decoding += item.seconds
            yield item
            start = time.perf_counter()

    def encode(
        self, batches: Iterator[list[DecodedImage]], finish: Callable[[list[DecodedImage], np.ndarray], None]
    ) -> None:
        """Encode batches; each is finished, in the thread that encoded it, as soon as it is done."""
        for batch in batches:
            self._under_way.append(self._pool.submit(self._encode, batch, finish))
            if len(self._under_way) == 2 * self._n_streams:
                self._end_oldest()
        while self._under_way:
            self._end_oldest()

    def _load(self) -> None:
        start = time.perf_counter()
        self._encoder = load_encoder(self._provenance, self._device, self._n_threads)
        self._counts.device = str(getattr(self._encoder, "device", "cpu"))
        self._batch_size = self._asked or getattr(self._encoder, "batch_size", _BATCH_SIZE)
        self._n_streams = getattr(self._encoder, "n_streams", 1)
        self._pool = ThreadPoolExecutor(self._n_streams, "encode")
        self._counts.loading = time.perf_counter() - start

    def _end_oldest(self) -> None:
        self._counts.encoding += self._under_way.popleft().result() / self._n_streams

    def _encode(self, batch: list[DecodedImage], finish: Callable[[list[DecodedImage], np.ndarray], None]) -> float:
        size = self._encoder.preprocessing.size
        n_done, seconds = 0, 0.0
        while n_done < len(batch):
            start = time.perf_counter()
            n_images = self._batch_size
            part = batch[n_done : n_done + n_images]
            pixels = np.zeros((n_images, size, size, 3), np.uint8)
            for row, item in zip(pixels, part, strict=False):
                row[:] = item.loaded.pixels
            try:
                rows = self._encoder.encode_images(pixels)[: len(part)]
            except MemoryError as error:
                self._take_smaller_batches(n_images, error)
                continue
            self._check(part, rows)
            seconds += time.perf_counter() - start
            finish(part, rows)
            n_done += len(part)
        return seconds

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
                f"{printable(item.image.path)}, expected 1; nothing of this batch is stored"
            )

    def __enter__(self) -> "Encoding":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._pool is not None:
            # After an error or a signal nobody wants what is still in the encoder.
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
