"""Do intervals, bounds, tolerances and promises of recall hold on unseen measures, and what do they cost?"""

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import SMOKE, TASKS, Task, collected
from common import RESULTS, commit, default_work, peak_megabytes, record, spread
from digits import Exam
from sklearn.metrics import roc_auc_score

import wembed
from wembed import Embedder, Index, Measures, TrainingSettings
from wembed.progress import bar
from wembed.readers import digits
from wembed.unusual import UNUSUAL

KINDS = {
    "MNIST": TASKS["mnist, W_2"],
    "400 digits of MNIST": replace(TASKS["mnist, W_2"], known=400),
    "doodles": replace(TASKS["doodles, W_2"], others=()),
    "tweets": TASKS["tweets, W_2"],
    "meshes": TASKS["meshes, W_2"],
    "regions on the globe": TASKS["regions on the globe, W_1"],
    "endings of names on the globe": TASKS["endings of names on the globe, W_1"],
}
LEVEL, TOLERANCE, RECALL = 0.9, 0.02, 0.99
FIFTHS = (0.2, 0.4, 0.6, 0.8)
MOVED = (0.1, 0.3, 1.0, 1.5, 2.0, 3.0)  # standard deviation of the noise of a copy, in pixels
BOUNDED = "mnist, W_2, 1,000,000 pairs"
QUERIES = 50


def split_of(task: Task) -> tuple[Measures, Measures]:
    """What may be learned from, and the unseen measures."""
    measures = collected(task.collection)
    order = np.random.default_rng(0).permutation(len(measures))
    return measures[np.sort(order[task.unseen :][: task.known])], measures[np.sort(order[: task.unseen])]


def fitted(task: Task, known: Measures, folder: Path, seed: int, training: TrainingSettings | None) -> Embedder:
    """Each seed with a split of its own, and so with other calibration measures."""
    kept = folder / (f"train-{task.pairs}" + (f"-{seed}" if seed else ""))
    with bar(True, folder.name, unit="pairs") as show:
        store = wembed.precompute(known, kept, task.pairs, task.cost, seed=seed, progress=show)
    chosen = None if training is None else replace(training, seed=seed)
    embedder = Embedder(task.cost.metric, task.cost.order, random_state=seed, training=chosen, verbose=True)
    return embedder.fit(known, distances=store)


def intervals(embedder: Embedder, exam: Exam) -> dict[str, dict[str, float]]:
    """Coverage and width over all pairs of unseen measures, with references and without."""
    found: dict[str, dict[str, float]] = {}
    exact, rows = exam.exact, tuple(exam.pairs.T)
    fifth = np.searchsorted(np.quantile(exact, FIFTHS), exact)
    for name, refine in (("vectors alone", False), ("references", True)):
        started = time.perf_counter()
        answers = embedder.pairwise(exam.unseen, interval=LEVEL, refine=refine)
        seconds = time.perf_counter() - started
        predicted, estimate, lower, upper = (
            getattr(answers, key)[rows].astype(np.float64) for key in ("predicted", "estimate", "lower", "upper")
        )
        inside = (lower <= exact) & (exact <= upper)
        off = np.abs(predicted - exact)
        found[name] = {
            "coverage": float(inside.mean()),
            **{f"coverage_fifth_{part + 1}": float(inside[fifth == part].mean()) for part in range(5)},
            "median_width_over_median_error": float(np.median(upper - lower) / np.median(off)),
            "median_relative_width": float(np.median((upper - lower) / exact)),
            "relative_error": float((off / exact).mean()),
            "relative_error_of_estimate": float((np.abs(estimate - exact) / exact).mean()),
            "seconds": seconds,
        }
        answers = embedder.pairwise(exam.unseen, tolerance=TOLERANCE, refine=refine)
        within = np.abs(answers.estimate[rows] - exact) <= TOLERANCE * exact
        found[name] |= {
            "within_tolerance": float(within.mean()),
            "solved_for_tolerance": float(answers.exact[rows].mean()),
        }
    return found


