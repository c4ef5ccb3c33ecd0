"""Other ways to a number that stands for W_p, each fitted to the same solved pairs: what wembed is measured against."""

import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from sklearn.linear_model import LinearRegression

from wembed import DistanceStore, GroundCost, Measures
from wembed.euclidean import distances_between
from wembed.learning.baselines import Embedding, LinearOT, SlicedWasserstein
from wembed.learning.features import SlicedQuantiles
from wembed.transport.pairs import Split

_ENOUGH = 2_000  # pairs for one scale
FEW = 1_000  # where a pair takes long
_WORMHOLE_MEASURES = 2_000  # more than it gets to see in some minutes


@dataclass(frozen=True, eq=False)
class Solved:
    """What every method may learn from: measures in coordinates, the pairs that were solved, and their distances there.

    On the sphere these are chords, as wembed has them: what a method predicts is read as it reads its own vectors.
    """

    measures: Measures
    train_pairs: np.ndarray
    train: np.ndarray
    validation_pairs: np.ndarray
    validation: np.ndarray

    @classmethod
    def of(cls, measures: Measures, store: DistanceStore, split: Split, cost: GroundCost) -> "Solved":
        """What a store holds of the train and of the validation part."""
        pairs, distances = store.pairs, cost.to_euclidean(store.distances)
        train, validation = (np.isin(pairs, part).all(axis=1) for part in (split.train, split.validation))
        return cls(cost.coordinates(measures), pairs[train], distances[train], pairs[validation], distances[validation])


class Peer(Protocol):
    """A way to predict distances: fitted once, then asked for all pairs of unseen measures.

    Attributes:
        used: the solved pairs that it was fitted to.
    """

    used: int

    def fit(self, solved: Solved) -> None: ...

    def between(self, measures: Measures) -> np.ndarray:
        """Predicted distances (n, n)."""
        ...


@dataclass
class Vectors:
    """An embedding; the baselines take their one scale from the validation pairs, as wembed takes its own."""

    embedding: "LinearOT | SlicedWasserstein"
    used: int = 0

    def fit(self, solved: Solved) -> None:
        self.used = len(solved.validation[:_ENOUGH])
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
    used: int = 0

    def fit(self, solved: Solved) -> None:
        self.used = len(solved.validation[: self.pairs])
        used, rows = np.unique(solved.validation_pairs[: self.pairs], return_inverse=True)
        found, exact = (
            self.unscaled(solved.measures[used])[tuple(rows.reshape(-1, 2).T)],
            solved.validation[: self.pairs],
        )
        self.scale = float((found @ exact) / (found @ found))

    def between(self, measures: Measures) -> np.ndarray:
        return self.scale * self.unscaled(measures)


@dataclass
class Wormhole:
    """Wasserstein Wormhole with its defaults, trained on CPU JAX in an environment that is made for it.

    It solves its own pairs, with Sinkhorn, so that it is given as many seconds as another method took for all.

    Attributes:
        folder: where the environment and the files that pass to and fro are kept.
        seconds: of training, compilation included; to load its libraries comes on top.
        scale: brings its distances to the unit of the data.
    """

    folder: Path
    seconds: float
    scale: float = 1.0
    used: int = 0

    def fit(self, solved: Solved) -> None:
        self.used = len(solved.validation[:_ENOUGH])
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._python.exists():
            venv.create(self._python.parents[1], with_pip=True)
        if self._ran("-c", "import wassersteinwormhole") != 0:
            self._run("-m", "pip", "install", "--quiet", "wassersteinwormhole>=0.3.7,<0.4", "jax[cpu]")
        used = np.unique(solved.train_pairs)
        some = np.random.default_rng(0).permutation(used)[:_WORMHOLE_MEASURES]
        self._write(solved.measures[np.sort(some)], "known.npz")
        self._run(*self._call("train", "--seconds", f"{self.seconds:.0f}"))
        used, rows = np.unique(solved.validation_pairs[:_ENOUGH], return_inverse=True)
        vectors, exact = self._vectors(solved.measures[used]), solved.validation[:_ENOUGH]
        found = distances_between(vectors, vectors)[tuple(rows.reshape(-1, 2).T)]
        self.scale = float((found @ exact) / (found @ found))

    def between(self, measures: Measures) -> np.ndarray:
        vectors = self._vectors(measures)
        return self.scale * distances_between(vectors, vectors)

    def _vectors(self, measures: Measures) -> np.ndarray:
        self._write(measures, "asked.npz")
        self._run(*self._call("encode", "--measures", str(self.folder / "asked.npz"), "--out", str(self._out)))
        return np.asarray(np.load(self._out), dtype=np.float32)

    def _write(self, measures: Measures, name: str) -> None:
        np.savez(self.folder / name, points=measures.points(), weights=measures.weights, offsets=measures.offsets)

    def _call(self, verb: str, *options: str) -> list[str]:
        files = ["--known", str(self.folder / "known.npz"), "--weights", str(self.folder / "weights.msgpack")]
        return [str(Path(__file__).with_name("wormhole.py")), verb, *files, *options]

    def _run(self, *arguments: str) -> None:
        subprocess.run([self._python, *arguments], check=True, stdout=sys.stderr)

    def _ran(self, *arguments: str) -> int:
        return subprocess.run([self._python, *arguments], stderr=subprocess.DEVNULL).returncode

    @property
    def _python(self) -> Path:
        return self.folder / "environment" / "bin" / "python"

    @property
    def _out(self) -> Path:
        return self.folder / "vectors.npy"


def between_pixels(images: Measures) -> np.ndarray:
    """Euclidean distances between images as densities."""
    densities = images.histograms().astype(np.float32)
    return distances_between(densities, densities)


def between_centroids(measures: Measures) -> np.ndarray:
    centroids = measures.centroids().astype(np.float32)
    return distances_between(centroids, centroids)


def between_directions(measures: Measures) -> np.ndarray:
    """Chords between the centroids of measures on a sphere, put back on it."""
    centroids = measures.centroids()
    directions = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    directions *= np.linalg.norm(measures.support[0])
    return distances_between(directions.astype(np.float32), directions.astype(np.float32))


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
    used: int = 0

    def fit(self, solved: Solved) -> None:
        self.used = len(solved.train[:FEW])
        used, rows = np.unique(solved.train_pairs[:FEW], return_inverse=True)
        columns = self._bounds(solved.measures[used])[:, *rows.reshape(-1, 2).T]
        self.regression.fit(columns.T, solved.train[:FEW])

    def between(self, measures: Measures) -> np.ndarray:
        bounds = self._bounds(measures)
        return np.asarray(self.regression.predict(bounds.reshape(len(bounds), -1).T)).reshape(bounds.shape[1:])

    def _bounds(self, measures: Measures) -> np.ndarray:
        """Mean, most and least W_2 along a line, over directions; distance of the means; root of the spreads."""
        features = SlicedQuantiles.build(measures.dim, 0)
        directions = len(features.directions)
        slices = features(measures).reshape(len(measures), directions, features.levels)
        scale = (directions / measures.dim) ** 0.5
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
