"""Euclidean distances between blocks of vectors, at the speed of a matrix product."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64

__all__ = ["Residuals", "distances_between", "distances_of_pairs", "paired_distances", "product"]

_TILE = (1024, 512)  # distances that stay in the cache between the product and the root
_ROWS = 1024  # pairs of vectors looked at in one go
_PAIRS = 1 << 14  # distances taken again from the differences in one go
_SQUARED = 1e15  # numbers up to which float32 has their squares, and sums of these
_LOOKED_AT = 16  # rows on each side that say where most are
_FAR = 1e3  # times as far from there as half of them
_CANCELLED = 1e-3  # squared distances below this share of the squared norms have lost digits in the product


@dataclass(frozen=True)
class Residuals:
    """What vectors hold of all that their coordinates leave out: how long that is, in front of them.

    Such a vector (r, u, c) stands for one that is too long to keep, whose residual beyond the coordinates u is taken
    as r times the feature of u under the Gaussian kernel k(u, v) = exp(-|u - v|^2 / width): residuals of measures that
    differ are nearly orthogonal, those of measures that are nearly alike point the same way. Squared distances are
    |u - v|^2 + r^2 + s^2 - 2 r s k(u, v) + |c - e|^2: those of a Hilbert space, so that they are a metric.

    Attributes:
        width: of the kernel, in units of squared distance.
        coordinates: how many there are in u; the numbers behind them are the centroid, if any.
    """

    width: float
    coordinates: int

    def _with_residuals(
        self, squared: Float32[np.ndarray, "*shape"], r: np.ndarray, s: np.ndarray
    ) -> Float32[np.ndarray, "*shape"]:
        """Squared distances in place of those of the coordinates: (r - s)^2 + 2 r s (1 - k(u, v)) more."""
        unlike = squared / np.float32(-self.width)
        torch.expm1(torch.from_numpy(unlike), out=torch.from_numpy(unlike))
        unlike *= r
        unlike *= s
        unlike *= -2.0
        squared += unlike
        squared += np.square(r - s, out=unlike)
        return squared

    def in_units(self, unit: float) -> "Residuals":
        """For vectors divided by a unit."""
        return replace(self, width=self.width / unit**2)

    def split(self, vectors: Float32[np.ndarray, "n dim"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The lengths of residuals (n,), the coordinates, and the centroids."""
        end = 1 + self.coordinates
        return vectors[:, 0], vectors[:, 1:end], vectors[:, end:]


def product(
    x: Float[np.ndarray, "n k"], y: Float[np.ndarray, "k m"], out: Float[np.ndarray, "n m"] | None = None
) -> Float[np.ndarray, "n m"]:
    """Matrix product by the threads of torch, as encoding and decoding have them.

    Those of numpy wait busily for more to do, and would keep torch from the cores meanwhile.
    """
    out = np.empty((len(x), y.shape[1]), dtype=x.dtype) if out is None else out
    torch.mm(torch.from_numpy(x), torch.from_numpy(y), out=torch.from_numpy(out))
    return out


def paired_distances(
    x: Float32[np.ndarray, "n dim"], y: Float32[np.ndarray, "n dim"], residuals: Residuals | None = None
) -> Float32[np.ndarray, " n"]:
    """Distance of each row of x to the same row of y."""
    if residuals:
        if (unit := _unit(x, y)) != 1:
            return paired_distances(x / unit, y / unit, residuals.in_units(float(unit))) * unit
        (r, left, here), (s, right, there) = residuals.split(x), residuals.split(y)
        apart: np.ndarray = residuals._with_residuals(np.square(paired_distances(left, right)), r, s)
        apart += np.square(paired_distances(here, there))
        np.sqrt(apart, out=apart)
        return apart
    if _unit(x, y) != 1:
        return _by_differences(x, y)
    squared = np.empty(len(x), dtype=np.float32)
    for start in range(0, len(x), _ROWS):
        difference = x[start : start + _ROWS] - y[start : start + _ROWS]
        np.einsum("nd,nd->n", difference, difference, out=squared[start : start + _ROWS])
    return np.sqrt(squared, out=squared)


def distances_of_pairs(
    vectors: Float32[np.ndarray, "n dim"],
    pairs: Int64[np.ndarray, "k 2"],
    others: Float32[np.ndarray, "m dim"] | None = None,
    residuals: Residuals | None = None,
) -> Float64[np.ndarray, " k"]:
    """Distance of row i to row j (of the others, if there are any) for each pair (i, j), without all rows at once."""
    others, distances = vectors if others is None else others, np.empty(len(pairs))
    for start in range(0, len(pairs), _ROWS):
        i, j = pairs[start : start + _ROWS].T
        distances[start : start + _ROWS] = paired_distances(vectors[i], others[j], residuals)
    return distances


