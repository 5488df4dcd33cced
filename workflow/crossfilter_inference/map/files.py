"""Read the files of a map: positions, neighbours, and arrays without code, of known types."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..util.files import StrPath, damaged, read_tsv
from .settings import MAP_COLUMNS


def read_positions(path: str) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Read `map.tsv`.

    Returns
    -------
    uuids : list of str
    latitude, longitude : arrays of shape (n_images,), float64, degrees

    Raises
    ------
    InputError
        If the file is damaged.
    """
    rows = list(read_tsv(path, MAP_COLUMNS))
    uuids = [uuid for uuid, _, _ in rows]
    try:
        degrees = np.array([(latitude, longitude) for _, latitude, longitude in rows], float).reshape(-1, 2)
    except ValueError:
        raise damaged(path) from None
    if not (np.abs(degrees) <= (90, 180)).all() or len({*uuids}) < len(uuids):
        raise damaged(path)
    return uuids, *degrees.T


def read_neighbours(path: str, n_images: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Read `neighbours.npz`, which `job.py` describes.

    Returns
    -------
    indices : array of shape (n_images, k), int32
    similarity : array of shape (n_images, k), float32
        Cosine similarity, in [-1, 1].

    Raises
    ------
    InputError
        If the file is damaged, or has a different number of photos.
    """
    indices, distances = read_arrays(path, indices=("i", 2), distances=("f", 2))
    if len(indices) != n_images or indices.shape != distances.shape:
        raise damaged(path)
    if indices.size and not (0 <= indices.min() and indices.max() < n_images and np.isfinite(distances).all()):
        raise damaged(path)
    return indices.astype(np.int32), (1 - distances).astype(np.float32)


def read_arrays(path: StrPath, **expected: tuple[str, int]) -> list[NDArray[np.generic]]:
    """Read arrays from an `.npz` file.

    Parameters
    ----------
    path : str or Path
    **expected : tuple of str and int
        The kind (`dtype.kind`) and the number of dimensions of each array, by its name.

    Returns
    -------
    list of array
        In the order of `expected`.

    Raises
    ------
    InputError
        If the file is damaged, or an array is missing or has another type.
    """
    found = []
    if Path(path).is_dir():
        raise damaged(path)
    with Path(path).open("rb") as file:  # a missing or unreadable file is not damaged
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = [arrays[name] for name in expected]
        except Exception:  # a damaged ZIP file can raise anything
            raise damaged(path) from None
    if [(array.dtype.kind, array.ndim) for array in found] != [*expected.values()]:
        raise damaged(path)
    return found
