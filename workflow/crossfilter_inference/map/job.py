r"""Make or update the map, and write the model, `map.tsv`, `neighbours.npz` and `map_quality.json`.

`map.tsv` holds latitude and longitude in degrees:

    pandas.read_csv("map.tsv", sep="\t", index_col="UUID")

`state.py` describes `neighbours.npz`. It is written first and records its inputs, so a killed job resumes from it. The
model is written for other programs: nothing here reads it.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ..db.connect import reading
from ..db.embeddings import read_embeddings
from ..db.tables import Tables, read_provenance
from ..errors import InputError
from ..util.files import digest, read_json, read_tsv, write_bytes, write_json, write_tsv
from ..util.text import counted
from .copies import find_copies, with_copies
from .fit import MIN_PHOTOS, FitParameters, SphereMap, find_rows, fit, fit_parameters, update
from .labels import read_labels
from .neighbours import Neighbours, all_neighbours
from .pickled import package_versions, to_pickle
from .quality import measure
from .rows import row_digests, scale_to_unit_length, without_direction
from .settings import FIT_KEYS, MAP_COLUMNS, UMAP_VERSION, MapSettings, fit_digest, has_shape, recorded_shape
from .sphere import angles_from_unit_vectors, latitude_longitude, unit_vectors_from_latitude_longitude
from .state import read_state, write_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Photos:
    """All photos of a database, in order of UUID.

    `embeddings` is an array of shape (n_images, n_dims), float32, rows of length 1. `row_digests` are those of the
    stored rows.
    """

    uuids: list[str]
    embeddings: NDArray[np.float32]
    row_digests: NDArray[np.uint64]


def make_map(
    receipt: str,
    database: str,
    embedding_type: str,
    settings: MapSettings,
    labels: str,
    outputs: tuple[str, str, str, str],
    n_threads: int,
) -> str:
    """Make or update the map of a database; keep it if its inputs have not changed.

    Parameters
    ----------
    receipt : str
        Path of `embeddings.json`, which holds the digest of the embeddings.
    database, embedding_type : str
    settings : MapSettings
    labels : str
        Path of a table of labels, or empty.
    outputs : tuple of str
        Paths of `umap_model.pkl`, `map.tsv`, `neighbours.npz` and `map_quality.json`.
    n_threads : int
        The map does not depend on it.

    Returns
    -------
    str
        The outcome, for the log.

    Raises
    ------
    InputError
        If there are no embeddings, or if some are not finite or all zero.
    """
    model, map_table, neighbours, quality = outputs
    made_from = digest([read_json(receipt)["digest"], fit_digest(settings)])
    measured_with = digest([_file_digest(labels), settings["compare_with_plane"]])
    if all(Path(path).exists() for path in outputs):
        recorded = read_json(quality)
        if _is_current(recorded, made_from, settings) and recorded.get("measured_with") == measured_with:
            return "unchanged (same embeddings and settings)"
    photos = _read_photos(database, embedding_type)
    current = _read_map(neighbours, map_table, quality, database, embedding_type)
    outcome = "unchanged; quality measured again"
    if current is None or current.row_digests is None or not _is_current(current.record, made_from, settings):
        renewed, outcome = _renew(photos, settings, made_from, current, n_threads)
        write_state(neighbours, renewed, _neighbours_to_show(photos.embeddings, renewed, settings, n_threads))
        current = read_state(neighbours) or renewed
    parameters = fit_parameters(settings, len(photos.uuids), recorded_shape(current.record))
    write_bytes(model, to_pickle(current, parameters))
    latitude, longitude = latitude_longitude(current.unit_vectors)
    write_tsv(map_table, MAP_COLUMNS, zip(photos.uuids, latitude.tolist(), longitude.tolist(), strict=True))
    figures = _measure(photos, current, labels, n_threads, parameters if settings["compare_with_plane"] else None)
    write_json(quality, {**current.record, "measured_with": measured_with, **figures})
    return outcome


def _file_digest(path: str) -> str:
    return digest(Path(path).read_text("utf-8", "replace")) if path else ""


def _is_current(record: dict[str, Any], made_from: str, settings: MapSettings) -> bool:
    """Return whether a map has the same inputs and, for `update: refit`, does not depend on an earlier map."""
    if settings["update"] == "refit" and record.get("previous") is not None:
        return False
    return record.get("made_from") == made_from


def _read_photos(database: str, embedding_type: str) -> _Photos:
    with reading(database) as connection:
        uuids, embeddings = read_embeddings(connection, embedding_type)
    if not uuids:
        raise InputError(
            f"{embedding_type}: {database!r} has no embeddings to map; "
            f"see the table {embedding_type}_FAILURES for the reasons"
        )
    bad = without_direction(embeddings)
    if bad.any():
        raise InputError(
            f"{embedding_type}_EMBEDDINGS: {counted(int(bad.sum()), 'embeddings')} not finite or all zero, the first "
            f"for {uuids[bad.argmax()]}; delete these rows from the table (the map has not changed)"
        )
    digests = row_digests(embeddings)
    scale_to_unit_length(embeddings)
    return _Photos(uuids, embeddings, digests)


def _read_map(neighbours: str, map_table: str, quality: str, database: str, embedding_type: str) -> SphereMap | None:
    """Read the existing map: all of it from `neighbours.npz` if possible, else the positions from elsewhere."""
    if Path(neighbours).exists():
        try:
            if (sphere_map := read_state(neighbours)) is not None:
                return sphere_map
        except InputError as error:
            logger.warning("%s; photos keep their positions", error)
    if Path(map_table).exists() and Path(quality).exists():
        try:
            return _from_positions(read_tsv(map_table, MAP_COLUMNS), read_json(quality))
        except (InputError, OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s); reading positions from the database instead", map_table, error)
    table = Tables(embedding_type).umap_haversine
    with reading(database) as connection:
        if not sa.inspect(connection).has_table(table.name):
            return None
        rows = connection.execute(sa.select(table).order_by(table.c.UUID)).tuples().all()
        recorded = read_provenance(connection, embedding_type)
    return _from_positions(rows, {key.removeprefix("map_"): value for key, value in recorded.items()})


def _from_positions(rows: Iterable[Sequence[Any]], recorded: dict[str, Any]) -> SphereMap | None:
    """Make a map, without neighbours, of the UUID, latitude and longitude of its photos."""
    positions = {uuid: (float(latitude), float(longitude)) for uuid, latitude, longitude in rows}
    if not positions:
        return None
    latitude, longitude = np.array([*positions.values()]).T
    unit_vectors = unit_vectors_from_latitude_longitude(latitude, longitude)
    record = {key: recorded[key] for key in ("made_from", "id", *FIT_KEYS) if key in recorded}
    return SphereMap([*positions], np.column_stack(angles_from_unit_vectors(unit_vectors)), record=record)


def _renew(
    photos: _Photos, settings: MapSettings, made_from: str, previous: SphereMap | None, n_threads: int
) -> tuple[SphereMap, str]:
    """Fit or update the map; return it with the outcome, for the log."""
    if settings["update"] == "refit":
        previous = None
    uuids, embeddings = photos.uuids, photos.embeddings
    known = np.empty(0, int) if previous is None else find_rows(uuids, photos.row_digests, previous)
    n_old = int((known >= 0).sum())
    n_new = len(uuids) - n_old
    copies = find_copies(embeddings)
    n_different = len(np.unique(copies.group_of[known[known >= 0]]))
    action = _choose_action(settings, previous, n_old, n_new, n_different)
    if previous is None or action == "fit":
        parameters = fit_parameters(settings, len(copies.firsts), None)
        renewed = fit(uuids, embeddings, parameters, n_threads, previous)
    else:
        parameters = fit_parameters(settings, len(copies.firsts), recorded_shape(previous.record))
        improve = action == "align"
        renewed = update(uuids, embeddings, known, parameters, n_threads, previous, improve=improve)
    record: dict[str, Any] = {
        "made_from": made_from,
        "action": action,
        "n_images": len(uuids),
        "n_new": n_new,
        "n_gone": 0 if previous is None else len(previous.uuids) - n_old,
        "id": digest([uuids, renewed.angles.tobytes().hex()]),
        "previous": None if previous is None else previous.record.get("id"),
        "version": UMAP_VERSION,
        "n_neighbors": parameters.n_neighbors,
        "min_dist": parameters.min_dist,
        "radius": parameters.forces.radius,
        "repulsion": parameters.forces.repulsion,
        "random_state": parameters.random_state,
        **package_versions(),
    }
    if renewed.drift_degrees is not None:
        record["drift_degrees"] = renewed.drift_degrees
    renewed = replace(renewed, row_digests=photos.row_digests, record=record)
    if previous is None:
        return renewed, f"fitted to {counted(len(uuids), 'photos')}"
    names = {"fit": "refitted", "place": "new photos placed", "align": "updated"}
    drift = (
        "" if renewed.drift_degrees is None else f"; old photos moved by {renewed.drift_degrees:.2f} degrees on average"
    )
    return renewed, f"{names[action]}: {n_new:,} of {counted(len(uuids), 'photos')} are new{drift}"


def _choose_action(
    settings: MapSettings, previous: SphereMap | None, n_old: int, n_new: int, n_different: int
) -> Literal["fit", "place", "align"]:
    """Choose how to renew the map of `n_old` known photos, `n_different` without copies, and `n_new` new ones."""
    if previous is None or not has_shape(settings, recorded_shape(previous.record)):
        return "fit"
    if n_different <= max(settings["n_neighbors"], MIN_PHOTOS):
        return "fit"
    if settings["update"] == "place" or (n_new == 0 and n_old == len(previous.uuids)):
        return "place"
    return "align" if n_new <= settings["refit_share"] * (n_old + n_new) else "fit"


def _neighbours_to_show(
    embeddings: NDArray[np.float32], sphere_map: SphereMap, settings: MapSettings, n_threads: int
) -> Neighbours:
    """Return the nearest neighbours of each photo, itself first."""
    if sphere_map.neighbours is None:  # too few different photos for a graph
        return all_neighbours(embeddings, min(settings["n_neighbors"], len(embeddings)), n_threads)
    return with_copies(sphere_map.neighbours, embeddings)


def _measure(
    photos: _Photos, sphere_map: SphereMap, labels: str, n_threads: int, plane: FitParameters | None
) -> dict[str, Any]:
    """Measure the map and, if its parameters are given, umap-learn's map in a plane."""
    label_of = read_labels(labels, photos.uuids) if labels else None
    figures: dict[str, Any] = {**measure(photos.embeddings, sphere_map.unit_vectors, n_threads, label_of)}
    if plane is not None and sphere_map.neighbours is not None:
        from .model import lay_out_plane  # umap-learn takes seconds to import

        positions = lay_out_plane(photos.embeddings, sphere_map.neighbours, plane)
        figures["plane"] = measure(photos.embeddings, positions, n_threads, label_of)
    return figures
