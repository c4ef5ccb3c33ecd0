"""Encodings: what turns measures into vectors, one class for each encoder that an Embedder can have."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32
from torch import nn

from wembed.errors import MeasureError, SettingError
from wembed.learning.augmentation import distorted
from wembed.learning.encoders import AuxiliaryHead, DWEEncoder, QuantileEncoder
from wembed.learning.features import LinearTransport, Pixels, SlicedQuantiles, directions_for, levels_for
from wembed.learning.losses import Loss, distance_error, squared_distance_error
from wembed.learning.training import Auxiliary
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress, work_of

__all__ = ["ENCODINGS", "Encoding", "PixelEncoding", "QuantileEncoding"]

_COPIES = 3  # of the features, for training
_COPY_BYTES = 400_000_000
_REFERENCE_ATOMS = 64
_AUXILIARY_MEASURES = 60_000
_AUXILIARY_BYTES = 400_000_000
_AUXILIARY_TARGETS = 128
_LEAST_VARIANCE = 1e-6  # in units of a typical distance, squared: below there is nothing to learn


class Encoding(ABC):
    """From measures to vectors: the encoder, what it is shown, and the coordinates that stand beside its output.

    Attributes:
        cost: the ground cost that distances between vectors stand for.
        module: the encoder.
        dim: length of the vectors.
        exact_dim: how many of their numbers are not learned.
        loss: what the encoder is trained on.
        kind: the name of the features in a saved model.
    """

    kind: ClassVar[str]
    loss: Loss
    cost: GroundCost
    module: nn.Module
    dim: int
    exact_dim: int = 0

    @classmethod
    @abstractmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int, seed: int) -> "Encoding":
        """An untrained encoding for measures like these."""

    @classmethod
    @abstractmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "Encoding":
        """The encoding that `description` and `arrays` were taken from, its encoder without weights yet."""

    @staticmethod
    @abstractmethod
    def check_collection(measures: Measures) -> None:
        """Refuse, before anything is solved, measures that this kind of encoder cannot learn from.

        Raises:
            SettingError: the message names another encoder.
        """

    @abstractmethod
    def check(self, measures: Measures) -> None:
        """Refuse measures unlike those that the encoder was built for.

        Raises:
            MeasureError: another dimension, or images of another shape.
            SettingError: measures that the ground cost is not defined on.
        """

    @abstractmethod
    def inputs(self, measures: Measures, unit: float) -> Float32[np.ndarray, "n *shape"]:
        """What the encoder sees of each measure, lengths in units of a typical distance."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a saved model says of the features."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What to save beside the encoder's weights."""

    def start_from(self, inputs: np.ndarray) -> None:  # noqa: B027  most encoders start at random
        """Set the encoder's starting point from what it will see of the training measures."""

    def copies(self, measures: Measures, unit: float, seed: int) -> Float32[np.ndarray, "copies n *shape"]:
        """The inputs as they are, and after isometries that move all measures alike, for training."""
        return self.inputs(measures, unit)[None]

    def auxiliary(
        self, measures: Measures, unit: float, pairs: int, seed: int, n_jobs: int, progress: Progress | None
    ) -> Auxiliary | None:
        """A second task for the encoder, from training measures; None where there is none.

        Args:
            measures: of the train part.
            unit: a typical distance.
            pairs: how many training pairs were solved: the task may cost half as much.
            seed: draws what is random.
            n_jobs: processes, or -1 for one a core.
            progress: called with what is done and what there is to do.
        """
        return None

    def exact_part(self, measures: Measures) -> Float32[np.ndarray, "n exact"]:
        """The coordinates that stand beside the encoder's output."""
        return np.empty((len(measures), 0), dtype=np.float32)


