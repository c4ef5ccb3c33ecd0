"""Embedder: ground cost, features and encoder as one estimator."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from sklearn.base import BaseEstimator, TransformerMixin

from wembed.errors import ArtifactError, MeasureError, NotFittedError, SeenWarning, SettingError
from wembed.euclidean import distances_between, distances_of_pairs, paired_distances
from wembed.learning.baselines import Embedding
from wembed.learning.calibration import fitted_scale
from wembed.learning.curve import LearningCurve, Round, Wish, in_rounds
from wembed.learning.decoding import (
    ATOMS,
    DECODINGS,
    DecoderSettings,
    Decoding,
    finish_decoding,
    joint_decoding,
    learned_decoding,
    suited_decoding,
)
from wembed.learning.encodings import ENCODINGS, slower, suited
from wembed.learning.evaluation import ALL_ALIKE, FEW_CALIBRATED, NO_DISTANCE, Report, compare
from wembed.learning.geometric import CombinedEncoding, LinearEncoding, TransportEncoding
from wembed.learning.training import Examples, TrainingSettings, train
from wembed.measures import Measures
from wembed.options import whole
from wembed.progress import bar
from wembed.records import Distances
from wembed.saved import model_folder, read_model, write_model
from wembed.solved import Draw, Drawn, Given, Kept, Solved, Source
from wembed.transport.bounds import Bounds
from wembed.transport.costs import GroundCost
from wembed.transport.exact import solve_pairs
from wembed.transport.pairs import Split, random_pairs
from wembed.transport.parallel import Progress, check_jobs, exact_distances, of_block
from wembed.transport.slices import check_triangles
from wembed.transport.store import DistanceStore
from wembed.trust import Asked, Trust, answered, answered_each
from wembed.unusual import warn, warn_of_unusual

__all__ = ["Embedder", "evaluate", "load"]

_BATCH, _ROWS = 4096, 1024  # measures in one go: in all, and through the encoder, so that the cache holds its layers
_MOST_NUMBERS = 65_536  # in a vector
_PROBE_SECONDS, _PROBED = 0.2, 10_000  # to see how long an exact solve takes: at least, and pairs at most
_COMPARED = 1_000  # validation pairs that what was learned is compared on with what needs no learning
_FAMILIAR = 1_000  # training measures that unusualness is told by
_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of intervals that an evaluation looks at
_FEWEST_MEASURES, _FEWEST_PAIRS = 24, 100  # to calibrate on
_REFERENCES, _MORE_REFERENCES = 8, 16  # the more where solving against them is quick
_FEW_ATOMS = 64  # in the mean, that it is quick for
_FITTED_ON = 2_000  # validation pairs, by which intervals are shaped
_CALIBRATED_ON = 4_000  # calibration pairs
_UNITS = {"exact distances": "pairs", "decoder": "steps"}  # that progress is told in
_FEWEST_DECODED = 20  # measures that a decoder is learned from
_DECODED = 100  # measures that its error is found with
_KNOWN = 10_000  # training measures that an encoding is built from


class Embedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Vectors whose Euclidean distance is the Wasserstein distance, learned from a few exact distances.

    Args:
        metric: the ground metric, as in `GroundCost`.
        order: p of W_p.
        dim: length of the vectors; None for one that suits the encoder: 128 for "quantiles", 50 for "dwe", and for the
            others as many as they see.
        pairs: exact pairs for `fit`, or "auto" for as many as pay. They are shared out by the numbers of train,
            validation and test measures; those of the test measures are left to `evaluate`.
        encoder: "quantiles", sliced quantiles and a perceptron; "transport", linear optimal transport to four
            references and a perceptron; "combined", in the plane under the euclidean metric, sliced quantiles and
            linear optimal transport to one reference and a perceptron, in three turns; "sinkhorn", entropic linear
            optimal transport to a learned reference, and roots of the covariance; "dwe", the network of the method's
            paper, for images; "linear", linear optimal transport to one reference, with nothing learned; or "auto":
            quantiles on a line and in the plane; transport where there are fewer than 200 training measures, and
            beyond the plane; sinkhorn beyond it where measures have few atoms. Without a `dim` or a decoder trained
            along, and unless a wish of `fit` ends that before, "auto" learns transport as well where linear is closer
            to validation pairs, and combined where it comes within one and a half times the error; that, or linear, is
            taken where it is closer by more than chance.
        validation: share of the measures that choose the checkpoint and the calibration.
        test: share of the measures that neither see.
        calibration: share of the measures that intervals are calibrated on, and nothing else; at least 100 of them
            or an eighth of those for training, and at most 500; 0 for no intervals.
        references: training measures by way of which intervals are refined, and bounds certified; 0 for none; "auto"
            for 8, or 16 where measures have 64 atoms or fewer in the mean, as solving against them is quick.
        device: a torch device, such as "cpu" or "cuda".
        n_jobs: processes for the exact solves, or -1 for one a core.
        random_state: draws the split and the pairs, unless they come with a store; the starting weights; and, unless
            `training` says otherwise, the order of training.
        training: how to train; None for the defaults.
        verbose: show progress bars.

    `transform`, `distance` and `pairwise` warn (`UnusualWarning`) of measures unlike those learned from.

    Attributes:
        encoder_: the encoder that was taken.
        dim_: length of the vectors.
        split_: which measures were for training, validation, test and calibration; one that equals an earlier one is in
            none of them.
        learning_curve_: what each round of the fit brought, and from how many measures on a fit pays.
        history_: validation error (root mean square, in data units) by training step; empty where nothing learned was
            kept.
        mean_distance_: mean W_p of the training pairs.
        pairs_used_: pairs that were trained on, and validated on.
        errors_: the report of the last `evaluate`, as numbers; None before.
        decoder_error_: mean W_p between measures that the decoder was not trained on, though they chose its state, and
            what their vectors decode to; None without one.
    """

    _decoding: Decoding | None

    def __init__(
        self,
        metric: "str | np.ndarray" = "euclidean",
        order: float = 2,
        dim: int | None = None,
        pairs: int | str = 20_000,
        encoder: str = "auto",
        validation: float = 0.1,
        test: float = 0.1,
        calibration: float = 0.05,
        references: int | str = "auto",
        device: str = "cpu",
        n_jobs: int = -1,
        random_state: int = 0,
        training: TrainingSettings | None = None,
        verbose: bool = False,
    ) -> None:
        self.metric = metric
        self.order = order
        self.dim = dim
        self.pairs = pairs
        self.encoder = encoder
        self.validation = validation
        self.test = test
        self.calibration = calibration
        self.references = references
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.training = training
        self.verbose = verbose

    def fit(
        self,
        measures: Measures,
        y: object = None,
        *,
        distances: "DistanceStore | str | Path | None" = None,
        checkpoint: "str | Path | None" = None,
        max_seconds: float | None = None,
        target_error: float | None = None,
    ) -> "Embedder":
        """Learn from exact distances, solved here or taken from a store.

        With pairs="auto", or with one of the two wishes, it learns in rounds, each from nothing with four times the
        pairs of the one before, and stops when twice the pairs would take away less than a twentieth of the error; a
        number for `pairs` is then the most that may be solved. What takes optimal maps to encode with is not tried once
        the target is reached, and the combined encoder after the last round alone, if it is likely to end in time.

        Args:
            measures: the collection; it is split into train, validation, test and calibration.
            y: not used; there for scikit-learn.
            distances: a store of these measures under this cost; without one, pairs are solved and forgotten. Rounds
                add to it, and begin it where there is none in the folder.
            checkpoint: a file in which training is kept until all is learned from its pairs, and from which an
                interrupted one goes on; where there is a second training, or several rounds, each has a file beside it.
            max_seconds: begin no round that is likely to end later, nor the combined encoder; the first round is done
                in any case.
            target_error: a mean relative error on the validation measures that is good enough.

        Raises:
            SettingError: a parameter out of range, or too few measures or pairs to split.
            ArtifactError: a store of other measures or another cost, or a damaged one.
            SolverError: an exact solve could not be certified.
        """
        self.check(measures)
        wish, began = Wish(max_seconds, target_error), time.perf_counter()
        in_turn = self.pairs == "auto" or wish != Wish()
        source = self._source(measures, distances, grows=in_turn)
        file = None if checkpoint is None else Path(checkpoint)
        own: Path | None = None  # of this round
        solved: Solved
        predicted: Float64[np.ndarray, " v"]
        second: str | None

        def learn(pairs: int) -> LearningCurve:
            nonlocal own, solved, predicted, second
            _forget(own)  # before there are other pairs, that it doesn't belong to
            before = source.seconds
            with bar(self.verbose, "exact distances", unit="pairs") as show:
                solved = source.solved(pairs, show)
            started = time.perf_counter()
            own = file and file.with_stem(f"{file.stem}-{pairs}") if in_turn else file
            predicted, second = self._learn_suited(measures, solved, own, target_error or 0.0)
            trained = time.perf_counter() - started
            done = Round(solved.total, _error(predicted, solved), source.seconds - before, trained)
            return LearningCurve((done,), self._seconds_a_pair(measures, solved, source), seconds_a_measure=0.0)

        all_there_are = self.pairs == "auto" or (distances is not None and not in_turn)
        most = source.most if all_there_are else min(int(self.pairs), source.most)
        curve = in_rounds(learn, most, wish) if in_turn else learn(most)
        left = np.inf if max_seconds is None else max_seconds - (time.perf_counter() - began)
        if second and _seconds_by_maps(measures, solved, curve) <= left:
            started = time.perf_counter()
            error = _error(self._learn_closer(measures, solved, second, own, predicted), solved)
            curve = replace(curve, second=Round(solved.total, error, 0.0, time.perf_counter() - started))
        self.learning_curve_ = replace(curve, seconds_a_measure=self._seconds_a_measure(measures))
        _forget(own)
        self._trust = self._trusted(measures, solved)
        del self._seen
        if self._decoding is not None:
            self._decoding.module.stretched(self.dim_ - self._encoding.exact_dim, self._scale)
        self.decoder_error_ = None if self._decoding is None else self._decoder_error(measures[self.split_.validation])
        self.errors_: dict[str, Any] | None = None
        self._digests = measures.digests().copy()  # to be saved: torch takes no array that cannot be written to
        self._calibrated_on = self._digests[self.split_.calibration]
        self._fitted = self.get_params(deep=False)
        return self

    def transform(self, measures: Measures) -> Float32[np.ndarray, "n dim"]:
        """The vector of each measure.

        Raises:
            NotFittedError: before `fit`.
            MeasureError: measures of another dimension than those learned from, images of another shape, or points
                so far out that a vector of float32 cannot hold them.
            SettingError: measures that the ground cost is not defined on.
        """
        return self._transformed(measures)

    def _transformed(self, measures: Measures, whose: str = "") -> Float32[np.ndarray, "n dim"]:
        vectors = self.encode(measures)
        warn_of_unusual(self._trust.unusualness(measures, vectors), f"measures{whose}")
        return vectors

    def encode(self, measures: Measures) -> Float32[np.ndarray, "n dim"]:
        """The vector of each measure, as `transform` has it, without a look at how unusual they are.

        Raises:
            NotFittedError: before `fit`.
            MeasureError, SettingError: as `transform`.
        """
        self.check_like(measures)

        def seen(start: int, batch: Measures, show: Progress) -> np.ndarray:
            return self._encoding.inputs(batch, self._unit, self.n_jobs, show)

        return self._encoded(measures, seen)

    def _encoded(
        self, measures: Measures, seen: Callable[[int, Measures, Progress], np.ndarray]
    ) -> Float32[np.ndarray, "n dim"]:
        """Vectors, by what the encoder sees of the measures in a batch that starts somewhere."""
        encoding = self._encoding
        vectors = np.empty((len(measures), encoding.dim), dtype=np.float32)
        learned = encoding.dim - encoding.exact_dim
        encoding.module.to(self.device)
        with bar(self.verbose and len(measures) >= encoding.waits_from, "encoding", unit="measures") as show:
            for start in range(0, len(measures), _BATCH):
                batch = measures[start : start + _BATCH]
                within = of_block(show, start, len(batch), len(measures))
                with np.errstate(over="ignore", invalid="ignore"), torch.no_grad():
                    inputs = torch.from_numpy(seen(start, batch, within))
                    parts = [encoding.module(rows.to(self.device)) for rows in torch.split(inputs, _ROWS)]
                    output = torch.cat(parts).cpu().numpy()
                    encoded = vectors[start : start + len(batch)]
                    encoded[:, :learned] = output * np.float32(self._scale * self._unit)
                    encoded[:, learned:] = encoding.exact_part(batch)
                finite = np.isfinite(encoded).all(axis=1)
                if not finite.all():
                    raise MeasureError(
                        f"measure {start + int(np.argmin(finite))} lies too far out for a vector of float32: "
                        f"this model was fitted on distances about {self._unit:.1e}; check its unit"
                    )
                show(start + len(batch), len(measures))
        return vectors

    @overload
    def distance(self, a: Measures, b: Measures) -> Float64[np.ndarray, " n"]: ...
    @overload
    def distance(
        self,
        a: Measures,
        b: Measures,
        *,
        interval: float | None = None,
        tolerance: float | None = None,
        budget: int | None = None,
        refine: bool | None = None,
    ) -> Distances: ...
    def distance(
        self,
        a: Measures,
        b: Measures,
        *,
        interval: float | None = None,
        tolerance: float | None = None,
        budget: int | None = None,
        refine: bool | None = None,
    ) -> Float64[np.ndarray, " n"] | Distances:
        """Predicted W_p of a[i] and b[i], in the unit of the support; with any of the options how far off it may be.

        The intervals are split-conformal. For one pair of unseen measures that are drawn like the calibration measures,
        independently of them, the exact distance lies within with probability `interval` if the calibration pairs are
        independent too (Lei et al. 2018, Thm 2.2). They are not, as pairs share measures. The ends are therefore put as
        far out as if there were as many pairs as calibration measures, and no two of them shared one. That is
        meant to keep the promise in the mean over models, without a proof; benchmarks/trust.py prints how nearly it
        was kept in each. It is also why a high share takes many calibration measures. Nothing is promised for one
        particular pair, for the pairs of one particular measure, for distances chosen because they are small, or for
        measures unlike those learned from. Of pairs predicted nearer than 199 of 200 calibration pairs, such as a
        measure and a copy with a little noise, next to nothing is known: their interval begins at 0, or at the
        certified bound where references are used; without them a tolerance has them solved. Of pairs predicted farther
        apart than 199 of 200 the error is taken to be as great a share of the distance as at that end.

        Args:
            a: measures.
            b: as many.
            interval: share of pairs whose exact distance lies within the interval; None for 0.9.
            tolerance: relative error that is good enough; pairs whose interval leaves more open are solved exactly.
            budget: most pairs to solve, those whose interval leaves most open first; without a tolerance so many are.
            refine: solve each measure against the references too, which takes `references` solves a measure, narrows
                the intervals and keeps them within certified bounds; None for where that takes less than half the
                solves of the pairs.

        Returns:
            An array (n,); with any of the options a `Distances`.

        Raises:
            SettingError: collections of different lengths, an option out of range, or a model with too few calibration
                measures.
            SolverError: a solution could not be certified.
        """
        self._check_paired("distance", a, b)
        wanted = Asked(interval, tolerance, budget, refine)
        left, right = self._transformed(a, " of a"), self._transformed(b, " of b")
        if wanted == Asked():
            return paired_distances(left, right).astype(np.float64)
        every = np.arange(len(a))
        with self._shown() as shown:
            return answered(self._trust, self.cost, (a, left), (b, right), (every, every), wanted, self.n_jobs, shown)

    @overload
    def pairwise(self, a: Measures, b: Measures | None = None) -> Float32[np.ndarray, "n m"]: ...
    @overload
    def pairwise(
        self,
        a: Measures,
        b: Measures | None = None,
        *,
        interval: float | None = None,
        tolerance: float | None = None,
        budget: int | None = None,
        refine: bool | None = None,
    ) -> Distances: ...
    def pairwise(
        self,
        a: Measures,
        b: Measures | None = None,
        *,
        interval: float | None = None,
        tolerance: float | None = None,
        budget: int | None = None,
        refine: bool | None = None,
    ) -> Float32[np.ndarray, "n m"] | Distances:
        """Predicted W_p of each a[i] and each b[j] (of a itself without b), in the unit of the support.

        Args:
            a: measures.
            b: measures; without them, a.
            interval: share of pairs whose exact distance lies within the interval; None for 0.9.
            tolerance: relative error that is good enough, as for `distance`.
            budget: most pairs to solve, as for `distance`; a pair of `a` counts once, though the matrix shows it twice.
            refine: solve each measure against the references too, as for `distance`.

        Returns:
            An array (n, m); with any of the options a `Distances` of such arrays.

        Raises:
            SettingError: an option out of range, or a model without calibration.
            SolverError: a solution could not be certified.
        """
        wanted = Asked(interval, tolerance, budget, refine)
        left = self._transformed(a, "" if b is None else " of a")
        right = left if b is None else self._transformed(b, " of b")
        if wanted == Asked():
            return distances_between(left, right)
        with self._shown() as shown:
            other = None if b is None else (b, right)
            return answered_each(self._trust, self.cost, (a, left), other, wanted, self.n_jobs, shown)

    def unusualness(self, measures: Measures) -> Float64[np.ndarray, " n"]:
        """How unlike the training measures each measure is.

        0 is typical of unseen measures like the training ones, 1 the most unusual hundredth of them; `transform` warns
        of a measure from 2.5 on, and where more are above 1 than chance would have it. What it is, is said in
        `wembed.learning.novelty.Novelty`.

        Raises:
            NotFittedError: before `fit`.
            MeasureError: as `transform`.
        """
        self._check_fitted()
        return self._trust.unusualness(measures, self.encode(measures))

    def bounds(self, a: Measures, b: Measures) -> Bounds:
        """Certified bounds on W_p of a[i] and b[i], by way of the model's references; see `wembed.bounds`.

        `numpy.clip(embedder.distance(a, b), bounds.lower, bounds.upper)` is a prediction within them.

        Raises:
            SettingError: collections of different lengths, or a model without references.
            SolverError: a solution could not be certified.
        """
        self._check_paired("bounds", a, b)
        sides = []
        for one in (a, b):
            vectors = self.encode(one)
            with bar(self.verbose, "references", unit="measures") as show:
                sides.append(self._trust.side(one, vectors, True, self.n_jobs, show))
        left, right = sides
        every = np.arange(len(a))
        return self._trust.bounds(left, right, every, every)

    def calibrate(self, measures: Measures, pairs: int = 4_000, seed: int = 0) -> "Embedder":
        """Set the intervals by measures that the model has not seen, in place of those of the fit.

        Half of the measures fit how the error depends on distance and unusualness, the other half set the width; this
        solves about `pairs` pairs. Measures that the model has learned from are left out, and those that come again;
        the calibration and test measures of the fit may be among them, and count as seen then. An index keeps the model
        that it was made with. What intervals promise, they promise for measures like these; to see whether it is kept,
        evaluate on others.

        Raises:
            NotFittedError: before `fit`.
            SettingError: fewer than 24 measures that differ and that the model has not learned from, or fewer than 100
                pairs; or nearly all of them at distance 0.
        """
        whole("pairs", pairs, _FEWEST_PAIRS)
        whole("seed", seed)
        self.check_like(measures)
        distinct = np.unique(measures.first_alike())  # one that comes twice tells no more than once
        fresh = measures[distinct[~np.isin(measures.digests()[distinct], self._learned_from)]]
        if len(fresh) < _FEWEST_MEASURES:
            repeats, learned = len(measures) - len(distinct), len(distinct) - len(fresh)
            raise SettingError(
                f"{len(measures)} measures, of which {learned} were learned from and {repeats} repeat another, are too "
                f"few to calibrate on: {len(fresh)} are left. Give at least {_FEWEST_MEASURES} that differ and are new "
                f"to the model, and for intervals that vary little {2 * FEW_CALIBRATED}"
            )
        order = np.random.default_rng(seed).permutation(len(fresh))
        halves: list[tuple[np.ndarray, np.ndarray]] = []
        for half in np.array_split(order, 2):
            most = len(half) * (len(half) - 1) // 2
            listed = random_pairs(half, min(pairs // 2, most), np.random.default_rng([seed, len(halves)])).pairs
            with bar(self.verbose, "exact distances", unit="pairs") as show:
                halves.append((listed, exact_distances(fresh, listed, self.cost, self.n_jobs, show)))
        if min(float(exact.mean()) for _, exact in halves) <= NO_DISTANCE * self.mean_distance_:
            raise SettingError(ALL_ALIKE)
        vectors = self.encode(fresh)
        warn_of_unusual(
            self._trust.unusualness(fresh, vectors),
            so="intervals are for measures like these now, and may not hold of others",
        )
        with bar(self.verbose, "references", unit="measures") as show:
            trust = self._trust.familiar(fresh, vectors)
            trust = trust.calibrated(fresh, vectors, halves[0], halves[1], self.n_jobs, show)
        if not trust.highest_level:
            raise SettingError(ALL_ALIKE)
        self._trust = trust
        self._calibrated_on = fresh.digests().copy()
        if self.errors_ is not None:  # the intervals that these tell of are gone
            self.errors_ = {name: value for name, value in self.errors_.items() if name != "coverage"}
        return self

    def unseen(self, measures: Measures) -> Measures:
        """The measures that the model was neither fitted to nor calibrated on, those for test of `fit` among them.

        Those that intervals were calibrated on before `calibrate` are unseen again: nothing goes by them any more.

        Raises:
            NotFittedError: before `fit`.
            SettingError: there are none.
        """
        self.check_like(measures)
        fresh = np.flatnonzero(~self._has_seen(measures))
        if len(fresh) == 0:
            raise SettingError(
                f"the model was fitted to or calibrated on all of the {len(measures)} measures; give some it has not "
                "seen"
            )
        return measures if len(fresh) == len(measures) else measures[fresh]

    def _has_seen(self, measures: Measures) -> np.ndarray:
        return np.asarray(np.isin(measures.digests(), np.concatenate([self._learned_from, self._calibrated_on])))

    @property
    def _learned_from(self) -> np.ndarray:
        """Digests of the measures that training or the choice of what was learned has seen."""
        return np.asarray(self._digests[np.concatenate([self.split_.train, self.split_.validation])])

    @property
    def trust(self) -> Trust:
        """What is known of the errors of the predicted distances.

        Raises:
            NotFittedError: before `fit`.
        """
        self._check_fitted()
        return self._trust

    @property
    def cost(self) -> GroundCost:
        """The ground cost that the predicted distances stand for."""
        return self._encoding.cost if hasattr(self, "_encoding") else GroundCost(self.metric, self.order)

    def fit_decoder(
        self, measures: Measures, *, atoms: int = ATOMS, steps: int = 4_000, mixtures: int | None = None
    ) -> "Embedder":
        """Learn to make measures of vectors; the encoder stays as it is.

        Images are decoded to images of the same shape, histograms to histograms on the same support, and clouds to
        clouds of a fixed number of atoms of equal mass. It learns from the measures, from distorted copies, and, for
        euclidean W_2, from what lies between some of them by exact couplings, so that the mean of vectors decodes to a
        barycenter. A tenth of the measures, at most 1,000, choose the best state of the decoder, which `save` keeps
        with the model.

        Args:
            measures: such as vectors are to be decoded to; those of the fit, for example.
            atoms: of a decoded cloud.
            steps: of training.
            mixtures: measures between others to make, each by one to eight couplings; 0 for none, None for twice as
                many as there are measures, and at most 12,000.

        Raises:
            NotFittedError: before `fit`.
            SettingError: fewer than 20 measures, a number out of range, or clouds under a metric that is not of flat
                space.
            MeasureError: as `transform`.
        """
        self.check_like(measures)
        whole("atoms", atoms, 1)
        whole("steps", steps, 1)
        if mixtures is not None:
            whole("mixtures", mixtures)
        if len(measures) < _FEWEST_DECODED:
            raise SettingError(f"{len(measures)} measures are too few to decode from; give at least {_FEWEST_DECODED}")
        some = measures[np.unique(np.linspace(0, len(measures) - 1, _FAMILIAR).astype(int))]
        warn_of_unusual(
            self._trust.unusualness(some, self.encode(some)),
            "measures to decode to",
            "for vectors of usual ones a decoder that learns from these may be of no use",
        )
        with self._shown() as shown:
            self._decoding, unseen = learned_decoding(
                measures,
                self.encode,
                self.dim_ - self._encoding.exact_dim,
                self.cost,
                DecoderSettings(atoms, steps, mixtures, self.random_state, self.n_jobs, self.device),
                shown,
            )
        self.decoder_error_ = self._decoder_error(measures[unseen])
        return self

    def _decoder_error(self, measures: Measures) -> float:
        """Mean W_p between measures, some of many, and what they decode to."""
        some = measures[:_DECODED]
        pairs = np.stack([np.arange(len(some)), np.arange(len(some)) + len(some)], axis=1)
        both = Measures.concatenate([some, self.decode(self.encode(some))])
        return float(exact_distances(both, pairs, self.cost, self.n_jobs).mean())

    def decode(self, vectors: Any) -> Measures:
        """The measure of each vector (n, dim): `decode(transform(m))` is near to m.

        Where the embedding holds the centroid, as for euclidean W_2, that of the decoded measure is the same; of
        images, as far as their frame allows.

        Raises:
            NotFittedError: before `fit`.
            SettingError: a model without a decoder, or arrays that are not vectors of this model.
        """
        decoding = self.check_decoder()
        given = np.asarray(vectors)
        if given.ndim != 2 or given.shape[1] != self.dim_ or not len(given) or given.dtype.kind != "f":
            raise SettingError(
                f"vectors have shape {given.shape} and type {given.dtype}; expected floats (n, {self.dim_}), n > 0"
            )
        finite = np.isfinite(given).all(axis=1)
        if not finite.all():
            raise SettingError(f"vector {int(np.argmin(finite))} has a number that is NaN or infinite")
        return decoding(given, self._encoding.centroids(given), self.device)

    @property
    def decoder(self) -> Decoding | None:
        """What makes measures of vectors; None until `fit_decoder`."""
        return self._decoding

    def check_decoder(self) -> Decoding:
        """The decoder.

        Raises:
            NotFittedError: before `fit`.
            SettingError: there is none.
        """
        self._check_fitted()
        if self._decoding is None:
            raise SettingError("this model has no decoder; give it one with fit_decoder, or with `wembed decoder`")
        return self._decoding

    def save(self, folder: "str | Path") -> None:
        """Write model.json and the weights it names into a folder; `wembed.load` reads them.

        Raises:
            NotFittedError: before `fit`.
            ArtifactError: the folder holds a model.json that is not a model's.
            SettingError: it is a file.
        """
        self._check_fitted()
        tensors = {f"encoder.{name}": tensor for name, tensor in self._encoding.module.state_dict().items()}
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in self._encoding.arrays().items()}
        tensors |= {f"split.{name}": torch.from_numpy(part) for name, part in self.split_.parts().items()}
        trusted = {f"trust.{name}": torch.from_numpy(np.array(a)) for name, a in self._trust.arrays().items()}
        tensors |= trusted
        tensors["digests"] = torch.from_numpy(self._digests)
        tensors["calibrated_on"] = torch.from_numpy(self._calibrated_on)
        if not isinstance(self.cost.metric, str):
            tensors["metric"] = torch.from_numpy(np.asarray(self.cost.metric, dtype=np.float64))
        if self._decoding is not None:
            made = self._decoding.module.state_dict()
            tensors |= {f"decoder.{name}": tensor.to("cpu") for name, tensor in made.items()}
            tensors |= {name: torch.from_numpy(np.array(a)) for name, a in self._decoding.arrays().items()}
        settings = {key: value for key, value in self._fitted.items() if key not in ("metric", "training", "verbose")}
        description = {
            "settings": settings,
            "training": None if self._fitted["training"] is None else asdict(self._fitted["training"]),
            "cost": self.cost.as_dict(),
            "dim": self._encoding.dim,
            "features": self._encoding.description(),
            "decoder": None if self._decoding is None else self._decoding.description(),
            "decoder_error": self.decoder_error_,
            "grid": self._grid,
            "unit": self._unit,
            "calibration": {"scale": self._scale},
            "history": self.history_,
            "learning_curve": self.learning_curve_.as_dict(),
            "mean_distance": self.mean_distance_,
            "pairs_used": self.pairs_used_,
            "errors_on_unseen": self.errors_,
            "parents": self._parents,
        }
        write_model(Path(folder), description, tensors)

    def check(self, measures: Measures) -> None:
        """Refuse, before anything is solved, parameters that are out of range or that do not fit these measures.

        Raises:
            SettingError: the message names the parameter.
        """
        cost = GroundCost(self.metric, self.order)
        cost.check(measures)
        if not (isinstance(self.pairs, str) and self.pairs == "auto"):
            whole("pairs", self.pairs, 1, also=", or 'auto'")
        if self.dim is not None and whole("dim", self.dim, 1) > _MOST_NUMBERS:
            raise SettingError(f"dim={self.dim}; give at most {_MOST_NUMBERS}")
        whole("random_state", self.random_state, also=", so that a fit can be repeated")
        check_jobs(self.n_jobs)
        if not (isinstance(self.references, str) and self.references == "auto"):
            whole("references", self.references, also=", or 'auto'")
        if self.references and not isinstance(self.metric, str):
            check_triangles(np.asarray(self.metric, dtype=np.float64))
        if self.encoder not in ("auto", *ENCODINGS):
            raise SettingError(f"unknown encoder {self.encoder!r}; choose one of auto, {', '.join(ENCODINGS)}")
        if self.encoder != "auto":
            ENCODINGS[self.encoder].check_collection(cost, measures)
        if self.training is not None and self.training.reconstruction:
            suited_decoding(measures, cost)
            if self.encoder == LinearEncoding.kind:
                raise SettingError("the linear encoder learns nothing that a decoder could share; use fit_decoder")
        if not _there(self.device):
            raise SettingError(f"device {self.device!r} is not there; 'cpu' always is")
        self._draw().split(measures)  # last, as it reads all of them

    def check_like(self, measures: Measures) -> None:
        """Refuse measures that this model has no vectors for.

        Raises:
            NotFittedError: before `fit`.
            MeasureError: another dimension than that learned from, or images of another shape.
            SettingError: measures that the ground cost is not defined on.
        """
        self._check_fitted()
        self._encoding.check(measures)
        if None not in (self._grid, measures.grid) and measures.grid != self._grid:
            theirs, known = (" x ".join(map(str, grid or ())) for grid in (measures.grid, self._grid))
            raise MeasureError(
                f"these are images of {theirs} pixels, and the model was fitted on images of {known}; resize them, or "
                "give their pixels as point clouds"
            )

    def _check_fitted(self) -> None:
        if not hasattr(self, "_encoding"):
            raise NotFittedError("this Embedder has not been fitted; call fit, or wembed.load a saved one")

    def _check_paired(self, what: str, a: Measures, b: Measures) -> None:
        for one in (a, b):
            self.check_like(one)
        if len(a) != len(b):
            instead = "; for all against all use pairwise" if what == "distance" else ""
            raise SettingError(f"{what} pairs {len(a)} measures with {len(b)}{instead}")

    def _draw(self) -> Draw:
        return Draw(int(self.random_state), self.validation, self.test, self.calibration)

    def _source(self, measures: Measures, distances: Any, *, grows: bool) -> Source:
        cost = GroundCost(self.metric, self.order)
        draw = self._draw()
        if distances is None:
            return Drawn(measures, cost, draw, self.n_jobs)
        path = distances.path if isinstance(distances, DistanceStore) else Path(distances)
        if grows:
            return Kept(path, measures, cost, draw, self.n_jobs)
        store = distances if isinstance(distances, DistanceStore) else DistanceStore(path)
        return Given(store, measures, cost, draw)

    def _learn_suited(
        self, measures: Measures, solved: Solved, checkpoint: Path | None, enough: float
    ) -> tuple[Float64[np.ndarray, " v"], str | None]:
        """Learn the encoder that was asked for, or else the one that suits.

        Left to choose, and unless the error is small enough, it learns from optimal maps to several references as well
        where linear optimal transport is closer to some validation pairs. Of what was learned first, what was learned
        from maps, and linear optimal transport, it takes a later one only where that is closer by more than chance.

        Args:
            measures: the collection.
            solved: its distances.
            checkpoint: of the first training; others have files beside it.
            enough: a relative error.

        Returns:
            The predicted distances of validation pairs, and the name of another encoder that may be closer.
        """
        members, cost = self._members(measures, solved.split), GroundCost(self.metric, self.order)
        first, second = suited(cost, members) if self.encoder == "auto" else self.encoder, None
        self._learn(measures, solved, members, first, checkpoint)
        predicted = self._calibrate(measures, solved)
        left_to_choose = self.encoder == "auto" and self.dim is None and self._decoding is None
        if left_to_choose and _error(predicted, solved) > enough:
            few, linear = solved.checked_by(_COMPARED), self._linear(members)
            known = linear._calibrate(measures, few)
            error = _error(predicted, few)
            second = slower(first, cost, members, _error(known, few) / error if error else np.inf)
            if second == TransportEncoding.kind:
                predicted, second = self._learn_closer(measures, solved, second, checkpoint, predicted), None
            if _closer(known, predicted, few):
                self.__dict__.update(vars(linear))
                predicted = self._calibrate(measures, solved)
        return predicted, second

    def _learn_closer(
        self, measures: Measures, solved: Solved, name: str, checkpoint: Path | None, before: np.ndarray
    ) -> Float64[np.ndarray, " v"]:
        """Learn another encoding, and take it if it is closer to validation pairs, by more than chance, than before.

        Returns:
            The distances of validation pairs that are predicted in the end.
        """
        quicker, members = copy(self), self._members(measures, solved.split)
        self._learn(measures, solved, members, name, _beside(checkpoint, name))
        predicted = self._calibrate(measures, solved)
        if _closer(predicted, before, solved):
            return predicted
        self.__dict__.update(vars(quicker))
        return before

    def _learn(self, measures: Measures, solved: Solved, members: Measures, name: str, checkpoint: Path | None) -> None:
        """Build an encoding and train it on the solved pairs; what it is scaled by is left to be calibrated."""
        cost = GroundCost(self.metric, self.order)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            encoding = ENCODINGS[name].build(cost, members, self.dim, self.random_state)
        used = np.unique(np.concatenate([solved.train_pairs, solved.validation_pairs]))
        unit = float(np.sqrt(np.square(solved.train_distances).mean())) or 1.0
        if not 1e-30 < unit < 1e30:
            raise SettingError(f"distances are about {unit:.1e}, beyond float32; rescale the measures")
        learned_from = measures[used]
        with bar(self.verbose, "transport maps", unit="measures") as show:
            inputs = encoding.copies(learned_from, unit, self.random_state, self.n_jobs, show)
        examples = Examples(
            inputs,
            (encoding.exact_part(learned_from) / unit).astype(np.float32),
            np.searchsorted(used, solved.train_pairs),
            solved.train_distances / unit,
            np.searchsorted(used, solved.validation_pairs),
            solved.validation_distances / unit,
        )
        encoding.start_from(examples)
        count = len(solved.train_pairs)
        training = self.training or TrainingSettings(seed=self.random_state)
        training = training.resolved(count, encoding.steps, encoding.rate_for(count), encoding.batch_pairs)
        if training.auxiliary:
            with bar(self.verbose, "transport maps", unit="measures") as show, torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.random_state)
                auxiliary = encoding.auxiliary(members, unit, count, self.random_state, self.n_jobs, show)
            examples = replace(examples, auxiliary=auxiliary)
        decoding = None
        if training.reconstruction:
            with bar(self.verbose, "transport maps", unit="measures") as show, torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.random_state)
                rows = np.flatnonzero(np.isin(used, solved.split.train))
                rows = np.sort(np.random.default_rng([self.random_state, 10]).permutation(rows)[:_KNOWN])
                decoding, task = joint_decoding(
                    learned_from[rows], encoding, inputs[0, rows], unit, ATOMS, self.n_jobs, show
                )
            examples = replace(examples, reconstruction=task)
        with bar(self.verbose, "training", unit="steps") as show:
            history = train(
                encoding.module,
                examples,
                training,
                encoding.loss,
                self.device,
                checkpoint,
                lambda step, steps, _: show(step, steps),
            )
        encoding.finish(examples)
        if decoding is not None:
            assert training.steps is not None
            settings = DecoderSettings(ATOMS, training.steps, 0, self.random_state, self.n_jobs, self.device)
            with bar(self.verbose, "decoder", unit="steps") as show:
                finish_decoding(decoding, task, encoding, encoding.inputs_of(inputs[:, rows]), settings, show)
        again = np.isin(used, np.union1d(solved.validation_pairs, self._familiar(solved.split)))
        self._seen = _Seen(used[again], encoding.inputs_of(inputs[:, again]))
        self._encoding, self._decoding, self._unit, self._grid = encoding, decoding, unit, measures.grid
        self.encoder_, self.dim_ = name, encoding.dim
        self.split_ = solved.split
        self.history_ = [(step, error * unit) for step, error in history]
        self.mean_distance_ = float(solved.train_distances.mean())
        self.pairs_used_ = {"train": len(solved.train_pairs), "validation": len(solved.validation_pairs)}
        self._parents = {"measures": measures.fingerprint, "distances": solved.digest}

    def _members(self, measures: Measures, split: Split) -> Measures:
        """The training measures that an encoding is built from: all of them, or some of many."""
        some = np.random.default_rng([self.random_state, 6]).permutation(len(split.train))[:_KNOWN]
        return measures[split.train[np.sort(some)]]

    def _linear(self, members: Measures) -> "Embedder":
        """The same with linear optimal transport in place of what was learned."""
        plain = copy(self)
        plain._encoding = LinearEncoding.build(self.cost, members, None, self.random_state)
        plain.encoder_, plain.dim_, plain.history_ = plain._encoding.kind, plain._encoding.dim, []
        plain._seen = _Seen(np.empty(0, np.int64), np.empty((0, plain._encoding.dim), np.float32))
        return plain

    def _familiar(self, split: Split) -> Int64[np.ndarray, " n"]:
        """Training measures in random order, some of many: what is usual is told by them."""
        return np.random.default_rng([self.random_state, 7]).permutation(split.train)[:_FAMILIAR]

    def _known(self, measures: Measures, numbers: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n dim"]:
        """Vectors of some measures of the collection; what the encoder has seen of them is not found again."""
        vectors = np.empty((len(numbers), self._encoding.dim), dtype=np.float32)
        there = np.isin(numbers, self._seen.numbers)
        place = np.searchsorted(self._seen.numbers, numbers[there])
        if there.any():
            vectors[there] = self._encoded(
                measures[numbers[there]], lambda start, batch, _: self._seen.inputs[place[start : start + len(batch)]]
            )
        if not there.all():
            vectors[~there] = self.encode(measures[numbers[~there]])
        return vectors

    def _trusted(self, measures: Measures, solved: Solved) -> Trust:
        """What is known of errors, from validation and calibration pairs."""
        split = solved.split
        familiar, unseen = self._familiar(split), split.calibration if len(split.calibration) else split.validation
        typical = np.random.default_rng([self.random_state, 8]).permutation(unseen)[:_FAMILIAR]
        fitted_on = self._some(solved.validation_pairs, solved.validation_distances, _FITTED_ON)
        calibrated_on = self._some(solved.calibration_pairs, solved.calibration_distances, _CALIBRATED_ON)
        used = np.unique(np.concatenate([familiar, typical, fitted_on[0].ravel(), calibrated_on[0].ravel()]))
        some, vectors = measures[used], self._known(measures, used)
        members, others = np.searchsorted(used, familiar), np.searchsorted(used, typical)
        suited_number = _MORE_REFERENCES if some[members].sizes.mean() <= _FEW_ATOMS else _REFERENCES
        trust = Trust.build(
            self.cost,
            (some[members], vectors[members]),
            (some[others], vectors[others]),
            self._encoding.placed,
            self._encoding.dim - self._encoding.exact_dim,
            suited_number if self.references == "auto" else int(self.references),
            int(self.random_state),
        )
        within = [(np.searchsorted(used, pairs), exact) for pairs, exact in (fitted_on, calibrated_on)]
        with bar(self.verbose, "references", unit="measures") as show:
            return trust.calibrated(some, vectors, within[0], within[1], self.n_jobs, show)

    def _some(self, pairs: np.ndarray, distances: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """At most so many of these pairs, at random: the first ones may be of few measures."""
        some = np.random.default_rng([self.random_state, 9]).permutation(len(pairs))[:most]
        return pairs[some], distances[some]

    @contextmanager
    def _shown(self) -> Iterator[Callable[[str], Progress]]:
        """A bar for each part of the work."""
        with ExitStack() as bars:
            yield lambda what: bars.enter_context(bar(self.verbose, what, unit=_UNITS.get(what, "measures")))

    def _solved_test_pairs(self, measures: Measures, store: DistanceStore) -> tuple[np.ndarray, np.ndarray]:
        pairs, exact, digest = store.read()
        if digest != self._parents["distances"]:
            raise ArtifactError(f"{store.path} does not hold the distances that this Embedder was fitted with")
        if not np.array_equal(measures.digests(), self._digests[self.split_.test]):
            raise SettingError("the store knows the test measures of its collection; evaluate collection[split_.test]")
        held = np.isin(pairs, self.split_.test).all(axis=1)
        return np.searchsorted(self.split_.test, pairs[held]), exact[held]

    def _calibrate(self, measures: Measures, solved: Solved) -> Float64[np.ndarray, " v"]:
        """Fit the scale; return the predicted distances of validation pairs."""
        self._scale = 1.0
        used, place = np.unique(solved.validation_pairs, return_inverse=True)
        vectors, pairs = self._known(measures, used), place.reshape(-1, 2)
        learned = self._encoding.dim - self._encoding.exact_dim
        free, fixed = (distances_of_pairs(part, pairs) for part in (vectors[:, :learned], vectors[:, learned:]))
        self._scale = fitted_scale(free, fixed, solved.validation_distances)
        return np.asarray(np.hypot(self._scale * free, fixed))

    def _seconds_a_measure(self, measures: Measures) -> float:
        """Of encoding, all processes together, as one of so many that it takes half a second or less."""
        order = np.random.default_rng(0).permutation(self.split_.validation)
        some = measures[order[: max(self._encoding.waits_from // 4, 1)]]
        started = time.perf_counter()
        self.encode(some)
        return (time.perf_counter() - started) / len(some)

    def _seconds_a_pair(self, measures: Measures, solved: Solved, source: Source) -> float:
        """Of an exact solve, all processes together: as those of the fit took, or as a few take now."""
        if source.added:
            return source.seconds / source.added
        from joblib import effective_n_jobs  # imported late, as joblib is everywhere

        some, jobs = np.random.default_rng(0).permutation(solved.train_pairs)[:_PROBED], effective_n_jobs(self.n_jobs)

        def seconds(pairs: np.ndarray) -> float:
            started = time.perf_counter()
            solve_pairs(measures, pairs, self.cost)
            return time.perf_counter() - started

        spent, done = seconds(some[:1]), 1  # longer than others take
        if spent < _PROBE_SECONDS and len(some) > 1:
            spent = 0.0
            while spent < _PROBE_SECONDS and done < len(some):
                more = some[done : 2 * done]
                spent, done = spent + seconds(more), done + len(more)
            return spent / (done - 1) / int(jobs)
        return spent / int(jobs)


def _seconds_by_maps(measures: Measures, solved: Solved, curve: LearningCurve) -> float:
    """That the combined encoder is likely to take, from the pairs of the last round."""
    used = measures[np.unique(np.concatenate([solved.train_pairs, solved.validation_pairs]))]
    return CombinedEncoding.solves(used) * curve.seconds_a_pair + 2 * curve.rounds[-1].training


def _forget(checkpoint: Path | None) -> None:
    """Delete the file of a training, and those of encoders that were learned from the same pairs after it."""
    for file in (checkpoint, *(_beside(checkpoint, name) for name in ENCODINGS)):
        if file:
            file.unlink(missing_ok=True)


def _beside(checkpoint: Path | None, name: str) -> Path | None:
    return checkpoint and checkpoint.with_stem(f"{checkpoint.stem}-{name}")


class _Seen(NamedTuple):
    """What the encoder sees of some measures of a collection.

    Attributes:
        numbers: which, in ascending order.
        inputs: of each.
    """

    numbers: Int64[np.ndarray, " n"]
    inputs: Float32[np.ndarray, "n *shape"]


def _closer(one: np.ndarray, other: np.ndarray, solved: Solved) -> bool:
    """Whether the first predictions are closer to the first validation distances than the second, by more than chance.

    By that is meant that the mean of the differences of their errors is more than twice its standard error, as if each
    measure gave one difference, for pairs that share a measure are not independent.
    """
    gains = _errors(other, solved) - _errors(one, solved)
    measures = len(np.unique(solved.validation_pairs))
    return bool(gains.sum() > 2 * gains.std() * len(gains) / measures**0.5) if len(gains) else False


def _error(predicted: np.ndarray, solved: Solved) -> float:
    """The mean relative error of the first validation pairs."""
    errors = _errors(predicted, solved)
    return float(errors.mean()) if len(errors) else 0.0


def _errors(predicted: np.ndarray, solved: Solved) -> Float64[np.ndarray, " v"]:
    """Relative errors of the first validation pairs, those of equal measures left out."""
    exact = solved.validation_distances
    apart = exact > 0
    return np.asarray(np.abs(predicted[: len(exact)] - exact)[apart] / exact[apart])


def load(folder: "str | Path", device: str | None = None) -> Embedder:
    """The Embedder that `save` wrote. Nothing in the folder is executed.

    Args:
        folder: where the model lies, or the run of `wembed fit` that it is in.
        device: a torch device; without it the one of the fit, or the CPU where that is not there.

    Raises:
        ReadError: there is no model in the folder.
        ArtifactError: the model is damaged or of another format.
    """
    folder = model_folder(folder)
    description, tensors = read_model(folder)
    try:
        embedder = _restored(description, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{folder / 'model.json'} is damaged: {error}; fit the model again") from error
    embedder.device = device or (embedder.device if _there(embedder.device) else "cpu")
    return embedder


def _there(device: str) -> bool:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        return False
    return True


def _restored(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Embedder:
    metric = tensors["metric"].numpy() if "metric" in tensors else description["cost"]["metric"]
    training = description["training"]
    embedder = Embedder(
        metric=metric,
        training=None if training is None else TrainingSettings(**training),
        **description["settings"],
    )
    cost = GroundCost.from_dict(description["cost"], metric if isinstance(metric, np.ndarray) else None)
    embedder.encoder_ = description["features"]["kind"]
    encoding = ENCODINGS[embedder.encoder_].restored(
        cost, description["dim"], description["features"], {name: tensor.numpy() for name, tensor in tensors.items()}
    )
    state = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
    encoding.module.load_state_dict(state)
    encoding.module.eval()
    embedder._encoding = encoding
    embedder._decoding = None
    if description["decoder"] is not None:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith("decoding.")}
        decoding = DECODINGS[description["decoder"]["kind"]].restored(encoding.dim, description["decoder"], arrays)
        made = {name.removeprefix("decoder."): t for name, t in tensors.items() if name.startswith("decoder.")}
        decoding.module.load_state_dict(made)
        decoding.module.eval()
        embedder._decoding = decoding
    embedder.decoder_error_ = description["decoder_error"]
    embedder.dim_ = encoding.dim
    embedder._grid = None if description["grid"] is None else tuple(description["grid"])
    embedder._unit = description["unit"]
    embedder._scale = description["calibration"]["scale"]
    embedder.split_ = Split(*(tensors[f"split.{field.name}"].numpy() for field in fields(Split)))
    embedder.history_ = [(int(step), float(error)) for step, error in description["history"]]
    embedder.learning_curve_ = LearningCurve.from_dict(description["learning_curve"])
    embedder.mean_distance_ = description["mean_distance"]
    embedder.pairs_used_ = description["pairs_used"]
    embedder.errors_ = description["errors_on_unseen"]
    embedder._digests = tensors["digests"].numpy()
    embedder._calibrated_on = tensors["calibrated_on"].numpy()
    embedder._trust = Trust.restored(
        cost,
        encoding.placed,
        {name.removeprefix("trust."): t.numpy() for name, t in tensors.items() if name.startswith("trust.")},
    )
    embedder._parents = description["parents"]
    embedder._fitted = embedder.get_params(deep=False)
    return embedder


def evaluate(
    embedder: Embedder,
    measures: Measures,
    pairs: int = 2_000,
    seed: int = 0,
    *,
    queries: int = 20,
    candidates: int = 1_000,
    others: Mapping[str, Embedding] | None = None,
    distances: DistanceStore | None = None,
    n_jobs: int = -1,
    progress: Progress | None = None,
) -> Report:
    """Errors of a fitted Embedder on measures that it has never seen, and of the mean predictor.

    Args:
        embedder: fitted or loaded.
        measures: unseen measures; `collection[embedder.split_.test]` are.
        pairs: random pairs with their exact distances.
        seed: draws the pairs and the queries.
        queries: measures whose distance to every candidate is solved, for recall@10; 0 for none.
        candidates: measures among which neighbours are looked for, drawn at random where there are more.
        others: more embeddings to score on the same pairs, by name.
        distances: the store that the Embedder was fitted with, if `measures` is `collection[embedder.split_.test]`:
            its pairs of test measures are taken, and only what is missing is solved.
        n_jobs: processes for the exact solves, or -1 for one a core.
        progress: called with the pairs solved and the pairs in all.

    Where the pairs are many for their measures, intervals are those by way of the references, as for `pairwise`. Of
    measures that the model was fitted to or calibrated on there is a warning (`SeenWarning`).

    Raises:
        NotFittedError: the Embedder has not been fitted.
        SettingError: fewer than two measures, no pair, a negative number, or measures that are all alike.
        ArtifactError: a store that the Embedder was not fitted with.
    """
    if not isinstance(embedder, Embedder):
        raise SettingError(f"an evaluation is of a fitted Embedder, and this is a {type(embedder).__name__}")
    embedder.check_like(measures)
    known = None if distances is None else embedder._solved_test_pairs(measures, distances)
    seen = int(embedder._has_seen(measures).sum())
    if seen:
        warn(
            f"{seen:,} of {len(measures):,} measures are those that the model was fitted to or calibrated on, so it "
            "looks better on them than on others; embedder.unseen(measures) gives those that it has not seen",
            SeenWarning,
        )
    report = compare(
        embedder,
        measures,
        pairs,
        seed,
        cost=embedder.cost,
        mean_distance=embedder.mean_distance_,
        queries=queries,
        candidates=candidates,
        others=others,
        known=known,
        n_jobs=n_jobs,
        progress=progress,
    )
    trust = embedder.trust
    used, places = np.unique(report.asked, return_inverse=True)
    distinct = len(np.unique(measures.first_alike(exact=True)[used]))
    refine, vectors = trust.refines(distinct, len(report.asked)), report.vectors
    side = trust.side(measures[used], vectors[used], refine, n_jobs)
    report = replace(
        report,
        learning_curve=embedder.learning_curve_,
        intervals=trust.intervals(_LEVELS, side, *places.reshape(-1, 2).T)
        if trust.highest_level >= _LEVELS[0]
        else None,
        unusualness=trust.unusualness(measures, vectors),
        seen=seen,
    )
    embedder.errors_ = report.as_dict()
    return report
