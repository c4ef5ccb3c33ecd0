"""How near are decoded measures, barycenters and interpolations to what they stand for, and how soon are they made?"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import RESULTS, commit, record, spread
from digits import Exam, stored
from draw import PICTURES

import wembed
from wembed import Embedder, Measures, TrainingSettings
from wembed.euclidean import distances_between
from wembed.geometry import barycenter, class_means, interpolate
from wembed.pictures import draw_interpolations
from wembed.readers import digits

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import fetch

KNOWN, MEMBERS, PAIRS, UNSEEN_MESHES = 9_000, 100, 200, 150
COLLECTIONS = ("digits", "doodles", "meshes")
WEIGHTS, SEEDS = (0.0, 0.001, 0.01), 3
TOGETHER, ITS_PAIRS, AMONG = 2_000, 5_000, 200  # measures known, pairs solved, measures unseen
DOODLES = ("cat", "crab", "face")
TIMES = (0.25, 0.5, 0.75)
FAINT = 1e-4  # share of the brightest pixel of POT's barycenter, below which a pixel is left out
FREE_ITERATIONS = 20  # of POT's barycenter of free atoms, after which it has all but settled
ENTROPY = 0.002  # of POT's barycenter: the sharpest that it converges with


def apart(a: Measures, b: Measures) -> np.ndarray:
    """W_2 of a[i] and b[i]."""
    pairs = np.stack([np.arange(len(a)), np.arange(len(a)) + len(a)], axis=1)
    return wembed.exact_distances(Measures.concatenate([a, b]), pairs)


def objective(made: Measures, members: Measures) -> float:
    """Mean of W_2^2 to the members."""
    pairs = np.stack([np.zeros(len(members), dtype=int), np.arange(len(members)) + 1], axis=1)
    return float(np.square(wembed.exact_distances(Measures.concatenate([made, members]), pairs)).mean())


def timed(work: Callable[[], Measures]) -> tuple[Measures, float]:
    """What it makes, and the median seconds of a few times where one is short."""
    seconds: list[float] = []
    while len(seconds) < 1 or (sum(seconds) < 0.5 and len(seconds) < 20):
        started = time.perf_counter()
        made = work()
        seconds.append(time.perf_counter() - started)
    return made, float(np.median(seconds))


def of_pot(members: Measures) -> dict[str, Callable[[], Measures]]:
    """Barycenters as POT has them: of images on the pixels, by entropic transport without its blur; of free atoms."""
    import ot

    def on_pixels() -> Measures:
        images = members.histograms().reshape(-1, *(members.grid or ()))
        found = ot.bregman.convolutional_barycenter2d_debiased(images, ENTROPY, stopThr=1e-4)
        return Measures.from_images(np.where(found > FAINT * found.max(), found, 0.0)[None])

    def free() -> Measures:
        first = members[0]
        places = ot.lp.free_support_barycenter(
            [one.support for one in members],
            [one.weights for one in members],
            first.support,
            first.weights,
            numItermax=FREE_ITERATIONS,
        )
        return Measures.from_point_clouds([places], [first.weights])

    return {"POT, on the pixels": on_pixels, "POT, free atoms": free} if members.grid else {"POT, free atoms": free}


def barycenters(embedder: Embedder, measures: Measures, labels: np.ndarray, members: int) -> dict[str, Any]:
    """Of unseen measures of each class: the objective over that of POT on the same pixels, or of as many free atoms."""
    ratios: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for name in np.unique(labels).tolist():
        own = measures[np.flatnonzero(labels == name)[:members]]
        ways: dict[str, Callable[[], Measures]] = {
            **of_pot(own),
            "learned": lambda own=own: barycenter(embedder, own).measures,  # type: ignore[misc]
            "polish": lambda own=own: barycenter(embedder, own, method="polish").measures,  # type: ignore[misc]
        }
        costs = {}
        for way, work in ways.items():
            made, took = timed(work)
            costs[way] = objective(made, own)
            seconds.setdefault(way, []).append(took)
        for way, cost in costs.items():
            ratios.setdefault(way, []).append(cost / costs[next(iter(costs))])
    return {
        way: {
            "objective_over_pots": float(np.mean(ratios[way])),
            "highest": float(np.max(ratios[way])),
            "seconds": float(np.mean(seconds[way])),
        }
        for way in ratios
    }


def drawn(embedder: Embedder, measures: Measures, labels: np.ndarray, file: Path) -> None:
    """Barycenters of each class: learned, and of POT; and the way from a measure of one to one of another."""
    names, means = class_means(embedder, measures, labels)
    own = [measures[np.flatnonzero(labels == name)[:MEMBERS]] for name in names]
    pots = Measures.concatenate([of_pot(members)["POT, on the pixels"]() for members in own])
    a, b = own[3 % len(own)][[0]], own[5 % len(own)][[0]]
    way = interpolate(embedder, a, b, np.linspace(0, 1, max(len(names), 7))).measures
    rows = [("learned", means.measures), ("POT", pots), ("a way", way)]
    draw_interpolations(rows, [], file, grid=measures.grid, cost=embedder.cost)


def interpolations(embedder: Embedder, measures: Measures, pairs: int) -> dict[str, Any]:
    """How far W_2 to the ends is off the share of the way, in the mean over pairs."""
    rng = np.random.default_rng(0)
    ends = np.stack([rng.choice(len(measures), 2, replace=False) for _ in range(pairs)])
    a, b = measures[ends[:, 0]], measures[ends[:, 1]]
    whole, found = apart(a, b), {}
    for method in ("learned", "polish", "exact"):
        for t in TIMES:
            made = interpolate(embedder, a, b, t, method=method).measures
            laid = {method: made}
            if method == "exact" and measures.grid is not None:
                laid["exact, laid on pixels"] = made.on_pixels(measures.grid)
            for way, one in laid.items():
                found[f"{way}, {t:g}"] = {
                    "to_a": float((apart(a, one) / (t * whole)).mean()),
                    "to_b": float((apart(one, b) / ((1 - t) * whole)).mean()),
                }
    return found


@dataclass(frozen=True)
class Collection:
    """Measures to learn from, others to ask about, and the classes of these.

    Attributes:
        known: to learn from.
        unseen: to ask about.
        labels: of these.
        pairs: solved to learn from.
        unit: of the distances.
    """

    known: Measures
    unseen: Measures
    labels: np.ndarray
    pairs: int
    unit: str


def collected(name: str, smoke: bool) -> Collection:
    if name == "digits":
        measures, labels = digits()
        known = measures[:300] if smoke else measures[:KNOWN]
        unseen = slice(KNOWN, KNOWN + 30 if smoke else None)
        return Collection(known, measures[unseen], np.asarray(labels)[unseen].astype(str), 20_000, "pixels")
    if name == "doodles":
        unseen_ones = [fetch.measures(f"quickdraw/{kind}") for kind in DOODLES]
        every, unseen_doodles = fetch.measures("quickdraw"), Measures.concatenate(unseen_ones)
        known = every[~np.isin(every.digests(), unseen_doodles.digests())]
        known = known[np.sort(np.random.default_rng(0).permutation(len(known))[:KNOWN])]
        labels = np.repeat(DOODLES, [len(one) for one in unseen_ones])
        return Collection(known, unseen_doodles, labels, 20_000, "pixels")
    every = fetch.measures("meshes")
    order = np.random.default_rng(0).permutation(len(every))
    unseen_meshes = every[np.sort(order[:UNSEEN_MESHES])]
    return Collection(every[np.sort(order[UNSEEN_MESHES:])], unseen_meshes, np.repeat("all", UNSEEN_MESHES), 6_000, "")


def sit(name: str, smoke: bool) -> dict[str, Any]:
    has = collected(name, smoke)
    training = TrainingSettings(steps=20) if smoke else None
    encoder = "quantiles" if smoke else "auto"  # what suits so many; of few pairs optimal maps are learned as well
    embedder = Embedder(pairs=900 if smoke else has.pairs, encoder=encoder, training=training, verbose=True)
    embedder.fit(has.known)
    started = time.perf_counter()
    embedder.fit_decoder(has.known[embedder.split_.train], steps=5 if smoke else 4_000)
    fitting = time.perf_counter() - started
    unseen, vectors = has.unseen, embedder.encode(has.unseen)
    off = apart(unseen, embedder.decode(vectors))
    many = np.tile(vectors, (-(-10_000 // len(vectors)), 1))[: 500 if smoke else 10_000]
    _, seconds = timed(lambda: embedder.decode(many))
    if not smoke and unseen.grid is not None:
        drawn(embedder, unseen, has.labels, PICTURES / f"{name}.png")
    return {
        "known": len(has.known),
        "unseen": len(unseen),
        "unit": has.unit,
        "decoder_seconds": fitting,
        "reconstruction": {
            "mean": float(off.mean()),
            "p95": float(np.quantile(off, 0.95)),
            "mean_distance": float(embedder.mean_distance_),
        },
        "decoded_per_second": len(many) / seconds,
        "barycenters": barycenters(embedder, unseen, has.labels, 3 if smoke else MEMBERS),
        "interpolations": interpolations(embedder, unseen, 2 if smoke else PAIRS),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
    }


def together(smoke: bool) -> dict[str, Any]:
    """Digits, by encoders that a decoder was trained along with: how near their distances are, and what they decode to.

    With a weight of 0 the decoder is trained afterwards, and like the others without mixtures.
    """
    has = collected("digits", smoke)
    known, few = has.known[:TOGETHER], has.unseen[: None if smoke else AMONG]
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        store = stored(known, Path(folder) / "known", 900 if smoke else ITS_PAIRS)
        exam = Exam(few, Path(folder) / "unseen")
        for weight in WEIGHTS:
            marks = []
            for seed in range(1 if smoke else SEEDS):
                settings = TrainingSettings(steps=20 if smoke else None, reconstruction=weight, seed=seed)
                embedder = Embedder(training=settings, references=0, verbose=True).fit(known, distances=store)
                vectors = embedder.encode(few)
                marked = exam.marks(distances_between(vectors, vectors))
                mark = {name: marked[name] for name in ("relative_error", "recall_at_10")}
                if not weight:
                    embedder.fit_decoder(known[embedder.split_.train], steps=5 if smoke else 4_000, mixtures=0)
                mark["decoded"] = float(apart(few, embedder.decode(vectors)).mean())
                marks.append(mark)
                print(weight, seed, mark, flush=True)
            found[str(weight)] = {name: spread([mark[name] for mark in marks]) for name in marks[0]}
    return {"known": len(known), "unseen": len(few), "pairs": len(store), "seeds": SEEDS, "weights": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs; nothing is recorded")
    parser.add_argument(
        "--only", choices=(*COLLECTIONS, "together"), help="this part alone; what is recorded of others stays"
    )
    asked = parser.parse_args()
    all_parts = ("digits", "together") if asked.smoke else (*COLLECTIONS, "together")
    file = RESULTS / "geometry.json"
    results = json.loads(file.read_text())["results"] if asked.only and file.exists() else {}
    for name in [asked.only] if asked.only else all_parts:
        results[name] = together(asked.smoke) if name == "together" else sit(name, asked.smoke)
    record("geometry", __doc__ or "", results, smoke=asked.smoke)


if __name__ == "__main__":
    main()
