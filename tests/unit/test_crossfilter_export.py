"""The export for Crossfilter's application: a database with its tables, and previews, read as it reads them."""

import os
import re
import shutil
import sqlite3
from pathlib import Path

import msgpack_numpy
import numpy as np
import pandas as pd
import pytest
from conftest import DEMO_PHOTOS, identity
from PIL import ExifTags, Image
from verified import UUID

from crossfilter_inference import Collection
from crossfilter_inference.cli import commands
from crossfilter_inference.errors import InputError
from crossfilter_inference.view import previews
from crossfilter_inference.view.crossfilter import _times

pytest_plugins = "verified"

POSITION = ["SEMANTIC_EMBEDDING_UMAP_LATITUDE", "SEMANTIC_EMBEDDING_UMAP_LONGITUDE"]
TABLES = {
    "data": [
        *("UUID_STRING", "DATA_TYPE", "NAME", "CAPTION", "SOURCE_FILE", "TIMESTAMP_MAYBE_TIMEZONE_AWARE"),
        *("TIMESTAMP_UTC", "GPS_LATITUDE", "GPS_LONGITUDE", "RATING_0_TO_5", "SIZE_IN_BYTES", *POSITION),
    ],
    "IMAGE_EMBEDDINGS": ["UUID_STRING", "SEMANTIC_EMBEDDING"],
    "IMAGE_UMAP_PROJECTIONS": ["UUID_STRING", *POSITION],
    "UMAP_MODEL": ["UUID_STRING", "MODEL"],
}


@pytest.fixture
def own(collection):
    """A collection that knows its folders of photos from its last run."""
    (collection.folder / "config.json").write_text(collection.config().to_json())
    return collection


@pytest.fixture
def files(tmp_path):
    return {"crossfilter": tmp_path / "crossfilter.sqlite", "previews": tmp_path / "previews"}


def export(collection, **options):
    return commands.export(
        **options, collection=commands.CollectionOptions(output_embeddings_db=collection.database, embedding_type="T")
    )


def read(path, table):
    connection = sqlite3.connect(path)
    try:
        return pd.read_sql(f"SELECT * FROM {table}", connection, index_col="UUID_STRING")
    finally:
        connection.close()


def preview(files, number):
    return files["previews"] / "00" / f"{UUID(number)}.jpg"


# ---- the database -----------------------------------------------------------------------------------------------


def test_the_database_has_the_tables_and_columns_of_the_application(own, files):
    export(own, crossfilter=files["crossfilter"])
    tables = own.sql("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')", database=files["crossfilter"])
    assert {name for (name,) in tables} == TABLES.keys()
    for name, columns in TABLES.items():
        found = own.sql("SELECT name, pk FROM pragma_table_info(?)", (name,), files["crossfilter"])
        assert found == [(column, int(column == "UUID_STRING")) for column in columns]


def test_embeddings_map_and_model_are_those_of_the_collection(own, files):
    export(own, crossfilter=files["crossfilter"])
    opened = Collection(own.database, "T")
    embeddings = read(files["crossfilter"], "IMAGE_EMBEDDINGS")["SEMANTIC_EMBEDDING"]
    assert embeddings.index.tolist() == opened.uuids
    assert np.array_equal(np.stack(embeddings.map(msgpack_numpy.unpackb)), opened.embeddings)
    contents = opened.read_map()
    for table in ("IMAGE_UMAP_PROJECTIONS", "data"):
        found = read(files["crossfilter"], table)[POSITION]
        assert found.index.tolist() == opened.uuids
        assert np.array_equal(found, np.stack([contents.latitude, contents.longitude], axis=1))
    assert own.sql("SELECT * FROM UMAP_MODEL", database=files["crossfilter"]) == [
        ("UMAP_MODEL", own.sql("SELECT MODEL FROM T_UMAP_MODEL")[0][0])
    ]


