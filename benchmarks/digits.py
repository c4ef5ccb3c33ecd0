"""How close do 20,000 and 300,000 exact pairs bring the distances of unseen digits, and at what cost?"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, peak_megabytes, record, spread

from wembed import DistanceStore, Embedder, GroundCost, Measures, TrainingSettings, precompute
from wembed.euclidean import distances_between, paired_distances
from wembed.learning.baselines import Embedding, LinearOT, SlicedWasserstein
from wembed.learning.evaluation import Errors, Neighborhoods, score
from wembed.progress import bar
from wembed.readers import digits
from wembed.transport.pairs import Split, random_pairs


class Exam:
    """Exact distances of the test digits: random pairs for the errors, a hundred queries for recall."""

    def __init__(self, unseen: Measures, work: Path, pairs: int, queries: int) -> None:
        self.unseen = unseen
        rng = np.random.default_rng(0)
        self.pairs = random_pairs(np.arange(len(unseen)), pairs, rng).pairs
        asking = np.sort(rng.permutation(len(unseen))[:queries])
        rows = np.stack([np.repeat(asking, len(unseen)), np.tile(np.arange(len(unseen)), queries)], axis=1)
        solved = stored(unseen, work / f"test-{pairs}-{queries}", np.concatenate([self.pairs, rows]))
        exact = solved.distances
        self.exact = exact[:pairs]
        self.hoods = Neighborhoods(asking, exact[pairs:].reshape(queries, len(unseen)))

    def recall_among(self, count: int, embedding: Embedding) -> float | None:
        """Recall@10 among the first `count` test digits: the fewer there are, the farther apart and the easier."""
        queries = self.hoods.queries < count
        hoods = Neighborhoods(self.hoods.queries[queries], self.hoods.exact[queries, :count])
        vectors = np.asarray(embedding.transform(self.unseen[:count]), dtype=np.float32)
        return hoods.recall(distances_between(vectors[hoods.queries], vectors))

    def errors(self, embedding: Embedding) -> Errors:
        vectors = np.asarray(embedding.transform(self.unseen), dtype=np.float32)
        predicted = paired_distances(vectors[self.pairs[:, 0]], vectors[self.pairs[:, 1]]).astype(np.float64)
        return score(predicted, self.exact, 2, self.hoods, distances_between(vectors[self.hoods.queries], vectors))


def stored(measures: Measures, path: Path, pairs: Any) -> DistanceStore:
    with bar(True, path.name, unit="pairs") as show:
        return precompute(measures, path, pairs, GroundCost(), progress=show)


def learned(measures: Measures, store: DistanceStore, exam: Exam, seeds: int, **settings: Any) -> dict[str, Any]:
    """Errors over a few seeds of training, the split and the pairs being the same."""
    found, seconds, among = [], [], []
    for seed in range(seeds):
        started = time.perf_counter()
        embedder = Embedder(random_state=seed, verbose=True, **settings).fit(measures, distances=store)
        seconds.append(time.perf_counter() - started)
        found.append(exam.errors(embedder))
        among.append(exam.recall_among(300, embedder) or 0.0)
    return {
        "pairs_solved": len(store),
        "pairs_trained_on": embedder.pairs_used_["train"],
        "fit_seconds": spread(seconds),
        "recall_at_10_among_300": spread(among),
        **{
            name: spread([getattr(errors, name) for errors in found])
            for name in (
                "relative_error",
                "mse",
                "relative_mse",
                "r2",
                "pearson",
                "spearman",
                "recall_at_10",
                "ratio_p01",
                "ratio_p99",
            )
        },
    }


def main() -> None:
    chosen = arguments(__doc__ or "")
    measures, _ = digits()
    sizes: list[int] = [20_000, 300_000]
    seeds, pairs, queries = 3, 20_000, 100
    training = None
    if chosen.smoke:
        measures, sizes, seeds, pairs, queries = measures[:400], [400], 1, 50, 2
        training = TrainingSettings(steps=20)
    work = chosen.work / ("digits-smoke" if chosen.smoke else "digits")
    split = Split.draw(len(measures))
    exam = Exam(measures[split.test], work, pairs, queries)
    results: dict[str, Any] = {"measures": len(measures), "test_measures": len(split.test), "methods": {}}
    results["mean_w2"] = float(exam.exact.mean())
    for size in sizes:
        store = stored(measures, work / f"train-{size}", size)
        results["methods"][f"wembed, {size:,} pairs"] = learned(measures, store, exam, seeds, training=training)
    fewest = sizes[0]
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
        results["methods"][name] = {key: spread([value]) for key, value in vars_of(exam.errors(baseline)).items()}
        results["methods"][name]["recall_at_10_among_300"] = spread([exam.recall_among(300, baseline) or 0.0])
    seen = np.isin(solved, split.train).all(axis=1)
    constant = score(np.full(len(exam.exact), exact[seen].mean()), exam.exact, 2)
    results["methods"]["mean predictor"] = {key: spread([value]) for key, value in vars_of(constant).items()}
    results["peak_megabytes"] = peak_megabytes()
    record("digits", __doc__ or "", results, smoke=chosen.smoke)


def vars_of(errors: Errors) -> dict[str, float]:
    return {name: value for name, value in asdict(errors).items() if value is not None}


if __name__ == "__main__":
    main()
