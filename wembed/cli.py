"""The command line: parse, call one function, print."""

import csv
import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional, TextIO

import typer

from wembed.errors import MeasureError, ReadError, SettingError, UnusualWarning, WembedError

if TYPE_CHECKING:
    from wembed.embedder import Embedder
    from wembed.index import Index
    from wembed.learning.curve import LearningCurve
    from wembed.learning.evaluation import Report
    from wembed.measures import Measures
    from wembed.records import Neighbors
    from wembed.transport.costs import GroundCost

__all__ = ["app", "main"]

_OPTIONS = {
    **{name: f"--{name} " for name in ("interval", "tolerance", "budget", "recall", "rerank", "pairs", "queries")},
    **{name: f"--{name} " for name in ("order", "dim", "steps", "device", "method")},
    "k": "-k ",
    "n_jobs": "--jobs ",
    "random_state": "--seed ",
    "seed": "--seed ",
    "max_seconds": "--max-seconds ",
    "target_error": "--target-error ",
}

_LONG = 1_024  # numbers in a vector
_QUICK = 1.0  # seconds
_WIDEST = len("-0.0000")  # mark in a table of errors

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Wasserstein distance at the speed of Euclidean distance, with an honest word on the error.",
)

Data = Annotated[Path, typer.Argument(help="Measures: .npy, .npz, IDX, CSV, Parquet, or a folder of images.")]
Model = Annotated[Path, typer.Argument(help="A folder that `wembed fit` wrote.")]
Support = Annotated[
    Optional[Path], typer.Option(help="The points (s, dim) of histograms or of a sparse matrix, as .npy.")  # noqa: UP045
]
IndexFolder = Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that `wembed index` wrote.")]
Ids = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="An id for each measure, whole numbers or strings, as .npy or as a text file of lines."),
]
Labels = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="A label for each measure, as .npy or as a text file of lines."),
]
Payloads = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Anything to keep with each measure, as a text file with JSON on each line."),
]
Metric = Annotated[
    str,
    typer.Option(
        help="euclidean, cityblock, chebyshev, great-circle, great-circle-degrees (x1 is the latitude, x2 the "
        "longitude; distances in the same unit, a degree is 111.195 km), or a .npy file with the metric between the "
        "points of a common support."
    ),
]
Order = Annotated[float, typer.Option(help="p of W_p.")]

Picture = Annotated[Path, typer.Option(help="The picture, as .png, .svg or .pdf.")]
Method = Annotated[
    str, typer.Option(help="learned, from vectors alone; polish, made better by some exact couplings; or exact.")
]
Save = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Keep the measures in this folder, which wembed reads."),
]


def _jobs(value: int) -> int:
    from wembed.transport.parallel import check_jobs

    check_jobs(value)
    return value


Jobs = Annotated[int, typer.Option(callback=_jobs, help="Processes for exact solves; -1 for one a core.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Draws the split, the pairs and the training.")]
Pairs = Annotated[
    str,
    typer.Option(
        help="About how many exact pairs to solve, in whole cliques within each part of the split; more than are there "
        "already adds to them; or 'all'."
    ),
]


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("wembed-quickstart"),
    pairs: Annotated[int, typer.Option(help="Exact pairs to solve.")] = 20_000,
    jobs: Jobs = -1,
    seed: Seed = 0,
) -> None:
    """Run the whole job on the MNIST digits that ship with wembed."""
    from wembed.quickstart import quickstart as run

    _say(f"10,000 MNIST digits, W_2 in pixels. Everything goes to {out}/")
    result = run(out, pairs, seed, jobs)
    _table(result.report)
    _say(
        f"One exact distance:   {_duration(result.exact_seconds)}\n"
        f"One learned distance: {_duration(result.learned_seconds)} between vectors that are there "
        f"({_ratio(result.exact_seconds / result.learned_seconds)} times faster); a new digit becomes a vector in "
        f"{_duration(result.encode_seconds)}\n"
        f"Pictures: {result.files['scatter']}, {result.files['neighbors']}\n"
        f"Report to open in a browser: {result.files['report']}\n\n"
        "Next, on measures of your own:\n"
        "  wembed fit DATA --out RUN --pairs 20000\n"
        "  wembed distance RUN A B\n"
        "  wembed index RUN DATA --out INDEX && wembed query INDEX DATA -k 10"
    )


@app.command()
def precompute(
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder of the distances; the same call again goes on there.")],
    pairs: Pairs = "20000",
    draw: Annotated[str, typer.Option(help="Pairs in cliques of eight measures, or random ones.")] = "cliques",
    metric: Metric = "euclidean",
    order: Order = 2.0,
    jobs: Jobs = -1,
    seed: Seed = 0,
    support: Support = None,
) -> None:
    """Solve pairs exactly, in parallel, and keep the distances in a folder."""
    from wembed.progress import bar
    from wembed.transport.precompute import precompute as run

    cost, wanted = _cost(metric, order), _pairs(pairs)
    measures = _read(data, support, cost.check)
    with bar(True, "exact distances", unit="pairs") as show:
        store = run(measures, out, wanted, cost, jobs, seed, draw=draw, progress=show)
    _say(f"{len(store):,} exact distances in {out}")
    if isinstance(wanted, int) and len(store) < 0.95 * wanted:
        _say(
            f"Fewer than {wanted:,}: pairs stay within train, validation and test measures, each with its share, and "
            "one of these has no more; `--pairs all` solves every pair"
        )


