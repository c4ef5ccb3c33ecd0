"""What is learned from solved pairs: an encoding and its units, and which of several that is."""

import time
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64

from wembed.errors import MeasureError, SettingError
from wembed.euclidean import Residuals, distances_of_pairs
from wembed.learning.calibration import fitted_scale, shrunken_scale
from wembed.learning.curve import LearningCurve
from wembed.learning.decoding import ATOMS, DecoderSettings, Decoding, finish_decoding, joint_decoding
from wembed.learning.encoding import Encoding
from wembed.learning.encodings import ENCODINGS, slower, suited
from wembed.learning.geometric import CombinedEncoding, LinearEncoding, TransportEncoding
from wembed.learning.landmarks import LandmarkEncoding
from wembed.learning.shortening import Shortening
from wembed.learning.training import Examples, TrainingSettings, train
from wembed.measures import Measures
from wembed.progress import bar
from wembed.solved import Solved
from wembed.transport.costs import GroundCost
from wembed.transport.pairs import Split
from wembed.transport.parallel import Progress, of_block

__all__ = [
    "FAMILIAR",
    "Candidate",
    "Learned",
    "Recipe",
    "Suited",
    "familiar",
    "forget",
    "learn_closer",
    "learn_suited",
    "seconds_by_maps",
    "shortened",
]

