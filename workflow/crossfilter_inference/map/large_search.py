"""Nearest neighbours in a large collection: not all, but nearly all of them, bit-identical with any number of threads.

1. Partition: k-means, again and again, divides the rows into lists of at most `_MAX_LIST`. It compares the rows by
   their principal components. The rows of a list are compared with each other by one matrix product. Several
   independent partitions are joined in this way, because their borders lie elsewhere.
2. Descent: each row is compared with the neighbours of its neighbours, and of the rows whose neighbour it is. The
   distance of two rows' principal components is never larger than that of the rows, which spares most comparisons.

Everything is a fixed function of the rows: each row's neighbours are changed by one thread at a time, and a thread
reads nothing that others change.

References
----------
Descent: W. Dong, M. Charikar and K. Li, "Efficient k-nearest neighbor graph construction for generic similarity
measures", WWW 2011.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..util.jit import compiled
from ..util.progress import Progress
from .principal import principal_directions

# All of these: recall .99 and more on real collections, for the least time (benchmarks/SPHERE.md).
_N_PARTITIONS = 6
_MAX_LIST = 1_500
_N_LINKS = 15  # neighbours of a row that the descent follows, and as many rows whose neighbour it is
_MAX_STEPS = 4
_ENOUGH = 0.002  # the descent ends with a step that finds fewer new neighbours per row
_N_SPARE = 2  # neighbours kept beyond those asked for, because single precision may change their order
_MAX_CENTRES = 64
_ROWS_PER_CENTRE = 40
_N_ITERATIONS = 4
_BLOCK = 4_096


class Found(NamedTuple):
    """The nearest rows that are known so far.

    Attributes
    ----------
    indices : array of shape (n_queries, n_neighbors), int32
        The most similar first; -1 where none is known.
    similarity : array of shape (n_queries, n_neighbors), float32
        Cosine similarity; -inf where no row is known.
    """

    indices: NDArray[np.int32]
    similarity: NDArray[np.float32]

    @classmethod
    def nothing(cls, n_queries: int, n_neighbors: int) -> "Found":
        """Begin with no row."""
        return cls(
            np.full((n_queries, n_neighbors), np.int32(-1)), np.full((n_queries, n_neighbors), -np.inf, np.float32)
        )


class _Links(NamedTuple):
    """The rows to which each query is linked, -1 for none, and which of these links the last step did not know."""

    rows: NDArray[np.int32]
    new: NDArray[np.bool_]

    @classmethod
    def nothing(cls, n_queries: int, n_links: int) -> "_Links":
        """Begin without links."""
        return cls(np.full((n_queries, n_links), np.int32(-1)), np.empty((n_queries, n_links), np.bool_))


@dataclass(frozen=True)
class _Fork:
    """A node of a partition: rows go to the branch with the nearest centre; a number is a list."""

    centres: NDArray[np.float32]
    branches: "list[_Branch]"


_Branch: TypeAlias = _Fork | int


class _Partition(NamedTuple):
    """All rows in lists, and what leads to the list of another row."""

    lists: list[NDArray[np.int32]]
    root: _Branch


class LargeSearch:
    """Search a large collection.

    Parameters
    ----------
    rows : array of shape (n_rows, n_dims), float32, rows of length 1
        No two are equal.
    n_neighbors : int
        How many neighbours are found; two more are kept, because single precision may change their order.
    n_threads : int
        The result does not depend on it.
    """

    def __init__(self, rows: NDArray[np.float32], n_neighbors: int, n_threads: int):
        self._rows, self._n_neighbors, self._n_threads = rows, n_neighbors, n_threads
        self._own = np.arange(len(rows), dtype=np.int32)
        self._mean, self._directions = principal_directions(rows, min(rows.shape[1], max(32, rows.shape[1] // 8)))

    def all_neighbours(self) -> Found:
        """Find the nearest other rows of each row."""
        found = Found.nothing(len(self._rows), self._n_neighbors + _N_SPARE)

        def join(members: NDArray[np.int32]) -> None:
            chosen = self._rows[members]
            _join(chosen @ chosen.T, members, members, self._own, *found)  # half the work: the product is symmetric

        n_lists = sum(len(partition.lists) for partition in self._partitions)
        with Progress(n_lists, "neighbours", "list") as progress:
            for lists, _ in self._partitions:
                self._in_threads(join, lists, progress=progress)
        self._descend_among_all(found, self._partitions[-1].lists)
        return found

    def update(self, known: Found, searched: NDArray[np.integer]) -> None:
        """Find the neighbours of some rows, and make these rows neighbours of others that they are nearest to.

        Parameters
        ----------
        known : Found
            Of all rows: what is known of those in `searched`, and the neighbours of all others. It is changed.
        searched : array of shape (n_searched,), int
        """
        is_searched = np.zeros(len(self._rows), np.bool_)
        is_searched[searched] = True

        def join(members: NDArray[np.int32]) -> None:
            chosen, others = members[is_searched[members]], members[~is_searched[members]]
            scores = self._rows[chosen] @ self._rows[members].T
            _join(scores, chosen, members, self._own, *known)
            _join(np.ascontiguousarray(scores[:, ~is_searched[members]].T), others, chosen, self._own, *known)

        for lists, _ in self._partitions:
            self._in_threads(join, [members for members in lists if is_searched[members].any()])
        lists = [members[is_searched[members]] for members in self._partitions[-1].lists]
        self._descend_among_all(known, lists)

    def nearest(self, queries: NDArray[np.float32], neighbours: NDArray[np.int32], allowed: NDArray[np.bool_]) -> Found:
        """Find the nearest rows of queries.

        Parameters
        ----------
        queries : array of shape (n_queries, n_dims), float32, rows of length 1
        neighbours : array of shape (n_rows, n_neighbors), int32
            The neighbours of the rows; -1 is none.
        allowed : array of shape (n_rows,), bool
            The rows that may be found. All neighbours of an allowed row are allowed.
        """
        found = Found.nothing(len(queries), self._n_neighbors + _N_SPARE)
        points, own = self._project(queries), np.full(len(queries), -1, np.int32)
        by_list = own
        for lists, root in self._partitions:
            list_of = np.empty(len(queries), np.int64)
            _lead(root, points, np.arange(len(queries), dtype=np.int32), list_of)
            by_list = np.argsort(list_of, kind="stable").astype(np.int32)
            used, starts = np.unique(list_of[by_list], return_index=True)

            def join(number: int, group: NDArray[np.int32], lists: list[NDArray[np.int32]] = lists) -> None:
                members = lists[number][allowed[lists[number]]]
                _join(queries[group] @ self._rows[members].T, group, members, own, *found)

            self._in_threads(join, used, np.split(by_list, starts[1:]))
        links = _Links.nothing(len(self._rows), 2 * _N_LINKS)
        _link(neighbours, *links)
        links.new[:] = False
        through = _Links.nothing(*found.indices.shape)
        for _ in range(_MAX_STEPS):
            _link(found.indices, *through)
            if not self._step(queries, points, by_list, through, links, own, found):
                break
        return found

    def _descend_among_all(self, found: Found, lists: list[NDArray[np.int32]]) -> None:
        """Improve the neighbours of the rows in `lists` by those of all rows."""
        order, links = np.concatenate(lists), _Links.nothing(len(self._rows), 2 * _N_LINKS)
        for _ in range(_MAX_STEPS):
            _link(found.indices, *links)
            n_found = self._step(self._rows, self._points, order, links, links, self._own, found)
            if n_found < _ENOUGH * len(order):
                break

    def _step(
        self,
        queries: NDArray[np.float32],
        points: NDArray[np.float32],
        order: NDArray[np.int32],
        through: "_Links",
        links: "_Links",
        own: NDArray[np.int32],
        found: Found,
    ) -> int:
        """Take a step of the descent with the queries in `order`; return how many rows it found.

        Queries of one list follow each other, because they meet the same rows.
        """
        parts = np.array_split(order, self._n_threads)
        counts = np.zeros(len(parts), np.int64)

        def step(number: int, part: NDArray[np.int32]) -> None:
            counts[number] = _visit(part, queries, points, self._rows, self._points, *through, *links, own, *found)

        self._in_threads(step, range(len(parts)), parts)
        return int(counts.sum())

    @cached_property
    def _points(self) -> NDArray[np.float32]:
        return self._project(self._rows)

    def _project(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute principal components."""
        points = np.empty((len(rows), self._directions.shape[1]), np.float32)

        def project(start: int) -> None:
            block = slice(start, start + _BLOCK)
            points[block] = (rows[block] - self._mean) @ self._directions

        self._in_threads(project, range(0, len(rows), _BLOCK))
        return points

    @cached_property
    def _partitions(self) -> list[_Partition]:
        points, max_list = self._points, max(_MAX_LIST, 20 * self._n_neighbors)
        made: list[_Partition] = []

        def divide(number: int) -> None:
            lists: list[NDArray[np.int32]] = []
            root = _divide(points, self._own, max_list, np.random.default_rng(number), lists)
            made[number] = _Partition(lists, root)

        made = [_Partition([], 0)] * _N_PARTITIONS
        self._in_threads(divide, range(_N_PARTITIONS))
        return made

    def _in_threads(self, work: Callable[..., None], *items: Iterable[Any], progress: Progress | None = None) -> None:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self._n_threads) as threads:
            for _ in threads.map(work, *items):
                if progress is not None:
                    progress.update(1)


