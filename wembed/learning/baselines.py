"""Embeddings that need no training: what a learned one has to beat."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from wembed.euclidean import paired_distances
from wembed.learning.calibration import fitted_scale
from wembed.learning.features import SlicedQuantiles, directions_for, levels_for
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.exact import solve

__all__ = ["Embedding", "LinearOT", "SlicedWasserstein"]


@runtime_checkable
class Embedding(Protocol):
    """Anything that turns measures into vectors whose Euclidean distance stands for W_p."""

    def transform(self, measures: Measures) -> np.ndarray:
        """One vector a measure."""
        ...


class SlicedWasserstein:
    """Sliced W_2 with one fitted scale, and the centroid beside it: a stand-in for euclidean W_2."""

    def __init__(self, dim: int, seed: int = 0) -> None:
        directions = directions_for(dim, np.random.default_rng(seed))
        self.features = SlicedQuantiles(directions, levels_for(len(directions)))
        self.scale = 1.0

    def fit(self, measures: Measures, pairs: np.ndarray, distances: np.ndarray) -> "SlicedWasserstein":
        """Fit the scale to exact distances."""
        self.scale = _scale(self.features(measures), measures.centroids(), pairs, distances)
        return self

    def transform(self, measures: Measures) -> Float32[np.ndarray, "n features"]:
        """One vector a measure."""
        return _joined(self.features(measures), measures.centroids(), self.scale)


class LinearOT:
    """Linear optimal transport (Wang et al. 2013): where the optimal map sends each atom of a fixed reference.

    The reference is the k-means centres of the centred atoms of the measures given to `fit`. One exact solve a measure;
    the coupling is turned into a map by barycentric projection, the centroid stands beside it, and one scale is fitted.
    It stands for euclidean W_2 alone.
    """

    def __init__(self, atoms: int = 64, seed: int = 0) -> None:
        self.atoms, self.seed, self.scale = atoms, seed, 1.0
        self.reference = np.empty((0, 0))

    def fit(self, measures: Measures, pairs: np.ndarray, distances: np.ndarray) -> "LinearOT":
        """Place the reference atoms and fit the scale to exact distances."""
        from sklearn.cluster import KMeans  # imported late: heavy

        rng = np.random.default_rng(self.seed)
        chosen = measures[np.sort(rng.permutation(len(measures))[:300])]
        points = chosen.points() - np.repeat(chosen.centroids(), chosen.sizes, axis=0)
        distinct = len(np.unique(points, axis=0))
        clusters = KMeans(min(self.atoms, distinct), n_init=1, random_state=self.seed)
        self.reference = clusters.fit(points, sample_weight=chosen.weights).cluster_centers_
        self.scale = _scale(self.features(measures), measures.centroids(), pairs, distances)
        return self

    def features(self, measures: Measures) -> Float32[np.ndarray, "n features"]:
        """sqrt(mass) times the place to which each reference atom is sent, for the centred measures."""
        count = len(self.reference)
        images = np.empty((len(measures), count, measures.dim), dtype=np.float32)
        for row, (measure, centroid) in enumerate(zip(measures, measures.centroids(), strict=True)):
            pair = Measures.from_point_clouds(
                [self.reference, measure.support - centroid], [np.full(count, 1 / count), measure.weights]
            )
            images[row] = (solve(pair, 0, 1, GroundCost()).coupling @ pair[1].support) * np.sqrt(count)
        return images.reshape(len(measures), -1)

    def transform(self, measures: Measures) -> Float32[np.ndarray, "n features"]:
        """One vector a measure."""
        return _joined(self.features(measures), measures.centroids(), self.scale)


def _joined(features: np.ndarray, centroids: np.ndarray, scale: float) -> Float32[np.ndarray, "n features"]:
    return np.concatenate([features * np.float32(scale), centroids.astype(np.float32)], axis=1)


def _scale(
    features: np.ndarray, centroids: np.ndarray, pairs: Int64[np.ndarray, "k 2"], exact: Float64[np.ndarray, " k"]
) -> float:
    fixed = np.linalg.norm(centroids[pairs[:, 0]] - centroids[pairs[:, 1]], axis=1)
    return fitted_scale(paired_distances(features[pairs[:, 0]], features[pairs[:, 1]]).astype(float), fixed, exact)