def test_facts_are_those_that_the_database_has_and_others_are_null(own, files):
    own.sql(
        "UPDATE T_IMAGES SET TAKEN = '2021-05-06T07:08:09', TAKEN_OFFSET = '+02:00', LATITUDE = -1.5, LONGITUDE = 179"
        " WHERE UUID = ?",
        (UUID(1),),
    )
    own.sql("UPDATE T_IMAGES SET PATH = 'file:///a/%FF/%FE.jpg' WHERE UUID = ?", (UUID(2),))
    export(own, crossfilter=files["crossfilter"])
    table = read(files["crossfilter"], "data")
    path = own.photos / f"{UUID(1)}.jpg"
    assert table.loc[UUID(1)].drop(POSITION).to_dict() == {
        "DATA_TYPE": "PHOTO",
        "NAME": path.name,
        "CAPTION": None,
        "SOURCE_FILE": str(path),
        "TIMESTAMP_MAYBE_TIMEZONE_AWARE": "2021-05-06T07:08:09+02:00",
        "TIMESTAMP_UTC": "2021-05-06T05:08:09Z",
        "GPS_LATITUDE": -1.5,
        "GPS_LONGITUDE": 179,
        "RATING_0_TO_5": None,
        "SIZE_IN_BYTES": path.stat().st_size,
    }
    assert table.loc[UUID(2), ["NAME", "SOURCE_FILE"]].tolist() == ["file://%FE.jpg", "file:///a/%FF/%FE.jpg"]
    assert table.loc[UUID(3), ["TIMESTAMP_UTC", "GPS_LATITUDE"]].isna().all()
    assert {*table["DATA_TYPE"]} == {"PHOTO"}


@pytest.mark.parametrize(
    ("taken", "offset", "recorded", "utc"),
    [
        ("2021-05-06T23:08:09", "-05:00", "2021-05-06T23:08:09-05:00", "2021-05-07T04:08:09Z"),
        ("2021-05-06T07:08:09", None, "2021-05-06T07:08:09", "2021-05-06T07:08:09Z"),
        ("2021-05-06", None, "2021-05-06", "2021-05-06T00:00:00Z"),
        ("0001-01-01T00:00:00", "+02:00", None, None),
        ("unreadable", None, None, None),
        (None, None, None, None),
    ],
)
def test_times_are_in_utc_and_of_one_form(taken, offset, recorded, utc):
    assert [*_times(taken, offset).values()] == [recorded, utc]


def test_times_of_all_kinds_are_read_by_pandas(own, files):
    own.sql("UPDATE T_IMAGES SET TAKEN = '2021-05-06T07:08:09'")
    own.sql("UPDATE T_IMAGES SET TAKEN = '2021-05-06' WHERE UUID = ?", (UUID(0),))
    own.sql("UPDATE T_IMAGES SET TAKEN_OFFSET = '+02:00' WHERE UUID = ?", (UUID(1),))
    export(own, crossfilter=files["crossfilter"])
    text = read(files["crossfilter"], "data")["TIMESTAMP_UTC"]
    times = pd.to_datetime(text, utc=True, errors="coerce")
    assert times.notna().all()
    assert times[UUID(1)] == pd.Timestamp("2021-05-06T05:08:09Z")


@pytest.mark.parametrize("is_old", [False, True])
def test_without_a_map_or_facts_they_are_null(own, files, caplog, is_old):
    for table in ("T_UMAP_MODEL", "T_UMAP_HAVERSINE"):
        own.sql(f"DROP TABLE {table}")
    own.sql("DROP VIEW PHOTOS")
    if is_old:
        own.sql("DROP TABLE T_IMAGES")
    export(own, crossfilter=files["crossfilter"])
    table = read(files["crossfilter"], "data")
    assert len(table) == 7
    assert table[POSITION].isna().all(axis=None)
    assert table["SOURCE_FILE"].isna().all() == is_old
    assert read(files["crossfilter"], "IMAGE_UMAP_PROJECTIONS").empty
    assert read(files["crossfilter"], "UMAP_MODEL").empty
    assert "the map does not show 7 photos; run the workflow to update it" in caplog.text


