"""Snakemake, started from a process that has imported it already, which takes a third of the time of a cold start."""

import ctypes
import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing import reduction

_context = multiprocessing.get_context("forkserver")
# The last one for a pytest without workers, which is the main module of each start.
_context.set_forkserver_preload(
    ["snakemake.cli", "snakemake.api", "snakemake.report", "jsonschema", "sqlalchemy", "pytest"]
)


def run(
    command: list[str], folder: str, timeout: float, *, env: dict[str, str] | None = None, as_user: bool = False
) -> subprocess.CompletedProcess:
    """Run a command that begins with `python -m snakemake` in a folder; `stdout` has its whole output.

    Parameters
    ----------
    command : list of str
    folder : str
    timeout : float
        Seconds.
    env : dict of str, optional
        Environment variables, if not those of this process.
    as_user : bool
        Drop root's privilege to read and write everything.

    Raises
    ------
    subprocess.TimeoutExpired
    """
    assert command[1:3] == ["-m", "snakemake"], command
    with tempfile.TemporaryFile() as output:
        descriptor = reduction.DupFd(output.fileno())
        arguments = (command[2:], folder, dict(env or os.environ), descriptor, as_user)
        process = _context.Process(target=_snakemake, args=arguments)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        output.seek(0)
        return subprocess.CompletedProcess(command, process.exitcode, output.read().decode())


def _snakemake(
    arguments: list[str], folder: str, environment: dict[str, str], output: reduction.DupFd, as_user: bool
) -> None:
    descriptor = output.detach()
    for standard in (sys.stdout, sys.stderr):
        os.dup2(descriptor, standard.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if as_user:
        drop_privilege()
    sys.argv = arguments

    from snakemake.cli import main

    main(arguments[1:])


def drop_privilege() -> None:
    """Give up root's right to read and write any file, in this process and in the programs that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the interface, this process
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)()
    drop_from_bounds = 24  # PR_CAPBSET_DROP
    libc.capget(header, effective_permitted_inheritable)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(drop_from_bounds, capability, 0, 0, 0)
        for which in range(3):
            effective_permitted_inheritable[which] &= ~(1 << capability)
    if libc.capset(header, effective_permitted_inheritable):
        raise OSError(ctypes.get_errno(), "capset")
