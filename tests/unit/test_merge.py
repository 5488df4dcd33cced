"""Merging: the database is a function of the shard databases and the manifest."""

import os
import shutil
import sqlite3
from pathlib import Path

import decode_here
import numpy as np
import pytest
import sqlalchemy as sa
from conftest import COLOUR_ENCODER, DEMO_PHOTOS

from crossfilter_inference.db.connect import reading, writing
from crossfilter_inference.db.digest import digest_rows, row_digest
from crossfilter_inference.db.embeddings import read_embeddings
from crossfilter_inference.db.provenance import other_versions, write_provenance
from crossfilter_inference.db.tables import Tables, read_provenance
from crossfilter_inference.embed.job import embed_shard
from crossfilter_inference.encoders import registry
from crossfilter_inference.encoders.identity import read_encoder
from crossfilter_inference.encoders.registry import resolve_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.scan import ImageFile
from crossfilter_inference.shards import shard as shard_module
from crossfilter_inference.shards.guard import refuse_mixture
from crossfilter_inference.shards.journal import RowsLog
from crossfilter_inference.shards.merge import store_embeddings
from crossfilter_inference.shards.plan import (
    make_plan,
    read_retired,
    read_shard_lists,
    shard_lists,
    shards_at_work,
    write_manifest,
    write_plan,
)
from crossfilter_inference.shards.shard import read_thumbnails
from crossfilter_inference.util.files import read_json, write_json


class Store:
    """A collection without Snakemake: scan by hand, plan, embed, merge."""

    def __init__(self, folder):
        self.folder = folder
        self.images = {}
        self.resolve("model")

    def resolve(self, model):
        settings = {"backend": str(COLOUR_ENCODER), "model": model}
        write_json(self.folder / "encoder.json", resolve_encoder("T", settings))

    def photo(self, number, source=0, mtime_ns=1):
        path = self.folder / "photos" / f"00000000-0000-4000-8000-{number:012d}.jpg"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(DEMO_PHOTOS[source], path)
        self.stamp(number, path, mtime_ns)

    def stamp(self, number, path, mtime_ns=1):
        os.utime(path, ns=(mtime_ns, mtime_ns))
        self.images[number] = ImageFile(path.stem, str(path), path.stat().st_size, mtime_ns)

    def path(self, name):
        return str(self.folder / name)

    def plan(self, shard_size=3):
        planned = make_plan(read_shard_lists(self.folder), list(self.images.values()), [], shard_size)
        write_plan(self.path("plan.tsv"), planned)
        write_manifest(*map(self.path, ("plan.tsv", "manifest.tsv", "rejected.tsv", "shards")))
        return planned

    def embed(self, shard, database=None, **options):
        return embed_shard(
            self.path(f"shards/{shard}.tsv"),
            self.path("plan.tsv"),
            self.path("encoder.json"),
            self.path(f"embeddings/{shard}.sqlite"),
            database=database,
            batch_size=2,
            n_threads=2,
            backends=[str(COLOUR_ENCODER)],
            **options,
        )

    def merge(self, database="x.sqlite", **options):
        deleted = removed(self.folder, self.images.values()) if options.pop("delete_missing", False) else set()
        return store_embeddings(
            self.path("encoder.json"),
            self.path("manifest.tsv"),
            self.path(database),
            self.path("shards"),
            self.path("embeddings"),
            self.path("receipt.json"),
            **{"generation": 1, "deleted": deleted, **options},
        )

    def run(self, **options):
        for shard in self.plan().new_shards:
            self.embed(shard)
        return self.merge(**options)

    def rows(self, database="x.sqlite"):
        with reading(self.path(database)) as connection:
            uuids, embeddings = read_embeddings(connection, "T")
        return {uuid: row.tobytes() for uuid, row in zip(uuids, embeddings, strict=True)}


def removed(folder, images):
    """Return the UUIDs of all listed photos that are missing, as if every folder could be read."""
    listed = {uuid for rows in read_shard_lists(folder).values() for uuid, *_ in rows}
    return listed - {image.uuid for image in images}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    for number in range(7):
        store.photo(number, source=number)
    return store


