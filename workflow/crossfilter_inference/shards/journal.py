"""The finished rows of a shard that is not whole yet: what a killed job leaves to the next one.

A log lies beside the shard database to be, and only the job that made it writes to it. A job begins by taking over what
other logs of its shard hold, and removes them; so a job that outlives its killed Snakemake notices that it has been
succeeded, and ends. A log is a row of frames, each with its length and checksum: a torn end is not read.
"""

import os
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ..errors import InputError
from .shard import ShardRow

_FRAME = struct.Struct("<II")  # length of what follows, and its CRC-32
# A killed job loses nothing that it has written; after a power cut what was written in this time may be missing.
_SECONDS_BETWEEN_SYNCS = 1


class RowsLog:
    """Keep the rows of a shard until all are there.

    Parameters
    ----------
    output : str
        Path of the shard database to be.
    belongs_to : dict
        What rows of another job must have been made from to be taken over: the shard list, the encoder.
    wanted : set of (UUID, size, mtime_ns)
        The images that are.

    Attributes
    ----------
    finished : set of str
        UUIDs of all rows.

    Raises
    ------
    InputError
        When another job has taken over.
    """

    def __init__(self, output: str | Path, belongs_to: dict, wanted: set[tuple[str, int, int]]):
        output = Path(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        self.finished: set[str] = set()
        self._synced = time.monotonic()
        handle, path = tempfile.mkstemp(prefix=f".{output.stem}.", suffix=".rows", dir=output.parent)
        self._path = Path(path)
        self._file = os.fdopen(handle, "w+b")
        self._write(belongs_to)
        for other in logs_of(output):
            if other.name != self._path.name:
                self._take_over(other, belongs_to, wanted)
        self.flush()

    def add(self, row: ShardRow, *, is_final: bool = True) -> None:
        """Take a row; it is safe after `flush`. One that is not final is not taken over by another job."""
        self.finished.add(row.uuid)
        self._write([is_final, *row])

    def flush(self) -> None:
        """Give what has come to the operating system, and every second to the disk."""
        self._file.flush()
        try:
            is_mine = os.stat(self._path).st_ino == os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            is_mine = False
        if not is_mine:
            raise InputError("another job has taken this shard over; this one, left over by a killed run, ends")
        if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def rows(self) -> Iterator[ShardRow]:
        """Read all rows back."""
        self.flush()
        for _, *row in _frames(self._path, skip=1):
            yield ShardRow(*row)

    def _write(self, value: object) -> None:
        import msgpack

        data = msgpack.packb(value)
        self._file.write(_FRAME.pack(len(data), zlib.crc32(data)) + data)

    def _take_over(self, other: Path, belongs_to: dict, wanted: set[tuple[str, int, int]]) -> None:
        frames = _frames(other)
        if next(frames, None) == belongs_to:
            for is_final, *values in frames:
                row = ShardRow(*values)
                if is_final and row[:3] in wanted and row.uuid not in self.finished:
                    self.add(row)
        self.flush()
        os.fsync(self._file.fileno())
        other.unlink(missing_ok=True)

    def __enter__(self) -> "RowsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._file.close()
        if kind is None or not self.finished:
            self._path.unlink(missing_ok=True)


def logs_of(output: str | Path) -> list[Path]:
    """Find the logs that lie beside a shard database."""
    output = Path(output)
    return sorted(output.parent.glob(f".{output.stem}.*.rows"))


def remove_logs(folder: str | Path, shards: list[str]) -> None:
    """Remove the logs in a folder of shard databases, but for those of some shards."""
    for path in Path(folder).glob(".*.rows"):
        if path.name.split(".")[1] not in shards:
            path.unlink(missing_ok=True)


class FramesCount:
    """Count the frames of a log that another process writes; each look reads only what is new."""

    def __init__(self, path: Path):
        self._path, self._at, self._n = path, 0, 0

    def update(self) -> int:
        """Look, and return how many there are."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            file.seek(self._at)
            while len(head := file.read(_FRAME.size)) == _FRAME.size:
                end = self._at + _FRAME.size + _FRAME.unpack(head)[0]
                if end > n_bytes:
                    break
                self._at, self._n = end, self._n + 1
                file.seek(end)
        return self._n


def _frames(path: Path, skip: int = 0) -> Iterator:
    import msgpack  # planning, which counts frames, does without

    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            length, checksum = _FRAME.unpack(head)
            data = file.read(length)
            if len(data) != length or zlib.crc32(data) != checksum:
                return
            if skip:
                skip -= 1
                continue
            yield msgpack.unpackb(data)
