"""The original tool's command, with any folder and database, from any folder."""

import inspect
import json
import os
import shutil
import sqlite3
import subprocess
import sys

import compute_embeddings
import pytest
from conftest import DEMO_PHOTOS, PROJECT

from crossfilter_inference.cli import command

COMMAND = [sys.executable, str(PROJECT / "scripts" / "compute_embeddings.py")]


def uuids(database):
    connection = sqlite3.connect(database)
    rows = {row[0] for row in connection.execute("SELECT UUID FROM EFFICIENTNET_LITE0_EMBEDDINGS")}
    connection.close()
    return rows


@pytest.mark.slow
def test_two_folders_into_two_databases_from_a_third_folder(tmp_path):
    photos = DEMO_PHOTOS
    for name, part in {"one": photos[:5], "two": photos[5:9]}.items():
        (tmp_path / name).mkdir()
        for path in part:
            shutil.copy(path, tmp_path / name)
    third = tmp_path / "third"
    third.mkdir()
    for name in ("one", "two"):
        subprocess.run(
            [
                *(*COMMAND, "--embedding_type", "EFFICIENTNET_LITE0", "--no-reproject_umap_embeddings"),
                *("--input_dir", f"../{name}", "--output_embeddings_db", f"../{name}.db", "--batch_size", "2"),
            ],
            cwd=third,
            check=True,
            timeout=120,
        )
    assert uuids(tmp_path / "one.db") == {path.stem for path in photos[:5]}
    assert uuids(tmp_path / "two.db") == {path.stem for path in photos[5:9]}
    assert list(third.iterdir()) == []


def test_options_and_defaults_are_the_originals():
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(compute_embeddings.main).parameters.items()
    }
    assert (defaults["embedding_type"], defaults["batch_size"]) == ("SIGLIP2", 10)
    assert not defaults["recompute_existing_embeddings"]
    assert defaults["reproject_umap_embeddings"]


def test_options_reach_snakemake_and_its_config_wins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(
        compute_embeddings.sys,
        "argv",
        [
            *("compute_embeddings.py", "--input_dir", "photos", "--output_embeddings_db", "x.db"),
            *("--model", "google/siglip-so400m-patch14-384"),
            *("--recompute_existing_embeddings", "--no-reproject_umap_embeddings"),
            *("--", "-n", "--config", "batch_size=7", "umap={n_neighbors: 9}", "--cores", "1"),
        ],
    )
    commands = []
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    command.run([compute_embeddings.main])
    [given] = commands
    config = given[given.index("--config") + 1 :]
    assert given[given.index("-n") + 1 : given.index("--config")] == ["--cores", "1"]
    assert {"recompute_existing_embeddings=true", "reproject_umap_embeddings=false", "batch_size=7"} < {*config}
    assert f"input_dir={json.dumps([str(tmp_path / 'photos')])}" in config
    encoders = json.loads(next(entry for entry in config if entry.startswith("encoders=")).removeprefix("encoders="))
    assert encoders["SIGLIP2"]["model"] == "google/siglip-so400m-patch14-384"
    assert encoders["SIGLIP2"]["backend"] == "siglip"
    assert '"n_neighbors": 9' in next(entry for entry in config if entry.startswith("umap="))


def test_a_python_without_snakemake_uses_the_environment_of_the_project(tmp_path):
    for name in ("scripts", "workflow"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    command = [tmp_path / "bare" / "bin" / "python", tmp_path / "scripts" / "compute_embeddings.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "has no Snakemake; run `make run` in" in done.stderr
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text('#!/bin/sh\necho "taken: $@"\n')
    (programs / "python").chmod(0o755)
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"taken: {tmp_path}/scripts/compute_embeddings.py --help\n"


def test_a_missing_folder_is_one_line(tmp_path):
    options = ["--input_dir", str(tmp_path / "photos"), "--output_embeddings_db", str(tmp_path / "x.sqlite")]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "input_dir: cannot read the folder" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
