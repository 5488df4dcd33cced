"""Two ways to run a history's collection: through Snakemake, and through the library alone, in a forked process."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
import yaml
from history import TYPE, History

from crossfilter_inference.config import Config, check_config
from crossfilter_inference.embed.job import embed_shard
from crossfilter_inference.encoders.identity import settings_digest
from crossfilter_inference.encoders.registry import resolve_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.run import start as run
from crossfilter_inference.run.prepare import Resources, prepare_run
from crossfilter_inference.shards.guard import refuse_mixture
from crossfilter_inference.shards.merge import store_embeddings
from crossfilter_inference.shards.plan import read_removed, write_manifest
from crossfilter_inference.util.files import read_json, write_json, write_stamp
from crossfilter_inference.verify.checks import verify

PROJECT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(PROJECT / "tests"))

import warm  # noqa: E402
from decode_here import USERS, DecodeHere  # noqa: E402


class Player:
    """Run a collection, undisturbed or with a fault, and judge its output."""

    def __init__(self, history: History):
        self.history, self.output = history, ""

    def run(self, fault: str) -> int | None:
        """Run once; return the exit code, or None for a run that was killed."""
        ballast = self.history.folder / "results" / "ballast"
        if fault == "disk":
            self._fill_disk(ballast)
        try:
            return self._run(kill=fault == "kill")
        finally:
            ballast.unlink(missing_ok=True)

    def apply_fix(self) -> bool:
        """Apply the fix of an error: delete or move away the files that it names, in quotes or in brackets."""
        errors = "\n".join(line for line in self.output.splitlines() if re.search("delete|move .*aside", line))
        names = re.findall(r"'([^']+)'", errors)
        names += [name for names in re.findall(r"\(([^()]+)\)", errors) for name in names.split(", ")]
        paths = [Path(name) for name in names if self.history.folder in Path(name).resolve().parents]
        paths = [path for path in dict.fromkeys(paths) if path.is_file()]
        for path in paths:
            self.history.log.append(f"deleted {path.name}, as the error advises")
            path.unlink()
            Path(f"{path}-journal").unlink(missing_ok=True)
        return bool(paths)

    def verify(self) -> bool:
        """Run verify."""
        config = _config(json.dumps(self.history.settings))
        checks = list(verify(config, n_sample=2, n_threads=1, backends=[config.encoder.backend]))
        self.output = "\n".join(map(str, checks))
        return all(check.state != "FAILED" for check in checks)

    def check(self) -> None:
        """Make further checks of a successful run."""

    def end(self) -> None:
        """Check the collection at the end of a history."""

    def stop(self) -> None:
        """Leave no process behind."""

    def _run(self, *, kill: bool) -> int | None:
        raise NotImplementedError

    def _fill_disk(self, ballast: Path) -> None:
        free = self.history.random.choice([0, 1, 4, 16, 64, 256, 1024]) * 1024
        disk = os.statvfs(ballast.parent)
        n_bytes = max(0, disk.f_bavail * disk.f_frsize - free)
        with suppress(OSError):
            ballast.write_bytes(bytes(n_bytes))


class LibraryPlayer(Player):
    """Planning, embedding and store in one process."""

    _typical = 0.1  # seconds of a run

    def __init__(self, history: History):
        super().__init__(history)
        for module in USERS:
            module.DecodeProcess = DecodeHere

    def _run(self, *, kill: bool) -> int | None:
        said = self.history.folder / "said"
        start = time.monotonic()
        _config(json.dumps(self.history.settings))  # once for many runs
        child = os.fork()
        if child == 0:
            self._child(said)
        if kill:
            time.sleep(self.history.random.uniform(0, 1.2 * self._typical))
            os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                self.history.must(False, "a hang")
            time.sleep(0.001)
        if not kill:
            self._typical += 0.2 * (time.monotonic() - start - self._typical)
        self.output = said.read_text() if said.exists() else ""
        return None if os.WIFSIGNALED(ended[1]) else os.WEXITSTATUS(ended[1])

    def _child(self, said: Path) -> None:
        code = 1
        try:
            out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            _as_user()
            self._workflow()
            code = 0
        except InputError as error:
            os.write(2, f"error: {error}\n".encode())
        except OSError as error:
            if error.errno != 28:  # no space left
                os.write(2, traceback.format_exc().encode())
            os.write(2, f"error: {error}\n".encode())
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)

    def _workflow(self) -> None:
        """Do the work of the Snakefile and its rules."""
        history = self.history
        planned = prepare_run(_config(json.dumps(history.settings)), Resources())
        config, state, database = planned.config, planned.state, planned.database
        recompute, delete = config.recompute_existing_embeddings, config.missing_images == "delete"
        run.start_run(planned)
        encoder, plan_path = f"{state}/encoder.json", f"{state}/plan.tsv"
        settings = config.encoder.model_dump()
        stamp = Path(f"{state}/settings/encoder-{settings_digest(TYPE, settings)}")
        if not (stamp.exists() and Path(encoder).exists()):
            resolved = resolve_encoder(TYPE, settings, "cpu")
            removed = read_removed(plan_path) if delete else set()
            refuse_mixture(database, plan_path, resolved, recompute=recompute, deleted=removed)
            if not Path(encoder).exists() or read_json(encoder) != resolved:
                write_json(encoder, resolved)
            write_stamp(stamp)
        write_manifest(plan_path, f"{state}/manifest.tsv", f"{state}/rejected.tsv", f"{state}/shards")
        for shard in planned.shards:
            embed_shard(
                f"{state}/shards/{shard}.tsv",
                plan_path,
                encoder,
                f"{state}/embeddings/{shard}.sqlite",
                database=None if recompute else database,
                batch_size=config.batch_size,
                n_threads=2,
                device="cpu",
                backends=[config.encoder.backend],
            )
        store_embeddings(
            encoder,
            f"{state}/manifest.tsv",
            database,
            f"{state}/shards",
            f"{state}/embeddings",
            f"{state}/embeddings.json",
            generation=1,
            deleted=read_removed(plan_path) if delete else set(),
        )


class SnakemakePlayer(Player):
    """The workflow itself, killed in several ways; at the end, it is compared with a run from scratch."""

    def __init__(self, history: History):
        super().__init__(history)
        self._typical = 4.0
        self.with_map = history.random.randrange(10) == 0
        if self.with_map:
            update = history.random.choice(["refit", "align", "place"])
            history.settings |= {"reproject_umap_embeddings": True, "umap": {"update": update, "n_neighbors": 3}}

    def check(self) -> None:
        """Check that nothing remains to be done, and that the map shows the same photos."""
        self._run_warm("--dry-run", timeout=60)
        done = "Nothing to be done" in self.output
        again = self.history.settings.get("recompute_existing_embeddings")
        again = again or (self.history.settings.get("retry_failures") and self.history.failures())
        self.history.must(done or bool(again), "something remains to be done")
        if self.with_map:
            self.history.must(self._map(self.history.database).keys() == self.history.rows().keys(), "the map's photos")

    def end(self) -> None:
        """Check that a run from scratch on the same folder gives the same database, but for photos in doubt."""
        history, fresh = self.history, self.history.folder / "fresh"
        if history.settings.get("recompute_existing_embeddings"):
            return
        history.unlock()
        history.remount()
        history.settings["missing_images"] = "delete"
        (history.folder / "config.yaml").write_text(yaml.safe_dump(history.settings))
        while self._run(kill=False) != 0:
            history.must(self.apply_fix(), "an error without a fix")
        options = ("--config", f"output_embeddings_db={fresh}/photos.sqlite")
        history.must(self._run_warm(*options, timeout=200) == 0, "the run from scratch fails")
        history.check_names()  # also of photos that are back
        in_doubt = history.in_doubt()
        paths, fresh_paths = (
            {row[0]: row[1] for name in ("IMAGES", "FAILURES") for row in _table(database, name)}
            for database in (history.database, fresh / "photos.sqlite")
        )
        for name in ("EMBEDDINGS", "IMAGES", "FAILURES"):
            rows, fresh_rows = _table(history.database, name), _table(fresh / "photos.sqlite", name)
            rows = [row for row in rows if row[0] not in in_doubt]
            if history.any_name:  # a photo that has moved has another UUID from scratch
                rows = sorted((paths[uuid], *row) for uuid, *row in rows)
                fresh_rows = sorted((fresh_paths[uuid], *row) for uuid, *row in fresh_rows)
            history.must(rows == fresh_rows, f"{name} from scratch")
        is_same_map = self.with_map and history.settings["umap"]["update"] == "refit" and not history.any_name
        if is_same_map and not in_doubt:
            history.must(self._map(history.database) == self._map(fresh / "photos.sqlite"), "the map from scratch")
        shutil.rmtree(fresh)

    def stop(self) -> None:
        """Leave no process behind, neither Snakemake nor jobs that outlive it."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(self.history.folder)]

    def _command(self, *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile"), "--cores", "2"),
            *(*options, "--configfile", "config.yaml"),
        ]

    def _run(self, *, kill: bool) -> int | None:
        return self._run_cold() if kill else self._run_warm(timeout=200)

    def _run_warm(self, *options: str, timeout: float) -> int:
        """Run to the end, started from a process that has imported the packages.

        A cold start would take longer than a job that is left over.
        """
        _, alive = psutil.wait_procs(self._processes(), timeout=60)
        self.history.must(not alive, "a job is left over")
        done = warm.run(self._command(*options), str(self.history.folder), timeout, as_user=os.geteuid() == 0)
        self.output = done.stdout
        return done.returncode

    def _run_cold(self) -> int | None:
        """Start a run as users do, in a process group of its own, and kill it at a random time."""
        how, number = self.history.random.choice(
            [(os.killpg, signal.SIGKILL)] * 2
            + [(os.kill, signal.SIGKILL), (os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)]
        )
        self.history.log.append(f"{how.__name__} {signal.Signals(number).name}")
        start, said = time.monotonic(), self.history.folder / "said"
        with said.open("wb") as output:
            process = subprocess.Popen(
                self._command(),
                cwd=self.history.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_as_user,
            )
        try:
            process.wait(self.history.random.uniform(0.5, 1.1 * self._typical))
            self._typical += 0.2 * (time.monotonic() - start - self._typical)
        except subprocess.TimeoutExpired:
            self._typical *= 1.05  # it takes longer, perhaps longer than all kills
        with suppress(ProcessLookupError):
            how(process.pid, number)
        try:
            code = process.wait(timeout=200)
        except subprocess.TimeoutExpired:
            self.history.must(False, "a hang")
        finally:
            self.output = said.read_text(errors="replace")
        return None if code else 0

    def _map(self, database: Path) -> dict[str, tuple]:
        return {row[0]: row[1:] for row in _table(database, "UMAP_HAVERSINE")}


@cache
def _config(settings: str) -> Config:
    return check_config(json.loads(settings))


def _table(database: Path, name: str) -> list[tuple]:
    connection = sqlite3.connect(database)
    try:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({TYPE}_{name})") if row[1] != "SHARD"]
        return connection.execute(f"SELECT {', '.join(columns)} FROM {TYPE}_{name} ORDER BY UUID").fetchall()
    finally:
        connection.close()


def _as_user() -> None:
    """Let folders be unreadable for root too."""
    if os.geteuid() == 0:
        warm.drop_privilege()


PLAYERS = {"in-process": LibraryPlayer, "snakemake": SnakemakePlayer}
