"""What a report says: its sections, each a heading, a few sentences from the numbers, and pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64

from wembed import figures
from wembed.figures import three_digits as number
from wembed.learning.curve import LearningCurve
from wembed.learning.evaluation import FEW_CALIBRATED, MEAN, Intervals, Report, chance_of_coverage, nearest_others
from wembed.page import Picture, Section, Table
from wembed.portraits import Portraits, draw_pairs, draw_ranking
from wembed.unusual import UNUSUAL

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = [
    "coverage",
    "doubts",
    "errors_by_distance",
    "learning",
    "map_of_measures",
    "neighbors",
    "scatter",
    "speed",
    "verdict",
    "worst_pairs",
]

_TOLD_APART = 100  # pairs, from which on near and far ones are told apart by which way they are off
_WORST = 8  # pairs drawn
_QUERIES = 3
_NEIGHBORS = 10
_WEAK = 0.05  # that an interval may hold less than it promises in a fifth of the distances
_AS_PROMISED = 0.02  # that the share within intervals may be off
_FEW = 500  # pairs below which errors are uncertain


def percent(share: float) -> str:
    """A share in percent, with two or three digits that matter."""
    value = 100 * share
    return f"{value:,.0f}\u00a0%" if abs(value) >= 99.95 else f"{value:.{1 if abs(value) >= 9.995 else 2}f}\u00a0%"


def promise(level: float) -> str:
    """The level of an interval in percent."""
    return f"{100 * level:g}\u00a0%"


def seconds(value: float) -> str:
    """A time in a unit that suits it."""
    for size, unit in ((1.0, "seconds"), (1e-3, "milliseconds"), (1e-6, "microseconds")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} nanoseconds"


def verdict(report: Report) -> Section:
    """How far off the predictions are, in a sentence, and the errors of every method."""
    own = report.errors["wembed"]
    found = (
        ""
        if own.recall_at_10 is None
        else f" Of the ten nearest neighbours of a measure, it finds {10 * own.recall_at_10:.1f} on average "
        f"(recall@10 {own.recall_at_10:.3f}, {report.queries} queries among {report.candidates:,} measures)."
    )
    which = "measures" if report.seen else "unseen measures"
    sentence = (
        f"On {report.pairs:,} pairs of {report.measures:,} {which}, a predicted distance is off by "
        f"{percent(own.relative_error)} on average; 98 of 100 predictions lie between {own.ratio_p01:.3f} and "
        f"{own.ratio_p99:.3f} times the exact distance.{found}"
    )
    power = f"W^{report.order:g}" if report.order != 1 else "W"

    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    rows = tuple(
        (
            name,
            percent(errors.relative_error),
            cell(errors.recall_at_10, ".3f"),
            f"{errors.ratio_p01:.3f}",
            f"{errors.ratio_p99:.3f}",
            cell(errors.mse, ".3g"),
            cell(errors.r2, ".4f"),
            cell(errors.spearman, ".4f"),
        )
        for name, errors in report.errors.items()
    )
    head = (
        "method",
        "relative error",
        "recall@10",
        "ratio 1\u00a0%",
        "ratio 99\u00a0%",
        f"MSE of {power}",
        "R²",
        "Spearman",
    )
    told = (
        "Relative error is the mean of |predicted - exact| / exact; recall@10 the share of the ten nearest that are "
        "found. In 1 of 100 pairs predicted / exact lies below the first ratio, in 1 of 100 above the second."
    )
    table = Table("Errors of each method on the same pairs.", head, rows)
    return Section("How far to trust these distances", (sentence,), tables=(table,), notes=(told,))


def scatter(report: Report) -> Section:
    """Predicted against exact distances."""
    lines = ["On the grey line a prediction would be exact."]
    if report.intervals is None:
        lines.append("The shaded band holds 98 of 100 predictions.")
    else:
        _, level, share = _kept(report.intervals, report.exact)
        lines.append(
            f"The shaded band is where the exact distance is promised to lie for {promise(level)} of the pairs; it "
            f"does for {percent(share)}. Crosses are the pairs for which it does not."
        )
    label = f"Scatter plot of the predicted against the exact distances of {report.pairs:,} pairs."
    picture = _picture("scatter", label, "Each dot is a pair of measures.", figures.draw_scatter(report))
    return Section("Predicted against exact", (" ".join(lines),), pictures=(picture,))


def errors_by_distance(report: Report) -> Section:
    """Relative errors, near and far."""
    heading = "Error against distance"
    exact, errors = figures.relative_errors(report)
    if not len(exact):
        return Section(heading, ("All pairs are of equal measures, so there is no relative error.",))
    near, *_, far = _fifths(exact, errors)
    sentence = (
        f"In the nearest fifth of the pairs a prediction is off by {percent(near)} on average, in the farthest fifth "
        f"by {percent(far)}. {_leaning(exact, errors)}"
    )
    limit = float(np.percentile(np.abs(errors), 99)) * 1.5 or 1.0
    beyond = int((np.abs(errors) > limit).sum())
    caption = "Each dot is a pair: above the line its prediction is too long, below it too short." + (
        f" {beyond:,} more lie beyond the picture." if beyond else ""
    )
    label = f"Scatter plot of the relative errors of {len(exact):,} pairs against their exact distances."
    return Section(
        heading, (sentence,), pictures=(_picture("errors", label, caption, figures.draw_errors(exact, errors)),)
    )


def coverage(report: Report, calibrated_on: int) -> Section:
    """Whether intervals hold what they promise, for all that as many measures can tell."""
    heading = "Do the intervals keep their promise?"
    if report.intervals is None:
        sentence = (
            "This model gives no intervals, for it has too few calibration measures. To have some, set measures aside "
            "and give them to it with `wembed calibrate`, or with embedder.calibrate in Python."
        )
        return Section(heading, (sentence,))
    row, level, share = _kept(report.intervals, report.exact)
    width = (report.intervals.upper[row] - report.intervals.lower[row])[report.exact > 0]
    wide = float(np.median(width / report.exact[report.exact > 0])) if len(width) else 0.0
    gap, measures = share - level, len(np.unique(report.asked))
    judged = "as promised"
    if abs(gap) > _AS_PROMISED:
        judged = "more than promised" if gap > 0 else "less than promised"
        if abs(gap) <= chance_of_coverage(level, measures):
            judged += f", by no more than chance has with {measures:,} measures"
    elif report.pairs >= _FEW and _weakest_fifth(report)[0] < level - _WEAK:
        judged += " on the whole, but not at every distance"
    way = "with the model's references" if report.intervals.refined else "from vectors alone"
    sentence = (
        f"The intervals of {promise(level)}, {way}, hold {percent(share)} of the exact distances: {judged}. Half of "
        f"them are narrower than {percent(wide)} of the distance."
    )
    if calibrated_on < FEW_CALIBRATED:
        off = 100 * chance_of_coverage(level, calibrated_on)
        sentence += (
            f" They are calibrated on {calibrated_on:,} measures, and with so few a model can easily hold {off:.0f} in "
            "100 pairs more or fewer than it promises; more measures to calibrate on would tell better."
        )
    caption = (
        "Left: the share of the pairs that lie within their interval, against the share that was promised; on the "
        "dashed line they are equal. Right: the same by distance."
    )
    label = "Two charts: coverage found against coverage promised, and coverage in each fifth of the distances."
    drawn = figures.draw_coverage(report, report.intervals)
    return Section(heading, (sentence,), pictures=(_picture("coverage", label, caption, drawn, wide=True),))


def learning(curve: LearningCurve | None, history: Sequence[tuple[int, float]]) -> Section:
    """How the error fell with pairs and with steps."""
    heading, sentences = "Learning curve", []
    several = curve is not None and len(curve.rounds) > 1
    if curve is None:
        sentences.append("Nothing is known of how this model was fitted.")
    elif several:
        first, last = curve.rounds[0], curve.rounds[-1]
        sentences.append(
            f"From {first.pairs:,} to {last.pairs:,} exact pairs the error on the validation measures went from "
            f"{percent(first.error)} to {percent(last.error)}. There was no other round because {curve.stopped}."
        )
    else:
        only = curve.rounds[-1]
        sentences.append(
            f"The fit had one round: {only.pairs:,} exact pairs, and an error of {percent(only.error)} on the "
            'validation measures. pairs="auto" would have shown what more pairs bring.'
        )
    if curve is not None and curve.second is not None:
        better = curve.second.error < curve.rounds[-1].error
        came = f"brought it to {percent(curve.second.error)}" if better else "was not closer by more than chance"
        sentences.append(f"To learn from optimal maps as well, from the same pairs, {came}.")
    if curve is not None and (twice := curve.error_at(2 * curve.rounds[-1].pairs)) is not None:
        sentences.append(f"Twice the pairs would bring the error to about {percent(twice)}.")
    if not history:
        sentences.append("No training was kept: the distances come from optimal maps alone.")
    if not (several or history):
        return Section(heading, tuple(sentences))
    caption = " ".join(
        ["Error by the number of pairs that were solved exactly."] * several
        + ["Error on the validation measures (root mean square) in the course of the training."] * bool(history)
    )
    drawn = figures.draw_learning(curve, history)
    label = "Line charts of the validation error." if several and history else "Line chart of the validation error."
    return Section(heading, tuple(sentences), pictures=(_picture("learning", label, caption, drawn),))


def worst_pairs(report: Report, portraits: Portraits) -> Section:
    """The pairs whose predictions are farthest off."""
    heading = "The worst pairs"
    apart = np.flatnonzero(report.exact > 0)
    errors = report.predicted[apart] / report.exact[apart] - 1
    worst = np.argsort(-np.abs(errors), kind="stable")[:_WORST]
    if not len(worst):
        return Section(heading, ("All pairs are of equal measures, so there is no relative error.",))
    pairs = apart[worst]
    titles = [
        f"exact {number(report.exact[pair])}, predicted {number(report.predicted[pair])} ({100 * error:+.3g} %)"
        for pair, error in zip(pairs.tolist(), errors[worst].tolist(), strict=True)
    ]
    typical = float(np.median(np.abs(errors)))
    nearer = float((report.exact[apart] > report.exact[pairs].max()).mean())
    sentence = (
        f"The worst of {report.pairs:,} predictions is off by {percent(float(abs(errors[worst[0]])))}; half of all are "
        f"off by less than {percent(typical)}."
    ) + (f" All of those drawn are nearer than {percent(nearer)} of the pairs." if nearer >= 0.3 else "")
    named = "" if portraits.labels is None else ", with its label"
    caption = (
        f"The {len(pairs)} pairs of the largest relative error. Below each drawing is the number of the measure{named}."
        + portraits.legend
    )
    drawn = draw_pairs(portraits, report.asked[pairs], titles)
    label = f"Drawings of {len(pairs)} pairs of measures, with their exact and predicted distances."
    return Section(heading, (sentence,), pictures=(_picture("worst", label, caption, drawn),))


def neighbors(report: Report, portraits: Portraits) -> Section:
    """Exact and predicted nearest neighbours of a few queries."""
    heading = "Neighbours, exact and predicted"
    k = min(_NEIGHBORS, report.candidates - 1)
    queries = report.hoods.queries.tolist()
    if not queries:
        return Section(heading, ("No neighbours were looked for; evaluate with queries=20 to see some.",))
    exact = [nearest_others(row, own, k) for own, row in zip(queries, report.hoods.exact, strict=True)]
    predicted = [nearest_others(row, own, k) for own, row in zip(queries, report.predicted_hoods, strict=True)]
    hits = np.array([len(set(a) & set(b)) for a, b in zip(exact, predicted, strict=True)])
    ranked = np.argsort(hits, kind="stable")
    shown = ranked[np.unique(np.linspace(0, len(ranked) - 1, _QUERIES).astype(int))]
    sentence = (
        f"Of the {k} nearest of a query, {hits.mean():.1f} are found on average; here are the query with the fewest, a "
        "typical one, and the one with the most. Above each neighbour is its distance. A neighbour that only one of "
        "the two rows has stands in a thick dashed frame, with a cross behind its distance." + portraits.legend
    )
    pictures = []
    for place, row in enumerate(shown.tolist(), 1):
        rows = [
            (name, report.pool[found].tolist(), distances[row, found].tolist())
            for name, found, distances in (
                ("exact", exact[row], report.hoods.exact),
                ("predicted", predicted[row], report.predicted_hoods),
            )
        ]
        query = int(report.pool[queries[row]])
        caption = f"Neighbours of measure {portraits.name(query)}: {hits[row]} of {k} agree."
        label = f"Measure {portraits.name(query)} and its {k} nearest: exact above, predicted below; {hits[row]} agree."
        drawn = draw_ranking(portraits, query, rows)
        pictures.append(_picture(f"neighbors-{place}", label, caption, drawn, wide=True))
    return Section(heading, (sentence,), pictures=tuple(pictures))


def map_of_measures(
    vectors: Float[np.ndarray, "n dim"],
    labels: Sequence[str] | None,
    unusualness: Float64[np.ndarray, " n"] | None,
) -> Section:
    """The vectors, projected on the plane that keeps most of them."""
    from sklearn.decomposition import PCA  # imported late: it is slow to load

    places, share = np.zeros((len(vectors), 2)), 1.0
    if np.ptp(vectors, axis=0).any():
        analysis = PCA(min(2, *vectors.shape), svd_solver="randomized", random_state=0)
        drawn = analysis.fit_transform(vectors.astype(np.float64))
        places[:, : drawn.shape[1]] = drawn
        share = float(analysis.explained_variance_ratio_.sum())
    kinds = 0 if labels is None else len(set(labels))
    coloured = ""
    if kinds > figures.MOST_LABELS:
        coloured = f" There are {kinds} labels, too many to tell apart by colour."
    elif kinds:
        coloured = " Measures of one label have one marker."
    elif unusualness is not None:
        coloured = (
            " The darker a dot, the less its measure is like those learned from; and the unusual ones have a triangle."
        )
    sentence = (
        f"Each dot is the vector of one of {len(vectors):,} measures. The two axes hold {percent(share)} of the spread "
        f"of the vectors, so two dots that lie together may be farther apart than they seem.{coloured}"
    )
    label = f"Map of the vectors of {len(vectors):,} measures."
    caption = "The two directions in which the vectors differ most; a step has the same length along both."
    picture = _picture("map", label, caption, figures.draw_map(places, labels, unusualness))
    return Section("A map of the measures", (sentence,), pictures=(picture,))


def speed(report: Report) -> Section:
    """What a prediction costs, and what an exact distance does."""
    rates = {
        "exact distances": report.exact_per_second,
        "measures encoded": report.encode_per_second,
        "predicted distances\nbetween vectors": report.distances_per_second,
    }
    rates = {name: rate for name, rate in rates.items() if rate > 0}
    sentence = (
        f"A measure is turned into a vector in {seconds(1 / report.encode_per_second)}, once. Then a predicted "
        f"distance takes {seconds(1 / report.distances_per_second)}"
    )
    sentence += (
        f"; an exact one takes {seconds(1 / report.exact_per_second)}, "
        f"{number(float(f'{report.distances_per_second / report.exact_per_second:.2g}'))} times as long."
        if report.exact_per_second > 0
        else ". No exact distance had to be solved this time."
    )
    label = "Bar chart: " + ", ".join(
        f"{number(rate)} {' '.join(name.split())} in a second" for name, rate in rates.items()
    )
    caption = (
        "On the machine of this evaluation, exact distances on as many cores as it was given. Mind the scale: a step "
        "along it is a factor."
    )
    drawn = figures.draw_rates(rates)
    return Section("Speed", (sentence,), pictures=(_picture("speed", f"{label}.", caption, drawn),))


def doubts(report: Report) -> Section:
    """When the numbers of this page say to be careful."""
    own = report.errors["wembed"]
    exact, errors = figures.relative_errors(report)
    points = []
    if report.seen:
        points.append(
            f"Measures it knows: the model was fitted to or calibrated on {report.seen:,} of these "
            f"{report.measures:,}. On measures that are new to it, errors are likely to be larger than this page says."
        )
    if len(exact) >= 5:
        near, *rest = _fifths(exact, errors)
        others = float(np.mean(rest))
        border = float(np.percentile(exact, 20))
        if near > 1.25 * others:
            points.append(
                f"Near pairs: below a distance of {number(border)}, a prediction is off by {percent(near)} on average, "
                f"against {percent(others)} beyond. Where the order of near neighbours matters, let the index rerank "
                "them exactly."
            )
        size = np.abs(errors)
        points.append(
            f"Single pairs: 1 prediction in 100 is off by more than {percent(float(np.percentile(size, 99)))}, and the "
            f"worst by {percent(float(size.max()))}. If every single distance has to be right, solve it exactly."
        )
        points.append(
            f"Other distances: those evaluated lie between {number(float(exact.min()))} and "
            f"{number(float(exact.max()))}. Nobody has checked predictions beyond."
        )
    if report.intervals is not None:
        _, level, share = _kept(report.intervals, report.exact)
        if share < level - _AS_PROMISED:
            points.append(
                f"Intervals: those of {promise(level)} hold {percent(share)} here, less than they promise. These "
                "measures may be unlike those that the model was calibrated on."
            )
        weakest, where = _weakest_fifth(report)
        if report.pairs >= _FEW and weakest < level - _WEAK:
            points.append(
                f"Intervals by distance: in the {where} fifth of the pairs, those of {promise(level)} hold only "
                f"{percent(weakest)}. Where these matter, ask for a higher share, or solve exactly."
            )
    points.append(_strangers(report))
    for name, errors_of in report.errors.items():
        if name in ("wembed", MEAN):
            continue
        if errors_of.relative_error < own.relative_error:
            points.append(
                f"Another method: {name} is off by {percent(errors_of.relative_error)}, less than wembed's "
                f"{percent(own.relative_error)}. Take it."
            )
        elif (errors_of.recall_at_10 or 0) > (own.recall_at_10 or 0):
            points.append(
                f"Another method: {name} finds more of the ten nearest ({errors_of.recall_at_10:.3f}, against "
                f"{own.recall_at_10:.3f}). For neighbours, take it, or rerank."
            )
    if own.relative_error > 0.5 * report.errors[MEAN].relative_error:
        points.append(
            f"Hardly learned: saying the mean distance for every pair is off by "
            f"{percent(report.errors[MEAN].relative_error)}, and the model by {percent(own.relative_error)}."
        )
    points.append(_few(report, errors))
    return Section(
        "When not to trust this model", ("What the numbers of this page say to watch out for:",), tuple(points)
    )


def _strangers(report: Report) -> str:
    """What is known of measures unlike those learned from."""
    if report.unusualness is None:
        return (
            "Other measures: these numbers hold for measures like the ones evaluated. For measures of another kind, "
            "evaluate again."
        )
    odd = report.unusualness >= UNUSUAL
    if not odd.any():
        return (
            f"Other measures: none of these {report.measures:,} is unlike those learned from, so nothing here tells of "
            "the error on measures that are."
        )
    head = f"Unusual measures: {int(odd.sum()):,} of {report.measures:,} are unlike those learned from"
    _, errors = figures.relative_errors(report)
    touched = odd[report.asked[report.exact > 0]].any(axis=1)
    if not touched.any() or touched.all():
        return f"{head}; do not trust distances to them."
    return (
        f"{head}. Pairs with one of them are off by {percent(float(np.abs(errors[touched]).mean()))} on average, other "
        f"pairs by {percent(float(np.abs(errors[~touched]).mean()))}."
    )


def _few(report: Report, errors: Float64[np.ndarray, " k"]) -> str:
    """How well the numbers of the page are known.

    Pairs that share a measure are not independent; twice the standard error is taken as if each measure gave one.
    """
    measures = len(np.unique(report.asked))
    doubt = 2 * float(np.abs(errors).std()) / min(measures, max(len(errors), 1)) ** 0.5 if len(errors) else 0.0
    few = "Few pairs" if report.pairs < _FEW else "Chance"
    mean_error = report.errors["wembed"].relative_error
    low, high = max(mean_error - doubt, 0.0), mean_error + doubt
    sentence = (
        f"{few}: the errors are those of {report.pairs:,} pairs of {measures:,} measures. With others, the "
        f"{percent(mean_error)} could as well be {percent(low)} or {percent(high)}."
    )
    if 0 < report.queries < 10:
        sentence += f" The recall comes from {report.queries} queries alone."
    return sentence


def _weakest_fifth(report: Report) -> tuple[float, str]:
    """The least share of pairs within their intervals, over the fifths of the distances, and which fifth that is."""
    assert report.intervals is not None
    row, _ = figures.nearest_level(report.intervals, 0.9)
    held = report.intervals.inside(report.exact)[row]
    shares = [float(held[part].mean()) for part in figures.by_distance(report.exact, 5)]
    worst = int(np.argmin(shares))
    return shares[worst], ("nearest", "second nearest", "middle", "second farthest", "farthest")[worst]


def _kept(intervals: Intervals, exact: Float64[np.ndarray, " k"]) -> tuple[int, float, float]:
    """Row and level nearest to 90 %, and the share of the pairs that lie within their intervals of that level."""
    row, level = figures.nearest_level(intervals, 0.9)
    return row, level, float(intervals.coverage(exact)[row])


def _leaning(exact: Float64[np.ndarray, " k"], errors: Float64[np.ndarray, " k"]) -> str:
    """Whether predictions are too long or too short more often, and whether near and far ones differ in that."""
    near, *_, far = [float((errors[part] > 0).mean()) for part in figures.by_distance(exact, 5)] * 2
    if abs(near - far) > 0.3 and len(exact) >= _TOLD_APART:
        return f"Of the nearest fifth {percent(near)} are too long, of the farthest fifth {percent(far)}."
    long = float((errors > 0).mean())
    if 0.4 <= long <= 0.6:
        return "Predictions are too long about as often as too short."
    return f"{percent(max(long, 1 - long))} of the predictions are too {'long' if long > 0.5 else 'short'}."


def _fifths(exact: Float64[np.ndarray, " k"], errors: Float64[np.ndarray, " k"]) -> list[float]:
    """Mean size of the errors in each fifth of the distances, the nearest first; the only one twice."""
    means = [float(np.abs(errors[part]).mean()) for part in figures.by_distance(exact, 5)]
    return means if len(means) > 1 else means * 2


def _picture(name: str, label: str, caption: str, figure: "matplotlib.figure.Figure", *, wide: bool = False) -> Picture:
    return Picture(name, label, caption, *figures.rendered(figure), wide)
