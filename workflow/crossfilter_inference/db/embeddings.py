"""Embeddings as the database holds them: the codec of one row, and all rows as one matrix.

`EMBEDDING` is what `msgpack_numpy` writes for a 1-D little-endian float32 array: a msgpack map with the keys nd,
type, kind, shape, data. A reader in one line, with msgpack and numpy:

    numpy.frombuffer(msgpack.unpackb(blob)[b"data"], "<f4")

The floats are the last 4 n_dims bytes of the row, so a reader that knows this needs no msgpack at all.
"""

import msgpack
import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from ..errors import InputError
from .tables import Tables


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
