"""The page in a real browser: what is drawn finds its like, by pixels and by text; with the mouse, keys and a thumb."""

import io
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser, browsing
from halved import halved_digits
from PIL import Image
from serving import running

import wembed
from wembed import Embedder, Index, Measures
from wembed.serve.keys import add_key, read_keys

# WEMBED_SCREENSHOTS=docs/pictures makes the picture of the README anew.
OUTPUT = Path(os.environ.get("WEMBED_SCREENSHOTS", Path(__file__).parent / "output"))
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium")
Stroke = Callable[[float, float], list[tuple[float, float]]]
NEAR = "[...document.querySelectorAll('#near li')]"


@pytest.fixture(scope="module")
def folder(fitted: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    measures, labels = halved_digits()
    place = tmp_path_factory.mktemp("page") / "index"
    Index(fitted, measures[:2_000], labels=[str(label) for label in labels[:2_000]]).save(place)
    return place


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with running(folder) as url:
        yield url


@pytest.fixture
def page(url: str, tmp_path: Path) -> Iterator[Browser]:
    with browsing(tmp_path / "profile") as browser:
        browser.open(url)
        yield browser
        assert browser.errors == []


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def shot(page: Browser, name: str) -> np.ndarray:
    OUTPUT.mkdir(exist_ok=True)
    return pixels(page.screenshot(OUTPUT / f"{name}.png"))


def ring(x: float, y: float) -> list[tuple[float, float]]:
    """A zero."""
    return [(x + 42 * math.sin(a * math.pi / 12), y - 78 * math.cos(a * math.pi / 12)) for a in range(25)]


def bar(x: float, y: float) -> list[tuple[float, float]]:
    """A one."""
    return [(x + 8 - k, y - 75 + 9.5 * k) for k in range(17)]


@pytest.mark.parametrize(("digit", "stroke"), [("0", ring), ("1", bar)])
def test_a_digit_that_is_drawn_finds_its_like(page: Browser, digit: str, stroke: Stroke) -> None:
    x, y = page.middle("#pad")
    before = shot(page, f"empty-{digit}")
    page.drag(stroke(x, y))
    page.until("document.getElementById('near-title').innerText.includes('drawing')")
    page.until(f"{NEAR}.filter((one) => one.dataset.label === {digit!r}).length >= 7")
    labels = page.run(f"{NEAR}.map((one) => one.dataset.label)")
    assert len(labels) == 10
    near = [
        float(text.split(":")[1]) for text in page.run(f"{NEAR}.map((one) => one.querySelector('output').innerText)")
    ]
    assert near == sorted(near)
    assert 0 < near[0] < near[-1] < 6
    after = shot(page, "page" if digit == "0" else f"drawn-{digit}")
    x, y = page.middle("#pad")
    pad = (slice(int(y) - 100, int(y) + 100), slice(int(x) - 100, int(x) + 100))
    assert before[pad].max() == 0
    white = (after[pad].min(axis=2) > 200).mean()
    assert 0.03 < white < 0.4
    shown = page.run("document.querySelector('#near canvas').getContext('2d').getImageData(0, 0, 14, 14).data.length")
    assert shown == 14 * 14 * 4


def test_the_map_shows_each_label_in_its_colour(page: Browser) -> None:
    seen = shot(page, "map")[60:, :800]
    legend = page.run("[...document.querySelectorAll('#legend li')].map((one) => one.innerText)")
    assert legend == list("0123456789")
    blue, amber = np.array([0, 0x72, 0xB2]), np.array([0xE6, 0x9F, 0])
    for colour in (blue, amber):
        assert (np.abs(seen - colour).sum(axis=2) == 0).sum() > 300


def test_a_point_that_is_clicked_shows_its_neighbours_and_their_exact_distance(page: Browser, url: str) -> None:
    with wembed.Client(url) as client:
        x, y = page.middle("#map")
        page.run("document.getElementById('map').focus()")
        page.press("Enter")
        page.until(f"{NEAR}.length === 10")
        (chosen,) = page.run("[...document.querySelectorAll('#chosen figcaption')].map((one) => one.innerText)")
        number = int(chosen.split("(")[1].rstrip(")"))
        measure = Measures.from_point_clouds([client[number].measure.support], [client[number].measure.weights])
        expected = client.query(measure, 11).ids[0]
        captions = page.run(f"{NEAR}.map((one) => one.querySelector('figcaption').innerText)")
        assert {int(text.split("(")[1].rstrip(")")) for text in captions} == {*expected.tolist()} - {number}
        page.click("#near li button:not(.picture)")
        page.until("document.querySelectorAll('#near output')[1].innerText.startsWith('exact')")
        told = float(page.run("document.querySelectorAll('#near output')[1].innerText").split(":")[1])
        other = client[int(captions[0].split("(")[1].rstrip(")"))].measure
        pair = Measures.from_point_clouds([measure[0].support, other.support], [measure[0].weights, other.weights])
        assert told == pytest.approx(wembed.exact_distances(pair, [(0, 1)])[0], rel=5e-3)
        page.click("#compare")
        page.click("#near li:nth-child(3) button.picture")
        page.until("document.getElementById('between').innerText.includes('learned')")
        assert page.run("document.querySelectorAll('#chosen figure').length") == 2
        page.click("#between button")
        page.until("document.getElementById('between').innerText.includes('exact:')")
        shot(page, "two")
        page.mouse("mouseMoved", x, y)


def test_it_zooms_to_thumbnails_and_by_keys(page: Browser) -> None:
    x, y = page.middle("#map")
    for _ in range(8):
        page.tell("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-100)
    page.until("performance.getEntriesByType('resource').some((one) => one.name.includes('/v1/measures?'))")
    page.run("new Promise((done) => setTimeout(done, 400))")
    seen = shot(page, "thumbnails")[100:700, 150:800]
    assert (seen.max(axis=2) < 10).mean() > 0.03  # the ground of pictures is black
    page.run("document.getElementById('map').focus()")
    for key in ("ArrowLeft", "ArrowUp", "-", "-"):
        page.press(key)
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert (shot(page, "moved")[100:700, 150:800] != seen).any()


def test_it_suits_a_phone_and_the_dark(page: Browser, url: str) -> None:
    page.resize(390, 800, phone=True, dark=True)
    page.open(url)
    dark = shot(page, "phone-dark")
    assert dark[5, 5].max() < 60
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.run("scrollTo(0, 10_000)")
    x, y = page.middle("#pad")
    places = [{"x": a, "y": b} for a, b in ring(x, y)]
    top = "document.getElementById('pad').getBoundingClientRect().y"
    at = page.run(top)
    page.tell("Input.dispatchTouchEvent", type="touchStart", touchPoints=places[:1])
    for place in places[1:]:
        page.tell("Input.dispatchTouchEvent", type="touchMove", touchPoints=[place])
        assert page.run(top) == at  # the pad does not move away under the finger
    page.tell("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.until(f"{NEAR}.filter((one) => one.dataset.label === '0').length >= 6")
    page.run("document.getElementById('near-part').scrollIntoView()")
    shot(page, "phone-drawn")


def test_a_hundred_thousand_points_stay_smooth(page: Browser) -> None:
    milliseconds = page.run(
        """(async () => {
            const { PointMap } = await import("/static/map.js");
            const canvas = document.getElementById("map"), count = 100_000;
            const map = new PointMap(canvas, document.getElementById("tip"), () => {});
            const wave = (k) => Math.sin(k * 12.9898) * 43758.5453 % 1;
            const x = Array.from({ length: count }, (_, k) => wave(k)), y = x.map((_, k) => wave(k + 0.5));
            map.show({ ids: x.map((_, k) => k), x, y, labels: x.map((_, k) => `${k % 10}`) });
            const times = [];
            for (let k = 0; k < 21; k++) {
                map.move(3, 2);
                const started = performance.now();
                map.drawNow();
                times.push(performance.now() - started);
            }
            return times.sort((a, b) => a - b)[10];
        })()"""
    )
    assert milliseconds < 50  # twenty frames a second, without a GPU and beside other tests


def test_an_image_that_is_dropped_finds_its_like(page: Browser) -> None:
    page.run(
        """(async () => {
            const drawn = new OffscreenCanvas(140, 280), context = drawn.getContext("2d");
            context.fillStyle = "#fff";
            context.fillRect(0, 0, 140, 280);
            context.lineWidth = 22;
            context.ellipse(70, 140, 45, 100, 0, 0, 7);
            context.stroke();
            const files = new DataTransfer();
            files.items.add(new File([await drawn.convertToBlob()], "zero.png"));
            document.getElementById("pad").dispatchEvent(new DragEvent("drop", { dataTransfer: files }));
        })()"""
    )
    page.until(f"{NEAR}.filter((one) => one.dataset.label === '0').length >= 7")
    page.click("#clear")
    page.until("document.getElementById('near-part').hidden")


def test_clouds_are_dots_and_documents_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clouds = Measures.from_point_clouds([rng.normal(size=(12, 2)) * [1 + i % 3, 1] for i in range(80)])
    embedder = Embedder(pairs=300, n_jobs=1, references=0, training=wembed.TrainingSettings(steps=10)).fit(clouds)
    payloads = [{"words": ["some", "words", str(i)]} if i % 2 else None for i in range(80)]
    Index(embedder, clouds, ids=[f"<b>{i}</b>" for i in range(80)], payloads=payloads).save(tmp_path / "index")
    with running(tmp_path / "index") as url, browsing(tmp_path / "profile") as page:
        page.open(url)
        assert page.run("document.getElementById('legend').children.length") == 0
        x, y = page.middle("#pad")
        page.drag([(x - 80 + 20 * k, y) for k in range(9)])
        page.until(f"{NEAR}.length === 10")
        told = "[one.querySelector('figcaption').innerText, one.querySelector('.words')?.innerText ?? null]"
        pairs = page.run(f"{NEAR}.map((one) => {told})")  # at once: the last strokes may still be under way
        for caption, words in pairs:
            number = int(caption.removeprefix("<b>").removesuffix("</b>"))
            assert words == (f"some words {number}" if number % 2 else None)
        dots = "one.querySelector('canvas')?.getContext('2d').getImageData(0, 0, 96, 96).data"
        ink = f"[{dots}?.filter((v, k) => k % 4 === 3 && v > 60).length ?? -1, one.querySelector('.words') !== null]"
        inked = page.run(f"{NEAR}.map((one) => {ink})")
        assert all((count == -1) == words for count, words in inked)
        assert all(count > 100 for count, _ in inked if count >= 0)
        shot(page, "clouds")
        assert page.errors == []


def test_a_service_with_keys_asks_for_one(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "index")
    key = add_key(tmp_path / "keys", "anna", frozenset({"read"}))
    with running(other, read_keys(tmp_path / "keys")) as url, browsing(tmp_path / "profile") as page:
        page.tell("Page.navigate", url=url)
        page.until("document.getElementById('ask')?.open === true")
        page.run("document.getElementById('key').value = 'schlüssel'")  # that no header can have
        assert page.run("document.getElementById('key').checkValidity()") is False
        page.run("document.getElementById('key').value = 'wrong'")
        page.click("#ask button")
        page.until("document.getElementById('wrong-key').textContent === 'The service does not know that key.'")
        page.run(f"document.getElementById('key').value = {key!r}")
        page.click("#ask button")
        page.until("document.body.dataset.ready === 'yes'")


def test_a_slider_goes_from_one_to_the_other(fitted: Embedder, some_digits: Measures, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    decoding = wembed.load(tmp_path / "model").fit_decoder(some_digits[fitted.split_.train], steps=60, mixtures=0)
    measures, labels = halved_digits()
    Index(decoding, measures[:200], labels=[str(label) for label in labels[:200]]).save(tmp_path / "index")
    with running(tmp_path / "index") as url, browsing(tmp_path / "profile") as browser:
        browser.open(url)
        browser.run("document.getElementById('map').focus()")
        browser.press("Enter")
        browser.until(f"{NEAR}.length === 10")
        browser.click("#compare")
        browser.click("#near li:nth-child(9) button.picture")
        browser.until("document.querySelector('.way input') !== null")
        slider = "document.querySelector('.way input')"
        seen = []
        for stop in (0, 10, 20):
            browser.run(f"{slider}.value = {stop}, {slider}.dispatchEvent(new Event('input'))")
            seen.append(browser.run("document.querySelector('.way canvas').toDataURL()"))
            assert browser.run("document.querySelector('.way output').innerText") == f"{5 * stop} % of the way"
        assert len(set(seen)) == 3
        browser.run("document.querySelector('.way').scrollIntoView()")
        shot(browser, "slider")
        assert browser.errors == []


def test_a_service_that_is_gone_is_told_and_nothing_else_breaks(
    fitted: Embedder, some_digits: Measures, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    Index(fitted, some_digits[:50]).save(folder)
    with browsing(tmp_path / "profile") as browser:
        with running(folder) as url:
            browser.open(url)
            browser.run("document.getElementById('map').focus()")
        browser.press("Enter")
        browser.until("document.querySelector('#chosen .trouble') !== null")
        assert "does not answer" in browser.run("document.querySelector('.trouble').innerText")
        assert all("ERR_CONNECTION_REFUSED" in one for one in browser.errors)  # the browser itself tells of it
