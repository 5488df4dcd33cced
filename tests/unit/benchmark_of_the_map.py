"""The benchmark of the map at its smallest size, for tests that should share a process with others that compile."""

import contextlib
import io
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crossfilter_inference.map import fit

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?"


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of all tables, without their headers."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    rules = [number for number, cells in enumerate(table) if set("".join(cells)) <= set("-: ")]
    return [cells for number, cells in enumerate(table) if number not in rules and number + 1 not in rules]


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(NUMBER, text)]


def run_here(program: str, rows: Path) -> tuple[float, float, list[str]]:
    """Run a program of the benchmark in this process, so that each function compiles once for all of them."""
    printed: list[object] = []
    start = time.perf_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(rows), "2"])
        exec(program, {"print": printed.append})
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.perf_counter() - start, megabytes, list(map(str, printed))


def make_labelled_rows(folder: Path, n_rows: int) -> None:
    """Write groups in place of the emoji, which need the network."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, n_rows)
    rows = (random.normal(size=(5, 64))[labels] + 0.3 * random.normal(size=(n_rows, 64))).astype(np.float32)
    np.savez(folder / "emoji.npz", rows=rows / np.linalg.norm(rows, axis=1, keepdims=True), labels=labels)


def check_benchmark_of_the_map(part: str, folder: Path) -> None:
    """Run a part with one of the labelled sets; its figures must be possible."""
    make_labelled_rows(folder, 700 if part == "shape" else 200)
    options = ("--only", part, "--folder", folder, "--divide", 100, "--seeds", 1, "--rounds", 2)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.syspath_prepend(BENCHMARKS)
        import sphere

        sets = sphere.labelled_sets
        patch.setattr(sphere, "load_fashion", lambda: None)
        patch.setattr(sphere, "labelled_sets", lambda folder: {"emoji": sets(folder)["emoji"]})
        patch.setattr(sphere, "run", run_here)
        for module in (sphere.layout, fit):
            patch.setattr(module, "default_n_epochs", lambda n_images: 50)
        patch.setattr(sys, "argv", ["sphere.py", *map(str, options)])
        sphere.main()
    values = [cells[2:] if part in ("quality", "shape") else cells[1:] for cells in rows_of(printed.getvalue())]
    assert values
    for cells in values:
        assert not re.search(r"nan|inf|-\d", " | ".join(cells)), cells
        for value in numbers(" | ".join(cells)):
            assert 0 <= value < 100_000
            assert value <= 10 or part not in ("quality", "shape", "updates"), cells
            assert value > 0 or part != "speed", cells
