"""Reuse rows that the database already holds instead of computing them again.

A row is *copied* for a photo if it was made from a file with the same contents, by the same encoder. If a known row has
the size of the file, the file is read and its digest compared before it is decoded. A photo that has its former size
and time again may get its former row back, which the database no longer holds, but a shard does.

A row of unknown origin (of the original tool, for example, in one of its versions' tables) is *adopted* for the photo
with its UUID, if this encoder could have made it: its dimension and length are checked, and some of the photos are
embedded again for comparison.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from ..db import crossfilter
from ..db.connect import reading
from ..db.embeddings import pack_embedding, unpack_embedding
from ..db.provenance import recorded_encoder, unknown_rows
from ..db.tables import VERSION_COLUMN, Row, Tables, columns_in
from ..encoders.identity import provenance_digest
from ..encoders.protocol import Embeddings
from ..errors import InputError
from ..photos.image import ImageError
from ..shards.plan import PlannedImage, read_shard_list, shard_lists
from ..shards.shard import read_shard, read_shard_provenance, read_thumbnails
from ..util.text import printable
from .decode_process import Decoded, read_planned

logger = logging.getLogger(__name__)

N_CHECKED = 8  # photos of a shard to embed again as a check of rows of unknown origin
# Least cosine between a row and the embedding of its photo. With another number format, device or decoded size, the
# same model stays above .9999; another model is near 0.
LEAST_COSINE = 0.999
LENGTH_TOLERANCE = 1e-2  # bfloat16 has 8 bits of precision


@dataclass(frozen=True)
class KnownRow:
    """A row of the database: its embedding, of shape (n_dims,), and whether it is adopted or copied."""

    embedding: Embeddings
    is_adopted: bool


@dataclass(frozen=True)
class Copy:
    """A photo that need not be decoded, the row of its shard database, and the seconds that it took."""

    image: PlannedImage
    row: Row
    seconds: float

    def with_facts(self, facts: Mapping[str, Any]) -> "Copy":
        """Replace facts of the row, by column in lower case; what is recorded next to a photo may have changed."""
        found = {name: facts[name.lower()] for name in self.row if name.lower() in facts}
        return replace(self, row=self.row | found)


class KnownRows:
    """The rows of a database that can be reused for the photos of one shard.

    The database is open only during a query, so that a long job does not block writers.

    Parameters
    ----------
    database : str or None
        Path; it may be missing.
    provenance : dict
        The contents of `encoder.json`.
    images : list of PlannedImage
        The photos of the shard.
    shards : Path
        Folder of the shard databases, which hold the thumbnails and former rows.
    """

    def __init__(
        self, database: str | None, provenance: Mapping[str, Any], images: list[PlannedImage], shards: str | Path = ""
    ):
        self._database, self._provenance, self._shards = database or "", provenance, Path(shards)
        self._tables = Tables(provenance["name"])
        self._uuids: dict[str, str] = {}  # by the digest of the file
        self._sizes: set[int] = set()  # of their files
        self._former: dict[str, Path] = {}  # shard databases that hold the former rows of photos, by UUID
        self._unknown: dict[str, sa.Table] = {}  # tables with a row of unknown origin for a photo, by UUID
        self._to_check: dict[str, Embeddings] = {}
        self._n_seen = self._n_chosen = 0
        if not database:
            return
        if not Path(database).exists():  # lost, but shards may hold the rows of photos that are read again
            self._find_former(images)
            return
        by_uuid, stored = {image.uuid: image for image in images}, []
        with reading(database) as connection:
            recorded = recorded_encoder(connection, provenance["name"]).get("digest")
            if recorded == provenance_digest(provenance):
                table = self._tables.images
                query = sa.select(table.c.DIGEST, table.c.UUID, table.c.SIZE)
                if VERSION_COLUMN in columns_in(connection, table):  # rows of missing photos may have another
                    query = query.where(table.c[VERSION_COLUMN] == provenance["embed_version"])
                sizes = {image.size for image in images}
                for digest, uuid, size in connection.execute(query):
                    self._uuids[digest] = uuid
                    if size in sizes:
                        self._sizes.add(size)
                    if uuid in by_uuid:
                        stored.append(by_uuid[uuid])
            if recorded in (None, provenance_digest(provenance)):
                n_bytes = len(pack_embedding(np.zeros(provenance["dimension"])))
                for table, uuids in (
                    (crossfilter.embeddings, crossfilter.adoptable_rows(connection, provenance["name"], n_bytes)),
                    (self._tables.embeddings, unknown_rows(connection, provenance["name"])),
                ):
                    self._unknown |= dict.fromkeys(uuids & by_uuid.keys(), table)
        self._find_former(stored)

    @property
    def may_be_reused(self) -> bool:
        """Whether any of the rows may be reused for a photo of the shard."""
        return bool(self._sizes or self._former or self._unknown)

    def _find_former(self, images: list[PlannedImage]) -> None:
        """Find the shards that listed images of this shard before, with the same sizes and times."""
        identities, shards = {image.identity for image in images}, {image.shard for image in images}
        for path in reversed(shard_lists(self._shards.parent / "shards")) if identities else ():
            database = self._shards / f"{path.stem}.sqlite"
            former = identities.intersection(read_shard_list(path) if path.stem not in shards else ())
            if former and _is_of(database, self._provenance):
                self._former |= dict.fromkeys((uuid for uuid, *_ in former), database)
                identities -= former

    def copy(self, image: PlannedImage, max_pixels: int) -> Copy | None:
        """Read a photo, and copy the row that was made from the same contents; several threads may do so.

        Returns
        -------
        Copy or None
            None if the photo has to be decoded: its contents are new, its row would be too large today or lacks its
            thumbnail, or the file cannot be read.
        """
        if image.size not in self._sizes and image.uuid not in self._former:
            return None
        start = time.perf_counter()
        try:
            _, digest = read_planned(image, max_pixels)
        except ImageError:  # decoding fails for the same reason, and records it
            return None
        if digest in self._uuids:
            found = self._read(self._database, self._uuids[digest], digest)
        elif image.uuid in self._former:
            found = self._read(self._former[image.uuid], image.uuid, digest)
        else:
            return None
        if found is None or (found["WIDTH"] or 0) * (found["HEIGHT"] or 0) > max_pixels:
            return None
        embedding = self._sound(found["EMBEDDING"])
        if embedding is None:
            return None
        path = self._shards / f"{found['SHARD']}.sqlite"
        try:
            thumbnails = dict(read_thumbnails(path, self._provenance["name"], [found["UUID"]]))
        except InputError:
            return None
        if found["UUID"] not in thumbnails:
            return None
        row = {**found, "JPEG": thumbnails[found["UUID"]]}
        row |= {"UUID": image.uuid, "SIZE": image.size, "MTIME_NS": image.mtime_ns, "PATH": image.path}
        row["EMBEDDING"] = pack_embedding(embedding)
        return Copy(image, row, time.perf_counter() - start)

    def _read(self, database: str | Path, uuid: str, digest: str) -> Row | None:
        images, embeddings = self._tables.images, self._tables.embeddings
        version = self._provenance["embed_version"]
        with reading(database) as connection:
            columns = [images.c[name] for name in columns_in(connection, images)]  # an older format has fewer
            query = sa.select(*columns, embeddings.c.EMBEDDING).join(embeddings, images.c.UUID == embeddings.c.UUID)
            query = query.where(images.c.UUID == uuid, images.c.DIGEST == digest)
            if images.c[VERSION_COLUMN] in columns:
                query = query.where(images.c[VERSION_COLUMN] == version)
            found = connection.execute(query).mappings().first()
        return None if found is None else {**dict.fromkeys(images.c.keys()), **found, VERSION_COLUMN: version}

    def find(self, photo: Decoded) -> KnownRow | None:
        """Return the row to reuse for a photo; None if it must be computed, be it to check a row of unknown origin.

        Raises
        ------
        InputError
            If a row of unknown origin is not this encoder's.
        """
        images, embeddings = self._tables.images, self._tables.embeddings
        if uuid := self._uuids.get(photo.digest):
            same = (images.c.UUID == uuid) & (images.c.DIGEST == photo.digest)
            blob = self._query_blob(
                sa.select(embeddings.c.EMBEDDING).join(images, images.c.UUID == embeddings.c.UUID).where(same)
            )
            embedding = None if blob is None else self._sound(blob)
            if embedding is not None:
                return KnownRow(embedding, is_adopted=False)
        uuid = photo.image.uuid
        # The original tool ignores EXIF orientation, so a photo that EXIF turns is recomputed.
        if uuid not in self._unknown or photo.loaded.exif.is_turned:
            return None
        key, value = self._unknown[uuid].c
        blob = self._query_blob(sa.select(value).where(key == uuid))
        if blob is None:
            return None
        try:
            embedding = self._unpack(blob)
        except ValueError as error:
            raise self._refusal(photo.image, str(error)) from None
        if self._is_chosen():
            self._to_check[uuid] = embedding
            return None
        return KnownRow(embedding, is_adopted=True)

    def check(self, photo: Decoded, computed: Embeddings) -> Embeddings | None:
        """Compare a computed embedding with the row of unknown origin that it checks.

        Returns
        -------
        array of shape (n_dims,) or None
            The row, to be adopted; None if the photo has no row to check.

        Raises
        ------
        InputError
            If the two differ.
        """
        row = self._to_check.pop(photo.image.uuid, None)
        if row is None:
            return None
        cosine = float(np.dot(row.astype(float), computed) / np.linalg.norm(row.astype(float)))
        if cosine < LEAST_COSINE:
            expected = f"expected at least {LEAST_COSINE}"
            raise self._refusal(photo.image, f"has cosine {cosine:.4f} to the embedding of this photo, {expected}")
        return row

    def _is_chosen(self) -> bool:
        """Choose photos to check, spread evenly over the shard."""
        is_due = self._n_chosen * len(self._unknown) <= self._n_seen * N_CHECKED
        self._n_seen += 1
        self._n_chosen += is_due
        return is_due

    def _sound(self, blob: bytes) -> Embeddings | None:
        """Unpack an embedding; None if it is damaged, which must not spread from the database to a shard."""
        try:
            return self._unpack(blob)
        except ValueError:
            return None

    def _unpack(self, blob: bytes) -> Embeddings:
        """Unpack an embedding of this encoder; a ValueError says what is wrong with it."""
        try:
            embedding = unpack_embedding(blob)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"cannot be read ({error})") from None
        if embedding.shape != (self._provenance["dimension"],):
            hint = crossfilter.model_hint(len(embedding), self._provenance["name"])
            raise ValueError(f"has {len(embedding)} dimensions, expected {self._provenance['dimension']}{hint}")
        length = np.linalg.norm(embedding)
        if not abs(length - 1) < LENGTH_TOLERANCE:
            raise ValueError(f"has length {length:.4g}, expected 1")
        return embedding

    def _refusal(self, image: PlannedImage, what: str) -> InputError:
        table = self._unknown[image.uuid]
        n_rows = sum(other is table for other in self._unknown.values())
        return InputError(
            f"{table.name} holds {n_rows} embeddings of unknown origin for these photos, which do not match "
            f"{self._provenance['model']}: the row of {printable(image.path)} {what}; set "
            "recompute_existing_embeddings: true for one run to recompute them, or use another embedding_type or "
            "database. The database is unchanged"
        )

    def _query_blob(self, query: sa.Select[tuple[bytes]]) -> bytes | None:
        with reading(self._database) as connection:
            blob: bytes | None = connection.scalar(query)
        return blob


def _is_of(database: Path, provenance: Mapping[str, Any]) -> bool:
    """Return whether a shard database is intact and holds rows of this encoder."""
    try:
        recorded = read_shard_provenance(database, provenance["name"])
        for _ in read_shard(database, provenance["name"]):  # to the end, which checks the digest
            pass
    except InputError:
        return False
    return recorded.get("encoder_digest") == provenance_digest(provenance)
