"""The readers of docs/database.md in other languages, exactly as written, on the demo."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import DEMO, PROJECT, needs

from crossfilter_inference import Collection

TEXT = (PROJECT / "docs" / "database.md").read_text()
NODE, R = shutil.which("node", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"), shutil.which("Rscript")
MSGPACK = PROJECT / "node_modules" / "@msgpack"


def snippets(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def run(command, collection):
    """Run a program that prints the first photo's UUID and its embedding; check both."""
    done = subprocess.run(command, cwd=collection.folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    opened = Collection(collection.database, "EFFICIENTNET_LITE0")
    assert done.stdout.startswith(opened.uuids[0])
    numbers = re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?", done.stdout.removeprefix(opened.uuids[0]))
    return opened.embeddings[0], [float(number) for number in numbers]


@pytest.mark.slow
def test_sqlite_counts_photos_by_folder(demo_run):
    [sqlite_query, _] = snippets("sql")
    connection = sqlite3.connect(demo_run.database)
    found = connection.execute(sqlite_query).fetchall()
    connection.close()
    assert {Path(row[0]).name: row[1] for row in found} == {
        folder.name: len([*folder.glob("*.jpg")]) for folder in DEMO.iterdir() if folder.is_dir()
    }


@pytest.mark.slow
@needs("duckdb", "pyarrow")
def test_duckdb_finds_similar_photos(demo_run, tmp_path, monkeypatch):
    import duckdb

    assert demo_run.script("export.py", "--parquet", str(tmp_path / "photos.parquet")).returncode == 0
    monkeypatch.chdir(tmp_path)
    [_, duckdb_query] = snippets("sql")
    found = duckdb.sql(duckdb_query).fetchall()
    done = demo_run.script("search.py", "--uuid", "5237ab3d", "--n", "5")
    expected = [line.split()[0] for line in done.stdout.splitlines()]
    assert [f"{similarity:.4f}" for _, similarity in found] == expected


@pytest.mark.slow
@pytest.mark.skipif(NODE is None, reason="not installed: node; make test-all installs it")
@pytest.mark.parametrize("number", [0, 1])
def test_javascript_reads_embeddings(demo_run, tmp_path, number):
    if number and not MSGPACK.exists():
        pytest.skip("not installed: @msgpack/msgpack; make test-all installs it")
    code = snippets("js")[number].replace("results/photos.sqlite", str(demo_run.database))
    print_all = re.sub(r"console\.log\((.*), (.*)\);", r'console.log(\1, Array.from(\2).join(" "));', code)
    assert print_all != code
    (tmp_path / "read.mjs").write_text(print_all)
    if number:
        (tmp_path / "node_modules").symlink_to(PROJECT / "node_modules")
    expected, found = run([NODE, "--no-warnings", tmp_path / "read.mjs"], demo_run)
    assert np.array_equal(np.array(found, np.float32), expected)


# Most machines have no R, and it takes half a gigabyte: with --all, its test is not missed.
@pytest.mark.slow
@pytest.mark.parametrize("code", snippets("r") if R else [])
def test_r_reads_embeddings(demo_run, code):
    expected, found = run([R, "-e", code], demo_run)
    assert np.allclose(found, expected, atol=1e-6)
