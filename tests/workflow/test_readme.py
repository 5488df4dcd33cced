"""The commands and snippets of README.md and docs/formats.md, as they stand there, in a copy of the project."""

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
FORMATS = (PROJECT / "docs" / "formats.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README + FORMATS, re.MULTILINE | re.DOTALL)
# The set-up itself is what CI does first, in a clean clone, with the same lines of the Makefile.
SET_UP = ("python3 -m venv", "source ", ".venv/bin/pip install")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A fresh copy of the project that has been set up, a home with pictures, and a model cache with SIGLIP2."""
    home = tmp_path_factory.mktemp("home")
    clone = home / "clone"
    ignored = shutil.ignore_patterns(".venv", "results", ".snakemake", ".git", ".*_cache")
    shutil.copytree(PROJECT, clone, ignore=ignored)
    (clone / ".venv").symlink_to(sys.prefix)
    [settings] = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (clone / "mine.yaml").write_text(settings)
    (home / "Pictures").mkdir()
    for path in DEMO_PHOTOS[:12]:
        shutil.copy(path, home / "Pictures")
    repository = home / "hub" / "models--google--siglip2-base-patch16-224"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    save_checkpoint(repository / "snapshots" / ("0" * 40), "siglip")
    save_siglip_tokenizer(repository / "snapshots" / ("0" * 40))
    return clone


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_and_snippet_of_the_readme_works(clone):
    home = clone.parent
    path = f"{clone / '.venv' / 'bin'}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": path,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    ran = []
    for language, block in BLOCKS:
        if language == "python":
            command = [sys.executable, "-c", block]
        else:
            lines = [line for line in block.splitlines() if not line.startswith(SET_UP)]
            # A venv that was made with the lines above is newer than the lock; ours is only linked here.
            (clone / ".venv" / "installed").touch()
            command = ["bash", "-ec", "\n".join(lines)]
        done = subprocess.run(
            command, cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr[-4000:]}"
        ran.append(language)
    assert ran.count("bash") >= 5
    assert ran.count("python") >= 6
    assert (clone / "results" / "photos.sqlite").exists()
    assert (clone / "results" / "mine.sqlite").exists()
    assert (clone / "results" / "mine.html").exists()
    assert (home / "photos.sqlite").exists()


def test_the_encoder_of_the_documentation_works(make_collection):
    text = (PROJECT / "docs" / "encoders.md").read_text()
    [config] = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    [code] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    collection = make_collection(5, **yaml.safe_load(config))
    (collection.folder / "colours.py").write_text(code)
    collection.run()
    assert len(collection.embeddings()) == 5
    assert collection.type == "COLOURS"


def test_the_picture_of_the_readme_is_there():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README, re.DOTALL):
        assert (PROJECT / picture).is_file()
