"""Python's search for garbage in cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keep Python from searching millions of new objects for cycles that nobody uses, of which there are hardly any.

    Otherwise the imports of torch and transformers take a fifth longer, and those of umap-learn a third.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
