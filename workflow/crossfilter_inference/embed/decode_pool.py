"""Decode images ahead of the encoder, in order and by a bounded number.

Threads do it where the encoder runs on the same cores (Pillow lets go of the interpreter while it decodes). Beside a
GPU, which takes a thousand images a second, the interpreter would become the limit: there they are processes.
"""

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import InputError
from ..photos.image import MAX_PIXELS, ImageError, LoadedImage, Preprocessing, load_image, read_image_file
from ..shards.plan import PlannedImage


@dataclass(frozen=True)
class DecodedImage:
    """One image on its way to the encoder: its pixels and the digest of its file, or why there are none."""

    image: PlannedImage
    digest: str = ""
    loaded: LoadedImage | None = None
    error: ImageError | None = None
    seconds: float = 0


def decode_image(image: PlannedImage, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Read and decode one image; what cannot be decoded comes back with its error."""
    start = time.perf_counter()
    try:
        data, digest = read_image_file(image.path, max_pixels)
        _check_identity(image)
        loaded = load_image(data, preprocessing, max_pixels)
        return DecodedImage(image, digest, loaded, seconds=time.perf_counter() - start)
    except ImageError as error:
        return DecodedImage(image, error=error, seconds=time.perf_counter() - start)


def _check_identity(image: PlannedImage) -> None:
    """Look, after reading, whether the file is still the one that was planned."""
    try:
        status = os.stat(image.path)
    except OSError as error:
        raise ImageError("missing", error.strerror) from None
    if (status.st_size, status.st_mtime_ns) != (image.size, image.mtime_ns):
        raise ImageError("changed", "the file has changed since this run was planned; the next one embeds it")


@contextmanager
def decoding(
    images: list[PlannedImage],
    preprocessing: Preprocessing,
    max_pixels: int = MAX_PIXELS,
    *,
    n_workers: int,
    n_ahead: Callable[[], int],
    in_processes: bool,
) -> Iterator[Iterator[DecodedImage]]:
    """Decode images, in order.

    Parameters
    ----------
    images : list of PlannedImage
    preprocessing : Preprocessing
    max_pixels : int
    n_workers : int
        Threads or processes.
    n_ahead : function
        Tells how many images may be ahead of the one that is taken.
    in_processes : bool

    Raises
    ------
    InputError
        If a process is killed.
    """
    pool = _processes(n_workers) if in_processes else ThreadPoolExecutor(n_workers, "decode")
    try:
        yield _decoded(pool, images, (preprocessing, max_pixels), n_ahead)
    except BrokenProcessPool:
        raise InputError(
            "a process that decoded images was killed, most often for want of memory; give the job more memory or "
            "fewer cores, and run the same command again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(
    pool: Executor, images: list[PlannedImage], how: tuple[Preprocessing, int], n_ahead: Callable[[], int]
) -> Iterator[DecodedImage]:
    ahead: deque[Future[DecodedImage]] = deque()
    for image in images:
        ahead.append(pool.submit(decode_image, image, *how))
        while len(ahead) >= n_ahead():
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _processes(n_workers: int) -> ProcessPoolExecutor:
    # A fork of this process, with the threads of torch in it, could hang.
    return ProcessPoolExecutor(n_workers, multiprocessing.get_context("forkserver"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Have a process end when the one that it works for is killed; called in it."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