def certified(task: Task, work: Path, few: int) -> dict[str, float]:
    """Bounds of many solved pairs, and the speed of bounds and of solving on one core."""
    known, unseen = split_of(task)
    store = wembed.precompute(known, work / f"train-{task.pairs}", task.pairs, task.cost, calibration=0.0)
    pairs, exact, _ = store.read()
    with bar(True, "bounds", unit="measures") as show:
        found = wembed.bounds(known, pairs, task.cost, progress=show)
    every = np.stack(np.triu_indices(len(unseen), 1), axis=1)
    started = time.perf_counter()
    wembed.bounds(unseen, every, task.cost, n_jobs=1)
    a_pair = (time.perf_counter() - started) / len(every)
    some = every[np.random.default_rng(0).permutation(len(every))[:few]]
    started = time.perf_counter()
    wembed.exact_distances(unseen, some, task.cost, n_jobs=1)
    solving = (time.perf_counter() - started) / len(some)
    return {
        "pairs": len(pairs),
        "largest_violation": float(max((found.lower - exact).max(), (exact - found.upper).max())),
        "median_lower_over_exact": float(np.median(found.lower / exact)),
        "median_upper_over_exact": float(np.median(found.upper / exact)),
        "median_upper_over_lower": float(np.median(found.upper / found.lower)),
        "measures_timed": len(unseen),
        "mean_atoms": float(unseen.sizes.mean()),
        "seconds_a_pair": a_pair,
        "seconds_a_solved_pair": solving,
        "times_faster": solving / a_pair,
    }


def promised(known: Measures, queries: Measures, embedder: Embedder, folder: Path) -> dict[str, dict[str, float]]:
    """Recall of ten neighbours and solves of a query, against every distance of the query."""
    together = Measures.concatenate([queries, known])
    asked = np.stack(
        [np.repeat(np.arange(len(queries)), len(known)), np.tile(np.arange(len(known)), len(queries)) + len(queries)], 1
    )
    with bar(True, folder.name, unit="pairs") as show:
        truth = wembed.precompute(together, folder, asked, progress=show).distances.reshape(len(queries), len(known))
    tenth = np.sort(truth, axis=1)[:, 9:10]
    index, found = Index(embedder, known), {}
    ways: dict[str, dict[str, Any]] = {
        "predicted": {},
        f"recall={RECALL}": {"recall": RECALL},
        "certified": {"certified": True},
        "certified, references known": {"certified": True},
    }
    for name, way in ways.items():
        started = time.perf_counter()
        answer = index.query(queries, 10, **way)
        seconds = time.perf_counter() - started
        near = np.take_along_axis(truth, answer.ids, axis=1) <= tenth * (1 + 1e-9)
        found[name] = {
            "recall_at_10": float(near.mean()),
            "solved_a_query": float(answer.solved.mean()),
            "most_solved": int(answer.solved.max()),
            "seconds_a_query": seconds / len(queries),
        }
    return found | {"every distance": {"recall_at_10": 1.0, "solved_a_query": len(known)}}


def strange(embedder: Embedder, unseen: Measures, others: dict[str, Measures]) -> dict[str, dict[str, float | bool]]:
    """How well unusualness tells other measures from unseen ones like those learned from."""
    usual = embedder.unusualness(unseen)
    found: dict[str, dict[str, float | bool]] = {
        "unseen digits": {
            "above_1": float((usual > 1).mean()),
            "warned_of": float((usual >= UNUSUAL).mean()),
            "warned_of_together": warns(embedder, unseen),
        }
    }
    for name, other in others.items():
        score = embedder.unusualness(other)
        truth = np.repeat([0, 1], [len(usual), len(score)])
        found[name] = {
            "auroc": float(roc_auc_score(truth, np.concatenate([usual, score]))),
            "above_1": float((score > 1).mean()),
            "warned_of": float((score >= UNUSUAL).mean()),
            "warned_of_together": warns(embedder, other),
        }
    return found


def copied(embedder: Embedder, unseen: Measures) -> dict[str, dict[str, float | bool]]:
    """Coverage over pairs of a measure and its copy with every atom moved at random."""
    found: dict[str, dict[str, float | bool]] = {}
    count, rng = len(unseen), np.random.default_rng(0)
    pairs = np.stack([np.arange(count), np.arange(count) + count], axis=1)
    for moved in MOVED:
        copies = Measures.from_point_clouds(
            [one.support + rng.normal(0, moved, one.support.shape) for one in unseen], [one.weights for one in unseen]
        )
        exact = wembed.exact_distances(Measures.concatenate([unseen, copies]), pairs)
        marks: dict[str, float | bool] = {"mean_distance": float(exact.mean()), "warned_of": warns(embedder, copies)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wembed.UnusualWarning)
            for name, refine in (("vectors alone", False), ("references", True)):
                answers = embedder.distance(unseen, copies, interval=LEVEL, refine=refine)
                marks[f"coverage, {name}"] = float(((answers.lower <= exact) & (exact <= answers.upper)).mean())
        found[f"{moved:g}"] = marks
    return found


def warns(embedder: Embedder, measures: Measures) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        embedder.transform(measures)
    return any(issubclass(one.category, wembed.UnusualWarning) for one in caught)


