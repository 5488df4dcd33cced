"""Embed the images of one shard: decode workers -> encoder -> log of rows -> shard database.

Images are decoded ahead of the encoder, by a bounded number. Every batch has the same shape, the last one is padded: an
embedding does not depend on what else was in its batch. A batch that is done is in the log of rows, from which the next
job goes on if this one is killed; when all images have met their fate, the shard database is made of it.
"""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..db.embeddings import pack_embedding
from ..db.tables import NewerFormat, Row, Tables
from ..encoders import devices
from ..encoders.identity import provenance_digest
from ..errors import InputError
from ..photos.image import MAX_PIXELS, Preprocessing
from ..shards.journal import RowsLog, logs_of
from ..shards.plan import SHARD_COLUMNS, Identity, PlannedImage, read_plan, read_shard_list
from ..shards.shard import Embedded, outcomes, read_shard_provenance, write_shard_database
from ..util.files import digest, read_json, write_tsv
from ..util.progress import Progress
from ..util.text import printable
from .batches import Encoding
from .decode_pool import DecodedImage, decoding
from .reuse import KnownRows

logger = logging.getLogger(__name__)

_IDLE_SHARE = 0.25  # of the time that a GPU may wait without a warning
# Reasons that say nothing of what a file holds: such a photo is planned again at the next run.
_MAY_PASS = ("missing", "unreadable", "empty", "changed", "out of memory")


def embed_shard(
    shard_list: str,
    plan: str,
    encoder_json: str,
    output: str,
    *,
    database: str | None,
    batch_size: int | None,
    n_threads: int,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
    scratch: str | None = None,
) -> Embedded:
    """Embed one shard into a shard database, unless the one that is there is what it would become.

    Parameters
    ----------
    shard_list, plan, encoder_json : str
        Paths of the shard's list, the plan of this run, and what `resolve_encoder` wrote.
    output : str
        Path of the shard database.
    database : str or None
        Rows of the same content under the same provenance are copied from here instead of computed, and rows of
        unknown origin adopted.
    batch_size : int or None
        Images per call of the encoder; None leaves it to the encoder.
    n_threads : int
        Cores to use.
    device : {"auto", "cpu", "cuda", "mps"}
    max_pixels : int
        Larger images are not decoded.
    scratch : str or None
        Folder on a disk of this computer, in which the shard database is built.

    Returns
    -------
    Embedded

    Raises
    ------
    InputError
        If the encoder gives embeddings of another shape, or not of unit length, or too little memory is there for a
        single image; if rows of unknown origin are not this encoder's.
    """
    start = time.perf_counter()
    provenance = read_json(encoder_json)
    name = Path(output).stem
    listed = read_shard_list(shard_list)
    # An image that has changed since its list was written belongs to a newer shard.
    images = {image.identity: image for image in read_plan(plan, name)[0]}
    images = {identity: images[identity] for identity in listed if identity in images}
    belongs_to = {"list": digest(listed), "encoder": provenance_digest(provenance)}
    if _is_there(output, provenance["name"], belongs_to, images):
        for log in logs_of(output):  # of a job that was killed just after it had published the database
            log.unlink(missing_ok=True)
        return Embedded(n_kept=len(images))
    with RowsLog(output, belongs_to, set(images)) as log:
        facts = Tables(provenance["name"]).facts
        rows = _Rows(log, facts, Embedded(n_resumed=len(log.finished), n_threads=n_threads))
        to_do = [image for image in images.values() if image.uuid not in log.finished]
        known = KnownRows(database, provenance, to_do)
        with (
            Progress(len(to_do), f"shard {name}") as progress,
            Encoding(provenance, batch_size, device, n_threads, rows.counts) as encoding,
            decoding(
                to_do,
                Preprocessing.from_json(provenance["preprocessing"]),
                max_pixels,
                n_workers=n_threads,
                n_ahead=encoding.n_ahead,
                in_processes=device != "cpu" and devices.may_have_gpu(),
            ) as decoded,
        ):
            batches = _to_encode(encoding.timed(decoded), known, rows, progress, encoding)

            def finish(batch: list[DecodedImage], embeddings: np.ndarray) -> None:
                rows.add_batch(batch, embeddings, known)
                progress.update(len(batch))

            encoding.encode(batches, finish)
        settled = {_identity(row) for row in log.rows()}
        settled |= {image.identity for image, failure in rows.failures if failure["REASON"] not in _MAY_PASS}
        _write_unread(Path(output), [identity for identity in listed if identity not in settled])
        rows.counts.total = time.perf_counter() - start
        write_shard_database(
            output,
            provenance,
            belongs_to["list"],
            ({**row, "PATH": printable(images[_identity(row)].path)} for row in log.rows()),
            [failure for _, failure in rows.failures],
            rows.counts,
            scratch=scratch,
        )
    _warn_of_idle_gpu(rows.counts)
    return rows.counts


