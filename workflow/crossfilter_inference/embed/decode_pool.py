"""Decode photos in processes that can be stopped: in order, a bounded number at a time, ahead of what takes them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from queue import LifoQueue
from typing import TypeVar

from ..photos.formats import MAX_PIXELS
from ..photos.image import Preprocessing
from ..shards.plan import PlannedImage
from ..util.threads import result_of
from .decode_process import Decoded, DecodeProcess, Facts, Failed
from .reuse import Copy

__all__ = ["Decoded", "Failed", "decoding", "working"]

_Result = TypeVar("_Result")


def decoding(
    images: list[PlannedImage],
    preprocessing: Preprocessing,
    max_pixels: int = MAX_PIXELS,
    *,
    n_workers: int,
    n_ahead: Callable[[], int],
    copy: Callable[[PlannedImage, int], Copy | None] = lambda image, max_pixels: None,
) -> AbstractContextManager[Iterator[Decoded | Failed | Copy]]:
    """Decode photos, in order. Begin at once, before the first of them is taken.

    Parameters
    ----------
    images : list of PlannedImage
    preprocessing : Preprocessing
    max_pixels : int
        Larger images fail.
    n_workers, n_ahead
        As of `working`.
    copy : function
        From a photo and `max_pixels` to the row that makes decoding needless, or None.

    Raises
    ------
    InputError
        If a process cannot be started.
    """

    def decode(process: DecodeProcess, image: PlannedImage) -> Decoded | Failed | Copy:
        copied = copy(image, max_pixels)
        if copied is None:
            return process.decode(image)
        read = process.read_facts(image)
        return copied.with_facts(read.facts) if isinstance(read, Facts) else copied

    return working(decode, images, preprocessing, max_pixels, n_workers=n_workers, n_ahead=n_ahead)


@contextmanager
def working(
    work: Callable[[DecodeProcess, PlannedImage], _Result],
    images: Iterable[PlannedImage],
    preprocessing: Preprocessing,
    max_pixels: int = MAX_PIXELS,
    *,
    n_workers: int,
    n_ahead: Callable[[], int],
) -> Iterator[Iterator[_Result]]:
    """Do some work on photos, each with a process that decodes, and yield the results in order.

    Parameters
    ----------
    work : function
        From a process and a photo to the result; several threads call it.
    images : iterable of PlannedImage
    preprocessing : Preprocessing
    max_pixels : int
        Larger images fail.
    n_workers : int
        Processes. Only as many start as have work.
    n_ahead : function
        Returns how many photos may be finished before the first of them is taken.

    Raises
    ------
    InputError
        If a process cannot be started.
    """
    processes = [DecodeProcess(preprocessing, max_pixels) for _ in range(n_workers)]
    idle: LifoQueue[DecodeProcess] = LifoQueue()  # last in, first out: whoever has started goes on
    for process in processes:
        idle.put(process)

    def work_on(image: PlannedImage) -> _Result:
        process = idle.get()
        try:
            return work(process, image)
        finally:
            idle.put(process)

    pool = ThreadPoolExecutor(n_workers, "decode")
    try:
        remaining = iter(images)
        ahead = deque(pool.submit(work_on, image) for image in islice(remaining, n_ahead()))
        yield _in_order(pool, work_on, remaining, ahead, n_ahead)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()
        pool.shutdown()


def _in_order(
    pool: ThreadPoolExecutor,
    work_on: Callable[[PlannedImage], _Result],
    images: Iterator[PlannedImage],
    ahead: deque[Future[_Result]],
    n_ahead: Callable[[], int],
) -> Iterator[_Result]:
    for image in images:
        while len(ahead) >= n_ahead():
            yield result_of(ahead.popleft())
        ahead.append(pool.submit(work_on, image))
    while ahead:
        yield result_of(ahead.popleft())
