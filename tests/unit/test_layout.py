import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import PROJECT

from crossfilter_inference.map import layout
from crossfilter_inference.map.fuzzy_graph import fuzzy_graph
from crossfilter_inference.map.neighbours import all_neighbours
from crossfilter_inference.map.quality import measure
from crossfilter_inference.map.sphere import unit_vectors_from_angles

FORCES = layout.Forces(1.58, 0.9, 4, 0.4)
STOCK = {"trustworthiness": 0.98291, "neighbours_kept": 0.43744}  # of umap-learn 0.5.12 on the sphere, for `clusters`


@pytest.fixture(scope="module")
def clusters():
    random = np.random.default_rng(0)
    labels = np.arange(600) % 12
    rows = random.normal(size=(12, 32))[labels] + 0.8 * random.normal(size=(600, 32))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), [str(label) for label in labels]


def lay_out(rows, n_threads=2, seed=42, n_epochs=200, radius=FORCES.radius):
    graph = fuzzy_graph(*all_neighbours(rows, 15, 2))
    forces = replace(FORCES, radius=radius)
    return layout.lay_out(layout.initial_positions(rows), graph, forces, seed, n_threads, n_epochs)


def test_the_layout_is_bit_identical_with_any_number_of_threads_and_on_repetition(clusters):
    one = lay_out(clusters[0], n_threads=1)
    assert np.array_equal(one, lay_out(clusters[0], n_threads=2))
    assert np.array_equal(one, lay_out(clusters[0], n_threads=2))
    assert not np.array_equal(one, lay_out(clusters[0], seed=43))


def test_the_layout_is_bit_identical_in_another_process_with_other_cores(clusters, tmp_path):
    np.save(tmp_path / "rows.npy", clusters[0])
    folders = [str(PROJECT / folder) for folder in ("workflow", "tests/unit", "tests")]
    program = (
        "import sys, numpy\n"
        f"sys.path[:0] = {folders}\n"
        "import test_layout\n"
        "numpy.save(sys.argv[2], test_layout.lay_out(numpy.load(sys.argv[1])))\n"
    )
    command = [sys.executable, "-c", program, tmp_path / "rows.npy", tmp_path / "positions.npy"]
    environment = {"PATH": "/usr/bin:/bin", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "3"}
    subprocess.run(command, check=True, env=environment, timeout=200)
    assert np.array_equal(np.load(tmp_path / "positions.npy"), lay_out(clusters[0]))


def test_the_layout_keeps_more_neighbours_than_umap_learn_on_the_same_sphere(clusters):
    rows, labels = clusters
    ours = measure(rows, lay_out(rows), 2, labels)
    assert ours["trustworthiness"] > STOCK["trustworthiness"]
    assert ours["neighbours_kept"] > STOCK["neighbours_kept"]
    assert ours["label_purity"] > 0.99


@pytest.mark.slow  # it compiles umap-learn
def test_the_stored_figures_of_umap_learn_are_those_of_the_installed_version(clusters):
    import umap

    rows, labels = clusters
    with pytest.warns(UserWarning, match="n_jobs"):
        model = umap.UMAP(metric="cosine", output_metric="haversine", random_state=42).fit(rows)
    stock = measure(rows, unit_vectors_from_angles(*model.embedding_.T), 2, labels)
    # umap-learn's map depends on the processor: neighbours_kept is .437 with AVX-512, .446 without.
    assert {name: stock[name] for name in STOCK} == pytest.approx(STOCK, abs=0.015)


def test_photos_use_a_smaller_share_of_a_larger_sphere(clusters):
    shares = [measure(clusters[0], lay_out(clusters[0], radius=radius))["sphere_share"] for radius in (1, 3, 9)]
    assert shares[0] > shares[1] > shares[2]


def test_positions_have_length_1_also_if_photos_coincide(clusters):
    rows = np.vstack([clusters[0][:50], np.repeat(clusters[0][:1], 30, axis=0)])
    graph = fuzzy_graph(*all_neighbours(rows, 15, 2))
    same_position = np.tile([0.0, 0.0, 1.0], (80, 1))
    for start in (layout.initial_positions(rows), same_position):
        positions = layout.lay_out(start, graph, FORCES, 0, 2, 100)
        assert np.allclose(np.linalg.norm(positions, axis=1), 1)


