"""Draw what accuracy.py and rounds.py recorded: errors on each kind of measures, and errors against time on digits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
# Okabe and Ito (2008): told apart by the colour-blind too; the markers tell them apart in black and white.
STYLES = {
    "wembed": ("#0072B2", "o"),
    "DWE": ("#D55E00", "s"),
    "linear OT, 64 atoms": ("#009E73", "^"),
    "linear OT, 256 atoms": ("#009E73", "v"),
    "sliced Wasserstein": ("#CC79A7", "D"),
    "RG": ("#E69F00", "P"),
    "Gelbrich": ("#56B4E9", "X"),
    "centroids": ("#000000", "+"),
    "mean predictor": ("#666666", "x"),
    "floor": ("#666666", "|"),
}


def by_kind(results: dict[str, Any]) -> Figure:
    tasks = list(results)[::-1]
    figure = Figure(figsize=(8.5, 1.6 + 0.5 * len(tasks)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, (color, marker) in STYLES.items():
        points = [
            (results[task]["methods"][name]["relative_error"]["median"], row)
            for row, task in enumerate(tasks)
            if name in results[task]["methods"]
        ]
        label = "floor: 128 free numbers a measure" if name == "floor" else name
        errors, heights = np.array(points).reshape(-1, 2).T
        size = 90 if name in ("wembed", "floor") else 45
        axes.scatter(errors, heights, s=size, color=color, marker=marker, label=label, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.set_yticks(range(len(tasks)), tasks)
    axes.grid(axis="y", color="#dddddd")
    axes.set_xlabel("mean relative error on unseen measures")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


def against_time(results: dict[str, Any]) -> Figure:
    """The rounds of one fit, and what fits with a wish came to."""
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    rounds = results["wishes"]["as long as it pays"]["curves"][0]["rounds"]
    seconds = np.cumsum([one["solving"] + one["training"] for one in rounds])
    errors = [one["error"] for one in rounds]
    axes.plot(seconds, errors, color="#0072B2", marker="o", label="rounds of one fit, on validation digits")
    for x, y, one in zip(seconds, errors, rounds, strict=True):
        axes.annotate(f"{one['pairs']:,} pairs", (x, y), xytext=(6, 6), textcoords="offset points", fontsize=8)
    wishes = {
        name: (found["seconds"]["median"], found["relative_error"]["median"])
        for name, found in results["wishes"].items()
    }
    ends = list(wishes.values())
    axes.scatter(*zip(*ends, strict=True), color="#D55E00", marker="D", zorder=3, label="whole fits, on unseen digits")
    for name, end in wishes.items():
        below = (-8, -2 if "%" in name else -14)
        axes.annotate(name, end, xytext=below, textcoords="offset points", ha="right", fontsize=8, color="#D55E00")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_yticks([0.007, 0.008, 0.009, 0.01, 0.012, 0.014])
    axes.xaxis.set_major_formatter("{x:g} s")
    axes.yaxis.set_major_formatter("{x:.1%}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.margins(0.2)
    axes.grid(which="both", color="#eeeeee")
    axes.set_xlabel("from nothing, solving included")
    axes.set_ylabel("mean relative error of W_2")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    for name, draw in (("accuracy", by_kind), ("rounds", against_time)):
        recorded = json.loads((RESULTS / f"{name}.json").read_text())
        draw(recorded["results"]).savefig(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
