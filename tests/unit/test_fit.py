import numpy as np
import pytest

from crossfilter_inference.map import fit as map_fit
from crossfilter_inference.map.quality import measure
from crossfilter_inference.map.rows import row_digests
from crossfilter_inference.map.sphere import degrees_between, spherical_mean

SETTINGS = {"n_neighbors": 15, "min_dist": 0.1, "radius": 4, "repulsion": 0.5, "random_state": 42}
PARAMETERS = map_fit.fit_parameters(SETTINGS, 800, None)


def cluster_rows(n_images, seed=0, n_clusters=15):
    centres = np.random.default_rng(0).normal(size=(n_clusters, 32))
    rows = centres[np.arange(n_images) % n_clusters]
    rows = rows + 0.8 * np.random.default_rng(seed).normal(size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def named(n_images):
    return [f"{number:06d}" for number in range(n_images)]


@pytest.fixture(scope="module")
def rows():
    return cluster_rows(800)


@pytest.fixture(scope="module")
def old(rows):
    return map_fit.fit(named(780), rows[:780], PARAMETERS, 2, None)


def update(rows, old, *, improve, known=None):
    known = np.arange(len(old.uuids)) if known is None else known
    return map_fit.update(named(len(rows)), rows, known, PARAMETERS, 2, old, improve=improve)


def test_a_placed_photo_is_near_the_mean_of_its_neighbours(rows, old):
    placed = map_fit.place(rows[780:], rows[:780], old.unit_vectors, 2)
    nearest = np.argsort(-(rows[780:] @ rows[:780].T), axis=1)[:, :15]
    mean = spherical_mean(old.unit_vectors[nearest], np.ones((20, 15)))
    assert degrees_between(placed, mean).max() < 30


def test_a_photo_that_equals_one_of_the_map_gets_its_position(rows, old):
    placed = map_fit.place(rows[100:150], rows[:780], old.unit_vectors, 2)
    assert degrees_between(placed, old.unit_vectors[100:150]).max() < 0.01


def test_placing_keeps_old_positions_to_the_last_bit(rows, old):
    new = update(rows, old, improve=False)
    assert np.array_equal(new.angles[:780], old.angles)
    assert new.drift_degrees == 0


def test_a_placed_position_does_not_depend_on_other_new_photos(rows, old):
    together = update(rows, old, improve=False).angles[780:]
    for number in (780, 790, 799):
        alone = np.vstack([rows[:780], rows[number : number + 1]])
        assert np.array_equal(update(alone, old, improve=False).angles[780], together[number - 780])


def test_an_update_hardly_moves_the_map_and_is_as_good_as_a_refit(rows, old):
    new = update(rows, old, improve=True)
    refit = map_fit.fit(named(800), rows, PARAMETERS, 2, None)
    assert 0.05 < new.drift_degrees <= 2
    assert degrees_between(new.unit_vectors[:780], old.unit_vectors).mean() == pytest.approx(new.drift_degrees)
    assert degrees_between(refit.unit_vectors[:780], old.unit_vectors).mean() > 10
    qualities = [measure(rows, fitted.unit_vectors)["trustworthiness"] for fitted in (new, refit)]
    assert qualities[0] > qualities[1] - 0.004


def test_an_update_without_the_previous_neighbours_is_the_same(rows, old):
    bare = map_fit.SphereMap(old.uuids, old.angles)
    assert np.array_equal(update(rows, bare, improve=True).angles, update(rows, old, improve=True).angles)


def test_removed_photos_do_not_move_the_others(rows, old):
    known = np.arange(780) - 10
    known[:10] = -1
    uuids = named(780)[10:]
    placed = map_fit.update(uuids, rows[10:780], known, PARAMETERS, 2, old, improve=False)
    assert np.array_equal(placed.angles, old.angles[10:])
    aligned = map_fit.update(uuids, rows[10:780], known, PARAMETERS, 2, old, improve=True)
    assert 0 < aligned.drift_degrees <= 2


def test_a_photo_with_a_changed_embedding_is_new(rows, old):
    digests = row_digests(rows[:780])
    before = map_fit.SphereMap(old.uuids, old.angles, row_digests=digests)
    changed = rows[:780].copy()
    changed[5] = rows[790]
    known = map_fit.find_rows(named(780), row_digests(changed), before)
    assert np.flatnonzero(known == -1).tolist() == [5]
    known = map_fit.find_rows(named(780)[1:], digests[1:], before)
    assert known.tolist() == [-1, *range(779)]


def test_a_new_map_is_rotated_to_match_the_old_one(rows, old):
    other = map_fit.fit(named(800), cluster_rows(800, seed=5), PARAMETERS, 2, None)
    rotated = map_fit.fit(named(800), cluster_rows(800, seed=5), PARAMETERS, 2, old)
    drift = degrees_between(rotated.unit_vectors[:780], old.unit_vectors).mean()
    assert drift == pytest.approx(rotated.drift_degrees)
    assert drift < degrees_between(other.unit_vectors[:780], old.unit_vectors).mean()
    cosines = [fitted.unit_vectors @ fitted.unit_vectors.T for fitted in (other, rotated)]
    assert np.allclose(*cosines, atol=1e-6)


def test_maps_are_bit_identical_with_any_number_of_threads(rows, old):
    one = map_fit.update(named(800), rows, np.arange(780), PARAMETERS, 1, old, improve=True)
    assert np.array_equal(one.angles, update(rows, old, improve=True).angles)
    assert np.array_equal(map_fit.fit(named(780), rows[:780], PARAMETERS, 1, None).angles, old.angles)


def test_a_position_is_the_mean_of_exactly_15_neighbours_weighted_by_inverse_distance(rows, old):
    queries = rows[780:]
    distances = 1 - queries.astype(float) @ rows[:780].T.astype(float)
    nearest = np.argsort(distances, axis=1)[:, :15]
    weights = 1 / np.sqrt(np.take_along_axis(distances, nearest, axis=1))
    expected = spherical_mean(old.unit_vectors[nearest], weights)
    assert degrees_between(map_fit.place(queries, rows[:780], old.unit_vectors, 1), expected).max() < 1e-3


@pytest.mark.parametrize(("radius", "expected"), [(4, 0.02), (2, 0.005), (1, 0.00125), (40, 0.02)])
def test_old_photos_take_steps_that_are_smaller_on_a_smaller_sphere(rows, old, monkeypatch, radius, expected):
    used = []

    def lay_out(unit_vectors, graph, forces, seed, n_threads, n_epochs, mobility):
        used.append(mobility)
        return unit_vectors

    monkeypatch.setattr(map_fit, "lay_out", lay_out)
    parameters = map_fit.fit_parameters({**SETTINGS, "radius": radius}, 800, None)
    map_fit.update(named(800), rows, np.arange(780), parameters, 1, old, improve=True)
    assert np.allclose(used[0][:780], expected)
    assert (used[0][780:] == 1).all()


@pytest.mark.parametrize("min_dist", [0.0, 0.1, 0.5, 1.0, 1.5])
def test_the_curve_is_that_of_umap_learn(min_dist):
    from umap.umap_ import find_ab_params

    forces = map_fit.fit_parameters({**SETTINGS, "min_dist": min_dist}, 800, None).forces
    assert np.allclose([forces.a, forces.b], find_ab_params(1.0, min_dist), rtol=3e-5)
