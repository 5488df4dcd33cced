"""A collection of each released format is opened, extended, verified and rebuilt.

No photo is embedded again, unless pixels have changed since (`EMBED_VERSION`); then the plan says so beforehand.

The photos of `tests/data/format-*` are restored to another folder, so that their paths are new.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import DEMO_PHOTOS, PROJECT, Collection, identity

from crossfilter_inference.db.tables import FORMAT_VERSION
from crossfilter_inference.encoders.identity import EMBED_VERSION

FORMATS = sorted((PROJECT / "tests" / "data").glob("format-*"))
MTIME_NS = 1_700_000_000_123_456_789
DAMAGED = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def collection(request, tmp_path):
    folder = tmp_path / "collection"
    shutil.copytree(request.param, folder)
    for path in folder.rglob("*"):  # git keeps no times
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
    photos = folder / "photos"
    for source in DEMO_PHOTOS[:12]:
        shutil.copyfile(source, photos / source.name)
    (photos / f"{DAMAGED}.jpg").write_text("damaged")
    (photos / "holiday.jpg").write_text("rejected: its name is no UUID")
    for path in photos.glob("*.jpg"):
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
    collection = Collection(folder)
    collection.database = folder / "photos.sqlite"
    return collection


def state(collection):
    return collection.database.with_suffix("") / collection.type


def positions(collection):
    return dict(collection.sql("SELECT UUID, round(SEMANTIC_EMBEDDING_UMAP_LATITUDE, 6) FROM {T}_UMAP_HAVERSINE"))


def verify(collection):
    done = collection.script("verify.py", "--sample", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all checks passed\n")


RELEASED_FORMAT = 1  # of the last release


def test_every_released_format_has_a_collection():
    assert {path.name for path in FORMATS} == {f"format-{number}" for number in range(1, RELEASED_FORMAT + 1)}


def has_old_pixels(collection):
    return json.loads((state(collection) / "encoder.json").read_text())["embed_version"] < EMBED_VERSION


@pytest.mark.slow
def test_an_upgrade_embeds_again_only_if_pixels_changed_and_then_a_new_photo_alone(collection):
    before, map_before = collection.embeddings(), positions(collection)
    shards = {path: identity(path) for path in state(collection).glob("embeddings/*.sqlite")}
    assert len(before) == len(map_before) == 12
    assert len(shards) == 3
    announced = "upgrade: all 13 photos will be embedded again, because colours"
    plan = collection.snakemake("-n")
    assert (announced in plan.stdout) == has_old_pixels(collection)
    assert collection.embeddings() == before, "a dry run changes nothing"
    if has_old_pixels(collection):
        assert collection.run()["embed_shard"] == 3
        assert collection.embeddings().keys() == before.keys()
        assert announced not in collection.snakemake("-n").stdout
        before = collection.embeddings()
        shards = {path: identity(path) for path in shards}
    else:
        assert "embed_shard" not in collection.run()
        assert collection.embeddings() == before
        assert positions(collection) == map_before
    verify(collection)
    assert collection.dry_run() == {}

    new = [shutil.copy2(path, collection.folder / "photos") for path in DEMO_PHOTOS[12:15]]
    assert collection.run()["embed_shard"] == 1
    made = state(collection) / "embeddings" / "000004.sqlite"
    assert collection.sql("SELECT VALUE FROM {T}_PROVENANCE WHERE KEY = 'timing_n_computed'", made) == [("3",)]
    assert {path: identity(path) for path in shards} == shards, "old shards are not touched"
    rows = collection.embeddings()
    assert rows.keys() - before.keys() == {Path(path).stem for path in new}
    assert rows.items() >= before.items()
    verify(collection)


@pytest.mark.slow
def test_a_deleted_database_is_rebuilt_from_shards_of_an_older_format(collection):
    before, map_before = collection.embeddings(), positions(collection)
    collection.database.unlink()
    if has_old_pixels(collection):
        assert collection.run()["embed_shard"] == 3
        assert collection.embeddings().keys() == before.keys() == positions(collection).keys()
    else:
        assert "embed_shard" not in collection.run()
        assert collection.embeddings() == before
        assert positions(collection) == map_before
    assert collection.sql("SELECT UUID FROM {T}_FAILURES") == [(DAMAGED,)]
    assert collection.sql("SELECT VALUE FROM {T}_PROVENANCE WHERE KEY = 'format_version'") == [(str(FORMAT_VERSION),)]
    verify(collection)


@pytest.mark.slow
def test_an_upgrade_keeps_the_embeddings_of_missing_photos_and_says_so(collection):
    collection.configure(reproject_umap_embeddings=False)
    version = json.loads((state(collection) / "encoder.json").read_text())["embed_version"]
    is_older = version < EMBED_VERSION
    before = collection.embeddings()
    gone = collection.folder / "photos" / DEMO_PHOTOS[0].name
    gone.rename(collection.folder / gone.name)
    announced = f"1 embedding of missing photos will stay as embed version {version}"
    assert (announced in collection.snakemake("-n").stdout) == is_older
    done = collection.snakemake()
    assert done.returncode == 0, done.stdout
    kept = f"kept:     1 embedding of missing photos, of embed version {version}; a photo that returns"
    assert (kept in done.stdout) == is_older
    versions = "SELECT EMBED_VERSION, count(*) FROM {T}_IMAGES GROUP BY 1 ORDER BY 1"
    assert collection.sql(versions) == ([(version, 1), (EMBED_VERSION, 11)] if is_older else [(EMBED_VERSION, 12)])
    assert collection.embeddings()[gone.stem] == before[gone.stem]
    verified = collection.script("verify.py", "--sample", "3")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert ("1 row of missing photos, 1 of another embed version" in verified.stdout) == is_older

    rows, in_images = collection.embeddings(), collection.sql(versions)
    collection.database.unlink()
    assert "embed_shard" not in collection.run()
    assert (collection.embeddings(), collection.sql(versions)) == (rows, in_images)

    (collection.folder / gone.name).rename(gone)
    assert ("embed_shard" in collection.run()) == is_older
    assert collection.sql(versions) == [(EMBED_VERSION, 12)]
    assert collection.script("verify.py", "--sample", "0").returncode == 0
    assert collection.dry_run() == {}
