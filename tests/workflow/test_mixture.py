"""Embeddings of two encoders are never mixed in one table: one test for each possible cause."""

import json
import os
import shutil
import sqlite3

import msgpack_numpy
import numpy as np
import pytest
from colour_encoder import PREPROCESSING, ColourEncoder
from conftest import DEMO_PHOTOS, new_collection
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file
from test_siglip import save_checkpoint

from crossfilter_inference.db.embeddings import unpack_embedding
from crossfilter_inference.encoders.registry import load_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.image import load_image

OTHER = "a name so long that the embeddings are far from those of the first model" * 5


def change_model(collection, model="another"):
    encoders = collection.config()["encoders"]
    encoders["COLOUR"]["model"] = model
    collection.configure(encoders=encoders)


def refused(collection, *options):
    """Check that a run ends in one line, and does not change the database; return the line and all output."""
    before = collection.database.read_bytes()
    done = collection.snakemake(*options)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert collection.database.read_bytes() == before
    lines = {line for line in done.stdout.splitlines() if "_EMBEDDINGS " in line or "another encoder" in line}
    assert lines, done.stdout
    return min(lines, key=len).removeprefix("error: "), done.stdout


def as_the_original(collection, embeddings, path=None):
    """Write a database as the original tool does: only its tables."""
    path = path or collection.database
    path.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute(f'CREATE TABLE "{collection.type}_EMBEDDINGS" ("UUID" TEXT PRIMARY KEY, "EMBEDDING" BLOB)')
    rows = [(uuid, msgpack_numpy.packb(embedding)) for uuid, embedding in embeddings.items()]
    connection.executemany(f"INSERT INTO {collection.type}_EMBEDDINGS VALUES (?, ?)", rows)
    connection.commit()
    connection.close()


def as_the_application(collection, embeddings):
    """Write the tables of Crossfilter's application, with a map."""
    collection.database.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(collection.database)
    connection.execute("CREATE TABLE IMAGE_EMBEDDINGS (UUID_STRING STRING, SEMANTIC_EMBEDDING TEXT)")
    connection.execute("CREATE UNIQUE INDEX idx_IMAGE_EMBEDDINGS_uuid ON IMAGE_EMBEDDINGS (UUID_STRING)")
    rows = [(uuid, msgpack_numpy.packb(embedding)) for uuid, embedding in embeddings.items()]
    connection.executemany("INSERT INTO IMAGE_EMBEDDINGS VALUES (?, ?)", rows)
    connection.execute(
        "CREATE TABLE IMAGE_UMAP_PROJECTIONS (UUID_STRING STRING, SEMANTIC_EMBEDDING_UMAP_LATITUDE REAL)"
    )
    connection.execute("CREATE TABLE UMAP_MODEL (UUID_STRING STRING, MODEL TEXT)")
    connection.execute("INSERT INTO UMAP_MODEL VALUES ('UMAP_MODEL', x'80')")
    connection.commit()
    connection.close()


def embeddings_of(n_photos, model):
    """The embeddings of an undisturbed run."""
    encoder = ColourEncoder({"weights_sha256": model})
    pixels = {path.stem: load_image(path.read_bytes(), PREPROCESSING).pixels for path in DEMO_PHOTOS[:n_photos]}
    return {uuid: encoder.encode_images(image[None])[0] for uuid, image in pixels.items()}


@pytest.fixture(scope="module")
def of_the_same_model():
    """Rows of 20 photos."""
    return embeddings_of(20, "a")


