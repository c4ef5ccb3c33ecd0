"""How near are decoded digits, barycenters and interpolations to what they stand for, and how soon are they made?"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import commit, record
from draw import PICTURES

import wembed
from wembed import Embedder, Measures, TrainingSettings
from wembed.geometry import barycenter, class_means, interpolate
from wembed.readers import digits

KNOWN, MEMBERS, PAIRS = 9_000, 100, 200
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
    """Barycenters as POT has them: on the pixels, by entropic transport without its blur; and of free atoms."""
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

    return {"POT, on the pixels": on_pixels, "POT, free atoms": free}


def barycenters(embedder: Embedder, measures: Measures, labels: np.ndarray, members: int) -> dict[str, Any]:
    """Of unseen digits of each class: the objective over that of POT on the pixels, and how much sooner they come."""
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
            ratios.setdefault(way, []).append(cost / costs["POT, on the pixels"])
    return {
        way: {
            "objective_over_pots": float(np.mean(ratios[way])),
            "highest": float(np.max(ratios[way])),
            "seconds": float(np.mean(seconds[way])),
        }
        for way in ratios
    }


def drawn(embedder: Embedder, measures: Measures, labels: np.ndarray, file: Path) -> None:
    """Barycenters of each class: learned, and of POT; and the way from a digit to another."""
    import matplotlib.pyplot as plt

    names, means = class_means(embedder, measures, labels)
    rows = [("learned", means.measures)]
    pots = [of_pot(measures[np.flatnonzero(labels == name)])["POT, on the pixels"]() for name in names]
    rows.append(("POT", Measures.concatenate(pots)))
    a, b = measures[[int(np.argmax(labels == 3))]], measures[[int(np.argmax(labels == 5))]]
    rows.append(("3 to 5", interpolate(embedder, a, b, np.linspace(0, 1, len(names))).measures))
    figure, axes = plt.subplots(len(rows), len(names), figsize=(len(names), len(rows) + 0.2))
    for line, (name, made) in zip(axes, rows, strict=True):
        for axis, image in zip(line, made.histograms().reshape(-1, *(made.grid or ())), strict=True):
            axis.imshow(image, cmap="gray_r")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    figure.tight_layout(pad=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def interpolations(embedder: Embedder, measures: Measures, pairs: int) -> dict[str, Any]:
    """How far W_2 to the ends is off the share of the way, in the mean over pairs."""
    a, b = measures[:pairs], measures[pairs : 2 * pairs]
    whole, found = apart(a, b), {}
    for method in ("learned", "polish", "exact"):
        for t in TIMES:
            made = interpolate(embedder, a, b, t, method=method).measures
            found[f"{method}, {t:g}"] = {
                "to_a": float((apart(a, made) / (t * whole)).mean()),
                "to_b": float((apart(made, b) / ((1 - t) * whole)).mean()),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs; nothing is recorded")
    smoke = parser.parse_args().smoke
    measures, labels = digits()
    known, unseen = (measures[:300], measures[9_000:9_060]) if smoke else (measures[:KNOWN], measures[KNOWN:])
    training = TrainingSettings(steps=20) if smoke else None
    embedder = Embedder(pairs=900 if smoke else 20_000, training=training, verbose=True).fit(known)
    started = time.perf_counter()
    embedder.fit_decoder(known[embedder.split_.train], steps=50 if smoke else 4_000)
    fitting = time.perf_counter() - started
    vectors = embedder.encode(unseen)
    off = apart(unseen, embedder.decode(vectors))
    many = np.tile(vectors, (-(-10_000 // len(vectors)), 1))[: 500 if smoke else 10_000]
    _, seconds = timed(lambda: embedder.decode(many))
    results = {
        "digits": {
            "known": len(known),
            "unseen": len(unseen),
            "decoder_seconds": fitting,
            "reconstruction": {
                "mean": float(off.mean()),
                "p95": float(np.quantile(off, 0.95)),
                "mean_distance": float(embedder.mean_distance_),
            },
            "decoded_per_second": len(many) / seconds,
            "barycenters": barycenters(
                embedder, unseen, np.asarray(labels)[9_000:][: len(unseen)], 10 if smoke else MEMBERS
            ),
            "interpolations": interpolations(embedder, unseen, 10 if smoke else PAIRS),
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit(),
        }
    }
    if not smoke:
        drawn(embedder, unseen, np.asarray(labels)[9_000:], PICTURES / "barycenters.png")
    record("geometry", __doc__ or "", results, smoke=smoke)


if __name__ == "__main__":
    main()
