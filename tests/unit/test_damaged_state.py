"""Every damaged file of the state is named, with a fix, by every command that reads it."""

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import DEMO_PHOTOS, PROJECT
from test_map_job import SETTINGS
from verified import UUID

from crossfilter_inference.cli import commands
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.errors import InputError
from crossfilter_inference.map.contents import MapFiles
from crossfilter_inference.map.files import read_neighbours
from crossfilter_inference.map.job import make_map
from crossfilter_inference.map.store import store_map
from crossfilter_inference.map.words import read_words
from crossfilter_inference.run.finish import closing_lines
from crossfilter_inference.run.prepare import Resources, prepare_run
from crossfilter_inference.shards.shard import read_thumbnails
from crossfilter_inference.view.job import draw_map
from crossfilter_inference.view.page import DEFAULTS
from crossfilter_inference.view.report import write_summary

pytest_plugins = "verified"

INTRODUCTION = PROJECT / "workflow" / "report" / "workflow.rst"


@pytest.fixture
def state(collection):
    """A collection with every file that a run may leave."""
    (collection.folder / "config.json").write_text(collection.config().to_json())
    (collection.folder / "retired.tsv").write_text("SHARD\n")
    words = {"words": np.array(["a fish", "a bird"]), "embeddings": np.eye(2, 48, dtype=np.float32)}
    np.savez(collection.folder / "words.npz", **words)
    (collection.folder / "embeddings" / "000001.unread.tsv").write_text("UUID\tSIZE\tMTIME_NS\n")
    collection.planned = replace(prepare_run(collection.config(), Resources()), started=0)
    return collection


def options(state):
    return commands.CollectionOptions(
        output_embeddings_db=state.database, configfile=[state.root / "config.yaml"], embedding_type="T"
    )


def draw(state, tmp_path):
    inputs = [state.path(name) for name in ("map.tsv", "neighbours.npz", "map_quality.json")]
    files = MapFiles(*inputs, str(state.database), state.path("embeddings"), words=state.path("words.npz"))
    draw_map("T", files, DEFAULTS, *(str(tmp_path / name) for name in ("x.html", "x.png", "x.svg")))


def store_the_map(state):
    paths = [state.path(name) for name in ("umap_model.pkl", "map.tsv", "map_quality.json", "map_stored.json")]
    store_map("T", str(state.database), *paths, generation=2)


def make_the_map(state):
    outputs = map(state.path, ("umap_model.pkl", "map.tsv", "neighbours.npz", "map_quality.json"))
    return make_map(state.path("embeddings.json"), str(state.database), "T", SETTINGS, "", tuple(outputs), 2)


def report(state, tmp_path):
    write_summary(str(state.database), str(state.folder), str(tmp_path / "summary"), str(INTRODUCTION))


COMMANDS = {
    "search": lambda state, out: commands.search(
        image=DEMO_PHOTOS[0], html=out / "sheet.html", collection=options(state)
    ),
    "search by uuid": lambda state, out: commands.search(
        uuid=UUID(0), html=out / "sheet.html", collection=options(state)
    ),
    "search the database alone": lambda state, out: commands.search(
        uuid=UUID(0), collection=commands.CollectionOptions(output_embeddings_db=state.database)
    ),
    "duplicates": lambda state, out: commands.duplicates(html=out / "sheet.html", collection=options(state)),
    "parquet": lambda state, out: commands.export(parquet=out / "x", collection=options(state)),
    "atlas": lambda state, out: commands.export(atlas=out / "x", collection=options(state)),
    "plan": lambda state, out: prepare_run(state.config(), Resources()),
    "merge": lambda state, out: state.merge(),
    "store the map": lambda state, out: store_the_map(state),
    "draw": draw,
    "make the map": lambda state, out: make_the_map(state),
    "report": report,
    "closing lines": lambda state, out: closing_lines(state.planned),
}
READERS = {
    "encoder.json": ["search", "merge"],
    "map.tsv": ["parquet", "atlas", "store the map", "draw"],
    "neighbours.npz": ["parquet", "atlas", "draw"],
    "map_quality.json": ["parquet", "atlas", "store the map", "draw", "make the map", "report", "closing lines"],
    "words.npz": ["draw"],
    "embeddings/000001.sqlite": ["search by uuid", "atlas", "draw", "merge", "closing lines"],
    "shards/000001.tsv": ["plan"],
    "embeddings/000001.unread.tsv": ["plan"],
    "embeddings.json": ["plan", "make the map", "closing lines"],
    "map_stored.json": ["plan"],
    "plan.tsv": ["report", "closing lines"],
    "config.json": ["search the database alone", "report"],
    "retired.tsv": ["plan"],
    "manifest.tsv": ["merge"],
    "rejected.tsv": [],
    "map.html": [],
    "map.png": ["report"],
    "map.svg": [],
}


