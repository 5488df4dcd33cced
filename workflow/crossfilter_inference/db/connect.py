"""Open an SQLite database for reading, or for one transaction; an error of SQLite becomes one line.

Statements go through SQLAlchemy. Where whole tables pass, in `shards.merge`, `shards.shard`, `db.digest`,
`db.embeddings`, `view.crossfilter` and `verify`, they go through the driver's own cursor (`driver_cursor`) instead, for
speed alone: for 100,000 rows of 3 KB, SQLAlchemy takes 1.6 times as long to read, and 3.7 times as long to insert.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import Connection

from ..errors import InputError

_BUSY_SECONDS = 60  # how long a writer waits for readers to finish
_SYNC_SECONDS = 0.5  # between two syncs of `written_early`
# Page size of new databases. Embeddings of 768 dimensions leave a quarter of SQLite's default of 4,096 bytes empty, and
# longer ones overflow. With this page size, a database is a fifth smaller and reading is a sixth faster.
_PAGE_BYTES = 16384


class UnusableDatabase(InputError):
    """A database that SQLite cannot read or write.

    Attributes
    ----------
    is_locked : bool
        Whether another program has it open.
    """

    def __init__(self, path: str | Path, error: Exception, *, action: str):
        words = str(getattr(error, "orig", error))
        if isinstance(error, UnicodeDecodeError):  # of SQLite's message about a schema that is not text
            words = "malformed database schema: it is not UTF-8"
        if os.path.isdir(path):
            words = "it is a folder; name the database in it, or next to it"
        elif os.path.exists(path) and not os.access(path, os.R_OK):
            words = "permission denied"
        self.is_locked = "locked" in words
        fix = "the database is unchanged"
        if any(word in words for word in ("malformed", "not a database")):
            fix = "move it aside, and run the workflow, which rebuilds it from the shards"
        elif self.is_locked:
            fix = "another program has it open: close that program, and run the same command again"
        elif action == "read" and "readonly" in words:  # of two meanings; a reader cannot roll back
            fix = "a program was killed while writing to it: run the workflow, which rolls its transaction back"
        elif "constraint failed" in words and action != "read":
            fix = "the database is unchanged; give your own column a default, or remove your own trigger or index"
        super().__init__(f"cannot {action} the database {str(path)!r} ({words}); {fix}")


@contextmanager
def reading(path: str | Path, *, wait: float = _BUSY_SECONDS) -> Iterator[Connection]:
    """Open a database read-only; wait for a writer for `wait` seconds at most.

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
    """Open a database for one transaction: it commits at the end of the block, and rolls back if the block raises.

    Raises
    ------
    UnusableDatabase
        If SQLite cannot write: the database is locked for a minute, read-only or damaged, or the disk is full.
    """
    with _connect(path, lambda: _open(path), "BEGIN IMMEDIATE", "write to") as connection:
        yield connection


@contextmanager
def written_early(path: str | Path) -> Iterator[None]:
    """Sync a database to disk in the background, so that the commit of a large transaction has less to write.

    Close the database before this context ends: a process that closes a file loses its locks on it.
    """
    is_closed = threading.Event()

    def sync() -> None:
        while not is_closed.wait(_SYNC_SECONDS):
            with suppress(OSError), open(path, "rb") as file:  # it may not exist yet
                while not is_closed.wait(_SYNC_SECONDS):
                    with suppress(OSError):  # SQLite meets the same error, and reports it
                        os.fsync(file.fileno())

    thread = threading.Thread(target=sync, name="sync")
    thread.start()
    try:
        yield
    finally:
        is_closed.set()
        thread.join()


def recover(path: str | Path) -> None:
    """Roll back the unfinished transaction of a killed writer, which readers cannot do, or check that none exists.

    Raises
    ------
    UnusableDatabase
        If SQLite cannot read the database, or cannot roll back.
    """
    is_unfinished = any(os.path.exists(f"{path}-{name}") for name in ("journal", "wal"))
    # A writer's transaction would have to wait for every reader.
    with _connect(path, lambda: _open(path), "BEGIN", "write to") if is_unfinished else reading(path) as connection:
        connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()


def _open(path: str | Path) -> sqlite3.Connection:
    is_new = not os.path.exists(path)
    # As an absolute path, no name means anything else to SQLite, such as :memory:.
    connection = sqlite3.connect(os.path.abspath(path), timeout=_BUSY_SECONDS, isolation_level=None)
    if is_new:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    return connection


# One engine for all databases, as creating one takes longer than reading a small database. Each thread sets its own
# `_wanted.connect`.
_wanted = threading.local()
_engine = sa.create_engine("sqlite://", creator=lambda: _wanted.connect(), poolclass=sa.pool.NullPool)


@contextmanager
def _connect(
    path: str | Path, connect: Callable[[], sqlite3.Connection], begin: str, action: str
) -> Iterator[Connection]:
    _wanted.connect = connect
    try:
        with _engine.connect() as connection:
            # With isolation_level=None, Python's sqlite3 begins no transaction by itself: it would begin them late, and
            # not before CREATE TABLE.
            connection.exec_driver_sql(begin)
            yield connection
            connection.commit()
    except (sa.exc.DatabaseError, sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise UnusableDatabase(path, error, action=action) from None


def driver_cursor(connection: Connection) -> sqlite3.Cursor:
    """Return a cursor of the SQLite driver, in the transaction of the connection."""
    return cast(sqlite3.Cursor, connection.connection.cursor())


CHUNK = 1000  # rows
_Row = TypeVar("_Row")


def chunks(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Yield rows in lists of at most a thousand."""
    chunk = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
