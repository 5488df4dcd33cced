"""The workflow as a module of another one, which makes the photos and reads the map.

The outer workflows start by themselves, because a run that makes photos starts Snakemake again.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import DEMO_PHOTOS, PROJECT, Collection, jobs, new_collection

OUTER = """
configfile: "config.yaml"

rule all:
    input:
        "n_photos.txt"

module crossfilter:
    snakefile:
        {snakefile}
    config:
        config["crossfilter"]
    {more}

use rule * from crossfilter as crossfilter_*

rule read_map:
    input:
        rules.crossfilter_all.input
    output:
        "n_photos.txt"
    run:
        import sqlite3

        [[n]] = sqlite3.connect(input[0]).execute("SELECT count(*) FROM COLOUR_EMBEDDINGS")
        print(n, file=open(output[0], "w"))

rule unrelated:
    shell:
        "echo unrelated"

onstart:
    print("the outer workflow starts")

onsuccess:
    print("the outer workflow ends")
"""
MAKE_PHOTOS = """
use rule write_manifest from crossfilter as crossfilter_write_manifest with:
    input:
        "photos"

use rule embed_shard from crossfilter as crossfilter_embed_shard with:
    threads: 1

rule make_photos:
    input:
        "wanted.txt"
    output:
        directory("photos")
    shell:
        "mkdir {output} && xargs --delimiter='\\\\n' cp --target-directory={output} < {input}"
"""
WORKFLOW = repr(str(PROJECT / "workflow" / "Snakefile"))
FIRST_RUN = {"resolve_encoder": 1, "write_manifest": 1, "embed_shard": 1, "store_embeddings": 1}


class Outer(Collection):
    """An outer workflow; the collection of its module lies in the same folder."""

    def write(self, snakefile: str = WORKFLOW, more: str = "", rules: str = "", **settings: object) -> None:
        own = self.config()
        outer = own if "crossfilter" in own else {"crossfilter": own, "embedding_type": own["embedding_type"]}
        outer["crossfilter"].update(settings)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(outer))
        (self.folder / "Snakefile").write_text(OUTER.format(snakefile=snakefile, more=more) + rules)

    def snakemake(self, *options: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2", *options],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=200,
        )

    def run(self, *options: str, **environment: str) -> dict[str, int]:
        """Run it; return how many jobs of the module it ran."""
        done = self.snakemake(*options, **environment)
        assert done.returncode == 0, done.stdout[-6000:]
        self.output = done.stdout
        found = jobs(done.stdout[done.stdout.rindex("Building DAG") :])
        return {rule.removeprefix("crossfilter_"): n for rule, n in found.items() if rule.startswith("crossfilter_")}

    @property
    def n_photos(self) -> int:
        return int((self.folder / "n_photos.txt").read_text())


@pytest.fixture
def outer(tmp_path: Path) -> Outer:
    outer = Outer(new_collection(tmp_path / "outer", 4).folder)
    outer.write()
    return outer


@pytest.mark.slow
def test_a_workflow_makes_photos_and_reads_their_map(outer):
    shutil.rmtree(outer.folder / "photos")
    wanted = outer.folder / "wanted.txt"
    wanted.write_text("\n".join(map(str, DEMO_PHOTOS[:12])))
    outer.write(rules=MAKE_PHOTOS, reproject_umap_embeddings=True)
    dry_run = outer.snakemake("--dry-run")
    assert jobs(dry_run.stdout) == {"make_photos": 1}
    assert "no photos yet" in dry_run.stdout
    done = outer.run()
    assert done == {**FIRST_RUN, "fit_umap": 1, "store_map": 1, "draw_map": 1}
    assert outer.n_photos == 12
    lines = outer.output.splitlines()
    at = [lines.index(f"the outer workflow {what}") for what in ("starts", "ends")]
    assert at == sorted(at)
    assert "embedded: 12 photos in this run, 12 in total, in results/photos.sqlite" in lines[at[1] :]
    assert outer.sql("SELECT count(*) FROM COLOUR_UMAP_HAVERSINE") == [(12,)]
    assert outer.run("--dry-run") == {}
    outer.add_photos(1)
    assert outer.run("--dry-run") == {rule: 1 for rule in done if rule != "resolve_encoder"}
    wanted.write_text("\n".join(map(str, DEMO_PHOTOS[:15])))
    outer.run()
    assert outer.n_photos == 15
    assert "embedded: 3 photos in this run and 12 copied, 15 in total" in outer.output
    # A shard that is no longer needed has left the inputs, which only our own profile ignores.
    assert outer.run("--dry-run", "--rerun-triggers", "mtime") == {}


@pytest.mark.slow
@pytest.mark.parametrize("function", ["gitfile", "github"])
def test_a_module_comes_from_a_repository(outer, repository, as_on_github, function):
    place = {
        "gitfile": f'gitfile({str(repository)!r}, path="workflow/Snakefile", ref="main")',
        "github": 'github("owner/project", path="workflow/Snakefile", branch="main")',
    }
    outer.write(place[function])
    assert outer.run("--printshellcmds", **as_on_github) == FIRST_RUN
    assert outer.n_photos == 4
    commit = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    scripts = outer.folder / ".snakemake" / "crossfilter-inference" / commit.strip() / "scripts"
    assert f"python {scripts}/embed_shard.py" in outer.output
    assert outer.run("--dry-run", **as_on_github) == {}
    outer.add_photos(1)
    assert outer.run("--dry-run", **as_on_github) == {rule: 1 for rule in FIRST_RUN if rule != "resolve_encoder"}


def test_a_module_takes_the_lock_and_guards_deletions(outer):
    outer.run()
    before = outer.embeddings()
    for photo in list((outer.folder / "photos").iterdir())[:3]:
        photo.unlink()
    outer.write(missing_images="delete")
    done = outer.snakemake()
    assert done.returncode == 1
    assert "missing_images: delete would remove 3 of 4 embeddings" in done.stdout.splitlines()[-1]
    with (outer.folder / "results" / "photos" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = outer.snakemake()
    assert done.returncode == 1
    assert "another run is using 'results/photos.sqlite'" in done.stdout.splitlines()[-1]
    assert outer.embeddings() == before
    done = outer.snakemake("unrelated")
    assert done.returncode == 0, "rules of the outer workflow alone need neither"


@pytest.mark.parametrize("more", ["prefix: 'elsewhere'", "replace_prefix: {'results/': 'x/'}", "pathvars: results='x'"])
def test_keywords_that_would_move_the_files_are_refused(outer, more):
    outer.write(more=more)
    done = outer.snakemake("--dry-run")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("module: prefix, replace_prefix and pathvars cannot move the files")
    assert not outer.database.parent.exists()


def test_two_modules_with_one_database_are_refused(outer):
    second = OUTER[OUTER.index("module ") : OUTER.index("rule read_map")].replace("as crossfilter_*", "as second_*")
    second = second.replace("module crossfilter", "module second").replace("from crossfilter", "from second")
    second = second.format(snakefile=WORKFLOW, more="").replace(
        '["crossfilter"]', '["crossfilter"] | {"batch_size": 7}'
    )
    outer.write(rules=second)
    done = outer.snakemake("--dry-run")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("module: two modules use the database 'results/photos.sqlite'")


def test_missing_photos_that_no_rule_makes_end_in_one_line(outer):
    shutil.rmtree(outer.folder / "photos")
    done = outer.snakemake()
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("input_dir: ")
    assert "Traceback" not in done.stdout
    assert outer.snakemake("unrelated").returncode == 0