def test_an_export_holds_only_photos_of_the_list(own, files, tmp_path):
    (tmp_path / "list.txt").write_text(f"{UUID(3)}\n{UUID(5)}\n")
    done = export(own, **files, photos=tmp_path / "list.txt")
    assert done == f"2 photos in {files['crossfilter']}; 2 previews in {files['previews']}"
    for table in ("data", "IMAGE_EMBEDDINGS", "IMAGE_UMAP_PROJECTIONS"):
        assert read(files["crossfilter"], table).index.tolist() == [UUID(3), UUID(5)]
    assert sorted(path.stem for path in files["previews"].rglob("*.jpg")) == [UUID(3), UUID(5)]


def test_an_export_is_replaced_until_another_program_has_changed_it(own, files):
    for _ in range(2):
        export(own, crossfilter=files["crossfilter"])
    own.sql("INSERT INTO data (UUID_STRING, DATA_TYPE) VALUES ('x', 'GPX_TRACKPOINT')", database=files["crossfilter"])
    before = files["crossfilter"].read_bytes()
    for force in (False, True):
        with pytest.raises(InputError, match=r"exists and is an SQLite database, which is never replaced; name anot"):
            export(own, crossfilter=files["crossfilter"], force=force)
    assert files["crossfilter"].read_bytes() == before


def test_an_export_that_is_in_use_is_not_replaced(own, files):
    export(own, crossfilter=files["crossfilter"])
    for name in ("journal", "wal"):
        journal = Path(f"{files['crossfilter']}-{name}")
        journal.touch()
        with pytest.raises(InputError, match="has a journal: another program is writing to it, or was killed"):
            export(own, crossfilter=files["crossfilter"])
        journal.unlink()
    own.sql("PRAGMA journal_mode = WAL", database=files["crossfilter"])
    with pytest.raises(InputError, match="is an SQLite database, which is never replaced"):
        export(own, crossfilter=files["crossfilter"])


# ---- previews ---------------------------------------------------------------------------------------------------


