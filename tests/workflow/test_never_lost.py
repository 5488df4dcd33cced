"""Whatever happens to photos, disks, clocks and processes: the next run succeeds, and does only the missing work."""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from conftest import DEMO, DEMO_PHOTOS, identity, leave_hot_journal, page_data
from test_kill import is_running, locked, started, wait_until

NEW_PHOTOS = {"write_manifest": 1, "embed_shard": 1, "store_embeddings": 1}


@pytest.fixture
def collection(three_shards):
    three_shards.take_back()
    return three_shards


def photos(collection):
    return sorted((collection.folder / "photos").glob("*.jpg"))


def shards(collection):
    """The existing shards, as lists and as databases."""
    lists = {path.stem for path in (collection.state / "shards").glob("*.tsv")}
    databases = {path.stem for path in (collection.state / "embeddings").glob("*.sqlite")}
    return lists, databases


# ---- four kinds of change -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_photos_with_new_time_stamps_are_copied_and_their_old_shards_retired(collection):
    before = collection.embeddings()
    for path in photos(collection):
        os.utime(path)
    done = collection.snakemake()
    assert done.stdout.count("embedded 0 photos, copied ") == 3
    assert "embedded: 0 photos in this run and 12 copied, 12 in total, in results/photos.sqlite" in done.stdout
    assert "shards retired: 3" in done.stdout
    assert collection.embeddings() == before
    assert collection.sql("SELECT SHARD FROM {T}_SHARDS") == [("000004",), ("000005",), ("000006",)]
    assert collection.dry_run() == {}
    collection.add_photos(1)
    assert collection.run() == NEW_PHOTOS
    assert shards(collection) == ({"000004", "000005", "000006", "000007"},) * 2
    collection.database.unlink()
    assert collection.run() == {"store_embeddings": 1}
    assert collection.embeddings().items() >= before.items()


def test_the_same_bytes_under_another_uuid_are_copied(collection):
    uuids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(3)]
    for source, uuid in zip(photos(collection), uuids, strict=False):
        shutil.copy2(source, source.with_name(f"{uuid}.jpg"))
    assert "embedded 0 photos, copied 3" in collection.snakemake().stdout
    rows = collection.embeddings()
    assert [rows[uuid] for uuid in uuids] == [rows[path.stem] for path in photos(collection)[3:6]]
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_a_renamed_folder_embeds_nothing_and_keeps_the_map(demo):
    demo.configure(input_dir=[str(demo.folder / "one"), "more"])
    shutil.copytree(DEMO, demo.folder / "one" / "before", copy_function=shutil.copy2)
    demo.run()
    rows, model = demo.embeddings(), (demo.state / "umap_model.pkl").read_bytes()
    (demo.folder / "one" / "before").rename(demo.folder / "one" / "after")
    done = demo.snakemake()
    assert "embed_shard" not in done.stdout
    assert "map: unchanged (same embeddings and settings)" in done.stdout
    assert demo.embeddings() == rows
    assert (demo.state / "umap_model.pkl").read_bytes() == model
    assert {path.split("/")[-3] for (path,) in demo.sql("SELECT PATH FROM {T}_IMAGES")} == {"after"}
    assert {folder.split("/")[-2] for folder in page_data(demo.state / "map.html")["folders"]} == {"after"}
    assert demo.dry_run() == {}


@pytest.mark.slow
def test_a_shard_without_needed_rows_is_retired_and_one_with_rows_of_missing_photos_is_not(collection):
    before = collection.embeddings()
    for path in photos(collection)[:6]:  # the first shard, and one of the second
        path.unlink()
    collection.run()
    assert collection.embeddings() == before
    collection.database.unlink()
    collection.run()
    assert collection.embeddings() == before, "rows of missing photos remain in their shards"
    collection.configure(missing_images="delete", max_deleted_share=1)
    assert "deleted: 6" in (done := collection.snakemake().stdout)
    assert "shards retired: 1" in done
    assert collection.dry_run() == {}
    collection.add_photos(0)
    for path in DEMO_PHOTOS[40:42]:
        shutil.copy2(path, collection.folder / "photos")
    collection.run()
    assert shards(collection) == ({"000002", "000003", "000004"},) * 2