@app.command()
def fit(
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder of the run: distances and model; interrupted, it goes on.")],
    pairs: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="About how many exact pairs, as for precompute; 20000 where there are none yet; 'auto' for rounds "
            "with ever more of them, as long as that pays."
        ),
    ] = None,
    max_seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="From the start of this run. No round is begun that is likely to end later, but the first one."
        ),
    ] = None,
    target_error: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="In rounds, until the mean relative error on the validation measures is as small; 0.01 is 1 %."
        ),
    ] = None,
    metric: Metric = "euclidean",
    order: Order = 2.0,
    dim: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Length of the vectors; by default what suits the encoder."),
    ] = None,
    residual: Annotated[
        bool,
        typer.Option(
            help="With --dim, keep in the first number of a vector how long all is that the others leave out: far "
            "smaller errors, but distances are no longer plain Euclidean ones between the vectors.",
        ),
    ] = False,
    encoder: Annotated[
        str,
        typer.Option(
            help="quantiles, transport, combined, sinkhorn, linear, landmarks; dwe, for images; auto takes what suits."
        ),
    ] = "auto",
    steps: Annotated[Optional[int], typer.Option(help="Training steps; by default set by the pairs.")] = None,  # noqa: UP045
    device: Annotated[str, typer.Option(help="A torch device, such as cpu or cuda.")] = "cpu",
    jobs: Jobs = -1,
    seed: Seed = 0,
    support: Support = None,
) -> None:
    """Solve pairs, train an encoder on them, and report its errors on measures it has not seen.

    Where OUT/distances holds pairs already, those are taken, unless more are asked for.
    """
    from wembed.embedder import NEARLY, Embedder, evaluate
    from wembed.learning.training import TrainingSettings
    from wembed.progress import bar
    from wembed.transport.precompute import precompute as run
    from wembed.transport.precompute import stored_settings
    from wembed.transport.store import DistanceStore

    cost = _cost(metric, order)
    measures = _read(data, support, cost.check)
    in_rounds = pairs == "auto" or max_seconds is not None or target_error is not None
    wanted = None if pairs in (None, "auto") else _pairs(str(pairs), "a number of pairs, 'auto' or 'all'")
    embedder = Embedder(
        metric=cost.metric,
        order=order,
        dim=dim,
        pairs=wanted if isinstance(wanted, int) else "auto" if in_rounds else 20_000,
        encoder=encoder,
        device=device,
        n_jobs=jobs,
        random_state=seed,
        training=None if steps is None else TrainingSettings(steps=steps, seed=seed),
        verbose=True,
        residual=residual,
    )
    embedder.check(measures)
    settings = stored_settings(out / "distances") or {"pairs": 20_000, "seed": seed}
    if settings.get("seed", seed) != seed:
        _say(f"{out / 'distances'} was drawn with --seed {settings['seed']}; --seed {seed} sets the training alone")
    folder, checkpoint = out / "distances", out / "training.safetensors"
    if in_rounds:
        embedder.fit(
            measures, distances=folder, checkpoint=checkpoint, max_seconds=max_seconds, target_error=target_error
        )
        store = DistanceStore(folder)
    else:
        if wanted is not None:
            settings["pairs"] = wanted
        with bar(True, "exact distances", unit="pairs") as show:
            store = run(measures, folder, cost=cost, n_jobs=jobs, progress=show, **settings)
        asked = settings["pairs"]
        if isinstance(asked, int) and len(store) < NEARLY * asked:
            _say(f"{len(store):,} pairs of the {asked:,} that were asked for: parts of the collection hold no more")
        embedder.fit(measures, distances=store, checkpoint=checkpoint)
    if (out / "model").exists():
        _say(f"the model before, in {out / 'model'}, is replaced")
    embedder.save(out / "model")
    unseen = measures[embedder.split_.test]
    with bar(True, "unseen measures", unit="pairs") as show:
        report = evaluate(embedder, unseen, seed=seed, distances=store, n_jobs=jobs, progress=show)
    embedder.save(out / "model")
    _table(report)
    known = sum(len(part) for part in embedder.split_.parts().values())
    if known < len(measures):
        _say(f"{len(measures) - known:,} of {len(measures):,} measures repeat an earlier one; each counts once")
    curve = embedder.learning_curve_
    _curve(curve, _more_pairs(embedder))
    exactly = len(measures) * curve.seconds_a_pair
    if exactly < _QUICK:
        _say(
            f"All {len(measures):,} distances of a measure to these are solved exactly in {_duration(exactly)}: for few"
            " queries that may do"
        )
    if len(curve.compared) > 1:
        errors = ", ".join(f"{name} {error:.2%}" for name, error in curve.compared.items())
        long = "" if dim is None else ", at full length"
        _say(f"Encoders compared on validation measures{long}: {errors}")
    first = next(iter(curve.compared))
    # Nothing is taken in the place of transport but linear and landmarks, which take no more solves.
    quicker = "" if first in (embedder.encoder_, "transport") else f"; --encoder {first} may encode quicker"
    _say(
        f"Model in {out / 'model'}: W_{cost.order:g} under the {cost.metric} metric, encoder {embedder.encoder_}, "
        f"{embedder.dim_:,} numbers a vector{'' if embedder.residuals is None else ', the first a residual'}, "
        f"{_duration(curve.seconds_a_measure)} to encode a measure{quicker}"
    )
    if dim is None and embedder.dim_ >= _LONG:
        _say(
            "Many vectors as long as these take much memory; "
            f"--encoder {embedder.encoder_} --dim 256 --residual makes them short, and tells what is lost by that"
        )
    elif dim is not None and embedder.dim_ < dim:
        _say(f"The encoder has no more than {embedder.dim_:,} numbers: --dim {dim:,} leaves them as they are")
    _promise(embedder, out)
    also = "" if support is None else f" --support {support}"
    goes_on = [f"wembed distance {out} A B{also}", f"wembed index {out} {data} --out INDEX{also}"]
    if _decodes(measures, cost):
        goes_on.append(f"for barycenters and more, wembed decoder {out} {data}{also}")
    _say(f"Next: {', or '.join(goes_on)}")


