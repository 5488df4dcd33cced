"""Snakemake and its jobs, started from processes that have imported their modules: a quarter of a cold start's time.

The programs are the same, and each start is a process of its own. Tests that signal processes, limit them or measure
them start them cold.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_PROJECT = Path(__file__).resolve().parent.parent
_LIBRARY = "crossfilter_inference"
SNAKEMAKE = (
    *("snakemake.cli", "snakemake.api", "snakemake.report", "smart_open", "jsonschema", "sqlalchemy"),
    *(f"{_LIBRARY}.{name}" for name in ("cli.outputs", "run.finish", "run.progress", "run.start")),
)
SIGLIP = (
    "torch",
    "transformers.models.siglip.modeling_siglip",
    "transformers.models.siglip2.modeling_siglip2",
    "transformers.models.siglip.tokenization_siglip",
)
_JOBS = (
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.patheffects"),
    *("msgpack", "multiprocessing.connection", "numpy", "sqlalchemy.dialects.sqlite", "typer._adapters"),
    *("PIL.AvifImagePlugin", "PIL.ImageCms", "PIL.ImageOps", "PIL.TiffImagePlugin"),
    *(f"{_LIBRARY}.{name}" for name in ("cli.commands", "collection", "embed.job", "map.store", "shards.merge")),
    *(f"{_LIBRARY}.{name}" for name in ("verify.checks", "view.job")),
)
_AS_USER = "JOBS_AS_USER"  # variable of the environment of processes without root's privilege

_CLIENT = """#!{python} -IS
import os, sys
program, *arguments = sys.argv
if arguments[:2] == ["-m", "snakemake"]:
    address = {snakemake!r}
elif arguments[:1] and arguments[0].endswith("fit_umap.py"):
    address = {umap!r}
elif arguments[:1] and arguments[0].endswith(".py"):
    address = {jobs!r}
else:
    os.execv({python!r}, [{python!r}, *arguments])
import json, signal, socket
connection = socket.socket(socket.AF_UNIX)
connection.connect(address)
socket.send_fds(connection, [b"."], [0, 1, 2])
connection.sendall(json.dumps([program, arguments, os.getcwd(), dict(os.environ)]).encode() + b"\\n")
answers = connection.makefile()
process = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(process, number))
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def run(
    command: list[str],
    folder: str | Path,
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
    folder : str or Path
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
        done = subprocess.run(
            [python(packages), *command[1:]],
            cwd=folder,
            env={**(env or os.environ), **({_AS_USER: "yes"} if as_user else {})},
            stdout=output,  # not a pipe, which a process that is left over would hold open
            stderr=subprocess.STDOUT,
            check=False,
            timeout=timeout,
        )
        output.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, output.read().decode())


@functools.cache
def python(packages: tuple[str, ...] = ()) -> str:
    """Return the path of a program that does what Python does with a script or with `-m snakemake`, but sooner.

    Only the main thread may call it: the processes that it starts end with the thread that started them.

    Parameters
    ----------
    packages : tuple of str
        Modules that the scripts import besides those that all scripts import.
    """
    servers = {
        "snakemake": _server(SNAKEMAKE),
        "umap": _server((*_JOBS, "umap", f"{_LIBRARY}.map.job")),
        "jobs": _server((*_JOBS, *packages)),
    }
    addresses = {name: address() for name, address in servers.items()}
    program = Path(addresses["jobs"]).with_name("python")
    program.write_text(_CLIENT.format(python=sys.executable, **addresses))
    program.chmod(0o755)
    return str(program)


@functools.cache
def _server(packages: tuple[str, ...]) -> Callable[[], str]:
    """Start a process that forks for whoever asks; return a function that waits until it listens, for its address."""
    assert threading.current_thread() is threading.main_thread()
    address = os.path.join(tempfile.mkdtemp(), "socket")
    server = subprocess.Popen([sys.executable, __file__, address, *packages], stdout=subprocess.PIPE)
    atexit.register(lambda: (server.kill(), server.wait(), shutil.rmtree(os.path.dirname(address))))

    @functools.cache
    def wait() -> str:
        assert server.stdout.readline(), "the process that forks has ended"
        return address

    return wait


def _serve(address: str, *packages: str) -> NoReturn:
    """Fork a process for each client, until this process is killed or its parent has ended."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    sys.path.insert(0, str(_PROJECT / "workflow"))
    for name in packages:
        importlib.import_module(name)
    del sys.path[0]
    if packages == SNAKEMAKE:
        sys.modules["snakemake.cli"].get_argument_parser()  # imports all plugins
    gc.collect()
    gc.freeze()  # otherwise the garbage collector of each fork copies every page
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(100)
    print("listening", flush=True)
    with selectors.DefaultSelector() as events:
        events.register(listener, selectors.EVENT_READ, lambda: _start(listener.accept()[0], events))
        while True:
            for key, _ in events.select():
                key.data()


def _start(connection: socket.socket, events: selectors.BaseSelector) -> None:
    """Fork the process of a client; when it ends, send its exit code, or minus the number of a signal.

    A client that is killed takes its process with it.
    """
    _, descriptors, *_ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as lines:
        program, arguments, folder, environment = json.loads(lines.readline())
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = _program(program, arguments, folder, environment, descriptors)
        finally:
            os._exit(code)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(b"%d\n" % process)
    watch = os.pidfd_open(process)

    def client_ended() -> None:
        events.unregister(connection)
        os.kill(process, signal.SIGKILL)

    def process_ended() -> None:
        events.unregister(watch)
        os.close(watch)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with suppress(KeyError):
            events.unregister(connection)
        with connection, suppress(OSError):
            connection.sendall(b"%d\n" % status)

    events.register(connection, selectors.EVENT_READ, client_ended)
    events.register(watch, selectors.EVENT_READ, process_ended)


def _program(program: str, arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> int:
    for standard, descriptor in enumerate(streams):
        os.dup2(descriptor, standard)
    os.closerange(3, 1000)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if environment.get(_AS_USER):
        drop_privilege()
    sys.path[0] = folder if arguments[0] == "-m" else os.path.dirname(os.path.abspath(arguments[0]))
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if environment.get("PYTHONWARNINGS") == "error":
        warnings.simplefilter("error")
    if not _is_of_project(folder, arguments):  # of a copy of the project, with a library of its own
        for name in [name for name in sys.modules if name.partition(".")[0] == _LIBRARY]:
            del sys.modules[name]
    try:
        if arguments[0] == "-m":
            sys.executable = program  # the Snakefile looks for `python` beside it
            sys.argv = arguments[1:]
            sys.modules["snakemake.cli"].main(arguments[2:])
        else:
            sys.argv = arguments
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


def _is_of_project(folder: str, arguments: list[str]) -> bool:
    """Return whether a command runs a file of this project, not of a copy."""
    file = arguments[0]
    if file == "-m":
        file = arguments[arguments.index("--snakefile") + 1] if "--snakefile" in arguments else ""
    return _PROJECT in Path(folder, file).resolve().parents


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
    _serve(*sys.argv[1:])
