"""Run a command: log what it reports, turn a user's mistake into one line, and set the exit code.

Exit codes: 0 success, 1 a user's mistake or a fault outside the program, 2 a wrong command line, 3 a complete run of
whose photos too many failed, 70 an internal error, 128 plus the signal's number after a signal.
"""

import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from ..errors import InputError, outer_trouble
from ..util.files import write_stamp
from ..util.progress import BRIEF, CLEAR
from ..util.text import PrintableFormatter, printable
from .options import UsageError, parse

_MISTAKE, _INTERRUPTED = "error: %s", "interrupted; finished work is kept, and the next run resumes"


def _report_early_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report Ctrl-C in one word if it arrives during imports."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("interrupted", file=sys.stderr)
    os._exit(128 + signal.SIGINT)


sys.excepthook = _report_early_interrupt


@dataclass(frozen=True)
class JobFiles:
    """Files that every job of a rule can write in addition to its outputs.

    Parameters
    ----------
    log : Path, optional
        File that also receives the log.
    stamp : Path, optional
        Empty file, written last, whose name identifies the settings.
    """

    log: Path | None = None
    stamp: Path | None = None


def run_job(function: Callable[..., str]) -> None:
    """Run a function as the job of a rule, with the options of `JobFiles` in addition to its own."""
    run([function], common=JobFiles)


def run(functions: Sequence[Callable[..., str]], about: str = "", common: type[JobFiles] | None = None) -> None:
    """Run the function that the command line asks for, and log the line that it returns."""
    logging.raiseExceptions = False  # on a full disk, messages still reach the terminal
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # some terminals lack most letters
    try:
        parsed = parse(functions, sys.argv[1:], about, common)
    except UsageError as error:
        sys.exit(_report_usage(error))
    if parsed is None:
        return
    call, files = parsed
    logger = _start_log(files.log if files else None)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        line = call()
        # The work is done. A signal that came during the exit would make Snakemake remove the outputs.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if files and files.stamp:
            write_stamp(files.stamp)
        if line:
            logger.info(line)
        return
    except InputError as error:
        logger.error(_MISTAKE, error)
        code: int | str | None = error.exit_code
    except UsageError as error:
        code = _report_usage(error)
    except KeyboardInterrupt:
        logger.error(_INTERRUPTED)
        code = 128 + signal.SIGINT
    except SystemExit as terminated:
        code = terminated.code
    except Exception as error:
        if line := outer_trouble(error):
            logger.error(_MISTAKE, line)
            code = 1
        else:
            logger.exception("internal error (please report this):")
            code = 70
    # Everything is cleaned up. An ordinary exit would wait for threads that are still in the encoder.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _report_usage(error: UsageError) -> int:
    print(f"error: {printable(error)}", file=sys.stderr)
    return 2


def show(line: object) -> None:
    """Print one line of a command's result."""
    print(printable(line), flush=True)


def _start_log(path: Path | None) -> logging.Logger:
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if BRIEF in os.environ:
        handlers[0].addFilter(_is_problem)
    if path:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8", errors="backslashreplace"))
    for handler in handlers:
        handler.setFormatter(PrintableFormatter())
    logging.basicConfig(level=logging.INFO, handlers=handlers)
    logging.captureWarnings(True)
    for name in ("httpx", "numba", "matplotlib", "PIL"):  # they log a lot at this level
        logging.getLogger(name).setLevel(logging.WARNING)
    return logging.getLogger(__package__)


def _is_problem(record: logging.LogRecord) -> bool:
    """Choose what a brief run prints of a job: not why it was stopped, because the run itself ends with that."""
    is_problem = record.levelno >= logging.WARNING and record.msg not in (_MISTAKE, _INTERRUPTED)
    if is_problem and sys.stderr.isatty():
        sys.stderr.write(CLEAR)
    return is_problem


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    sys.exit(128 + number)
