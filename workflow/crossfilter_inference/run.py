"""A run as a whole: what happens before its first job and after its last."""

import fcntl
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

import sqlalchemy as sa

from .connections import reading, recover
from .database import Tables
from .errors import InputError
from .files import read_json, remove_parts
from .plan import Identity, Plan, read_plan, remove_shard, shard_lists, write_plan
from .provenance import refuse_foreign_shards
from .rows_log import remove_logs
from .shard_reading import read_shard_provenance
from .state import state_folder
from .wording import counted

# A handle must outlive the function that opened it: when it is collected, its lock is gone.
_held: list[IO] = []
_FEWEST_TO_JUDGE = 20  # photos


def start_run(
    database: str,
    folder: str,
    embedding_type: str,
    known_shards: dict[str, set[Identity]],
    shards: list[str],
    plan: Plan,
    max_deleted_share: float | None,
) -> None:
    """Make ready for the first job: take the lock, clean up after a killed run, write the plan.

    The lock is held until this process ends, however it ends.

    Parameters
    ----------
    database : str
    folder : str
        State folder of the embedding type.
    embedding_type : str
    known_shards : dict
        What the plan was made from, by shard.
    shards : list of str
        Those that this run makes or uses.
    plan : Plan
    max_deleted_share : float in [0, 1] or None
        Share of the embeddings that may be deleted, as their photos have gone; None, if none are deleted.

    Raises
    ------
    InputError
        If another run is at work on this database, or was while the plan was made; if a shard database comes from
        another encoder; if more than the allowed share would be deleted.
    """
    root = Path(state_folder(database))
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = open(root / ".lock", "a")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"output_embeddings_db: cannot write in {str(root)!r} ({error.strerror}); name another database"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(
            f"output_embeddings_db: another run is at work on {database!r}; wait for it to end, or stop it"
        ) from None
    _held.append(lock)
    if [path.stem for path in shard_lists(f"{folder}/shards")] != sorted(known_shards):
        raise InputError(
            f"output_embeddings_db: another run on {database!r} ended while this one was planned; start it again"
        )
    if os.path.exists(database):
        recover(database)
    if max_deleted_share is not None:
        uuids = _embedded(database, embedding_type) or {uuid for rows in known_shards.values() for uuid, *_ in rows}
        _check_deletions(uuids, plan, max_deleted_share)
    remove_parts(folder)
    remove_logs(f"{folder}/embeddings", shards)
    for shard in {*known_shards} - {*shards}:
        remove_shard(folder, shard)
    _leave_the_future(folder)
    refuse_foreign_shards(folder, embedding_type)
    write_plan(f"{folder}/plan.tsv", plan)


def _embedded(database: str, embedding_type: str) -> set[str]:
    if not os.path.exists(database):
        return set()
    table = Tables(embedding_type).embeddings
    with reading(database) as connection:
        return (
            set(connection.scalars(sa.select(table.c.UUID))) if sa.inspect(connection).has_table(table.name) else set()
        )


def _check_deletions(uuids: set[str], plan: Plan, max_share: float) -> None:
    n_gone = len(uuids - {image.uuid for image in plan.images})
    if n_gone > max_share * len(uuids):
        raise InputError(
            f"missing_images: delete would remove {n_gone} of {len(uuids)} embeddings, whose photos have gone from "
            f"input_dir, and max_deleted_share is {max_share:g}; if no disk is missing, run once with "
            "--config max_deleted_share=1"
        )


def _leave_the_future(folder: str) -> None:
    """Date back files from before the clock was set back: Snakemake would take them for newer than all to come."""
    now = time.time()
    for path in Path(folder).rglob("*"):
        if path.stat().st_mtime > now:
            os.utime(path, (now, now))


