# ruff: noqa: E501
"""Break the library on purpose, one line at a time, and report the mutants that its unit tests do not catch.

Each mutant is applied to a copy of the project, whose tests must pass without it. A mutant whose old text is gone is
reported too: renew its entry.

    make mutants                              all of them (half an hour)
    python tests/faults/mutants.py page exif  those whose file or old text contains one of these words
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
LIBRARY = "workflow/crossfilter_inference"
_EXIF = "ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime"
# File of the library, old text, new text, files of tests (words that their names begin with).
MUTANTS = [
    ("view/page.py", '.replace("<", "\\\\u003c")', "", "page"),
    ("view/page.py", 'title=html.escape(f"{heading}, {contents.embedding_type}")', "title=contents.embedding_type", "page"),
    ("view/page.py", "caption=html.escape(caption)", "caption=caption", "page"),
    ("view/page.py", "on_page[contents.neighbours[photos, :n_neighbours]]", "contents.neighbours[photos, :n_neighbours]", "page"),
    ("photos/exif.py", f"({_EXIF})", f"({', '.join(reversed(_EXIF.split(', ')))})", "image"),
    ("photos/image.py", "_REDUCED_SIDES * preprocessing.size", "2 * preprocessing.size", "image"),
    ("photos/image.py", "max(max_pixels, MAX_PIXELS)", "max_pixels", "image"),
    ("db/digest.py", "uuid.encode() + blob", "blob", "db merge"),
    ("db/provenance.py", "startswith(prefix, autoescape=True)", "startswith(prefix)", "db"),
    ("embed/reuse.py", "abs(length - 1) < LENGTH_TOLERANCE", "abs(length - 1) < 0.5", "embed reuse"),
    ("embed/reuse.py", "if recorded in (None, provenance_digest(provenance)):", "if True:", "embed reuse"),
    ("embed/reuse.py", " & (images.c.DIGEST == photo.digest)", "", "embed reuse"),
    ("shards/plan.py", " or image.uuid in retry", "", "plan"),
    ("shards/plan.py", "others - retired", "others", "plan"),
    ("shards/plan.py", "sorted(shards):  # the newest wins", "sorted(shards, reverse=True):", "plan"),
    ("shards/merge.py", "if shard not in retired]", "]", "merge"),
    ("shards/merge.py", "        merge.forget()\n", "        if not merge.n_merged:\n            return Stored()\n        merge.forget()\n", "merge"),
    ("shards/journal.py", "        os.fsync(self._file.fileno())\n        other.unlink", "        other.unlink", "journal embed"),
    ("map/layout.py", " if j != i else np.float32(0)", "", "layout"),
    ("map/layout.py", "pull = two * step", "pull = step", "layout"),
    ("map/layout.py", "shares[shares < 1 / n_epochs] = 0", "shares[shares < 0] = 0", "layout"),
    ("map/fit.py", "_ALIGN_MOBILITY * curve.radius**2", "_ALIGN_MOBILITY * curve.radius", "fit"),
    ("map/fit.py", "_N_PLACE_NEIGHBOURS = 15", "_N_PLACE_NEIGHBOURS = 14", "fit"),
]  # fmt: skip


def judge(copy: Path, file: str, old: str, new: str, tests: str) -> str:
    """Apply a mutant to the copy, run the tests, and undo it."""
    path = copy / LIBRARY / file
    text = path.read_text()
    if text.count(old) != 1:
        return "GONE: its old text is there " + ("more than once" if old in text else "no more")
    names = [name for word in tests.split() for name in sorted((copy / "tests" / "unit").glob(f"test_{word}*.py"))]
    path.write_text(text.replace(old, new))
    try:
        environment = {**os.environ, "PYTHONPATH": str(copy / "workflow")}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names]
        process = subprocess.run(command, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True)
    finally:
        path.write_text(text)
    if process.returncode == 1:
        return "caught by " + process.stdout.partition("\nFAILED ")[2].split(" ")[0].strip()
    return "SURVIVED" if process.returncode == 0 else f"NOT TESTED: pytest ended with code {process.returncode}"


def main(*words: str) -> int:
    """Judge mutants; return the number of those that are not caught."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in "".join(mutant[:2]) for word in words)]
    n_missed = 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, "project")
        shutil.copytree(PROJECT, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "results", ".snakemake"))
        for number, (file, old, new, tests) in enumerate(chosen, 1):
            verdict = judge(copy, file, old, new, tests)
            n_missed += not verdict.startswith("caught")
            print(f"{number} of {len(chosen)}: {file}: {old!r} -> {new!r}: {verdict}", flush=True)
    print(f"mutants: {len(chosen)}, not caught: {n_missed}")
    return n_missed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
