"""Give photos whose names are not UUIDs a UUID, and recognise them by it for life.

A photo is known by the path, size and time of the last run. Each file gets the UUID of the first known photo that it
may be, in this order:

1. the same path, size and time: unchanged;
2. the same name, size and time: moved, alone or with its folder;
3. the same size and time, which no other file and no other known photo have: renamed;
4. the same path: edited in place;
5. the same path within its folder of `input_dir`: edited, or restored without its time, on another disk;
6. the same size and contents: moved or renamed without its time.

So two files that swap their names keep their UUIDs. A file that is none of them is new: its UUID is made from its path
within its folder of `input_dir`, so that the same folder has the same UUIDs on another machine.
"""

import os
import unicodedata
import uuid
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeVar

from .names import canonical_uuid
from .scan import ImageFile

_NAMESPACE = uuid.UUID("a1e5a2a0-63f4-5d0f-9c3c-0f3c4f0d7a51")


class KnownPhoto(NamedTuple):
    """A photo of earlier runs, whether its file was there or missing; size in bytes, time in nanoseconds.

    The digest is empty if it is only in the shard. A missing photo has the path at which it was last seen.
    """

    uuid: str
    path: str
    size: int
    mtime_ns: int
    shard: str = ""
    digest: str = ""
    is_missing: bool = False


_Item = TypeVar("_Item", ImageFile, KnownPhoto)


def identify(
    files: Iterable[ImageFile],
    known: Iterable[KnownPhoto],
    roots: Sequence[str],
    has_contents_of: Callable[[ImageFile, KnownPhoto], bool],
    taken: Iterable[str] = (),
) -> list[ImageFile]:
    """Give every file a UUID.

    Parameters
    ----------
    files : iterable of ImageFile
        Files whose names are not UUIDs, each path once; their `uuid` is ignored.
    known : iterable of KnownPhoto
        Photos of the last run, each UUID once.
    roots : sequence of str
        The folders of `input_dir`, as absolute paths.
    has_contents_of : function
        Whether a file has the contents that a known photo of the same size had; it may read the file.
    taken : iterable of str
        UUIDs of other photos: of files that are named by one.

    Returns
    -------
    list of ImageFile
        With their UUIDs.
    """
    used = {canonical_uuid(uuid_) for uuid_ in taken}
    by_path = {file.path: file for file in files}
    named: list[ImageFile] = []
    photos: dict[str, KnownPhoto] = {}
    # Of several photos that belonged to one path, it is not one that was missing.
    for photo in sorted(known, key=attrgetter("is_missing")):
        if used and canonical_uuid(photo.uuid) in used:
            continue
        file = by_path.get(photo.path)
        if file is not None and file.size == photo.size and file.mtime_ns == photo.mtime_ns:
            named.append(ImageFile(photo.uuid, file.path, file.size, file.mtime_ns, file.ctime_ns))
            del by_path[photo.path]
        else:
            photos[photo.uuid] = photo
    if by_path:
        unknown = sorted(by_path.values(), key=_path)
        used.update(canonical_uuid(image.uuid) for image in named)
        used.update(map(canonical_uuid, photos))
        found = _recognise(unknown, photos, roots, has_contents_of)
        named += [file._replace(uuid=found.get(file.path) or _new_uuid(file.path, roots, used)) for file in unknown]
    return named


def _recognise(
    files: list[ImageFile],
    photos: dict[str, KnownPhoto],
    roots: Sequence[str],
    has_contents_of: Callable[[ImageFile, KnownPhoto], bool],
) -> dict[str, str]:
    """Find files that have changed among known photos by UUID, and remove these; return the UUIDs, by path.

    Of photos that belonged to one path, those that were missing come last.
    """
    by_path = {photo.path: photo for photo in reversed(photos.values())}
    found: dict[str, str] = {}

    def is_same(file: ImageFile, photo: KnownPhoto) -> None:
        found[file.path] = photo.uuid
        del photos[photo.uuid]

    for key in (_name_size_time, _size_time):
        there, before = (_grouped(items, key) for items in (_rest(files, found), [*photos.values()]))
        for values, group in there.items():
            candidates = before.get(values, [])
            if key is _name_size_time or len(candidates) == len(group) == 1:
                for file, photo in zip(group, candidates, strict=False):
                    is_same(file, photo)
    for file in _rest(files, found):
        if (photo := by_path.get(file.path)) and photo.uuid in photos:
            is_same(file, photo)
    for file in _rest(files, found):
        if photo := photos.get(_uuid_of_path(file.path, roots)):
            is_same(file, photo)
    by_size = _grouped([*photos.values()], _size)
    for file in _rest(files, found):
        for photo in by_size.get(file.size, []):
            if photo.uuid in photos and has_contents_of(file, photo):
                is_same(file, photo)
                break
    return found


def _rest(files: list[ImageFile], found: dict[str, str]) -> list[ImageFile]:
    return [file for file in files if file.path not in found]


def _grouped(items: list[_Item], key: Callable[[_Item], Hashable]) -> dict[Hashable, list[_Item]]:
    groups = defaultdict(list)
    for item in sorted(items, key=_path):
        groups[key(item)].append(item)
    return groups


def _path(item: ImageFile | KnownPhoto) -> bytes:
    return os.fsencode(item.path)


def _size(item: ImageFile | KnownPhoto) -> Hashable:
    return item.size


def _size_time(item: ImageFile | KnownPhoto) -> Hashable:
    return item.size, item.mtime_ns


def _name_size_time(item: ImageFile | KnownPhoto) -> Hashable:
    return unicodedata.normalize("NFC", os.path.basename(item.path)), item.size, item.mtime_ns


def _new_uuid(path: str, roots: Sequence[str], used: set[str]) -> str:
    """Make a UUID from a path within its folder of `input_dir`, and add it to those in use."""
    number, new = 1, _uuid_of_path(path, roots)
    while new in used:
        number += 1
        new = _uuid_of_path(path, roots, f" {number}")
    used.add(new)
    return new


def _uuid_of_path(path: str, roots: Sequence[str], suffix: str = "") -> str:
    root = max((root for root in roots if path.startswith(os.path.join(root, ""))), key=len, default="")
    name = os.fsencode(unicodedata.normalize("NFC", path[len(root) :].lstrip(os.sep)))
    return str(uuid.uuid5(_NAMESPACE, name.hex() + suffix))
