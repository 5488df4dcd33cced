"""Several GPUs in one machine: one embedding job per GPU at a time, and each job sees one. The GPUs are simulated."""

import os
import subprocess
import sys

import pytest
from conftest import COLOUR_ENCODER, PROJECT

from crossfilter_inference.encoders import devices

# Records when it ran, and the GPU that it sees; no job ends before all that may run have begun.
ENCODER = f"""
import importlib.util, os, time
from pathlib import Path

spec = importlib.util.spec_from_file_location("colour", {str(COLOUR_ENCODER)!r})
colour = importlib.util.module_from_spec(spec)
spec.loader.exec_module(colour)
resolve = colour.resolve

def load(provenance, device, n_threads):
    notes, begun = Path(os.environ["NOTES"]), time.time()
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    (notes / f"{{os.getpid()}}.begun").touch()
    while len(list(notes.glob("*.begun"))) < 4:
        time.sleep(0.05)
    time.sleep(0.5)
    (notes / f"{{os.getpid()}}.done").write_text(f"{{begun}} {{time.time()}} {{gpu}} {{n_threads}}")
    return colour.load(provenance, device, n_threads)
"""


def run_with_gpus(make_collection, tmp_path, **environment):
    collection = make_collection(16, shard_size=2)
    (collection.folder / "encoder.py").write_text(ENCODER)
    collection.configure(encoders={"COLOUR": {"backend": "encoder.py", "model": "a"}})
    notes = tmp_path / "notes"
    notes.mkdir()
    environment = {**os.environ, "NOTES": str(notes), "TMPDIR": str(tmp_path), **environment}
    options = ["--profile", str(PROJECT / "profiles" / "gpu"), "--resources", "gpu=4"]
    assert collection.run(*options, cores=8, env=environment)["embed_shard"] == 8
    return [path.read_text().split() for path in notes.glob("*.done")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "gpus"), [({}, "0123"), ({"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, "4567")], ids=["all", "some"]
)
def test_eight_shards_run_four_at_a_time_each_with_its_own_gpu(make_collection, tmp_path, environment, gpus):
    jobs = run_with_gpus(make_collection, tmp_path, **environment)
    assert len(jobs) == 8
    assert {gpu for _, _, gpu, _ in jobs} == set(gpus)
    assert {n_threads for *_, n_threads in jobs} == {"2"}, "a fourth of the cores"
    most = 0
    for begin, _, _, _ in jobs:
        at_work = [gpu for start, end, gpu, _ in jobs if float(start) <= float(begin) < float(end)]
        assert len(at_work) == len(set(at_work)), "no GPU has two jobs"
        most = max(most, len(at_work))
    assert most == 4


def test_a_gpu_is_free_again_when_its_process_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    program = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from crossfilter_inference.encoders.devices import one_gpu\n"
        "with one_gpu(1):\n"
        "    print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", program, str(PROJECT / "workflow")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.stdout == "0\n"
    with devices.one_gpu(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_without_gpus_nothing_is_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with devices.one_gpu(0):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
