"""New measures made of known ones, where something exact is cheap to have of each."""

import numpy as np

from wembed.measures import Measures

__all__ = ["distorted"]

_STRETCH = 0.12  # standard deviation of the entries of the linear map beside the identity, in the plane
_WAVES = 3
_AMPLITUDE = 0.13  # of a wave, and the wave length, in units of the spread of the atoms along an axis
_WAVE_LENGTH = 3.0
_BLOCK_NUMBERS = 4_000_000  # of the linear maps that are there at once


def distorted(measures: Measures, count: int, seed: int = 0, strength: float = 1.0) -> Measures:
    """`count` measures drawn from these, each about its centroid stretched and sheared a little and bent by waves.

    Args:
        measures: what to draw from.
        count: how many.
        seed: draws the measures and the distortions.
        strength: of the distortions.

    Returns:
        Point clouds with the weights of the measures they were made of.
    """
    rng = np.random.default_rng([seed, 4])
    drawn = measures[rng.integers(len(measures), size=count)]
    dim, sizes = drawn.dim, drawn.sizes
    centroids = np.repeat(drawn.centroids(), sizes, axis=0)
    points = drawn.points() - centroids
    spread = float(np.sqrt(np.square(points).mean())) or 1.0
    block = max(1, _BLOCK_NUMBERS // dim**2)
    for start in range(0, count, block):
        own = slice(int(drawn.offsets[start]), int(drawn.offsets[min(start + block, count)]))
        points[own] = _bent(points[own], sizes[start : start + block], spread, strength, rng)
    return Measures.from_flat(points + centroids, drawn.weights, sizes)


def _bent(
    points: np.ndarray, sizes: np.ndarray, spread: float, strength: float, rng: np.random.Generator
) -> np.ndarray:
    count, dim = len(sizes), points.shape[1]

    def own(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, sizes, axis=0)

    per_axis = np.sqrt(2 / dim)  # so that points move as far in any dimension
    stretch = np.eye(dim) + strength * _STRETCH * per_axis * rng.standard_normal((count, dim, dim))
    moved = np.empty_like(points)
    for axis in range(dim):
        moved[:, axis] = np.einsum("ad,ad->a", points, own(stretch[:, axis]))
    for _ in range(_WAVES):
        wave = rng.standard_normal((count, dim)) * per_axis * 2 * np.pi / (_WAVE_LENGTH * spread)
        phase = np.einsum("ad,ad->a", points, own(wave)) + own(rng.uniform(0, 2 * np.pi, count))
        moved += np.sin(phase)[:, None] * own(rng.standard_normal((count, dim)) * strength * _AMPLITUDE * spread)
    return moved
