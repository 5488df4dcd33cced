"""Embed the photos of one shard: decode -> reuse or encode -> journal -> shard database.

Photos are decoded ahead of the encoder, a bounded number at a time. Finished rows go into the journal, from which the
next job resumes if this one is killed. When every photo has an outcome, the shard database is built from the journal.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ..db.embeddings import pack_embedding
from ..db.tables import VERSION_COLUMN, NewerFormat, Row, Tables
from ..encoders.identity import provenance_digest, read_encoder
from ..encoders.protocol import Embeddings
from ..errors import InputError
from ..photos.failures import TRANSIENT, advice
from ..photos.formats import MAX_PIXELS
from ..photos.image import Preprocessing
from ..shards.journal import RowsLog, logs_of
from ..shards.plan import SHARD_COLUMNS, Identity, PlannedImage, missing_from, read_plan, read_shard_list
from ..shards.shard import Embedded, Remains, outcomes, read_shard_provenance, write_shard_database
from ..util.files import digest, write_tsv
from ..util.progress import Progress
from ..util.text import printable
from .batches import Encoding
from .decode_pool import decoding
from .decode_process import Decoded, Failed
from .reuse import Copy, KnownRows

logger = logging.getLogger(__name__)

_MAX_IDLE_SHARE = 0.25  # of the time that a GPU may wait for photos without a warning
# Reasons that depend on more than the contents of the file: the next run plans such a photo again.


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
    backends: Iterable[str] = (),
) -> Embedded:
    """Embed one shard into a shard database, unless that is up to date.

    Parameters
    ----------
    shard_list, plan, encoder_json : str
        Paths of the shard's list, of `plan.tsv`, and of `encoder.json`.
    output : str
        Path of the shard database.
    database : str or None
        Database whose rows are reused: copied if they are of the same content and provenance, adopted if they are of
        unknown origin. None computes every row.
    batch_size : int or None
        Images per call of the encoder; None uses the encoder's own.
    n_threads : int
        Cores to use.
    device : {"auto", "cpu", "cuda", "mps"}
    max_pixels : int
        Larger images fail.
    scratch : str or None
        Folder on a local disk in which to build the shard database.
    backends : iterable of str
        The Python files that the configuration names as backends; see `load_encoder`.

    Returns
    -------
    Embedded

    Raises
    ------
    InputError
        If the encoder returns embeddings of the wrong shape or length, if there is too little memory for one image, or
        if rows of unknown origin are not this encoder's.
    """
    start = time.perf_counter()
    provenance = read_encoder(encoder_json)
    name = Path(output).stem
    listed = read_shard_list(shard_list)
    # An image that has changed since its list was written belongs to a newer shard.
    planned = {image.identity: image for image in read_plan(plan, name)[0]}
    images = {identity: planned[identity] for identity in listed if identity in planned}
    belongs_to = {"list": digest(listed), "encoder": provenance_digest(provenance)}
    if _is_up_to_date(output, provenance["name"], belongs_to, images):
        for path in logs_of(output):  # left by a job that was killed after it had published the shard database
            path.unlink(missing_ok=True)
        return Embedded(n_kept=len(images))
    remains = Remains(output, provenance, missing_from(plan, (uuid for uuid, *_ in listed)))
    with RowsLog(output, belongs_to, set(images)) as journal:
        recorder = _Recorder(journal, provenance, Embedded(n_resumed=len(journal.finished), n_threads=n_threads))
        to_do = [image for image in images.values() if image.uuid not in journal.finished]
        known = KnownRows(database, provenance, to_do, Path(output).parent)
        encoding = Encoding(provenance, batch_size, device, n_threads, recorder.counts, backends)
        with (
            Progress(len(to_do), f"shard {name}") as progress,
            decoding(
                to_do,
                Preprocessing.from_json(provenance["preprocessing"]),
                max_pixels,
                n_workers=n_threads,
                n_ahead=encoding.n_ahead,
                copy=known.copy,
            ) as photos,
        ):

            def finish(batch: list[Decoded], embeddings: Embeddings) -> None:
                recorder.add_batch(batch, embeddings, known)
                progress.update(len(batch))

            if not known.may_be_reused and to_do and os.access(to_do[0].path, os.R_OK):
                encoding.load()  # while the first photos are decoded
            encoding.encode(_to_compute(encoding.timed(photos), known, recorder, progress), finish)
        settled = {_identity(row) for row in journal.rows()}
        final = [image for image, failure in recorder.failures if failure["REASON"] not in TRANSIENT]
        settled |= {image.identity for image in final}
        _write_unread(Path(output), [identity for identity in listed if identity not in settled])
        recorder.counts.total = time.perf_counter() - start
        write_shard_database(
            output,
            provenance,
            belongs_to["list"],
            chain(({**row, "PATH": images[_identity(row)].path} for row in journal.rows()), remains.rows()),
            [*(failure for _, failure in recorder.failures), *remains.failures],
            recorder.counts,
            scratch=scratch,
        )
    _warn_of_idle_gpu(recorder.counts)
    return recorder.counts


def _is_up_to_date(output: str, embedding_type: str, belongs_to: Mapping[str, str], images: Iterable[Identity]) -> bool:
    """Return whether the shard database was made from this list by this encoder and has an outcome for each image."""
    if not Path(output).exists():
        return False
    try:
        recorded = read_shard_provenance(output, embedding_type)
        embedded, failed = outcomes(output, embedding_type)
    except NewerFormat:
        raise
    except InputError:  # it is damaged: rebuild it
        return False
    if {"list": recorded.get("shard_list"), "encoder": recorded.get("encoder_digest")} != belongs_to:
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


class _Recorder:
    """Record the outcome of each photo at once; several threads may use it.

    Parameters
    ----------
    journal : RowsLog
    provenance : dict
        The contents of `encoder.json`.
    counts : Embedded
        Outcomes are added to it.
    """

    def __init__(self, journal: RowsLog, provenance: Mapping[str, Any], counts: Embedded):
        self.counts = counts
        self.failures: list[tuple[PlannedImage, Row]] = []
        self._journal, self._version = journal, provenance["embed_version"]
        self._facts = Tables(provenance["name"]).facts
        self._lock = threading.Lock()

    def add_batch(self, batch: list[Decoded], embeddings: Embeddings, known: KnownRows) -> None:
        """Record photos that were computed; a row of unknown origin that this confirms is adopted."""
        with self._lock:
            for photo, embedding in zip(batch, embeddings, strict=True):
                adopted = known.check(photo, embedding)
                self.counts.n_adopted += adopted is not None
                self.counts.n_computed += adopted is None
                self._add(photo, embedding if adopted is None else adopted, is_final=adopted is None)
            self._flush()

    def add_copy(self, photo: Copy) -> None:
        """Record a photo that was not decoded, because its row is copied."""
        with self._lock:
            self.counts.n_copied += 1
            self._journal.add({name: value for name, value in photo.row.items() if name not in ("PATH", "SHARD")})
            self._flush()

    def add_known(self, photo: Decoded, embedding: Embeddings, *, is_adopted: bool) -> None:
        """Record a photo whose row is reused."""
        with self._lock:
            self.counts.n_adopted += is_adopted
            self.counts.n_copied += not is_adopted
            # Adopted rows are valid only if all checks of this job pass. A job that resumes repeats the checks.
            self._add(photo, embedding, is_final=not is_adopted)
            self._flush()

    def add_failure(self, photo: Failed) -> None:
        """Record a photo that could not be decoded; a job that resumes tries it again."""
        path, error = photo.image.path, photo.error
        logger.info("%s: %s (%s): %s", path, error.reason, error, advice(error.reason))
        failure = {"UUID": photo.image.uuid, "PATH": path, "REASON": error.reason, "MESSAGE": printable(error)}
        self.failures.append((photo.image, failure))
        self.counts.n_failed += 1

    def _add(self, photo: Decoded, embedding: Embeddings, *, is_final: bool) -> None:
        uuid, size, mtime_ns = photo.image.identity
        row = {"UUID": uuid, "SIZE": size, "MTIME_NS": mtime_ns, "DIGEST": photo.digest}
        row[VERSION_COLUMN] = self._version
        row |= {name: photo.facts[name.lower()] for name in self._facts}
        row |= {"EMBEDDING": pack_embedding(embedding), "JPEG": photo.loaded.thumbnail}
        self._journal.add(row, is_final=is_final)

    def _flush(self) -> None:
        start = time.perf_counter()
        self._journal.flush()
        self.counts.writing += time.perf_counter() - start


def _to_compute(
    photos: Iterable[Decoded | Failed | Copy], known: KnownRows, recorder: _Recorder, progress: Progress
) -> Iterator[Decoded]:
    """Yield the photos whose rows must be computed; record the outcome of the others."""
    for photo in photos:
        if isinstance(photo, Failed):
            recorder.add_failure(photo)
            progress.update(1)
        elif isinstance(photo, Copy):
            recorder.add_copy(photo)
            progress.update(1)
        elif (row := known.find(photo)) is not None:
            recorder.add_known(photo, row.embedding, is_adopted=row.is_adopted)
            progress.update(1)
        else:
            yield photo


def _warn_of_idle_gpu(counts: Embedded) -> None:
    if counts.device not in ("none", "cpu") and counts.waiting > _MAX_IDLE_SHARE * (counts.total - counts.loading):
        logger.warning(
            "the %s waited for decoding %.0f %% of the time; give the job more cores",
            *(counts.device, 100 * counts.waiting / (counts.total - counts.loading)),
        )
