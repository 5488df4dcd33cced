"""Tables and files that do not agree are told, photo by photo, with a way out that mends it."""

import os
import re
import shutil

import numpy as np
import pytest
from verified import FAILED_PHOTO, UUID

from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.util.files import read_json, write_json
from crossfilter_inference.verify import checks

pytest_plugins = "verified"


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (f"DELETE FROM T_FAILURES WHERE UUID = '{FAILED_PHOTO}'", f"1 photos without fate ({FAILED_PHOTO})"),
        (f"INSERT INTO T_FAILURES (UUID, SHARD) VALUES ('{UUID(1)}', '000001')", "1 photos with two fates"),
        (f"INSERT INTO T_FAILURES (UUID, SHARD) VALUES ('{UUID(77)}', '000001')", "1 rows of T_FAILURES without photo"),
        (f"DELETE FROM T_IMAGES WHERE UUID = '{UUID(1)}'", "1 photos without row in T_IMAGES"),
        (f"INSERT INTO T_IMAGES (UUID) VALUES ('{UUID(77)}')", "1 rows of T_IMAGES without embedding"),
        ("UPDATE T_IMAGES SET SHARD = '000009'", "7 rows from another shard or file than the manifest's"),
        ("UPDATE T_IMAGES SET SIZE = SIZE + 1", "7 rows from another shard or file than the manifest's"),
        ("UPDATE T_IMAGES SET MTIME_NS = 0", "7 rows from another shard or file than the manifest's"),
        ("UPDATE T_FAILURES SET SHARD = '000009'", "1 rows from another shard or file than the manifest's"),
    ],
)
def test_every_photo_has_one_fate_and_every_row_its_photo(collection, statement, what):
    collection.sql(statement)
    name, text = collection.failed()
    manifest = collection.folder / "manifest.tsv"
    assert name == "fates"
    assert text.startswith(what)
    assert f": delete '{manifest}' too, and delete '{collection.database}' and run snakemake" in text
    manifest.unlink()
    collection.rebuild()
    assert collection.is_well()


def test_an_embedding_that_is_missing_is_missed(collection):
    collection.sql(f"DELETE FROM T_EMBEDDINGS WHERE UUID = '{UUID(1)}'")
    collection.sql(f"DELETE FROM T_UMAP_HAVERSINE WHERE UUID = '{UUID(1)}'")
    collection.stamp_rows()
    found = collection.verify()
    assert found["fates"][0] == "FAILED"
    assert "1 rows of T_IMAGES without embedding" in found["fates"][1]
    assert f"1 photos without fate ({UUID(1)})" in found["fates"][1]


def test_a_run_that_was_broken_off_before_the_merge_is_gone_on_with(collection):
    collection.photo(20, source=20)
    collection.plan()
    name, text = collection.failed()
    assert name == "fates"
    assert (
        text == f"1 photos without fate ({UUID(20)}): delete '{collection.folder / 'manifest.tsv'}' and run snakemake"
    )
    (collection.folder / "manifest.tsv").unlink()
    collection.run()
    assert collection.is_well()


def test_a_folder_with_none_of_the_photos_is_the_wrong_one(collection):
    collection.photo(30, source=9)
    other = collection.root / "other"
    other.mkdir()
    shutil.move(collection.photos / f"{UUID(30)}.jpg", other)
    collection.configure(input_dir=str(other))
    assert collection.failed() == (
        "fates",
        "none of the 8 photos of the last run is in input_dir: name the folders that it had, or, if they have gone for "
        "good, run snakemake",
    )


def test_photos_that_came_and_went_since_the_last_run_are_only_counted(collection):
    collection.photo(20, source=20)
    collection.photo(21, source=21)
    collection.photo(3, source=8)
    (collection.photos / f"{UUID(1)}.jpg").unlink()
    (collection.photos / "another.jpg").touch()
    state, text = collection.verify()["fates"]
    assert (state, text) == (
        "ok",
        "9 files = 7 embedded + 1 failed + 1 rejected; since the last run: 2 new, 1 changed, 1 gone, "
        "1 rejected otherwise (run snakemake)",
    )


def test_rows_of_gone_photos_are_kept_or_wrong_as_the_configuration_says(collection):
    (collection.photos / f"{UUID(1)}.jpg").unlink()
    collection.run()
    state, text = collection.verify()["fates"]
    assert (state, text) == ("ok", "8 files = 6 embedded + 1 failed + 1 rejected; rows of photos that have gone: 1")
    collection.configure(missing_images="delete")
    assert collection.failed() == ("fates", f"1 embeddings of photos that have gone ({UUID(1)}): run snakemake")
    collection.run(delete_missing=True)
    assert collection.is_well()


