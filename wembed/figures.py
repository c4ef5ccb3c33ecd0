"""Charts of what an evaluation found."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from wembed.learning.curve import LearningCurve
from wembed.learning.evaluation import Intervals, Report
from wembed.unusual import UNUSUAL

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = [
    "BLUE",
    "GREY",
    "MOST_LABELS",
    "ORANGE",
    "by_distance",
    "draw_coverage",
    "draw_errors",
    "draw_learning",
    "draw_map",
    "draw_rates",
    "draw_scatter",
    "new_figure",
    "plain_style",
    "relative_errors",
    "rendered",
    "three_digits",
]

# The colours of Okabe and Ito (2008) are told apart by the colour-blind too.
BLUE, ORANGE, GREEN, SKY, PURPLE, AMBER = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#E69F00"
BLACK, GREY = "#000000", "#666666"
MOST_LABELS = 10
_MARKERS = "os^DvP<X>*"
_STYLE: Any = {
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "wembed",
    "savefig.dpi": 200,
}
_BEYOND = 1.5  # times the 99th percentile of the errors, from where on they are not drawn


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw in the style of these charts, whatever style the caller has set."""
    import matplotlib  # imported late: matplotlib is slow to load

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a label in a script that this font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    """An empty figure, its sides in inches."""
    from matplotlib.figure import Figure  # imported late: matplotlib is slow to load

    return Figure(figsize=(width, height), layout="constrained")


def rendered(figure: "matplotlib.figure.Figure") -> tuple[str, bytes]:
    """A figure as SVG, without a header, and as PNG: the same bytes for the same figure."""
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # what was laid out for one suits the other, and takes long
    figure.savefig(png, format="png", metadata={"Software": None})
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", svg.getvalue(), flags=re.DOTALL)
    text = re.sub(r'(<image [^>]*?) id="[^"]*"', r"\1", text)  # the same for the same image, wherever it is drawn again
    return text[text.index("<svg") :], png.getvalue()


def three_digits(value: float) -> str:
    """A number with three digits that matter, zeros at the end included."""
    return f"{float(f'{value:.3g}'):,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:#.3g}".rstrip(".")