def altered(unseen: Measures, doodles: Measures) -> dict[str, Measures]:
    """Doodles, as they are and as large as the digits, and digits with something done to them."""
    rng = np.random.default_rng(0)
    images = unseen.histograms().reshape(-1, *(unseen.grid or ()))
    size = _radius(unseen) / _radius(doodles)
    noise = np.where(rng.random(images.shape) < 0.1, rng.exponential(0.02 * images.max(), images.shape), 0)
    clouds = [unseen[i] for i in range(len(unseen))]
    return {
        "doodles": doodles,
        "doodles as large as digits": Measures.from_point_clouds(
            [size * one.support for one in doodles], [one.weights for one in doodles]
        ),
        "digits a fifth larger": Measures.from_point_clouds(
            [1.2 * one.support for one in clouds], [one.weights for one in clouds]
        ),
        "digits with specks on a tenth of the pixels": Measures.from_images(images + noise),
        "digits mirrored": Measures.from_images(images[:, :, ::-1]),
        "digits and their half turn": Measures.from_images(images + images[:, ::-1, ::-1]),
        "digits flattened to a line": Measures.from_point_clouds(
            [one.support * [1, 0] for one in clouds], [one.weights for one in clouds]
        ),
    }


def _radius(measures: Measures) -> float:
    centred = measures.points() - np.repeat(measures.centroids(), measures.sizes, axis=0)
    return float(np.sqrt((measures.weights * np.square(centred).sum(axis=1)).sum() / len(measures)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs; nothing is recorded")
    parser.add_argument("--work", type=Path, default=default_work(), help="where exact distances are kept")
    parser.add_argument("--only", choices=[*KINDS, "unusual", "bounds", "neighbours"], action="append")
    chosen = parser.parse_args()
    file = RESULTS / "trust.json"
    results: dict[str, Any] = json.loads(file.read_text())["results"] if file.exists() and not chosen.smoke else {}
    smoke, seeds = chosen.smoke, 1 if chosen.smoke else 3
    training = TrainingSettings(steps=20) if smoke else None
    work = chosen.work / ("trust-smoke" if smoke else "trust")

    def note(name: str, found: dict[str, Any]) -> None:
        when = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "peak_megabytes": peak_megabytes()}
        results[name] = found | when
        record("trust", __doc__ or "", results, smoke=smoke)

    kinds = {"digits": replace(SMOKE["digits"], pairs=900, known=400)} if smoke else KINDS
    for name, task in kinds.items():
        if chosen.only and name not in chosen.only:
            continue
        folder = work / name
        known, unseen = split_of(task)
        own = "accuracy-smoke" if smoke else "accuracy"
        kept = chosen.work / own / f"{task.collection}-W{task.cost.order:g}" / "exam"
        exam = Exam(unseen, folder / "exam" if name == "doodles" else kept, task.cost)
        embedders = [fitted(task, known, folder, seed, training) for seed in range(seeds)]
        marks = [intervals(embedder, exam) for embedder in embedders]
        note(
            name,
            {
                "measures": len(known),
                "unseen": len(unseen),
                "calibration_measures": len(embedders[0].split_.calibration),
                "intervals": {
                    way: {key: spread([one[way][key] for one in marks]) for key in marks[0][way]} for way in marks[0]
                },
            },
        )
    if not smoke and (not chosen.only or "unusual" in chosen.only):
        known, unseen = split_of(KINDS["MNIST"])
        _, doodles = split_of(KINDS["doodles"])
        embedder = fitted(KINDS["MNIST"], known, work / "MNIST", 0, training)
        scores = strange(embedder, unseen, altered(unseen, doodles))
        note("unusual", {"kinds": scores, "copies": copied(embedder, unseen)})
    if not chosen.only or "bounds" in chosen.only:
        task = replace(SMOKE["digits"], pairs=3_000, known=None) if smoke else TASKS[BOUNDED]
        folder = work if smoke else chosen.work / "accuracy" / "mnist-W2"
        note("bounds", certified(task, folder, 100 if smoke else 5_000))
    if not chosen.only or "neighbours" in chosen.only:
        measures, _ = digits()
        measures, queries = (
            (measures[:500], measures[500:505]) if smoke else (measures[:9_000], measures[9_000:][:QUERIES])
        )
        pairs = 900 if smoke else 20_000
        embedder = Embedder(pairs=pairs, training=training, verbose=True).fit(measures)
        note("neighbours", {"ways": promised(measures, queries, embedder, work / "neighbours")})


if __name__ == "__main__":
    main()