@app.command()
def calibrate(
    model: Model,
    data: Data,
    pairs: Annotated[int, typer.Option(help="About how many pairs of them to solve exactly.")] = 4_000,
    jobs: Jobs = -1,
    seed: Seed = 0,
    support: Support = None,
) -> None:
    """Set the intervals of a model by those measures of the data that it has not learned from.

    In place of those that they were calibrated on: give it more of them, or measures like those that it is to be asked
    about. Half of them shape the intervals, and the other half set their width. What it is calibrated on is left out
    when it is evaluated, so keep some of the data for that. An index keeps the model it was made with: make it again.
    """
    from wembed.saved import model_folder

    embedder = _load(model)
    embedder.n_jobs = jobs
    embedder.calibrate(_read(data, support), pairs, seed)
    embedder.save(model_folder(model))
    _promise(embedder, model)


@app.command()
def evaluate(
    model: Model,
    data: Data,
    pairs: Annotated[int, typer.Option(help="Random pairs to solve exactly.")] = 2_000,
    queries: Annotated[
        int,
        typer.Option(
            help="Measures whose ten nearest are found exactly, drawn at random, others than by fit; 0 for none."
        ),
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
    picture: Annotated[Optional[Path], typer.Option(help="Save predicted against exact as PNG, SVG or PDF.")] = None,  # noqa: UP045
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a report as one HTML page; its pictures go into a folder beside it."),
    ] = None,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="For the report: a name for each measure of DATA, as .npy or as a text file of lines."),
    ] = None,
    jobs: Jobs = -1,
    seed: Seed = 0,
    support: Support = None,
) -> None:
    """Report the errors of a model on those measures of the data that it was not fitted to or calibrated on."""
    import numpy as np

    from wembed.embedder import evaluate as run
    from wembed.pictures import draw_scatter
    from wembed.progress import bar
    from wembed.report import check_page, write_report

    if picture is not None:
        _drawable(picture)
    if html is not None:
        check_page(html)
    elif labels is not None:
        raise SettingError(f"{labels}: labels colour the map of a report; give --html too")
    embedder = _load(model)
    measures = _read(data, support, embedder.check_like)
    names = None if labels is None else _labels(labels, len(measures))
    unseen = embedder.unseen(measures)
    if len(unseen) == 1 < len(measures):
        raise SettingError(
            f"the model has seen {len(measures) - 1} of these {len(measures)} measures, and the one that is left makes "
            "no pair; give at least two that are new to it"
        )
    with bar(True, "unseen measures", unit="pairs") as show:
        report = run(embedder, unseen, pairs, seed, queries=queries, n_jobs=jobs, progress=show)
    if as_json:
        print(json.dumps(report.as_dict(), indent=1, allow_nan=False))
    else:
        left = len(measures) - len(unseen)
        _table(report, f"unseen measures (it has seen the other {left:,})" if left else f"measures of {data}")
    if picture is not None:
        draw_scatter(report, picture)
    if html is not None:
        numbers = np.flatnonzero(np.isin(measures.digests(), unseen.digests()))
        files = write_report(embedder, unseen, report, html, None if names is None else names[numbers], numbers=numbers)
        _say(f"{html} and {len(files) - 1} pictures in {files[-1].parent}")


@app.command()
def embed(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="The .npy file of the vectors, (n, dim) float32.")],
    support: Support = None,
) -> None:
    """Write the vector of each measure to a .npy file."""
    import numpy as np

    if out.suffix != ".npy" or not out.parent.is_dir():
        raise SettingError(f"{out}: give a file that ends in .npy, in a folder that is there")
    embedder = _load(model)
    vectors = embedder.transform(_read(data, support, embedder.check_like))
    np.save(out, vectors)
    _say(f"{vectors.shape[0]:,} vectors of {vectors.shape[1]} numbers in {out}")
    if embedder.residuals is not None:
        residuals = embedder.residuals
        _say(
            "The first number of each is the length of its residual: embedder.between(x, y) reads their distances, by "
            f"the width {residuals.width:.9g} and the {residuals.coordinates} numbers after it (see docs/choosing.md)"
        )
    elif embedder.cost.is_great_circle:
        _say("Distances between them are chords: embedder.between(x, y) reads the arcs")


