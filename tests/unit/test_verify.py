"""Verifying: every damage is told in its own line, with a way out that mends it; nothing is written."""

import argparse
import fcntl
import os
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import verify as command
import yaml
from conftest import COLOUR_ENCODER, DEMO, leave_hot_journal
from test_mapping import SETTINGS
from test_store import Store

from crossfilter_inference import encoding
from crossfilter_inference.connections import reading, recover
from crossfilter_inference.database import digest_rows, pack_embedding
from crossfilter_inference.errors import InputError
from crossfilter_inference.files import read_json, write_json
from crossfilter_inference.mapping import make_map
from crossfilter_inference.plan import make_plan, read_shard_lists, write_manifest, write_plan
from crossfilter_inference.scan import scan_folders
from crossfilter_inference.store import store_embeddings, store_map
from crossfilter_inference.verify import read_config, verify

LINE = re.compile(r"(ok|FAILED|skipped) +(\w+) +(.*)")
CHECKS = ["database", "embeddings", "digest", "fates", "shards", "provenance", "map"]
UUID = "00000000-0000-4000-8000-{:012d}".format
FAILED_PHOTO = UUID(7)


class Collection(Store):
    """A collection of 7 photos, one that cannot be decoded and a file with another name, in 3 shards, with a map."""

    def __init__(self, root):
        self.root, self.database, self.photos = root, root / "x.sqlite", root / "photos"
        self.photos.mkdir(parents=True)
        (root / "x" / "T").mkdir(parents=True)
        super().__init__(root / "x" / "T")
        config = {
            "input_dir": str(self.photos),
            "output_embeddings_db": str(self.database),
            "embedding_type": "T",
            "encoders": {"T": {"backend": str(COLOUR_ENCODER), "model": "model"}},
        }
        self.configure(**config)
        for number in range(7):
            self.photo(number, source=number)
        (self.photos / f"{FAILED_PHOTO}.jpg").write_text("broken")
        (self.photos / "holiday.jpg").write_text("no photo of the collection")

    def configure(self, **changes):
        path = self.root / "config.yaml"
        before = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump({**before, **changes}))

    def photo(self, number, source=0, mtime_ns=1):
        super().photo(number, source, mtime_ns)
        made = Path(self.images[number].path)
        shutil.move(made, self.photos / made.name)

    def merge(self, *, delete_missing=False):
        return store_embeddings(
            *(self.path("encoder.json"), self.path("manifest.tsv"), str(self.database)),
            *map(self.path, ("shards", "embeddings", "embeddings.json")),
            generation=1,
            delete_missing=delete_missing,
        )

    def plan(self):
        scan = scan_folders([str(self.photos)], [".jpg"])
        plan = make_plan(read_shard_lists(self.folder), scan.images, scan.rejected, 3)
        write_plan(self.path("plan.tsv"), plan)
        write_manifest(*map(self.path, ("plan.tsv", "manifest.tsv", "rejected.tsv", "shards")))
        return plan

    def run(self, *, delete_missing=False):
        """Do what a run does."""
        if not (self.folder / "encoder.json").exists():
            self.resolve("model")
        if self.database.exists():
            recover(self.database)
        for shard in sorted({image.shard for image in self.plan().images}):
            self.embed(shard, database=str(self.database))
        self.merge(delete_missing=delete_missing)
        files = [self.path(name) for name in ("umap_model.pkl", "map.tsv", "map_quality.json", "map_stored.json")]
        make_map(self.path("embeddings.json"), str(self.database), "T", SETTINGS, "", tuple(files[:3]), 2)
        store_map("T", str(self.database), *files, generation=1)

    def verify(self, **options):
        """Run the command; return the state and the text of each check."""
        options = {
            "configfile": [str(self.root / "config.yaml")],
            "sample": 0,
            **dict.fromkeys(("embedding_type", "input_dir", "output_embeddings_db", "device")),
            **options,
        }
        with pytest.raises(SystemExit) as ended:
            command.main(argparse.Namespace(**options))
        *lines, closing = self.capsys.readouterr().out.splitlines()
        found = {name: (state, text) for state, name, text in (LINE.fullmatch(line).groups() for line in lines)}
        failed = [name for name, (state, _) in found.items() if state == "FAILED"]
        assert ended.value.code == (1 if failed else 0)
        assert closing == (f"{len(failed)} of {len(found)} checks failed" if failed else "all is well")
        return found

    def failed(self, **options):
        """Verify; return what the one check that failed says."""
        [failed] = [(name, text) for name, (state, text) in self.verify(**options).items() if state == "FAILED"]
        return failed

    def is_well(self):
        return {state for state, _ in self.verify(sample=20).values()} == {"ok"}

    def sql(self, statement, values=(), database=None):
        connection = sqlite3.connect(database or self.database)
        with connection:
            rows = connection.execute(statement, values).fetchall()
        connection.close()
        return rows

    def stamp_rows(self):
        """Let the recorded digest be that of the rows, so that only a look at them tells what is wrong."""
        with reading(self.database) as connection:
            n_rows, digest = digest_rows(connection, "T")
        for key, value in {"embeddings_rows": str(n_rows), "embeddings_digest": digest}.items():
            self.sql("UPDATE T_PROVENANCE SET VALUE = ? WHERE KEY = ?", (value, key))
        receipt = read_json(self.path("embeddings.json"))
        write_json(self.path("embeddings.json"), {**receipt, "n_embeddings": n_rows, "digest": digest})
        later = Path(self.path("map_stored.json"))
        os.utime(later)

    def rebuild(self):
        self.database.unlink()
        self.run()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A collection after a run, and a copy, from which it is put back: paths in its manifest are absolute."""
    root = tmp_path_factory.mktemp("verify") / "collection"
    collection = Collection(root)
    collection.run()
    shutil.copytree(root, root.with_name("copy"))
    return collection


@pytest.fixture
def collection(made, capsys):
    shutil.rmtree(made.root)
    shutil.copytree(made.root.with_name("copy"), made.root)
    made.capsys = capsys
    return made


def test_what_a_run_leaves_is_all_right(collection):
    found = collection.verify(sample=20)
    assert list(found) == [*CHECKS, "sample"]
    assert {state for state, _ in found.values()} == {"ok"}
    texts = {name: text for name, (_, text) in found.items()}
    assert texts["embeddings"] == "7 rows of 48 dimensions, finite, of length 1"
    assert texts["fates"] == "9 files = 7 embedded + 1 failed + 1 rejected"
    assert texts["shards"] == "3 with their lists, sound and as merged"
    assert texts["sample"] == "7 photos embedded again, least cosine 1.000000"


def test_nothing_is_written(collection):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in collection.root.rglob("*")}

    before = files()
    collection.verify(sample=20)
    assert files() == before


# ---- the database -------------------------------------------------------------------------------------------


def test_a_missing_database_is_rebuilt(collection):
    collection.database.unlink()
    assert collection.failed() == (
        "database",
        f"'{collection.database}' is missing: run snakemake, it is made of the shards that there are",
    )
    collection.run()
    assert collection.is_well()


@pytest.mark.parametrize("damage", ["no database", "cut off"])
def test_what_sqlite_cannot_read_is_moved_away(collection, damage):
    whole = collection.database.read_bytes()
    collection.database.write_bytes(b"no database " * 999 if damage == "no database" else whole[: len(whole) // 2])
    found = collection.verify()
    name, text = next((name, text) for name, (state, text) in found.items() if state == "FAILED")
    assert name == "database"
    assert "move it away, and it is made again" in text or "and run snakemake, it is rebuilt" in text
    assert found["shards"] == ("ok", "3 with their lists, sound and as merged")
    assert [state for state, _ in found.values()].count("skipped") == 5
    collection.rebuild()
    assert collection.is_well()


def test_what_sqlite_finds_fault_with_is_rebuilt(collection):
    collection.sql("CREATE TABLE more (x)")
    collection.sql("INSERT INTO more VALUES (NULL)")
    connection = sqlite3.connect(collection.database)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE more (x NOT NULL)' WHERE name = 'more'")
    connection.commit()
    connection.close()
    name, text = collection.failed()
    assert name == "database"
    assert re.fullmatch(r"'.*x\.sqlite' is damaged \(NULL value in more\.x\): delete '.*' and run snakemake, .*", text)
    collection.rebuild()
    assert collection.is_well()


def test_what_a_killed_writer_left_is_taken_back_by_a_run(collection):
    leave_hot_journal(collection.database)
    name, text = collection.failed()
    assert name == "database"
    assert "a program was killed while writing to it: run snakemake, which takes back what that had begun" in text
    assert Path(f"{collection.database}-journal").exists()
    collection.run()
    assert collection.is_well()


def test_a_table_that_is_not_there_is_missed(collection):
    collection.sql("DROP TABLE T_FAILURES")
    name, text = collection.failed()
    assert name == "database"
    assert "has no table T_FAILURES with its columns: delete" in text
    collection.rebuild()
    assert collection.is_well()


def test_a_database_of_another_type_is_filled_by_a_run(collection):
    collection.database.unlink()
    collection.sql("CREATE TABLE U_EMBEDDINGS (UUID TEXT PRIMARY KEY, EMBEDDING BLOB)")
    name, text = collection.failed()
    assert name == "database"
    assert text.endswith("has no table T_EMBEDDINGS with its columns: run snakemake")
    collection.run()
    assert collection.is_well()


def test_a_way_out_says_what_it_would_cost(collection):
    collection.sql("CREATE TABLE U_EMBEDDINGS (UUID TEXT PRIMARY KEY, EMBEDDING BLOB)")
    collection.sql("INSERT INTO T_EMBEDDINGS VALUES (?, ?)", (UUID(99), pack_embedding(np.ones(48) / 48**0.5)))
    state, text = collection.verify()["digest"]
    assert state == "FAILED"
    assert "(run it for U_EMBEDDINGS too); but keep a copy: 1 rows of unknown origin are in no shard" in text


# ---- embeddings and their digest ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blob", "what"),
    [
        (pack_embedding(np.full(48, np.nan)), "rows are not finite"),
        (pack_embedding(np.full(48, np.inf)), "rows are not finite"),
        (pack_embedding(np.full(48, 1e30)), "rows are not of length 1"),
        (pack_embedding(np.zeros(48)), "rows are not of length 1"),
        (pack_embedding(np.ones(49) / 7), "rows are not 48 float32 numbers in msgpack"),
        (b"garbage", "rows are not 48 float32 numbers in msgpack"),
        (pack_embedding(np.ones(48) / 48**0.5).replace(b"<f4", b">f4"), "rows are not 48 float32 numbers in msgpack"),
    ],
)
def test_a_row_that_is_no_embedding_is_named(collection, blob, what):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?", (blob, UUID(3)))
    collection.stamp_rows()
    name, text = collection.failed()
    assert name == "embeddings"
    assert text.startswith(f"1 {what} ({UUID(3)}): delete '{collection.database}' and run snakemake")
    collection.rebuild()
    assert collection.is_well()


def test_of_many_rows_the_first_are_named(collection):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = x'00'")
    collection.stamp_rows()
    _, text = collection.failed()
    assert f"7 rows are not 48 float32 numbers in msgpack ({UUID(0)}, {UUID(1)}, {UUID(2)}, ...): delete" in text


@pytest.mark.parametrize("value", ["text", 3])
def test_a_row_of_another_type_is_no_traceback(collection, value):
    collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = ?", (value, UUID(3)))
    found = collection.verify(sample=20)
    assert {name for name, (state, _) in found.items() if state == "FAILED"} == {"embeddings", "digest", "sample"}
    assert found["embeddings"][1].startswith(f"1 rows are not 48 float32 numbers in msgpack ({UUID(3)}): delete")
    assert "there are values that no run has written" in found["digest"][1]


def test_a_row_that_something_else_has_changed_is_noticed(collection):
    collection.sql(
        "UPDATE T_EMBEDDINGS SET EMBEDDING = (SELECT EMBEDDING FROM T_EMBEDDINGS WHERE UUID = ?) WHERE UUID = ?",
        (UUID(1), UUID(2)),
    )
    name, text = collection.failed()
    assert name == "digest"
    assert re.match(r"something else has changed rows: 7 with digest \w{8} are there, 7 with \w{8} were stored: ", text)
    assert text.endswith(f"delete '{collection.database}' and run snakemake, it is rebuilt from the shards")
    collection.rebuild()
    assert collection.is_well()


@pytest.mark.parametrize("key", ["digest", "n_embeddings"])
def test_a_receipt_of_another_database_is_noticed(collection, key):
    receipt = collection.folder / "embeddings.json"
    write_json(receipt, {**read_json(receipt), key: 0})
    os.utime(collection.folder / "map_stored.json")
    assert collection.failed() == (
        "digest",
        f"'{receipt}' is of another database: delete '{receipt}' and run snakemake",
    )
    receipt.unlink()
    collection.run()
    assert collection.is_well()


# ---- one fate for each photo --------------------------------------------------------------------------------


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
    path, manifest = collection.folder / name, collection.folder / "manifest.tsv"
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("damaged" if name == "rejected.tsv" or damage == "damaged" else "".join([header, *lines[::-1]]))
    if damage == "missing":
        path.unlink()
    files = f"'{path}'" if name == "manifest.tsv" else f"'{path}' and '{manifest}'"
    expected = f"'{path}' is missing or damaged: delete {files} and run snakemake"
    assert collection.failed() == ("fates", expected)
    collection.run()
    assert collection.is_well()


def test_a_folder_of_photos_that_is_away_is_named(collection):
    shutil.move(collection.photos, collection.root / "away")
    name, text = collection.failed()
    assert name == "fates"
    assert text == f"input_dir: cannot read the folder '{collection.photos}' (No such file or directory)"


# ---- shards -------------------------------------------------------------------------------------------------


def damage_shard(collection, how):
    database, shard_list = (collection.folder / name for name in ("embeddings/000002.sqlite", "shards/000002.tsv"))
    match how:
        case "missing":
            database.unlink()
        case "garbage":
            database.write_bytes(b"no database " * 999)
        case "cut off":
            database.write_bytes(database.read_bytes()[:20_000])
        case "another row":
            collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = x'00'", database=database)
        case "a text":
            collection.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = 'text'", database=database)
        case "another index":
            collection.sql("CREATE TABLE more (x)", database=database)
            collection.sql("INSERT INTO more VALUES (NULL)", database=database)
            connection = sqlite3.connect(database)
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE more (x NOT NULL)' WHERE name = 'more'")
            connection.commit()
            connection.close()
        case "no list":
            shard_list.unlink()
        case "damaged list":
            shard_list.write_text("damaged")
        case "another merged":
            collection.sql("UPDATE T_SHARDS SET DIGEST = 'x' WHERE SHARD = '000002'")
    return database, shard_list


@pytest.mark.parametrize(
    ("how", "what"),
    [
        *((how, "1 shard databases are missing or damaged ({database})") for how in ("missing", "garbage", "cut off")),
        *((how, "1 shard databases are missing or damaged ({database})") for how in ("another row", "a text")),
        ("another index", "1 shard databases are missing or damaged ({database})"),
        ("no list", "1 shards without their list ({shard_list} and {database})"),
        ("damaged list", "1 shards without their list ({shard_list} and {database})"),
        ("another merged", "1 shard databases are not those that were merged ({database})"),
    ],
)
def test_every_shard_has_its_list_and_its_sound_database(collection, how, what):
    database, shard_list = damage_shard(collection, how)
    receipt = collection.folder / "embeddings.json"
    what = what.format(database=database, shard_list=shard_list)
    assert collection.failed() == ("shards", f"{what}: delete these, and '{receipt}', and run snakemake")
    for path in (database, receipt, *([shard_list] if "list" in how else [])):
        path.unlink(missing_ok=True)
    collection.run()
    assert collection.is_well()


def test_a_shard_that_was_embedded_anew_waits_for_its_merge(collection):
    collection.sql("UPDATE T_SHARDS SET DIGEST = 'x' WHERE SHARD = '000002'")
    os.utime(collection.folder / "embeddings" / "000002.sqlite")
    name, text = collection.failed()
    assert name == "shards"
    assert text.endswith("000002.sqlite): run snakemake")
    collection.run()
    assert collection.is_well()


def test_shards_are_looked_at_also_without_their_database(collection):
    collection.database.write_bytes(b"no database " * 999)
    damage_shard(collection, "garbage")
    found = collection.verify()
    assert {name for name, (state, _) in found.items() if state == "FAILED"} == {"database", "shards"}


# ---- provenance ---------------------------------------------------------------------------------------------


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
    receipt = collection.folder / "embeddings.json"
    assert re.match(r"1 are not of the encoder \w{16} \(.*encoder\.json\): ", text)
    assert text.endswith(f": delete '{path}' and '{receipt}' and run snakemake")
    path.unlink()
    receipt.unlink()
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
    path, receipt = (collection.folder / name for name in ("encoder.json", "embeddings.json"))
    collection.resolve("another")
    collection.embed("000002")
    found = collection.verify()
    assert found["shards"][1].endswith("000002.sqlite): run snakemake")
    state, text = found["provenance"]
    assert state == "FAILED"
    assert re.match(r"2 are not of the encoder \w{16} \(.*encoder\.json, .*000002\.sqlite\): delete", text)
    assert text.endswith(f"): delete '{path}' and '{receipt}' and run snakemake")
    path.unlink()
    receipt.unlink()
    collection.run()
    assert collection.is_well()


@pytest.mark.parametrize("damage", ["missing", "no json", "{}", '{"name": "T"}'])
def test_an_encoder_json_that_is_missing_or_damaged_is_made_again(collection, damage):
    path = collection.folder / "encoder.json"
    path.unlink()
    if damage != "missing":
        path.write_text(damage)
    receipt = collection.folder / "embeddings.json"
    expected = f"'{path}' is missing or damaged: delete '{path}' and '{receipt}' and run snakemake"
    found = collection.verify(sample=20)
    failed = {name: text for name, (state, text) in found.items() if state == "FAILED"}
    assert failed == dict.fromkeys(("embeddings", "provenance", "sample"), expected)
    receipt.unlink()
    path.unlink(missing_ok=True)
    collection.run()
    assert collection.is_well()


# ---- the map ------------------------------------------------------------------------------------------------


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
    receipt = collection.folder / "map_stored.json"
    assert text == (
        f"1 files of the map are not what was stored (umap_model.pkl or map.tsv): delete '{model}' too, and delete "
        f"'{places}' and '{receipt}' and run snakemake, photos keep their places"
    )
    for path in (model, places, receipt):
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


# ---- photos embedded again ----------------------------------------------------------------------------------


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


def test_a_file_that_has_changed_without_a_trace_is_named(collection):
    path = collection.photos / f"{UUID(3)}.jpg"
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    other = next(data for data in map(Path.read_bytes, sorted(DEMO.glob("*.jpg"))) if len(data) < size)
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


# ---- the whole ----------------------------------------------------------------------------------------------


def config_of(collection):
    schema = Path(command.PROJECT) / "workflow" / "schemas" / "config.schema.yaml"
    return read_config([str(collection.root / "config.yaml")], {}, str(schema))


def test_a_run_at_work_is_left_alone(collection):
    with open(collection.root / "x" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"^a run is at work on '.*x\.sqlite'; verify when it has ended$"):
            next(verify(config_of(collection), n_sample=0, n_threads=1))


def test_a_run_may_begin_meanwhile_and_is_noticed(collection):
    (collection.root / "x" / ".lock").touch()
    checks = verify(config_of(collection), n_sample=0, n_threads=1)
    next(checks)
    with open(collection.root / "x" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(InputError, match="a run is at work"):
            list(checks)
    checks = verify(config_of(collection), n_sample=0, n_threads=1)
    next(checks)
    (collection.folder / "plan.tsv").touch()
    with pytest.raises(InputError, match=r"^a run was at work meanwhile; verify again$"):
        list(checks)


def test_of_a_database_that_was_never_made_all_is_missing(tmp_path, made, capsys):
    made.capsys = capsys
    found = made.verify(output_embeddings_db=str(tmp_path / "y.sqlite"))
    assert found["database"][0] == "FAILED"
    assert found["shards"] == ("ok", "0 with their lists, sound and as merged")
    assert list(tmp_path.iterdir()) == []


def test_later_files_change_keys_of_earlier_ones(collection, tmp_path):
    schema = str(Path(command.PROJECT) / "workflow" / "schemas" / "config.schema.yaml")
    (tmp_path / "a.yaml").write_text(
        "input_dir: a\noutput_embeddings_db: a.sqlite\numap: {n_neighbors: 7, min_dist: 0.3}"
    )
    (tmp_path / "b.yaml").write_text("input_dir: [b]\numap: {n_neighbors: 8}")
    files = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    config = read_config(files, {"embedding_type": "EFFICIENTNET_LITE0", "device": None}, schema)
    assert (config["input_dir"], config["output_embeddings_db"], config["device"]) == (["b"], "a.sqlite", "auto")
    assert (config["umap"]["n_neighbors"], config["umap"]["min_dist"]) == (8, 0.3)
    assert config["embedding_type"] == "EFFICIENTNET_LITE0"


@pytest.mark.parametrize("text", [None, "a: [", "[]", "\xff"])
def test_a_file_of_settings_that_cannot_be_read_is_one_line(tmp_path, text):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"^--configfile: '.*mine\.yaml' .*$"):
        read_config([str(path)], {}, "")
