"""Pictures of distances and neighbours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wembed.learning.evaluation import Report
from wembed.measures import Measures

__all__ = ["draw_neighbors", "draw_scatter"]

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#666666"  # Okabe and Ito (2008): told apart by the colour-blind too


def draw_scatter(report: Report, file: Path, what: str = "wembed") -> None:
    """Predicted against exact distances of unseen pairs, with the band that holds 98 % of them."""
    from matplotlib.figure import Figure  # imported late: matplotlib is slow to load

    errors = report.errors[what]
    figure = Figure(figsize=(5.2, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    limit = float(max(report.exact.max(), report.predicted.max())) * 1.03
    line = np.array([0.0, limit])
    axes.fill_between(
        line,
        line * errors.ratio_p01,
        line * errors.ratio_p99,
        color=_ORANGE,
        alpha=0.25,
        lw=0,
        label="98 % of the pairs",
    )
    axes.plot(line, line, color=_GREY, lw=1, label="exact = predicted")
    axes.scatter(report.exact, report.predicted, s=4, color=_BLUE, alpha=0.5, lw=0, rasterized=True)
    axes.set(
        xlim=(0, limit),
        ylim=(0, limit),
        aspect="equal",
        xlabel=f"exact $W_{{{report.order:g}}}$",
        ylabel=f"predicted $W_{{{report.order:g}}}$",
    )
    recall = "" if errors.recall_at_10 is None else f", recall@10 {errors.recall_at_10:.3f}"
    axes.set_title(
        f"{report.pairs:,} pairs of unseen measures\nmean relative error {errors.relative_error:.2%}{recall}",
        fontsize=10,
    )
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def draw_neighbors(
    measures: Measures,
    query: int,
    rows: Sequence[tuple[str, Sequence[int], Sequence[float]]],
    file: Path,
) -> None:
    """A query image beside its neighbours, one row of them for each way to find them.

    Args:
        measures: images in the plane.
        query: the one whose neighbours these are.
        rows: for each way its name, the neighbours, nearest first, and their distances.
        file: where to save the picture.
    """
    from matplotlib.figure import Figure  # imported late: matplotlib is slow to load

    assert measures.grid is not None
    grid = measures.grid
    found = [set(ids) for _, ids, _ in rows]
    shared = set.intersection(*found)
    widest = max(len(ids) for _, ids, _ in rows)
    figure = Figure(figsize=(1.0 * (widest + 1.4), 1.28 * len(rows) + 0.3), dpi=150, layout="constrained")
    axes = figure.subplots(len(rows), widest + 1, squeeze=False)
    for row, (name, ids, distances) in enumerate(rows):
        for column, place in enumerate([query, *ids]):
            ax = axes[row, column]
            ax.imshow(measures[[place]].histograms().reshape(grid), cmap="gray_r", interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            if column == 0:
                ax.set_ylabel(name, fontsize=9)
                ax.set_title("query", fontsize=8)
                continue
            ax.set_title(f"{distances[column - 1]:.2f}", fontsize=8)
            agreed = place in shared
            for spine in ax.spines.values():
                spine.set(color=_BLUE if agreed else _ORANGE, lw=1 if agreed else 2.2, ls="-" if agreed else "--")
        for ax in axes[row, len(ids) + 1 :]:
            ax.axis("off")
    figure.supxlabel(
        f"{len(shared)} of {widest} neighbours are the same; the others have a dashed frame. Above each: its distance.",
        fontsize=8,
    )
    figure.savefig(file)
