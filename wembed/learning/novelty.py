"""How unlike the training measures a measure is."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64

from wembed.euclidean import distances_between, product
from wembed.measures import Measures, blocks_of_atoms

__all__ = ["Novelty"]

_AXES = 128
_KEPT = 1_000  # training measures
_NEAREST = 5
_ENOUGH = 100  # typical measures
_ALLOWANCE = 1.5  # where there are fewer
_TYPICAL, _RARE = 0.5, 0.99
_TRAITS = 3  # of the shape, that are axes as well
_OF_ATOMS = 2  # the first of them: what atoms a measure is written in, and not how it lies
_LEAST_GAP = 1e-3  # between typical and rare, in spreads of the training measures
_LEAST_SPREAD = 0.05  # of a trait, lest the least difference be strange
_RATIOS = 3  # of variances along the principal axes of a measure
_LEAST_RATIO = 1e-6
_FEW_DIMENSIONS = 8  # whose covariances are quicker taken for all measures at once
_BLOCK_NUMBERS = 1 << 22  # in the points that are looked at in one go


@dataclass(frozen=True, eq=False)
class Novelty:
    """The greater of two scores: far from all training measures, or of a shape that hardly any of them has.

    Far from them: the mean distance to the nearest, on the leading axes of the embedding. Each axis is divided by the
    root of its standard deviation, so that what varies little weighs more than in W_p and less than in Mahalanobis's
    distance. Three traits of the shape are axes too, for the vector of a strange measure may not show them: the
    logarithms of the number of atoms, and of the number of atoms of equal mass that would be as concentrated; and the
    root mean square distance of the mass to its centroid.

    Of a rare shape: the trait that is farthest out, of the radius, how lopsided a measure is, how much of its mass is
    far out, and how thin it is, by the variances along its principal axes: one trait of many that is out of all range
    moves a measure little, and its predictions a lot.

    Attributes:
        mean: of the training vectors; of longer vectors the first numbers are looked at.
        axes: principal axes, divided as said.
        known: places of training measures.
        shapes: their traits.
        trait_mean: of the first three traits.
        trait_scale: what they are multiplied by.
        middle: median of each trait.
        below: from there to the lowest hundredth.
        above: from there to the highest hundredth.
        typical: medians over unseen measures like the training ones, of the two scores and of the greater one.
        rare: 99th percentiles over them.
    """

    mean: Float32[np.ndarray, " dim"]
    axes: Float32[np.ndarray, "dim axes"]
    known: Float32[np.ndarray, "kept places"]
    shapes: Float64[np.ndarray, "shown traits"]
    trait_mean: Float64[np.ndarray, " 3"]
    trait_scale: Float64[np.ndarray, " 3"]
    middle: Float64[np.ndarray, " traits"]
    below: Float64[np.ndarray, " traits"]
    above: Float64[np.ndarray, " traits"]
    typical: Float64[np.ndarray, " 3"]
    rare: Float64[np.ndarray, " 3"]

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
        shapes = _shapes(measures)
        traits = shapes[:, :_TRAITS]
        # One standard deviation of a trait moves a measure twice as far as one along the leading axis.
        unit = 2 * float(deviations.max(initial=0.0)) ** 0.5 or 1.0
        scale = unit / np.maximum(traits.std(axis=0), _least_spread(shapes)[:_TRAITS])
        none = np.empty((0, axes.shape[1] + _TRAITS), np.float32)
        empty = np.zeros(shapes.shape[1])
        start = cls(
            mean=mean,
            axes=axes.astype(np.float32),
            known=none,
            shapes=shapes[:_KEPT],
            trait_mean=traits.mean(axis=0),
            trait_scale=scale,
            middle=empty,
            below=empty,
            above=empty,
            typical=np.zeros(3),
            rare=np.ones(3),
        )
        return replace(start, known=start._places(shapes, vectors)[:_KEPT])

    def calibrated(self, measures: Measures, vectors: Float32[np.ndarray, "n dim"]) -> "Novelty":
        """The same, these measures being typical ones that it has not seen.

        Where they are too few to tell what a hundredth is, the training measures are asked too, each about the others,
        and allowed for being nearer to each other than unseen ones are.
        """
        shapes = _shapes(measures)
        every = np.concatenate([self.shapes, shapes])
        low, middle, high = np.quantile(every, [1 - _RARE, _TYPICAL, _RARE], axis=0)
        least = _least_spread(every)
        ranged = replace(
            self, middle=middle, below=np.maximum(middle - low, least), above=np.maximum(high - middle, least)
        )
        scores = ranged._scores(shapes, vectors)
        few = len(scores) < _ENOUGH
        if few:
            own = np.stack([self._mean_of_nearest(self.known, itself=True), ranged._out_of_range(self.shapes)], axis=1)
            scores = np.concatenate([scores, own])
        typical, rare = np.quantile(scores, [_TYPICAL, _RARE], axis=0)
        rare += (_ALLOWANCE - 1) * (rare - typical) if few else 0.0
        spread = float(self.known.std(axis=0).max(initial=0.0)) or 1.0
        rare = np.maximum(rare, [typical[0] + _LEAST_GAP * spread, max(typical[1] + _LEAST_SPREAD, 1.0)])
        greater = _greater(scores, typical, rare)
        return replace(
            ranged,
            typical=np.append(typical, np.quantile(greater, _TYPICAL)),
            rare=np.append(rare, max(float(np.quantile(greater, _RARE)), 1.0)),
        )

    def __call__(self, measures: Measures, vectors: Float32[np.ndarray, "n dim"]) -> Float64[np.ndarray, " n"]:
        """Unusualness: 0 for a typical measure, 1 for the most unusual hundredth of those like the training ones."""
        greater = _greater(self._scores(_shapes(measures), vectors), self.typical[:2], self.rare[:2])
        return _scaled(greater, self.typical[2], self.rare[2])

    def _scores(self, shapes: np.ndarray, vectors: np.ndarray) -> Float64[np.ndarray, "n 2"]:
        near = self._mean_of_nearest(self._places(shapes, vectors), itself=False)
        return np.stack([near, self._out_of_range(shapes)], axis=1)

    def _out_of_range(self, shapes: np.ndarray) -> Float64[np.ndarray, " n"]:
        """How far out the trait is that is farthest out: 1 at the most extreme hundredth."""
        beyond = np.maximum((shapes - self.middle) / self.above, (self.middle - shapes) / self.below)
        return np.asarray(beyond[:, _OF_ATOMS:].max(axis=1))

    def _mean_of_nearest(self, places: np.ndarray, *, itself: bool) -> Float64[np.ndarray, " n"]:
        """Mean distance to the nearest known places, a place itself left out where it is among them."""
        nearest = min(_NEAREST + itself, len(self.known))
        found = np.empty(len(places))
        for start in range(0, len(places), _KEPT):
            far = distances_between(places[start : start + _KEPT], self.known)
            found[start : start + _KEPT] = np.partition(far, nearest - 1, axis=1)[:, :nearest].sum(axis=1)
        return found / max(nearest - itself, 1)

    def _places(self, shapes: np.ndarray, vectors: np.ndarray) -> Float32[np.ndarray, "n places"]:
        traits = (shapes[:, :_TRAITS] - self.trait_mean) * self.trait_scale
        return np.concatenate(
            [product(vectors[:, : len(self.mean)] - self.mean, self.axes), traits.astype(np.float32)], axis=1
        )


def _greater(scores: np.ndarray, typical: np.ndarray, rare: np.ndarray) -> Float64[np.ndarray, " n"]:
    near = (scores[:, 0] - typical[0]) / (rare[0] - typical[0])
    return np.asarray(np.maximum(near, _scaled(scores[:, 1], typical[1], rare[1])))


def _scaled(score: np.ndarray, typical: float, rare: float) -> Float64[np.ndarray, " n"]:
    """From 0 where it is typical to 1 where it is rare; beyond, in multiples of what is rare.

    The greatest of several traits is nearly as far out in a typical measure as in a rare one: by the step between the
    two, what is half as far out again would seem many times as far.
    """
    return np.asarray(np.where(score < rare, (score - typical) / (rare - typical), score / rare))


def _least_spread(shapes: np.ndarray) -> Float64[np.ndarray, " traits"]:
    least = np.full(shapes.shape[1], _LEAST_SPREAD)
    least[_TRAITS - 1] *= float(shapes[:, _TRAITS - 1].mean()) or 1.0
    return least


def _shapes(measures: Measures) -> Float64[np.ndarray, "n traits"]:
    """Atoms, concentration, radius; kurtosis, lopsidedness; ratios of deviations along the principal axes."""
    ratios = min(measures.dim - 1, _RATIOS)
    found = np.empty((len(measures), _TRAITS + 2 + ratios))
    for rows, _ in blocks_of_atoms(measures.offsets, _BLOCK_NUMBERS // measures.dim):
        found[rows] = _shapes_of_block(measures[rows], ratios)
    return found


def _shapes_of_block(measures: Measures, ratios: int) -> Float64[np.ndarray, "n traits"]:
    starts, weights = measures.offsets[:-1], measures.weights
    concentration = np.add.reduceat(np.square(weights), starts)
    centred = measures.points() - np.repeat(measures.centroids(), measures.sizes, axis=0)
    square = np.einsum("ad,ad->a", centred, centred)
    variance = np.add.reduceat(weights * square, starts)
    safe = np.where(variance > 0, variance, 1.0)
    scaled = square / np.repeat(safe, measures.sizes)
    far_out = np.where(variance > 0, np.add.reduceat(weights * scaled**2, starts), 1.0)
    lopsided = np.linalg.norm(np.add.reduceat((weights * scaled)[:, None] * centred, starts, axis=0), axis=1)
    along = _variances(measures, centred, ratios + 1) / safe[:, None]
    thin = np.log(along[:, 1:] / np.maximum(along[:, :1], np.finfo(float).tiny) + _LEAST_RATIO) / 2
    traits = [np.log(measures.sizes), -np.log(concentration), np.sqrt(variance)]
    return np.column_stack([*traits, np.log(far_out), lopsided / np.sqrt(safe), thin])


def _variances(measures: Measures, centred: np.ndarray, count: int) -> Float64[np.ndarray, "n count"]:
    """Along the first principal axes of each measure, the largest first."""
    dim, weights = centred.shape[1], measures.weights
    if dim <= _FEW_DIMENSIONS:
        covariance = np.empty((len(measures), dim, dim))
        for a in range(dim):
            for b in range(a + 1):
                moment = np.add.reduceat(weights * centred[:, a] * centred[:, b], measures.offsets[:-1])
                covariance[:, a, b] = covariance[:, b, a] = moment
        return np.asarray(np.maximum(np.linalg.eigvalsh(covariance)[:, ::-1][:, :count], 0.0))
    found = np.zeros((len(measures), count))
    spread = centred * np.sqrt(weights)[:, None]
    for row, (start, stop) in enumerate(zip(measures.offsets[:-1], measures.offsets[1:], strict=True)):
        own = spread[start:stop]
        gram = own @ own.T if len(own) < dim else own.T @ own
        values = np.linalg.eigvalsh(gram)[::-1][:count]
        found[row, : len(values)] = np.maximum(values, 0.0)
    return found
