"""The tables of Crossfilter's application, as its version of September 2025 reads and writes them.

The application shows the table `data`. Its own inference tool fills the other tables, for one model, whose name it does
not record. `SEMANTIC_EMBEDDING` has the format of `db.embeddings`. An earlier version had tables named as those here.
"""

from typing import Any

from sqlalchemy import BLOB, INTEGER, REAL, TEXT, Column, Connection, MetaData, Table, func, select

from .tables import Tables, columns_in

POSITION = ("SEMANTIC_EMBEDDING_UMAP_LATITUDE", "SEMANTIC_EMBEDDING_UMAP_LONGITUDE")
_APPLICATION_ID = 0x43464958  # "CFIX", in the header of the databases that are exported

MODEL, _DIMENSION = "google/siglip-so400m-patch14-384", 1152  # of both versions, under the name SIGLIP2

_metadata = MetaData()


def _table(name: str, **columns: type[INTEGER] | type[REAL[Any]] | type[TEXT] | type[BLOB]) -> Table:
    uuid = Column("UUID_STRING", TEXT, primary_key=True)
    return Table(name, _metadata, uuid, *(Column(column, kind) for column, kind in columns.items()))


data = _table(
    "data",
    DATA_TYPE=TEXT,
    NAME=TEXT,
    CAPTION=TEXT,
    SOURCE_FILE=TEXT,
    TIMESTAMP_MAYBE_TIMEZONE_AWARE=TEXT,
    TIMESTAMP_UTC=TEXT,
    GPS_LATITUDE=REAL,
    GPS_LONGITUDE=REAL,
    RATING_0_TO_5=INTEGER,
    SIZE_IN_BYTES=INTEGER,
    **dict.fromkeys(POSITION, REAL),
)
embeddings = _table("IMAGE_EMBEDDINGS", SEMANTIC_EMBEDDING=BLOB)
projections = _table("IMAGE_UMAP_PROJECTIONS", **dict.fromkeys(POSITION, REAL))
umap_model = _table("UMAP_MODEL", MODEL=BLOB)
TABLES = frozenset(_metadata.tables)  # their names


def create_tables(connection: Connection) -> None:
    """Create the tables in a new database, and mark it as exported.

    Parameters
    ----------
    connection : Connection
        In the only transaction that the database will have seen.
    """
    connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
    _metadata.create_all(connection)


def is_export(head: bytes) -> bool:
    """Return whether a database is an export that no program has changed since.

    Parameters
    ----------
    head : bytes
        The first 100 bytes of the file or more (https://www.sqlite.org/fileformat2.html#the_database_header).
    """
    n_changes = int.from_bytes(head[24:28], "big")
    return head[68:72] == _APPLICATION_ID.to_bytes(4, "big") and n_changes == 1


def adoptable_rows(connection: Connection, embedding_type: str, n_bytes: int | None = None) -> set[str]:
    """Find the application's embeddings of photos that have had none of this embedding type.

    Parameters
    ----------
    connection : Connection
    embedding_type : str
    n_bytes : int, optional
        Length of an embedding in its format; rows of other lengths are left out.

    Returns
    -------
    set of str
        UUIDs of the photos.
    """
    if columns_in(connection, embeddings) != embeddings.c.keys():
        return set()
    query = select(embeddings.c.UUID_STRING)
    if n_bytes is not None:
        query = query.where(func.length(embeddings.c.SEMANTIC_EMBEDDING) == n_bytes)
    for table in (Tables(embedding_type).embeddings, Tables(embedding_type).images):
        if columns_in(connection, table):
            query = query.where(embeddings.c.UUID_STRING.not_in(select(table.c.UUID)))
    return set(connection.scalars(query))


def model_hint(n_dims: int, embedding_type: str) -> str:
    """Say how to use rows of the original tool's model, if they have its number of dimensions; else an empty text."""
    if n_dims != _DIMENSION:
        return ""
    setting = f"encoders: {{{embedding_type}: {{model: {MODEL}}}}}"
    return f" (the original tool's SIGLIP2 has as many: to go on with its rows, set {setting}; see docs/original.md)"
