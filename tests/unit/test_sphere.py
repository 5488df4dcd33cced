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


def test_unwrapped_angles_mean_the_same_place(unit_vectors):
    theta, phi = sphere.angles_from_unit_vectors(unit_vectors)
    assert np.allclose(sphere.unit_vectors_from_angles(theta + 4 * np.pi, phi - 6 * np.pi), unit_vectors)
    assert np.allclose(sphere.unit_vectors_from_angles(-theta, phi + np.pi), unit_vectors)


def test_latitude_and_longitude_follow_the_original(unit_vectors):
    x, y, z = unit_vectors.T
    latitude, longitude = sphere.latitude_longitude(unit_vectors)
    assert np.allclose(latitude, 90 - np.degrees(np.arccos(z)))
    assert np.allclose(longitude, np.degrees(np.arctan2(x, y)))


def test_the_poles_have_finite_places():
    latitude, longitude = sphere.latitude_longitude(np.array([[0, 0, 1.0], [0, 0, -1.0]]))
    assert latitude.tolist() == [90, -90]
    assert np.isfinite(longitude).all()


def test_latitude_and_longitude_lead_back_to_the_place(unit_vectors):
    back = sphere.unit_vectors_from_latitude_longitude(*sphere.latitude_longitude(unit_vectors))
    assert np.allclose(back, unit_vectors)


def test_the_mean_of_places_lies_between_them_also_across_the_date_line():
    angles = np.radians([[170, -170], [80, 100]])
    places = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=2)
    mean = sphere.spherical_mean(places, np.ones((2, 2)))
    assert np.allclose(mean, [[-1, 0, 0], [0, 1, 0]])
    weighted = sphere.spherical_mean(places, np.array([[1.0, 0], [1, 1e-9]]))
    assert np.allclose(weighted, places[:, 0])


def test_places_that_cancel_out_have_the_heaviest_one_as_their_mean():
    opposite = np.array([[[0.0, 0, 1], [0, 0, -1]]])
    assert np.allclose(sphere.spherical_mean(opposite, np.array([[1.0, 1.0]])), [[0, 0, 1]])


@pytest.mark.parametrize("mirror", [1, -1])
def test_a_turned_or_mirrored_map_is_turned_back(unit_vectors, mirror):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= mirror * np.sign(np.linalg.det(turn))
    pairs = np.column_stack([np.arange(100), np.arange(100)])
    turned = sphere.turned_onto(unit_vectors @ turn, unit_vectors, pairs)
    assert np.allclose(turned, unit_vectors)
    assert sphere.degrees_between(turned, unit_vectors).max() < 1e-5


def test_angles_between_places_are_in_degrees():
    places = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0]])
    assert np.allclose(sphere.degrees_between(places[[0, 0, 0]], places), [0, 90, 180])
