r"""Small files: written whole or not at all, tables as TSV, digests of settings.

A TSV here has a header line, tab between fields, and quotes round a field that holds a tab,
a quote or a newline, as Python's csv module and pandas read it. A path that is not UTF-8
keeps its bytes (surrogateescape). One line to read one:
`pandas.read_csv(path, sep="\t", dtype=str, keep_default_na=False)`.
"""

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import InputError

# As much as is digested at once: between two pieces other threads are waited for.
_CHUNK_BYTES = 2**23


def new_part(path: str | os.PathLike) -> Path:
    """Make an empty file of a name of its own beside `path`, to be written and then published."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.fchmod(handle, 0o666 & ~_umask())
    os.close(handle)
    return Path(part)


def publish(part: Path, path: str | os.PathLike) -> None:
    """Let a part appear under its name: after a crash there is the old file or the new one, whole."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove the parts that killed jobs left; a job that is still at work on one cannot publish it any more."""
    for part in Path(folder).rglob(".*.part*"):
        part.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file that appears by rename."""
    part = new_part(path)
    try:
        part.write_bytes(data)
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file that appears by rename, in UTF-8 with foreign bytes kept."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write a JSON file that appears by rename: sorted keys, so that equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON object.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        value = json.loads(Path(path).read_text("utf-8"))
        if isinstance(value, dict):
            return value
    except ValueError:
        pass
    raise damaged(path)


def write_tsv(path: str | os.PathLike, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """Write a table that appears by rename."""
    text = _UnixLines()
    table = csv.writer(text, delimiter="\t", lineterminator="\r\n")
    table.writerow(header)
    table.writerows(rows)
    write_text(path, text.getvalue())


def read_tsv(path: str | os.PathLike, header: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the rows of a table.

    Raises
    ------
    InputError
        If the first line is not `header`, or another one has not as many fields.
    """
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.reader(file, delimiter="\t", strict=True)
        try:
            if tuple(next(rows, ())) != header:
                raise damaged(path)
            for row in rows:
                if len(row) != len(header):
                    raise damaged(path)
                yield row
        except csv.Error:
            raise damaged(path) from None


def damaged(path: str | os.PathLike) -> InputError:
    """Say that a file which we wrote is not what we wrote."""
    return InputError(f"{str(path)!r} is damaged; delete it, and it is made again")


def digest(value: object) -> str:
    """Digest a JSON-like value: 16 hexadecimal digits, equal for equal values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: str | os.PathLike) -> str:
    """Digest the bytes of a file: 64 hexadecimal digits."""
    sha256, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK_BYTES))
    with open(path, "rb", buffering=0) as file:
        while n_read := file.readinto(buffer):
            sha256.update(buffer[:n_read])
    return sha256.hexdigest()


def write_stamp(path: str | os.PathLike) -> None:
    """Leave an empty file that names, by its name `<kind>-<digest>`, the settings that were used.

    The stamps of other settings of the same kind are removed, so that going back to them is noticed.
    """
    path = Path(path)
    kind = path.name.rsplit("-", 1)[0]
    for other in path.parent.glob(f"{kind}-*"):
        if other != path:
            other.unlink(missing_ok=True)
    write_bytes(path, b"")


class _UnixLines(io.StringIO):
    """The csv module quotes a field for the characters of its line end: it is told both, we keep one."""

    def write(self, line: str) -> int:
        return super().write(line.removesuffix("\r\n") + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
