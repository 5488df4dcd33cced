"""After a change or a loss, a rerun does only the missing work."""

import os
import shutil
import sqlite3

import pytest

NEW_PHOTOS = {"write_manifest": 1, "embed_shard": 1, "store_embeddings": 1}
ALL_AGAIN = {"resolve_encoder": 1, "embed_shard": 3, "store_embeddings": 1}


def change_model(collection):
    encoders = collection.config()["encoders"]
    encoders["COLOUR"]["model"] = "another"
    collection.configure(encoders=encoders)


@pytest.fixture
def collection(three_shards):
    three_shards.take_back()
    return three_shards


@pytest.mark.slow
def test_another_model_embeds_every_shard(collection):
    before = collection.embeddings()
    change_model(collection)
    assert collection.dry_run() == ALL_AGAIN
    assert collection.run() == ALL_AGAIN
    after = collection.embeddings()
    assert after.keys() == before.keys()
    assert all(after[uuid] != before[uuid] for uuid in before)
    assert collection.sql("SELECT VALUE FROM {T}_PROVENANCE WHERE KEY = 'encoder_model'") == [("another",)]
    assert collection.dry_run() == {}


def test_only_a_deleted_shard_database_is_rebuilt(collection):
    before = collection.embeddings()
    (collection.state / "embeddings" / "000002.sqlite").unlink()
    assert collection.run() == {"embed_shard": 1, "store_embeddings": 1}
    assert collection.embeddings() == before
    assert collection.dry_run() == {}


def test_without_snakemakes_records_nothing_is_repeated(collection):
    shutil.rmtree(collection.folder / ".snakemake")
    assert collection.dry_run() == {}


def test_without_snakemakes_records_new_photos_are_not_overlooked(collection):
    shutil.rmtree(collection.folder / ".snakemake")
    collection.add_photos(3)
    assert collection.dry_run() == NEW_PHOTOS
    assert collection.run() == NEW_PHOTOS
    assert len(collection.embeddings()) == 15
    assert collection.dry_run() == {}


def test_without_snakemakes_records_another_model_embeds_every_shard(collection):
    shutil.rmtree(collection.folder / ".snakemake")
    change_model(collection)
    assert collection.dry_run() == ALL_AGAIN


def test_without_snakemakes_records_a_changed_map_setting_fits(demo):
    shutil.rmtree(demo.folder / ".snakemake")
    assert demo.dry_run() == {}
    demo.configure(umap={"n_neighbors": 7})
    assert demo.dry_run() == {"fit_umap": 1, "store_map": 1, "draw_map": 1}


def test_a_moved_photo_is_not_embedded_again(collection):
    before = collection.embeddings()
    photos = collection.folder / "photos"
    (photos / "album").mkdir()
    moved = next(photos.glob("*.jpg"))
    moved.rename(photos / "album" / moved.name)
    done = collection.snakemake()
    assert "to be read again: 1 (new or unknown status; embedded only if the content differs)" in done.stdout
    assert "embedded 0 photos, copied 1, failed 0" in done.stdout
    assert collection.embeddings() == before
    path = str(photos / "album" / moved.name)
    assert collection.sql(f"SELECT PATH FROM {{T}}_IMAGES WHERE UUID = '{moved.stem}'") == [(path,)]
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_a_map_of_the_same_embeddings_is_kept(demo):
    model = (demo.state / "umap_model.pkl").read_bytes()
    (demo.folder / "more" / "holiday.jpg").touch()
    done = demo.snakemake()
    assert "map: unchanged (same embeddings and settings)" in done.stdout
    assert (demo.state / "umap_model.pkl").read_bytes() == model
    assert "not a UUID" in (demo.state / "rejected.tsv").read_text()
    assert demo.dry_run() == {}


def test_a_lost_manifest_costs_nothing(collection):
    manifest = (collection.state / "manifest.tsv").read_text()
    (collection.state / "manifest.tsv").unlink()
    assert collection.run() == {"write_manifest": 1, "store_embeddings": 1}
    assert (collection.state / "manifest.tsv").read_text() == manifest


def test_a_changed_photo_goes_into_a_new_shard_and_its_row_is_replaced(collection):
    before = collection.embeddings()
    one, other = sorted((collection.folder / "photos").glob("*.jpg"))[:2]
    shutil.copy(other, one)
    assert collection.run() == NEW_PHOTOS
    after = collection.embeddings()
    assert after == {**before, one.stem: before[other.stem]}
    assert collection.sql(f"SELECT SHARD FROM {{T}}_IMAGES WHERE UUID = '{one.stem}'") == [("000004",)]
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_a_photo_changed_back_gets_its_old_row_back(collection):
    before = collection.embeddings()
    one, other = sorted((collection.folder / "photos").glob("*.jpg"))[:2]
    saved = collection.folder / "saved"
    shutil.copy2(one, saved)
    shutil.copy(other, one)
    collection.run()
    shutil.copy2(saved, one)
    assert "embedded 0 photos, copied 1, failed 0" in collection.snakemake().stdout
    assert collection.embeddings() == before
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_a_photo_changed_back_is_embedded_if_its_old_row_is_damaged(collection):
    one, other = sorted((collection.folder / "photos").glob("*.jpg"))[:2]
    saved = collection.folder / "saved"
    shutil.copy2(one, saved)
    shutil.copy(other, one)
    collection.run()
    connection = sqlite3.connect(collection.state / "embeddings" / "000001.sqlite")
    connection.execute("UPDATE COLOUR_EMBEDDINGS SET EMBEDDING = (SELECT min(EMBEDDING) FROM COLOUR_EMBEDDINGS)")
    connection.commit()
    connection.close()
    shutil.copy2(saved, one)
    assert "embedded 1 photo, copied 0, failed 0" in collection.snakemake().stdout


