"""Search a collection: find the photos whose embeddings are most similar to a text, an image or a photo."""

import csv
import io
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from .collection import Collection
from .db.connect import reading
from .db.tables import Tables
from .errors import InputError
from .util.text import printable


class Found(NamedTuple):
    """A photo, its cosine similarity to the query, in [-1, 1], and whether the photo itself is missing."""

    uuid: str
    path: str
    similarity: float
    missing: bool


def search(collection: Collection, query: NDArray[np.float32], n: int, without: str | None = None) -> list[Found]:
    """Find the most similar photos by exact search.

    Parameters
    ----------
    collection : Collection
    query : array of shape (n_dims,), float32, of length 1
    n : int
    without : str, optional
        UUID of a photo to leave out, such as the query itself.

    Returns
    -------
    list of Found
        The most similar first; equally similar photos in order of UUID.

    Raises
    ------
    InputError
        If the query has the wrong dimension.
    """
    if query.shape != collection.embeddings.shape[1:]:
        raise InputError(
            f"{collection.embedding_type}: the query has {len(query)} dimensions and the photos have "
            f"{collection.embeddings.shape[1]}; use a checkpoint whose texts and images have the same dimension"
        )
    similarity = collection.embeddings @ query
    left_out = [row for row, uuid in enumerate(collection.uuids) if uuid == without]
    similarity[left_out] = -np.inf
    n = min(n, len(similarity) - len(left_out))
    threshold = np.partition(similarity, -n)[-n] if n else np.inf
    rows = np.flatnonzero(similarity >= threshold)
    rows = rows[np.argsort(-similarity[rows], kind="stable")][:n]
    photos = collection.photos([collection.uuids[row] for row in rows])
    return [
        Found(photo.uuid, photo.path, float(similarity[row]), collection.is_missing(photo))
        for photo, row in zip(photos.values(), rows, strict=True)
    ]


def find_path(collection: Collection, text: str) -> str:
    """Find a photo by its path, or by the end of it, such as the file name; case matters only if it decides.

    Returns
    -------
    str
        Its UUID.

    Raises
    ------
    InputError
        If not exactly one photo matches.
    """
    paths = {photo.uuid: photo.path for photo in collection.photos(collection.uuids).values()}
    wanted = _composed(text)
    ends = {uuid: _composed(path) for uuid, path in paths.items()}
    whole = os.path.abspath(wanted)
    found = [uuid for uuid, path in ends.items() if path == whole]
    for spelling in (str, str.casefold):
        tail = f"/{spelling(wanted).removeprefix('./').removeprefix('/')}"
        found = found or [uuid for uuid, path in ends.items() if spelling(path).endswith(tail)]
    found = found or [uuid for uuid, path in ends.items() if path.casefold().endswith(wanted.casefold())]
    if len(found) == 1:
        return found[0]
    if found:
        examples = " and ".join(printable(paths[uuid]) for uuid in found[:2])
        raise InputError(f"--path: {len(found)} photos match {text!r}, for example {examples}; give more of the path")
    for path, message in _failures(collection):
        if _composed(path).casefold().endswith(tail):
            raise InputError(f"--path: {printable(path)} is not in the collection, because it failed: {message}")
    if os.path.isfile(text):
        raise InputError(
            f"--path: {text!r} is not in the collection; run the workflow if the file is new, or see "
            f"{str(collection.folder / 'rejected.tsv')!r} for why it was left out"
        )
    raise InputError(
        f"--path: none of the {len(paths):,} photos in {collection.database!r} matches {text!r}; check the path, and "
        f"see the table {collection.embedding_type}_FAILURES for photos that failed"
    )


def read_photo_list(collection: Collection, path: str | Path) -> list[str]:
    """Read a list of photos: paths, their ends or UUIDs, one per line, or a CSV or JSON file that the globe has saved.

    Returns
    -------
    list of str
        The UUIDs of these photos.

    Raises
    ------
    InputError
        If the list cannot be read, is empty, or names something that is not a photo of the collection.
    """
    try:
        text = Path(path).read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"--photos: {str(path)!r} cannot be read ({error.strerror}); name another file") from None
    photos = collection.photos(collection.uuids).values()
    known = {_composed(photo.path): photo.uuid for photo in photos} | {_digits(uuid): uuid for uuid in collection.uuids}
    named: dict[str, list[str]] = {}
    for file in filter(os.path.isabs, known):
        named.setdefault(os.path.basename(file), []).append(file)
    found = []
    for number, entry in enumerate(_entries(text), 1):
        uuid = known.get(_digits(entry)) or known.get(_composed(os.path.abspath(entry)))
        if uuid is None:  # a file name, or the end of a path
            tail = f"/{_composed(entry.strip()).removeprefix('./')}"
            files = [file for file in named.get(os.path.basename(tail), []) if file.endswith(tail)]
            if len(files) != 1:
                what = f"is the name of {len(files)} photos" if files else "is no photo of the collection"
                raise InputError(
                    f"--photos: entry {number} of {str(path)!r}, {entry!r}, {what}; give paths as the database has "
                    "them, or UUIDs"
                )
            uuid = known[files[0]]
        found.append(uuid)
    if not found:
        raise InputError(f"--photos: {str(path)!r} lists no photos; give paths or UUIDs, one per line")
    return found


def _entries(text: str) -> list[str]:
    """Return the paths or UUIDs of a list."""
    if text.lstrip().startswith("["):
        try:
            return [str(entry["uuid"]) if isinstance(entry, dict) else str(entry) for entry in json.loads(text)]
        except (ValueError, KeyError):
            return [text.split("\n", 1)[0]]
    lines = [line for line in text.splitlines() if line.strip()]
    names = next(csv.reader(lines[:1]), [])
    for column, name in enumerate(names):
        if name.strip().lower() == "uuid":
            rows = csv.reader(io.StringIO(text, newline=""))
            return [row[column] for row in list(rows)[1:] if len(row) > column]
    return lines


def _digits(uuid: str) -> str:
    return uuid.strip().replace("-", "").lower()


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _failures(collection: Collection) -> list[tuple[str, str]]:
    """Return path and message of each photo that failed."""
    failures = Tables(collection.embedding_type).failures.c
    with reading(collection.database) as connection:
        return [*connection.execute(sa.select(failures.PATH, failures.MESSAGE)).tuples()]


def find_uuid(collection: Collection, text: str) -> str:
    """Find a photo by its UUID, in any spelling, or by a prefix of it.

    Raises
    ------
    InputError
        If the text is not a UUID or a prefix of one, or if not exactly one photo matches.
    """
    digits = _digits(text)
    if not re.fullmatch("[0-9a-f]{1,32}", digits):
        raise InputError(f"--uuid: {text!r} is not a UUID or a UUID prefix; give hexadecimal digits")
    found = [uuid for uuid in collection.uuids if _digits(uuid).startswith(digits)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"--uuid: {len(found)} photos match {text!r}, for example {found[0]}; give more digits")
    raise InputError(
        f"--uuid: none of the {len(collection.uuids):,} photos in {collection.database!r} matches {text!r}; "
        f"check the UUID, and see the table {collection.embedding_type}_FAILURES for photos that failed"
    )
