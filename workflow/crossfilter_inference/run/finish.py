"""Report the outcome of a run, and fail it if too many photos failed."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from ..db.connect import reading
from ..db.provenance import other_versions
from ..db.tables import Tables, columns_in
from ..errors import TooManyFailed
from ..photos.failures import advice
from ..shards.plan import FAILED_COLUMNS, PlannedImage, read_plan, shard_databases
from ..shards.shard import read_shard_provenance
from ..util.files import read_json, write_tsv
from ..util.text import counted, once_with

if TYPE_CHECKING:
    from .prepare import Run

_FEWEST_TO_JUDGE = 20  # photos
_N_NAMED = 3  # of the failed photos


def closing_lines(run: "Run") -> list[str]:
    """Summarise a finished run: its results, the contents of the database, and the link to the globe.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of str
        Empty if the run did not get as far as the database, because the user asked for other rules only.
    """
    database, folder = run.database, run.state
    if not Path(folder, "embeddings.json").exists():
        return []
    receipt = read_json(f"{folder}/embeddings.json", n_embeddings=int, n_failures=int)
    embedding_type = run.config.embedding_type
    computed, copied = _count_embedded(folder, run.started)
    _, rejected = read_plan(f"{folder}/plan.tsv")
    copies = f" and {copied:,} copied" if copied else ""
    failures = _write_failures(database, folder)
    reasons, by_reason = Counter(failure.reason for failure in failures), ""
    if reasons:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        by_reason = f" ({counts}), see {folder}/failed.tsv"
    details = [f"{_name(failure.path, run.config.input_dir)}: {failure.message}" for failure in failures[:_N_NAMED]]
    details += [f"and {len(failures) - _N_NAMED:,} more"] if failures[_N_NAMED:] else []
    details += [f"{reason}: {advice(reason)}" for reason, _ in reasons.most_common()]
    in_list = f", see {folder}/rejected.tsv" if rejected else ""
    lines = [
        f"embedded: {counted(computed, 'photos')} in this run{copies}, {receipt['n_embeddings']:,} in total, "
        f"in {database}",
        f"failed:   {counted(len(failures), 'photos')}{by_reason}",
        *(f"          {line}" for line in details),
        f"rejected: {counted(len(rejected), 'files')}{in_list}",
        *([run.deleted] if run.deleted else []),
        *_kept_lines(database, embedding_type),
        *_facts_line(database, embedding_type),
    ]
    quality, look_at = Path(folder, "map_quality.json"), page_line(folder)
    if quality.exists() and look_at:
        lines += [f"map:      {_map_line(quality, is_new=map_record(folder) != run.map_before)}", look_at]
    return lines


def map_record(folder: str) -> bytes:
    """Read the record of the map, which changes with the map; empty if there is none."""
    path = Path(folder, "map_quality.json")
    return path.read_bytes() if path.is_file() else b""


def page_line(folder: str) -> str:
    """Return the line with the link to the globe; empty if there is no globe."""
    page = Path(folder, "map.html")
    return f"look at:  {page.absolute().as_uri()}" if page.exists() else ""


def _name(path: str, folders: Sequence[str]) -> str:
    """Return the path of a photo within the folder of photos that holds it."""
    tops = (os.path.join(os.path.abspath(folder), "") for folder in folders)
    return min((path.removeprefix(top) for top in tops), key=len, default=path)


class _Failure(NamedTuple):
    """A row of failed.tsv."""

    path: str
    reason: str
    message: str
    uuid: str


def _write_failures(database: str, folder: str) -> list[_Failure]:
    """List the failed photos in failed.tsv, by path."""
    table, file = Tables(Path(folder).name).failures.c, Path(folder, "failed.tsv")
    query = sa.select(table.PATH, table.REASON, table.MESSAGE, table.UUID)
    with reading(database) as connection:
        failures = sorted(_Failure(*row) for row in connection.execute(query))
    if failures or file.exists():
        write_tsv(file, FAILED_COLUMNS, failures)
    return failures


def _kept_lines(database: str, embedding_type: str) -> list[str]:
    """Report the embeddings of missing photos that are of another embed version."""
    with reading(database) as connection:
        versions = other_versions(connection, embedding_type)
    return [
        f"kept:     {counted(n, 'embeddings')} of missing photos, of embed version {version}; a photo that returns is "
        "embedded again"
        for version, n in sorted(versions.items())
    ]


def _facts_line(database: str, embedding_type: str) -> list[str]:
    """Report photos whose facts are those of an earlier version, which recorded the time alone."""
    images = Tables(embedding_type).images
    with reading(database) as connection:
        if images.c.TAKEN_FROM.name not in columns_in(connection, images):
            return []
        is_older = (images.c.TAKEN.is_not(None), images.c.TAKEN_FROM.is_(None))
        n = connection.scalar(sa.select(sa.func.count()).select_from(images).where(*is_older))
    line = (
        f"facts:    an earlier version embedded {counted(n or 0, 'photos')} without recording location and camera; to "
        f"record them, {once_with('reread_photos=true')}; this embeds no photo again"
    )
    return [line] if n else []


def _is_new(path: Path, since: float) -> bool:
    return path.stat().st_mtime >= since


def _count_embedded(folder: str, since: float) -> tuple[int, int]:
    """Count the photos that jobs of this run computed, and those that they copied from other rows."""
    # The timestamp of a kept shard is new too, because Snakemake touches it.
    shards = [path for path in shard_databases(folder) if _is_new(path, since)]
    timings = [read_shard_provenance(path, Path(folder).name) for path in shards]
    finished = [timing for timing in timings if float(timing.get("timing_finished", 0)) >= since]
    computed, copied = (
        sum(int(timing[f"timing_n_{outcome}"]) for timing in finished) for outcome in ("computed", "copied")
    )
    return computed, copied


def _map_line(path: Path, *, is_new: bool) -> str:
    record = read_json(path, n_images=int, action=str, n_new=int, n_gone=int)
    photos = counted(record["n_images"], "photos")
    if not is_new:
        return f"unchanged, {photos}"
    drift = record.get("drift_degrees")
    moved = "" if drift is None else f"; the other photos moved by {drift:.2f} degrees on average"
    if record["action"] == "fit":
        return f"new, {photos}{moved.replace('the other photos', 'photos of the previous map')}"
    return f"{counted(record['n_new'], 'photos')} added, {record['n_gone']:,} removed{moved}"


def check_failures(folder: str, images: Sequence[PlannedImage], max_share: float) -> None:
    """Fail a finished run if so many photos failed that the photos alone cannot be the cause.

    Parameters
    ----------
    folder : str
        State folder of the embedding type.
    images : sequence of PlannedImage
        Photos of the run.
    max_share : float
        `max_failed_share`.

    Raises
    ------
    TooManyFailed
        If more than `max_share` of more than 20 photos failed.
    """
    receipt = Path(folder, "embeddings.json")
    n_failures = read_json(receipt, n_failures=int)["n_failures"] if receipt.exists() else 0
    n_images = len(images)
    if n_images > _FEWEST_TO_JUDGE and n_failures > max_share * n_images:
        raise TooManyFailed(
            f"{n_failures} of {n_images} photos failed, more than max_failed_share: {max_share:g} allows; all others "
            f"are stored. {folder}/failed.tsv lists the reasons. If you fixed the cause, "
            f"{once_with('retry_failures=true')}; if these photos cannot be fixed, raise max_failed_share"
        )


def reasons(folder: str, since: float, *, is_stopped: bool) -> list[str]:
    """Return why a run has failed: because its user stopped it, or the error lines of jobs that a mistake stopped.

    Parameters
    ----------
    folder : str
        State folder of the embedding type.
    since : float
        Ignore logs from before this time, in seconds since the epoch.
    is_stopped : bool
        Whether the user stopped it.
    """
    if is_stopped:
        return ["stopped: finished work is kept; to resume, run the same command again"]
    logs = [path for path in Path(folder, "logs").rglob("*.log") if path.is_file() and _is_new(path, since)]
    lines = [line for path in sorted(logs) for line in path.read_text("utf-8", errors="replace").splitlines()[-1:]]
    return sorted({line for line in lines if line.startswith("error: ")})
