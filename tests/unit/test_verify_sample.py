"""Photos are embedded again, and rows that are unlike them are named."""

import os
import re
from pathlib import Path

import numpy as np
from conftest import COLOUR_ENCODER, DEMO_PHOTOS
from verified import UUID

from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.embed import batches as encoding
from crossfilter_inference.util.files import read_json, write_json

pytest_plugins = "verified"


def test_a_row_that_its_photo_does_not_give_is_named(collection):
    collection.sql(
        "UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?",
        (pack_embedding(np.eye(48)[0]), UUID(3)),
    )
    collection.stamp_rows()
    name, text = collection.failed(sample=20)
    assert name == "sample"
    assert re.fullmatch(
        rf"1 photos embedded again are unlike their rows \({UUID(3)}: 0\.\d{{4}}\): run once with --config "
        "recompute_existing_embeddings=true",
        text,
    )


def test_a_row_of_rubbish_is_named(collection):
    rubbish = np.full(48, 0x7FA00000, "<u4").view("<f4")  # signalling NaN, which numpy warns of
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?", (pack_embedding(rubbish), UUID(3)))
    collection.stamp_rows()
    verified = collection.verify(sample=20)
    assert verified["embeddings"][0] == "FAILED"
    assert verified["sample"][0] == "FAILED"
    assert UUID(3) in verified["sample"][1]


def test_a_file_that_has_changed_without_a_trace_is_named(collection):
    path = collection.photos / f"{UUID(3)}.jpg"
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    other = next(data for data in map(Path.read_bytes, DEMO_PHOTOS) if len(data) < size)
    path.write_bytes(other.ljust(size, b"\0"))
    os.utime(path, ns=(time, time))
    assert collection.failed(sample=20) == (
        "sample",
        f"1 files have changed, and not their size and time ({path}): touch them and run snakemake",
    )
    path.touch()
    collection.run()
    assert collection.is_well()


def test_a_file_that_was_destroyed_without_a_trace_is_named(collection):
    path = collection.photos / f"{UUID(3)}.jpg"
    time = path.stat().st_mtime_ns
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(time, time))
    name, text = collection.failed(sample=20)
    assert name == "sample"
    assert text.startswith(f"1 photos cannot be decoded any more ({path}: ")
    assert text.endswith("): put them back, or touch them and run snakemake")


def test_photos_that_changed_or_went_are_left_out_of_the_sample(collection):
    collection.photo(3, source=9, mtime_ns=5)
    (collection.photos / f"{UUID(1)}.jpg").unlink()
    assert collection.verify(sample=20)["sample"] == ("ok", "5 photos embedded again, least cosine 1.000000")
    assert collection.verify(sample=2)["sample"] == ("ok", "2 photos embedded again, least cosine 1.000000")
    for path in collection.photos.glob(f"{UUID(0)[:-1]}*"):
        path.unlink()
    assert collection.verify(sample=2)["sample"] == ("skipped", "no photo is there as it was embedded")


def test_an_encoder_that_cannot_be_loaded_is_told(collection, tmp_path):
    backend = tmp_path / "encoder.py"
    backend.write_text(COLOUR_ENCODER.read_text())
    path = collection.folder / "encoder.json"
    write_json(path, {**read_json(path), "backend": str(backend)})
    collection.is_well()
    backend.write_text("")
    name, text = collection.failed(sample=20)
    assert name == "sample"
    assert "is no longer what encoder.json describes" in text


def test_an_encoder_that_fails_is_no_traceback(collection, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("why")

    monkeypatch.setattr(encoding, "load_encoder", fail)
    assert collection.failed(sample=20) == ("sample", "the encoder does not work (RuntimeError: why)")
