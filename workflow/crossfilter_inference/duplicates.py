"""Photos that are almost the same: re-compressed, resized, cropped by a few per cent.

Each photo is compared with those that it is most like by embedding, once the mean of all embeddings is taken off,
without which those of some encoders all point the same way. Whether two are the same picture, and not only of the same
thing, is told by their thumbnails: the correlation of their brightness, also with up to a tenth of one of them cut off.

On the demo photos, re-compressed, halved and cropped by 5 %, copies correlate by .93 or more and others by .89 or less,
where embeddings alone overlap: copies have cosines from .68, others up to .85.
"""

import io
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from .collection import Collection, Photo
from .map.neighbours import all_neighbours

_LEAST_CORRELATION = 0.92  # of two that are the same picture
_LEAST_COARSE = 0.7  # of two that may be it
_WITHOUT_THUMBNAILS = 0.92  # cosine that has to do where a thumbnail is missing
_N_NEIGHBORS = 20
_FEWEST_TO_CENTRE = 50
_SIDE, _COARSE_SIDE = 24, 16  # pixels of what is compared
_SLACKS = (0.025, 0.05, 0.1)  # shares of width and height that may be cut off


def find_duplicates(
    collection: Collection, least_cosine: float, n_threads: int, *, by_cosine_alone: bool = False
) -> list[list[Photo]]:
    """Find groups of photos that are almost the same.

    Parameters
    ----------
    collection : Collection
    least_cosine : float in [-1, 1]
        Of centred embeddings.
    n_threads : int
    by_cosine_alone : bool
        Whether thumbnails are not asked: then photos of the same scene are grouped as well.

    Returns
    -------
    list of list of Photo
        The largest groups first; in each the largest photo first, by pixels, then by bytes.
    """
    uuids = collection.uuids
    rows = _centred(collection.embeddings)
    indices, distances = all_neighbours(rows, min(_N_NEIGHBORS + 1, len(rows)), n_threads)
    near = np.argwhere(1 - distances[:, 1:] >= least_cosine)
    pairs = {tuple(sorted((int(row), int(indices[row, column + 1])))) for row, column in near}
    if not by_cosine_alone:
        pairs = set(_same_pictures(collection, rows, sorted(pairs)))
    photos = collection.photos(sorted({uuids[row] for pair in pairs for row in pair}))
    groups = [sorted((photos[uuids[row]] for row in group), key=_by_size) for group in _connected(pairs, len(rows))]
    return sorted(groups, key=lambda group: (-len(group), group[0].uuid))


def _by_size(photo: Photo) -> tuple:
    return -(photo.width or 0) * (photo.height or 0), -(photo.size or 0), photo.uuid


def _centred(embeddings: np.ndarray) -> np.ndarray:
    if len(embeddings) < _FEWEST_TO_CENTRE:  # whose mean would say too much of each
        return embeddings
    rows = embeddings - embeddings.mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-6, rows / np.maximum(length, 1e-6), embeddings)


def _same_pictures(collection: Collection, rows: np.ndarray, pairs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Choose the pairs whose thumbnails show the same picture."""
    from PIL import Image

    asked = sorted({row for pair in pairs for row in pair})
    jpegs = collection.thumbnails([collection.uuids[row] for row in asked])
    grey = {}
    for row in asked:
        if jpeg := jpegs.get(collection.uuids[row]):
            grey[row] = Image.open(io.BytesIO(jpeg)).convert("L")
    coarse = {row: _signature(image, _COARSE_SIDE) for row, image in grey.items()}
    for first, second in pairs:
        if first not in grey or second not in grey:
            if rows[first] @ rows[second] >= _WITHOUT_THUMBNAILS:
                yield first, second
        elif coarse[first] @ coarse[second] >= _LEAST_COARSE and _is_same_picture(grey[first], grey[second]):
            yield first, second


def _is_same_picture(first: object, second: object) -> bool:
    for whole, other in ((first, second), (second, first)):
        signature = _signature(other, _SIDE)
        if any(_signature(whole, _SIDE, window) @ signature >= _LEAST_CORRELATION for window in _WINDOWS):
            return True
    return False


def _signature(image: object, side: int, window: tuple[float, float, float, float] = (0, 0, 1, 1)) -> np.ndarray:
    """Brightness of a part of an image, of length 1 around its mean, so that a product of two is their correlation."""
    from PIL import Image

    left, top, right, bottom = window
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    values = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box), float).ravel()
    values -= values.mean()
    return values / (np.linalg.norm(values) or 1)


_PARTS = (0, 0.5, 1)
_WINDOWS = [(0, 0, 1, 1)] + [
    (slack * x, slack * y, 1 - slack + slack * x, 1 - slack + slack * y)
    for slack in _SLACKS
    for x in _PARTS
    for y in _PARTS
]


def _connected(pairs: set[tuple[int, int]], n_rows: int) -> list[list[int]]:
    """Group rows that are connected by pairs."""
    rows = np.array(sorted(pairs), int).reshape(-1, 2)
    graph = sp.coo_matrix((np.ones(len(rows)), rows.T), shape=(n_rows, n_rows))
    _, group_of = sp.csgraph.connected_components(graph, directed=False)
    groups = defaultdict(list)
    for row in np.unique(rows).tolist():
        groups[group_of[row]].append(row)
    return [*groups.values()]
