r"""Make the map, or bring it up to date, and write it down: the model, `map.tsv`, neighbours and `map_quality.json`.

`map.tsv` holds latitude and longitude in degrees:

    pandas.read_csv("map.tsv", sep="\t", index_col="UUID")

`neighbours.npz` holds, for each of its rows, the rows of the photos that are most alike, without itself: `indices` of
shape (n_images, k), int32, and their cosine `distances`, float32:

    numpy.load("neighbours.npz")["indices"]

The model is written first and says what it was made from, so that a job that was killed afterwards goes on from it.
"""

import io
import logging
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from ..db.connect import reading
from ..db.embeddings import read_embeddings
from ..db.provenance import read_provenance
from ..db.tables import Tables
from ..errors import InputError
from ..util.files import digest, read_json, write_bytes, write_json, write_tsv
from ..util.text import counted
from .fit import FEWEST, Places, fit, rows_of, update
from .layout import default_radius
from .model import (
    from_pickle,
    make_curve,
    package_versions,
    plane,
    row_digests,
    to_pickle,
    unit_rows,
    without_direction,
)
from .neighbours import all_neighbours
from .quality import measure, read_labels
from .settings import FIT_KEYS, MAP_COLUMNS, UMAP_VERSION, fit_digest
from .sphere import angles_from_unit_vectors, latitude_longitude, unit_vectors_from_latitude_longitude

logger = logging.getLogger(__name__)


def make_map(
    receipt: str,
    database: str,
    embedding_type: str,
    settings: dict,
    labels: str,
    outputs: tuple[str, str, str, str],
    n_threads: int,
) -> str:
    """Make the map of a database, unless the one that is there was made from the same.

    Parameters
    ----------
    receipt : str
        Path of `embeddings.json`, which names the embeddings by their digest.
    database, embedding_type : str
    settings : dict
        The section `umap` of the configuration.
    labels : str
        Path of a table of labels, or empty.
    outputs : tuple of str
        Paths of `umap_model.pkl`, `map.tsv`, `neighbours.npz` and `map_quality.json`.
    n_threads : int
        The map does not depend on it.

    Returns
    -------
    str
        What was done.

    Raises
    ------
    InputError
        If there are no embeddings, or if some are not finite or all zero.
    """
    model, map_table, neighbours, quality = outputs
    made_from = digest([read_json(receipt)["digest"], fit_digest(settings)])
    measured_with = digest([_file_digest(labels), settings["compare_with_plane"]])
    if all(Path(path).exists() for path in outputs):
        there = read_json(quality)
        if _is_current(there, made_from, settings) and there["measured_with"] == measured_with:
            return "kept, nothing that it is made from has changed"
    with reading(database) as connection:
        uuids, embeddings = read_embeddings(connection, embedding_type)
    digests = row_digests(embeddings)
    embeddings = _checked(uuids, embeddings, embedding_type, database)

    places = _previous_map(model, database, embedding_type)
    done = "kept, measured again"
    if places is None or places.indices is None or not _is_current(places.record, made_from, settings):
        done = _renew(uuids, embeddings, digests, settings, made_from, places, model, n_threads)
        places = from_pickle(Path(model).read_bytes())
    latitude, longitude = latitude_longitude(places.unit_vectors)
    write_tsv(map_table, MAP_COLUMNS, zip(uuids, latitude.tolist(), longitude.tolist(), strict=True))
    write_bytes(neighbours, _neighbours(embeddings, places, settings["n_neighbors"], n_threads))
    figures = _figures(uuids, embeddings, places, settings, labels, n_threads)
    write_json(quality, {**places.record, "measured_with": measured_with, **figures})
    return done


def _file_digest(path: str) -> str:
    return digest(Path(path).read_text("utf-8", "replace")) if path else ""


def _is_current(record: dict, made_from: str, settings: dict) -> bool:
    """Tell whether a map need not be made again: it is of the same, and without a past if it must be."""
    has_past = record.get("previous") is not None
    return record.get("made_from") == made_from and not (settings["update"] == "refit" and has_past)


def _checked(uuids: list[str], embeddings: np.ndarray, embedding_type: str, database: str) -> np.ndarray:
    if not uuids:
        raise InputError(
            f"{embedding_type}: there is nothing to map: no image could be embedded; "
            f"the table {embedding_type}_FAILURES of {database!r} says why"
        )
    bad = without_direction(embeddings)
    if bad.any():
        raise InputError(
            f"{embedding_type}_EMBEDDINGS: {bad.sum()} embeddings are not finite or all zero, the first of them "
            f"{uuids[bad.argmax()]}'s; delete their rows from the table"
        )
    return unit_rows(embeddings)


