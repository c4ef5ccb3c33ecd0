"""Lower bounds on W_p: what projections of measures on lines, and their means and covariances, tell of it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from wembed.errors import SettingError
from wembed.measures import Measures
from wembed.transport.costs import GroundCost

__all__ = ["Sliced", "Slices", "check_triangles"]

_NUMBERS = 1024  # in the projections of one measure
_LEVELS = 32  # steps of mass of one projection
_LEAST_LEVELS = 4
_DIRECTIONS = 32
_MOST_AXES = 64  # of a covariance, or atoms in place of it, whose square root is worth taking
_ROUNDING = 1e-13  # of a difference of squares, relative to them


@dataclass(frozen=True, eq=False)
class Sliced:
    """What `Slices` keeps of each of n measures.

    Attributes:
        quantiles: of each projection, averaged over equal steps of mass.
        means: of the atoms; None where the bound of Gelbrich does not hold.
        factors: F with F F' the covariance, padded with zeros; None where it does not hold, or where F is large.
    """

    quantiles: Float64[np.ndarray, "n lines levels"]
    means: Float64[np.ndarray, "n dim"] | None
    factors: Float64[np.ndarray, "n dim rank"] | None

    def __len__(self) -> int:
        return len(self.quantiles)


@dataclass(frozen=True, eq=False)
class Slices:
    """Lines to project on, and the bound that projections give under a ground cost.

    A function f with |f(x) - f(y)| <= d(x, y) moves no two points apart, so W_p of the projections f is at most W_p
    (Villani 2009, Ch. 6), and averages over equal steps of mass only bring quantile functions nearer (Jensen). Along
    the axes of an orthonormal basis |x - y|_2^2 is a sum, and so is the bound. W_p grows with p.

    Attributes:
        cost: the ground cost.
        lines: orthonormal bases, one below the other, each row a direction; or for a matrix the distance of every point
            of the support to a few of them.
        levels: steps of mass.
        origin: subtracted from points.
    """

    cost: GroundCost
    lines: Float64[np.ndarray, "lines dim"]
    levels: int
    origin: Float64[np.ndarray, " axes"]

    @classmethod
    def build(cls, measures: Measures, cost: GroundCost, seed: int = 0) -> "Slices":
        """Lines for measures like these; a cost matrix has been checked."""
        if not isinstance(cost.metric, str):
            lines = cost.metric[_spread_out(cost.metric, _DIRECTIONS)]
            return cls(cost, lines, _LEVELS, np.zeros(0))
        points = cost.coordinates(measures).points()
        lines = _bases(points.shape[1], cost.metric, np.random.default_rng(seed))
        levels = int(np.clip(_NUMBERS // len(lines), _LEAST_LEVELS, _LEVELS))
        return cls(cost, lines, levels, points.min(axis=0) / 2 + points.max(axis=0) / 2)

    def __call__(self, measures: Measures) -> Sliced:
        """Project each measure on the lines."""
        matrix = not isinstance(self.cost.metric, str)
        placed = measures if matrix else self.cost.coordinates(measures)
        quantiles = np.empty((len(placed), len(self.lines), self.levels))
        rank = min(placed.dim, int(placed.sizes.max(initial=1)))
        gelbrich = self.cost.is_euclidean and self.cost.order >= 2 and rank <= _MOST_AXES
        means = np.zeros((len(placed), placed.dim)) if gelbrich else None
        factors = np.zeros((len(placed), placed.dim, rank)) if gelbrich else None
        for row in range(len(placed)):
            own = slice(int(placed.offsets[row]), int(placed.offsets[row + 1]))
            weights = np.asarray(placed.weights[own])
            if matrix:
                assert placed.atoms is not None  # cost.check has seen to it
                quantiles[row] = _averaged(self.lines[:, placed.atoms[own]], weights, self.levels)
                continue
            points = (placed[row].support - self.origin) / self.cost.radius
            quantiles[row] = _averaged(self.lines @ points.T, weights, self.levels)
            if means is not None and factors is not None:
                means[row] = weights @ points
                factor = _factor((points - means[row]).T * np.sqrt(weights))
                factors[row, :, : factor.shape[1]] = factor
        return Sliced(quantiles, means, factors)

    def lower(
        self, a: Sliced, b: Sliced, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, " k"]:
        """At most W_p of a[i] and b[j], in the unit of the metric."""
        moved = a.quantiles[i]
        moved -= b.quantiles[j]
        found = self._of_lines(np.abs(moved, out=moved))
        if a.means is not None and b.means is not None and a.factors is not None and b.factors is not None:
            shift = np.square(a.means[i] - b.means[j]).sum(axis=1)
            found = np.maximum(found, np.sqrt(shift + _bures(a.factors[i], b.factors[j])))
        return found * self.cost.radius

    def _of_lines(self, moved: Float64[np.ndarray, "k lines levels"]) -> Float64[np.ndarray, " k"]:
        metric, p = self.cost.metric, self.cost.order
        if isinstance(metric, str) and metric == "cityblock":
            along = _powers(moved, p)
            return np.asarray(np.maximum(_powers(moved, 1).sum(axis=1), along.sum(axis=1) ** (1 / p)))
        if isinstance(metric, str) and metric == "chebyshev":
            return np.asarray((_powers(moved, p) ** (1 / p) / np.abs(self.lines).sum(axis=1)).max(axis=1))
        if self.cost.is_great_circle:
            chords = _of_bases(_powers(moved, 1), 1, 3)
            arcs = self.cost.from_euclidean(self.cost.radius * chords) / self.cost.radius  # convex in the chord: Jensen
            return np.asarray(np.maximum(arcs, self._of_euclidean(moved, 3)))
        if isinstance(metric, str):
            return self._of_euclidean(moved, self.lines.shape[1])
        return np.asarray(_powers(moved, p).max(axis=1) ** (1 / p))

    def _of_euclidean(self, moved: np.ndarray, dim: int) -> Float64[np.ndarray, " k"]:
        p = self.cost.order
        along = _powers(moved, p)
        found = np.maximum(along.max(axis=1) ** (1 / p), _of_bases(along, p, dim))
        return np.asarray(np.maximum(found, _of_bases(_powers(moved, 2), 2, dim)) if p > 2 else found)


def _powers(moved: np.ndarray, p: float) -> Float64[np.ndarray, "k lines"]:
    """W_p^p along each line."""
    if p == 2:
        return np.asarray(np.einsum("kls,kls->kl", moved, moved) / moved.shape[2])
    return np.asarray((moved if p == 1 else moved**p).mean(axis=2))


def _of_bases(along: Float64[np.ndarray, "k lines"], p: float, dim: int) -> Float64[np.ndarray, " k"]:
    """The best of the bases, by sum |v_a|^p <= max(1, dim^(1 - p/2)) |v|_2^p over the axes a of one."""
    sums = along.reshape(len(along), -1, dim).sum(axis=2).max(axis=1)
    return np.asarray((sums * min(1.0, dim ** (p / 2 - 1))) ** (1 / p))


def _bures(x: Float64[np.ndarray, "k dim r"], y: Float64[np.ndarray, "k dim s"]) -> Float64[np.ndarray, " k"]:
    """Squared Bures distance of covariances x x' and y y', or a little less (Gelbrich 1990, Thm 2.1)."""
    traces = np.square(x).sum(axis=(1, 2)) + np.square(y).sum(axis=(1, 2))
    shared = np.linalg.svd(np.matmul(x.transpose(0, 2, 1), y), compute_uv=False).sum(axis=1)
    return np.asarray(np.maximum(traces * (1 - _ROUNDING) - 2 * shared, 0.0))


def _factor(centred: Float64[np.ndarray, "dim atoms"]) -> Float64[np.ndarray, "dim rank"]:
    if centred.shape[1] <= centred.shape[0]:
        return centred
    values, axes = np.linalg.eigh(centred @ centred.T)
    return np.asarray(axes * np.sqrt(values.clip(0)))


def _averaged(
    values: Float64[np.ndarray, "lines atoms"], weights: Float64[np.ndarray, " atoms"], levels: int
) -> Float64[np.ndarray, "lines levels"]:
    """Quantile functions averaged over equal steps of mass: slopes of the integral of the quantile function."""
    order = np.argsort(values, axis=1)
    lines = len(values)
    mass, moment = np.zeros((lines, len(weights) + 1)), np.zeros((lines, len(weights) + 1))
    sorted_weights = weights[order]
    np.cumsum(sorted_weights, axis=1, out=mass[:, 1:])
    np.cumsum(np.take_along_axis(values, order, axis=1) * sorted_weights, axis=1, out=moment[:, 1:])
    mass /= mass[:, -1:]
    apart = 2.0 * np.arange(lines)[:, None]  # one call of np.interp for all lines, which must not touch
    grid = apart + np.linspace(0.0, 1.0, levels + 1)
    return np.asarray(np.diff(np.interp(grid, (mass + apart).ravel(), moment.ravel()), axis=1) * levels)


def _bases(dim: int, metric: str, rng: np.random.Generator) -> Float64[np.ndarray, "lines dim"]:
    """Orthonormal bases, that of the axes first; evenly turned in the plane, at random beyond."""
    count = 1 if metric == "cityblock" or dim == 1 else max(1, _DIRECTIONS // dim)
    bases = [np.eye(dim)]
    for turn in np.arange(1, count) * np.pi / (2 * count):
        plane = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        bases.append(plane if dim == 2 else np.linalg.qr(rng.standard_normal((dim, dim)))[0].T)
    return np.concatenate(bases)


def _spread_out(matrix: np.ndarray, count: int) -> list[int]:
    """Points far from each other: each the farthest from those before (Gonzalez 1985)."""
    chosen = [int(matrix.sum(axis=1).argmax())]
    nearest = matrix[chosen[0]].copy()
    while len(chosen) < min(count, len(matrix)) and nearest.max() > 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, matrix[chosen[-1]])
    return chosen


def check_triangles(matrix: np.ndarray) -> None:
    """Refuse a cost matrix that bounds cannot rest on.

    Raises:
        SettingError: a way by other points that is shorter than the direct one.
    """
    from scipy.sparse.csgraph import csgraph_from_dense, shortest_path  # imported late: SciPy doubles the import time

    shortest = shortest_path(csgraph_from_dense(matrix, null_value=np.inf), method="FW")
    worst = np.unravel_index(int((matrix - shortest).argmax()), matrix.shape)
    if matrix[worst] > shortest[worst] * (1 + 1e-9) + 1e-12 * float(matrix.max()):
        raise SettingError(
            f"the cost matrix is no metric: from point {int(worst[0])} to {int(worst[1])} it gives {matrix[worst]:g}, "
            f"and {shortest[worst]:g} by way of others. Bounds rest on the triangle inequality; a model fitted with "
            "references=0 does without them"
        )
