"""Trust: what may be said of how far off predicted distances are, and of measures unlike those learned from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from wembed.alike import Alike, same_measures
from wembed.errors import SettingError
from wembed.euclidean import Residuals, distances_of_pairs
from wembed.learning.evaluation import Intervals
from wembed.learning.intervals import IntervalModel
from wembed.learning.novelty import Novelty
from wembed.measures import Measures
from wembed.options import above_zero, share, switch, whole
from wembed.records import Distances
from wembed.transport.bounds import Bounds, Sketcher, Sketches
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress, exact_distances

__all__ = ["Asked", "Side", "Trust", "answered", "answered_each"]

_EQUAL = 1e-9  # share of the mean distance up to which measures are equal, and of a distance up to which it is certain
_ROUNDED = 1e-3  # share of it that vectors of one measure, from different batches, are closer than
_LEVEL = 0.9
_PAIRS = 1 << 18  # answered in one go
_FEWEST = 20  # pairs, of validation and of calibration measures, that intervals begin to make sense from
_SCARCE = 0.005  # share of the calibration pairs, at either end of the predicted distance, that are too few to go by

Vectors = Float32[np.ndarray, "n dim"]
Place = Callable[[Measures], Measures]


@dataclass(frozen=True, eq=False)
class Side:
    """Measures on one side of some pairs, and what answers about them need."""

    measures: Measures
    vectors: Float[np.ndarray, "n dim"]
    unusualness: Float64[np.ndarray, " n"]
    sketched: tuple[Sketches, Int64[np.ndarray, " n"]] | None  # of those that differ, and which of them is whose


@dataclass(frozen=True, eq=False)
class Trust:
    """What is known of the errors of an encoder.

    Attributes:
        cost: the ground cost.
        place: puts measures into the coordinates in which their shape is looked at.
        novelty: tells measures unlike the training ones.
        sketcher: bounds by references; None where none were wanted.
        residuals: how distances between vectors are read; None for plain ones.
        plain: intervals from vectors alone; None without calibration.
        refined: intervals from bounds as well.
        scale: mean distance of the calibration pairs.
        near: predicted distance below which there are next to no calibration pairs.
        far: predicted distance above which there are next to none.
        told: pairs of different measures that intervals are shaped by, and that they are calibrated on.
    """

    cost: GroundCost
    place: Place
    novelty: Novelty
    sketcher: Sketcher | None
    residuals: Residuals | None = None
    plain: IntervalModel | None = None
    refined: IntervalModel | None = None
    scale: float = 1.0
    near: float = 0.0
    far: float = np.inf
    told: tuple[int, int] = (0, 0)

    @classmethod
    def build(
        cls,
        cost: GroundCost,
        members: tuple[Measures, Vectors],
        typical: tuple[Measures, Float32[np.ndarray, "typical dim"]],
        place: Place,
        learned: int,
        references: int,
        seed: int,
        residuals: Residuals | None = None,
    ) -> "Trust":
        """Without intervals yet.

        Args:
            cost: the ground cost.
            members: training measures, in random order, and their vectors.
            typical: unseen measures like them, and theirs.
            place: measures to measures in coordinates.
            learned: how many of their numbers are; a measure is not strange for being far off, where that is exact.
            references: how many of the training measures bounds go by way of; 0 for none.
            seed: chooses them.
            residuals: how distances between vectors are read; None for plain ones.
        """
        known = Novelty.fit(place(members[0]), members[1][:, :learned])
        sketcher = Sketcher.build(members[0], cost, references, seed) if references else None
        return cls(cost, place, known, sketcher, residuals).familiar(*typical)

    def familiar(self, typical: Measures, vectors: Float[np.ndarray, "n dim"]) -> "Trust":
        """With unusualness told by these measures, which the encoder has not learned from."""
        return replace(self, novelty=self.novelty.calibrated(self.place(typical), np.asarray(vectors, np.float32)))

    def unusualness(self, measures: Measures, vectors: Float[np.ndarray, "n dim"]) -> Float64[np.ndarray, " n"]:
        """How unlike the training measures each measure is."""
        return self.novelty(self.place(measures), np.asarray(vectors, np.float32))

    def calibrated(
        self,
        measures: Measures,
        vectors: Float[np.ndarray, "n dim"],
        fitted_on: tuple[np.ndarray, np.ndarray],
        calibrated_on: tuple[np.ndarray, np.ndarray],
        n_jobs: int = 1,
        progress: Progress | None = None,
    ) -> "Trust":
        """With intervals, from pairs (k, 2) of the measures with these vectors and exact distances (k,), both times.

        Pairs of equal measures are left out. Where either has fewer than 20 pairs left there are no intervals.
        """
        shown = [
            (p[apart], d[apart])
            for p, d in (fitted_on, calibrated_on)
            for apart in [d > _EQUAL * d.sum() / max(len(d), 1)]
        ]
        told = len(shown[0][0]), len(shown[1][0])
        if min(told) < _FEWEST:
            return replace(self, plain=None, refined=None, told=told)
        used = np.unique(np.concatenate([pairs for pairs, _ in shown]))
        side = self.side(measures[used], vectors[used], self.sketcher is not None, n_jobs, progress)
        far = np.sort(self._predicted(side, side, *np.searchsorted(used, shown[1][0]).T))
        few = int(_SCARCE * len(far))
        near, scale = float(far[few]), float(shown[1][1].mean())
        scaled = replace(self, scale=scale, near=near, far=float(far[-1 - few]), told=told)

        def model(*, refine: bool) -> IntervalModel:
            known = []
            for pairs, exact in shown:
                predicted, traits, _ = scaled._known(side, side, *np.searchsorted(used, pairs).T, refine=refine)
                known.append((traits, predicted, exact))
            return IntervalModel.fit(*known[0]).calibrated(*known[1], shown[1][0])

        return replace(scaled, plain=model(refine=False), refined=model(refine=True) if self.sketcher else None)

    def side(
        self,
        measures: Measures,
        vectors: Float[np.ndarray, "n dim"],
        refine: bool,
        n_jobs: int = 1,
        progress: Progress | None = None,
    ) -> Side:
        """What answers about these measures need; with `refine` each is solved against the references.

        Raises:
            SettingError: to refine, and there are no references.
        """
        self._check_references(refine)
        sketched = None
        if refine and self.sketcher:
            distinct, whose = np.unique(measures.first_alike(exact=True), return_inverse=True)
            sketched = self.sketcher(measures[distinct], n_jobs, progress), whose
        return Side(measures, vectors, self.unusualness(measures, vectors), sketched)

    def refines(self, measures: int, pairs: int) -> bool:
        """Whether to go by way of references takes less than half the solves of so many pairs of so many measures."""
        return self.sketcher is not None and 2 * self.references * measures <= pairs > 0

    def answer(
        self, level: float, a: Side, b: Side, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
    ) -> Distances:
        """Distances of a[i] and b[j] with their intervals, refined where both sides have sketches."""
        refine = a.sketched is not None and b.sketched is not None
        model = self._intervals(refine=refine)
        predicted, traits, bounds = self._known(a, b, i, j, refine=refine)
        same = self._same(predicted, a, b, i, j)
        lower, upper = _ends(*self._interval(model, level, traits, predicted), same, bounds)
        known = (self.near <= predicted) & (predicted <= self.far)
        estimate = np.clip(np.where(known, model.estimate(traits, predicted), predicted), lower, upper)
        unusual = np.maximum(a.unusualness[i], b.unusualness[j])
        return Distances(predicted, estimate, lower, upper, same, unusual)

    def check(self, level: float | None = None, *, refine: bool = False) -> None:
        """Refuse intervals that cannot be given: of this level, or of any.

        Raises:
            SettingError: the model has no calibration measures, or too few, or no references to refine by.
        """
        self._check_references(refine)
        model = self._intervals(refine=refine)
        if level is not None:
            model.check(level)

    @property
    def calibrated_on(self) -> int:
        """Measures that intervals are calibrated on."""
        return 0 if self.plain is None else self.plain.measures

    @property
    def references(self) -> int:
        """How many there are to refine intervals by."""
        return 0 if self.sketcher is None else len(self.sketcher.references.measures)

    @property
    def highest_level(self) -> float:
        """Of an interval that there are calibration measures enough for; 0 without any."""
        return 0.0 if self.plain is None else self.plain.highest_level

    def intervals(
        self, levels: Sequence[float], side: Side, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
    ) -> Intervals:
        """At each of these levels that there are calibration pairs enough for."""
        refine = side.sketched is not None
        model = self._intervals(refine=refine)
        possible = tuple(level for level in levels if model.allows(level))
        predicted, traits, bounds = self._known(side, side, i, j, refine=refine)
        same = self._same(predicted, side, side, i, j)
        ends = np.empty((len(possible), 2, len(i)))
        for row, level in enumerate(possible):
            ends[row] = _ends(*self._interval(model, level, traits, predicted), same, bounds)
        return Intervals(possible, ends[:, 0], ends[:, 1], refine)

    def chance_below(
        self,
        threshold: Float64[np.ndarray, " k"],
        a: Side,
        b: Side,
        pairs: tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]],
        seen: tuple[Float64[np.ndarray, " k"], Int64[np.ndarray, " k"]],
    ) -> Float64[np.ndarray, " k"]:
        """How likely W_p of a[i] and b[j] is below a threshold, by what their vectors tell.

        Args:
            threshold: distances.
            a: measures.
            b: measures.
            pairs: i and j.
            seen: the mean of the `standard_scores` of those pairs with a[i] that are solved, and their number.

        Raises:
            SettingError: the model has no calibration measures.
        """
        predicted, traits, _ = self._known(a, b, *pairs, refine=False)
        return self._intervals(refine=False).chance_below(threshold, traits, predicted, *seen)

    def standard_scores(
        self, exact: Float64[np.ndarray, " k"], a: Side, b: Side, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, " k"]:
        """How far the exact W_p of a[i] and b[j] are off, in the standard deviations that their vectors promise."""
        predicted, traits, _ = self._known(a, b, i, j, refine=False)
        return self._intervals(refine=False).standard_scores(traits, predicted, exact)

    def lower(
        self, a: Side, b: Side, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, " k"]:
        """Certified lower bounds; both sides have sketches."""
        sketcher, places = self._sketches(a, b, i, j)
        return sketcher.lower(*places)

    def _sketches(
        self, a: Side, b: Side, i: np.ndarray, j: np.ndarray
    ) -> tuple[Sketcher, tuple[Sketches, Sketches, np.ndarray, np.ndarray]]:
        """What bounds of a[i] and b[j] are taken by, and from."""
        assert self.sketcher is not None
        assert a.sketched is not None
        assert b.sketched is not None
        (x, of_a), (y, of_b) = a.sketched, b.sketched
        return self.sketcher, (x, y, of_a[i], of_b[j])

    def _check_references(self, refine: bool) -> None:
        if refine and self.sketcher is None:
            raise SettingError(
                "the model was fitted with references=0, so it cannot refine, bound or prove anything; fit it with some"
            )

    def _intervals(self, *, refine: bool) -> IntervalModel:
        model = self.refined if refine else self.plain
        if model is None:
            raise SettingError(
                f"the model gives no intervals: that takes {_FEWEST} pairs of validation and {_FEWEST} of calibration "
                f"measures, and it has {self.told[0]} and {self.told[1]}; give it measures that it has not seen with "
                "`wembed calibrate`, or embedder.calibrate in Python, or fit it on more measures and pairs"
            )
        return model

    def bounds(self, a: Side, b: Side, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]) -> Bounds:
        """Certified bounds, of measures that are equal to the last bit 0; both sides have sketches."""
        sketcher, places = self._sketches(a, b, i, j)
        upper = sketcher.upper(*places).min(axis=1)
        upper[a.measures.digests(exact=True)[i] == b.measures.digests(exact=True)[j]] = 0.0
        return Bounds(np.minimum(self.lower(a, b, i, j), upper), upper)

    def _known(
        self, a: Side, b: Side, i: np.ndarray, j: np.ndarray, *, refine: bool
    ) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, "k traits"], Bounds | None]:
        """The predicted distance, the other traits that an interval depends on, and bounds where they were taken."""
        predicted = self._predicted(a, b, i, j)
        unusual = np.stack([a.unusualness[i], b.unusualness[j]], axis=1)
        plain = np.stack([unusual.max(axis=1), unusual.min(axis=1)], axis=1)
        if not refine:
            return predicted, plain, None
        sketcher, places = self._sketches(a, b, i, j)
        upper, lower = sketcher.upper(*places), sketcher.lower(*places)
        least = _EQUAL * self.scale
        ratios = np.log((upper + least) / (predicted + least)[:, None])
        below = np.log((lower + least) / (predicted + least))[:, None]
        nearest = upper.min(axis=1)
        traits = np.concatenate([plain, ratios, np.sort(ratios, axis=1), below], axis=1)
        return predicted, traits, Bounds(np.minimum(lower, nearest), nearest)

    def _predicted(self, a: Side, b: Side, i: np.ndarray, j: np.ndarray) -> Float64[np.ndarray, " k"]:
        pairs = np.stack([i, j], axis=1)
        return self.cost.from_euclidean(distances_of_pairs(a.vectors, pairs, b.vectors, self.residuals))

    def _interval(
        self, model: IntervalModel, level: float, traits: Float64[np.ndarray, "k traits"], predicted: np.ndarray
    ) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
        """Lower and upper end. Outside of [near, far] the model is asked at the nearer end of that range.

        Of a pair predicted nearer than they are, such as a measure and a copy with a little noise, it is believed that
        it is no farther apart than pairs at the end of their range. Of one predicted farther apart, such as measures
        moved away from each other, that its error is no greater a share of its distance than at the other end.
        """
        within = np.clip(predicted, self.near, self.far)
        lower, upper = model.interval(level, traits, within)
        beyond = predicted > self.far
        stretch = np.divide(predicted, within, out=np.ones(len(predicted)), where=beyond & (within > 0))
        moved = np.where(beyond, within - model.estimate(traits, within), 0.0)  # whether the correction goes on is open
        lower, upper = stretch * (lower + np.minimum(moved, 0.0)), stretch * (upper + np.maximum(moved, 0.0))
        return np.where(predicted < self.near, 0.0, np.maximum(lower, 0.0)), upper

    def _same(
        self, predicted: Float64[np.ndarray, " k"], a: Side, b: Side, i: np.ndarray, j: np.ndarray
    ) -> Bool[np.ndarray, " k"]:
        """Whether a[i] and b[j] are the same measure: vectors of one may differ by rounding, those of two be equal."""
        same = np.asarray(predicted <= _ROUNDED * self.scale)
        if same.any():
            same[same] = same_measures(a.measures, b.measures, i[same], j[same])
        return same

    def arrays(self) -> dict[str, np.ndarray]:
        """What to save; `restored` takes it."""
        parts: dict[str, Any] = {
            "novelty": vars(self.novelty),
            "distances": {name: getattr(self, name) for name in ("scale", "near", "far", "told")},
        }
        if self.sketcher is not None:
            parts["sketcher"] = self.sketcher.arrays()
        for name in ("plain", "refined"):
            if getattr(self, name) is not None:
                parts[name] = vars(getattr(self, name))
        return {
            f"{part}.{name}": np.atleast_1d(value) for part, named in parts.items() for name, value in named.items()
        }

    @classmethod
    def restored(
        cls, cost: GroundCost, place: Place, arrays: dict[str, np.ndarray], residuals: Residuals | None = None
    ) -> "Trust":
        """What `arrays` were taken from."""
        parts: dict[str, dict[str, Any]] = {}
        for name, value in arrays.items():
            part, _, field = name.partition(".")
            parts.setdefault(part, {})[field] = value
        intervals = {}
        for name in (name for name in ("plain", "refined") if name in parts):
            scalars = {field: parts[name][field][0].item() for field in ("floor", "shared", "measures")}
            intervals[name] = IntervalModel(**parts[name] | scalars)
        sketcher = Sketcher.restored(cost, parts["sketcher"]) if "sketcher" in parts else None
        scale, near, far = (float(parts["distances"][name][0]) for name in ("scale", "near", "far"))
        shaped, calibrated = parts["distances"]["told"].tolist()
        return cls(
            cost,
            place,
            Novelty(**parts["novelty"]),
            sketcher,
            residuals,
            **intervals,
            scale=scale,
            near=near,
            far=far,
            told=(shaped, calibrated),
        )


def _ends(
    lower: Float64[np.ndarray, " k"],
    upper: Float64[np.ndarray, " k"],
    same: Bool[np.ndarray, " k"],
    bounds: Bounds | None,
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Of intervals within the bounds, or the bounds where an interval lies outside them; 0 of a measure to itself."""
    if bounds is not None:
        least, most = bounds.lower * (1 - _EQUAL), bounds.upper * (1 + _EQUAL)  # the exact distance is rounded too
        outside = (upper < least) | (lower > most)
        lower = np.where(outside, least, np.maximum(lower, least))
        upper = np.where(outside, most, np.minimum(upper, most))
    return np.where(same, 0.0, lower), np.where(same, 0.0, upper)


