import numpy as np
import pytest

from crossfilter_inference import sphere


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
