"""Decode photos one by one in a process that can be stopped, so that no file holds up or ends a job.

A decoder is C code that runs on bytes from anywhere: it may loop, take all memory or crash. The headers of a file tell
most of its demands beforehand (`photos.formats`). For the rest, the process that decodes has two limits that the
kernel keeps: CPU time, and memory. The parent process learns from the exit code why it died, starts another, and
fails that one file. Computing time does not count waiting, so the outcome does not depend on a busy machine or disk.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from ..errors import InputError
from ..photos.exif import Exif
from ..photos.facts import complete_facts
from ..photos.formats import BYTES_IN_MEMORY, MAX_PIXELS
from ..photos.image import (
    ImageError,
    LoadedImage,
    Preprocessing,
    load_exif,
    load_image,
    load_jpeg,
    missing,
    read_image_file,
)
from ..photos.scan import size_and_time
from ..shards.plan import PlannedImage

MOST_SECONDS = 9.0  # of CPU time for MAX_PIXELS; the slowest ordinary image of that size takes 8
_SPARE_BYTES = 2**28  # of memory, for whatever does not grow with the image
_MOST_LEFT_BYTES = _SPARE_BYTES // 2
# Threads only cost memory. The GNU C library keeps some memory of a photo for the next one: getting it from the kernel,
# page by page, takes up to a third of the CPU time. It keeps less than would end the process.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(_MOST_LEFT_BYTES // 2),
}
_PROGRAM = f"import sys; sys.path = sys.argv[2:]; from {__name__} import serve; serve(int(sys.argv[1]))"

Loaded = TypeVar("Loaded", LoadedImage, Exif, bytes)
Load = Callable[[bytes, Preprocessing, int], LoadedImage]
LoadExif = Callable[[bytes, int], Exif]
# What the process does with a photo: decode it for the encoder, read its facts, or reduce it to so many pixels.
Task = Literal["decode", "facts"] | int


@dataclass(frozen=True)
class Decoded:
    """A decoded photo: its pixels, the digest of its file, its facts by column, and the seconds that it took."""

    image: PlannedImage
    digest: str
    loaded: LoadedImage
    facts: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Facts:
    """Facts of a photo, by column in lower case."""

    facts: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """A photo that could not be decoded, the reason, and the seconds that it took."""

    image: PlannedImage
    error: ImageError
    seconds: float


def decode_image(
    image: PlannedImage, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS, load: Load = load_image
) -> Decoded | Failed:
    """Read and decode one photo in this process."""
    start = time.perf_counter()
    try:
        data, digest = read_planned(image, max_pixels)
        loaded = load(data, preprocessing, max_pixels)
    except ImageError as error:
        return Failed(image, error, time.perf_counter() - start)
    return Decoded(image, digest, loaded, complete_facts(loaded.facts, image.path), time.perf_counter() - start)


def read_facts(image: PlannedImage, max_pixels: int = MAX_PIXELS, load: LoadExif = load_exif) -> Facts | Failed:
    """Read the facts of a photo in this process, but for its width and height."""
    start = time.perf_counter()
    try:
        data, _ = read_planned(image, max_pixels)
        exif = load(data, max_pixels)
    except ImageError as error:
        return Failed(image, error, time.perf_counter() - start)
    return Facts(complete_facts(asdict(exif), image.path))


def read_reduced(
    image: PlannedImage, side: int, max_pixels: int = MAX_PIXELS, load: Callable[..., bytes] = load_jpeg
) -> bytes | Failed:
    """Reduce one photo, as it is now, to a JPEG file of at most `side` pixels on the long side, in this process."""
    start = time.perf_counter()
    try:
        return load(read_image_file(image.path, max_pixels)[0], side, max_pixels)
    except ImageError as error:
        return Failed(image, error, time.perf_counter() - start)


def read_planned(image: PlannedImage, max_pixels: int) -> tuple[bytes, str]:
    """Read a file; check, after reading, that it is still the planned one."""
    data, digest = read_image_file(image.path, max_pixels)
    try:
        status = os.stat(image.path)
    except OSError as error:
        raise missing(error) from None
    if size_and_time(status) != (image.size, image.mtime_ns):
        raise ImageError("changed", "the file has changed since this run was planned; the next run embeds it")
    return data, digest


class DecodeProcess:
    """A process that decodes photos, one at a time, and is replaced when it dies. It starts with its first photo.

    Parameters
    ----------
    preprocessing : Preprocessing
    max_pixels : int
        Larger images fail.
    """

    def __init__(self, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS):
        self._how = preprocessing, max_pixels
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def decode(self, image: PlannedImage) -> Decoded | Failed:
        """Read and decode one photo; if that takes too long, too much memory or the process, the photo fails.

        Raises
        ------
        InputError
            If the process cannot be started.
        """
        answer = self._ask(image, "decode")
        assert isinstance(answer, Decoded | Failed), "pixels were asked for"
        return answer

    def read_facts(self, image: PlannedImage) -> Facts | Failed:
        """Read the facts of a photo, but for its width and height; limits and errors as of `decode`."""
        answer = self._ask(image, "facts")
        assert isinstance(answer, Facts | Failed), "only facts were asked for"
        return answer

    def reduce(self, image: PlannedImage, side: int) -> bytes | Failed:
        """Make an upright sRGB JPEG file, at most `side` pixels on its long side; limits and errors as of `decode`."""
        answer = self._ask(image, side)
        assert isinstance(answer, bytes | Failed), "a file was asked for"
        return answer

    def _ask(self, image: PlannedImage, task: Task) -> Decoded | Facts | bytes | Failed:
        start = time.perf_counter()
        for _ in range(2):  # the process may have ended before this photo, or been killed for another reason
            try:
                if self._process is None:
                    self._start()
                self._connection.send((image, task))
                answer: Decoded | Facts | bytes | Failed | Exception = self._connection.recv()
            except (EOFError, OSError):
                status = self._bury()
                if not self._is_ready and status != -signal.SIGKILL:
                    raise _not_started(f"exit code {status}") from None
                if status not in (0, -signal.SIGKILL):
                    break
            else:
                if isinstance(answer, Exception):
                    raise answer
                return answer
        return Failed(image, _died_of(status, self._how[1]), time.perf_counter() - start)

    def close(self) -> None:
        """End the process, also if another thread waits for it."""
        with self._lock:
            self._closed = True
            if (process := self._process) is not None:
                process.kill()
                process.wait()

    def _start(self) -> None:
        self._is_ready = False
        try:
            self._connection, theirs = Pipe()
            with self._lock, theirs:
                if self._closed:
                    raise InputError("the process that decodes photos was stopped")
                command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *sys.path]
                # In a process group of its own, which Ctrl-C does not reach while it starts.
                self._process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], env=os.environ | _ENVIRONMENT, process_group=0
                )
        except OSError as error:
            raise _not_started(str(error)) from None
        self._connection.send(self._how)
        self._connection.recv()
        self._is_ready = True

    def _bury(self) -> int:
        """Collect the exit code of the dead process."""
        assert self._process is not None, "has been started"
        self._connection.close()
        status = self._process.wait()
        self._process = None
        return status


def _not_started(why: str) -> InputError:
    return InputError(
        f"a process that decodes photos cannot be started ({why}); give the job more memory or fewer cores, and run "
        "the same command again"
    )


def most_seconds(max_pixels: int) -> float:
    """Return how long decoding may take, in seconds of CPU time."""
    return MOST_SECONDS * max(1.0, max_pixels / MAX_PIXELS)


def _died_of(status: int, max_pixels: int) -> ImageError:
    """Make the error for a photo at which the process died, from its exit code."""
    if status == -signal.SIGPROF:
        return ImageError("too slow", f"decoding takes more than {most_seconds(max_pixels):g} s of CPU time")
    if status == -signal.SIGKILL:
        return ImageError("out of memory", "the process that decoded it was killed twice")
    cause = signal.Signals(-status).name if status < 0 else f"exit code {status}"
    return ImageError("crashed", f"the decoder crashed ({cause})")


def serve(descriptor: int) -> None:
    """Decode the photos that the parent process sends, until it closes the connection or dies."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the parent decides
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # if memory runs out, the kernel shall end this process and not the one with the model
        Path("/proc/self/oom_score_adj").write_text("1000")
    warnings.simplefilter("ignore")  # of decoders, which name no file
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):  # the parent has ended
        preprocessing, max_pixels = connection.recv()
        before = _data_bytes()
        load, load_facts = partial(_within_limits, before, load_image), partial(_within_limits, before, load_exif)
        reduce = partial(_within_limits, before, load_jpeg)
        connection.send(None)
        while _data_bytes() - before < _MOST_LEFT_BYTES:  # if decoders left more, a new process takes over
            image, task = connection.recv()
            answer: Decoded | Facts | bytes | Failed | Exception
            try:
                if task == "decode":
                    answer = decode_image(image, preprocessing, max_pixels, load)
                elif task == "facts":
                    answer = read_facts(image, max_pixels, load_facts)
                else:
                    answer = read_reduced(image, task, max_pixels, reduce)
            except Exception as error:  # a fault of this program's, which the parent reports
                answer = error
            connection.send(answer)


