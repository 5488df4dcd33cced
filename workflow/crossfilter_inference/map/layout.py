"""UMAP's layout on the sphere: its objective, optimised on unit vectors, in parallel and reproducibly.

Every photo is drawn by the photos that it is connected with in the graph, and driven off by others that are taken at
random. With d the distance of two photos on a sphere of radius R (d = R times the angle), the force between them is

    towards each other    2 a b d^(2b - 1) / (1 + a d^(2b))        (connected photos)
    from each other       2 b / (d (1 + a d^(2b)))                 (random ones)

both 4 at most, along the great circle. In an epoch every photo takes the forces of its own connections one after the
other, the strong ones in every epoch, while all others stay where they were; so it does not matter in which thread a
photo is moved. Random numbers are a hash of seed, epoch and photo. Both forces stand in a table over the squared chord
(2 - 2 cos), with 32 steps per factor of 2.

References
----------
L. McInnes, J. Healy and J. Melville, arXiv:1802.03426, section 4.2. The hash: G. Steele, D. Lea and C. Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014.
"""

import numba
import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from ..util.jit import compiled

# Random photos per connection. umap-learn takes 5; 10 keep more neighbours together and use more of the sphere.
NEGATIVE_SAMPLE_RATE = 10
# Of the first epoch; it falls to 0. umap-learn moves one photo at a time and can begin with 1. Where all move at once,
# smaller steps end in better maps (benchmarks/SPHERE.md).
LEARNING_RATE = 0.25
_STRONGEST = 4.0  # force, as in umap-learn
_STEP_BITS = 5  # steps of the table per factor of 2: 2^5
_SHIFT = 23 - _STEP_BITS  # a float32 has 23 bits behind its exponent
_FRACTION = np.int32((1 << _SHIFT) - 1)
_PER_STEP = np.float32(1 / (1 << _SHIFT))
_CLOSEST = np.float32(2.0**-24)  # closer ones are in one place, in single precision
_FIRST = int(_CLOSEST.view(np.int32)) >> _SHIFT
_LAST = int(np.float32(5).view(np.int32)) >> _SHIFT  # 4, and some rounding


def default_n_epochs(n_images: int) -> int:
    """Return umap-learn's number of epochs."""
    return 500 if n_images <= 10_000 else 200


def default_radius(n_images: int) -> float:
    """Return the radius that keeps most neighbours together: 2 for up to 200 photos, 4 for 2,000 and more.

    On a larger sphere few photos huddle on one side; on a smaller one many have no room (benchmarks/SPHERE.md).
    """
    return float(np.clip(4 * (n_images / 2000) ** 0.3, 2, 4))


def first_places(embeddings: np.ndarray) -> np.ndarray:
    """Place photos by their offset from the mean, in its three principal directions.

    Parameters
    ----------
    embeddings : array of shape (n_images, n_dims), float32

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
        A photo at the mean is at (0, 1, 0).
    """
    offsets = embeddings - embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
    sample = offsets[:: max(1, len(offsets) // 10_000)].astype(np.float64)
    with threadpool_limits(1, "blas"):  # else the last bits depend on the number of cores
        square = sample.T @ sample if len(sample) > len(sample.T) else sample
        directions = np.linalg.svd(square, full_matrices=False)[2][:3]
        largest = directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)]
        components = offsets @ (directions * np.sign(largest)[:, None]).T.astype(np.float32)
    scale = components.std(axis=0)
    meant = scale > 1e-6  # in single precision, of embeddings of length 1
    places = np.zeros((len(embeddings), 3))
    places[:, : len(scale)] = components * meant / np.where(meant, scale, 1)
    length = np.linalg.norm(places, axis=1, keepdims=True)
    return np.where(length > 1e-6, places / np.where(length > 1e-6, length, 1), [0.0, 1.0, 0.0])


