"""Pictures of distances and neighbours, as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wembed import figures
from wembed.learning.evaluation import Report
from wembed.measures import Measures
from wembed.portraits import Portraits, draw_ranking, draw_rows
from wembed.transport.costs import GroundCost

if TYPE_CHECKING:
    from wembed.geometry import Geodesics

__all__ = ["draw_barycenters", "draw_geodesics", "draw_interpolations", "draw_neighbors", "draw_scatter"]

_ACROSS = 10  # barycenters in a row


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


def draw_barycenters(
    measures: Measures, names: Sequence[str], file: Path, *, grid: tuple[int, ...] | None, cost: GroundCost
) -> None:
    """Barycenters, each with the name of its class.

    Args:
        measures: of each class one.
        names: of the classes.
        file: where to save the picture.
        grid: of the images that they are of; clouds between pixels are laid on it.
        cost: the ground cost.
    """
    shown = _seen(measures, grid)
    with figures.plain_style():
        places = [range(start, min(start + _ACROSS, len(names))) for start in range(0, len(names), _ACROSS)]
        portraits = Portraits.of(shown, cost)
        figure = figures.new_figure(0.9 * min(len(names), _ACROSS) + 0.1, 1.1 * len(places) + 0.05)
        frame = portraits.frame(range(len(names)))
        cells = figure.subplots(len(places), min(len(names), _ACROSS), squeeze=False).ravel()
        for place, axes in enumerate(cells):
            if place < len(names):
                portraits.draw(axes, place, frame).set_title(names[place][:16], fontsize=8, parse_math=False)
            else:
                axes.axis("off")
        figure.savefig(file)


def draw_interpolations(
    rows: Sequence[tuple[str, Measures]],
    times: Sequence[float],
    file: Path,
    *,
    grid: tuple[int, ...] | None,
    cost: GroundCost,
) -> None:
    """The way from a measure to another, one row for each way to go.

    Args:
        rows: for each its name, and a measure at each of the times.
        times: shares of the way.
        file: where to save the picture.
        grid: of the images that they are of; clouds between pixels are laid on it.
        cost: the ground cost.
    """
    _draw_rows([(name, _seen(made, grid)) for name, made in rows], [f"{time:.3g}" for time in times], file, cost)


def draw_geodesics(found: "Geodesics", file: Path, *, grid: tuple[int, ...] | None, cost: GroundCost) -> None:
    """A walk along each principal geodesic, with the share of the variance that it explains.

    Args:
        found: the geodesics.
        file: where to save the picture.
        grid: of the images that they are of; clouds between pixels are laid on it.
        cost: the ground cost.
    """
    shares = [f"{share:.1%}" if share >= 0.001 else "below 0.1%" for share in found.explained.tolist()]
    names = [f"{number}: {share}" for number, share in enumerate(shares, 1)]
    rows = [(name, _seen(walk.measures, grid)) for name, walk in zip(names, found.walks, strict=True)]
    titles = ["mean" if time == 0 else f"{time:+.3g} sd" for time in found.times.tolist()]
    _draw_rows(rows, titles, file, cost)


def _draw_rows(rows: Sequence[tuple[str, Measures]], titles: Sequence[str], file: Path, cost: GroundCost) -> None:
    starts = np.cumsum([0, *(len(made) for _, made in rows)]).tolist()
    together = Measures.concatenate([made for _, made in rows])
    places = [range(start, start + len(made)) for start, (_, made) in zip(starts, rows, strict=False)]
    with figures.plain_style():
        figure = draw_rows(
            Portraits.of(together, cost), [(name, own) for (name, _), own in zip(rows, places, strict=True)], titles
        )
        figure.savefig(file)


def _seen(measures: Measures, grid: tuple[int, ...] | None) -> Measures:
    return measures if grid is None else measures.on_pixels(grid)
