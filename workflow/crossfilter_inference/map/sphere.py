"""Places on the sphere: UMAP's angles, unit vectors, latitude and longitude.

UMAP with the haversine output metric gives a colatitude theta and an azimuth phi in
radians, neither of them wrapped:

    x = sin(theta) cos(phi),  y = sin(theta) sin(phi),  z = cos(theta)

Latitude and longitude follow the original tool, which takes atan2(x, y):

    latitude = 90 - degrees(arccos z),  longitude = degrees(atan2(x, y))

References
----------
UMAP's documentation, "Embedding to non-Euclidean Spaces", section on spherical embeddings.
"""

import numpy as np


def unit_vectors_from_angles(theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Turn colatitude and azimuth into unit vectors.

    Parameters
    ----------
    theta, phi : array of shape (n_images,), float
        Radians, of any size: they need not be wrapped.

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
    """
    theta, phi = np.asarray(theta, np.float64), np.asarray(phi, np.float64)
    return np.column_stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])


def angles_from_unit_vectors(unit_vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn unit vectors into the canonical angles.

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


def latitude_longitude(unit_vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn unit vectors into the original tool's latitude and longitude.

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


def unit_vectors_from_latitude_longitude(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Turn the original tool's latitude and longitude into unit vectors.

    Parameters
    ----------
    latitude, longitude : array of shape (n_images,), float, degrees

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
    """
    return unit_vectors_from_angles(np.pi / 2 - np.radians(latitude), np.pi / 2 - np.radians(longitude))


def hammer(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project places by Hammer's equal-area projection, scaled to an ellipse of 4 by 2.

    Parameters
    ----------
    latitude, longitude : arrays of shape (n_images,), degrees

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


def spherical_mean(unit_vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average places on the sphere: the direction of the sum of the unit vectors.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, n_neighbors, 3), float
    weights : array of shape (n_images, n_neighbors), float, not negative

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
        Places that cancel out have no mean; then it is the one of the greatest weight.
    """
    mean = np.einsum("nkc,nk->nc", unit_vectors, weights / weights.sum(axis=1, keepdims=True))
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    heaviest = np.take_along_axis(unit_vectors, weights.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    return np.where(length > 1e-6, mean / np.where(length > 1e-6, length, 1), heaviest)


def turned_onto(unit_vectors: np.ndarray, onto: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Rotate a map, and mirror it if that is better, so that it comes as close as it can to another one.

    Parameters
    ----------
    unit_vectors, onto : arrays of shape (n_images, 3) and (n_others, 3), float
    pairs : array of shape (n_pairs, 2), int
        Rows of `unit_vectors` and of `onto` that belong together.

    Returns
    -------
    array of shape (n_images, 3), float64

    References
    ----------
    P. H. Schoenemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966.
    """
    left, _, right = np.linalg.svd(np.einsum("ni,nj->ij", unit_vectors[pairs[:, 0]], onto[pairs[:, 1]]))
    return np.einsum("ni,ij->nj", unit_vectors, left @ right)


def degrees_between(unit_vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the angles between places, row by row.

    Parameters
    ----------
    unit_vectors, others : arrays of shape (n_images, 3), float, rows of length 1

    Returns
    -------
    array of shape (n_images,), float64, degrees in [0, 180]
    """
    return np.degrees(2 * np.arcsin(np.minimum(np.linalg.norm(unit_vectors - others, axis=1) / 2, 1)))
