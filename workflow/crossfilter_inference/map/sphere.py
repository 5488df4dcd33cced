"""Geometry on the unit sphere: angles, unit vectors, latitude and longitude.

UMAP with the haversine output metric uses a colatitude theta and an azimuth phi in radians. Neither is wrapped:

    x = sin(theta) cos(phi),  y = sin(theta) sin(phi),  z = cos(theta)

Latitude and longitude follow the original tool, which takes atan2(x, y):

    latitude = 90 - degrees(arccos z),  longitude = degrees(atan2(x, y))

References
----------
UMAP's documentation, "Embedding to non-Euclidean Spaces", section on spherical embeddings.
"""

import numpy as np
from numpy.typing import NDArray


def unit_vectors_from_angles(theta: NDArray[np.floating], phi: NDArray[np.floating]) -> NDArray[np.float64]:
    """Convert colatitude and azimuth to unit vectors.

    Parameters
    ----------
    theta, phi : arrays of shape (n_images,), float
        Radians; any value, wrapped or not.

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
    """
    theta, phi = np.asarray(theta, np.float64), np.asarray(phi, np.float64)
    return np.column_stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])


def angles_from_unit_vectors(unit_vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Convert unit vectors to colatitude and azimuth.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float

    Returns
    -------
    theta : array of shape (n_images,), float64, radians in [0, pi]
    phi : array of shape (n_images,), float64, radians in [-pi, pi]
    """
    x, y, z = np.asarray(unit_vectors, np.float64).T
    return np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)


def latitude_longitude(unit_vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Convert unit vectors to the original tool's latitude and longitude.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float

    Returns
    -------
    latitude : array of shape (n_images,), float64, degrees in [-90, 90]
    longitude : array of shape (n_images,), float64, degrees in [-180, 180]
    """
    x, y, z = np.asarray(unit_vectors, np.float64).T
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(x, y))


def unit_vectors_from_latitude_longitude(
    latitude: NDArray[np.floating], longitude: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Convert the original tool's latitude and longitude to unit vectors.

    Parameters
    ----------
    latitude, longitude : arrays of shape (n_images,), float, degrees

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
    """
    return unit_vectors_from_angles(np.pi / 2 - np.radians(latitude), np.pi / 2 - np.radians(longitude))


def hammer(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project positions to a plane by Hammer's equal-area projection, scaled to an ellipse of 4 by 2.

    Parameters
    ----------
    latitude, longitude : arrays of shape (n_images,), float64, degrees

    Returns
    -------
    x, y : arrays of shape (n_images,), float64, in [-2, 2] and [-1, 1]

    References
    ----------
    J. P. Snyder, "Map Projections: A Working Manual", USGS Professional Paper 1395, 1987.
    """
    phi, half = np.radians(latitude), np.radians(longitude) / 2
    divisor = np.sqrt(1 + np.cos(phi) * np.cos(half))
    return 2 * np.cos(phi) * np.sin(half) / divisor, np.sin(phi) / divisor


def spherical_mean(unit_vectors: NDArray[np.floating], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Average positions on the sphere: the direction of the weighted sum of the unit vectors.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, n_neighbors, 3), float
    weights : array of shape (n_images, n_neighbors), float, 0 or more

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
        If the positions cancel out, the one of the greatest weight.
    """
    mean = np.einsum("nkc,nk->nc", unit_vectors, weights / weights.sum(axis=1, keepdims=True))
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    heaviest = np.take_along_axis(unit_vectors, weights.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    return np.where(length > 1e-6, mean / np.where(length > 1e-6, length, 1), heaviest)


def rotate_onto(
    unit_vectors: NDArray[np.float64], target: NDArray[np.float64], pairs: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Rotate a map, and mirror it where that is better, to match another map as closely as possible.

    Parameters
    ----------
    unit_vectors, target : arrays of shape (n_images, 3) and (n_targets, 3), float64
    pairs : array of shape (n_pairs, 2), int
        Rows of `unit_vectors` and of `target` that show the same photo.

    Returns
    -------
    array of shape (n_images, 3), float64

    References
    ----------
    P. H. Schoenemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966.
    """
    left, _, right = np.linalg.svd(np.einsum("ni,nj->ij", unit_vectors[pairs[:, 0]], target[pairs[:, 1]]))
    rotated: NDArray[np.float64] = np.einsum("ni,ij->nj", unit_vectors, left @ right)
    return rotated


def degrees_between(unit_vectors: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angle between two positions, row by row.

    Parameters
    ----------
    unit_vectors, others : arrays of shape (n_images, 3), float64, rows of length 1

    Returns
    -------
    array of shape (n_images,), float64, degrees in [0, 180]
    """
    half_chord = np.linalg.norm(unit_vectors - others, axis=1) / 2
    angles: NDArray[np.float64] = np.degrees(2 * np.arcsin(np.minimum(half_chord, 1)))
    return angles