@pytest.mark.parametrize("n_images", [1, 2, 3, 4, 40])
def test_initial_positions_are_apart_and_have_length_1(n_images):
    rows = np.random.default_rng(n_images).normal(size=(n_images, 32)).astype(np.float32)
    positions = layout.initial_positions(rows)
    assert np.allclose(np.linalg.norm(positions, axis=1), 1)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2) + 10 * np.eye(n_images)
    assert distances.min() > 0.01


def test_the_tables_match_the_formulas():
    attraction, repulsion = layout._tabulate_forces(FORCES)
    a, b, radius = FORCES.a, FORCES.b, FORCES.radius
    for angle in (0.01, 0.3, 1.0, 2.5):
        chord = np.float32(2 - 2 * np.cos(angle))
        distance = radius * angle
        divisor = 1 + a * distance ** (2 * b)
        pull = min(2 * a * b * distance ** (2 * b - 1) / divisor, 4) / (radius * np.sin(angle))
        push = FORCES.repulsion * min(2 * b / (distance * divisor), 4) / (radius * np.sin(angle))
        assert np.isclose(attraction[layout._entry(chord)], pull, rtol=8e-3)
        assert np.isclose(repulsion[layout._entry(chord)], push, rtol=8e-3)


def plain_layout(starts, graph, forces, seed, n_epochs, mobility):
    """Move photos as the module's docstring says, in double precision."""
    mask = (1 << 64) - 1

    def hashed(state):
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        return state ^ (state >> 31)

    def force(first, second, attracts):
        angle = np.arccos(np.clip(first @ second, -1, 1))
        distance = max(forces.radius * angle, 1e-9)
        divisor = 1 + forces.a * distance ** (2 * forces.b)
        if attracts:
            size = 2 * forces.a * forces.b * distance ** (2 * forces.b - 1) / divisor
        else:
            size = 2 * forces.b / (distance * divisor)
        tangent = second - (first @ second) * first
        size = min(size, 4) * (1 if attracts else forces.repulsion)
        return size / forces.radius * tangent / max(np.sin(angle), 1e-3)

    def unit(vector):
        return vector / np.linalg.norm(vector)

    golden, n = 0x9E3779B97F4A7C15, len(starts)
    order = sorted(range(n), key=lambda i: hashed(seed ^ hashed(i)))
    groups = [[order[i % n] for i in range(16 * group, 16 * group + 16)] for group in range(-(-n // 16))]
    shares = graph.data / graph.data.max()
    positions = starts.copy()
    for epoch in range(n_epochs):
        step = forces.learning_rate * (1 - epoch / n_epochs)
        moved = positions.copy()
        for i in range(n):
            state = hashed(hashed((seed + golden * (epoch + 1)) & mask) ^ i)
            for edge in range(graph.indptr[i], graph.indptr[i + 1]):
                if shares[edge] < 1 / n_epochs or int(shares[edge] * (epoch + 1)) == int(shares[edge] * epoch):
                    continue
                pull = force(moved[i], positions[graph.indices[edge]], attracts=True)
                moved[i] = unit(moved[i] + 2 * step * mobility[i] * pull)
                push = np.zeros(3)
                state = (state + golden) & mask
                for part in (hashed(state) >> 32, hashed(state) & 0xFFFFFFFF):
                    for other in groups[part * len(groups) >> 32]:
                        if other != i:
                            push -= force(moved[i], positions[other], attracts=False)
                moved[i] = unit(moved[i] + step * mobility[i] * push)
        positions = moved
    return positions


def test_the_layout_equals_a_plain_computation_of_its_forces():
    random = np.random.default_rng(3)
    rows = random.normal(size=(7, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    graph = fuzzy_graph(*all_neighbours(rows, 4, 1))
    graph.data[:] = random.uniform(0.3, 1, len(graph.data)).astype(np.float32)
    graph.data[::4] = 0.01  # too weak to act in any of 20 epochs
    starts, mobility = layout.initial_positions(rows), random.uniform(0.2, 1, 7)
    ours = layout.lay_out(starts, graph, FORCES, 9, 1, 20, mobility)
    plain = plain_layout(starts, graph, FORCES, 9, 20, mobility)
    assert np.abs(plain - starts).max() > 0.2
    assert np.abs(ours - plain).max() < 0.001
