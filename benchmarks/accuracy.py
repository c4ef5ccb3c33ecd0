"""On which kinds of measures does wembed come how close to the exact distance, beside what else can be had?"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, commit, default_work, peak_megabytes, record, spread
from digits import W2, Exam, stored
from peers import (
    FEW,
    Peer,
    Scaled,
    SlicedBounds,
    Solved,
    Vectors,
    Wormhole,
    between_centroids,
    between_directions,
    between_pixels,
    gelbrich,
)
from sklearn.datasets import load_digits

from wembed import DistanceStore, Embedder, GroundCost, Measures, TrainingSettings
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
        unseen: measures held out for an exam, all pairs of which are solved.
        folds: exams, each of other measures; the rest is learned from. Of a small collection all are held out in turn.
        others: parts of it that are left out of training, each an exam of its own; how much harder that is, the exam of
            one half tells, which is sat by a model that saw the other half as well.
        known: how many of the rest there are to learn from; None for all.
        lengths: of vectors that wembed is fitted with as well, plain ones and with a residual, each once.
        settings: of wembed that are not the default ones.
    """

    collection: str
    cost: GroundCost
    pairs: int = 20_000
    unseen: int = 300
    folds: int = 1
    others: tuple[str, ...] = ()
    known: int | None = None
    lengths: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


LENGTHS = (64, 256, 1_024)
W1 = GroundCost(order=1)
SPHERE = GroundCost("great-circle-degrees", 1)
TASKS = {
    "mnist, W_2": Task("mnist", W2),
    "mnist, W_2, 1,000,000 pairs": Task("mnist", W2, pairs=1_000_000),
    "mnist, W_2, 1,000,000 pairs, quantiles": Task("mnist", W2, pairs=1_000_000, settings={"encoder": "quantiles"}),
    "mnist, W_2, 100 digits": Task("mnist", W2, pairs=4_950, known=100),
    "digits of 8 x 8, W_2": Task("digits", W2),
    "doodles, W_2": Task("quickdraw", W2, others=("quickdraw/cat", "quickdraw/crab", "quickdraw/face")),
    "meshes, W_2": Task("meshes", W2, pairs=6_000, unseen=150, lengths=LENGTHS),
    "meshes, W_2, 100 meshes": Task("meshes", W2, pairs=4_950, unseen=150, known=100),
    "meshes, W_1": Task("meshes", W1, pairs=6_000, unseen=150),
    "tweets, W_2": Task("tweets", W2, lengths=LENGTHS),
    "tweets, W_1": Task("tweets", W1),
    "cells, W_2": Task("cells", W2, unseen=150),
    "countries on the globe, W_1": Task("cities/countries", SPHERE, pairs=6_000, unseen=44, folds=4),
    "regions on the globe, W_1": Task("cities/regions", SPHERE, unseen=250, folds=5),
    "endings of names on the globe, W_1": Task("cities/endings", SPHERE, unseen=250, folds=5),
}
SMOKE = {
    "digits": Task("digits", W2, pairs=300, unseen=30, known=170, lengths=(16,)),
    "digits, W_1": Task("digits", W1, pairs=300, unseen=30, known=170),
}


def floor(exam: Exam) -> np.ndarray:
    """Distances of free vectors fitted to the exact ones: metric multidimensional scaling, by Adam."""
    cost = exam.cost
    wanted = torch.from_numpy(cost.to_euclidean(exam.exact)).float()
    rows, columns = torch.from_numpy(exam.pairs.copy()).T
    squares = np.square(cost.to_euclidean(exam.between))
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
    return cost.from_euclidean(np.linalg.norm(found[:, None] - found, axis=2))


def baselines(measures: Measures, cost: GroundCost) -> dict[str, Peer]:
    """What needs no training; pixels for images alone."""
    peers: dict[str, Peer] = {
        "linear OT, 64 atoms": Vectors(LinearOT()),
        "linear OT, 256 atoms": Vectors(LinearOT(256)),
        "sliced Wasserstein": Vectors(SlicedWasserstein(cost.coordinates(measures[:1]).dim)),
        "RG": SlicedBounds(),
        "Gelbrich": Scaled(gelbrich, FEW),
        "centroids": Scaled(between_directions if cost.is_great_circle else between_centroids),
    }
    return peers | {"pixels": Scaled(between_pixels)} if measures.grid else peers


def collected(name: str) -> Measures:
    """A data set of data/fetch.py, or the 1,797 small digits of scikit-learn."""
    return Measures.from_images(load_digits().images) if name == "digits" else fetch.measures(name)


