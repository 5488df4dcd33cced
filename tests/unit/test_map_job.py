"""The map of a database when photos are added or removed, settings change, and jobs are killed."""

import copy
import json
import pickle
import shutil
import sqlite3
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossfilter_inference.config import UmapSettings
from crossfilter_inference.db.connect import writing
from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.errors import InputError
from crossfilter_inference.map.job import make_map
from crossfilter_inference.map.neighbours import Neighbours
from crossfilter_inference.map.rows import row_digests
from crossfilter_inference.map.settings import MapSettings, settings_digest
from crossfilter_inference.map.state import read_state, write_state
from crossfilter_inference.map.store import store_map
from crossfilter_inference.util.files import digest, write_json

SETTINGS = {
    "n_neighbors": 15,
    "min_dist": "auto",
    "radius": "auto",
    "repulsion": "auto",
    "random_state": 42,
    "update": "align",
    "refit_share": 0.2,
    "compare_with_plane": False,
}


class Mapping:
    """A database of embeddings in clusters, and its map."""

    def __init__(self, folder):
        self.folder, self.settings, self.labels = folder, dict(SETTINGS), ""
        self.database = str(folder / "x.sqlite")
        self.random = np.random.default_rng(0)
        self.centres = self.random.normal(size=(6, 32))
        self.by_uuid = {}

    def copy(self, folder):
        """Copy database and map, to change them at will."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        other = copy.deepcopy(self)
        other.folder, other.database = folder, str(folder / "x.sqlite")
        return other

    def path(self, name):
        return str(self.folder / name)

    @property
    def uuids(self):
        return sorted(self.by_uuid)

    @property
    def rows(self):
        return np.stack([self.by_uuid[name] for name in self.uuids])

    def row(self):
        row = self.centres[len(self.by_uuid) % 6] + 0.7 * self.random.normal(size=32)
        return (row / np.linalg.norm(row)).astype(np.float32)

    def add(self, n_images):
        for _ in range(n_images):
            self.by_uuid[str(uuid.UUID(int=int(self.random.integers(1 << 60)), version=4))] = self.row()
        self.write()

    def change(self, number, row=None):
        self.by_uuid[self.uuids[number]] = self.row() if row is None else row
        self.write()

    def remove(self, n_images):
        for name in self.uuids[:n_images]:
            del self.by_uuid[name]
        self.write()

    def write(self):
        tables = Tables("T")
        with writing(self.database) as connection:
            tables.create(connection, tables.embeddings, tables.provenance)
            connection.execute(tables.embeddings.delete())
            if self.by_uuid:
                rows = [{"UUID": name, "EMBEDDING": pack_embedding(row)} for name, row in self.by_uuid.items()]
                connection.execute(tables.embeddings.insert(), rows)
        state = digest([(name, row.tobytes().hex()) for name, row in sorted(self.by_uuid.items())])
        write_json(self.path("embeddings.json"), {"digest": state})

    def make(self, n_threads=2, **settings):
        self.settings |= settings
        outputs = tuple(map(self.path, ("umap_model.pkl", "map.tsv", "neighbours.npz", "map_quality.json")))
        return make_map(
            self.path("embeddings.json"), self.database, "T", self.settings, self.labels, outputs, n_threads
        )

    def store(self):
        names = map(self.path, ("umap_model.pkl", "map.tsv", "map_quality.json", "map_stored.json"))
        store_map("T", self.database, *names, generation=1)

    def blob(self):
        return Path(self.path("umap_model.pkl")).read_bytes()

    def positions(self):
        lines = Path(self.path("map.tsv")).read_text().splitlines()[1:]
        return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}

    def quality(self):
        return json.loads(Path(self.path("map_quality.json")).read_text())

    def provenance(self):
        connection = sqlite3.connect(self.database)
        rows = connection.execute("SELECT * FROM T_PROVENANCE").fetchall()
        connection.close()
        return dict(rows)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    mapping = Mapping(tmp_path_factory.mktemp("fitted"))
    mapping.add(150)
    assert mapping.make() == "fitted to 150 photos"
    return mapping


@pytest.fixture
def mapping(fitted, tmp_path):
    return fitted.copy(tmp_path)


def test_an_unchanged_map_is_kept(mapping):
    blob = mapping.blob()
    assert mapping.make() == "unchanged (same embeddings and settings)"
    assert mapping.blob() == blob


def test_new_photos_are_aligned_and_the_provenance_records_it(mapping):
    mapping.store()
    before = mapping.quality()
    mapping.add(3)
    assert mapping.make().startswith("updated: 3 of 153 photos are new; old photos moved by ")
    mapping.store()
    recorded = mapping.provenance()
    assert recorded["map_action"] == "align"
    assert 0 < float(recorded["map_drift_degrees"]) <= 2
    assert recorded["map_previous"] == before["id"]
    assert (recorded["map_n_new"], recorded["map_n_gone"]) == ("3", "0")


def test_placing_keeps_the_other_positions_to_the_last_bit(mapping):
    before = mapping.positions()
    mapping.add(3)
    mapping.make(update="place")
    after = mapping.positions()
    assert len(after) == 153
    assert {name: after[name] for name in before} == before
    assert mapping.quality()["action"] == "place"


def test_added_removed_and_changed_photos_are_counted(mapping):
    mapping.remove(4)
    mapping.add(2)
    mapping.change(50)
    mapping.make()
    quality = mapping.quality()
    assert (quality["n_new"], quality["n_gone"], quality["n_images"]) == (3, 5, 148)


def test_many_new_photos_lead_to_a_refit_that_is_rotated_to_match_the_old_map(mapping):
    mapping.add(60)
    assert mapping.make().startswith("refitted: 60 of 210 photos are new; old photos moved by ")
    assert mapping.quality()["previous"] is not None


def test_many_new_photos_may_be_aligned_or_placed(mapping):
    mapping.add(60)
    mapping.make(refit_share=0.5)
    assert mapping.quality()["action"] == "align"
    mapping.add(100)
    mapping.make(update="place")
    assert mapping.quality()["action"] == "place"


def shape(mapping):
    return [mapping.quality()[key] for key in ("min_dist", "radius", "repulsion")]


def test_the_shape_depends_on_the_number_of_photos_at_the_fit(mapping):
    assert shape(mapping) == pytest.approx([0, 2.5, 0.5])
    mapping.add(60)
    mapping.make(refit_share=0.5)
    assert shape(mapping) == pytest.approx([0, 2.5, 0.5])
    mapping.add(300)
    mapping.make()
    assert mapping.quality()["action"] == "fit"
    min_dist, radius, repulsion = shape(mapping)
    assert (min_dist, 2.5 < radius < 3.2, 0.45 < repulsion < 0.5) == (0, True, True)
    mapping.make(min_dist=0.2, radius=3, repulsion=2)
    assert shape(mapping) == [0.2, 3, 2]


def become_earlier(mapping, source):
    """Change the record of the map to that of version 0.1; delete what is read before `source`."""
    sphere_map = read_state(mapping.path("neighbours.npz"))
    record = {**sphere_map.record, "made_from": "0", "version": 2, "min_dist": 0.1, "radius": 2.0}
    del record["repulsion"]
    write_state(mapping.path("neighbours.npz"), replace(sphere_map, record=record), sphere_map.neighbours)
    write_json(mapping.path("map_quality.json"), record)
    mapping.store()
    if source != "state":
        Path(mapping.path("neighbours.npz")).unlink()
    if source == "database":
        Path(mapping.path("map.tsv")).unlink()


@pytest.mark.parametrize("source", ["state", "table", "database"])
def test_a_map_of_an_earlier_version_keeps_its_shape_and_its_positions(mapping, source):
    before = mapping.positions()
    become_earlier(mapping, source)
    mapping.make()
    assert shape(mapping) == [0.1, 2, 0.3125]
    after = mapping.positions()
    assert [*after] == [*before]
    assert np.allclose(np.array([*after.values()], float), np.array([*before.values()], float), atol=1e-9)
    mapping.add(2)
    mapping.make()
    assert (mapping.quality()["action"], mapping.quality()["drift_degrees"] < 2) == ("align", True)
    assert shape(mapping) == [0.1, 2, 0.3125]
    mapping.make(min_dist=0.1, radius=2)
    assert mapping.quality()["action"] != "fit"
    mapping.make(repulsion=1)
    assert mapping.quality()["action"] == "fit"


@pytest.mark.parametrize("update", ["align", "place"])
def test_changed_fit_settings_lead_to_a_refit(mapping, update):
    mapping.add(1)
    mapping.make(min_dist=0.5, update=update)
    assert mapping.quality()["action"] == "fit"


def test_a_refit_depends_on_embeddings_and_settings_only(mapping, tmp_path):
    mapping.add(3)
    mapping.make()
    mapping.make(update="refit")
    (tmp_path / "fresh").mkdir()
    fresh = Mapping(tmp_path / "fresh")
    fresh.by_uuid = dict(mapping.by_uuid)
    fresh.write()
    fresh.make()
    assert fresh.positions() == mapping.positions()
    assert fresh.make(update="refit") == "unchanged (same embeddings and settings)"
    assert mapping.make(update="align") == "unchanged (same embeddings and settings)"


def test_the_map_does_not_depend_on_the_order_in_which_photos_were_added(mapping, tmp_path):
    (tmp_path / "other").mkdir()
    other = Mapping(tmp_path / "other")
    other.by_uuid = dict(reversed(mapping.by_uuid.items()))
    other.write()
    other.make(n_threads=1)
    assert other.positions() == mapping.positions()
    assert other.blob() == mapping.blob()


@pytest.mark.parametrize("n_images", [1, 3, 40])
def test_the_neighbours_file_leaves_out_the_photo_itself(tmp_path, n_images):
    mapping = Mapping(tmp_path)
    mapping.add(n_images)
    mapping.make()
    with np.load(mapping.folder / "neighbours.npz") as arrays:
        indices, distances = arrays["indices"], arrays["distances"]
    rows = mapping.rows.astype(float)
    cosine = 1 - rows @ rows.T
    np.fill_diagonal(cosine, np.inf)
    k = min(mapping.settings["n_neighbors"], n_images) - 1
    assert np.array_equal(indices, np.argsort(cosine, axis=1)[:, :k])
    assert np.allclose(distances, np.sort(cosine, axis=1)[:, :k], atol=1e-6)


def test_a_job_killed_after_it_wrote_its_state_resumes_from_it(mapping):
    mapping.add(3)
    names = ("umap_model.pkl", "map_quality.json", "map.tsv")
    before = {name: (mapping.folder / name).read_bytes() for name in names}
    mapping.make()
    expected, blob = mapping.positions(), mapping.blob()
    for name, data in before.items():
        (mapping.folder / name).write_bytes(data)
    assert mapping.make() == "unchanged; quality measured again"
    assert mapping.positions() == expected
    assert mapping.blob() == blob


def harmful(harm):
    """Pickle an object that writes the file `harm` when it is opened."""

    class Harmful:
        def __reduce__(self):
            return (open, (str(harm), "w"))

    return pickle.dumps(Harmful())


def test_the_next_map_does_not_open_the_model(mapping, tmp_path):
    before, blob = mapping.positions(), mapping.blob()
    (mapping.folder / "umap_model.pkl").write_bytes(harmful(tmp_path / "harm"))
    (mapping.folder / "map_quality.json").unlink()
    assert mapping.make() == "unchanged; quality measured again"
    assert (mapping.positions(), mapping.blob()) == (before, blob)
    (mapping.folder / "umap_model.pkl").write_bytes(harmful(tmp_path / "harm"))
    mapping.add(3)
    mapping.make()
    mapping.store()
    assert mapping.quality()["action"] == "align"
    assert not (tmp_path / "harm").exists()


def damage(mapping, name, what):
    path = mapping.folder / name
    with np.load(mapping.folder / "neighbours.npz") as arrays:
        arrays = dict(arrays)
    n_images = len(arrays["uuids"])
    changes = {
        "a row too far": {"indices": np.full_like(arrays["indices"], n_images)},
        "a negative row": {"indices": np.full_like(arrays["indices"], -1)},
        "fewer photos": {"uuids": arrays["uuids"][1:]},
        "other numbers": {"angles": arrays["angles"].astype(np.float32)},
        "no numbers": {"angles": np.full_like(arrays["angles"], np.nan)},
        "an unknown array": {"more": np.zeros(3)},
        "no record": {"record": "x"},
    }
    if what == "lost":
        path.unlink()
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "pickle":

        class Harmful:
            def __reduce__(self):
                return (open, (str(mapping.folder / "harm"), "w"))

        np.savez(path, **{**arrays, "angles": np.array([Harmful()], object)})
    elif what in changes:
        np.savez(path, **{**arrays, **changes[what]})
    else:
        path.write_bytes(what.encode())


@pytest.mark.parametrize(
    "what",
    [
        *("cut", "", "PK\x03\x04", "pickle", "a row too far", "a negative row", "fewer photos", "other numbers"),
        *("no numbers", "an unknown array", "no record"),
    ],
)
def test_a_damaged_state_is_named_and_runs_nothing(mapping, what):
    damage(mapping, "neighbours.npz", what)
    with pytest.raises(InputError, match=r"neighbours\.npz' is damaged; delete it"):
        read_state(mapping.path("neighbours.npz"))
    assert not (mapping.folder / "harm").exists()


@pytest.mark.parametrize("without_database", [False, True])
@pytest.mark.parametrize("what", ["lost", "pickle"])
def test_without_its_state_the_map_keeps_its_positions(mapping, what, without_database):
    if not without_database:
        mapping.store()
        (mapping.folder / "map.tsv").rename(mapping.folder / "kept.tsv")
    before = {name: [*map(float, position)] for name, position in positions_in(mapping).items()}
    damage(mapping, "neighbours.npz", what)
    if what != "lost" and without_database:
        (mapping.folder / "umap_model.pkl").unlink()  # so that the job does not end at once
    mapping.make(update="place")
    after = {name: [*map(float, position)] for name, position in mapping.positions().items()}
    assert before.keys() == after.keys()
    assert np.allclose([*before.values()], [*after.values()], rtol=0, atol=1e-9)
    assert not (mapping.folder / "harm").exists()
    mapping.add(3)
    mapping.make(update="align")
    assert mapping.quality()["action"] == "align"


def positions_in(mapping):
    path = mapping.folder / "map.tsv"
    lines = (path if path.exists() else path.with_name("kept.tsv")).read_text().splitlines()[1:]
    return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}


@pytest.mark.parametrize("update", ["place", "align"])
def test_a_map_of_version_0_1_is_updated_without_opening_its_model(mapping, tmp_path, update):
    before = mapping.positions()
    with np.load(mapping.folder / "neighbours.npz") as arrays:
        old = {name: arrays[name] for name in ("indices", "distances")}
    np.savez(mapping.folder / "neighbours.npz", **old)
    (mapping.folder / "umap_model.pkl").write_bytes(harmful(tmp_path / "harm"))
    assert mapping.make() == "unchanged (same embeddings and settings)"
    mapping.add(3)
    mapping.make(update=update)
    assert not (tmp_path / "harm").exists()
    quality = mapping.quality()
    assert (quality["action"], quality["n_new"], quality["n_gone"]) == (update, 3, 0)
    assert quality["drift_degrees"] <= 2
    after = mapping.positions()
    if update == "place":
        kept = [[*map(float, after[name])] for name in before]
        assert np.allclose(kept, [[*map(float, position)] for position in before.values()], rtol=0, atol=1e-9)
    mapping.add(1)
    assert mapping.make().startswith(("updated: 1 of", "new photos placed: 1 of"))


def test_the_state_holds_what_the_next_update_needs_and_no_objects(mapping):
    found = read_state(mapping.path("neighbours.npz"))
    assert found.uuids == mapping.uuids
    assert np.array_equal(found.row_digests, row_digests(mapping.rows))
    assert found.neighbours.indices[:, 0].tolist() == [*range(150)]
    with np.load(mapping.folder / "neighbours.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["indices"], found.neighbours.indices[:, 1:])
        assert not any(arrays[name].dtype.hasobject for name in arrays)


def test_neighbours_that_are_shown_may_differ_from_those_of_the_layout(mapping, tmp_path):
    found = read_state(mapping.path("neighbours.npz"))
    shown = Neighbours(found.neighbours.indices[:, :5], found.neighbours.distances[:, :5])
    write_state(str(tmp_path / "other.npz"), found, shown)
    again = read_state(str(tmp_path / "other.npz"))
    assert np.array_equal(again.neighbours.indices, found.neighbours.indices)
    assert np.array_equal(again.neighbours.distances, found.neighbours.distances)
    with np.load(tmp_path / "other.npz") as arrays:
        assert np.array_equal(arrays["indices"], shown.indices[:, 1:])


def test_labels_are_measured_without_a_new_map(mapping):
    blob = mapping.blob()
    mapping.labels = mapping.path("labels.csv")
    lines = [f"{name},{int((row @ mapping.centres.T).argmax())}" for name, row in mapping.by_uuid.items()]
    Path(mapping.labels).write_text("UUID,LABEL\n" + "\n".join(lines))
    assert mapping.make() == "unchanged; quality measured again"
    assert mapping.quality()["label_purity"] > 0.9
    assert mapping.quality()["n_labelled"] == 150
    assert mapping.blob() == blob


@pytest.mark.slow
def test_the_plane_is_measured_on_request(mapping):
    assert "plane" not in mapping.quality()
    assert mapping.make(compare_with_plane=True) == "unchanged; quality measured again"
    quality = mapping.quality()
    assert 0.5 < quality["plane"]["trustworthiness"] <= 1
    assert quality["plane"].keys() == {"trustworthiness", "neighbours_kept"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0])
def test_a_row_without_direction_is_named_and_the_map_is_unchanged(mapping, bad):
    before = mapping.positions()
    row = np.zeros(32, np.float32)
    row[3] = bad
    mapping.change(7, row)
    with pytest.raises(InputError, match=rf"1 embedding not finite or all zero, .*{mapping.uuids[7]}"):
        mapping.make()
    assert mapping.positions() == before


@pytest.mark.parametrize("n_images", [1, 2, 3, 4, 15, 16])
def test_few_photos_have_a_map_and_a_model_and_can_grow(tmp_path, n_images):
    mapping = Mapping(tmp_path)
    mapping.add(n_images)
    mapping.make()
    mapping.store()
    assert len(mapping.positions()) == n_images
    mapping.add(1)
    mapping.make()
    assert len(mapping.positions()) == n_images + 1
    mapping.add(40)
    mapping.make(update="place")
    assert mapping.quality()["action"] == ("fit" if n_images < 15 else "place")


def test_a_database_without_embeddings_is_refused(tmp_path):
    mapping = Mapping(tmp_path)
    mapping.write()
    with pytest.raises(InputError, match="has no embeddings to map; see the table T_FAILURES"):
        mapping.make()


def test_the_settings_digest_changes_with_settings_that_change_the_map():
    base = settings_digest(SETTINGS, "")
    for change in ({"n_neighbors": 7}, {"radius": 3}, {"update": "refit"}, {"compare_with_plane": True}):
        assert settings_digest({**SETTINGS, **change}, "") != base, change
    assert settings_digest(SETTINGS, "labels.csv") != base
    for change in ({"update": "place"}, {"refit_share": 0.5}):
        assert settings_digest({**SETTINGS, **change}, "") == base, change


def test_the_map_has_the_settings_of_the_configuration():
    assert MapSettings.__annotations__.keys() == UmapSettings.model_fields.keys()
    assert UmapSettings().model_dump() == SETTINGS
