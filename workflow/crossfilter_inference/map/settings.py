r"""What the settings of the map are to those who do not make it: a digest, and the columns of `map.tsv`.

Apart from `mapping.py`, which makes the map, because umap-learn takes seconds to import.
"""

from ..util.files import digest

# Raised when the same embeddings and settings would give another map.
UMAP_VERSION = 2
MAP_COLUMNS = ("UUID", "LATITUDE", "LONGITUDE")
FIT_KEYS = ("n_neighbors", "min_dist", "radius", "random_state")


def fit_digest(settings: dict) -> str:
    """Digest what shapes a map, out of the section `umap` of the configuration: 16 hexadecimal digits."""
    return digest([UMAP_VERSION, {key: settings[key] for key in FIT_KEYS}])


def settings_digest(settings: dict, labels: str) -> str:
    """Digest what makes it necessary to look at the map again: 16 hexadecimal digits.

    That is neither how the next photos will be brought in, unless the map must have no past, nor the number of cores.
    """
    without_past = settings["update"] == "refit"
    return digest([fit_digest(settings), without_past, settings["compare_with_plane"], labels])