_SLOW = [pytest.param(how, marks=pytest.mark.slow) for how in ("empty", "cut off", "other")]
DAMAGES = ["garbage", "a folder", *_SLOW]


def damage(path, how):
    data = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    else:
        contents = {
            "empty": b"",
            "garbage": b"\0garbage\xff\n" * 99,
            "cut off": data[: len(data) // 2],
            "other": b"[1]",
        }
        path.write_bytes(contents[how])


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_by_every_command_that_reads_it(state, tmp_path, name, how):
    damage(state.folder / name, how)
    for command in READERS[name]:
        if (command, how) == ("closing lines", "a folder") and name.endswith(".sqlite"):
            continue  # the merge has named it; a folder of another name beside the shards is no fault
        with pytest.raises(InputError) as caught:
            COMMANDS[command](state, tmp_path)
        text = str(caught.value)
        assert str(state.folder) in text, (command, text)
        assert "delete" in text, (command, text)
        assert "\n" not in text
    failed = {check: text for check, (result, text) in state.verify().items() if result == "FAILED"}
    assert failed, "verify reads it too"
    assert any(Path(name).name.split(".")[0] in text for text in failed.values()), failed
    for text in failed.values():
        assert "internal error" not in text
        assert "x.sqlite' aside" not in text, "the database is sound"


def test_a_journal_that_no_job_wrote_is_named(state):
    path = state.folder / "embeddings" / ".000004.x.rows"
    path.write_bytes(b"")
    assert state.verify()["files"] == ("ok", mock.ANY), "a job that was killed at once leaves it"
    path.write_bytes(b"\0garbage\xff\n" * 99)
    result, text = state.verify()["files"]
    assert result == "FAILED"
    assert text == f"1 file damaged ({path}): delete these and run the workflow"


def test_every_command_works_with_the_intact_state(state, tmp_path):
    for name, command in COMMANDS.items():
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()
        command(state, tmp_path / "out")
        assert name


HEADER, ROW = "s\tmax_rss\n", "12.5\t300\n"


@pytest.mark.parametrize(
    "text",
    [
        *("", "\0\xff", "a folder", "a link", HEADER, "s\n1\n", HEADER + "9" * 200_000),
        *(f"{HEADER}{row}\n" for row in ("1", "x\t1", "nan\t1", "1\tinf")),
    ],
)
def test_a_damaged_benchmark_is_left_out_of_the_report_with_a_line(state, tmp_path, caplog, text):
    folder = state.folder / "benchmarks" / "fit_umap"
    folder.mkdir(parents=True)
    (folder / "fit_umap.tsv").write_text(f"{HEADER}{ROW}")
    other = folder / "other.tsv"
    match text:
        case "a folder":
            other.mkdir()
        case "a link":
            other.symlink_to("nowhere")
        case _:
            other.write_text(text, "latin-1")
    report(state, tmp_path)
    row = '<td>fit_umap</td><td class="number">1</td><td class="number">12.5</td><td></td><td class="number">300</td>'
    assert row in (tmp_path / "summary" / "times.html").read_text()
    assert caplog.messages == [
        f"1 benchmark file left out, because damaged: {other}; delete them, and the next run measures again"
    ]


@pytest.mark.parametrize("quality", [{}, {"action": "fit"}])
def test_a_map_without_a_record_of_its_settings_is_measured_again(state, quality):
    path = state.folder / "map_quality.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "measured_with": None}))
    assert "measured again" in make_the_map(state)
    assert make_the_map(state).startswith("unchanged (")
    (state.folder / "neighbours.npz").unlink()
    recorded = json.loads(path.read_text())
    path.write_text(json.dumps({**quality, "made_from": recorded["made_from"], "radius": "large"}))
    assert "refitted" in make_the_map(state)


@pytest.mark.parametrize(
    "jpeg",
    [b"", b"no picture", b"\xff\xd8\xff\xe0 no picture \xff\xd9", None],
    ids=["empty", "text", "a picture only outside", "cut off"],
)
def test_a_damaged_thumbnail_is_named(state, tmp_path, jpeg):
    path = state.folder / "embeddings" / "000001.sqlite"
    if jpeg is None:
        state.sql("UPDATE T_THUMBNAILS SET JPEG = substr(JPEG, 1, 600)", database=path)
    else:
        state.sql("UPDATE T_THUMBNAILS SET JPEG = ?", (jpeg,), database=path)
    expected = rf"'{path}' is damaged; delete it, and the next run rebuilds it"
    for command in ("search by uuid", "atlas", "draw"):
        with pytest.raises(InputError, match=expected):
            COMMANDS[command](state, tmp_path)
    name, text = state.failed()
    assert name == "thumbnails"
    assert text.startswith(f"1 shard database with a damaged thumbnail ({path}): delete these and ")
    for file in (path, state.folder / "embeddings.json"):
        file.unlink()
    state.run()
    assert state.passes()


def test_thumbnails_are_decoded_by_verify(state):
    path = state.folder / "embeddings" / "000001.sqlite"
    [(uuid, jpeg), *_] = read_thumbnails(path, "T", [UUID(n) for n in range(7)])
    table = jpeg.index(b"\xff\xc4") + 5  # of Huffman codes
    broken = jpeg[:table] + b"\xff" * 16 + jpeg[table + 16 :]
    state.sql("UPDATE T_THUMBNAILS SET JPEG = ? WHERE UUID = ?", (broken, uuid), database=path)
    assert state.failed()[0] == "thumbnails"


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"indices": np.zeros((7, 2), np.int32)},
        {"indices": np.zeros((7, 2), np.int32), "distances": np.zeros((7, 3), np.float32)},
        {"indices": np.full((7, 2), 7, np.int32), "distances": np.zeros((7, 2), np.float32)},
        {"indices": np.full((7, 2), -1, np.int32), "distances": np.zeros((7, 2), np.float32)},
        {"indices": np.zeros((7, 2), np.int32), "distances": np.full((7, 2), np.nan, np.float32)},
        {"indices": np.zeros((6, 2), np.int32), "distances": np.zeros((6, 2), np.float32)},
        {"indices": np.zeros((7, 2)), "distances": np.zeros((7, 2), np.float32)},
        {"indices": np.array([[object()]]), "distances": np.zeros((7, 2), np.float32)},
    ],
)
def test_neighbours_of_another_shape_or_type_are_damaged(tmp_path, arrays):
    path = tmp_path / "neighbours.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"neighbours\.npz' is damaged; delete it, and the next run rebuilds it"):
        read_neighbours(str(path), 7)


