"""Walk the folders of photos: image files by UUID, and rejected files with a reason.

Folders reached by symbolic links are walked too, but each real folder once, so that a loop of links ends.
Only names, sizes and times are looked at here; the content is judged where the bytes are read anyway.
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
    """An image file; `uuid` as its name spells it, `size` in bytes, `mtime_ns` in nanoseconds."""

    uuid: str
    path: str
    size: int
    mtime_ns: int


class RejectedFile(NamedTuple):
    """A file with an image's extension that is no image of the collection, and why."""

    path: str
    reason: str


@dataclass
class Scan:
    """What the folders hold: `images` in order of UUID, `rejected` in order of path, and the number of
    files of every other extension (lower case).
    """

    images: list[ImageFile] = field(default_factory=list)
    rejected: list[RejectedFile] = field(default_factory=list)
    n_others: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """Say in one line what was found beside the images."""
        reasons = Counter(re.split(r" \(| as ", file.reason)[0] for file in self.rejected)
        others = Counter({extension or "without extension": n for extension, n in self.n_others.items()})
        return f"rejected files: {_counted(reasons)}; other files, left alone: {_counted(others)}"

    def check(self, folders: list[str]) -> None:
        """Refuse folders without a single image.

        Raises
        ------
        InputError
        """
        if self.images:
            return
        where = ", ".join(repr(os.path.abspath(folder)) for folder in folders)
        example = f"; for example {printable(self.rejected[0].path)}" if self.rejected else ""
        raise InputError(f"input_dir: no <uuid>.jpg photos in {where} ({self.summary()}{example})")


def _counted(kinds: Counter[str]) -> str:
    """Write a total with its largest parts: `3 (2 empty, 1 not a UUID)`."""
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
        With their dot; compared without regard to case.

    Returns
    -------
    Scan
        With absolute paths. Of several files with one UUID the first path in byte order is the image.

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
        try:
            os.scandir(path).close()
        except OSError as error:
            raise InputError(f"input_dir: cannot read the folder {path!r} ({error.strerror})") from None
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
            if other.path != image.path:  # two files, or one that two of the folders hold
                first, second = sorted((image, other), key=lambda candidate: os.fsencode(candidate.path))
                found[key] = first
                scan.rejected.append(RejectedFile(second.path, f"the same UUID as {first.path}"))
    scan.images = sorted(found.values())
    scan.rejected.sort(key=lambda rejected: os.fsencode(rejected.path))
    return scan


def _walk(folder: str, seen: set[tuple[int, int]], rejected: list[RejectedFile]) -> Iterator[os.DirEntry]:
    """Yield every entry that is not a folder; each real folder once, under its first path in byte order."""
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


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links: no folder, and judged like any other file
        return False


def _check(entry: os.DirEntry, stem: str) -> ImageFile | RejectedFile:
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
    # Most photos may be read by everybody, which is known already; a question for each takes as long as all the rest.
    if status.st_mode & _READABLE != _READABLE and not os.access(entry.path, os.R_OK):
        return RejectedFile(entry.path, "unreadable (Permission denied)")
    return ImageFile(stem, entry.path, status.st_size, status.st_mtime_ns)
