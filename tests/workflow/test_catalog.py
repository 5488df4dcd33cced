"""What the Snakemake workflow catalog requires of a repository, and the checks that it runs."""

import subprocess
import sys

import pytest
import yaml
from conftest import PROJECT


def test_the_catalog_finds_its_files():
    readme = (PROJECT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (PROJECT / "workflow" / "Snakefile").is_file()
    assert (PROJECT / "config" / "README.md").read_text().startswith("# Configuration\n")
    usage = yaml.safe_load((PROJECT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) <= {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["software-stack-deployment"]) <= {"conda", "apptainer", "apptainer+conda"}


def test_the_configuration_is_written_once():
    assert (PROJECT / "config" / "config.yaml").readlink().as_posix() == "../config.yaml"


@pytest.mark.slow
def test_the_catalog_passes_its_checks():
    rules = sorted(PROJECT.glob("workflow/rules/*.smk"))
    checks = (
        ("snakemake", "--lint"),
        ("snakemake", "--rulegraph"),
        ("snakefmt", "--check", "-v", PROJECT / "workflow" / "Snakefile", *rules),
    )
    for check in checks:
        done = subprocess.run(
            [sys.executable, "-m", *check], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr
