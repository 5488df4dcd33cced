"""Tables and files that disagree are reported photo by photo, with a fix that works."""

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
        (f"DELETE FROM T_FAILURES WHERE UUID = '{FAILED_PHOTO}'", f"1 photo without outcome ({FAILED_PHOTO})"),
        (f"INSERT INTO T_FAILURES (UUID, SHARD) VALUES ('{UUID(1)}', '000001')", "1 photo with two outcomes"),
        (f"INSERT INTO T_FAILURES (UUID, SHARD) VALUES ('{UUID(77)}', '000001')", "1 row of T_FAILURES without photo"),
        (f"DELETE FROM T_IMAGES WHERE UUID = '{UUID(1)}'", "1 photo without row in T_IMAGES"),
        (f"INSERT INTO T_IMAGES (UUID) VALUES ('{UUID(77)}')", "1 row of T_IMAGES without embedding"),
        ("UPDATE T_IMAGES SET SHARD = '000009'", "7 rows with a shard, size or time other than in the manifest"),
        ("UPDATE T_IMAGES SET SIZE = SIZE + 1", "7 rows with a shard, size or time other than in the manifest"),
        ("UPDATE T_IMAGES SET MTIME_NS = 0", "7 rows with a shard, size or time other than in the manifest"),
        ("UPDATE T_FAILURES SET SHARD = '000009'", "1 row with a shard, size or time other than in the manifest"),
    ],
)
def test_every_photo_has_one_outcome_and_every_row_a_photo(collection, statement, what):
    collection.sql(statement)
    name, text = collection.failed()
    manifest = collection.folder / "manifest.tsv"
    assert name == "outcomes"
    assert text.startswith(what)
    assert f": delete '{manifest}', then move '{collection.database}' aside and run the workflow" in text
    manifest.unlink()
    collection.rebuild()
    assert collection.passes()


def test_a_missing_embedding_is_reported(collection):
    collection.sql(f"DELETE FROM T_EMBEDDINGS WHERE UUID = '{UUID(1)}'")
    collection.sql(f"DELETE FROM T_UMAP_HAVERSINE WHERE UUID = '{UUID(1)}'")
    collection.stamp_rows()
    found = collection.verify()
    assert found["outcomes"][0] == "FAILED"
    assert "1 row of T_IMAGES without embedding" in found["outcomes"][1]
    assert f"1 photo without outcome ({UUID(1)})" in found["outcomes"][1]
    assert found["map"][1].startswith(f"1 position in map.tsv without embedding ({UUID(1)}): move")


def test_a_run_interrupted_before_the_merge_is_resumed(collection):
    collection.photo(20, source=20)
    collection.plan()
    name, text = collection.failed()
    assert name == "outcomes"
    fix = "run the workflow, which completes the interrupted run"
    assert text == f"1 photo without outcome ({UUID(20)}): {fix}"
    collection.run()
    assert collection.passes()


def test_a_folder_with_none_of_the_photos_is_refused(collection):
    collection.photo(30, source=9)
    other = collection.root / "other"
    other.mkdir()
    shutil.move(collection.photos / f"{UUID(30)}.jpg", other)
    collection.configure(input_dir=str(other))
    assert collection.failed() == (
        "outcomes",
        "input_dir contains none of the 8 photos of the last run: name the folders of that run, "
        "or run the workflow if they were removed for good",
    )


def test_photos_added_and_removed_since_the_last_run_are_counted(collection):
    collection.photo(20, source=20)
    collection.photo(21, source=21)
    collection.photo(3, source=8)
    (collection.photos / f"{UUID(1)}.jpg").unlink()
    (collection.photos / "another.jpg").touch()
    state, text = collection.verify()["outcomes"]
    assert (state, text) == (
        "ok",
        "9 files = 7 embedded + 1 failed + 1 rejected; since the last run: 2 new, 1 changed, 1 missing, "
        "1 newly or no longer rejected (run the workflow)",
    )


def test_rows_of_missing_photos_are_kept_or_wrong_as_configured(collection):
    (collection.photos / f"{UUID(1)}.jpg").unlink()
    collection.run()
    state, text = collection.verify()["outcomes"]
    assert (state, text) == ("ok", "8 files = 6 embedded + 1 failed + 1 rejected; 1 row of missing photos")
    collection.configure(missing_images="delete")
    assert collection.failed() == ("outcomes", f"1 embedding of missing photos ({UUID(1)}): run the workflow")
    collection.run(delete_missing=True)
    assert collection.passes()


