"""Pictures of distances and neighbours, as files."""

from collections.abc import Sequence
from pathlib import Path

from wembed import figures
from wembed.learning.evaluation import Report
from wembed.measures import Measures
from wembed.portraits import Portraits, draw_ranking

__all__ = ["draw_neighbors", "draw_scatter"]


def draw_scatter(report: Report, file: Path) -> None:
    """Predicted against exact distances of unseen pairs, with 90 % intervals or else the band that holds 98 %."""
    errors = report.errors["wembed"]
    recall = "" if errors.recall_at_10 is None else f", recall@10 {errors.recall_at_10:.3f}"
    which = "measures" if report.seen else "unseen measures"
    with figures.plain_style():
        figure = figures.draw_scatter(report)
        figure.suptitle(
            f"{report.pairs:,} pairs of {which}\nmean relative error {errors.relative_error:.2%}{recall}",
            fontsize=10,
        )
        figure.savefig(file)


def draw_neighbors(
    measures: Measures,
    query: int,
    rows: Sequence[tuple[str, Sequence[int], Sequence[float]]],
    file: Path,
) -> None:
    """A query beside its neighbours, one row of them for each way to find them.

    Args:
        measures: among them the query and its neighbours.
        query: the one whose neighbours these are.
        rows: for each way its name, the neighbours, nearest first, and their distances.
        file: where to save the picture.
    """
    shared = set.intersection(*(set(ids) for _, ids, _ in rows))
    widest = max(len(ids) for _, ids, _ in rows)
    with figures.plain_style():
        figure = draw_ranking(Portraits.of(measures), query, rows)
        figure.supxlabel(
            f"{len(shared)} of {widest} neighbours are the same; the others have a dashed frame. Above each: its "
            "distance.",
            fontsize=8,
        )
        figure.savefig(file)
