"""Each conda environment has the packages of its rules: they run in environments of these packages alone."""

import os
import re
import shutil
import subprocess
import venv
from importlib.metadata import distribution, version

import pytest
import yaml
from conftest import DEMO, PROJECT, jobs
from packaging.requirements import Requirement

PIP_NAMES = {"pytorch": "torch", "msgpack-python": "msgpack", "matplotlib-base": "matplotlib"}
RULES = {
    environment: [
        name
        for path in PROJECT.glob("workflow/rules/*.smk")
        for name, rule in re.findall(r"^rule (\w+):(.*?)(?=^rule |\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
        if f"envs/{environment}.yaml" in rule
    ]
    for environment in sorted(path.stem for path in PROJECT.glob("envs/*.yaml"))
}


def packages(environment):
    """Requirements of pip that stand for those of conda, with the same versions."""
    for entry in yaml.safe_load((PROJECT / "envs" / f"{environment}.yaml").read_text())["dependencies"]:
        for package in entry["pip"] if isinstance(entry, dict) else [entry]:
            name, _, version = package.partition("=")
            if name.strip() not in ("python >", "pip"):
                yield f"{PIP_NAMES.get(name.strip(), name.strip())}=={version.lstrip('=')}"


def install(environment, folder, requirements):
    """Make a fresh environment with links to the packages of this one; return the folder of its programs."""
    venv.create(folder / environment, symlinks=True)
    [packages] = (folder / environment).glob("lib/python*/site-packages")
    for package in with_dependencies(requirements):
        for name in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (packages / name).exists():
                (packages / name).symlink_to(package.locate_file(name))
    return folder / environment / "bin"


def with_dependencies(requirements):
    """Yield what pip would install: the distributions of these requirements, and of all that they require."""
    wanted, seen = [(text, "") for text in requirements], set()
    while wanted:
        text, extra = wanted.pop()
        requirement = Requirement(text)
        if (text, extra) in seen or not (requirement.marker is None or requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add((text, extra))
        found = distribution(requirement.name)
        assert found.version in requirement.specifier, text
        yield found
        wanted += [(required, part) for required in found.requires or [] for part in ("", *requirement.extras)]


@pytest.mark.timeout(600)
def test_planning_needs_snakemake_alone(make_collection, tmp_path):
    programs = install("snakemake", tmp_path, [f"snakemake=={version('snakemake')}"])
    collection = make_collection(5, reproject_umap_embeddings=True)

    def dry_run():
        command = [programs / "python", *collection.command("--dry-run", cores=None)[1:]]
        done = subprocess.run(command, cwd=collection.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return jobs(done.stdout + done.stderr)

    assert dry_run() == collection.dry_run()
    collection.run()
    assert dry_run() == {}
    collection.add_photos(2)
    assert dry_run()["embed_shard"] == 1


@pytest.mark.timeout(600)
def test_every_rule_runs_in_its_own_environment(make_collection, tmp_path):
    collection = make_collection(
        20, input_dir=[str(DEMO)], embedding_type="EFFICIENTNET_LITE0", reproject_umap_embeddings=True
    )
    collection.run()
    said = collection.snakemake("summarise", "--dry-run", "--forceall", "--printshellcmds").stdout
    commands = re.findall(r"^Shell command: (.*python \S*/scripts/(\w+)\.py .*)$", said, re.MULTILINE)
    assert sorted(rule for _, rule in commands) == sorted(rule for rules in RULES.values() for rule in rules)
    tables = ("EMBEDDINGS", "UMAP_HAVERSINE")
    before = {table: collection.sql(f"SELECT * FROM {{T}}_{table} ORDER BY UUID") for table in tables}
    # Run everything again but the plan and the record of the configuration, which Snakemake's own process writes.
    collection.database.unlink()
    for path in collection.state.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in ("plan.tsv", "config.json"):
            path.unlink()
    environments = {}
    for command, rule in commands:
        environment = next(name for name, rules in RULES.items() if rule in rules)
        if environment not in environments:
            environments[environment] = install(environment, tmp_path, packages(environment))
        path = f"{environments[environment]}{os.pathsep}{os.environ['PATH']}"
        for run in (command, f"python {PROJECT}/scripts/{rule}.py --help"):
            done = subprocess.run(
                run, shell=True, cwd=collection.folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{rule} in envs/{environment}.yaml: {done.stdout}{done.stderr}"
    for table, rows in before.items():
        assert collection.sql(f"SELECT * FROM {{T}}_{table} ORDER BY UUID") == rows
