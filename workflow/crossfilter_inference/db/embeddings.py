"""Embeddings in the database: pack and unpack one row, and read all rows as one matrix.

`EMBEDDING` is what `msgpack_numpy` writes for a 1-D little-endian float32 array: a msgpack map with the keys nd,
type, kind, shape, data. To read one in one line, with msgpack and numpy:

    numpy.frombuffer(msgpack.unpackb(blob)[b"data"], "<f4")

The floats are the last 4 n_dims bytes, so a reader that knows n_dims does not need msgpack.
"""

import msgpack
import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from ..errors import InputError
from .connect import driver_cursor
from .tables import Tables


def pack_embedding(embedding: np.ndarray) -> bytes:
    """Pack one embedding as `msgpack_numpy` does.

    Parameters
    ----------
    embedding : array of shape (n_dims,), float32
    """
    vector = np.ascontiguousarray(embedding, "<f4")
    value = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": vector.shape, b"data": vector.tobytes()}
    packed: bytes = msgpack.packb(value)
    return packed


def unpack_embedding(blob: bytes) -> np.ndarray:
    """Unpack one embedding.

    Returns
    -------
    array of shape (n_dims,), float32
    """
    return np.frombuffer(msgpack.unpackb(blob)[b"data"], "<f4")


def read_embeddings(connection: Connection, embedding_type: str) -> tuple[list[str], np.ndarray]:
    """Read all embeddings, in order of UUID.

    Returns
    -------
    uuids : list of str
    embeddings : array of shape (n_images, n_dims), float32; (0, 0) if the table has no rows

    Raises
    ------
    InputError
        If rows have different lengths.
    """
    table = Tables(embedding_type).embeddings
    n_rows = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    # The floats are copied once: unpacking each row with msgpack would take most of the time.
    rows = driver_cursor(connection).execute(str(sa.select(table).order_by(table.c.UUID).compile(connection)))
    uuids: list[str] = []
    embeddings = np.empty((0, 0), "<f4")
    for uuid, blob in rows:
        if not uuids:
            n_bytes, n_dims = len(blob), len(unpack_embedding(blob))
            embeddings = np.empty((n_rows, n_dims), "<f4")
            floats, n_header, end = embeddings.data.cast("B"), n_bytes - 4 * n_dims, 0
        if len(blob) != n_bytes:
            raise InputError(
                f"{table.name} mixes embeddings of different lengths (rows of {n_bytes} and of {len(blob)} bytes); "
                "use another embedding_type or another database for the other encoder"
            )
        start, end = end, end + 4 * n_dims
        floats[start:end] = memoryview(blob)[n_header:]
        uuids.append(uuid)
    return uuids, embeddings