def _divide(
    points: NDArray[np.float32],
    members: NDArray[np.int32],
    max_list: int,
    random: np.random.Generator,
    lists: list[NDArray[np.int32]],
) -> _Fork | int:
    """Divide rows by k-means until no list is too long; append the lists, and return the number of the only one."""
    if len(members) <= max_list:
        lists.append(members)
        return len(lists) - 1
    n_centres = min(-(-3 * len(members) // (2 * max_list)), _MAX_CENTRES)
    centres = _k_means(points[_sample(members, n_centres * _ROWS_PER_CENTRE, random)], n_centres, random)
    nearest = _nearest_centres(points, members, centres)
    parts = np.split(members[np.argsort(nearest, kind="stable")], np.cumsum(np.bincount(nearest, minlength=n_centres)))
    if max(map(len, parts)) == len(members):  # all are alike
        parts = np.array_split(members, n_centres)
    return _Fork(centres, [_divide(points, part, max_list, random, lists) for part in parts[:n_centres]])


def _sample(members: NDArray[np.int32], n_most: int, random: np.random.Generator) -> NDArray[np.int32]:
    if len(members) <= n_most:
        return members
    return members[np.sort(random.choice(len(members), n_most, replace=False))]


def _k_means(points: NDArray[np.float32], n_centres: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Find centres of points by Lloyd's algorithm."""
    centres = points[_sample(np.arange(len(points), dtype=np.int32), n_centres, random)]
    for _ in range(_N_ITERATIONS):
        nearest = _nearest_centres(points, None, centres)
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        centres[used] = np.add.reduceat(points[order], starts, axis=0) / np.diff(starts, append=len(points))[:, None]
    return centres


def _nearest_centres(
    points: NDArray[np.float32], members: NDArray[np.int32] | None, centres: NDArray[np.float32]
) -> NDArray[np.int64]:
    half_squares = 0.5 * (centres**2).sum(axis=1)
    n_points = len(points if members is None else members)
    nearest = np.empty(n_points, np.int64)
    with threadpool_limits(1, "blas"):
        for start in range(0, n_points, _BLOCK):
            block = slice(start, start + _BLOCK)
            chosen = points[block] if members is None else points[members[block]]
            nearest[block] = (chosen @ centres.T - half_squares).argmax(axis=1)
    return nearest


def _lead(branch: _Branch, points: NDArray[np.float32], queries: NDArray[np.int32], list_of: NDArray[np.int64]) -> None:
    """Write the list of each query, by its point."""
    if isinstance(branch, int):
        list_of[queries] = branch
        return
    nearest = _nearest_centres(points, queries, branch.centres)
    for number in np.unique(nearest).tolist():
        _lead(branch.branches[number], points, queries[nearest == number], list_of)


@compiled(nogil=True)
def _offer(indices: NDArray[np.int32], similarity: NDArray[np.float32], row: np.int32, score: np.float32) -> bool:
    """Insert a row among the nearest of a query, unless others are nearer or it is there; return whether it was.

    Of rows with equal similarity, the first is the nearest, so the order of the offers does not matter.
    """
    last = len(indices) - 1
    if score < similarity[last] or (score == similarity[last] and row >= indices[last]):
        return False
    for slot in range(last + 1):
        if indices[slot] == row:
            return False
    slot = last
    while slot > 0 and (similarity[slot - 1] < score or (similarity[slot - 1] == score and indices[slot - 1] > row)):
        similarity[slot], indices[slot] = similarity[slot - 1], indices[slot - 1]
        slot -= 1
    similarity[slot], indices[slot] = score, row
    return True


@compiled(nogil=True)
def _join(
    scores: NDArray[np.float32],
    queries: NDArray[np.int32],
    candidates: NDArray[np.int32],
    own: NDArray[np.int32],
    indices: NDArray[np.int32],
    similarity: NDArray[np.float32],
) -> None:
    """Offer the rows `candidates` to `queries`; `scores` is their similarity."""
    for q in range(len(queries)):
        query = queries[q]
        worst = similarity[query, -1]
        for c in range(len(candidates)):
            if scores[q, c] >= worst and candidates[c] != own[query]:
                _offer(indices[query], similarity[query], candidates[c], scores[q, c])
                worst = similarity[query, -1]


@compiled(nogil=True)
def _link(indices: NDArray[np.int32], links: NDArray[np.int32], new: NDArray[np.bool_]) -> None:
    """Link each row to its nearest rows, then to those to which it is the nearest; mark what was not linked before."""
    n_rows, n_links = links.shape
    n_nearest = min(indices.shape[1], _N_LINKS)
    before = np.empty(n_links, np.int32)
    ends = np.zeros(n_rows, np.int32)
    now = np.full(links.shape, np.int32(-1))
    for rank in range(n_nearest):
        for i in range(n_rows):
            j = indices[i, rank]
            now[i, rank] = j
            if 0 <= j < n_rows and n_nearest + ends[j] < n_links:
                now[j, n_nearest + ends[j]] = i
                ends[j] += 1
    for i in range(n_rows):
        before[:] = links[i]
        for slot in range(n_links):
            new[i, slot] = not (before == now[i, slot]).any()
            links[i, slot] = now[i, slot]


@compiled(nogil=True, reorders_sums=True)
def _dot(x: NDArray[np.float32], y: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for d in range(len(x)):
        total += x[d] * y[d]
    return total


@compiled(nogil=True, reorders_sums=True)
def _squared_distance(x: NDArray[np.float32], y: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for d in range(len(x)):
        difference = x[d] - y[d]
        total += difference * difference
    return total


@compiled(nogil=True)
def _visit(
    order: NDArray[np.int32],
    queries: NDArray[np.float32],
    query_points: NDArray[np.float32],
    rows: NDArray[np.float32],
    points: NDArray[np.float32],
    through: NDArray[np.int32],
    new_through: NDArray[np.bool_],
    links: NDArray[np.int32],
    new_links: NDArray[np.bool_],
    own: NDArray[np.int32],
    indices: NDArray[np.int32],
    similarity: NDArray[np.float32],
) -> int:
    """Offer each query the rows that are linked to a row it goes `through`, where one of the two links is new."""
    half, one = np.float32(0.5), np.float32(1)
    n_found = 0
    visitor = np.full(len(rows), np.int32(-1))
    for query in order:
        if own[query] >= 0:
            visitor[own[query]] = query
        for slot in range(indices.shape[1]):
            if indices[query, slot] >= 0:
                visitor[indices[query, slot]] = query
        for first in range(through.shape[1]):
            between = through[query, first]
            if between < 0:
                continue
            for second in range(links.shape[1]):
                row = links[between, second]
                is_new = new_through[query, first] or new_links[between, second]
                if row < 0 or not is_new or visitor[row] == query:
                    continue
                visitor[row] = query
                nearest_possible = one - half * _squared_distance(query_points[query], points[row])
                if nearest_possible >= similarity[query, -1]:
                    score = _dot(queries[query], rows[row])
                    n_found += _offer(indices[query], similarity[query], row, score)
    return n_found