def test_every_image_has_its_row(store):
    stored = store.run()
    assert (stored.n_merged, stored.n_embeddings, stored.n_failures) == (7, 7, 0)
    assert store.rows().keys() == {image.uuid for image in store.images.values()}


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4])
def test_a_shard_is_read_in_pieces(store, n_rows, monkeypatch):
    store.run()
    monkeypatch.setattr(shard_module, "CHUNK", n_rows)
    assert store.merge(database="fresh.sqlite").n_embeddings == 7
    for table in ("T_EMBEDDINGS", "T_IMAGES", "T_PROVENANCE"):
        query = f"SELECT * FROM {table} WHERE rowid >= 0 ORDER BY 1"
        with reading(store.path("x.sqlite")) as ours, reading(store.path("fresh.sqlite")) as theirs:
            assert ours.exec_driver_sql(query).all() == theirs.exec_driver_sql(query).all()


def test_a_second_merge_takes_only_what_is_new(store):
    store.run()
    receipt = read_json(store.path("receipt.json"))
    assert store.run().n_merged == 0
    assert read_json(store.path("receipt.json")) == receipt
    store.photo(7)
    assert store.run().n_merged == 1


def test_the_receipt_digests_the_contents_whatever_the_history(store):
    store.run()
    store.photo(1, source=9, mtime_ns=2)
    store.photo(8, source=8)
    store.run()
    step_by_step = read_json(store.path("receipt.json"))
    store.merge(database="fresh.sqlite")
    assert read_json(store.path("receipt.json")) == step_by_step
    assert store.rows("fresh.sqlite") == store.rows()


def test_ownership_that_returns_to_an_old_shard_is_followed(store):
    store.run()
    first = store.rows()
    store.photo(1, source=9, mtime_ns=2)
    store.run()
    assert store.rows() != first
    store.photo(1, source=1)
    assert store.run().n_merged == 3  # the shard of the old row
    assert store.rows() == first


def test_a_photo_that_broke_moves_to_the_failures_and_back(store):
    store.run()
    first = store.rows()
    bad = Path(store.images[1].path)
    bad.write_text("broken")
    store.stamp(1, bad)
    stored = store.run()
    assert (stored.n_embeddings, stored.n_failures) == (6, 1)
    store.photo(1, source=1)
    stored = store.run()
    assert (stored.n_embeddings, stored.n_failures) == (7, 0)
    assert store.rows() == first


def test_of_a_missing_photo_the_newest_row_stays_whatever_the_order_of_merging(store):
    store.run()
    store.photo(1, source=9, mtime_ns=2)
    store.run()
    newest = store.rows()
    del store.images[1]
    store.run()
    assert store.rows() == newest
    store.merge(database="fresh.sqlite")
    assert store.rows("fresh.sqlite") == newest


@pytest.mark.parametrize("database", ["x.sqlite", "fresh.sqlite"])
def test_photos_have_their_current_paths_even_in_a_rebuilt_database(store, database):
    broken = store.folder / "photos" / "00000000-0000-4000-8000-000000000008.jpg"
    broken.write_text("broken")
    store.stamp(8, broken)
    store.run()
    paths = {}
    for number in (1, 8):
        old = Path(store.images[number].path)
        paths[number] = str(old.rename(store.folder / old.name))
        store.images[number] = store.images[number]._replace(path=paths[number])
    assert store.run(database=database).n_merged == (0 if database == "x.sqlite" else 7)
    with reading(store.path(database)) as connection:
        for number, table in ((1, "T_IMAGES"), (8, "T_FAILURES")):
            query = f"SELECT PATH FROM {table} WHERE UUID = '{store.images[number].uuid}'"
            assert connection.exec_driver_sql(query).scalars().all() == [paths[number]]


def test_rows_of_missing_photos_can_be_deleted(store):
    store.run()
    gone = store.images.pop(1)
    assert store.run().n_embeddings == 7
    assert store.run(delete_missing=True).n_embeddings == 6
    assert gone.uuid not in store.rows()


def test_shards_of_two_encoders_are_refused_and_the_database_is_unchanged(store):
    store.run()
    before = store.rows()
    store.resolve("another")
    store.embed("000002")
    with pytest.raises(
        InputError, match=r"000001\.sqlite' comes from another encoder \(model: model -> another.*\); delete it"
    ):
        store.merge()
    assert store.rows() == before