class QuantileEncoding(Encoding):
    """Sliced quantiles of the centred measure; for euclidean W_2 the centroid stands beside what is learned of them.

    Measures under another metric are laid out in coordinates first. Those of a cost matrix are kept and not found
    again: eigenvectors may come out turned on another machine.
    """

    kind = "sliced quantiles"
    module: QuantileEncoder

    def __init__(
        self, cost: GroundCost, features: SlicedQuantiles, centre: np.ndarray, dim: int, places: np.ndarray | None
    ) -> None:
        self.cost, self.features, self.dim = cost, features, dim
        self.centre = centre  # subtracted from centroids, so that float32 keeps their digits
        self.places = places
        self.exact_dim = len(centre) if cost.splits_translation and dim > len(centre) else 0
        size = features.size + (0 if self.exact_dim else len(centre))
        self.module = QuantileEncoder(size, dim - self.exact_dim)
        self.loss = distance_error

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int, seed: int) -> "QuantileEncoding":
        placed = cost.coordinates(training)
        directions = directions_for(placed.dim, np.random.default_rng(seed))
        features = SlicedQuantiles(directions, levels_for(len(directions)))
        places = None if isinstance(cost.metric, str) else placed.support
        return cls(cost, features, placed.centroids().mean(axis=0), dim, places)

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "QuantileEncoding":
        features = SlicedQuantiles(arrays["directions"], description["levels"])
        return cls(cost, features, arrays["centre"], dim, arrays.get("places"))

    @staticmethod
    def check_collection(measures: Measures) -> None:
        """Any measures will do."""

    def check(self, measures: Measures) -> None:
        self.cost.check(measures)
        if isinstance(self.cost.metric, str):
            expected = 2 if self.cost.metric.startswith("great-circle") else len(self.centre)
            if measures.dim != expected:
                raise MeasureError(f"the measures have dimension {measures.dim}; this model was fitted on {expected}")

    def inputs(self, measures: Measures, unit: float) -> Float32[np.ndarray, "n features"]:
        return self._seen(self._placed(measures), unit)

    def copies(self, measures: Measures, unit: float, seed: int) -> Float32[np.ndarray, "copies n features"]:
        placed = self._placed(measures)
        size = len(measures) * (self.features.size + len(self.centre)) * 4
        count = int(max(1, min(_COPIES, _COPY_BYTES // size)))
        maps = self.cost.isometries(placed.dim, count, np.random.default_rng([seed, 3]))
        copies = np.empty((len(maps), len(measures), self.module.linear.in_features), dtype=np.float32)
        for copy, turn in zip(copies, maps, strict=True):
            moved = (placed.support - self.centre) @ turn.T + self.centre
            copy[...] = self._seen(replace(placed, support=moved), unit)
        return copies

    def start_from(self, inputs: np.ndarray) -> None:
        self.module.start_from(inputs)

    def auxiliary(
        self, measures: Measures, unit: float, pairs: int, seed: int, n_jobs: int, progress: Progress | None
    ) -> Auxiliary | None:
        """Linear optimal transport to one reference, of the measures and of distorted ones.

        It takes one solve a measure, not a pair, and tells of the measure what slices don't. On a line they tell all.
        """
        placed = self._placed(measures)
        if placed.dim == 1:
            return None
        transport = LinearTransport.build(placed, _REFERENCE_ATOMS, seed)
        atoms, reference = np.array([placed.sizes.mean()]), np.array([len(transport.reference)])
        affordable = int(pairs * float(work_of(atoms, atoms)[0] / work_of(atoms, reference)[0]) / 2)
        shown = self.module.linear.in_features
        numbers = shown + transport.reference.size + 4 * placed.dim * int(atoms[0])
        count = min(affordable, _AUXILIARY_MEASURES, _AUXILIARY_BYTES // (4 * numbers))
        if count < 2 * shown:  # a linear map of the features would do it all
            return None
        known = placed[np.sort(np.random.default_rng([seed, 5]).permutation(len(placed))[:count])]
        if count > len(known):
            known = Measures.concatenate([known, distorted(placed, count - len(known), seed)])
        features = self._seen(known, unit)
        targets = _principal(transport(known, n_jobs, progress) / np.float32(unit), _AUXILIARY_TARGETS)
        if targets.var(axis=0).sum() < _LEAST_VARIANCE:
            return None
        return Auxiliary(AuxiliaryHead(self.module, features, targets), features, targets)

    def exact_part(self, measures: Measures) -> Float32[np.ndarray, "n exact"]:
        """Centroids: W_2^2 = |difference of means|^2 + W_2^2 of the centred measures."""
        if not self.exact_dim:
            return super().exact_part(measures)
        return np.asarray(measures.centroids() - self.centre, dtype=np.float32)

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "levels": self.features.levels}

    def arrays(self) -> dict[str, np.ndarray]:
        fixed = {"centre": self.centre, "directions": self.features.directions}
        return fixed if self.places is None else fixed | {"places": self.places}

    def _placed(self, measures: Measures) -> Measures:
        return self.cost.coordinates(measures) if self.places is None else replace(measures, support=self.places)

    def _seen(self, placed: Measures, unit: float) -> np.ndarray:
        features: np.ndarray = self.features(placed)
        if not self.exact_dim:
            features = np.concatenate([features, (placed.centroids() - self.centre).astype(np.float32)], axis=1)
        features /= np.float32(unit)
        return features


class PixelEncoding(Encoding):
    """The image as it is, for the network of the method's paper."""

    kind = "pixels"

    def __init__(self, cost: GroundCost, grid: tuple[int, ...], dim: int) -> None:
        self.cost, self.features, self.dim = cost, Pixels(grid), dim
        self.module = DWEEncoder(grid, dim)
        self.loss = squared_distance_error

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int, seed: int) -> "PixelEncoding":
        assert training.grid is not None  # check_collection has seen to it
        return cls(cost, training.grid, dim)

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "PixelEncoding":
        return cls(cost, tuple(description["grid"]), dim)

    @staticmethod
    def check_collection(measures: Measures) -> None:
        if measures.grid is None or len(measures.grid) != 2:
            raise SettingError("the dwe encoder takes images in the plane; for other measures use encoder='quantiles'")

    def check(self, measures: Measures) -> None:
        self.cost.check(measures)
        self.features(measures[:0])

    def inputs(self, measures: Measures, unit: float) -> Float32[np.ndarray, "n *grid"]:
        return self.features(measures)

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "grid": self.features.grid}

    def arrays(self) -> dict[str, np.ndarray]:
        return {}


def _principal(rows: Float32[np.ndarray, "n t"], most: int) -> Float32[np.ndarray, "n k"]:
    """The rows, or where they are long their coordinates along the axes of most variance."""
    if rows.shape[1] <= most:
        return rows
    centred = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(centred @ axes[:, -most:])


ENCODINGS: dict[str, type[Encoding]] = {"quantiles": QuantileEncoding, "dwe": PixelEncoding}
