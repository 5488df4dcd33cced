"""Progress of the embedding of the whole collection: one line every few seconds, from the files of the jobs."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..shards.journal import FramesCount, logs_of
from ..util.text import counted, duration
from .terminal import MovingLine

_SECONDS_BETWEEN_LINES = 10
_SECONDS_BETWEEN_CHECKS = 1


class RunProgress:
    """Count the photos that the jobs of a run have embedded.

    Parameters
    ----------
    folder : str
        State folder of the embedding type.
    shard_sizes : dict
        Number of photos of each shard.

    Attributes
    ----------
    n_total : int
        Number of photos that this run has to embed.
    """

    def __init__(self, folder: str, shard_sizes: dict[str, int]):
        paths = {Path(folder, "embeddings", f"{shard}.sqlite"): size for shard, size in shard_sizes.items()}
        self._to_do = {path: size for path, size in paths.items() if not path.exists()}
        self.n_total = sum(self._to_do.values())
        self._logs: dict[Path, FramesCount] = {}
        self._started: tuple[float, int] | None = None

    def n_done(self) -> int:
        """Count the photos in finished shards and in the journals of unfinished ones."""
        return sum(size if path.exists() else self._n_in_logs(path) for path, size in self._to_do.items())

    def line(self, now: float) -> str | None:
        """Return the line of progress at a time in seconds; None before the first photo and after the last one."""
        n_done = self.n_done()
        if not n_done or n_done == self.n_total:
            return None
        if self._started is None:  # rows of an earlier run do not show the speed of this one
            self._started = now, n_done
            return None
        since, n_before = self._started
        if n_done == n_before or now == since:
            return None
        rate = (n_done - n_before) / (now - since)
        left = duration((self.n_total - n_done) / rate)
        total = counted(self.n_total, "photos")
        return f"progress: {n_done:,} of {total} embedded, {rate:.1f} photos/s, about {left} left"

    def _n_in_logs(self, path: Path) -> int:
        return max((self._count(log) for log in logs_of(path)), default=0)

    def _count(self, log: Path) -> int:
        return self._logs.setdefault(log, FramesCount(log)).update() - 1  # the first frame names the shard


def report_progress(folder: str, shard_sizes: dict[str, int], log: Callable[[str], None], line: MovingLine) -> None:
    """Show the progress in a line that moves; if that is not shown, log it every 10 seconds until the last photo."""
    progress = RunProgress(folder, shard_sizes)

    def watch() -> None:
        last = time.monotonic()
        while progress.n_done() < progress.n_total:
            time.sleep(_SECONDS_BETWEEN_CHECKS)
            now = time.monotonic()
            text = progress.line(now)
            if text and now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                log(text)

    if not line.start(progress.line) and progress.n_total:
        threading.Thread(target=watch, name="progress", daemon=True).start()
