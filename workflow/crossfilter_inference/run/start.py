"""Start a run: everything between its plan and its first job."""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TextIO

from ..db.connect import recover
from ..db.state import state_folder
from ..errors import InputError, outer_trouble
from ..shards.guard import refuse_foreign_shards
from ..shards.journal import remove_logs
from ..shards.plan import remove_shard, shard_lists, write_plan
from ..util.files import remove_parts, write_text
from ..util.text import once_with, printable
from .prepare import Deletions, Run

_PATIENCE = 2  # seconds
# These files stay open until the process ends: a closed file loses its lock.
_held: list[IO[str]] = []
is_stopped = threading.Event()  # by the user


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """End Snakemake with one line for a user's mistake or a fault of a disk."""
    try:
        yield
    except InputError as error:
        sys.exit(printable(error))
    except OSError as error:
        if not (line := outer_trouble(error)):
            raise
        sys.exit(printable(line))


def _wait_for(lock: TextIO) -> None:
    """Take a lock. A child of a killed run may hold it for a moment longer, and `verify` tests it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def start_run(run: Run) -> None:
    """Prepare for the first job: take the lock, clean up after a killed run, write the plan.

    The lock is held until this process ends, however it ends.

    Parameters
    ----------
    run : Run

    Raises
    ------
    InputError
        If another run uses this database, or did so while the plan was made; if it cannot be locked; if a shard
        database comes from another encoder; if the run would delete more than the allowed fraction of the embeddings.
    """
    database, folder = run.database, run.state
    root = Path(state_folder(os.path.realpath(database)))  # links to one database share its lock
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = open(root / ".lock", "a")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"output_embeddings_db: cannot write in {str(root)!r} ({error.strerror}); name another database"
        ) from None
    try:
        _wait_for(lock)
    except OSError as error:
        lock.close()
        problem = f"cannot lock {lock.name!r} ({error.strerror}); name a database on another file system"
        if isinstance(error, BlockingIOError):
            problem = f"another run is using {database!r}; wait until it ends, or stop it"
        raise InputError(f"output_embeddings_db: {problem}") from None
    _held.append(lock)
    if [path.stem for path in shard_lists(f"{folder}/shards")] != sorted(run.known_shards):
        raise InputError(
            f"output_embeddings_db: another run on {database!r} ended while this one was being planned; run the same "
            "command again"
        )
    if os.path.exists(database):
        recover(database)
    if run.deletions is not None:
        _check_deletions(run.deletions, run.config.max_deleted_share)
    to_remove = {*run.known_shards} - {*run.shards}
    if run.plan.n_reread:  # contents may be new: the rows of a shard of this name whose list was lost are not reused
        to_remove |= {*run.plan.new_shards}
    _date_back(folder)
    refuse_foreign_shards(folder, run.type, to_remove)
    remove_parts(folder)
    remove_logs(f"{folder}/embeddings", {*run.shards} - to_remove)
    for shard in to_remove:
        remove_shard(folder, shard)
    write_plan(f"{folder}/plan.tsv", run.plan)
    # The command line finds the settings of a collection here if it is given no configuration file.
    write_text(f"{folder}/config.json", f"{run.config.with_absolute_paths().to_json()}\n")


def _check_deletions(deletions: Deletions, max_share: float) -> None:
    if deletions.n_deleted > max_share * deletions.n_rows:
        raise InputError(
            f"missing_images: delete would remove {deletions.n_deleted} of {deletions.n_rows} embeddings, because "
            f"their photos are missing from input_dir; max_deleted_share is {max_share:g}. Nothing was changed. If no "
            f"disk is missing, {once_with('max_deleted_share=1')}"
        )


def _date_back(folder: str) -> None:
    """Set timestamps in the future to now. If the clock was set back, Snakemake would consider such files newer."""
    now = time.time()
    for path in Path(folder).rglob("*"):
        with suppress(OSError):  # a broken link, or a file that a job of a killed run removes
            if path.stat().st_mtime > now:
                os.utime(path, (now, now))


def end_on_interrupt() -> None:
    """Until `handle_signals`, let Ctrl-C end the planning with one line; Snakemake would print where it was."""

    def end(number: int, frame: FrameType | None) -> None:
        os.write(sys.stderr.fileno(), b"\nstopped before the first job; to start again, run the same command\n")
        os._exit(128 + number)

    _handle_interrupt(end)


def _handle_interrupt(handle: Callable[[int, FrameType | None], None]) -> None:
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, handle)


def handle_signals() -> None:
    """Note that the user stops the run, and make SIGTERM end the jobs too; Snakemake alone would wait for them."""
    import psutil

    before = signal.getsignal(signal.SIGTERM)

    def interrupt(number: int, frame: FrameType | None) -> None:
        is_stopped.set()
        signal.default_int_handler(number, frame)

    def end(number: int, frame: FrameType | None) -> None:
        is_stopped.set()
        for job in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                job.terminate()
        if callable(before):
            # Snakemake's handler takes a lock that this thread may hold, so another thread has to wait for it.
            threading.Thread(target=before, args=(number, frame), daemon=True).start()

    signal.signal(signal.SIGTERM, end)
    _handle_interrupt(interrupt)
