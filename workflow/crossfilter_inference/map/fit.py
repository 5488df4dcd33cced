"""Positions of photos on the sphere: fit a new map, place new photos on a map, or update a map.

References
----------
Placing: inverse distance weighting, D. Shepard, "A two-dimensional interpolation function for irregularly-spaced
data", ACM 1968. The layout: `layout.py` and `fuzzy_graph.py`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .copies import Copies, find_copies
from .fuzzy_graph import fuzzy_graph
from .layout import Forces, default_n_epochs, default_radius, default_repulsion, initial_positions, lay_out
from .neighbours import Neighbours, all_neighbours, nearest, updated_neighbours
from .sphere import angles_from_unit_vectors, degrees_between, rotate_onto, spherical_mean, unit_vectors_from_angles

logger = logging.getLogger(__name__)

MIN_PHOTOS = 4  # fewer photos have no layout
# An update is a short run from the previous positions. New photos take full steps and old ones this share of a step:
# enough for their neighbours to make room, too little to carry others away (benchmarks/SPHERE.md).
_ALIGN_EPOCHS = 100
_ALIGN_MOBILITY = 0.02
_ALIGN_RADIUS = 4.0  # on a smaller sphere a step is a larger angle, so the share is smaller
_N_PLACE_NEIGHBOURS = 15
_MAX_CURVE_STEPS = 200
_CURVE_TOLERANCE = 1e-10
_MIN_DISTANCE = 1e-12  # added to cosine distances, which are 0 between equal embeddings


@dataclass(frozen=True)
class FitParameters:
    """The settings that shape a map, as numbers."""

    n_neighbors: int
    min_dist: float
    random_state: int
    forces: Forces


@dataclass(frozen=True)
class SphereMap:
    """Positions of photos on the sphere.

    Attributes
    ----------
    uuids : list of str
    angles : array of shape (n_images, 2), float64
        Theta in [0, pi] and phi in [-pi, pi], radians.
    neighbours : Neighbours, optional
        Each photo itself first, then others that are not copies of it or of each other; see `copies.py`. None if there
        are too few photos, or if the map was read from the database.
    graph : sparse matrix of shape (n_images, n_images), float32, optional
        The graph of `neighbours`; see `fuzzy_graph`.
    row_digests : array of shape (n_images,), uint64, optional
        Digest of each embedding, to find changed ones.
    drift_degrees : float, optional
        How far photos moved on average from the previous map.
    record : dict
        How the map was made: the keys of `map_quality.json`, without its figures.
    """

    uuids: list[str]
    angles: NDArray[np.float64]
    neighbours: Neighbours | None = None
    graph: sp.csr_matrix | None = None
    row_digests: NDArray[np.uint64] | None = None
    drift_degrees: float | None = None
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def unit_vectors(self) -> NDArray[np.float64]:
        """Positions as unit vectors: an array of shape (n_images, 3), float64."""
        return unit_vectors_from_angles(*self.angles.T)


def place(
    queries: NDArray[np.float32], rows: NDArray[np.float32], unit_vectors: NDArray[np.float64], n_threads: int
) -> NDArray[np.float64]:
    """Place each photo at the spherical mean of the 15 most similar photos, weighted by inverse distance.

    A photo's position does not depend on the other queries. A photo that equals one of the map gets its position, to
    the last bit.

    Parameters
    ----------
    queries, rows : arrays of shape (n_queries, n_dims) and (n_images, n_dims), float32, rows of length 1
    unit_vectors : array of shape (n_images, 3), float64
        Positions of `rows`.
    n_threads : int

    Returns
    -------
    array of shape (n_queries, 3), float64, rows of length 1
    """
    return _place_among(nearest(queries, rows, min(_N_PLACE_NEIGHBOURS, len(rows)), n_threads), unit_vectors)


def fit_parameters(settings: Mapping[str, Any], n_images: int, shape: Mapping[str, float] | None) -> FitParameters:
    """Return the settings as numbers, and UMAP's curve for `min_dist`, a length on the sphere.

    As in umap-learn, the curve 1 / (1 + a d^(2b)) follows 1 up to `min_dist` and exp(min_dist - d) beyond, up to 3.

    Parameters
    ----------
    settings : mapping
        Section `umap` of the configuration.
    n_images : int
        Number of different photos, on which the values of `auto` depend in a new map.
    shape : mapping or None
        The settings of an existing map: its values of `auto`.
    """
    automatic = shape or {
        "min_dist": 0.0,
        "radius": default_radius(n_images),
        "repulsion": default_repulsion(n_images),
    }
    min_dist, radius, repulsion = (
        automatic[key] if settings[key] == "auto" else settings[key] for key in ("min_dist", "radius", "repulsion")
    )
    forces = Forces(*_fit_curve(min_dist), radius, repulsion)
    return FitParameters(settings["n_neighbors"], min_dist, settings["random_state"], forces)


def _fit_curve(min_dist: float) -> tuple[float, float]:
    """Fit a and b of the curve by the method of Levenberg and Marquardt; scipy's would take longer to import."""
    distances = np.linspace(0, 3, 300)[1:]
    wanted, logarithms = np.where(distances < min_dist, 1, np.exp(min_dist - distances)), np.log(distances)
    fitted, damping = np.zeros(2), 0.01  # the logarithms of a and b

    def curve(log_a: float, log_b: float) -> NDArray[np.float64]:
        heights: NDArray[np.float64] = 1 / (1 + np.exp(log_a + 2 * np.exp(log_b) * logarithms))
        return heights

    for _ in range(_MAX_CURVE_STEPS):
        heights = curve(*fitted)
        errors = wanted - heights
        slopes = np.column_stack([np.ones_like(logarithms), 2 * np.exp(fitted[1]) * logarithms])
        slopes *= (heights * (heights - 1))[:, None]
        square = slopes.T @ slopes
        step = np.linalg.solve(square + damping * np.diag(np.diag(square)), slopes.T @ errors)
        improved = ((wanted - curve(*(fitted + step))) ** 2).sum() <= (errors**2).sum()
        damping *= 0.1 if improved else 10
        fitted = fitted + step if improved else fitted
        if improved and np.abs(step).max() < _CURVE_TOLERANCE:
            break
    a, b = np.exp(fitted).tolist()
    return a, b


