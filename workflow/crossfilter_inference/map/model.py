r"""The pickled `umap.UMAP`: its contents, how to open it, and how it places other embeddings.

It is written for other programs. Nothing of this library opens it but `load_umap_model`, after its digest. To open it,
umap-learn is enough; a pickle can run any code, so open only those of your own collections:

    model = pickle.loads(blob)
    theta, phi = model.embedding_.T      # colatitude in [0, pi], azimuth in [-pi, pi], in the order of model.uuids_

It holds the parameters, a and b, the UUIDs, the positions, the graph (`graph_`) and its neighbours (`_knn_indices`,
`_knn_dists`). Embeddings are not part of it: they are in the table of embeddings, and `load_umap_model` binds the model
to them. `a`, `b` and the learning rate are those of a sphere of radius 1, so `umap.UMAP(**model.get_params())` fits the
same kind of map with umap-learn alone.
"""

import hashlib
import io
import pickle
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import ArrayLike, NDArray

from ..db.connect import reading
from ..db.embeddings import read_embeddings
from ..db.tables import Tables, read_provenance
from ..errors import InputError
from ..util.garbage import without_garbage_collection
from .fit import FitParameters, SphereMap, place
from .fuzzy_graph import fuzzy_graph
from .layout import LEARNING_RATE, NEGATIVE_SAMPLE_RATE, Curve
from .neighbours import Neighbours
from .settings import MapSettings
from .sphere import angles_from_unit_vectors, unit_vectors_from_angles

with without_garbage_collection(), warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # "Tensorflow not installed"
    import umap
    from umap.umap_ import find_ab_params

