"""Progress of a job: a bar on a terminal, else a log line every few seconds."""

import logging
import os
import sys
import time
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm as Bar

logger = logging.getLogger(__name__)

BRIEF = "CROSSFILTER_INFERENCE_BRIEF"  # environment variable of jobs whose run shows their progress itself
CLEAR = "\r\x1b[K"  # removes the line of a terminal that the cursor is in
_SECONDS_BETWEEN_LINES = 10


class Progress:
    """Count what is done, and show the rate and the time left.

    Parameters
    ----------
    n_total : int
        Photos to process, or others of `unit`.
    title : str
        Shown in front of the figures.
    unit : str
        What is counted, in the singular.
    """

    def __init__(self, n_total: int, title: str, unit: str = "photo"):
        self._n_total, self._title, self._unit, self._n_done = n_total, title, unit, 0
        self._open = ExitStack()
        self._bar: Bar[NoReturn] | None = None
        if sys.stderr.isatty() and BRIEF not in os.environ:
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._open.enter_context(logging_redirect_tqdm())  # prints log lines above the bar
            self._bar = tqdm(total=n_total, desc=title, unit=unit, dynamic_ncols=True, leave=False)
            self._open.enter_context(self._bar)
        self._start = self._last_line = time.monotonic()

    def update(self, n_done: int) -> None:
        """Add what is done."""
        self._n_done += n_done
        if self._bar is not None:
            self._bar.update(n_done)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self._n_done / (now - self._start)
            left = (self._n_total - self._n_done) / rate if rate else float("inf")
            logger.info(
                "%s: %d of %d %ss, %.1f %ss/s, %.0f s left",
                *(self._title, self._n_done, self._n_total, self._unit, rate, self._unit, left),
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()
