import numpy as np
import pytest
from benchmark_of_the_map import check_benchmark_of_the_map

from crossfilter_inference.map import neighbours


def random_rows(n_rows, n_dims=48, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n_rows, n_dims)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(queries, rows, n_neighbors, own=None):
    distances = 0.5 * ((queries[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    if own is not None:
        distances[np.arange(len(queries)), own] = -1
    return np.argsort(distances.astype(np.float32), axis=1, kind="stable")[:, :n_neighbors]


def test_neighbours_equal_a_brute_force_search_with_each_row_itself_first():
    rows = random_rows(300)
    indices, distances = neighbours.all_neighbours(rows, 15, 2)
    assert np.array_equal(indices, brute_force(rows, rows, 15, np.arange(300)))
    assert (distances[:, 0] == 0).all()
    cosines = (rows[:, None] * rows[indices]).sum(axis=2)
    assert np.allclose(distances[:, 1:], 1 - cosines[:, 1:], atol=1e-6)


def test_neighbours_do_not_depend_on_threads_or_on_other_queries():
    rows, queries = random_rows(500), random_rows(200, seed=1)
    together = neighbours.nearest(queries, rows, 15, 1)
    assert all(map(np.array_equal, together, neighbours.nearest(queries, rows, 15, 3)))
    alone = [neighbours.nearest(queries[i : i + 1], rows, 15, 1) for i in range(0, 200, 7)]
    assert np.array_equal(np.vstack([indices for indices, _ in alone]), together[0][::7])
    assert np.array_equal(np.vstack([distances for _, distances in alone]), together[1][::7])


def test_a_large_table_is_searched_in_smaller_blocks(monkeypatch):
    rows = random_rows(500)
    expected = neighbours.all_neighbours(rows, 15, 2)
    monkeypatch.setattr(neighbours, "_MAX_BLOCK_SCORES", 3500)
    assert all(map(np.array_equal, expected, neighbours.all_neighbours(rows, 15, 2)))


def test_almost_equal_rows_are_ordered_exactly():
    rows = random_rows(1) + 2e-5 * np.random.default_rng(1).normal(size=(300, 48))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    assert np.array_equal(neighbours.all_neighbours(rows, 15, 2)[0], brute_force(rows, rows, 15, np.arange(300)))


def test_the_first_of_identical_rows_are_the_neighbours():
    rows = np.repeat(random_rows(3), 40, axis=0)
    indices, distances = neighbours.all_neighbours(rows, 15, 2)
    assert (distances == 0).all()
    assert indices[50].tolist() == [50, *range(40, 50), *range(51, 55)]


@pytest.mark.slow  # it compiles pynndescent
def test_above_the_limit_neighbours_are_reproducible_and_almost_exact(monkeypatch):
    rows = random_rows(2000, 16)
    exact, _ = neighbours.all_neighbours(rows, 15, 2)
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 1000)
    found, distances = neighbours.all_neighbours(rows, 15, 1)
    again, _ = neighbours.all_neighbours(rows, 15, 2)
    assert np.array_equal(found, again)
    assert (found[:, 0] == np.arange(2000)).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    assert np.mean([len(np.intersect1d(*pair)) / 15 for pair in zip(found, exact, strict=True)]) > 0.98


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_benchmark_of_neighbours_prints_possible_figures(tmp_path):
    check_benchmark_of_the_map("neighbours", tmp_path)


@pytest.mark.parametrize(("n_new", "n_gone", "n_changed"), [(1, 0, 0), (30, 0, 0), (0, 20, 0), (7, 5, 3)])
def test_an_update_equals_a_new_search(n_new, n_gone, n_changed):
    before, new = random_rows(400), random_rows(n_new + n_changed, seed=1)
    rows = np.vstack([new[:n_new], before[n_gone:]])  # new rows first, so that all row numbers change
    rows[len(rows) - n_changed :] = new[n_new:]
    known = np.arange(400) - n_gone + n_new
    known[:n_gone] = -1
    known[400 - n_changed :] = -1
    updated = neighbours.updated_neighbours(rows, known, neighbours.all_neighbours(before, 15, 2), 2)
    assert all(map(np.array_equal, updated, neighbours.all_neighbours(rows, 15, 2)))