def test_rows_of_unknown_origin_are_counted(collection):
    collection.sql("INSERT INTO T_EMBEDDINGS VALUES (?, ?)", (UUID(99), pack_embedding(np.ones(48) / 48**0.5)))
    collection.sql("INSERT INTO T_UMAP_HAVERSINE VALUES (?, 0, 0)", (UUID(99),))
    collection.stamp_rows()
    state, text = collection.verify()["fates"]
    assert (state, text) == ("ok", "9 files = 7 embedded + 1 failed + 1 rejected; rows of unknown origin: 1")


@pytest.mark.parametrize("damage", ["missing", "damaged", "out of order"])
@pytest.mark.parametrize("name", ["manifest.tsv", "rejected.tsv"])
def test_a_list_of_files_that_is_missing_or_damaged_is_made_again(collection, name, damage):
    path = collection.folder / name
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("damaged" if name == "rejected.tsv" or damage == "damaged" else "".join([header, *lines[::-1]]))
    if damage == "missing":
        path.unlink()
    expected = f"'{path}' is missing or damaged: delete '{path}' and run snakemake"
    assert collection.failed() == ("fates", expected)
    collection.run()
    assert collection.is_well()


def test_a_folder_of_photos_that_is_away_is_named(collection):
    shutil.move(collection.photos, collection.root / "away")
    name, text = collection.failed()
    assert name == "fates"
    assert text == f"input_dir: cannot read the folder '{collection.photos}' (No such file or directory)"


def test_a_database_that_says_it_is_of_another_encoder_is_rebuilt(collection):
    collection.sql("UPDATE T_PROVENANCE SET VALUE = 'x' WHERE KEY = 'encoder_digest'")
    name, text = collection.failed()
    assert name == "provenance"
    assert re.fullmatch(r"1 are not of the encoder \w{16} \(the database\): delete '.*x\.sqlite' and run .*", text)
    collection.rebuild()
    assert collection.is_well()


@pytest.mark.parametrize("is_new", [True, False])
def test_an_encoder_json_that_describes_another_encoder_is_made_again(collection, is_new):
    path = collection.folder / "encoder.json"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    write_json(path, {**read_json(path), "weights_sha256": "another"})
    if not is_new:
        os.utime(path, ns=times)
    name, text = collection.failed()
    assert name == "provenance"
    assert re.match(r"1 are not of the encoder \w{16} \(.*encoder\.json\): ", text)
    assert text.endswith(f": delete '{path}' and run snakemake")
    path.unlink()
    collection.run()
    assert collection.is_well()


def test_a_shard_of_another_encoder_is_made_again(collection):
    path, receipt = (collection.folder / name for name in ("embeddings/000002.sqlite", "embeddings.json"))
    collection.sql("UPDATE T_PROVENANCE SET VALUE = 'x' WHERE KEY = 'encoder_digest'", database=path)
    name, text = collection.failed()
    assert name == "provenance"
    assert text.endswith(f"({path}): delete these, and '{receipt}', and run snakemake")
    path.unlink()
    receipt.unlink()
    collection.run()
    assert collection.is_well()


def test_a_run_of_another_encoder_that_was_broken_off_is_gone_on_with(collection):
    path = collection.folder / "encoder.json"
    collection.resolve("another")
    collection.embed("000002")
    found = collection.verify()
    assert found["shards"][1].endswith("000002.sqlite): run snakemake")
    state, text = found["provenance"]
    assert state == "FAILED"
    assert re.match(r"2 are not of the encoder \w{16} \(.*encoder\.json, .*000002\.sqlite\): delete", text)
    assert text.endswith(f"): delete '{path}' and run snakemake")
    path.unlink()
    collection.run()
    assert collection.is_well()