@pytest.mark.slow
def test_a_photo_that_returns_after_its_shard_was_rebuilt_without_it_is_embedded(collection):
    saved = collection.folder / "saved.jpg"
    photo = photos(collection)[0]
    expected = collection.embeddings()[photo.stem]
    photo.rename(saved)
    collection.configure(missing_images="delete")
    collection.run()
    (collection.state / "embeddings" / "000001.sqlite").unlink()
    collection.run()
    saved.rename(photo)
    assert collection.run() == NEW_PHOTOS
    assert collection.embeddings()[photo.stem] == expected
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_an_encoder_that_is_resolved_again_to_the_same_embeds_nothing(collection):
    before = collection.embeddings()
    shutil.copystat(collection.folder, collection.state / "encoder.json")
    stamp = next((collection.state / "settings").glob("encoder-*"))
    stamp.unlink()
    done = collection.snakemake()
    assert done.stdout.count("kept: all ") == 3
    assert collection.embeddings() == before
    assert collection.dry_run() == {}


# ---- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kill", [os.killpg, os.kill], ids=["all", "Snakemake alone"])
def test_a_killed_shard_is_resumed_and_a_leftover_job_ends(make_collection, tmp_path, kill):
    expected = make_collection(30, name="undisturbed")
    expected.run()
    collection = make_collection(30, batch_size=4)
    pause, count = tmp_path / "encode", tmp_path / "encode-calls"
    pause.touch()
    (tmp_path / "let-through").write_text("3")
    with started(collection, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
        wait_until((tmp_path / "encode-reached").exists, process, "the fourth call of the encoder")
        kill(process.pid, signal.SIGKILL)
        process.wait()
        assert count.read_text() == "4"
        left_over = is_running("embed_shard", collection)
        assert left_over == (kill is os.kill)
        done = collection.snakemake()
        assert done.returncode == 0, done.stdout
        assert "embedded 18 photos, copied 0, resumed 12 of an interrupted job, failed 0" in done.stdout
        shard = identity(collection.state / "embeddings" / "000001.sqlite")
        pause.unlink()
        deadline = time.monotonic() + 30
        while is_running("embed_shard", collection):
            assert time.monotonic() < deadline, "the job left over does not end"
            time.sleep(0.1)
    assert identity(collection.state / "embeddings" / "000001.sqlite") == shard
    assert collection.embeddings() == expected.embeddings()
    assert collection.dry_run() == {}
    assert [path for path in collection.state.rglob(".*") if path.is_file()] == []


# ---- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_failed_photos_are_tried_again_when_asked_and_when_their_files_change(make_collection):
    collection = make_collection(3)
    bad = collection.folder / "photos" / "00000000-0000-4000-8000-000000000000.jpg"
    bad.write_text("no photo")
    collection.run()
    assert collection.dry_run() == {}
    collection.configure(retry_failures=True)
    assert collection.run() == NEW_PHOTOS
    assert collection.dry_run() == NEW_PHOTOS
    collection.configure(retry_failures=False)
    assert collection.dry_run() == {}
    shutil.copy(photos(collection)[1], bad)
    assert collection.run() == NEW_PHOTOS
    assert collection.sql("SELECT count(*) FROM {T}_FAILURES") == [(0,)]


@pytest.mark.slow
def test_an_unreadable_photo_is_retried_automatically(make_collection, tmp_path):
    collection = make_collection(3)
    photo = photos(collection)[0]
    (tmp_path / "resolve").touch()
    with started(collection, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
        wait_until((tmp_path / "resolve-reached").exists, process, "resolve_encoder")
        photo.rename(tmp_path / "away.jpg")
        (tmp_path / "resolve").unlink()
        assert process.wait(timeout=60) == 0
    assert collection.sql("SELECT UUID, REASON FROM {T}_FAILURES") == [(photo.stem, "missing")]
    (tmp_path / "away.jpg").rename(photo)
    assert collection.run() == NEW_PHOTOS
    assert len(collection.embeddings()) == 3
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_too_many_failures_end_the_run_after_everything_is_stored(make_collection):
    collection = make_collection(20)
    for number in range(3):
        (collection.folder / "photos" / f"00000000-0000-4000-8000-{number:012d}.jpg").write_text("no photo")
    done = collection.snakemake()
    assert done.returncode == 3
    assert "3 of 23 photos failed, more than max_failed_share: 0.1 allows; all others are stored" in done.stdout
    assert "Traceback" not in done.stdout
    assert len(collection.embeddings()) == 20
    assert collection.dry_run() == {}
    collection.configure(max_failed_share=0.2, retry_failures=True)
    assert collection.snakemake().returncode == 0


@pytest.mark.slow
def test_all_of_a_few_photos_may_fail(make_collection):
    collection = make_collection(1)
    (collection.folder / "photos" / "00000000-0000-4000-8000-000000000000.jpg").write_text("no photo")
    assert collection.snakemake().returncode == 0


@pytest.mark.slow
def test_the_size_limit_is_a_setting(make_collection):
    collection = make_collection(2, max_megapixels=0.01)
    collection.run()
    [(reason, message), *_] = collection.sql("SELECT REASON, MESSAGE FROM {T}_FAILURES")
    assert reason == "too large"
    assert "max_megapixels" in message
    collection.configure(max_megapixels=268, retry_failures=True)
    collection.run()
    assert len(collection.embeddings()) == 2


# ---- faults -------------------------------------------------------------------------------------------------------


def damaged_database(collection, how):
    data = collection.database.read_bytes()
    if how == "cut off":
        collection.database.write_bytes(data[: len(data) * 2 // 3])
    elif how == "overwritten":
        collection.database.write_bytes(data[:100] + b"\xff" * (len(data) - 100))
    else:
        collection.database.write_text("no database at all, but longer than a header of one would be" * 10)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut off", "overwritten", "not SQLite"])
def test_a_damaged_database_is_named_and_rebuilt_after_it_is_moved_away(collection, how):
    before = collection.embeddings()
    damaged_database(collection, how)
    damaged = collection.database.read_bytes()
    done = collection.snakemake()
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "results/photos.sqlite" in done.stdout.strip().splitlines()[-1]
    assert collection.database.read_bytes() == damaged, "it may be the only copy of something else"
    collection.database.unlink()
    assert collection.run() == {"store_embeddings": 1}
    assert collection.embeddings() == before
    assert collection.dry_run() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["encoder.json", "embeddings.json", "manifest.tsv", "rejected.tsv", "map.tsv", "shards/000001.tsv"]
)
def test_a_lost_state_file_is_rebuilt(demo, name):
    before = demo.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID")
    (demo.state / name).unlink()
    demo.run()
    assert (demo.state / name).exists()
    assert demo.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID") == before
    assert demo.dry_run() == {}


@pytest.mark.slow
def test_new_content_under_the_old_size_and_time_is_noticed_without_the_last_plan(collection):
    before = collection.embeddings()
    (collection.state / "plan.tsv").unlink()
    assert collection.dry_run() == {}
    photo, other = photos(collection)[:2]
    old, status = photo.read_bytes(), photo.stat()
    content = other.read_bytes()[: status.st_size]
    photo.write_bytes(content + bytes(status.st_size - len(content)))
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = collection.snakemake()
    assert "new: 0 (shards: 3); to be read again: 12" in done.stdout
    assert "embedded: 1 photo in this run and 11 copied, 12 in total" in done.stdout
    assert {uuid for uuid, row in collection.embeddings().items() if row != before[uuid]} == {photo.stem}
    assert collection.dry_run() == {}
    photo.write_bytes(old)
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    collection.run()
    assert collection.embeddings() == before


@pytest.mark.slow
def test_without_the_last_plan_and_the_database_nothing_is_embedded(collection):
    before = collection.embeddings()
    (collection.state / "plan.tsv").unlink()
    collection.database.unlink()
    photos(collection)[0].chmod(0o600)
    collection.run()
    assert collection.embeddings() == before
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_a_killed_writer_is_rolled_back_even_without_new_photos(collection):
    before = collection.embeddings()
    leave_hot_journal(collection.database)
    assert collection.dry_run() == {"store_embeddings": 1}
    collection.run()
    assert not Path(f"{collection.database}-journal").exists()
    assert collection.embeddings() == before
    assert collection.dry_run() == {}


def test_a_lost_database_is_not_rebuilt_unasked_while_a_disk_is_missing(collection):
    for path in photos(collection)[:6]:
        path.unlink()
    collection.configure(missing_images="delete")
    collection.database.unlink()
    done = collection.snakemake()
    assert done.returncode == 1
    assert "would remove 6 of 12 embeddings, because their photos are missing from input_dir" in done.stdout
    assert not collection.database.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder.json", "embeddings.json", "shards/000002.tsv", "embeddings/000002.sqlite"])
def test_a_damaged_state_file_is_named_and_rebuilt_after_it_is_moved_away(collection, name):
    before = collection.embeddings()
    (collection.state / name).write_bytes(b"{ damaged")
    collection.database.unlink()
    done = collection.snakemake()
    if done.returncode:
        assert f"{name}' is damaged; delete it, and the next run rebuilds it" in done.stdout
        assert "Traceback" not in done.stdout
        (collection.state / name).unlink()
        collection.run()
    assert collection.embeddings() == before
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_a_read_only_database_ends_the_run_in_one_line(collection, as_user):
    collection.add_photos(1)
    collection.database.chmod(0o444)
    done = collection.snakemake(**as_user)
    assert done.returncode == 1
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("output_embeddings_db: cannot write to 'results/photos.sqlite' (permission denied); choose")
    collection.database.chmod(0o644)
    assert collection.run() == NEW_PHOTOS


@pytest.mark.slow
def test_a_reader_does_not_stop_a_run_until_it_must(collection):
    """Planning and embedding continue; the store waits for the reader to finish."""
    collection.add_photos(3)
    with locked(collection.database, "BEGIN"), started(collection) as process:
        wait_until((collection.state / "embeddings" / "000004.sqlite").exists, process, "the new shard")
        wait_until(lambda: is_running("store_embeddings", collection), process, "the store")
        time.sleep(1)
        assert process.poll() is None
        connection = sqlite3.connect(collection.database)
        assert connection.execute("SELECT count(*) FROM COLOUR_EMBEDDINGS").fetchone() == (12,)
        connection.close()
        dry = collection.snakemake("-n")
        assert dry.returncode == 0, dry.stdout
    collection.run()
    assert len(collection.embeddings()) == 15


@pytest.mark.slow
def test_a_clock_that_was_set_back_does_not_matter(collection):
    now = time.time()
    for path in [collection.database, *collection.state.rglob("*")]:
        os.utime(path, (now + 100_000, now + 100_000))
    collection.add_photos(3)
    assert collection.run() == NEW_PHOTOS
    assert collection.dry_run() == {}
    shutil.rmtree(collection.folder / ".snakemake")
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_only_some_of_the_rules_can_be_asked_for(make_collection):
    collection = make_collection(3)
    assert collection.run("--until", "embed_shard") == {"resolve_encoder": 1, "write_manifest": 1, "embed_shard": 1}
    assert collection.run() == {"store_embeddings": 1}


@pytest.mark.slow
def test_two_types_at_once_on_one_database_the_second_ends_in_one_line(collection, tmp_path):
    (tmp_path / "encode").touch()
    collection.add_photos(3)
    with started(collection, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
        wait_until((tmp_path / "encode-reached").exists, process, "the encoder")
        other = subprocess.run(
            [*collection.command("--config", "embedding_type=EFFICIENTNET_LITE0")],
            capture_output=True,
            text=True,
            check=False,
            cwd=collection.folder,
        )
        assert other.returncode == 1
        assert "another run is using" in other.stdout + other.stderr
        (tmp_path / "encode").unlink()
        assert process.wait(timeout=60) == 0
    assert len(collection.embeddings()) == 15
