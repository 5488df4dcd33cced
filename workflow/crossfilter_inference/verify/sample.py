"""Are the rows what the encoder makes of the photos? Some of them, drawn by lot, are embedded again and compared."""

import heapq
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from ..db.connect import reading
from ..db.embeddings import unpack_embedding
from ..db.tables import Tables
from ..embed.batches import Encoding
from ..embed.decode_pool import Decoded, decode_image
from ..embed.reuse import LEAST_COSINE
from ..encoders.protocol import Embeddings
from ..errors import InputError
from ..photos.image import Preprocessing
from ..shards.plan import MANIFEST_COLUMNS, PlannedImage
from ..shards.shard import Embedded
from ..util.files import read_tsv
from .rows import Problems, using

_MAY_PASS = ("missing", "unreadable", "changed")  # why a photo is left out
_LOTS = 4  # drawn for each photo of the sample, as some have failed, changed or gone


class Sample:
    """Photos of a database, embedded again.

    Parameters
    ----------
    database : str
        Path.
    folder : Path
        State folder of the embedding type.
    provenance : dict
        The contents of `encoder.json`.
    max_pixels : int
        Larger images are not decoded.
    """

    def __init__(self, database: str, folder: Path, provenance: dict, max_pixels: int):
        self._database, self._manifest, self._provenance = database, folder / "manifest.tsv", provenance
        self._tables, self._max_pixels = Tables(provenance["name"]), max_pixels
        self._cosines: dict[str, float] = {}
        self._problems = Problems()

    def check(self, n_images: int, device: str, n_threads: int) -> str:
        """Draw photos, embed them, and compare; empty, if none is there as it was embedded.

        Raises
        ------
        InputError
            If the encoder does not work; if a row is not like its photo, a photo cannot be decoded any more, or its
            file has changed without a trace.
        """
        with using(self._manifest):
            lots = ((random.random(), *row) for row in read_tsv(self._manifest, MANIFEST_COLUMNS))
            drawn = [PlannedImage(*row) for _, *row in heapq.nsmallest(_LOTS * n_images, lots)]
        images = islice(self._decode(drawn), n_images)
        try:
            Encoding(self._provenance, None, device, n_threads, Embedded()).encode(images, self._compare)
        except InputError:
            raise
        except Exception as error:  # a user's encoder may raise anything
            raise InputError(f"the encoder does not work ({type(error).__name__}: {error})") from None
        for uuid, cosine in self._cosines.items():
            if not cosine >= LEAST_COSINE:
                way_out = "run once with --config recompute_existing_embeddings=true"
                self._problems.add("photos embedded again are unlike their rows", f"{uuid}: {cosine:.4f}", way_out)
        self._problems.check()
        if not self._cosines:
            return ""
        return f"{len(self._cosines)} photos embedded again, least cosine {min(self._cosines.values()):.6f}"

    def _decode(self, drawn: list[PlannedImage]) -> Iterator[Decoded]:
        """Decode those that have a row and are unchanged."""
        preprocessing = Preprocessing.from_json(self._provenance["preprocessing"])
        for image in drawn:
            if (row := self._row(image.uuid)) is None:
                continue
            image = image._replace(size=int(image.size), mtime_ns=int(image.mtime_ns))
            item = decode_image(image, preprocessing, self._max_pixels)
            if isinstance(item, Decoded) and item.digest == row[0]:
                yield item
            elif isinstance(item, Decoded):
                way_out = "touch them and run snakemake"
                self._problems.add("files have changed, and not their size and time", image.path, way_out)
            elif item.error.reason not in _MAY_PASS:
                what = f"{image.path}: {item.error}"
                self._problems.add(
                    "photos cannot be decoded any more", what, "put them back, or touch them and run snakemake"
                )

    def _compare(self, batch: list[Decoded], computed: Embeddings) -> None:
        for item, embedding in zip(batch, computed, strict=True):
            with np.errstate(invalid="ignore"):  # a damaged row may hold anything
                row = unpack_embedding(self._row(item.image.uuid)[1]).astype(float)
                self._cosines[item.image.uuid] = float(row @ embedding / (np.linalg.norm(row) or 1))

    def _row(self, uuid: str) -> tuple[str, bytes] | None:
        """Ask for the digest of a photo's file, and its embedding; the database is open only meanwhile."""
        images, embeddings = self._tables.images, self._tables.embeddings
        query = sa.select(images.c.DIGEST, embeddings.c.EMBEDDING).join(embeddings, images.c.UUID == embeddings.c.UUID)
        with reading(self._database) as connection:
            return connection.execute(query.where(images.c.UUID == uuid)).tuples().first()
