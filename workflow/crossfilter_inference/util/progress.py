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
    """Count processed images, and show the rate and the time left.

    Parameters
    ----------
    n_total : int
        Images to process.
    title : str
        Shown in front of the figures.
    """

    def __init__(self, n_total: int, title: str):
        self._n_total, self._title, self._n_done = n_total, title, 0
        self._open = ExitStack()
        self._bar: Bar[NoReturn] | None = None
        if sys.stderr.isatty() and BRIEF not in os.environ:
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._open.enter_context(logging_redirect_tqdm())  # prints log lines above the bar
            self._bar = tqdm(total=n_total, desc=title, unit="photo", dynamic_ncols=True, leave=False)
            self._open.enter_context(self._bar)
        self._start = self._last_line = time.monotonic()

    def update(self, n_images: int) -> None:
        """Add images that are done."""
        self._n_done += n_images
        if self._bar is not None:
            self._bar.update(n_images)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self._n_done / (now - self._start)
            left = (self._n_total - self._n_done) / rate if rate else float("inf")
            logger.info(
                "%s: %d of %d photos, %.1f photos/s, %.0f s left",
                *(self._title, self._n_done, self._n_total, rate, left),
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()
