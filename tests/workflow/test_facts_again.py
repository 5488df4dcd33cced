"""Time and place of photos that are embedded already: read again without embedding."""

import json

import pytest

QUERY = "SELECT TAKEN, TAKEN_OFFSET, TAKEN_FROM, LATITUDE FROM {T}_IMAGES ORDER BY UUID"
OF_TAKEOUT = ("2021-05-06T07:08:09", "+00:00", "sidecar", 48.5)
NOTHING = (None, None, None, None)


@pytest.fixture
def collection(make_collection):
    collection = make_collection(3)
    collection.run()
    return collection


def test_a_sidecar_that_is_added_changed_or_removed_updates_the_row_of_its_photo(collection):
    embeddings = collection.embeddings()
    assert collection.sql(QUERY) == [NOTHING] * 3
    photo = min((collection.folder / "photos").glob("*.jpg"))
    sidecar = photo.with_name(f"{photo.name}.supplemental-metadata.json")
    record = {"photoTakenTime": {"timestamp": "1620284889"}, "geoData": {"latitude": 48.5, "longitude": 2.5}}
    sidecar.write_text(json.dumps(record))
    done = collection.snakemake()
    assert "to be read again: 1 (new or unknown status" in done.stdout
    assert "embedded 0 photos, copied 1, failed 0" in done.stdout
    assert collection.sql(QUERY) == [OF_TAKEOUT, NOTHING, NOTHING]
    record["geoData"]["latitude"] = -1.5
    sidecar.write_text(json.dumps(record))
    collection.run()
    assert collection.sql(QUERY)[0][-1] == -1.5
    photo.chmod(0o600)  # later than the sidecar's last change
    collection.run()
    sidecar.unlink()
    assert collection.run()["embed_shard"] == 1
    assert collection.sql(QUERY) == [NOTHING] * 3
    assert collection.embeddings() == embeddings
    assert collection.dry_run() == {}


def test_all_photos_are_read_again_for_one_run(collection):
    embeddings = collection.embeddings()
    photo = min((collection.folder / "photos").glob("*.jpg"))
    assert collection.dry_run() == {}
    plan = collection.snakemake("-n", "--config", "reread_photos=true").stdout
    assert "forecast: 0 photos to embed or to copy, 3 to read again" in plan
    done = collection.snakemake("--config", "reread_photos=true")
    assert "embedded 0 photos, copied 3, failed 0" in done.stdout
    assert collection.embeddings() == embeddings
    assert collection.dry_run() == {}
    photo.unlink()
    collection.run()
    done = collection.snakemake("--config", "reread_photos=true", "missing_images=delete", "max_deleted_share=1")
    assert "copied 2, failed 0" in done.stdout
    assert len(collection.embeddings()) == 2


COLUMNS = "NAME, FOLDER, LATITUDE, CAMERA, EMBEDDING_TYPE"


def test_the_view_photos_joins_name_time_and_both_places(collection):
    folder = f"{collection.folder / 'photos'}/"
    names = sorted(path.name for path in (collection.folder / "photos").iterdir())
    rows = [(name, folder, None, None, "COLOUR") for name in names]
    assert collection.sql(f"SELECT {COLUMNS} FROM PHOTOS ORDER BY NAME") == rows
    assert collection.sql("SELECT MAP_LATITUDE FROM PHOTOS") == [(None,)] * 3, "there is no map yet"
    collection.run("--config", "reproject_umap_embeddings=true")
    positions = collection.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID")
    assert collection.sql("SELECT UUID, MAP_LATITUDE, MAP_LONGITUDE FROM PHOTOS ORDER BY UUID") == positions


@pytest.mark.parametrize("own", ["VIEW PHOTOS AS SELECT 1 AS MINE", "TABLE PHOTOS (MINE)", "TABLE photos (MINE)"])
def test_a_users_own_photos_are_left_alone(collection, own):
    for statement in (
        "DROP VIEW PHOTOS",
        f"CREATE {own}",
        "CREATE TABLE MY_IMAGES (X)",
        "CREATE TABLE MY_EMBEDDINGS (X)",
    ):
        collection.sql(statement)
    collection.add_photos(1)
    collection.run()
    assert collection.sql("SELECT * FROM PHOTOS LIMIT 0") == []
    assert collection.sql("SELECT name FROM pragma_table_info('PHOTOS')") == [("MINE",)]
