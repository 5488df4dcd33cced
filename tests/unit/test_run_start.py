import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace

import pytest
from conftest import COLOUR_ENCODER, PROJECT

from crossfilter_inference.config import check_config
from crossfilter_inference.encoders.registry import resolve_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.run import finish
from crossfilter_inference.run import start as run
from crossfilter_inference.run.forecast import Cost, embedding_cost, seconds_beside_embedding, share_out
from crossfilter_inference.run.prepare import Deletions, Resources, Run, Stamps
from crossfilter_inference.shards.journal import logs_of
from crossfilter_inference.shards.plan import Plan
from crossfilter_inference.shards.shard import Embedded, write_shard_database
from crossfilter_inference.util.files import write_json, write_stamp


def planned(folder, known_shards=(), shards=()):
    """Plan a run of no photos on the database `x.sqlite` of a folder."""
    config = check_config({"input_dir": "photos", "output_embeddings_db": str(folder / "x.sqlite")})
    return Run(
        config=config,
        resources=Resources(),
        state=str(folder / "x" / "T"),
        plan=Plan([], [], []),
        known_shards={shard: set() for shard in known_shards},
        shards=list(shards),
        shares=share_out(1, None, None, may_use_gpu=False),
        cost=Cost(1, 1, 1),
        stamps=Stamps(*"123456"),
    )


def start(folder, queue):
    try:
        run.start_run(planned(folder))
        queue.put("started")
    except InputError as error:
        queue.put(str(error))


