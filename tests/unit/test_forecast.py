"""The forecast of a run comes from measurements of earlier runs."""

import os
from pathlib import Path

import pytest

from crossfilter_inference.run import forecast
from crossfilter_inference.run.forecast import Cost, Shares, embedding_cost, share_out
from crossfilter_inference.shards.journal import RowsLog
from crossfilter_inference.shards.shard import Embedded, read_shard_provenance, write_shard_database
from crossfilter_inference.util.files import write_json

ON_CPU, ON_GPU = Shares(4, 4, 0, 1, False), Shares(4, 4, 1, 1, True)


@pytest.fixture
def earlier_job(tmp_path):
    """Write the files of an embedding job; by default, of 100 photos in 50 s."""

    def leave(shard="000001", seconds="55.0", memory="1200.5", folder=tmp_path / "T", **timing):
        counts = {"n_computed": 100, "n_threads": 2, "device": "cpu", "loading": 2.0, "total": 52.0}
        write_shard_database(
            folder / "embeddings" / f"{shard}.sqlite", {"name": "T"}, "0", [], [], Embedded(**(counts | timing))
        )
        benchmark = folder / "benchmarks" / "embed_shard" / f"{shard}.tsv"
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:55\t{memory}\n")
        return folder

    return leave


def test_without_earlier_runs_default_figures_are_used(tmp_path):
    cost = embedding_cost(tmp_path, "siglip", ON_CPU)
    assert not cost.is_measured
    assert cost.per_photo == pytest.approx(0.46 / 4)
    assert embedding_cost(tmp_path, "siglip", ON_GPU).per_photo < cost.per_photo
    assert embedding_cost(tmp_path, "mine.py", ON_CPU) != cost


def test_an_earlier_job_predicts_start_speed_and_memory(earlier_job):
    folder = earlier_job()
    cost = embedding_cost(folder, "siglip", ON_CPU)
    assert cost.is_measured
    # Writing the shard is a part of its time, and takes as long as it takes.
    written = float(read_shard_provenance(folder / "embeddings" / "000001.sqlite", "T")["timing_writing"])
    assert cost.start == pytest.approx(5 - written, abs=0.01), "seconds not spent on photos"
    assert cost.per_photo == pytest.approx(0.25, abs=0.01), "on twice as many cores"
    assert cost.memory == 1200.5


def test_the_newest_job_counts(earlier_job):
    earlier_job("000001")
    cost = embedding_cost(earlier_job("000002", seconds="30.0", total=27.0), "siglip", ON_CPU)
    assert cost.per_photo == pytest.approx(0.125, abs=0.01)


@pytest.mark.parametrize(
    "other", [{"device": "cuda:0"}, {"device": "none"}, {"n_computed": 19}, {"seconds": "1.0"}, {"memory": "x"}]
)
def test_a_job_on_another_device_is_ignored(earlier_job, other):
    assert not embedding_cost(earlier_job(**other), "siglip", ON_CPU).is_measured


def test_a_job_on_a_gpu_predicts_gpu_jobs_whatever_its_cores(earlier_job):
    cost = embedding_cost(earlier_job(device="cuda:0"), "siglip", ON_GPU)
    assert (cost.is_measured, cost.per_photo) == (True, pytest.approx(0.5, abs=0.01))


def test_damaged_figures_are_not_measured(earlier_job):
    folder = earlier_job()
    (folder / "embeddings" / "000001.sqlite").write_text("damaged")
    assert not embedding_cost(folder, "siglip", ON_CPU).is_measured