@app.command()
def distance(
    model: Model,
    a: Annotated[Path, typer.Argument(help="Measures, or a single one.")],
    b: Annotated[Path, typer.Argument(help="As many measures as A holds, or a single one.")],
    exact: Annotated[bool, typer.Option("--exact", help="Solve the pairs exactly as well.")] = False,
    interval: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Print an interval too, within which this share of exact distances lies, such as 0.9."),
    ] = None,
    tolerance: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Solve those pairs whose interval leaves more than this relative error open, such as 0.02."),
    ] = None,
    budget: Annotated[Optional[int], typer.Option(help="Most pairs to solve for that; the widest first.")] = None,  # noqa: UP045
    refine: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(help="Solve each measure against the model's references too, for narrower intervals."),
    ] = None,
    jobs: Jobs = -1,
    support: Support = None,
) -> None:
    """Print the predicted distance of the first measure of A to the first of B, and so on, as CSV.

    With an interval, a tolerance, a budget or --refine: the estimate, the interval, how unusual the measures are (0
    typical, 1 the most unusual hundredth, from 2.5 on not to be relied on), and in the column `is_exact` 1 where the
    estimate is: it was solved, or the two measures are one and the same.
    """
    import numpy as np

    from wembed.measures import Measures
    from wembed.progress import bar
    from wembed.transport.parallel import exact_distances

    embedder = _load(model)
    left, right = (_read(data, support, embedder.check_like) for data in (a, b))
    count = max(len(left), len(right))
    if len(left) != len(right) and min(len(left), len(right)) != 1:
        raise SettingError(f"{a} holds {len(left)} measures and {b} {len(right)}; give as many, or a single one")
    ask = embedder.distance if len(left) == len(right) else embedder.pairwise
    columns: dict[str, np.ndarray]
    answered = np.zeros(count, dtype=bool)
    if (interval, tolerance, budget, refine) != (None, None, None, None):
        embedder.n_jobs = jobs
        answers = ask(left, right, interval=interval, tolerance=tolerance, budget=budget, refine=refine)
        columns = {name: getattr(answers, name) for name in ("predicted", "estimate", "lower", "upper", "unusualness")}
        columns["is_exact"] = answers.exact
        answered = answers.exact.ravel()
        _say(f"{answers.solved:,} of {count:,} pairs were solved")
    else:
        columns = {"predicted": ask(left, right)}
    if exact:
        of_left, of_right = np.arange(count) % len(left), len(left) + np.arange(count) % len(right)
        wanted = np.flatnonzero(~answered)
        pairs = np.stack([of_left, of_right], axis=1)[wanted]
        columns["exact"] = columns.get("estimate", columns["predicted"]).ravel().astype(np.float64)
        with bar(True, "exact distances", unit="pairs") as show:
            together = Measures.concatenate([left, right])
            columns["exact"][wanted] = exact_distances(together, pairs, embedder.cost, jobs, show)
    columns = {name: column.ravel() for name, column in columns.items()}
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["pair", *columns])
    writer.writerows(
        [i, *(f"{value:.6g}" for value in row)] for i, row in enumerate(zip(*columns.values(), strict=True))
    )


@app.command()
def decoder(
    model: Model,
    data: Data,
    atoms: Annotated[int, typer.Option(help="Of a cloud that is made.")] = 128,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 4_000,
    mixtures: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Measures between others to make and learn from too, by exact couplings; as many as suit."),
    ] = None,
    jobs: Jobs = -1,
    support: Support = None,
) -> None:
    """Teach a model the way back, from vectors to measures: barycenter, interpolate and geodesics take it.

    It is saved with the model, in place of one that was there. An index keeps the model it was made with: make it
    again to decode over HTTP.
    """
    from wembed.saved import model_folder

    embedder = _asked(model, jobs)
    replaced = embedder.decoder is not None
    embedder.fit_decoder(_read(data, support), atoms=atoms, steps=steps, mixtures=mixtures)
    embedder.save(model_folder(model))
    before = ", in place of the one that was there" if replaced else ""
    _say(f"Saved with the model in {model_folder(model)}{before}")
    _say(
        f"W_{embedder.order:g} between a measure that it was not trained on and what its vector decodes to: "
        f"{embedder.decoder_error_:.3g} in the mean; between two measures {embedder.mean_distance_:.3g}"
    )
    _say(
        f"Next: wembed barycenter {model} DATA --out barycenter.png, or wembed interpolate {model} A B --out strip.png"
    )


@app.command()
def barycenter(
    model: Model,
    data: Data,
    out: Picture,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A barycenter for each of these labels, one a measure, as .npy or as a text file of lines."),
    ] = None,
    method: Method = "learned",
    save: Save = None,
    jobs: Jobs = -1,
    support: Support = None,
) -> None:
    """Draw the Wasserstein barycenter of measures, or of those of each label.

    learned and polish take a decoder (wembed decoder); polish and exact are for euclidean W_2. All measures weigh the
    same; wembed.geometry.barycenter takes weights.
    """
    from wembed.geometry import class_means
    from wembed.pictures import draw_barycenters
    from wembed.progress import bar

    _drawable(out, save)
    embedder, measures = _asked(model, jobs), _read(data, support)
    owner = ["all"] * len(measures) if labels is None else _labels(labels, len(measures))
    with bar(True, "couplings", unit="couplings") as show:
        names, found = class_means(embedder, measures, owner, method=method, progress=show)
    draw_barycenters(found.measures, names.tolist(), out, grid=measures.grid, cost=embedder.cost)
    _kept(found.measures, save)
    of = _many(len(measures), "measure") if labels is None else f"each of {_many(len(names), 'label')}"
    _say(f"The barycenter of {of}, {method}, in {out}")


