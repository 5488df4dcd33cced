"""Export a collection as Parquet, as a NumPy array, or as a table for Apple's embedding-atlas.

To read them:

pandas.read_parquet("photos.parquet")
numpy.load("photos.npy"), pathlib.Path("photos.uuids.txt").read_text().splitlines()
embedding-atlas atlas.parquet --x X --y Y --neighbors NEIGHBOURS
"""

import os
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from ..collection import Collection
from ..map.contents import MapContents
from ..map.sphere import hammer
from ..util.files import new_part, publish, write_text, writing_to
from ..util.text import stored_path

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 2_000  # per row group


def write_parquet(path: str, collection: Collection, contents: MapContents) -> None:
    """Write embeddings, positions and neighbours as Parquet, one row per photo, in order of UUID.

    Columns: UUID, NAME, FOLDER, PATH, TAKEN (timestamp, local time), TAKEN_OFFSET (text, offset from UTC), CAMERA,
    EARTH_LATITUDE, EARTH_LONGITUDE (where the photo was taken, in degrees), ALTITUDE (metres), MISSING (whether its
    file is missing), REGION, LATITUDE, LONGITUDE (position on the map, in degrees), EMBEDDING (fixed-size list of
    float32), NEIGHBOURS (list of UUIDs, nearest first), SIMILARITIES (list of cosines with these neighbours).

    Parameters
    ----------
    path : str
        File to write.
    collection : Collection
    contents : MapContents
        The map of this collection.
    """
    import pyarrow as pa

    n_dims = collection.embeddings.shape[1]
    uuids = np.array(collection.uuids, object)

    def rows(part: slice) -> dict[str, Any]:
        return {
            "UUID": uuids[part],
            **_file_columns(contents, part),
            "EMBEDDING": _fixed_size(collection.embeddings[part], n_dims),
            "NEIGHBOURS": [uuids[row].tolist() for row in _known(contents, part, contents.neighbours)],
            "SIMILARITIES": _known(contents, part, contents.similarity),
        }

    schema = {
        "UUID": pa.string(),
        **_file_schema(),
        "EMBEDDING": pa.list_(pa.float32(), n_dims),
        # Some readers cannot read fixed-size lists of texts.
        "NEIGHBOURS": pa.list_(pa.string()),
        "SIMILARITIES": pa.list_(pa.float32()),
    }
    _write_table(path, schema, rows, len(uuids))


def write_atlas(path: str, collection: Collection, contents: MapContents) -> None:
    """Write the flat map with thumbnails and neighbours as Parquet for embedding-atlas, one row per photo.

    Columns: UUID to LONGITUDE as of `write_parquet`, X, Y (Hammer equal-area projection, in [-2, 2] and [-1, 1]),
    THUMBNAIL (JPEG), NEIGHBOURS (ids, which are row numbers, and cosine distances).

    Parameters
    ----------
    path : str
        File to write.
    collection : Collection
    contents : MapContents
        The map of this collection.
    """
    import pyarrow as pa

    x, y = hammer(contents.latitude, contents.longitude)
    distances = 1 - contents.similarity

    def rows(part: slice) -> dict[str, Any]:
        thumbnails = collection.thumbnails(collection.uuids[part])
        lists = [
            pa.array(_known(contents, part, contents.neighbours), pa.list_(pa.int64())),
            pa.array(_known(contents, part, distances), pa.list_(pa.float32())),
        ]
        return {
            "UUID": collection.uuids[part],
            **_file_columns(contents, part),
            "X": x[part],
            "Y": y[part],
            "THUMBNAIL": [{"bytes": thumbnails.get(uuid)} for uuid in collection.uuids[part]],
            "NEIGHBOURS": pa.StructArray.from_arrays(lists, ["ids", "distances"]),
        }

    schema = {
        "UUID": pa.string(),
        **_file_schema(),
        "X": pa.float64(),
        "Y": pa.float64(),
        "THUMBNAIL": pa.struct([("bytes", pa.binary())]),
        "NEIGHBOURS": pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))]),
    }
    _write_table(path, schema, rows, len(collection.uuids))


