r"""Small files: atomic writes, TSV tables, digests.

A TSV file has a header line, tabs between fields, and quotes around a field that contains a tab, a quote or a newline,
as Python's csv module and pandas read it. A path that is not UTF-8 keeps its bytes (surrogateescape). To read a file:
`pandas.read_csv(path, sep="\t", dtype=str, keep_default_na=False)`.
"""

import csv
import errno
import hashlib
import io
import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError

StrPath = str | os.PathLike[str]

# Bytes to digest at once. Each read takes the interpreter's lock again, and may have to wait for other threads.
_CHUNK_BYTES = 2**23


@contextmanager
def writing_to(path: StrPath) -> Iterator[None]:
    """Name the file in the error of a system that cannot write it (disk full, quota, fault); Python does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), os.fspath(path)) from None


def new_part(path: StrPath) -> Path:
    """Create an empty temporary file next to `path`, with a unique name, for `publish`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing_to(path):
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.fchmod(handle, 0o666 & ~_umask())
    os.close(handle)
    return Path(part)


def publish(part: Path, path: StrPath) -> None:
    """Move a temporary file to its path; after a crash, either the old file or the new one exists, complete."""
    with writing_to(path):
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)


def remove_parts(folder: StrPath) -> None:
    """Remove the temporary files of killed jobs. A job that still writes one can no longer publish it."""
    for part in Path(folder).rglob(".*.part*"):
        if part.is_symlink() or not part.is_dir():  # a folder is not ours
            part.unlink(missing_ok=True)


def write_bytes(path: StrPath, data: bytes) -> None:
    """Write a file atomically."""
    part = new_part(path)
    try:
        with writing_to(path):
            part.write_bytes(data)
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> None:
    """Write a text file atomically, in UTF-8; surrogate escapes become the original bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: StrPath, value: object) -> None:
    """Write a JSON file atomically, with sorted keys: equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: StrPath, **types: type) -> dict[str, Any]:
    """Read a JSON object, and check the types of the given keys.

    Raises
    ------
    InputError
        If the file holds no JSON object, or a key is missing or has another type.
    """
    try:
        value = json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError, IsADirectoryError):
        raise damaged(path) from None
    if not (isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in types.items())):
        raise damaged(path)
    return value


def write_tsv(path: StrPath, header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    """Write a TSV file atomically."""
    text = _UnixLines()
    table = csv.writer(text, delimiter="\t", lineterminator="\r\n")
    table.writerow(header)
    table.writerows(rows)
    write_text(path, text.getvalue())


def read_tsv(path: StrPath, header: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the rows of a TSV file.

    Raises
    ------
    InputError
        If the first line is not `header`, or a row has a different number of fields.
    """
    if os.path.isdir(path):
        raise damaged(path)
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        try:
            if tuple(next(_rows_of_csv(file), ())) != header:
                raise damaged(path)
            for line in file:
                # Only lines with quotes need `csv`, which is three times as slow; a field may go on in the next line.
                is_plain = '"' not in line and not line.isspace()
                row = line.rstrip("\r\n").split("\t") if is_plain else next(_rows_of_csv(itertools.chain([line], file)))
                if len(row) != len(header):
                    raise damaged(path)
                yield row
        except csv.Error:
            raise damaged(path) from None


def _rows_of_csv(lines: Iterator[str]) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter="\t", strict=True)


def read_benchmark(path: StrPath) -> dict[str, float] | None:
    """Read the seconds (`s`) and MB (`max_rss`) that Snakemake measured for a job; None if it measured nothing."""
    try:
        [row] = csv.DictReader(Path(path).read_text("utf-8").splitlines(), delimiter="\t")
        figures = {"s": float(row["s"]), "max_rss": 0 if row["max_rss"] in ("NA", "-") else float(row["max_rss"])}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    return figures if all(map(math.isfinite, figures.values())) else None


def damaged(path: StrPath) -> InputError:
    """Return the error for a damaged file of the workflow."""
    return InputError(f"{str(path)!r} is damaged; delete it, and the next run rebuilds it")


def digest(value: object) -> str:
    """Return the digest of a JSON-like value: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: StrPath) -> str:
    """Return the SHA-256 of a file: 64 hexadecimal digits."""
    sha256, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK_BYTES))
    with open(path, "rb", buffering=0) as file:
        while n_read := file.readinto(buffer):
            sha256.update(buffer[:n_read])
    return sha256.hexdigest()


def write_stamp(path: StrPath) -> None:
    """Write a settings stamp: an empty file whose name, `<kind>-<digest>`, identifies the settings that were used.

    Stamps of other settings of the same kind are removed, so that a return to those settings counts as a change.
    """
    path = Path(path)
    kind = path.name.rsplit("-", 1)[0]
    for other in path.parent.glob(f"{kind}-*"):
        if other != path and not other.is_dir():
            other.unlink(missing_ok=True)
    write_bytes(path, b"")


class _UnixLines(io.StringIO):
    """Turn CRLF into LF: the csv module quotes fields with a CR only if its own line end contains one."""

    def write(self, line: str) -> int:
        return super().write(line.removesuffix("\r\n") + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
