import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from crossfilter_inference.map import quality as map_quality
from crossfilter_inference.map.quality import measure


@pytest.fixture
def rows():
    rows = np.random.default_rng(0).normal(size=(200, 24)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("n_images", [3, 10, 31, 200])
def test_trustworthiness_equals_that_of_scikit_learn(rows, n_images):
    positions = rows[:n_images, :3] / np.linalg.norm(rows[:n_images, :3], axis=1, keepdims=True)
    k = min(15, (n_images - 1) // 2)
    expected = trustworthiness(rows[:n_images], positions, n_neighbors=k)
    assert np.isclose(measure(rows[:n_images], positions)["trustworthiness"], expected)


def test_a_sample_represents_a_large_collection(rows, monkeypatch):
    positions = rows[:, :3] / np.linalg.norm(rows[:, :3], axis=1, keepdims=True)
    all_of_them = measure(rows, positions)
    monkeypatch.setattr(map_quality, "_SAMPLE", 100)
    assert abs(measure(rows, positions, 2)["trustworthiness"] - all_of_them["trustworthiness"]) < 0.03


def test_a_perfect_map_keeps_all_neighbours(rows):
    three = rows[:, :3] / np.linalg.norm(rows[:, :3], axis=1, keepdims=True)
    figures = measure(three, three.astype(np.float64))
    assert figures["trustworthiness"] > 0.9999
    assert figures["neighbours_kept"] > 0.999


def test_the_share_of_the_sphere_depends_on_the_spread_of_the_photos(rows):
    rows = np.tile(rows, (20, 1))
    even = map_quality._even_positions(4000)
    assert measure(rows, even)["sphere_share"] == 1
    assert 0.5 <= measure(rows[:2000], even[:2000])["sphere_share"] < 0.6
    assert measure(rows, np.tile([0.0, 0.0, 1.0], (4000, 1)))["sphere_share"] == 1 / 400


def test_label_purity_counts_labelled_photos_only(rows):
    even = map_quality._even_positions(200)
    labels = ["up" if z > 0 else "down" for z in even[:, 2]]
    figures = measure(rows, even, labels=labels)
    assert 0.8 < figures["label_purity"] < 1
    labels[100:] = [None] * 100
    figures = measure(rows, even, labels=labels)
    assert figures["label_purity"] == 1
    assert figures["n_labelled"] == 100
    assert "label_purity" not in measure(rows, even, labels=[None] * 200)


def test_few_photos_and_photos_at_one_position_have_figures(rows):
    for n_images in range(1, 8):
        figures = measure(rows[:n_images], np.tile([0.0, 0.0, 1.0], (n_images, 1)))
        assert ("trustworthiness" in figures) == (n_images > 2)
