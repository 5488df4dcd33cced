import numpy as np
import pytest
from benchmark_of_the_map import check_benchmark_of_the_map

from crossfilter_inference.map import large_search, neighbours


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


@pytest.fixture
def always_large(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 0)
    monkeypatch.setattr(large_search, "_MAX_LIST", 300)


def real_rows(n_rows, seed=0):
    """Rows that vary in few directions, as embeddings of photos do."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(12, 64))
    rows = np.tanh(random.normal(size=(n_rows, 12)) @ directions) + 0.1 * random.normal(size=(n_rows, 64))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def recall(found, exact):
    return np.mean([len(np.intersect1d(*pair)) / exact.shape[1] for pair in zip(found, exact, strict=True)])


@pytest.mark.parametrize("n_neighbors", [2, 15, 60])
def test_a_large_search_finds_nearly_all_neighbours_in_the_order_of_their_distance(always_large, n_neighbors):
    rows = real_rows(4000)
    exact = neighbours.nearest(rows, rows, n_neighbors, 2, np.arange(4000))
    found = neighbours.all_neighbours(rows, n_neighbors, 2)
    assert (found.indices[:, 0] == np.arange(4000)).all()
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert all(len({*row}) == n_neighbors for row in found.indices.tolist())
    assert recall(found.indices, exact.indices) > 0.99
    same = found.indices == exact.indices
    assert (found.distances[same] == exact.distances[same]).all()


def test_a_large_search_does_not_depend_on_threads(always_large):
    rows = real_rows(3000)
    one, *others = (neighbours.all_neighbours(rows, 15, n_threads) for n_threads in (1, 2, 5))
    assert all(np.array_equal(*pair) for other in others for pair in zip(one, other, strict=True))


def test_rows_in_no_order_and_rows_that_are_all_alike_are_found_too(always_large):
    shapeless = random_rows(2000, 16)
    exact = neighbours.nearest(shapeless, shapeless, 15, 2, np.arange(2000)).indices
    assert recall(neighbours.all_neighbours(shapeless, 15, 2).indices, exact) > 0.97
    alike = np.repeat(random_rows(1), 2000, axis=0)
    found = neighbours.all_neighbours(alike, 15, 2)
    assert (found.indices[:, 0] == np.arange(2000)).all()
    assert found.distances.max() == 0


@pytest.mark.parametrize(("n_new", "n_gone", "n_changed"), [(40, 0, 0), (0, 30, 0), (25, 20, 10), (1500, 0, 0)])
def test_a_large_update_is_as_good_as_a_new_search(always_large, n_new, n_gone, n_changed):
    before, new = real_rows(3000), real_rows(n_new + n_changed, seed=1)
    rows, known = renewed_rows(before, new, n_new, n_gone, n_changed)
    previous = neighbours.nearest(before, before, 15, 2, np.arange(3000))
    found, old = neighbours.updated_neighbours(rows, known, previous, 15, 10, 2)
    exact = neighbours.nearest(rows, rows, 15, 2, np.arange(len(rows))).indices
    added = np.setdiff1d(np.arange(len(rows)), known)
    assert recall(found.indices, exact) > 0.985
    assert len(added) == 0 or recall(found.indices[added], exact[added]) > 0.98
    expected = neighbours.nearest(rows[added], rows, 10, 2, hidden=added)
    assert not np.isin(old.indices, added).any()
    assert len(added) == 0 or recall(old.indices, expected.indices) > 0.98
    again = neighbours.updated_neighbours(rows, known, previous, 15, 10, 5)
    assert all(
        np.array_equal(*pair)
        for one, other in zip((found, old), again, strict=True)
        for pair in zip(one, other, strict=True)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_benchmark_of_neighbours_prints_possible_figures(tmp_path):
    check_benchmark_of_the_map("neighbours", tmp_path)


def renewed_rows(before, new, n_new, n_gone, n_changed):
    """Put new rows first, so that all numbers change; return the rows and the new number of each previous one."""
    n_before = len(before)
    rows = np.vstack([new[:n_new], before[n_gone:]])
    rows[len(rows) - n_changed :] = new[n_new:]
    known = np.arange(n_before) - n_gone + n_new
    known[:n_gone] = -1
    known[n_before - n_changed :] = -1
    return rows, known


@pytest.mark.parametrize(("n_new", "n_gone", "n_changed"), [(1, 0, 0), (30, 0, 0), (0, 20, 0), (7, 5, 3)])
def test_an_update_equals_a_new_search(n_new, n_gone, n_changed):
    rows, known = renewed_rows(random_rows(400), random_rows(n_new + n_changed, seed=1), n_new, n_gone, n_changed)
    previous = neighbours.all_neighbours(random_rows(400), 15, 2)
    updated, old = neighbours.updated_neighbours(rows, known, previous, 15, 10, 2)
    assert all(map(np.array_equal, updated, neighbours.all_neighbours(rows, 15, 2)))
    added = np.setdiff1d(np.arange(len(rows)), known)
    kept = np.setdiff1d(np.arange(len(rows)), added)
    assert np.array_equal(old.indices, kept[brute_force(rows[added], rows[kept], 10)])