def closing_lines(database: str, folder: str, since: float) -> list[str]:
    """Say at the end of a run what it did, what there is, and where to look.

    Parameters
    ----------
    database : str
    folder : str
        State folder of the embedding type.
    since : float
        When the run began, in seconds since the epoch.
    """
    if not Path(folder, "embeddings.json").exists():  # only some of the rules were asked for
        return []
    receipt = read_json(f"{folder}/embeddings.json")
    name = Path(folder).name
    computed, copied = _n_embedded(folder, since)
    _, rejected = read_plan(f"{folder}/plan.tsv")
    copies = f" and {copied:,} copied" if copied else ""
    why_failed = f" ({_reasons(database, name)}), see the table {name}_FAILURES" if receipt["n_failures"] else ""
    why_skipped = f", see {folder}/rejected.tsv" if rejected else ""
    lines = [
        f"embedded: {counted(computed, 'photos')} in this run{copies}, {receipt['n_embeddings']:,} in all, "
        f"in {database}",
        f"failed:   {counted(receipt['n_failures'], 'photos')}{why_failed}",
        f"skipped:  {counted(len(rejected), 'files')}{why_skipped}",
    ]
    quality, look_at = Path(folder, "map_quality.json"), page_line(folder)
    if quality.exists() and look_at:
        lines += [f"map:      {_map_line(quality, since)}", look_at]
    return lines


def page_line(folder: str) -> str:
    """Say where the globe is; empty, if there is none."""
    page = Path(folder, "map.html")
    return f"look at:  {page.absolute().as_uri()}" if page.exists() else ""


def _reasons(database: str, embedding_type: str) -> str:
    """Count failed photos by reason, the most frequent first."""
    reason, n = Tables(embedding_type).failures.c.REASON, sa.func.count()
    with reading(database) as connection:
        counts = connection.execute(sa.select(reason, n).group_by(reason).order_by(n.desc(), reason)).all()
    return ", ".join(f"{count:,} {reason}" for reason, count in counts)


def _is_new(path: Path, since: float) -> bool:
    return path.stat().st_mtime >= since


def _n_embedded(folder: str, since: float) -> tuple[int, int]:
    """Count the photos that jobs embedded, and those that they copied from other rows."""
    # The time stamp of a shard that was kept is new too: Snakemake touches it.
    shards = [path for path in Path(folder, "embeddings").glob("*.sqlite") if _is_new(path, since)]
    timings = [read_shard_provenance(path, Path(folder).name) for path in shards]
    made = [timing for timing in timings if float(timing.get("timing_finished", 0)) >= since]
    return tuple(sum(int(timing[f"timing_n_{fate}"]) for timing in made) for fate in ("computed", "copied"))


def _map_line(path: Path, since: float) -> str:
    record = read_json(path)
    if not _is_new(path, since):
        return f"as it was, of {counted(record['n_images'], 'photos')}"
    drift = record.get("drift_degrees")
    moved = "" if drift is None else f"; the others moved by {drift:.2f} degrees on average"
    if record["action"] == "fit":
        return f"made of {counted(record['n_images'], 'photos')}" + moved.replace("the others", "those of the last one")
    return f"{counted(record['n_new'], 'photos')} joined, {record['n_gone']:,} went{moved}"


def check_failures(folder: str, plan: Plan, max_share: float) -> None:
    """Look, when all is stored, whether so many photos failed that something must be wrong with more than photos.

    Raises
    ------
    InputError
        If more than `max_share` of more than 20 photos failed.
    """
    receipt = Path(folder, "embeddings.json")
    n_failures, n_images = read_json(receipt)["n_failures"] if receipt.exists() else 0, len(plan.images)
    if n_images > _FEWEST_TO_JUDGE and n_failures > max_share * n_images:
        name = Path(folder).name
        raise InputError(
            f"{n_failures} of {n_images} photos failed, and max_failed_share is {max_share:g}; all others are stored. "
            f"The table {name}_FAILURES says why; when that is mended, run once with --config retry_failures=true, or, "
            "if these photos are what they are, set max_failed_share higher"
        )


def pass_on_sigterm() -> None:
    """Let SIGTERM end the jobs of this process too; Snakemake alone would wait until they are done."""
    import psutil

    before = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: FrameType | None) -> None:
        for job in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                job.terminate()
        # Snakemake takes a lock now, and this thread may be the one that holds it: another one has to wait for it.
        threading.Thread(target=before, args=(number, frame), daemon=True).start()

    signal.signal(signal.SIGTERM, end)


def last_errors(folder: str, since: float) -> list[str]:
    """Collect the lines with which jobs ended that a mistake of the user's stopped.

    Parameters
    ----------
    folder : str
        State folder of the embedding type.
    since : float
        Only of logs written after this time, in seconds since the epoch.
    """
    logs = [path for path in Path(folder, "logs").rglob("*.log") if path.stat().st_mtime >= since]
    lines = [line for path in sorted(logs) for line in path.read_text(errors="replace").splitlines()[-1:]]
    return sorted({line for line in lines if line.startswith("error: ")})
