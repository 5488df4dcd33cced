"""
Plan the run before the first job, with `prepare_run`.

Snakemake's main process makes the plan when it reads the Snakefile, so a dry run shows the exact jobs. `onstart` takes
the lock and writes the plan for the jobs; a dry run skips it.
"""

import os
import sys

sys.path.insert(0, f"{workflow.basedir}/workflow")
# `python` in the rules is the Python that runs Snakemake, unless a conda environment brings its own.
os.environ.update(PATH=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.getenv('PATH')}")

from snakemake.logging import logger

from crossfilter_inference.errors import InputError
from crossfilter_inference.run import finish, forecast, prepare, progress, start

SCRIPTS = f"{workflow.basedir}/scripts"
try:
    RUN = prepare.prepare_run(config, prepare.Resources.of_snakemake(workflow))
except InputError as error:
    sys.exit(f"{error}")
for line in RUN.notes:
    logger.info(line)
for line in RUN.warnings:
    logger.warning(line)


pathvars:
    results=RUN.state,
    logs=f"{RUN.state}/logs",
    benchmarks=f"{RUN.state}/benchmarks",


wildcard_constraints:
    shard=r"\d{6}",


onstart:
    try:
        start.start_run(RUN)
    except InputError as error:
        sys.exit(f"{error}")
    start.pass_on_sigterm()
    progress.report_progress(RUN.state, RUN.shard_sizes, logger.info)


onsuccess:
    logger.info("\n".join(finish.closing_lines(RUN.database, RUN.state, RUN.started)))
    if RUN.deletions:
        logger.info(RUN.deletions.line("deleted: "))
    try:
        finish.check_failures(RUN.state, RUN.plan, RUN.config.max_failed_share)
    except InputError as error:
        sys.exit(f"{error}")


onerror:
    for line in finish.last_errors(RUN.state, RUN.started):
        logger.error(line)
