"""A real collection of real photos in a temporary folder, and a real Snakemake to run on it."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import browser
import psutil
import pytest
import warm
import yaml
from decode_here import USERS, DecodeHere

from crossfilter_inference.embed.decode_process import DecodeProcess
from crossfilter_inference.shards.plan import Plan, read_plan, write_plan

pytest.register_assert_rewrite("verified")
# Tests share the cores: threads that wait for others would keep them busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
PROJECT = Path(__file__).resolve().parent.parent
DEMO = PROJECT / "demo" / "photos"
DEMO_PHOTOS = sorted(DEMO.rglob("*.jpg"), key=lambda path: path.name)
# Each file runs in one process: one of these at the end would leave the other processes idle.
LONGEST = (
    *("test_histories", "test_benchmarks", "test_map", "test_no_code", "test_never_lost", "test_search"),
    *("test_same_picture", "test_siglip", "test_readme", "test_mixture", "test_report"),
)
COLOUR_ENCODER = PROJECT / "tests" / "colour_encoder.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run slow tests too; fail if a test is skipped")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests, except those that the command line names; begin with the files that take longest."""
    for item in items:
        if "chromium" in item.fixturenames:
            item.add_marker(needs_browser)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    if config.getoption("all") or any("::" in argument for argument in config.args):
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    return _without_skip((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    return _without_skip((yield), collector.config)


def _without_skip(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config):
    """With --all, turn a skipped test into a failure."""
    if report.skipped and config.getoption("all") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"--all allows no skipped test: {report.longrepr[-1]}"
    return report


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skip a test where an optional package is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}; make test-all installs it")


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the packages that read camera RAW and JPEG XL."""
    from crossfilter_inference.photos import formats, image

    monkeypatch.setattr(image, "can_read_raw", lambda: False)
    for module in (formats, image):
        monkeypatch.setattr(module, "can_read_jxl", lambda: False)


needs_browser = pytest.mark.skipif(
    browser.CHROMIUM is None or find_spec("playwright") is None,
    reason="not installed: Chromium or playwright; .ci/run installs both",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """Start a browser for the tests of a module."""
    with browser.started() as chromium:
        yield chromium


class Collection:
    """A working folder with a configuration, photos in `photos/`, and the results of runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.database = folder / "results" / "photos.sqlite"

    @property
    def type(self) -> str:
        return self.config()["embedding_type"]

    @property
    def packages(self) -> tuple[str, ...]:
        """What its jobs import besides the packages that all jobs import."""
        text = (self.folder / "config.yaml").read_text(errors="replace")
        return warm.SIGLIP if "SIGLIP" in text else ("torch",) if "EFFICIENTNET" in text else ()

    @property
    def state(self) -> Path:
        return self.folder / "results" / "photos" / self.type

    def config(self) -> dict:
        return yaml.safe_load((self.folder / "config.yaml").read_text())

    def configure(self, **changes: object) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump({**self.config(), **changes}))

    def command(self, *options: str, cores: int | None = 2) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")),
            *("--directory", str(self.folder), "--configfile", str(self.folder / "config.yaml")),
            *([] if cores is None else ["--cores", str(cores)]),
            *options,
        ]

    def snakemake(self, *options: str, cores: int | None = 2, **how: object) -> subprocess.CompletedProcess:
        """Run Snakemake, with the keyword arguments of `warm.run`; its output is in `stdout`."""
        how = {"packages": self.packages, **how}
        return warm.run(self.command(*options, cores=cores), self.folder, timeout=280, **how)

    def run(self, *options: str, **how: object) -> dict[str, int]:
        """Run Snakemake, which must succeed; return how many jobs of each rule it ran."""
        done = self.snakemake(*options, **how)
        assert done.returncode == 0, done.stdout[-8000:]
        return jobs(done.stdout)

    def dry_run(self, *options: str, **how: object) -> dict[str, int]:
        return self.run("-n", *options, **how)

    def keep(self) -> None:
        """Copy all files, for take_back."""
        shutil.copytree(self.folder, self.folder.with_name("kept"), symlinks=True)

    def take_back(self) -> None:
        """Restore the files of the copy, with timestamps, in the same place."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_name("kept"), self.folder, symlinks=True)
        self._renew_ctimes()

    def _renew_ctimes(self) -> None:
        """Let the last run have seen the copies, whose ctime no program can set."""
        images, rejected = read_plan(self.state / "plan.tsv")
        copies = [image._replace(ctime_ns=os.stat(image.path).st_ctime_ns) for image in images]
        before, after = (Plan(which, rejected, []).digest() for which in (images, copies))
        write_plan(self.state / "plan.tsv", Plan(copies, rejected, []))
        (self.state / "settings" / f"manifest-{before}").rename(self.state / "settings" / f"manifest-{after}")

    def add_photos(self, n: int, into: str = "photos") -> list[str]:
        """Add demo photos that are not in the collection yet; return their UUIDs."""
        there = {path.stem for path in self.folder.rglob("*.jpg")}
        new = [path for path in DEMO_PHOTOS if path.stem not in there][:n]
        (self.folder / into).mkdir(exist_ok=True)
        for path in new:
            shutil.copy2(path, self.folder / into)
        return [path.stem for path in new]

    def script(self, name: str, *options: str) -> subprocess.CompletedProcess:
        """Run one of the user's commands on this collection; a warning is an error."""
        return subprocess.run(
            [warm.python(self.packages), PROJECT / "scripts" / name, "--configfile", "config.yaml", *options],
            cwd=self.folder,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def sql(self, query: str, database: Path | None = None) -> list[tuple]:
        """Query the database; {T} stands for the embedding type."""
        connection = sqlite3.connect(database or self.database)
        try:
            return connection.execute(query.replace("{T}", self.type)).fetchall()
        finally:
            connection.close()

    def embeddings(self) -> dict[str, bytes]:
        return dict(self.sql("SELECT UUID, EMBEDDING FROM {T}_EMBEDDINGS"))


def page_data(page: Path) -> dict:
    """Read the data of `map.html`."""
    [text] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def demo_photo(uuid: str) -> Path:
    """Find a demo photo by its UUID."""
    return next(path for path in DEMO_PHOTOS if path.stem == uuid)


def identity(path: Path) -> tuple[int, ...]:
    """Return values that change when a file is written, but not when it is read."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def hear_ctrl_c() -> None:
    """Let a child receive Ctrl-C even if the tests run in the background of a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def decoders() -> list[psutil.Process]:
    """Return the processes that decode for this one, which has others, too."""
    return [child for child in psutil.Process().children() if "serve(int(sys.argv" in " ".join(child.cmdline())]


def jobs(output: str) -> dict[str, int]:
    """Read Snakemake's table of jobs, without `all`; empty if no job was needed."""
    table = re.search(r"^Job stats:\n(.*?)^total ", output, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in output, output[-4000:]
        return {}
    rows = [line.split() for line in table[1].splitlines()[2:]]
    return {rule: int(count) for rule, count in rows if rule != "all"}


def leave_hot_journal(database: Path) -> None:
    """Write to a database, and be killed when part of the transaction is on the disk."""
    program = (
        "import os, signal, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 5')\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute('CREATE TABLE garbage (x)')\n"
        "connection.executemany('INSERT INTO garbage VALUES (?)', [(bytes(1000),)] * 1000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, database], check=False, timeout=30)
    assert Path(f"{database}-journal").stat().st_size > 0


@pytest.fixture(autouse=True)
def decode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no processes that decode."""
    for module in USERS:
        monkeypatch.setattr(module, "DecodeProcess", DecodeHere)


@pytest.fixture
def decode_in_processes(decode_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode as jobs do."""
    for module in USERS:
        monkeypatch.setattr(module, "DecodeProcess", DecodeProcess)


@pytest.fixture
def make_collection(tmp_path: Path):
    """Make a collection of demo photos; by default, with the fast encoder and without a map."""

    def make(n_photos: int, name: str = "collection", **config: object) -> Collection:
        return new_collection(tmp_path / name, n_photos, **config)

    return make


def new_collection(folder: Path, n_photos: int, **config: object) -> Collection:
    folder.mkdir(parents=True)
    settings = {
        "input_dir": "photos",
        "output_embeddings_db": "results/photos.sqlite",
        "embedding_type": "COLOUR",
        "encoders": {"COLOUR": {"backend": str(COLOUR_ENCODER), "model": "a"}},
        "reproject_umap_embeddings": False,
        **config,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    collection = Collection(folder)
    collection.add_photos(n_photos)
    return collection


@pytest.fixture(scope="session")
def three_shards(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Twelve photos in three shards after their first run; `take_back()` before each use."""
    collection = new_collection(tmp_path_factory.mktemp("three-shards") / "collection", 12, shard_size=5)
    assert collection.run() == {"resolve_encoder": 1, "write_manifest": 1, "embed_shard": 3, "store_embeddings": 1}
    collection.keep()
    return collection


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The demo after its first run, read-only."""
    folder = tmp_path_factory.mktemp("demo")
    photos = folder / "demo-photos"
    shutil.copytree(DEMO, photos)
    collection = new_collection(
        folder / "collection",
        0,
        input_dir=[str(photos), "more"],
        embedding_type="EFFICIENTNET_LITE0",
        reproject_umap_embeddings=True,
    )
    (collection.folder / "more").mkdir()
    done = collection.snakemake()
    assert done.returncode == 0, done.stdout
    (folder / "output.txt").write_text(done.stdout)
    return collection


@pytest.fixture
def demo(demo_run: Collection, tmp_path: Path) -> Collection:
    """A copy of the demo after its first run, which tests may change; new photos go into `more/`."""
    folder = tmp_path / "collection"
    shutil.copytree(demo_run.folder, folder, symlinks=True)
    return Collection(folder)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git repository of this project's workflow."""
    folder = tmp_path_factory.mktemp("repository") / "project"
    for name in ("config", "envs", "profiles", "scripts", "workflow"):
        shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config.yaml", "LICENSE", "Snakefile"):
        shutil.copy(PROJECT / name, folder)
    git = ("git", "-C", folder, "-c", "user.name=test", "-c", "user.email=test@example.org")
    for command in (("init", "--quiet", "--initial-branch=main"), ("add", "."), ("commit", "--quiet", "-m", "all")):
        subprocess.run([*git, *command], check=True)
    return folder


@pytest.fixture
def as_on_github(repository: Path, tmp_path: Path) -> dict[str, str]:
    """Environment in which git finds the repository at https://github.com/owner/project."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/owner/project",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.fixture(scope="session")
def as_user() -> dict[str, bool]:
    """Options of a run without root's privilege to read and write everything."""
    return {"as_user": os.getuid() == 0}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory):
    """A real Slurm of one node, which records the file operations of jobs."""
    from slurm import Slurm

    slurm = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


@pytest.fixture(scope="session")
def make_cluster_collection(slurm, tmp_path_factory: pytest.TempPathFactory):
    """Make a collection whose runs go through the profile for Slurm."""
    from slurm import ClusterCollection

    def make(n_photos: int, name: str, **config: object) -> ClusterCollection:
        return ClusterCollection(new_collection(tmp_path_factory.mktemp("cluster") / name, n_photos, **config).folder)

    return make