@dataclass(frozen=True)
class Asked:
    """What an answer about distances has to give.

    Attributes:
        interval: share of pairs whose exact distance lies between the ends; None for 0.9.
        tolerance: relative error within which an estimate is good enough; where the interval leaves more open, the pair
            is solved.
        budget: pairs that may be solved, those first whose interval leaves most open; without a tolerance, so many are.
            Equal pairs count once.
        refine: go by way of the references; None where that takes less than half the solves of the pairs.

    Raises:
        SettingError: a number out of range.
    """

    interval: float | None = None
    tolerance: float | None = None
    budget: int | None = None
    refine: bool | None = None

    def __post_init__(self) -> None:
        if self.interval is not None:
            share("interval", self.interval, 0.9)
        if self.tolerance is not None:
            above_zero("tolerance", self.tolerance, 0.02)
        if self.budget is not None:
            whole("budget", self.budget)
        if self.refine is not None:
            switch("refine", self.refine)

    @property
    def level(self) -> float:
        """Of the interval."""
        return self.interval or _LEVEL


def answered(
    trust: Trust,
    a: tuple[Measures, np.ndarray],
    b: tuple[Measures, np.ndarray],
    pairs: tuple[np.ndarray, np.ndarray],
    asked: Asked,
    n_jobs: int = 1,
    progress: Callable[[str], Progress] = lambda _: lambda done, total: None,
) -> Distances:
    """Distances of a[i] and b[j] as they were asked for: predicted, with intervals, exact where that is needed.

    Args:
        trust: of the encoder.
        a: measures and their vectors.
        b: the same object as `a`, or others.
        pairs: i and j.
        asked: what to give.
        n_jobs: processes for exact solves.
        progress: by what is done, a function to call with the number done and the number in all.

    Raises:
        SettingError: there are no intervals, or no references to refine by.
        SolverError: a solution could not be certified.
    """
    i, j = pairs
    alike = Alike.of(a[0], None if b is a else b[0])
    refine = trust.refines(alike.distinct, len(i)) if asked.refine is None else asked.refine
    trust.check(asked.level, refine=refine)
    left = trust.side(*a, refine, n_jobs, progress("references"))
    right = left if b is a else trust.side(*b, refine, n_jobs, progress("references"))
    empty = np.empty((5, len(i)))
    found = Distances(empty[0], empty[1], empty[2], empty[3], np.empty(len(i), dtype=bool), empty[4])
    for start in range(0, len(i), _PAIRS):
        part = slice(start, start + _PAIRS)
        for name, array in trust.answer(asked.level, left, right, i[part], j[part]).arrays.items():
            found.arrays[name][part] = array
    chosen = _worth_solving(found, asked)
    if len(chosen) == 0 or asked.budget == 0:
        return found
    # Equal pairs are solved once, and count once: the first of each has its turn, and all are answered.
    _, first, place = np.unique(alike.keys(i[chosen], j[chosen]), return_index=True, return_inverse=True)
    solved = np.sort(first)[: asked.budget]
    together = a[0] if b is a else Measures.concatenate([a[0], b[0]])
    rows = np.stack([i[chosen[solved]], j[chosen[solved]] + (0 if b is a else len(a[0]))], axis=1)
    answers = np.full(len(chosen), np.nan)
    answers[solved] = exact_distances(together, rows, trust.cost, n_jobs, progress("exact distances"))
    exact = answers[first[place]]
    done = ~np.isnan(exact)
    for array in (found.estimate, found.lower, found.upper):
        array[chosen[done]] = exact[done]
    found.exact[chosen[done]] = True
    return replace(found, solved=len(solved))