def test_a_damaged_shard_database_is_named(store):
    store.run()
    (store.folder / "embeddings" / "000002.sqlite").write_text("no database " * 100)
    with pytest.raises(InputError, match=r"000002\.sqlite' is damaged; delete it, and the next run rebuilds it"):
        store.merge()


def test_damage_inside_a_shard_database_is_not_blamed_on_the_database(store):
    store.run()
    before = store.rows()
    path = store.folder / "embeddings" / "000002.sqlite"
    with sqlite3.connect(path) as connection:
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'T_EMBEDDINGS'").fetchone()[0]
        connection.execute("UPDATE T_PROVENANCE SET VALUE = 'x' WHERE KEY = 'shard_digest'")
    connection.close()
    data = bytearray(path.read_bytes())
    data[(root - 1) * page : root * page] = b"\xff" * page
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"000002\.sqlite' is damaged; delete it, and the next run rebuilds it"):
        store.merge()
    assert store.rows() == before


def test_a_copied_row_has_the_time_of_its_own_file_name(store):
    def named(number, time):
        path = store.folder / "photos" / f"IMG_{time}.jpg"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(DEMO_PHOTOS[0], path)
        store.stamp(number, path)
        store.images[number] = store.images[number]._replace(uuid=f"00000000-0000-4000-8000-{number:012d}")

    named(1, "20210506_070809")
    store.run()
    named(2, "20220607_080910")
    named(3, "0001")
    for shard in store.plan().new_shards:
        assert store.embed(shard, store.path("x.sqlite")).n_copied == 2
    store.merge()
    with reading(store.path("x.sqlite")) as connection:
        query = "SELECT UUID, TAKEN, TAKEN_FROM FROM T_IMAGES"
        taken = {uuid: (time, source) for uuid, time, source in connection.exec_driver_sql(query)}
    assert [taken[store.images[number].uuid] for number in (1, 2, 3)] == [
        ("2021-05-06T07:08:09", "name"),
        ("2022-06-07T08:09:10", "name"),
        (None, None),
    ]


def test_the_same_content_is_copied_under_the_same_encoder_only(store):
    store.run()
    store.photo(20, source=3)
    [shard] = store.plan().new_shards
    counts = store.embed(shard, database=store.path("x.sqlite"))
    assert (counts.n_computed, counts.n_copied) == (0, 1)
    store.merge()
    rows = store.rows()
    assert rows[store.images[20].uuid] == rows[store.images[3].uuid]
    store.resolve("another")
    counts = store.embed(shard, database=store.path("x.sqlite"))
    assert (counts.n_computed, counts.n_copied) == (1, 0)


def test_a_row_does_not_depend_on_shard_batch_or_position(store):
    store.run()
    rows = store.rows()
    for number in (10, 11, 12):
        store.photo(number, source=4)
    for shard in store.plan(shard_size=1).new_shards:
        store.embed(shard)
    store.merge()
    again = store.rows()
    assert {again[store.images[number].uuid] for number in (10, 11, 12)} == {rows[store.images[4].uuid]}
    assert np.isclose(np.linalg.norm(np.frombuffer(rows[store.images[4].uuid], "<f4")), 1)


def recorded_digest(store):
    """The recorded digest of the rows, and the actual one."""
    with reading(store.path("x.sqlite")) as connection:
        recorded = read_provenance(connection, "T")
        return (int(recorded["embeddings_rows"]), recorded["embeddings_digest"]), digest_rows(connection, "T")


def test_the_recorded_digest_follows_every_change_of_the_rows(store):
    for change in (
        lambda: None,
        lambda: store.photo(1, source=9, mtime_ns=2),
        lambda: store.images.pop(2),
        lambda: store.photo(8, source=8),
        lambda: store.photo(1, source=1),
    ):
        change()
        store.run()
        recorded, actual = recorded_digest(store)
        assert recorded == actual
    store.run(delete_missing=True)
    recorded, actual = recorded_digest(store)
    assert recorded == actual
    assert actual[0] == 7


def test_a_merge_digests_all_rows_if_another_program_has_added_some(store):
    store.run()
    with writing(store.path("x.sqlite")) as connection:
        connection.execute(sa.text("INSERT INTO T_EMBEDDINGS VALUES ('00000000-0000-4000-8000-00000000000f', x'00')"))
    store.photo(8, source=8)
    store.run()
    recorded, actual = recorded_digest(store)
    assert recorded == actual


