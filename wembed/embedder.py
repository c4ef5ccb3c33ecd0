"""Embedder: ground cost, features and encoder as one estimator."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float32, Float64
from sklearn.base import BaseEstimator, TransformerMixin

from wembed.errors import ArtifactError, MeasureError, NotFittedError, SeenWarning, SettingError
from wembed.euclidean import Residuals, distances_between, paired_distances
from wembed.learned import (
    FAMILIAR,
    Candidate,
    Learned,
    Recipe,
    familiar,
    forget,
    learn_closer,
    learn_suited,
    seconds_by_maps,
    shortened,
)
from wembed.learning.baselines import Embedding
from wembed.learning.curve import LearningCurve, Round, Wish, in_rounds
from wembed.learning.decoding import (
    ATOMS,
    DECODINGS,
    DecoderSettings,
    Decoding,
    learned_decoding,
    suited_decoding,
)
from wembed.learning.encodings import ENCODINGS, suited
from wembed.learning.evaluation import ALL_ALIKE, FEW_CALIBRATED, NO_DISTANCE, Report, compare
from wembed.learning.geometric import LinearEncoding
from wembed.learning.landmarks import LandmarkEncoding
from wembed.learning.shortening import Shortening
from wembed.learning.training import TrainingSettings, check_checkpoint
from wembed.measures import Measures
from wembed.options import switch, whole
from wembed.progress import bar
from wembed.records import Distances
from wembed.saved import model_folder, read_model, write_model
from wembed.solved import Draw, Drawn, Given, Kept, Solved, Source
from wembed.transport.bounds import Bounds
from wembed.transport.costs import GroundCost
from wembed.transport.exact import solve_pairs
from wembed.transport.pairs import Split, random_pairs
from wembed.transport.parallel import Progress, check_jobs, exact_distances
from wembed.transport.slices import check_triangles
from wembed.transport.store import DistanceStore
from wembed.trust import Asked, Trust, answered, answered_each
from wembed.unusual import warn, warn_of_unusual

__all__ = ["Embedder", "evaluate", "load"]

_FEWEST_NUMBERS, _MOST_NUMBERS = 2, 65_536  # in a vector: with a residual, and in any
NEARLY = 0.9  # of the pairs that were asked for: cliques leave some over
_PROBE_SECONDS, _PROBED = 0.2, 10_000  # to see how long an exact solve takes: at least, and pairs at most
_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of intervals that an evaluation looks at
_FEWEST_MEASURES, _FEWEST_PAIRS = 24, 100  # to calibrate on
_REFERENCES, _MORE_REFERENCES = 8, 16  # the more where solving against them is quick
_FEW_ATOMS = 64  # in the mean, that it is quick for
_FITTED_ON = 2_000  # validation pairs, by which intervals are shaped
_CALIBRATED_ON = 4_000  # calibration pairs
_UNITS = {"exact distances": "pairs", "decoder": "steps"}  # that progress is told in
_FEWEST_DECODED = 20  # measures that a decoder is learned from
_DECODED = 100  # measures that its error is found with


class Embedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Vectors whose Euclidean distance is the Wasserstein distance, learned from a few exact distances.

    Under great-circle metrics it is the chord of it: `GroundCost.from_euclidean` makes arcs of distances between
    vectors, as `distance`, `pairwise` and an index do.

    Args:
        metric: the ground metric, as in `GroundCost`.
        order: p of W_p.
        dim: length of the vectors; None for one that suits the encoder: 128 for "quantiles", 50 for "dwe", and for the
            others as many as they see. Those of "transport", "sinkhorn", "linear" and "landmarks" are learned at full
            length, and then mapped to as few, so as to keep distances between training measures; never longer.
        pairs: exact pairs for `fit`, or "auto" for as many as pay. They are shared out by the numbers of train,
            validation and test measures; those of the test measures are left to `evaluate`.
        encoder: "quantiles", sliced quantiles and a perceptron; "transport", linear optimal transport and a perceptron,
            in the plane and in space under the euclidean metric and on the globe to one reference in three turns (one
            if a decoder is trained along), else to two references; "combined", in the plane under the euclidean metric,
            sliced quantiles and linear optimal transport to one reference and a perceptron, in three turns; "sinkhorn",
            entropic linear optimal transport to a learned reference, and roots of the covariance; "dwe", the network of
            the method's paper, for images; "linear", linear optimal transport to one reference, with nothing learned;
            "landmarks", for W_p other than W_2 in the plane and in space under the euclidean metric, how far the maps
            of "transport" are from those of up to 1,000 training measures, with nothing trained; or "auto": quantiles
            on a line, in the plane and on the globe; transport where there are fewer than 200 training measures, and
            beyond the plane; sinkhorn beyond it where measures have few atoms. Where that is learned at full length, no
            decoder is trained along, and no wish of `fit` ends it before, "auto" learns transport as well where linear
            is closer to validation pairs, and in the plane combined where it comes within one and a half times the
            error, or where pairs are so many that maps take little beside them; that, linear, or landmarks by the maps
            of transport, is taken where it is closer by more than chance.
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
        residual: with a `dim`, vectors of any encoder are learned at full length, and of short ones the first number is
            the length of what the others leave out. Distances are then no plain Euclidean ones between vectors, but
            nearer by far to those of the long ones. `between` and `paired` read them from vectors, and so do all
            methods that take measures; see `wembed.euclidean.Residuals`. Where the `dim` is no less than what the
            encoder has by itself, there is none.

    `transform`, `distance` and `pairwise` warn (`UnusualWarning`) of measures unlike those learned from.

    Attributes:
        encoder_: the encoder that was taken.
        dim_: length of the vectors.
        residuals: how distances between vectors are read that have a residual, by `width` and how many `coordinates`
            follow the first number; None for plain ones.
        split_: which measures were for training, validation, test and calibration; one that equals an earlier one is in
            none of them.
        learning_curve_: what each round of the fit brought, and from how many measures on a fit pays.
        history_: validation error (root mean square, in data units; of chords on the globe) by training step, before
            vectors are made short; empty where nothing learned was kept.
        mean_distance_: mean W_p of the training pairs.
        pairs_used_: pairs that were trained on, and validated on.
        errors_: the report of the last `evaluate`, as numbers; None before.
        decoder_error_: mean W_p between measures that the decoder was not trained on, though they chose its state, and
            what their vectors decode to; None without one.
    """

    errors_: dict[str, Any] | None
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
        residual: bool = False,
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
        self.residual = residual

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
            ArtifactError: a store of other measures or another cost, or a damaged one; a checkpoint that is none, or
                is of another training.
            SolverError: an exact solve could not be certified.
        """
        self.check(measures)
        wish, began = Wish(max_seconds, target_error), time.perf_counter()
        in_turn = self.pairs == "auto" or wish != Wish()
        source, recipe = self._source(measures, distances, grows=in_turn), self._recipe()
        file = None if checkpoint is None else Path(checkpoint)
        if file and not in_turn:  # rounds have files of their own beside it
            check_checkpoint(file)
        own: Path | None = None  # of this round
        solved: Solved
        long: Candidate
        found: Candidate
        second: str | None

        def learn(pairs: int) -> LearningCurve:
            nonlocal own, solved, long, found, second
            forget(own)  # before there are other pairs, that it doesn't belong to
            before = source.seconds
            with bar(self.verbose, "exact distances", unit="pairs") as show:
                solved = source.solved(pairs, show)
            started = time.perf_counter()
            own = file and file.with_stem(f"{file.stem}-{pairs}") if in_turn else file
            long, second, compared = learn_suited(measures, solved, recipe, own, target_error or 0.0)
            found = shortened(measures, solved, recipe, long)
            trained = time.perf_counter() - started
            done = Round(solved.total, found.error(solved), source.seconds - before, trained)
            a_pair = source.seconds / source.added if source.added else _seconds_a_pair(measures, solved, recipe)
            return LearningCurve((done,), a_pair, seconds_a_measure=0.0, compared=compared)

        all_there_are = self.pairs == "auto" or (distances is not None and not in_turn)
        asked = source.most if all_there_are else int(self.pairs)
        most = min(asked, source.most)
        curve = in_rounds(learn, most, wish) if in_turn else learn(most)
        if not in_turn:
            curve = replace(curve, stopped=_why_so_many(source, asked, solved.total))
        left = np.inf if max_seconds is None else max_seconds - (time.perf_counter() - began)
        if second and seconds_by_maps(measures, solved, curve) <= left:
            started = time.perf_counter()
            closer, error = learn_closer(measures, solved, recipe, second, own, long)
            found = found if closer is long else shortened(measures, solved, recipe, closer)
            by_maps = Round(solved.total, found.error(solved), 0.0, time.perf_counter() - started)
            curve = replace(curve, second=by_maps, compared={**curve.compared, second: error})
        learned, decoding = found.learned, found.learned.decoding
        curve = replace(curve, seconds_a_measure=found.seconds_a_measure(measures, solved.split, recipe))
        trust = self._trusted(measures, solved, found, recipe)
        if decoding is not None:
            decoding.module.stretched(learned.free_dim, learned.scale)
        unseen = measures[solved.split.validation]
        decoder_error = None if decoding is None else self._decoder_error(learned, decoding, unseen)
        digests = measures.digests().copy()  # to be saved: torch takes no array that cannot be written to
        parents = {"measures": measures.fingerprint, "distances": solved.digest}
        # Nothing from here on takes time: a fit that is interrupted leaves the Embedder as it was.
        self.encoder_, self.dim_ = learned.encoding.kind, learned.dim
        self.split_, self.history_, self.learning_curve_ = solved.split, learned.history, curve
        self.mean_distance_ = float(solved.train_distances.mean())
        self.pairs_used_ = {"train": len(solved.train_pairs), "validation": len(solved.validation_pairs)}
        self.decoder_error_, self.errors_ = decoder_error, None
        self._decoding, self._trust, self._grid = decoding, trust, measures.grid
        self._digests, self._calibrated_on, self._parents = digests, digests[solved.split.calibration], parents
        self._fitted = self.get_params(deep=False)
        self._learned = learned
        forget(own)
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
        return self._learned.encode(measures, self.device, self.n_jobs, self.verbose)

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
            return self._paired(left, right)
        every = np.arange(len(a))
        with self._shown() as shown:
            return answered(self._trust, (a, left), (b, right), (every, every), wanted, self.n_jobs, shown)

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
            return self._between(left, right)
        with self._shown() as shown:
            other = None if b is None else (b, right)
            return answered_each(self._trust, (a, left), other, wanted, self.n_jobs, shown)

    def between(self, x: Any, y: Any = None) -> Float32[np.ndarray, "n m"]:
        """Predicted W_p of each vector x[i] and each y[j] (of x itself without y), as `pairwise` has it of measures.

        Args:
            x: vectors (n, dim) that `transform` made.
            y: more of them, (m, dim); without them, x.

        Raises:
            NotFittedError: before `fit`.
            SettingError: arrays of another length than vectors of this model, or with numbers that are not finite.
                Vectors of another model that are as long are not told from its own.
        """
        left = self._checked_vectors(x)
        right = left if y is None else self._checked_vectors(y)
        return self._between(left, right)

    def _between(
        self, left: Float32[np.ndarray, "n dim"], right: Float32[np.ndarray, "m dim"]
    ) -> Float32[np.ndarray, "n m"]:
        return self.cost.from_euclidean(distances_between(left, right, residuals=self._learned.residuals))

    def paired(self, x: Any, y: Any) -> Float64[np.ndarray, " n"]:
        """Predicted W_p of each vector x[i] and y[i], as `distance` has it of measures.

        Args:
            x: vectors (n, dim) that `transform` made.
            y: as many of them.

        Raises:
            NotFittedError: before `fit`.
            SettingError: as `between`, or not as many.
        """
        left, right = self._checked_vectors(x), self._checked_vectors(y)
        if len(left) != len(right):
            raise SettingError(f"paired takes as many of both, and these are {len(left)} and {len(right)} vectors")
        return self._paired(left, right)

    def _paired(
        self, left: Float32[np.ndarray, "n dim"], right: Float32[np.ndarray, "n dim"]
    ) -> Float64[np.ndarray, " n"]:
        return self.cost.from_euclidean(paired_distances(left, right, self._learned.residuals).astype(np.float64))

    @property
    def residuals(self) -> Residuals | None:
        """How distances between vectors are read that have a residual; None for plain ones.

        Raises:
            NotFittedError: before `fit`.
        """
        self._check_fitted()
        return self._learned.residuals

    def _checked_vectors(self, vectors: Any) -> Float32[np.ndarray, "n dim"]:
        self._check_fitted()
        given = np.asarray(vectors)
        if given.ndim != 2 or given.shape[1] != self.dim_ or given.dtype.kind != "f":
            raise SettingError(
                f"vectors have shape {given.shape} and type {given.dtype}; expected floats (n, {self.dim_})"
            )
        finite = np.isfinite(given).all(axis=1)
        if not finite.all():
            raise SettingError(f"vector {int(np.argmin(finite))} has a number that is NaN or infinite")
        return np.ascontiguousarray(given, dtype=np.float32)

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
        return self._learned.encoding.cost if hasattr(self, "_learned") else GroundCost(self.metric, self.order)

    @property
    def fitted_with(self) -> dict[str, Any]:
        """The parameters that it was fitted with; those that were set since wait for the next fit.

        Raises:
            NotFittedError: before `fit`.
        """
        self._check_fitted()
        return dict(self._fitted)

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
        seed = whole("random_state", self.random_state)
        settings = DecoderSettings(atoms, steps, mixtures, seed, self.n_jobs, self.device)
        if len(measures) < _FEWEST_DECODED:
            raise SettingError(f"{len(measures)} measures are too few to decode from; give at least {_FEWEST_DECODED}")
        some = measures[np.unique(np.linspace(0, len(measures) - 1, FAMILIAR).astype(int))]
        warn_of_unusual(
            self._trust.unusualness(some, self.encode(some)),
            "measures to decode to",
            "for vectors of usual ones a decoder that learns from these may be of no use",
        )
        with self._shown() as shown:
            decoding, unseen = learned_decoding(
                measures,
                self.encode,
                self._learned.free_dim,
                self.cost,
                settings,
                shown,
            )
        error = self._decoder_error(self._learned, decoding, measures[unseen])
        self._decoding, self.decoder_error_ = decoding, error
        return self

    def _decoder_error(self, learned: Learned, decoding: Decoding, measures: Measures) -> float:
        """Mean W_p between measures, some of many, and what they decode to."""
        some = measures[:_DECODED]
        vectors = learned.encode(some, self.device, self.n_jobs, self.verbose)
        made = decoding(vectors, learned.centroids(vectors), self.device)
        pairs = np.stack([np.arange(len(some)), np.arange(len(some)) + len(some)], axis=1)
        both = Measures.concatenate([some, made])
        return float(exact_distances(both, pairs, learned.encoding.cost, self.n_jobs).mean())

    def decode(self, vectors: Any) -> Measures:
        """The measure of each vector (n, dim): `decode(transform(m))` is near to m.

        Where the embedding holds the centroid, as for euclidean W_2, that of the decoded measure is the same; of
        images, as far as their frame allows.

        Raises:
            NotFittedError: before `fit`.
            SettingError: a model without a decoder, or arrays that are not vectors of this model.
        """
        decoding = self.check_decoder()
        given = self._checked_vectors(vectors)
        if not len(given):
            raise SettingError(f"no vectors to decode; expected floats (n, {self.dim_}), n > 0")
        return decoding(given, self._learned.centroids(given), self.device)

    @property
    def decoder(self) -> Decoding | None:
        """What makes measures of vectors; None until `fit_decoder`.

        Raises:
            NotFittedError: before `fit`.
        """
        self._check_fitted()
        return self._decoding

    def check_decoder(self) -> Decoding:
        """The decoder.

        Raises:
            NotFittedError: before `fit`.
            SettingError: there is none.
        """
        self._check_fitted()
        if self._decoding is None:
            histograms = ", which on the globe takes histograms" if self.cost.is_great_circle else ""
            raise SettingError(
                f"this model has no decoder; give it one with fit_decoder, or with `wembed decoder`{histograms}"
            )
        return self._decoding

    def save(self, folder: "str | Path") -> None:
        """Write model.json and the weights it names into a folder; `wembed.load` reads them.

        Raises:
            NotFittedError: before `fit`.
            ArtifactError: the folder holds a model.json that is not a model's.
            SettingError: it is a file.
        """
        self._check_fitted()
        encoding = self._learned.encoding
        tensors = {f"encoder.{name}": tensor for name, tensor in encoding.module.state_dict().items()}
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in encoding.arrays().items()}
        tensors |= {f"split.{name}": torch.from_numpy(part) for name, part in self.split_.parts().items()}
        if self._learned.shortening is not None:
            short = self._learned.shortening.arrays()
            tensors |= {f"shortening.{name}": torch.from_numpy(np.ascontiguousarray(a)) for name, a in short.items()}
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
            "dim": encoding.dim,
            "features": encoding.description(),
            "decoder": None if self._decoding is None else self._decoding.description(),
            "decoder_error": self.decoder_error_,
            "grid": self._grid,
            "unit": self._learned.unit,
            "calibration": {"scale": self._learned.scale},
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
        if switch("residual", self.residual) and (self.dim is None or self.dim < _FEWEST_NUMBERS):
            raise SettingError(
                f"a residual takes dim={_FEWEST_NUMBERS} or more, of which one number is its length; here is "
                f"{'none' if self.dim is None else f'dim={self.dim}'}"
            )
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
            if self.encoder in (LinearEncoding.kind, LandmarkEncoding.kind):
                raise SettingError(
                    f"the {self.encoder} encoder learns nothing that a decoder could share; use fit_decoder"
                )
            if self.residual or (self.dim is not None and not ENCODINGS[self._first(cost, measures)].learns_short):
                raise SettingError(
                    "a decoder that is trained along reads vectors at full length; leave out dim and residual, or use "
                    "fit_decoder after the fit"
                )
        if not _there(self.device):
            raise SettingError(f"device {self.device!r} is not there; 'cpu' always is")
        self._draw().split(measures)  # last, as it reads all of them

    def _first(self, cost: GroundCost, measures: Measures) -> str:
        """The name of the encoder that is learned first."""
        return self.encoder if self.encoder != "auto" else suited(cost, measures[self._draw().split(measures).train])

    def check_like(self, measures: Measures) -> None:
        """Refuse measures that this model has no vectors for.

        Raises:
            NotFittedError: before `fit`.
            MeasureError: another dimension than that learned from, or images of another shape.
            SettingError: measures that the ground cost is not defined on.
        """
        self._check_fitted()
        self._learned.encoding.check(measures)
        if None not in (self._grid, measures.grid) and measures.grid != self._grid:
            theirs, known = (" x ".join(map(str, grid or ())) for grid in (measures.grid, self._grid))
            raise MeasureError(
                f"these are images of {theirs} pixels, and the model was fitted on images of {known}; resize them, or "
                "give their pixels as point clouds"
            )

    def _check_fitted(self) -> None:
        if not hasattr(self, "_learned"):
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

    def _recipe(self) -> Recipe:
        seed = int(self.random_state)
        return Recipe(
            GroundCost(self.metric, self.order),
            self.encoder,
            None if self.dim is None else int(self.dim),
            self.residual,
            self.training or TrainingSettings(seed=seed),
            seed,
            self.device,
            self.n_jobs,
            self.verbose,
        )

    def _trusted(self, measures: Measures, solved: Solved, found: Candidate, recipe: Recipe) -> Trust:
        """What is known of errors, from validation and calibration pairs."""
        split, learned = solved.split, found.learned
        known, unseen = familiar(split, recipe.seed), split.calibration if len(split.calibration) else split.validation
        typical = np.random.default_rng([recipe.seed, 8]).permutation(unseen)[:FAMILIAR]
        fitted_on = self._some(solved.validation_pairs, solved.validation_distances, _FITTED_ON)
        calibrated_on = self._some(solved.calibration_pairs, solved.calibration_distances, _CALIBRATED_ON)
        used = np.unique(np.concatenate([known, typical, fitted_on[0].ravel(), calibrated_on[0].ravel()]))
        some, vectors = measures[used], found.vectors(measures, used, recipe)
        members, others = np.searchsorted(used, known), np.searchsorted(used, typical)
        suited_number = _MORE_REFERENCES if some[members].sizes.mean() <= _FEW_ATOMS else _REFERENCES
        trust = Trust.build(
            recipe.cost,
            (some[members], vectors[members]),
            (some[others], vectors[others]),
            learned.encoding.placed,
            learned.free_dim,
            suited_number if self.references == "auto" else int(self.references),
            recipe.seed,
            learned.residuals,
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


def _seconds_a_pair(measures: Measures, solved: Solved, recipe: Recipe) -> float:
    """Of an exact solve, all processes together, as a few take now."""
    from joblib import effective_n_jobs  # imported late, as joblib is everywhere

    def seconds(pairs: np.ndarray) -> float:
        started = time.perf_counter()
        solve_pairs(measures, pairs, recipe.cost)
        return time.perf_counter() - started

    some = np.random.default_rng(0).permutation(solved.train_pairs)[:_PROBED]
    spent, done, counted = seconds(some[:1]), 1, 1
    if spent < _PROBE_SECONDS and len(some) > 1:
        spent, counted = 0.0, 0  # the first takes longer than others
    while spent < _PROBE_SECONDS and done < len(some):
        more = some[done : 2 * done]
        spent, done, counted = spent + seconds(more), done + len(more), counted + len(more)
    return spent / counted / int(effective_n_jobs(recipe.n_jobs))


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
    encoding.module.load_state_dict(_named(tensors, "encoder."))
    encoding.module.eval()
    short = {name: tensor.numpy() for name, tensor in _named(tensors, "shortening.").items()}
    shortening = Shortening.restored(short) if short else None
    learned = Learned(encoding, description["unit"], description["calibration"]["scale"], shortening)
    embedder._learned = learned
    embedder._decoding = None
    if description["decoder"] is not None:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith("decoding.")}
        decoding = DECODINGS[description["decoder"]["kind"]].restored(learned.dim, description["decoder"], arrays)
        decoding.module.load_state_dict(_named(tensors, "decoder."))
        decoding.module.eval()
        embedder._decoding = decoding
    embedder.decoder_error_ = description["decoder_error"]
    embedder.dim_ = learned.dim
    embedder._grid = None if description["grid"] is None else tuple(description["grid"])
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
        {name: tensor.numpy() for name, tensor in _named(tensors, "trust.").items()},
        learned.residuals,
    )
    embedder._parents = description["parents"]
    embedder._fitted = embedder.get_params(deep=False)
    return embedder


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _why_so_many(source: Source, asked: int, total: int) -> str:
    """Why a fit that was not to go on in rounds had so many pairs, as a clause."""
    if isinstance(source, Given):
        plan = source.store.manifest["plan"]
        if plan["kind"] != "split":
            return "there are no more" if plan["kind"] == "all" else "so many are in the store"
        asked = sum(plan["rounds"])
    if total < NEARLY * asked:
        return f"parts of the collection hold no more of the {asked:,} that were asked for"
    return "so many pairs were asked for"


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
        residuals=embedder.residuals,
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
