"""Read `.npz` files of the map: arrays without code, of known types."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..util.files import StrPath, damaged


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