def answered_each(
    trust: Trust,
    a: tuple[Measures, np.ndarray],
    b: tuple[Measures, np.ndarray] | None,
    asked: Asked,
    n_jobs: int = 1,
    progress: Callable[[str], Progress] = lambda _: lambda done, total: None,
) -> Distances:
    """Distances of each of a and each of b, as arrays (n, m); without b of each of a and each of a. See `answered`."""
    if b is None:
        pairs = np.triu_indices(len(a[0]))
        return answered(trust, a, a, pairs, asked, n_jobs, progress).mirrored(len(a[0]))
    count = len(b[0])
    rows, columns = np.divmod(np.arange(len(a[0]) * count), count)
    found = answered(trust, a, b, (rows, columns), asked, n_jobs, progress)
    return found.shaped((len(a[0]), count))


def _worth_solving(found: Distances, asked: Asked) -> Int64[np.ndarray, " chosen"]:
    """Pairs whose interval leaves more open than is tolerated, the most open first."""
    if asked.tolerance is None and asked.budget is None:
        return np.empty(0, dtype=np.int64)
    # An estimate e is within t of any W of [lower, upper] if e <= (1 + t) lower and e >= (1 - t) upper.
    above, below = np.full(len(found.lower), np.inf), np.ones(len(found.lower))
    np.divide(found.estimate, found.lower, out=above, where=found.lower > 0)
    np.divide(found.estimate, found.upper, out=below, where=found.upper > 0)
    open_ = np.where(found.exact, 0.0, np.maximum(above - 1, 1 - below))
    order = np.lexsort((found.lower - found.upper, -open_))  # where nothing is known from below, the widest first
    return order[: int((open_ > (asked.tolerance or 0.0)).sum())]