def test_a_row_changed_by_hand_is_not_taken_into_the_recorded_digest(store):
    store.run()
    with writing(store.path("x.sqlite")) as connection:
        connection.execute(sa.text("UPDATE T_EMBEDDINGS SET EMBEDDING = x'00' WHERE UUID LIKE '%3'"))
    store.photo(8, source=8)
    store.run()
    recorded, actual = recorded_digest(store)
    assert recorded != actual


def test_a_shard_database_whose_rows_have_rotted_is_not_merged(store):
    store.run()
    path = store.folder / "embeddings" / "000002.sqlite"
    data = path.read_bytes()
    row = store.rows()[store.images[4].uuid]
    assert data.count(row) == 1
    path.write_bytes(data.replace(row, row[:-1] + bytes([row[-1] ^ 1])))
    with pytest.raises(InputError, match=r"000002\.sqlite' is damaged; delete it, and the next run rebuilds it"):
        store.merge(database="fresh.sqlite")
    with reading(store.path("fresh.sqlite")) as connection:
        assert sa.inspect(connection).get_table_names() == [], "the whole transaction is taken back"


@pytest.mark.parametrize("change", ["EMBEDDING = x'00'", "EMBEDDING = 1", "UUID = 'x'"])
def test_a_shard_database_whose_rows_were_changed_is_not_merged(store, change):
    store.run()
    with writing(store.folder / "embeddings" / "000002.sqlite") as connection:
        connection.exec_driver_sql(f"UPDATE T_EMBEDDINGS SET {change} WHERE rowid = 2")
    with pytest.raises(InputError, match=r"000002\.sqlite' is damaged; delete it, and the next run rebuilds it"):
        store.merge(database="fresh.sqlite")


def test_of_a_missing_photo_in_two_spellings_the_newest_row_stays_even_in_a_rebuilt_database(store):
    store.run()
    path = Path(store.images[1].path)
    respelled = path.rename(path.with_name(f"{path.stem.replace('-', '')}.jpg"))
    store.stamp(1, respelled)
    store.run()
    del store.images[1]
    store.run()
    rows = store.rows()
    assert len(rows) == 7
    assert respelled.stem in rows
    store.merge(database="fresh.sqlite")
    assert store.rows("fresh.sqlite") == rows


def fail_and_remove_the_second_photo(store):
    """Leave an older shard with its row, and a newer one with its failure."""
    store.run()
    path = Path(store.images[1].path)
    path.write_text("broken")
    store.stamp(1, path)
    store.run()
    del store.images[1]
    assert store.run().n_embeddings == 6


def test_a_photo_that_failed_and_was_removed_does_not_reappear_with_an_older_row(store):
    fail_and_remove_the_second_photo(store)
    assert store.run().n_retired == 0
    store.merge(database="fresh.sqlite")
    assert store.rows("fresh.sqlite") == store.rows()


def test_shards_that_are_no_longer_needed_are_listed(store):
    store.run()
    assert read_retired(store.folder) == set()
    for number in range(3):
        store.photo(number, source=number, mtime_ns=2)
    assert store.run().n_retired == 1
    assert read_retired(store.folder) == {"000001"}
    assert shards_at_work(store.plan(), ["000001", "000002", "000003", "000004"], store.folder) == [
        "000002",
        "000003",
        "000004",
    ]
    for number in range(3):
        store.photo(number, source=number)
    assert shards_at_work(store.plan(), ["000001", "000002"], store.folder)[0] == "000001", "it owns photos again"


def test_an_old_shard_that_is_merged_again_does_not_replace_newer_rows_of_missing_photos(store):
    store.run()
    store.photo(1, source=9, mtime_ns=2)
    store.run()
    del store.images[1]
    store.photo(2, source=9, mtime_ns=2)
    store.run()
    newest = store.rows()
    store.photo(2, source=2)
    assert store.run().n_merged == 2, "both rows of the first shard that are wanted"
    assert store.rows().items() >= {u: row for u, row in newest.items() if not u.endswith("2")}.items()