_PACKAGES = ("umap-learn", "numpy", "scipy")
# All that a model is made of. numpy moved `_reconstruct` in version 2.
_MODEL_PARTS = {
    ("umap.umap_", "UMAP"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("scipy.sparse._csr", "csr_matrix"),
}


def fit_parameters(settings: MapSettings, radius: float) -> FitParameters:
    """Fit UMAP's curve to `min_dist`, a length on the sphere of radius `radius`."""
    n_neighbors, min_dist, random_state = settings["n_neighbors"], settings["min_dist"], settings["random_state"]
    a, b = find_ab_params(1.0, min_dist)
    return FitParameters(n_neighbors, min_dist, random_state, Curve(a, b, radius))


def to_pickle(sphere_map: SphereMap, parameters: FitParameters) -> bytes:
    """Store a map in a `umap.UMAP`, and pickle it."""
    curve, n_neighbors = parameters.curve, parameters.n_neighbors
    indices, distances, graph = None, None, None
    if sphere_map.neighbours is not None:
        indices, distances = sphere_map.neighbours
        n_neighbors, graph = indices.shape[1], fuzzy_graph(indices, distances)
    model = umap.UMAP(
        n_components=2,
        metric="cosine",
        output_metric="haversine",
        n_neighbors=n_neighbors,
        min_dist=parameters.min_dist,
        a=float(curve.a * curve.radius ** (2 * curve.b)),
        b=float(curve.b),
        learning_rate=LEARNING_RATE / curve.radius**2,
        negative_sample_rate=NEGATIVE_SAMPLE_RATE,
        random_state=parameters.random_state,
        n_jobs=1,
    )
    model._a, model._b, model._n_neighbors = model.a, model.b, n_neighbors
    model.embedding_, model.graph_ = sphere_map.angles, graph
    model._knn_indices, model._knn_dists = indices, distances
    model.uuids_, model.row_digests_ = sphere_map.uuids, sphere_map.row_digests
    model.radius_, model.record_ = curve.radius, sphere_map.record
    return pickle.dumps(model, protocol=4)


def row_digests(embeddings: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Digest each embedding as it is in the table, to detect changes.

    Returns
    -------
    array of shape (n_images,), uint64
    """
    digests = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(embeddings))
    return np.frombuffer(digests, "<u8")


def unit_rows(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale embeddings to length 1."""
    scaled: NDArray[np.float32] = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def without_direction(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the rows that have no direction: not finite, or all zero."""
    usable = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
    unusable: NDArray[np.bool_] = np.logical_not(usable)
    return unusable


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a pickle depends on, by their keys in the record of the map."""
    return {f"version_{package}": version(package) for package in _PACKAGES}


def lay_out_plane(
    embeddings: NDArray[np.float32], neighbours: Neighbours, settings: MapSettings
) -> NDArray[np.float32]:
    """Lay out the same neighbours in a plane with umap-learn's own algorithm, for comparison.

    Returns
    -------
    array of shape (n_images, 2), float32
    """
    model = umap.UMAP(
        metric="cosine",
        n_neighbors=neighbours.indices.shape[1],
        min_dist=settings["min_dist"],
        random_state=settings["random_state"],
        n_jobs=1,
        precomputed_knn=(neighbours.indices.astype(np.int64), neighbours.distances),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "precomputed_knn")  # "... cannot transform"
        positions: NDArray[np.float32] = model.fit(embeddings).embedding_
    return positions


class BoundUMAP(umap.UMAP):  # type: ignore[misc]  # umap-learn has no types
    """A model that is bound to its embeddings, so that it can place others."""

    rows_: NDArray[np.float32]

    def transform(self, X: ArrayLike, ensure_all_finite: bool = True) -> NDArray[np.float64]:
        """Place embeddings on the map. A position does not depend on the other rows of X.

        Parameters
        ----------
        X : array of shape (n_images, n_dims), float
            Embeddings by the encoder of the map.
        ensure_all_finite : bool
            Ignored; it exists for compatibility with umap-learn. Rows that are not finite always raise an error.

        Returns
        -------
        array of shape (n_images, 2), float64
            Theta in [0, pi] and phi in [-pi, pi], radians.

        Raises
        ------
        InputError
            If X has the wrong shape, or rows that are not finite or all zero.
        """
        embeddings = np.asarray(X, np.float32)
        n_dims = self.rows_.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != n_dims:
            raise InputError(f"transform: X has shape {embeddings.shape}; give an array of shape (n_images, {n_dims})")
        if bad := np.flatnonzero(without_direction(embeddings)).tolist():
            raise InputError(f"transform: row {bad[0]} of X is not finite or all zero; remove it")
        positions = place(unit_rows(embeddings), self.rows_, unit_vectors_from_angles(*self.embedding_.T), n_threads=1)
        return np.column_stack(angles_from_unit_vectors(positions))


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
        If the model is missing, or if the embeddings have changed since it was made. Also if the workflow did not store
        this model, or if it was made with incompatible versions; it is then not unpickled. Also if it holds anything
        but a `umap.UMAP` and arrays; nothing of it is then run.
    """
    tables = Tables(embedding_type)
    with reading(database) as connection:
        if not sa.inspect(connection).has_table(tables.umap_model.name):
            raise InputError(f"{database} has no table {tables.umap_model.name}; to make the map, run the workflow")
        recorded = read_provenance(connection, embedding_type)
        stored = connection.scalar(sa.select(tables.umap_model.c.MODEL))
        uuids, embeddings = read_embeddings(connection, embedding_type)
    name = f"{database}: {tables.umap_model.name}"
    model = _open(name, _checked(stored, recorded, name))
    rows = {uuid: row for row, uuid in enumerate(uuids)}
    embeddings = embeddings[[rows[uuid] for uuid in model.uuids_ if uuid in rows]]
    if not np.array_equal(row_digests(embeddings), model.row_digests_):
        raise InputError(
            f"{database}: the embeddings have changed since the map was made; to update it, run the workflow"
        )
    bound = BoundUMAP(**model.get_params())
    bound.__dict__.update(model.__dict__)
    bound.rows_ = unit_rows(embeddings)
    return bound


def _open(name: str, blob: bytes) -> umap.UMAP:
    """Unpickle a model, from its parts alone."""
    try:
        model = _ModelUnpickler(name, blob).load()
    except InputError:
        raise
    except Exception:  # other bytes can raise anything
        model = None
    if type(model) is not umap.UMAP:
        raise InputError(f"{name} is not a model of the map; {_REBUILD}")
    return model


class _ModelUnpickler(pickle.Unpickler):
    """Open a model. A stranger's database may hold any pickle, with the digest that belongs to it."""

    def __init__(self, name: str, blob: bytes):
        super().__init__(io.BytesIO(blob))
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        """Find one of the parts of a model; refuse everything else."""
        if (module, name) not in _MODEL_PARTS:
            raise InputError(f"{self._name} holds {module}.{name}, so it is not a model of the map; {_REBUILD}")
        return super().find_class(module, name)


_REBUILD = "to rebuild it, delete umap_model.pkl in the state folder and run the workflow; photos keep their positions"


def _checked(blob: bytes | None, recorded: dict[str, str], name: str) -> bytes:
    """Return a pickled model, unless it must not be unpickled."""
    if blob is None or hashlib.sha256(blob).hexdigest() != recorded.get("map_model_digest"):
        raise InputError(f"{name} is not the model that the workflow stored, and a pickle can run any code; {_REBUILD}")
    for key, present in package_versions().items():
        package, made_by = key.removeprefix("version_"), recorded.get(f"map_{key}", "an unknown version")
        parts = 3 if package == "umap-learn" else 1  # pickles of the others stay readable within a major version
        if made_by.split(".")[:parts] != present.split(".")[:parts]:
            raise InputError(
                f"{name} was made with {package} {made_by}, but {package} {present} is installed; "
                f"install the other version (pip install {package}=={made_by}); or, {_REBUILD}"
            )
    return blob
