"""The principal directions of embeddings: those in which they vary most."""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

_SAMPLE = 10_000


def principal_directions(
    rows: NDArray[np.float32], n_directions: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find the principal directions of rows, from a sample if there are many.

    Parameters
    ----------
    rows : array of shape (n_rows, n_dims), float32
    n_directions : int

    Returns
    -------
    mean : array of shape (n_dims,), float32
        Of all rows.
    directions : array of shape (n_dims, n_directions), float32, columns of length 1
        The most important first. Fewer, if there are not so many. The largest entry of each is positive.
    """
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    sample = (rows[:: max(1, len(rows) // _SAMPLE)] - mean).astype(np.float64)
    with threadpool_limits(1, "blas"):  # with more threads, the last bits depend on the number of cores
        if len(sample) > len(sample.T):
            directions = np.linalg.eigh(sample.T @ sample)[1].T[::-1][:n_directions]
        else:
            directions = np.linalg.svd(sample, full_matrices=False)[2][:n_directions]
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)]
    return mean, (directions * np.sign(largest)[:, None]).T.astype(np.float32)
