"""What a run shows on the terminal: what users read, and one line that moves."""

import io
import logging
import time

import pytest

from crossfilter_inference.cli import command
from crossfilter_inference.run import terminal
from crossfilter_inference.util.progress import BRIEF


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def line(self):
        """Return the last line, as it stands on the terminal now."""
        return self.getvalue().split("\r\x1b[K")[-1].rsplit("\n", 1)[-1]


class Kept(logging.Filter):
    """As Snakemake's own filter, it knows the options."""

    def __init__(self, quiet=(), *, verbose=False):
        super().__init__()
        self.quiet, self.verbose = quiet, verbose


class Quietness:
    name = "RULES"


def make_logger(stream, kept, *more):
    logger = logging.Logger("snakemake")
    handlers = [logging.StreamHandler(stream), *more]
    handlers[0].addFilter(kept)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    return logger


def log_a_run(logger):
    logger.info("Building DAG of jobs...")
    logger.info("photos: 3")
    logger.info("Rule: all", extra={"event": "job_info", "rule_msg": "make\x1b the map"})
    logger.info("Finished jobid: 3", extra={"event": "job_finished"})
    logger.info("3 of 4 steps (75%) done", extra={"event": "progress"})
    logger.info("")
    logger.info("Complete log(s): x")
    failed = "CalledProcessError in file x, line 1:\nCommand 'x\ny' returned non-zero exit status 1."
    logger.error(f"RuleException:\n{failed}", extra={"event": "error"})


@pytest.fixture(autouse=True)
def not_brief(monkeypatch):
    monkeypatch.setenv(BRIEF, "")
    monkeypatch.delenv(BRIEF)


def test_only_what_users_read_is_left_and_the_log_file_keeps_all(tmp_path):
    stream, file = io.StringIO(), logging.FileHandler(tmp_path / "log")
    logger = make_logger(stream, Kept(), file)
    terminal.shorten(logger)
    terminal.shorten(logger)
    log_a_run(logger)
    assert stream.getvalue() == "photos: 3\nmake\\x1b the map\n"
    file.close()
    assert (tmp_path / "log").read_text().count("\n") == 11


def test_with_verbose_nothing_is_left_out():
    stream = io.StringIO()
    logger = make_logger(stream, Kept(verbose=True))
    terminal.shorten(logger)
    log_a_run(logger)
    assert stream.getvalue().count("\n") == 11


def test_the_line_of_a_brief_run_gives_way_and_shows_the_job_or_the_progress():
    stream, progress = Terminal(), ["progress: 1 of 3 photos embedded"]
    logger = make_logger(stream, Kept([Quietness()]))
    terminal.shorten(logger)
    line = terminal.MovingLine(logger, stream)
    assert line.start(lambda now: progress[-1])
    wait_until(lambda: stream.line() == progress[0])
    logger.info("photos: 3")
    assert stream.getvalue().endswith("embedded\r\x1b[Kphotos: 3\n")
    log_a_run(logger)
    progress.append(None)
    wait_until(lambda: stream.line().startswith("make\\x1b the map: "))
    line.end()
    assert stream.line() == ""
    length = len(stream.getvalue())
    time.sleep(0.6)
    assert len(stream.getvalue()) == length


@pytest.mark.parametrize(("quiet", "stream"), [([], Terminal()), ([Quietness()], io.StringIO())])
def test_without_a_terminal_or_in_another_run_no_line_moves(quiet, stream):
    logger = make_logger(stream, Kept(quiet))
    terminal.shorten(logger)
    line = terminal.MovingLine(logger, stream)
    assert not line.start(lambda now: "text")
    line.end()
    assert stream.getvalue() == ""


def test_the_reason_is_the_last_line_of_a_failed_run():
    stream = io.StringIO()
    logger = make_logger(stream, Kept())
    terminal.shorten(logger)
    terminal.end_with(logger, ["error: n_neighbors: too\n many"])
    logger.error("At least one job did not complete successfully.")
    assert stream.getvalue() == "error: n_neighbors: too\\n many\n"


@pytest.mark.parametrize(
    ("level", "message", "is_shown"),
    [
        (logging.INFO, "embedded 3 photos", False),
        (logging.WARNING, "the memory is too small", True),
        (logging.ERROR, "internal error (please report this):", True),
        (logging.ERROR, "error: %s", False),  # the run ends with it
        (logging.ERROR, "interrupted; finished work is kept, and the next run resumes", False),
    ],
)
def test_a_job_of_a_brief_run_reports_problems_only(level, message, is_shown):
    assert command._is_problem(logging.makeLogRecord({"levelno": level, "msg": message})) == is_shown


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["returned non-zero exit status 137.", "died with <Signals.SIGKILL: 9>."])
def test_the_death_of_a_job_is_shown(how):
    stream = io.StringIO()
    logger = make_logger(stream, Kept())
    terminal.shorten(logger)
    logger.error(f"RuleException:\nCalledProcessError in file x, line 1:\nCommand 'x' {how}")
    assert how in stream.getvalue()
