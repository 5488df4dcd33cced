r"""The pickled `umap.UMAP`: what is in it, how it is opened, and how it places other embeddings.

It opens where umap-learn is installed; this library is not needed:

    model = pickle.loads(blob)
    theta, phi = model.embedding_.T      # colatitude in [0, pi], azimuth in [-pi, pi], in the order of model.uuids_

It holds its parameters, a and b, the UUIDs, the places, the graph (`graph_`) and the neighbours that this was made from
(`_knn_indices`, `_knn_dists`), but neither embeddings nor search index: those are in the table of embeddings, to which
`load_umap_model` binds it. `a`, `b` and the learning rate are those of a sphere of radius 1, so that
`umap.UMAP(**model.get_params())` is umap-learn's own way to the same kind of map.
"""

import hashlib
import pickle
import warnings
from importlib.metadata import version

import numpy as np
import sqlalchemy as sa

from ..db.connect import reading
from ..db.embeddings import read_embeddings
from ..db.provenance import read_provenance
from ..db.tables import Tables
from ..errors import InputError
from .fit import Curve, Places, place
from .layout import LEARNING_RATE, NEGATIVE_SAMPLE_RATE
from .sphere import angles_from_unit_vectors, unit_vectors_from_angles

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # that TensorFlow is missing
    import umap
    from umap.umap_ import find_ab_params

_PACKAGES = ("umap-learn", "numpy", "scipy")


def make_curve(settings: dict, radius: float) -> Curve:
    """Fit UMAP's curve to `min_dist`, a length on the sphere of radius `radius`."""
    a, b = find_ab_params(1.0, settings["min_dist"])
    return Curve(settings["n_neighbors"], a, b, radius, settings["random_state"])


def to_pickle(places: Places, curve: Curve, min_dist: float) -> bytes:
    """Put a map into a `umap.UMAP`, and pickle it."""
    n_neighbors = curve.n_neighbors if places.indices is None else places.indices.shape[1]
    model = umap.UMAP(
        n_components=2,
        metric="cosine",
        output_metric="haversine",
        n_neighbors=n_neighbors,
        min_dist=min_dist,
        a=float(curve.a * curve.radius ** (2 * curve.b)),
        b=float(curve.b),
        learning_rate=LEARNING_RATE / curve.radius**2,
        negative_sample_rate=NEGATIVE_SAMPLE_RATE,
        random_state=curve.random_state,
        n_jobs=1,
    )
    model._a, model._b, model._n_neighbors = model.a, model.b, n_neighbors
    model.embedding_, model.graph_ = places.angles, places.graph
    model._knn_indices, model._knn_dists = places.indices, places.distances
    model.uuids_, model.row_digests_ = places.uuids, places.row_digests
    model.radius_, model.record_ = curve.radius, places.record
    return pickle.dumps(model, protocol=4)


def from_pickle(blob: bytes) -> Places:
    """Take a map out of the pickled model."""
    model = pickle.loads(blob)
    return Places(
        model.uuids_,
        model.embedding_,
        model._knn_indices,
        model._knn_dists,
        model.graph_,
        model.row_digests_,
        model.record_,
    )