@app.command()
def interpolate(
    model: Model,
    a: Annotated[Path, typer.Argument(help="Measures, or a single one.")],
    b: Annotated[Path, typer.Argument(help="Measures, or a single one.")],
    out: Picture,
    steps: Annotated[int, typer.Option(min=2, max=50, help="Measures on the way, both ends among them.")] = 9,
    first: Annotated[int, typer.Option(min=0, help="Which one of A to go from, counted from 0.")] = 0,
    last: Annotated[int, typer.Option(min=0, help="Which one of B to go to, counted from 0.")] = 0,
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Keep the learned measures, or else the exact ones, in this folder, which wembed reads."),
    ] = None,
    jobs: Jobs = -1,
    support: Support = None,
) -> None:
    """Draw the way from a measure to another: mixed, learned and, under euclidean W_2, exact.

    Learned where the model has a decoder (wembed decoder).
    """
    import numpy as np

    from wembed.geometry import interpolate as run
    from wembed.measures import Measures
    from wembed.pictures import draw_interpolations
    from wembed.transport.parallel import exact_distances

    _drawable(out, save)
    embedder = _asked(model, jobs)
    start, end = _one_of(a, first, support, "--first"), _one_of(b, last, support, "--last")
    times = np.linspace(0, 1, steps)
    flat = embedder.cost.splits_translation
    methods = ["learned"] * (embedder.decoder is not None or not flat) + ["exact"] * flat
    made = [(method, run(embedder, start, end, times, method=method).measures) for method in methods]
    mixed = "mean of pixels" if start.grid is not None else "mixture"
    rows = [(mixed, start.mixed(end, times)), *made]
    draw_interpolations(rows, times.tolist(), out, grid=start.grid, cost=embedder.cost)
    _kept(made[0][1], save)
    if embedder.decoder is None:
        _say("This model has no decoder, so the learned way is missing; `wembed decoder` gives it one")
    predicted = float(embedder.distance(start, end)[0])
    exact = float(exact_distances(Measures.concatenate([start, end]), [(0, 1)], embedder.cost, jobs)[0])
    _say(f"{steps} measures on the way in {out}; it is {exact:.4g} long, predicted {predicted:.4g}")


@app.command()
def geodesics(
    model: Model,
    data: Data,
    out: Picture,
    components: Annotated[int, typer.Option(help="How many of them.")] = 3,
    method: Method = "learned",
    save: Save = None,
    jobs: Jobs = -1,
    support: Support = None,
) -> None:
    """Draw a walk along each principal geodesic of measures, and print the variance it explains as CSV.

    learned and polish take a decoder (wembed decoder); polish and exact are for euclidean W_2.
    """
    from wembed.geometry import geodesic_pca
    from wembed.measures import Measures
    from wembed.pictures import draw_geodesics
    from wembed.progress import bar

    _drawable(out, save)
    embedder, measures = _asked(model, jobs), _read(data, support)
    with bar(True, "couplings", unit="couplings") as show:
        found = geodesic_pca(embedder, measures, components, method=method, progress=show)
    draw_geodesics(found, out, grid=measures.grid, cost=embedder.cost)
    _kept(Measures.concatenate([walk.measures for walk in found.walks]), save)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["component", "standard_deviation", "explained"])
    pairs = zip(found.deviations.tolist(), found.explained.tolist(), strict=True)
    writer.writerows([number, f"{own:.6g}", f"{share:.6g}"] for number, (own, share) in enumerate(pairs, 1))
    _say(f"{_many(components, 'principal geodesic')} of {_many(len(measures), 'measure')}, {method}, in {out}")


@app.command()
def index(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder of the index.")],
    method: Annotated[
        str,
        typer.Option(
            help="flat looks at all measures and misses none; hnsw goes along a graph, far sooner where they are many; "
            "auto takes that from 50,000 on."
        ),
    ] = "auto",
    ids: Ids = None,
    labels: Labels = None,
    payloads: Payloads = None,
    support: Support = None,
) -> None:
    """Embed a collection and keep it ready for nearest-neighbour queries."""
    from wembed.index import Index
    from wembed.progress import bar

    embedder = _load(model)
    measures = _read(data, support, embedder.check_like)
    given = {"ids": _ids(ids), "labels": _names(labels), "payloads": _payloads(payloads)}
    with bar(True, "graph", unit="measures") as show:
        collection = Index(embedder, measures, **given, method=method, progress=show)
    collection.save(out)
    goes_on = f"wembed query {out} DATA -k 10, or wembed serve {out}"
    _say(f"{len(collection):,} measures in {out}, {collection.method}; next: {goes_on}")


@app.command()
def add(
    index: IndexFolder,
    data: Data,
    ids: Ids = None,
    labels: Labels = None,
    payloads: Payloads = None,
    update: Annotated[
        bool, typer.Option("--update", help="Put the measures in the place of those that have these ids.")
    ] = False,
    support: Support = None,
) -> None:
    """Take more measures into an index, or others in the place of some."""
    from wembed.index import Index
    from wembed.progress import bar

    collection = Index.load(index)
    measures = _read(data, support, collection.embedder.check_like)
    collection.embedder.verbose = True
    own, given = _ids(ids), {"labels": _names(labels), "payloads": _payloads(payloads)}
    if update and own is None:
        raise SettingError("--update changes measures by their ids; give these with --ids")
    with bar(True, "graph", unit="measures") as show:
        if update:
            collection.update(own, measures, **given, progress=show)
        else:
            own = collection.add(measures, own, **given, progress=show)
    collection.save(index)
    one, some = own is not None and len(own) == 1, own is not None and len(own) > 1
    numbers = f", id {own[0]}" if one else f", ids {own[0]}, ..., {own[-1]}" if some else ""
    _say(f"{len(measures):,} measures {'changed' if update else 'added'}{numbers}; {len(collection):,} in {index}")


