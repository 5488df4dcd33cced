"""Snakemake, started from a process that has imported it already, which takes a third of the time of a cold start."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing import reduction

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["snakemake.cli", "snakemake.api", "snakemake.report", "jsonschema", "sqlalchemy"])


def run(command: list[str], folder: str, timeout: float) -> subprocess.CompletedProcess:
    """Run a command that begins with `python -m snakemake` in a folder; `stdout` has all that it says."""
    assert command[1:3] == ["-m", "snakemake"], command
    with tempfile.TemporaryFile() as output:
        descriptor = reduction.DupFd(output.fileno())
        process = _context.Process(target=_snakemake, args=(command[2:], folder, dict(os.environ), descriptor))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        output.seek(0)
        return subprocess.CompletedProcess(command, process.exitcode, output.read().decode())


def _snakemake(arguments: list[str], folder: str, environment: dict[str, str], output: object) -> None:
    descriptor = output.detach()
    for standard in (sys.stdout, sys.stderr):
        os.dup2(descriptor, standard.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = arguments

    from snakemake.cli import main

    main(arguments[1:])
