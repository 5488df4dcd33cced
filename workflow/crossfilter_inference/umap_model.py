r"""The map: UMAP of all embeddings on a sphere, as a pickled `umap.UMAP`.

The model's `embedding_` holds the canonical angles, theta in [0, pi] and phi in [-pi, pi] radians, in the order of
its `uuids_`. `map.tsv` holds the same places as latitude and longitude in degrees:

    pandas.read_csv("map.tsv", sep="\t", index_col="UUID")

References
----------
L. McInnes, J. Healy and J. Melville, "UMAP: Uniform Manifold Approximation and Projection for Dimension
Reduction", arXiv:1802.03426, 2018.
"""

import logging
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .database import read_embeddings, reading
from .errors import InputError
from .files import digest, read_json, write_bytes, write_json, write_tsv
from .sphere import angles_from_unit_vectors, latitude_longitude, unit_vectors_from_angles

if TYPE_CHECKING:
    import umap

logger = logging.getLogger(__name__)

# Raised when the same embeddings and settings would give another map.
UMAP_VERSION = 1
MAP_COLUMNS = ("UUID", "LATITUDE", "LONGITUDE")
_FEWEST = 4  # umap-learn fails on 2 and on 3 rows


def settings_digest(settings: dict) -> str:
    """Digest what makes it necessary to fit again: 16 hexadecimal digits."""
    return digest({**settings, "umap_version": UMAP_VERSION})


def make_map(
    receipt: str, database: str, embedding_type: str, settings: dict, model: str, map_table: str, quality: str
) -> bool:
    """Fit the map of a database, unless the one that is there was made from the same.

    Parameters
    ----------
    receipt : str
        Path of `embeddings.json`, which names the embeddings by their digest.
    database, embedding_type : str
    settings : dict
        The section `umap` of the configuration.
    model, map_table, quality : str
        Paths of `umap_model.pkl`, `map.tsv` and `map_quality.json`.

    Returns
    -------
    bool
        Whether a map was fitted.

    Raises
    ------
    InputError
        If there are no embeddings, or if some are not finite.
    """
    made_from = digest([read_json(receipt)["digest"], settings_digest(settings)])
    outputs = [Path(path) for path in (model, map_table, quality)]
    if all(path.exists() for path in outputs) and read_json(quality)["made_from"] == made_from:
        return False
    with reading(database) as connection:
        uuids, embeddings = read_embeddings(connection, embedding_type)
    if not uuids:
        raise InputError(
            f"{embedding_type}: there is nothing to map: no image could be embedded; "
            f"the table {embedding_type}_FAILURES of {database!r} says why"
        )
    bad = ~np.isfinite(embeddings).all(axis=1)
    if bad.any():
        raise InputError(
            f"{embedding_type}_EMBEDDINGS: {bad.sum()} embeddings are not finite numbers, the first of them "
            f"{uuids[bad.argmax()]}'s; delete their rows from the table"
        )
    fitted = fit(embeddings, settings)
    fitted.uuids_ = uuids
    latitude, longitude = latitude_longitude(unit_vectors_from_angles(*fitted.embedding_.T))
    write_bytes(model, pickle.dumps(fitted, protocol=4))
    write_tsv(map_table, MAP_COLUMNS, zip(uuids, latitude.tolist(), longitude.tolist(), strict=True))
    write_json(quality, {"made_from": made_from, "n_images": len(uuids), "version": UMAP_VERSION, **settings})
    return True


def fit(embeddings: np.ndarray, settings: dict) -> "umap.UMAP":
    """Fit UMAP on the sphere.

    Parameters
    ----------
    embeddings : array of shape (n_images, n_dims), float32
    settings : dict
        `n_neighbors` (at most n_images - 1 are used), `min_dist`, `random_state`.

    Returns
    -------
    umap.UMAP
        Whose `embedding_` has shape (n_images, 2), float64: theta and phi in radians. One image, up to three,
        or identical ones have no neighbourhoods to speak of: they are placed by their directions.
    """
    import umap

    n_images = len(embeddings)
    n_neighbors = max(2, min(settings["n_neighbors"], n_images - 1))
    if n_neighbors < settings["n_neighbors"]:
        logger.info("%d images: each has %d neighbours at most", n_images, n_images - 1)
    model = umap.UMAP(
        n_components=2,
        metric="cosine",
        output_metric="haversine",
        n_neighbors=n_neighbors,
        min_dist=settings["min_dist"],
        random_state=settings["random_state"],
        n_jobs=1,
    )
    if n_images < _FEWEST or (embeddings == embeddings[0]).all():
        logger.warning("%d images without neighbourhoods: placed by their directions alone", n_images)
        unit_vectors = _place_few(embeddings)
    else:
        model.fit(embeddings)
        unit_vectors = unit_vectors_from_angles(*model.embedding_.T)
    model.embedding_ = np.column_stack(angles_from_unit_vectors(unit_vectors))
    return model


def _place_few(embeddings: np.ndarray) -> np.ndarray:
    """Place images by their offset from the mean, in its three principal directions; the mean is (0, 1, 0)."""
    offsets = embeddings - embeddings.mean(axis=0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(offsets, full_matrices=False)
    places = np.zeros((len(embeddings), 3))
    components = (left * singular)[:, :3]
    places[:, : components.shape[1]] = components
    length = np.linalg.norm(places, axis=1, keepdims=True)
    centre = length < 1e-6  # float32 embeddings of unit length
    return np.where(centre, [0.0, 1.0, 0.0], places / np.where(centre, 1, length))
