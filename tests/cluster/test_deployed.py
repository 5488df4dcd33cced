"""The workflow as snakedeploy deploys it, in an environment of its own."""

import os
import sqlite3
import subprocess
import sys
import venv

import pytest
import yaml
from conftest import COLOUR_ENCODER, PROJECT, Collection, jobs

SNAKEDEPLOY = "snakedeploy ==0.17.*"


@pytest.mark.timeout(600)
def test_a_deployed_workflow_runs(as_on_github, tmp_path):
    environment = {**os.environ, **as_on_github}
    venv.create(tmp_path / "snakedeploy", with_pip=True)
    programs, deployed = tmp_path / "snakedeploy" / "bin", Collection(tmp_path / "deployed")
    subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", SNAKEDEPLOY], check=True)
    command = ("deploy-workflow", "https://github.com/owner/project", deployed.folder, "--branch", "main")
    subprocess.run([programs / "snakedeploy", *command], env=environment, check=True)
    config = deployed.folder / "config" / "config.yaml"
    assert config.read_text() == (PROJECT / "config.yaml").read_text()
    assert not config.is_symlink()
    assert (deployed.folder / "profiles" / "default" / "config.yaml").is_file()

    def snakemake(*options):
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2", *options],
            cwd=deployed.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return jobs(done.stdout)

    n_photos = len(deployed.add_photos(5))
    settings = {
        "input_dir": "photos",
        "embedding_type": "COLOUR",
        "encoders": {"COLOUR": {"backend": str(COLOUR_ENCODER)}},
    }
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **settings}))
    assert snakemake()["store_map"] == 1
    database = sqlite3.connect(deployed.database)
    assert database.execute("SELECT count(*) FROM COLOUR_UMAP_HAVERSINE").fetchone() == (n_photos,)
    database.close()
    assert snakemake("--dry-run") == {}
