"""The rows that the database holds already, and that need not be computed again.

A row whose image file is on record is copied for the same content under the same provenance. A row of which nothing is
on record (the original tool wrote it, say) is adopted for the photo of its UUID, if it is this encoder's: that is
checked by its dimension and its length, and by embedding some of the photos again.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from ..db.connect import reading
from ..db.embeddings import unpack_embedding
from ..db.provenance import recorded_encoder, unknown_rows
from ..db.tables import Tables
from ..encoders.identity import provenance_digest
from ..errors import InputError
from ..shards.plan import PlannedImage
from ..util.text import printable
from .decode_pool import DecodedImage

logger = logging.getLogger(__name__)

N_CHECKED = 8  # photos of a shard, embedded again to check rows of unknown origin
# Cosine of a row and the same photo's embedding: the same model in another number format or on another device is
# above .9999, a large JPEG decoded at full size above .9999, another model near 0.
LEAST_COSINE = 0.999
LENGTH_TOLERANCE = 1e-2  # bfloat16 has 8 bits


@dataclass(frozen=True)
class KnownRow:
    """An embedding, shape (n_dims,), float32, and where it comes from."""

    embedding: np.ndarray
    is_adopted: bool


class KnownRows:
    """Rows that may be taken for the images of one shard.

    The database is open only while it is asked, so that a long job keeps nobody from writing to it.

    Parameters
    ----------
    database : str or None
        Path; it may be missing.
    provenance : dict
        What `resolve_encoder` wrote.
    images : list of PlannedImage
        The images of the shard.
    """

    def __init__(self, database: str | None, provenance: dict, images: list[PlannedImage]):
        self._database, self._provenance = database, provenance
        self._tables = Tables(provenance["name"])
        self._uuids: dict[str, str] = {}  # by digest of the file
        self._unknown: set[str] = set()
        self._to_check: dict[str, np.ndarray] = {}
        self._n_seen = self._n_chosen = 0
        if not (database and Path(database).exists()):
            return
        with reading(database) as connection:
            recorded = recorded_encoder(connection, provenance["name"]).get("digest")
            if recorded == provenance_digest(provenance):
                rows = connection.execute(sa.select(self._tables.images.c.DIGEST, self._tables.images.c.UUID))
                self._uuids = dict(rows.tuples().all())
            if recorded in (None, provenance_digest(provenance)):
                self._unknown = unknown_rows(connection, provenance["name"]) & {image.uuid for image in images}

    def find(self, item: DecodedImage) -> KnownRow | None:
        """Return the row for an image; None if there is none, or if it has to be checked first.

        Raises
        ------
        InputError
            If a row of unknown origin cannot be this encoder's.
        """
        images, embeddings = self._tables.images, self._tables.embeddings
        if uuid := self._uuids.get(item.digest):
            same = (images.c.UUID == uuid) & (images.c.DIGEST == item.digest)
            blob = self._ask(
                sa.select(embeddings.c.EMBEDDING).join(images, images.c.UUID == embeddings.c.UUID).where(same)
            )
            if blob is not None:
                return KnownRow(unpack_embedding(blob), is_adopted=False)
        uuid = item.image.uuid
        # The original tool embeds a photo as it lies in its file: one that has to be turned is computed anew.
        if uuid not in self._unknown or item.loaded.is_turned:
            return None
        blob = self._ask(sa.select(embeddings.c.EMBEDDING).where(embeddings.c.UUID == uuid))
        if blob is None:
            return None
        embedding = self._unpack(item, blob)
        if self._is_chosen():
            self._to_check[uuid] = embedding
            return None
        return KnownRow(embedding, is_adopted=True)

    def check(self, item: DecodedImage, computed: np.ndarray) -> np.ndarray | None:
        """Compare an embedding with the row of unknown origin that it was computed to check.

        Returns
        -------
        array of shape (n_dims,) or None
            The row, which is adopted; None if the image has none.

        Raises
        ------
        InputError
            If they differ.
        """
        row = self._to_check.pop(item.image.uuid, None)
        if row is None:
            return None
        cosine = float(np.dot(row.astype(float), computed) / np.linalg.norm(row.astype(float)))
        if cosine < LEAST_COSINE:
            raise self._refusal(
                f"the row of {printable(item.image.path)} has cosine {cosine:.4f} to the embedding of this photo, "
                f"expected {LEAST_COSINE} at least"
            )
        return row

    def _is_chosen(self) -> bool:
        """Choose photos all over the shard; where one is left out, the next one is taken."""
        is_due = self._n_chosen * len(self._unknown) <= self._n_seen * N_CHECKED
        self._n_seen += 1
        self._n_chosen += is_due
        return is_due

    def _unpack(self, item: DecodedImage, blob: bytes) -> np.ndarray:
        try:
            embedding = unpack_embedding(blob)
        except (ValueError, TypeError, KeyError) as error:
            raise self._refusal(f"the row of {printable(item.image.path)} cannot be read ({error})") from None
        if len(embedding) != self._provenance["dimension"]:
            raise self._refusal(f"they have {len(embedding)} dimensions, expected {self._provenance['dimension']}")
        length = np.linalg.norm(embedding)
        if not abs(length - 1) < LENGTH_TOLERANCE:
            raise self._refusal(f"the row of {printable(item.image.path)} has length {length:.4g}, expected 1")
        return embedding

    def _refusal(self, what: str) -> InputError:
        return InputError(
            f"{self._tables.embeddings.name} holds {len(self._unknown)} embeddings of unknown origin for these photos, "
            f"and they are not those of {self._provenance['model']}: {what}; set recompute_existing_embeddings: true "
            "for one run to make them anew, or use another embedding_type, or another database"
        )

    def _ask(self, query: sa.Select) -> bytes | None:
        with reading(self._database) as connection:
            return connection.scalar(query)
