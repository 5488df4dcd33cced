"""Quality of a map: how well it preserves the neighbourhoods of the embeddings.

trustworthiness    1 - 2 / (n k (2 n - 3 k - 1)) times a sum over all photos and their k nearest on the map: the rank of
                   the neighbour by embedding, minus k, where positive. 1 is perfect, 0.5 is a random map
neighbours_kept    share of the k nearest by embedding that are among the k nearest on the map
sphere_share       share of the sphere in use: of equal cells, one per 10 photos and at most 1,000, those with a photo
label_purity       share of the k nearest on the map, among labelled photos, that have the photo's own label

k is 15, or less than half of the number of photos if there are few. In a large collection, a sample of 2,000 photos is
measured.

References
----------
J. Venna and S. Kaski, "Neighborhood preservation in nonlinear projection methods", ICANN 2001.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

N_NEIGHBORS = 15
_SAMPLE = 2_000
_MAX_CELLS = 1_000
_BLOCK = 100
_MAX_SCORES = 2**24  # 64 MB


def measure(
    embeddings: NDArray[np.float32],
    positions: NDArray[np.floating],
    n_threads: int = 1,
    labels: Sequence[str | None] | None = None,
) -> dict[str, float]:
    """Measure the quality of a map.

    Parameters
    ----------
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1
    positions : array of shape (n_images, 3), float, unit vectors; or of shape (n_images, 2), float, a plane
    n_threads : int
    labels : sequence of str or None, optional
        Label of each photo; None if it has none.

    Returns
    -------
    dict
        The figures above, and `n_labelled` with labels. Figures without a meaning are missing: for fewer than 3 photos
        trustworthiness and `neighbours_kept`, for a plane `sphere_share`, without labels `label_purity`.
    """
    n_images = len(positions)
    figures: dict[str, float] = {}
    k = min(N_NEIGHBORS, (n_images - 1) // 2)
    if n_images > 2:
        sample = np.unique(np.linspace(0, n_images - 1, _SAMPLE).astype(int))
        on_map = nearest_on_map(positions, sample, k)
        ranks = _ranks(embeddings, sample, on_map, n_threads)
        beyond = np.maximum(ranks - k, 0).sum(axis=1).mean()
        figures["trustworthiness"] = float(1 - 2 * beyond / (k * (2 * n_images - 3 * k - 1)))
        figures["neighbours_kept"] = float((ranks <= k).mean())
    if positions.shape[1] == 3:
        cells = _even_positions(int(np.clip(n_images // 10, 1, _MAX_CELLS)))
        figures["sphere_share"] = len(np.unique(cKDTree(cells).query(positions)[1])) / len(cells)
    if labels is not None:
        labelled = np.flatnonzero([label is not None for label in labels])
        if len(labelled) > 1:
            codes = np.unique([label for label in labels if label is not None], return_inverse=True)[1]
            nearest = nearest_on_map(positions[labelled], np.arange(len(labelled)), min(k, len(labelled) - 1))
            figures["label_purity"] = float((codes[nearest] == codes[:, None]).mean())
        figures["n_labelled"] = len(labelled)
    return figures


def nearest_on_map(positions: NDArray[np.floating], sample: NDArray[np.integer], k: int) -> NDArray[np.int64]:
    """Find the nearest other photos on the map.

    Parameters
    ----------
    positions : array of shape (n_images, 2 or 3), float
    sample : array of shape (n_sample,), int
        Rows of `positions`.
    k : int

    Returns
    -------
    array of shape (n_sample, k), int64
        Rows of `positions`, the nearest first.
    """
    nearest: NDArray[np.int64] = cKDTree(positions).query(positions[sample], k + 1)[1]
    others = nearest != sample[:, None]
    others[others.all(axis=1), -1] = False  # more than k photos at the same position
    nearest_others: NDArray[np.int64] = nearest[others].reshape(len(sample), k)
    return nearest_others


def _ranks(
    embeddings: NDArray[np.float32], sample: NDArray[np.integer], others: NDArray[np.int64], n_threads: int
) -> NDArray[np.int64]:
    """Rank `others` by similarity of embeddings to the sampled photo of their row: 1 is the most similar photo."""
    ranks = np.empty(others.shape, np.int64)

    n_block = int(np.clip(_MAX_SCORES // len(embeddings), 1, _BLOCK))

    def rank(start: int) -> None:
        block = slice(start, start + n_block)
        similarity = embeddings[sample[block]] @ embeddings.T
        similarity[np.arange(len(similarity)), sample[block]] = -np.inf
        for row, indices in zip(range(start, start + len(similarity)), others[block], strict=True):
            ordered = np.sort(similarity[row - start])
            ranks[row] = len(ordered) - np.searchsorted(ordered, similarity[row - start, indices], side="right") + 1

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(rank, range(0, len(sample), n_block)))
    return ranks


def _even_positions(n: int) -> NDArray[np.float64]:
    """Spread n points evenly over the sphere (a Fibonacci lattice)."""
    steps = np.arange(n) + 0.5
    z = 1 - 2 * steps / n
    azimuth = np.pi * (1 + 5**0.5) * steps
    return np.column_stack([np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z])
