"""Draw what benchmarks/accuracy.py recorded: the relative error of each method on each kind of measures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "accuracy.png"
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


def drawn(results: dict[str, Any]) -> Figure:
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


if __name__ == "__main__":
    drawn(json.loads(RESULTS.read_text())["results"]).savefig(PICTURE)
