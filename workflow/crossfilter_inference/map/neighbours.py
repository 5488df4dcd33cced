"""Nearest neighbours by cosine distance, bit-identical with any number of threads.

Up to `EXACT_UP_TO` rows the search is exact. Matrix products in blocks of one shape, each in one thread, find
candidates. The candidates' distances are then recomputed in double precision. Above this limit, NN-descent finds the
candidates. Neighbours at equal distance are in the order of their rows.

References
----------
W. Dong, M. Charikar and K. Li, "Efficient k-nearest neighbor graph construction for generic similarity measures",
WWW 2011.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..util.jit import compiled

# Number of rows at which both methods take the same time on 2 cores with 768 dimensions (benchmarks/SPHERE.md). It is
# fixed, because the map must not depend on the number of cores.
EXACT_UP_TO = 60_000
_MAX_BLOCK_QUERIES = 128
_MAX_BLOCK_SCORES = 2**25  # 128 MB
_ROUNDING = 4e-6  # error of the product of two unit vectors in single precision


class Neighbours(NamedTuple):
    """Nearest rows of each query, the nearest first.

    Attributes
    ----------
    indices : array of shape (n_queries, n_neighbors), int32
    distances : array of shape (n_queries, n_neighbors), float32
        Cosine distance, in [0, 2].
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]

    @classmethod
    def empty(cls, n_queries: int, n_neighbors: int) -> "Neighbours":
        """Allocate arrays, to be filled."""
        return cls(np.empty((n_queries, n_neighbors), np.int32), np.empty((n_queries, n_neighbors), np.float32))


