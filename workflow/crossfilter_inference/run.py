"""A run as a whole: what happens before its first job and after its last."""

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

from .database import recover
from .errors import InputError
from .files import read_json, remove_parts
from .plan import Plan, read_plan, shard_lists, write_plan
from .provenance import refuse_foreign_shards
from .state import state_folder

# A handle must outlive the function that opened it: when it is collected, its lock is gone.
_held: list[IO] = []


def start_run(database: str, folder: str, embedding_type: str, known_shards: list[str], plan: Plan) -> None:
    """Make ready for the first job: take the lock, clean up after a killed run, write the plan.

    The lock is held until this process ends, however it ends.

    Parameters
    ----------
    database : str
    folder : str
        State folder of the embedding type.
    embedding_type : str
    known_shards : list of str
        The shards that the plan was made from.
    plan : Plan

    Raises
    ------
    InputError
        If another run is at work on this database, or was while the plan was made; if a shard database comes from
        another encoder.
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
    if [path.stem for path in shard_lists(f"{folder}/shards")] != known_shards:
        raise InputError(
            f"output_embeddings_db: another run on {database!r} ended while this one was planned; start it again"
        )
    if os.path.exists(database):
        recover(database)
    remove_parts(folder)
    refuse_foreign_shards(folder, embedding_type)
    write_plan(f"{folder}/plan.tsv", plan)


def closing_lines(database: str, folder: str, *, with_map: bool) -> list[str]:
    """Say at the end of a run what there is and where to look.

    Parameters
    ----------
    database : str
    folder : str
        State folder of the embedding type.
    with_map : bool
        Whether the run made a map.
    """
    receipt = read_json(f"{folder}/embeddings.json")
    _, rejected = read_plan(f"{folder}/plan.tsv")
    lines = [f"database: {database} ({receipt['n_embeddings']} embeddings)"]
    if receipt["n_failures"]:
        lines.append(f"failed: {receipt['n_failures']} photos, see the table {Path(folder).name}_FAILURES")
    if rejected:
        lines.append(f"rejected: {len(rejected)} files, see {folder}/rejected.tsv")
    return [*lines, f"map: {folder}/map.png"] if with_map else lines


def pass_on_sigterm() -> None:
    """Let SIGTERM end the jobs of this process too; Snakemake alone would wait until they are done."""
    import psutil

    before = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: FrameType | None) -> None:
        for job in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                job.terminate()
        before(number, frame)

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
