"""Encodings by geometric features whose Euclidean distance is nearly W_p before anything is learned."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from scipy.linalg import block_diag
from torch import nn

from wembed.errors import MeasureError, SettingError
from wembed.euclidean import distances_of_pairs
from wembed.learning.augmentation import distorted
from wembed.learning.calibration import fitted_scale
from wembed.learning.encoders import AuxiliaryHead, PerceptronEncoder, TurnedEncoder
from wembed.learning.encoding import Encoding
from wembed.learning.features import LinearTransport, SlicedQuantiles, SlicesAndMaps, planar_turns
from wembed.learning.losses import Loss, distance_error, relative_deviation, relative_distance_error, suited_loss
from wembed.learning.training import USUAL_PAIRS, Auxiliary, Examples
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress, of_block, work_of

__all__ = ["TURNS", "GeometricEncoding", "LinearEncoding", "QuantileEncoding", "TransportEncoding"]

_DIM = 128
_COPIES = 3  # of the features, for training
TURNS, _TRAINING_TURNS = 3, 5  # that a measure is seen in, and those learned from where optimal maps are found in each
_PLACES = (0, 1, -1, 2, -2)  # that a measure in the plane is turned by, in angles between directions of slices
_GLOBE_RATE = 0.25  # of the learning rate: centroids are most of the distance, and there from the start
_DEGREES = 15.0  # that an axis moves in turns of optimal maps alone
_COPY_BYTES = 400_000_000
_MAPPED = 12_000  # measures, in all copies and by all references together, where each takes an exact solve
_MAPPED_IN_TURNS = 100_000  # measures, in all turns together
FEW_MEASURES = 200  # to learn from: of fewer, what the features tell by themselves counts most
_REFERENCE_ATOMS, _TURNED_ATOMS = 256, 128  # the fewer where slices stand beside the maps
_NUMBERS = 4_096  # of features, about: a linear map of them has as many squared
_AUXILIARY_MEASURES = 60_000
_AUXILIARY_BYTES = 400_000_000
_AUXILIARY_TARGETS = 128
_AUXILIARY_ATOMS = 64  # of a reference
_AUXILIARY_REFERENCES = 4  # at most
_BLOCK = 4096  # measures in one go
_AXES_FROM = 20_000  # measures, at most, that the axes of all turns are found by
_SCALE_PAIRS = 20_000  # that the starting scale is fitted to, at most
_LEAST_VARIANCE = 1e-6  # in units of a typical distance, squared: below there is nothing to learn


class GeometricEncoding(Encoding):
    """Of measures as points in a Euclidean space, at their centroids or not.

    Measures under another metric are laid out in coordinates first. Those of a cost matrix are kept and not found
    again: eigenvectors may come out turned on another machine. For euclidean W_2 the centroid stands beside what is
    learned, because W_2^2 = |difference of means|^2 + W_2^2 of the centred measures; on the sphere too, where centroids
    are no farther apart than vectors have to be, by Jensen's inequality, and single points as far.
    """

    def __init__(self, cost: GroundCost, centre: np.ndarray, dim: int | None, places: np.ndarray | None) -> None:
        self.cost = cost
        self.centre = centre  # subtracted from centroids, so that float32 keeps their digits
        self.places = places
        beside = (cost.splits_translation or cost.is_great_circle) and (dim is None or dim > len(centre))
        self.exact_dim = len(centre) if beside else 0
        self.loss = distance_error

    @staticmethod
    def check_collection(cost: GroundCost, measures: Measures) -> None:
        """Any measures will do."""

    def start_from(self, examples: Examples) -> None:
        self.loss = self._suited_loss(examples.train_distances)

    def _suited_loss(self, distances: Float64[np.ndarray, " k"]) -> Loss:
        return relative_deviation if self.cost.is_great_circle else suited_loss(distances)

    def check(self, measures: Measures) -> None:
        self.cost.check(measures)
        if isinstance(self.cost.metric, str):
            expected = 2 if self.cost.is_great_circle else len(self.centre)
            if measures.dim != expected:
                raise MeasureError(
                    f"the measures have dimension {measures.dim}; this model was fitted on dimension {expected}"
                )

    def centroids(self, vectors: Float[np.ndarray, "n dim"]) -> Float64[np.ndarray, "n axes"] | None:
        if not self.exact_dim or self.cost.is_great_circle:
            return None
        return np.asarray(vectors[:, -self.exact_dim :] + self.centre, dtype=np.float64)

    def exact_part(self, measures: Measures) -> Float32[np.ndarray, "n exact"]:
        if not self.exact_dim:
            return super().exact_part(measures)
        return np.asarray(self.placed(measures).centroids() - self.centre, dtype=np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"centre": self.centre} if self.places is None else {"centre": self.centre, "places": self.places}

    def placed(self, measures: Measures) -> Measures:
        return self.cost.coordinates(measures) if self.places is None else replace(measures, support=self.places)

    @staticmethod
    def layout(cost: GroundCost, training: Measures) -> tuple[Measures, np.ndarray, np.ndarray | None]:
        """The measures in coordinates, the mean of their centroids, and the coordinates if they have to be kept."""
        placed = cost.coordinates(training)
        places = None if isinstance(cost.metric, str) else placed.support.copy()  # others share what the cost keeps
        return placed, placed.centroids().mean(axis=0), places


class _FeatureEncoding(GeometricEncoding):
    """Features of the centred measure, and a perceptron that learns what they miss.

    Where turns keep all distances, features that tell of turned measures too are seen in three turns.
    """

    network: ClassVar[type[PerceptronEncoder | nn.Identity]] = PerceptronEncoder

    def __init__(
        self,
        cost: GroundCost,
        features: SlicedQuantiles | LinearTransport | SlicesAndMaps,
        centre: np.ndarray,
        dim: int | None,
        places: np.ndarray | None,
    ) -> None:
        super().__init__(cost, centre, dim, places)
        self.features = features
        self.beside = 0 if self.exact_dim else len(centre)  # numbers of the centroid among the inputs
        self.shown = features.shown + self.beside  # numbers that it is trained on
        self.dim = self.shown + self.exact_dim if dim is None else dim
        self.module = self.network(self.shown, self.dim - self.exact_dim)

    @property
    def turns(self) -> Float32[np.ndarray, "turns shown inputs"] | None:
        """Maps of the inputs to what is seen of a measure in each turn, unturned first; None where there are none."""
        rotations = self._rotations
        if rotations is None:
            return None
        maps = [self._turned(number) for number in range(len(rotations))]
        if self.beside:
            maps = [block_diag(turned, turn.astype(np.float32)) for turned, turn in zip(maps, rotations, strict=True)]
        return np.stack(maps)

    @property
    @abstractmethod
    def _rotations(self) -> Float64[np.ndarray, "turns dim dim"] | None:
        """Of the measures, in each turn; None where there are none."""

    @abstractmethod
    def _turned(self, number: int) -> Float32[np.ndarray, "shown features"]:
        """The map of the features to those of the measure in one turn."""

    def inputs(
        self, measures: Measures, unit: float, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "n inputs"]:
        return self._seen(self.placed(measures), unit, n_jobs, progress)

    @property
    def starts_near(self) -> bool:
        return isinstance(self.module, PerceptronEncoder) and self.module.is_small  # exact numbers are most of it

    def start_from(self, examples: Examples) -> None:
        super().start_from(examples)
        if isinstance(self.module, PerceptronEncoder):
            self.module.start_from(examples.features[0, np.unique(examples.train_pairs)])
            self.module.lengthen(_starting_scale(self.module.linear, examples, self.loss))

    def finish(self, examples: Examples) -> None:
        turns = self.turns
        if turns is not None:
            assert isinstance(self.module, PerceptronEncoder)
            rows = np.unique(examples.train_pairs)
            some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _AXES_FROM)).astype(int)]
            views = _views(examples.features, turns, some)
            self.module = TurnedEncoder.of(self.module, turns, views, self.dim - self.exact_dim)

    def copies(
        self, measures: Measures, unit: float, seed: int, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "copies n shown"]:
        turns, placed = self.turns, self.placed(measures)
        count = self._affordable_copies(len(measures))
        if turns is not None:
            return self._seen_turned(placed, turns[:count], unit, n_jobs, progress)
        maps = self.cost.isometries(placed.dim, count, np.random.default_rng([seed, 3]))
        copies = np.empty((len(maps), len(measures), self.shown), dtype=np.float32)
        for number, turn in enumerate(maps):

            def show(done: int, total: int, before: int = number) -> None:
                if progress:
                    progress(before * total + done, len(maps) * total)

            moved = placed.support if number == 0 else (placed.support - self.centre) @ turn.T + self.centre
            copies[number] = self._seen(replace(placed, support=moved), unit, n_jobs, show)
        return copies

    def _seen_turned(
        self, placed: Measures, turns: np.ndarray, unit: float, n_jobs: int, progress: Progress | None
    ) -> Float32[np.ndarray, "turns n shown"]:
        """What is seen of measures in each turn."""
        copies = np.empty((len(turns), len(placed), self.shown), dtype=np.float32)
        maps = turns.transpose(0, 2, 1)
        for start in range(0, len(placed), _BLOCK):
            block = placed[start : start + _BLOCK]
            show = progress and of_block(progress, start, len(block), len(placed))
            copies[:, start : start + _BLOCK] = self._seen(block, unit, n_jobs, show) @ maps
        return copies

    def _affordable_copies(self, measures: int) -> int:
        most = _TRAINING_TURNS if self.cost.is_great_circle else _COPIES
        return int(max(1, min(most, _COPY_BYTES // (measures * self.shown * 4))))

    def _make_room(self) -> None:
        """For the weights of an encoder that is trained."""
        rotations = self._rotations
        if rotations is not None:
            inputs = self.features.size + self.beside
            self.module = TurnedEncoder(inputs, self.dim - self.exact_dim, len(rotations))

    @abstractmethod
    def _featured(self, placed: Measures, n_jobs: int, progress: Progress | None) -> np.ndarray: ...

    def _seen(self, placed: Measures, unit: float, n_jobs: int = 1, progress: Progress | None = None) -> np.ndarray:
        features = self._featured(placed, n_jobs, progress)
        if not self.exact_dim:
            features = np.concatenate([features, (placed.centroids() - self.centre).astype(np.float32)], axis=1)
        features /= np.float32(unit)
        return features


class QuantileEncoding(_FeatureEncoding):
    """Sliced quantiles of the centred measure."""

    kind = "quantiles"
    batch_pairs = 896  # twice as many took a third longer and brought nothing (docs/notes.md)
    features: SlicedQuantiles

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "QuantileEncoding":
        placed, centre, places = cls.layout(cost, training)
        return cls(cost, SlicedQuantiles.build(placed.dim, seed), centre, dim or _DIM, places)

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "QuantileEncoding":
        features = SlicedQuantiles(arrays["directions"], description["levels"])
        encoding = cls(cost, features, arrays["centre"], dim, arrays.get("places"))
        encoding._make_room()
        return encoding

    def rate_for(self, pairs: int) -> float:
        return super().rate_for(pairs) * (_GLOBE_RATE if self.cost.is_great_circle else 1.0)

    def auxiliary(
        self, measures: Measures, unit: float, pairs: int, seed: int, n_jobs: int, progress: Progress | None
    ) -> Auxiliary | None:
        """Linear optimal transport to a reference, of the measures and of distorted ones; to more where pairs are many.

        It takes one solve a measure, not a pair, and tells of the measure what slices don't. On a line they tell all.
        """
        placed = self.placed(measures)
        if placed.dim == 1:
            return None
        atoms, reference = np.array([placed.sizes.mean()]), np.array([_AUXILIARY_ATOMS])
        affordable = int(pairs * float(work_of(atoms, atoms)[0] / work_of(atoms, reference)[0]) / 2)
        for references in range(min(max(affordable // _AUXILIARY_MEASURES, 1), _AUXILIARY_REFERENCES), 0, -1):
            numbers = self.shown + placed.dim * (references * _AUXILIARY_ATOMS + 4 * int(atoms[0]))
            count = min(affordable // references, _AUXILIARY_MEASURES, _AUXILIARY_BYTES // (4 * numbers))
            if count >= 2 * self.shown:  # of fewer, a linear map of the features would do it all
                break
        else:
            return None
        transport = LinearTransport.build(placed, _AUXILIARY_ATOMS, seed, references)
        known = placed[np.sort(np.random.default_rng([seed, 5]).permutation(len(placed))[:count])]
        if count > len(known):
            known = Measures.concatenate([known, distorted(placed, count - len(known), seed)])
        features = self._seen(known, unit)
        targets = _principal(transport(known, n_jobs, progress) / np.float32(unit), _AUXILIARY_TARGETS)
        if targets.var(axis=0).sum() < _LEAST_VARIANCE:
            return None
        assert isinstance(self.module, PerceptronEncoder)
        return Auxiliary(AuxiliaryHead(self.module, features, targets), features, targets)

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "levels": self.features.levels}

    def arrays(self) -> dict[str, np.ndarray]:
        return super().arrays() | {"directions": self.features.directions}

    @property
    def _rotations(self) -> Float64[np.ndarray, "turns dim dim"] | None:
        return planar_turns(_PLACES[:TURNS]) if self.cost.is_euclidean and len(self.centre) == 2 else None

    def _turned(self, number: int) -> Float32[np.ndarray, "shown features"]:
        return self.features.turned(_PLACES[number])

    def _featured(self, placed: Measures, n_jobs: int, progress: Progress | None) -> np.ndarray:
        return self.features(placed)


class _MappedEncoding(_FeatureEncoding):
    """Features that take exact optimal maps: slow to have, and good from the start."""

    learning_rate = 1e-3
    waits_from = 400
    features: LinearTransport | SlicesAndMaps

    def rate_for(self, pairs: int) -> float:
        return super().rate_for(pairs) * min(pairs / USUAL_PAIRS, 1.0)  # few pairs spoil what is good

    @property
    def _rotations(self) -> Float64[np.ndarray, "turns dim dim"] | None:
        return self.features.turns

    def _turned(self, number: int) -> Float32[np.ndarray, "shown features"]:
        return self.features.turned(number)

    def copies(
        self, measures: Measures, unit: float, seed: int, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "copies n shown"]:
        if self._rotations is not None:
            self.features = self.features.first_turns(_training_turns(len(measures)))
        return super().copies(measures, unit, seed, n_jobs, progress)

    def finish(self, examples: Examples) -> None:
        if self._rotations is not None:
            self.features = self.features.first_turns(TURNS)
        super().finish(examples)

    def inputs_of(self, copies: Float32[np.ndarray, "copies n shown"]) -> Float32[np.ndarray, "n inputs"]:
        turns = self.turns
        if turns is None:
            return super().inputs_of(copies)
        back = turns / np.square(turns).sum(axis=(0, 1))  # rows are orthogonal: each turn is turned back by itself
        return np.asarray(np.matmul(copies[: len(turns)], back).sum(axis=0))

    def _featured(self, placed: Measures, n_jobs: int, progress: Progress | None) -> np.ndarray:
        return self.features(placed, n_jobs, progress)


class TransportEncoding(_MappedEncoding):
    """Linear optimal transport of the centred measure, each map found exactly.

    In the plane, in space and on the globe, where turns keep all distances, it is to one reference in three turns, and
    learned from in five. The vectors stand side by side: axes of few measures would not hold those of others. Elsewhere
    it is to two references.
    """

    kind = "transport"
    steps = 500
    learns_short = False
    references: ClassVar[int] = 2  # where it is not turned
    least_atoms: ClassVar[int] = 64  # of a reference, where the dimension is high
    most_turned: ClassVar[int] = 3  # dimensions
    features: LinearTransport

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "TransportEncoding":
        placed, centre, places = cls.layout(cost, training)
        is_turned = cost.turns_alike and 2 <= placed.dim <= cls.most_turned
        references = 1 if is_turned else cls.references
        atoms = max(min(_REFERENCE_ATOMS, _NUMBERS // (references * placed.dim)), cls.least_atoms)
        features = LinearTransport.build(placed, atoms, seed, references)
        if is_turned:
            rng = np.random.default_rng([seed, 3])
            features = features.facing(np.stack(cost.isometries(placed.dim, _TRAINING_TURNS, rng, _DEGREES)))
        return cls(cost, features, centre, dim, places)

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "TransportEncoding":
        features = LinearTransport(arrays["references"], arrays.get("turns"))
        encoding = cls(cost, features, arrays["centre"], dim, arrays.get("places"))
        encoding._make_room()
        return encoding

    def finish(self, examples: Examples) -> None:
        if self._rotations is not None and examples.reconstruction is None:
            self.dim = TURNS * self.shown + self.exact_dim
        elif self._rotations is not None:  # a decoder that was trained along reads the vectors of one turn
            self.features = LinearTransport(self.features.references[:1])
        super().finish(examples)

    def _affordable_copies(self, measures: int) -> int:
        if self.features.turns is not None:
            return len(self.features.turns)  # each is a part of the features
        if not self.cost.turns_alike:  # reflections make measures of another kind
            return 1
        affordable = _MAPPED // (len(self.features.references) * measures)
        return max(1, min(super()._affordable_copies(measures), affordable))

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def arrays(self) -> dict[str, np.ndarray]:
        turns = self.features.turns
        found = super().arrays() | {"references": self.features.references}
        return found if turns is None else found | {"turns": turns}


class CombinedEncoding(_MappedEncoding):
    """Sliced quantiles beside the optimal maps to one reference, of measures in the plane."""

    kind = "combined"
    batch_pairs = QuantileEncoding.batch_pairs
    learning_rate = 5e-4  # its start is good, and best left near by for measures unlike those learned from
    features: SlicesAndMaps

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "CombinedEncoding":
        placed, centre, places = cls.layout(cost, training)
        features = SlicesAndMaps.build(placed, _TURNED_ATOMS, seed, _PLACES)
        return cls(cost, features, centre, dim, places)

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "CombinedEncoding":
        slices = SlicedQuantiles(arrays["directions"], description["levels"])
        places = _PLACES[:TURNS]
        features = SlicesAndMaps(slices, LinearTransport(arrays["references"], planar_turns(places)), places)
        encoding = cls(cost, features, arrays["centre"], dim, None)
        encoding._make_room()
        return encoding

    @staticmethod
    def check_collection(cost: GroundCost, measures: Measures) -> None:
        if not cost.is_euclidean or measures.dim != 2:
            raise SettingError(
                "the combined encoder takes measures in the plane under the euclidean metric; for these use "
                "encoder='auto'"
            )

    @staticmethod
    def solves(measures: Measures) -> float:
        """About how many pairs of such measures are solved in the time that it takes to see all of them."""
        atoms = np.array([measures.sizes.mean()])
        share = work_of(atoms, np.array([_TURNED_ATOMS])) / work_of(atoms, atoms)
        return float(_training_turns(len(measures)) * len(measures) * share[0])

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "levels": self.features.slices.levels}

    def arrays(self) -> dict[str, np.ndarray]:
        shown = {"directions": self.features.slices.directions, "references": self.features.maps.references}
        return super().arrays() | shown

    def rate_for(self, pairs: int) -> float:
        return super().rate_for(min(pairs, USUAL_PAIRS))  # low enough for more as it is

    def _suited_loss(self, distances: Float64[np.ndarray, " k"]) -> Loss:
        return relative_distance_error  # it is for measures that are nearly alike as much as for others

    def _affordable_copies(self, measures: int) -> int:
        return len(self.features.places)  # what takes long are the maps, which are there for each


class LinearEncoding(TransportEncoding):
    """Linear optimal transport to one reference of many atoms, as it is: the best that can be had without learning."""

    kind = "linear"
    waits_from = 200
    references = 1
    least_atoms = _REFERENCE_ATOMS
    most_turned = 0
    network = nn.Identity

    def _affordable_copies(self, measures: int) -> int:
        return 1


def _training_turns(measures: int) -> int:
    """That so many measures are learned from in, where each turn takes an exact solve."""
    return min(max(_MAPPED_IN_TURNS // measures, TURNS), _TRAINING_TURNS)


def _starting_scale(linear: nn.Linear, examples: Examples, loss: Loss) -> float:
    """The factor on a linear map of the features that makes its distances fit the training pairs."""
    pairs, exact = examples.train_pairs[:_SCALE_PAIRS], examples.train_distances[:_SCALE_PAIRS]
    used, place = np.unique(pairs, return_inverse=True)
    with torch.no_grad():
        vectors = linear(torch.from_numpy(examples.features[0, used])).numpy()
    made, fixed = (distances_of_pairs(part, place.reshape(-1, 2)) for part in (vectors, examples.exact_part[used]))
    return fitted_scale(made, fixed, exact, loss)


def _views(copies: np.ndarray, turns: np.ndarray, rows: np.ndarray) -> Iterator[Float32[np.ndarray, "turns _ shown"]]:
    """Of these measures what is seen in each turn, in blocks; copies that are not there are turned from the first."""
    missing = turns[len(copies) :].transpose(0, 2, 1)
    for start in range(0, len(rows), _BLOCK):
        there = copies[: len(turns), rows[start : start + _BLOCK]]
        yield np.concatenate([there, there[:1] @ missing]) if len(missing) else there


def _principal(rows: Float32[np.ndarray, "n t"], most: int) -> Float32[np.ndarray, "n k"]:
    """The rows, or where they are long their coordinates along the axes of most variance."""
    if rows.shape[1] <= most:
        return rows
    centred = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(centred @ axes[:, -most:])
