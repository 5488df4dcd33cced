"""A real Slurm of one node, for the tests: installed if it is missing, started and stopped.

The node pretends to have more cores and GPUs than this machine has, so that several jobs run at once. Memory and run
time of a job are enforced.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from conftest import PROJECT, Collection, hear_ctrl_c

TRACED = ("execve", "open", "openat", "creat", "rename", "renameat", "renameat2", "link", "linkat")
N_CORES, N_GPUS, MEMORY_MB = 32, 4, 256_000
CONFIGURATION = Path("/etc/slurm")  # the only place where srun looks within a job
SLURM_CONF = """
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
ReturnToService=2
MinJobAge=300
KillWait=5
SchedulerParameters=sched_interval=1,batch_sched_delay=0,default_queue_depth=100
SlurmdParameters=config_overrides
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=localhost CPUs={n_cores} RealMemory={memory} Gres=gpu:{n_gpus}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def trace(output: Path, *options: str) -> list[str]:
    """Command that records the files that another one and its children open and rename."""
    follow = ["strace", "--follow-forks", "--seccomp-bpf", "--string-limit=4096"]
    return [*follow, f"--output={output}", f"--trace={','.join(TRACED)}", *options]


class Slurm:
    """Daemons of our own.

    Parameters
    ----------
    folder : Path
        Folder of their files.
    """

    def __init__(self, folder: Path):
        self.folder, self.trace = folder, folder / "trace"
        self._daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        """Install Slurm if it is missing, and start it."""
        answer = shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True, check=False, timeout=60)
        assert not answer or answer.returncode, "Slurm is already running: stop it; the tests start their own"
        if shutil.which("slurmctld") is None or shutil.which("strace") is None:
            packages = ["slurm-wlm", "munge", "strace"]
            subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *packages], check=True)
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True)
        values = {"folder": self.folder, "n_cores": N_CORES, "memory": MEMORY_MB, "n_gpus": N_GPUS}
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        devices = []
        for number in range(N_GPUS):
            device = self.folder / f"gpu{number}"
            os.mknod(device, 0o600 | 0o020000, os.makedev(1, 3))  # a character device, as a GPU's must be
            devices.append(f"Name=gpu File={device}")
        (self.folder / "gres.conf").write_text("\n".join(["AutoDetect=off", *devices]) + "\n")
        CONFIGURATION.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)  # of tests that were killed; no Slurm answers
            (CONFIGURATION / name).symlink_to(self.folder / name)
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o600)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        self._spawn("munged", "--foreground", "--force", *(f"--{key}={munge / name}" for key, name in names.items()))
        self._spawn("slurmctld", "-D")
        # The trace records the files that jobs open and rename.
        self._spawn(*trace(self.trace), "slurmd", "-D", "-N", "localhost")
        self.wait_until(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%t"))

    def _spawn(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("w") as output:
            self._daemons.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))

    def stop(self) -> None:
        """Stop all jobs, also those of lost nodes, and the daemons."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "SLURM_JOB_ID" in process.environ() or process.name() == "slurmstepd":
                    process.kill()
        for name in ("slurmd", "slurmctld"):  # strace passes no signals on
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGTERM)
        for daemon in self._daemons:
            if daemon.args[0] == "munged":
                daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)

    @staticmethod
    def ask(*command: str) -> str:
        """Run one of Slurm's commands."""
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    @staticmethod
    def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until a condition is true."""
        end = time.monotonic() + seconds
        while True:
            with suppress(subprocess.CalledProcessError):
                if condition():
                    return
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.2)


class ClusterCollection(Collection):
    """A collection whose runs go through the profile for Slurm."""

    is_traced = False

    def command(self, *options: str, cores: int | None = None) -> list[str]:
        if cores is not None:
            return super().command(*options, cores=cores)
        return [
            *(trace(self.folder / f"trace{time.time_ns()}", "--output-separately") if self.is_traced else ()),
            *(sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")),
            *("--directory", str(self.folder), "--configfile", str(self.folder / "config.yaml")),
            *(
                "--profile",
                str(PROJECT / "profiles" / "slurm"),
                "--slurm-init-seconds-before-status-checks",
                "2",
                *options,
            ),
        ]

    def snakemake(
        self, *options: str, cores: int | None = 2, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess:
        """Run Snakemake; its output is in `stdout`."""
        if not self.is_traced:
            return super().snakemake(*options, cores=cores, env=env)
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(self.command(*options, cores=cores), cwd=self.folder, env=env, timeout=800, **out)

    def start(self, *options: str, **environment: str) -> subprocess.Popen:
        """Start a run in the background; its output goes to `run.log`."""
        with (self.folder / "run.log").open("a") as output:
            return subprocess.Popen(
                self.command(*options),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=hear_ctrl_c,
                env=environment or None,
            )

    @property
    def traces(self) -> list[Path]:
        """The files that each process and thread of the traced runs has opened and renamed."""
        return list(self.folder.glob("trace*"))

    @property
    def output(self) -> str:
        """The output of the runs in the background."""
        return (self.folder / "run.log").read_text()

    def wait_for(self, what: Callable[[], bool], seconds: float = 120) -> None:
        """Wait for an event of a run in the background."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.output[-4000:]
            time.sleep(0.1)
