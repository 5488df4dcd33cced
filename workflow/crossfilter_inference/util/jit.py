"""Functions that numba compiles once per machine."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(
    *,
    nogil: bool = False,
    inline: Literal["never", "always"] = "never",
    reorders_sums: bool = False,
) -> Callable[[_Function], _Function]:
    """Compile a function at its first call and cache the code for later processes.

    The cache is `__pycache__` next to the source, else the user's cache folder (or `NUMBA_CACHE_DIR`). If none of them
    is writable, every process compiles again.

    Parameters
    ----------
    nogil : bool
        Release the interpreter's lock during calls.
    inline : {"never", "always"}
        Whether to inline the function into compiled callers.
    reorders_sums : bool
        Let the processor compute parts of a sum at once. Their order, and so the last bits, depends on its kind alone.
    """

    def compile_with_cache(function: _Function, cache: bool) -> _Function:
        fast: set[str] | bool = {"reassoc", "contract", "nsz"} if reorders_sums else False
        decorate = numba.njit(cache=cache, error_model="numpy", nogil=nogil, inline=inline, fastmath=fast)
        return cast(_Function, decorate(function))

    def decorate(function: _Function) -> _Function:
        try:
            return compile_with_cache(function, cache=True)
        except RuntimeError:  # no writable folder for the cache
            return compile_with_cache(function, cache=False)

    return decorate
