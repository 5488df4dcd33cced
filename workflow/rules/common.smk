"""
Plan the run before the first job: Snakemake's main process calls `prepare_run` when it reads the Snakefile, so a dry
run shows the exact jobs. `onstart`, which a dry run skips, takes the lock and writes the plan for the jobs.
"""

import os
import sys

PROJECT = os.path.normpath(f"{workflow.current_basedir}/../..")
sys.path.insert(0, f"{PROJECT}/workflow")
# `python` in the rules is the Python that runs Snakemake, unless a conda environment brings its own.
os.environ.update(PATH=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.getenv('PATH')}")

from snakemake.logging import logger

from crossfilter_inference.cli import outputs
from crossfilter_inference.errors import InputError
from crossfilter_inference.run import finish, forecast, prepare, progress, start, terminal
from crossfilter_inference.util.text import printable

SCRIPTS = f"{PROJECT}/scripts"
terminal.shorten(logger)


configfile: f"{PROJECT}/config.yaml"


with start.mistakes_in_one_line():
    resources = prepare.Resources.of_snakemake(workflow)
    if resources.is_main_process:
        start.end_on_interrupt()
    RUN = prepare.prepare_run(config, resources)
    outputs.check_snakemake(sys.argv[1:], RUN.config)
LINE = terminal.MovingLine(logger)
logger.info("\n".join(map(printable, RUN.notes)))
for line in RUN.warnings:
    logger.warning(printable(line))


pathvars:
    results=RUN.state,
    logs=f"{RUN.state}/logs",
    benchmarks=f"{RUN.state}/benchmarks",


wildcard_constraints:
    shard=r"\d{6}",


onstart:
    terminal.shorten(logger)  # in Snakemake's own log, too
    with start.mistakes_in_one_line():
        start.start_run(RUN)
    start.handle_signals()
    progress.report_progress(RUN.state, RUN.shard_sizes, logger.info, LINE)


onsuccess:
    LINE.end()
    logger.info("\n".join(map(printable, finish.closing_lines(RUN))))
    try:
        finish.check_failures(RUN.state, RUN.plan.images, RUN.config.max_failed_share)
    except InputError as error:
        logger.error(printable(error))
        sys.exit(error.exit_code)


onerror:
    LINE.end()
    terminal.end_with(logger, finish.reasons(RUN.state, RUN.started, is_stopped=start.is_stopped.is_set()))
