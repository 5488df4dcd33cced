"""Scan the photo folders: image files by UUID, and rejected files with a reason.

Symbolic links to folders are followed, but each real folder is scanned once, so loops of links end. Real folders are
told apart by their real paths, because some network file systems give every folder the same inode number. The scan
looks at names, sizes and times only; embedding reads the contents.

Folders and files whose names match a pattern of the setting `exclude` are only counted. Hidden folders are scanned
after all others.
"""

import fnmatch
import heapq
import operator
import os
import re
import stat
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from ..errors import NoPhotos
from ..util.text import choosing, printable
from .names import read_uuid
from .sidecars import EXTENSIONS as SIDECARS
from .sidecars import match_sidecars

_WILDCARDS = frozenset("*?[")
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_SAME_UUID = "the same UUID as"
NOT_A_UUID = "not a UUID"
_UUID = operator.attrgetter("uuid")


class ImageFile(NamedTuple):
    """An image file; `uuid` as the file name spells it, `size` in bytes, times in nanoseconds, `ctime_ns` 0 if unknown.

    The time of the last status change, `ctime_ns`, also shows new contents under an old size and timestamp.
    """

    uuid: str
    path: str
    size: int
    mtime_ns: int
    ctime_ns: int = 0


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
    nameless : list of ImageFile
        Image files whose names are not UUIDs, if these are allowed; without UUID.
    rejected : list of RejectedFile
        In order of path.
    n_others : Counter
        Number of files by every other extension, in lower case.
    n_excluded : Counter
        Number of excluded files with an image extension, by the pattern that excludes them.
    n_sidecars : int
        Number of sidecars of images; they are not among the others.
    unnamed : set of str
        Canonical UUIDs of files that are excluded or have another extension.
    unseen : list of str
        Folders that cannot be read.
    """

    images: list[ImageFile] = field(default_factory=list)
    nameless: list[ImageFile] = field(default_factory=list)
    rejected: list[RejectedFile] = field(default_factory=list)
    n_others: Counter[str] = field(default_factory=Counter)
    n_excluded: Counter[str] = field(default_factory=Counter)
    n_sidecars: int = 0
    unnamed: set[str] = field(default_factory=set)
    unseen: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Describe in one line the files that are not images of the collection."""
        reasons = Counter(re.split(r" \(| as ", file.reason)[0] for file in self.rejected)
        others = Counter({printable(extension) or "without extension": n for extension, n in self.n_others.items()})
        excluded = f"; excluded files: {_counted(self.n_excluded)}" if self.n_excluded else ""
        sidecars = f"; sidecars: {self.n_sidecars}" if self.n_sidecars else ""
        return f"rejected files: {_counted(reasons)}{excluded}{sidecars}; other files, ignored: {_counted(others)}"

    def unusable(self) -> dict[str, str]:
        """Return why files named by a UUID are not images, by the canonical UUID; duplicates are left out."""
        reasons = {}
        for path, reason in self.rejected:
            uuid = read_uuid(os.path.basename(path).rpartition(".")[0])
            if uuid and not reason.startswith(_SAME_UUID):
                reasons[uuid] = reason
        return reasons

    def check(self, folders: list[str], *, any_name: bool = False) -> None:
        """Check that the folders hold at least one image.

        Raises
        ------
        NoPhotos
            If they hold none.
        """
        if self.images:
            return
        where = ", ".join(repr(os.path.abspath(folder)) for folder in folders)
        example = f"; for example {printable(self.rejected[0].path)}" if self.rejected else ""
        kind, fix = "<uuid>.jpg photos", f", or {choosing('names', 'any')} if the file names are not UUIDs"
        if any_name:
            kind, fix = "photos", ""
        raise NoPhotos(
            f"input_dir: no {kind} in {where} ({self.summary()}{example}); set it to a folder of photos{fix}"
        )


def _counted(kinds: Counter[str]) -> str:
    """Format a total with its largest parts: `3 (2 empty, 1 not a UUID)`."""
    if not kinds:
        return "0"
    largest = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:5]
    parts = ", ".join(f"{n} {kind}" for kind, n in largest)
    return f"{kinds.total()} ({parts}{', ...' if len(kinds) > 5 else ''})"


