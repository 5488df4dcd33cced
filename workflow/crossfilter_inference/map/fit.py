"""A place on the sphere for every photo: a fresh fit, new photos placed among the old ones, or an old map improved.

References
----------
Placing: inverse distance weighting, D. Shepard, "A two-dimensional interpolation function for irregularly-spaced
data", ACM 1968. The rest: `layout.py`, `graph.py`.
"""

import logging
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from .fuzzy_graph import fuzzy_graph
from .layout import default_n_epochs, first_places, lay_out
from .neighbours import all_neighbours, nearest, updated_neighbours
from .sphere import angles_from_unit_vectors, degrees_between, spherical_mean, turned_onto, unit_vectors_from_angles

logger = logging.getLogger(__name__)

FEWEST = 4  # photos that UMAP can make something of
# Of the short run from an old map, in which new photos take whole steps and old ones this part of them: enough to let
# the new ones find their places and their neighbours make room, too little to carry others away (benchmarks/SPHERE.md).
_ALIGN_EPOCHS = 100
_ALIGN_MOBILITY = 0.02 / 4**2  # times the squared radius: on a smaller sphere, a step is a larger angle
_PLACE_NEIGHBOURS = 15
_SAME = 1e-12  # added to the cosine distance, which is 0 between equal embeddings


@dataclass
class Places:
    """A map: `angles` is an array of shape (n_images, 2), float64: theta and phi in radians.

    `graph`, `indices` and `distances` are UMAP's graph and the neighbours that it was made from, as in `graph.py`.
    """

    uuids: list[str]
    angles: np.ndarray
    indices: np.ndarray | None = None
    distances: np.ndarray | None = None
    graph: sp.csr_matrix | None = None
    row_digests: np.ndarray | None = None
    record: dict = field(default_factory=dict)

    @property
    def unit_vectors(self) -> np.ndarray:
        return unit_vectors_from_angles(*self.angles.T)


@dataclass(frozen=True)
class Curve:
    """What shapes the map: the settings, with UMAP's a and b for distances on a sphere of radius `radius`."""

    n_neighbors: int
    a: float
    b: float
    radius: float
    random_state: int


def place(queries: np.ndarray, rows: np.ndarray, unit_vectors: np.ndarray, n_threads: int) -> np.ndarray:
    """Place photos at the spherical mean of the 15 photos that they are most like, the nearer ones weighing more.

    A photo's place does not depend on what else is placed; one that equals a photo of the map is put upon it.

    Parameters
    ----------
    queries, rows : arrays of shape (n_queries, n_dims) and (n_images, n_dims), float32, rows of length 1
    unit_vectors : array of shape (n_images, 3), float
        Places of `rows`.
    n_threads : int

    Returns
    -------
    array of shape (n_queries, 3), float64, rows of length 1
    """
    indices, distances = nearest(queries, rows, min(_PLACE_NEIGHBOURS, len(rows)), n_threads)
    # The cosine distance is half the square of the distance.
    return spherical_mean(unit_vectors[indices], 1 / np.sqrt(distances + _SAME))


def fit(uuids: list[str], embeddings: np.ndarray, curve: Curve, n_threads: int, previous: Places | None) -> Places:
    """Make a new map, turned onto the previous one as far as they have photos in common."""
    n_images = len(embeddings)
    if n_images < FEWEST or (embeddings == embeddings[0]).all():
        logger.warning("%d photos without neighbourhoods: placed by their directions alone", n_images)
        places = Places(uuids, np.empty((0, 2)))
        unit_vectors = first_places(embeddings)
    else:
        n_neighbors = min(curve.n_neighbors, n_images - 1)
        if n_neighbors < curve.n_neighbors:
            logger.info("%d photos: each has %d neighbours", n_images, n_neighbors)
        places = _with_graph(uuids, *all_neighbours(embeddings, n_neighbors, n_threads))
        unit_vectors = _lay_out(first_places(embeddings), places, curve, n_threads, default_n_epochs(n_images))
    # Turned by all photos of the same UUID, whatever their embeddings are now.
    known = np.empty(0, int) if previous is None else rows_of(uuids, None, previous)
    return _finished(places, unit_vectors, previous, known)


