"""Wait for other threads."""

from concurrent.futures import Future, wait
from typing import TypeVar

_Result = TypeVar("_Result")
_SIGNAL_SECONDS = 0.5


def result_of(future: Future[_Result]) -> _Result:
    """Wait for a result in the main thread, so that Ctrl-C ends the wait.

    A signal that arrives just before a wait is handled only after it: without pauses, a slow batch would delay it.
    """
    while not future.done():
        wait([future], _SIGNAL_SECONDS)
    return future.result()