def test_a_row_replaces_a_failure_even_in_an_empty_table(tmp_path):
    store = Store(tmp_path)
    store.photo(1)
    path = Path(store.images[1].path)
    path.write_text("broken")
    store.stamp(1, path)
    assert (store.run().n_embeddings, store.run().n_failures) == (0, 1)
    store.photo(1)
    stored = store.run()
    assert (stored.n_embeddings, stored.n_failures) == (1, 0)


def test_a_store_without_new_rows_still_updates_paths_receipt_and_merged_shards(store):
    store.run()
    moved = Path(store.images[1].path)
    store.images[1] = store.images[1]._replace(path=str(moved.rename(store.folder / moved.name)))
    store.plan()
    assert store.merge(generation=5).n_merged == 0
    assert read_json(store.path("receipt.json"))["generation"] == 5
    with reading(store.path("x.sqlite")) as connection:
        query = f"SELECT PATH FROM T_IMAGES WHERE UUID = '{store.images[1].uuid}'"
        assert connection.exec_driver_sql(query).scalar() == store.images[1].path


def test_a_retired_shard_is_no_longer_among_the_merged_ones(store):
    store.run()
    for number in range(3):
        store.photo(number, source=number, mtime_ns=2)
    assert store.run().n_retired == 1
    with reading(store.path("x.sqlite")) as connection:
        shards = set(connection.exec_driver_sql("SELECT SHARD FROM T_SHARDS").scalars())
    assert shards == {"000002", "000003", "000004"}


def test_rows_that_the_plan_does_not_name_are_not_deleted(store):
    store.run()
    one, other = store.images.pop(1), store.images.pop(2)
    store.plan()
    assert store.merge(deleted={one.uuid}).n_deleted == 1
    assert other.uuid in store.rows()
    assert one.uuid not in store.rows()
    assert store.merge(database="fresh.sqlite", deleted={one.uuid}).n_embeddings == 6
    assert store.rows("fresh.sqlite") == store.rows()


def test_the_digest_of_a_row_depends_on_its_uuid():
    assert row_digest("a", b"row") != row_digest("b", b"row")
    assert row_digest("a", b"row") != row_digest("a", b"another")


def test_a_journal_that_is_resumed_is_on_the_disk_before_the_old_one_is_removed(tmp_path, monkeypatch):
    belongs_to, row = {"list": "l", "encoder": "e"}, {"UUID": "u", "SIZE": 1, "MTIME_NS": 1}
    killed = RowsLog(tmp_path / "000001.sqlite", belongs_to, set())
    killed.add(row)
    killed._file.close()
    calls, fsync, unlink = [], os.fsync, Path.unlink
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync") or fsync(handle))
    monkeypatch.setattr(Path, "unlink", lambda path, **how: calls.append("unlink") or unlink(path, **how))
    with RowsLog(tmp_path / "000001.sqlite", belongs_to, {("u", 1, 1)}) as journal:
        assert journal.finished == {"u"}
        assert calls == ["fsync", "unlink"]


def test_only_keys_with_the_very_prefix_are_replaced(tmp_path):
    with writing(tmp_path / "x.sqlite") as connection:
        Tables("T").create(connection, Tables("T").provenance)
        write_provenance(connection, "T", "encoderX", {"a": "1"})
        write_provenance(connection, "T", "encoder_", {"a": "2"})
        write_provenance(connection, "T", "encoder_", {"b": "3"})
        assert read_provenance(connection, "T") == {"encoderXa": "1", "encoder_b": "3"}


def embed_versions(store, database="x.sqlite"):
    """The embed version of every row, less the present one, by the number of the photo."""
    with reading(store.path(database)) as connection:
        rows = connection.exec_driver_sql("SELECT UUID, EMBED_VERSION FROM T_IMAGES").all()
    return {int(uuid[-2:]): version - registry.EMBED_VERSION for uuid, version in rows}


@pytest.fixture
def upgrade(store, monkeypatch):
    """Raise the embed version, and run all shards, as Snakemake does when encoder.json is new."""

    def upgrade(*, by=1, **options):
        monkeypatch.setattr(registry, "EMBED_VERSION", registry.EMBED_VERSION + by)
        store.resolve("model")
        refuse_mixture(
            store.path("x.sqlite"), store.path("plan.tsv"), read_encoder(store.path("encoder.json")), recompute=False
        )
        return embed_all(store, **options)

    return upgrade


