"""Copies of a photo, which have equal embeddings, are at one position of the map."""

import numpy as np
import pytest
from test_fit import PARAMETERS, cluster_rows, named
from test_map_job import Mapping

from crossfilter_inference.map.contents import _share_kept
from crossfilter_inference.map.copies import find_copies, with_copies
from crossfilter_inference.map.fit import SphereMap, fit, place, update
from crossfilter_inference.map.neighbours import all_neighbours
from crossfilter_inference.map.quality import measure
from crossfilter_inference.map.sphere import degrees_between


def random_rows(n_rows, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n_rows, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def scattered_copies(n_others, n_copies, seed=0):
    """Return photos and copies of one of them, and which they are."""
    rows = random_rows(n_others, seed)
    rows = np.vstack([rows, np.repeat(rows[:1], n_copies - 1, axis=0)])
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows[order], np.flatnonzero((order == 0) | (order >= n_others))


def fitted(rows, previous=None, n_threads=2):
    return fit(named(len(rows)), rows, PARAMETERS, n_threads, previous)


def check_one_position_per_photo(sphere_map, rows):
    """Equal rows have equal angles to the last bit, and other rows have others."""
    group_of = find_copies(rows).group_of
    same_angles = (sphere_map.angles[:, None] == sphere_map.angles[None]).all(axis=2)
    assert np.array_equal(same_angles, group_of[:, None] == group_of[None])


@pytest.mark.parametrize(
    ("n_others", "n_copies"),
    [(41, 14), (41, 2), (20, 200), (5, 96), (4, 30), (3, 10), (2, 99), (1, 30), (1, 3), (2, 2)],
)
def test_copies_are_at_one_position_and_other_photos_elsewhere(n_others, n_copies):
    rows, _ = scattered_copies(n_others, n_copies)
    sphere_map = fitted(rows)
    check_one_position_per_photo(sphere_map, rows)
    assert np.allclose(np.linalg.norm(sphere_map.unit_vectors, axis=1), 1)


def test_copies_do_not_change_the_positions_of_other_photos():
    rows = random_rows(60)
    with_some = np.vstack([rows, np.repeat(rows[7:8], 14, axis=0), rows[20:25]])
    assert np.array_equal(fitted(with_some).angles[:60], fitted(rows).angles)


def test_a_map_with_copies_does_not_depend_on_threads():
    rows, _ = scattered_copies(60, 20)
    assert np.array_equal(fitted(rows, n_threads=1).angles, fitted(rows, n_threads=2).angles)


@pytest.mark.parametrize("improve", [False, True])
def test_a_copy_that_is_added_later_is_at_the_position_of_its_original(improve):
    rows = cluster_rows(200)
    before = fitted(rows)
    # The copies come first, so that the numbers of all rows change.
    added = np.vstack([np.repeat(rows[50:51], 14, axis=0), rows[3:4], rows])
    known = np.arange(15, 215)
    after = update(named(215), added, known, PARAMETERS, 2, before, improve=improve)
    check_one_position_per_photo(after, added)
    if not improve:
        assert np.array_equal(after.angles[15:], before.angles)
    assert after.drift_degrees <= 3


@pytest.mark.parametrize("improve", [False, True])
def test_an_update_joins_copies_that_an_older_map_has_apart(improve):
    rows = cluster_rows(200)
    rows[100:114] = rows[100]
    apart = fitted(cluster_rows(200))
    older = SphereMap(apart.uuids, apart.angles, all_neighbours(rows, 15, 2))
    joined = update(named(200), rows, np.arange(200), PARAMETERS, 2, older, improve=improve)
    check_one_position_per_photo(joined, rows)
    assert degrees_between(joined.unit_vectors[:100], older.unit_vectors[:100]).max() < 20


@pytest.mark.parametrize("removed", [[0], [0, 1, 2, 3], [5]])
def test_an_update_equals_one_without_known_neighbours_if_copies_come_and_go(removed):
    rows = cluster_rows(150)
    rows[:4] = rows[0]
    rows[60:80] = rows[60]
    before = fitted(rows)
    kept = np.setdiff1d(np.arange(150), removed)
    after = np.vstack([rows[140:141], rows[kept]])  # a copy whose UUID sorts before all others
    known = np.full(150, -1)
    known[kept] = 1 + np.arange(len(kept))
    bare = SphereMap(before.uuids, before.angles)
    maps = [update(named(len(after)), after, known, PARAMETERS, 2, old, improve=True) for old in (before, bare)]
    assert np.array_equal(maps[0].angles, maps[1].angles)
    assert np.array_equal(maps[0].neighbours.indices, maps[1].neighbours.indices)
    check_one_position_per_photo(maps[0], after)


def test_the_neighbours_of_a_map_are_different_photos():
    rows, copies = scattered_copies(60, 20)
    neighbours = fitted(rows).neighbours
    group_of = find_copies(rows).group_of
    assert (neighbours.indices[:, 0] == np.arange(len(rows))).all()
    assert all(len(np.unique(group_of[line])) == len(line) for line in neighbours.indices)
    assert np.isin(neighbours.indices[:, 1:], np.setdiff1d(copies, copies[:1])).sum() == 0


@pytest.mark.parametrize(("n_others", "n_copies"), [(60, 20), (60, 3), (30, 300), (60, 1)])
def test_with_copies_neighbours_equal_a_search_among_all_photos(n_others, n_copies):
    rows, _ = scattered_copies(n_others, n_copies)
    found = with_copies(fitted(rows).neighbours, rows)
    expected = all_neighbours(rows, 15, 2)
    assert np.array_equal(found.indices, expected.indices)
    assert np.array_equal(found.distances, expected.distances)


def test_zeros_of_both_signs_are_equal():
    rows = random_rows(3)
    rows[:2] = rows[0]
    rows[:2, 5] = [0.0, -0.0]
    assert find_copies(rows).group_of.tolist() == [0, 0, 1]


def test_a_placed_copy_has_the_position_of_its_original_to_the_last_bit():
    rows = cluster_rows(100)
    positions = fitted(rows).unit_vectors
    assert np.array_equal(place(rows[30:60], rows, positions, 2), positions[30:60])


def test_copies_count_once_for_the_size_of_a_map_and_the_choice_of_a_refit(tmp_path):
    mapping = Mapping(tmp_path)
    mapping.add(12)
    mapping.by_uuid |= {f"{number:08x}-0000-4000-8000-000000000000": mapping.rows[4] for number in range(400)}
    mapping.write()
    assert mapping.make() == "fitted to 412 photos"
    assert mapping.quality()["radius"] == 2.5
    copies = {
        tuple(place) for name, place in mapping.positions().items() if name.endswith("-0000-4000-8000-000000000000")
    }
    assert len(copies) == 1
    mapping.add(30)
    assert mapping.make().startswith("refitted: 30 of 442")
    mapping.by_uuid |= {f"{number:08x}-1111-4000-8000-000000000000": mapping.rows[4] for number in range(3)}
    mapping.write()
    assert mapping.make().startswith("updated: 3 of 445")
    assert len({tuple(place) for place in mapping.positions().values()}) == 42


def test_the_quality_does_not_suffer_from_copies():
    rows, _ = scattered_copies(300, 60)
    figures = measure(rows, fitted(rows).unit_vectors)
    assert figures["trustworthiness"] > measure(rows, fitted(random_rows(300)).unit_vectors)["trustworthiness"] - 0.02


def test_neighbours_that_are_copies_at_one_position_are_near_on_the_map():
    rows, copies = scattered_copies(40, 60)
    sphere_map = fitted(rows)
    shares = _share_kept(sphere_map.unit_vectors, with_copies(sphere_map.neighbours, rows).indices[:, 1:])
    assert (shares[copies] == 1).all()


def test_the_share_of_kept_neighbours_counts_the_nearest_on_the_map():
    rows = cluster_rows(100)
    sphere_map = fitted(rows)
    neighbours = sphere_map.neighbours.indices[:, 1:]
    cosines = sphere_map.unit_vectors @ sphere_map.unit_vectors.T - 9 * np.eye(100)
    nearest = np.argsort(-cosines, axis=1)[:, :14]
    expected = [np.isin(*pair).mean() for pair in zip(neighbours, nearest, strict=True)]
    assert np.allclose(_share_kept(sphere_map.unit_vectors, neighbours), expected)
