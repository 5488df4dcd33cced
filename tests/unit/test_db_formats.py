"""Databases, shards and journals of an older format, and of a newer one."""

import hashlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from conftest import PROJECT
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational
from test_merge import Store

from crossfilter_inference.collection import Collection
from crossfilter_inference.db import tables as tables_module
from crossfilter_inference.db.connect import reading, writing
from crossfilter_inference.db.tables import TEXT, Column, NewerFormat, Tables, check_format, migrate, read_provenance
from crossfilter_inference.map.store import store_map
from crossfilter_inference.photos.image import LoadedImage
from crossfilter_inference.run import database as run_database
from crossfilter_inference.run.database import check_database_format, generation
from crossfilter_inference.shards import journal
from crossfilter_inference.shards.journal import RowsLog
from crossfilter_inference.shards.shard import read_shard, read_shard_provenance
from crossfilter_inference.verify import checks

FORMAT_1 = PROJECT / "tests" / "data" / "format-1"
STATE = FORMAT_1 / "photos" / "EFFICIENTNET_LITE0"
MAP_FILES = [str(STATE / name) for name in ("umap_model.pkl", "map.tsv", "map_quality.json")]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    for number in range(4):
        store.photo(number, source=number)
    return store


@pytest.fixture
def next_format(monkeypatch):
    """Add a column to the image table, as a later version of the code would."""

    def add_column(tables, embedding_type):
        define(tables, embedding_type)
        tables.images.append_column(Column("NEXT", TEXT, info={"is_fact": True}))

    def step(connection, tables):
        tables_module._add_column(connection, tables.images, "NEXT")

    define, facts = Tables.__wrapped__.__init__, LoadedImage.facts
    with monkeypatch.context() as patch:
        patch.setattr(Tables.__wrapped__, "__init__", add_column)
        patch.setattr(LoadedImage, "facts", property(lambda image: {**facts.fget(image), "next": "seen"}))
        patch.setattr(tables_module, "_STEPS", (*tables_module._STEPS, step))
        number = tables_module.FORMAT_VERSION + 1
        for module in (tables_module, journal, run_database, checks):
            patch.setattr(module, "FORMAT_VERSION", number)
        Tables.cache_clear()
        yield patch
    Tables.cache_clear()


def this_format(next_format):
    """Go back to this version of the code, and return its format."""
    next_format.undo()
    Tables.cache_clear()
    return tables_module.FORMAT_VERSION


def sql(path, query):
    connection = sqlite3.connect(path)
    with connection:
        rows = connection.execute(query).fetchall()
    connection.close()
    return rows


