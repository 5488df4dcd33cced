"""Shorten what Snakemake prints on the terminal to what its users read; its log file keeps everything."""

import logging
import re
from collections.abc import Iterable

from ..util.text import PrintableFormatter, printable

# What Snakemake says about itself, and the events that say the same.
_NOISE = re.compile(
    "$|Assuming unrestricted shared filesystem|Building DAG of jobs|Using shell: |Provided cores: |Rules claiming more "
    "threads|Conda environments: ignored|Singularity containers: ignored|Select jobs to execute|Execute [0-9]+ jobs|"
    r"Complete log\(s\): |Elapsed time: "
)
_FAILED = "At least one job did not complete successfully"
_SILENT = ("job_started", "job_finished", "progress", "resources_info")


def shorten(logger: logging.Logger) -> None:
    """Shorten what Snakemake's logger prints on the terminal, and make printable what any of its handlers writes.

    With `--verbose`, nothing is left out. Call it again for handlers that were added later.
    """
    for handler in logger.handlers:
        is_brief = not isinstance(handler, logging.FileHandler)
        is_brief &= not any(getattr(kept, "verbose", False) for kept in handler.filters)
        if handler.formatter and not isinstance(handler.formatter, PrintableFormatter):
            handler.setFormatter((_BriefFormatter if is_brief else PrintableFormatter)(handler.formatter))
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


def _is_of_use(record: logging.LogRecord) -> bool:
    event = getattr(record, "event", None)
    return event not in _SILENT if event else not _NOISE.match(str(record.msg or ""))


class _BriefFormatter(PrintableFormatter):
    """Print one line for each job: the message of its rule."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        message = getattr(record, "rule_msg", None) if getattr(record, "event", None) == "job_info" else None
        return printable(message) if message else super().format(record)