def embed_all(store, **options):
    store.plan()
    n_computed = 0
    for path in shard_lists(store.folder / "shards"):
        n_computed += store.embed(path.stem, database=store.path("x.sqlite")).n_computed
    store.merge(**options)
    return n_computed


def test_an_upgrade_keeps_rows_of_missing_photos_with_their_embed_version(store, upgrade):
    store.run()
    before = store.rows()
    del store.images[1], store.images[6]
    store.run()
    assert upgrade() == 5
    expected = dict.fromkeys(range(7), 0) | {1: -1, 6: -1}
    assert embed_versions(store) == expected
    assert store.rows() == before
    with reading(store.path("x.sqlite")) as connection:
        assert other_versions(connection, "T") == {registry.EMBED_VERSION - 1: 2}
    assert upgrade() == 5
    assert embed_versions(store) == dict.fromkeys(range(7), 0) | {1: -2, 6: -2}, "the version in which it was made"


def test_a_rebuilt_database_has_the_kept_rows_and_their_embed_versions(store, upgrade):
    store.run()
    del store.images[1]
    store.run()
    upgrade(database="x.sqlite")
    store.merge(database="fresh.sqlite")
    assert store.rows("fresh.sqlite") == store.rows()
    assert embed_versions(store, "fresh.sqlite") == embed_versions(store) == dict.fromkeys(range(7), 0) | {1: -1}


def test_an_upgrade_without_the_database_finds_rows_of_missing_photos_in_the_shards(store, upgrade):
    store.run()
    before = store.rows()
    del store.images[1]
    store.run()
    Path(store.path("x.sqlite")).unlink()
    upgrade()
    assert store.rows() == before
    assert embed_versions(store)[1] == -1


def test_kept_rows_keep_their_thumbnails(store, upgrade):
    store.run()
    uuid = store.images.pop(1).uuid
    path = store.path("embeddings/000001.sqlite")
    before = dict(read_thumbnails(path, "T", [uuid]))
    store.run()
    upgrade()
    assert dict(read_thumbnails(path, "T", [uuid])) == before


def test_a_photo_that_returns_after_an_upgrade_is_embedded_again(store, upgrade):
    store.run()
    gone = store.images.pop(1)
    store.run()
    upgrade()
    store.images[1] = gone
    assert store.plan().new_shards == ["000004"]
    assert store.embed("000004", database=store.path("x.sqlite")).n_computed == 1
    store.merge()
    assert set(embed_versions(store).values()) == {0}


def test_a_kept_row_is_no_outcome_of_a_photo_that_returns(store, upgrade):
    store.run()
    gone = store.images.pop(1)
    store.run()
    upgrade()
    store.images[1] = gone
    Path(store.path("embeddings/000001.unread.tsv")).unlink()
    assert store.plan().new_shards == []
    assert store.embed("000001", database=store.path("x.sqlite")).n_computed == 1
    store.merge()
    assert set(embed_versions(store).values()) == {0}


def test_a_copy_of_a_missing_photo_is_embedded_and_not_copied_from_a_kept_row(store, upgrade):
    store.run()
    del store.images[1]
    store.run()
    upgrade()
    store.photo(20, source=1)
    [shard] = store.plan().new_shards
    counts = store.embed(shard, database=store.path("x.sqlite"))
    assert (counts.n_computed, counts.n_copied) == (1, 0)


def test_a_photo_that_failed_and_was_removed_does_not_reappear_after_an_upgrade(store, upgrade):
    fail_and_remove_the_second_photo(store)
    upgrade()
    assert 1 not in embed_versions(store)
    store.merge(database="fresh.sqlite")
    assert store.rows("fresh.sqlite") == store.rows()


def test_a_damaged_shard_with_rows_of_missing_photos_is_not_replaced_in_silence(store, upgrade):
    store.run()
    del store.images[1]
    store.run()
    (store.folder / "embeddings" / "000001.sqlite").write_text("no database " * 100)
    with pytest.raises(InputError, match=r"000001\.sqlite' is damaged; delete it, and the next run rebuilds it"):
        upgrade()