def layout(path):
    return {
        table: [row[1:] for row in sql(path, f"PRAGMA table_info({table})")]
        for (table,) in sql(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
    }


def as_format_1(path):
    """Remove everything that a database of format 1 lacks."""
    sql(path, "DELETE FROM T_PROVENANCE WHERE KEY = 'format_version'")


@pytest.mark.parametrize("path", sorted(FORMAT_1.rglob("0*.sqlite")), ids=lambda path: path.stem)
def test_digests_of_shards_of_format_1_have_not_changed(path):
    rows = list(read_shard(path, "EFFICIENTNET_LITE0"))
    assert sum(len(part or failures) for part, failures in rows) == (3 if path.stem == "000003" else 5)


def test_a_database_without_a_recorded_format_is_of_format_1():
    with reading(FORMAT_1 / "photos.sqlite") as connection:
        assert "format_version" not in read_provenance(connection, "EFFICIENTNET_LITE0")
        assert check_format(connection, "EFFICIENTNET_LITE0") == 1
        assert check_format(connection, "ANOTHER_TYPE") == 1


def test_a_new_database_and_its_shards_record_their_format(store):
    store.run()
    for name in ("x.sqlite", "embeddings/000001.sqlite"):
        with reading(store.path(name)) as connection:
            assert read_provenance(connection, "T")["format_version"] == str(tables_module.FORMAT_VERSION)


def test_a_migrated_database_has_the_layout_of_a_new_one_and_all_its_rows(store, request):
    store.run()
    as_format_1(store.path("x.sqlite"))
    before = store.rows()
    request.getfixturevalue("next_format")
    store.photo(4, source=4)
    assert store.run().n_merged == 1
    values = {uuid[-1]: value for uuid, value in sql(store.path("x.sqlite"), "SELECT UUID, NEXT FROM T_IMAGES")}
    assert values == {"0": None, "1": None, "2": None, "3": None, "4": "seen"}
    assert store.rows().items() >= before.items()
    store.merge(database="fresh.sqlite")
    assert layout(store.path("x.sqlite")) == layout(store.path("fresh.sqlite"))
    for table in ("T_EMBEDDINGS", "T_IMAGES", "T_PROVENANCE", "T_SHARDS"):
        query = f"SELECT * FROM {table} ORDER BY 1"
        assert sql(store.path("x.sqlite"), query) == sql(store.path("fresh.sqlite"), query)


def test_a_failed_merge_does_not_migrate(store, request):
    store.run()
    request.getfixturevalue("next_format")
    before = layout(store.path("x.sqlite"))
    with writing(store.path("embeddings/000001.sqlite")) as connection:
        connection.exec_driver_sql("UPDATE T_IMAGES SET WIDTH = 1")
        connection.exec_driver_sql("UPDATE T_PROVENANCE SET VALUE = 'x' WHERE KEY = 'shard_digest'")
    with pytest.raises(Exception, match=r"000001\.sqlite' is damaged"):
        store.merge()
    assert layout(store.path("x.sqlite")) == before


def test_a_shard_that_lost_a_column_is_damaged(store):
    store.run()
    sql(store.path("embeddings/000001.sqlite"), "ALTER TABLE T_IMAGES DROP COLUMN WIDTH")
    with pytest.raises(Exception, match=r"000001\.sqlite' is damaged"):
        store.merge(database="fresh.sqlite")


def test_migration_does_not_create_missing_tables(tmp_path, next_format):
    with writing(tmp_path / "x.sqlite") as connection:
        Tables("T").embeddings.create(connection)
        migrate(connection, "T")
        migrate(connection, "T")
        assert check_format(connection, "T") == tables_module.FORMAT_VERSION
    assert layout(tmp_path / "x.sqlite").keys() == {"T_EMBEDDINGS", "T_PROVENANCE"}


def test_an_older_database_must_be_stored_again(store, request):
    store.run()
    arguments = (store.path("x.sqlite"), store.path("receipt.json"), "T", "embeddings_digest")
    assert generation(*arguments) == 1
    request.getfixturevalue("next_format")
    assert generation(*arguments) == 2
    store.merge(generation=2)
    assert generation(*arguments) == 2


@pytest.mark.parametrize("head", [{}, {"format": 0}, {"format": 99}])
def test_a_journal_of_another_format_is_removed_unread(tmp_path, head):
    belongs_to = {"list": "l", "encoder": "e"}
    old = RowsLog(tmp_path / "000001.sqlite", belongs_to, set())
    old._file.seek(0)
    old._file.truncate()
    old._write({**belongs_to, **head})
    old._write([True, "00000000", 1, 2, "digest", 3, 4, None, b"embedding", b"thumbnail", ""])
    old._file.close()
    with RowsLog(tmp_path / "000001.sqlite", belongs_to, {("00000000", 1, 2)}) as log:
        assert log.finished == set()
        assert [*log.rows()] == []
        assert len([*tmp_path.iterdir()]) == 1


def test_a_newer_format_is_refused_wherever_it_is_opened_and_nothing_changes(store, next_format):
    def sums():
        return {path: hashlib.sha256(path.read_bytes()).digest() for path in store.folder.rglob("*.sqlite")}

    def make_map():
        store_map("T", database, *MAP_FILES, store.path("map_stored.json"), generation=1)

    store.run()
    database, shard = store.path("x.sqlite"), store.path("embeddings/000001.sqlite")
    known = this_format(next_format)
    before = sums()
    receipt = (database, store.path("receipt.json"), "T", "embeddings_digest")
    for path, use in {
        database: [
            store.merge,
            make_map,
            lambda: Collection(database, "T"),
            lambda: check_database_format(database, "T"),
            lambda: generation(*receipt),
        ],
        shard: [
            lambda: store.merge(database="fresh.sqlite"),
            lambda: [*read_shard(shard, "T")],
            lambda: read_shard_provenance(shard, "T"),
            lambda: store.embed("000001"),
        ],
    }.items():
        for open_it in use:
            with pytest.raises(NewerFormat) as refused:
                open_it()
            assert f"'{os.path.realpath(path)}' has format {known + 1} of T" in str(refused.value)
            assert f"supports formats up to {known}; upgrade crossfilter-inference. Nothing was changed" in str(
                refused.value
            )
    assert before.items() == {path: digest for path, digest in sums().items() if path in before}.items()


@pytest.mark.parametrize("version", ["", "x", "1.0", "-1", "99999999999999999999"])
def test_a_format_that_is_no_known_number_is_refused(store, version):
    store.run()
    sql(store.path("x.sqlite"), f"UPDATE T_PROVENANCE SET VALUE = '{version}' WHERE KEY = 'format_version'")
    with pytest.raises(NewerFormat):
        store.merge()


def test_another_embedding_type_of_a_newer_format_is_no_fault(store):
    store.run()
    shutil.copy(store.path("x.sqlite"), store.path("y.sqlite"))
    sql(store.path("x.sqlite"), "CREATE TABLE U_PROVENANCE (KEY TEXT PRIMARY KEY, VALUE TEXT)")
    sql(store.path("x.sqlite"), "INSERT INTO U_PROVENANCE VALUES ('format_version', '99')")
    assert store.merge().n_embeddings == 4


def test_additions_of_users_to_the_database_survive(store):
    store.run()
    database = store.path("x.sqlite")
    for statement in (
        "CREATE TABLE MANIFEST (UUID TEXT, PATH TEXT, SHARD TEXT)",
        "INSERT INTO MANIFEST VALUES ('mine', 'mine', 'mine')",
        "CREATE VIEW LARGE AS SELECT UUID FROM T_IMAGES WHERE WIDTH > 1",
        "CREATE INDEX BY_TIME ON T_IMAGES (TAKEN)",
        "ALTER TABLE T_IMAGES ADD COLUMN RATING INTEGER DEFAULT 3",
        "ALTER TABLE T_EMBEDDINGS ADD COLUMN NOTE TEXT",
        "UPDATE T_IMAGES SET RATING = 5",
    ):
        sql(database, statement)
    store.photo(4, source=4)
    store.photo(0, source=9, mtime_ns=2)
    store.run()
    assert sql(database, "SELECT * FROM MANIFEST") == [("mine", "mine", "mine")]
    assert len(sql(database, "SELECT * FROM LARGE")) == 5
    assert sql(database, "SELECT count(*) FROM sqlite_master WHERE name = 'BY_TIME'") == [(1,)]
    ratings = {uuid[-1]: rating for uuid, rating in sql(database, "SELECT UUID, RATING FROM T_IMAGES")}
    assert ratings == {"0": 3, "1": 5, "2": 5, "3": 5, "4": 3}


def test_additions_of_users_to_the_map_survive_the_next_map(store):
    store.run()
    database = store.path("x.sqlite")
    for number in range(2):
        model = store.folder / "umap_model.pkl"
        model.write_bytes(b"%d" % number)
        paths = (str(model), *MAP_FILES[1:], store.path("map_stored.json"))
        assert store_map("T", database, *paths, generation=1) == 12
        if not number:
            sql(database, "CREATE INDEX BY_LATITUDE ON T_UMAP_HAVERSINE (SEMANTIC_EMBEDDING_UMAP_LATITUDE)")
            sql(database, "ALTER TABLE T_UMAP_HAVERSINE ADD COLUMN NOTE TEXT")
    assert sql(database, "SELECT MODEL FROM T_UMAP_MODEL") == [(b"1",)]
    assert sql(database, "SELECT count(*), count(NOTE) FROM T_UMAP_HAVERSINE") == [(12, 0)]
    assert sql(database, "SELECT count(*) FROM sqlite_master WHERE name = 'BY_LATITUDE'") == [(1,)]


def test_a_map_table_of_another_layout_is_replaced(store):
    store.run()
    database = store.path("x.sqlite")
    sql(database, "CREATE TABLE T_UMAP_HAVERSINE (UUID TEXT, X REAL)")
    assert store_map("T", database, *MAP_FILES, store.path("map_stored.json"), generation=1) == 12


def test_facts_pass_a_merge_without_rounding(store):
    places = [(-48.8584123, 179.9999999, -430.125), (0.0000001, -2.2945678, 8848.86), (90.0, -180.0, 0.0)]
    for number, (latitude, longitude, altitude) in enumerate(places):
        store.photo(number, number)
        path, exif = Path(store.images[number].path), Image.Exif()
        degrees = [(IFDRational(round(abs(value) * 10**7), 10**7), 0, 0) for value in (latitude, longitude)]
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(
            {
                ExifTags.GPS.GPSLatitude: degrees[0],
                ExifTags.GPS.GPSLatitudeRef: "S" if latitude < 0 else "N",
                ExifTags.GPS.GPSLongitude: degrees[1],
                ExifTags.GPS.GPSLongitudeRef: "W" if longitude < 0 else "E",
                ExifTags.GPS.GPSAltitude: IFDRational(round(abs(altitude) * 1000), 1000),
                ExifTags.GPS.GPSAltitudeRef: b"\1" if altitude < 0 else b"\0",
            }
        )
        with Image.open(path) as image:
            image.save(path, exif=exif)
        store.stamp(number, path)
    store.run()
    query = "SELECT LATITUDE, LONGITUDE, ALTITUDE FROM T_IMAGES WHERE LATITUDE IS NOT NULL ORDER BY UUID"
    assert sql(store.path("x.sqlite"), query) == places
    assert sql(store.path("embeddings/000001.sqlite"), query) == places


def test_columns_that_pass_a_merge_are_texts_and_numbers():
    assert {str(column.type) for column in Tables("T").images.c} == {"TEXT", "INTEGER", "REAL"}
