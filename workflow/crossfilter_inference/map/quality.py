"""How well a map shows what the embeddings say.

trustworthiness    1 - 2 / (n k (2 n - 3 k - 1)) times the sum over all photos, and over their k nearest on the map, of
                   how far beyond the k nearest by embedding these are: 1 is perfect, .5 what chance gives
neighbours_kept    share of the k nearest by embedding that are among the k nearest on the map
sphere_share       share of equal cells of the sphere that hold a photo, with 10 photos to a cell, 1,000 cells at most
label_purity       share of the k nearest on the map, among labelled photos, that have a photo's own label

k is 15, or less than half of the photos if there are few. Of a large collection, 2,000 photos stand for all.

References
----------
J. Venna and S. Kaski, "Neighborhood preservation in nonlinear projection methods", ICANN 2001.
"""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from ..errors import InputError

N_NEIGHBORS = 15
_SAMPLE = 2_000
_MOST_CELLS = 1_000
_BLOCK = 100


def measure(
    embeddings: np.ndarray, places: np.ndarray, n_threads: int = 1, labels: list[str | None] | None = None
) -> dict[str, float]:
    """Measure a map.

    Parameters
    ----------
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1
    places : array of shape (n_images, 3), float: unit vectors; or of shape (n_images, 2): a plane
    n_threads : int
    labels : list of str or None, optional
        Of every photo, None where it has none.

    Returns
    -------
    dict
        The figures above; without those that have no meaning: for fewer than 3 photos all but `sphere_share`, for a
        plane that one, and without labels the purity.
    """
    n_images = len(places)
    figures: dict[str, float] = {}
    k = min(N_NEIGHBORS, (n_images - 1) // 2)
    if n_images > 2:
        sample = np.unique(np.linspace(0, n_images - 1, _SAMPLE).astype(int))
        on_map = nearest_places(places, sample, k)
        ranks = _ranks(embeddings, sample, on_map, n_threads)
        beyond = np.maximum(ranks - k, 0).sum(axis=1).mean()
        figures["trustworthiness"] = float(1 - 2 * beyond / (k * (2 * n_images - 3 * k - 1)))
        figures["neighbours_kept"] = float((ranks <= k).mean())
    if places.shape[1] == 3:
        cells = _even_places(int(np.clip(n_images // 10, 1, _MOST_CELLS)))
        figures["sphere_share"] = len(np.unique(cKDTree(cells).query(places)[1])) / len(cells)
    if labels is not None:
        labelled = np.flatnonzero([label is not None for label in labels])
        if len(labelled) > 1:
            codes = np.unique([labels[i] for i in labelled], return_inverse=True)[1]
            nearest = nearest_places(places[labelled], np.arange(len(labelled)), min(k, len(labelled) - 1))
            figures["label_purity"] = float((codes[nearest] == codes[:, None]).mean())
        figures["n_labelled"] = len(labelled)
    return figures


def nearest_places(places: np.ndarray, sample: np.ndarray, k: int) -> np.ndarray:
    """Find the nearest others on the map.

    Parameters
    ----------
    places : array of shape (n_images, 2 or 3), float
    sample : array of shape (n_sample,), int
        Rows of `places`.
    k : int

    Returns
    -------
    array of shape (n_sample, k), int
    """
    nearest = cKDTree(places).query(places[sample], k + 1)[1]
    others = nearest != sample[:, None]
    others[others.all(axis=1), -1] = False  # more photos in one place than were asked for
    return nearest[others].reshape(len(sample), k)


def read_labels(path: str) -> dict[str, str]:
    """Read a table of labels: CSV or, if its name ends in .tsv, separated by tabs, with columns UUID and LABEL.

    Returns
    -------
    dict
        Labels by UUID: 32 hexadecimal digits in lower case.

    Raises
    ------
    InputError
        If the file cannot be read, or has no such columns.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.endswith(".tsv") else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"labels: cannot read {path!r} ({error}); name a CSV file with columns UUID and LABEL"
        ) from None
    names = [name.strip().upper() for name in rows[0]] if rows else []
    if not {"UUID", "LABEL"} <= {*names}:
        raise InputError(f"labels: {path!r} has columns {', '.join(names) or '(none)'}; it must have UUID and LABEL")
    uuid, label = names.index("UUID"), names.index("LABEL")
    return {
        row[uuid].strip().replace("-", "").lower(): row[label].strip()
        for row in rows[1:]
        if len(row) > max(uuid, label) and row[label].strip()
    }


def _ranks(embeddings: np.ndarray, sample: np.ndarray, others: np.ndarray, n_threads: int) -> np.ndarray:
    """Rank photos by their embeddings: 1 is the one most like the photo of the row."""
    ranks = np.empty(others.shape, np.int64)

    def rank(start: int) -> None:
        block = slice(start, start + _BLOCK)
        similarity = embeddings[sample[block]] @ embeddings.T
        similarity[np.arange(len(similarity)), sample[block]] = -np.inf
        for row, indices in zip(range(start, start + len(similarity)), others[block], strict=True):
            ordered = np.sort(similarity[row - start])
            ranks[row] = len(ordered) - np.searchsorted(ordered, similarity[row - start, indices], side="right") + 1

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(rank, range(0, len(sample), _BLOCK)))
    return ranks


def _even_places(n: int) -> np.ndarray:
    """Spread n points over the sphere, each with an equal share of it (a Fibonacci lattice)."""
    steps = np.arange(n) + 0.5
    z = 1 - 2 * steps / n
    azimuth = np.pi * (1 + 5**0.5) * steps
    return np.column_stack([np.sqrt(1 - z * z) * np.cos(azimuth), np.sqrt(1 - z * z) * np.sin(azimuth), z])
