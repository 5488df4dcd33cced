"""UMAP's layout on the sphere: its objective, optimised on unit vectors, in parallel and reproducibly.

Photos that are connected in the graph attract each other; randomly sampled photos repel each other. With d the distance
of two photos on a sphere of radius R (d = R times the angle), the forces are

    attraction      2 a b d^(2b - 1) / (1 + a d^(2b))      (connected photos)
    repulsion   g * 2 b / (d (1 + a d^(2b)))               (random photos)

Both are capped at 4, before the factor g, and act along the great circle. In a large collection, random photos are
seldom near, so g has to be larger there to keep neighbours apart.

In an epoch, the forces of a photo's own connections move it one after the other; stronger connections act in more
epochs. All other photos keep their positions of the previous epoch, so the result does not depend on which thread moves
a photo. Random numbers are a hash of seed, epoch and photo. Each of them selects two groups of 16 photos that follow
each other in a random order of all, so that their positions are read at once. Both forces are tabulated over the
squared chord (2 - 2 cos), with 128 steps per factor of 2. The last bits depend on the kind of processor, because it
adds up the forces of a group at once.

References
----------
L. McInnes, J. Healy and J. Melville, arXiv:1802.03426, section 4.2. The hash: G. Steele, D. Lea and C. Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..util.jit import compiled
from ..util.progress import Progress
from .principal import principal_directions

# Random photos per connection. umap-learn uses 5. More of them keep more neighbours together.
NEGATIVE_SAMPLE_RATE = 32
# What keeps the most neighbours together, by the number of different photos (benchmarks/SPHERE.md). If the sphere is
# too large, the photos occupy one side of it. If it is too small, they have no room. If repulsion is too strong, groups
# break up.
_N_IMAGES = (200, 2_000, 10_000, 1_000_000)
_RADII = (2.5, 4.5, 12, 38)
_REPULSIONS = (0.5, 0.45, 3, 7.5)
_N_EPOCHS = (500, 500, 500, 200)
_BLOCK = 4_096
_MIN_PART = 1_000  # photos for which a thread is worth its start in every epoch
_GROUP = 16
_MAX_FORCE = 4.0  # as in umap-learn
_STEP_BITS = 7  # the tables have 2^7 steps per factor of 2
_SHIFT = 23 - _STEP_BITS  # a float32 has 23 bits of mantissa
_MIN_SQUARED_CHORD = np.float32(2.0**-24)  # closer positions are equal in single precision
_FIRST_STEP = int(_MIN_SQUARED_CHORD.view(np.int32)) >> _SHIFT
_LAST_STEP = int(np.float32(5).view(np.int32)) >> _SHIFT  # 4, and room for rounding


@dataclass(frozen=True)
class Forces:
    """UMAP's curve 1 / (1 + a d^(2b)), with d the distance on a sphere of radius `radius`, and the factor g."""

    a: float
    b: float
    radius: float
    repulsion: float

    @property
    def learning_rate(self) -> float:
        """Size of the steps in the first epoch; it decreases to 0.

        umap-learn moves one photo at a time and can start with 1. Here all photos move at once, and smaller steps give
        better maps, above all if repulsion is strong.
        """
        return float(0.2 * np.clip(0.45 / self.repulsion, 0, 1) ** 0.35)


def default_n_epochs(n_images: int) -> int:
    """Return the number of epochs: 500 for up to 10,000 photos, 200 for a million and more."""
    return round(_interpolate(n_images, _N_EPOCHS))


def default_radius(n_images: int) -> float:
    """Return the radius for a new map: 2.5 for up to 200 photos, 4.5 for 2,000, 12 for 10,000, 38 for a million."""
    return float(np.exp(_interpolate(n_images, np.log(_RADII))))


def default_repulsion(n_images: int) -> float:
    """Return the factor g for a new map: 0.5 for up to 200 photos, 3 for 10,000, 7.5 for a million."""
    return float(np.exp(_interpolate(n_images, np.log(_REPULSIONS))))


def _interpolate(n_images: int, values: Sequence[float] | NDArray[np.float64]) -> float:
    """Interpolate over the logarithm of the number of photos."""
    return float(np.interp(np.log(max(n_images, 1)), np.log(_N_IMAGES), values))


