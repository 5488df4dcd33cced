"""Encode photos in batches of one fixed shape, several at the same time if the encoder can.

Every batch has the same shape; the last one is padded. So an embedding does not depend on the rest of its batch.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np

from ..encoders.protocol import Embeddings, Encoder
from ..encoders.registry import load_encoder
from ..errors import InputError
from ..shards.shard import Embedded
from ..util.text import printable
from ..util.threads import result_of
from .decode_process import Decoded, Failed
from .reuse import LENGTH_TOLERANCE, Copy

logger = logging.getLogger(__name__)

BATCHES_AHEAD = 3  # decoded batches that wait for each stream of the encoder
_BATCH_SIZE = 10  # for an encoder that has no `batch_size`

Finish = Callable[[list[Decoded], Embeddings], None]


class Encoding:
    """Encode photos in batches. The encoder is loaded when the first photo needs it, or before by `load`.

    Parameters
    ----------
    provenance : dict
        The contents of `encoder.json`.
    batch_size : int or None
        Images per call of the encoder; None uses the encoder's own.
    device : {"auto", "cpu", "cuda", "mps"}
    n_threads : int
        Cores to use on a CPU.
    counts : Embedded
        Times are added to it.
    backends : iterable of str
        See `load_encoder`.
    """

    def __init__(
        self,
        provenance: Mapping[str, Any],
        batch_size: int | None,
        device: str,
        n_threads: int,
        counts: Embedded,
        backends: Iterable[str] = (),
    ):
        self._backends = backends
        self._provenance, self._asked, self._counts = provenance, batch_size, counts
        self._device, self._n_threads = device, n_threads
        self._batch_size = batch_size or _BATCH_SIZE
        self._n_streams = 1
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()
        self._under_way: deque[Future[float]] = deque()
        self._has_failed = threading.Event()
        self._last_end = 0.0  # of a batch

    def n_ahead(self) -> int:
        """Return how many decoded photos may wait for the encoder."""
        return BATCHES_AHEAD * self._batch_size * self._n_streams

    def timed(self, photos: Iterable[Decoded | Failed | Copy]) -> Iterator[Decoded | Failed | Copy]:
        """Pass photos on; add up the time of decoding them, and the time that the encoder waited for them."""
        start = None  # before the first photo there is no encoder that waits
        for photo in photos:
            if start is not None and sum(not future.done() for future in self._under_way) < self._n_streams:
                self._counts.waiting += time.perf_counter() - max(start, self._last_end)
            self._counts.decoding += photo.seconds
            yield photo
            start = time.perf_counter()

    def encode(self, photos: Iterator[Decoded], finish: Finish) -> None:
        """Encode photos.

        Parameters
        ----------
        photos : iterator of Decoded
        finish : function
            Receives each finished batch and its embeddings, in the thread that encoded it.

        Raises
        ------
        InputError
            If the encoder cannot be loaded, returns no embeddings of unit length and the right shape, or has too little
            memory for one image.
        """
        first = next(photos, None)
        if first is None:
            return
        encoder = self._encoder or self.load()
        pool = ThreadPoolExecutor(self._n_streams, "encode")
        try:
            for batch in self._batches(chain([first], photos)):
                self._under_way.append(pool.submit(self._encode_next, encoder, batch, finish))
                if len(self._under_way) == 2 * self._n_streams:
                    self._end_oldest()
            while self._under_way:
                self._end_oldest()
        except BaseException:  # also of a signal: do not wait for batches that are still in the encoder
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()

    def load(self) -> Encoder:
        """Load the encoder.

        Raises
        ------
        InputError
            If it cannot be loaded.
        """
        start = time.perf_counter()
        self._encoder = encoder = load_encoder(self._provenance, self._device, self._n_threads, self._backends)
        self._counts.device = str(getattr(encoder, "device", "cpu"))
        self._batch_size = self._asked or int(getattr(encoder, "batch_size", _BATCH_SIZE))
        self._n_streams = int(getattr(encoder, "n_streams", 1))
        self._counts.loading = time.perf_counter() - start
        return encoder

    def _batches(self, photos: Iterable[Decoded]) -> Iterator[list[Decoded]]:
        batch: list[Decoded] = []
        for photo in photos:
            batch.append(photo)
            if len(batch) >= self._batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _end_oldest(self) -> None:
        self._counts.encoding += result_of(self._under_way.popleft()) / self._n_streams

    def _encode_next(self, encoder: Encoder, batch: list[Decoded], finish: Finish) -> float:
        """Encode a batch, unless another has failed: the job ends, and this one could not be recorded either."""
        if self._has_failed.is_set():
            return 0
        try:
            return self._encode(encoder, batch, finish)
        except BaseException:
            self._has_failed.set()
            raise
        finally:
            self._last_end = time.perf_counter()

    def _encode(self, encoder: Encoder, batch: list[Decoded], finish: Finish) -> float:
        """Encode one batch, in parts if the batch size has been reduced; return the seconds in the encoder."""
        size = encoder.preprocessing.size
        n_done, seconds = 0, 0.0
        while n_done < len(batch):
            start = time.perf_counter()
            n_images = self._batch_size
            part = batch[n_done : n_done + n_images]
            pixels = np.zeros((n_images, size, size, 3), np.uint8)
            for row, photo in zip(pixels, part, strict=False):
                row[:] = photo.loaded.pixels
            try:
                rows = encoder.encode_images(pixels)[: len(part)]
            except MemoryError as error:
                self._halve_batches(n_images, error)
                continue
            self._check(part, rows)
            seconds += time.perf_counter() - start
            finish(part, rows)
            n_done += len(part)
        return seconds

    def _halve_batches(self, n_images: int, error: MemoryError) -> None:
        if n_images == 1:
            raise InputError(
                f"{self._provenance['name']}: the memory of {self._counts.device} is too small for one image "
                f"({error}); free some memory, or choose another device or a smaller model"
            ) from None
        with self._lock:  # another stream may have halved them already
            if self._batch_size == n_images:
                self._batch_size = n_images // 2
                logger.warning(
                    "the memory of %s is too small for batches of %d images; continuing with batches of %d",
                    *(self._counts.device, n_images, self._batch_size),
                )

    def _check(self, batch: list[Decoded], embeddings: Embeddings) -> None:
        name, shape = self._provenance["name"], (len(batch), self._provenance["dimension"])
        if embeddings.shape != shape:
            raise InputError(
                f"{name}: the encoder returned embeddings of shape {embeddings.shape}, expected {shape}; fix its "
                "backend. Nothing of this batch is stored"
            )
        length = np.linalg.norm(embeddings, axis=1)
        bad = ~(np.abs(length - 1) < LENGTH_TOLERANCE)  # true for NaN too
        if bad.any():
            photo = batch[bad.argmax()]
            raise InputError(
                f"{name}: the encoder returned an embedding of length {length[bad.argmax()]:.4g} for "
                f"{printable(photo.image.path)}, expected 1; fix its backend. Nothing of this batch is stored"
            )
