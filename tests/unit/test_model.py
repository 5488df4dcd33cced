import hashlib
import pickle
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import umap
from test_map_job import Mapping

from crossfilter_inference.errors import InputError
from crossfilter_inference.map import model as umap_model
from crossfilter_inference.map.fit import fit, fit_parameters
from crossfilter_inference.map.rows import row_digests
from crossfilter_inference.map.sphere import degrees_between, unit_vectors_from_angles

SETTINGS = {"n_neighbors": 15, "min_dist": 0.1, "radius": 4, "repulsion": 0.5, "random_state": 42}
PARAMETERS = fit_parameters(SETTINGS, 100, None)


def random_embeddings(n_images):
    rows = np.random.default_rng(n_images).normal(size=(n_images, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fitted_positions(embeddings):
    uuids = [f"{number:06d}" for number in range(len(embeddings))]
    theta, phi = fit(uuids, embeddings, PARAMETERS, 2, None).angles.T
    assert ((theta >= 0) & (theta <= np.pi) & (np.abs(phi) <= np.pi)).all()
    return unit_vectors_from_angles(theta, phi)


@pytest.mark.parametrize("n_images", range(1, 18))
def test_few_photos_have_positions_apart(n_images):
    unit_vectors = fitted_positions(random_embeddings(n_images))
    assert np.allclose(np.linalg.norm(unit_vectors, axis=1), 1)
    distances = np.arccos(np.clip(unit_vectors @ unit_vectors.T, -1, 1)) + 10 * np.eye(n_images)
    assert distances.min() > 0.01


@pytest.mark.parametrize("n_images", [2, 3, 5, 20])
def test_identical_photos_have_one_position(n_images):
    unit_vectors = fitted_positions(np.repeat(random_embeddings(1), n_images, axis=0))
    assert np.allclose(unit_vectors, unit_vectors[0])


def test_two_groups_of_identical_photos_have_two_positions():
    unit_vectors = fitted_positions(np.repeat(random_embeddings(2), 10, axis=0))
    cosines = unit_vectors @ unit_vectors.T
    assert cosines[:10, :10].mean() > cosines[:10, 10:].mean() + 0.1


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    mapping = Mapping(tmp_path_factory.mktemp("stored"))
    mapping.add(120)
    mapping.make()
    mapping.store()
    return mapping


@pytest.fixture
def mapping(stored, tmp_path):
    return stored.copy(tmp_path)


def test_the_model_is_a_umap_with_its_parameters(mapping):
    model = pickle.loads(mapping.blob())
    assert type(model) is umap.UMAP
    parameters = model.get_params()
    assert (parameters["metric"], parameters["output_metric"]) == ("cosine", "haversine")
    assert (parameters["n_neighbors"], parameters["min_dist"], parameters["random_state"]) == (15, 0, 42)
    a, b = umap.umap_.find_ab_params(1.0, 0)
    assert np.isclose(model._a, a * 2.5 ** (2 * b), rtol=1e-4)
    assert np.isclose(model._b, b)
    assert model.uuids_ == mapping.uuids
    assert model.embedding_.shape == (120, 2)
    assert model.graph_.shape == (120, 120)


@pytest.mark.slow
def test_the_pickle_opens_without_this_library(mapping, tmp_path):
    (tmp_path / "model.pkl").write_bytes(mapping.blob())
    program = (
        "import pickle, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "model = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert model.embedding_.shape == (120, 2) and model.get_params()['n_neighbors'] == 15\n"
        "import umap\n"
        "assert type(model) is umap.UMAP\n"
        "ours = {'crossfilter_inference', 'torch', 'transformers', 'sqlalchemy', 'PIL'}\n"
        "assert not ours & {*sys.modules}, ours & {*sys.modules}\n"
    )
    command = [sys.executable, "-I", "-c", program, tmp_path / "model.pkl"]
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path)


def test_the_model_holds_neither_embeddings_nor_search_index(mapping):
    model = pickle.loads(mapping.blob())
    assert not hasattr(model, "_raw_data")
    arrays = [value for value in vars(model).values() if isinstance(value, np.ndarray)]
    assert max(array.size for array in arrays) <= 120 * 15


def test_transform_of_known_photos_returns_their_positions_together_and_alone(mapping):
    model = umap_model.load_umap_model(mapping.database, "T")
    assert isinstance(model, umap.UMAP)
    together = model.transform(mapping.rows[:100])
    own = model.embedding_[:100]
    assert degrees_between(unit_vectors_from_angles(*together.T), unit_vectors_from_angles(*own.T)).max() < 2
    alone = np.vstack([model.transform(row[None]) for row in mapping.rows[:100]])
    assert np.allclose(alone, together, atol=1e-6)


def test_transform_refuses_wrong_shapes_and_rows_without_direction(mapping):
    model = umap_model.load_umap_model(mapping.database, "T")
    with pytest.raises(InputError, match=r"X has shape \(3, 5\); give an array of shape \(n_images, 32\)"):
        model.transform(np.ones((3, 5)))
    rows = mapping.rows[:3].copy()
    rows[1, 0] = np.nan
    with pytest.raises(InputError, match="row 1 of X is not finite or all zero"):
        model.transform(rows)


def change(mapping, statement, *values):
    connection = sqlite3.connect(mapping.database)
    with connection:
        connection.execute(statement, values)
    connection.close()


class Harmful:
    """Write a file when it is unpickled."""

    def __init__(self, harm, how):
        self.harm, self.how = str(harm), how

    def __reduce__(self):
        if self.how == "eval":
            return (eval, (f"open({self.harm!r}, 'w')",))
        if self.how == "numpy":
            return (np.save, (self.harm, np.zeros(1)))
        return (open, (self.harm, "w"))


def test_a_changed_model_is_not_unpickled(mapping, tmp_path):
    change(mapping, "UPDATE T_UMAP_MODEL SET MODEL = ?", pickle.dumps(Harmful(tmp_path / "harm", "open")))
    with pytest.raises(InputError, match="is not the model that the workflow stored, and a pickle can run any code"):
        umap_model.load_umap_model(mapping.database, "T")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("how", ["open", "eval", "numpy", "within a model"])
def test_a_strangers_model_with_its_digest_runs_nothing(mapping, tmp_path, how):
    harmful = Harmful(tmp_path / "harm", how)
    if how == "within a model":
        model = pickle.loads(mapping.blob())
        model.metric = harmful
        harmful = model
    blob = pickle.dumps(harmful, protocol=4)
    change(mapping, "UPDATE T_UMAP_MODEL SET MODEL = ?", blob)
    digest = hashlib.sha256(blob).hexdigest()
    change(mapping, "UPDATE T_PROVENANCE SET VALUE = ? WHERE KEY = 'map_model_digest'", digest)
    with pytest.raises(InputError, match=r"T_UMAP_MODEL holds .*, so it is not a model of the map; to rebuild"):
        umap_model.load_umap_model(mapping.database, "T")
    assert not [*tmp_path.glob("harm*")]


def test_a_damaged_model_with_its_digest_is_one_line(mapping):
    blob = mapping.blob()[:-500]
    change(mapping, "UPDATE T_UMAP_MODEL SET MODEL = ?", blob)
    digest = hashlib.sha256(blob).hexdigest()
    change(mapping, "UPDATE T_PROVENANCE SET VALUE = ? WHERE KEY = 'map_model_digest'", digest)
    with pytest.raises(InputError, match="T_UMAP_MODEL is not a model of the map"):
        umap_model.load_umap_model(mapping.database, "T")


def test_a_model_of_another_version_names_the_version_to_install(mapping):
    change(mapping, "UPDATE T_PROVENANCE SET VALUE = '0.4.6' WHERE KEY = 'map_version_umap-learn'")
    with pytest.raises(InputError, match=r"made with umap-learn 0\.4\.6.*pip install umap-learn==0\.4\.6.*delete"):
        umap_model.load_umap_model(mapping.database, "T")


def test_a_model_of_other_embeddings_is_refused(mapping):
    mapping.change(3)
    with pytest.raises(InputError, match="the embeddings have changed since the map was made"):
        umap_model.load_umap_model(mapping.database, "T")


def test_a_database_without_a_model_is_refused(tmp_path):
    mapping = Mapping(tmp_path)
    mapping.add(5)
    with pytest.raises(InputError, match="has no table T_UMAP_MODEL; to make the map, run"):
        umap_model.load_umap_model(mapping.database, "T")


def test_embeddings_of_any_length_are_recognised_by_their_stored_rows(tmp_path):
    mapping = Mapping(tmp_path)
    mapping.add(20)
    mapping.by_uuid = {name: 3 * row for name, row in mapping.by_uuid.items()}
    mapping.write()
    mapping.make()
    mapping.store()
    assert np.array_equal(pickle.loads(mapping.blob()).row_digests_, row_digests(mapping.rows))
    model = umap_model.load_umap_model(mapping.database, "T")
    assert np.allclose(model.transform(mapping.rows), model.embedding_, atol=0.01)