def lay_out(
    unit_vectors: np.ndarray,
    graph: sp.csr_matrix,
    a: float,
    b: float,
    radius: float,
    random_state: int,
    n_threads: int,
    n_epochs: int,
    mobility: np.ndarray | None = None,
) -> np.ndarray:
    """Optimise the places of photos on the sphere.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float, rows of length 1
        Where to begin.
    graph : sparse matrix of shape (n_images, n_images), float32
        Symmetric.
    a, b : float
        Of UMAP's curve 1 / (1 + a d^(2b)), with d on the sphere of radius `radius`.
    radius : float
    random_state : int
    n_threads : int
        The result does not depend on it.
    n_epochs : int
    mobility : array of shape (n_images,), float, optional
        What each photo's steps are multiplied by; 1 where nothing is given.

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
    """
    shares = graph.data / graph.data.max()
    shares[shares < 1 / n_epochs] = 0  # they would never act
    attraction, repulsion = _forces(a, b, radius)
    places = np.zeros((len(unit_vectors), 4), np.float32)  # the fourth keeps a photo in one line of the cache
    places[:, :3] = unit_vectors
    moved = places.copy()
    mobility = np.ones(len(places), np.float32) if mobility is None else mobility.astype(np.float32)
    n_before = numba.get_num_threads()
    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    try:
        for epoch in range(n_epochs):
            step = np.float32(LEARNING_RATE * (1 - epoch / n_epochs))
            _move_all(
                places,
                moved,
                graph.indptr,
                graph.indices,
                shares,
                attraction,
                repulsion,
                random_state,
                epoch,
                step * mobility,
            )
            places, moved = moved, places
    finally:
        numba.set_num_threads(n_before)
    result = places[:, :3].astype(np.float64)
    return result / np.linalg.norm(result, axis=1, keepdims=True)


def _forces(a: float, b: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Tabulate both forces, as an angle over the length of the tangent (the sine of the angle)."""
    steps = np.arange(_FIRST, _LAST + 2, dtype=np.int32) << _SHIFT
    angle = 2 * np.arcsin(np.sqrt(np.minimum(steps.view(np.float32).astype(np.float64), 4)) / 2)
    distance = radius * angle
    curve = 1 + a * distance ** (2 * b)
    attraction = 2 * a * b * distance ** (2 * b - 1) / curve
    repulsion = 2 * b / (distance * curve)
    # At the antipode there is no direction to go in.
    scale = 1 / (radius * np.maximum(np.sin(angle), 1e-3))
    return tuple((np.minimum(force, _STRONGEST) * scale).astype(np.float32) for force in (attraction, repulsion))


@compiled(inline="always")
def _look_up(table, squared_chord):
    bits = np.float32(max(squared_chord, _CLOSEST)).view(np.int32)
    index = np.uintp((bits >> _SHIFT) - _FIRST)  # numba looks for negative indices in signed numbers
    part = np.float32(bits & _FRACTION) * _PER_STEP
    return table[index] + part * (table[index + np.uintp(1)] - table[index])


@compiled(inline="always")
def _hash(state):
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@compiled(parallel=True)
def _move_all(places, moved, pointers, neighbours, shares, attraction, repulsion, seed, epoch, steps):
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    golden = np.uint64(0x9E3779B97F4A7C15)
    n_images = np.uint64(len(places))
    start = _hash(np.uint64(seed) + golden * np.uint64(epoch + 1))
    for i in numba.prange(np.uintp(len(places))):
        x, y, z, step = places[i, 0], places[i, 1], places[i, 2], steps[i]
        state = _hash(start ^ np.uint64(i))
        number = state
        for edge in range(np.uintp(pointers[i]), np.uintp(pointers[i + 1])):
            share = shares[edge]
            if np.int32(share * np.float32(epoch + 1)) == np.int32(share * np.float32(epoch)):
                continue
            j = np.uintp(neighbours[edge])
            u, v, w = places[j, 0], places[j, 1], places[j, 2]
            chord = (u - x) * (u - x) + (v - y) * (v - y) + (w - z) * (w - z)
            # Twice, since umap-learn moves both ends of a connection, and has each connection in both directions.
            pull = two * step * _look_up(attraction, chord)
            stay = one - pull * (one - half * chord)
            x, y, z = stay * x + pull * u, stay * y + pull * v, stay * z + pull * w
            scale = one / np.sqrt(x * x + y * y + z * z)
            x, y, z = x * scale, y * scale, z * scale
            dx, dy, dz, along = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for n in range(NEGATIVE_SAMPLE_RATE):
                if n % 2 == 0:  # a number of 64 bits is good for two photos
                    state = state + golden
                    number = _hash(state)
                    part = number >> np.uint64(32)
                else:
                    part = number & np.uint64(0xFFFFFFFF)
                j = np.uintp((part * n_images) >> np.uint64(32))
                u, v, w = places[j, 0], places[j, 1], places[j, 2]
                chord = (u - x) * (u - x) + (v - y) * (v - y) + (w - z) * (w - z)
                push = _look_up(repulsion, chord) if j != i else np.float32(0)
                along += push * (one - half * chord)
                dx += push * u
                dy += push * v
                dz += push * w
            stay = one + step * along
            x, y, z = stay * x - step * dx, stay * y - step * dy, stay * z - step * dz
            scale = one / np.sqrt(x * x + y * y + z * z)
            x, y, z = x * scale, y * scale, z * scale
        moved[i, 0], moved[i, 1], moved[i, 2] = x, y, z
