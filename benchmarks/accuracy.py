"""On which kinds of measures does wembed come how close to the exact distance, beside what else can be had?"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, default_work, peak_megabytes, record, spread
from digits import W2, Exam, stored
from peers import (
    FEW,
    Peer,
    Scaled,
    SlicedBounds,
    Solved,
    Vectors,
    between_centroids,
    between_pixels,
    between_vectors,
    gelbrich,
)

from wembed import Embedder, GroundCost, Measures, TrainingSettings
from wembed.learning.baselines import LinearOT, SlicedWasserstein

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
        known: how many of the others there are to learn from; None for all.
    """

    collection: str
    cost: GroundCost
    pairs: int = 20_000
    unseen: int = 300
    other: str | None = None
    known: int | None = None


W1 = GroundCost(order=1)
SPHERE = GroundCost("great-circle-degrees", 1)
TASKS = {
    "mnist, W_2": Task("mnist", W2),
    "mnist, W_2, 300,000 pairs": Task("mnist", W2, pairs=300_000),
    "mnist, W_2, 100 digits": Task("mnist", W2, pairs=4_950, known=100),
    "doodles, W_2": Task("quickdraw", W2, other="quickdraw/cat"),
    "meshes, W_2": Task("meshes", W2, pairs=6_000, unseen=150),
    "meshes, W_2, 100 meshes": Task("meshes", W2, pairs=4_950, unseen=150, known=100),
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


def floor(exam: Exam) -> np.ndarray:
    """Distances of free vectors fitted to the exact ones: metric multidimensional scaling, by Adam."""
    wanted = torch.from_numpy(exam.exact).float()
    rows, columns = torch.from_numpy(exam.pairs.copy()).T
    squares = np.square(exam.between)
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


def baselines(measures: Measures, cost: GroundCost) -> dict[str, Peer]:
    """What needs no training; pixels for images alone."""
    peers: dict[str, Peer] = {
        "linear OT, 64 atoms": Vectors(LinearOT()),
        "linear OT, 256 atoms": Vectors(LinearOT(256)),
        "sliced Wasserstein": Vectors(SlicedWasserstein(cost.coordinates(measures[:1]).dim)),
        "RG": SlicedBounds(),
        "Gelbrich": Scaled(gelbrich, FEW),
        "centroids": Scaled(between_centroids),
    }
    return peers | {"pixels": Scaled(between_pixels)} if measures.grid else peers


def sit(task: Task, folder: Path, seeds: int, training: TrainingSettings | None, measures: Measures) -> dict[str, Any]:
    other = fetch.measures(task.other) if task.other else None
    kept = measures if other is None else measures[~np.isin(measures.digests(), other.digests())]
    order = np.random.default_rng(0).permutation(len(kept))
    exams = {"": Exam(kept[np.sort(order[: task.unseen])], folder / "exam", task.cost)}
    if other is not None:
        exams[f" on {task.other}"] = Exam(other, folder / "other", task.cost)
    collection = kept[np.sort(order[task.unseen :][: task.known])]
    few = "" if task.known is None else f"-of-{task.known}"
    store = stored(collection, folder / f"train-{task.pairs}{few}", task.pairs, task.cost)
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
        note("wembed", partial(between_vectors, embedder), time.perf_counter() - started)
    if measures.grid and task.pairs <= 20_000:
        started = time.perf_counter()
        theirs = Embedder(
            order=task.cost.order,
            encoder="dwe",
            training=replace(training or TrainingSettings(), learning_rate=DWE_RATE),
            verbose=True,
        ).fit(collection, distances=store)
        note("DWE", partial(between_vectors, theirs), time.perf_counter() - started)
    in_coordinates = task.cost.coordinates
    solved = Solved.of(in_coordinates(collection), store, embedder.split_)
    for name, peer in baselines(measures, task.cost).items():
        started = time.perf_counter()
        peer.fit(solved)
        seconds = time.perf_counter() - started
        note(name, lambda unseen, peer=peer: peer.between(in_coordinates(unseen)), seconds)  # type: ignore[misc]
    for where, exam in exams.items():
        rounds["floor" + where] = [exam.marks(floor(exam))]
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
        folder = chosen.work / ("accuracy-smoke" if chosen.smoke else "accuracy") / _folder(task)
        if chosen.smoke:
            from sklearn.datasets import load_digits

            measures = Measures.from_images(load_digits().images[:200])
            found = sit(task, folder, 1, TrainingSettings(steps=20), measures)
        else:
            found = sit(task, folder, 3, None, fetch.measures(task.collection))
        found["peak_megabytes"] = peak_megabytes()
        results[name] = found
        record("accuracy", __doc__ or "", results, smoke=chosen.smoke)


def _folder(task: Task) -> str:
    collection = (task.collection or "digits").replace("/", "-")
    return f"{collection}-W{task.cost.order:g}"


if __name__ == "__main__":
    main()
