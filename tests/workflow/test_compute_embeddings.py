"""The original's command: any folder, any database, from anywhere."""

import shutil
import sqlite3
import subprocess
import sys

import compute_embeddings
import pytest
from conftest import DEMO_PHOTOS, PROJECT

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
    arguments = compute_embeddings.parse(["--input_dir", "photos", "--output_embeddings_db", "x.db"])
    assert (arguments.embedding_type, arguments.batch_size) == ("SIGLIP2", 10)
    assert (arguments.recompute_existing_embeddings, arguments.reproject_umap_embeddings) == (False, True)
    command = compute_embeddings.snakemake_command(
        compute_embeddings.parse(
            [
                *("--input_dir", "photos", "--output_embeddings_db", "x.db"),
                *("--recompute_existing_embeddings", "--no-reproject_umap_embeddings", "--", "-n"),
            ]
        )
    )
    assert "-n" in command
    assert command[-2:] == ["recompute_existing_embeddings=true", "reproject_umap_embeddings=false"]


def test_a_python_without_snakemake_finds_the_projects_own(tmp_path, monkeypatch):
    monkeypatch.setattr(compute_embeddings.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(compute_embeddings, "PROJECT", tmp_path)
    arguments = compute_embeddings.parse(["--input_dir", "photos", "--output_embeddings_db", "x.db"])
    with pytest.raises(SystemExit, match="has no Snakemake; run `make run` in"):
        compute_embeddings.snakemake_command(arguments)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    assert compute_embeddings.snakemake_command(arguments)[0] == str(tmp_path / ".venv" / "bin" / "python")


def test_a_missing_folder_is_one_line(tmp_path):
    options = ["--input_dir", str(tmp_path / "photos"), "--output_embeddings_db", str(tmp_path / "x.sqlite")]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "input_dir: cannot read the folder" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
