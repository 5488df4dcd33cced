"""Open an SQLite database for reading, or for one transaction; what SQLite complains of comes out in one line."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from ..errors import InputError

_BUSY_SECONDS = 60  # how long a writer waits for readers to let go
_SYNC_SECONDS = 0.5  # between two looks of `written_early`
# Of new databases. Embeddings of 768 dimensions leave a quarter of SQLite's usual 4,096 bytes empty, longer ones
# spill over; in pages of this size a database is a fifth smaller and is read a sixth faster.
_PAGE_BYTES = 16384


class UnusableDatabase(InputError):
    """A database that SQLite cannot read or write: `is_locked`, `is_damaged`, or for another reason.

    One that `is_left_in_the_middle` by a killed writer is rolled back by the next writer; a reader may not.
    """

    def __init__(self, path: str | Path, error: Exception, *, done: str):
        words = str(getattr(error, "orig", error))
        self.is_locked = "locked" in words
        self.is_left_in_the_middle = done == "read" and "readonly" in words
        self.is_damaged = any(word in words for word in ("malformed", "not a database"))
        way_out = "it is as it was before"
        if self.is_damaged:
            way_out = "move it away, and it is made again from what lies beside it"
        elif self.is_locked:
            way_out = "another program has it open: close that, and run the same command again"
        elif self.is_left_in_the_middle:
            way_out = "a program was killed while writing to it: run snakemake, which takes back what that had begun"
        super().__init__(f"cannot {done} the database {str(path)!r} ({words}); {way_out}")


@contextmanager
def reading(path: str | Path, *, wait: float = _BUSY_SECONDS) -> Iterator[Connection]:
    """Open a database for reading only, for `wait` seconds at most while a writer holds it.

    Raises
    ------
    UnusableDatabase
        If SQLite cannot read it.
    """
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    with _connect(
        path, lambda: sqlite3.connect(uri, uri=True, timeout=wait, isolation_level=None), "BEGIN", "read"
    ) as connection:
        yield connection


@contextmanager
def writing(path: str | Path) -> Iterator[Connection]:
    """Open a database for one transaction: all of the block is kept, or, if it raises, nothing.

    Raises
    ------
    UnusableDatabase
        If SQLite cannot write: locked for a minute, no space left, read-only, damaged.
    """
    with _connect(path, lambda: _open(path), "BEGIN IMMEDIATE", "write to") as connection:
        yield connection


@contextmanager
def written_early(path: str | Path) -> Iterator[None]:
    """Have the disk write what a large transaction spills all along, and not all of it at the commit.

    To be left when the database has been closed: a process that closes a file loses its locks on it.
    """
    is_closed = threading.Event()

    def sync() -> None:
        while not is_closed.wait(_SYNC_SECONDS):
            with suppress(OSError), open(path, "rb") as file:  # it may not be there yet
                while not is_closed.wait(_SYNC_SECONDS):
                    with suppress(OSError):  # SQLite meets the same, and says so
                        os.fsync(file.fileno())

    thread = threading.Thread(target=sync, name="sync")
    thread.start()
    try:
        yield
    finally:
        is_closed.set()
        thread.join()


def recover(path: str | Path) -> None:
    """Roll back what a killed writer left, which readers cannot; where it left nothing, look if all is well.

    Raises
    ------
    UnusableDatabase
        If SQLite cannot.
    """
    is_left = any(os.path.exists(f"{path}-{name}") for name in ("journal", "wal"))
    # Not a writer's transaction: that would have to wait for every reader.
    with _connect(path, lambda: _open(path), "BEGIN", "write to") if is_left else reading(path) as connection:
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()


def _open(path: str | Path) -> sqlite3.Connection:
    is_new = not os.path.exists(path)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    if is_new:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    return connection


# One engine for all, as making one takes longer than reading a small database; it connects to what its thread wants.
_wanted = threading.local()
_engine = sa.create_engine("sqlite://", creator=lambda: _wanted.connect(), poolclass=sa.pool.NullPool)


@contextmanager
def _connect(
    path: str | Path, connect: Callable[[], sqlite3.Connection], begin: str, done: str
) -> Iterator[Connection]:
    _wanted.connect = connect
    try:
        with _engine.connect() as connection:
            # Python's sqlite3 would begin transactions late, and not before CREATE TABLE: it is told not to.
            connection.exec_driver_sql(begin)
            yield connection
            connection.commit()
    except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
        raise UnusableDatabase(path, error, done=done) from None


CHUNK = 1000  # rows


def chunks(rows: Iterable) -> Iterator[list]:
    """Yield rows by the thousand."""
    chunk = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
