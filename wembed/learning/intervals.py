"""Intervals around predicted distances, by split conformal prediction."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from wembed.errors import SettingError
from wembed.options import share

__all__ = ["IntervalModel"]

_KNOTS = (0.05, 0.2, 0.4, 0.6, 0.8)  # quantiles of the predicted distance at which the correction may bend
_FLOOR = 0.02  # quantile of the predicted distance below which errors are taken as absolute, in half its unit
_BINS = 5
_IN_A_BIN = 150  # pairs at least
_PENALTIES = np.logspace(-2, 4, 13)
_TAIL = 0.05  # of the scores, beyond which a chance is extrapolated
_ROUNDING = 1e-9  # of levels
_MOST_SHARED = 0.5  # correlation, where pairs that share no measure have none
_LEAST_FLOOR = 1e-6  # of the mean distance
_SMALLEST = 1e-4  # relative residual whose logarithm is still told apart


@dataclass(frozen=True, eq=False)
class IntervalModel:
    """What to expect of the exact distance of a pair, given the predicted one and what else is known of the pair.

    The exact distance is modelled as an estimate, linear in the traits of the pair, plus a width, log-linear in them,
    times a score. Both are fitted on pairs that chose the encoder; the distribution of the score is that of
    calibration pairs, in bins of the predicted distance (split conformal prediction: Lei et al. 2018; scores divided by
    a fitted width: Sec. 5.2 there; bins: Vovk 2012). Pairs share measures, and so say less than as many independent
    ones: the ends are as far out as if there were as many pairs as measures, and no two of them shared one.

    Attributes:
        floor: added to predicted distances before logarithms are taken.
        knots: of log predicted distance.
        low: least trait seen, for each of them; beyond it a trait is taken as this.
        high: greatest trait seen.
        centre: coefficients of the relative correction, that of 1 first.
        width: coefficients of the logarithm of the relative width.
        edges: of the bins of the predicted distance.
        scores: of the calibration pairs, sorted within each bin, bin after bin.
        offsets: where each bin begins among the scores.
        members: measures in the pairs of each bin.
        shared: correlation of the scores of two pairs that have a measure in common.
        measures: in all of the calibration pairs.
    """

    floor: float
    knots: Float64[np.ndarray, " knots"]
    low: Float64[np.ndarray, " traits"]
    high: Float64[np.ndarray, " traits"]
    centre: Float64[np.ndarray, " columns"]
    width: Float64[np.ndarray, " columns"]
    edges: Float64[np.ndarray, " bins_minus_1"]
    scores: Float64[np.ndarray, " k"]
    offsets: Int64[np.ndarray, " bins_plus_1"]
    members: Int64[np.ndarray, " bins"]
    shared: float
    measures: int

    @classmethod
    def fit(
        cls,
        traits: Float64[np.ndarray, "k traits"],
        predicted: Float64[np.ndarray, " k"],
        exact: Float64[np.ndarray, " k"],
    ) -> "IntervalModel":
        """Estimate and width, from pairs that the encoder was chosen by; `calibrated` adds the scores."""
        from sklearn.linear_model import RidgeCV  # imported late: scikit-learn is slow to load

        floor = max(0.5 * float(np.quantile(predicted, _FLOOR)), _LEAST_FLOOR * float(exact.mean()))
        knots = np.unique(np.quantile(np.log(predicted + floor), _KNOTS))
        empty = np.empty(0)
        low, high = traits.min(axis=0), traits.max(axis=0)
        uncalibrated = np.zeros(2, dtype=np.int64), np.zeros(1, dtype=np.int64), 0.0, 0
        start = cls(floor, knots, low, high, empty, empty, empty, empty, *uncalibrated)
        columns = start._columns(traits, predicted)
        mean, spread = columns.mean(axis=0), columns.std(axis=0)
        spread[spread < 1e-12] = np.inf

        def regressed(target: np.ndarray) -> np.ndarray:
            found = RidgeCV(_PENALTIES).fit((columns - mean) / spread, target)
            slopes = found.coef_ / spread
            return np.concatenate([[found.intercept_ - slopes @ mean], slopes])

        error = (exact - predicted) / (predicted + floor)
        centre = regressed(error)
        left = np.abs(error - centre[0] - columns @ centre[1:])
        width = regressed(np.log(left + _SMALLEST))
        return replace(start, centre=centre, width=width)

    def calibrated(
        self,
        traits: Float64[np.ndarray, "k traits"],
        predicted: Float64[np.ndarray, " k"],
        exact: Float64[np.ndarray, " k"],
        pairs: Int64[np.ndarray, "k 2"],
    ) -> "IntervalModel":
        """The same with the scores of these pairs, of measures that nothing was fitted to."""
        estimate, width = self._expected(traits, predicted)
        scores = (exact - estimate) / width
        bins = int(np.clip(len(scores) // _IN_A_BIN, 1, _BINS))
        edges = np.unique(np.quantile(predicted, np.arange(1, bins) / bins))
        edges = edges[edges < predicted.max()]
        bins = len(edges) + 1
        bin_of = np.searchsorted(edges, predicted)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(bin_of, minlength=bins))]).astype(np.int64)
        order = np.lexsort((scores, bin_of))
        members = np.array([len(np.unique(pairs[bin_of == row])) for row in range(bins)])
        of_bins = {"edges": edges, "scores": scores[order], "offsets": offsets, "members": members}
        found = replace(self, **of_bins, measures=len(np.unique(pairs)))
        return replace(found, shared=_correlation(found.standard_scores(traits, predicted, exact), pairs))

    def _bins(self) -> list[Float64[np.ndarray, " scores"]]:
        """The scores of each bin."""
        return np.split(self.scores, self.offsets[1:-1])

    @property
    def highest_level(self) -> float:
        """The highest share that there are calibration pairs and measures enough for."""
        scores = np.diff(self.offsets)
        independent = np.minimum(self.members, scores)
        return float((1 - (1 + independent / scores) / (independent + 1)).min())

    def allows(self, level: float) -> bool:
        """Whether there are calibration pairs and measures enough for an interval of this level."""
        return level <= self.highest_level + _ROUNDING

    def check(self, level: float) -> None:
        """Refuse the level of an interval that cannot be given.

        Raises:
            SettingError: a level outside (0, 1), or so high that it takes more calibration measures.
        """
        share("interval", level, 0.9)
        if not self.allows(level):
            raise SettingError(
                f"interval={level:g} is too high a share for a model calibrated on {self.measures} measures, of which "
                f"{int(self.members.min())} tell of some distances: ask for at most "
                f"{np.floor(1e3 * self.highest_level) / 1e3:g}, or give it more measures and pairs with "
                "`wembed calibrate`, or embedder.calibrate in Python"
            )

    def estimate(
        self, traits: Float64[np.ndarray, "k traits"], predicted: Float64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, " k"]:
        """The exact distance that is expected."""
        return self._expected(traits, predicted)[0]

    def interval(
        self, level: float, traits: Float64[np.ndarray, "k traits"], predicted: Float64[np.ndarray, " k"]
    ) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
        """Lower and upper end, so that a share `level` of pairs like these lies between.

        Raises:
            SettingError: a level outside (0, 1), or so high that it takes more calibration measures.
        """
        self.check(level)
        tail = (1 - level) / 2
        estimate, width = self._expected(traits, predicted)
        ends = np.empty((len(self.members), 2))
        for row, (own, members) in enumerate(zip(self._bins(), self.members.tolist(), strict=True)):
            # Of n independent scores that of rank (n + 1) tail is the end, the least having rank 1. A share `at` lies
            # below it, itself counted half: the same share of the scores there are is to lie below the end here.
            at = tail - (0.5 - tail) / min(members, len(own))
            place = max(len(own) * at - 0.5, 0.0)  # below 0 by rounding alone
            ends[row] = np.interp([place, len(own) - 1 - place], np.arange(len(own)), own)
        bin_of = np.searchsorted(self.edges, predicted)
        lower, upper = estimate + width * ends[bin_of, 0], estimate + width * ends[bin_of, 1]
        return np.maximum(lower, 0.0), np.maximum(upper, 0.0)

    def standard_scores(
        self,
        traits: Float64[np.ndarray, "k traits"],
        predicted: Float64[np.ndarray, " k"],
        exact: Float64[np.ndarray, " k"],
    ) -> Float64[np.ndarray, " k"]:
        """Scores of pairs in standard deviations from the mean of the calibration pairs of their bin."""
        estimate, width = self._expected(traits, predicted)
        mean, deviation = self._moments()[:, np.searchsorted(self.edges, predicted)]
        return np.asarray(((exact - estimate) / width - mean) / deviation)

    def _moments(self) -> Float64[np.ndarray, "2 bins"]:
        """Mean and standard deviation of the scores of each bin."""
        tiny = float(np.finfo(float).tiny)
        return np.array([(own.mean(), max(float(own.std()), tiny)) for own in self._bins()]).T

    def chance_below(
        self,
        threshold: Float64[np.ndarray, " k"],
        traits: Float64[np.ndarray, "k traits"],
        predicted: Float64[np.ndarray, " k"],
        mean: Float64[np.ndarray, " k"],
        solved: Int64[np.ndarray, " k"],
    ) -> Float64[np.ndarray, " k"]:
        """How likely the exact distance is below a threshold: the share of scores that say so.

        Scores of pairs that share a measure lean to the same side. Those that are solved shift what is expected of the
        others, and narrow it, as the best linear prediction under a random effect of the measure does. Beyond the
        lowest twentieth of the scores, where few are left to count, the chance falls off exponentially.

        Args:
            threshold: distances.
            traits: of the pairs.
            predicted: their predicted distances.
            mean: of the standard scores of solved pairs that share one measure with the pair, always the same one.
            solved: how many these are.
        """
        estimate, width = self._expected(traits, predicted)
        bin_of = np.searchsorted(self.edges, predicted)
        centre, deviation = self._moments()[:, bin_of]
        known = self.shared * solved / (1 + (solved - 1) * self.shared)
        standard = ((threshold - estimate) / width - centre) / deviation
        asked = centre + deviation * (standard - known * mean) / np.sqrt(1 - self.shared * known)
        chance = np.empty(len(asked))
        for row, own in enumerate(self._bins()):
            here = bin_of == row
            tail = max(1, round(_TAIL * len(own)))
            edge = own[min(tail, len(own) - 1)]
            excess = max(float((edge - own[:tail]).mean()), float(np.finfo(float).tiny))
            counted = np.searchsorted(own, asked[here], side="right") / len(own)
            beyond = tail / len(own) * np.exp(np.minimum(asked[here] - edge, 0.0) / excess)
            chance[here] = np.where(asked[here] < edge, beyond, counted)
        return chance

    def _expected(self, traits: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        columns = self._columns(traits, predicted)
        unit = predicted + self.floor
        estimate = predicted + unit * (self.centre[0] + columns @ self.centre[1:])
        width = unit * np.exp(self.width[0] + columns @ self.width[1:])
        return np.maximum(estimate, 0.0), width

    def _columns(self, traits: np.ndarray, predicted: np.ndarray) -> Float64[np.ndarray, "k columns"]:
        log = np.log(predicted + self.floor)[:, None]
        bends = np.maximum(log - self.knots, 0.0)
        return np.concatenate([log, bends, np.clip(traits, self.low, self.high)], axis=1)


def _correlation(scores: Float64[np.ndarray, " k"], pairs: Int64[np.ndarray, "k 2"]) -> float:
    """Of standard scores of pairs that have a measure in common."""
    ends, both = pairs.T.ravel(), np.concatenate([scores, scores])
    _, own = np.unique(ends, return_inverse=True)
    sums, squares, counts = np.bincount(own, both), np.bincount(own, both**2), np.bincount(own)
    couples = float((counts * (counts - 1)).sum())
    return float(np.clip((np.square(sums) - squares).sum() / max(couples, 1.0), 0.0, _MOST_SHARED))
