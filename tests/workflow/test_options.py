"""Options of Snakemake that run no jobs need no --cores."""

import pytest


@pytest.mark.parametrize(
    "option",
    [
        ["--dry-run"],
        ["--dag"],
        ["--rulegraph"],
        ["--filegraph"],
        ["--d3dag"],
        ["--summary"],
        ["--detailed-summary"],
        ["--list-rules"],
        ["--list-changes", "code"],
        ["--list-changes", "input"],
        ["--list-changes", "params"],
        ["--cleanup-metadata", "results/photos/COLOUR/manifest.tsv"],
        ["--unlock"],
        ["--lint"],
    ],
    ids=" ".join,
)
def test_an_option_that_runs_no_jobs_works_without_cores(three_shards, option):
    three_shards.take_back()
    before = {path: path.stat().st_mtime_ns for path in three_shards.folder.rglob("*") if path.is_file()}
    done = three_shards.snakemake(*option, cores=None)
    assert done.returncode == 0, done.stdout
    changed = {path for path, time in before.items() if not path.exists() or path.stat().st_mtime_ns != time}
    assert not {path for path in changed if ".snakemake" not in path.parts}
