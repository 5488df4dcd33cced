"""A sample of photos is embedded again, and rows that differ are named."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOUR_ENCODER, DEMO_PHOTOS
from test_decode_process import with_fault
from verified import UUID

from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.embed import batches
from crossfilter_inference.util.files import read_json, write_json

pytest_plugins = "verified"


def test_a_row_unlike_its_photo_is_named(collection):
    collection.sql(
        "UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?",
        (pack_embedding(np.eye(48)[0]), UUID(3)),
    )
    collection.stamp_rows()
    name, text = collection.failed(sample=20)
    assert name == "sample"
    assert re.fullmatch(
        rf"1 photo with a new embedding unlike the stored one \(\S+/{UUID(3)}\.jpg: cosine 0\.\d{{4}}\): "
        "run once with --config recompute_existing_embeddings=true",
        text,
    )


def test_a_row_of_garbage_is_named(collection):
    garbage = np.full(48, 0x7FA00000, "<u4").view("<f4")  # signalling NaN, which numpy warns of
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?", (pack_embedding(garbage), UUID(3)))
    collection.stamp_rows()
    verified = collection.verify(sample=20)
    assert verified["embeddings"][0] == "FAILED"
    assert verified["sample"][0] == "FAILED"
    assert UUID(3) in verified["sample"][1]


def test_a_file_changed_without_new_size_or_time_is_named(collection):
    path = collection.photos / f"{UUID(3)}.jpg"
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    other = next(data for data in map(Path.read_bytes, DEMO_PHOTOS) if len(data) < size)
    path.write_bytes(other.ljust(size, b"\0"))
    os.utime(path, ns=(time, time))
    assert collection.failed(sample=20) == (
        "sample",
        f"1 file with new content under the old size and time ({path}): touch these files and run the workflow",
    )
    path.touch()
    collection.run()
    assert collection.passes()


def test_a_file_destroyed_without_new_size_or_time_is_named(collection):
    path = collection.photos / f"{UUID(3)}.jpg"
    time = path.stat().st_mtime_ns
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(time, time))
    name, text = collection.failed(sample=20)
    assert name == "sample"
    assert text.startswith(f"1 photo no longer decodable ({path}: ")
    assert text.endswith("): restore these files, or touch them and run the workflow")


def test_changed_and_missing_photos_are_left_out_of_the_sample(collection):
    collection.photo(3, source=9, mtime_ns=5)
    (collection.photos / f"{UUID(1)}.jpg").unlink()
    assert collection.verify(sample=20)["sample"] == ("ok", "5 photos re-embedded, lowest cosine 1.000000")
    assert collection.verify(sample=2)["sample"] == ("ok", "2 photos re-embedded, lowest cosine 1.000000")
    for number, path in enumerate(sorted(collection.photos.glob(f"{UUID(0)[:-1]}*"))):
        path.unlink()
        if number % 2:
            path.touch()
    assert collection.verify(sample=2)["sample"] == ("skipped", "all sampled photos are missing or have changed")


def test_a_manifest_with_sizes_that_are_no_numbers_is_named(collection):
    manifest = collection.folder / "manifest.tsv"
    head, *rows = manifest.read_text().splitlines()
    cells = [row.split("\t") for row in rows]
    lines = [head, *("\t".join([uuid, path, "much", *rest]) for uuid, path, _, *rest in cells)]
    manifest.write_text("\n".join(lines) + "\n")
    state, text = collection.verify(sample=2)["sample"]
    assert state == "FAILED"
    assert "manifest.tsv' is missing or damaged" in text


def test_an_encoder_that_cannot_be_loaded_is_reported(collection, tmp_path):
    backend = tmp_path / "encoder.py"
    backend.write_text(COLOUR_ENCODER.read_text())
    path = collection.folder / "encoder.json"
    write_json(path, {**read_json(path), "backend": str(backend)})
    assert "the configuration does not, so it is not run" in collection.failed(sample=20)[1]
    encoders = {"T": {"backend": str(backend), "model": "model"}}
    state, _ = collection.verify(sample=20, encoders=encoders)["sample"]
    assert state == "ok"
    backend.write_text("")
    state, text = collection.verify(sample=20, encoders=encoders)["sample"]
    assert state == "FAILED"
    assert "no longer matches encoder.json" in text


def test_an_encoder_that_fails_is_reported(collection, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("why")

    monkeypatch.setattr(batches, "load_encoder", fail)
    assert collection.failed(sample=20) == (
        "sample",
        "the encoder failed (RuntimeError: why): fix it and verify again",
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param("sum(range(10**9))", "decoding takes more than 9 s of CPU time", marks=pytest.mark.slow),
        ("ctypes.string_at(0)", r"the decoder crashed \(SIGSEGV\)"),
    ],
)
def test_a_photo_that_hangs_or_crashes_its_decoder_is_named(
    collection, monkeypatch, decode_in_processes, fault, message
):
    with_fault(monkeypatch, fault, ending="")
    name, text = collection.failed(sample=1)
    assert name == "sample"
    assert re.fullmatch(rf"\d photos? no longer decodable \(.*{message}.*\): restore these files, .*", text), text