def _within_limits(before: int, load: Callable[..., Loaded], data: bytes, *how: Any) -> Loaded:
    """Decode an image file; the kernel ends this process when that takes too long, and refuses it too much memory.

    Parameters
    ----------
    before : int
        Bytes of data that this process held before it read the file.
    load : function
    data : bytes
    *how
        Further arguments of `load`, `max_pixels` last.
    """
    max_pixels = how[-1]
    n_bytes = BYTES_IN_MEMORY * max_pixels + _SPARE_BYTES
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = before + len(data) + n_bytes
    is_ours = before > 0 and all(most == resource.RLIM_INFINITY or limit < most for most in (soft, hard))
    if is_ours:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    signal.setitimer(signal.ITIMER_PROF, most_seconds(max_pixels))  # at its end, SIGPROF ends this process
    try:
        return load(data, *how)
    except ImageError as error:
        if error.reason == "out of memory" and is_ours:
            what = f"decoding takes more than {n_bytes // 10**6:,} MB of memory, enough for"
            raise ImageError("too large", f"{what} the {max_pixels / 1e6:.6g} megapixels of max_megapixels") from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if is_ours:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Return the memory of this process that RLIMIT_DATA limits; 0 where the system does not limit it."""
    path = Path("/proc/self/status")
    status = path.read_text() if path.exists() else ""
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:")), 0)
