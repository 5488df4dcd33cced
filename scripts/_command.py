"""What every command has in common: the library on the path, a log, and errors in one line."""

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow"))

from crossfilter_inference.config import Config
from crossfilter_inference.errors import InputError

PROJECT = Path(__file__).resolve().parent.parent
# What a disk or a network share does, and no mistake of ours.
_OUTER_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE, errno.EACCES}


def _interrupted_early(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in a word that Ctrl-C came while modules were being imported."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("interrupted", file=sys.stderr)
    os._exit(128 + signal.SIGINT)


sys.excepthook = _interrupted_early


def parser(doc: str) -> argparse.ArgumentParser:
    """Make the parser of a command from its docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def add_log(options: argparse.ArgumentParser) -> None:
    """Add the option that every rule's command has."""
    options.add_argument("--log", type=Path, help="file that gets what is shown on the terminal too")


def add_config(options: argparse.ArgumentParser) -> None:
    """Add the options by which a command of the user's finds its collection."""
    options.add_argument("--configfile", nargs="+", action="extend", default=[], help="files that change config.yaml")
    options.add_argument("--embedding_type", help="which encoder, if not the one of the configuration")
    options.add_argument("--output_embeddings_db", help="database, if not the one of the configuration")
    options.add_argument("--device", help="auto, cpu, cuda or mps, if not the one of the configuration")


def look_at(page: str | None) -> str:
    """Name a page that was written, for the end of the line that says what was done."""
    return f"; look at: {Path(page).absolute().as_uri()}" if page else ""


def read_config(arguments: argparse.Namespace) -> Config:
    """Read the configuration as Snakemake does, with what the options change."""
    from crossfilter_inference.config import read_config

    keys = ("embedding_type", "input_dir", "output_embeddings_db", "device")
    return read_config(
        [str(PROJECT / "config.yaml"), *arguments.configfile],
        {key: getattr(arguments, key, None) for key in keys},
    )


def at_least_one(text: str) -> int:
    """Read a count."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def run(main: Callable[[argparse.Namespace], str], options: argparse.ArgumentParser) -> None:
    """Run a command: its closing line goes to the log, a user's mistake ends in one line and exit code 1."""
    arguments = options.parse_args()
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if log := getattr(arguments, "log", None):
        with suppress(OSError):  # on a full disk there is the terminal still
            log.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(log, mode="w"))
    logging.raiseExceptions = False  # as above
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    logging.captureWarnings(True)
    for name in ("httpx", "numba", "matplotlib", "PIL"):  # they have much to say at this level
        logging.getLogger(name).setLevel(logging.WARNING)
    logger = logging.getLogger(options.prog)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        logger.info(main(arguments))
        return
    except InputError as error:
        logger.error("error: %s", error)
        code = 1
    except KeyboardInterrupt:
        logger.error("interrupted; what was finished is kept, the next run goes on from there")
        code = 128 + signal.SIGINT
    except SystemExit as terminated:
        code = terminated.code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTER_TROUBLE:
            where = f"{error.filename!r}: " if error.filename else ""
            logger.error("error: %s%s; see to it, and run the same command again", where, error.strerror)
            code = 1
        else:
            logger.exception("this should not have happened:")
            code = 70
    # Everything is tidied up. An ordinary exit would wait for threads that are still in the encoder.
    logging.shutdown()
    os._exit(code)


def _terminate(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not disturb the tidying up
    sys.exit(128 + number)
