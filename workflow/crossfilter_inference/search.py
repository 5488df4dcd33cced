"""Search a collection: the photos whose embeddings come nearest to a text, an image or a photo."""

import re
from typing import NamedTuple

import numpy as np

from .collection import Collection
from .errors import InputError


class Found(NamedTuple):
    """A photo, and the cosine of the angle to what was asked for."""

    uuid: str
    path: str
    similarity: float


def search(collection: Collection, query: np.ndarray, n: int, without: str | None = None) -> list[Found]:
    """Find the photos that come nearest, exactly.

    Parameters
    ----------
    collection : Collection
    query : array of shape (n_dims,), float32, of length 1
    n : int
    without : str, optional
        UUID of a photo to leave out.

    Returns
    -------
    list of Found
        The nearest first; of equal ones, in the order of their UUIDs.

    Raises
    ------
    InputError
        If the query has another dimension.
    """
    if query.shape != collection.embeddings.shape[1:]:
        raise InputError(
            f"{collection.embedding_type}: texts have {len(query)} dimensions and embeddings "
            f"{collection.embeddings.shape[1]}; this checkpoint cannot compare them"
        )
    similarity = collection.embeddings @ query
    if without is not None:
        similarity[collection.uuids.index(without)] = -np.inf
    n = min(n, len(similarity) - (without is not None))
    least = np.partition(similarity, -n)[-n] if n else np.inf
    rows = np.flatnonzero(similarity >= least)
    rows = rows[np.argsort(-similarity[rows], kind="stable")][:n]
    photos = collection.photos([collection.uuids[row] for row in rows])
    return [Found(uuid, photos[uuid].path, float(similarity[row])) for uuid, row in zip(photos, rows, strict=True)]


def find_uuid(collection: Collection, text: str) -> str:
    """Find a photo by its UUID, in any spelling, or by the beginning of it.

    Raises
    ------
    InputError
        If it is no UUID, if there is none, or more than one.
    """
    digits = text.replace("-", "").lower()
    if not re.fullmatch("[0-9a-f]{1,32}", digits):
        raise InputError(f"--uuid: {text!r} is not a UUID, nor the beginning of one")
    found = [uuid for uuid in collection.uuids if uuid.replace("-", "").lower().startswith(digits)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"--uuid: {len(found)} photos begin with {text!r}, such as {found[0]}; give more of it")
    raise InputError(
        f"--uuid: no photo {text!r} among the {len(collection.uuids):,} of {collection.database!r}; if it should be "
        f"one of them, its table {collection.embedding_type}_FAILURES may say why"
    )
