"""The journal of a shard that is not complete: its finished rows, so that a killed job can resume.

A journal is next to the future shard database, and only the job that created it writes to it. A job starts by copying
the rows of other journals of its shard into its own, and removes them. So a job that outlives its killed Snakemake
notices that another has replaced it, and ends.

A journal is a sequence of frames, each with its length and checksum; a torn end is ignored. The first frame describes
what the rows were made from, and the format of their columns. Every other frame is a row, as a msgpack map by column.
Rows of another format are not resumed but recomputed.
"""

import os
import struct
import tempfile
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ..db.tables import FORMAT_VERSION, Row
from ..errors import InputError
from ..util.files import damaged, writing_to

_FRAME = struct.Struct("<II")  # length of the data that follows, and its CRC-32
# A killed job loses no written rows; a power cut may lose the rows of this time.
_SECONDS_BETWEEN_SYNCS = 1


class RowsLog:
    """Keep the finished rows of a shard until it is complete.

    Parameters
    ----------
    output : str
        Path of the future shard database.
    belongs_to : dict
        The shard list and the encoder that the rows are made from. Rows of another job are resumed only if both are
        equal.
    wanted : set of (UUID, size, mtime_ns)
        Images whose rows are resumed.

    Attributes
    ----------
    finished : set of str
        UUIDs of all rows.

    Raises
    ------
    InputError
        If another job has replaced this one.
    """

    def __init__(self, output: str | Path, belongs_to: dict[str, str], wanted: set[tuple[str, int, int]]):
        output = Path(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        self.finished: set[str] = set()
        self._synced = time.monotonic()
        with writing_to(output):
            handle, path = tempfile.mkstemp(prefix=f".{output.stem}.", suffix=".rows", dir=output.parent)
        self._path = Path(path)
        self._file = os.fdopen(handle, "w+b")
        head = {**belongs_to, "format": FORMAT_VERSION}
        self._write(head)
        for other in logs_of(output):
            if other.name != self._path.name:
                self._resume(other, head, wanted)
        self.flush()

    def add(self, row: Row, *, is_final: bool = True) -> None:
        """Add a row, which is safe after `flush`. Another job resumes it only if it is final."""
        self.finished.add(row["UUID"])
        self._write({"is_final": is_final, "row": row})

    def flush(self) -> None:
        """Pass added rows to the operating system, and once a second to the disk."""
        with writing_to(self._path):
            self._file.flush()
        try:
            is_mine = os.stat(self._path).st_ino == os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            is_mine = False
        if not is_mine:
            raise InputError("a newer job has replaced this one, which a killed run left behind; this job ends")
        if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            self._sync()

    def rows(self) -> Iterator[Row]:
        """Read all rows back."""
        self.flush()
        for frame in _frames(self._path, skip=1):
            yield frame["row"]

    def _write(self, value: object) -> None:
        import msgpack

        data = msgpack.packb(value)
        with writing_to(self._path):
            self._file.write(_FRAME.pack(len(data), zlib.crc32(data)) + data)

    def _sync(self) -> None:
        with writing_to(self._path):
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _resume(self, other: Path, head: dict[str, Any], wanted: set[tuple[str, int, int]]) -> None:
        frames = _frames(other)
        if next(frames, None) == head:
            for frame in frames:
                row = frame["row"]
                is_wanted = (row["UUID"], row["SIZE"], row["MTIME_NS"]) in wanted
                if frame["is_final"] and is_wanted and row["UUID"] not in self.finished:
                    self.add(row)
        self.flush()
        self._sync()
        other.unlink(missing_ok=True)

    def __enter__(self) -> "RowsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing_to(self._path):
            self._file.close()
        if kind is None or not self.finished:
            self._path.unlink(missing_ok=True)


def check_journal(path: str | Path) -> None:
    """Check that a journal begins as a job writes it; a torn end is no fault.

    Raises
    ------
    InputError
        If it does not.
    """
    path = Path(path)
    if not path.is_file() or (path.stat().st_size >= _FRAME.size and "format" not in next(_frames(path), {})):
        raise damaged(path)


def logs_of(output: str | Path) -> list[Path]:
    """Find the journals next to a shard database."""
    output = Path(output)
    return sorted(path for path in output.parent.glob(f".{output.stem}.*.rows") if path.is_file())


def remove_logs(folder: str | Path, shards: Collection[str]) -> None:
    """Remove the journals in a folder of shard databases, except those of the given shards."""
    for path in Path(folder).glob(".*.rows"):
        if path.is_file() and path.name.split(".")[1] not in shards:
            path.unlink(missing_ok=True)


class FramesCount:
    """Count the frames of a journal that another process writes; each update reads only the new ones."""

    def __init__(self, path: Path):
        self._path, self._at, self._n = path, 0, 0

    def update(self) -> int:
        """Read the new frames, and return the number of all."""
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


def _frames(path: Path, skip: int = 0) -> Iterator[dict[str, Any]]:
    import msgpack  # not at the top: planning, which counts frames, runs without it

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
