"""Duplicates: identical files, photos of the same picture and, if asked for, similar photos.

Identical files have the same digest. Photos of the same picture were re-encoded, resized or cropped by a few per cent.
Each photo is compared with the photos of the most similar embeddings: first their thumbnails, then the pixels of their
files, see `photos/same_picture.py`. The mean of all embeddings is subtracted first, because the embeddings of some
encoders all point in a similar direction.

All photos of a group are compared with its best photo, never only with one another. Photos that are missing, or that
have changed since the last run, are left out: the database does not know their pixels.

If the demo photos are re-compressed, halved and cropped by 5 %, thumbnails of copies correlate by 0.93 or more.
Embeddings alone overlap: copies have cosines from 0.68, other photos up to 0.85.
"""

import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .collection import Collection, Photo
from .map.neighbours import all_neighbours
from .photos.image import ImageError, load_whole, read_image_file
from .photos.same_picture import SIDE, is_same_picture
from .photos.scan import size_and_time

IDENTICAL, SAME_PICTURE, SIMILAR = "identical files", "same picture", "similar"
_MIN_CORRELATION = 0.85  # of the thumbnails of two photos whose pixels are compared
_MIN_COARSE_CORRELATION = 0.7  # thumbnails below it are not compared in detail
_N_NEIGHBORS = 20
_MIN_PHOTOS_TO_CENTRE = 50
_SIDE, _COARSE_SIDE = 24, 16  # pixels of the compared thumbnails
_CROPS = (0.025, 0.05, 0.1)  # shares of width and height that may be cut off
_N_DECODED = 64  # images in memory: 110 MB


class Group(NamedTuple):
    """Photos of one class, the best first: the largest by pixels, then by bytes."""

    kind: str
    photos: list[Photo]


@dataclass(frozen=True)
class Duplicates:
    """The groups, and how many photos were left out, by reason."""

    groups: list[Group]
    left_out: Counter[str]

    @property
    def n_removable(self) -> int:
        """Number of photos of which a better or equal copy exists; similar photos are no copies."""
        return sum(len(group.photos) - 1 for group in self.groups if group.kind != SIMILAR)


def find_duplicates(
    collection: Collection, least_cosine: float, n_threads: int, *, similar: bool = False
) -> Duplicates:
    """Find groups of duplicates.

    Parameters
    ----------
    collection : Collection
    least_cosine : float
        Of centred embeddings, in [-1, 1]. Pairs below it are not compared, unless the files are identical.
    n_threads : int
    similar : bool
        Also group photos that are merely similar: by their embeddings alone. A photo of another group takes part if it
        is the best of that group.

    Returns
    -------
    Duplicates
        With similar photos last, and the largest groups first.
    """
    photos = collection.photos(collection.uuids)
    files = _Files(collection)
    sets = _identical_files([photo for photo in photos.values() if files.is_listed(photo)], files)
    row_of = {uuid: row for row, uuid in enumerate(collection.uuids)}
    best = [group[0] for group in sets]
    rows = _centred(collection.embeddings[[row_of[photo.uuid] for photo in best]])
    near = _near(rows, least_cosine, n_threads)
    is_like = _thumbnail_test(collection, best, near)

    def is_same(first: int, second: int) -> bool:
        if not is_like(first, second):
            return False
        images = [files.decode(best[number]) for number in (first, second)]
        return images[0] is not None and images[1] is not None and is_same_picture(images[0], images[1])

    groups, singles = [], []
    for members in _stars(near, is_same):
        found = sorted((photo for number in members for photo in sets[number]), key=_by_size)
        singles.append(members[0])
        if len(found) > 1:
            groups.append(Group(SAME_PICTURE if len(members) > 1 else IDENTICAL, found))
    if similar:
        is_left = np.isin(np.arange(len(best)), singles)
        left = {number: [other for other in others if is_left[other]] for number, others in near.items()}
        left = {number: others for number, others in left.items() if is_left[number]}
        for members in _stars(left, lambda first, second: bool(rows[first] @ rows[second] >= least_cosine)):
            present = [best[number] for number in members if files.is_present(best[number])]
            if len(present) > 1:
                groups.append(Group(SIMILAR, sorted(present, key=_by_size)))
    groups.sort(key=lambda group: (group.kind == SIMILAR, -len(group.photos), group.photos[0].uuid))
    return Duplicates(groups, files.left_out)


class _Files:
    """The files of photos as they are now; counts those that are left out."""

    def __init__(self, collection: Collection):
        self.collection = collection
        self._state: dict[str, str] = {}
        self._decode = lru_cache(_N_DECODED)(self._decode_file)

    @property
    def left_out(self) -> Counter[str]:
        """Number of photos that were left out, by reason."""
        return Counter(state for state in self._state.values() if state)

    def is_listed(self, photo: Photo) -> bool:
        """Return whether the last run found the photo."""
        manifest = self.collection.manifest
        if manifest is not None and photo.uuid not in manifest:
            self._state[photo.uuid] = "missing"
            return False
        return True

    def is_present(self, photo: Photo) -> bool:
        """Return whether the file has the contents that the database knows."""
        if photo.uuid not in self._state:
            self._state[photo.uuid] = self._check(photo)
        return not self._state[photo.uuid]

    def decode(self, photo: Photo) -> Image.Image | None:
        """Decode the file; None if the photo is not present or cannot be decoded."""
        return self._decode(photo) if self.is_present(photo) else None

    def _check(self, photo: Photo) -> str:
        path = self.collection.path(photo)
        if not os.path.isfile(path):
            return "missing"
        try:
            status = os.stat(path)
            if size_and_time(status) == (photo.size, photo.mtime_ns) and os.access(path, os.R_OK):
                return ""
            return "" if read_image_file(path)[1] == photo.digest else "changed since the last run"
        except (OSError, ImageError):
            return "unreadable"

    def _decode_file(self, photo: Photo) -> Image.Image | None:
        try:
            return load_whole(read_image_file(self.collection.path(photo))[0], SIDE)
        except ImageError:
            self._state[photo.uuid] = "unreadable"
            return None


