"""Hypothesis strategies for measures, and for pairs of measures that carry their own closed-form distance."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from wembed import GroundCost, Measures

settings.register_profile("wembed", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("wembed")

NORMS = {"euclidean": 2, "cityblock": 1, "chebyshev": np.inf}

seeds = st.integers(0, 2**32 - 1)
orders = st.sampled_from([1.0, 1.5, 2.0, 3.0])
norms = st.sampled_from(sorted(NORMS))
scales = st.integers(-12, 12).map(lambda power: 10.0**power)


Cloud = tuple[np.ndarray, np.ndarray]  # points, weights


@dataclass(frozen=True)
class Clouds:
    """Point clouds drawn, not yet made into measures: shape checks use `random`, which strategies must not."""

    clouds: list[Cloud]

    @cached_property
    def measures(self) -> Measures:
        return Measures.from_point_clouds(
            [points for points, _ in self.clouds], [weights for _, weights in self.clouds]
        )


@dataclass(frozen=True)
class Known(Clouds):
    """Two clouds, a ground cost, and the W_p between them that a formula gives."""

    metric: str
    order: float
    distance: float

    @cached_property
    def cost(self) -> GroundCost:
        return GroundCost(self.metric, self.order)


def equal(points: np.ndarray) -> Cloud:
    return points, np.ones(len(points))


def lengths(vectors: np.ndarray, metric: str) -> np.ndarray:
    return np.linalg.norm(vectors, ord=NORMS[metric], axis=-1)


def power_mean(moved: np.ndarray, order: float, weights: np.ndarray | None = None) -> float:
    return float(np.average(moved**order, weights=weights) ** (1 / order))


@st.composite
def generators(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(draw(seeds))


@st.composite
def clouds(draw: st.DrawFn, dim: int, atoms: int = 12) -> Cloud:
    """Points and weights of one measure; on integers as often as not, so that atoms coincide and costs tie."""
    rng = draw(generators())
    size = draw(st.integers(1, atoms))
    tied, alike = draw(st.booleans()), draw(st.booleans())
    points = rng.integers(-2, 3, (size, dim)).astype(float) if tied else rng.normal(size=(size, dim))
    return points, np.ones(size) if alike else rng.random(size) + 1e-3


@st.composite
def collections(draw: st.DrawFn, count: int, dim: int | None = None, atoms: int = 12) -> Clouds:
    """`count` point clouds of one dimension."""
    dim = draw(st.integers(1, 4)) if dim is None else dim
    return Clouds([draw(clouds(dim, atoms)) for _ in range(count)])


@st.composite
def diracs(draw: st.DrawFn) -> Known:
    """All mass at one point, against all mass at another: W_p is the ground metric."""
    rng, metric = draw(generators()), draw(norms)
    x, y = rng.normal(size=(2, 1, draw(st.integers(1, 5))))
    return Known([equal(x), equal(y)], metric, draw(orders), float(lengths(x - y, metric)[0]))


@st.composite
def dirac_against_cloud(draw: st.DrawFn) -> Known:
    """One point against many: there is one coupling, so W_p^p is the mean p-th power of the metric."""
    rng, metric, order, dim = draw(generators()), draw(norms), draw(orders), draw(st.integers(1, 4))
    points, weights = draw(clouds(dim))
    centre = rng.normal(size=(1, dim)) + 5
    distance = power_mean(lengths(points - centre, metric), order, weights)
    return Known([(points, weights), equal(centre)], metric, order, distance)


@st.composite
def two_points_share_mass(draw: st.DrawFn) -> Known:
    """(1 - s, s) against (1 - t, t) on the same two points: |s - t| of the mass goes the whole way."""
    rng, metric, order = draw(generators()), draw(norms), draw(orders)
    ends = rng.normal(size=(2, draw(st.integers(1, 4))))
    s, t = draw(st.integers(1, 99)), draw(st.integers(1, 99))
    distance = float(lengths(ends[0] - ends[1], metric)) * (abs(s - t) / 100) ** (1 / order)
    return Known([(ends, np.array([100.0 - s, s])), (ends, np.array([100.0 - t, t]))], metric, order, distance)


@st.composite
def equal_masses_on_a_line(draw: st.DrawFn) -> Known:
    """n equal masses against n equal masses on the line: sorted atoms go to sorted atoms."""
    rng, order, size = draw(generators()), draw(orders), draw(st.integers(1, 20))
    x, y = rng.normal(size=(size, 1)), 3 * rng.normal(size=(size, 1)) + 1
    distance = power_mean(np.abs(np.sort(x[:, 0]) - np.sort(y[:, 0])), order)
    return Known([equal(x), equal(y)], draw(norms), order, distance)


@st.composite
def equal_masses_on_a_slanted_line(draw: st.DrawFn) -> Known:
    """The same, the line lying in a space of more dimensions, where the closed form of the line isn't used."""
    known, rng = draw(equal_masses_on_a_line()), draw(generators())
    direction = rng.normal(size=draw(st.integers(2, 4)))
    direction /= lengths(direction, known.metric)
    (x, _), (y, _) = known.clouds
    return Known([equal(x * direction), equal(y * direction)], known.metric, known.order, known.distance)


@st.composite
def translates(draw: st.DrawFn) -> Known:
    """A cloud against itself moved by v: W_p is the length of v, for any norm and any order."""
    rng, metric, dim = draw(generators()), draw(norms), draw(st.integers(1, 4))
    points, weights = draw(clouds(dim))
    shift = rng.normal(size=dim) + 1
    return Known([(points, weights), (points + shift, weights)], metric, draw(orders), float(lengths(shift, metric)))


@st.composite
def scaled_copies(draw: st.DrawFn) -> Known:
    """A cloud against itself stretched by s: under euclidean W_2 the stretching is the optimal map (Brenier 1991)."""
    dim, stretch = draw(st.integers(1, 4)), draw(st.sampled_from([0.0, 0.25, 0.9, 1.5, 4.0]))
    points, weights = draw(clouds(dim))
    points = points + 0.5
    distance = abs(1 - stretch) * power_mean(lengths(points, "euclidean"), 2, weights)
    return Known([(points, weights), (stretch * points, weights)], "euclidean", 2.0, distance)


@st.composite
def jittered_lattices(draw: st.DrawFn) -> Known:
    """Equal masses at sites 10 apart, each moved by less than 1 and the whole reordered: each goes to its own site."""
    rng, metric, order = draw(generators()), draw(norms), draw(orders)
    size, dim = draw(st.integers(1, 16)), draw(st.integers(1, 3))
    chosen = rng.permutation(4**dim)[:size]
    sites = 10.0 * np.stack(np.unravel_index(chosen, (4,) * dim), axis=1)
    jitter = rng.uniform(-1, 1, sites.shape) / dim
    moved = (sites + jitter)[rng.permutation(len(sites))]
    return Known([equal(sites), equal(moved)], metric, order, power_mean(lengths(jitter, metric), order))


known_pairs = st.one_of(
    diracs(),
    dirac_against_cloud(),
    two_points_share_mass(),
    equal_masses_on_a_line(),
    equal_masses_on_a_slanted_line(),
    translates(),
    scaled_copies(),
    jittered_lattices(),
)
