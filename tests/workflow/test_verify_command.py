"""The verify command, and its fixes, followed with a real Snakemake."""

import re
import sqlite3

import pytest
from conftest import new_collection
from test_kill import started, wait_until


def verify(collection, *options):
    """Run the command; return its exit code and its lines."""
    done = collection.script("verify.py", *options)
    assert "Traceback" not in done.stderr
    return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]


def files(collection):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in collection.folder.rglob("*")}


def change(collection, statement):
    """Change the database by hand; {T} stands for the table of embeddings."""
    connection = sqlite3.connect(collection.database)
    with connection:
        connection.execute(statement.replace("{T}", f"{collection.type}_EMBEDDINGS"))
    connection.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos in three shards, the last of which holds only the row of a missing photo."""
    collection = new_collection(tmp_path_factory.mktemp("verify") / "collection", 9, shard_size=5)
    collection.run()
    [removed] = collection.add_photos(1)
    collection.run()
    (collection.folder / "photos" / f"{removed}.jpg").unlink()
    collection.run()
    collection.keep()
    return collection


@pytest.fixture
def collection(made):
    made.take_back()
    return made


def test_all_checks_pass_after_a_run_and_nothing_is_written(collection):
    before = files(collection)
    code, lines = verify(collection)
    assert (code, lines[-1]) == (0, "all checks passed, 1 skipped"), lines
    assert [line.split()[:2] for line in lines[:-1]] == [
        *(["ok", name] for name in ("database", "embeddings", "digest", "outcomes", "shards", "provenance")),
        ["skipped", "map"],
        *(["ok", name] for name in ("files", "thumbnails", "sample")),
    ]
    assert files(collection) == before


@pytest.mark.slow
def test_a_map_is_verified_too(demo):
    code, lines = verify(demo, "--sample", "2")
    assert (code, lines[-1]) == (0, "all checks passed"), lines
    assert lines[-5] == "ok       map         62 positions: one per embedding, as in map.tsv; model as stored"
    change(demo, "UPDATE EFFICIENTNET_LITE0_UMAP_HAVERSINE SET SEMANTIC_EMBEDDING_UMAP_LATITUDE = 0")
    code, lines = verify(demo, "--sample", "0")
    assert code == 1
    assert "62 positions different from map.tsv" in lines[-4]
    follow(demo, lines[-4])
    assert verify(demo, "--sample", "0")[0] == 0
    (demo.state / "umap_model.pkl").write_text("damaged")
    code, lines = verify(demo, "--sample", "0")
    assert code == 1
    assert "umap_model.pkl or map.tsv differs from the stored map" in lines[-4]
    follow(demo, lines[-4])
    code, lines = verify(demo, "--sample", "0")
    assert (code, lines[-1]) == (0, "all checks passed"), lines


def follow(collection, line):
    """Apply the fix of a line: delete the files that it names, and run Snakemake."""
    assert line.count("run the workflow") == 1, line
    problem, _, fix = line.rpartition(": ")
    names = set(re.findall(r"'(.*?)'", fix))
    if "delete these" in fix:
        names |= set(re.findall(r"[^ (]+/\d{6}\.\w+", problem))
    for name in names:
        (collection.folder / name).unlink(missing_ok=True)
    collection.run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("a row", "digest"),
        ("a record", "outcomes"),
        ("a shard", "shards"),
        ("the shard of a missing photo", "shards"),
        ("a shard list", "shards"),
        ("the merged digest", "shards"),
        ("encoder.json", "provenance"),
        ("the recorded encoder", "provenance"),
        ("encoder.json is missing", "provenance"),
        ("the manifest is missing", "outcomes"),
        ("the list of rejected files is missing", "outcomes"),
        ("the receipt", "digest"),
    ],
)
def test_the_fix_repairs_the_damage(collection, damage, check):
    state, before = collection.state, collection.embeddings()
    encoder = state / "encoder.json"
    match damage:
        case "a row":
            change(collection, "UPDATE {T} SET EMBEDDING = (SELECT max(EMBEDDING) FROM {T})")
        case "a record":
            change(collection, "UPDATE COLOUR_IMAGES SET SHARD = '000009'")
        case "a shard":
            (state / "embeddings" / "000002.sqlite").write_text("no database " * 999)
        case "the shard of a missing photo":
            (state / "embeddings" / "000003.sqlite").write_text("no database " * 999)
        case "a shard list":
            (state / "shards" / "000002.tsv").write_text("damaged")
        case "the merged digest":
            change(collection, "UPDATE COLOUR_SHARDS SET DIGEST = 'x' WHERE SHARD = '000003'")
        case "encoder.json":
            encoder.write_text(encoder.read_text().replace('"weights_sha256": "a"', '"weights_sha256": "b"'))
        case "the recorded encoder":
            change(collection, "UPDATE COLOUR_PROVENANCE SET VALUE = 'x' WHERE KEY = 'encoder_digest'")
        case "encoder.json is missing":
            encoder.unlink()
        case "the manifest is missing":
            (state / "manifest.tsv").unlink()
        case "the list of rejected files is missing":
            (state / "rejected.tsv").unlink()
        case "the receipt":
            (state / "embeddings.json").write_text("{}")
    code, lines = verify(collection, "--sample", "0")
    assert code == 1
    failed = {line.split()[1]: line for line in lines if line.startswith("FAILED")}
    assert check in failed, lines
    follow(collection, failed[check])
    code, lines = verify(collection)
    assert (code, lines[-1]) == (0, "all checks passed, 1 skipped"), lines
    assert collection.embeddings() == before


def test_a_mistake_in_the_configuration_is_one_line(collection):
    code, lines = verify(collection, "--embedding_type", "COLOR")
    assert (code, len(lines)) == (1, 1)
    assert "did you mean COLOUR?" in lines[0]


@pytest.mark.slow
def test_nothing_is_verified_while_a_run_is_in_progress(collection, tmp_path):
    collection.add_photos(2)  # the removed one, and a new one
    (tmp_path / "encode").touch()
    with started(collection, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
        wait_until((tmp_path / "encode-reached").exists, process, "encode")
        code, lines = verify(collection)
        assert (code, len(lines)) == (1, 1), lines
        assert lines[0] == "error: a run is in progress on 'results/photos.sqlite'; verify again after it ends"
        (tmp_path / "encode").unlink()
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert verify(collection)[0] == 0
