"""Near-duplicates: photos that were re-compressed, resized or cropped by a few per cent.

Each photo is compared with the photos of the most similar embeddings. The mean of all embeddings is subtracted first,
because the embeddings of some encoders all point in a similar direction. The thumbnails decide whether two photos are
the same picture and do not merely show the same thing: the correlation of their brightness, also with up to a tenth of
one photo cut off.

If the demo photos are re-compressed, halved and cropped by 5 %, copies correlate by 0.93 or more and other photos by
0.89 or less. Embeddings alone overlap: copies have cosines from 0.68, other photos up to 0.85.
"""

import io
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from PIL import Image

from .collection import Collection, Photo
from .map.neighbours import all_neighbours

_MIN_CORRELATION = 0.92  # of two copies of a picture
_MIN_COARSE_CORRELATION = 0.7  # pairs below it are not compared in detail
_MIN_COSINE_WITHOUT_THUMBNAILS = 0.92  # of centred embeddings, if a thumbnail is missing
_N_NEIGHBORS = 20
_MIN_PHOTOS_TO_CENTRE = 50
_SIDE, _COARSE_SIDE = 24, 16  # pixels of the compared images
_CROPS = (0.025, 0.05, 0.1)  # shares of width and height that may be cut off


def find_duplicates(
    collection: Collection, least_cosine: float, n_threads: int, *, by_cosine_alone: bool = False
) -> list[list[Photo]]:
    """Find groups of near-duplicates.

    Parameters
    ----------
    collection : Collection
    least_cosine : float
        Of centred embeddings, in [-1, 1]. Pairs below it are not compared.
    n_threads : int
    by_cosine_alone : bool
        Do not compare thumbnails; photos of the same scene are grouped as well.

    Returns
    -------
    list of list of Photo
        The largest groups first. In each group, the largest photo first, by pixels, then by bytes.
    """
    uuids = collection.uuids
    rows = _centred(collection.embeddings)
    indices, distances = all_neighbours(rows, min(_N_NEIGHBORS + 1, len(rows)), n_threads)
    near = np.argwhere(1 - distances[:, 1:] >= least_cosine)
    pairs = {_ordered(int(row), int(indices[row, column + 1])) for row, column in near}
    if not by_cosine_alone:
        pairs = set(_same_pictures(collection, rows, sorted(pairs)))
    photos = collection.photos(sorted({uuids[row] for pair in pairs for row in pair}))
    groups = [sorted((photos[uuids[row]] for row in group), key=_by_size) for group in _connected(pairs, len(rows))]
    return sorted(groups, key=lambda group: (-len(group), group[0].uuid))


def _ordered(first: int, second: int) -> tuple[int, int]:
    return min(first, second), max(first, second)


def _by_size(photo: Photo) -> tuple[int, int, str]:
    return -(photo.width or 0) * (photo.height or 0), -(photo.size or 0), photo.uuid


def _centred(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract the mean, and scale the rows to length 1 again."""
    if len(embeddings) < _MIN_PHOTOS_TO_CENTRE:  # the mean would depend too much on each photo
        return embeddings
    rows = embeddings - embeddings.mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-6, rows / np.maximum(length, 1e-6), embeddings)


def _same_pictures(
    collection: Collection, rows: NDArray[np.float32], pairs: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Choose the pairs whose thumbnails show the same picture."""
    candidates = sorted({row for pair in pairs for row in pair})
    jpegs = collection.thumbnails([collection.uuids[row] for row in candidates])
    grey = {}
    for row in candidates:
        if jpeg := jpegs.get(collection.uuids[row]):
            grey[row] = Image.open(io.BytesIO(jpeg)).convert("L")
    coarse = {row: _signature(image, _COARSE_SIDE) for row, image in grey.items()}
    for first, second in pairs:
        if first not in grey or second not in grey:
            if rows[first] @ rows[second] >= _MIN_COSINE_WITHOUT_THUMBNAILS:
                yield first, second
        elif coarse[first] @ coarse[second] >= _MIN_COARSE_CORRELATION and _is_same_picture(grey[first], grey[second]):
            yield first, second


def _is_same_picture(first: Image.Image, second: Image.Image) -> bool:
    """Return whether one image equals the other or a window of it."""
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


def _connected(pairs: set[tuple[int, int]], n_rows: int) -> list[list[int]]:
    """Group the rows that pairs connect, directly or through others."""
    rows = np.array(sorted(pairs), int).reshape(-1, 2)
    graph = sp.coo_matrix((np.ones(len(rows)), rows.T), shape=(n_rows, n_rows))
    _, group_of = sp.csgraph.connected_components(graph, directed=False)
    groups = defaultdict(list)
    for row in np.unique(rows).tolist():
        groups[group_of[row]].append(row)
    return [*groups.values()]
