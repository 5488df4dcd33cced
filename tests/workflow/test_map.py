"""The map through Snakemake: it stays stable when photos are added, and is the same with any cores and shards."""

import csv

import numpy as np
import pytest
from conftest import DEMO, new_collection

from crossfilter_inference.map.model import load_umap_model
from crossfilter_inference.map.sphere import degrees_between, unit_vectors_from_latitude_longitude

MAP = {"reproject_umap_embeddings": True}
MAP_JOBS = {"fit_umap": 1, "store_map": 1, "draw_map": 1}


def places(collection):
    rows = collection.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID")
    return {uuid: (latitude, longitude) for uuid, latitude, longitude in rows}


def provenance(collection):
    return dict(collection.sql("SELECT KEY, VALUE FROM {T}_PROVENANCE"))


def drift(before, after):
    pairs = [[*before[uuid], *after[uuid]] for uuid in before]
    old_latitude, old_longitude, latitude, longitude = np.array(pairs).T
    old = unit_vectors_from_latitude_longitude(old_latitude, old_longitude)
    return degrees_between(old, unit_vectors_from_latitude_longitude(latitude, longitude)).mean()


@pytest.fixture(scope="module")
def first_map(tmp_path_factory):
    """Fifty photos after their first run; `take_back()` before each use."""
    collection = new_collection(tmp_path_factory.mktemp("fifty") / "collection", 50, **MAP)
    collection.run()
    collection.keep()
    return collection


@pytest.fixture
def fifty(first_map):
    first_map.take_back()
    return first_map


@pytest.mark.slow
def test_the_map_stays_stable_when_photos_are_added(fifty):
    collection = fifty
    assert collection.dry_run() == {}
    for n_new in (1, 5):
        before = places(collection)
        map_before = provenance(collection)["map_id"]
        collection.add_photos(n_new)
        collection.run()
        after, recorded = places(collection), provenance(collection)
        assert len(after) == len(before) + n_new
        assert recorded["map_action"] == "align"
        assert recorded["map_previous"] == map_before
        assert 0 < float(recorded["map_drift_degrees"]) == pytest.approx(drift(before, after), abs=1e-6)
        assert drift(before, after) < 5
        assert collection.dry_run() == {}


@pytest.mark.slow
def test_placed_photos_move_no_others_and_a_changed_update_mode_runs_nothing(fifty):
    collection = fifty
    before = places(collection)
    collection.configure(umap={"update": "place"})
    assert collection.dry_run() == {}
    collection.add_photos(3)
    collection.run()
    after = places(collection)
    assert len(after) == 53
    assert {uuid: after[uuid] for uuid in before} == before
    collection.configure(umap={"update": "refit"})
    assert collection.run() == MAP_JOBS
    assert "map_previous" not in provenance(collection)
    assert drift(after, places(collection)) > 5


@pytest.mark.slow
def test_the_map_is_the_same_bit_by_bit_with_other_shards_and_cores(make_collection):
    large = make_collection(30, "large", **MAP)
    large.run()
    small = make_collection(30, "small", shard_size=7, **MAP)
    done = small.snakemake(cores=1)
    assert done.returncode == 0, done.stdout[-4000:]
    for query in ("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID", "SELECT MODEL FROM {T}_UMAP_MODEL"):
        assert large.sql(query) == small.sql(query)


@pytest.mark.slow
def test_labels_are_measured_on_the_existing_map(demo):
    before = places(demo)
    with (DEMO / "photos.csv").open() as file:
        labels = [(row["id"], row["label"]) for row in csv.DictReader(file)]
    (demo.folder / "labels.csv").write_text("UUID,LABEL\n" + "".join(f"{uuid},{label}\n" for uuid, label in labels))
    demo.configure(labels="labels.csv")
    assert demo.run() == MAP_JOBS
    assert places(demo) == before
    assert float(provenance(demo)["map_label_purity"]) > 0.3
    assert demo.dry_run() == {}


@pytest.mark.slow
def test_five_nearest_neighbours_on_the_map_of_the_demo_show_the_same(demo_run):
    with (DEMO / "photos.csv").open() as file:
        labels = {row["id"]: row["label"] for row in csv.DictReader(file)}
    uuids = sorted(places(demo_run))
    vectors = unit_vectors_from_latitude_longitude(*np.array([places(demo_run)[uuid] for uuid in uuids]).T)
    nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, 1:6]
    right = 0
    for uuid, row in zip(uuids, nearest, strict=True):
        found = [labels[uuids[index]] for index in row]
        right += max(found, key=found.count) == labels[uuid]
    assert right / len(uuids) >= 0.8


@pytest.mark.slow
def test_the_model_in_the_database_places_photos(demo_run):
    model = load_umap_model(str(demo_run.database), demo_run.type)
    rows = np.stack([np.frombuffer(blob[-4 * 1280 :], "<f4") for _, blob in sorted(demo_run.embeddings().items())])
    places_again = model.transform(rows)
    assert np.abs(np.sin(places_again[:, 0]) - np.sin(model.embedding_[:, 0])).max() < 0.01
