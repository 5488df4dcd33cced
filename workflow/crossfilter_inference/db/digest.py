"""The digest of an embedding table, updated as rows are added and removed."""

import hashlib

from sqlalchemy import Connection

from .connect import driver_cursor
from .tables import Tables


def row_digest(uuid: str, blob: bytes | memoryview) -> int:
    """Digest one row of an embedding table."""
    return int.from_bytes(hashlib.sha256(uuid.encode() + blob).digest(), "big")


class RowsDigest:
    """The digest of an embedding table: the sum of its rows' digests, modulo 2**256.

    It does not depend on the order of rows. Adding or removing a row needs no other row. A table that another program
    has changed has another digest.

    Parameters
    ----------
    text : str
        64 hexadecimal digits; by default, the digest of a table without rows.
    """

    def __init__(self, text: str = "0"):
        self._sum = int(text, 16)

    def add(self, row_digest: int) -> None:
        """Add the digest of a row, or the sum of several."""
        self._sum += row_digest

    def remove(self, row_digest: int) -> None:
        """Remove the digest of a row."""
        self._sum -= row_digest

    def __str__(self) -> str:
        return f"{self._sum % 2**256:064x}"


def digest_rows(connection: Connection, embedding_type: str) -> tuple[int, str]:
    """Compute the digest of an embedding table from its rows.

    Returns
    -------
    n_rows : int
    digest : str
    """
    digest, n_rows = RowsDigest(), 0
    table = Tables(embedding_type).embeddings
    for uuid, blob in driver_cursor(connection).execute(f"SELECT UUID, EMBEDDING FROM {table}"):
        digest.add(row_digest(uuid, blob))
        n_rows += 1
    return n_rows, str(digest)
