"""Open the pickled `umap.UMAP` that `pickled.py` writes, and place other embeddings with it; needs umap-learn."""

import hashlib
import io
import pickle
import warnings
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import ArrayLike, NDArray

from ..db.connect import reading
from ..db.embeddings import read_embeddings
from ..db.tables import Tables, read_provenance
from ..errors import InputError
from ..util.garbage import without_garbage_collection
from .fit import FitParameters, place
from .neighbours import Neighbours
from .pickled import package_versions
from .rows import row_digests, unit_rows, without_direction
from .sphere import angles_from_unit_vectors, unit_vectors_from_angles

with without_garbage_collection(), warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # "Tensorflow not installed"
    import umap

# All that a model is made of. numpy moved `_reconstruct` in version 2.
_MODEL_PARTS = {
    ("umap.umap_", "UMAP"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("scipy.sparse._csr", "csr_matrix"),
}


def lay_out_plane(
    embeddings: NDArray[np.float32], neighbours: Neighbours, parameters: FitParameters
) -> NDArray[np.float32]:
    """Lay out the same neighbours in a plane with umap-learn's own algorithm, for comparison.

    Returns
    -------
    array of shape (n_images, 2), float32
    """
    model = umap.UMAP(
        metric="cosine",
        n_neighbors=neighbours.indices.shape[1],
        min_dist=parameters.min_dist,
        random_state=parameters.random_state,
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
