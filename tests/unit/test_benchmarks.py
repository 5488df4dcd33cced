"""The benchmarks run at their smallest size, and print possible figures."""

import importlib.util
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from benchmark_of_the_map import check_benchmark_of_the_map, numbers, rows_of
from conftest import DEMO_PHOTOS, PROJECT, needs, needs_browser
from PIL import Image

from crossfilter_inference.embed import batches, decode_process
from crossfilter_inference.encoders import registry

pytestmark = pytest.mark.usefixtures("decode_in_processes")

BENCHMARKS = PROJECT / "benchmarks"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The embedding benchmark with a tiny model and four photos of a tenth of a megapixel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import embedding

        patch.setattr(embedding, "MEGAPIXELS", (0.1,))
        patch.setattr(embedding, "CPU_SETTINGS", [("float32", "torch")])
        yield (
            embedding,
            embedding.Bench(tmp_path_factory.mktemp("bench"), Namespace(photos=4, device="cpu", model="tiny")),
        )


@pytest.fixture
def embedding(monkeypatch):
    """The embedding benchmark as it is, also where the fixture `bench` makes it smaller."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("whole_embedding", BENCHMARKS / "embedding.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_benchmark(name: str, *options: object, first: str = "") -> str:
    """Run a benchmark, after the statements `first`, in a process of its own: libraries may leave threads behind."""
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT / 'workflow'}:{BENCHMARKS}", "PYTHONWARNINGS": "ignore"}
    program = f"import {name}\n{first}\n{name}.main()"
    command = [sys.executable, "-c", program, *map(str, options)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not process.returncode, process.stdout + process.stderr
    return process.stdout


def check_figures(figures: dict[str, str]) -> None:
    """Check figures that may be ratios, images per second or differences of embeddings."""
    for name, text in figures.items():
        assert not re.search(r"nan|inf|-\d", re.sub(r"e-\d", "", text + re.sub(r"\w-\w", "", name))), (name, text)
        for value in numbers(text):
            assert 0 <= value < 0.01 if name.startswith("1 - cosine") else 0 < value < 100, (name, text)
        if "/ limit" in name:
            rate, limit = numbers(name.rpartition("(")[2])
            assert 0 < rate < 1.1 * limit, name
            assert 0 < float(text) < 1.1, (name, text)


@pytest.mark.slow
def test_the_loop_computes_every_photo_in_every_round_without_loading_the_encoder(bench, monkeypatch):
    embedding, bench = bench
    monkeypatch.setattr(registry, "load_encoder", None)  # the real one
    [setting], [megapixels] = bench.encoders, embedding.MEGAPIXELS
    for _ in range(2):
        bench.ours(setting, megapixels)
    assert len(bench.seconds["ours", *setting, megapixels]) == 2
    assert all(0 < seconds < 60 for seconds in bench.seconds["ours", *setting, megapixels])
    assert bench.rows[*setting, megapixels].shape == (4, 32)


@pytest.mark.slow
def test_a_stand_in_for_the_encoder_that_nobody_calls_is_an_error(bench, monkeypatch):
    embedding, bench = bench
    [setting], [megapixels] = bench.encoders, embedding.MEGAPIXELS

    def load(encoding):
        encoding._batch_size = 4
        return bench.encoders[setting]

    monkeypatch.setattr(batches.Encoding, "load", load)
    with pytest.raises(embedding.Invalid, match="stand-in for load_encoder was called 0 times"):
        bench.ours(setting, megapixels)


def test_a_stand_in_for_the_encoder_whose_place_is_gone_is_an_error(bench, monkeypatch):
    embedding, bench = bench
    monkeypatch.delattr(batches, "load_encoder")
    with pytest.raises(AttributeError, match="load_encoder"):
        bench.ours(*bench.encoders, *embedding.MEGAPIXELS)


def test_a_job_that_keeps_its_shard_is_an_error(bench, monkeypatch):
    embedding, bench = bench
    [setting], [megapixels] = bench.encoders, embedding.MEGAPIXELS
    bench.ours(setting, megapixels)
    monkeypatch.setattr(embedding, "new_database", lambda shard: shard / "embeddings" / "000001.sqlite")
    with pytest.raises(embedding.Invalid, match="exists, so the job would keep it"):
        embedding.run_job(bench.shards[megapixels], 4)
    with pytest.raises(embedding.Invalid, match="called 0 times"):
        bench.ours(setting, megapixels)
    with pytest.raises(embedding.Invalid, match="computed 0 photos, expected 4"):
        embedding.check_computed(0, bench.shards[megapixels] / "embeddings" / "000001.sqlite", 4)


def test_a_photo_that_fails_in_the_loop_is_an_error(bench, monkeypatch):
    embedding, bench = bench

    def broken(process, image):
        error = decode_process.ImageError("damaged", "it is broken")
        return decode_process.Failed(image, error, 0) if image.uuid.endswith("1") else decode(process, image)

    decode = decode_process.DecodeProcess.decode
    monkeypatch.setattr(decode_process.DecodeProcess, "decode", broken)
    with pytest.raises(embedding.Invalid, match="computed 3 photos, expected 4"):
        bench.ours(*bench.encoders, *embedding.MEGAPIXELS)


def test_the_figures_of_a_gpu_are_possible_ones(bench):
    embedding, bench = bench
    table = embedding.on_gpu(bench, 2)
    check_figures({name: value for name, value, _ in table if not name.startswith("bare model")})
    assert [name for name, *_ in table if "ready pixels" in name]


def test_settings_that_this_machine_cannot_run_are_left_out(bench, tmp_path, monkeypatch):
    embedding, _ = bench
    monkeypatch.setattr(embedding, "CPU_SETTINGS", [("float32", "torch"), ("float32", "openvino")])
    monkeypatch.setattr(registry.devices.importlib.util, "find_spec", lambda name: None)
    other = embedding.Bench(tmp_path, Namespace(photos=1, device="cpu", model="tiny"))
    assert [*other.encoders] == [("float32", "torch")]
    assert len(other.left_out) == 1
    assert re.match(r"Left out: float32 openvino \(.*not installed", other.left_out[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs("openvino", "sentence_transformers")
def test_the_embedding_benchmark_prints_possible_figures(tmp_path):
    options = ("--model", "tiny", "--photos", 2, "--rounds", 1, "--rows", 2000, "--device", "cpu")
    options += ("--folder", tmp_path, "--output", tmp_path / "RESULTS.md")
    tenth = "make = embedding.make_photos; embedding.make_photos = lambda folder, size, n: make(folder, size / 10, n)"
    run_benchmark("embedding", *options, first=tenth)
    figures = {name: value for name, value, _ in rows_of((tmp_path / "RESULTS.md").read_text())}
    check_figures(figures)
    [start_up] = (value for name, value in figures.items() if name.startswith("job of one photo"))
    assert float(start_up) > 0.5
    assert len(figures) > 20


@pytest.mark.slow
def test_the_memory_of_a_program_is_measured_without_that_of_its_parent(embedding):
    import sphere

    large = "import sys; b'x' * 2**28; print(sys.argv[1:2])"
    small, both = embedding.run([sys.executable, "-c", "pass"]), embedding.run([sys.executable, "-c", large])
    assert 0 < small < 50
    assert 256 <= both < 256 + 50
    with pytest.raises(subprocess.CalledProcessError):
        embedding.run([sys.executable, "-c", "raise SystemExit(1)"])
    seconds, megabytes, printed = sphere.run(large, Path("rows"))
    assert 0 < seconds < 60
    assert 256 <= megabytes < 256 + 50
    assert printed == ["['rows']"]


@pytest.mark.slow
def test_the_search_benchmark_prints_possible_figures():
    rows = rows_of(run_benchmark("search", "--photos", 1000, "--rounds", 2) + "\n")
    medians = [numbers(median)[0] for _, median, _ in rows]
    assert len(medians) == 4
    assert 0 < medians[0] < medians[1] < 60
    assert 0 < medians[3] < medians[2] < 60


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_benchmark_of_words_prints_possible_figures(tmp_path):
    for number, path in enumerate(DEMO_PHOTOS):
        place = {"bird": "animals/birds", "fish": "animals/fish", "hand tool": "household/tools"}.get(path.parent.name)
        if place:
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.save(tmp_path / place / f"hammer{number}.png")
    output = run_benchmark("words", "--folder", tmp_path, "--model", "tiny")
    rows = rows_of(output + "\n")
    assert {"bird", "fish", "hand tool", "mean"} < {row[0] for row in rows}
    for word, n_photos, precision, *_ in rows:
        if word in ("bird", "fish", "hand tool"):
            assert int(n_photos) >= 5
            assert float(precision) > 0.7, "on photos like those of the demo"
    [tower] = [row for row in rows if row[0] == "tiny"]
    assert int(tower[1]) == len((PROJECT / "workflow/crossfilter_inference/map/words.txt").read_text().split("\n")) - 1
    assert 0 < float(tower[3]) < 100
    assert "'windmill' is not one of the 3,245 words" in output


def test_the_benchmark_of_scale_prints_possible_figures(tmp_path):
    output = tmp_path / "SCALE.md"
    run_benchmark("scale", "--sizes", 20, "--rounds", 1, "--folder", tmp_path / "scale", "--output", output)
    rows = {name: [numbers(cell) for cell in cells] for name, *cells in rows_of(output.read_text())}
    assert len(rows) == 9
    assert all(len(cells) == 1 and all(value >= 0 for value in cells[0]) for cells in rows.values())
    assert all(0 < cells[0][0] < 100 for name, cells in rows.items() if "plan" in name or "snakemake" in name)
    assert rows["ratio"][0][0] > 1  # a start of Snakemake takes longer than a listing of 20 files


@pytest.mark.slow
def test_the_benchmark_of_damage_prints_possible_figures():
    text = run_benchmark("damage", "--damaged", 12, "--whole", 12)
    damaged, *_, whole = text.splitlines()
    outcomes = dict(re.findall(r"(damaged|embedded, nearly the same|missed): (\d+)(?=,|$)", damaged.partition(";")[2]))
    assert damaged.startswith("damaged: 12; ")
    assert sum(map(int, outcomes.values())) == 12
    assert int(outcomes["damaged"]) >= 10
    assert re.fullmatch(r"whole: 12, of \d+ encoders; failed or of other pixels: 0", whole)


@pytest.mark.slow
@needs_browser
def test_the_benchmark_of_the_page_prints_possible_figures():
    text = run_benchmark("page", "--photos", 2000, "--thumbnails", 20, "--frames", 30)
    rows = {name: [float(cell) for cell in cells] for name, *cells in rows_of(text)}
    scenes = {"globe", "globe, close up", "flat map", "zoom", "Earth", "brush over time", "lasso"}
    assert set(rows) == {"empty scene", *scenes}
    for name in rows.keys() - {"empty scene"}:
        size, paint, opened, frame, slow, script, heap = rows[name]
        assert 0 < size < 100
        assert 0 < paint < opened < 100
        assert 0 < script < frame <= slow
        assert 0 < heap < 100
    assert " 20 thumbnails" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["speed", "fit", "quality", "shape", "updates"])  # neighbours: test_neighbours.py
def test_the_benchmark_of_the_map_prints_possible_figures(tmp_path, part):
    check_benchmark_of_the_map(part, tmp_path)
