import numpy as np
import pytest

from crossfilter_inference import umap_model
from crossfilter_inference.sphere import unit_vectors_from_angles

SETTINGS = {"n_neighbors": 15, "min_dist": 0.1, "random_state": 42}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:umap")


def random_embeddings(n_images):
    rows = np.random.default_rng(n_images).normal(size=(n_images, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def places(embeddings):
    model = umap_model.fit(embeddings, SETTINGS)
    theta, phi = model.embedding_.T
    assert model.embedding_.shape == (len(embeddings), 2)
    assert ((theta >= 0) & (theta <= np.pi) & (np.abs(phi) <= np.pi)).all()
    return unit_vectors_from_angles(theta, phi)


@pytest.mark.parametrize("n_images", range(1, 18))
def test_few_photos_end_in_places_apart(n_images):
    unit_vectors = places(random_embeddings(n_images))
    assert np.allclose(np.linalg.norm(unit_vectors, axis=1), 1)
    distances = np.arccos(np.clip(unit_vectors @ unit_vectors.T, -1, 1)) + 10 * np.eye(n_images)
    assert distances.min() > 0.01


@pytest.mark.parametrize("n_images", [2, 3, 5, 20])
def test_identical_photos_are_in_one_place(n_images):
    unit_vectors = places(np.repeat(random_embeddings(1), n_images, axis=0))
    assert np.allclose(unit_vectors, unit_vectors[0])


def test_two_groups_of_identical_photos_are_in_two_places():
    embeddings = np.repeat(random_embeddings(2), 10, axis=0)
    cosines = places(embeddings) @ places(embeddings).T
    assert cosines[:10, :10].mean() > cosines[:10, 10:].mean() + 0.1


def test_the_same_embeddings_give_the_same_map():
    embeddings = random_embeddings(40)
    assert np.array_equal(
        umap_model.fit(embeddings, SETTINGS).embedding_, umap_model.fit(embeddings, SETTINGS).embedding_
    )


def test_neighbours_stay_neighbours():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 32))
    labels = np.arange(80) % 4
    rows = centres[labels] + 0.3 * rng.normal(size=(80, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    unit_vectors = places(rows)
    nearest = np.argsort(-(unit_vectors @ unit_vectors.T), axis=1)[:, 1:6]
    assert (labels[nearest] == labels[:, None]).mean() > 0.95


def test_the_digest_follows_the_settings():
    assert umap_model.settings_digest(SETTINGS) != umap_model.settings_digest({**SETTINGS, "n_neighbors": 7})
