"""Check that a run can use the database, and whether it is still the one that the last run left."""

import os
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from ..db.connect import UnusableDatabase, reading
from ..db.provenance import read_provenance
from ..db.state import state_folder
from ..db.tables import FORMAT_VERSION, Tables, check_format
from ..errors import InputError
from ..util.files import damaged, read_json


def check_database_path(database: str) -> None:
    """Check that a run can write its database; write nothing.

    Raises
    ------
    InputError
        If the path is a folder, not a database, or cannot be written.
    """
    path = Path(database)

    def refuse(why: str) -> None:
        raise InputError(
            f"output_embeddings_db: cannot write to {database!r} ({why}); choose a file in a writable folder"
        )

    if path.is_dir():
        refuse("it is a folder")
    if path.exists():
        if not path.is_file():
            refuse("it is not a regular file")
        if not os.access(path, os.R_OK | os.W_OK):
            refuse("permission denied")
        with path.open("rb") as file:
            if file.read(16) not in (b"", b"SQLite format 3\0"):
                refuse("the file is not an SQLite database")
    for folder in (path.parent, Path(state_folder(database))):
        while not os.path.lexists(folder):
            folder = folder.parent
        if not folder.is_dir():
            refuse(f"{str(folder)!r} is not a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            refuse(f"no permission to write in {str(folder)!r}")


def check_database_format(database: str, embedding_type: str) -> None:
    """Check that this version knows the format of a database, if it exists and can be read now.

    Raises
    ------
    NewerFormat
        If it does not.
    """
    if os.path.exists(database):
        with suppress(UnusableDatabase), reading(database, wait=0) as connection:
            check_format(connection, embedding_type)


def generation(database: str, receipt: str, embedding_type: str, key: str) -> int:
    """Return the generation of the database's contents: a number that rises when they have to be stored again.

    Parameters
    ----------
    database, receipt : str
        Paths; both may be missing.
    embedding_type : str
    key : str
        Key in the table of provenance under which the database keeps the receipt's digest.

    Returns
    -------
    int
        The receipt's own generation if the database is the one that the receipt was written for. Otherwise the next
        one: the database was deleted, replaced, restored from a backup, or left by a killed writer, or has an older
        format. A locked database is judged in the next run.

    Raises
    ------
    InputError
        If the receipt is damaged.
    """
    if not os.path.exists(receipt):
        return 1
    try:
        known = read_json(receipt)
        number, digest = int(known["generation"]), known["digest"]
    except (KeyError, TypeError, ValueError):
        raise damaged(receipt) from None
    if not os.path.exists(database):
        return number + 1
    try:
        with reading(database, wait=0) as connection:
            found = read_provenance(connection, embedding_type).get(key)
            is_older = check_format(connection, embedding_type) < FORMAT_VERSION
    except UnusableDatabase as error:
        return number if error.is_locked else number + 1
    return number + int(found != digest or is_older)


def failed_photos(database: str, embedding_type: str) -> frozenset[str]:
    """Return the photos that could not be embedded; none if the database cannot be read now.

    Returns
    -------
    frozenset of str
        Their UUIDs.
    """
    if not os.path.exists(database):
        return frozenset()
    table = Tables(embedding_type).failures
    try:
        with reading(database, wait=0) as connection:
            if not sa.inspect(connection).has_table(table.name):
                return frozenset()
            return frozenset(connection.scalars(sa.select(table.c.UUID)))
    except UnusableDatabase:
        return frozenset()


def stored_photos(database: str, embedding_type: str) -> dict[str, str]:
    """Return where each photo with an embedding was last seen; none if the database cannot be read now.

    Returns
    -------
    dict of str
        Paths by UUID; an empty text if the path is not recorded.
    """
    if not os.path.exists(database):
        return {}
    tables = Tables(embedding_type)
    embeddings, images = tables.embeddings, tables.images
    try:
        with reading(database, wait=0) as connection:
            inspector = sa.inspect(connection)
            if not inspector.has_table(embeddings.name):
                return {}
            query = sa.select(embeddings.c.UUID, sa.literal(""))
            if inspector.has_table(images.name):
                same = images.c.UUID == embeddings.c.UUID
                query = sa.select(embeddings.c.UUID, images.c.PATH).join_from(embeddings, images, same, isouter=True)
            # An escaped path names no file.
            return {uuid: path if path and "\\" not in path else "" for uuid, path in connection.execute(query)}
    except UnusableDatabase:
        return {}