def start_elsewhere(folder):
    """Start a run in a process of its own, which ends at once."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=start, args=(folder, queue))
    process.start()
    answer = queue.get(timeout=200)
    process.join()
    return answer


def test_a_second_run_is_refused_until_the_first_process_ends(tmp_path):
    assert start_elsewhere(tmp_path) == "started"
    run.start_run(planned(tmp_path))
    assert "another run is using" in start_elsewhere(tmp_path)
    run._held.pop().close()
    assert start_elsewhere(tmp_path) == "started"


def test_a_run_waits_a_moment_for_what_is_left_of_a_killed_one(tmp_path):
    run.start_run(planned(tmp_path))
    left = run._held.pop()
    threading.Timer(0.4, left.close).start()
    run.start_run(planned(tmp_path))
    assert left.closed
    run._held.pop().close()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match=r"cannot lock '.*\.lock' \(No locks available\); name a database on another"):
        run.start_run(planned(tmp_path))


def test_a_refused_run_leaves_no_lock_file_open(tmp_path):
    run.start_run(planned(tmp_path))
    n_open = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with pytest.raises(InputError, match="another run is using") as refusal:
            run.start_run(planned(tmp_path))
        assert len(os.listdir("/dev/fd")) == n_open, refusal
    run._held.pop().close()


def test_a_plan_made_before_another_run_ended_is_refused(tmp_path):
    (tmp_path / "x" / "T" / "shards").mkdir(parents=True)
    (tmp_path / "x" / "T" / "shards" / "000001.tsv").write_text("UUID\tSIZE\tMTIME_NS\n")
    answer = start_elsewhere(tmp_path)
    assert "ended while this one was being planned; run the same command again" in answer


@pytest.mark.parametrize(("n_deleted", "is_refused"), [(20, False), (21, True)])
def test_more_deletions_than_allowed_are_refused_before_anything_changes(tmp_path, n_deleted, is_refused):
    run_of_100 = replace(planned(tmp_path), deletions=Deletions(n_deleted, 100, Counter()))
    assert run_of_100.config.max_deleted_share == 0.2
    if not is_refused:
        run.start_run(run_of_100)
    else:
        with pytest.raises(InputError, match=r"would remove 21 of 100 embeddings.*0\.2\. Nothing was changed"):
            run.start_run(run_of_100)
        assert not (tmp_path / "x" / "T").exists()
    run._held.pop().close()


def test_parts_of_killed_jobs_are_removed(tmp_path):
    folder = tmp_path / "x" / "T"
    (folder / "embeddings").mkdir(parents=True)
    for name in (".000001.sqlite.abc.part", ".000001.sqlite.abc.part-journal", "000002.sqlite"):
        (folder / "embeddings" / name).touch()
    assert start_elsewhere(tmp_path) == "started"
    assert [path.name for path in (folder / "embeddings").iterdir()] == ["000002.sqlite"]


def test_remains_of_incomplete_shards_are_removed(tmp_path):
    folder = tmp_path / "x" / "T"
    for name in ("shards/000001.tsv", "shards/000002.tsv", "embeddings/000001.sqlite", "embeddings/000002.sqlite"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name in ("000001.unread.tsv", ".000001.abc.rows", ".000002.abc.rows"):
        (folder / "embeddings" / name).touch()
    run.start_run(planned(tmp_path, known_shards=["000001", "000002"], shards=["000002"]))
    run._held.pop().close()
    there = {path.name for part in ("shards", "embeddings") for path in (folder / part).iterdir()}
    assert there == {"000002.tsv", "000002.sqlite", ".000002.abc.rows"}


def test_broken_links_in_the_state_folder_do_not_end_a_run(tmp_path):
    folder = tmp_path / "x" / "T" / "embeddings"
    folder.mkdir(parents=True)
    for name in ("note", ".000001.sqlite.abc.part", "loop"):
        (folder / name).symlink_to("loop" if name == "loop" else "nowhere")
    (folder / "future").touch()
    os.utime(folder / "future", (2**33, 2**33))
    assert start_elsewhere(tmp_path) == "started"
    assert (folder / "future").stat().st_mtime < 2**32


@pytest.mark.parametrize("what", ["folder", "broken link", "loop", "link to a folder"])
def test_odd_entries_of_the_state_folder_end_no_run(tmp_path, what):
    folder = tmp_path / "x" / "T"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".x.part").touch()
    names = (
        *(".x.part", "x.part", "embeddings/.000001.sqlite.abc.part", "embeddings/.000001.abc.rows", "note.log"),
        *("embeddings/note.sqlite", "embeddings/000009.sqlite", "embeddings/note.part", "settings/umap-mine"),
        *("logs/fit_umap/fit_umap.log", "logs/x.log", "benchmarks/fit_umap/fit_umap.tsv"),
        *("benchmarks/embed_shard/000009.tsv",),
    )
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match what:
            case "folder":
                path.mkdir()
                (path / "mine.txt").touch()
            case "broken link":
                path.symlink_to("nowhere")
            case "loop":
                path.symlink_to(path)
            case "link to a folder":
                path.symlink_to(tmp_path / "elsewhere")
    (folder / "encoder.json").write_text("{}")
    run.start_run(planned(tmp_path))
    run._held.pop().close()
    assert logs_of(folder / "embeddings" / "000001.sqlite") == []
    write_stamp(folder / "settings" / "umap-1")
    assert finish.reasons(str(folder), since=0, is_stopped=False) == []
    assert finish._count_embedded(str(folder), since=0) == (0, 0)
    shares = share_out(1, None, None, may_use_gpu=False)
    assert not embedding_cost(folder, "siglip", shares).is_measured
    assert seconds_beside_embedding(folder, 9, with_map=True, words=0) > 0
    assert (tmp_path / "elsewhere" / ".x.part").exists()
    if what == "folder":
        assert all((folder / name / "mine.txt").exists() for name in names), "they are not ours"


def test_a_shard_to_be_read_again_finds_no_rows_of_a_shard_whose_list_was_lost(tmp_path):
    folder = tmp_path / "x" / "T" / "embeddings"
    folder.mkdir(parents=True)
    for name in ("000001.sqlite", "000002.sqlite", ".000001.abc.rows", ".000002.abc.rows"):
        (folder / name).touch()
    run_ = planned(tmp_path, shards=["000002"])
    for n_reread, left in ((0, {"000001.sqlite", "000002.sqlite", ".000002.abc.rows"}), (1, {"000001.sqlite"})):
        plan = Plan([], [], ["000002"], n_reread=n_reread)
        run.start_run(replace(run_, plan=plan))
        run._held.pop().close()
        assert {path.name for path in folder.iterdir()} == left


def test_a_shard_of_another_encoder_is_refused_before_anything_is_removed(tmp_path):
    folder = tmp_path / "x" / "T"
    run_ = planned(tmp_path, known_shards=["000001", "000002", "000003"])
    encoders = {
        model: resolve_encoder(run_.type, {"backend": str(COLOUR_ENCODER), "model": model})
        for model in ("this", "another")
    }
    (folder / "shards").mkdir(parents=True)
    write_json(folder / "encoder.json", encoders["this"])
    for shard, model in (("000001", "this"), ("000002", "another"), ("000003", "another")):
        (folder / "shards" / f"{shard}.tsv").touch()
        database = folder / "embeddings" / f"{shard}.sqlite"
        write_shard_database(database, encoders[model], "0", [], [], Embedded())
        (folder / "embeddings" / f".{shard}.abc.rows").touch()
    (folder / "embeddings" / ".000001.sqlite.abc.part").touch()
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=r"000002\.sqlite' comes from another encoder \(model: another -> this"):
        run.start_run(replace(run_, shards=["000002"]))
    run._held.pop().close()
    assert sorted(folder.rglob("*")) == before
    run.start_run(replace(run_, shards=["000001"]))  # the others are not used, and removed
    run._held.pop().close()
    assert sorted(path.name for path in (folder / "embeddings").iterdir()) == [".000001.abc.rows", "000001.sqlite"]


def test_the_errors_of_this_run_are_collected(tmp_path):
    logs = tmp_path / "logs" / "fit_umap"
    logs.mkdir(parents=True)
    (logs / "old.log").write_text("error: long ago\n")
    os.utime(logs / "old.log", (1, 1))
    (logs / "new.log").write_text("working\nerror: n_neighbors: too many\n")
    (logs / "good.log").write_text("error: overcome\nmap: fitted\n")
    (logs / "empty.log").touch()
    assert finish.reasons(str(tmp_path), since=100, is_stopped=False) == ["error: n_neighbors: too many"]
    [line] = finish.reasons(str(tmp_path), since=100, is_stopped=True)
    assert line.endswith("to resume, run the same command again")


def test_a_sigterm_waits_for_a_lock_that_the_interrupted_thread_holds():
    lock, ended = threading.Lock(), threading.Event()

    def end(*_):
        with lock:
            ended.set()

    before = signal.signal(signal.SIGTERM, end)
    try:
        run.handle_signals()
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)  # without a thread of its own, this never returns
            assert not ended.is_set()
        assert ended.wait(10)
        assert run.is_stopped.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run.is_stopped.clear()


@pytest.mark.parametrize("is_ignored", [False, True])
def test_ctrl_c_while_planning_ends_in_one_line(is_ignored):
    program = "import os, signal, time; from crossfilter_inference.run.start import end_on_interrupt\n"
    program += "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" * is_ignored
    program += "end_on_interrupt(); os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    if is_ignored:  # as in the background of a script
        assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")
    else:
        line = "\nstopped before the first job; to start again, run the same command\n"
        assert (done.returncode, done.stdout, done.stderr) == (130, "", line)


def test_a_second_run_through_a_link_to_the_database_is_refused(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "x.sqlite").symlink_to(tmp_path / "real" / "photos.sqlite")
    monkeypatch.setattr(run, "_held", held := [])
    run.start_run(planned(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.sqlite").symlink_to(tmp_path / "x.sqlite")
    assert "another run is using" in start_elsewhere(tmp_path / "other")
    held.pop().close()
    assert start_elsewhere(tmp_path / "other") == "started"