def relative_errors(report: Report) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Exact distance and predicted / exact - 1 of the pairs of different measures."""
    apart = report.exact > 0
    return report.exact[apart], report.predicted[apart] / report.exact[apart] - 1


def by_distance(distances: Float64[np.ndarray, " k"], parts: int) -> list[Int64[np.ndarray, " part"]]:
    """Pairs in so many parts of about the same size, the nearest first; fewer where there are few pairs."""
    return [part for part in np.array_split(np.argsort(distances, kind="stable"), parts) if len(part)]


def draw_scatter(report: Report) -> "matplotlib.figure.Figure":
    """Predicted against exact distances, with the intervals of 90 %, or else the band that holds 98 % of the pairs."""
    figure = new_figure(5.2, 4.9)
    axes = figure.add_subplot()
    exact, predicted = report.exact, report.predicted
    limit = float(max(exact.max(), predicted.max())) * 1.03 or 1.0
    inside = np.ones(len(exact), dtype=bool)
    if report.intervals is None:
        errors, line = report.errors["wembed"], np.array([0.0, limit])
        axes.fill_between(
            line, line * errors.ratio_p01, line * errors.ratio_p99, color=AMBER, alpha=0.3, lw=0, label="98 % of pairs"
        )
    else:
        row, level = nearest_level(report.intervals, 0.9)
        lower, upper = report.intervals.lower[row], np.minimum(report.intervals.upper[row], 2 * limit)
        inside = report.intervals.inside(exact)[row]
        parts = by_distance(predicted, 40)
        places, low, high = ([float(np.median(v[part])) for part in parts] for v in (predicted, lower, upper))
        axes.fill_betweenx(places, low, high, color=AMBER, alpha=0.35, lw=0, label=f"{100 * level:g} % interval")
    axes.plot([0, limit], [0, limit], color=GREY, lw=1, label="exact = predicted")
    axes.scatter(exact[inside], predicted[inside], s=5, color=BLUE, alpha=0.5, lw=0, rasterized=True)
    if not inside.all():
        axes.scatter(
            exact[~inside],
            predicted[~inside],
            s=9,
            marker="x",
            color=ORANGE,
            lw=0.6,
            rasterized=True,
            label="outside its interval",
        )
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal", xlabel="exact distance", ylabel="predicted distance")
    axes.legend(loc="upper left")
    return figure


def nearest_level(intervals: Intervals, level: float) -> tuple[int, float]:
    """The row of the intervals whose level is nearest to one that is asked for, and that level."""
    row = int(np.argmin(np.abs(np.array(intervals.levels) - level)))
    return row, intervals.levels[row]


def draw_errors(exact: Float64[np.ndarray, " k"], errors: Float64[np.ndarray, " k"]) -> "matplotlib.figure.Figure":
    """Relative errors against exact distances, with their median and the range of nine in ten, by distance."""
    figure = new_figure(5.6, 3.8)
    axes = figure.add_subplot()
    limit = float(np.percentile(np.abs(errors), 99)) * _BEYOND or 1.0
    axes.axhline(0, color=GREY, lw=1)
    axes.scatter(exact, errors, s=5, color=BLUE, alpha=0.4, lw=0, rasterized=True)
    parts = by_distance(exact, min(12, len(exact) // 20)) if len(exact) >= 40 else []
    if parts:
        places = [float(np.median(exact[part])) for part in parts]
        low, middle, high = np.array([np.percentile(errors[part], [5, 50, 95]) for part in parts]).T
        axes.fill_between(places, low, high, color=AMBER, alpha=0.35, lw=0, label="nine in ten pairs")
        axes.plot(places, low, color=AMBER, lw=0.8)
        axes.plot(places, high, color=AMBER, lw=0.8)
        axes.plot(places, middle, color=ORANGE, lw=1.6, ls="--", marker="s", ms=3.5, label="median")
        axes.legend(loc="upper right", ncols=2)
    low_end, high_end = np.percentile(exact, [1, 99])
    if high_end > 30 * low_end:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g} %".replace("+0 %", "0 %"))
    axes.set(ylim=(-limit, limit), xlabel="exact distance", ylabel="predicted too short   |   too long")
    return figure


def draw_coverage(report: Report, intervals: Intervals) -> "matplotlib.figure.Figure":
    """Shares of the pairs within their intervals: at each level, and by distance."""
    figure = new_figure(6.4, 3.1)
    left, right = figure.subplots(1, 2)
    levels, shares = np.array(intervals.levels), intervals.coverage(report.exact)
    low = float(min(levels.min(), shares.min())) - 0.04
    left.plot([low, 1], [low, 1], color=GREY, lw=1, ls="--", label="as promised")
    left.plot(levels, shares, color=BLUE, marker="o", ms=4, lw=1.2, label="found")
    left.set(xlim=(low, 1.01), ylim=(low, 1.01), aspect="equal", xlabel="promised", ylabel="found to lie within")
    left.legend(loc="upper left")
    row, level = nearest_level(intervals, 0.9)
    within = intervals.inside(report.exact)[row]
    parts = by_distance(report.exact, 5)
    heights = [float(within[part].mean()) for part in parts]
    bars = right.bar(range(len(parts)), heights, color=SKY, hatch="///", edgecolor=BLUE, lw=0.8)
    shown = [_whole_percent(height, None) for height in heights]
    for text in right.bar_label(bars, shown, fontsize=8, label_type="center"):
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    right.axhline(level, color=GREY, lw=1, ls="--")
    ends = [(report.exact[part].min(), report.exact[part].max()) for part in parts]
    right.set_xticks(range(len(parts)), [f"{three_digits(low)} to {three_digits(high)}" for low, high in ends])
    right.tick_params("x", rotation=30)
    right.set(
        ylim=(0, 1.02),
        xlabel="exact distance, a fifth of the pairs each",
        ylabel=f"within the {100 * level:g} % interval",
    )
    for axis in (left.xaxis, left.yaxis, right.yaxis):
        axis.set_major_formatter(_whole_percent)
    right.set_yticks(np.linspace(0, 1, 6))
    return figure


def draw_learning(curve: LearningCurve | None, history: Sequence[tuple[int, float]]) -> "matplotlib.figure.Figure":
    """Validation errors by exact pairs, where there were several rounds, and by training steps."""
    rounds = () if curve is None or len(curve.rounds) < 2 else curve.rounds
    panels = int(bool(rounds)) + int(bool(history))
    figure = new_figure(3.2 * panels + (1.2 if panels == 1 else 0), 2.9)
    free = list(figure.subplots(1, panels, squeeze=False)[0])
    if rounds:
        axes = free.pop(0)
        pairs = [one.pairs for one in rounds]
        axes.plot(pairs, [one.error for one in rounds], color=BLUE, marker="o", ms=5, lw=1.2)
        axes.set(xscale="log", xlabel="exact pairs", ylabel="validation error", ylim=(0, None))
        axes.set_xticks(pairs, [f"{count:,}" for count in pairs], rotation=20)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    if history:
        axes = free.pop(0)
        axes.plot(*np.array(history).T, color=GREEN, marker="^", ms=3, lw=1)
        axes.set(xlabel="training step", ylabel="validation error, unit of the data", yscale="log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:.2g}" if f"{value:.0e}"[0] in "25" else "")
    return figure


def draw_rates(rates: dict[str, float]) -> "matplotlib.figure.Figure":
    """How many of each thing are done in a second."""
    from matplotlib.ticker import LogLocator  # imported late: matplotlib is slow to load

    figure = new_figure(5.6, 0.5 * len(rates) + 0.7)
    axes = figure.add_subplot()
    names, values = list(rates), list(rates.values())
    bars = axes.barh(names, values, color=[ORANGE, SKY, BLUE][: len(rates)], edgecolor=BLACK, lw=0.6, height=0.6)
    for bar, hatch in zip(bars, ["xx", "//", ""], strict=False):
        bar.set_hatch(hatch)
    axes.bar_label(bars, [f"{float(f'{value:.3g}'):,.0f}" for value in values], fontsize=8, padding=3)
    axes.set(xscale="log", xlim=(1 if min(values) > 1 else None, max(values) * 60), xlabel="in a second")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_major_locator(LogLocator(1000 if max(values) > 1e5 else 10))
    axes.minorticks_off()
    axes.invert_yaxis()
    return figure


def draw_map(
    places: Float[np.ndarray, "n 2"],
    labels: Sequence[str] | None,
    unusualness: Float64[np.ndarray, " n"] | None,
) -> "matplotlib.figure.Figure":
    """Measures as dots on a map, told apart by label, or else by how unusual they are."""
    figure = new_figure(5.6, 5.2)
    axes = figure.add_subplot()
    names = [] if labels is None else sorted(set(labels))
    if names and len(names) <= MOST_LABELS:
        owner = np.array(labels)
        colours = (BLUE, ORANGE, GREEN, PURPLE, BLACK, AMBER, SKY)
        for number, name in enumerate(names):
            own = places[owner == name]
            axes.plot(
                *own.T,
                _MARKERS[number],
                color=colours[number % len(colours)],
                ms=4,
                mew=0,
                alpha=0.75,
                rasterized=True,
                label=name[:20].replace("$", r"\$"),
            )
        figure.legend(loc="outside lower center", ncols=5, markerscale=1.6)
    elif labels is None and unusualness is not None:
        from matplotlib import colormaps  # imported late: matplotlib is slow to load
        from matplotlib.colors import ListedColormap

        order = np.argsort(unusualness, kind="stable")
        shades = ListedColormap(colormaps["Blues"](np.linspace(0.35, 1, 256)))
        dots = axes.scatter(
            places[order, 0],
            places[order, 1],
            s=9,
            c=unusualness[order],
            cmap=shades,
            vmin=0,
            vmax=UNUSUAL,
            lw=0,
            rasterized=True,
        )
        odd = unusualness >= UNUSUAL
        axes.scatter(
            places[odd, 0], places[odd, 1], s=40, marker="^", facecolor="none", edgecolor=ORANGE, lw=1, label="unusual"
        )
        figure.colorbar(dots, label="unusualness", shrink=0.7, extend="max")
        if odd.any():
            axes.legend(loc="upper right")
    else:
        axes.scatter(places[:, 0], places[:, 1], s=7, color=BLUE, alpha=0.5, lw=0, rasterized=True)
    axes.set(aspect="equal", xlabel="first principal axis", ylabel="second principal axis")
    axes.set_adjustable("datalim")
    return figure


def _whole_percent(value: float, _: object) -> str:
    return f"{100 * value:.0f} %"
