"""How close do 20,000 and 300,000 exact pairs bring the distances of unseen digits, and at what cost?"""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, peak_megabytes, record, spread

from wembed import DistanceStore, Embedder, GroundCost, Measures, TrainingSettings, precompute
from wembed.euclidean import distances_between
from wembed.learning.baselines import Embedding, LinearOT, SlicedWasserstein
from wembed.learning.evaluation import Errors, Neighborhoods, score
from wembed.progress import bar
from wembed.readers import digits
from wembed.transport.pairs import Split

W2 = GroundCost()
FEW = (100, 300)  # smaller collections to look for neighbours in


class Exam:
    """All exact distances between unseen measures: every pair for the errors, every measure a query for recall."""

    def __init__(self, unseen: Measures, folder: Path, cost: GroundCost = W2) -> None:
        self.unseen, self.cost = unseen, cost
        solved = stored(unseen, folder, "all", cost)
        self.pairs, self.exact = solved.pairs, solved.distances
        between = np.zeros((len(unseen), len(unseen)))
        between[self.pairs[:, 0], self.pairs[:, 1]] = self.exact
        self.between = between + between.T

    def recall_among(self, count: int, vectors: np.ndarray) -> float:
        """Recall@10 in collections of `count` of them: the fewer there are, the farther apart and the easier."""
        rng, found = np.random.default_rng(count), []
        for _ in range(max(1, 3_000 // count)):
            some = rng.permutation(len(vectors))[:count]
            hoods = Neighborhoods(np.arange(len(some)), self.between[np.ix_(some, some)])
            found.append(hoods.recall(distances_between(vectors[some], vectors[some])) or 0.0)
        return float(np.mean(found))

    def marks(self, predicted: np.ndarray) -> dict[str, float]:
        """Errors over all pairs and recall among all of the measures, of predicted distances (n, n)."""
        hoods = Neighborhoods(np.arange(len(predicted)), self.between)
        return numbers(
            score(predicted[tuple(self.pairs.T)].astype(np.float64), self.exact, self.cost.order, hoods, predicted)
        )

    def marks_by_measure(self, predicted: np.ndarray) -> dict[str, np.ndarray]:
        """The mean relative error of the pairs that each measure is in, and its recall among all of them, (n,)."""
        counted = self.between > 0
        errors = np.abs(predicted - self.between) / np.where(counted, self.between, 1.0)
        hoods = (Neighborhoods(np.array([own]), self.between[[own]]) for own in range(len(predicted)))
        recalls = [one.recall(predicted[[own]]) for own, one in enumerate(hoods)]
        return {
            "relative_error": errors.mean(axis=1, where=counted),
            "recall_at_10": np.array(recalls, dtype=np.float64),
        }

    def marks_of(self, embedding: Embedding) -> dict[str, float]:
        """The marks of an embedding, with recall among fewer of the measures."""
        vectors = np.asarray(embedding.transform(self.unseen), dtype=np.float32)
        few = {f"recall_at_10_among_{count}": self.recall_among(count, vectors) for count in FEW}
        return self.marks(distances_between(vectors, vectors)) | few


def stored(measures: Measures, path: Path, pairs: Any, cost: GroundCost = W2) -> DistanceStore:
    with bar(True, path.name, unit="pairs") as show:
        return precompute(measures, path, pairs, cost, calibration=0.0, progress=show)


def learned(
    measures: Measures,
    store: DistanceStore,
    exam: Exam,
    seeds: int,
    training: TrainingSettings | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Errors over a few seeds of training, the split and the pairs being the same."""
    found, seconds = [], []
    for seed in range(seeds):
        started = time.perf_counter()
        training = replace(training or TrainingSettings(), seed=seed)
        embedder = Embedder(random_state=seed, training=training, verbose=True, **settings)
        embedder.fit(measures, distances=store)
        seconds.append(time.perf_counter() - started)
        found.append(exam.marks_of(embedder))
    return {
        "pairs_solved": len(store),
        "pairs_trained_on": embedder.pairs_used_["train"],
        "fit_seconds": spread(seconds),
        **{name: spread([marks[name] for marks in found]) for name in found[0]},
    }


def main() -> None:
    chosen = arguments(__doc__ or "")
    measures, _ = digits()
    sizes: list[int] = [20_000, 300_000]
    seeds = 3
    training = None
    if chosen.smoke:
        measures, sizes, seeds = measures[:400], [400], 1
        training = TrainingSettings(steps=20)
    work = chosen.work / ("digits-smoke" if chosen.smoke else "digits")
    split = Split.draw(len(measures), calibration=0.0)
    exam = Exam(measures[split.test], work / "test")
    results: dict[str, Any] = {"measures": len(measures), "test_measures": len(split.test), "methods": {}}
    results["mean_w2"] = float(exam.exact.mean())
    for size in sizes:
        store = stored(measures, work / f"train-{size}", size)
        results["methods"][f"wembed, {size:,} pairs"] = learned(measures, store, exam, seeds, training=training)
    fewest = sizes[0]
    plain = replace(training or TrainingSettings(), auxiliary=0.0)
    results["methods"][f"wembed without transport maps, {fewest:,} pairs"] = learned(
        measures, DistanceStore(work / f"train-{fewest}"), exam, seeds, training=plain, encoder="quantiles"
    )
    results["methods"][f"DWE's network, {fewest:,} pairs"] = (
        learned(  # with more pairs it trains for a quarter of an hour
            measures,
            DistanceStore(work / f"train-{fewest}"),
            exam,
            1,
            training=training or TrainingSettings(learning_rate=1e-3),
            encoder="dwe",
            dim=50,
        )
    )
    solved, exact = store.pairs, store.distances
    held = np.isin(solved, split.validation).all(axis=1)
    rows = np.searchsorted(split.validation, solved[held])[:2_000]
    baselines: dict[str, LinearOT | SlicedWasserstein] = {
        "linear OT": LinearOT(),
        "sliced Wasserstein": SlicedWasserstein(2),
    }
    for name, baseline in baselines.items():
        baseline.fit(measures[split.validation], rows, exact[held][:2_000])
        results["methods"][name] = {key: spread([value]) for key, value in exam.marks_of(baseline).items()}
    seen = np.isin(solved, split.train).all(axis=1)
    constant = score(np.full(len(exam.exact), exact[seen].mean()), exam.exact, 2)
    results["methods"]["mean predictor"] = {key: spread([value]) for key, value in numbers(constant).items()}
    results["peak_megabytes"] = peak_megabytes()
    record("digits", __doc__ or "", results, smoke=chosen.smoke)


def numbers(errors: Errors) -> dict[str, float]:
    return {name: value for name, value in asdict(errors).items() if value is not None}


if __name__ == "__main__":
    main()
