"""Settings of the map and their digests, the columns of `map.tsv`, and the path of `words.txt`.

Planning a run needs only these, not numpy or umap-learn.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from ..util.files import digest

# Increase it when the same embeddings and settings give a different map.
UMAP_VERSION = 3
WORDS_FILE = str(Path(__file__).with_name("words.txt"))
MAP_COLUMNS = ("UUID", "LATITUDE", "LONGITUDE")
_FitKey = Literal["n_neighbors", "min_dist", "radius", "repulsion", "random_state"]
FIT_KEYS: tuple[_FitKey, ...] = ("n_neighbors", "min_dist", "radius", "repulsion", "random_state")
_EARLIER_REPULSION = 10 / 32  # version 0.1 had no such factor, but 10 random photos per connection instead of 32


class MapSettings(TypedDict):
    """The section `umap` of the configuration."""

    n_neighbors: int
    min_dist: float | Literal["auto"]
    radius: float | Literal["auto"]
    repulsion: float | Literal["auto"]
    random_state: int
    update: Literal["align", "place", "refit"]
    refit_share: float
    compare_with_plane: bool


def fit_digest(settings: Mapping[str, Any]) -> str:
    """Digest the settings that shape a fitted map: 16 hexadecimal digits."""
    return digest([UMAP_VERSION, {key: settings[key] for key in FIT_KEYS}])


def recorded_shape(record: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the settings that shaped a map, from its record or its provenance; None if one is unknown."""
    try:
        return {key: float(record.get(key, _EARLIER_REPULSION if key == "repulsion" else "")) for key in FIT_KEYS}
    except (TypeError, ValueError):
        return None


def has_shape(settings: Mapping[str, Any], shape: Mapping[str, float] | None) -> bool:
    """Return whether a map was shaped by these settings; `auto` fits every map."""
    return shape is not None and all(settings[key] in ("auto", shape[key]) for key in FIT_KEYS)


def settings_digest(settings: Mapping[str, Any], labels: str) -> str:
    """Digest the settings that require a new map or new figures when they change: 16 hexadecimal digits.

    The choice between `align` and `place` affects future photos only, so it is excluded. Labels count by size and time
    of their file: Snakemake would read braces and `<>` in its name as wildcards and variables if it were an input.
    """
    refit, version = settings["update"] == "refit", labels
    if labels and os.path.exists(labels):
        status = os.stat(labels)
        version = f"{labels} {status.st_size} {status.st_mtime_ns}"
    return digest([fit_digest(settings), refit, settings["compare_with_plane"], version])