def row_digests(embeddings: np.ndarray) -> np.ndarray:
    """Digest each embedding as the table holds it, to know one that has changed.

    Returns
    -------
    array of shape (n_images,), uint64
    """
    digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(embeddings))
    return np.frombuffer(digests, "<u8")


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Bring embeddings to length 1, from whatever length they have."""
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)


def without_direction(embeddings: np.ndarray) -> np.ndarray:
    """Tell which rows have no direction: not finite, or all zero."""
    return ~(np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1))


def package_versions() -> dict[str, str]:
    """Name the packages that a pickle depends on, as the database keeps them."""
    return {f"version_{package}": version(package) for package in _PACKAGES}


def plane(embeddings: np.ndarray, places: Places, settings: dict) -> np.ndarray:
    """Map the same neighbours to a plane, by umap-learn as it is, for comparison.

    Returns
    -------
    array of shape (n_images, 2), float32
    """
    model = umap.UMAP(
        metric="cosine",
        n_neighbors=places.indices.shape[1],
        min_dist=settings["min_dist"],
        random_state=settings["random_state"],
        n_jobs=1,
        precomputed_knn=(places.indices.astype(np.int64), places.distances),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "precomputed_knn")  # that it cannot transform
        return model.fit(embeddings).embedding_


class BoundUMAP(umap.UMAP):
    """A model that has its embeddings again, and places others among them."""

    def transform(self, X: np.ndarray, ensure_all_finite: bool = True) -> np.ndarray:
        """Place embeddings on the map; each one's place is its own, whatever else is placed.

        Parameters
        ----------
        X : array of shape (n_images, n_dims), float
            Of the same encoder.
        ensure_all_finite : bool
            For the likeness of umap-learn's method; rows without direction are always refused.

        Returns
        -------
        array of shape (n_images, 2), float64
            Theta in [0, pi] and phi in [-pi, pi], radians.

        Raises
        ------
        InputError
            If X has another shape, or rows that are not finite or all zero.
        """
        embeddings = np.asarray(X, np.float32)
        n_dims = self.rows_.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != n_dims:
            raise InputError(f"transform: X has shape {embeddings.shape}; it must have (n_images, {n_dims})")
        if bad := np.flatnonzero(without_direction(embeddings)).tolist():
            raise InputError(f"transform: row {bad[0]} of X is not finite or all zero; leave it out")
        places = place(unit_rows(embeddings), self.rows_, unit_vectors_from_angles(*self.embedding_.T), n_threads=1)
        return np.column_stack(angles_from_unit_vectors(places))


def load_umap_model(database: str, embedding_type: str) -> BoundUMAP:
    """Open the model of a database and bind it to its embeddings, so that `transform` works.

    Parameters
    ----------
    database : str
        Path.
    embedding_type : str

    Returns
    -------
    BoundUMAP
        A `umap.UMAP` with its `embedding_`, `uuids_`, `graph_` and parameters.

    Raises
    ------
    InputError
        If there is no model, if it is not the one that the workflow stored or was made by other versions (then
        it is not unpickled), or if the embeddings are not those that it was made from.
    """
    tables = Tables(embedding_type)
    with reading(database) as connection:
        if not sa.inspect(connection).has_table(tables.umap_model.name):
            raise InputError(f"{database}: has no table {tables.umap_model.name}; make the map: snakemake --cores 8")
        recorded = read_provenance(connection, embedding_type)
        blob = connection.scalar(sa.select(tables.umap_model.c.MODEL))
        uuids, embeddings = read_embeddings(connection, embedding_type)
    _check(blob, recorded, f"{database}: {tables.umap_model.name}")
    model = pickle.loads(blob)
    rows = {uuid: row for row, uuid in enumerate(uuids)}
    embeddings = embeddings[[rows[uuid] for uuid in model.uuids_ if uuid in rows]]
    if not np.array_equal(row_digests(embeddings), model.row_digests_):
        raise InputError(
            f"{database}: the embeddings have changed since the map was made; bring it up to date: snakemake --cores 8"
        )
    bound = BoundUMAP(**model.get_params())
    bound.__dict__.update(model.__dict__)
    bound.rows_ = unit_rows(embeddings)
    return bound


def _check(blob: bytes | None, recorded: dict[str, str], name: str) -> None:
    """Refuse a model that should not be unpickled."""
    anew = "delete umap_model.pkl beside the database and run snakemake --cores 8; the photos keep their places"
    if blob is None or hashlib.sha256(blob).hexdigest() != recorded.get("map_model_digest"):
        raise InputError(
            f"{name} is not the model that the workflow stored, and a pickle can run any code; to have it anew: {anew}"
        )
    for key, present in package_versions().items():
        package, made_by = key.removeprefix("version_"), recorded.get(f"map_{key}", "an unknown version")
        parts = 3 if package == "umap-learn" else 1  # the others keep what they pickle readable in a major version
        if made_by.split(".")[:parts] != present.split(".")[:parts]:
            raise InputError(
                f"{name} was made by {package} {made_by}, and {present} is installed; "
                f"install that one (pip install {package}=={made_by}), or have the model anew: {anew}"
            )