@pytest.fixture(scope="module")
def of_another_model():
    """Rows of another model with the same dimension, of 12 photos."""
    return embeddings_of(12, OTHER)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Five photos after their first run; `take_back()` before each use."""
    collection = new_collection(tmp_path_factory.mktemp("first") / "collection", 5)
    collection.run()
    collection.keep()
    return collection


@pytest.fixture(scope="module")
def shard_of_another_model(tmp_path_factory):
    other = new_collection(tmp_path_factory.mktemp("other") / "collection", 5)
    change_model(other)
    other.run()
    return other.state / "embeddings" / "000001.sqlite"


def first_rows(rows, n):
    return {uuid: rows[uuid] for uuid in sorted(rows)[:n]}


@pytest.mark.slow
def test_by_a_copied_shard_file(first_run, shard_of_another_model):
    first_run.take_back()
    collection = first_run
    shutil.copy(shard_of_another_model, collection.state / "embeddings")
    collection.add_photos(3)
    line, output = refused(collection)
    assert "embeddings/000001.sqlite' comes from another encoder (model: another -> a; weights_sha256: " in line
    assert line.endswith("delete it and run the workflow to embed its photos again")
    assert "embed shard" not in output
    (collection.state / "embeddings" / "000001.sqlite").unlink()
    collection.run()
    assert len(collection.embeddings()) == 8


@pytest.mark.slow
def test_by_a_copied_shard_file_that_kept_an_old_time(first_run, shard_of_another_model):
    first_run.take_back()
    collection = first_run
    shard = collection.state / "embeddings" / "000001.sqlite"
    shutil.copy(shard_of_another_model, shard)
    os.utime(shard, (1_500_000_000, 1_500_000_000))
    collection.add_photos(3)
    line, _ = refused(collection)
    assert "embeddings/000001.sqlite' comes from another encoder (model: another -> a; " in line


@pytest.mark.slow
def test_by_adopting_rows_of_another_model(make_collection, of_another_model):
    collection = make_collection(12)
    as_the_original(collection, of_another_model)
    line, _ = refused(collection)
    assert "COLOUR_EMBEDDINGS holds 12 embeddings of unknown origin for these photos, which do not match" in line
    assert "expected at least 0.999; set recompute_existing_embeddings: true for one run" in line
    collection.run("--config", "recompute_existing_embeddings=true")
    assert all(unpack_embedding(row) @ of_another_model[uuid] < 0.999 for uuid, row in collection.embeddings().items())


@pytest.mark.slow
def test_by_rows_of_another_model_for_missing_photos(make_collection, of_another_model):
    collection = make_collection(0)
    as_the_original(collection, of_another_model)
    shutil.copy(DEMO_PHOTOS[0], collection.folder / "photos" / "00000000-0000-4000-8000-000000000000.jpg")
    line, _ = refused(collection)
    assert "has 12 embeddings of missing photos, of unknown origin" in line
    assert "(no photo remains to check them); set missing_images: delete" in line
    collection.run("--config", "missing_images=delete", "max_deleted_share=1")
    assert len(collection.embeddings()) == 1


@pytest.mark.slow
def test_by_recomputing_everything_with_rows_of_another_model_for_missing_photos(make_collection, of_another_model):
    collection = make_collection(11)
    as_the_original(collection, of_another_model)
    line, _ = refused(collection)
    assert "which do not match a" in line
    line, _ = refused(collection, "--config", "recompute_existing_embeddings=true")
    assert "has 1 embedding of missing photos, of unknown origin" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row[:40], "has 40 dimensions, expected 48"),
        (lambda row: row * 3, r"has length 3, expected 1"),
        (lambda row: row.astype(np.float64), "has 96 dimensions, expected 48"),
    ],
)
def test_by_adopting_rows_that_cannot_be_right(make_collection, of_the_same_model, spoil, message):
    collection = make_collection(3)
    as_the_original(collection, {uuid: spoil(row) for uuid, row in first_rows(of_the_same_model, 3).items()})
    line, _ = refused(collection)
    assert message in line


@pytest.mark.slow
def test_rows_of_the_same_model_are_adopted_and_only_new_photos_embedded(make_collection, of_the_same_model):
    collection = make_collection(12)
    # As from another computer: the last bits differ.
    rows = {uuid: row * np.float32(1 + 1e-6) for uuid, row in of_the_same_model.items()}
    kept = {uuid: rows[uuid] for uuid in list(rows)[2:]}
    as_the_original(collection, kept)
    done = collection.snakemake()
    assert done.returncode == 0, done.stdout
    assert "embedded 2 photos, copied 0, adopted 10, failed 0" in done.stdout
    after = collection.embeddings()
    assert len(after) == 20
    assert {uuid: after[uuid] for uuid in kept} == {uuid: msgpack_numpy.packb(row) for uuid, row in kept.items()}
    assert collection.sql("SELECT count(*) FROM {T}_IMAGES") == [(12,)]
    assert collection.dry_run() == {}
    collection.add_photos(3)
    assert collection.run() == {"write_manifest": 1, "embed_shard": 1, "store_embeddings": 1}


@pytest.mark.slow
def test_rows_of_the_application_are_adopted_and_stay_as_they_are(make_collection, of_the_same_model):
    collection = make_collection(12)
    kept = dict(list(of_the_same_model.items())[2:])
    as_the_application(collection, kept)
    theirs = "SELECT * FROM IMAGE_EMBEDDINGS, UMAP_MODEL ORDER BY 1"
    before = collection.sql(theirs)
    done = collection.snakemake()
    assert done.returncode == 0, done.stdout
    assert (
        "to adopt, if this encoder could have made them: 10 embeddings of Crossfilter's application "
        "(IMAGE_EMBEDDINGS); photos not found: 8" in done.stdout
    )
    assert "embedded 2 photos, copied 0, adopted 10, failed 0" in done.stdout
    after = collection.embeddings()
    assert after.keys() == {path.stem for path in DEMO_PHOTOS[:12]}
    assert {uuid: after[uuid] for uuid in after.keys() & kept} == {
        uuid: msgpack_numpy.packb(kept[uuid]) for uuid in after.keys() & kept
    }
    assert collection.sql(theirs) == before
    assert collection.dry_run() == {}
    collection.add_photos(3)
    done = collection.snakemake()
    assert "embedded 0 photos, copied 0, adopted 3, failed 0" in done.stdout


@pytest.mark.slow
def test_rows_of_the_application_from_another_model_are_not_used(make_collection, of_the_same_model):
    collection = make_collection(3)
    as_the_application(collection, {uuid: np.resize(row, 1152) for uuid, row in of_the_same_model.items()})
    done = collection.snakemake()
    assert done.returncode == 0, done.stdout
    assert "IMAGE_EMBEDDINGS, of Crossfilter's application, has rows for 3 photos that are not used" in done.stdout
    assert "set encoders: {COLOUR: {model: google/siglip-so400m-patch14-384}}" in done.stdout
    assert "embedded 3 photos, copied 0, failed 0" in done.stdout


@pytest.mark.slow
def test_a_photo_on_its_side_is_not_adopted(make_collection, of_the_same_model):
    collection = make_collection(3)
    turned = sorted((collection.folder / "photos").iterdir())[0]
    rows = first_rows(of_the_same_model, 3)  # as the original sees it: without EXIF
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(turned) as image:
        image.save(turned, quality=95, exif=exif)
    as_the_original(collection, rows)
    done = collection.snakemake()
    assert "embedded 1 photo, copied 0, adopted 2, failed 0" in done.stdout
    assert not np.array_equal(unpack_embedding(collection.embeddings()[turned.stem]), rows[turned.stem])


@pytest.mark.slow
def test_by_a_changed_configuration_with_rows_of_missing_photos(make_collection):
    collection = make_collection(12, shard_size=5)
    collection.run()
    before = collection.embeddings()
    next((collection.folder / "photos").iterdir()).unlink()
    collection.run()
    assert collection.embeddings() == before
    first = collection.config()["encoders"]
    change_model(collection)
    done = collection.snakemake()
    assert done.returncode != 0
    assert "error: COLOUR_EMBEDDINGS has 1 embedding of missing photos" in done.stdout
    assert "(model: a -> another; weights_sha256: a -> another); set missing_images: delete" in done.stdout
    assert "embed shard" not in done.stdout, "nothing may be computed before"
    assert collection.embeddings() == before
    configured = collection.config()
    collection.configure(encoders=first)
    assert collection.dry_run() == {}, "a refused encoder leaves everything as it was"
    photos = collection.folder / "photos"
    shutil.copy(next(photos.iterdir()), photos / "00000000-0000-4000-8000-000000000000.jpg")
    assert collection.dry_run() == {"write_manifest": 1, "embed_shard": 1, "store_embeddings": 1}
    collection.configure(encoders=configured["encoders"], missing_images="delete")
    collection.run()
    assert collection.embeddings().keys() == {path.stem for path in photos.iterdir()}
    assert collection.dry_run() == {}


def siglip_collection(make_collection, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", "siglip")
    encoders = {"SIGLIP2": {"backend": "siglip", "model": str(tmp_path / "checkpoint")}}
    collection = make_collection(3, embedding_type="SIGLIP2", encoders=encoders)
    return collection


def put_another_checkpoint(tmp_path):
    """Replace the weights by others of the same size with an older timestamp."""
    weights = tmp_path / "checkpoint" / "model.safetensors"
    save_file({name: tensor * 1.1 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    os.utime(weights, (1_500_000_000, 1_500_000_000))


@pytest.mark.slow
def test_by_another_checkpoint_in_the_same_folder(make_collection, tmp_path):
    collection = siglip_collection(make_collection, tmp_path)
    collection.run()
    put_another_checkpoint(tmp_path)
    assert collection.dry_run() == {"resolve_encoder": 1, "embed_shard": 1, "store_embeddings": 1}
    next((collection.folder / "photos").iterdir()).unlink()
    line, _ = refused(collection)
    assert "SIGLIP2_EMBEDDINGS has 1 embedding of missing photos" in line
    assert "(weights_sha256: " in line


@pytest.mark.slow
def test_by_another_checkpoint_that_appears_during_the_run(make_collection, tmp_path):
    collection = siglip_collection(make_collection, tmp_path)
    collection.run()
    before = collection.embeddings()
    put_another_checkpoint(tmp_path)
    # A job that starts after the weights have changed.
    with pytest.raises(InputError, match=r"checkpoint' no longer matches encoder.json; run the same command"):
        load_encoder(json.loads((collection.state / "encoder.json").read_text()))
    collection.add_photos(2)
    collection.run()
    assert len(collection.embeddings()) == 5
    assert all(row != before[uuid] for uuid, row in collection.embeddings().items() if uuid in before)
