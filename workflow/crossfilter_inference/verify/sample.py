"""Re-embed a random sample of photos and compare it with the stored rows."""

import heapq
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from ..db.connect import reading
from ..db.embeddings import unpack_embedding
from ..db.tables import Tables
from ..embed.batches import Encoding
from ..embed.decode_process import Decoded, DecodeProcess
from ..embed.reuse import LEAST_COSINE
from ..encoders.protocol import Embeddings
from ..errors import InputError
from ..photos.failures import TRANSIENT
from ..photos.image import Preprocessing
from ..shards.plan import MANIFEST_COLUMNS, PlannedImage
from ..shards.shard import Embedded
from ..util.files import damaged, read_tsv
from ..util.text import counted, once_with
from .problems import Problems, reading_file

_N_CANDIDATES = 4  # for each photo of the sample: failed, changed and missing photos are left out


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
        Larger photos are not decoded.
    backends : iterable of str
        The Python files that the configuration names as backends; see `load_encoder`.
    """

    def __init__(
        self, database: str, folder: Path, provenance: dict[str, Any], max_pixels: int, backends: Iterable[str]
    ):
        self._database, self._manifest, self._provenance = database, folder / "manifest.tsv", provenance
        self._backends = backends
        self._tables, self._max_pixels = Tables(provenance["name"]), max_pixels
        self._blobs: dict[str, bytes] = {}
        self._cosines: dict[str, float] = {}  # by path
        self._problems = Problems()

    def check(self, n_images: int, device: str, n_threads: int) -> str:
        """Embed a random sample and compare it with the stored rows.

        Parameters
        ----------
        n_images : int
            Size of the sample, at most the number of rows.
        device : {"auto", "cpu", "cuda", "mps"}
        n_threads : int
            Number of cores to use.

        Returns
        -------
        str
            Summary; empty if no photo of the sample is unchanged.

        Raises
        ------
        InputError
            If the encoder fails, a row does not match its photo, a photo cannot be decoded any more, or a file has new
            content under its old size and time.
        """
        preprocessing = Preprocessing.from_json(self._provenance["preprocessing"])
        with DecodeProcess(preprocessing, self._max_pixels) as process:
            images = islice(self._decode(self._candidates(_N_CANDIDATES * n_images), process), n_images)
            try:
                Encoding(self._provenance, None, device, n_threads, Embedded(), self._backends).encode(
                    images, self._compare
                )
            except InputError:
                raise
            except Exception as error:  # a user's encoder may raise anything
                fault = f"the encoder failed ({type(error).__name__}: {error})"
                raise InputError(f"{fault}: fix it and verify again") from None
        for path, cosine in self._cosines.items():
            if not cosine >= LEAST_COSINE:
                fix = once_with("recompute_existing_embeddings=true")
                fault = "with a new embedding unlike the stored one"
                self._problems.add("photos", fault, f"{path}: cosine {cosine:.4f}", fix)
        self._problems.check()
        if not self._cosines:
            return ""
        return f"{counted(len(self._cosines), 'photos')} re-embedded, lowest cosine {min(self._cosines.values()):.6f}"

    def _candidates(self, n: int) -> list[PlannedImage]:
        """Choose photos of the manifest at random."""
        with reading_file(self._manifest):
            keyed = ((random.random(), row) for row in read_tsv(self._manifest, MANIFEST_COLUMNS))
            rows = [row for _, row in heapq.nsmallest(n, keyed)]
            try:
                return [PlannedImage(uuid, path, int(size), int(time), shard) for uuid, path, size, time, shard in rows]
            except ValueError:
                raise damaged(self._manifest) from None

    def _decode(self, candidates: list[PlannedImage], process: DecodeProcess) -> Iterator[Decoded]:
        """Decode the photos that have a row and are unchanged."""
        for image in candidates:
            if (row := self._read_row(image.uuid)) is None:
                continue
            digest, self._blobs[image.uuid] = row
            item = process.decode(image)
            if isinstance(item, Decoded) and item.digest == digest:
                yield item
            elif isinstance(item, Decoded):
                fix = "touch these files and run the workflow"
                self._problems.add("files", "with new content under the old size and time", image.path, fix)
            elif item.error.reason not in TRANSIENT:
                fix = "restore these files, or touch them and run the workflow"
                self._problems.add("photos", "no longer decodable", f"{image.path}: {item.error}", fix)

    def _compare(self, batch: list[Decoded], computed: Embeddings) -> None:
        for item, embedding in zip(batch, computed, strict=True):
            with np.errstate(invalid="ignore"):  # a damaged row may hold anything
                row = unpack_embedding(self._blobs[item.image.uuid]).astype(float)
                self._cosines[item.image.path] = float(row @ embedding / (np.linalg.norm(row) or 1))

    def _read_row(self, uuid: str) -> tuple[str, bytes] | None:
        """Read the digest of a photo's file, and its packed embedding; the database is open only meanwhile."""
        images, embeddings = self._tables.images, self._tables.embeddings
        query = sa.select(images.c.DIGEST, embeddings.c.EMBEDDING).join(embeddings, images.c.UUID == embeddings.c.UUID)
        with reading(self._database) as connection:
            return connection.execute(query.where(images.c.UUID == uuid)).tuples().first()
