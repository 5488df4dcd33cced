"""The database: its tables, the embedding codec, and all embeddings as one matrix.

The tables of an embedding type carry its name, `<TYPE>_EMBEDDINGS` and so on; a shard database has the same
ones for its own images. `EMBEDDING` is what `msgpack_numpy` writes for a 1-D little-endian float32 array: a
msgpack map with the keys nd, type, kind, shape, data. A reader in one line, with msgpack and numpy:

    numpy.frombuffer(msgpack.unpackb(blob)[b"data"], "<f4")

The floats are the last 4 n_dims bytes of the row, so a reader that knows this needs no msgpack at all.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import numpy as np
import sqlalchemy as sa
from sqlalchemy import BLOB, INTEGER, REAL, TEXT, Column, Connection, MetaData, RowMapping, Select, Table

from .errors import InputError

_BUSY_SECONDS = 60  # how long a writer waits for readers to let go
# Of new databases. Embeddings of 768 dimensions leave a quarter of SQLite's usual 4,096 bytes empty, longer ones
# spill over; in pages of this size a database is a fifth smaller and is read a sixth faster.
_PAGE_BYTES = 16384


def pack_embedding(embedding: np.ndarray) -> bytes:
    """Pack one embedding as `msgpack_numpy` does.

    Parameters
    ----------
    embedding : array of shape (n_dims,), float32
    """
    vector = np.ascontiguousarray(embedding, "<f4")
    return msgpack.packb({b"nd": True, b"type": "<f4", b"kind": b"", b"shape": vector.shape, b"data": vector.tobytes()})


def unpack_embedding(blob: bytes) -> np.ndarray:
    """Unpack one row.

    Returns
    -------
    array of shape (n_dims,), float32
    """
    return np.frombuffer(msgpack.unpackb(blob)[b"data"], "<f4")


class Tables:
    """The tables of one embedding type."""

    def __init__(self, embedding_type: str):
        self.metadata = MetaData()

        def table(name: str, *columns: Column) -> Table:
            return Table(f"{embedding_type}_{name}", self.metadata, *columns)

        def uuid() -> Column:
            return Column("UUID", TEXT, primary_key=True)

        self.embeddings = table("EMBEDDINGS", uuid(), Column("EMBEDDING", BLOB, nullable=False))
        self.images = table(
            "IMAGES",
            uuid(),
            Column("PATH", TEXT),
            Column("SIZE", INTEGER),
            Column("MTIME_NS", INTEGER),
            Column("DIGEST", TEXT),
            Column("WIDTH", INTEGER),
            Column("HEIGHT", INTEGER),
            Column("TAKEN", TEXT),
            Column("SHARD", TEXT),
        )
        self.failures = table(
            "FAILURES",
            uuid(),
            Column("PATH", TEXT),
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

    def create(self, connection: Connection, *tables: Table) -> None:
        """Create those of the tables that are not there yet."""
        self.metadata.create_all(connection, tables=tables)


@contextmanager
def reading(path: str | Path, *, wait: float = _BUSY_SECONDS) -> Iterator[Connection]:
    """Open a database for reading only, for `wait` seconds at most while a writer holds it."""
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    with _connect(lambda: sqlite3.connect(uri, uri=True, timeout=wait), "BEGIN") as connection:
        yield connection


@contextmanager
def writing(path: str | Path) -> Iterator[Connection]:
    """Open a database for one transaction: all of the block is kept, or, if it raises, nothing.

    Raises
    ------
    InputError
        If SQLite cannot write: locked for a minute, no space left, read-only.
    """
    with _writable(path, "BEGIN IMMEDIATE") as connection:
        yield connection


def recover(path: str | Path) -> None:
    """Roll back what a killed writer left; readers, who may not write, cannot.

    Raises
    ------
    InputError
        If SQLite cannot.
    """
    with _writable(path, "BEGIN") as connection:  # not a writer's: it would have to wait for every reader
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()


def read_embeddings(connection: Connection, embedding_type: str) -> tuple[list[str], np.ndarray]:
    """Read every embedding, in order of UUID.

    Returns
    -------
    uuids : list of str
    embeddings : array of shape (n_images, n_dims), float32; (0, 0) without rows

    Raises
    ------
    InputError
        If rows differ in length.
    """
    table = Tables(embedding_type).embeddings
    n_rows = connection.scalar(sa.select(sa.func.count()).select_from(table))
    # The driver's own cursor, and bytes moved once: SQLAlchemy and msgpack would take most of the time.
    rows = connection.connection.cursor().execute(str(sa.select(table).order_by(table.c.UUID).compile(connection)))
    uuids: list[str] = []
    embeddings = np.empty((0, 0), "<f4")
    for uuid, blob in rows:
        if not uuids:
            n_bytes, n_dims = len(blob), len(unpack_embedding(blob))
            embeddings = np.empty((n_rows, n_dims), "<f4")
            floats, n_header, end = memoryview(embeddings).cast("B"), n_bytes - 4 * n_dims, 0
        if len(blob) != n_bytes:
            raise InputError(
                f"{table.name} mixes embeddings of different length (rows of {n_bytes} and of {len(blob)} bytes); "
                "use another embedding_type or another database for the other encoder"
            )
        start, end = end, end + 4 * n_dims
        floats[start:end] = memoryview(blob)[n_header:]
        uuids.append(uuid)
    return uuids, embeddings


def read_provenance(connection: Connection, embedding_type: str) -> dict[str, str]:
    """Read what made the embeddings and the map; empty, if nothing has been recorded."""
    table = Tables(embedding_type).provenance
    if not sa.inspect(connection).has_table(table.name):
        return {}
    return dict(connection.execute(sa.select(table)).tuples().all())


def recorded_encoder(connection: Connection, embedding_type: str) -> dict[str, str]:
    """Read what is recorded of the encoder; empty, if nothing is."""
    return with_prefix("encoder_", read_provenance(connection, embedding_type))


def unknown_rows(connection: Connection, embedding_type: str) -> set[str]:
    """Name the embeddings of which nothing is on record: the original tool wrote them, say.

    Returns
    -------
    set of str
        Their UUIDs.
    """
    tables = Tables(embedding_type)
    names = sa.inspect(connection).get_table_names()
    if tables.embeddings.name not in names:
        return set()
    query = sa.select(tables.embeddings.c.UUID)
    if tables.images.name in names:
        query = query.where(tables.embeddings.c.UUID.not_in(sa.select(tables.images.c.UUID)))
    return set(connection.scalars(query))


def write_provenance(connection: Connection, embedding_type: str, prefix: str, values: dict[str, str]) -> None:
    """Replace the recorded values whose keys start with `prefix`."""
    table = Tables(embedding_type).provenance
    connection.execute(sa.delete(table).where(table.c.KEY.startswith(prefix, autoescape=True)))
    connection.execute(sa.insert(table), [{"KEY": f"{prefix}{key}", "VALUE": value} for key, value in values.items()])


def with_prefix(prefix: str, provenance: dict[str, str]) -> dict[str, str]:
    """Take the values whose keys start with `prefix`, by the rest of the key."""
    return {key.removeprefix(prefix): value for key, value in provenance.items() if key.startswith(prefix)}


def read_shard_provenance(path: str, embedding_type: str) -> dict[str, str]:
    """Read what made a shard database.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        with reading(path) as connection:
            provenance = read_provenance(connection, embedding_type)
            if "shard_digest" in provenance:
                return provenance
    except sa.exc.DatabaseError:
        pass
    raise _damaged(path)


def read_shard(path: str, query: Select) -> Iterator[RowMapping]:
    """Yield rows of a shard database.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        with reading(path) as source:
            yield from source.execute(query).mappings()
    except sa.exc.DatabaseError:
        raise _damaged(path) from None


@contextmanager
def _writable(path: str | Path, begin: str) -> Iterator[Connection]:
    def connect() -> sqlite3.Connection:
        is_new = not os.path.exists(path)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
        if is_new:
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        return connection

    try:
        with _connect(connect, begin) as connection:
            yield connection
    except sa.exc.DatabaseError as error:
        broken = any(word in str(error.orig) for word in ("malformed", "not a database"))
        way_out = "move it away, and it is made again from what lies beside it" if broken else "it is as it was before"
        raise InputError(f"cannot write to the database {str(path)!r} ({error.orig}); {way_out}") from None


@contextmanager
def _connect(connect: object, begin: str) -> Iterator[Connection]:
    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)

    # Python's sqlite3 begins transactions by itself, late, and not before CREATE TABLE: we begin them.
    @sa.event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    with engine.begin() as connection:
        yield connection


def _damaged(path: str) -> InputError:
    return InputError(f"{path!r} is damaged; delete it, and it is made again")
