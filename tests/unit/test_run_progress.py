"""The progress of a whole run, measured from outside its jobs."""

from pathlib import Path

from crossfilter_inference.run.progress import RunProgress
from crossfilter_inference.shards.journal import RowsLog


def add(log, n_rows, start=0):
    for number in range(start, start + n_rows):
        log.add({"UUID": str(number), "JPEG": b"x" * number})
    log.flush()


def test_photos_in_logs_and_in_finished_shards_are_counted(tmp_path):
    embeddings = tmp_path / "embeddings"
    embeddings.mkdir()
    (embeddings / "000001.sqlite").touch()
    progress = RunProgress(str(tmp_path), {"000001": 50, "000002": 20, "000003": 30})
    assert (progress.n_total, progress.n_done()) == (50, 0)
    with RowsLog(embeddings / "000002.sqlite", {"encoder": "x"}, set()) as log:
        add(log, 7)
        assert progress.n_done() == 7
        add(log, 5, 7)
        assert progress.n_done() == 12
        path = next(embeddings.glob("*.rows"))
        with path.open("ab") as file:
            file.write(b"\x40\x00\x00")  # half a frame
        assert progress.n_done() == 12
    (embeddings / "000002.sqlite").touch()
    assert progress.n_done() == 20


def test_the_line_counts_only_photos_of_this_run(tmp_path, monkeypatch):
    progress = RunProgress(str(tmp_path), {"000001": 1000})
    done = iter([0, 400, 400, 500, 1000])
    monkeypatch.setattr(progress, "n_done", lambda: next(done))
    assert progress.line(0) is None
    assert progress.line(10) is None  # an earlier run had done 400
    assert progress.line(12) is None
    assert progress.line(20) == "progress: 500 of 1,000 photos embedded, 10.0 photos/s, about 50 s left"
    assert progress.line(70) is None


def test_without_work_there_is_no_forecast(tmp_path):
    Path(tmp_path, "embeddings").mkdir()
    Path(tmp_path, "embeddings", "000001.sqlite").touch()
    assert RunProgress(str(tmp_path), {"000001": 5}).n_total == 0
