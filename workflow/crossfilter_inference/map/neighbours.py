"""Nearest neighbours by cosine distance, bit-identical with any number of threads.

A search of up to `EXACT_UP_TO` pairs of rows is exact. Matrix products in blocks of one shape, each in one thread, find
candidates. Their distances are then recomputed in double precision. Above this limit, `large_search.py` finds the
candidates. Neighbours at equal distance are in the order of their rows.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..util.jit import compiled
from .large_search import Found, LargeSearch

# Pairs of rows for which both methods take about the same time with 768 dimensions (benchmarks/SPHERE.md). It is fixed,
# because the map must not depend on the number of cores.
EXACT_UP_TO = 20_000**2
_MAX_BLOCK_QUERIES = 128
_MAX_BLOCK_SCORES = 2**25  # 128 MB
_BLOCK = 50_000
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
    hidden: NDArray[np.integer] | None = None,
) -> Neighbours:
    """Find the exact nearest rows of each query.

    Parameters
    ----------
    queries, rows : arrays of shape (n_queries, n_dims) and (n_rows, n_dims), float32, rows of length 1
    n_neighbors : int
        At most the number of rows that are not hidden.
    n_threads : int
    own_rows : array of shape (n_queries,), int, optional
        The row in `rows` of each query. It becomes the query's first neighbour, at distance 0.
    hidden : array of shape (n_hidden,), int, optional
        Rows that must not be found.
    """
    found = Neighbours.empty(len(queries), n_neighbors)
    own = np.full(len(queries), -1) if own_rows is None else np.asarray(own_rows, np.int64)
    n_block = int(np.clip(_MAX_BLOCK_SCORES // len(rows), 1, _MAX_BLOCK_QUERIES))

    def search(start: int) -> None:
        block = slice(start, min(start + n_block, len(queries)))
        padded = np.zeros((n_block, queries.shape[1]), np.float32)
        padded[: block.stop - start] = queries[block]
        scores = padded @ rows.T
        if hidden is not None:
            scores[:, hidden] = -np.inf
        _select(scores, queries[block], rows, own[block], found.indices[block], found.distances[block])

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(search, range(0, len(queries), n_block)))
    return found


def all_neighbours(rows: NDArray[np.float32], n_neighbors: int, n_threads: int) -> Neighbours:
    """Find the nearest rows of each row, the row itself first.

    Parameters
    ----------
    rows : array of shape (n_rows, n_dims), float32, rows of length 1
        If there are more than 20,000, no two are equal.
    n_neighbors : int
        Including the row itself; at most `n_rows`.
    n_threads : int
    """
    if len(rows) ** 2 <= EXACT_UP_TO:
        return nearest(rows, rows, n_neighbors, n_threads, np.arange(len(rows)))
    candidates = LargeSearch(rows, n_neighbors - 1, n_threads).all_neighbours().indices
    return _order(rows, np.arange(len(rows)), candidates, n_neighbors, n_threads, own_first=True)


def updated_neighbours(
    rows: NDArray[np.float32],
    known: NDArray[np.integer],
    previous: Neighbours | None,
    n_neighbors: int,
    n_old: int,
    n_threads: int,
) -> tuple[Neighbours, Neighbours]:
    """Update neighbours after rows were added, removed or changed.

    Parameters
    ----------
    rows : array of shape (n_rows, n_dims), float32, rows of length 1
    known : array of shape (n_previous,), int
        The row in `rows` of each row of `previous`; -1 for removed and changed rows.
    previous : Neighbours or None
        None if they are unknown.
    n_neighbors : int
        Including the row itself; unused if there are previous neighbours.
    n_old : int
        Number of old rows to find for each new one; at most the number of old rows.
    n_threads : int

    Returns
    -------
    all : Neighbours
        Of all rows, each itself first. Equal to those of `all_neighbours`, if that search is exact and `previous` was.
    old : Neighbours
        The nearest old rows of each new or changed one, in the order of the rows.
    """
    new = np.setdiff1d(np.arange(len(rows)), known)
    if previous is None:
        found = all_neighbours(rows, n_neighbors, n_threads)
        return found, _nearest_old(rows, new, found, n_old, None, n_threads)
    found, searched = _renumbered(len(rows), known, previous)
    if len(searched) * len(rows) <= EXACT_UP_TO:
        n_neighbors = found.indices.shape[1]
        found.indices[searched], found.distances[searched] = nearest(
            rows[searched], rows, n_neighbors, n_threads, searched
        )
        _add_new(found, rows, np.setdiff1d(known[known >= 0], searched), new, n_threads)
        return found, _nearest_old(rows, new, found, n_old, None, n_threads)
    search = LargeSearch(rows, max(found.indices.shape[1] - 1, n_old), n_threads)
    others = Found(found.indices[:, 1:].copy(), 1 - found.distances[:, 1:])
    search.update(others, searched)
    found = _order(rows, np.arange(len(rows)), others.indices, found.indices.shape[1], n_threads, own_first=True)
    return found, _nearest_old(rows, new, found, n_old, search, n_threads)


def _renumbered(
    n_rows: int, known: NDArray[np.integer], previous: Neighbours
) -> tuple[Neighbours, NDArray[np.integer]]:
    """Return what is known of the neighbours of all rows, and the rows of which some are not."""
    n_neighbors = previous.indices.shape[1]
    found = Neighbours(np.full((n_rows, n_neighbors), -1, np.int32), np.full((n_rows, n_neighbors), np.inf, np.float32))
    old = known >= 0
    indices = np.where(previous.indices >= 0, known[previous.indices], -1)[old].astype(np.int32)
    distances = np.where(indices >= 0, previous.distances[old], np.float32(np.inf))
    nearest_first = np.argsort(indices < 0, axis=1, kind="stable")  # removed rows come last
    found.indices[known[old]] = np.take_along_axis(indices, nearest_first, axis=1)
    found.distances[known[old]] = np.take_along_axis(distances, nearest_first, axis=1)
    return found, np.flatnonzero((found.indices < 0).any(axis=1))


def _add_new(
    found: Neighbours, rows: NDArray[np.float32], kept: NDArray[np.integer], new: NDArray[np.integer], n_threads: int
) -> None:
    """Add new rows to the neighbours of others."""
    n_neighbors = found.indices.shape[1]
    for start in range(0, len(kept) if len(new) else 0, _BLOCK):
        part = kept[start : start + _BLOCK]
        added = nearest(rows[part], rows[new], min(n_neighbors, len(new)), n_threads)
        indices = np.hstack([found.indices[part], new[added.indices].astype(np.int32)])
        distances = np.hstack([found.distances[part], added.distances])
        own_first = np.arange(indices.shape[1]) > 0
        order = np.lexsort((indices, distances, np.broadcast_to(own_first, indices.shape)))[:, :n_neighbors]
        found.indices[part] = np.take_along_axis(indices, order, axis=1)
        found.distances[part] = np.take_along_axis(distances, order, axis=1)


def _nearest_old(
    rows: NDArray[np.float32],
    new: NDArray[np.integer],
    neighbours: Neighbours,
    n_neighbors: int,
    search: LargeSearch | None,
    n_threads: int,
) -> Neighbours:
    """Find the nearest old rows of each new one."""
    if len(new) * len(rows) <= EXACT_UP_TO:
        return nearest(rows[new], rows, n_neighbors, n_threads, hidden=new)
    is_old = np.ones(len(rows), np.bool_)
    is_old[new] = False
    links = np.where(is_old[neighbours.indices[:, 1:]], neighbours.indices[:, 1:], np.int32(-1))
    links[new] = -1
    search = search or LargeSearch(rows, n_neighbors, n_threads)
    candidates = search.nearest(rows[new], links, is_old).indices
    return _order(rows, new, candidates, n_neighbors, n_threads, own_first=False, hidden=new)


def _order(
    rows: NDArray[np.float32],
    queries: NDArray[np.integer],
    candidates: NDArray[np.int32],
    n_neighbors: int,
    n_threads: int,
    *,
    own_first: bool,
    hidden: NDArray[np.integer] | None = None,
) -> Neighbours:
    """Choose the neighbours of some rows among candidates; rows with too few candidates are searched exactly."""
    found = Neighbours.empty(len(queries), n_neighbors)
    enough = np.empty(len(queries), np.bool_)

    def order(start: int) -> None:
        block = slice(start, start + _MAX_BLOCK_QUERIES)
        _order_candidates(
            *(rows, queries[block].astype(np.int64), candidates[block], own_first),
            *(found.indices[block], found.distances[block], enough[block]),
        )

    with ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(order, range(0, len(queries), _MAX_BLOCK_QUERIES)))
    missed = np.flatnonzero(~enough)
    if len(missed):
        own = queries[missed] if own_first else None
        chosen = nearest(rows[queries[missed]], rows, n_neighbors, n_threads, own, hidden)
        found.indices[missed], found.distances[missed] = chosen
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
    queries: NDArray[np.int64],
    candidates: NDArray[np.int32],
    own_first: bool,
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    enough: NDArray[np.bool_],
) -> None:
    """Order each row's candidates by exact distance; tell which rows have enough of them."""
    first = 1 if own_first else 0
    for q in range(len(queries)):
        i = queries[q]
        n_found = 0
        if own_first:
            indices[q, 0], distances[q, 0] = i, 0
        for j in candidates[q]:
            if j >= 0 and j != i:
                n_found = _insert(indices[q, first:], distances[q, first:], n_found, j, _distance(rows[i], rows[j]))
        enough[q] = n_found == indices.shape[1] - first