def sit(task: Task, folder: Path, seeds: int, training: TrainingSettings | None, wormhole: bool) -> dict[str, Any]:
    measures = kept = collected(task.collection)
    others = {name: fetch.measures(name) for name in task.others}
    for other in others.values():
        kept = kept[~np.isin(kept.digests(), other.digests())]
    order = np.random.default_rng(0).permutation(len(kept))
    sittings = []
    for fold in range(task.folds):
        start = fold * task.unseen
        unseen, rest = order[start : start + task.unseen], np.delete(order, np.s_[start : start + task.unseen])
        one = Sitting(task, folder, fold, kept[np.sort(unseen)], kept[np.sort(rest[: task.known])], others)
        one.sit(seeds, training, wormhole)
        sittings.append(one)
    first = sittings[0]
    marks = {name: [found for one in sittings for found in one.marks[name]] for name in first.marks}
    encoder, dim = statistics.mode(taken for one in sittings for taken in one.taken)
    less = {name: _less([one.less_than_wembed(name) for one in sittings]) for name in first.peers}
    return {
        "measures": len(first.collection),
        "unseen": task.unseen,
        "folds": task.folds,
        "mean_atoms": float(measures.sizes.mean()),
        "dimension": measures.dim,
        "pairs": first.pairs,
        "seconds_a_pair": first.seconds_a_pair,
        "mean_distance": float(np.mean([one.exams[""].exact.mean() for one in sittings])),
        "encoder": encoder,
        "numbers_a_vector": dim,
        "methods": {
            name: {key: spread([one[key] for one in found]) for key in found[0]} for name, found in marks.items()
        },
        "less_than_wembed": less,
    }


class Sitting:
    """One exam, on measures that no method learns from, and what each method got in it."""

    def __init__(
        self,
        task: Task,
        folder: Path,
        fold: int,
        unseen: Measures,
        collection: Measures,
        others: Mapping[str, Measures],
    ) -> None:
        self.task, self.folder, self.collection, self.others = task, folder, collection, others
        self.after = f"-fold-{fold}" if fold else ""
        self.exams = {"": Exam(unseen, folder / f"exam{self.after}", task.cost)}
        for name, other in others.items():
            self.exams[f" on {name}"] = Exam(other, folder / name.replace("/", "-"), task.cost)
        few = "" if task.known is None else f"-of-{task.known}"
        self.store = stored(collection, folder / f"train-{task.pairs}{few}{self.after}", task.pairs, task.cost)
        self.pairs = len(self.store)
        self.marks: dict[str, list[dict[str, float]]] = {}
        self.by_measure: dict[str, list[dict[str, np.ndarray]]] = {}
        self.peers: list[str] = []

    def note(self, name: str, between: Callable[[Measures], np.ndarray], fit_seconds: float, used: int) -> None:
        """The marks of a method in each exam; it used so many pairs, which took their share of the solving."""
        for where, exam in self.exams.items():
            started = time.perf_counter()
            predicted = between(exam.unseen)
            seconds = time.perf_counter() - started
            costs = {
                "pairs_used": used,
                "fit_seconds": fit_seconds,
                "seconds_a_measure": seconds / len(exam.unseen),
                "distances_per_second": len(exam.pairs) / seconds,
            }
            self.marks.setdefault(name + where, []).append(exam.marks(predicted) | costs)
            self.by_measure.setdefault(name + where, []).append(exam.marks_by_measure(predicted))
            if not name.startswith("wembed"):
                self.peers.append(name + where)

    def less_than_wembed(self, name: str) -> dict[str, np.ndarray]:
        """How much less the marks of a peer are, by measure, in the mean over the trainings of either."""
        own = "".join(("wembed", *name.partition(" on ")[1:]))
        theirs, ours = self.by_measure[name], self.by_measure[own]
        return {
            key: np.mean([one[key] for one in ours], 0) - np.mean([one[key] for one in theirs], 0) for key in ours[0]
        }

    def fitted(
        self,
        seed: int,
        training: TrainingSettings | None,
        measures: Measures | None = None,
        distances: DistanceStore | None = None,
        **settings: Any,
    ) -> tuple[Embedder, float]:
        task, started = self.task, time.perf_counter()
        chosen = None if training is None else replace(training, seed=seed)
        settings = {"training": chosen, **task.settings, **settings}
        embedder = Embedder(task.cost.metric, task.cost.order, random_state=seed, verbose=True, **settings)
        embedder.fit(measures or self.collection, distances=distances or self.store)
        return embedder, time.perf_counter() - started

    def sit(self, seeds: int, training: TrainingSettings | None, wormhole: bool) -> None:
        """wembed, with other lengths too, the peers, the floor and the mean predictor."""
        task, models = self.task, []
        for seed in range(seeds):
            embedder, seconds = self.fitted(seed, training)
            models.append(embedder)
            self.note("wembed", embedder.pairwise, seconds, self.pairs)
        for length in task.lengths:
            for kind, residual in (("", False), (" with a residual", True)):
                shorter, seconds = self.fitted(0, training, dim=length, residual=residual)
                self.note(f"wembed, {length:,} numbers{kind}", shorter.pairwise, seconds, self.pairs)
        self.taken = [(model.encoder_, model.dim_) for model in models]
        self.seconds_a_pair = embedder.learning_curve_.seconds_a_pair
        if self.others:
            self._left_out(models, training)
        if self.collection.grid and task.pairs <= 20_000:
            its = replace(training or TrainingSettings(), learning_rate=DWE_RATE)
            theirs, seconds = self.fitted(0, its, encoder="dwe")
            self.note("DWE", theirs.pairwise, seconds, self.pairs)
        solved = Solved.of(self.collection, self.store, embedder.split_, task.cost)
        peers = baselines(self.collection, task.cost)
        if wormhole and task.cost == W2:
            took = statistics.median(found["fit_seconds"] for found in self.marks["wembed"])
            place = self.folder.parent / "wormhole"
            peers["Wormhole"] = Wormhole(place, self.seconds_a_pair * self.pairs + took)
        for name, peer in peers.items():
            started = time.perf_counter()
            peer.fit(solved)
            seconds = time.perf_counter() - started
            self.note(name, partial(_in_coordinates, peer, task.cost), seconds, peer.used)
        for where, exam in self.exams.items():
            self.marks["floor" + where] = [exam.marks(floor(exam))]
            constant = np.full(exam.between.shape, embedder.mean_distance_)
            self.marks["mean predictor" + where] = [
                {key: value for key, value in exam.marks(constant).items() if key != "recall_at_10"}
            ]

    def _left_out(self, models: list[Embedder], training: TrainingSettings | None) -> None:
        """How the models do on half of what was left out, and others that saw the other half."""
        task = self.task
        halves = {
            name: Exam(other[::2], self.folder / f"{name.replace('/', '-')}-half", task.cost)
            for name, other in self.others.items()
        }
        seeing = Measures.concatenate([self.collection, *(other[1::2] for other in self.others.values())])
        solved_too = stored(seeing, self.folder / f"train-{task.pairs}-seeing", task.pairs, task.cost)
        for seed, model in enumerate(models):
            both = (("left out", model), ("seen", self.fitted(seed, training, seeing, solved_too)[0]))
            for label, one in both:
                for name, exam in halves.items():
                    found = exam.marks(one.pairwise(exam.unseen))
                    self.marks.setdefault(f"wembed, {label}, on half of {name}", []).append(found)


