"""Copies: photos whose embeddings are equal. The map shows all copies of a photo at one position.

Each group of copies is laid out as one point, and neighbours are searched among these points. Otherwise the copies
would fill each other's lists of neighbours, and random repulsion would drive them apart.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .neighbours import Neighbours


@dataclass(frozen=True)
class Copies:
    """The groups of equal rows; a row without a copy is a group of its own.

    Attributes
    ----------
    firsts : array of shape (n_groups,), int64
        The first row of each group, in rising order.
    group_of : array of shape (n_rows,), int64
        The group of each row.
    """

    firsts: NDArray[np.int64]
    group_of: NDArray[np.int64]

    def first_of_each(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the first row of each group; without a copy, these are all rows."""
        return rows if len(rows) == len(self.firsts) else rows[self.firsts]

    def groups_of_previous(self, known: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the group of each photo of a previous map.

        Parameters
        ----------
        known : array of shape (n_previous,), int64
            The row of each photo; -1 for removed and changed ones.

        Returns
        -------
        array of shape (n_previous,), int64
            Each group appears once, for the first of its photos; -1 for the others.
        """
        groups = np.full(len(known), -1)
        old = np.flatnonzero(known >= 0)
        found, first = np.unique(self.group_of[known[old]], return_index=True)
        groups[old[first]] = found
        return groups

    def to_rows(self, neighbours: Neighbours) -> Neighbours:
        """Turn neighbours among groups into those of all rows: each row itself, then the first rows of other groups."""
        indices = self.firsts[neighbours.indices][self.group_of].astype(np.int32)
        indices[:, 0] = np.arange(len(indices))
        return Neighbours(indices, neighbours.distances[self.group_of])


def find_copies(rows: NDArray[np.float32]) -> Copies:
    """Group equal rows.

    Parameters
    ----------
    rows : array of shape (n_rows, n_dims), float32
    """
    # Equal rows have equal sums, which are quick to compare.
    _, sum_of, n_equal = np.unique(rows.sum(axis=1, dtype=np.float64), return_inverse=True, return_counts=True)
    groups: dict[int | bytes, int] = {}
    # Adding 0 turns -0 into 0.
    digests = (
        hashlib.blake2b(rows[number] + np.float32(0), digest_size=16).digest() if may_have_copy else number
        for number, may_have_copy in enumerate((n_equal[sum_of] > 1).tolist())
    )
    group_of = np.array([groups.setdefault(digest, len(groups)) for digest in digests], np.int64)
    return Copies(np.unique(group_of, return_index=True)[1], group_of)


def with_copies(neighbours: Neighbours, rows: NDArray[np.float32]) -> Neighbours:
    """Add the copies that `Copies.to_rows` leaves out: return the nearest of all rows, in as many columns.

    Parameters
    ----------
    neighbours : Neighbours
        Of shape (n_rows, n_neighbors), as `Copies.to_rows` returns it.
    rows : array of shape (n_rows, n_dims), float32
    """
    copies = find_copies(rows)
    if len(copies.firsts) == len(rows):
        return neighbours
    by_group = np.argsort(copies.group_of, kind="stable")
    ends = np.searchsorted(copies.group_of[by_group], np.arange(len(copies.firsts)), side="right")
    groups, n_neighbors = copies.group_of[neighbours.indices], neighbours.indices.shape[1]
    has_copies = np.bincount(copies.group_of)[groups].max(axis=1) > 1
    indices, distances = neighbours.indices.copy(), neighbours.distances.copy()
    for row in np.flatnonzero(has_copies):
        # Of each group, as many rows as there is room for.
        members = [by_group[ends[group - 1] if group else 0 : ends[group]][:n_neighbors] for group in groups[row]]
        found = np.concatenate(members)
        away = np.repeat(neighbours.distances[row], [len(rows_of_group) for rows_of_group in members])
        order = np.lexsort((found, away))
        order = order[found[order] != row][: n_neighbors - 1]
        indices[row, 1:], distances[row, 1:] = found[order], away[order]
    return Neighbours(indices, distances)
