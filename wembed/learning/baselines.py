"""Embeddings that need no training: what a learned one has to beat."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from wembed.euclidean import distances_of_pairs
from wembed.learning.calibration import fitted_scale
from wembed.learning.features import LinearTransport, SlicedQuantiles
from wembed.measures import Measures

__all__ = ["Embedding", "LinearOT", "SlicedWasserstein"]


@runtime_checkable
class Embedding(Protocol):
    """Anything that turns measures into vectors whose Euclidean distance stands for W_p, on the globe as its chord."""

    def transform(self, measures: Measures) -> np.ndarray:
        """One vector a measure."""
        ...


class SlicedWasserstein:
    """Sliced W_2 with one fitted scale, and the centroid beside it: a stand-in for euclidean W_2."""

    def __init__(self, dim: int, seed: int = 0) -> None:
        self.features = SlicedQuantiles.build(dim, seed)
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

    One exact solve a measure; the centroid stands beside the features, and one scale is fitted. It stands for
    euclidean W_2 alone.
    """

    def __init__(self, atoms: int = 64, seed: int = 0) -> None:
        self.atoms, self.seed, self.scale = atoms, seed, 1.0

    def fit(self, measures: Measures, pairs: np.ndarray, distances: np.ndarray) -> "LinearOT":
        """Place the reference atoms and fit the scale to exact distances."""
        self.features = LinearTransport.build(measures, self.atoms, self.seed)
        self.scale = _scale(self.features(measures), measures.centroids(), pairs, distances)
        return self

    def transform(self, measures: Measures) -> Float32[np.ndarray, "n features"]:
        """One vector a measure."""
        return _joined(self.features(measures), measures.centroids(), self.scale)


def _joined(features: np.ndarray, centroids: np.ndarray, scale: float) -> Float32[np.ndarray, "n features"]:
    return np.concatenate([features * np.float32(scale), centroids.astype(np.float32)], axis=1)


def _scale(
    features: np.ndarray, centroids: np.ndarray, pairs: Int64[np.ndarray, "k 2"], exact: Float64[np.ndarray, " k"]
) -> float:
    fixed = np.linalg.norm(centroids[pairs[:, 0]] - centroids[pairs[:, 1]], axis=1)
    return fitted_scale(distances_of_pairs(features, pairs), fixed, exact)
