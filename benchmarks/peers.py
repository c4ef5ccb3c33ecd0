"""Other ways to a number that stands for W_p, each fitted to the same solved pairs: what wembed is measured against."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from sklearn.linear_model import LinearRegression

from wembed import DistanceStore, Measures
from wembed.euclidean import distances_between
from wembed.learning.baselines import Embedding, LinearOT, SlicedWasserstein
from wembed.learning.features import SlicedQuantiles, directions_for, levels_for
from wembed.transport.pairs import Split

_ENOUGH = 2_000  # pairs for one scale
FEW = 1_000  # where a pair takes long


@dataclass(frozen=True, eq=False)
class Solved:
    """What every method may learn from: measures, the pairs that were solved, and their distances."""

    measures: Measures
    train_pairs: np.ndarray
    train: np.ndarray
    validation_pairs: np.ndarray
    validation: np.ndarray

    @classmethod
    def of(cls, measures: Measures, store: DistanceStore, split: Split) -> "Solved":
        """What a store holds of the train and of the validation part."""
        pairs, distances = store.pairs, store.distances
        train, validation = (np.isin(pairs, part).all(axis=1) for part in (split.train, split.validation))
        return cls(measures, pairs[train], distances[train], pairs[validation], distances[validation])


class Peer(Protocol):
    """A way to predict distances: fitted once, then asked for all pairs of unseen measures."""

    def fit(self, solved: Solved) -> None: ...

    def between(self, measures: Measures) -> np.ndarray:
        """Predicted distances (n, n)."""
        ...


@dataclass
class Vectors:
    """An embedding; the baselines take their one scale from the validation pairs, as wembed takes its own."""

    embedding: "LinearOT | SlicedWasserstein"

    def fit(self, solved: Solved) -> None:
        used, rows = np.unique(solved.validation_pairs[:_ENOUGH], return_inverse=True)
        self.embedding.fit(solved.measures[used], rows.reshape(-1, 2), solved.validation[:_ENOUGH])

    def between(self, measures: Measures) -> np.ndarray:
        return between_vectors(self.embedding, measures)


@dataclass
class Scaled:
    """Distances that are at hand for any measures, with one fitted scale."""

    unscaled: Callable[[Measures], np.ndarray]
    pairs: int = _ENOUGH  # that the scale is fitted to
    scale: float = 1.0

    def fit(self, solved: Solved) -> None:
        used, rows = np.unique(solved.validation_pairs[: self.pairs], return_inverse=True)
        found, exact = (
            self.unscaled(solved.measures[used])[tuple(rows.reshape(-1, 2).T)],
            solved.validation[: self.pairs],
        )
        self.scale = float((found @ exact) / (found @ found))

    def between(self, measures: Measures) -> np.ndarray:
        return self.scale * self.unscaled(measures)


def between_pixels(images: Measures) -> np.ndarray:
    """Euclidean distances between images as densities."""
    densities = images.histograms().astype(np.float32)
    return distances_between(densities, densities)


def between_centroids(measures: Measures) -> np.ndarray:
    centroids = measures.centroids().astype(np.float32)
    return distances_between(centroids, centroids)


def gelbrich(measures: Measures) -> np.ndarray:
    """W_2 of the Gaussians with the same means and covariances (Gelbrich 1990)."""
    centroids = measures.centroids()
    covariances = np.stack([_covariance(m.support, m.weights) for m in measures])
    roots = _root(covariances)
    traces = np.trace(covariances, axis1=1, axis2=2)
    squared = np.square(np.linalg.norm(centroids[:, None] - centroids, axis=2))
    for i, root in enumerate(roots):
        eigenvalues = np.linalg.eigvalsh(root @ covariances @ root)
        squared[i] += traces[i] + traces - 2 * np.sqrt(eigenvalues.clip(0)).sum(axis=1)
    return np.asarray(np.sqrt(squared.clip(0)))


@dataclass
class SlicedBounds:
    """W regressed linearly on lower and upper bounds that slices and means give: RG."""

    regression: LinearRegression = field(default_factory=lambda: LinearRegression(positive=True))

    def fit(self, solved: Solved) -> None:
        used, rows = np.unique(solved.train_pairs[:FEW], return_inverse=True)
        columns = self._bounds(solved.measures[used])[:, *rows.reshape(-1, 2).T]
        self.regression.fit(columns.T, solved.train[:FEW])

    def between(self, measures: Measures) -> np.ndarray:
        bounds = self._bounds(measures)
        return np.asarray(self.regression.predict(bounds.reshape(len(bounds), -1).T)).reshape(bounds.shape[1:])

    def _bounds(self, measures: Measures) -> np.ndarray:
        """Mean, most and least W_2 along a line, over directions; distance of the means; root of the spreads."""
        directions = directions_for(measures.dim, np.random.default_rng(0))
        levels = levels_for(len(directions))
        slices = SlicedQuantiles(directions, levels)(measures).reshape(len(measures), len(directions), levels)
        scale = (len(directions) / measures.dim) ** 0.5
        along = np.stack([scale * distances_between(rows, rows) for rows in slices.transpose(1, 0, 2).copy()])
        means = between_centroids(measures)
        spread = np.array([np.trace(_covariance(m.support, m.weights)) for m in measures])
        return np.stack(
            [
                np.sqrt(np.square(along).mean(axis=0)),
                along.max(axis=0),
                along.min(axis=0),
                means,
                np.sqrt(np.square(means) + spread[:, None] + spread),
            ]
        )


def between_vectors(embedding: Embedding, measures: Measures) -> np.ndarray:
    vectors = np.asarray(embedding.transform(measures), dtype=np.float32)
    return distances_between(vectors, vectors)


def _covariance(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mass = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    centred = points - mass @ points
    return np.asarray((centred * mass[:, None]).T @ centred)


def _root(matrices: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrices)
    return np.asarray((vectors * np.sqrt(values.clip(0))[:, None, :]) @ vectors.transpose(0, 2, 1))
