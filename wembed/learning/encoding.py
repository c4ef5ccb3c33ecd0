"""Encoding: what turns measures into vectors, and what each kind of it has to tell a fit."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Float32, Float64
from torch import nn

from wembed.learning.losses import Loss
from wembed.learning.training import USUAL_PAIRS, Auxiliary, Examples
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress

__all__ = ["Encoding"]


class Encoding(ABC):
    """From measures to vectors: the encoder, what it is shown, and the coordinates that stand beside its output.

    Attributes:
        cost: the ground cost that distances between vectors stand for.
        module: the encoder.
        dim: length of the vectors.
        exact_dim: how many of their numbers are not learned.
        loss: what the encoder is trained on.
        kind: its name in ENCODINGS and in a saved model.
        steps: of training at 16,000 pairs, unless the settings say otherwise; they grow with the square root.
        learning_rate: at 16,000 pairs, unless the settings say otherwise.
        batch_pairs: in a step, from 16,000 pairs on, unless the settings say otherwise.
        waits_from: measures that take a second or two to encode.
        learns_short: vectors of any length are learned from the start; else they are shortened afterwards.
    """

    kind: ClassVar[str]
    steps: ClassVar[int] = 2_000
    learning_rate: ClassVar[float] = 2e-3
    batch_pairs: ClassVar[int] = 1_792
    waits_from: ClassVar[int] = 16_000
    learns_short: ClassVar[bool] = True
    loss: Loss
    cost: GroundCost
    module: nn.Module
    dim: int
    exact_dim: int = 0

    @classmethod
    @abstractmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "Encoding":
        """An untrained encoding for measures like these; without `dim`, of the length that suits them."""

    @classmethod
    @abstractmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "Encoding":
        """The encoding that `description` and `arrays` were taken from, its encoder without weights yet."""

    @staticmethod
    @abstractmethod
    def check_collection(cost: GroundCost, measures: Measures) -> None:
        """Refuse, before anything is solved, measures that this kind of encoder cannot learn from.

        Raises:
            SettingError: the message names another encoder.
        """

    @property
    def starts_near(self) -> bool:
        """Whether the start is so near that training is to be closer by more than chance."""
        return False

    @abstractmethod
    def check(self, measures: Measures) -> None:
        """Refuse measures unlike those that the encoder was built for.

        Raises:
            MeasureError: another dimension, or images of another shape.
            SettingError: measures that the ground cost is not defined on.
        """

    @abstractmethod
    def inputs(
        self, measures: Measures, unit: float, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "n *shape"]:
        """What the encoder sees of each measure, lengths in units of a typical distance."""

    def at_once(self, measures: Measures) -> int:
        """How many of the measures, from the first on, may be encoded in one go: all, unless inputs would be large."""
        return len(measures)

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a saved model says of the features."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What to save beside the encoder's weights."""

    def rate_for(self, pairs: int) -> float:
        """The learning rate that suits so many training pairs: from 16,000 on it falls with the root of the steps."""
        return self.learning_rate / math.sqrt(max(math.sqrt(pairs / USUAL_PAIRS), 1.0))

    def start_from(self, examples: Examples) -> None:  # noqa: B027  some encoders start at random
        """Set the encoder's starting point from the training measures and pairs."""

    def finish(self, examples: Examples) -> None:  # noqa: B027  most are finished when they are trained
        """Make of the trained encoder the one that is used from now on; its vectors may be longer."""

    def copies(
        self, measures: Measures, unit: float, seed: int, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "copies n *shape"]:
        """The inputs as they are, and after isometries that move all measures alike, for training."""
        return self.inputs(measures, unit, n_jobs, progress)[None]

    def inputs_of(self, copies: Float32[np.ndarray, "copies n *shape"]) -> Float32[np.ndarray, "n *inputs"]:
        """The inputs of measures that these are copies of: what the finished encoder sees."""
        return np.asarray(copies[0])

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

    def placed(self, measures: Measures) -> Measures:
        """The measures in coordinates whose Euclidean distance follows the ground metric."""
        return measures

    def centroids(self, vectors: Float[np.ndarray, "n dim"]) -> Float64[np.ndarray, "n axes"] | None:
        """Those of the measures that the vectors are of; None where the vectors do not hold them."""
        return None

    def exact_part(self, measures: Measures) -> Float32[np.ndarray, "n exact"]:
        """The coordinates that stand beside the encoder's output."""
        return np.empty((len(measures), 0), dtype=np.float32)