@pytest.mark.parametrize("damage", ["missing", "no json", "{}", '{"name": "T"}'])
def test_an_encoder_json_that_is_missing_or_damaged_is_made_again(collection, damage):
    path = collection.folder / "encoder.json"
    path.unlink()
    if damage != "missing":
        path.write_text(damage)
    expected = f"'{path}' is missing or damaged: delete '{path}' and run snakemake"
    found = collection.verify(sample=20)
    failed = {name: text for name, (state, text) in found.items() if state == "FAILED"}
    assert failed == dict.fromkeys(("embeddings", "provenance", "sample"), expected)
    path.unlink(missing_ok=True)
    collection.run()
    assert collection.is_well()


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            f"UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LATITUDE = 1 WHERE UUID = '{UUID(1)}'",
            f"1 places unlike those of map.tsv ({UUID(1)})",
        ),
        ("UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LATITUDE = 91", "7 places off the sphere"),
        ("UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LONGITUDE = -181", "7 places off the sphere"),
        ("UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LONGITUDE = NULL", "7 places off the sphere"),
        ("UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LONGITUDE = 9e999", "7 places off the sphere"),
        (f"DELETE FROM T_UMAP_HAVERSINE WHERE UUID = '{UUID(1)}'", f"1 embeddings without place ({UUID(1)})"),
        (f"INSERT INTO T_UMAP_HAVERSINE VALUES ('{UUID(77)}', 0, 0)", f"1 places without embedding ({UUID(77)})"),
        ("UPDATE T_UMAP_MODEL SET MODEL = x'00'", "1 models are there, and not the one that was stored (T_UMAP_MODEL)"),
        ("DROP TABLE T_UMAP_HAVERSINE", "there is no table T_UMAP_HAVERSINE"),
        ("DROP TABLE T_UMAP_MODEL", "there is no table T_UMAP_MODEL"),
    ],
)
def test_the_map_in_the_database_is_the_one_that_was_stored(collection, statement, what):
    collection.sql(statement)
    name, text = collection.failed()
    assert name == "map"
    assert text.startswith(what)
    assert text.endswith(f": delete '{collection.database}' and run snakemake, it is rebuilt from the shards")
    collection.rebuild()
    assert collection.is_well()


@pytest.mark.parametrize("file", ["map.tsv", "umap_model.pkl", "none"])
def test_files_of_the_map_that_have_changed_or_gone_are_made_again(collection, file):
    model, places = collection.folder / "umap_model.pkl", collection.folder / "map.tsv"
    before = places.read_text()
    if file == "map.tsv":
        places.write_text(before.replace("0\t", "0\t1", 1))
    elif file == "none":
        places.unlink()
    else:
        model.write_bytes(model.read_bytes() + b" ")
    name, text = collection.failed()
    assert name == "map"
    assert text == (
        f"1 files of the map are not what was stored (umap_model.pkl or map.tsv): delete '{model}' and '{places}' "
        "and run snakemake, photos keep their places"
    )
    for path in (model, places):
        path.unlink(missing_ok=True)
    collection.run()
    assert collection.is_well()
    assert [line.split("\t")[0] for line in places.read_text().splitlines()] == [
        line.split("\t")[0] for line in before.splitlines()
    ]


def test_a_map_that_waits_for_new_photos_is_made_by_a_run(collection):
    collection.photo(20, source=20)
    collection.plan()
    collection.embed("000004")
    collection.merge()
    assert collection.failed() == ("map", f"1 embeddings without place ({UUID(20)}): run snakemake")
    collection.run()
    assert collection.is_well()


def test_without_a_map_there_is_none_to_look_at(collection):
    for table in ("T_UMAP_MODEL", "T_UMAP_HAVERSINE"):
        collection.sql(f"DROP TABLE {table}")
    collection.sql("DELETE FROM T_PROVENANCE WHERE KEY LIKE 'map_%'")
    assert collection.verify()["map"] == ("skipped", "there is none yet: run snakemake")
    collection.configure(reproject_umap_embeddings=False)
    assert collection.verify()["map"] == ("skipped", "reproject_umap_embeddings is false")


def test_an_older_database_is_upgraded_by_a_run(collection, monkeypatch):
    monkeypatch.setattr(checks, "FORMAT_VERSION", checks.FORMAT_VERSION + 1)
    name, text = collection.failed()
    assert name == "database"
    assert re.fullmatch(r"'.*x\.sqlite' has format 1: run snakemake, which upgrades it", text)


@pytest.mark.parametrize("database", ["x.sqlite", "x/T/embeddings/000001.sqlite"])
def test_a_newer_database_or_shard_is_not_called_damaged(collection, database):
    path = collection.root / database
    collection.sql("UPDATE T_PROVENANCE SET VALUE = '99' WHERE KEY = 'format_version'", database=path)
    name, text = collection.failed()
    assert name == ("database" if database == "x.sqlite" else "shards")
    assert "has format 99 of T" in text


def test_columns_of_the_user_are_no_fault(collection):
    collection.sql("ALTER TABLE T_EMBEDDINGS ADD COLUMN NOTE TEXT")
    collection.sql("ALTER TABLE T_IMAGES ADD COLUMN NOTE TEXT")
    assert collection.is_well()