def scan_folders(
    folders: list[str], extensions: list[str], exclude: Iterable[str] = (), *, any_name: bool = False
) -> Scan:
    """Find the images of a collection.

    Parameters
    ----------
    folders : list of str
    extensions : list of str
        With the dot; case does not matter.
    exclude : iterable of str
        Patterns of names of folders and files below `folders` to leave out, as in a shell; case does not matter.
    any_name : bool
        Whether the names of photos need not be UUIDs.

    Returns
    -------
    Scan
        With absolute paths. Of several files with the same UUID, the image is the first path in byte order of those in
        no hidden folder; or of all, if all are hidden.

    Raises
    ------
    NoPhotos
        If a folder is missing or cannot be read.
    """
    scan, started = Scan(), time.time_ns()
    known = {extension.lower() for extension in extensions}
    found: dict[str, ImageFile] = {}
    sidecars: defaultdict[str, list[os.DirEntry[str]]] = defaultdict(list)  # by folder
    hidden: set[str] = set()  # paths in hidden folders
    roots = [os.path.abspath(folder) for folder in folders]
    for path in roots:
        check_folder(path)
    for entry, is_hidden, excluded_by in _walk(roots, excluding(exclude), scan):
        stem, _, extension = entry.name.rpartition(".")
        extension = f".{extension.lower()}" if stem.strip(".") else ""
        key = read_uuid(stem)
        if excluded_by or extension not in known:
            if key:
                scan.unnamed.add(key)
            if excluded_by:
                scan.n_excluded[excluded_by] += extension in known
            else:
                scan.n_others[extension] += 1
                if extension in SIDECARS:
                    sidecars[os.path.dirname(entry.path)].append(entry)
            continue
        is_named = bool(key or any_name)
        image = _check(entry, stem if key else "", started) if is_named else RejectedFile(entry.path, NOT_A_UUID)
        if isinstance(image, RejectedFile):
            scan.rejected.append(image)
            continue
        if not key:
            scan.nameless.append(image)
            continue
        if is_hidden:
            hidden.add(image.path)
        other = found.setdefault(key, image)
        if other.path != image.path:  # two files, or one file that is in two of the folders
            first, second = sorted((image, other), key=lambda file: (file.path in hidden, os.fsencode(file.path)))
            found[key] = first
            scan.rejected.append(RejectedFile(second.path, f"{_SAME_UUID} {first.path}"))
    scan.n_excluded += Counter()  # without zeros
    images, used = _with_sidecars([*found.values(), *scan.nameless], sidecars, started)
    scan.n_sidecars = used.total()
    scan.n_others -= used
    scan.images, scan.nameless = sorted(images[: len(found)], key=_UUID), images[len(found) :]
    scan.rejected.sort(key=lambda rejected: os.fsencode(rejected.path))
    return scan


def _with_sidecars(
    images: list[ImageFile], sidecars: Mapping[str, list[os.DirEntry[str]]], started: int
) -> tuple[list[ImageFile], Counter[str]]:
    """Count a status change of a sidecar, and its coming and going, as a status change of its photo.

    Returns
    -------
    images : list of ImageFile
    used : Counter
        Number of sidecars of these images, by extension.
    """
    if not sidecars:
        return images, Counter()
    names = {folder: [entry.name for entry in entries] for folder, entries in sidecars.items()}
    for image in images:
        folder, name = os.path.split(image.path)
        if folder in names:
            names[folder].append(name)
    matches = {folder: match_sidecars(found) for folder, found in names.items()}
    used = {(folder, name) for folder, found in matches.items() for name in chain.from_iterable(found.values())}
    times = {(folder, entry.name): _ctime(entry, started) for folder, entries in sidecars.items() for entry in entries}

    def ctime_ns(image: ImageFile) -> int:
        folder, name = os.path.split(image.path)
        found = matches.get(folder, {}).get(name, ()) if image.ctime_ns else ()
        return sum([image.ctime_ns, *(times[folder, sidecar] for sidecar in found)])

    with_times = [image._replace(ctime_ns=ctime_ns(image)) for image in images]
    return with_times, Counter(os.path.splitext(name)[1].lower() for _, name in used)


def _ctime(entry: os.DirEntry[str], started: int) -> int:
    try:
        return _known_ctime(entry.stat(), started)
    except OSError:
        return 0


def _known_ctime(status: os.stat_result, started: int) -> int:
    """Return the time of the last status change, or 0: some file systems have none, some give that of the question."""
    return status.st_ctime_ns if 0 < status.st_ctime_ns < started else 0


