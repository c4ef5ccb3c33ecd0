"""The whole job on the digits that ship with wembed."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wembed.embedder import Embedder, evaluate
from wembed.euclidean import paired_distances
from wembed.learning.baselines import Embedding, LinearOT, SlicedWasserstein
from wembed.learning.evaluation import Report
from wembed.measures import Measures
from wembed.nearest import nearest
from wembed.pictures import draw_neighbors, draw_scatter
from wembed.progress import bar
from wembed.readers import digits
from wembed.report import write_report
from wembed.transport.costs import GroundCost
from wembed.transport.exact import solve_pairs
from wembed.transport.parallel import exact_distances
from wembed.transport.precompute import precompute

__all__ = ["Quickstart", "quickstart"]

_COST = GroundCost()


@dataclass(frozen=True, eq=False)
class Quickstart:
    """What the quickstart measured.

    Attributes:
        report: errors on unseen digits, baselines included.
        exact_seconds: one exact distance, on one core.
        learned_seconds: one predicted distance between vectors that are there, as one of many.
        encode_seconds: one digit turned into a vector, as one of many.
        files: what was written.
    """

    report: Report
    exact_seconds: float
    learned_seconds: float
    encode_seconds: float
    files: dict[str, Path]


def quickstart(folder: Path, pairs: int = 20_000, seed: int = 0, n_jobs: int = -1) -> Quickstart:
    """Solve, train, evaluate and draw, on 10,000 MNIST digits under W_2 in pixels.

    Interrupted, it goes on where it stopped.

    Args:
        folder: where everything is written.
        pairs: exact pairs to solve.
        seed: draws the split, the pairs and the training.
        n_jobs: processes, or -1 for one a core.
    """
    measures, labels = digits()
    with bar(True, "exact distances", unit="pairs") as show:
        store = precompute(measures, folder / "distances", pairs, n_jobs=n_jobs, seed=seed, progress=show)
    embedder = Embedder(random_state=seed, n_jobs=n_jobs, verbose=True).fit(
        measures, distances=store, checkpoint=folder / "training.safetensors"
    )
    solved, exact, _ = store.read()
    held = np.isin(solved, embedder.split_.validation).all(axis=1)
    validation = measures[embedder.split_.validation]
    rows = np.searchsorted(embedder.split_.validation, solved[held])
    others: dict[str, Embedding] = {
        "linear OT": LinearOT(seed=seed).fit(validation, rows, exact[held]),
        "sliced Wasserstein": SlicedWasserstein(measures.dim, seed).fit(validation, rows, exact[held]),
    }
    unseen = measures[embedder.split_.test]
    with bar(True, "unseen digits", unit="pairs") as show:
        report = evaluate(embedder, unseen, seed=seed, others=others, distances=store, n_jobs=n_jobs, progress=show)
    embedder.save(folder / "model")
    scatter, neighbors = folder / "predicted-against-exact.png", folder / "neighbors.png"
    draw_scatter(report, scatter)
    _draw_ten_nearest(report.vectors, unseen, n_jobs, neighbors)
    page = folder / "report.html"
    write_report(embedder, unseen, report, page, [str(label) for label in labels[embedder.split_.test]])
    exact_seconds, learned_seconds = _timed(report.vectors, unseen)
    return Quickstart(
        report,
        exact_seconds,
        learned_seconds,
        1 / report.encode_per_second,
        {
            "model": folder / "model",
            "distances": folder / "distances",
            "scatter": scatter,
            "neighbors": neighbors,
            "report": page,
        },
    )


def _draw_ten_nearest(vectors: np.ndarray, unseen: Measures, n_jobs: int, file: Path, query: int = 0) -> None:
    ids, predicted = nearest(vectors[[query]], vectors, 11)
    pairs = np.stack([np.full(len(unseen), query), np.arange(len(unseen))], axis=1)
    exact = exact_distances(unseen, pairs, _COST, n_jobs)
    exact[query] = np.inf
    ten = np.argsort(exact, kind="stable")[:10]
    others = ids[0] != query
    rows = [
        ("wembed", ids[0][others][:10].tolist(), predicted[0][others][:10].tolist()),
        ("exact", ten.tolist(), exact[ten].tolist()),
    ]
    draw_neighbors(unseen, query, rows, file)


def _timed(vectors: np.ndarray, unseen: Measures) -> tuple[float, float]:
    """Seconds of one exact distance on one core, and of one distance between given vectors: medians."""
    pairs = np.stack([np.arange(100), np.arange(100, 200)], axis=1)
    solve_pairs(unseen, pairs[:2], _COST)
    exact = []
    for pair in pairs:
        started = time.perf_counter()
        solve_pairs(unseen, pair[None], _COST)
        exact.append(time.perf_counter() - started)
    many = np.repeat(vectors, 100, axis=0)
    other = np.roll(many, 1, axis=0)
    learned = []
    for _ in range(7):
        started = time.perf_counter()
        paired_distances(many, other)
        learned.append((time.perf_counter() - started) / len(many))
    return float(np.median(exact)), float(np.median(learned))
