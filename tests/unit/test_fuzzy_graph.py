import numpy as np
import pytest
import umap.umap_

from crossfilter_inference.map.fuzzy_graph import fuzzy_graph
from crossfilter_inference.map.neighbours import all_neighbours


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_images", "n_neighbors", "n_dims"),
    [(60, 5, 64), (16, 15, 3), (500, 2, 16), (400, 15, 8)],
)
def test_the_graph_equals_that_of_umap_learn(n_images, n_neighbors, n_dims):
    rows = np.random.default_rng(n_images).normal(size=(n_images, n_dims)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[:5] = rows[0]  # some identical ones
    indices, distances = all_neighbours(rows, n_neighbors, 2)
    before = indices.copy()
    graph = fuzzy_graph(indices, distances)
    theirs = umap.umap_.fuzzy_simplicial_set(
        rows, n_neighbors, np.random.RandomState(0), "cosine", knn_indices=indices, knn_dists=distances
    )[0]
    assert abs(graph - theirs).max() < 1e-6
    assert graph.nnz == theirs.nnz
    assert abs(graph - graph.T).max() == 0
    assert np.array_equal(indices, before)


def test_the_graph_equals_that_of_umap_learn_if_all_neighbours_are_almost_equally_far():
    indices = (np.arange(40)[:, None] + np.arange(15)).astype(np.int32) % 40
    distances = np.tile(np.float32(0.5) + np.arange(15, dtype=np.float32) * np.float32(1e-5), (40, 1))
    distances[:, 0] = 0
    theirs = umap.umap_.fuzzy_simplicial_set(
        np.empty((40, 1)), 15, np.random.RandomState(0), "cosine", knn_indices=indices, knn_dists=distances
    )[0]
    assert abs(fuzzy_graph(indices, distances) - theirs).max() < 1e-6
