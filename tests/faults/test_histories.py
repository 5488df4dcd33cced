"""Some of the random histories with faults that `make soak` plays; and the soak detects deliberate faults."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SOAK = Path(__file__).parent / "soak.py"


def soak(folder: Path, *options: str, program: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, SOAK]
    if program:  # the same, with a part of the library broken on purpose
        start = f"import sys; sys.path.insert(0, {str(SOAK.parent)!r})\nimport soak\nsoak.MOST_FAILURES = 1\n"
        (folder / "broken.py").write_text(f"{start}{program}\nif __name__ == '__main__':\n    soak.main()\n")
        command = [sys.executable, folder / "broken.py"]
    return subprocess.run(
        [*command, "--folder", str(folder / "play"), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=880,
    )


@pytest.mark.timeout(900)
def test_twenty_runs_through_snakemake_and_some_hundred_without_it_end_correctly(tmp_path):
    done = soak(tmp_path, "--snakemake", "20", "--in-process", "300")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert [int(n) for n in re.findall(r": (\d+) runs", done.stdout)] >= [20, 300]
    assert "failures: 0" in done.stdout
    assert list((tmp_path / "play").iterdir()) == []


# The library broken on purpose, what the soak says, and a seed whose first history shows it.
BROKEN = {
    "a digest that is ignored": (
        "from crossfilter_inference.embed.reuse import KnownRows\nKnownRows.find = KnownRows.copy = lambda *_: None",
        "images were computed needlessly",
        1,
    ),
    "a log that is not kept": (
        "import crossfilter_inference.shards.journal as log\n"
        "log.RowsLog._resume = lambda self, other, *_: other.unlink()",
        "images were computed needlessly",
        1,
    ),
    "rows of missing photos that stay": (
        "import crossfilter_inference.shards.merge as merge\nmerge.Merge.forget = lambda self: None",
        "is missing, but its row is kept|exists in another spelling|failures",
        2,
    ),
    "changed photos that are overlooked": (
        "import crossfilter_inference.run.prepare as prepare\n"
        "plan = prepare.make_plan\n"
        "def blind(known, images, *rest, **options):\n"
        "    there = {row[0]: row for rows in known.values() for row in rows}\n"
        "    return plan(known, [i._replace(size=there[i.uuid][1], mtime_ns=there[i.uuid][2]) if i.uuid in there else i"
        " for i in images], *rest, **options)\n"
        "prepare.make_plan = blind",
        "failures|is missing|EMBEDDING is|SIZE is|MTIME_NS is",
        1,
    ),
    "an error that is no message": (
        "import runs\ndef fail(*_, **__):\n    raise KeyError('x')\nruns.store_embeddings = fail",
        "a traceback instead of a message",
        1,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_library_is_noticed(tmp_path, what):
    program, message, seed = BROKEN[what]
    done = soak(tmp_path, "--in-process", "200", "--jobs", "1", "--seed", str(seed), program=program)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(message, done.stdout), done.stdout[-3000:]
    assert "FAILED: python tests/faults/soak.py --play in-process --seed " in done.stdout


def test_an_interrupted_soak_resumes(tmp_path):
    (tmp_path / "play").mkdir()
    counts = {"snakemake": {}, "in-process": {"runs": 400, "undisturbed": 400}}
    state = {"asked": {"snakemake": 0, "in-process": 420}, "seed": 5000, "next": 20, "counts": counts, "seconds": 3600}
    (tmp_path / "play" / "progress.json").write_text(json.dumps(state))
    done = soak(tmp_path, "--in-process", "420", "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming after 20 histories" in done.stdout
    assert re.search(r"in-process: 42\d runs \(.*4\d\d undisturbed\)", done.stdout)
    assert re.search(r"seeds from 5000, 21 histories, 36\d\d s, failures: 0", done.stdout)
