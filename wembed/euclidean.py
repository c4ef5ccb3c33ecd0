"""Euclidean distances between blocks of vectors, at the speed of a matrix product."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

__all__ = ["blocks", "distances_between", "paired_distances"]

_BLOCK = 1 << 20  # distances in one block
_CANCELLED = 1e-3  # squared distances below this share of the squared norms have lost digits in the product


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Runs of rows whose distances to all columns make one block."""
    step = max(1, _BLOCK // max(columns, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def paired_distances(x: Float32[np.ndarray, "n dim"], y: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, " n"]:
    """Distance of each row of x to the same row of y."""
    unit = _unit(x, y)
    if unit != 1:
        return paired_distances(x / unit, y / unit) * unit
    difference = x - y
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", difference, difference)))


def distances_between(
    x: Float32[np.ndarray, "n dim"],
    y: Float32[np.ndarray, "m dim"],
    out: Float32[np.ndarray, "n m"] | None = None,
) -> Float32[np.ndarray, "n m"]:
    """Distance of each row of x to each row of y, a block of rows at a time.

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
    right = np.concatenate([y, ones[: len(y)], y_norms[:, None]], axis=1).T
    largest = float(y_norms.max(initial=0.0))
    for block in blocks(len(x), len(y)):
        squared = np.matmul(left[block], right, out=distances[block])
        suspects = squared < _CANCELLED * (x_norms[block, None] + largest)
        row, column = np.nonzero(suspects)
        for start in range(0, len(row), _BLOCK // 64):
            part = slice(start, start + _BLOCK // 64)
            difference = x[block][row[part]] - y[column[part]]
            squared[row[part], column[part]] = np.einsum("nd,nd->n", difference, difference)
        np.sqrt(squared, out=squared)
    return distances


def _unit(x: np.ndarray, y: np.ndarray) -> np.float32:
    """What to divide by before squaring: 1, but for vectors whose squares float32 cannot hold."""
    largest = max(float(np.abs(x).max(initial=0.0)), float(np.abs(y).max(initial=0.0)))
    return np.float32(1 if largest == 0 or 1e-12 < largest < 1e15 else largest)
