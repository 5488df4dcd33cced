"""Functions compiled by numba, once on each machine."""

from collections.abc import Callable

import numba


def compiled(**options: object) -> Callable[[Callable], Callable]:
    """Compile a function at its first call, and keep the code for later processes.

    The code lies in `__pycache__` beside the source, else in the user's cache folder (or in `NUMBA_CACHE_DIR`);
    where neither can be written, every process compiles anew.
    """

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # no folder for it
            return numba.njit(error_model="numpy", **options)(function)

    return decorate
