"""The HTML report, read by a parser and by a browser."""

import base64
import copy
import html
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from halved import halved_digits

import wembed
from wembed import sections
from wembed.figures import draw_learning, draw_map, plain_style, rendered
from wembed.learning.baselines import SlicedWasserstein
from wembed.learning.curve import LearningCurve, Round
from wembed.learning.evaluation import Intervals, Neighborhoods, Report
from wembed.portraits import Portraits, draw_pairs, draw_ranking
from wembed.report import write_report
from wembed.sections import coverage, doubts, map_of_measures
from wembed.unusual import UNUSUAL

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
DAY = date(2024, 2, 29)
HEADINGS = [
    "How far to trust these distances",
    "Predicted against exact",
    "Error against distance",
    "Do the intervals keep their promise?",
    "Learning curve",
    "The worst pairs",
    "Neighbours, exact and predicted",
    "A map of the measures",
    "Speed",
    "When not to trust this model",
    "Where these numbers come from",
]
VOID = {"meta", "br", "hr", "img", "link", "input"}
CHROMIUM = "/usr/bin/chromium"
MOST = 3_000_000


class Page(HTMLParser):
    """What a page holds; a tag that is closed out of turn is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.labels: list[str] = []
        self.captions = 0
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: dict[str, dict[str, str | None]] = {}
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        assert len(own) == len(attrs), f"an attribute of <{tag}> comes twice"
        self.attributes.setdefault(tag, own)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]
        if tag == "svg":
            assert self.open[-1] in ("figure", "div")
            assert own["role"] == "img"
            self.labels.append(own["aria-label"] or "")
        if tag in ("h1", "h2"):
            self.headings.append((tag, ""))
        self.captions += tag == "figcaption"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings[-1] = (self.open[-1], self.headings[-1][1] + data)
        if self.open and self.open[-1] != "style":
            self.text += data


def said(text: str) -> str:
    """The words of a page as a reader sees them."""
    return " ".join(Page(text).text.split())


def by_hand(report: Report, half_width: float = 0.1) -> Report:
    """The report with intervals whose width grows with their level, and unusualness that grows with the place."""
    widths = half_width * np.array(LEVELS)[:, None]
    intervals = Intervals(LEVELS, report.predicted * (1 - widths), report.predicted * (1 + widths))
    return replace(report, intervals=intervals, unusualness=np.linspace(0, 4, report.measures))


@pytest.fixture(scope="module")
def unseen() -> wembed.Measures:
    measures, _ = halved_digits()
    return measures[300:380]


@pytest.fixture(scope="module")
def report(fitted: wembed.Embedder, unseen: wembed.Measures) -> Report:
    others = {"<sliced> & co": SlicedWasserstein(2).fit(unseen, np.array([[0, 1]]), np.array([3.0]))}
    found = wembed.evaluate(fitted, unseen, pairs=300, queries=4, others=others, n_jobs=1)
    return replace(found, intervals=None, unusualness=None)


@pytest.fixture(scope="module")
def plain(
    fitted: wembed.Embedder, unseen: wembed.Measures, report: Report, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    labels = ['<b>&"$x_', "line\nbreak </svg>", "日本"] * 26 + ["$", "\\"]
    file = tmp_path_factory.mktemp("plain") / "report.html"
    return write_report(fitted, unseen, report, file, labels, DAY)


@pytest.fixture(scope="module")
def full(
    fitted: wembed.Embedder, unseen: wembed.Measures, report: Report, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    file = tmp_path_factory.mktemp("full") / "report.html"
    return write_report(fitted, unseen, by_hand(report), file, on=DAY)


def check(files: list[Path]) -> str:
    """A page that stands alone, its pictures beside it; returns its text."""
    text = files[0].read_text()
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert page.attributes["html"] == {"lang": "en"}
    assert "width=device-width" in text
    assert [heading for _, heading in page.headings] == HEADINGS
    assert [tag for tag, _ in page.headings] == ["h1"] + ["h2"] * (len(HEADINGS) - 1)
    assert len(page.labels) == page.captions == (len(files) - 1) // 2
    assert all(page.labels)
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert set(re.findall(r'\w+://[^\s"<]*', text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in text
    assert re.search(r"\b(nan|inf)\b", page.text) is None
    assert len(text.encode()) < MOST
    folder = files[0].with_name("report_pictures")
    assert set(files[1:]) == set(folder.iterdir())
    for file in files[1:]:
        if file.suffix == ".svg":
            assert ET.parse(file).getroot().tag.endswith("svg")
        else:
            assert file.read_bytes().startswith(b"\x89PNG")
    return text


def test_a_report_without_intervals_stands_alone_and_says_how_to_get_some(plain: list[Path]) -> None:
    text = said(check(plain))
    assert "wembed calibrate" in text
    assert "coverage.png" not in {file.name for file in plain}


def test_a_report_with_intervals_and_unusualness_stands_alone_and_tells_of_both(
    full: list[Path], report: Report
) -> None:
    text = said(check(full))
    assert "coverage.png" in {file.name for file in full}
    inside = np.abs(report.exact - report.predicted) <= 0.09 * report.predicted
    assert f"The intervals of 90 %, from vectors alone, hold {100 * inside.mean():.1f} %" in text
    odd = int((np.linspace(0, 4, 80) >= UNUSUAL).sum())
    assert f"{odd} of 80 are unlike those learned from" in text


def test_the_verdict_agrees_with_the_report(plain: list[Path], report: Report) -> None:
    text, own = said(plain[0].read_text()), report.errors["wembed"]
    assert f"off by {100 * own.relative_error:.2f} % on average" in text
    assert f"between {own.ratio_p01:.3f} and {own.ratio_p99:.3f} times" in text
    assert own.recall_at_10 is not None
    assert f"it finds {10 * own.recall_at_10:.1f} on average" in text
    assert f"(recall@10 {own.recall_at_10:.3f}, 4 queries among 80 measures)" in text


def test_the_worst_pair_and_the_baseline_that_is_better_are_named(plain: list[Path], report: Report) -> None:
    worst = int(np.argmax(np.abs(report.predicted / report.exact - 1)))
    error = 100 * abs(report.predicted[worst] / report.exact[worst] - 1)
    assert f"The worst of 300 predictions is off by {error:.{1 if error >= 9.995 else 2}f} %" in said(
        plain[0].read_text()
    )
    assert f"exact {report.exact[worst]:#.3g}, predicted {report.predicted[worst]:#.3g}" in said(plain[0].read_text())
    better = replace(report.errors["wembed"], relative_error=0.0001)
    changed = replace(report, errors={**report.errors, "linear OT": better})
    assert any("linear OT is off by 0.01\u00a0%" in point for point in doubts(changed).points)


def test_intervals_are_judged_by_what_so_many_measures_can_tell(report: Report) -> None:
    every = np.ones(300, dtype=bool)

    def told(inside: np.ndarray, calibrated_on: int) -> str:
        upper = np.where(inside, report.exact, 0)[None]
        with plain_style():
            return coverage(replace(report, intervals=Intervals((0.9,), 0 * upper, upper)), calibrated_on).sentences[0]

    def holding(share: float) -> np.ndarray:
        return np.arange(300) % 100 < 100 * share

    assert "as promised" in told(holding(0.91), 300)
    assert "less than promised, by no more than chance has with 80 measures" in told(holding(0.86), 300)
    assert "less than promised." in told(holding(0.7), 300)
    assert "more than promised" in told(every, 300)
    assert "calibrated on" not in told(every, 300)
    assert "calibrated on 36 measures" in told(every, 36)
    assert "10 in 100 pairs more or fewer" in told(every, 36)


def test_measures_are_counted_as_they_are_wanted(
    fitted: wembed.Embedder, unseen: wembed.Measures, report: Report, tmp_path: Path
) -> None:
    numbers = np.arange(7_000, 7_000 + len(unseen))
    text = write_report(fitted, unseen, report, tmp_path / "report.html", on=DAY, numbers=numbers)[0].read_text()
    assert re.search(r"Neighbours of measure 7,0\d\d:", said(text))
    with pytest.raises(wembed.SettingError, match="there are 2 numbers and 80 measures"):
        write_report(fitted, unseen, report, tmp_path / "report.html", numbers=[1, 2])


def test_the_same_report_is_the_same_file(
    full: list[Path], fitted: wembed.Embedder, unseen: wembed.Measures, report: Report, tmp_path: Path
) -> None:
    again = write_report(fitted, unseen, by_hand(report), tmp_path / "report.html", on=DAY)
    for first, second in zip(full, again, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert "2024-02-29" in full[0].read_text()


def test_a_parameter_set_after_the_fit_is_not_taken_for_that_of_the_fit(
    fitted: wembed.Embedder, unseen: wembed.Measures, report: Report, full: list[Path], tmp_path: Path
) -> None:
    changed = copy.copy(fitted).set_params(random_state=7)
    page, *_ = write_report(changed, unseen, by_hand(report), tmp_path / "report.html", on=DAY)
    assert page.read_bytes() == full[0].read_bytes()
    assert changed.fitted_with == fitted.get_params(deep=False)


def test_every_string_is_escaped(plain: list[Path]) -> None:
    text = plain[0].read_text()
    assert "<b>" not in text
    assert "<sliced>" not in text
    assert html.escape("<sliced> & co") in text
    assert '<b>&"$x_' in said(text)


def test_many_labels_are_not_coloured() -> None:
    vectors = np.random.default_rng(0).normal(size=(33, 5)).astype(np.float32)
    with plain_style():
        section = map_of_measures(vectors, [str(i % 11) for i in range(33)], None)
    assert "There are 11 labels, too many to tell apart by colour." in section.sentences[0]


@pytest.mark.parametrize("kind", ["clouds in space", "on a line"])
def test_other_kinds_of_measures_are_drawn(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dim = 3 if kind == "clouds in space" else 1
    clouds = [
        rng.normal(size=(rng.integers(8, 40), dim)) * rng.uniform(0.5, 2) + rng.normal(size=dim) for _ in range(90)
    ]
    measures = wembed.Measures.from_point_clouds(clouds)
    embedder = wembed.Embedder(
        pairs=300, encoder="linear", order=2 if dim == 3 else 1, n_jobs=1, training=wembed.TrainingSettings(steps=10)
    ).fit(measures[:60])
    found = wembed.evaluate(embedder, measures[60:], pairs=80, queries=2, n_jobs=1)
    check(write_report(embedder, measures[60:], by_hand(found), tmp_path / "report.html", ["a", "b"] * 15, DAY))


def test_few_pairs_and_no_queries_are_reported_too(
    fitted: wembed.Embedder, unseen: wembed.Measures, tmp_path: Path
) -> None:
    some = unseen[[0, 1, 1]]
    found = wembed.evaluate(fitted, some, pairs=2, queries=0, n_jobs=1)
    text = check(write_report(fitted, some, by_hand(found), tmp_path / "report.html", on=DAY))
    assert "No neighbours were looked for" in text
    alike = replace(found, exact=np.zeros(2), predicted=np.zeros(2))
    text = write_report(fitted, some, alike, tmp_path / "report.html", on=DAY)[0].read_text()
    assert "All pairs are of equal measures" in said(text)


def test_a_large_report_stays_small(fitted: wembed.Embedder, report: Report, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    measures, labels = halved_digits()
    exact = rng.gamma(4, size=2_000)
    hoods = Neighborhoods(np.arange(20), rng.gamma(4, size=(20, 1_000)))
    large = replace(
        report,
        measures=1_000,
        pairs=2_000,
        queries=20,
        candidates=1_000,
        exact=exact,
        predicted=exact * rng.normal(1, 0.1, 2_000),
        asked=rng.integers(0, 1_000, (2_000, 2)),
        pool=np.arange(1_000),
        vectors=fitted.encode(measures[:1_000]),
        hoods=hoods,
        predicted_hoods=hoods.exact * rng.normal(1, 0.1, (20, 1_000)),
    )
    check(write_report(fitted, measures[:1_000], by_hand(large), tmp_path / "report.html", labels[:1_000], DAY))


@pytest.mark.parametrize("kind", ["images", "clouds"])
def test_drawings_of_large_measures_stay_small(kind: str) -> None:
    rng = np.random.default_rng(0)
    measures = (
        wembed.Measures.from_images(rng.uniform(0.1, 1, (30, 300, 200)))
        if kind == "images"
        else wembed.Measures.from_point_clouds(list(rng.normal(size=(30, 5_000, 6))))
    )
    portraits = Portraits.of(measures)
    rows = [("exact", list(range(1, 11)), [1.0] * 10), ("predicted", list(range(11, 21)), [1.0] * 10)]
    with plain_style():
        ranking, _ = rendered(draw_ranking(portraits, 0, rows))
        pairs, _ = rendered(draw_pairs(portraits, np.arange(16).reshape(8, 2), ["title"] * 8))
    assert 3 * len(ranking) + len(pairs) < 0.7 * MOST


def test_maps_have_north_above() -> None:
    from matplotlib.figure import Figure

    cities = wembed.Measures.from_point_clouds([[[50.0, 10.0], [-20.0, 30.0]]])
    axes = Figure().add_subplot()
    portraits = Portraits.of(cities, wembed.GroundCost("great-circle-degrees", 1))
    portraits.draw(axes, 0, portraits.frame([0]))
    drawn = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(drawn, [[10, 50], [30, -20]])
    meridians, parallels = (
        [line for line in axes.lines if list(line.get_data()[across]) == [0, 1]] for across in (1, 0)
    )
    assert [line.get_xdata()[0] for line in meridians] == [0, 30]
    assert [line.get_ydata()[0] for line in parallels] == [0, 30]
    equator, other = (line.get_linewidth() for line in parallels)
    assert equator > other
    assert "lines 30 degrees apart" in portraits.legend
    assert Portraits.of(cities).legend == ""


@pytest.mark.parametrize(("metric", "unit"), [("great-circle-degrees", 1.0), ("great-circle", np.pi / 180)])
def test_maps_are_not_torn_where_longitudes_end(metric: str, unit: float) -> None:
    from matplotlib.figure import Figure

    islands = wembed.Measures.from_point_clouds([np.array([[-17.0, 178.0], [-18.0, -179.0]]) * unit, [[0.0, 0.1]]])
    portraits, axes = Portraits.of(islands, wembed.GroundCost(metric, 1)), Figure().add_subplot()
    for places in ([0], [0, 1]):
        frame = portraits.frame(places)
        portraits.draw(axes, 0, frame)
        drawn = np.asarray(axes.collections[-1].get_offsets()) / unit
        np.testing.assert_allclose(np.diff(drawn, axis=0), [[3, -1]], atol=1e-6)
        assert (frame[0] <= drawn[:, 0] * unit).all()
        assert (drawn[:, 0] * unit <= frame[1]).all()
    assert (frame[1] - frame[0]) / unit < 1.12 * 185


def test_matrices_place_their_points() -> None:
    matrix = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    bins = wembed.Measures.from_histograms(np.eye(4) + 0.1, np.zeros(4) + np.arange(4) ** 2)
    left, right, *_ = Portraits.of(bins, wembed.GroundCost(matrix, 1)).frame([0])
    assert right - left == pytest.approx(3 * 1.12)


def test_rounds_and_steps_are_drawn_where_there_are_some() -> None:
    curve = LearningCurve((Round(5_000, 0.02, 1.0, 1.0), Round(20_000, 0.01, 1.0, 1.0)), 1e-3, 1e-4)
    with plain_style():
        assert len(draw_learning(curve, [(0, 1.0), (10, 0.5)]).axes) == 2
        assert len(draw_learning(curve, []).axes) == 1
        assert len(draw_learning(None, [(0, 1.0), (10, 0.5)]).axes) == 1


def test_labels_differ_by_their_marker_and_not_by_colour_alone() -> None:
    rng = np.random.default_rng(0)
    with plain_style():
        axes = draw_map(rng.normal(size=(50, 2)), [str(i % 10) for i in range(50)], None).axes[0]
    assert len({line.get_marker() for line in axes.lines}) == 10


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"file": "report.pdf"}, "ends in .html"),
        ({"file": "nowhere/report.html"}, "make it first"),
        ({"labels": ["a", "b"]}, "there are 2 labels and 80 measures"),
        ({"count": 79}, "the report is of 80 measures and these are 79"),
    ],
)
def test_what_cannot_be_reported_is_refused_before_anything_is_written(
    wrong: dict[str, object],
    sentence: str,
    fitted: wembed.Embedder,
    unseen: wembed.Measures,
    report: Report,
    tmp_path: Path,
) -> None:
    file, labels = tmp_path / str(wrong.get("file", "report.html")), wrong.get("labels")
    with pytest.raises(wembed.SettingError, match=sentence):
        write_report(fitted, unseen[: wrong.get("count", 80)], report, file, labels)
    assert list(tmp_path.iterdir()) == []


# What a browser makes of a page, written into it where --dump-dom shows it.
PROBE = """<pre id="probe"></pre><script>
addEventListener("load", () => {
  const widths = Array.from(document.images, image => image.naturalWidth);
  const boxes = Array.from(document.querySelectorAll("figure svg"), svg => {
    const box = svg.getBBox(), shown = svg.getBoundingClientRect();
    return [box.width, box.height, shown.width, shown.height];
  });
  const overhang = document.documentElement.scrollWidth - innerWidth;
  document.getElementById("probe").textContent = JSON.stringify({widths, boxes, overhang});
});
</script>"""


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="there is no Chromium")
@pytest.mark.parametrize("width", [390, 1_000])
def test_a_browser_shows_every_picture_and_logs_no_error(width: int, full: list[Path], tmp_path: Path) -> None:
    text = full[0].read_text()
    rasters = "".join(f'<img hidden src="{raster}">' for raster in re.findall(r'"(data:image/png;base64,[^"]+)"', text))
    (tmp_path / "copy.html").write_text(text.replace("</body>", f"{rasters}{PROBE}</body>"))
    quiet = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    silent = "--disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --v=0"
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            *quiet.split(),
            *silent.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900",
            "--virtual-time-budget=5000",
            "--dump-dom",
            f"file://{tmp_path / 'copy.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<pre id="probe">(\{.*?\})</pre>', done.stdout)
    assert found is not None
    seen = json.loads(found[1])
    assert len(seen["widths"]) == text.count("<image ")
    assert min(seen["widths"]) >= 1
    assert len(seen["boxes"]) == text.count("<svg ")
    assert min(min(box) for box in seen["boxes"]) > 100
    assert seen["overhang"] <= 0


@pytest.mark.parametrize("file", ["scatter", "worst"])
def test_embedded_rasters_are_whole(file: str, full: list[Path]) -> None:
    import io

    from PIL import Image

    svg = next(one for one in full if one.name == f"{file}.svg").read_text()
    rasters = re.findall(r'"data:image/png;base64,\s*([^"]+)"', svg)
    assert rasters
    for raster in rasters:
        Image.open(io.BytesIO(base64.b64decode(raster))).verify()


def test_it_is_told_where_near_pairs_are_too_long_and_far_ones_too_short() -> None:
    exact = np.linspace(1, 2, 200)
    told = sections._leaning(exact, 0.1 * (1.5 - exact))
    assert told.replace("\u00a0", " ") == "Of the nearest fifth 100 % are too long, of the farthest fifth 0.00 %."
    either = np.tile([0.1, -0.1], 100)
    assert sections._leaning(exact, either) == "Predictions are too long about as often as too short."
    assert "100\u00a0% of the predictions are too short." in sections._leaning(exact, -np.abs(either))
