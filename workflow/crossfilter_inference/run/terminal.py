"""What a run shows on the terminal: what its users read. Snakemake's log file keeps everything.

A brief run, that of `crossfilter-inference run` or `snakemake --quiet rules progress`, also leaves out what its jobs
report, and shows on a terminal one line that moves: the job that runs, or the progress of the embedding.
"""

import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TextIO

from ..util.progress import BRIEF, CLEAR
from ..util.text import PrintableFormatter, printable

# What Snakemake says about itself, and the events that say the same.
_NOISE = re.compile(
    "$|Assuming unrestricted shared filesystem|Building DAG of jobs|Using shell: |Provided cores: |Rules claiming more "
    "threads|Conda environments: ignored|Singularity containers: ignored|Select jobs to execute|Execute [0-9]+ jobs|"
    r"Config file .* is extended|Complete log\(s\): |Elapsed time: |Cannot restore .*: no backup found|Shutting down, "
    "this might take|Exiting because a job execution failed|"
    # A job that ends itself has reported why, and the run ends with that; a killed job (137) has not.
    r"RuleException:\nCalledProcessError (?s:.*) (returned non-zero exit status ([0-9]{1,2}|130|143)\.|"
    r"died with <Signals\.SIG(INT|TERM): )"
)
_SILENT = ("job_started", "job_finished", "progress", "resources_info")
_SECONDS_BETWEEN_MOVES = 0.5


def shorten(logger: logging.Logger) -> None:
    """Shorten what Snakemake's logger prints on the terminal, and make printable what any of its handlers writes.

    With `--verbose`, nothing is left out. Call it again for handlers that were added later.
    """
    filters = [kept for handler in logger.handlers for kept in handler.filters]
    if any(kind.name == "RULES" for kept in filters for kind in getattr(kept, "quiet", ())):
        os.environ[BRIEF] = "1"
    for handler in logger.handlers:
        is_brief = not isinstance(handler, logging.FileHandler)
        is_brief &= not any(getattr(kept, "verbose", False) for kept in handler.filters)
        if handler.formatter and not isinstance(handler.formatter, PrintableFormatter):
            handler.setFormatter((_ShortFormatter if is_brief else PrintableFormatter)(handler.formatter))
            if is_brief:
                handler.addFilter(_is_of_use)


def end_with(logger: logging.Logger, lines: Iterable[str]) -> None:
    """Log why a run has failed. After these lines, the terminal shows no more that some job has failed."""
    text = "\n".join(map(printable, lines))
    if text:
        logger.error(text)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(
                    lambda record: "At least one job did not complete successfully" not in str(record.msg)
                )


class MovingLine(logging.Handler):
    """The last line of a brief run on a terminal: it changes in place, and gives way to every other line.

    Parameters
    ----------
    logger : Logger
        Snakemake's; its events tell which job runs.
    stream : text file
        The terminal; on another file, nothing is shown.
    """

    def __init__(self, logger: logging.Logger, stream: TextIO = sys.stderr):
        super().__init__()
        self._logger, self._stream = logger, stream
        self._job, self._since = "", 0.0
        self._ended = threading.Event()

    def start(self, progress: Callable[[float], str | None]) -> bool:
        """Show the line until `end`, if the run is brief and the stream is a terminal.

        Parameters
        ----------
        progress : function
            From a time in seconds to the text of the line, or None to show which job runs.

        Returns
        -------
        bool
            Whether it is shown.
        """
        if BRIEF not in os.environ or not self._stream.isatty():
            return False
        self._logger.handlers.insert(0, self)  # before the others write their lines
        threading.Thread(target=self._move, args=(progress,), name="moving line", daemon=True).start()
        return True

    def end(self) -> None:
        """Remove the line, if there is one."""
        if self in self._logger.handlers:
            self._ended.set()
            self.handle(logging.makeLogRecord({}))

    def emit(self, record: logging.LogRecord) -> None:
        """Give way to a record, and learn from it which job runs."""
        if job := getattr(record, "rule_msg", None):
            self._job, self._since = printable(job), time.monotonic()
        self._write("")

    def _move(self, progress: Callable[[float], str | None]) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_MOVES):
            now = time.monotonic()
            self.acquire()
            if not self._ended.is_set():
                self._write(progress(now) or (f"{self._job}: {now - self._since:.0f} s" if self._job else ""))
            self.release()

    def _write(self, text: str) -> None:
        self._stream.write(f"{CLEAR}{text[: shutil.get_terminal_size().columns - 1]}")
        self._stream.flush()


def _is_of_use(record: logging.LogRecord) -> bool:
    event, text = getattr(record, "event", None), str(record.msg or "")
    is_noise = _NOISE.match(text) if text or not event else None
    return event not in _SILENT and not is_noise


class _ShortFormatter(PrintableFormatter):
    """Print one line for each job: the message of its rule."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        message = getattr(record, "rule_msg", None) if getattr(record, "event", None) == "job_info" else None
        return printable(message) if message else super().format(record)