def _previous_map(model: str, database: str, embedding_type: str) -> Places | None:
    """Read the map that is there: from its model, else, without neighbours, from the tables of the database."""
    if Path(model).exists():
        try:
            return from_pickle(Path(model).read_bytes())
        except Exception as error:  # whatever another version or a damaged file may bring
            logger.warning("%s cannot be read (%s): the places are taken from the database", model, error)
    table = Tables(embedding_type).umap_haversine
    with reading(database) as connection:
        if not sa.inspect(connection).has_table(table.name):
            return None
        rows = connection.execute(sa.select(table).order_by(table.c.UUID)).tuples().all()
        recorded = read_provenance(connection, embedding_type)
    if not rows:
        return None
    uuids, latitude, longitude = zip(*rows, strict=True)
    unit_vectors = unit_vectors_from_latitude_longitude(np.array(latitude), np.array(longitude))
    record = {key: recorded.get(f"map_{key}") for key in ("made_from", "fitted_with", "id", "radius")}
    return Places(list(uuids), np.column_stack(angles_from_unit_vectors(unit_vectors)), record=record)


def _renew(
    uuids: list[str],
    embeddings: np.ndarray,
    digests: np.ndarray,
    settings: dict,
    made_from: str,
    previous: Places | None,
    model: str,
    n_threads: int,
) -> str:
    """Fit or update the map, and write its model."""
    if settings["update"] == "refit":
        previous = None
    known = np.empty(0, int) if previous is None else rows_of(uuids, digests, previous)
    n_old = int((known >= 0).sum())
    n_new = len(uuids) - n_old
    same_settings = previous is not None and previous.record.get("fitted_with") == fit_digest(settings)
    if not same_settings or n_old <= max(settings["n_neighbors"], FEWEST):
        action = "fit"
    elif settings["update"] == "place" or (n_new == 0 and n_old == len(previous.uuids)):
        action = "place"
    else:
        action = "align" if n_new <= settings["refit_share"] * len(uuids) else "fit"
    radius = settings["radius"]
    if radius == "auto":
        radius = default_radius(len(uuids)) if action == "fit" else float(previous.record["radius"])
    curve = make_curve(settings, radius)
    if action == "fit":
        places = fit(uuids, embeddings, curve, n_threads, previous)
    else:
        improve = action == "align"
        places = update(uuids, embeddings, known, curve, n_threads, previous, improve=improve)
    places.row_digests = digests
    places.record = {
        "made_from": made_from,
        "fitted_with": fit_digest(settings),
        "action": action,
        "n_images": len(uuids),
        "n_new": n_new,
        "n_gone": 0 if previous is None else len(previous.uuids) - n_old,
        "id": digest([uuids, places.angles.tobytes().hex()]),
        "previous": None if previous is None else previous.record.get("id"),
        "version": UMAP_VERSION,
        **{key: settings[key] for key in FIT_KEYS},
        "radius": radius,
        **package_versions(),
        **places.record,
    }
    write_bytes(model, to_pickle(places, curve, settings["min_dist"]))
    if previous is None:
        return f"fitted to {counted(len(uuids), 'photos')}"
    drift = places.record.get("drift_degrees")
    moved = "" if drift is None else f", old photos moved by {drift:.2f} degrees on average"
    names = {"fit": "fitted anew", "place": "new photos placed", "align": "updated"}
    return f"{names[action]}: {n_new} new of {len(uuids)}{moved}"


def _neighbours(embeddings: np.ndarray, places: Places, n_neighbors: int, n_threads: int) -> bytes:
    indices, distances = places.indices, places.distances
    if indices is None:  # too few photos for a graph, or all alike
        indices, distances = all_neighbours(embeddings, min(n_neighbors, len(embeddings)), n_threads)
    file = io.BytesIO()
    np.savez(file, indices=indices[:, 1:], distances=distances[:, 1:])
    return file.getvalue()


def _figures(
    uuids: list[str],
    embeddings: np.ndarray,
    places: Places,
    settings: dict,
    labels: str,
    n_threads: int,
) -> dict:
    named = None
    if labels:
        known = read_labels(labels)
        named = [known.get(uuid.replace("-", "").lower()) for uuid in uuids]
    figures = measure(embeddings, places.unit_vectors, n_threads, named)
    if settings["compare_with_plane"] and places.indices is not None:
        figures["plane"] = measure(embeddings, plane(embeddings, places, settings), n_threads, named)
    return figures
