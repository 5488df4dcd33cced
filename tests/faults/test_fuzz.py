"""Damaged images decode or fail cleanly; the fuzzer detects those that do not."""

import os
import signal
import subprocess
import sys
import time

import fuzz
import numpy as np
import pytest
from conftest import PROJECT
from damaged import mutated

from crossfilter_inference.photos.exif import Exif
from crossfilter_inference.photos.image import LoadedImage

SEED, NUMBER = 5, 6  # of the input that is badly treated


@pytest.mark.slow
def test_two_thousand_damaged_images_decode_or_have_a_reason():
    report = fuzz.play(range(2000), seed=1)
    assert report.violations == {}
    assert report.outcomes.total() == 2000
    assert report.outcomes.keys() == {"decoded", "damaged", "not an image", "too large"}
    assert min(report.outcomes["decoded"], report.outcomes["damaged"]) > 100


def test_an_input_is_the_same_whenever_it_is_made():
    assert mutated(1, 2) == mutated(1, 2)
    assert len({mutated(seed, number) for seed in (1, 2) for number in range(100)}) > 190


def treated(data, fault):
    if data == mutated(SEED, NUMBER):
        return fault()
    return fuzz.decode(data)


def raises(data):
    return treated(data, lambda: {}["no such key"])


def wants_memory(data):
    return treated(data, lambda: bytes(2**34))


def fills_memory(data):
    return treated(data, lambda: (np.ones(2**28, np.uint8), fuzz.decode(data))[1])


def hangs(data):
    return treated(data, lambda: time.sleep(60))


def crashes(data):
    return treated(data, lambda: os.kill(os.getpid(), signal.SIGSEGV))


def gives_a_float(data):
    return treated(data, lambda: LoadedImage(np.zeros((32, 32, 3)), b"", 1, 1, Exif()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decode", "fault"),
    [
        (raises, "KeyError: 'no such key'"),
        (wants_memory, "MemoryError"),
        (fills_memory, "MB of memory"),
        (hangs, "took more than 5 s"),
        (crashes, "died with exit code -11"),
        (gives_a_float, "AssertionError: float64"),
    ],
)
def test_a_failing_input_is_reported_by_number_and_the_others_continue(decode, fault):
    report = fuzz.play(range(20), SEED, decode, most_seconds=5, most_megabytes=300)
    assert list(report.violations) == [NUMBER]
    assert fault in report.violations[NUMBER]
    assert report.outcomes.total() == 19


def test_a_failing_input_is_kept_with_the_command_that_replays_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fuzz.play, "__defaults__", (raises, *fuzz.play.__defaults__[1:]))
    monkeypatch.setattr(
        sys, "argv", ["fuzz.py", "--files", "8", "--processes", "3", "--seed", str(SEED), "--output", str(tmp_path)]
    )
    assert fuzz.main() == 1
    path = tmp_path / f"fuzz-{SEED}-{NUMBER}.bin"
    assert path.read_bytes() == mutated(SEED, NUMBER)
    printed = capsys.readouterr().out
    assert f"{path}: KeyError: 'no such key'\n" in printed
    assert f"python tests/faults/fuzz.py --seed {SEED} --only {NUMBER}\n" in printed
    assert "inputs: 8\n" in printed and "violations: 1\n" in printed


def test_a_single_input_can_be_replayed():
    program = PROJECT / "tests" / "faults" / "fuzz.py"
    command = [sys.executable, program, "--seed", str(SEED), "--only", str(NUMBER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "inputs: 1\n" in done.stdout
    assert done.stderr == ""
