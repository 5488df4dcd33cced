"""The view PHOTOS: where and when each photo was taken and its position on the map, for people with a database browser.

It has one row per photo and embedding type. If a user makes a table, view or index of that name, it is left alone.
"""

import re

from sqlalchemy import Connection

from .tables import Tables, columns_in

VIEW_MARK = "/* of crossfilter-inference */"
_VIEW = f"CREATE VIEW PHOTOS AS {VIEW_MARK} "
# SQLite has no function for it: remove all that is no slash from the end.
_FOLDER = "rtrim(PATH, replace(PATH, '/', ''))"
_OWN = ("TAKEN", "TAKEN_OFFSET", "TAKEN_FROM", "LATITUDE", "LONGITUDE", "ALTITUDE", "CAMERA")


def create_photos_view(connection: Connection) -> None:
    """Create the view, or bring it up to date with the tables of the database.

    Parameters
    ----------
    connection : Connection
        In a transaction for writing.
    """
    schema = "SELECT upper(name), sql FROM sqlite_master WHERE sql IS NOT NULL"  # SQLite ignores case in names
    existing: dict[str, str] = dict(connection.exec_driver_sql(schema).tuples().all())
    types = [name.removesuffix("_IMAGES") for name in sorted(existing) if re.fullmatch(r"\w+_IMAGES", name)]
    view = _VIEW + " UNION ALL ".join(
        _select(connection, Tables(name))
        for name in types
        if {f"{name}_EMBEDDINGS", f"{name}_PROVENANCE"} <= existing.keys()
    )
    old = existing.get("PHOTOS", _VIEW)
    if VIEW_MARK in old and old != view:
        connection.exec_driver_sql("DROP VIEW IF EXISTS PHOTOS")
        connection.exec_driver_sql(view)


def _select(connection: Connection, tables: Tables) -> str:
    """Select the photos of one embedding type; older tables lack some columns."""
    known, positions = columns_in(connection, tables.images), tables.umap_haversine
    own = ", ".join(name if name in known else f"NULL AS {name}" for name in _OWN)
    uuid, latitude, longitude = positions.c.keys()
    on_map, join = f"{latitude} AS MAP_LATITUDE, {longitude} AS MAP_LONGITUDE", f"LEFT JOIN {positions} USING ({uuid})"
    if not columns_in(connection, positions):
        on_map, join = "NULL AS MAP_LATITUDE, NULL AS MAP_LONGITUDE", ""
    embedding_type = tables.images.name.removesuffix("_IMAGES")
    return (
        f"SELECT replace(PATH, {_FOLDER}, '') AS NAME, {_FOLDER} AS FOLDER, {own}, {on_map}, "
        f"'{embedding_type}' AS EMBEDDING_TYPE, PATH, {uuid} FROM {tables.images} {join}"
    )
