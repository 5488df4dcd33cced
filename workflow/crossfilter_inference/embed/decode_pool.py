"""Decode photos ahead of the encoder, in order, a bounded number at a time, in processes that can be stopped."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from queue import LifoQueue

from ..photos.formats import MAX_PIXELS
from ..photos.image import Preprocessing
from ..shards.plan import PlannedImage
from ..util.threads import result_of
from .decode_process import Decoded, DecodeProcess, Facts, Failed
from .reuse import Copy

__all__ = ["Decoded", "Failed", "decoding"]


@contextmanager
def decoding(
    images: list[PlannedImage],
    preprocessing: Preprocessing,
    max_pixels: int = MAX_PIXELS,
    *,
    n_workers: int,
    n_ahead: Callable[[], int],
    copy: Callable[[PlannedImage, int], Copy | None] = lambda image, max_pixels: None,
) -> Iterator[Iterator[Decoded | Failed | Copy]]:
    """Decode photos, in order. Begin at once, before the first of them is taken.

    Parameters
    ----------
    images : list of PlannedImage
    preprocessing : Preprocessing
    max_pixels : int
        Larger images fail.
    n_workers : int
        Processes. Only as many start as have work.
    n_ahead : function
        Returns how many photos may be decoded before the first of them is taken.
    copy : function
        From a photo and `max_pixels` to the row that makes decoding needless, or None.

    Raises
    ------
    InputError
        If a process cannot be started.
    """
    processes = [DecodeProcess(preprocessing, max_pixels) for _ in range(n_workers)]
    idle: LifoQueue[DecodeProcess] = LifoQueue()  # last in, first out: whoever has started goes on
    for process in processes:
        idle.put(process)

    def decode(image: PlannedImage) -> Decoded | Failed | Copy:
        copied = copy(image, max_pixels)
        process = idle.get()
        try:
            if copied is None:
                return process.decode(image)
            read = process.read_facts(image)
            return copied.with_facts(read.facts) if isinstance(read, Facts) else copied
        finally:
            idle.put(process)

    pool = ThreadPoolExecutor(n_workers, "decode")
    try:
        remaining = iter(images)
        ahead = deque(pool.submit(decode, image) for image in islice(remaining, n_ahead()))
        yield _in_order(pool, decode, remaining, ahead, n_ahead)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()
        pool.shutdown()


def _in_order(
    pool: ThreadPoolExecutor,
    decode: Callable[[PlannedImage], Decoded | Failed | Copy],
    images: Iterator[PlannedImage],
    ahead: deque[Future[Decoded | Failed | Copy]],
    n_ahead: Callable[[], int],
) -> Iterator[Decoded | Failed | Copy]:
    for image in images:
        while len(ahead) >= n_ahead():
            yield result_of(ahead.popleft())
        ahead.append(pool.submit(decode, image))
    while ahead:
        yield result_of(ahead.popleft())
