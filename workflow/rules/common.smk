"""
Plan the run before the first job: Snakemake's main process calls `prepare_run` when it reads the Snakefile, so a dry
run shows the exact jobs. `onstart`, which a dry run skips, takes the lock and writes the plan for the jobs.
"""

import os
import sys
import tarfile
import tempfile

from snakemake.logging import logger
from snakemake.sourcecache import HostingProviderFile, LocalGitFile, LocalSourceFile


def find_project(rules):
    """Find the project's folder around this file. Of a Git repository, Snakemake reads single files: unpack the rest."""
    if isinstance(rules, LocalSourceFile):
        return os.path.dirname(os.path.dirname(rules.get_path_or_uri(secret_free=True)))
    if isinstance(rules, LocalGitFile):
        from git import Repo

        repository = Repo(rules.repo_path)
    elif isinstance(rules, HostingProviderFile):
        repository = rules.hosted_repo.repo
    else:
        sys.exit(f"module: cannot read this workflow from {rules}; use a folder, github(...) or gitfile(...)")
    commit = repository.commit(rules.ref).hexsha
    folder = os.path.abspath(f".snakemake/crossfilter-inference/{commit}")
    if not os.path.exists(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with tempfile.TemporaryFile() as file, tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as part:
            repository.archive(file, commit, path=["config.yaml", "envs", "scripts", "workflow"])
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                archive.extractall(f"{part}/project", filter="data")
            os.rename(f"{part}/project", folder)
    return folder


PROJECT = find_project(workflow.current_basedir)
SCRIPTS = f"{PROJECT}/scripts"
sys.path.insert(0, f"{PROJECT}/workflow")
# `python` in the rules is the Python that runs Snakemake, unless a conda environment brings its own.
os.environ.update(PATH=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.getenv('PATH')}")

from crossfilter_inference.cli import outputs
from crossfilter_inference.errors import InputError
from crossfilter_inference.run import as_module, finish, forecast, prepare, progress, start, terminal
from crossfilter_inference.util.text import printable

IS_MODULE = not workflow.modifier.is_main_snakefile()  # of another workflow, whose terminal and signals are its own
if not IS_MODULE:
    terminal.shorten(logger)


configfile: f"{PROJECT}/config.yaml"


with start.mistakes_in_one_line():
    resources = prepare.Resources.of_snakemake(workflow)
    if IS_MODULE:
        MODULE = as_module.plan_module(workflow, config, resources)
        RUN = MODULE.run
    else:
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
    if not IS_MODULE:
        terminal.shorten(logger)  # in Snakemake's own log, too
    with start.mistakes_in_one_line():
        start.start_run(RUN)
    if not IS_MODULE:
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


if IS_MODULE and resources.is_main_process:
    with start.mistakes_in_one_line():
        as_module.check_paths(workflow, RUN)
    as_module.add_hooks(workflow, MODULE, globals()["onstart"], globals()["onsuccess"], globals()["onerror"])
