"""The example of every script, as --help shows it."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import PROJECT, hear_ctrl_c

SCRIPTS = sorted(path.stem for path in (PROJECT / "scripts").glob("[a-z]*.py"))


def run(command, folder):
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("scripts", "workflow", "demo"):
        (folder / name).symlink_to(PROJECT / name)
    (folder / "mine.yaml").write_text("output_embeddings_db: photos.sqlite\n")
    [command] = examples("compute_embeddings")
    run(command, folder)
    shutil.copytree(folder / "photos" / "EFFICIENTNET_LITE0", folder, dirs_exist_ok=True)
    (folder / "results").mkdir()
    shutil.copy(folder / "photos.sqlite", folder / "results")
    shutil.copytree(folder / "photos", folder / "results" / "photos")
    return folder


def examples(name):
    told = run(f"{sys.executable} {PROJECT}/scripts/{name}.py --help", PROJECT)
    [text] = re.findall(r"^  Examples:\n(.*?)(?=^\S)", told, re.MULTILINE | re.DOTALL)
    return [f"python {command.strip()}" for command in text.split("      python ")[1:]]


@pytest.mark.slow
def test_the_example_of_serve_works_until_ctrl_c(folder):
    [command] = examples("serve")
    program, *options = command.split()
    process = subprocess.Popen(
        [sys.executable, *options], cwd=folder, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    )
    try:
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert program == "python"
    assert line.startswith("look at: http://127.0.0.1:")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "serve"])  # which runs until Ctrl-C
def test_the_example_works(folder, name):
    commands = examples(name)
    assert commands
    for command in commands:
        assert command.startswith(f"python scripts/{name}.py ")
        if name != "compute_embeddings":  # that one has run
            run(command, folder)