def _known(contents: MapContents, part: slice, values: np.ndarray) -> list[np.ndarray]:
    """Return the values of each photo's neighbours that were not left out."""
    return [row[near >= 0] for row, near in zip(values[part], contents.neighbours[part], strict=True)]


# Columns of facts, and their names in an export, where latitude and longitude are those of the map.
_FACTS = {
    "TAKEN": "TAKEN",
    "TAKEN_OFFSET": "TAKEN_OFFSET",
    "CAMERA": "CAMERA",
    "LATITUDE": "EARTH_LATITUDE",
    "LONGITUDE": "EARTH_LONGITUDE",
    "ALTITUDE": "ALTITUDE",
}


def _file_columns(contents: MapContents, part: slice) -> dict[str, Any]:
    """Return what is known about the files of some photos, and where they are on the map."""
    paths = contents.paths[part]
    unknown = [None] * len(contents.paths)  # an older database lacks some facts
    facts = {name: contents.facts.get(fact, unknown)[part] for fact, name in _FACTS.items()}
    return {
        "NAME": [stored_path(os.path.basename(path)) for path in paths],
        "FOLDER": [stored_path(os.path.dirname(path)) for path in paths],
        "PATH": [*map(stored_path, paths)],
        **facts,
        "TAKEN": [_timestamp(text) for text in facts["TAKEN"]],
        "MISSING": contents.missing[part],
        "REGION": [contents.region_name(number) for number in contents.region_of[part].tolist()],
        "LATITUDE": contents.latitude[part],
        "LONGITUDE": contents.longitude[part],
    }


def _timestamp(text: str | None) -> datetime | None:
    """Parse a time as the database holds it; None if it is none."""
    try:
        return datetime.fromisoformat(text or "").replace(tzinfo=None)
    except ValueError:
        return None


def _file_schema() -> "dict[str, pa.DataType]":
    import pyarrow as pa

    numbers = ("EARTH_LATITUDE", "EARTH_LONGITUDE", "ALTITUDE")
    texts = ("NAME", "FOLDER", "PATH", *_FACTS.values())
    kinds = {name: pa.float64() if name in numbers else pa.string() for name in texts}
    places = {"REGION": pa.string(), "LATITUDE": pa.float64(), "LONGITUDE": pa.float64()}
    return {**kinds, "TAKEN": pa.timestamp("us"), "MISSING": pa.bool_(), **places}


def write_npy(path: str, collection: Collection) -> None:
    """Write the embeddings as a NumPy array of shape (n_images, n_dims), float32."""
    part = new_part(path)
    try:
        with writing_to(path), part.open("wb") as file:
            # On a full disk, np.save reports only how much was written.
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(collection.embeddings))
            file.write(collection.embeddings.data)
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_uuids(path: str, collection: Collection) -> None:
    """Write the UUIDs as a text file, one per line, in the order of the rows of the array."""
    write_text(path, "".join(f"{uuid}\n" for uuid in collection.uuids))


def _fixed_size(values: np.ndarray, size: int) -> "pa.FixedSizeListArray":
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), size)


def _write_table(
    path: str, fields: dict[str, "pa.DataType"], rows: Callable[[slice], dict[str, Any]], n_rows: int
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def column(values: Any, kind: pa.DataType) -> pa.Array:
        return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)

    schema = pa.schema(list(fields.items()))
    part = new_part(path)
    try:
        # pyarrow can open a file only if its path is UTF-8.
        with (
            writing_to(path),
            part.open("wb") as file,
            parquet.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            for start in range(0, n_rows, _ROWS):
                columns = rows(slice(start, start + _ROWS))
                writer.write_table(pa.table([column(columns[name], kind) for name, kind in fields.items()], schema))
        publish(part, path)
    finally:
        part.unlink(missing_ok=True)