@app.command()
def remove(
    index: IndexFolder,
    which: Annotated[Optional[list[str]], typer.Argument(metavar="ID...", help="Their ids.")] = None,  # noqa: UP045
    ids: Ids = None,
) -> None:
    """Take measures out of an index, by their ids."""
    from wembed.index import Index
    from wembed.progress import bar

    if (which is None) == (ids is None):
        raise SettingError("give the ids of the measures to remove, or a file of them with --ids")
    collection = Index.load(index)
    gone = _ids_of(collection, which or _ids(ids))
    before = len(collection)
    with bar(True, "graph", unit="measures") as show:
        collection.remove(gone, progress=show)
    collection.save(index)
    _say(f"{before - len(collection):,} measures removed; {len(collection):,} in {index}")


@app.command()
def serve(
    folder: IndexFolder,
    host: Annotated[
        str, typer.Option(help="The address to listen at; other than this machine's own it takes keys.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes one that is free.")] = 8000,
    keys: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A file of keys, as `wembed key` writes it; only with one of these may one ask."),
    ] = None,
    window: Annotated[
        float, typer.Option(min=0, help="Milliseconds for which requests wait, to be encoded together.")
    ] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Measures to encode together; 1 for each request by itself.")] = 256,
    limit: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Another limit for a request, as NAME=NUMBER; /v1/info lists them.", metavar="NAME=NUMBER"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each request.")] = False,
    jobs: Jobs = -1,
) -> None:
    """Answer over HTTP: vectors, distances and neighbours, and measures that come and go."""
    try:
        from wembed.serve.run import run
    except ModuleNotFoundError as error:
        raise SettingError(f"this takes {error.name}, which `pip install 'wembed[serve]'` brings") from error
    run(folder, host, port, keys, window / 1000, batch, limit or [], quiet, jobs)


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    keys: Annotated[Path, typer.Option(help="The file of keys, to which its hash is added.")],
    scopes: Annotated[
        str, typer.Option(help="What it is good for: read to ask, write to change, or read,write.")
    ] = "read",
) -> None:
    """Make a key for the service, and print it: it is kept nowhere else."""
    from wembed.serve.keys import add_key

    made = add_key(keys, name, frozenset(scopes.split(",")))
    print(made)
    _say(f"Its hash is in {keys}; a service that is running takes it in when it is started again")


@app.command()
def query(
    index: IndexFolder,
    data: Data,
    k: Annotated[int, typer.Option("-k", help="Neighbours of each measure.")] = 10,
    rerank: Annotated[int, typer.Option(help="Candidates to solve exactly before the best k are kept.")] = 0,
    recall: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Solve as many candidates as it takes to find this share of the true k nearest, such as 0.99."
        ),
    ] = None,
    certified: Annotated[bool, typer.Option("--certified", help="Solve until the k nearest are proven.")] = False,
    among: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Ids of which alone the neighbours may be, as .npy or as a text file of lines."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line for each measure.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, as it is done where no terminal reads it.")] = False,
    jobs: Jobs = -1,
    support: Support = None,
) -> None:
    """Print the nearest measures of the collection to each measure: as a table on a terminal, else as CSV."""
    from wembed.index import Index
    from wembed.progress import bar

    if as_json and as_csv:
        raise SettingError("--json and --csv are two forms of one answer; give one of them")
    searched = Index.load(index)
    asking = _read(data, support, searched.embedder.check_like)
    searched.embedder.verbose = True
    solves = rerank > 0 or recall is not None or certified
    wanted = None if among is None else _ids_of(searched, _ids(among))
    with bar(True, "reranking" if solves else "searching", unit="pairs" if rerank else "queries") as show:
        found = searched.query(asking, k, rerank, jobs, show, recall=recall, certified=certified, among=wanted)
    if solves:
        _say(f"{found.solved.mean():,.1f} pairs were solved for a query in the mean, {found.solved.max():,} at most")
    _neighbors(found, searched, solves, as_json, as_csv or not sys.stdout.isatty())


def main() -> NoReturn:
    """Run the command line: exit code 2 and one sentence where the input is at fault."""
    os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")  # POT is called with NumPy arrays alone
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # workers would import what lies in the folder they are started in
    warnings.showwarning = _warned
    try:
        app()
    except WembedError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except SystemExit as stopped:  # typer ends every command so, an interrupted one with 130
        if stopped.code == 130 and sys.argv[1:2] != ["serve"]:
            goes_on = set(sys.argv[1:2]) & {"precompute", "fit", "quickstart"}
            kept = "What precompute, fit or quickstart had solved and learned is kept: the same command goes on."
            _say(kept if goes_on else "Interrupted, and nothing was changed.")
        sys.exit(stopped.code)
    sys.exit(0)


def _fail(sentence: str) -> NoReturn:
    """Say it by the names that the command line has for options."""
    named = re.sub(r"(?<![\w(.])(\w+)=(?=[\w'.-])", lambda found: _OPTIONS.get(found[1], found[0]), sentence)
    _say(f"error: {named}")
    sys.exit(2)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    ours = issubclass(category, UnusualWarning)
    _say(f"warning: {message}" if ours else warnings.formatwarning(message, category, filename, lineno, line))


