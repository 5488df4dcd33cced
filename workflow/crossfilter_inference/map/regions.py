"""Regions of a map: where photos lie close together, and what they are called.

Where photos have labels, a region is where those of one label have each other for neighbours on the map. Without labels
it is a peak of density with what slopes towards it; a peak that does not stand out from the saddle to a higher one
belongs to that. The density at a photo follows from how far its neighbours are.

References
----------
F. Chazal, L. Guibas, S. Oudot and P. Skraba, "Persistence-based clustering in Riemannian manifolds", J. ACM 2013.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .sphere import latitude_longitude, spherical_mean

_FEWEST_NEIGHBORS, _MOST_NEIGHBORS = 3, 30
_PROMINENCE = np.log(2.5)  # how many times as dense a peak must be as the saddle
_LEAST_SHARE = 0.002  # of all photos, that makes a region
_FEWEST = 3
_MOST_LOOKED_AT = 50  # neighbours, of a photo with a label
_MAJORITY = 0.5  # share of them that have the label, in the middle of its region
_OVER_CHANCE = 1.5  # how much more often than elsewhere


@dataclass(frozen=True)
class Region:
    """A region: its middle in degrees, and its name, which may be empty."""

    latitude: float
    longitude: float
    name: str = ""


def find_regions(unit_vectors: np.ndarray) -> np.ndarray:
    """Tell which region each photo belongs to.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float

    Returns
    -------
    array of shape (n_images,), int32
        0 is the largest region; -1 is no region.
    """
    n_images = len(unit_vectors)
    region_of = np.full(n_images, -1, np.int32)
    k = int(np.clip(n_images // 20, _FEWEST_NEIGHBORS, _MOST_NEIGHBORS))
    if n_images <= k:
        return region_of
    distances, neighbours = cKDTree(unit_vectors).query(unit_vectors, k + 1)
    density = -2 * np.log(np.maximum(distances[:, 1:].mean(axis=1), 1e-9))  # of a surface, up to a constant
    peaks = _climb(density, neighbours[:, 1:])
    names, inverse, counts = np.unique(peaks, return_inverse=True, return_counts=True)
    order = np.lexsort((names, -counts))
    ranks = np.empty(len(names), np.int32)
    ranks[order] = np.arange(len(names))
    ranks[counts < max(_FEWEST, _LEAST_SHARE * n_images)] = -1
    return ranks[inverse]


def _climb(density: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Find the peak that each photo belongs to, from the densest photo down."""
    order = np.lexsort((np.arange(len(density)), -density))
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    parents = list(range(len(order)))

    def peak(photo: int) -> int:
        while parents[photo] != photo:
            parents[photo] = parents[parents[photo]]
            photo = parents[photo]
        return photo

    heights, places, near = density.tolist(), place.tolist(), neighbours.tolist()
    for photo in order.tolist():
        higher = {peak(other) for other in near[photo] if places[other] < places[photo]}
        if not higher:
            continue
        top = min(higher, key=places.__getitem__)
        parents[photo] = top
        for other in higher - {top}:
            if heights[other] - heights[photo] < _PROMINENCE:
                parents[other] = top
    return np.array([peak(photo) for photo in range(len(parents))])


def find_labelled_regions(unit_vectors: np.ndarray, labels: list[str | None]) -> tuple[np.ndarray, list[str]]:
    """Tell where the photos of each label are among themselves.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float
    labels : list of str or None

    Returns
    -------
    region_of : array of shape (n_images,), int32
        0 is the largest region; -1 is no region.
    labels : list of str
        That of each region.
    """
    region_of = np.full(len(labels), -1, np.int32)
    names, codes, counts = np.unique([label or "" for label in labels], return_inverse=True, return_counts=True)
    tree, found = cKDTree(unit_vectors), []
    for code, (name, count) in enumerate(zip(names.tolist(), counts.tolist(), strict=True)):
        if not name or count < _FEWEST or _OVER_CHANCE * count > len(labels):
            continue
        members = np.flatnonzero(codes == code)
        distances, near = tree.query(unit_vectors[members], min(count, _MOST_LOOKED_AT))
        share = (codes[near] == code).mean(axis=1)
        if share.max() >= max(_MAJORITY, _OVER_CHANCE * count / len(labels)):
            # Of several such places, the one where they lie closest.
            middle = np.lexsort((distances[:, -1], -share))[0]
            inside = np.intersect1d(near[middle], members) if count <= _MOST_LOOKED_AT else members
            found.append((name, inside[share[np.searchsorted(members, inside)] >= share.max() / 2]))
    found.sort(key=lambda region: -len(region[1]))
    for number, (_, inside) in enumerate(found):
        region_of[inside] = number
    return region_of, [name for name, _ in found]


def describe_regions(unit_vectors: np.ndarray, region_of: np.ndarray, names: list[str]) -> list[Region]:
    """Say where each region is.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float
    region_of : array of shape (n_images,), int
    names : list of str
        Of each region; empty for none.
    """
    regions = []
    for number, name in enumerate(names):
        members = unit_vectors[region_of == number]
        latitude, longitude = latitude_longitude(spherical_mean(members[None], np.ones((1, len(members)))))
        regions.append(Region(float(latitude[0]), float(longitude[0]), name))
    return regions


def name_by_words(
    region_of: np.ndarray, embeddings: np.ndarray, words: list[str], word_embeddings: np.ndarray
) -> list[str]:
    """Name each region by the word that comes nearer to its photos than to the others.

    Parameters
    ----------
    region_of : array of shape (n_images,), int
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1
    words : list of str
    word_embeddings : array of shape (n_words, n_dims), float32, rows of length 1
        Of the same encoder.
    """
    names = []
    mean = embeddings.mean(axis=0)
    for number in range(region_of.max(initial=-1) + 1):
        # The encoder's texts and images lie apart; what all images have in common says nothing of this region.
        scores = word_embeddings @ (embeddings[region_of == number].mean(axis=0) - mean)
        names.append(words[int(scores.argmax())])
    return names