def nearest(
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    n_neighbors: int,
    n_threads: int,
    own_rows: NDArray[np.integer] | None = None,
) -> Neighbours:
    """Find the exact nearest rows of each query.

    Parameters
    ----------
    queries, rows : arrays of shape (n_queries, n_dims) and (n_rows, n_dims), float32, rows of length 1
    n_neighbors : int
        At most `n_rows`.
    n_threads : int
    own_rows : array of shape (n_queries,), int, optional
        The row in `rows` of each query. It becomes the query's first neighbour, at distance 0.
    """
    found = Neighbours.empty(len(queries), n_neighbors)
    own = np.full(len(queries), -1) if own_rows is None else np.asarray(own_rows, np.int64)
    n_block = int(np.clip(_MAX_BLOCK_SCORES // len(rows), 1, _MAX_BLOCK_QUERIES))

    def search(start: int) -> None:
        block = slice(start, min(start + n_block, len(queries)))
        padded = np.zeros((n_block, queries.shape[1]), np.float32)
        padded[: block.stop - start] = queries[block]
        _select(padded @ rows.T, queries[block], rows, own[block], found.indices[block], found.distances[block])

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(search, range(0, len(queries), n_block)))
    return found


def all_neighbours(rows: NDArray[np.float32], n_neighbors: int, n_threads: int) -> Neighbours:
    """Find the nearest rows of each row, the row itself first.

    Parameters
    ----------
    rows : array of shape (n_rows, n_dims), float32, rows of length 1
    n_neighbors : int
        Including the row itself; at most `n_rows`.
    n_threads : int
    """
    if len(rows) <= EXACT_UP_TO:
        return nearest(rows, rows, n_neighbors, n_threads, np.arange(len(rows)))
    return _refine(rows, _nn_descent(rows, n_neighbors), n_neighbors, n_threads)


def updated_neighbours(
    rows: NDArray[np.float32], known: NDArray[np.integer], previous: Neighbours, n_threads: int
) -> Neighbours:
    """Update neighbours after rows were added, removed or changed.

    Parameters
    ----------
    rows : array of shape (n_rows, n_dims), float32, rows of length 1
    known : array of shape (n_previous,), int
        The row in `rows` of each row of `previous`; -1 for removed and changed rows.
    previous : Neighbours
    n_threads : int

    Returns
    -------
    Neighbours
        Equal to a new exact search, if those of `previous` were exact.
    """
    n_neighbors = previous.indices.shape[1]
    found = Neighbours.empty(len(rows), n_neighbors)
    renumbered = known[previous.indices]
    complete = (known >= 0) & (renumbered >= 0).all(axis=1)
    kept = known[complete]
    searched = np.setdiff1d(np.arange(len(rows)), kept)
    found.indices[searched], found.distances[searched] = nearest(rows[searched], rows, n_neighbors, n_threads, searched)
    new = np.setdiff1d(np.arange(len(rows)), known)
    found.indices[kept], found.distances[kept] = renumbered[complete], previous.distances[complete]
    if len(new):
        added = nearest(rows[kept], rows[new], min(n_neighbors, len(new)), n_threads)
        indices = np.hstack([found.indices[kept], new[added.indices].astype(np.int32)])
        distances = np.hstack([found.distances[kept], added.distances])
        own_first = np.arange(indices.shape[1]) > 0
        order = np.lexsort((indices, distances, np.broadcast_to(own_first, indices.shape)))[:, :n_neighbors]
        found.indices[kept] = np.take_along_axis(indices, order, axis=1)
        found.distances[kept] = np.take_along_axis(distances, order, axis=1)
    return found


def _nn_descent(rows: NDArray[np.float32], n_neighbors: int) -> NDArray[np.int32]:
    """Find candidates by NN-descent, in one thread because its random numbers depend on the number of threads."""
    from pynndescent import NNDescent

    index = NNDescent(rows, metric="dot", n_neighbors=n_neighbors + 1, random_state=0, n_jobs=1, max_candidates=60)
    candidates: NDArray[np.int32] = index.neighbor_graph[0]
    return candidates


def _refine(rows: NDArray[np.float32], candidates: NDArray[np.int32], n_neighbors: int, n_threads: int) -> Neighbours:
    """Choose neighbours among candidates; rows with too few candidates are searched exactly."""
    found = Neighbours.empty(len(rows), n_neighbors)
    enough = _order_candidates(rows, candidates.astype(np.int64), found.indices, found.distances)
    missed = np.flatnonzero(~enough)
    found.indices[missed], found.distances[missed] = nearest(rows[missed], rows, n_neighbors, n_threads, missed)
    return found


@compiled(inline="always")
def _distance(x: NDArray[np.float32], y: NDArray[np.float32]) -> np.float32:
    """Compute half the squared difference: 1 - cosine, and exactly 0 for equal rows."""
    total = 0.0
    for d in range(len(x)):
        difference = np.float64(x[d]) - np.float64(y[d])
        total += difference * difference
    return np.float32(0.5 * total)


@compiled(inline="always")
def _insert(
    indices: NDArray[np.int32], distances: NDArray[np.float32], n_found: int, index: int, distance: np.float32
) -> int:
    """Insert a neighbour into a sorted row that holds `n_found`; return the new count."""
    last = len(indices) - 1
    if n_found > last:
        if distance > distances[last] or (distance == distances[last] and index > indices[last]):
            return n_found
        n_found = last
    slot = n_found
    while slot > 0 and (
        distances[slot - 1] > distance or (distances[slot - 1] == distance and indices[slot - 1] > index)
    ):
        distances[slot], indices[slot] = distances[slot - 1], indices[slot - 1]
        slot -= 1
    distances[slot], indices[slot] = distance, index
    return n_found + 1


@compiled(nogil=True)
def _select(
    scores: NDArray[np.float32],
    queries: NDArray[np.float32],
    rows: NDArray[np.float32],
    own: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
) -> None:
    """Choose the neighbours of a block of queries: candidates by score, then their order by exact distance."""
    n_neighbors = indices.shape[1]
    best = np.empty(n_neighbors, np.float32)
    for q in range(len(queries)):
        best[:] = -np.inf
        for j in range(len(rows)):
            score = scores[q, j]
            if score > best[-1]:
                slot = n_neighbors - 1
                while slot > 0 and best[slot - 1] < score:
                    best[slot] = best[slot - 1]
                    slot -= 1
                best[slot] = score
        n_found = 0
        first = 0
        if own[q] >= 0:
            indices[q, 0], distances[q, 0] = own[q], 0
            first = 1
        for j in range(len(rows)):
            if scores[q, j] >= best[-1] - np.float32(_ROUNDING) and j != own[q]:
                n_found = _insert(indices[q, first:], distances[q, first:], n_found, j, _distance(queries[q], rows[j]))


@compiled(nogil=True)
def _order_candidates(
    rows: NDArray[np.float32],
    candidates: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Order each row's candidates by exact distance, the row itself first; return which rows have enough of them."""
    enough = np.zeros(len(rows), np.bool_)
    for i in range(len(rows)):
        n_found = 0
        indices[i, 0], distances[i, 0] = i, 0
        for j in candidates[i]:
            if j >= 0 and j != i:
                n_found = _insert(indices[i, 1:], distances[i, 1:], n_found, j, _distance(rows[i], rows[j]))
        enough[i] = n_found == indices.shape[1] - 1
    return enough
