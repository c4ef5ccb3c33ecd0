"""Drawings of measures: one alone, pairs of them, and a query beside its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from wembed.figures import BLUE, GREY, ORANGE, new_figure, three_digits
from wembed.measures import Measures
from wembed.transport.costs import GroundCost

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = ["Portraits", "draw_pairs", "draw_ranking", "draw_rows"]

_PIXELS = 64  # of the longer side of an image; larger ones are summed up in blocks
_ATOMS = 2_000  # drawn of one measure
_STEMS = 30  # atoms on a line up to which each is drawn by itself
_LEARNED_FROM = 100  # measures that say which two axes are the principal ones
_LETTERS = 16  # of a label
_OBLIQUE = np.array([[1.0, 0.0], [0.0, 1.0], [0.4, 0.3]])  # how three axes are seen
_NODES, _REACH = 60, 4  # of a density on a line that masses are smoothed to, and how many of them a mass reaches
_CROSS = " \N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, eq=False)
class Portraits:
    """How each of some measures is drawn: images as images, clouds as dots as large as their weights.

    Volumes are summed along their first axis. Beyond the plane, clouds are seen along their first two principal axes,
    and obliquely along the third. On a line masses are smoothed where they are many.

    Attributes:
        measures: to be drawn.
        axes: for clouds beyond the plane, what maps them to the picture.
        labels: of the measures, if they have any.
        numbers: what the measures are counted by; their places without them.
        circle: the full circle, where points are (latitude, longitude), to be drawn with north above; None elsewhere.
    """

    measures: Measures
    axes: Float64[np.ndarray, "dim 2"] | None = None
    labels: tuple[str, ...] | None = None
    circle: float | None = None
    numbers: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        measures: Measures,
        cost: GroundCost | None = None,
        labels: Sequence[str] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> "Portraits":
        """Drawings of these measures.

        Args:
            measures: to be drawn.
            cost: the ground cost; where it is a matrix, points are drawn where it puts them, and not at their places.
            labels: of each measure.
            numbers: of each measure, to name it by.
        """
        named = None if labels is None else tuple(labels)
        counted = None if numbers is None else tuple(numbers)
        if measures.grid is not None:
            return cls(measures, labels=named, numbers=counted)
        if cost is not None and not isinstance(cost.metric, str):
            measures = cost.coordinates(measures)
        circle = 2 * np.pi * cost.radius if cost is not None and cost.is_great_circle else None
        if measures.dim < 3:
            return cls(measures, labels=named, circle=circle, numbers=counted)
        some = measures[np.unique(np.linspace(0, len(measures) - 1, _LEARNED_FROM).astype(int))]
        points = some.points()
        centred = points - np.average(points, axis=0, weights=some.weights)
        _, directions = np.linalg.eigh(centred.T @ (centred * some.weights[:, None]))
        return cls(measures, directions[:, :-4:-1] @ _OBLIQUE, named, numbers=counted)

    def name(self, place: int) -> str:
        """What is written below a drawing: the number of the measure, and its label."""
        number = place if self.numbers is None else self.numbers[place]
        if self.labels is None:
            return f"{number:,}"
        label = " ".join(self.labels[place].split())
        return f"{number:,} ({label if len(label) <= _LETTERS else label[: _LETTERS - 1] + '…'})"

    @property
    def legend(self) -> str:
        """A sentence on what else is drawn, after a blank; nothing where nothing is."""
        return "" if self.circle is None else " Maps have north above, lines 30 degrees apart, and a thick equator."

    def frame(self, places: Sequence[int]) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of what holds all these measures; nothing for images."""
        if self.measures.grid is not None:
            return 0.0, 1.0, 0.0, 1.0
        points = np.concatenate([self._points(place)[0] for place in places])
        if self.circle is not None:
            points[:, 0] = _unbroken(points[:, 0], self.circle)
        low, high = points.min(axis=0), points.max(axis=0)
        half = max(float((high - low).max()) / 2, 1e-12 * float(np.abs(points).max()), 1e-300) * 1.12
        if self.circle is not None:
            half = min(half, self.circle / 2)
        middle = (low + high) / 2
        if points.shape[1] == 1:
            return float(middle[0] - half), float(middle[0] + half), 0.0, 1.0
        return (
            float(middle[0] - half),
            float(middle[0] + half),
            float(middle[1] - half),
            float(middle[1] + half),
        )

    def draw(
        self, axes: "matplotlib.axes.Axes", place: int, frame: tuple[float, float, float, float]
    ) -> "matplotlib.axes.Axes":
        """Draw one measure; measures drawn in one frame can be compared by eye."""
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=GREY, lw=0.6)
        if self.measures.grid is not None:
            axes.imshow(_image(self.measures, place), cmap="gray_r", interpolation="none", vmin=0)
            return axes
        axes.set(xlim=frame[:2])
        points, weights = self._points(place)
        if self.circle is not None:
            points = np.stack([frame[0] + (points[:, 0] - frame[0]) % self.circle, points[:, 1]], axis=1)
            _graticule(axes, frame, self.circle)
        if points.shape[1] == 2:
            sizes = np.clip(np.clip(400 / len(weights), 2, 20) * weights * len(weights), 0.4, 80)
            axes.scatter(points[:, 0], points[:, 1], s=sizes, color=BLUE, alpha=0.6, lw=0, rasterized=True)
            axes.set(ylim=frame[2:], aspect="equal")
            return axes
        axes.set_box_aspect(1)
        axes.set_xticks(frame[:2], [three_digits(end) for end in frame[:2]], fontsize=6)
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.tick_params(axis="x", length=0, pad=1)
        heights, places = weights, points[:, 0]
        if self.measures.atoms is not None and len(self.measures.support) > _STEMS:
            order = np.argsort(self.measures.support[:, 0], kind="stable")
            places, heights = self.measures.support[order, 0], self.measures[[place]].histograms()[0, order]
        elif self.measures.sizes.max() > _STEMS:
            places, heights = _smoothed(places, weights, frame)
        if heights is not weights:
            axes.fill_between(places, heights, color=BLUE, alpha=0.4, lw=0)
            axes.plot(places, heights, color=BLUE, lw=0.8)
        else:
            axes.vlines(places, 0, heights, color=BLUE, lw=1)
            axes.plot(places, heights, "o", color=BLUE, ms=2)
        axes.set_ylim(0, 1.08 * float(heights.max()))
        return axes

    def _points(self, place: int) -> tuple[Float64[np.ndarray, "atoms drawn"], Float64[np.ndarray, " atoms"]]:
        """Where the atoms of a measure are drawn, and their weights; of very many, some large and some small."""
        measure = self.measures[place]
        points, weights = measure.support, measure.weights
        if self.measures.dim > 1 and len(weights) > _ATOMS:
            some = np.argsort(weights, kind="stable")[:: -(-len(weights) // _ATOMS)]
            points, weights = points[some], weights[some]
        if self.axes is not None:
            points = points @ self.axes
        return points if self.circle is None else points[:, ::-1], weights


def draw_pairs(
    portraits: Portraits, pairs: Int64[np.ndarray, "k 2"], titles: Sequence[str], columns: int = 2
) -> "matplotlib.figure.Figure":
    """Pairs of measures, the two of a pair side by side, with a title over each pair."""
    rows = -(-len(pairs) // columns)
    figure = new_figure(2.75 * columns, 1.75 * rows + 0.1)
    for number, part in enumerate(figure.subfigures(rows, columns, squeeze=False).ravel()):
        if number == len(pairs):
            break
        part.suptitle(titles[number], fontsize=9)
        pair = pairs[number].tolist()
        frame = portraits.frame(pair)
        for axes, place in zip(part.subplots(1, 2), pair, strict=True):
            portraits.draw(axes, place, frame).set_xlabel(portraits.name(place), fontsize=8, parse_math=False)
    return figure


def draw_ranking(
    portraits: Portraits, query: int, rows: Sequence[tuple[str, Sequence[int], Sequence[float]]]
) -> "matplotlib.figure.Figure":
    """A query beside its neighbours, one row of them for each way to find them.

    A neighbour that not every row has stands in a thick dashed frame, and a cross stands behind its distance.

    Args:
        portraits: draws the measures.
        query: the one whose neighbours these are.
        rows: for each way its name, the neighbours, nearest first, and their distances.
    """
    shared = set.intersection(*(set(ids) for _, ids, _ in rows))
    widest = max(len(ids) for _, ids, _ in rows)
    frame = portraits.frame([query, *{place for _, ids, _ in rows for place in ids}])
    figure = new_figure(0.63 * (widest + 1), 0.95 * len(rows))
    for row, (name, ids, distances) in zip(figure.subplots(len(rows), widest + 1, squeeze=False), rows, strict=True):
        portraits.draw(row[0], query, frame).set_title("query", fontsize=8)
        row[0].set_ylabel(name, fontsize=9)
        for axes, place, distance in zip(row[1:], ids, distances, strict=False):
            agreed = place in shared
            portraits.draw(axes, place, frame).set_title(three_digits(distance) + _CROSS * (not agreed), fontsize=8)
            axes.spines[:].set(color=BLUE if agreed else ORANGE, lw=0.8 if agreed else 2, ls="-" if agreed else "--")
        for axes in row[len(ids) + 1 :]:
            axes.axis("off")
    return figure


def draw_rows(
    portraits: Portraits, rows: Sequence[tuple[str, Sequence[int]]], titles: Sequence[str]
) -> "matplotlib.figure.Figure":
    """Measures in rows, all seen in one frame.

    Args:
        portraits: draws the measures.
        rows: for each its name, and the places of its measures.
        titles: over each column; none for none.
    """
    frame = portraits.frame([place for _, places in rows for place in places])
    widest = max(len(places) for _, places in rows)
    figure = new_figure(0.9 * widest + 0.5, 0.95 * len(rows) + 0.25)
    for number, (line, (name, places)) in enumerate(
        zip(figure.subplots(len(rows), widest, squeeze=False), rows, strict=True)
    ):
        for axes, place in zip(line, places, strict=False):
            portraits.draw(axes, place, frame)
        for axes in line[len(places) :]:
            axes.axis("off")
        line[0].set_ylabel(name, fontsize=8, parse_math=False)
        if number == 0:
            for axes, title in zip(line, titles, strict=False):
                axes.set_title(title, fontsize=8, parse_math=False)
    return figure


def _graticule(
    axes: "matplotlib.axes.Axes", frame: tuple[float, float, float, float], circle: float, lines: int = 12
) -> None:
    """Meridians and parallels every 30 degrees, the equator darker."""
    left, right, bottom, top = np.array(frame) * lines / circle
    for meridian in np.arange(np.ceil(left), right):
        axes.axvline(meridian * circle / lines, color=GREY, lw=0.3, alpha=0.35, zorder=0)
    for parallel in np.arange(max(np.ceil(bottom), -lines / 4), min(top, lines / 4 + 0.5)):
        axes.axhline(parallel * circle / lines, color=GREY, lw=0.3 if parallel else 0.8, alpha=0.35, zorder=0)


def _unbroken(longitudes: Float64[np.ndarray, " n"], circle: float) -> Float64[np.ndarray, " n"]:
    """The same, none across the ends: from the end of the widest gap between them once around."""
    ordered = np.sort(longitudes % circle)
    gaps = np.diff(ordered, append=ordered[:1] + circle)
    start = ordered[(int(np.argmax(gaps)) + 1) % len(ordered)]
    return np.asarray(start + (longitudes - start) % circle)


def _smoothed(
    places: Float64[np.ndarray, " atoms"], weights: Float64[np.ndarray, " atoms"], frame: tuple[float, ...]
) -> tuple[Float64[np.ndarray, " nodes"], Float64[np.ndarray, " nodes"]]:
    """A density at even places: the triangles of all masses, wide enough for none of a regular grid to stand out."""
    nodes = np.linspace(frame[0], frame[1], _NODES)
    reach = _REACH * (nodes[1] - nodes[0])
    heights = np.zeros(_NODES)
    for start in range(0, len(places), _ATOMS):
        own = slice(start, start + _ATOMS)
        heights += np.maximum(1 - np.abs(nodes[:, None] - places[own]) / reach, 0.0) @ weights[own]
    return nodes, heights / reach


def _image(measures: Measures, place: int) -> Float64[np.ndarray, "height width"]:
    """An image or a volume as a picture of moderate size."""
    assert measures.grid is not None
    image = measures[[place]].histograms().reshape(measures.grid)
    image = image.sum(axis=0) if image.ndim == 3 else image
    step = -(-max(image.shape) // _PIXELS)
    if step == 1:
        return image
    for axis in (0, 1):
        image = np.add.reduceat(image, np.arange(0, image.shape[axis], step), axis=axis)
    return image