def test_rows_of_unknown_origin_are_counted(collection):
    collection.sql("INSERT INTO T_EMBEDDINGS VALUES (?, ?)", (UUID(99), pack_embedding(np.ones(48) / 48**0.5)))
    collection.sql("INSERT INTO T_UMAP_HAVERSINE VALUES (?, 0, 0)", (UUID(99),))
    collection.stamp_rows()
    state, text = collection.verify()["outcomes"]
    assert (state, text) == ("ok", "9 files = 7 embedded + 1 failed + 1 rejected; 1 row of unknown origin")


@pytest.mark.parametrize("damage", ["missing", "damaged", "out of order"])
@pytest.mark.parametrize("name", ["manifest.tsv", "rejected.tsv"])
def test_a_missing_or_damaged_list_of_files_is_recreated(collection, name, damage):
    path = collection.folder / name
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("damaged" if name == "rejected.tsv" or damage == "damaged" else "".join([header, *lines[::-1]]))
    if damage == "missing":
        path.unlink()
    expected = f"'{path}' is missing or damaged: delete '{path}' and run the workflow"
    assert collection.failed() == ("outcomes", expected)
    collection.run()
    assert collection.passes()


def test_a_manifest_that_cannot_be_read_is_named(collection):
    path = collection.folder / "manifest.tsv"
    path.unlink()
    path.mkdir()
    expected = f"'{path}' is missing or damaged: delete '{path}' and run the workflow"
    assert collection.failed() == ("outcomes", expected)


def test_a_missing_folder_of_photos_is_named(collection):
    shutil.move(collection.photos, collection.root / "away")
    name, text = collection.failed()
    assert name == "outcomes"
    assert text.startswith(f"input_dir: cannot read the folder '{collection.photos}' (No such file or directory); ")


def test_a_database_with_another_recorded_encoder_is_rebuilt(collection):
    collection.sql("UPDATE T_PROVENANCE SET VALUE = 'x' WHERE KEY = 'encoder_digest'")
    name, text = collection.failed()
    assert name == "provenance"
    assert re.fullmatch(
        r"1 record of an encoder other than \w{16} \(the database\): move '.*x\.sqlite' aside and run .*", text
    )
    collection.rebuild()
    assert collection.passes()


@pytest.mark.parametrize("is_new", [True, False])
def test_an_encoder_json_of_another_encoder_is_recreated(collection, is_new):
    path = collection.folder / "encoder.json"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    write_json(path, {**read_json(path), "weights_sha256": "another"})
    if not is_new:
        os.utime(path, ns=times)
    name, text = collection.failed()
    assert name == "provenance"
    assert re.match(r"1 record of an encoder other than \w{16} \(.*encoder\.json\): ", text)
    assert text.endswith(f": delete '{path}' and run the workflow")
    path.unlink()
    collection.run()
    assert collection.passes()


def test_a_shard_of_another_encoder_is_recomputed(collection):
    path, receipt = (collection.folder / name for name in ("embeddings/000002.sqlite", "embeddings.json"))
    collection.sql("UPDATE T_PROVENANCE SET VALUE = 'x' WHERE KEY = 'encoder_digest'", database=path)
    name, text = collection.failed()
    assert name == "provenance"
    assert text.endswith(f"({path}): delete these and '{receipt}', and run the workflow")
    path.unlink()
    receipt.unlink()
    collection.run()
    assert collection.passes()


def test_an_interrupted_run_of_another_encoder_is_resumed(collection):
    path = collection.folder / "encoder.json"
    collection.resolve("another")
    collection.embed("000002")
    found = collection.verify()
    assert found["shards"][1].endswith("000002.sqlite): run the workflow")
    state, text = found["provenance"]
    assert state == "FAILED"
    assert re.match(r"2 records of an encoder other than \w{16} \(.*encoder\.json, .*000002\.sqlite\): delete", text)
    assert text.endswith(f"): delete '{path}' and run the workflow")
    path.unlink()
    collection.run()
    assert collection.passes()


