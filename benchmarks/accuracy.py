"""On which kinds of measures does wembed come how close to the exact distance, beside what else can be had?"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, default_work, peak_megabytes, record, spread
from digits import numbers
from peers import Centroids, Gelbrich, Learned, Peer, Pixels, SlicedBounds, Solved, Vectors

from wembed import DistanceStore, Embedder, GroundCost, Measures, TrainingSettings, precompute
from wembed.learning.baselines import LinearOT, SlicedWasserstein
from wembed.learning.evaluation import Neighborhoods, score
from wembed.progress import bar

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import fetch

FLOOR_NUMBERS = 128
FLOOR_STEPS = 1_000
DWE_RATE = 1e-3


@dataclass(frozen=True)
class Task:
    """A collection, a ground cost, and how many pairs may be solved.

    Attributes:
        collection: its name in data/fetch.py.
        cost: the ground cost.
        pairs: for training and validation.
        unseen: measures held out for the exam, all pairs of which are solved.
        other: a part of it that is left out of training and is an exam of its own.
    """

    collection: str
    cost: GroundCost
    pairs: int = 20_000
    unseen: int = 300
    other: str | None = None


W2, W1 = GroundCost(), GroundCost(order=1)
SPHERE = GroundCost("great-circle-degrees", 1)
TASKS = {
    "mnist, W_2": Task("mnist", W2),
    "mnist, W_2, 300,000 pairs": Task("mnist", W2, pairs=300_000),
    "doodles, W_2": Task("quickdraw", W2, other="quickdraw/cat"),
    "meshes, W_2": Task("meshes", W2, pairs=6_000, unseen=150),
    "meshes, W_1": Task("meshes", W1, pairs=6_000, unseen=150),
    "tweets, W_2": Task("tweets", W2),
    "tweets, W_1": Task("tweets", W1),
    "tweets, W_2, 100,000 pairs": Task("tweets", W2, pairs=100_000),
    "regions on the globe, W_1": Task("cities/regions", SPHERE, unseen=250),
}
SMOKE = {
    "digits": Task("", W2, pairs=300, unseen=30),
    "digits, W_1": Task("", W1, pairs=300, unseen=30),
}


class Exam:
    """All exact distances between unseen measures."""

    def __init__(self, unseen: Measures, cost: GroundCost, folder: Path) -> None:
        self.unseen, self.cost = unseen, cost
        solved = stored(unseen, folder, "all", cost)
        self.pairs, self.exact = solved.pairs, solved.distances
        between = np.zeros((len(unseen), len(unseen)))
        between[self.pairs[:, 0], self.pairs[:, 1]] = self.exact
        self.between = between + between.T

    def marks(self, predicted: np.ndarray) -> dict[str, float]:
        """Errors over all pairs, and recall with each measure as the query."""
        hoods = Neighborhoods(np.arange(len(predicted)), self.between)
        return numbers(
            score(predicted[tuple(self.pairs.T)].astype(np.float64), self.exact, self.cost.order, hoods, predicted)
        )

    def floor(self) -> np.ndarray:
        """Distances of free vectors fitted to the exact ones: metric multidimensional scaling, by Adam."""
        wanted = torch.from_numpy(self.exact).float()
        rows, columns = torch.from_numpy(self.pairs.copy()).T
        squares = np.square(self.between)
        centred = squares - squares.mean(axis=0)
        gram = -0.5 * (centred - centred.mean(axis=1, keepdims=True))
        values, axes = np.linalg.eigh((gram + gram.T) / 2)
        start = (axes * np.sqrt(values.clip(0)))[:, ::-1][:, :FLOOR_NUMBERS]
        vectors = torch.from_numpy(start.copy()).float().requires_grad_()
        optimizer = torch.optim.Adam([vectors], lr=2e-3 * float(wanted.mean()))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FLOOR_STEPS)
        for _ in range(FLOOR_STEPS):
            gram_now = vectors @ vectors.T
            norms = gram_now.diagonal()
            squared = (norms[:, None] + norms - 2 * gram_now)[rows, columns]
            loss = (squared.clamp_min(1e-12).sqrt() - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        found = vectors.detach().double().numpy()
        return np.asarray(np.linalg.norm(found[:, None] - found, axis=2))


def stored(measures: Measures, path: Path, pairs: Any, cost: GroundCost) -> DistanceStore:
    path.parent.mkdir(parents=True, exist_ok=True)
    with bar(True, path.name, unit="pairs") as show:
        return precompute(measures, path, pairs, cost, progress=show)


def baselines(measures: Measures, cost: GroundCost) -> dict[str, Peer]:
    """What needs no training; the last two are for images."""
    peers: dict[str, Callable[[], Peer]] = {
        "linear OT, 64 atoms": lambda: Vectors(LinearOT()),
        "linear OT, 256 atoms": lambda: Vectors(LinearOT(256)),
        "sliced Wasserstein": lambda: Vectors(SlicedWasserstein(cost.coordinates(measures[:1]).dim)),
        "RG": SlicedBounds,
        "Gelbrich": Gelbrich,
        "centroids": Centroids,
        "pixels": Pixels,
    }
    left_out = [] if measures.grid else ["pixels"]
    return {name: peer() for name, peer in peers.items() if name not in left_out}


def sit(task: Task, folder: Path, seeds: int, training: TrainingSettings | None, measures: Measures) -> dict[str, Any]:
    other = fetch.measures(task.other) if task.other else None
    kept = measures if other is None else measures[~np.isin(measures.digests(), other.digests())]
    order = np.random.default_rng(0).permutation(len(kept))
    exams = {"": Exam(kept[np.sort(order[: task.unseen])], task.cost, folder / "exam")}
    if other is not None:
        exams[f" on {task.other}"] = Exam(other, task.cost, folder / "other")
    collection = kept[np.sort(order[task.unseen :])]
    store = stored(collection, folder / f"train-{task.pairs}", task.pairs, task.cost)
    rounds: dict[str, list[dict[str, float]]] = {}

    def note(name: str, between: Callable[[Measures], np.ndarray], fit_seconds: float) -> None:
        for where, exam in exams.items():
            started = time.perf_counter()
            predicted = between(exam.unseen)
            seconds = time.perf_counter() - started
            marks = exam.marks(predicted) | {"fit_seconds": fit_seconds, "exam_seconds": seconds}
            rounds.setdefault(name + where, []).append(marks)

    for seed in range(seeds):
        started = time.perf_counter()
        chosen = None if training is None else replace(training, seed=seed)
        embedder = Embedder(task.cost.metric, task.cost.order, random_state=seed, training=chosen, verbose=True)
        embedder.fit(collection, distances=store)
        note("wembed", Learned(embedder).between, time.perf_counter() - started)
    if measures.grid and task.pairs <= 20_000:
        started = time.perf_counter()
        theirs = Embedder(
            order=task.cost.order,
            encoder="dwe",
            training=replace(training or TrainingSettings(), learning_rate=DWE_RATE),
            verbose=True,
        ).fit(collection, distances=store)
        note("DWE", Learned(theirs).between, time.perf_counter() - started)
    solved = Solved.of(collection, store, embedder.split_)
    in_coordinates = embedder.cost.coordinates
    for name, peer in baselines(measures, task.cost).items():
        started = time.perf_counter()
        peer.fit(replace(solved, measures=in_coordinates(collection)))
        seconds = time.perf_counter() - started
        note(name, lambda unseen, peer=peer: peer.between(in_coordinates(unseen)), seconds)  # type: ignore[misc]
    for where, exam in exams.items():
        rounds["floor" + where] = [exam.marks(exam.floor())]
        constant = np.full(exam.between.shape, solved.train.mean())
        rounds["mean predictor" + where] = [
            {key: value for key, value in exam.marks(constant).items() if key != "recall_at_10"}
        ]
    return {
        "measures": len(collection),
        "unseen": task.unseen,
        "mean_atoms": float(measures.sizes.mean()),
        "dimension": measures.dim,
        "pairs": len(store),
        "mean_distance": float(exams[""].exact.mean()),
        "encoder": embedder.encoder_,
        "numbers_a_vector": embedder.dim_,
        "methods": {
            name: {key: spread([marks[key] for marks in found]) for key in found[0]} for name, found in rounds.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs; nothing is recorded")
    parser.add_argument("--work", type=Path, default=default_work(), help="where exact distances are kept")
    parser.add_argument("--only", choices=list(TASKS), action="append", help="this task; the others' records stay")
    chosen = parser.parse_args()
    file = RESULTS / "accuracy.json"
    results: dict[str, Any] = json.loads(file.read_text())["results"] if file.exists() and not chosen.smoke else {}
    for name, task in (SMOKE if chosen.smoke else TASKS).items():
        if chosen.only and name not in chosen.only:
            continue
        folder = chosen.work / ("accuracy-smoke" if chosen.smoke else "accuracy") / _folder(name, task)
        if chosen.smoke:
            from sklearn.datasets import load_digits

            measures = Measures.from_images(load_digits().images[:200])
            found = sit(task, folder, 1, TrainingSettings(steps=20), measures)
        else:
            found = sit(task, folder, 3, None, fetch.measures(task.collection))
        found["peak_megabytes"] = peak_megabytes()
        results[name] = found
        record("accuracy", __doc__ or "", results, smoke=chosen.smoke)


def _folder(name: str, task: Task) -> str:
    collection = (task.collection or "digits").replace("/", "-")
    return f"{collection}-W{task.cost.order:g}"


if __name__ == "__main__":
    main()