def initial_positions(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute starting positions: each photo's offset from the mean, along the three principal directions.

    Parameters
    ----------
    embeddings : array of shape (n_images, n_dims), float32

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
        A photo that equals the mean is at (0, 1, 0).
    """
    mean, directions = principal_directions(embeddings, 3)
    components = np.empty((len(embeddings), directions.shape[1]), np.float32)
    with threadpool_limits(1, "blas"):
        for start in range(0, len(embeddings), _BLOCK):  # a copy of all embeddings may be too large
            block = slice(start, start + _BLOCK)
            components[block] = (embeddings[block] - mean) @ directions
    scale = components.std(axis=0)
    varies = scale > 1e-6  # smaller values are rounding errors of embeddings of length 1 in single precision
    positions = np.zeros((len(embeddings), 3))
    positions[:, : len(scale)] = components * varies / np.where(varies, scale, 1)
    length = np.linalg.norm(positions, axis=1, keepdims=True)
    return np.where(length > 1e-6, positions / np.where(length > 1e-6, length, 1), [0.0, 1.0, 0.0])


def lay_out(
    unit_vectors: NDArray[np.float64],
    graph: sp.csr_matrix,
    forces: Forces,
    random_state: int,
    n_threads: int,
    n_epochs: int,
    mobility: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Optimise the positions of photos on the sphere.

    Parameters
    ----------
    unit_vectors : array of shape (n_images, 3), float64, rows of length 1
        Starting positions.
    graph : sparse matrix of shape (n_images, n_images), float32
        Strengths of the connections; symmetric.
    forces : Forces
    random_state : int
    n_threads : int
        The result does not depend on it.
    n_epochs : int
    mobility : array of shape (n_images,), float64, optional
        Factor of each photo's steps; 1 by default.

    Returns
    -------
    array of shape (n_images, 3), float64, rows of length 1
    """
    shares = graph.data / graph.data.max()
    shares[shares < 1 / n_epochs] = 0  # too weak to act in any epoch
    attraction, repulsion = _tabulate_forces(forces)
    # With its number, a photo does not cross a line of the processor's cache.
    positions = np.empty((len(unit_vectors), 4), np.float32)
    positions[:, :3], positions[:, 3] = unit_vectors, np.arange(len(unit_vectors))
    moved = positions.copy()
    factors = np.ones(len(positions), np.float32) if mobility is None else mobility.astype(np.float32)
    order = _random_order(len(positions), random_state)
    n_parts = min(n_threads, 1 + len(positions) // _MIN_PART)
    bounds = np.linspace(0, len(positions), n_parts + 1).astype(int).tolist()
    with ThreadPoolExecutor(n_parts) as threads, Progress(n_epochs, "layout", "epoch") as progress:
        for epoch in range(n_epochs):
            step = np.float32(forces.learning_rate * (1 - epoch / n_epochs))
            run = partial(
                _move,
                *(positions, _in_groups(positions, order), moved, graph.indptr, graph.indices, shares),
                *(attraction, repulsion, random_state, epoch, step * factors),
            )
            list(threads.map(run, bounds[:-1], bounds[1:]))
            progress.update(1)
            positions, moved = moved, positions
    vectors = positions[:, :3].astype(np.float64)
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _random_order(n_images: int, seed: int) -> NDArray[np.int64]:
    """Order photos at random; the first ones are repeated at the end, to complete a group."""
    order = np.argsort(_hashes(n_images, seed), kind="stable")
    return np.resize(order, -(-n_images // _GROUP) * _GROUP)


def _in_groups(positions: NDArray[np.float32], order: NDArray[np.int64]) -> NDArray[np.float32]:
    """Copy positions in some order: an array of shape (n_groups, 4, 16)."""
    return np.ascontiguousarray(positions[order].reshape(-1, _GROUP, 4).transpose(0, 2, 1))


def _tabulate_forces(forces: Forces) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tabulate attraction and repulsion as angles, divided by the length of the tangent (the sine of the angle)."""
    a, b, radius = forces.a, forces.b, forces.radius
    steps = (np.arange(_FIRST_STEP, _LAST_STEP + 1, dtype=np.int32) << _SHIFT) + (1 << _SHIFT - 1)  # their middles
    angle = 2 * np.arcsin(np.sqrt(np.minimum(steps.view(np.float32).astype(np.float64), 4)) / 2)
    distance = radius * angle
    divisor = 1 + a * distance ** (2 * b)
    attraction = 2 * a * b * distance ** (2 * b - 1) / divisor
    repulsion = 2 * b / (distance * divisor)
    # The sine is 0 at the antipode, where forces have no direction.
    scale = 1 / (radius * np.maximum(np.sin(angle), 1e-3))
    attraction = np.minimum(attraction, _MAX_FORCE)
    repulsion = forces.repulsion * np.minimum(repulsion, _MAX_FORCE)
    return (attraction * scale).astype(np.float32), (repulsion * scale).astype(np.float32)


@compiled(inline="always")
def _entry(squared_chord: np.float32) -> np.uintp:
    """Return where a force is in the tables."""
    # With max(), or with the table as an argument, the processor could not compute several photos at once.
    bits = np.float32(squared_chord if squared_chord > _MIN_SQUARED_CHORD else _MIN_SQUARED_CHORD).view(np.int32)
    return np.uintp((bits >> _SHIFT) - _FIRST_STEP)  # unsigned: numba checks signed indices for negative values


@compiled(inline="always")
def _hash(state: np.uint64) -> np.uint64:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@compiled()
def _hashes(n_images: int, seed: int) -> NDArray[np.uint64]:
    hashes = np.empty(n_images, np.uint64)
    for i in range(n_images):
        hashes[i] = _hash(np.uint64(seed) ^ _hash(np.uint64(i)))
    return hashes


@compiled(nogil=True, reorders_sums=True)
def _move(
    positions: NDArray[np.float32],
    others: NDArray[np.float32],
    moved: NDArray[np.float32],
    pointers: NDArray[np.int32],
    neighbours: NDArray[np.int32],
    shares: NDArray[np.float32],
    attraction: NDArray[np.float32],
    repulsion: NDArray[np.float32],
    seed: int,
    epoch: int,
    steps: NDArray[np.float32],
    start: int,
    stop: int,
) -> None:
    """Write the positions of the photos from `start` to `stop` after one epoch to `moved`."""
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    golden = np.uint64(0x9E3779B97F4A7C15)
    n_groups = np.uint64(len(others))
    of_epoch = _hash(np.uint64(seed) + golden * np.uint64(epoch + 1))
    for i in range(np.uintp(start), np.uintp(stop)):
        x, y, z, step = positions[i, 0], positions[i, 1], positions[i, 2], steps[i]
        state, own = _hash(of_epoch ^ np.uint64(i)), positions[i, 3]
        for edge in range(np.uintp(pointers[i]), np.uintp(pointers[i + 1])):
            share = shares[edge]
            if np.int32(share * np.float32(epoch + 1)) == np.int32(share * np.float32(epoch)):
                continue
            j = np.uintp(neighbours[edge])
            u, v, w = positions[j, 0], positions[j, 1], positions[j, 2]
            chord = (u - x) * (u - x) + (v - y) * (v - y) + (w - z) * (w - z)
            # Doubled: umap-learn moves both ends of a connection, and stores each connection in both directions.
            pull = two * step * attraction[_entry(chord)]
            stay = one - pull * (one - half * chord)
            x, y, z = stay * x + pull * u, stay * y + pull * v, stay * z + pull * w
            scale = one / np.sqrt(x * x + y * y + z * z)
            x, y, z = x * scale, y * scale, z * scale
            dx, dy, dz, along = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            state = state + golden
            number = _hash(state)
            for half_of_number in range(2):
                part = number >> np.uint64(32) if half_of_number == 0 else number & np.uint64(0xFFFFFFFF)
                group = np.uintp((part * n_groups) >> np.uint64(32))
                for k in range(_GROUP):
                    u, v, w = others[group, 0, k], others[group, 1, k], others[group, 2, k]
                    chord = (u - x) * (u - x) + (v - y) * (v - y) + (w - z) * (w - z)
                    push = repulsion[_entry(chord)] if others[group, 3, k] != own else np.float32(0)
                    along += push * (one - half * chord)
                    dx += push * u
                    dy += push * v
                    dz += push * w
            stay = one + step * along
            x, y, z = stay * x - step * dx, stay * y - step * dy, stay * z - step * dz
            scale = one / np.sqrt(x * x + y * y + z * z)
            x, y, z = x * scale, y * scale, z * scale
        moved[i, 0], moved[i, 1], moved[i, 2] = x, y, z