def _is_there(output: str, embedding_type: str, belongs_to: dict, images: dict[Identity, PlannedImage]) -> bool:
    """Tell whether a shard database was made of this list by this encoder, and no image was left out."""
    if not Path(output).exists():
        return False
    try:
        recorded = read_shard_provenance(output, embedding_type)
        embedded, failed = outcomes(output, embedding_type)
    except NewerFormat:
        raise
    except InputError:  # it is damaged, and is rebuilt
        return False
    if {"list": recorded.get("shard_list"), "encoder": recorded["encoder_digest"]} != belongs_to:
        return False
    return all(identity in embedded or identity[0] in failed for identity in images)


def _identity(row: Row) -> Identity:
    return row["UUID"], row["SIZE"], row["MTIME_NS"]


def _write_unread(output: Path, unread: list[Identity]) -> None:
    path = output.with_suffix(".unread.tsv")
    if unread:
        write_tsv(path, SHARD_COLUMNS, unread)
    else:
        path.unlink(missing_ok=True)


class _Rows:
    """What becomes of the images, written down at once; for use by several threads."""

    def __init__(self, log: RowsLog, facts: list[str], counts: Embedded):
        self.counts = counts
        self.failures: list[tuple[PlannedImage, Row]] = []
        self._log, self._facts = log, facts
        self._lock = threading.Lock()

    def add_batch(self, batch: list[DecodedImage], embeddings: np.ndarray, known: KnownRows) -> None:
        """Take images that were computed, and rows of unknown origin that were computed to check them."""
        with self._lock:
            for item, embedding in zip(batch, embeddings, strict=True):
                adopted = known.check(item, embedding)
                self.counts.n_adopted += adopted is not None
                self.counts.n_computed += adopted is None
                self._add(item, embedding if adopted is None else adopted, is_final=adopted is None)
            self._flush()

    def add_known(self, item: DecodedImage, embedding: np.ndarray, *, is_adopted: bool) -> None:
        """Take an image whose row need not be computed."""
        with self._lock:
            self.counts.n_adopted += is_adopted
            self.counts.n_copied += not is_adopted
            # Rows of unknown origin stand or fall with the check of all of them, which a next job makes again.
            self._add(item, embedding, is_final=not is_adopted)
            self._flush()

    def add_failure(self, item: DecodedImage) -> None:
        """Take an image that could not be embedded; the next job tries it again."""
        path = printable(item.image.path)
        logger.warning("%s: %s (%s)", path, item.error.reason, item.error)
        failure = {"UUID": item.image.uuid, "PATH": path, "REASON": item.error.reason, "MESSAGE": str(item.error)}
        self.failures.append((item.image, failure))
        self.counts.n_failed += 1

    def _add(self, item: DecodedImage, embedding: np.ndarray, *, is_final: bool) -> None:
        uuid, size, mtime_ns = item.image.identity
        row = {"UUID": uuid, "SIZE": size, "MTIME_NS": mtime_ns, "DIGEST": item.digest}
        row |= {name: getattr(item.loaded, name.lower()) for name in self._facts}
        row |= {"EMBEDDING": pack_embedding(embedding), "JPEG": item.loaded.thumbnail}
        self._log.add(row, is_final=is_final)

    def _flush(self) -> None:
        start = time.perf_counter()
        self._log.flush()
        self.counts.writing += time.perf_counter() - start


def _to_encode(
    decoded: Iterator[DecodedImage],
    known: KnownRows,
    rows: _Rows,
    progress: Progress,
    encoding: Encoding,
) -> Iterator[list[DecodedImage]]:
    """Yield batches of the images that have to be computed; the others are done here."""
    batch: list[DecodedImage] = []
    for item in decoded:
        if item.error is not None:
            rows.add_failure(item)
            progress.update(1)
        elif (row := known.find(item)) is not None:
            rows.add_known(item, row.embedding, is_adopted=row.is_adopted)
            progress.update(1)
        else:
            batch.append(item)
            if len(batch) >= encoding.batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def _warn_of_idle_gpu(counts: Embedded) -> None:
    if counts.device not in ("none", "cpu") and counts.waiting > _IDLE_SHARE * (counts.total - counts.loading):
        logger.warning(
            "the %s waited for decoding %.0f %% of the time: give the job more cores",
            *(counts.device, 100 * counts.waiting / (counts.total - counts.loading)),
        )
