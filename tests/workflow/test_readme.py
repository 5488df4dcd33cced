"""Run the commands and snippets of the documentation, exactly as written, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import DEMO_PHOTOS, PROJECT
from test_siglip import save_checkpoint, save_siglip_tokenizer

README = (PROJECT / "README.md").read_text()
NAMES = ("database", "original", "cluster", "upkeep")
DOCUMENTS = [README, *((PROJECT / "docs" / f"{name}.md").read_text() for name in NAMES)]
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", "\n".join(DOCUMENTS), re.MULTILINE | re.DOTALL)
# The other lines of the set-up run in CI, in a clean clone, by the Makefile.
SET_UP = ("source ", "pip install ")
SEARCHED = "5237ab3d-4df8-52aa-ae37-fa74dffefb1a"
# What the commands write, below the clone or the home folder.
WRITTEN_IN_CLONE = (
    "results/photos.sqlite",
    "found.html",
    "duplicates.html",
    "photos.parquet",
    "photos.npy",
    "photos.uuids.txt",
    "report.html",
)
WRITTEN_AT_HOME = ("collection.sqlite", "Collections/photos.sqlite", "Backup/photos.sqlite")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Copy the project, with an environment, and a home with pictures and SIGLIP2 in the model cache."""
    home = tmp_path_factory.mktemp("home")
    clone = home / "clone"
    ignored = shutil.ignore_patterns(".venv", "results", ".snakemake", ".git", "node_modules", ".*_cache")
    shutil.copytree(PROJECT, clone, ignore=ignored)
    (clone / ".venv").symlink_to(sys.prefix)
    (home / "Pictures" / "fish").mkdir(parents=True)
    [fish] = [path for path in DEMO_PHOTOS if path.stem == SEARCHED]
    for number, path in enumerate(DEMO_PHOTOS[:12]):
        shutil.copy(path, home / "Pictures" / f"IMG_{number:04}.JPG")
    shutil.copy(fish, home / "Pictures" / "fish" / "IMG_0001.JPG")
    (home / "photos-by-uuid").mkdir()
    for path in DEMO_PHOTOS[:12]:
        shutil.copy(path, home / "photos-by-uuid")
    shutil.copy(fish, clone / "snapshot.jpg")
    repository = home / "hub" / "models--google--siglip2-base-patch16-224"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    save_checkpoint(repository / "snapshots" / ("0" * 40), "siglip")
    save_siglip_tokenizer(repository / "snapshots" / ("0" * 40))
    return clone


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_and_snippet_of_the_documentation_works(clone):
    home = clone.parent
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{clone / '.venv' / 'bin'}:{os.environ['PATH']}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    ran, output = [], ""
    for language, block in BLOCKS:
        if language == "python":
            assert "sys.path" not in block
            command = [sys.executable, "-c", block]
        else:
            lines = [line for line in block.splitlines() if not line.startswith(SET_UP)]
            # A new environment is newer than the lock; the linked one may not be.
            (clone / ".venv" / "installed").touch()
            command = ["bash", "-ec", "\n".join(lines)]
        done = subprocess.run(
            command, cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr[-4000:]}"
        ran.append(language)
        if "~/Photos" in block and "rm " not in block and "crossfilter" in block:
            assert re.search("embedded: 0 photos in this run|Nothing to be done", done.stdout + done.stderr), block
        output = output or done.stdout + done.stderr
    assert ran.count("bash") >= 8
    assert ran.count("python") >= 6
    assert [file for file in WRITTEN_IN_CLONE if not (clone / file).exists()] == []
    assert [file for file in WRITTEN_AT_HOME if not (home / file).exists()] == []
    for line in re.findall(r"^    ((?:embedded|failed|rejected|map|look at): .*)$", README, re.MULTILINE):
        assert re.search(re.escape(line).replace(r"\.\.\.", ".*"), output), f"README.md: a run does not print {line!r}"


def test_the_encoder_of_the_documentation_works(make_collection):
    text = (PROJECT / "docs" / "encoders.md").read_text()
    [config] = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    [code] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    collection = make_collection(5, **yaml.safe_load(config))
    (collection.folder / "colours.py").write_text(code)
    collection.run()
    assert len(collection.embeddings()) == 5
    assert collection.type == "COLOURS"
