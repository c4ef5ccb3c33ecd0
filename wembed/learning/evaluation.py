"""How far predicted distances are from exact ones, on measures that nothing has been fitted to."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy import stats

from wembed.errors import SettingError
from wembed.euclidean import Residuals, distances_between, distances_of_pairs
from wembed.learning.baselines import Embedding
from wembed.learning.curve import LearningCurve
from wembed.measures import Measures
from wembed.options import whole
from wembed.transport.costs import GroundCost
from wembed.transport.pairs import random_pairs
from wembed.transport.parallel import Progress, exact_distances, start_workers

__all__ = [
    "Errors",
    "Intervals",
    "Neighborhoods",
    "Report",
    "chance_of_coverage",
    "compare",
    "nearest_others",
    "score",
]

MEAN = "mean predictor"
FEW_CALIBRATED = 200  # measures below which intervals vary by more than 4 in 100 from fit to fit
NO_DISTANCE = 1e-6  # share of the mean distance learned from
ALL_ALIKE = "nearly all of these measures are at distance 0 of each other; give some that differ"
_NEIGHBORS = 10
_PROBED = 5_000  # vectors, to see how long a distance takes
_LONG = ("exact", "predicted", "asked", "pool", "vectors", "hoods", "predicted_hoods", "intervals", "unusualness")


@dataclass(frozen=True)
class Errors:
    """Errors of one method.

    Attributes:
        mse: mean of (W^p - predicted^p)^2.
        relative_mse: `mse` over the mean of W^2p.
        relative_error: mean of |W - predicted| / W, over pairs of different measures.
        r2: 1 - sum (W - predicted)^2 / sum (W - mean W)^2; None where all W are equal.
        pearson: correlation of W and predicted; None where the prediction is constant.
        spearman: rank correlation of W and predicted; None where the prediction is constant.
        recall_at_10: share of a measure's exact ten nearest that are among the predicted ten nearest; for the mean
            predictor, which ranks nothing, what drawing ten at random would give.
        ratio_p01: 1st percentile of predicted / W.
        ratio_p99: 99th percentile of predicted / W.
    """

    mse: float
    relative_mse: float
    relative_error: float
    r2: float | None
    pearson: float | None
    spearman: float | None
    recall_at_10: float | None
    ratio_p01: float
    ratio_p99: float


@dataclass(frozen=True, eq=False)
class Neighborhoods:
    """Exact distances of a few measures to all the others, for recall.

    Attributes:
        queries: the measures that ask.
        exact: W_p of each query to each measure.
    """

    queries: Int64[np.ndarray, " q"]
    exact: Float64[np.ndarray, "q n"]

    @classmethod
    def solve(
        cls,
        measures: Measures,
        queries: Int64[np.ndarray, " q"],
        cost: GroundCost,
        n_jobs: int = -1,
        progress: Progress | None = None,
    ) -> "Neighborhoods":
        """Solve every query against every measure."""
        pairs = np.stack([np.repeat(queries, len(measures)), np.tile(np.arange(len(measures)), len(queries))], axis=1)
        exact = exact_distances(measures, pairs, cost, n_jobs, progress)
        return cls(queries, exact.reshape(len(queries), len(measures)))

    def recall(self, predicted: Float[np.ndarray, "q n"], k: int = _NEIGHBORS) -> float | None:
        """Share of the exact k nearest that are among the predicted k nearest; None with too few of them."""
        if len(self.queries) == 0 or self.exact.shape[1] <= 2 * k:
            return None
        hits = [
            len(set(nearest_others(exact, own, k)) & set(nearest_others(guess, own, k)))
            for own, exact, guess in zip(self.queries.tolist(), self.exact, predicted, strict=True)
        ]
        return sum(hits) / (k * len(hits))


@dataclass(frozen=True, eq=False)
class Intervals:
    """Where the exact distances of pairs are promised to lie, at several levels.

    Attributes:
        levels: the shares of the pairs that are promised to lie within.
        lower: ends of the intervals, a row for each level.
        upper: the other ends.
        refined: whether the references of the model narrowed them.
    """

    levels: tuple[float, ...]
    lower: Float64[np.ndarray, "levels k"]
    upper: Float64[np.ndarray, "levels k"]
    refined: bool = False

    def inside(self, exact: Float64[np.ndarray, " k"]) -> Bool[np.ndarray, "levels k"]:
        """Whether the exact distance of each pair lies within, for each level."""
        return np.asarray((self.lower <= exact) & (exact <= self.upper))

    def coverage(self, exact: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " levels"]:
        """Share of the pairs whose exact distance lies within, for each level."""
        return np.asarray(self.inside(exact).mean(axis=1))


def chance_of_coverage(level: float, measures: int) -> float:
    """How far off the share of pairs within intervals may be with so many measures: two standard deviations.

    As if each measure gave one independent pair (Vovk 2012, Prop. 2b, for large numbers).
    """
    return float(2 * np.sqrt(level * (1 - level) / max(measures, 1)))


@dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation found.

    Attributes:
        measures: unseen measures looked at.
        pairs: pairs solved for the errors.
        queries: measures whose ten nearest were found exactly.
        candidates: measures among which they were looked for.
        order: p.
        errors: of each method, wembed and the mean predictor among them.
        encode_per_second: measures turned into vectors.
        distances_per_second: predicted distances between vectors that are there.
        exact_per_second: exact distances, on as many cores as were given.
        exact: W_p of the pairs.
        predicted: of the pairs, by wembed.
        asked: the pairs, as places in the measures looked at.
        pool: the candidates, as places in the measures looked at.
        vectors: of all measures looked at.
        hoods: exact distances of the queries to the candidates; the queries are places in `pool`.
        predicted_hoods: the same distances, by wembed.
        seed: drew the pairs and the queries.
        learning_curve: of the fit, where it was learned.
        intervals: of the pairs, where the embedding is calibrated.
        unusualness: of each of the measures looked at: 0 is typical, 1 as unusual as the most unusual hundredth of the
            measures learned from; far beyond it predictions are not to be trusted.
        seen: measures looked at that the embedding was fitted to or calibrated on.
    """

    measures: int
    pairs: int
    queries: int
    candidates: int
    order: float
    errors: dict[str, Errors]
    encode_per_second: float
    distances_per_second: float
    exact_per_second: float
    exact: Float64[np.ndarray, " k"] = field(repr=False)
    predicted: Float64[np.ndarray, " k"] = field(repr=False)
    asked: Int64[np.ndarray, "k 2"] = field(repr=False)
    pool: Int64[np.ndarray, " c"] = field(repr=False)
    vectors: Float[np.ndarray, "n dim"] = field(repr=False)
    hoods: Neighborhoods = field(repr=False)
    predicted_hoods: Float[np.ndarray, "q c"] = field(repr=False)
    seed: int = 0
    learning_curve: LearningCurve | None = None
    intervals: Intervals | None = field(default=None, repr=False)
    unusualness: Float64[np.ndarray, " n"] | None = field(default=None, repr=False)
    seen: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON; what is known of each pair and each measure is left out."""
        plain = {key: value for key, value in vars(self).items() if key not in _LONG}
        if self.intervals is not None:
            shares = zip(self.intervals.levels, self.intervals.coverage(self.exact).tolist(), strict=True)
            plain["coverage"] = {f"{level:g}": share for level, share in shares}
        plain["errors"] = {name: asdict(errors) for name, errors in self.errors.items()}
        plain["learning_curve"] = self.learning_curve and self.learning_curve.as_dict()
        return plain


def compare(
    embedding: Embedding,
    measures: Measures,
    pairs: int = 2_000,
    seed: int = 0,
    *,
    cost: GroundCost,
    mean_distance: float,
    residuals: Residuals | None = None,
    queries: int = 20,
    candidates: int = 1_000,
    others: Mapping[str, Embedding] | None = None,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    n_jobs: int = -1,
    progress: Progress | None = None,
) -> Report:
    """Errors of an embedding, and of others beside it, on unseen measures.

    Args:
        embedding: the one to judge.
        measures: measures that nothing has been fitted to.
        pairs: random pairs with their exact distances.
        seed: draws the pairs and the queries.
        cost: the ground cost that the embedding stands for.
        mean_distance: what the mean predictor says for every pair: the mean over the training pairs.
        residuals: how distances between its vectors are read; None for plain ones, as those of the others are.
        queries: measures whose distance to every candidate is solved, for recall; 0 for none.
        candidates: measures among which neighbours are looked for, drawn at random where there are more.
        others: more embeddings to score on the same pairs, by name.
        known: pairs (k, 2) and their exact distances (k,), taken before any is solved.
        n_jobs: processes for the exact solves, or -1 for one a core.
        progress: called with the pairs solved and the pairs in all.

    Raises:
        SettingError: fewer than two measures, no pair, a negative number, or measures that are all alike.
    """
    if len(measures) < 2:
        raise SettingError(f"{len(measures)} measure makes no pair; give at least two unseen measures")
    for name, value in {"pairs": pairs, "candidates": candidates, "queries": queries, "seed": seed}.items():
        whole(name, value, 1 if name in ("pairs", "candidates") else 0)
    rng = np.random.default_rng(seed)
    pool = np.sort(rng.permutation(len(measures))[:candidates])
    asking = np.sort(rng.permutation(len(pool))[:queries])  # the same, whatever pairs are known
    taken, taken_exact, listed = _asked(len(measures), pairs, known, rng)
    total = len(listed) + len(asking) * len(pool)
    crossing = np.stack([np.repeat(pool[asking], len(pool)), np.tile(pool, len(asking))], axis=1)
    start_workers(measures, np.concatenate([listed, crossing]), n_jobs)
    started = time.perf_counter()
    solved = exact_distances(
        measures, listed, cost, n_jobs, None if progress is None else lambda done, _: progress(done, total)
    )
    hoods = Neighborhoods.solve(
        measures[pool],
        asking,
        cost,
        n_jobs,
        None if progress is None else lambda done, _: progress(len(listed) + done, total),
    )
    exact_seconds = time.perf_counter() - started
    asked, exact = np.concatenate([taken, listed]), np.concatenate([taken_exact, solved])
    if exact.mean() <= NO_DISTANCE * mean_distance:
        raise SettingError(ALL_ALIKE)
    started = time.perf_counter()
    vectors = embedding.transform(measures)
    encode_seconds = time.perf_counter() - started
    probe, company, made = vectors[:100], vectors[:_PROBED], 0
    distances_between(probe, company, residuals=residuals)  # the first call is slower
    started = time.perf_counter()
    while (distance_seconds := time.perf_counter() - started) < 0.1:
        made += distances_between(probe, company, residuals=residuals).size
    predicted = cost.from_euclidean(distances_of_pairs(vectors, asked, residuals=residuals))
    predicted_hoods = _from_queries(vectors[pool], asking, residuals)
    errors = {"wembed": score(predicted, exact, cost.order, hoods, predicted_hoods)}
    used = np.unique(np.concatenate([asked.ravel(), pool]))
    rows, pool_rows = np.searchsorted(used, asked), np.searchsorted(used, pool)
    for name, other in (others or {}).items():
        theirs = np.asarray(other.transform(measures[used]), dtype=np.float32)
        read = cost.from_euclidean(distances_of_pairs(theirs, rows))
        errors[name] = score(read, exact, cost.order, hoods, _from_queries(theirs[pool_rows], asking))
    by_chance = None if errors["wembed"].recall_at_10 is None else _NEIGHBORS / (len(pool) - 1)
    constant = score(np.full(len(exact), mean_distance), exact, cost.order)
    errors[MEAN] = replace(constant, recall_at_10=by_chance)
    return Report(
        measures=len(measures),
        pairs=len(exact),
        queries=len(asking),
        candidates=len(pool),
        order=cost.order,
        errors=errors,
        encode_per_second=len(measures) / encode_seconds,
        distances_per_second=made / distance_seconds,
        exact_per_second=total / exact_seconds,
        exact=exact,
        predicted=predicted,
        asked=asked,
        pool=pool,
        vectors=vectors,
        hoods=hoods,
        predicted_hoods=predicted_hoods,
        seed=seed,
    )


def _asked(
    count: int, pairs: int, known: tuple[np.ndarray, np.ndarray] | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random pairs of those known, with their distances, and as many others at random as are still wanted."""

    def key(pairs: np.ndarray) -> np.ndarray:
        return np.asarray(np.sort(pairs, axis=1) @ np.array([count, 1]))

    drawn = random_pairs(np.arange(count), min(pairs, count * (count - 1) // 2), rng).pairs
    if known is None:
        return drawn[:0], np.empty(0), drawn
    _, first = np.unique(key(known[0]), return_index=True)
    chosen = rng.permutation(first)[:pairs]
    taken = np.sort(known[0][chosen], axis=1)
    others = drawn[~np.isin(key(drawn), key(taken))]
    return taken, known[1][chosen], others[: max(pairs - len(taken), 0)]


def score(
    predicted: Float64[np.ndarray, " k"],
    exact: Float64[np.ndarray, " k"],
    order: float,
    hoods: Neighborhoods | None = None,
    predicted_hoods: np.ndarray | None = None,
) -> Errors:
    """Errors of predicted distances; some of the exact ones are above 0."""
    apart = exact > 0
    ratio = predicted[apart] / exact[apart] if apart.any() else np.ones(1)
    power_error = exact**order - predicted**order
    mse = float(np.square(power_error).mean())
    spread = float(np.square(exact - exact.mean()).sum())
    varies = len(exact) > 2 and bool(np.ptp(predicted) > 0) and spread > 0
    recall = None if hoods is None or predicted_hoods is None else hoods.recall(predicted_hoods)
    return Errors(
        mse=mse,
        relative_mse=mse / (float(np.square(exact**order).mean()) or 1.0),
        relative_error=float(np.abs(ratio - 1).mean()),
        r2=1 - float(np.square(exact - predicted).sum()) / spread if spread > 0 else None,
        pearson=float(stats.pearsonr(exact, predicted)[0]) if varies else None,
        spearman=float(stats.spearmanr(exact, predicted)[0]) if varies else None,
        recall_at_10=recall,
        ratio_p01=float(np.percentile(ratio, 1)),
        ratio_p99=float(np.percentile(ratio, 99)),
    )


def _from_queries(vectors: np.ndarray, queries: np.ndarray, residuals: Residuals | None = None) -> np.ndarray:
    return distances_between(vectors[queries], vectors, residuals=residuals)


def nearest_others(distances: np.ndarray, own: int, k: int) -> list[int]:
    """Places of the k nearest, one's own left out; ties by place."""
    order = np.argsort(distances, kind="stable")
    return [int(i) for i in order[: k + 1] if i != own][:k]