def has_photo_named_by_uuid(folders: list[str], extensions: Iterable[str], exclude: Iterable[str]) -> bool:
    """Return whether a folder holds a photo whose name is a UUID; parameters as of `scan_folders`."""
    known = {extension.lower() for extension in extensions}
    roots = [os.path.abspath(folder) for folder in folders]
    for entry, _, excluded_by in _walk(roots, excluding(exclude), Scan()):
        stem, _, extension = entry.name.rpartition(".")
        if not excluded_by and f".{extension.lower()}" in known and read_uuid(stem):
            return True
    return False


def excluding(patterns: Iterable[str]) -> Callable[[str], str]:
    """Return a function from a name to the pattern that excludes it; to an empty text if none does."""
    expressions = {pattern: re.compile(fnmatch.translate(pattern), re.IGNORECASE) for pattern in patterns}
    # There is a name for each photo, so most are ruled out without trying every pattern.
    names = {pattern.casefold() for pattern in expressions if not _WILDCARDS.intersection(pattern)}
    others = [pattern for pattern in expressions if _WILDCARDS.intersection(pattern)]
    matches_other = re.compile("|".join(map(fnmatch.translate, others)) or "(?!)", re.IGNORECASE).match

    def excluded_by(name: str) -> str:
        if name.casefold() not in names and not matches_other(name):
            return ""
        return next((pattern for pattern, expression in expressions.items() if expression.match(name)), "")

    return excluded_by


class _Folder(NamedTuple):
    """A folder to read. Their order decides under which path a folder is scanned that several links lead to."""

    is_excluded: bool
    is_hidden: bool
    is_linked: bool
    key: bytes
    path: str
    real: str
    excluded_by: str


def _walk(
    roots: list[str], excluded_by: Callable[[str], str], scan: Scan
) -> Iterator[tuple[os.DirEntry[str], bool, str]]:
    """Yield every entry that is not a folder, whether it is in a hidden folder, and the pattern that excludes it."""
    to_read = [_Folder(False, False, False, os.fsencode(root), root, os.path.realpath(root), "") for root in roots]
    heapq.heapify(to_read)
    seen = set()
    while to_read:
        folder = heapq.heappop(to_read)
        if folder.real in seen:
            continue
        seen.add(folder.real)
        try:
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    pattern = folder.excluded_by or excluded_by(entry.name)
                    if _is_folder(entry):
                        heapq.heappush(to_read, _subfolder(folder, entry, pattern))
                    else:
                        yield entry, folder.is_hidden, pattern
        except OSError as error:
            if not folder.is_excluded:
                scan.unseen.append(folder.path)
                scan.rejected.append(RejectedFile(folder.path + os.sep, f"unreadable folder ({error.strerror})"))


def _subfolder(parent: _Folder, entry: os.DirEntry[str], excluded_by: str) -> _Folder:
    is_link = entry.is_symlink()
    return _Folder(
        bool(excluded_by),
        parent.is_hidden or entry.name.startswith("."),
        parent.is_linked or is_link,
        os.fsencode(entry.path),
        entry.path,
        os.path.realpath(entry.path) if is_link else os.path.join(parent.real, entry.name),
        excluded_by,
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links is checked like a file
        return False


def _check(entry: os.DirEntry[str], stem: str, started: int) -> ImageFile | RejectedFile:
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
    size, mtime_ns = size_and_time(status)
    return ImageFile(stem, entry.path, size, mtime_ns, _known_ctime(status, started))


def size_and_time(status: os.stat_result) -> tuple[int, int]:
    """Return size in bytes and time of the last change in nanoseconds; a time beyond 64 bits is wrapped to 64 bits.

    SQLite has no larger numbers: they end in 2262, and files may be from 2300.
    """
    time_ns = status.st_mtime_ns
    if not -(2**63) <= time_ns < 2**63:
        time_ns = (time_ns + 2**63) % 2**64 - 2**63
    return status.st_size, time_ns


def check_folder(path: str) -> None:
    """Refuse a folder of photos that is missing or cannot be read."""
    try:
        os.scandir(path).close()
    except OSError as error:
        raise NoPhotos(
            f"input_dir: cannot read the folder {path!r} ({error.strerror}); name an existing folder that you may read"
        ) from None