def update(
    uuids: list[str],
    embeddings: np.ndarray,
    known: np.ndarray,
    curve: Curve,
    n_threads: int,
    previous: Places,
    *,
    improve: bool,
) -> Places:
    """Bring a map up to date: place what is new and, if it is to improve, let all find their places anew.

    Parameters
    ----------
    uuids : list of str
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1
    known : array of shape (n_previous,), int
        The row of each photo of `previous`; -1 if it has gone or changed.
    curve : Curve
        As that of `previous`.
    n_threads : int
    previous : Places
    improve : bool
        If not, known photos stay in their places to the last bit.
    """
    old = known >= 0
    if previous.indices is None:
        neighbours = all_neighbours(embeddings, curve.n_neighbors, n_threads)
    else:
        neighbours = updated_neighbours(embeddings, known, previous.indices, previous.distances, n_threads)
    places = _with_graph(uuids, *neighbours)
    new = np.setdiff1d(np.arange(len(uuids)), known)
    unit_vectors = np.empty((len(uuids), 3))
    unit_vectors[known[old]] = previous.unit_vectors[old]
    unit_vectors[new] = place(embeddings[new], embeddings[known[old]], previous.unit_vectors[old], n_threads)
    if improve:
        mobility = np.ones(len(uuids))
        mobility[known[old]] = min(_ALIGN_MOBILITY * curve.radius**2, 1)
        unit_vectors = _lay_out(unit_vectors, places, curve, n_threads, _ALIGN_EPOCHS, mobility)
    places = _finished(places, unit_vectors, previous if improve else None, known)
    if not improve:
        places.angles[known[old]] = previous.angles[old]
        places.record["drift_degrees"] = 0.0
    return places


def rows_of(uuids: list[str], row_digests: np.ndarray | None, previous: Places) -> np.ndarray:
    """Find each photo of a previous map among the present ones.

    Returns
    -------
    array of shape (n_previous,), int
        The row; -1 if the photo has gone or, where digests are given, has another embedding than it had.
    """
    rows = {uuid: row for row, uuid in enumerate(uuids)}
    known = np.array([rows.get(uuid, -1) for uuid in previous.uuids])
    if row_digests is not None and previous.row_digests is not None:
        known[(row_digests[known] != previous.row_digests) & (known >= 0)] = -1
    return known


def _with_graph(uuids: list[str], indices: np.ndarray, distances: np.ndarray) -> Places:
    return Places(uuids, np.empty((0, 2)), indices, distances, fuzzy_graph(indices, distances))


def _lay_out(
    unit_vectors: np.ndarray,
    places: Places,
    curve: Curve,
    n_threads: int,
    n_epochs: int,
    mobility: np.ndarray | None = None,
) -> np.ndarray:
    shape = curve.a, curve.b, curve.radius, curve.random_state
    return lay_out(unit_vectors, places.graph, *shape, n_threads, n_epochs, mobility)


def _finished(places: Places, unit_vectors: np.ndarray, previous: Places | None, known: np.ndarray) -> Places:
    """Turn a map onto the previous one, and say how far the photos that are on both have moved."""
    old = np.flatnonzero(known >= 0)
    if previous is not None and len(old):
        pairs = np.column_stack([known[old], old])
        unit_vectors = turned_onto(unit_vectors, previous.unit_vectors, pairs)
        drift = degrees_between(unit_vectors[pairs[:, 0]], previous.unit_vectors[pairs[:, 1]])
        places.record["drift_degrees"] = float(drift.mean())
    places.angles = np.column_stack(angles_from_unit_vectors(unit_vectors))
    return places
