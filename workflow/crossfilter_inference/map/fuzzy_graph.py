"""UMAP's graph: how strongly each photo is connected to its neighbours.

It equals umap-learn's `fuzzy_simplicial_set`, but is compiled once per machine and not in every process.

References
----------
L. McInnes, J. Healy and J. Melville, arXiv:1802.03426, algorithms 2 and 3.
"""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ..util.jit import compiled

# umap-learn's values.
_TOLERANCE = 1e-5  # of the sum of strengths
_MIN_SIGMA = 1e-3  # as a share of the mean distance
_N_BISECTIONS = 64


def fuzzy_graph(indices: NDArray[np.int32], distances: NDArray[np.float32]) -> sp.csr_matrix:
    """Build the symmetric graph that connects each row to its neighbours.

    Parameters
    ----------
    indices, distances : arrays of shape (n_rows, n_neighbors), int32 and float32
        Each row itself first, then its neighbours by increasing distance; see `neighbours.py`.

    Returns
    -------
    sparse matrix of shape (n_rows, n_rows), float32, in (0, 1]
        Strengths of the connections; symmetric.
    """
    n_rows, n_neighbors = indices.shape
    strengths = _strengths(distances, np.log2(n_neighbors), float(distances.mean(dtype=np.float64)))
    strengths[:, 0] = 0  # the row itself
    pointers = np.arange(0, indices.size + 1, n_neighbors)
    directed = sp.csr_matrix((strengths.ravel(), indices.ravel(), pointers), shape=(n_rows, n_rows), copy=True)
    directed.eliminate_zeros()
    directed.sort_indices()
    transposed = directed.T.tocsr()
    graph = directed + transposed - directed.multiply(transposed)
    graph.sort_indices()
    return graph


@compiled()
def _strengths(distances: NDArray[np.float32], target: float, mean_distance: float) -> NDArray[np.float32]:
    """Compute strengths exp(-(distance - rho) / sigma), with sigma such that those of a row add up to `target`."""
    strengths = np.empty(distances.shape, np.float32)
    for i in range(len(distances)):
        rho = np.float32(0)
        for distance in distances[i]:
            if distance > 0:
                rho = distance
                break
        low, high, sigma = 0.0, np.inf, 1.0
        for _ in range(_N_BISECTIONS):
            total = 0.0
            for distance in distances[i, 1:]:
                total += np.exp(-max(distance - rho, np.float32(0)) / sigma)
            if abs(total - target) < _TOLERANCE:
                break
            if total > target:
                high = sigma
            else:
                low = sigma
            sigma = sigma * 2 if high == np.inf else (low + high) / 2
        mean = distances[i].sum() / distances.shape[1] if rho > 0 else mean_distance
        sigma = max(sigma, _MIN_SIGMA * mean)
        for j in range(distances.shape[1]):
            beyond = distances[i, j] - rho
            strengths[i, j] = np.exp(-beyond / sigma) if beyond > 0 and sigma > 0 else 1
    return strengths