@pytest.mark.parametrize("damage", ["missing", "no json", "{}", '{"name": "T"}'])
def test_a_missing_or_damaged_encoder_json_is_recreated(collection, damage):
    path = collection.folder / "encoder.json"
    path.unlink()
    if damage != "missing":
        path.write_text(damage)
    expected = f"'{path}' is missing or damaged: delete '{path}' and run the workflow"
    found = collection.verify(sample=20)
    failed = {name: text for name, (state, text) in found.items() if state == "FAILED"}
    assert failed == dict.fromkeys(("embeddings", "provenance", "sample"), expected)
    path.unlink(missing_ok=True)
    collection.run()
    assert collection.passes()


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            f"UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LATITUDE = 1 WHERE UUID = '{UUID(1)}'",
            f"1 position different from map.tsv ({UUID(1)})",
        ),
        ("UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LATITUDE = 91", "7 positions off the sphere"),
        ("UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LONGITUDE = -181", "7 positions off the sphere"),
        ("UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LONGITUDE = NULL", "7 positions off the sphere"),
        ("UPDATE T_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LONGITUDE = 9e999", "7 positions off the sphere"),
        (f"DELETE FROM T_UMAP_HAVERSINE WHERE UUID = '{UUID(1)}'", f"1 embedding without position ({UUID(1)})"),
        (f"INSERT INTO T_UMAP_HAVERSINE VALUES ('{UUID(77)}', 0, 0)", f"1 position without embedding ({UUID(77)})"),
        ("UPDATE T_UMAP_MODEL SET MODEL = x'00'", "1 table with a model other than the stored one (T_UMAP_MODEL)"),
        ("DROP TABLE T_UMAP_HAVERSINE", "table T_UMAP_HAVERSINE is missing"),
        ("DROP TABLE T_UMAP_MODEL", "table T_UMAP_MODEL is missing"),
    ],
)
def test_the_map_in_the_database_is_the_stored_one(collection, statement, what):
    collection.sql(statement)
    name, text = collection.failed()
    assert name == "map"
    assert text.startswith(what)
    assert text.endswith(f": move '{collection.database}' aside and run the workflow to rebuild it from the shards")
    collection.rebuild()
    assert collection.passes()


@pytest.mark.parametrize("file", ["map.tsv", "umap_model.pkl", "none"])
def test_changed_and_missing_files_of_the_map_are_recreated(collection, file):
    model, positions = collection.folder / "umap_model.pkl", collection.folder / "map.tsv"
    before = positions.read_text()
    if file == "map.tsv":
        digit = before.splitlines()[1][-1]  # the last one of the first longitude
        positions.write_text(before.replace(f"{digit}\n", f"{(int(digit) + 1) % 10}\n", 1))
    elif file == "none":
        positions.unlink()
    else:
        model.write_bytes(model.read_bytes() + b" ")
    name, text = collection.failed()
    assert name == "map"
    assert text == (
        f"umap_model.pkl or map.tsv differs from the stored map: delete '{model}' and '{positions}' "
        "and run the workflow; photos keep their positions"
    )
    for path in (model, positions):
        path.unlink(missing_ok=True)
    collection.run()
    assert collection.passes()
    assert [line.split("\t")[0] for line in positions.read_text().splitlines()] == [
        line.split("\t")[0] for line in before.splitlines()
    ]


def test_a_run_adds_new_photos_to_the_map(collection):
    collection.photo(20, source=20)
    collection.plan()
    collection.embed("000004")
    collection.merge()
    assert collection.failed() == ("map", f"1 embedding without position ({UUID(20)}): run the workflow")
    collection.run()
    assert collection.passes()


def test_a_missing_map_is_skipped(collection):
    for table in ("T_UMAP_MODEL", "T_UMAP_HAVERSINE"):
        collection.sql(f"DROP TABLE {table}")
    collection.sql("DELETE FROM T_PROVENANCE WHERE KEY LIKE 'map_%'")
    assert collection.verify()["map"] == ("FAILED", "the database no longer records its map: run the workflow")
    (collection.folder / "map_stored.json").unlink()
    assert collection.verify()["map"] == ("skipped", "no map yet: run the workflow")
    collection.configure(reproject_umap_embeddings=False)
    assert collection.verify()["map"] == ("skipped", "reproject_umap_embeddings is false")


def test_an_older_database_is_upgraded_by_a_run(collection, monkeypatch):
    known = checks.FORMAT_VERSION
    monkeypatch.setattr(checks, "FORMAT_VERSION", known + 1)
    name, text = collection.failed()
    assert name == "database"
    assert re.fullmatch(rf"'.*x\.sqlite' has format {known}: run the workflow, which upgrades it", text)


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
    assert collection.passes()
