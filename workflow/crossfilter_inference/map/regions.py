"""Regions of a map: areas where photos are close together, and their names.

With labels, a region is an area in which photos of one label are each other's neighbours. Without labels, a region is a
peak of density and its slopes. A peak that hardly rises above the saddle to a higher peak is merged into that one. The
density at a photo is estimated from the distances to its neighbours.

References
----------
F. Chazal, L. Guibas, S. Oudot and P. Skraba, "Persistence-based clustering in Riemannian manifolds", J. ACM 2013.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .sphere import latitude_longitude, spherical_mean

_MIN_NEIGHBORS, _MAX_NEIGHBORS = 3, 30
_MIN_PROMINENCE = np.log(2.5)  # a peak is at least 2.5 times as dense as the saddle
_MIN_PHOTOS = 3  # in a region
_MIN_SHARE = 0.002  # of all photos, in a region
# Of a label's photos, the one with the most neighbours of the same label is the middle of its region.
_MAX_LABEL_NEIGHBORS = 50
_MIN_LABEL_SHARE = 0.5  # of the neighbours of the middle
_MIN_LABEL_EXCESS = 1.5  # times the label's share of all photos
_ALMOST = 0.15  # of the best word's score, below it


@dataclass(frozen=True)
class Region:
    """A region: its middle in degrees, and its name, which may be empty."""

    latitude: float
    longitude: float
    name: str = ""


def find_regions(unit_vectors: NDArray[np.float64]) -> NDArray[np.int32]:
    """Assign each photo to a region by density.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float64

    Returns
    -------
    array of shape (n_images,), int32
        0 is the largest region; -1 is no region.
    """
    n_images = len(unit_vectors)
    region_of = np.full(n_images, -1, np.int32)
    k = int(np.clip(n_images // 20, _MIN_NEIGHBORS, _MAX_NEIGHBORS))
    if n_images <= k:
        return region_of
    distances, neighbours = cKDTree(unit_vectors).query(unit_vectors, k + 1)
    density = -2 * np.log(np.maximum(distances[:, 1:].mean(axis=1), 1e-9))  # per area, up to a constant
    peaks, inverse, counts = np.unique(_find_peaks(density, neighbours[:, 1:]), return_inverse=True, return_counts=True)
    order = np.lexsort((peaks, -counts))
    ranks = np.empty(len(peaks), np.int32)
    ranks[order] = np.arange(len(peaks))
    ranks[counts < max(_MIN_PHOTOS, _MIN_SHARE * n_images)] = -1
    return ranks[inverse]


def _find_peaks(density: NDArray[np.float64], neighbours: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the peak of each photo, from the densest photo down."""
    order = np.lexsort((np.arange(len(density)), -density))
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    parents = list(range(len(order)))

    def peak(photo: int) -> int:
        while parents[photo] != photo:
            parents[photo] = parents[parents[photo]]
            photo = parents[photo]
        return photo

    heights, ranks, near = density.tolist(), rank.tolist(), neighbours.tolist()
    for photo in order.tolist():
        higher = {peak(other) for other in near[photo] if ranks[other] < ranks[photo]}
        if not higher:
            continue
        top = min(higher, key=ranks.__getitem__)
        parents[photo] = top
        for other in higher - {top}:
            if heights[other] - heights[photo] < _MIN_PROMINENCE:
                parents[other] = top
    return np.array([peak(photo) for photo in range(len(parents))])


def find_labelled_regions(
    unit_vectors: NDArray[np.float64], labels: Sequence[str | None]
) -> tuple[NDArray[np.int32], list[str]]:
    """Find the areas in which photos of one label are each other's neighbours.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float64
    labels : sequence of str or None

    Returns
    -------
    region_of : array of shape (n_images,), int32
        0 is the largest region; -1 is no region.
    names : list of str
        The label of each region.
    """
    region_of = np.full(len(labels), -1, np.int32)
    names, codes, counts = np.unique([label or "" for label in labels], return_inverse=True, return_counts=True)
    tree, found = cKDTree(unit_vectors), []
    for code, (name, count) in enumerate(zip(names.tolist(), counts.tolist(), strict=True)):
        if not name or count < _MIN_PHOTOS or _MIN_LABEL_EXCESS * count > len(labels):
            continue
        members = np.flatnonzero(codes == code)
        distances, near = tree.query(unit_vectors[members], min(count, _MAX_LABEL_NEIGHBORS))
        share = (codes[near] == code).mean(axis=1)
        if share.max() >= max(_MIN_LABEL_SHARE, _MIN_LABEL_EXCESS * count / len(labels)):
            # Of several such photos, the one with the closest neighbours.
            middle = np.lexsort((distances[:, -1], -share))[0]
            inside = np.intersect1d(near[middle], members) if count <= _MAX_LABEL_NEIGHBORS else members
            found.append((name, inside[share[np.searchsorted(members, inside)] >= share.max() / 2]))
    found.sort(key=lambda region: -len(region[1]))
    for number, (_, inside) in enumerate(found):
        region_of[inside] = number
    return region_of, [name for name, _ in found]


def describe_regions(
    unit_vectors: NDArray[np.float64], region_of: NDArray[np.integer], names: list[str]
) -> list[Region]:
    """Compute the middle of each region.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float64
    region_of : array of shape (n_images,), int
    names : list of str
        One per region; empty for a region without a name.
    """
    regions = []
    for number, name in enumerate(names):
        members = unit_vectors[region_of == number]
        latitude, longitude = latitude_longitude(spherical_mean(members[None], np.ones((1, len(members)))))
        regions.append(Region(float(latitude[0]), float(longitude[0]), name))
    return regions


def name_by_words(
    region_of: NDArray[np.integer],
    embeddings: NDArray[np.float32],
    words: list[str],
    word_embeddings: NDArray[np.float32],
    *,
    prefer_first: bool = False,
) -> list[str]:
    """Name each region by the word that is more similar to its photos than to all photos.

    Parameters
    ----------
    region_of : array of shape (n_images,), int
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1
    words : list of str
        Of a text of several lines, the first line is the name.
    word_embeddings : array of shape (n_words, n_dims), float32, rows of length 1
        By the same encoder as `embeddings`.
    prefer_first : bool
        Of words that are almost as similar as the best one, choose the first, which is the most familiar.
    """
    names = []
    almost = _ALMOST if prefer_first else 0
    mean = embeddings.mean(axis=0)
    for number in range(region_of.max(initial=-1) + 1):
        # The mean is subtracted because an encoder's texts and images are apart, and all images share a direction.
        scores = word_embeddings @ (embeddings[region_of == number].mean(axis=0) - mean)
        best = np.flatnonzero(scores >= scores.max() - almost * abs(scores.max()))[0]
        names.append(words[best].split("\n")[0])
    return names