def _neighbors(found: "Neighbors", index: "Index", solved: bool, as_json: bool, as_csv: bool) -> None:
    """Print neighbours, with their labels where the index has some."""
    named = any(label is not None for label in index.labels)
    label_of = dict(zip(index.ids.tolist(), index.labels, strict=True)) if named else {}
    answers = enumerate(zip(found.ids.tolist(), found.distances.tolist(), found.solved.tolist(), strict=True))
    if as_json:
        for row, (ids, distances, count) in answers:
            names = {"labels": [label_of[one] for one in ids]} if named else {}
            whole = {"query": row, "ids": ids, **names, "distances": distances, "exact": solved, "solved": count}
            print(json.dumps(whole))
        return
    head = ["query", "rank", "id", *(["label"] if named else []), "exact" if solved else "predicted"]
    rows = (
        [row, rank, one, *([label_of[one] or ""] if named else []), f"{distance:.6g}"]
        for row, (ids, distances, _) in answers
        for rank, (one, distance) in enumerate(zip(ids, distances, strict=True), 1)
    )
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*head)
    for cells in rows:
        table.add_row(*map(str, cells), end_section=cells[1] == found.ids.shape[1])
    Console().print(table)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _read(data: Path, support: Path | None, check: Callable[["Measures"], None] | None = None) -> "Measures":
    """The measures of a file; what `check` says against them is told with its name."""
    from wembed.readers import read

    measures = read(data, support)
    try:
        if check is not None:
            check(measures)
    except (MeasureError, SettingError) as error:
        raise type(error)(f"{data}: {error}") from error
    return measures


def _one_of(data: Path, number: int, support: Path | None, option: str) -> "Measures":
    """One measure of a file."""
    measures = _read(data, support)
    if number >= len(measures):
        raise SettingError(f"{option} {number}: {data} holds {len(measures)} measures, counted from 0")
    return measures[[number]]


def _drawable(picture: Path, folder: Path | None = None) -> None:
    """Refuse what could not be written, before work is done for it."""
    if picture.suffix not in (".png", ".svg", ".pdf"):
        raise SettingError(f"{picture}: pictures are written as .png, .svg or .pdf; give it such an ending")
    if not picture.parent.is_dir():
        raise SettingError(f"{picture}: there is no folder {picture.parent}; make it, or give another")
    if folder is None or not folder.exists():
        return
    if not folder.is_dir():
        raise SettingError(f"{folder} is a file; measures are kept in a folder")
    if any(folder.iterdir()) and not (folder / "measures.json").exists():
        raise SettingError(f"{folder} holds other things than measures; give a new folder, or one of measures")


def _kept(measures: "Measures", folder: Path | None) -> None:
    if folder is not None:
        measures.save(folder)
        _say(f"{_many(len(measures), 'measure')} in {folder}")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def _lines(file: Path, what: str) -> Any:
    """An array (n,), or the lines of a text file."""
    import numpy as np

    try:
        found = np.load(file, allow_pickle=False) if file.suffix == ".npy" else file.read_text().splitlines()
    except (ValueError, EOFError) as error:  # UnicodeDecodeError is a ValueError
        raise ReadError(f"{file} holds no {what}: give a .npy file (n,), or a text file of lines") from error
    return np.asarray(found)


def _ids(file: Path | None) -> Any:
    """Whole numbers, or strings where one of them is no whole number."""
    if file is None:
        return None
    found = _lines(file, "ids")
    try:
        return found.astype(int) if found.dtype.kind == "U" else found
    except ValueError:
        return found


def _ids_of(index: "Index", given: Any) -> list[int | str]:
    """Ids as they were typed or read, of the kind that the index has."""
    if not index.numbered:
        return [str(one) for one in given]
    wrong = [one for one in map(str, given) if not re.fullmatch(r"-?[0-9]+", one)]
    if wrong:
        raise SettingError(f"the ids of this index are whole numbers, and {wrong[0]!r} is none")
    return [int(one) for one in given]


def _names(file: Path | None) -> Any:
    return None if file is None else _lines(file, "labels").astype(str)


def _payloads(file: Path | None) -> Any:
    if file is None:
        return None
    try:
        return [json.loads(line) for line in file.read_text().splitlines()]
    except ValueError as error:
        raise ReadError(f"{file} holds no payloads: give a text file with JSON on each line ({error})") from error


def _labels(file: Path, count: int) -> Any:
    import numpy as np

    names = _lines(file, "labels").astype(str)
    blank = np.flatnonzero(np.char.strip(names) == "")
    if len(blank):
        raise SettingError(f"{file} has no label in line {blank[0] + 1}; give each measure one")
    if names.shape != (count,):
        raise SettingError(f"{file} holds labels of shape {names.shape}; expected one for each of {count} measures")
    return names


def _promise(embedder: "Embedder", model: Path) -> None:
    """What intervals the model gives, and how sure they are."""
    from wembed.learning.evaluation import FEW_CALIBRATED, chance_of_coverage

    level, measures = embedder.trust.highest_level, embedder.trust.calibrated_on
    more = f"`wembed calibrate {model} DATA` takes more measures"
    if level < 0.9:
        held = f"intervals of at most {level:.3f}" if level else "no intervals"
        _say(f"It gives {held}; {more}, or fit it on more measures and pairs")
    else:
        give = 100 * chance_of_coverage(0.9, measures)
        _say(
            f"Intervals are calibrated on {measures:,} measures: those of 90 % hold 90 % of unseen pairs, give or take "
            f"{give:.1f}" + (f"; {more}" if measures < FEW_CALIBRATED else "")
        )


def _load(model: Path) -> "Embedder":
    from wembed.embedder import load

    embedder = load(model)
    embedder.verbose = True
    return embedder