def _by_size(photo: Photo) -> tuple[int, int, str]:
    return -(photo.width or 0) * (photo.height or 0), -(photo.size or 0), photo.uuid


def _identical_files(photos: list[Photo], files: _Files) -> list[list[Photo]]:
    """Group photos by the contents of their files, the best groups first; other photos are groups of their own."""
    by_digest = defaultdict(list)
    for photo in photos:
        by_digest[photo.digest or photo.uuid].append(photo)
    groups = []
    for members in by_digest.values():
        if len(members) > 1:  # only these are looked at now: there may be millions of others
            members = _without_links([photo for photo in members if files.is_present(photo)], files)
        if members:
            groups.append(sorted(members, key=_by_size))
    return sorted(groups, key=lambda group: _by_size(group[0]))


def _without_links(photos: list[Photo], files: _Files) -> list[Photo]:
    """Leave out photos that are links to the file of another: they are no copies, and need that file."""
    by_file: dict[str, Photo] = {}
    for photo in photos:
        path = files.collection.path(photo)
        target = os.path.realpath(path)
        if target not in by_file or path == target:
            by_file[target] = photo
    return [*by_file.values()]


def _near(rows: NDArray[np.float32], least_cosine: float, n_threads: int) -> dict[int, list[int]]:
    """Find the rows whose cosine to each row is large enough, among the nearest; in both directions."""
    near: dict[int, list[int]] = {number: [] for number in range(len(rows))}
    if len(rows) < 2:
        return near
    indices, distances = all_neighbours(rows, min(_N_NEIGHBORS + 1, len(rows)), n_threads)
    pairs = {
        (min(row, other), max(row, other))
        for row, column in np.argwhere(1 - distances[:, 1:] >= least_cosine).tolist()
        for other in [int(indices[row, column + 1])]
    }
    for first, second in sorted(pairs):
        near[first].append(second)
        near[second].append(first)
    return near


def _stars(near: dict[int, list[int]], is_same: Callable[[int, int], bool]) -> Iterator[list[int]]:
    """Group rows: each group is the lowest free row and rows that equal this one, reached through each other.

    A row that only equals another member of the group does not belong to it.
    """
    free = set(near)
    for first in sorted(near):
        if first not in free:
            continue
        free.discard(first)
        group, seen, waiting = [first], {first}, [first]
        while waiting:
            for other in near[waiting.pop()]:
                if other in free and other not in seen:
                    seen.add(other)
                    if is_same(first, other):
                        free.discard(other)
                        group.append(other)
                        waiting.append(other)
        yield group


def _thumbnail_test(
    collection: Collection, best: list[Photo], near: dict[int, list[int]]
) -> Callable[[int, int], bool]:
    """Make a test of whether two thumbnails are so similar that the pixels are worth comparing."""
    candidates = [number for number, others in near.items() if others]
    jpegs = collection.thumbnails([best[number].uuid for number in candidates])

    @lru_cache(4096)
    def grey(number: int) -> Image.Image | None:
        jpeg = jpegs.get(best[number].uuid)
        return Image.open(io.BytesIO(jpeg)).convert("L") if jpeg else None

    def is_like(first: int, second: int) -> bool:
        images = grey(first), grey(second)
        return images[0] is None or images[1] is None or _are_similar(images[0], images[1])

    return is_like


def _centred(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract the mean, and scale the rows to length 1 again."""
    if len(embeddings) < _MIN_PHOTOS_TO_CENTRE:  # the mean would depend too much on each photo
        return embeddings
    rows = embeddings - embeddings.mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-6, rows / np.maximum(length, 1e-6), embeddings)


def _are_similar(first: Image.Image, second: Image.Image) -> bool:
    """Return whether one thumbnail resembles the other or a window of it."""
    if _signature(first, _COARSE_SIDE) @ _signature(second, _COARSE_SIDE) < _MIN_COARSE_CORRELATION:
        return False
    for original, copy in ((first, second), (second, first)):
        signature = _signature(copy, _SIDE)
        if any(_signature(original, _SIDE, window) @ signature >= _MIN_CORRELATION for window in _WINDOWS):
            return True
    return False


def _signature(
    image: Image.Image, side: int, window: tuple[float, float, float, float] = (0, 0, 1, 1)
) -> NDArray[np.float64]:
    """Return the brightness of a window of an image, centred and of length 1: a product of two is their correlation."""
    left, top, right, bottom = window
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    values = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box), np.float64).ravel()
    values -= values.mean()
    return values / float(np.linalg.norm(values) or 1)


_OFFSETS = (0, 0.5, 1)
_WINDOWS: list[tuple[float, float, float, float]] = [(0, 0, 1, 1)] + [
    (crop * x, crop * y, 1 - crop + crop * x, 1 - crop + crop * y)
    for crop in _CROPS
    for x in _OFFSETS
    for y in _OFFSETS
]
