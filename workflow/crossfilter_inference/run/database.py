"""Check that a run can use the database, and whether it is still the one that the last run left."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from ..db import crossfilter
from ..db.connect import UnusableDatabase, reading
from ..db.state import holds_state, is_state_folder, state_folder
from ..db.tables import FORMAT_VERSION, VERSION_KEY, Tables, check_format, read_provenance
from ..errors import InputError
from ..util.files import read_json
from ..util.paths import is_within


def check_database_path(database: str, photo_folders: Iterable[str]) -> None:
    """Check that a run can write its database and its state, and destroys nothing of others; write nothing.

    Parameters
    ----------
    database : str
        Path; it may be missing.
    photo_folders : iterable of str
        Folders in which no new collection may be made.

    Raises
    ------
    InputError
        If the path is a folder, not a database of ours, or cannot be written; if it lies in a folder of photos or in
        another state folder; or if its state folder is a folder of something else.
    """
    path, state = Path(database), Path(state_folder(database))

    def refuse(why: str, example: str = "") -> None:
        raise InputError(
            f"output_embeddings_db: cannot write to {database!r} ({why}); choose another name in a writable folder"
            f"{example and f', such as {example}'}"
        )

    try:
        database.encode()
    except UnicodeEncodeError:
        refuse("its path is not UTF-8, and Snakemake cannot record it")
    if path.is_dir() or database.endswith("/"):
        refuse("it is a folder")
    if path.exists():
        if not path.is_file():
            refuse("it is not a regular file")
        if not os.access(path, os.R_OK | os.W_OK):
            refuse("permission denied")
        with path.open("rb") as file:
            if file.read(16) not in (b"", b"SQLite format 3\0"):
                refuse("the file is not an SQLite database")
    for parent in Path(os.path.realpath(path)).parents:
        if is_state_folder(parent):
            refuse(f"it is in {str(parent)!r}, the state folder of another collection")
    if not holds_state(state):
        for folder in photo_folders:
            if is_within(path, folder):
                refuse(f"it is in the folder of photos {folder!r}")
            if is_within(state, folder):
                example = path.with_name(f"{path.stem}-embeddings{path.suffix}")
                refuse(f"its state folder {str(state)!r} would be in the folder of photos {folder!r}", str(example))
        if state.is_dir() and not (state / ".lock").exists():
            others = [name for name in sorted(os.listdir(state)) if not name.startswith(".")]
            if others:
                refuse(f"its state folder {str(state)!r} holds something else, such as {others[0]!r}")
        if path.exists() and (table := _other_table(database)):
            refuse(f"it is another program's database: it has the table {table!r}")
    for needed in (path.parent, state):
        while not os.path.lexists(needed):
            needed = needed.parent
        if not needed.is_dir():
            refuse(f"{str(needed)!r} is not a folder")
        if not os.access(needed, os.W_OK | os.X_OK):
            refuse(f"no permission to write in {str(needed)!r}")


def _other_table(database: str) -> str:
    """Return a table of a database that has tables, but no embeddings; empty if it is usable or cannot be read now."""
    with suppress(UnusableDatabase), reading(database, wait=0) as connection:
        names = sorted(sa.inspect(connection).get_table_names())
        if names and not any(name.endswith(("_EMBEDDINGS", "_PROVENANCE")) for name in names):
            return str(names[0])
    return ""


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
    known = read_json(receipt, generation=int, digest=str)
    number, digest = int(known["generation"]), known["digest"]
    if not os.path.exists(database):
        return number + 1
    try:
        with reading(database, wait=0) as connection:
            found = read_provenance(connection, embedding_type).get(key)
            is_older = check_format(connection, embedding_type) < FORMAT_VERSION
    except UnusableDatabase as error:
        return number if error.is_locked else number + 1
    return number + int(found != digest or is_older)


def stored_embed_version(database: str, embedding_type: str) -> int | None:
    """Return the embed version of the embeddings; None if it is not recorded, or the database cannot be read now."""
    recorded = ""
    if os.path.exists(database):
        with suppress(UnusableDatabase), reading(database, wait=0) as connection:
            recorded = read_provenance(connection, embedding_type).get(VERSION_KEY, "")
    return int(recorded) if recorded.isdecimal() else None


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


def adoptable_photos(database: str, embedding_type: str) -> set[str]:
    """Return the photos with an embedding of Crossfilter's application alone; none if the database cannot be read now.

    Returns
    -------
    set of str
        Their UUIDs.
    """
    if not os.path.exists(database):
        return set()
    try:
        with reading(database, wait=0) as connection:
            return crossfilter.adoptable_rows(connection, embedding_type)
    except UnusableDatabase:
        return set()


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
