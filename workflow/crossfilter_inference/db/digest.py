"""The digest of a table of embeddings."""

import hashlib

from sqlalchemy import Connection

from .tables import Tables


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
