"""Draw what accuracy.py and rounds.py recorded: errors on each kind of measures, against time, and against length."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from readme import lengths_of

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
# Okabe and Ito (2008): told apart by the colour-blind too; the markers tell them apart in black and white.
STYLES = {
    "wembed": ("#0072B2", "o"),
    "DWE": ("#D55E00", "s"),
    "Wormhole": ("#F0E442", "h"),
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


def against_seconds(results: dict[str, Any]) -> Figure:
    """What each method took, its share of the solving included, and how far off it is; the same kind in one panel."""
    kinds = [name for name in results if name.count(",") == 1 and "seconds_a_pair" in results[name]]
    rows = -(-len(kinds) // 3)
    figure = Figure(figsize=(11, 0.6 + 2.9 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, kind in zip(panels, kinds, strict=False):
        more = [task for task in results if task.startswith(f"{kind}, ") and task.endswith("pairs")]
        tasks = [task for task in (kind, *more) if "seconds_a_pair" in results[task]]
        for name, (color, marker) in STYLES.items():
            points = [
                (
                    found["fit_seconds"]["median"] + results[task]["seconds_a_pair"] * found["pairs_used"]["median"],
                    found["relative_error"]["median"],
                )
                for task in tasks
                if "fit_seconds" in (found := results[task]["methods"].get(name, {}))
            ]
            if points:
                axes.plot(*zip(*sorted(points), strict=True), color=color, marker=marker, markersize=6, lw=0.8)
        axes.set_title(kind, fontsize=9)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter("{x:g} s")
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        axes.grid(color="#eeeeee")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    drawn = [name for name in STYLES if any(name in results[kind]["methods"] for kind in kinds)]
    marks = [Line2D([], [], color=STYLES[name][0], marker=STYLES[name][1], lw=0, label=name) for name in drawn]
    figure.legend(
        handles=[mark for mark in marks if mark.get_label() not in ("floor", "mean predictor")],
        loc="outside upper left",
        ncols=5,
        frameon=False,
        fontsize=8,
    )
    figure.supxlabel("solving and fitting", fontsize=9)
    figure.supylabel("mean relative error on unseen measures", fontsize=9)
    return figure


def against_length(results: dict[str, Any]) -> Figure:
    """Error and recall of wembed by the numbers in a vector, plain and with a residual, where lengths were fitted."""
    figure = Figure(figsize=(8, 3.2), dpi=150, layout="constrained")
    error, recall = figure.subplots(1, 2)
    drawn = ((task, found) for task, found in results.items() if lengths_of(found, ""))
    for (color, marker), (task, found) in zip(STYLES.values(), drawn, strict=False):
        for kind, line in ((" with a residual", "-"), ("", ":")):
            lengths = lengths_of(found, kind)
            for axes, mark in ((error, "relative_error"), (recall, "recall_at_10")):
                values = [found["methods"][name][mark]["median"] for name in lengths.values()]
                axes.plot(list(lengths), values, line, color=color, marker=marker, label=f"{task}{kind or ', plain'}")
    for axes, title in ((error, "mean relative error"), (recall, "recall@10")):
        axes.set_title(f"{title} on unseen measures", fontsize=9)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("numbers a vector")
        axes.grid(color="#eeeeee")
        axes.spines[["top", "right"]].set_visible(False)
    error.yaxis.set_major_formatter("{x:.1%}")
    error.legend(frameon=False, fontsize=8)
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
        label = f"{one['pairs']:,} pairs"
        axes.annotate(label, (x, y), xytext=(-6, -12), textcoords="offset points", ha="right", fontsize=8)
    wishes = {
        name: (found["seconds"]["median"], found["relative_error"]["median"])
        for name, found in results["wishes"].items()
    }
    ends = list(wishes.values())
    axes.scatter(*zip(*ends, strict=True), color="#D55E00", marker="D", zorder=3, label="whole fits, on unseen digits")
    for name, end in wishes.items():
        beside = (8, 4) if "%" in name else (16, -8)
        axes.annotate(name, end, xytext=beside, textcoords="offset points", fontsize=8, color="#D55E00")
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
    for name, record, draw in (
        ("accuracy", "accuracy", by_kind),
        ("seconds", "accuracy", against_seconds),
        ("lengths", "accuracy", against_length),
        ("rounds", "rounds", against_time),
    ):
        recorded = json.loads((RESULTS / f"{record}.json").read_text())
        draw(recorded["results"]).savefig(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
