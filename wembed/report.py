"""The report of an evaluation as one HTML page, with its pictures beside it."""

from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wembed import sections
from wembed.embedder import Embedder
from wembed.errors import SettingError
from wembed.figures import plain_style
from wembed.learning.evaluation import Report
from wembed.measures import Measures
from wembed.page import Section, Table, page
from wembed.portraits import Portraits
from wembed.transport.store import write_atomically

__all__ = ["check_page", "write_report"]


def check_page(file: Path) -> None:
    """Refuse, before anything is evaluated, a file that no report can be written to.

    Raises:
        SettingError: another ending, or a folder that is not there.
    """
    if file.suffix != ".html":
        raise SettingError(f"{file}: the report is an HTML page; give a file that ends in .html")
    if not file.parent.is_dir():
        raise SettingError(f"{file}: the folder {file.parent} is not there; make it first")


def write_report(
    embedder: Embedder,
    measures: Measures,
    report: Report,
    file: Path,
    labels: Sequence[str] | np.ndarray | None = None,
    on: date | None = None,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> list[Path]:
    """Write a report as one HTML page that needs nothing else, and its pictures into a folder beside it.

    The folder has the name of the page with "_pictures" in place of ".html", and each picture as PNG and SVG. The page
    is the same, byte for byte, for the same report on the same day.

    Args:
        embedder: the one that was evaluated.
        measures: those that it was evaluated on.
        report: what `evaluate` returned for them.
        file: the page, ending in .html.
        labels: what each measure is called, for the map and beside the drawings; with more than ten of them the map
            is not coloured.
        on: the day to name; today without it.
        numbers: what to count each measure by, such as its row in the file it came from; its place without them.

    Returns:
        The files written, the page first.

    Raises:
        SettingError: another ending, a folder that is not there, or labels or measures that the report is not of.
        NotFittedError: the Embedder has not been fitted.
    """
    file = Path(file)
    check_page(file)
    for what, given in (("labels", labels), ("numbers", numbers)):
        if given is not None and len(given) != len(measures):
            raise SettingError(f"there are {len(given)} {what} and {len(measures)} measures; give one for each")
    if len(measures) != report.measures:
        raise SettingError(
            f"the report is of {report.measures} measures and these are {len(measures)}; give those that were evaluated"
        )
    names = None if labels is None else [str(label) for label in labels]
    counted = None if numbers is None else [int(number) for number in numbers]
    portraits = Portraits.of(measures, embedder.cost, names, counted)
    parts = _sections(embedder, measures, report, portraits, on or date.today())
    folder = file.with_name(f"{file.stem}_pictures")
    folder.mkdir(exist_ok=True)
    written = [file]
    for picture in (picture for part in parts for picture in part.pictures):
        for suffix, content in (("png", picture.png), ("svg", picture.svg.encode())):
            written.append(folder / f"{picture.name}.{suffix}")
            write_atomically(written[-1], content)
    write_atomically(file, page("How far to trust these distances: a wembed report", parts).encode())
    return written


def _sections(embedder: Embedder, measures: Measures, report: Report, portraits: Portraits, on: date) -> list[Section]:
    pool = report.pool.tolist()
    with plain_style():
        return [
            sections.verdict(report),
            sections.scatter(report),
            sections.errors_by_distance(report),
            sections.coverage(report, embedder.trust.calibrated_on),
            sections.learning(report.learning_curve, embedder.history_),
            sections.worst_pairs(report, portraits),
            sections.neighbors(report, portraits),
            sections.map_of_measures(
                report.vectors[report.pool],
                None if portraits.labels is None else [portraits.labels[place] for place in pool],
                None if report.unusualness is None else report.unusualness[report.pool],
            ),
            sections.speed(report),
            sections.doubts(report),
            _provenance(embedder, measures, report, on),
        ]


def _provenance(embedder: Embedder, measures: Measures, report: Report, on: date) -> Section:
    cost = embedder.cost
    metric = cost.metric if isinstance(cost.metric, str) else f"a cost matrix {cost.metric.shape}"
    used = embedder.pairs_used_
    parents = embedder._parents
    rows = (
        ("wembed", version("wembed")),
        ("date", on.isoformat()),
        ("ground cost", f"{metric}, order {cost.order:g}"),
        ("encoder", f"{embedder.encoder_}, {embedder.dim_:,} numbers a vector"),
        ("exact pairs used", ", ".join(f"{count:,} for {part}" for part, count in used.items())),
        ("seed of the fit", str(embedder.fitted_with["random_state"])),
        ("fitted on measures", parents["measures"]),
        ("fitted on distances", parents["distances"]),
        ("evaluated on measures", measures.fingerprint),
        ("evaluated", f"{report.measures:,} measures, {report.pairs:,} pairs"),
        ("neighbours", f"{report.queries:,} queries among {report.candidates:,} measures"),
        ("seed of the evaluation", str(report.seed)),
    )
    sentence = "Measures and distances are named by their fingerprint, a hash of their content."
    return Section("Where these numbers come from", (sentence,), tables=(Table("What was evaluated", (), rows),))
