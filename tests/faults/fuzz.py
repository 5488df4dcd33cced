"""Decode thousands of damaged images, as the workflow does.

The only allowed results are an image of the right shape and an ImageError. Any other (another exception, a crash, a
hang, too much memory) ends in exit code 1, with the input in a file and the command that replays it:

    PYTHONPATH=workflow python tests/faults/fuzz.py --files 100000 --processes 16 --seed 1
"""

import argparse
import functools
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
from damaged import mutated, originals
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

from crossfilter_inference.embed.decode_process import Failed, decode_image
from crossfilter_inference.photos.image import THUMBNAIL_SIDE, ImageError, LoadedImage, Preprocessing, load_image
from crossfilter_inference.shards.plan import PlannedImage

PREPROCESSING = Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)
MAX_PIXELS = 2**22  # so that memory and time reveal inputs that escape the limit
MOST_SECONDS, MOST_MEGABYTES = 10.0, 300
ADDRESS_SPACE = 2**33  # bytes: a decompression bomb ends the process, not the machine
N_PROCESSES = 2
FROM_FILE = 50  # every so many inputs go through a real file

Decode = Callable[[bytes], LoadedImage]


def decode(data: bytes) -> LoadedImage:
    return load_image(data, PREPROCESSING, MAX_PIXELS)


@dataclass
class Report:
    """Results of the inputs; `violations` are the disallowed ones, by number."""

    outcomes: Counter[str] = field(default_factory=Counter)
    violations: dict[int, str] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, 0)
    megabytes: int = 0

    def __str__(self) -> str:
        total = self.outcomes.total() + len(self.violations)
        others = (f"{reason}: {n}" for reason, n in sorted(self.outcomes.items()) if reason != "decoded")
        return (
            f"inputs: {total}\ndecoded: {self.outcomes['decoded']}\n"
            + "".join(f"{line}\n" for line in others)
            + f"violations: {len(self.violations)}\nslowest input: {self.slowest[0]:.2f} s (number {self.slowest[1]})\n"
            f"peak memory: {self.megabytes} MB"
        )


class _Worker:
    """A process that decodes inputs in order. If it dies, the input after the last reported one is to blame."""

    def __init__(self, numbers: Sequence[int], *arguments: object):
        self.numbers, self._arguments = deque(numbers), arguments
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_play, args=(theirs, list(self.numbers), *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        assert self.connection.recv() == "ready"
        self._since = time.monotonic()

    def listen(self, report: Report, most_seconds: float, most_megabytes: float) -> None:
        """Collect results; restart after an input that killed or hung the process, or took too much memory."""
        fault = None
        try:
            while self.numbers and not fault and self.connection.poll():
                outcome, fault, seconds, megabytes = self.connection.recv()
                report.slowest = max(report.slowest, (seconds, self.numbers[0]))
                report.megabytes = max(report.megabytes, megabytes)
                if megabytes > most_megabytes:
                    fault = f"took {megabytes} MB of memory"
                if not fault:
                    report.outcomes[outcome] += 1
                    self.numbers.popleft()
                self._since = time.monotonic()
        except EOFError:
            self._process.join()
            fault = f"died with exit code {self._process.exitcode}"
        if self.numbers and not fault and time.monotonic() - self._since > most_seconds:
            fault = f"took more than {most_seconds} s"
        if fault:
            report.violations[self.numbers.popleft()] = fault
        if fault or not self.numbers:
            self._process.kill()
            self._process.join()
            self.connection.close()
        if fault and self.numbers:
            self._start()


def _play(connection: Connection, numbers: list[int], seed: int, decode: Decode, folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE if most < 0 else min(ADDRESS_SPACE, most), most))
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # libtiff prints warnings
    originals()
    connection.send("ready")
    for number in numbers:
        data, start = mutated(seed, number), time.perf_counter()
        outcome = fault = None
        try:
            outcome = _outcome(data, decode)
            if number % FROM_FILE == 0 and data:
                assert _outcome(data, functools.partial(_decode_file, folder)) == outcome, "not so from a file"
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        connection.send((outcome, fault, time.perf_counter() - start, peak))


def _outcome(data: bytes, decode: Decode) -> str:
    try:
        loaded = decode(data)
    except ImageError as error:
        assert error.reason != "out of memory", error
        return error.reason
    assert loaded.pixels.shape == (32, 32, 3), loaded.pixels.shape
    assert loaded.pixels.dtype == np.uint8, loaded.pixels.dtype
    assert 0 < loaded.width * loaded.height <= MAX_PIXELS, (loaded.width, loaded.height)
    with Image.open(io.BytesIO(loaded.thumbnail), formats=["JPEG"]) as thumbnail:
        assert max(thumbnail.size) <= THUMBNAIL_SIDE, thumbnail.size
    return "decoded"


def _decode_file(folder: str, data: bytes) -> LoadedImage:
    path = Path(folder) / f"{os.getpid()}.jpg"
    path.write_bytes(data)
    status = path.stat()
    image = PlannedImage("", str(path), status.st_size, status.st_mtime_ns, "")
    decoded = decode_image(image, PREPROCESSING, MAX_PIXELS)
    if isinstance(decoded, Failed):
        raise decoded.error
    return decoded.loaded


def play(
    numbers: Sequence[int],
    seed: int,
    decode: Decode = decode,
    most_seconds: float = MOST_SECONDS,
    most_megabytes: float = MOST_MEGABYTES,
    n_processes: int = N_PROCESSES,
) -> Report:
    """Decode the inputs of these numbers in processes."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        workers = [_Worker(part, seed, decode, folder) for i in range(n_processes) if (part := numbers[i::n_processes])]
        while workers:
            wait([worker.connection for worker in workers], timeout=0.1)
            for worker in workers:
                worker.listen(report, most_seconds, most_megabytes)
            workers = [worker for worker in workers if worker.numbers]
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="number of inputs")
    parser.add_argument("--processes", type=int, default=N_PROCESSES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="decode only the input of this number")
    parser.add_argument("--output", default=".", help="folder for failing inputs")
    arguments = parser.parse_args()
    numbers = range(arguments.files) if arguments.only is None else [arguments.only]
    report = play(numbers, arguments.seed, n_processes=arguments.processes)
    Path(arguments.output).mkdir(parents=True, exist_ok=True)
    for number, fault in sorted(report.violations.items()):
        path = Path(arguments.output) / f"fuzz-{arguments.seed}-{number}.bin"
        path.write_bytes(mutated(arguments.seed, number))
        print(f"{path}: {fault}\n    python tests/faults/fuzz.py --seed {arguments.seed} --only {number}")
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