def test_a_touched_photo_is_copied_not_computed(collection):
    before = collection.embeddings()
    one = next((collection.folder / "photos").glob("*.jpg"))
    os.utime(one)
    done = collection.snakemake()
    assert "embedded 0 photos, copied 1, failed 0" in done.stdout
    assert collection.embeddings() == before
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_recompute_embeds_every_photo_at_every_run(collection):
    before = collection.embeddings()
    collection.configure(recompute_existing_embeddings=True)
    again = {"write_manifest": 1, "embed_shard": 3, "store_embeddings": 1}
    assert collection.run() == again
    assert collection.dry_run() == again
    assert collection.embeddings() == before
    collection.configure(recompute_existing_embeddings=False)
    assert collection.dry_run() == {}


def test_missing_photos_keep_their_rows_by_default(collection):
    before = collection.embeddings()
    gone = sorted((collection.folder / "photos").glob("*.jpg"))[:4]
    for path in gone:
        path.unlink()
    collection.run()
    assert collection.embeddings() == before
    collection.configure(missing_images="delete")
    done = collection.snakemake()
    assert done.returncode == 1
    assert "would remove 4 of 12 embeddings, because their photos are missing from input_dir" in done.stdout
    assert "max_deleted_share is 0.2. Nothing was changed." in done.stdout
    assert collection.embeddings() == before
    assert collection.run("--config", "max_deleted_share=1") == {"store_embeddings": 1}
    assert collection.embeddings().keys() == before.keys() - {path.stem for path in gone}
    assert collection.dry_run() == {}


def test_another_spelling_of_a_uuid_replaces_the_row(collection):
    one = next((collection.folder / "photos").glob("*.jpg"))
    one.rename(one.with_name(f"{one.stem.upper().replace('-', '')}.JPEG"))
    collection.run()
    uuids = collection.embeddings().keys()
    assert one.stem.upper().replace("-", "") in uuids
    assert one.stem not in uuids
    assert len(uuids) == 12


@pytest.mark.slow
def test_a_database_restored_from_a_backup_is_brought_up_to_date(collection):
    backup = collection.folder / "backup"
    shutil.copy2(collection.database, backup)
    collection.add_photos(3)
    collection.run()
    expected = collection.embeddings()
    shutil.copy2(backup, collection.database)
    assert collection.run() == {"store_embeddings": 1}
    assert collection.embeddings() == expected
    assert collection.dry_run() == {}


def test_a_database_without_its_map_gets_it_back(demo):
    places = demo.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID")
    demo.sql("PRAGMA user_version")
    import sqlite3

    connection = sqlite3.connect(demo.database)
    with connection:
        connection.execute("DELETE FROM EFFICIENTNET_LITE0_UMAP_HAVERSINE")
        connection.execute("DELETE FROM EFFICIENTNET_LITE0_PROVENANCE WHERE KEY = 'map_digest'")
    connection.close()
    assert demo.run() == {"store_map": 1}
    assert demo.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID") == places
    assert demo.dry_run() == {}


def test_new_content_under_the_old_size_and_time_is_embedded_and_a_changed_mode_is_only_read(collection):
    before = collection.embeddings()
    one, other, third = sorted((collection.folder / "photos").glob("*.jpg"))[:3]
    status = one.stat()
    data = other.read_bytes()[: status.st_size]
    one.write_bytes(data + bytes(status.st_size - len(data)))
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))
    third.chmod(0o600)
    assert "to be read again: 2" in collection.snakemake("-n").stdout
    done = collection.snakemake()
    assert "copied 1" in done.stdout
    after = collection.embeddings()
    [(reason,)] = collection.sql(f"SELECT count(*) FROM {{T}}_FAILURES WHERE UUID = '{one.stem}'")
    assert reason or after[one.stem] != before[one.stem]
    assert {**after, one.stem: b""} == {**before, one.stem: b""}
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_photos_that_may_still_exist_are_not_deleted_and_every_deletion_is_counted(collection, as_user):
    collection.configure(missing_images="delete", max_deleted_share=1)
    photos = collection.folder / "photos"
    paths = sorted(photos.glob("*.jpg"))
    for folder, chosen in (("locked", paths[:2]), ("disk", paths[2:4]), ("#recycle", paths[4:5])):
        (photos / folder).mkdir()
        for path in chosen:
            path.rename(photos / folder / path.name)
    collection.configure(exclude=[])
    collection.run(**as_user)
    before = collection.embeddings()
    assert len(before) == 12
    (photos / "locked").chmod(0)
    (photos / "disk").rename(collection.folder / "disk")
    (photos / "disk").mkdir()
    paths[5].write_bytes(b"")
    paths[6].unlink()
    collection.configure(exclude=["#recycle"])
    try:
        planned = collection.snakemake("-n", **as_user)
        assert "to delete: 1 embedding of missing photos; held back: 6 embeddings" in planned.stdout
        assert "1: the file is there, but empty" in planned.stdout
        done = collection.snakemake(**as_user)
        assert "deleted:  1 embedding of missing photos; held back: 6 embeddings" in done.stdout
        assert collection.embeddings().keys() == before.keys() - {paths[6].stem}
        assert collection.dry_run(**as_user) == {}
        collection.database.unlink()
        collection.run(**as_user)
        assert collection.embeddings().keys() == before.keys() - {paths[6].stem}, "as in a rebuilt database"
        (photos / "disk").rmdir()
        assert "to delete: 2 embeddings" in collection.snakemake("-n", **as_user).stdout
        collection.run(**as_user)
        assert collection.dry_run(**as_user) == {}
    finally:
        (photos / "locked").chmod(0o755)
    collection.run()
    assert collection.embeddings().keys() == before.keys() - {path.stem for path in (*paths[2:4], paths[6])}
