"""Check that tables and files agree, photo by photo.

Tables and files are read side by side in order of UUID, so that memory grows only with the photos that the scan finds.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from ..db.connect import driver_cursor
from ..db.tables import VERSION_COLUMN, VERSION_KEY, Tables, read_provenance
from ..encoders.identity import provenance_digest
from ..errors import InputError
from ..map.settings import MAP_COLUMNS
from ..photos.scan import Scan
from ..shards.plan import MANIFEST_COLUMNS, REJECTED_COLUMNS, read_held_back
from ..shards.shard import read_shard_provenance
from ..util.files import damaged, read_tsv
from ..util.text import counted, once_with
from .problems import Problems, delete_and_run, is_outdated, reading_file

_Record = tuple[str, str, list[Any]]  # UUID, kind of record, the other values


def check_outcomes(
    connection: Connection, embedding_type: str, folder: Path, scan: Scan, *, keep: bool, rebuild: str
) -> str:
    """Check that every photo of the manifest has one outcome in the tables, and count the changes since the last run.

    Parameters
    ----------
    connection : Connection
    embedding_type : str
    folder : Path
        State folder of the embedding type.
    scan : Scan
        The photos that exist now. New, changed and missing photos are no problem, unless all are missing.
    keep : bool
        Whether rows of missing photos are kept.
    rebuild : str
        The fix that rebuilds the database.

    Returns
    -------
    str
        Summary.

    Raises
    ------
    InputError
        If tables and manifest disagree; it names the first photos of each kind of problem.
    """
    tables, problems, counts = Tables(embedding_type), Problems(), Counter[str]()
    manifest = folder / "manifest.tsv"
    fix = "run the workflow, which completes the interrupted run"
    if not is_outdated(folder / "embeddings.json", manifest):
        fix = f"delete {str(manifest)!r}, then {rebuild}"
    plan = folder / "plan.tsv"
    held_back = read_held_back(plan) if not keep and plan.exists() else set()
    found = {image.uuid: [str(image.size), str(image.mtime_ns)] for image in scan.images}
    version = read_provenance(connection, embedding_type).get(VERSION_KEY)
    for uuid, records in _by_uuid(
        _file_records(manifest, MANIFEST_COLUMNS, "photo"),
        _table_records(connection, tables.embeddings, "embedded"),
        _table_records(connection, tables.images, "image", "SHARD", "SIZE", "MTIME_NS", VERSION_COLUMN),
        _table_records(connection, tables.failures, "failed", "SHARD"),
    ):
        outcomes = records.keys() & {"embedded", "failed"}
        if "image" in records and "embedded" not in records:
            problems.add("rows", f"of {tables.images} without embedding", uuid, fix)
        if "photo" not in records:
            if "failed" in records:
                problems.add("rows", f"of {tables.failures} without photo", uuid, fix)
            if "embedded" in records and not keep and uuid not in held_back:
                problems.add("embeddings", "of missing photos", uuid, "run the workflow")
            counts["kept" if "image" in records else "unknown"] += "embedded" in records
            counts["other version"] += "embedded" in records and str(records.get("image", [version])[-1]) != version
            continue
        _, size, mtime_ns, shard = records["photo"]
        now = found.pop(uuid, None)
        counts["missing"] += now is None
        counts["changed"] += now not in (None, [size, mtime_ns])
        if len(outcomes) != 1:
            problems.add("photos", "with two outcomes" if outcomes else "without outcome", uuid, fix)
        elif "embedded" in outcomes and "image" not in records:
            problems.add("photos", f"without row in {tables.images}", uuid, fix)
        else:
            recorded = records["image" if "embedded" in outcomes else "failed"]  # a failure records its shard only
            if "embedded" in outcomes and str(recorded.pop()) != version:
                fix = once_with("recompute_existing_embeddings=true")
                problems.add("embeddings", "of another embed version than the encoder's", uuid, fix)
            if [*map(str, recorded)] != [shard, size, mtime_ns][: len(recorded)]:
                problems.add("rows", "with a shard, size or time other than in the manifest", uuid, fix)
        counts.update(outcomes)
    problems.check()
    rejected_file = folder / "rejected.tsv"
    with reading_file(rejected_file):
        rejected = {path for path, _ in read_tsv(rejected_file, REJECTED_COLUMNS)}
    counts["new"] = len(found)
    counts["newly or no longer rejected"] = len(rejected ^ {file.path for file in scan.rejected})
    n_embedded, n_failed = counts["embedded"], counts["failed"]
    if counts["missing"] and counts["missing"] == n_embedded + n_failed:
        raise InputError(
            f"input_dir contains none of the {counts['missing']:,} photos of the last run: name the folders of that "
            "run, or run the workflow if they were removed for good"
        )
    changes = ("new", "changed", "missing", "newly or no longer rejected")
    since = [f"{counts[change]:,} {change}" for change in changes if counts[change]]
    n_files = n_embedded + n_failed + len(rejected) if since else len(scan.images) + len(scan.rejected)
    notes = [
        f"{counted(n_files, 'files')} = {n_embedded:,} embedded + {n_failed:,} failed + {len(rejected):,} rejected"
    ]
    if counts["kept"]:
        others = counts["other version"]
        older = f", {others:,} of another embed version" if others else ""
        notes.append(f"{counted(counts['kept'], 'rows')} of missing photos{older}")
    if counts["unknown"]:
        notes.append(f"{counted(counts['unknown'], 'rows')} of unknown origin")
    if since:
        notes.append(f"since the last run: {', '.join(since)} (run the workflow)")
    return "; ".join(notes)


def check_provenance(
    recorded: str | None, encoder: dict[str, Any], folder: Path, shards: list[str], rebuild: str
) -> str:
    """Check that the database and all shards come from the encoder that `encoder.json` describes.

    Parameters
    ----------
    recorded : str or None
        The database's digest of its encoder.
    encoder : dict
        The contents of `encoder.json`.
    folder : Path
        State folder of the embedding type.
    shards : list of str
    rebuild : str
        The fix that rebuilds the database.

    Returns
    -------
    str
        Summary.

    Raises
    ------
    InputError
        If one differs; it names what differs from the majority.
    """
    problems, path = Problems(), folder / "encoder.json"
    resolve = delete_and_run(path)
    recreate = f"delete these and {str(folder / 'embeddings.json')!r}, and run the workflow"
    digests: dict[tuple[Path | str, str], str | None] = {
        (path, resolve): provenance_digest(encoder),
        ("the database", rebuild): recorded,
    }
    for shard in shards:
        database = folder / "embeddings" / f"{shard}.sqlite"
        with suppress(InputError):  # check_shards reports a damaged one
            digests[database, recreate] = read_shard_provenance(database, encoder["name"]).get("encoder_digest")
    [(usual, _)] = Counter(digests.values()).most_common(1)
    is_interrupted = is_outdated(folder / "embeddings.json", path)
    for (name, fix), digest in digests.items():
        if digest != usual:
            problems.add("records", f"of an encoder other than {usual}", name, resolve if is_interrupted else fix)
    problems.check()
    return f"encoder.json, database and {counted(len(shards), 'shards')} agree: {encoder['model']} ({usual})"


def check_map(connection: Connection, embedding_type: str, folder: Path, rebuild: str) -> str:
    """Check that every embedding has a position, equal to the one in `map.tsv`, and that the model is the stored one.

    Parameters
    ----------
    connection : Connection
    embedding_type : str
    folder : Path
        State folder of the embedding type.
    rebuild : str
        The fix that rebuilds the database.

    Returns
    -------
    str
        Summary.

    Raises
    ------
    InputError
        If the map is incomplete or altered; it names the first photos of each kind of problem.
    """
    tables, problems, n_positions = Tables(embedding_type), Problems(), 0
    recorded, files = read_provenance(connection, embedding_type), (folder / "umap_model.pkl", folder / "map.tsv")
    fix = rebuild
    if is_outdated(folder / "map_stored.json", folder / "embeddings.json"):
        fix = "run the workflow"
    elif _files_digest(*files) != recorded.get("map_digest"):
        fix = f"{delete_and_run(*files)}; photos keep their positions"
        raise InputError(f"umap_model.pkl or map.tsv differs from the stored map: {fix}")
    for table in (tables.umap_haversine, tables.umap_model):
        if not sa.inspect(connection).has_table(table.name):
            raise InputError(f"table {table} is missing: {fix}")
    models = connection.scalars(sa.select(tables.umap_model)).all()
    if [hashlib.sha256(model).hexdigest() for model in models] != [recorded.get("map_model_digest")]:
        problems.add("tables", "with a model other than the stored one", tables.umap_model, fix)
    latitude, longitude = tables.umap_haversine.c.keys()[1:]
    for uuid, records in _by_uuid(
        _table_records(connection, tables.embeddings, "embedded"),
        _table_records(connection, tables.umap_haversine, "position", latitude, longitude),
        _file_records(folder / "map.tsv", MAP_COLUMNS, "file"),
    ):
        n_positions += 1
        position = records.get("position")
        if position is None and "embedded" in records:
            problems.add("embeddings", "without position", uuid, fix)
        elif position is None:
            problems.add("positions", "in map.tsv without embedding", uuid, fix)
        elif "embedded" not in records:
            problems.add("positions", "without embedding", uuid, fix)
        elif not all(isinstance(x, float) and abs(x) <= limit for x, limit in zip(position, (90, 180), strict=True)):
            problems.add("positions", "off the sphere", uuid, fix)
        elif [repr(x) for x in position] != records.get("file"):
            problems.add("positions", "different from map.tsv", uuid, fix)
    problems.check()
    return f"{counted(n_positions, 'positions')}: one per embedding, as in map.tsv; model as stored"


def _by_uuid(*sources: Iterator[_Record]) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """Collect the records of each photo by kind, from sources that are in order of UUID."""
    for uuid, records in groupby(heapq.merge(*sources, key=itemgetter(0)), key=itemgetter(0)):
        yield uuid, {kind: values for _, kind, values in records}


def _table_records(connection: Connection, table: Table, kind: str, *columns: str) -> Iterator[_Record]:
    names, cursor = ", ".join(("UUID", *columns)), driver_cursor(connection)
    for uuid, *values in cursor.execute(f"SELECT {names} FROM {table} WHERE typeof(UUID) = 'text' ORDER BY UUID"):
        yield uuid, kind, values


def _file_records(path: Path, header: tuple[str, ...], kind: str) -> Iterator[_Record]:
    with reading_file(path):
        last = ""
        for uuid, *values in read_tsv(path, header):
            if uuid <= last:
                raise damaged(path)
            last = uuid
            yield uuid, kind, values


def _files_digest(*paths: Path) -> str:
    sha256 = hashlib.sha256()
    for path in filter(Path.exists, paths):
        sha256.update(path.read_bytes())
    return sha256.hexdigest()