def test_a_migrated_database_records_the_embed_version_of_its_rows(store):
    store.run()
    with writing(store.path("x.sqlite")) as connection:
        connection.exec_driver_sql("ALTER TABLE T_IMAGES DROP COLUMN EMBED_VERSION")
        connection.exec_driver_sql("DELETE FROM T_PROVENANCE WHERE KEY = 'format_version'")
    store.merge()
    assert embed_versions(store) == dict.fromkeys(range(7), 0)


def test_only_another_embed_version_is_accepted_beside_rows_of_missing_photos(store, upgrade):
    store.run()
    del store.images[1]
    store.run()
    encoder = read_encoder(store.path("encoder.json"))
    refused = {**encoder, "embed_version": 99, "weights_sha256": "another"}
    with pytest.raises(InputError, match="1 embedding of missing photos, which cannot be mixed"):
        refuse_mixture(store.path("x.sqlite"), store.path("plan.tsv"), refused, recompute=False)
    with pytest.raises(InputError, match="1 embedding of missing photos, which cannot be mixed"):
        refuse_mixture(store.path("x.sqlite"), store.path("plan.tsv"), {**encoder, "dimension": 47}, recompute=False)


@pytest.mark.parametrize("how", ["a new timestamp", "another name", "read again"])
def test_a_photo_of_known_contents_is_not_decoded(store, monkeypatch, how):
    store.run()
    store.photo(30, source=2) if how == "another name" else store.photo(2, source=2, mtime_ns=5)
    decoded = []
    decode = decode_here.decode_image
    monkeypatch.setattr(decode_here, "decode_image", lambda *arguments: decoded.append(1) or decode(*arguments))
    [shard] = store.plan().new_shards
    recompute = how == "read again"
    counts = store.embed(shard, database=None if recompute else store.path("x.sqlite"))
    assert (counts.n_computed, counts.n_copied, len(decoded)) == ((1, 0, 1) if recompute else (0, 1, 0))
    store.merge()
    number = 30 if how == "another name" else 2
    uuids = [store.images[n].uuid for n in (2, number)]
    assert len({store.rows()[uuid] for uuid in uuids}) == 1
    with reading(store.path("x.sqlite")) as connection:
        query = "SELECT DIGEST, WIDTH, HEIGHT, TAKEN, EMBED_VERSION FROM T_IMAGES WHERE UUID = ?"
        assert len({connection.exec_driver_sql(query, (uuid,)).one() for uuid in uuids}) == 1
    [[_, thumbnail]] = read_thumbnails(store.path(f"embeddings/{shard}.sqlite"), "T", [store.images[number].uuid])
    assert thumbnail.startswith(b"\xff\xd8")


@pytest.mark.parametrize("why", ["no thumbnail", "new contents of the same size", "too large"])
def test_a_photo_is_decoded_if_its_row_cannot_be_copied(store, monkeypatch, why):
    store.run()
    store.photo(2, source=2, mtime_ns=5)
    if why == "no thumbnail":
        Path(store.path("embeddings/000001.sqlite")).unlink()
    elif why == "new contents of the same size":
        path = Path(store.images[2].path)
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        store.stamp(2, path, 5)
    decoded = []
    decode = decode_here.decode_image
    monkeypatch.setattr(decode_here, "decode_image", lambda *arguments: decoded.append(1) or decode(*arguments))
    [shard] = store.plan().new_shards
    options = {"max_pixels": 1000} if why == "too large" else {}
    counts = store.embed(shard, database=store.path("x.sqlite"), **options)
    assert len(decoded) == 1
    assert (counts.n_computed, counts.n_copied, counts.n_failed) == {
        "no thumbnail": (0, 1, 0),
        "new contents of the same size": (1, 0, 0),
        "too large": (0, 0, 1),
    }[why]


def test_an_old_shard_that_is_merged_again_does_not_bring_back_a_photo_that_failed_and_was_removed(store):
    store.run()
    path = Path(store.images[1].path)
    path.write_text("broken")
    store.stamp(1, path)
    store.photo(2, source=9, mtime_ns=2)
    store.run()
    gone = store.images.pop(1).uuid
    store.run()
    store.photo(2, source=2)
    assert store.run().n_merged == 2
    assert gone not in store.rows()
