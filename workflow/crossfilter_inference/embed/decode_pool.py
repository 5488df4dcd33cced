"""Decode photos ahead of the encoder, in order, a bounded number at a time.

If the encoder runs on the same cores, threads decode: Pillow releases the interpreter's lock. Next to a GPU, which
encodes a thousand photos a second, that lock would be the limit; there, processes decode.
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
from ..photos.formats import MAX_PIXELS
from ..photos.image import ImageError, LoadedImage, Preprocessing, load_image, missing, read_image_file
from ..photos.scan import size_and_time
from ..shards.plan import PlannedImage


@dataclass(frozen=True)
class Decoded:
    """A decoded photo: its pixels and facts, the digest of its file, and the seconds that it took."""

    image: PlannedImage
    digest: str
    loaded: LoadedImage
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A photo that could not be decoded, the reason, and the seconds that it took."""

    image: PlannedImage
    error: ImageError
    seconds: float


def decode_image(image: PlannedImage, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> Decoded | Failed:
    """Read and decode one photo."""
    start = time.perf_counter()
    try:
        data, digest = read_image_file(image.path, max_pixels)
        _check_identity(image)
        loaded = load_image(data, preprocessing, max_pixels)
    except ImageError as error:
        return Failed(image, error, time.perf_counter() - start)
    return Decoded(image, digest, loaded, time.perf_counter() - start)


def _check_identity(image: PlannedImage) -> None:
    """Check, after reading, that the file is still the planned one."""
    try:
        status = os.stat(image.path)
    except OSError as error:
        raise missing(error) from None
    if size_and_time(status) != (image.size, image.mtime_ns):
        raise ImageError("changed", "the file has changed since this run was planned; the next run embeds it")


@contextmanager
def decoding(
    images: list[PlannedImage],
    preprocessing: Preprocessing,
    max_pixels: int = MAX_PIXELS,
    *,
    n_workers: int,
    n_ahead: Callable[[], int],
    in_processes: bool,
) -> Iterator[Iterator[Decoded | Failed]]:
    """Decode photos, in order.

    Parameters
    ----------
    images : list of PlannedImage
    preprocessing : Preprocessing
    max_pixels : int
        Larger images fail.
    n_workers : int
        Threads or processes.
    n_ahead : function
        Returns how many photos may be decoded before the first of them is taken.
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
            "a process that decoded photos was killed, most often because memory ran out; give the job more memory or "
            "fewer cores, and run the same command again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(
    pool: Executor, images: list[PlannedImage], how: tuple[Preprocessing, int], n_ahead: Callable[[], int]
) -> Iterator[Decoded | Failed]:
    ahead: deque[Future[Decoded | Failed]] = deque()
    for image in images:
        ahead.append(pool.submit(decode_image, image, *how))
        while len(ahead) >= n_ahead():
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _processes(n_workers: int) -> ProcessPoolExecutor:
    # A fork of this process, which has torch's threads, could hang.
    return ProcessPoolExecutor(n_workers, multiprocessing.get_context("forkserver"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Make this child process end when its parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a child process"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