def _place_among(neighbours: Neighbours, unit_vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place photos among their neighbours."""
    indices, distances = neighbours
    # The cosine distance is half the square of the distance.
    positions = spherical_mean(unit_vectors[indices], 1 / np.sqrt(distances + _MIN_DISTANCE))
    return np.where(distances[:, :1] == 0, unit_vectors[indices[:, 0]], positions)


def fit(
    uuids: list[str],
    embeddings: NDArray[np.float32],
    parameters: FitParameters,
    n_threads: int,
    previous: SphereMap | None,
) -> SphereMap:
    """Fit a new map, and rotate it to match the previous one if they share photos.

    Parameters
    ----------
    uuids : list of str
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1
    parameters : FitParameters
    n_threads : int
        The map does not depend on it.
    previous : SphereMap or None
    """
    copies = find_copies(embeddings)
    rows = copies.first_of_each(embeddings)
    neighbours, graph = None, None
    unit_vectors = initial_positions(rows)
    if len(rows) < MIN_PHOTOS:
        logger.warning("%d different photos are too few: computing positions from their embeddings", len(rows))
    else:
        n_neighbors = min(parameters.n_neighbors, len(rows) - 1)
        if n_neighbors < parameters.n_neighbors:
            logger.info("only %d different photos: reducing n_neighbors to %d", len(rows), n_neighbors)
        neighbours = all_neighbours(rows, n_neighbors, n_threads)
        graph = fuzzy_graph(*neighbours)
        n_epochs = default_n_epochs(len(rows))
        unit_vectors = lay_out(unit_vectors, graph, parameters.forces, parameters.random_state, n_threads, n_epochs)
    drift = None
    if previous is not None:
        # Matched by UUID alone, even if the embedding has changed.
        known = copies.groups_of_previous(find_rows(uuids, None, previous))
        unit_vectors, drift = _rotate_onto_previous(unit_vectors, previous, known)
    angles = np.column_stack(angles_from_unit_vectors(unit_vectors))
    return _map_of_all(uuids, copies, angles, neighbours, graph, drift)


def update(
    uuids: list[str],
    embeddings: NDArray[np.float32],
    known: NDArray[np.int64],
    parameters: FitParameters,
    n_threads: int,
    previous: SphereMap,
    *,
    improve: bool,
) -> SphereMap:
    """Place new photos on the previous map and, with `improve`, optimise all positions from there.

    Parameters
    ----------
    uuids : list of str
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1
    known : array of shape (n_previous,), int64
        The row of each photo of `previous`; -1 if it was removed or its embedding has changed.
    parameters : FitParameters
        Those of `previous`.
    n_threads : int
        The map does not depend on it.
    previous : SphereMap
    improve : bool
        If False, known photos keep their positions to the last bit.
    """
    copies = find_copies(embeddings)
    rows, known = copies.first_of_each(embeddings), copies.groups_of_previous(known)
    old = known >= 0
    n_old = min(_N_PLACE_NEIGHBOURS, int(old.sum()))
    neighbours, near = updated_neighbours(rows, known, previous.neighbours, parameters.n_neighbors, n_old, n_threads)
    graph = fuzzy_graph(*neighbours)
    unit_vectors = np.empty((len(rows), 3))
    unit_vectors[known[old]] = previous.unit_vectors[old]
    new = np.setdiff1d(np.arange(len(rows)), known)
    unit_vectors[new] = _place_among(near, unit_vectors)
    drift: float | None = 0.0
    if improve:
        forces, seed = parameters.forces, parameters.random_state
        mobility = np.ones(len(rows))
        mobility[known[old]] = _ALIGN_MOBILITY * min(forces.radius / _ALIGN_RADIUS, 1) ** 2
        unit_vectors = lay_out(unit_vectors, graph, forces, seed, n_threads, _ALIGN_EPOCHS, mobility)
        unit_vectors, drift = _rotate_onto_previous(unit_vectors, previous, known)
    angles = np.column_stack(angles_from_unit_vectors(unit_vectors))
    if not improve:
        angles[known[old]] = previous.angles[old]
    return _map_of_all(uuids, copies, angles, neighbours, graph, drift)


def _map_of_all(
    uuids: list[str],
    copies: Copies,
    angles: NDArray[np.float64],
    neighbours: Neighbours | None,
    graph: sp.csr_matrix | None,
    drift: float | None,
) -> SphereMap:
    """Make a map of all photos from one of the groups of copies."""
    if neighbours is not None and len(uuids) > len(copies.firsts):
        neighbours = copies.to_rows(neighbours)
        graph = fuzzy_graph(*neighbours)
    return SphereMap(uuids, angles[copies.group_of], neighbours, graph, drift_degrees=drift)


def find_rows(uuids: list[str], row_digests: NDArray[np.uint64] | None, previous: SphereMap) -> NDArray[np.int64]:
    """Find the photos of a previous map among the present ones.

    Returns
    -------
    array of shape (n_previous,), int64
        The row of each photo; -1 if it was removed or, where digests are given, its embedding has changed.
    """
    rows = {uuid: row for row, uuid in enumerate(uuids)}
    known = np.array([rows.get(uuid, -1) for uuid in previous.uuids])
    if row_digests is not None and previous.row_digests is not None:
        known[(row_digests[known] != previous.row_digests) & (known >= 0)] = -1
    return known


def _rotate_onto_previous(
    unit_vectors: NDArray[np.float64], previous: SphereMap, known: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float | None]:
    """Rotate a map to match the previous one; return its positions and the mean drift in degrees."""
    old = np.flatnonzero(known >= 0)
    if not len(old):
        return unit_vectors, None
    pairs = np.column_stack([known[old], old])
    unit_vectors = rotate_onto(unit_vectors, previous.unit_vectors, pairs)
    drift = degrees_between(unit_vectors[pairs[:, 0]], previous.unit_vectors[pairs[:, 1]])
    return unit_vectors, float(drift.mean())
