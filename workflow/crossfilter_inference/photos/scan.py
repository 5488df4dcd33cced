"""Scan the photo folders: image files by UUID, and rejected files with a reason.

Symbolic links to folders are followed, but each real folder is scanned once, so loops of links end. The scan
looks at names, sizes and times only; embedding reads the contents.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import InputError
from ..util.text import printable
from .names import canonical_uuid, is_uuid

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


class ImageFile(NamedTuple):
    """An image file; `uuid` as the file name spells it, `size` in bytes, `mtime_ns` in nanoseconds."""

    uuid: str
    path: str
    size: int
    mtime_ns: int


class RejectedFile(NamedTuple):
    """A file with an image extension that is not part of the collection, and the reason."""

    path: str
    reason: str


@dataclass
class Scan:
    """The contents of the folders.

    Attributes
    ----------
    images : list of ImageFile
        In order of UUID.
    rejected : list of RejectedFile
        In order of path.
    n_others : Counter
        Number of files by every other extension, in lower case.
    """

    images: list[ImageFile] = field(default_factory=list)
    rejected: list[RejectedFile] = field(default_factory=list)
    n_others: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """Describe in one line the files that are not images of the collection."""
        reasons = Counter(re.split(r" \(| as ", file.reason)[0] for file in self.rejected)
        others = Counter({extension or "without extension": n for extension, n in self.n_others.items()})
        return f"rejected files: {_counted(reasons)}; other files, ignored: {_counted(others)}"

    def check(self, folders: list[str]) -> None:
        """Check that the folders hold at least one image.

        Raises
        ------
        InputError
            If they hold none.
        """
        if self.images:
            return
        where = ", ".join(repr(os.path.abspath(folder)) for folder in folders)
        example = f"; for example {printable(self.rejected[0].path)}" if self.rejected else ""
        raise InputError(
            f"input_dir: no <uuid>.jpg photos in {where} ({self.summary()}{example}); set it to a folder of photos "
            "named by UUID"
        )


def _counted(kinds: Counter[str]) -> str:
    """Format a total with its largest parts: `3 (2 empty, 1 not a UUID)`."""
    if not kinds:
        return "0"
    largest = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:5]
    parts = ", ".join(f"{n} {kind}" for kind, n in largest)
    return f"{kinds.total()} ({parts}{', ...' if len(kinds) > 5 else ''})"


def scan_folders(folders: list[str], extensions: list[str]) -> Scan:
    """Find the images of a collection.

    Parameters
    ----------
    folders : list of str
    extensions : list of str
        With the dot; case does not matter.

    Returns
    -------
    Scan
        With absolute paths. Of several files with the same UUID, the first path in byte order is the image.

    Raises
    ------
    InputError
        If a folder is missing or cannot be read.
    """
    scan = Scan()
    known = {extension.lower() for extension in extensions}
    found: dict[str, ImageFile] = {}
    seen_folders: set[tuple[int, int]] = set()
    for folder in folders:
        path = os.path.abspath(folder)
        check_folder(path)
        for entry in _walk(path, seen_folders, scan.rejected):
            stem, _, extension = entry.name.rpartition(".")
            extension = f".{extension.lower()}" if stem.strip(".") else ""
            if extension not in known:
                scan.n_others[extension] += 1
                continue
            image = _check(entry, stem)
            if isinstance(image, RejectedFile):
                scan.rejected.append(image)
                continue
            key = canonical_uuid(stem)
            other = found.setdefault(key, image)
            if other.path != image.path:  # two files, or one file that is in two of the folders
                first, second = sorted((image, other), key=lambda candidate: os.fsencode(candidate.path))
                found[key] = first
                scan.rejected.append(RejectedFile(second.path, f"the same UUID as {first.path}"))
    scan.images = sorted(found.values())
    scan.rejected.sort(key=lambda rejected: os.fsencode(rejected.path))
    return scan


def _walk(folder: str, seen: set[tuple[int, int]], rejected: list[RejectedFile]) -> Iterator[os.DirEntry[str]]:
    """Yield every entry that is not a folder. Walk each real folder once, under its first path in byte order."""
    folders = []
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_folder(entry):
                    folders.append(entry)
                else:
                    yield entry
    except OSError as error:
        rejected.append(RejectedFile(folder + os.sep, f"unreadable folder ({error.strerror})"))
    for entry in sorted(folders, key=lambda entry: os.fsencode(entry.name)):
        yield from _walk(entry.path, seen, rejected)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links is checked like a file
        return False


def _check(entry: os.DirEntry[str], stem: str) -> ImageFile | RejectedFile:
    if not is_uuid(stem):
        return RejectedFile(entry.path, "not a UUID")
    try:
        status = entry.stat()
    except OSError as error:
        return RejectedFile(entry.path, f"unreadable ({error.strerror})")
    if not stat.S_ISREG(status.st_mode):
        return RejectedFile(entry.path, "not a regular file")
    if status.st_size == 0:
        return RejectedFile(entry.path, "empty")
    # os.access takes as long as the rest of the scan. Most photos are readable by everyone, so it is rarely needed.
    if status.st_mode & _READABLE != _READABLE and not os.access(entry.path, os.R_OK):
        return RejectedFile(entry.path, "unreadable (Permission denied)")
    return ImageFile(stem, entry.path, status.st_size, status.st_mtime_ns)


def check_folder(path: str) -> None:
    """Refuse a folder of photos that is missing or cannot be read."""
    try:
        os.scandir(path).close()
    except OSError as error:
        raise InputError(f"input_dir: cannot read the folder {path!r} ({error.strerror})") from None
