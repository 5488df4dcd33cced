"""Snakemake and its jobs, started from processes that have imported their packages: a third of the time of cold starts.

The programs are the same, and each start is a process of its own. Tests that signal processes, limit them or measure
them start them cold.
"""

import atexit
import ctypes
import functools
import importlib
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from multiprocessing import reduction
from pathlib import Path
from typing import NoReturn

_context = multiprocessing.get_context("forkserver")
# The last one for a pytest without workers, which is the main module of each start.
_context.set_forkserver_preload(
    ["snakemake.cli", "snakemake.api", "snakemake.report", "jsonschema", "sqlalchemy", "pytest"]
)


def run(
    command: list[str],
    folder: str,
    timeout: float,
    *,
    env: dict[str, str] | None = None,
    as_user: bool = False,
    packages: tuple[str, ...] = (),
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
    packages : tuple of str
        Modules that its jobs import besides those that all jobs import.

    Raises
    ------
    subprocess.TimeoutExpired
    """
    assert command[1:3] == ["-m", "snakemake"], command
    with tempfile.TemporaryFile() as output:
        descriptor = reduction.DupFd(output.fileno())
        arguments = (command[2:], folder, dict(env or os.environ), descriptor, as_user, python_of_jobs(packages))
        process = _context.Process(target=_snakemake, args=arguments)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        output.seek(0)
        return subprocess.CompletedProcess(command, process.exitcode, output.read().decode())


def _snakemake(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    output: reduction.DupFd,
    as_user: bool,
    jobs: str,
) -> None:
    descriptor = output.detach()
    for standard in (sys.stdout, sys.stderr):
        os.dup2(descriptor, standard.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.executable = jobs  # the Snakefile looks for `python` beside it
    if as_user:
        drop_privilege()
        os.environ[_AS_USER] = "yes"
    sys.argv = arguments

    from snakemake.cli import main

    main(arguments[1:])


_AS_USER = "JOBS_AS_USER"  # variable of the environment of jobs without root's privilege
_PACKAGES_OF_JOBS = [
    "msgpack",
    "numpy",
    "PIL.Image",
    "pydantic",
    "scipy.spatial",
    "sqlalchemy",
    "torch",
    "typer",
    "umap",
]
PACKAGES_OF_SIGLIP = (
    "transformers.models.siglip.modeling_siglip",
    "transformers.models.siglip2.modeling_siglip2",
    "transformers.models.siglip.tokenization_siglip",
)
_CLIENT = """#!{python} -IS
import os, sys
if not sys.argv[1:] or not sys.argv[1].endswith(".py"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
import json, signal, socket
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [b"."], [0, 1, 2])
connection.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
answers = connection.makefile()
job = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(job, number))
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@functools.cache
def python_of_jobs(packages: tuple[str, ...] = ()) -> str:
    """Start the process that forks jobs; return the path of a program that runs a script in such a fork.

    Only the main thread may call it: the process ends with the thread that started it.
    """
    assert threading.current_thread() is threading.main_thread()
    folder = tempfile.mkdtemp()
    address, program = os.path.join(folder, "socket"), Path(folder, "python")
    program.write_text(_CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, address, *packages])
    atexit.register(lambda: (server.kill(), server.wait(), shutil.rmtree(folder)))
    while not os.path.exists(address):
        assert server.poll() is None, "the process that forks jobs has ended"
        time.sleep(0.05)
    return str(program)


def _serve_jobs(address: str, *packages: str) -> None:
    """Fork a process for each job that is asked for, until this process is killed or its parent has ended."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    for name in (*_PACKAGES_OF_JOBS, *packages):
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen()
        os.rename(address + ".new", address)
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _answer(connection)


def _answer(connection: socket.socket) -> NoReturn:
    """Run a job in a child of this process; send its process ID and its exit code, or minus the number of a signal."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, *_ = socket.recv_fds(connection, 1, 3)
    arguments, folder, environment = json.loads(connection.makefile().readline())
    job = os.fork()
    if job == 0:
        connection.close()
        code = 1
        try:
            code = _job(arguments, folder, environment, descriptors)
        finally:
            os._exit(code)
    connection.sendall(b"%d\n" % job)
    status = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    connection.sendall(b"%d\n" % status)
    os._exit(0)


def _job(arguments: list[str], folder: str, environment: dict[str, str], descriptors: list[int]) -> int:
    for standard, descriptor in enumerate(descriptors):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if environment.get(_AS_USER):
        drop_privilege()
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if environment.get("PYTHONWARNINGS") == "error":
        warnings.simplefilter("error")
    try:
        runpy.run_path(arguments[0], run_name="__main__")
        code: object = 0
    except SystemExit as ended:
        code = ended.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 1


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


if __name__ == "__main__":
    _serve_jobs(*sys.argv[1:])