def test_words_without_embeddings_are_damaged(tmp_path):
    np.savez(tmp_path / "words.npz", words=np.array(["a", "b"]), embeddings=np.zeros((3, 4), np.float32))
    with pytest.raises(InputError, match=r"words\.npz' is damaged"):
        read_words(str(tmp_path / "words.npz"))


def test_an_encoder_json_of_another_encoder_is_not_used(state, tmp_path):
    path = state.folder / "encoder.json"
    path.write_text(path.read_text().replace('"weights_sha256": "', '"weights_sha256": "f'))
    with pytest.raises(InputError, match=r"encoder\.json' describes another encoder than that of the database"):
        COMMANDS["search"](state, tmp_path)


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(InputError, match=rf"cannot read the database '{tmp_path}' \(it is a folder; name the "):
        commands.search(
            uuid="0", collection=commands.CollectionOptions(output_embeddings_db=tmp_path, embedding_type="T")
        )


# ---- what the user added, and faults of our own ------------------------------------------------------------------

OWN = (
    *(f"ALTER TABLE T_{table} ADD COLUMN NOTE TEXT" for table in ("EMBEDDINGS", "IMAGES", "FAILURES", "SHARDS")),
    *(f"ALTER TABLE T_{table} ADD COLUMN NOTE TEXT" for table in ("PROVENANCE", "UMAP_MODEL", "UMAP_HAVERSINE")),
    "ALTER TABLE T_EMBEDDINGS ADD COLUMN SHARD TEXT DEFAULT 'mine'",
    "ALTER TABLE T_EMBEDDINGS ADD COLUMN PATH TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX by_path ON T_IMAGES (PATH)",
    "CREATE VIEW albums AS SELECT UUID, PATH FROM T_IMAGES",
    "CREATE VIEW broken AS SELECT missing FROM nowhere",
    "CREATE TABLE ALBUM_EMBEDDINGS_NOTES (x)",
    "CREATE TABLE log (x)",
    "CREATE TRIGGER logged AFTER INSERT ON T_IMAGES BEGIN INSERT INTO log VALUES (new.UUID); END",
)


