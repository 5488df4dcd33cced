"""Check the contents of the database and of each shard database on their own.

Rows are read in chunks, so that memory does not grow with the collection.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sqlalchemy import Connection

from ..db.connect import chunks, driver_cursor, reading
from ..db.embeddings import pack_embedding
from ..db.tables import NewerFormat, Tables, columns_in
from ..embed.reuse import LENGTH_TOLERANCE
from ..errors import InputError
from ..shards.plan import read_shard_list
from ..shards.shard import read_shard, read_shard_provenance
from ..util.progress import Progress
from ..util.text import counted
from .problems import Problems, is_outdated

_N_COMPLAINTS = 3  # of SQLite


def check_integrity(connection: Connection) -> str:
    """Return SQLite's complaints about a database; empty if it has none."""
    complaints = connection.exec_driver_sql(f"PRAGMA integrity_check({_N_COMPLAINTS})").scalars().all()
    return "" if complaints == ["ok"] else "; ".join(" ".join(line.split()) for line in complaints)


def check_embeddings(connection: Connection, embedding_type: str, n_dims: int, n_rows: int, rebuild: str) -> str:
    """Check that all embeddings are packed correctly, finite, and of unit length.

    Parameters
    ----------
    connection : Connection
    embedding_type : str
    n_dims : int
        Expected dimension of every embedding.
    n_rows : int
        Number of rows, for the progress bar.
    rebuild : str
        The fix that rebuilds the database.

    Returns
    -------
    str
        Summary.

    Raises
    ------
    InputError
        If a row is wrong; it names the first rows of each kind of problem.
    """
    problems, packed = Problems(), pack_embedding(np.zeros(n_dims))
    header = packed[: -4 * n_dims]
    rows = driver_cursor(connection).execute(f"SELECT UUID, EMBEDDING FROM {Tables(embedding_type).embeddings}")
    with Progress(n_rows, "embeddings") as progress:
        for chunk in chunks(rows):
            uuids, data = [], []
            for uuid, blob in chunk:
                if isinstance(blob, bytes) and len(blob) == len(packed) and blob.startswith(header):
                    uuids.append(uuid)
                    data.append(blob[len(header) :])
                else:
                    problems.add("rows", f"not {n_dims} float32 values in msgpack", uuid, rebuild)
            vectors = np.frombuffer(b"".join(data), "<f4").reshape(-1, n_dims)
            is_finite = np.isfinite(vectors).all(axis=1)
            lengths = np.linalg.norm(np.where(is_finite[:, None], vectors, 0).astype(float), axis=1)
            for row in np.flatnonzero(~is_finite):
                problems.add("rows", "not finite", uuids[row], rebuild)
            for row in np.flatnonzero(is_finite & ~(abs(lengths - 1) < LENGTH_TOLERANCE)):
                problems.add("rows", "not of unit length", uuids[row], rebuild)
            progress.update(len(chunk))
    problems.check()
    return f"{counted(n_rows, 'rows')}: {n_dims} dimensions, finite, unit length"


def check_shards(folder: Path, embedding_type: str, merged: dict[str, str | None], n_rows: int) -> str:
    """Check that every shard has an intact list, and an intact database that is the merged one.

    Parameters
    ----------
    folder : Path
        State folder of the embedding type.
    embedding_type : str
    merged : dict
        Digest of every shard at the time of its merge; None if it is unknown.
    n_rows : int
        Number of rows, for the progress bar.

    Returns
    -------
    str
        Summary.

    Raises
    ------
    InputError
        If a shard is wrong; it names the first shards of each kind of problem.
    """
    problems, receipt = Problems(), folder / "embeddings.json"
    # Deleting the receipt triggers a merge, even of a shard that no photo needs.
    recreate = f"delete these and {str(receipt)!r}, and run the workflow"
    with Progress(n_rows, "shards") as progress:
        for shard, digest in merged.items():
            shard_list, database = folder / "shards" / f"{shard}.tsv", folder / "embeddings" / f"{shard}.sqlite"
            if not is_intact_list(shard_list):
                problems.add("shards", "with missing or damaged list", f"{shard_list} and {database}", recreate)
            elif not is_intact_shard(database, embedding_type, progress.update):
                problems.add("shard databases", "missing or damaged", database, recreate)
            elif digest not in (None, read_shard_provenance(database, embedding_type)["shard_digest"]):
                fix = "run the workflow" if is_outdated(receipt, database) else recreate
                problems.add("shard databases", "other than the merged one", database, fix)
    problems.check()
    return f"{counted(len(merged), 'shards')}: lists and databases intact, as merged"


def is_intact_list(path: Path) -> bool:
    """Return whether a shard list exists and is not damaged."""
    try:
        read_shard_list(path)
    except (OSError, InputError):
        return False
    return True


def is_intact_shard(path: Path, embedding_type: str, count: Callable[[int], None] = lambda n: None) -> bool:
    """Return whether a shard database can be read, holds values of the right types, and has its digest.

    Parameters
    ----------
    path : Path
    embedding_type : str
    count : callable
        Receives the number of rows of each chunk.
    """
    try:
        with reading(path) as connection:
            if check_integrity(connection):
                return False
            check_values(connection, embedding_type, "")
        for rows, _ in read_shard(path, embedding_type):
            count(len(rows or ()))
    except NewerFormat:
        raise
    except InputError:
        return False
    return True


_TYPES = {"TEXT": "'text'", "INTEGER": "'integer'", "REAL": "'real', 'integer'", "BLOB": "'blob'"}


def check_values(connection: Connection, embedding_type: str, fix: str) -> None:
    """Check that every value in the tables of an embedding type has the type of its column.

    Parameters
    ----------
    connection : Connection
    embedding_type : str
    fix : str
        The fix for a value that no run writes.

    Raises
    ------
    InputError
        If one has another type; it names the columns.
    """
    problems = Problems()
    for table in Tables(embedding_type).metadata.sorted_tables:
        for name in columns_in(connection, table):
            column = table.c[name]
            types = _TYPES[str(column.type)] + ("" if column.primary_key or not column.nullable else ", 'null'")
            query = f"SELECT rowid FROM {table} WHERE typeof({name}) NOT IN ({types})"
            for (rowid,) in connection.exec_driver_sql(query):
                problems.add("values", "that no run writes", f"{table}.{name}, row {rowid}", fix)
    problems.check()
