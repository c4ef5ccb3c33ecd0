"""Which measures of two collections are one and the same."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from wembed.measures import Measures, hashed_points

__all__ = ["Alike", "same_measures"]

_ROUNDING = 1e-14  # relative difference of weights that dividing by their sum once more may make
_COMPARED = 4_096  # pairs whose atoms are looked at in one go


@dataclass(frozen=True, eq=False)
class Alike:
    """Which of the measures on both sides of some pairs are equal, to the last bit.

    Attributes:
        left: of each on the left side, the number of the content.
        right: of each on the right side.
        distinct: contents that differ.
    """

    left: Int64[np.ndarray, " n"]
    right: Int64[np.ndarray, " m"]
    distinct: int

    @classmethod
    def of(cls, a: Measures, b: Measures | None) -> "Alike":
        """Of the measures of both sides; without `b` they are the same."""
        sides = [side.digests(exact=True) for side in (a, b) if side is not None]
        contents, whose = np.unique(np.concatenate(sides), return_inverse=True)
        return cls(whose[: len(a)], whose if b is None else whose[len(a) :], len(contents))

    def keys(self, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """A number for each pair, equal for pairs of equal measures, whichever of the two comes first."""
        left, right = self.left[i], self.right[j]
        return np.asarray(np.minimum(left, right) * self.distinct + np.maximum(left, right))


def same_measures(
    a: Measures, b: Measures, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
) -> Bool[np.ndarray, " k"]:
    """Whether a[i] and b[j] have the same points and, up to the rounding of a division, the same weights.

    An image and the cloud of its pixels are the same, though the weights of one were divided by their sum once more.
    """
    contents = np.stack([a.digests(exact=True)[i], b.digests(exact=True)[j]], axis=1)
    same = np.asarray(contents[:, 0] == contents[:, 1])
    nearly = np.flatnonzero(~same & (a.digests()[i] == b.digests()[j]))
    if len(nearly):
        _, first, place = np.unique(contents[nearly], axis=0, return_index=True, return_inverse=True)
        chosen, agree = nearly[first], np.empty(len(first), dtype=bool)
        for start in range(0, len(chosen), _COMPARED):
            some = chosen[start : start + _COMPARED]
            agree[start : start + _COMPARED] = _agree(a[i[some]], b[j[some]])
        same[nearly] = agree[place.ravel()]
    return same


def _agree(a: Measures, b: Measures) -> Bool[np.ndarray, " n"]:
    """Whether a[k] and b[k] have the same atoms, up to rounding."""
    agree = np.asarray(a.sizes == b.sizes)
    if not agree.any():
        return agree
    a, b = a[agree], b[agree]
    (at, mass), (other, others) = _in_order(a), _in_order(b)
    close = (at == other) & (np.abs(mass - others) <= _ROUNDING * mass)
    agree[agree] = np.logical_and.reduceat(close, a.offsets[:-1])
    return agree


def _in_order(measures: Measures) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the points and the weights, atom by atom, in an order that is the same for the same atoms."""
    points = hashed_points(measures.points())
    order = np.lexsort((measures.weights, points, np.repeat(np.arange(len(measures)), measures.sizes)))
    return points[order], measures.weights[order]
