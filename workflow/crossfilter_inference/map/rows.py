"""Embeddings as rows of a matrix: their digests, and their directions."""

import hashlib

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4_096


def row_digests(embeddings: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Digest each embedding as it is in the table, to detect changes.

    Returns
    -------
    array of shape (n_images,), uint64
    """
    digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(embeddings))
    return np.frombuffer(digests, "<u8")


def unit_rows(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return embeddings scaled to length 1."""
    rows = embeddings.copy()
    scale_to_unit_length(rows)
    return rows


def scale_to_unit_length(rows: NDArray[np.float32]) -> None:
    """Scale rows to length 1, without a copy of them."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        block /= np.linalg.norm(block, axis=1, keepdims=True)


def without_direction(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the rows that have no direction: not finite, or all zero."""
    marked = np.empty(len(embeddings), np.bool_)
    for start in range(0, len(embeddings), _BLOCK):
        block = embeddings[start : start + _BLOCK]
        marked[start : start + _BLOCK] = ~(np.isfinite(block).all(axis=1) & block.any(axis=1))
    return marked