@pytest.mark.parametrize("start", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("per_photo", [0.5, 0.05, 0.004])
def test_the_start_of_a_job_is_less_than_a_twentieth_of_it(start, per_photo):
    cost = Cost(start, per_photo, 1000)
    at_work = cost.shard_size * per_photo
    assert start / (start + at_work) <= 0.05
    assert cost.shard_size == 200 or start / (start + at_work) > 0.03, "and not much less"


def test_a_shard_has_a_maximum_size():
    assert Cost(100, 1e-6, 1000).shard_size == 100_000


def test_jobs_side_by_side_share_the_time():
    cost = Cost(10, 0.5, 1000)
    assert cost.seconds(1000, 1, 4) == 10 + 500
    assert cost.seconds(1000, 4, 4) == 10 + 125
    assert cost.seconds(1000, 8, 4) == 20 + 125
    assert cost.seconds(0, 0, 4) == 0


def test_a_failed_job_gets_more_memory_and_time(earlier_job):
    cost = embedding_cost(earlier_job(), "siglip", ON_CPU)
    assert cost.memory_mb(1000, 1) > cost.memory
    assert cost.memory_mb(1000, 2) == pytest.approx(2 * cost.memory_mb(1000, 1), abs=2)
    assert cost.runtime(1000, 2) == 2 * cost.runtime(1000, 1)
    assert cost.runtime(100_000, 1) > cost.runtime(1000, 1) > cost.seconds(1000, 1, 1) / 60


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((8, None, None), (8, 8, 0, 1)),
        ((8, None, 4), (8, 2, 4, 4)),
        ((2, None, 4), (2, 1, 4, 2)),
        ((None, 20, 8), (8, 8, 8, 8)),
        ((None, 4, 8), (8, 8, 8, 4)),
        ((None, 20, 0), (8, 8, 0, 20)),
        ((None, None, None), (8, 8, 0, 1)),
    ],
)
def test_cores_jobs_and_gpus_are_shared_out(given, expected):
    shares = share_out(*given, may_use_gpu=True)
    assert (shares.cores, shares.embed_cores, shares.n_gpus, shares.n_jobs) == expected


def test_an_encoder_that_cannot_use_a_gpu_requests_none():
    assert share_out(8, None, 4, may_use_gpu=False) == Shares(8, 8, 0, 1, False)


def test_the_forecast_counts_missing_shards(earlier_job):
    folder, sizes = earlier_job(), {"000001": 100, "000002": 400}
    cost = embedding_cost(folder, "siglip", ON_CPU)
    line = forecast.forecast(folder, cost, ON_CPU, sizes, ["000001", "000002"], with_map=True, words=0)
    assert line.startswith("forecast: 400 photos to embed (shards: 1), about 2 min (measured in earlier runs)")
    assert forecast.forecast(folder, cost, ON_CPU, sizes, ["000001"], with_map=True, words=0) == ""


def test_the_forecast_leaves_out_what_an_interrupted_run_has_finished(tmp_path):
    cost = embedding_cost(tmp_path, "siglip", ON_CPU)
    with RowsLog(tmp_path / "embeddings" / "000001.sqlite", {}, set()) as log:
        for number in range(3):
            log.add({"UUID": str(number)})
        log.flush()
        line = forecast.forecast(tmp_path, cost, ON_CPU, {"000001": 5}, ["000001"], with_map=False, words=0)
    assert line.startswith("forecast: 2 photos to embed, 3 finished before (shards: 1)")


def seconds(folder, n_photos=1000, *, with_map=True, words=0):
    return forecast.seconds_beside_embedding(folder, n_photos, with_map=with_map, words=words)


def test_the_time_after_embedding_grows_as_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # the map was compiled long ago
    first = seconds(tmp_path)
    assert seconds(tmp_path, 100_000) > first + 30
    assert seconds(tmp_path, with_map=False) < first
    assert seconds(tmp_path, words=30) > first + 20
    benchmark = Path(tmp_path, "benchmarks", "fit_umap", "fit_umap.tsv")
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\tmax_rss\n100\tNA\n")
    write_json(tmp_path / "embeddings.json", {"n_embeddings": 1000})
    assert seconds(tmp_path) > first + 90
    (tmp_path / "words.npz").touch()
    assert seconds(tmp_path, words=30) == seconds(tmp_path)


def test_the_first_map_on_a_machine_takes_longer_and_does_not_predict_the_next(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(forecast, "_COMPILED_MODULES", tmp_path / "code")
    compiled = tmp_path / "code" / "__pycache__" / "layout.nbi"
    compiled.parent.mkdir(parents=True)
    first = seconds(tmp_path)
    compiled.touch()
    assert seconds(tmp_path) < first - 30
    benchmark = tmp_path / "benchmarks" / "fit_umap" / "fit_umap.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\tmax_rss\n40\tNA\n")
    write_json(tmp_path / "embeddings.json", {"n_embeddings": 1000})
    assert seconds(tmp_path) < first - 30, "compiled by that job"
    os.utime(compiled, (0, 0))
    assert seconds(tmp_path) > first
