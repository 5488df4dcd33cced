"""Export a collection as a database that Crossfilter's application opens. To look at it:

pandas.read_sql("SELECT * FROM data", sqlite3.connect("crossfilter.sqlite"))
"""

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..collection import Collection
from ..db import crossfilter
from ..db.connect import chunks, driver_cursor, reading, writing
from ..db.tables import Row, Tables, columns_in
from ..util.files import new_part, publish
from ..util.progress import Progress
from ..util.text import counted, stored_path

logger = logging.getLogger(__name__)

_FACTS = ("PATH", "SIZE", "TAKEN", "TAKEN_OFFSET", "LATITUDE", "LONGITUDE")


def write_crossfilter(path: str, collection: Collection) -> None:
    """Write the tables of Crossfilter's application, one row per photo, in order of UUID.

    What the database does not hold is NULL. `db.crossfilter` lists the columns.

    Parameters
    ----------
    path : str
        File to write.
    collection : Collection
    """
    n_without = 0
    part = new_part(path)
    try:
        with reading(collection.database) as source, writing(part) as connection:
            crossfilter.create_tables(connection)
            models = sa.select(Tables(collection.embedding_type).umap_model.c.MODEL)
            for model in source.scalars(models) if _has_map(source, collection) else ():
                connection.execute(sa.insert(crossfilter.umap_model), {"UUID_STRING": "UMAP_MODEL", "MODEL": model})
            with Progress(len(collection.uuids), "database") as progress:
                for photos in _photos(source, collection):
                    on_map = [photo for photo in photos if None not in map(photo.get, crossfilter.POSITION)]
                    _insert(connection, crossfilter.data, photos)
                    _insert(connection, crossfilter.embeddings, photos)
                    _insert(connection, crossfilter.projections, on_map)
                    n_without += len(photos) - len(on_map)
                    progress.update(len(photos))
        publish(part, path)
    finally:
        for file in (part, Path(f"{part}-journal")):
            file.unlink(missing_ok=True)
    if n_without:
        logger.warning(
            "%s: the map does not show %s; run the workflow to update it", path, counted(n_without, "photos")
        )


def _insert(connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
    columns = table.c.keys()
    statement = f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})"
    driver_cursor(connection).executemany(statement, ([row[name] for name in columns] for row in rows))


def _has_map(source: sa.Connection, collection: Collection) -> bool:
    tables = Tables(collection.embedding_type)
    return bool(columns_in(source, tables.umap_model) and columns_in(source, tables.umap_haversine))


def _photos(source: sa.Connection, collection: Collection) -> Iterator[list[Row]]:
    """Yield the values of all columns of some photos at a time."""
    tables = Tables(collection.embedding_type)
    embeddings, images, positions = tables.embeddings, tables.images, tables.umap_haversine
    known = columns_in(source, images)  # an older database lacks some facts
    columns = [embeddings, *(images.c[name] if name in known else sa.null().label(name) for name in _FACTS)]
    joined = embeddings.outerjoin(images, embeddings.c.UUID == images.c.UUID) if known else embeddings
    if _has_map(source, collection):
        columns += [positions.c[name] for name in crossfilter.POSITION]
        joined = joined.outerjoin(positions, embeddings.c.UUID == positions.c.UUID)
    else:
        columns += [sa.null().label(name) for name in crossfilter.POSITION]
    query = sa.select(*columns).select_from(joined).order_by(embeddings.c.UUID)
    for chunk in chunks(collection.uuids):
        found = source.execute(query.where(embeddings.c.UUID.in_(chunk))).mappings()
        yield [_row(photo) for photo in found]


def _row(photo: sa.RowMapping) -> Row:
    path = photo["PATH"]
    return {
        "UUID_STRING": photo["UUID"],
        "DATA_TYPE": "PHOTO",
        "NAME": path and stored_path(os.path.basename(path)),
        "CAPTION": None,
        "SOURCE_FILE": path and stored_path(path),
        **_times(photo["TAKEN"], photo["TAKEN_OFFSET"]),
        "GPS_LATITUDE": photo["LATITUDE"],
        "GPS_LONGITUDE": photo["LONGITUDE"],
        "RATING_0_TO_5": None,
        "SIZE_IN_BYTES": photo["SIZE"],
        **{name: photo[name] for name in crossfilter.POSITION},
        "SEMANTIC_EMBEDDING": photo["EMBEDDING"],
    }


def _times(taken: str | None, offset: str | None) -> dict[str, Any]:
    """Return the time of a photo as recorded, and in UTC.

    All times in UTC have one form, because pandas derives the form from the first one and drops all others. Without an
    offset, local time stands for UTC, as in the application's own import.
    """
    try:
        recorded = f"{taken or ''}{offset or ''}"
        time = datetime.fromisoformat(recorded)
        utc = time.astimezone(UTC) if time.tzinfo else time
    except (ValueError, OverflowError):  # what is no time is unknown
        return {"TIMESTAMP_MAYBE_TIMEZONE_AWARE": None, "TIMESTAMP_UTC": None}
    as_text = f"{utc.replace(tzinfo=None).isoformat(timespec='seconds')}Z"
    return {"TIMESTAMP_MAYBE_TIMEZONE_AWARE": recorded, "TIMESTAMP_UTC": as_text}
