"""Euclidean distances between blocks of vectors, at the speed of a matrix product."""

import numpy as np
from jaxtyping import Float32, Float64, Int64

__all__ = ["distances_between", "distances_of_pairs", "paired_distances"]

_TILE = (1024, 512)  # distances that stay in the cache between the product and the root
_ROWS = 1024  # pairs of vectors looked at in one go
_PAIRS = 1 << 14  # distances taken again from the differences in one go
_CANCELLED = 1e-3  # squared distances below this share of the squared norms have lost digits in the product


def paired_distances(x: Float32[np.ndarray, "n dim"], y: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, " n"]:
    """Distance of each row of x to the same row of y."""
    unit = _unit(x, y)
    if unit != 1:
        return paired_distances(x / unit, y / unit) * unit
    squared = np.empty(len(x), dtype=np.float32)
    for start in range(0, len(x), _ROWS):
        difference = x[start : start + _ROWS] - y[start : start + _ROWS]
        np.einsum("nd,nd->n", difference, difference, out=squared[start : start + _ROWS])
    return np.sqrt(squared, out=squared)


def distances_of_pairs(
    vectors: Float32[np.ndarray, "n dim"],
    pairs: Int64[np.ndarray, "k 2"],
    others: Float32[np.ndarray, "m dim"] | None = None,
) -> Float64[np.ndarray, " k"]:
    """Distance of row i to row j (of the others, if there are any) for each pair (i, j), without all rows at once."""
    others, distances = vectors if others is None else others, np.empty(len(pairs))
    for start in range(0, len(pairs), _ROWS):
        i, j = pairs[start : start + _ROWS].T
        distances[start : start + _ROWS] = paired_distances(vectors[i], others[j])
    return distances


def distances_between(
    x: Float32[np.ndarray, "n dim"],
    y: Float32[np.ndarray, "m dim"],
    out: Float32[np.ndarray, "n m"] | None = None,
) -> Float32[np.ndarray, "n m"]:
    """Distance of each row of x to each row of y, a tile at a time.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is one matrix product of vectors lengthened by two; the few entries in which it
    cancels are taken again from the differences, so that a distance near 0 is as precise as any.
    """
    distances = np.empty((len(x), len(y)), dtype=np.float32) if out is None else out
    unit = _unit(x, y)
    if unit != 1:
        distances_between(x / unit, y / unit, distances)
        distances *= unit
        return distances
    origin = y.mean(axis=0) if len(y) else np.zeros(x.shape[1], dtype=np.float32)
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
            np.matmul(rows, columns.T, out=squared)
            suspect = np.flatnonzero(squared.min(axis=1) < cancelled[top : top + len(rows)])
            row, column = np.nonzero(squared[suspect] < cancelled[top + suspect, None])
            row = suspect[row]
            for start in range(0, len(row), _PAIRS):
                i, j = row[start : start + _PAIRS], column[start : start + _PAIRS]
                difference = x[top + i] - y[first + j]
                squared[i, j] = np.einsum("nd,nd->n", difference, difference)
            np.sqrt(squared, out=distances[top : top + len(rows), first : first + len(columns)])
    return distances


def _unit(x: np.ndarray, y: np.ndarray) -> np.float32:
    """What to divide by before squaring: 1, but for vectors whose squares float32 cannot hold."""
    largest = max(abs(float(end)) for v in (x, y) for end in (v.min(initial=0.0), v.max(initial=0.0)))
    return np.float32(1 if largest == 0 or 1e-12 < largest < 1e15 else largest)
