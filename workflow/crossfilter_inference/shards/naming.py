"""Scan the folders of a run, and give each photo its UUID: from its name, or from what earlier runs know of it."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from operator import attrgetter

import sqlalchemy as sa

from ..config import Config
from ..db.connect import UnusableDatabase, reading
from ..db.tables import Tables, columns_in
from ..photos.identify import KnownPhoto, identify
from ..photos.scan import ImageFile, Scan, scan_folders
from .plan import LastPlan


def scan_photos(config: Config, state: str, last: Callable[[], LastPlan]) -> Scan:
    """Find the photos of a collection, each with its UUID.

    Parameters
    ----------
    config : Config
    state : str
        State folder of the embedding type.
    last : function
        Reads the plan of the last run, which is needed if names need not be UUIDs.

    Returns
    -------
    Scan
        With `images` in order of UUID.

    Raises
    ------
    InputError
        If a folder is missing or cannot be read.
    """
    any_name = config.names == "any"
    scan = scan_folders(list(config.input_dir), list(config.extensions), config.exclude, any_name=any_name)
    if scan.nameless:
        known = _in_plan(last()) or _in_database(config.output_embeddings_db, config.embedding_type)
        has_contents_of = _Comparison(state, config.embedding_type)
        roots = [os.path.abspath(folder) for folder in config.input_dir]
        taken = [image.uuid for image in scan.images]
        scan.images += identify(scan.nameless, known, roots, has_contents_of, taken)
        scan.images.sort(key=attrgetter("uuid"))
    return scan


def _in_plan(last: LastPlan) -> list[KnownPhoto]:
    return [
        KnownPhoto(uuid, path, int(size), int(mtime_ns), shard, "", bool(reason))
        for uuid, path, size, mtime_ns, shard, _, reason in last.values()
        if path and size and mtime_ns
    ]


def _in_database(database: str, embedding_type: str) -> list[KnownPhoto]:
    images = Tables(embedding_type).images
    if not os.path.exists(database):
        return []
    with reading(database) as connection:
        if not columns_in(connection, images):
            return []
        names = "UUID", "PATH", "SIZE", "MTIME_NS", "SHARD", "DIGEST"
        query = sa.select(*(images.c[name] for name in names)).where(images.c.PATH.is_not(None))
        return [KnownPhoto(*row) for row in connection.execute(query)]


class _Comparison:
    """Whether a file has the contents that a known photo had."""

    def __init__(self, state: str, embedding_type: str):
        self._digest_of_file = cache(_digest_of_file)
        self._digests_in_shard = cache(partial(_digests_in_shard, state, embedding_type))

    def __call__(self, file: ImageFile, photo: KnownPhoto) -> bool:
        expected = photo.digest or self._digests_in_shard(photo.shard).get(photo.uuid)
        return bool(expected) and expected == self._digest_of_file(file.path)


def _digest_of_file(path: str) -> str:
    """Compute the digest of a file; an empty text if it cannot be read."""
    with suppress(OSError), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _digests_in_shard(state: str, embedding_type: str, shard: str) -> dict[str, str]:
    """Return the digests of the photos that a shard holds, by UUID; none if it is missing or damaged."""
    path, images = f"{state}/embeddings/{shard}.sqlite", Tables(embedding_type).images
    if os.path.exists(path):
        with suppress(UnusableDatabase), reading(path) as connection:
            return dict(connection.execute(sa.select(images.c.UUID, images.c.DIGEST)).tuples().all())
    return {}