def test_what_the_user_added_is_no_fault_and_stays(state, tmp_path):
    for statement in OWN:
        state.sql(statement)
    state.sql("UPDATE T_EMBEDDINGS SET NOTE = 'lovely'")
    assert state.passes()
    state.photo(20, source=20)
    state.run()
    assert state.passes()
    assert state.sql("SELECT count(*) FROM T_EMBEDDINGS WHERE NOTE = 'lovely'") == [(7,)]
    assert state.sql("SELECT count(*) FROM log") == [(1,)]
    for command in ("search", "duplicates", "plan"):
        COMMANDS[command](state, tmp_path)


def test_the_advice_to_rebuild_names_what_the_user_added(state):
    for statement in OWN[-6:]:
        state.sql(statement)
    state.sql("DROP TABLE T_FAILURES")
    assert "FAILURES is missing: move" in state.verify()["database"][1]
    state.rebuild()
    state.sql("ALTER TABLE T_IMAGES ADD COLUMN NOTE TEXT")
    state.sql("CREATE TABLE log (x)")
    state.sql("UPDATE T_EMBEDDINGS SET EMBEDDING = (SELECT max(EMBEDDING) FROM T_EMBEDDINGS)")
    text = state.verify()["digest"][1]
    assert text.endswith("to rebuild it from the shards; copy what you added (log, T_IMAGES.NOTE) from the old file")


def test_a_column_that_no_run_can_fill_is_one_line(state):
    state.sql("CREATE TABLE old AS SELECT * FROM T_FAILURES")
    state.sql("DROP TABLE T_IMAGES")
    columns = ", ".join(f"{column.name} {column.type}" for column in Tables("T").images.c)
    state.sql(f"CREATE TABLE T_IMAGES ({columns}, NOTE TEXT NOT NULL)")
    with pytest.raises(
        InputError, match=r"NOT NULL constraint failed: T_IMAGES\.NOTE\); the database is unchanged; give"
    ):
        state.run()
    assert state.sql("SELECT count(*) FROM T_EMBEDDINGS") == [(7,)]


@pytest.mark.parametrize("check", ["check_embeddings", "check_shards", "check_map", "check_outcomes", "check_files"])
@pytest.mark.parametrize("error", [TypeError, KeyError, IndexError, AssertionError])
def test_a_fault_of_this_program_is_called_that(state, monkeypatch, check, error):
    def fail(*arguments, **options):
        raise error("a mistake of ours")

    monkeypatch.setattr(f"crossfilter_inference.verify.checks.{check}", fail)
    _, text = state.failed()
    assert text.startswith(f"internal error (please report this): {error.__name__}: ")
    assert text.endswith("; it says nothing about your files, so delete none")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE T_IMAGES SET SIZE = 'large'",
        "UPDATE T_EMBEDDINGS SET UUID = x'00' WHERE UUID IN (SELECT max(UUID) FROM T_EMBEDDINGS)",
        "UPDATE T_IMAGES SET PATH = x'00'",
        "UPDATE T_SHARDS SET DIGEST = x'00'",
        "UPDATE T_PROVENANCE SET VALUE = x'00' WHERE KEY = 'map_digest'",
        "UPDATE T_UMAP_MODEL SET MODEL = 'text'",
    ],
)
def test_values_of_another_type_are_damage_and_no_internal_error(state, statement):
    state.sql(statement)
    name, text = state.failed()
    assert name == "database"
    assert "that no run writes (T_" in text
    state.rebuild()
    assert state.passes()


@pytest.mark.parametrize("sample", [10**9, 10**30])
def test_a_sample_is_at_most_all_photos(state, sample):
    assert state.verify(sample=sample)["sample"] == ("ok", "7 photos re-embedded, lowest cosine 1.000000")


def test_sqlite_errors_of_users_triggers_change_nothing(state):
    state.sql("CREATE TRIGGER no BEFORE INSERT ON T_IMAGES BEGIN SELECT RAISE(ABORT, 'no more photos'); END")
    state.photo(20, source=20)
    with pytest.raises(
        InputError, match=r"cannot write to the database '.*' \(no more photos\); the database is unchanged"
    ):
        state.run()
    connection = sqlite3.connect(state.database)
    assert connection.execute("SELECT count(*) FROM T_EMBEDDINGS").fetchone() == (7,)
    connection.close()
