"""The job of one shard: outcomes, errors, resuming."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from conftest import COLOUR_ENCODER, DEMO, DEMO_PHOTOS, PROJECT, decoders, identity
from sqlalchemy import text

from crossfilter_inference.db.connect import reading, writing
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.embed import batches as encoding
from crossfilter_inference.embed import job as embed
from crossfilter_inference.embed.decode_process import DecodeProcess
from crossfilter_inference.encoders.registry import resolve_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.failures import advice
from crossfilter_inference.photos.scan import scan_folders
from crossfilter_inference.shards.plan import (
    Plan,
    make_plan,
    read_plan,
    read_shard_lists,
    write_manifest,
    write_plan,
)


@pytest.fixture
def shard(tmp_path):
    """A planned shard of the 62 demo photos, to be embedded with options."""
    scan = scan_folders([str(DEMO)], [".jpg"])
    write_plan(tmp_path / "plan.tsv", make_plan({}, scan.images, [], 100))
    write_manifest(tmp_path / "plan.tsv", tmp_path / "manifest.tsv", tmp_path / "rejected.tsv", tmp_path / "shards")
    encoder = resolve_encoder("T", {"backend": str(COLOUR_ENCODER), "model": "a"})
    (tmp_path / "encoder.json").write_text(json.dumps(encoder))
    (tmp_path / "embeddings").mkdir()

    def run(*, anew=True, **options):
        if anew:
            (tmp_path / "embeddings" / "000001.sqlite").unlink(missing_ok=True)
        paths = ("shards/000001.tsv", "plan.tsv", "encoder.json", "embeddings/000001.sqlite")
        defaults = {"database": None, "batch_size": 8, "n_threads": 2, "backends": [str(COLOUR_ENCODER)]}
        return embed.embed_shard(*(str(tmp_path / path) for path in paths), **{**defaults, **options})

    run.folder = tmp_path / "embeddings"
    return run


def rows(shard, table):
    with reading(shard.folder / "000001.sqlite") as connection:
        return connection.execute(getattr(Tables("T"), table).select().order_by(text("1"))).fetchall()


@pytest.mark.parametrize("batch_size", [1, 7, 62, 100])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_every_image_is_embedded_once_at_every_batch_size(shard, batch_size, n_threads):
    counts = shard(batch_size=batch_size, n_threads=n_threads)
    assert (counts.n_computed, counts.n_copied, counts.n_failed) == (62, 0, 0)
    uuids = sorted(path.stem for path in DEMO_PHOTOS)
    for table in ("embeddings", "images", "thumbnails"):
        assert [row.UUID for row in rows(shard, table)] == uuids


def test_rows_do_not_depend_on_batch_size_or_threads(shard):
    shard(batch_size=10)
    first = rows(shard, "embeddings")
    shard(batch_size=17, n_threads=1)
    assert rows(shard, "embeddings") == first


def test_every_batch_has_the_same_shape(shard, monkeypatch):
    shapes = []
    load = encoding.load_encoder

    def watched(*arguments):
        encoder = load(*arguments)
        encode = encoder.encode_images
        encoder.encode_images = lambda images: shapes.append(images.shape) or encode(images)
        return encoder

    monkeypatch.setattr(encoding, "load_encoder", watched)
    shard(batch_size=8)
    assert shapes == [(8, 32, 32, 3)] * 8


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows * 2, r"T: the encoder returned an embedding of length 2 for .*\.jpg, expected 1"),
        (lambda rows: rows * np.nan, r"T: the encoder returned an embedding of length nan for .*\.jpg, expected 1"),
        (lambda rows: rows[:, :5], r"T: the encoder returned embeddings of shape \(8, 5\), expected \(8, 48\)"),
    ],
)
def test_wrong_embeddings_are_refused_and_leave_no_shard(shard, monkeypatch, spoil, message):
    load = encoding.load_encoder

    def spoilt(*arguments):
        encoder = load(*arguments)
        encode = encoder.encode_images
        encoder.encode_images = lambda images: spoil(encode(images))
        return encoder

    monkeypatch.setattr(encoding, "load_encoder", spoilt)
    with pytest.raises(InputError, match=message):
        shard()
    assert list(shard.folder.glob("[0-9]*")) == []


def test_a_shard_built_on_another_disk_is_the_same(shard, tmp_path):
    shard()
    expected = rows(shard, "embeddings"), rows(shard, "images")
    (scratch := tmp_path / "scratch").mkdir()
    for path in shard.folder.glob("[0-9]*"):
        path.unlink()
    shard(scratch=str(scratch))
    assert (rows(shard, "embeddings"), rows(shard, "images")) == expected
    assert list(scratch.iterdir()) == []
    assert [path.name for path in shard.folder.glob(".*")] == []


@pytest.mark.parametrize("where", ["encoder", "writer"])
def test_a_failing_part_ends_the_job_and_leaves_no_shard(shard, monkeypatch, where):
    def fail(*_, **__):
        raise MemoryError("no more")

    if where == "encoder":
        monkeypatch.setattr(encoding, "load_encoder", fail)
    else:
        monkeypatch.setattr(embed, "write_shard_database", fail)
    with pytest.raises(MemoryError, match="no more"):
        shard()
    assert list(shard.folder.glob("[0-9]*")) == []


def test_decoding_stays_a_bounded_number_of_images_ahead(shard, monkeypatch):
    decoded, ahead = [], []
    decode, load = DecodeProcess.decode, encoding.load_encoder
    monkeypatch.setattr(DecodeProcess, "decode", lambda *arguments: decoded.append(1) or decode(*arguments))

    def watched(*arguments):
        encoder = load(*arguments)
        encode, n_encoded = encoder.encode_images, [0]

        def encode_images(images):
            ahead.append(len(decoded) - n_encoded[0])
            n_encoded[0] += len(images)
            return encode(images)

        encoder.encode_images = encode_images
        return encoder

    monkeypatch.setattr(encoding, "load_encoder", watched)
    shard(batch_size=4)
    assert max(ahead) <= (encoding.BATCHES_AHEAD + 1) * 4


def test_the_shard_records_its_provenance(shard):
    shard()
    provenance = {row.KEY: row.VALUE for row in rows(shard, "provenance")}
    assert provenance["encoder_model"] == "a"
    assert {"encoder_digest", "encoder_backend_sha256", "shard_digest"} <= provenance.keys()


def test_the_time_of_every_stage_is_recorded(shard, monkeypatch):
    load = encoding.load_encoder

    def slow(*arguments):
        encoder = load(*arguments)
        encode = encoder.encode_images
        encoder.encode_images = lambda images: time.sleep(0.1) or encode(images)
        return encoder

    monkeypatch.setattr(encoding, "load_encoder", slow)
    counts = shard(batch_size=31)
    assert 0.2 < counts.encoding < counts.total
    assert counts.encoding + counts.waiting < counts.total
    assert min(counts.decoding, counts.writing) > 0
    assert counts.images_per_second == 62 / counts.total
    provenance = {row.KEY: row.VALUE for row in rows(shard, "provenance")}
    assert float(provenance["timing_encoding"]) == counts.encoding
    assert provenance["timing_device"] == "cpu"


@pytest.mark.parametrize(("slow_stage", "n_warnings"), [("decoding", 1), ("none", 0)])
def test_a_gpu_that_waits_for_decoding_is_reported(shard, monkeypatch, caplog, slow_stage, n_warnings):
    load, decode = encoding.load_encoder, DecodeProcess.decode

    def on_a_gpu(*arguments):
        encoder = load(*arguments)
        encoder.device = "cuda"
        if slow_stage == "none":
            encode = encoder.encode_images
            encoder.encode_images = lambda images: time.sleep(0.3) or encode(images)
        return encoder

    monkeypatch.setattr(encoding, "load_encoder", on_a_gpu)
    if slow_stage == "decoding":
        monkeypatch.setattr(DecodeProcess, "decode", lambda *arguments: time.sleep(0.02) or decode(*arguments))
    shard()
    assert len([line for line in caplog.messages if "the cuda waited for decoding" in line]) == n_warnings


def test_thumbnails_and_sizes_are_recorded(shard):
    shard()
    for row in rows(shard, "images"):
        assert (row.WIDTH, row.HEIGHT) > (100, 100)
    assert all(np.frombuffer(row.JPEG[:2], np.uint8).tolist() == [0xFF, 0xD8] for row in rows(shard, "thumbnails"))


def with_encoder(monkeypatch, change):
    """Change the encoder when it is loaded."""
    load = encoding.load_encoder

    def changed(*arguments):
        encoder = load(*arguments)
        change(encoder, encoder.encode_images)
        return encoder

    monkeypatch.setattr(encoding, "load_encoder", changed)


def test_when_memory_runs_out_batches_are_halved_and_nothing_is_lost(shard, monkeypatch, caplog):
    shapes = []

    def with_little_memory(encoder, encode):
        def encode_images(images):
            shapes.append(len(images))
            if len(images) > 3:
                raise MemoryError("tried to allocate 1 GB")
            return encode(images)

        encoder.encode_images = encode_images

    shard(batch_size=2)
    expected = rows(shard, "embeddings")
    with_encoder(monkeypatch, with_little_memory)
    counts = shard(batch_size=8)
    assert counts.n_computed == 62
    assert rows(shard, "embeddings") == expected
    assert shapes[:2] == [8, 4]
    assert set(shapes[2:]) == {2}
    # A batch that is being collected while batches are halved may get an odd size, and is padded.
    assert 31 <= len(shapes[2:]) <= 31 + 2
    lines = [line for line in caplog.messages if "memory" in line]
    assert lines == [
        f"the memory of cpu is too small for batches of {n} images; continuing with batches of {n // 2}" for n in (8, 4)
    ]


def test_too_little_memory_for_one_image_is_one_line(shard, monkeypatch):
    def fail(_images):
        raise MemoryError("tried to allocate 1 GB")

    with_encoder(monkeypatch, lambda encoder, _: setattr(encoder, "encode_images", fail))
    message = r"T: the memory of cpu is too small for one image \(tried to allocate 1 GB\); free some memory, or"
    with pytest.raises(InputError, match=message):
        shard()
    assert list(shard.folder.glob("[0-9]*")) == []


def test_an_encoder_with_streams_is_called_several_times_at_once(shard, monkeypatch):
    shard()
    expected = rows(shard, "embeddings")
    together, n_calls = threading.Barrier(3), []

    def with_streams(encoder, encode):
        def encode_images(images):
            n_calls.append(len(images))
            if len(n_calls) <= 3:
                together.wait(timeout=60)
            time.sleep(0.01 * (len(n_calls) % 3))  # they do not end in order
            return encode(images)

        encoder.n_streams, encoder.batch_size, encoder.encode_images = 3, 4, encode_images

    with_encoder(monkeypatch, with_streams)
    assert shard(batch_size=None).n_computed == 62
    assert rows(shard, "embeddings") == expected
    assert n_calls == [4] * 16, "the batch size of the encoder"


@pytest.mark.usefixtures("decode_in_processes")
def test_a_killed_decoding_process_fails_no_photo(shard, monkeypatch):
    killed = []

    def kill_decoders(encoder, encode):
        def encode_images(images):
            for process in decoders() if not killed else ():
                process.kill()
                killed.append(process.pid)
            return encode(images)

        encoder.encode_images = encode_images

    with_encoder(monkeypatch, kill_decoders)
    assert shard(batch_size=2).n_computed == 62
    assert killed


def test_a_failure_is_logged_with_what_to_do(shard, caplog):
    caplog.set_level("INFO")
    shard(max_pixels=1000)
    lines = [line for line in caplog.messages if "too large" in line]
    assert len(lines) == 62
    assert all(line.endswith("megapixels of max_megapixels): " + advice("too large")) for line in lines)


def test_a_killed_job_leaves_no_decoding_process(shard, tmp_path):
    (tmp_path / "encode").touch()
    program = (
        "import os, sys; from crossfilter_inference.embed import job as embed\n"
        "if __name__ == '__main__':\n"
        "    paths = [f'{sys.argv[1]}/{name}' for name in sys.argv[2:]]\n"
        "    embed.embed_shard(*paths, database=None, batch_size=2, n_threads=2, backends=[os.environ['BACKEND']])\n"
    )
    (tmp_path / "job.py").write_text(program)
    names = ("shards/000001.tsv", "plan.tsv", "encoder.json", "embeddings/000001.sqlite")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow"), "COLOUR_ENCODER_PAUSE": str(tmp_path)}
    environment["BACKEND"] = str(COLOUR_ENCODER)
    job = subprocess.Popen([sys.executable, tmp_path / "job.py", tmp_path, *names], env=environment)
    wait_until((tmp_path / "encode-reached").exists)
    children = psutil.Process(job.pid).children(recursive=True)
    assert len(children) == 2, "two decoders"
    job.kill()
    job.wait()
    assert psutil.wait_procs(children, timeout=20)[1] == []


class Killed(BaseException):
    """End a job in the middle, as a signal would."""


def killed_after(monkeypatch, n_batches):
    """Kill the job in a call of the encoder, after `n_batches` calls; return the sizes of the calls."""
    calls = []

    def change(encoder, encode):
        def encode_images(images):
            calls.append(len(images))
            if len(calls) > n_batches:
                raise Killed
            return encode(images)

        encoder.encode_images = encode_images

    with_encoder(monkeypatch, change)
    return calls


@pytest.mark.parametrize("n_batches", [0, 1, 5])
def test_a_killed_job_is_resumed_and_nothing_is_computed_twice(shard, monkeypatch, n_batches):
    shard(batch_size=4)
    expected = rows(shard, "embeddings"), rows(shard, "images"), rows(shard, "thumbnails")
    with monkeypatch.context() as patch:
        killed_after(patch, n_batches)
        with pytest.raises(Killed):
            shard(batch_size=4, n_threads=1)
    counts = shard(batch_size=4, anew=False)
    assert (counts.n_resumed, counts.n_computed) == (4 * n_batches, 62 - 4 * n_batches)
    assert (rows(shard, "embeddings"), rows(shard, "images"), rows(shard, "thumbnails")) == expected
    assert [path.name for path in shard.folder.iterdir()] == ["000001.sqlite"]


@pytest.mark.parametrize("n_streams", [1, 2])
def test_no_batch_is_encoded_after_a_write_has_failed(shard, monkeypatch, n_streams):
    calls = []

    def change(encoder, encode):
        def encode_images(images):
            calls.append(len(images))
            return encode(images)

        encoder.encode_images, encoder.n_streams = encode_images, n_streams

    def fail(*arguments, **options):
        time.sleep(0.5)  # in which more batches are queued
        raise OSError(28, "No space left on device")

    with_encoder(monkeypatch, change)
    monkeypatch.setattr("crossfilter_inference.shards.journal.RowsLog.add", fail)
    with pytest.raises(OSError, match="No space left"):
        shard(batch_size=2)
    time.sleep(0.5)
    assert len(calls) <= n_streams


def test_several_killed_jobs_are_resumed(shard, monkeypatch):
    for _ in range(3):
        with monkeypatch.context() as patch:
            killed_after(patch, 2)
            with pytest.raises(Killed):
                shard(batch_size=4)
    assert shard().n_resumed == 24


def test_adopted_rows_are_not_resumed_because_their_check_is_not_complete(shard, monkeypatch):
    shard()
    database = shard.folder.parent / "x.sqlite"
    with writing(database) as connection:
        tables = Tables("T")
        tables.create(connection, tables.embeddings)
        values = [{"UUID": row.UUID, "EMBEDDING": row.EMBEDDING} for row in rows(shard, "embeddings")]
        connection.execute(tables.embeddings.insert(), values)
    with monkeypatch.context() as patch:
        killed_after(patch, 1)
        with pytest.raises(Killed):
            shard(batch_size=2, database=str(database))
    counts = shard(database=str(database))
    assert (counts.n_resumed, counts.n_adopted, counts.n_computed) == (0, 62, 0)


def test_a_torn_journal_is_read_up_to_the_tear(shard, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(Killed):
            shard(batch_size=4)
    [log] = shard.folder.glob(".*.rows")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data[:-3])
    counts = shard()
    assert 8 <= counts.n_resumed <= 11
    assert counts.n_resumed + counts.n_computed == 62


@pytest.mark.parametrize("what", ["encoder", "list", "photo"])
def test_rows_of_another_encoder_list_or_photo_are_not_resumed(shard, monkeypatch, what):
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(Killed):
            shard(batch_size=4)
    folder = shard.folder.parent
    if what == "encoder":
        encoder = resolve_encoder("T", {"backend": str(COLOUR_ENCODER), "model": "another"})
        (folder / "encoder.json").write_text(json.dumps(encoder))
    elif what == "list":
        lines = (folder / "shards" / "000001.tsv").read_text().splitlines(keepends=True)
        (folder / "shards" / "000001.tsv").write_text("".join(lines[:-1]))
    else:
        images, rejected = read_plan(folder / "plan.tsv")
        images[0] = images[0]._replace(mtime_ns=1)
        write_plan(folder / "plan.tsv", Plan(images, rejected, []))
    counts = shard()
    assert counts.n_resumed == (19 if what == "photo" else 0)
    assert counts.n_resumed + counts.n_computed == (62 if what == "encoder" else 61)


def test_a_job_that_another_has_replaced_ends_and_leaves_the_shard_alone(shard, monkeypatch):
    """The job outlives its killed Snakemake; the job of the next run replaces it and finishes first."""
    successor = []

    def change(encoder, encode):
        def encode_images(images):
            if not successor:
                successor.append(None)
                successor[0] = shard(batch_size=4)
                (shard.folder / "000001.sqlite").rename(shard.folder / "published")
            return encode(images)

        encoder.encode_images = encode_images

    with_encoder(monkeypatch, change)
    with pytest.raises(InputError, match="a newer job has replaced this one, which a killed run left behind"):
        shard(batch_size=4, n_threads=1)
    assert successor[0].n_computed == 62
    assert [path.name for path in shard.folder.iterdir()] == ["published"]


def test_an_up_to_date_shard_is_kept(shard, monkeypatch):
    shard()
    before = identity(shard.folder / "000001.sqlite")
    (shard.folder / ".000001.left.rows").touch()
    monkeypatch.setattr(DecodeProcess, "decode", None)
    assert shard(anew=False).n_kept == 62
    assert [path.name for path in shard.folder.iterdir()] == ["000001.sqlite"]
    assert identity(shard.folder / "000001.sqlite") == before


@pytest.mark.parametrize("why", ["another encoder", "another list", "a photo more", "damaged"])
def test_an_outdated_or_damaged_shard_is_rebuilt(shard, why):
    shard()
    folder = shard.folder.parent
    if why == "another encoder":
        encoder = resolve_encoder("T", {"backend": str(COLOUR_ENCODER), "model": "another"})
        (folder / "encoder.json").write_text(json.dumps(encoder))
    elif why == "another list":
        lines = (folder / "shards" / "000001.tsv").read_text().splitlines(keepends=True)
        (folder / "shards" / "000001.tsv").write_text("".join(lines[:-1]))
    elif why == "a photo more":
        with writing(shard.folder / "000001.sqlite") as connection:
            uuid = connection.scalar(text("SELECT min(UUID) FROM T_IMAGES"))
            connection.execute(text("DELETE FROM T_IMAGES WHERE UUID = :uuid"), {"uuid": uuid})
    else:
        (shard.folder / "000001.sqlite").write_bytes(b"x" * 5000)
    assert shard(anew=False).n_computed == (61 if why == "another list" else 62)


@pytest.mark.parametrize("change", ["touch", "remove", "fifo", "empty"])
def test_an_unreadable_photo_stays_without_an_owner(tmp_path, shard, change):
    photos = tmp_path / "photos"
    photos.mkdir()
    paths = [shutil.copy2(path, photos) for path in DEMO_PHOTOS[:5]]
    images = scan_folders([str(photos)], [".jpg"]).images
    folder = shard.folder.parent
    (folder / "shards" / "000001.tsv").unlink()
    write_plan(folder / "plan.tsv", make_plan({}, images, [], 100))
    write_manifest(folder / "plan.tsv", folder / "manifest.tsv", folder / "rejected.tsv", folder / "shards")
    bad = photos / os.path.basename(paths[2])
    if change == "touch":
        os.utime(bad, (1, 1))
    elif change == "empty":
        bad.write_bytes(b"")
    else:
        bad.unlink()
        if change == "fifo":
            os.mkfifo(bad)
    counts = shard()
    assert (counts.n_computed, counts.n_failed) == (4, 1)
    assert make_plan(read_shard_lists(folder), images, [], 100).new_shards == ["000002"]
    [owned] = [
        image.uuid for image in make_plan(read_shard_lists(folder), images, [], 100).images if image.shard > "000001"
    ]
    assert owned == bad.stem


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_photos_with_times_outside_64_bits_are_embedded_and_known_again(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "embeddings").mkdir()
    for year, path in zip((1500, 1677, 1970, 2300, 9999), DEMO_PHOTOS, strict=False):
        shutil.copy(path, tmp_path / "photos")
        subprocess.run(["touch", "-d", f"{year}-01-01", tmp_path / "photos" / path.name], check=True)
    scan = scan_folders([str(tmp_path / "photos")], [".jpg"])
    write_plan(tmp_path / "plan.tsv", make_plan({}, scan.images, [], 100))
    write_manifest(*(str(tmp_path / name) for name in ("plan.tsv", "manifest.tsv", "rejected.tsv", "shards")))
    encoder = resolve_encoder("T", {"backend": str(COLOUR_ENCODER), "model": "a"})
    (tmp_path / "encoder.json").write_text(json.dumps(encoder))
    paths = ("shards/000001.tsv", "plan.tsv", "encoder.json", "embeddings/000001.sqlite")
    options = {"database": None, "batch_size": 8, "n_threads": 1, "backends": [str(COLOUR_ENCODER)]}
    counts = embed.embed_shard(*(str(tmp_path / path) for path in paths), **options)
    assert (counts.n_computed, counts.n_failed) == (5, 0)
    with reading(tmp_path / "embeddings" / "000001.sqlite") as connection:
        stored = connection.execute(text("SELECT UUID, SIZE, MTIME_NS FROM T_IMAGES")).tuples().all()
    assert {*stored} == {(image.uuid, image.size, image.mtime_ns) for image in scan.images}
    assert (
        make_plan(
            read_shard_lists(tmp_path), scan_folders([str(tmp_path / "photos")], [".jpg"]).images, [], 9
        ).new_shards
        == []
    )
