"""Intervals around predicted distances, by split conformal prediction."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from wembed.errors import SettingError

__all__ = ["IntervalModel"]

_KNOTS = (0.05, 0.2, 0.4, 0.6, 0.8)  # quantiles of the predicted distance at which the correction may bend
_FLOOR = 0.02  # quantile of the predicted distance below which errors are taken as absolute, in half its unit
_BINS = 5
_IN_A_BIN = 300  # pairs at least
_PENALTIES = np.logspace(-2, 4, 13)
_TAIL = 0.05  # of the scores, beyond which a chance is extrapolated
_SMALLEST = 1e-4  # relative residual whose logarithm is still told apart


@dataclass(frozen=True, eq=False)
class IntervalModel:
    """What to expect of the exact distance of a pair, given the predicted one and what else is known of the pair.

    The exact distance is modelled as an estimate, linear in the traits of the pair, plus a width, log-linear in them,
    times a score. Both are fitted on pairs that chose the encoder; the distribution of the score is that of
    calibration pairs, in bins of the predicted distance (split conformal prediction: Lei et al. 2018; scores divided by
    a fitted width: Sec. 5.2 there; bins: Vovk 2012).

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

    @classmethod
    def fit(
        cls,
        traits: Float64[np.ndarray, "k traits"],
        predicted: Float64[np.ndarray, " k"],
        exact: Float64[np.ndarray, " k"],
    ) -> "IntervalModel":
        """Estimate and width, from pairs that the encoder was chosen by; `calibrated` adds the scores."""
        from sklearn.linear_model import RidgeCV  # imported late: scikit-learn is slow to load

        floor = max(0.5 * float(np.quantile(predicted, _FLOOR)), float(np.finfo(float).tiny))
        knots = np.unique(np.quantile(np.log(predicted + floor), _KNOTS))
        empty = np.empty(0)
        start = cls(floor, knots, traits.min(axis=0), traits.max(axis=0), empty, empty, empty, empty, np.array([0, 0]))
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
    ) -> "IntervalModel":
        """The same with the scores of these pairs, of measures that nothing was fitted to."""
        estimate, width = self._expected(traits, predicted)
        scores = (exact - estimate) / width
        bins = int(np.clip(len(scores) // _IN_A_BIN, 1, _BINS))
        edges = np.quantile(predicted, np.arange(1, bins) / bins)
        bin_of = np.searchsorted(edges, predicted)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(bin_of, minlength=bins))]).astype(np.int64)
        ordered = scores[np.lexsort((scores, bin_of))]
        return replace(self, edges=edges, scores=ordered, offsets=offsets)

    def _bins(self) -> list[Float64[np.ndarray, " scores"]]:
        """The scores of each bin."""
        return np.split(self.scores, self.offsets[1:-1])

    @property
    def highest_level(self) -> float:
        """Of an interval that there are scores enough for: of n + 1 scores one lies beyond either end."""
        return 1 - 2 / (int(np.diff(self.offsets).min()) + 1)

    def estimate(
        self, traits: Float64[np.ndarray, "k traits"], predicted: Float64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, " k"]:
        """The exact distance that is expected."""
        return self._expected(traits, predicted)[0]

    def interval(
        self, level: float, traits: Float64[np.ndarray, "k traits"], predicted: Float64[np.ndarray, " k"]
    ) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
        """Lower and upper end, so that a share `level` of calibration pairs like these lies between.

        Raises:
            SettingError: a level outside (0, 1), or so high that it takes more calibration pairs.
        """
        if not 0 < level < 1:
            raise SettingError(f"interval={level}; give a share between 0 and 1, such as 0.9")
        tail = (1 - level) / 2
        if level > self.highest_level:
            fewest = int(np.diff(self.offsets).min())
            raise SettingError(
                f"interval={level} takes {int(np.ceil(1 / tail)) - 1:,} calibration pairs at each of "
                f"{len(self.edges) + 1} ranges of distance, and the model has {fewest:,}; give it more with "
                "embedder.calibrate(measures), or ask for a lower share"
            )
        estimate, width = self._expected(traits, predicted)
        ends = np.empty((len(self.edges) + 1, 2))
        for row, own in enumerate(self._bins()):
            place = (len(own) + 1) * tail - 1  # of n + 1 scores, the new one among them, a share `tail` is below
            ranks = np.arange(len(own))
            ends[row] = np.interp([place, len(own) - 1 - place], ranks, own)
        bin_of = np.searchsorted(self.edges, predicted)
        lower, upper = estimate + width * ends[bin_of, 0], estimate + width * ends[bin_of, 1]
        return np.maximum(lower, 0.0), np.maximum(upper, 0.0)

    def chance_below(
        self,
        threshold: Float64[np.ndarray, " k"],
        traits: Float64[np.ndarray, "k traits"],
        predicted: Float64[np.ndarray, " k"],
    ) -> Float64[np.ndarray, " k"]:
        """How likely the exact distance is below a threshold: the share of scores that say so.

        Beyond the lowest twentieth of the scores, where few are left to count, it falls off exponentially.
        """
        estimate, width = self._expected(traits, predicted)
        asked = (threshold - estimate) / width
        bin_of = np.searchsorted(self.edges, predicted)
        chance = np.empty(len(asked))
        for row, own in enumerate(self._bins()):
            here = bin_of == row
            tail = max(1, round(_TAIL * len(own)))
            edge = own[tail - 1]
            excess = max(float((edge - own[:tail]).mean()), 1e-3 * float(np.ptp(own)), np.finfo(float).tiny)
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
