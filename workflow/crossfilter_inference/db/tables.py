"""The tables of an embedding type, their format, and the steps from an older format to this one.

The tables carry the name of the embedding type: `<TYPE>_EMBEDDINGS` and so on. A shard database has the same tables for
its own images. `Tables` is the only list of columns: all rows are read and written by these names.

A database and a shard record their format in `<TYPE>_PROVENANCE` under the key `format_version`; without this key, the
format is 1. To add a column: append it to its table in `Tables`, and append a step to `_STEPS`.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import (
    BLOB,
    INTEGER,
    REAL,
    TEXT,
    Column,
    Connection,
    MetaData,
    Table,
    TypeDecorator,
    cast,
    delete,
    insert,
    select,
    update,
)

from ..errors import InputError
from ..util.text import read_path, stored_path

Row = dict[str, Any]  # the values of one row, by column
FORMAT_KEY = "format_version"
VERSION_KEY = "encoder_embed_version"
VERSION_COLUMN = "EMBED_VERSION"


class PathText(TypeDecorator[str]):
    """A column of paths: TEXT, in which any path of the file system can stand (`stored_path`)."""

    impl = TEXT
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        """Write a path."""
        return None if value is None else stored_path(value)

    def process_result_value(self, value: str | None, dialect: object) -> str | None:
        """Read a path."""
        return read_path(value) if isinstance(value, str) else value


class NewerFormat(InputError):
    """A database or a shard that a newer version has written."""


@cache  # a thousand shards use the same ones
class Tables:
    """The tables of one embedding type."""

    def __init__(self, embedding_type: str):
        self.metadata = MetaData()

        def table(name: str, *columns: Column[Any]) -> Table:
            return Table(f"{embedding_type}_{name}", self.metadata, *columns)

        def uuid() -> Column[str]:
            return Column("UUID", TEXT, primary_key=True)

        def fact(name: str, kind: type[INTEGER] | type[REAL[Any]] | type[TEXT]) -> Column[Any]:
            return Column(name, kind, info={"is_fact": True})

        self.embeddings = table("EMBEDDINGS", uuid(), Column("EMBEDDING", BLOB, nullable=False))
        # A fact is a key of `LoadedImage.facts`, in lower case there. Round a REAL to less than 15 digits: a merge
        # reads rows as JSON, for which SQLite rounds to 15.
        self.images = table(
            "IMAGES",
            uuid(),
            Column("PATH", PathText),
            Column("SIZE", INTEGER),
            Column("MTIME_NS", INTEGER),
            Column("DIGEST", TEXT),
            fact("WIDTH", INTEGER),
            fact("HEIGHT", INTEGER),
            fact("TAKEN", TEXT),
            Column("SHARD", TEXT),
            Column(VERSION_COLUMN, INTEGER),
            *(fact(name, TEXT) for name in ("TAKEN_OFFSET", "TAKEN_FROM", "CAMERA")),
            *(fact(name, REAL) for name in ("LATITUDE", "LONGITUDE", "ALTITUDE")),
        )
        self.failures = table(
            "FAILURES",
            uuid(),
            Column("PATH", PathText),
            Column("REASON", TEXT),
            Column("MESSAGE", TEXT),
            Column("SHARD", TEXT),
        )
        self.provenance = table("PROVENANCE", Column("KEY", TEXT, primary_key=True), Column("VALUE", TEXT))
        self.shards = table("SHARDS", Column("SHARD", TEXT, primary_key=True), Column("DIGEST", TEXT))
        self.thumbnails = table("THUMBNAILS", uuid(), Column("JPEG", BLOB, nullable=False))
        self.umap_model = table("UMAP_MODEL", Column("MODEL", BLOB, nullable=False))
        self.umap_haversine = table(
            "UMAP_HAVERSINE",
            uuid(),
            Column("SEMANTIC_EMBEDDING_UMAP_LATITUDE", REAL),
            Column("SEMANTIC_EMBEDDING_UMAP_LONGITUDE", REAL),
        )

    @property
    def facts(self) -> list[str]:
        """Columns of the image table that describe the decoded photo."""
        return [column.name for column in self.images.c if "is_fact" in column.info]

    def create(self, connection: Connection, *tables: Table) -> None:
        """Create the given tables, except those that exist."""
        self.metadata.create_all(connection, tables=tables)


def columns_in(connection: Connection, table: Table) -> list[str]:
    """Return the columns of a table that exist in this database, in the order of `Tables`; none without the table."""
    query = "SELECT name FROM pragma_table_info(?)"
    existing = {name for (name,) in connection.exec_driver_sql(query, (table.name,))}
    return [column.name for column in table.c if column.name in existing]


def read_provenance(connection: Connection, embedding_type: str) -> dict[str, str]:
    """Read the provenance of the embeddings and the map; empty if nothing is recorded.

    Raises
    ------
    NewerFormat
        If a newer version wrote this embedding type.
    """
    table = Tables(embedding_type).provenance
    values: dict[str, str] = {}
    if columns_in(connection, table):
        values = dict(connection.exec_driver_sql(f"SELECT KEY, VALUE FROM {table}").tuples().all())
    version = str(values.get(FORMAT_KEY, "1"))
    if not (version.isdecimal() and 1 <= int(version) <= FORMAT_VERSION):
        query = "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'"
        path = os.fsdecode(connection.exec_driver_sql(query).scalar_one())
        raise NewerFormat(
            f"{path!r} has format {version} of {embedding_type}, and this version of crossfilter-inference supports "
            f"formats up to {FORMAT_VERSION}; upgrade crossfilter-inference. Nothing was changed"
        )
    return values


def check_format(connection: Connection, embedding_type: str) -> int:
    """Return the format of an embedding type in a database or a shard, at most `FORMAT_VERSION`.

    Raises
    ------
    NewerFormat
        If this version does not know the format.
    """
    return int(read_provenance(connection, embedding_type).get(FORMAT_KEY, "1"))


def migrate(connection: Connection, embedding_type: str) -> None:
    """Bring the tables of an embedding type to this format, and record it; nothing else in the database changes.

    Tables that are missing stay missing, except the provenance table.

    Parameters
    ----------
    connection : Connection
        In a transaction for writing.
    embedding_type : str

    Raises
    ------
    NewerFormat
        If this version does not know the format.
    """
    tables = Tables(embedding_type)
    for step in _STEPS[check_format(connection, embedding_type) - 1 :]:
        step(connection, tables)
    tables.create(connection, tables.provenance)
    connection.execute(delete(tables.provenance).where(tables.provenance.c.KEY == FORMAT_KEY))
    connection.execute(insert(tables.provenance), {"KEY": FORMAT_KEY, "VALUE": str(FORMAT_VERSION)})


def _add_column(connection: Connection, table: Table, name: str) -> None:
    """Add a column to a table, with NULL in the existing rows, unless the table is missing or has the column."""
    existing = columns_in(connection, table)
    if existing and name not in existing:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {name} {table.c[name].type}")


def _record_embed_versions(connection: Connection, tables: Tables) -> None:
    """Give each row its embed version; until now, all rows had that of the recorded encoder."""
    _add_column(connection, tables.images, VERSION_COLUMN)
    if columns_in(connection, tables.images) and columns_in(connection, tables.provenance):
        recorded = select(cast(tables.provenance.c.VALUE, INTEGER)).where(tables.provenance.c.KEY == VERSION_KEY)
        version = tables.images.c[VERSION_COLUMN]
        connection.execute(
            update(tables.images).where(version.is_(None)).values({VERSION_COLUMN: recorded.scalar_subquery()})
        )


def _add_image_columns(*names: str) -> Callable[[Connection, Tables], None]:
    """Return a step that adds columns to the image table, with NULL in the existing rows."""

    def step(connection: Connection, tables: Tables) -> None:
        for name in names:
            _add_column(connection, tables.images, name)

    return step


# Step 1 leads from format 1 to 2, and so on; a step never changes.
_STEPS: tuple[Callable[[Connection, Tables], None], ...] = (
    _record_embed_versions,
    _add_image_columns("TAKEN_OFFSET", "TAKEN_FROM", "CAMERA", "LATITUDE", "LONGITUDE", "ALTITUDE"),
)
FORMAT_VERSION = 1 + len(_STEPS)
