r"""The pickled `umap.UMAP`, as it is written for other programs.

umap-learn is enough to open it; a pickle can run any code, so open only those of your own collections:

    model = pickle.loads(blob)
    theta, phi = model.embedding_.T      # colatitude in [0, pi], azimuth in [-pi, pi], in the order of model.uuids_

It holds the parameters, a and b, the UUIDs, the positions, the graph (`graph_`) and its neighbours (`_knn_indices`,
`_knn_dists`). Embeddings are not part of it: they are in the table of embeddings, and `load_umap_model` binds the model
to them. `a`, `b` and the learning rate are those of a sphere of radius 1, so `umap.UMAP(**model.get_params())` fits the
same kind of map with umap-learn alone.

It is written without umap-learn, whose import takes seconds. Nothing of this library opens it but `load_umap_model`.
"""

import pickle
from importlib.metadata import version
from typing import Any

from .fit import FitParameters, SphereMap
from .fuzzy_graph import fuzzy_graph
from .layout import NEGATIVE_SAMPLE_RATE

_PACKAGES = ("umap-learn", "numpy", "scipy")
# The parameters of `umap.UMAP`, with their defaults.
_DEFAULTS: dict[str, Any] = {
    "a": None,
    "angular_rp_forest": False,
    "b": None,
    "dens_frac": 0.3,
    "dens_lambda": 2.0,
    "dens_var_shift": 0.1,
    "densmap": False,
    "disconnection_distance": None,
    "force_approximation_algorithm": False,
    "init": "spectral",
    "learning_rate": 1.0,
    "local_connectivity": 1.0,
    "low_memory": True,
    "metric": "euclidean",
    "metric_kwds": None,
    "min_dist": 0.1,
    "n_components": 2,
    "n_epochs": None,
    "n_jobs": -1,
    "n_neighbors": 15,
    "negative_sample_rate": 5,
    "output_dens": False,
    "output_metric": "euclidean",
    "output_metric_kwds": None,
    "precomputed_knn": (None, None, None),
    "random_state": None,
    "repulsion_strength": 1.0,
    "set_op_mix_ratio": 1.0,
    "spread": 1.0,
    "target_metric": "categorical",
    "target_metric_kwds": None,
    "target_n_neighbors": -1,
    "target_weight": 0.5,
    "tqdm_kwds": None,
    "transform_mode": "embedding",
    "transform_queue_size": 4.0,
    "transform_seed": 42,
    "unique": False,
    "verbose": False,
}


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a pickle depends on, by their keys in the record of the map."""
    return {f"version_{package}": version(package) for package in _PACKAGES}


def to_pickle(sphere_map: SphereMap, parameters: FitParameters) -> bytes:
    """Store a map in a `umap.UMAP`, and pickle it."""
    forces, n_neighbors = parameters.forces, parameters.n_neighbors
    indices, distances, graph = None, None, None
    if sphere_map.neighbours is not None:
        indices, distances = sphere_map.neighbours
        n_neighbors, graph = indices.shape[1], fuzzy_graph(indices, distances)
    a, b = float(forces.a * forces.radius ** (2 * forces.b)), float(forces.b)
    set_by_us = {
        "n_components": 2,
        "metric": "cosine",
        "output_metric": "haversine",
        "n_neighbors": n_neighbors,
        "min_dist": parameters.min_dist,
        "a": a,
        "b": b,
        "learning_rate": forces.learning_rate / forces.radius**2,
        "repulsion_strength": forces.repulsion,
        "negative_sample_rate": NEGATIVE_SAMPLE_RATE,
        "random_state": parameters.random_state,
        "n_jobs": 1,
    }
    fitted = {
        "_a": a,
        "_b": b,
        "_n_neighbors": n_neighbors,
        "embedding_": sphere_map.angles,
        "graph_": graph,
        "_knn_indices": indices,
        "_knn_dists": distances,
        "uuids_": sphere_map.uuids,
        "row_digests_": sphere_map.row_digests,
        "radius_": forces.radius,
        "record_": sphere_map.record,
    }
    return _pickle_of_umap({**_DEFAULTS, **set_by_us, **fitted})


def _pickle_of_umap(attributes: dict[str, Any]) -> bytes:
    """Write what pickle writes for an object of the class `umap.UMAP` with these attributes."""
    protocol, stop = pickle.PROTO + b"\x04", pickle.STOP
    dictionary = pickle.dumps(attributes, protocol=4).removeprefix(protocol).removesuffix(stop)
    new_object = pickle.GLOBAL + b"umap.umap_\nUMAP\n" + pickle.EMPTY_TUPLE + pickle.NEWOBJ
    return protocol + new_object + dictionary + pickle.BUILD + stop