def _asked(model: Path, jobs: int) -> "Embedder":
    embedder = _load(model)
    embedder.n_jobs = jobs
    return embedder


def _cost(metric: str, order: float) -> "GroundCost":
    from wembed.transport.costs import METRICS, GroundCost

    if metric in METRICS or not Path(metric).suffix:
        return GroundCost(metric, order)
    import numpy as np

    try:
        return GroundCost(np.load(metric, allow_pickle=False), order)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, WembedError):
            raise
        reason = f": {error}" if isinstance(error, OSError) else ""
        raise ReadError(f"{metric} is not a .npy file of numbers, the cost matrix (s, s){reason}") from error


def _pairs(pairs: str, choices: str = "a number of pairs, or 'all'") -> "int | str":
    if pairs == "all":
        return pairs
    try:
        return int(pairs.replace("_", "").replace(",", ""))
    except ValueError as error:
        raise SettingError(f"--pairs {pairs}: give {choices}") from error


def _table(report: "Report", which: str = "unseen measures") -> None:
    from rich.console import Console
    from rich.table import Table

    from wembed.unusual import UNUSUAL

    power = f"W_{report.order:g}^{report.order:g}"
    table = Table()
    table.add_column("", no_wrap=True)
    for name in report.errors:
        table.add_column(name, justify="right", min_width=_WIDEST)

    def row(label: str, attribute: str, form: str) -> None:
        values = [getattr(errors, attribute) for errors in report.errors.values()]
        table.add_row(label, *("-" if value is None else format(value, form) for value in values))

    row("mean relative error", "relative_error", ".2%")
    row(f"MSE of {power}", "mse", ".3g")
    row(f"relative MSE of {power}", "relative_mse", ".2g")
    row("R2", "r2", ".4f")
    row("Pearson", "pearson", ".4f")
    row("Spearman", "spearman", ".4f")
    if report.errors["wembed"].recall_at_10 is not None:
        row(f"recall@10 among {report.candidates:,}, queries: {report.queries:,}", "recall_at_10", ".3f")
    elif report.queries:
        _say(f"no recall@10: that takes more than 20 unseen measures, and there are {report.measures}")
    row("predicted/exact at 1 %", "ratio_p01", ".3f")
    row("predicted/exact at 99 %", "ratio_p99", ".3f")
    console = Console(stderr=True)
    console.print(f"{report.pairs:,} pairs of {report.measures:,} {which}", soft_wrap=True, highlight=False)
    console.print(table)
    if report.errors["wembed"].relative_error > report.errors["mean predictor"].relative_error:
        console.print(
            "The mean distance would be nearer to that of most pairs than this model is: do not use it for distances; "
            "more pairs, longer vectors (--dim), or --residual may help",
            soft_wrap=True,
            highlight=False,
        )
    if report.intervals is not None and report.unusualness is not None:
        held = dict(zip(report.intervals.levels, report.intervals.coverage(report.exact).tolist(), strict=True))
        level = 0.9 if 0.9 in held else max(held)
        console.print(
            f"Intervals of {level:.0%} hold {held[level]:.1%} of the exact distances; "
            f"{int((report.unusualness >= UNUSUAL).sum()):,} measures are unlike those learned from",
            highlight=False,
        )
    console.print(
        f"{report.encode_per_second:,.0f} measures encoded a second, {report.distances_per_second:,.0f} distances "
        f"between vectors a second, {report.exact_per_second:,.0f} exact ones",
        highlight=False,
    )


def _decodes(measures: "Measures", cost: "GroundCost") -> bool:
    """Whether a decoder can be learned from measures like these."""
    from wembed.learning.decoding import suited_decoding

    try:
        suited_decoding(measures, cost)
    except SettingError:
        return False
    return True


def _more_pairs(embedder: "Embedder") -> float:
    """How many times the training pairs there are in all, those of the training measures."""
    count, used = len(embedder.split_.train), embedder.pairs_used_["train"]
    return count * (count - 1) / 2 / used


def _curve(curve: "LearningCurve", more: float) -> None:
    """What rounds brought, and what more pairs would: there are `more` times as many."""
    from rich.console import Console
    from rich.table import Table

    from wembed.embedder import NEARLY

    last = curve.rounds[-1]
    if len(curve.rounds) > 1 or curve.second:
        table = Table("pairs", "validation error", "solving", "training")
        for one in curve.rounds:
            seconds = (_duration(one.solving) if one.solving else "-", _duration(one.training))
            table.add_row(f"{one.pairs:,}", f"{one.error:.2%}", *seconds)
        if curve.second:
            closer = f"{curve.error:.2%}" if curve.error < last.error else "no closer"
            table.add_row("the same, combined", closer, "-", _duration(curve.second.training))
        Console(stderr=True).print(table)
    then = curve.error_at(min(2, more) * last.pairs)
    if NEARLY * more <= 1:
        foretold = "the training measures have hardly any other pairs, so only more measures would bring more"
    elif then is None:
        foretold = "what more would bring, a fit in rounds (--pairs auto) would tell"
    else:
        foretold = f"{'twice' if more >= 2 else 'all'} the pairs would bring it to about {then:.2%}"
    _say(f"{last.pairs:,} pairs, because {curve.stopped}: {curve.error:.2%} on validation measures; {foretold}")
    _say(f"If all distances are wanted, a fit like this one pays from about {curve.break_even():,} measures on")


def _duration(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _ratio(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.0f}"