def _less(by_fold: list[dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """The mean over all measures of how much less marks are than those of wembed, and the standard error of that.

    A mean over pairs is a U-statistic of order two: its standard error is twice that of a mean over measures
    (Hoeffding 1948).
    """
    found = {}
    for key, drawn in (("relative_error", 2), ("recall_at_10", 1)):
        less = np.concatenate([one[key] for one in by_fold])
        found[key] = {"mean": float(less.mean()), "standard_error": drawn * float(less.std(ddof=1)) / len(less) ** 0.5}
    return found


def _in_coordinates(peer: Peer, cost: GroundCost, measures: Measures) -> np.ndarray:
    return cost.from_euclidean(peer.between(cost.coordinates(measures)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs; nothing is recorded")
    parser.add_argument("--work", type=Path, default=default_work(), help="where exact distances are kept")
    parser.add_argument("--wormhole", action="store_true", help="Wormhole as well, in an environment made for it")
    parser.add_argument("--only", choices=list(TASKS), action="append", help="this task; the others' records stay")
    chosen = parser.parse_args()
    file = RESULTS / "accuracy.json"
    results: dict[str, Any] = json.loads(file.read_text())["results"] if file.exists() and not chosen.smoke else {}
    for name, task in (SMOKE if chosen.smoke else TASKS).items():
        if chosen.only and name not in chosen.only:
            continue
        folder = chosen.work / ("accuracy-smoke" if chosen.smoke else "accuracy") / _folder(task)
        training = TrainingSettings(steps=20) if chosen.smoke else None
        found = sit(task, folder, 1 if chosen.smoke else 3, training, chosen.wormhole)
        found |= {"peak_megabytes": peak_megabytes(), "date": time.strftime("%Y-%m-%d"), "commit": commit()}
        results[name] = found
        in_order = {one: results[one] for one in (*TASKS, *SMOKE) if one in results}
        record("accuracy", __doc__ or "", in_order, smoke=chosen.smoke)


def _folder(task: Task) -> str:
    return f"{task.collection.replace('/', '-')}-W{task.cost.order:g}"


if __name__ == "__main__":
    main()
