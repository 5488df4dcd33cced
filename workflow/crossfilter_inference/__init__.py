"""Crossfilter Inference: embed a photo collection, and map it.

The names below are public; everything else may change. Importing the package loads none of them, so that planning a
run needs only the packages that Snakemake brings.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .collection import Collection
    from .encoders.protocol import Encoder
    from .errors import InputError
    from .map.model import load_umap_model
    from .photos.image import Preprocessing

__version__ = "0.1.0"
__all__ = ["Collection", "Encoder", "InputError", "Preprocessing", "__version__", "load_umap_model"]
_MODULES = {
    "Collection": "collection",
    "Encoder": "encoders.protocol",
    "InputError": "errors",
    "Preprocessing": "photos.image",
    "load_umap_model": "map.model",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
