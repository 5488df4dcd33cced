"""The wheel brings the whole workflow: the command works in an empty folder, without a clone."""

import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import warm
from conftest import DEMO, PROJECT, jobs

pytest.importorskip("hatchling", reason="builds the wheel: make .venv/dev installs it")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NEEDED = (
    *("config.yaml", "envs", "LICENSE", "profiles", "pyproject.toml", "README.md"),
    *("scripts", "Snakefile", "workflow"),
)


class Installation:
    """A virtual environment with the wheel, and the packages of the tests' own environment."""

    def __init__(self, folder: Path):
        self.folder, self.empty = folder / "venv", folder / "empty"
        self.empty.mkdir()
        clone = folder / "clone"  # without what the build would leave behind
        clone.mkdir()
        for name in NEEDED:
            copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
            copy(PROJECT / name, clone / name)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        build = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
        subprocess.run([*pip, *build, clone], check=True, capture_output=True)
        shutil.rmtree(clone)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder], check=True)
        [packages] = self.folder.glob("lib/python*/site-packages")
        shared = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "shared.pth").write_text("\n".join([*shared, sysconfig.get_path("purelib")]))
        [wheel] = folder.glob("*.whl")
        install = ("install", "--no-deps", "--no-index", "--ignore-installed", "--prefix", self.folder)
        subprocess.run([*pip, *install, wheel], check=True, capture_output=True)
        self.package = packages / "crossfilter_inference"
        self.programs = self.folder / "bin"
        # pip wrote the Python that ran it into the command's first line.
        command = self.programs / "crossfilter-inference"
        lines = command.read_text().splitlines(keepends=True)
        command.write_text("".join([f"#!{self.programs / 'python'}\n", *lines[1:]]))

    def run(self, *words: object, code: int = 0, program: str = "crossfilter-inference", **popen: object) -> str:
        """Run a program of the installation in the empty folder; return what it prints on both streams."""
        environment = {**os.environ, "PATH": f"/usr/bin{os.pathsep}/bin", "XDG_CACHE_HOME": f"{self.folder}-cache"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [self.programs / program, *map(str, words)],
            cwd=self.empty,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
            **popen,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def contents(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installation(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def collection(installed):
    """The demo photos after a run in the empty folder, with an installation that cannot be written."""
    before = installed.contents()
    for path in before:
        if path.is_dir() and not path.is_symlink():
            path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    said = installed.run(
        *("run", DEMO, "--output_embeddings_db", "photos.sqlite", "--embedding_type", "EFFICIENTNET_LITE0"),
        *("--cores", 2, "--", "--config", "umap={n_neighbors: 9}"),
        preexec_fn=warm.drop_privilege if os.getuid() == 0 else None,
    )
    assert f"look at:  {(installed.empty / 'photos' / 'EFFICIENTNET_LITE0' / 'map.html').as_uri()}" in said
    assert installed.contents() == before
    assert len(said.splitlines()) <= 15, said
    return installed


NAMED = ("--output_embeddings_db", "photos.sqlite")


def test_all_files_are_next_to_the_database(collection):
    assert sorted(path.name for path in collection.empty.iterdir()) == ["photos", "photos.sqlite"]


def test_the_users_own_config_is_merged(collection):
    settings = json.loads((collection.empty / "photos" / "EFFICIENTNET_LITE0" / "config.json").read_text())
    assert settings["umap"]["n_neighbors"] == 9
    assert settings["input_dir"] == [str(DEMO)]
    assert settings["missing_images"] == "keep"


def test_every_command_works_with_the_database_alone(collection):
    assert collection.run("search", "--uuid", "5237ab3d", "--n", 3, *NAMED).splitlines()[-1] == "3 of 62 photos"
    assert collection.run("duplicates", *NAMED).startswith("groups: 0, with 0 of 62 photos")
    collection.run("export", "--parquet", "x.parquet", "--npy", "x.npy", "--atlas", "atlas.parquet", *NAMED)
    assert collection.run("verify", "--sample", 2, *NAMED).splitlines()[-1] == "all checks passed"
    collection.run("report", *NAMED)
    made = ["atlas.parquet", "report.html", "x.npy", "x.parquet", "x.uuids.txt"]
    for name in made:
        assert (collection.empty / name).stat().st_size > 1000
        (collection.empty / name).unlink()


def test_a_file_with_a_few_settings_overrides_those_of_the_last_run(collection):
    mine = collection.empty / "mine.yaml"
    mine.write_text("umap: {n_neighbors: 9}\ndevice: cpu\n")
    found = collection.run("search", "--uuid", "5237ab3d", "--n", 1, "--configfile", mine, *NAMED)
    assert found.splitlines()[-1] == "1 of 62 photos"
    assert collection.run("verify", "--sample", 0, "--configfile", mine, *NAMED).splitlines()[-1] == "all checks passed"
    mine.unlink()


def test_a_second_run_has_nothing_to_do_and_neither_has_the_clone(collection):
    settings = collection.empty / "photos" / "EFFICIENTNET_LITE0" / "config.json"
    assert jobs(collection.run("run", "--configfile", settings, "--", "-n")) == {}
    given = ("--snakefile", PROJECT / "Snakefile", "--directory", collection.empty.parent, "--configfile", settings)
    assert jobs(collection.run("-m", "snakemake", *given, "--cores", 2, "-n", program="python")) == {}


def test_the_public_names_exist(collection):
    program = (
        "import crossfilter_inference, sys\n"
        "light = {'numpy', 'torch', 'sqlalchemy', 'typer', 'PIL', 'msgpack'} & set(sys.modules)\n"
        "from crossfilter_inference import Collection, Encoder, InputError, Preprocessing\n"
        "from crossfilter_inference import __version__, load_umap_model\n"
        "photos = Collection('photos.sqlite')\n"
        "model = load_umap_model('photos.sqlite', photos.embedding_type)\n"
        "print(light, len(photos.uuids), len(model.uuids_), __version__, crossfilter_inference.__file__)\n"
    )
    said = collection.run("-W", "ignore", "-c", program, program="python").splitlines()[-1]
    assert said == f"set() 62 62 {__import__('crossfilter_inference').__version__} {collection.package}/__init__.py"


def test_a_collection_must_be_named(installed):
    said = installed.run("search", "--uuid", "5237", code=1)
    assert said == "error: no collection given; add --output_embeddings_db photos.sqlite or --configfile mine.yaml\n"
    assert installed.run("run", code=1).startswith("error: give a folder of photos: crossfilter-inference run FOLDER ")


def test_a_job_finds_the_library_in_an_environment_without_it(installed, tmp_path):
    """As the conda environments of `--sdm conda`: they have the packages, but not this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "conda"], check=True)
    [packages] = (tmp_path / "conda").glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    script = installed.package / "_project" / "scripts" / "write_manifest.py"
    program = (
        f"import sys; sys.path.insert(0, {str(script.parent)!r})\n"
        "import _library, crossfilter_inference.shards.plan as plan\n"
        "print(plan.__file__)"
    )
    command = [tmp_path / "conda" / "bin" / "python", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(installed.package / "shards" / "plan.py")