def distances_between(
    x: Float32[np.ndarray, "n dim"],
    y: Float32[np.ndarray, "m dim"],
    out: Float32[np.ndarray, "n m"] | None = None,
    residuals: Residuals | None = None,
) -> Float32[np.ndarray, "n m"]:
    """Distance of each row of x to each row of y, a tile at a time.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is one matrix product of vectors lengthened by two; the few entries in which it
    cancels are taken again from the differences, so that a distance near 0 is as precise as any. Rows far from all
    others are looked at by themselves: the others would lose their digits to them.
    """
    distances = np.empty((len(x), len(y)), dtype=np.float32) if out is None else out
    if residuals:
        if (unit := _unit(x, y)) != 1:
            distances_between(x / unit, y / unit, distances, residuals.in_units(float(unit)))
            distances *= unit
            return distances
        (r, left, here), (s, right, there) = residuals.split(x), residuals.split(y)
        for start in range(0, len(x), _TILE[0]):
            rows = slice(start, start + _TILE[0])
            squared = np.square(distances_between(left[rows], right, distances[rows]), out=distances[rows])
            residuals._with_residuals(squared, r[rows, None], s)
            if here.shape[1]:
                squared += np.square(distances_between(here[rows], there))
            np.sqrt(squared, out=squared)
        return distances
    far_x, far_y = _far(x, y)
    if not (far_x.any() or far_y.any()):
        return _between(x, y, distances)
    near_x, near_y = np.flatnonzero(~far_x), np.flatnonzero(~far_y)
    near = np.empty((len(near_x), len(near_y)), dtype=np.float32)
    distances[np.ix_(near_x, near_y)] = _between(x[near_x], y[near_y], near)
    for i in np.flatnonzero(far_x):
        distances[i] = _by_differences(x[i : i + 1], y)
    for j in np.flatnonzero(far_y):
        distances[:, j] = _by_differences(x, y[j : j + 1])
    return distances


def _between(
    x: Float32[np.ndarray, "n dim"], y: Float32[np.ndarray, "m dim"], distances: Float32[np.ndarray, "n m"]
) -> Float32[np.ndarray, "n m"]:
    unit = _unit(x, y)
    if unit != 1:
        _between(x / unit, y / unit, distances)
        distances *= unit
        return distances
    origin = y.mean(axis=0) if len(y) else np.zeros(x.shape[1], dtype=np.float32)
    given_x, given_y = x, y
    x, y = x - origin, y - origin
    x_norms, y_norms = np.einsum("nd,nd->n", x, x), np.einsum("nd,nd->n", y, y)
    ones = np.ones((max(len(x), len(y)), 1), dtype=np.float32)
    left = np.concatenate([-2 * x, x_norms[:, None], ones[: len(x)]], axis=1)
    right = np.concatenate([y, ones[: len(y)], y_norms[:, None]], axis=1)
    cancelled = _CANCELLED * (x_norms + float(y_norms.max(initial=0.0)))
    memory = np.empty(_TILE[0] * _TILE[1], dtype=np.float32)
    for top in range(0, len(x), _TILE[0]):
        for first in range(0, len(y), _TILE[1]):
            rows, columns = left[top : top + _TILE[0]], right[first : first + _TILE[1]]
            squared = memory[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            product(rows, columns.T, squared)
            suspect = np.flatnonzero(squared.min(axis=1) < cancelled[top : top + len(rows)])
            row, column = np.nonzero(squared[suspect] < cancelled[top + suspect, None])
            row = suspect[row]
            for start in range(0, len(row), _PAIRS):
                i, j = row[start : start + _PAIRS], column[start : start + _PAIRS]
                difference = given_x[top + i] - given_y[first + j]
                squared[i, j] = np.einsum("nd,nd->n", difference, difference)
            np.sqrt(squared, out=distances[top : top + len(rows), first : first + len(columns)])
    return distances


def _by_differences(x: Float32[np.ndarray, "n dim"], y: Float32[np.ndarray, "m dim"]) -> Float32[np.ndarray, " k"]:
    """Distances of rows of x and of y, one of which may be a single one, in double precision."""
    count = max(len(x), len(y))
    distances = np.empty(count, dtype=np.float32)
    for start in range(0, count, _ROWS):
        one, other = (v if len(v) == 1 else v[start : start + _ROWS] for v in (x, y))
        difference = one.astype(np.float64) - other
        with np.errstate(over="ignore"):  # what float32 has no number for is infinite
            distances[start : start + _ROWS] = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    return distances


def _far(x: np.ndarray, y: np.ndarray) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " m"]]:
    """Which few rows are so far from the middle of some that the others would be lost beside them."""
    nowhere = np.zeros(len(x), dtype=bool), np.zeros(len(y), dtype=bool)
    if not len(x) or not len(y):
        return nowhere
    some = np.concatenate([v[:: -(-len(v) // _LOOKED_AT)] for v in (y, x)])
    middle = np.partition(some, len(some) // 2, axis=0)[len(some) // 2]
    usual = np.sort(np.abs(some - middle).max(axis=1))[len(some) // 2]
    reach = _FAR * float(usual)
    if usual == 0 or not np.isfinite(usual) or _largest(x, y) + float(np.abs(middle).max()) <= reach:
        return nowhere
    far_x, far_y = (np.abs(v - middle).max(axis=1) > reach for v in (x, y))
    few = far_x.sum() + far_y.sum() <= max(len(x), len(y)) / 8
    return (far_x, far_y) if few or _largest(x, y) > _SQUARED else nowhere


def _largest(x: np.ndarray, y: np.ndarray) -> float:
    return max(abs(float(end)) for v in (x, y) for end in (v.min(initial=0.0), v.max(initial=0.0)))


def _unit(x: np.ndarray, y: np.ndarray) -> np.float32:
    """What to divide by before squaring: 1, but for vectors whose squares float32 cannot hold."""
    largest = _largest(x, y)
    return np.float32(1 if largest == 0 or 1e-12 < largest < _SQUARED else largest)
