"""Certified lower and upper bounds on W_p, from geometry alone."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from wembed.measures import Measures
from wembed.options import whole
from wembed.transport.costs import GroundCost
from wembed.transport.glued import Glued, References
from wembed.transport.pairs import listed_pairs
from wembed.transport.parallel import Progress, check_jobs, in_workers, work_boundaries, work_of
from wembed.transport.slices import Sliced, Slices, check_triangles

__all__ = ["Bounds", "Sketcher", "Sketches", "bounds"]

REFERENCES = 2
_CANDIDATES = 400  # measures that references are chosen from
_BLOCK_NUMBERS = 1 << 18  # in what is gathered for some pairs in one go: the working set stays in the cache
_SAFE = 1e50  # coordinates beyond it, or below its inverse, are rescaled before they are squared


@dataclass(frozen=True, eq=False)
class Bounds:
    """Two numbers between which W_p lies, for each of k pairs, in the unit of the support.

    Attributes:
        lower: at most W_p.
        upper: at least W_p.
    """

    lower: Float64[np.ndarray, " k"]
    upper: Float64[np.ndarray, " k"]


def bounds(
    measures: Measures,
    pairs: "np.ndarray | list[tuple[int, int]]",
    cost: GroundCost | None = None,
    *,
    references: int = REFERENCES,
    n_jobs: int = -1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bounds:
    """Bounds on W_p that hold for certain, without solving the pairs.

    Each measure that occurs in a pair is projected on lines, and solved against a few others of the collection, the
    references; a pair then costs microseconds. It pays where each measure is in many more pairs than there are
    references. docs/trust.md has a table of what holds for which cost, and what it rests on. Memory: about 8 (1,000 +
    dim x atoms of the references) bytes a measure.

    Args:
        measures: the collection that the pairs index.
        pairs: (k, 2) integers.
        cost: the ground cost; euclidean W_2 by default.
        references: measures through which plans are glued; more of them give a tighter upper bound.
        n_jobs: processes, or -1 for one a core.
        seed: chooses lines and references.
        progress: called with the measures done and the measures in all.

    Raises:
        SettingError: pairs outside the measures, a cost that does not fit them, a cost matrix that breaks the triangle
            inequality, or no reference.
        SolverError: a measure against a reference could not be certified.
    """
    cost = GroundCost.given(cost)
    cost.check(measures)
    check_jobs(n_jobs)
    listed = listed_pairs(pairs, len(measures))
    if len(listed) == 0:
        return Bounds(np.empty(0), np.empty(0))
    used, places = np.unique(listed, return_inverse=True)
    of_pairs = measures[used]
    sketcher = Sketcher.build(of_pairs, cost, references, seed)
    sketches = sketcher(of_pairs, n_jobs, progress)
    i, j = places.reshape(-1, 2).T
    lower, upper = sketcher.lower(sketches, sketches, i, j), sketcher.upper(sketches, sketches, i, j).min(axis=1)
    same = listed[:, 0] == listed[:, 1]
    lower[same] = upper[same] = 0.0
    return Bounds(np.minimum(lower, upper), upper)


@dataclass(frozen=True, eq=False)
class Sketches:
    """What bounds need to know of each of n measures."""

    sliced: Sliced
    glued: Glued

    def __len__(self) -> int:
        return len(self.sliced)


@dataclass(frozen=True, eq=False)
class Sketcher:
    """What bounds are taken by: lines to project on, and references to glue plans through.

    Attributes:
        slices: the lines.
        references: measures of the collection.
        unit: that the support, or the cost matrix, is divided by, so that it can be raised to powers.
    """

    slices: Slices
    references: References
    unit: float

    @classmethod
    def build(cls, measures: Measures, cost: GroundCost, references: int = REFERENCES, seed: int = 0) -> "Sketcher":
        """Lines for measures like these, and references of their midst, unlike each other.

        Raises:
            SettingError: a cost matrix that breaks the triangle inequality, or no reference.
        """
        whole("references", references, 1)
        whole("seed", seed)
        if not isinstance(cost.metric, str):
            check_triangles(cost.metric)
        rng = np.random.default_rng([seed, 8])
        some = measures[np.sort(rng.permutation(len(measures))[:_CANDIDATES])]
        unit = _unit(some, cost)
        scaled, scaled_cost = _scaled(some, cost, unit), _scaled_cost(cost, unit)
        slices = Slices.build(scaled, scaled_cost, seed)
        chosen = _unlike(slices(scaled).quantiles.reshape(len(scaled), -1), references, seed)
        return cls(slices, References.build(scaled[chosen], scaled_cost, seed), unit)

    def __call__(self, measures: Measures, n_jobs: int = 1, progress: Progress | None = None) -> Sketches:
        """Project each measure, and solve it against each reference.

        Raises:
            SolverError: a solution could not be certified.
        """
        sizes, count = measures.sizes, len(measures)
        work = np.zeros(count)
        for atoms in self.references.measures.sizes.tolist():
            work += work_of(sizes, np.full(count, atoms))
        blocks = list(pairwise(work_boundaries([work]).tolist())) or [(0, 0)]
        tasks = ((self, measures[start:stop], start) for start, stop in blocks)
        found: dict[int, Sketches] = {}
        done = 0
        for start, sketches in in_workers(_sketch_block, tasks, n_jobs if len(blocks) > 1 else 1):
            found[start] = sketches
            done += len(sketches)
            if progress:
                progress(done, count)
        return _joined([found[start] for start in sorted(found)])

    def lower(
        self, a: Sketches, b: Sketches, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, " k"]:
        """At most W_p of a[i] and b[j]."""
        found = np.empty(len(i))
        for part in _parts(len(i), a.sliced.quantiles[0].size if len(a) else 1):
            found[part] = self.slices.lower(a.sliced, b.sliced, i[part], j[part])
            apart = np.abs(a.glued.distances[i[part]] - b.glued.distances[j[part]]).max(axis=1)
            # The triangle inequality; the exact distances in it are certified to less than this.
            found[part] = np.maximum(found[part], apart - 1e-6 * a.glued.distances[i[part]].max(axis=1))
        return found * self.unit

    def upper(
        self, a: Sketches, b: Sketches, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, "k references"]:
        """At least W_p of a[i] and b[j], by way of each reference."""
        found = np.empty((len(i), len(self.references.measures)))
        for part in _parts(len(i), a.glued.places[0].size if len(a) else 1):
            found[part] = self.references.upper(a.glued, b.glued, i[part], j[part])
        return found * self.unit

    def arrays(self) -> dict[str, np.ndarray]:
        """What to save; `restored` takes it."""
        references = self.references.measures
        arrays = {
            "lines": self.slices.lines,
            "origin": self.slices.origin,
            "unit": np.array([self.unit]),
            "levels": np.array([self.slices.levels]),
            "offsets": references.offsets,
            "support": references.support,
            "weights": references.weights,
            "grid": np.array(references.grid or (), dtype=np.int64),
        }
        return arrays if references.atoms is None else arrays | {"atoms": references.atoms}

    @classmethod
    def restored(cls, cost: GroundCost, arrays: dict[str, np.ndarray]) -> "Sketcher":
        """The Sketcher that `arrays` were taken from."""
        unit = float(arrays["unit"][0])
        scaled_cost = _scaled_cost(cost, unit)
        grid = tuple(arrays["grid"].tolist()) or None
        references = Measures(arrays["offsets"], arrays["support"], arrays["weights"], arrays.get("atoms"), grid)
        slices = Slices(scaled_cost, arrays["lines"], int(arrays["levels"][0]), arrays["origin"])
        return cls(slices, References(scaled_cost, references), unit)


def _sketch_block(sketcher: Sketcher, measures: Measures, start: int) -> tuple[int, Sketches]:
    scaled = _scaled(measures, sketcher.slices.cost, sketcher.unit)
    return start, Sketches(sketcher.slices(scaled), sketcher.references(scaled))


def _joined(parts: list[Sketches]) -> Sketches:
    def together(arrays: list[Any]) -> Any:
        return None if arrays[0] is None else np.concatenate(arrays)

    sliced, glued = [part.sliced for part in parts], [part.glued for part in parts]
    widest = max((part.factors.shape[2] for part in sliced if part.factors is not None), default=0)
    factors = [
        f if f is None else np.pad(f, ((0, 0), (0, 0), (0, widest - f.shape[2]))) for f in (s.factors for s in sliced)
    ]
    return Sketches(
        Sliced(together([s.quantiles for s in sliced]), together([s.means for s in sliced]), together(factors)),
        Glued(*(together([getattr(g, name) for g in glued]) for name in ("places", "spread", "distances"))),
    )


def _parts(count: int, numbers: int) -> list[slice]:
    step = max(1, _BLOCK_NUMBERS // max(numbers, 1))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _unlike(features: Float64[np.ndarray, "n features"], count: int, seed: int) -> Int64[np.ndarray, " chosen"]:
    """Rows nearest to the centres of clusters."""
    from sklearn.cluster import KMeans  # imported late: not all of wembed needs it
    from threadpoolctl import threadpool_limits

    count = min(count, len(np.unique(features, axis=0)))
    with threadpool_limits(1):  # threads would add in another order, and choose others
        centres = KMeans(count, n_init=1, random_state=seed).fit(features).cluster_centers_
    return np.unique([int(np.square(features - centre).sum(axis=1).argmin()) for centre in centres])


def _unit(measures: Measures, cost: GroundCost) -> float:
    if not isinstance(cost.metric, str):
        return float(cost.metric.max()) or 1.0
    extent = float(np.abs(measures.support).max(initial=0.0))
    safe = extent == 0 or 1 / _SAFE < extent < _SAFE or cost.is_great_circle
    return 1.0 if safe else extent


def _scaled(measures: Measures, cost: GroundCost, unit: float) -> Measures:
    if unit == 1 or not isinstance(cost.metric, str):
        return measures
    return Measures(measures.offsets, measures.support / unit, measures.weights, measures.atoms, measures.grid)


def _scaled_cost(cost: GroundCost, unit: float) -> GroundCost:
    return cost if isinstance(cost.metric, str) else GroundCost(cost.metric / unit, cost.order)
