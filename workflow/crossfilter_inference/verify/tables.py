"""Do tables and files tell the same? Those of photos are read side by side, in the order of their UUIDs.

So memory does not grow with the collection, but for the photos that a scan finds.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from ..db.connect import driver_cursor
from ..db.provenance import read_provenance
from ..db.tables import Tables
from ..encoders.identity import provenance_digest
from ..errors import InputError
from ..map.settings import MAP_COLUMNS
from ..photos.scan import Scan
from ..shards.plan import MANIFEST_COLUMNS, REJECTED_COLUMNS
from ..shards.shard import read_shard_provenance
from ..util.files import damaged, read_tsv
from .rows import Problems, is_due, using, way_back

_CHUNK_BYTES = 2**20


def check_fates(
    connection: Connection, embedding_type: str, folder: Path, scan: Scan, *, keep: bool, rebuild: str
) -> str:
    """Compare the manifest with the tables, where every photo has one fate, and with the photos that there are now.

    Parameters
    ----------
    connection : Connection
    embedding_type : str
    folder : Path
        State folder of the embedding type.
    scan : Scan
        What has come and gone since the last run is no fault, unless all have gone.
    keep : bool
        Whether rows of photos that have gone may be there.
    rebuild : str
        How the database is made anew.

    Raises
    ------
    InputError
        That names the first photos of each kind of fault.
    """
    tables, problems, counts = Tables(embedding_type), Problems(), Counter()
    manifest = folder / "manifest.tsv"
    way_out = way_back(manifest)
    if manifest.exists() and not is_due(folder / "embeddings.json", manifest):
        way_out = f"delete {str(manifest)!r} too, and {rebuild}"
    found = {image.uuid: [str(image.size), str(image.mtime_ns)] for image in scan.images}
    for uuid, told in _by_uuid(
        _file_rows(manifest, MANIFEST_COLUMNS, "photo"),
        _table_rows(connection, tables.embeddings, "embedding"),
        _table_rows(connection, tables.images, "image", "SHARD", "SIZE", "MTIME_NS"),
        _table_rows(connection, tables.failures, "failure", "SHARD"),
    ):
        fates = told.keys() & {"embedding", "failure"}
        if "image" in told and "embedding" not in told:
            problems.add(f"rows of {tables.images} without embedding", uuid, way_out)
        if "photo" not in told:
            if "failure" in told:
                problems.add(f"rows of {tables.failures} without photo", uuid, way_out)
            if "embedding" in told and not keep:
                problems.add("embeddings of photos that have gone", uuid, "run snakemake")
            counts["unknown" if "image" not in told else "kept"] += "embedding" in told
            continue
        _, size, mtime_ns, shard = told["photo"]
        now = found.pop(uuid, None)
        counts["gone"] += now is None
        counts["changed"] += now not in (None, [size, mtime_ns])
        if len(fates) != 1:
            problems.add("photos without fate" if not fates else "photos with two fates", uuid, way_out)
        elif "embedding" in fates and "image" not in told:
            problems.add(f"photos without row in {tables.images}", uuid, way_out)
        elif [*map(str, told.get("image", told.get("failure")))] != [shard, size, mtime_ns][
            : 3 if "image" in told else 1
        ]:
            problems.add("rows from another shard or file than the manifest's", uuid, way_out)
        counts.update(fates)
    problems.check()
    with using(folder / "rejected.tsv"):
        rejected = {path for path, _ in read_tsv(folder / "rejected.tsv", REJECTED_COLUMNS)}
    counts["new"] = len(found)
    counts["rejected otherwise"] = len(rejected ^ {file.path for file in scan.rejected})
    n_embedded, n_failed = counts["embedding"], counts["failure"]
    if counts["gone"] and counts["gone"] == n_embedded + n_failed:
        raise InputError(
            f"none of the {counts['gone']:,} photos of the last run is in input_dir: name the folders that it had, or, "
            "if they have gone for good, run snakemake"
        )
    since = [f"{counts[what]} {what}" for what in ("new", "changed", "gone", "rejected otherwise") if counts[what]]
    n_files = n_embedded + n_failed + len(rejected) if since else len(scan.images) + len(scan.rejected)
    notes = [f"{n_files} files = {n_embedded} embedded + {n_failed} failed + {len(rejected)} rejected"]
    if counts["kept"]:
        notes.append(f"rows of photos that have gone: {counts['kept']}")
    if counts["unknown"]:
        notes.append(f"rows of unknown origin: {counts['unknown']}")
    if since:
        notes.append(f"since the last run: {', '.join(since)} (run snakemake)")
    return "; ".join(notes)


def check_provenance(recorded: str | None, encoder: dict, folder: Path, shards: list[str], rebuild: str) -> str:
    """Check that the database and all of its shards are of the encoder that `encoder.json` describes.

    Parameters
    ----------
    recorded : str or None
        Digest of the encoder in the database.
    encoder : dict
        The contents of `encoder.json`.
    folder : Path
        State folder of the embedding type.
    shards : list of str
    rebuild : str
        How the database is made anew.

    Raises
    ------
    InputError
        That names what differs from most others.
    """
    problems, path = Problems(), folder / "encoder.json"
    resolve = way_back(path)
    delete = f"delete these, and {str(folder / 'embeddings.json')!r}, and run snakemake"
    digests = {(path, resolve): provenance_digest(encoder), ("the database", rebuild): recorded}
    for shard in shards:
        database = folder / "embeddings" / f"{shard}.sqlite"
        with suppress(InputError):  # a damaged one is told of elsewhere
            digests[database, delete] = read_shard_provenance(database, encoder["name"]).get("encoder_digest")
    [(usual, _)] = Counter(digests.values()).most_common(1)
    broken_off = is_due(folder / "embeddings.json", path)
    for (name, way_out), digest in digests.items():
        if digest != usual:
            problems.add(f"are not of the encoder {usual}", name, resolve if broken_off else way_out)
    problems.check()
    return f"{encoder['model']} ({usual}): encoder.json, database and {len(shards)} shards"


def check_map(connection: Connection, embedding_type: str, folder: Path, rebuild: str) -> str:
    """Compare the places of the map with the embeddings and with `map.tsv`, and the model with its record.

    Parameters
    ----------
    connection : Connection
    embedding_type : str
    folder : Path
        State folder of the embedding type.
    rebuild : str
        How the database is made anew.

    Raises
    ------
    InputError
        That names the first photos of each kind of fault.
    """
    tables, problems, n_places = Tables(embedding_type), Problems(), 0
    recorded, files = read_provenance(connection, embedding_type), (folder / "umap_model.pkl", folder / "map.tsv")
    way_out = rebuild
    if is_due(folder / "map_stored.json", folder / "embeddings.json"):
        way_out = "run snakemake"
    elif _files_digest(*files) != recorded.get("map_digest"):
        way_out = f"{way_back(*files)}, photos keep their places"
        problems.add("files of the map are not what was stored", "umap_model.pkl or map.tsv", way_out)
        problems.check()
    for table in (tables.umap_haversine, tables.umap_model):
        if not sa.inspect(connection).has_table(table.name):
            raise InputError(f"there is no table {table}: {way_out}")
    models = connection.scalars(sa.select(tables.umap_model)).all()
    if [hashlib.sha256(model).hexdigest() for model in models] != [recorded.get("map_model_digest")]:
        problems.add("models are there, and not the one that was stored", tables.umap_model, way_out)
    latitude, longitude = tables.umap_haversine.c.keys()[1:]
    for uuid, told in _by_uuid(
        _table_rows(connection, tables.embeddings, "embedding"),
        _table_rows(connection, tables.umap_haversine, "place", latitude, longitude),
        _file_rows(folder / "map.tsv", MAP_COLUMNS, "file"),
    ):
        n_places += 1
        place = told.get("place")
        if ("embedding" in told) != (place is not None):
            problems.add("embeddings without place" if place is None else "places without embedding", uuid, way_out)
        elif place is None:
            problems.add("places of map.tsv without embedding", uuid, way_out)
        elif not all(isinstance(x, float) and abs(x) <= limit for x, limit in zip(place, (90, 180), strict=True)):
            problems.add("places off the sphere", uuid, way_out)
        elif [repr(x) for x in place] != told.get("file"):
            problems.add("places unlike those of map.tsv", uuid, way_out)
    problems.check()
    return f"{n_places} places, one for each embedding, as in map.tsv; model as stored"


def _by_uuid(*rows: Iterator[tuple]) -> Iterator[tuple[str, dict[str, list]]]:
    """Bring together what is told of each photo, from rows (UUID, what it is, *values) in the order of UUIDs."""
    for uuid, told in groupby(heapq.merge(*rows, key=itemgetter(0)), key=itemgetter(0)):
        yield uuid, {kind: values for _, kind, *values in told}


def _table_rows(connection: Connection, table: Table, kind: str, *columns: str) -> Iterator[tuple]:
    names, cursor = ", ".join(("UUID", *columns)), driver_cursor(connection)
    for uuid, *values in cursor.execute(f"SELECT {names} FROM {table} WHERE typeof(UUID) = 'text' ORDER BY UUID"):
        yield uuid, kind, *values


def _file_rows(path: Path, header: tuple[str, ...], kind: str) -> Iterator[tuple]:
    with using(path):
        last = ""
        for uuid, *values in read_tsv(path, header):
            if uuid <= last:
                raise damaged(path)
            last = uuid
            yield uuid, kind, *values


def _files_digest(*paths: Path) -> str:
    sha256 = hashlib.sha256()
    for path in filter(Path.exists, paths):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                sha256.update(chunk)
    return sha256.hexdigest()
