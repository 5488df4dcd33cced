"""The promises of the workflow, one test for each."""

import os
import shutil
import signal
from pathlib import Path

import colour_encoder
import pytest
from test_kill import started, wait_until

from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.photos.image import load_image

ANOTHER_TYPE = {"B": {"backend": colour_encoder.__file__, "model": "b"}}


@pytest.fixture
def collection(three_shards):
    three_shards.take_back()
    return three_shards


def photos(collection):
    return sorted((collection.folder / "photos").glob("*.jpg"))


def test_every_file_has_exactly_one_outcome_and_the_counts_add_up(make_collection):
    collection = make_collection(4)
    folder = collection.folder / "photos"
    first = photos(collection)[0]
    (folder / "a").mkdir()
    spelled = first.stem.upper().replace("-", "")
    shutil.copy(first, folder / "a" / f"{spelled}.JPEG")  # comes before the hyphened name in byte order
    (folder / "00000000-0000-4000-8000-000000000000.jpg").write_text("no photo")
    (folder / "holiday.jpg").touch()
    (folder / "notes.txt").touch()
    out = collection.snakemake().stdout
    found = [path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")]
    embedded = collection.embeddings().keys()
    failed = {uuid for (uuid,) in collection.sql("SELECT UUID FROM {T}_FAILURES")}
    rejected = (collection.state / "rejected.tsv").read_text().splitlines()[1:]
    assert (len(embedded), len(failed), len(rejected)) == (4, 1, 2)
    assert len(found) == len(embedded) + len(failed) + len(rejected)
    winner = min((first, folder / "a" / f"{spelled}.JPEG"), key=os.fsencode)
    assert winner.stem in embedded
    assert {first.stem, spelled} & embedded == {winner.stem}
    assert "other files, ignored: 1 (1 .txt)" in out


def test_a_row_is_tied_to_its_image_by_uuid(make_collection):
    collection = make_collection(9, shard_size=4, batch_size=3)
    collection.run()
    encoder = colour_encoder.ColourEncoder({"weights_sha256": "a"})
    for path in photos(collection):
        pixels = load_image(path.read_bytes(), colour_encoder.PREPROCESSING).pixels
        assert collection.embeddings()[path.stem] == pack_embedding(encoder.encode_images(pixels[None])[0])


@pytest.mark.slow
def test_an_embedding_depends_on_its_photo_and_encoder_alone(make_collection, tmp_path):
    expected = make_collection(12, name="one", shard_size=100, batch_size=12)
    expected.run()
    other = make_collection(12, name="other", shard_size=1, batch_size=1)
    other.run(cores=1)
    assert other.embeddings() == expected.embeddings()
    resumed = make_collection(12, name="resumed", shard_size=7, batch_size=2)
    (tmp_path / "encode").touch()
    (tmp_path / "let-through").write_text("2")
    with started(resumed, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
        wait_until((tmp_path / "encode-reached").exists, process, "the third batch")
        os.killpg(process.pid, signal.SIGKILL)
    assert "resumed 4 of an interrupted job" in resumed.snakemake().stdout
    assert resumed.embeddings() == expected.embeddings()


@pytest.mark.slow
def test_two_provenances_never_mix_in_one_table(make_collection):
    collection = make_collection(5)
    collection.run()
    photos(collection)[0].unlink()
    collection.run()
    before = collection.embeddings()
    collection.configure(encoders={"COLOUR": {"backend": colour_encoder.__file__, "model": "b"}})
    done = collection.snakemake()
    assert done.returncode == 1
    assert "COLOUR_EMBEDDINGS has 1 embedding of missing photos" in done.stdout
    assert "model: a -> b" in done.stdout
    assert "set missing_images: delete to delete them, or use another embedding_type or another database" in done.stdout
    assert collection.embeddings() == before


@pytest.mark.slow
def test_whatever_is_killed_a_rerun_ends_in_the_same_database(three_shards, make_collection):
    three_shards.take_back()
    collection = make_collection(12, shard_size=5)
    journal = Path(f"{collection.database}-journal")
    for moment in (collection.state / "plan.tsv", collection.state / "embeddings" / "000002.sqlite", journal):
        with started(collection) as process:
            wait_until(moment.exists, process, str(moment))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    collection.run()
    assert collection.embeddings() == three_shards.embeddings()
    assert collection.sql("PRAGMA journal_mode") == [("delete",)]
    assert collection.sql("SELECT * FROM {T}_SHARDS") == three_shards.sql("SELECT * FROM {T}_SHARDS")


@pytest.mark.slow
def test_deleting_the_database_rebuilds_it_from_the_shards_with_its_map(demo):
    before = demo.embeddings()
    places = demo.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID")
    demo.database.unlink()
    ran = demo.run()
    assert "embed_shard" not in ran
    assert ran["store_embeddings"] == 1
    assert demo.embeddings() == before
    assert demo.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID") == places
    assert demo.dry_run() == {}


@pytest.mark.parametrize(
    "after",
    [
        "the first run",
        pytest.param("another type and back", marks=pytest.mark.slow),
        pytest.param("a killed run that was completed", marks=pytest.mark.slow),
    ],
)
def test_an_unchanged_collection_has_nothing_to_be_done(make_collection, tmp_path, after):
    collection = make_collection(5, batch_size=2)
    collection.configure(encoders={**collection.config()["encoders"], **ANOTHER_TYPE})
    if after == "a killed run that was completed":
        (tmp_path / "encode").touch()
        with started(collection, COLOUR_ENCODER_PAUSE=str(tmp_path)) as process:
            wait_until((tmp_path / "encode-reached").exists, process, "the encoder")
            os.killpg(process.pid, signal.SIGKILL)
    collection.run()
    if after == "another type and back":
        collection.run("--config", "embedding_type=B")
    assert collection.dry_run() == {}


@pytest.mark.parametrize(
    ("settings", "jobs"),
    [
        ({"batch_size": 3, "shard_size": 7, "device": "cpu", "max_failed_share": 0.5}, {}),
        ({"page": {"thumbnail_size": 64}}, {"draw_map": 1}),
        ({"umap": {"n_neighbors": 9}}, {"fit_umap": 1, "store_map": 1, "draw_map": 1}),
        ({"missing_images": "delete"}, {"store_embeddings": 1, "fit_umap": 1, "store_map": 1, "draw_map": 1}),
    ],
    ids=["none", "the page's", "the map's", "the store's"],
)
def test_a_changed_setting_reruns_exactly_the_rules_that_it_concerns(demo, settings, jobs):
    demo.configure(**settings)
    assert demo.dry_run(cores=1) == jobs
