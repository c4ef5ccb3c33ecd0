"""How unlike the training measures a measure is."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from wembed.euclidean import distances_between
from wembed.measures import Measures

__all__ = ["Novelty"]

_AXES = 128
_KEPT = 1_000  # training measures
_NEAREST = 5
_ENOUGH = 100  # typical measures
_ALLOWANCE = 1.5  # where there are fewer
_TYPICAL, _RARE = 0.5, 0.99
_TRAITS = 3
_LEAST_GAP = 1e-3  # between typical and rare, in spreads of the training measures
_LEAST_SPREAD = 0.05  # of a trait, lest the least difference be strange


@dataclass(frozen=True, eq=False)
class Novelty:
    """Distance to the nearest training measures, on the leading axes of the embedding.

    Each axis is divided by the root of its standard deviation, so that what varies little weighs more than in W_p and
    less than in Mahalanobis's distance. Three more axes say what the vector of a strange measure may not show: the
    logarithms of the number of atoms, and of the number of atoms of equal mass that would be as concentrated; and the
    root mean square distance of the mass to its centroid.

    Attributes:
        mean: of the training vectors; of longer vectors the first numbers are looked at.
        axes: principal axes, divided as said.
        known: places of training measures.
        trait_mean: of these traits of the training measures.
        trait_scale: what they are multiplied by.
        typical: median over unseen measures like the training ones.
        rare: 99th percentile over them.
    """

    mean: Float32[np.ndarray, " dim"]
    axes: Float32[np.ndarray, "dim axes"]
    known: Float32[np.ndarray, "kept places"]
    trait_mean: Float64[np.ndarray, " traits"]
    trait_scale: Float64[np.ndarray, " traits"]
    typical: float = 0.0
    rare: float = 1.0

    @classmethod
    def fit(cls, measures: Measures, vectors: Float32[np.ndarray, "n dim"]) -> "Novelty":
        """Remember some of the training measures; `calibrated` sets what is typical."""
        mean = vectors.mean(axis=0)
        centred = (vectors - mean).astype(np.float64)
        values, left = np.linalg.eigh(centred @ centred.T / len(centred))
        kept = np.flatnonzero(values > 1e-9 * max(float(values[-1]), np.finfo(float).tiny))[-_AXES:]
        deviations = np.sqrt(values[kept])
        axes = centred.T @ (left[:, kept] / (deviations * len(centred) ** 0.5))
        axes /= np.sqrt(deviations)
        traits = _traits(measures)
        # One standard deviation of a trait moves a measure twice as far as one along the leading axis.
        unit = 2 * float(deviations.max(initial=0.0)) ** 0.5 or 1.0
        least = _LEAST_SPREAD * np.array([1.0, 1.0, float(traits[:, 2].mean()) or 1.0])
        scale = unit / np.maximum(traits.std(axis=0), least)
        started = cls(
            mean,
            axes.astype(np.float32),
            np.empty((0, axes.shape[1] + _TRAITS), np.float32),
            traits.mean(axis=0),
            scale,
        )
        return replace(started, known=started._places(measures, vectors)[:_KEPT])

    def calibrated(self, measures: Measures, vectors: Float32[np.ndarray, "n dim"]) -> "Novelty":
        """The same, these measures being typical ones that it has not seen.

        Where they are too few to tell what a hundredth is, the training measures are asked too, each about the others,
        and allowed for being nearer to each other than unseen ones are.
        """
        raw = self._raw(measures, vectors)
        few = len(raw) < _ENOUGH
        if few:
            raw = np.concatenate([raw, self._mean_of_nearest(self.known, itself=True)])
        typical, rare = np.quantile(raw, [_TYPICAL, _RARE])
        rare += (_ALLOWANCE - 1) * (rare - typical) if few else 0.0
        spread = float(self.known.std(axis=0).max(initial=0.0)) or 1.0
        return replace(self, typical=float(typical), rare=float(max(rare, typical + _LEAST_GAP * spread)))

    def __call__(self, measures: Measures, vectors: Float32[np.ndarray, "n dim"]) -> Float64[np.ndarray, " n"]:
        """Unusualness: 0 for a typical measure, 1 for the most unusual hundredth of those like the training ones."""
        return (self._raw(measures, vectors) - self.typical) / (self.rare - self.typical)

    def _raw(self, measures: Measures, vectors: np.ndarray) -> Float64[np.ndarray, " n"]:
        return self._mean_of_nearest(self._places(measures, vectors), itself=False)

    def _mean_of_nearest(self, places: np.ndarray, *, itself: bool) -> Float64[np.ndarray, " n"]:
        """Mean distance to the nearest known places, a place itself left out where it is among them."""
        nearest = min(_NEAREST + itself, len(self.known))
        found = np.empty(len(places))
        for start in range(0, len(places), _KEPT):
            far = distances_between(places[start : start + _KEPT], self.known)
            found[start : start + _KEPT] = np.partition(far, nearest - 1, axis=1)[:, :nearest].sum(axis=1)
        return found / max(nearest - itself, 1)

    def _places(self, measures: Measures, vectors: np.ndarray) -> Float32[np.ndarray, "n places"]:
        traits = (_traits(measures) - self.trait_mean) * self.trait_scale
        return np.concatenate(
            [(vectors[:, : len(self.mean)] - self.mean) @ self.axes, traits.astype(np.float32)], axis=1
        )


def _traits(measures: Measures) -> Float64[np.ndarray, "n traits"]:
    if len(measures) == 0:
        return np.empty((0, _TRAITS))
    starts = measures.offsets[:-1]
    concentration = np.add.reduceat(np.square(measures.weights), starts)
    centred = measures.points() - np.repeat(measures.centroids(), measures.sizes, axis=0)
    radius = np.sqrt(np.add.reduceat(measures.weights * np.einsum("ad,ad->a", centred, centred), starts))
    return np.stack([np.log(measures.sizes), -np.log(concentration), radius], axis=1)
