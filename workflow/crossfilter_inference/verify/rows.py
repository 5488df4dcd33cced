"""Are embeddings and shard databases sound, each looked at by itself?

Rows pass by some at a time, so that memory does not grow with the collection.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import Connection

from ..db.connect import chunks, driver_cursor, reading
from ..db.embeddings import pack_embedding
from ..db.tables import NewerFormat, Tables
from ..embed.reuse import LENGTH_TOLERANCE
from ..errors import InputError
from ..shards.plan import read_shard_list
from ..shards.shard import read_shard, read_shard_provenance
from ..util.progress import Progress
from ..util.text import printable

_N_NAMED = 3  # of the rows or files that a check finds fault with
STRANGE = (AttributeError, LookupError, TypeError, ValueError)  # what values of a strange type lead to


class Problems:
    """What a check finds fault with: how many of each kind, the names of the first ones, and the way out."""

    def __init__(self):
        self._counts: dict[str, Counter[str]] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, what: str, name: object, way_out: str) -> None:
        """Count one."""
        self._counts.setdefault(way_out, Counter())[what] += 1
        names = self._names.setdefault(what, [])
        if len(names) < _N_NAMED:
            names.append(printable(str(name)))

    def check(self) -> None:
        """Raise an InputError that tells all, if there is anything to tell."""
        if self._counts:
            raise InputError("; ".join(map(self._line, self._counts)))

    def _line(self, way_out: str) -> str:
        kinds = []
        for what, n in self._counts[way_out].items():
            names = self._names[what]
            kinds.append(f"{n} {what} ({', '.join(names)}{', ...' if n > len(names) else ''})")
        return f"{', '.join(kinds)}: {way_out}"


def way_back(*paths: Path) -> str:
    """Say how files of the state folder are made again."""
    return f"delete {' and '.join(repr(str(path)) for path in paths)} and run snakemake"


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Say of a file that is missing or damaged how it is made again."""
    try:
        yield
    except (FileNotFoundError, InputError):
        raise InputError(f"{str(path)!r} is missing or damaged: {way_back(path)}") from None


def check_integrity(connection: Connection) -> str:
    """Ask SQLite whether a database is sound, and return its complaints; empty, if it has none."""
    found = connection.exec_driver_sql(f"PRAGMA integrity_check({_N_NAMED})").scalars().all()
    return "" if found == ["ok"] else "; ".join(" ".join(line.split()) for line in found)


def check_embeddings(connection: Connection, embedding_type: str, n_dims: int, n_rows: int, rebuild: str) -> str:
    """Check that embeddings are packed as they should be, finite, and of length 1.

    Parameters
    ----------
    connection : Connection
    embedding_type : str
    n_dims : int
        What all must have.
    n_rows : int
        For the display of progress.
    rebuild : str
        How the database is made anew.

    Raises
    ------
    InputError
        That names the first rows of each kind of fault.
    """
    problems, packed = Problems(), pack_embedding(np.zeros(n_dims))
    head = packed[: -4 * n_dims]
    rows = driver_cursor(connection).execute(f"SELECT UUID, EMBEDDING FROM {Tables(embedding_type).embeddings}")
    with Progress(n_rows, "embeddings") as progress:
        for chunk in chunks(rows):
            whole = []
            for uuid, blob in chunk:
                if isinstance(blob, bytes) and len(blob) == len(packed) and blob.startswith(head):
                    whole.append((uuid, blob[len(head) :]))
                else:
                    problems.add(f"rows are not {n_dims} float32 numbers in msgpack", uuid, rebuild)
            vectors = np.frombuffer(b"".join(data for _, data in whole), "<f4").reshape(-1, n_dims)
            is_finite = np.isfinite(vectors).all(axis=1)
            lengths = np.linalg.norm(np.where(is_finite[:, None], vectors, 0).astype(float), axis=1)
            for row in np.flatnonzero(~is_finite):
                problems.add("rows are not finite", whole[row][0], rebuild)
            for row in np.flatnonzero(is_finite & ~(abs(lengths - 1) < LENGTH_TOLERANCE)):
                problems.add("rows are not of length 1", whole[row][0], rebuild)
            progress.update(len(chunk))
    problems.check()
    return f"{n_rows} rows of {n_dims} dimensions, finite, of length 1"


def check_shards(folder: Path, embedding_type: str, merged: dict[str, str | None], n_rows: int) -> str:
    """Check that every shard has its list and its sound database, which is the one that was merged.

    Parameters
    ----------
    folder : Path
        State folder of the embedding type.
    embedding_type : str
    merged : dict
        Digest of every shard when it was merged, or None, if that is not known.
    n_rows : int
        For the display of progress.

    Raises
    ------
    InputError
        That names the first shards of each kind of fault.
    """
    problems, receipt = Problems(), folder / "embeddings.json"
    # Without its receipt a merge is due, also of a shard that no photo needs any more.
    anew = f"delete these, and {str(receipt)!r}, and run snakemake"
    with Progress(n_rows, "shards") as progress:
        for shard, digest in merged.items():
            shard_list, database = folder / "shards" / f"{shard}.tsv", folder / "embeddings" / f"{shard}.sqlite"
            if not _is_sound_list(shard_list):
                problems.add("shards without their list", f"{shard_list} and {database}", anew)
            elif not _is_sound_shard(database, embedding_type, progress):
                problems.add("shard databases are missing or damaged", database, anew)
            elif digest not in (None, read_shard_provenance(database, embedding_type)["shard_digest"]):
                way_out = "run snakemake" if is_due(receipt, database) else anew
                problems.add("shard databases are not those that were merged", database, way_out)
    problems.check()
    return f"{len(merged)} with their lists, sound and as merged"


def is_due(output: Path, source: Path) -> bool:
    """Tell, as Snakemake does, whether a run was broken off before it brought `output` up to `source`."""
    if not (output.exists() and source.exists()):
        return True
    return output.stat().st_mtime_ns < source.stat().st_mtime_ns


def _is_sound_list(path: Path) -> bool:
    try:
        read_shard_list(path)
    except (OSError, InputError):
        return False
    return True


def _is_sound_shard(path: Path, embedding_type: str, progress: Progress) -> bool:
    try:
        with reading(path) as connection:
            if check_integrity(connection):
                return False
        for rows, _ in read_shard(path, embedding_type):
            progress.update(len(rows or ()))
    except NewerFormat:
        raise
    except (InputError, *STRANGE):
        return False
    return True
