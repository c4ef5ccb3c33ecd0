"""New measures made of known ones, where something exact is cheap to have of each."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from wembed.measures import Measures, blocks_of_atoms

__all__ = ["distorted"]

_STRETCH = 0.12  # standard deviation of the entries of the linear map beside the identity, in the plane
_WAVES = 3
_AMPLITUDE = 0.13  # of a wave, and the wave length, in units of the spread of the atoms along an axis
_WAVE_LENGTH = 3.0
_BLOCK_NUMBERS = 4_000_000  # of the linear maps that are there at once
_BLOCK_COORDINATES = 1 << 18  # of the atoms that are looked at in one go


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
    drawn, dim = rng.integers(len(measures), size=count), measures.dim
    sizes = measures.sizes[drawn]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    points, weights = np.empty((int(offsets[-1]), dim)), np.empty(int(offsets[-1]))
    centroids, squares = np.empty((count, dim)), 0.0
    for rows, own in blocks_of_atoms(offsets, _BLOCK_COORDINATES // dim):
        block = measures[drawn[rows]]
        centroids[rows], weights[own] = block.centroids(), block.weights
        points[own] = block.points() - np.repeat(centroids[rows], sizes[rows], axis=0)
        squares += float(np.square(points[own]).sum())
    spread = (squares / max(points.size, 1)) ** 0.5 or 1.0
    most = max(1, _BLOCK_NUMBERS // dim**2)
    for start in range(0, count, most):
        distortions = _Distortions.drawn(min(most, count - start), dim, spread, strength, rng)
        for rows, own in blocks_of_atoms(offsets[start : start + most + 1], _BLOCK_COORDINATES // dim):
            owner = np.repeat(np.arange(rows.start, rows.stop), sizes[start:][rows])
            points[own] = distortions.of(points[own], owner) + centroids[start + owner]
    return Measures(offsets, points, weights)


class _Distortions(NamedTuple):
    """Of each measure a linear map, and the wave numbers, phases and amplitudes of its waves."""

    maps: Float64[np.ndarray, "n dim dim"]
    numbers: list[Float64[np.ndarray, "n dim"]]
    phases: list[Float64[np.ndarray, " n"]]
    amplitudes: list[Float64[np.ndarray, "n dim"]]

    @classmethod
    def drawn(cls, count: int, dim: int, spread: float, strength: float, rng: np.random.Generator) -> "_Distortions":
        per_axis = np.sqrt(2 / dim)  # so that points move as far in any dimension
        found = cls(np.eye(dim) + strength * _STRETCH * per_axis * rng.standard_normal((count, dim, dim)), [], [], [])
        for _ in range(_WAVES):
            found.numbers.append(rng.standard_normal((count, dim)) * per_axis * 2 * np.pi / (_WAVE_LENGTH * spread))
            found.phases.append(rng.uniform(0, 2 * np.pi, count))
            found.amplitudes.append(rng.standard_normal((count, dim)) * strength * _AMPLITUDE * spread)
        return found

    def of(
        self, points: Float64[np.ndarray, "atoms dim"], owner: Int64[np.ndarray, " atoms"]
    ) -> Float64[np.ndarray, "atoms dim"]:
        """Where points about the centroids of their measures come to."""
        moved = np.empty_like(points)
        for axis in range(points.shape[1]):
            moved[:, axis] = np.einsum("ad,ad->a", points, self.maps[owner, axis])
        for number, phase, amplitude in zip(self.numbers, self.phases, self.amplitudes, strict=True):
            angle = np.einsum("ad,ad->a", points, number[owner]) + phase[owner]
            moved += np.sin(angle)[:, None] * amplitude[owner]
        return moved
