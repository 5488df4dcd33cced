"""Nearest neighbours by cosine distance, the same ones bit by bit with any number of threads.

Up to `EXACT_UP_TO` rows they are exact: products of matrices find candidates, in blocks of one shape, each in one
thread; the candidates' distances are computed anew in double precision. Above, NN-descent finds the candidates.
Neighbours of equal distance are in the order of their rows.

References
----------
W. Dong, M. Charikar and K. Li, "Efficient k-nearest neighbor graph construction for generic similarity measures",
WWW 2011.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from ..util.jit import compiled

# Where both take as long, on 2 cores and with 768 dimensions: benchmarks/SPHERE.md. It must not depend on the number
# of cores, or the map would.
EXACT_UP_TO = 60_000
_MOST_QUERIES = 128  # in a block, and fewer where their scores would take more than 128 MB
_MOST_SCORES = 2**25
_ROUNDING = 4e-6  # of a product of two unit vectors in single precision


def nearest(
    queries: np.ndarray, rows: np.ndarray, n_neighbors: int, n_threads: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of each query, exactly.

    Parameters
    ----------
    queries, rows : arrays of shape (n_queries, n_dims) and (n_rows, n_dims), float32, rows of length 1
    n_neighbors : int
        At most `n_rows`.
    n_threads : int
    own : array of shape (n_queries,), int, optional
        The row that each query is itself; it is the first of its neighbours, at distance 0.

    Returns
    -------
    indices : array of shape (n_queries, n_neighbors), int32
    distances : array of shape (n_queries, n_neighbors), float32
        Cosine distance, in [0, 2].
    """
    indices = np.empty((len(queries), n_neighbors), np.int32)
    distances = np.empty((len(queries), n_neighbors), np.float32)
    own = np.full(len(queries), -1) if own is None else np.asarray(own, np.int64)
    n_block = int(np.clip(_MOST_SCORES // len(rows), 1, _MOST_QUERIES))

    def search(start: int) -> None:
        block = slice(start, min(start + n_block, len(queries)))
        padded = np.zeros((n_block, queries.shape[1]), np.float32)
        padded[: block.stop - start] = queries[block]
        _select(padded @ rows.T, queries[block], rows, own[block], indices[block], distances[block])

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(search, range(0, len(queries), n_block)))
    return indices, distances


def all_neighbours(rows: np.ndarray, n_neighbors: int, n_threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of each row, itself first; see `nearest`."""
    own = np.arange(len(rows))
    if len(rows) <= EXACT_UP_TO:
        return nearest(rows, rows, n_neighbors, n_threads, own)
    return _refined(rows, _descend(rows, n_neighbors), n_neighbors, n_threads)


def updated_neighbours(
    rows: np.ndarray, known: np.ndarray, indices: np.ndarray, distances: np.ndarray, n_threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bring neighbours up to date with rows that have come, gone or changed.

    Parameters
    ----------
    rows : array of shape (n_rows, n_dims), float32, rows of length 1
    known : array of shape (n_known,), int
        Where the rows of `indices` and `distances` are in `rows`; -1 for those that have gone or changed.
    indices, distances : arrays of shape (n_known, n_neighbors)
        As they were.
    n_threads : int

    Returns
    -------
    indices, distances : arrays of shape (n_rows, n_neighbors), int32 and float32
        Where those of `known` were exact, they are what `nearest` gives.
    """
    n_neighbors = indices.shape[1]
    found = np.empty((len(rows), n_neighbors), np.int32)
    found_distances = np.empty((len(rows), n_neighbors), np.float32)
    moved = known[indices]
    whole = (known >= 0) & (moved >= 0).all(axis=1)
    kept = known[whole]
    searched = np.setdiff1d(np.arange(len(rows)), kept)
    found[searched], found_distances[searched] = nearest(rows[searched], rows, n_neighbors, n_threads, searched)
    new = np.setdiff1d(np.arange(len(rows)), known)
    found[kept], found_distances[kept] = moved[whole], distances[whole]
    if len(new):
        near, near_distances = nearest(rows[kept], rows[new], min(n_neighbors, len(new)), n_threads)
        both = np.hstack([found[kept], new[near].astype(np.int32)])
        both_distances = np.hstack([found_distances[kept], near_distances])
        own_first = np.arange(both.shape[1]) > 0
        order = np.lexsort((both, both_distances, np.broadcast_to(own_first, both.shape)))[:, :n_neighbors]
        found[kept] = np.take_along_axis(both, order, axis=1)
        found_distances[kept] = np.take_along_axis(both_distances, order, axis=1)
    return found, found_distances


def _descend(rows: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Find candidates by NN-descent, in one thread: its random numbers depend on how many there are."""
    from pynndescent import NNDescent

    index = NNDescent(rows, metric="dot", n_neighbors=n_neighbors + 1, random_state=0, n_jobs=1, max_candidates=60)
    return index.neighbor_graph[0]


def _refined(
    rows: np.ndarray, candidates: np.ndarray, n_neighbors: int, n_threads: int
) -> tuple[np.ndarray, np.ndarray]:
    indices = np.empty((len(rows), n_neighbors), np.int32)
    distances = np.empty((len(rows), n_neighbors), np.float32)
    found = _refine(rows, candidates.astype(np.int64), indices, distances)
    missed = np.flatnonzero(~found)
    indices[missed], distances[missed] = nearest(rows[missed], rows, n_neighbors, n_threads, missed)
    return indices, distances


@compiled(inline="always")
def _distance(x, y):
    """Half the squared difference, which is 1 - cosine: exactly 0 for equal rows."""
    total = 0.0
    for d in range(len(x)):
        difference = np.float64(x[d]) - np.float64(y[d])
        total += difference * difference
    return np.float32(0.5 * total)


@compiled(inline="always")
def _insert(indices, distances, n_found, index, distance):
    """Insert into a sorted row, of which `n_found` are taken; return how many are taken then."""
    last = len(indices) - 1
    if n_found > last:
        if distance > distances[last] or (distance == distances[last] and index > indices[last]):
            return n_found
        n_found = last
    place = n_found
    while place > 0 and (
        distances[place - 1] > distance or (distances[place - 1] == distance and indices[place - 1] > index)
    ):
        distances[place], indices[place] = distances[place - 1], indices[place - 1]
        place -= 1
    distances[place], indices[place] = distance, index
    return n_found + 1


@compiled(nogil=True)
def _select(scores, queries, rows, own, indices, distances):
    """Choose the neighbours of a block of queries by their scores, looking twice at those that may be among them."""
    n_neighbors = indices.shape[1]
    best = np.empty(n_neighbors, np.float32)
    for q in range(len(queries)):
        best[:] = -np.inf
        for j in range(len(rows)):
            score = scores[q, j]
            if score > best[-1]:
                place = n_neighbors - 1
                while place > 0 and best[place - 1] < score:
                    best[place] = best[place - 1]
                    place -= 1
                best[place] = score
        n_found = 0
        first = 0
        if own[q] >= 0:
            indices[q, 0], distances[q, 0] = own[q], 0
            first = 1
        for j in range(len(rows)):
            if scores[q, j] >= best[-1] - np.float32(_ROUNDING) and j != own[q]:
                n_found = _insert(indices[q, first:], distances[q, first:], n_found, j, _distance(queries[q], rows[j]))


@compiled(nogil=True)
def _refine(rows, candidates, indices, distances):
    """Order each row's candidates by their true distances, itself first; return which rows have enough of them."""
    enough = np.zeros(len(rows), np.bool_)
    for i in range(len(rows)):
        n_found = 0
        indices[i, 0], distances[i, 0] = i, 0
        for j in candidates[i]:
            if j >= 0 and j != i:
                n_found = _insert(indices[i, 1:], distances[i, 1:], n_found, j, _distance(rows[i], rows[j]))
        enough[i] = n_found == indices.shape[1] - 1
    return enough
