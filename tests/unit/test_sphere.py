import numpy as np
import pytest

from crossfilter_inference.map import sphere


@pytest.fixture
def unit_vectors():
    vectors = np.random.default_rng(0).normal(size=(1000, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_angles_and_unit_vectors_are_inverses(unit_vectors):
    theta, phi = sphere.angles_from_unit_vectors(unit_vectors)
    assert theta.min() >= 0
    assert theta.max() <= np.pi
    assert np.abs(phi).max() <= np.pi
    assert np.allclose(sphere.unit_vectors_from_angles(theta, phi), unit_vectors)


def test_unwrapped_angles_are_the_same_position(unit_vectors):
    theta, phi = sphere.angles_from_unit_vectors(unit_vectors)
    assert np.allclose(sphere.unit_vectors_from_angles(theta + 4 * np.pi, phi - 6 * np.pi), unit_vectors)
    assert np.allclose(sphere.unit_vectors_from_angles(-theta, phi + np.pi), unit_vectors)


def test_latitude_and_longitude_follow_the_original(unit_vectors):
    x, y, z = unit_vectors.T
    latitude, longitude = sphere.latitude_longitude(unit_vectors)
    assert np.allclose(latitude, 90 - np.degrees(np.arccos(z)))
    assert np.allclose(longitude, np.degrees(np.arctan2(x, y)))


def test_the_poles_have_finite_coordinates():
    latitude, longitude = sphere.latitude_longitude(np.array([[0, 0, 1.0], [0, 0, -1.0]]))
    assert latitude.tolist() == [90, -90]
    assert np.isfinite(longitude).all()


def test_latitude_and_longitude_convert_back_to_the_position(unit_vectors):
    back = sphere.unit_vectors_from_latitude_longitude(*sphere.latitude_longitude(unit_vectors))
    assert np.allclose(back, unit_vectors)


def test_the_mean_of_positions_is_between_them_also_across_the_date_line():
    angles = np.radians([[170, -170], [80, 100]])
    positions = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=2)
    mean = sphere.spherical_mean(positions, np.ones((2, 2)))
    assert np.allclose(mean, [[-1, 0, 0], [0, 1, 0]])
    weighted = sphere.spherical_mean(positions, np.array([[1.0, 0], [1, 1e-9]]))
    assert np.allclose(weighted, positions[:, 0])


def test_the_mean_of_positions_that_cancel_out_is_the_one_of_the_greatest_weight():
    opposite = np.array([[[0.0, 0, 1], [0, 0, -1]]])
    assert np.allclose(sphere.spherical_mean(opposite, np.array([[1.0, 1.0]])), [[0, 0, 1]])


@pytest.mark.parametrize("mirror", [1, -1])
def test_a_rotated_or_mirrored_map_is_rotated_back(unit_vectors, mirror):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    rotation *= mirror * np.sign(np.linalg.det(rotation))
    pairs = np.column_stack([np.arange(100), np.arange(100)])
    rotated = sphere.rotate_onto(unit_vectors @ rotation, unit_vectors, pairs)
    assert np.allclose(rotated, unit_vectors)
    assert sphere.degrees_between(rotated, unit_vectors).max() < 1e-5


def test_angles_between_positions_are_in_degrees():
    positions = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0]])
    assert np.allclose(sphere.degrees_between(positions[[0, 0, 0]], positions), [0, 90, 180])
