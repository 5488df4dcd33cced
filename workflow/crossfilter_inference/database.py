"""The database: its tables, the embedding codec, and all embeddings as one matrix.

The tables of an embedding type carry its name, `<TYPE>_EMBEDDINGS` and so on; a shard database has the same
ones for its own images. `EMBEDDING` is what `msgpack_numpy` writes for a 1-D little-endian float32 array: a
msgpack map with the keys nd, type, kind, shape, data. A reader in one line, with msgpack and numpy:

    numpy.frombuffer(msgpack.unpackb(blob)[b"data"], "<f4")

The floats are the last 4 n_dims bytes of the row, so a reader that knows this needs no msgpack at all.
"""

import functools
import hashlib

import msgpack
import numpy as np
import sqlalchemy as sa
from sqlalchemy import BLOB, INTEGER, REAL, TEXT, Column, Connection, MetaData, Table

from .errors import InputError


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


@functools.cache  # a thousand shards ask for the same ones
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


def row_digest(uuid: str, blob: bytes | memoryview) -> int:
    """Digest one row of an embedding table."""
    return int.from_bytes(hashlib.sha256(uuid.encode() + blob).digest(), "big")


class RowsDigest:
    """The digest of a table of embeddings: the sum of its rows' digests, whatever their order.

    So it follows rows that come and go without a look at the others, and tells a table that something else has changed.

    Parameters
    ----------
    text : str
        64 hexadecimal digits; that of no rows by default.
    """

    def __init__(self, text: str = "0"):
        self._sum = int(text, 16)

    def add(self, row_digest: int) -> None:
        """Take a row in."""
        self._sum += row_digest

    def remove(self, row_digest: int) -> None:
        """Take a row out."""
        self._sum -= row_digest

    def __str__(self) -> str:
        return f"{self._sum % 2**256:064x}"


def digest_rows(connection: Connection, embedding_type: str) -> tuple[int, str]:
    """Digest all embeddings from the rows themselves.

    Returns
    -------
    n_rows : int
    digest : str
    """
    digest, n_rows = RowsDigest(), 0
    table = Tables(embedding_type).embeddings
    # The driver's own cursor: SQLAlchemy would take most of the time.
    for uuid, blob in connection.connection.cursor().execute(f"SELECT UUID, EMBEDDING FROM {table}"):
        digest.add(row_digest(uuid, blob))
        n_rows += 1
    return n_rows, str(digest)