_BATCH, _ROWS = 4096, 1024  # measures in one go: in all, and through the encoder, so that the cache holds its layers
_COMPARED = 1_000  # validation pairs that what was learned is compared on with what needs no learning
_KNOWN = 10_000  # training measures that an encoding is built from
_PROBE_SECONDS = 0.1  # of encoding, that it is timed by; about as much is spent to find how many take so long
_ROUNDING = 1e-6  # of a relative error, of vectors of float32
_SHORTENED, _SHORTENED_BYTES = 4_000, 400_000_000  # training measures, and their vectors, that short ones are found by
_ROOMY = 2  # times the numbers of the centroid, from which on short vectors keep it as it is
FAMILIAR = 1_000  # measures that what is usual is told by


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to learn, as an Embedder was told.

    Attributes:
        cost: the ground cost.
        encoder: a name in ENCODINGS, or "auto".
        dim: length of the vectors; None for what suits the encoder.
        residual: the first of their numbers is the length of what the others leave out.
        training: how to train.
        seed: draws what is random, and the starting weights.
        device: a torch device.
        n_jobs: processes, or -1 for one a core.
        verbose: show progress bars.
    """

    cost: GroundCost
    encoder: str
    dim: int | None
    residual: bool
    training: TrainingSettings
    seed: int
    device: str
    n_jobs: int
    verbose: bool

    def at_full_length(self, kind: type[Encoding]) -> bool:
        """Whether encoders of a kind learn as many numbers as they see, which are made fewer afterwards, if at all."""
        return self.dim is None or self.residual or not kind.learns_short


@dataclass(frozen=True, eq=False)
class Learned:
    """An encoding, and what makes vectors in the unit of the data of it.

    Attributes:
        encoding: what is seen of measures, and the encoder.
        unit: a typical distance; what the encoder sees and gives is in units of it.
        scale: that what the encoder gives is multiplied by.
        shortening: of what it gives then, with the exact numbers or without, in units; None where vectors are left as
            they are.
        history: validation error (root mean square, in data units) by training step; empty where nothing was trained.
        decoding: the way back, where it was trained along.
    """

    encoding: Encoding
    unit: float
    scale: float = 1.0
    shortening: Shortening | None = None
    history: list[tuple[int, float]] = field(default_factory=list)
    decoding: Decoding | None = None

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.free_dim + self._exact_dim

    @property
    def free_dim(self) -> int:
        """Numbers of a vector that are learned; the others are exact, and come last."""
        return self.encoding.dim - self.encoding.exact_dim if self.shortening is None else self.shortening.dim

    @property
    def _exact_dim(self) -> int:
        whole = self.shortening is not None and len(self.shortening.centre) == self.encoding.dim
        return 0 if whole else self.encoding.exact_dim

    @property
    def residuals(self) -> Residuals | None:
        """How distances between vectors are read; None for plain ones."""
        residuals = None if self.shortening is None else self.shortening.residuals
        return None if residuals is None else residuals.in_units(1 / self.unit)

    def scaled(self, factor: float) -> "Learned":
        """With what is learned multiplied by a factor."""
        if self.shortening is None:
            return replace(self, scale=self.scale * factor)
        return replace(self, shortening=self.shortening.scaled(factor))

    def centroids(self, vectors: Float[np.ndarray, "n dim"]) -> Float64[np.ndarray, "n axes"] | None:
        """Those of the measures that the vectors are of; None where the vectors do not hold them."""
        return self.encoding.centroids(vectors) if self._exact_dim else None

    def encode(
        self, measures: Measures, device: str = "cpu", n_jobs: int = 1, verbose: bool = False
    ) -> Float32[np.ndarray, "n dim"]:
        """The vector of each measure.

        Raises:
            MeasureError: points so far out that a vector of float32 cannot hold them.
        """

        def see(start: int, batch: Measures, show: Progress) -> np.ndarray:
            return self.encoding.inputs(batch, self.unit, n_jobs, show)

        return self.encode_seen(measures, see, device, verbose)

    def encode_seen(
        self,
        measures: Measures,
        see: Callable[[int, Measures, Progress], np.ndarray],
        device: str = "cpu",
        verbose: bool = False,
    ) -> Float32[np.ndarray, "n dim"]:
        """The vector of each measure, by what `see` says that the encoder sees of a batch that starts somewhere."""
        encoding = self.encoding
        vectors = np.empty((len(measures), self.dim), dtype=np.float32)
        encoding.module.to(device)
        with bar(verbose and len(measures) >= encoding.waits_from, "encoding", unit="measures") as show:
            start = 0
            while start < len(measures):
                batch = measures[start : start + _BATCH]
                batch = batch[: encoding.at_once(batch)]
                within = of_block(show, start, len(batch), len(measures))
                with np.errstate(over="ignore", invalid="ignore"), torch.no_grad():
                    inputs = torch.from_numpy(see(start, batch, within))
                    encoded, exact = vectors[start : start + len(batch)], encoding.exact_part(batch)
                    for first in range(0, len(batch), _ROWS):
                        rows = slice(first, first + _ROWS)
                        given = encoding.module(inputs[rows].to(device)).cpu().numpy()
                        if self.shortening is None:
                            encoded[rows, : self.free_dim] = given * np.float32(self.scale * self.unit)
                            encoded[rows, self.free_dim :] = exact[rows]
                        else:
                            encoded[rows] = self._shortened(self.shortening, given, exact[rows])
                finite = np.isfinite(encoded).all(axis=1)
                if not finite.all():
                    raise MeasureError(
                        f"measure {start + int(np.argmin(finite))} lies too far out for a vector of float32: "
                        f"this model was fitted on distances about {self.unit:.1e}; check its unit"
                    )
                start += len(batch)
                show(start, len(measures))
        return vectors

    def _shortened(
        self, shortening: Shortening, given: Float32[np.ndarray, "n free"], exact: Float32[np.ndarray, "n exact"]
    ) -> np.ndarray:
        """Vectors of what the encoder gives and the exact numbers."""
        given, unit = given * np.float32(self.scale), np.float32(self.unit)
        if self._exact_dim:
            return np.concatenate([shortening(given) * unit, exact], axis=1)
        return shortening(np.concatenate([given, exact / unit], axis=1)) * unit


@dataclass(frozen=True, eq=False)
class Candidate:
    """What was learned from a collection, and what is known of it already.

    Attributes:
        learned: calibrated.
        numbers: measures of the collection that the encoder has seen, in ascending order.
        inputs: what it has seen of each.
        predicted: of validation pairs, or of the first of them.
    """

    learned: Learned
    numbers: Int64[np.ndarray, " n"]
    inputs: Float32[np.ndarray, "n *shape"]
    predicted: Float64[np.ndarray, " v"]

    @classmethod
    def calibrated(
        cls,
        measures: Measures,
        solved: Solved,
        recipe: Recipe,
        learned: Learned,
        numbers: np.ndarray | None = None,
        inputs: np.ndarray | None = None,
    ) -> "Candidate":
        """With the scale that suits the validation pairs, of what was trained as far as they can tell it from none.

        Short vectors are brought to it beyond that of the long.
        """
        if numbers is None or inputs is None:
            numbers, inputs = np.empty(0, dtype=np.int64), np.empty((0, 1), dtype=np.float32)
        raw = cls(learned, numbers, inputs, np.empty(0))
        used, place = np.unique(solved.validation_pairs, return_inverse=True)
        vectors, pairs = raw.vectors(measures, used, recipe), place.reshape(-1, 2)
        free = learned.free_dim
        made = distances_of_pairs(vectors[:, :free], pairs, residuals=learned.residuals)
        fixed = distances_of_pairs(vectors[:, free:], pairs)
        unit, exact = learned.unit, recipe.cost.to_euclidean(solved.validation_distances)
        parts, loss = (made / unit, fixed / unit, exact / unit), learned.encoding.loss
        trained = next(learned.encoding.module.parameters(), None) is not None
        scale = shrunken_scale(*parts, pairs, loss) if trained else fitted_scale(*parts, loss)
        predicted = recipe.cost.from_euclidean(np.hypot(scale * made, fixed))
        return replace(raw, learned=learned.scaled(scale), predicted=predicted)

    def vectors(
        self, measures: Measures, numbers: Int64[np.ndarray, " k"], recipe: Recipe
    ) -> Float32[np.ndarray, "k dim"]:
        """Of some measures of the collection; what the encoder has seen of them is not found again."""
        vectors = np.empty((len(numbers), self.learned.dim), dtype=np.float32)
        there = np.isin(numbers, self.numbers)
        place = np.searchsorted(self.numbers, numbers[there])

        def see(start: int, batch: Measures, _: Progress) -> np.ndarray:
            return np.asarray(self.inputs[place[start : start + len(batch)]])

        if there.any():
            known = measures[numbers[there]]
            vectors[there] = self.learned.encode_seen(known, see, recipe.device, recipe.verbose)
        if not there.all():
            others = measures[numbers[~there]]
            vectors[~there] = self.learned.encode(others, recipe.device, recipe.n_jobs, recipe.verbose)
        return vectors

    def seconds_a_measure(self, measures: Measures, split: Split, recipe: Recipe) -> float:
        """Of encoding, all processes together, as one of so many that they take 0.1 s, or of all there are."""
        order = np.random.default_rng(0).permutation(split.validation)
        self.learned.encode(measures[order[:1]], recipe.device, recipe.n_jobs)  # the first takes longer
        count, spent = 0, 0.0
        while spent < _PROBE_SECONDS and count < len(order):
            count = min(max(2 * count, 1), len(order))
            some = measures[order[:count]]
            started = time.perf_counter()
            self.learned.encode(some, recipe.device, recipe.n_jobs)
            spent = time.perf_counter() - started
        return spent / count

    def error(self, solved: Solved) -> float:
        """The mean relative error of the first validation pairs."""
        errors = self._errors(solved)
        return float(errors.mean()) if len(errors) else 0.0

    def is_closer(self, other: "Candidate", solved: Solved) -> bool:
        """Whether it is closer to the first validation distances than another, by more than chance.

        By that is meant that the mean of the differences of their errors is more than its standard error, as if each
        measure gave one difference, for pairs that share a measure are not independent, and more than rounding.
        """
        gains = other._errors(solved) - self._errors(solved)
        measures = len(np.unique(solved.validation_pairs))
        return bool(gains.mean() > gains.std() / measures**0.5 + _ROUNDING) if len(gains) else False

    def _errors(self, solved: Solved) -> Float64[np.ndarray, " v"]:
        """Relative errors, those of equal measures left out."""
        exact = solved.validation_distances
        apart = exact > 0
        return np.asarray(np.abs(self.predicted[: len(exact)] - exact)[apart] / exact[apart])


class Suited(NamedTuple):
    """What was learned first, or in its place.

    Attributes:
        found: what was taken.
        second: the name of another encoder that may be closer.
        compared: validation errors, by the names of encoders; of linear on some of the pairs.
    """

    found: Candidate
    second: str | None
    compared: dict[str, float]


def learn_suited(measures: Measures, solved: Solved, recipe: Recipe, checkpoint: Path | None, enough: float) -> Suited:
    """Learn the encoder that was asked for, or else the one that suits, at full length where that is shortened later.

    Left to choose, and unless the error is small enough, it learns from optimal maps alone as well where linear optimal
    transport is closer to some validation pairs. Of what was learned first, what was learned from maps, landmarks by
    these maps, and linear optimal transport, it takes a later one only where that is closer by more than chance.

    Args:
        measures: the collection.
        solved: its distances.
        recipe: how to learn.
        checkpoint: of the first training; others have files beside it.
        enough: a relative error.
    """
    members = _members(measures, solved.split, recipe)
    first, second = suited(recipe.cost, members) if recipe.encoder == "auto" else recipe.encoder, None
    found = _learn(measures, solved, recipe, first, checkpoint)
    compared = {first: found.error(solved)}
    at_full_length = recipe.at_full_length(type(found.learned.encoding))
    left_to_choose = recipe.encoder == "auto" and at_full_length and found.learned.decoding is None
    if left_to_choose and compared[first] > enough:
        few, plain = solved.checked_by(_COMPARED), LinearEncoding.build(recipe.cost, members, None, recipe.seed)
        plain.loss = found.learned.encoding.loss  # that its scale is chosen by
        linear = Candidate.calibrated(measures, few, recipe, Learned(plain, found.learned.unit))
        error = found.error(few)
        compared[LinearEncoding.kind] = linear.error(few)
        share = linear.error(few) / error if error else np.inf
        second = slower(first, recipe.cost, measures[solved.learned_from], share, solved.total)
        if second == TransportEncoding.kind:
            found, compared[second] = learn_closer(measures, solved, recipe, second, checkpoint, found)
            second = None
        if found.learned.encoding.kind == TransportEncoding.kind and LandmarkEncoding.suits(recipe.cost, measures.dim):
            landmarks = _by_landmarks(measures, solved, recipe, found)
            compared[LandmarkEncoding.kind] = landmarks.error(solved)
            found = landmarks if landmarks.is_closer(found, solved) else found
        if linear.is_closer(found, few):
            found = Candidate.calibrated(measures, solved, recipe, linear.learned)
    return Suited(found, second, compared)


def learn_closer(
    measures: Measures, solved: Solved, recipe: Recipe, name: str, checkpoint: Path | None, before: Candidate
) -> tuple[Candidate, float]:
    """Learn another encoder, and take it if it is closer to validation pairs than before, by more than chance.

    Returns:
        What was taken, and the error of the other encoder.
    """
    other = _learn(measures, solved, recipe, name, _beside(checkpoint, name))
    return other if other.is_closer(before, solved) else before, other.error(solved)


def _by_landmarks(measures: Measures, solved: Solved, recipe: Recipe, found: Candidate) -> Candidate:
    """By landmarks, whose maps have been found for another encoder."""
    encoding, known = found.learned.encoding, np.isin(found.numbers, solved.split.train)
    assert isinstance(encoding, TransportEncoding)
    learned = Learned(LandmarkEncoding.of(encoding, found.inputs[known]), found.learned.unit)
    return Candidate.calibrated(measures, solved, recipe, learned, found.numbers, found.inputs)


def seconds_by_maps(measures: Measures, solved: Solved, curve: LearningCurve) -> float:
    """That the combined encoder is likely to take, from the pairs of the last round."""
    return CombinedEncoding.solves(measures[solved.learned_from]) * curve.seconds_a_pair + 2 * curve.rounds[-1].training


def forget(checkpoint: Path | None) -> None:
    """Delete the file of a training, and those of encoders that were learned from the same pairs after it."""
    for file in (checkpoint, *(_beside(checkpoint, name) for name in ENCODINGS)):
        if file:
            file.unlink(missing_ok=True)


def familiar(split: Split, seed: int) -> Int64[np.ndarray, " n"]:
    """Training measures in random order, some of many: what is usual is told by them."""
    return np.random.default_rng([seed, 7]).permutation(split.train)[:FAMILIAR]


def _beside(checkpoint: Path | None, name: str) -> Path | None:
    return checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{name}")


def _members(measures: Measures, split: Split, recipe: Recipe) -> Measures:
    """The training measures that an encoding is built from: all of them, or some of many."""
    some = np.random.default_rng([recipe.seed, 6]).permutation(len(split.train))[:_KNOWN]
    return measures[split.train[np.sort(some)]]


def _learn(measures: Measures, solved: Solved, recipe: Recipe, name: str, checkpoint: Path | None) -> Candidate:
    """Build an encoding, train it on the solved pairs, and calibrate it."""
    members, seed = _members(measures, solved.split, recipe), recipe.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = ENCODINGS[name]
        encoding = kind.build(recipe.cost, members, None if recipe.at_full_length(kind) else recipe.dim, seed)
        if kind.learns_short and recipe.dim is not None and recipe.dim > encoding.dim:
            torch.manual_seed(seed)
            encoding = kind.build(recipe.cost, members, recipe.dim, seed)  # long enough for no residual
    used = solved.learned_from
    wanted = recipe.cost.to_euclidean(solved.train_distances)
    unit = float(np.sqrt(np.square(wanted).mean())) or 1.0
    if not 1e-30 < unit < 1e30:
        raise SettingError(f"distances are about {unit:.1e}, beyond float32; rescale the measures")
    learned_from = measures[used]
    with bar(recipe.verbose, "transport maps", unit="measures") as show:
        inputs = encoding.copies(learned_from, unit, seed, recipe.n_jobs, show)
    examples = Examples(
        inputs,
        (encoding.exact_part(learned_from) / unit).astype(np.float32),
        np.searchsorted(used, solved.train_pairs),
        wanted / unit,
        np.searchsorted(used, solved.validation_pairs),
        recipe.cost.to_euclidean(solved.validation_distances) / unit,
    )
    encoding.start_from(examples)
    count = len(solved.train_pairs)
    training = recipe.training.resolved(count, encoding.steps, encoding.rate_for(count), encoding.batch_pairs)
    if training.auxiliary:
        with bar(recipe.verbose, "transport maps", unit="measures") as show, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            auxiliary = encoding.auxiliary(members, unit, count, seed, recipe.n_jobs, show)
        examples = replace(examples, auxiliary=auxiliary)
    start = None
    if encoding.starts_near and not training.reconstruction:  # a decoder reads what it was trained along with
        start = copy(encoding)
        start.module = deepcopy(encoding.module)
    decoding = None
    if training.reconstruction:
        with bar(recipe.verbose, "transport maps", unit="measures") as show, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rows = np.flatnonzero(np.isin(used, solved.split.train))
            rows = np.sort(np.random.default_rng([seed, 10]).permutation(rows)[:_KNOWN])
            decoding, task = joint_decoding(
                learned_from[rows], encoding, inputs[0, rows], unit, ATOMS, recipe.n_jobs, show
            )
        examples = replace(examples, reconstruction=task)
    with bar(recipe.verbose, "training", unit="steps") as show:
        history = train(
            encoding.module,
            examples,
            training,
            encoding.loss,
            recipe.device,
            checkpoint,
            lambda step, steps, _: show(step, steps),
        )
    encoding.finish(examples)
    if decoding is not None:
        assert training.steps is not None
        settings = DecoderSettings(ATOMS, training.steps, 0, seed, recipe.n_jobs, recipe.device)
        with bar(recipe.verbose, "decoder", unit="steps") as show:
            finish_decoding(decoding, task, encoding, encoding.inputs_of(inputs[:, rows]), settings, show)
    kept = np.union1d(solved.validation_pairs, familiar(solved.split, seed))
    if _shortens(recipe, encoding):
        kept = np.union1d(kept, _shortened_by(solved, encoding, seed))
    again = np.isin(used, kept)
    seen, history = encoding.inputs_of(inputs[:, again]), [(step, error * unit) for step, error in history]
    learned = Learned(encoding, unit, history=history, decoding=decoding)
    found = Candidate.calibrated(measures, solved, recipe, learned, used[again], seen)
    if start is None:
        return found
    start.finish(examples)
    untrained = Learned(start, unit, history=history)
    before = Candidate.calibrated(measures, solved, recipe, untrained, used[again], seen)
    return found if found.is_closer(before, solved) else before


def shortened(measures: Measures, solved: Solved, recipe: Recipe, found: Candidate) -> Candidate:
    """What was learned at full length, its vectors made as short as was asked for; or as it is."""
    encoding, unit = found.learned.encoding, np.float32(found.learned.unit)
    if not _shortens(recipe, encoding):
        return found
    assert recipe.dim is not None
    known = _shortened_by(solved, encoding, recipe.seed)
    shortening = _shortening(
        found.vectors(measures, known, recipe) / unit,
        found.vectors(measures, np.unique(solved.validation_pairs)[: _most_shortened(encoding)], recipe) / unit,
        encoding.exact_dim,
        recipe.dim,
        recipe,
    )
    learned = replace(found.learned, shortening=shortening)
    return Candidate.calibrated(measures, solved, recipe, learned, found.numbers, found.inputs)


def _shortens(recipe: Recipe, encoding: Encoding) -> bool:
    return recipe.dim is not None and recipe.at_full_length(type(encoding)) and recipe.dim < encoding.dim


def _most_shortened(encoding: Encoding) -> int:
    return min(_SHORTENED, _SHORTENED_BYTES // (4 * encoding.dim))


def _shortened_by(solved: Solved, encoding: Encoding, seed: int) -> Int64[np.ndarray, " k"]:
    """Training measures, by whose vectors short ones are found."""
    known = solved.learned_from[np.isin(solved.learned_from, solved.split.train)]
    return np.sort(np.random.default_rng([seed, 12]).permutation(known)[: _most_shortened(encoding)])


def _shortening(
    vectors: Float32[np.ndarray, "n long"],
    unseen: Float32[np.ndarray, "m long"],
    exact: int,
    dim: int,
    recipe: Recipe,
) -> Shortening:
    """Of vectors like these, whose last numbers are exact and stay as they are where there is room for them."""
    beside = exact if dim >= _ROOMY * exact + recipe.residual else 0
    end, wanted = vectors.shape[1] - beside, dim - beside
    with bar(recipe.verbose, "shorter vectors", unit="steps") as show:
        if recipe.residual:
            return Shortening.with_residual(vectors[:, :end], unseen[:, :end], wanted, show)
        return Shortening.plain(vectors[:, :end], unseen[:, :end], wanted, recipe.seed, show)