def test_a_preview_is_an_upright_jpeg_file_of_any_format(own, files):
    large = Image.new("RGB", (3000, 1500), "red")
    large.paste("blue", (0, 0, 1500, 1500))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    large.save(own.photos / f"{UUID(1)}.jpg", exif=exif)
    large.resize((60, 30)).save(own.photos / f"{UUID(2)}.jpg", "PNG")  # the content determines the format
    assert export(own, **files).endswith(f"7 previews in {files['previews']}")
    for number, size, blue in ((1, (512, 1024), (250, 100)), (2, (60, 30), (10, 15))):
        with Image.open(preview(files, number)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            assert image.getpixel(blue)[2] > 200


def test_a_later_export_makes_only_what_is_missing_or_has_changed(own, files):
    export(own, **files)
    before = {number: identity(preview(files, number)) for number in range(7)}
    preview(files, 1).unlink()
    preview(files, 2).write_bytes(b"")
    shutil.copyfile(DEMO_PHOTOS[20], own.photos / f"{UUID(3)}.jpg")
    (own.photos / f"{UUID(4)}.jpg").unlink()
    (own.photos / f"{UUID(5)}.jpg").write_text("damaged")
    done = export(own, previews=files["previews"])
    assert done == f"7 previews in {files['previews']}, 4 of them made before"
    changed = {number for number in range(7) if identity(preview(files, number)) != before[number]}
    assert changed == {1, 2, 3}, "a preview of a photo that is missing or unreadable now stays"


def test_the_preview_of_a_missing_photo_is_its_thumbnail_until_it_is_back(own, files, tmp_path):
    shutil.move(own.photos / f"{UUID(1)}.jpg", tmp_path / "away")
    (own.photos / f"{UUID(2)}.jpg").write_text("damaged")
    thumbnails = "2 of them thumbnails, because the photo is missing or cannot be read"
    assert export(own, previews=files["previews"]) == f"7 previews in {files['previews']}, {thumbnails}"
    for number in (1, 2):
        with Image.open(preview(files, number)) as image:
            assert max(image.size) == 192
    shutil.move(tmp_path / "away", own.photos / f"{UUID(1)}.jpg")
    assert export(own, previews=files["previews"]).endswith(", 6 of them made before")
    with Image.open(preview(files, 1)) as image, Image.open(own.photos / f"{UUID(1)}.jpg") as photo:
        assert image.size == photo.size


def test_a_photo_without_a_thumbnail_has_no_preview(own, files):
    (own.photos / f"{UUID(1)}.jpg").unlink()
    for shard in (own.folder / "embeddings").glob("*.sqlite"):
        own.sql("DELETE FROM T_THUMBNAILS WHERE UUID = ?", (UUID(1),), shard)
    assert export(own, previews=files["previews"]) == f"6 previews in {files['previews']}, 1 photo without one"


def test_a_name_that_is_no_uuid_leads_nowhere(own, files, tmp_path):
    own.sql("INSERT INTO T_EMBEDDINGS SELECT '../../evil', EMBEDDING FROM T_EMBEDDINGS LIMIT 1")
    own.sql("INSERT INTO T_IMAGES (UUID, PATH) VALUES ('../../evil', ?)", (str(own.photos / f"{UUID(1)}.jpg"),))
    assert export(own, **files).endswith(", 1 photo without one")
    assert {*tmp_path.iterdir()} == {*files.values()}
    assert [path.name for path in files["previews"].iterdir()] == ["00"]


def test_an_interrupted_export_is_resumed(own, files, monkeypatch):
    write, written = previews.write_bytes, []

    def on_a_full_disk(path, data):
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        write(path, data)

    monkeypatch.setattr(previews, "write_bytes", on_a_full_disk)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(InputError, match=r"^--previews: cannot write '.*previews' \(No space left on device\)"):
        export(own, **files)
    monkeypatch.undo()
    before = {path: identity(path) for path in files["previews"].rglob("*.jpg")}
    assert len(before) == 3
    assert export(own, previews=files["previews"]).endswith(
        "7 previews in " + f"{files['previews']}, 3 of them made before"
    )
    assert {path: identity(path) for path in before} == before


def test_files_of_others_are_never_replaced(own, files):
    preview(files, 5).parent.mkdir(parents=True)
    shutil.copyfile(DEMO_PHOTOS[20], preview(files, 5))
    before = identity(preview(files, 5))
    with pytest.raises(InputError, match=rf"^--previews: '.*{UUID(5)}.jpg' exists and was not made by this .*Nothing"):
        export(own, **files, force=True)
    assert identity(preview(files, 5)) == before
    assert not files["crossfilter"].exists()
    preview(files, 5).unlink()
    preview(files, 5).symlink_to(own.photos / f"{UUID(5)}.jpg")
    with pytest.raises(InputError, match="exists and was not made by this command"):
        export(own, **files)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("photos", "is in '.*photos', a folder of photos"),
        ("photos/previews", "is in '.*photos', a folder of photos"),
        ("x/T", "belongs to the state folder of the collection"),
        ("x.sqlite", "is the database of the collection"),
        ("link", "has the subfolder '00', which is in '.*photos', a folder of photos"),
        ("config.yaml", "exists and is not a folder"),
        ("no/such/folder", "is in '.*no/such/folder', which does not exist; create this folder"),
    ],
)
def test_previews_are_written_nowhere_else(own, files, folder, message):
    (own.root / "link").mkdir()
    (own.root / "link" / "00").symlink_to(own.photos)
    before = {path: identity(path) for path in own.root.rglob("*")}
    with pytest.raises(InputError, match=rf"^--previews: '.*{re.escape(folder)}' {message}.*Nothing was written"):
        export(own, crossfilter=files["crossfilter"], previews=own.root / folder)
    assert {path: identity(path) for path in own.root.rglob("*")} == before
    assert not files["crossfilter"].exists()
