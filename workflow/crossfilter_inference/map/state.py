"""`neighbours.npz`: the nearest neighbours of each photo, and everything else that the next update of the map needs.

It holds numbers and texts only, so reading it cannot run code. Its arrays are in the order of `map.tsv`:

    numpy.load("neighbours.npz")["indices"]

- `indices`, of shape (n_images, k), int32: the rows of the nearest neighbours, without the photo itself.
- `distances`, of shape (n_images, k), float32: their cosine distances.
- `uuids`, of shape (n_images,), text.
- `angles`, of shape (n_images, 2), float64: theta in [0, pi] and phi in [-pi, pi], radians.
- `row_digests`, of shape (n_images,), uint64: see `rows.row_digests`.
- `laid_out`, bool: False if there were too few photos for a layout.
- `graph_indices`, `graph_distances`: the neighbours that shaped the map, if they are others than those above.
- `record`, a text: how the map was made, as JSON.

Version 0.1 wrote `indices` and `distances` only. Its positions are then read from `map.tsv`.
"""

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..util.files import damaged, write_bytes
from .fit import SphereMap
from .neighbours import Neighbours


def write_state(path: str, sphere_map: SphereMap, shown: Neighbours) -> None:
    """Write `neighbours.npz` atomically.

    Parameters
    ----------
    path : str
    sphere_map : SphereMap
        With its `row_digests` and `record`.
    shown : Neighbours
        The nearest neighbours of each photo, itself first: `sphere_map.neighbours`, if they are the same.
    """
    others = {}
    if sphere_map.neighbours is not None and sphere_map.neighbours is not shown:
        others = dict(zip(("graph_indices", "graph_distances"), _without_own(sphere_map.neighbours), strict=True))
    indices, distances = _without_own(shown)
    file = io.BytesIO()
    np.savez(
        file,
        allow_pickle=False,
        indices=indices,
        distances=distances,
        uuids=np.array(sphere_map.uuids, str),
        angles=sphere_map.angles,
        row_digests=np.asarray(sphere_map.row_digests),
        laid_out=sphere_map.neighbours is not None,
        record=json.dumps(sphere_map.record, sort_keys=True),
        **others,
    )
    write_bytes(path, file.getvalue())


def read_state(path: str) -> SphereMap | None:
    """Read a map from `neighbours.npz`, without its graph.

    Returns
    -------
    SphereMap or None
        None if version 0.1 wrote the file.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if {*arrays} == {"indices", "distances"}:
                return None
            found = {name: arrays[name] for name in arrays}
        return _sphere_map(**found)
    except InputError:
        raise
    except Exception:  # a damaged file can raise anything
        raise damaged(path) from None


def _without_own(neighbours: Neighbours) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return neighbours.indices[:, 1:], neighbours.distances[:, 1:]


def _sphere_map(
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    uuids: NDArray[np.str_],
    angles: NDArray[np.float64],
    row_digests: NDArray[np.uint64],
    laid_out: NDArray[np.bool_],
    record: NDArray[np.str_],
    graph_indices: NDArray[np.int32] | None = None,
    graph_distances: NDArray[np.float32] | None = None,
) -> SphereMap:
    """Check arrays against each other, and make a map of them."""
    if graph_indices is not None and graph_distances is not None:
        indices, distances = graph_indices, graph_distances
    n_images, k = indices.shape
    expected: list[tuple[NDArray[Any], type, tuple[int, ...]]] = [
        (indices, np.int32, (n_images, k)),
        (distances, np.float32, (n_images, k)),
        (angles, np.float64, (n_images, 2)),
        (row_digests, np.uint64, (n_images,)),
        (laid_out, np.bool_, ()),
    ]
    if any(array.dtype != dtype or array.shape != shape for array, dtype, shape in expected):
        raise ValueError
    if uuids.shape != (n_images,) or not np.isfinite(angles).all() or not np.isfinite(distances).all():
        raise ValueError
    if indices.size and not (0 <= indices.min() and indices.max() < n_images):
        raise ValueError
    own = np.arange(n_images, dtype=np.int32)[:, None]
    neighbours = Neighbours(np.hstack([own, indices]), np.hstack([np.zeros_like(own, np.float32), distances]))
    return SphereMap(
        uuids.tolist(),
        angles,
        neighbours if laid_out else None,
        row_digests=row_digests,
        record=json.loads(record.item()),
    )
