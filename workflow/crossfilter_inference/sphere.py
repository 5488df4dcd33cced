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
