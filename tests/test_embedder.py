"""Embedder: what its vectors promise, what it saves, what it refuses."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline

import wembed
from wembed import Embedder, GroundCost, Measures, SettingError, TrainingSettings
from wembed import learned as learned_module
from wembed.learning import curve, evaluation, shortening
from wembed.learning.encoders import TurnedEncoder


def clouds(count: int, dim: int, seed: int = 0) -> Measures:
    rng = np.random.default_rng(seed)
    return Measures.from_point_clouds(
        [rng.normal(size=(int(rng.integers(3, 12)), dim)) * rng.uniform(0.5, 2, dim) for _ in range(count)]
    )


@pytest.fixture(autouse=True)
def short_vectors_are_soon_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortening, "_STEPS", 60)
    monkeypatch.setattr(shortening, "_LOOK", 20)


def test_predictions_on_unseen_digits_beat_the_mean_by_far(fitted: Embedder, some_digits: Measures) -> None:
    report = wembed.evaluate(fitted, some_digits[fitted.split_.test], pairs=200, queries=0)
    assert report.errors["wembed"].relative_error < 0.05
    assert report.errors["mean predictor"].relative_error > 0.15


def test_translation_is_exact(fitted: Embedder, some_digits: Measures) -> None:
    original = some_digits[:20]
    moved = Measures.from_point_clouds([m.support + [30.0, -40.0] for m in original], [m.weights for m in original])
    np.testing.assert_allclose(fitted.distance(original, moved), 50.0, rtol=1e-5)


def test_distance_is_that_of_the_vectors_and_a_metric(fitted: Embedder, some_digits: Measures) -> None:
    vectors = fitted.transform(some_digits[:30])
    assert vectors.shape == (30, 128)
    assert vectors.dtype == np.float32
    together = fitted.pairwise(some_digits[:30])
    np.testing.assert_allclose(together, together.T, rtol=1e-5)
    assert not np.diagonal(together).any()
    direct = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    np.testing.assert_allclose(together, direct, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fitted.distance(some_digits[:29], some_digits[1:30]), np.diagonal(direct, 1), rtol=1e-5)
    np.testing.assert_allclose(fitted.pairwise(some_digits[:5], some_digits[5:9]), direct[:5, 5:9], rtol=1e-4)


def test_vectors_do_not_depend_on_the_batch(fitted: Embedder, some_digits: Measures) -> None:
    whole = fitted.transform(some_digits)
    np.testing.assert_allclose(fitted.transform(some_digits[40:43]), whole[40:43], atol=2e-5)


def reordered(support: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return support[::-1], weights[::-1]


def padded(support: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([support, [[99.0, 99.0]]]), np.concatenate([weights, [0.0]])


def split(support: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([support, support[:1]]), np.concatenate([weights[:1] / 2, weights[1:], weights[:1] / 2])


@pytest.mark.parametrize("same_measure", [reordered, padded, split])
def test_embedding_depends_on_the_measure_alone(fitted: Embedder, some_digits: Measures, same_measure) -> None:  # type: ignore[no-untyped-def]
    changed = [same_measure(m.support, m.weights) for m in some_digits[:10]]
    again = Measures.from_point_clouds([s for s, _ in changed], [w for _, w in changed])
    np.testing.assert_allclose(fitted.transform(again), fitted.transform(some_digits[:10]), atol=2e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_fitting_scaled_measures_scales_the_distances(
    scale: float, quick: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # as many steps to short vectors as ever: what few come to hangs on rounding
    measures = clouds(60, 2)
    bigger = Measures(measures.offsets, measures.support * scale, measures.weights)
    one = Embedder(dim=8, pairs=400, training=quick, n_jobs=1).fit(measures).pairwise(measures)
    two = Embedder(dim=8, pairs=400, training=quick, n_jobs=1).fit(bigger).pairwise(bigger)
    np.testing.assert_allclose(two / scale, one, rtol=5e-2, atol=1e-2)


def test_the_same_seed_gives_the_same_vectors(
    some_digits: Measures, digit_store: wembed.DistanceStore, fitted: Embedder
) -> None:
    again = Embedder(encoder="quantiles", training=fitted.training).fit(some_digits, distances=digit_store)
    np.testing.assert_array_equal(again.transform(some_digits), fitted.transform(some_digits))


def test_a_store_and_no_store_give_the_same_model(quick: TrainingSettings, tmp_path: Path) -> None:
    measures = clouds(60, 2)
    alone = Embedder(dim=8, pairs=400, training=quick).fit(measures)
    stored = Embedder(dim=8, training=quick).fit(measures, distances=wembed.precompute(measures, tmp_path, pairs=400))
    np.testing.assert_array_equal(alone.transform(measures), stored.transform(measures))


def test_a_solve_is_timed_by_many_pairs_and_not_the_first(
    quick: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures = clouds(60, 2)
    store = wembed.precompute(measures, tmp_path, pairs=400)
    now, calls = 0.0, list[int]()

    def takes_time(_: Measures, pairs: np.ndarray, cost: GroundCost) -> None:
        nonlocal now
        calls.append(len(pairs))
        now += 0.01 * len(pairs) + (0.0 if len(calls) > 1 else 0.15)

    monkeypatch.setattr("wembed.embedder.solve_pairs", takes_time)
    monkeypatch.setattr("wembed.embedder.time", SimpleNamespace(perf_counter=lambda: now))
    fitted = Embedder(training=quick, n_jobs=2).fit(measures, distances=store)
    assert fitted.learning_curve_.seconds_a_pair == pytest.approx(0.01 / 2)
    assert calls == [1, 1, 2, 4, 8, 16]


def test_a_second_fit_times_solves_under_its_own_cost(
    quick: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures, costs = clouds(60, 2), list[float]()
    stores = {
        order: wembed.precompute(measures, tmp_path / str(order), 400, GroundCost(order=order)) for order in (2, 1)
    }
    monkeypatch.setattr("wembed.embedder.solve_pairs", lambda *given: costs.append(given[2].order))
    embedder = Embedder(training=quick, n_jobs=1)
    for order, store in stores.items():
        costs.clear()
        embedder.set_params(order=order).fit(measures, distances=store)
        assert set(costs) == {order}


def test_a_solve_that_takes_long_is_timed_once(
    quick: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures, now = clouds(60, 2), 0.0
    store = wembed.precompute(measures, tmp_path, pairs=400)

    def takes_time(*_: Any) -> None:
        nonlocal now
        now += 20.0

    monkeypatch.setattr("wembed.embedder.solve_pairs", takes_time)
    monkeypatch.setattr("wembed.embedder.time", SimpleNamespace(perf_counter=lambda: now))
    assert Embedder(training=quick, n_jobs=1).fit(measures, distances=store).learning_curve_.seconds_a_pair == now == 20


@pytest.mark.parametrize(("seconds", "counts"), [(5.0, [1]), (0.01, [1, 2, 4, 8, 16]), (0.001, [1, 2, 4, 8, 16, 24])])
def test_encoding_is_timed_by_as_many_measures_as_take_a_tenth_of_a_second(
    seconds: float, counts: list[int], quick: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, timed, encode = 0.0, list[int](), learned_module.Learned.encode

    def takes_time(learned: learned_module.Learned, measures: Measures, *rest: Any) -> np.ndarray:
        nonlocal now
        timed.append(len(measures))
        now += 0.005 + seconds * len(measures)
        return encode(learned, measures, *rest)

    monkeypatch.setattr(learned_module.Learned, "encode", takes_time)
    monkeypatch.setattr(learned_module, "time", SimpleNamespace(perf_counter=lambda: now))
    embedder = Embedder(encoder="quantiles", pairs=300, validation=0.4, calibration=0, training=quick, n_jobs=1)
    embedder.fit(clouds(60, 2))
    assert timed == [1, *counts]  # the first is not counted
    assert embedder.learning_curve_.seconds_a_measure == pytest.approx(seconds + 0.005 / counts[-1])


def test_the_encoder_is_on_its_device_where_it_is_used(
    quick: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, move, forward = list[str](), torch.nn.Module.to, TurnedEncoder.forward
    seen: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda *given: [there.append(str(given[1])), move(*given)][1])
    monkeypatch.setattr(TurnedEncoder, "forward", lambda *given: [seen.append(there[-1]), forward(*given)][1])
    Embedder(encoder="quantiles", device="cpu:0", pairs=400, training=quick, n_jobs=1).fit(clouds(60, 2))
    assert "cpu" in there, "where training leaves it"
    assert set(seen) == {"cpu:0"}


def test_encoding_that_takes_a_while_shows_a_bar(
    fitted: Embedder, some_digits: Measures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = copy.copy(fitted)
    shown.verbose = True
    shown.transform(some_digits)
    assert not capsys.readouterr().err
    monkeypatch.setattr(type(fitted._learned.encoding), "waits_from", len(some_digits))
    shown.transform(some_digits)
    assert "encoding" in (err := capsys.readouterr().err)
    assert "300/300" in err


def test_what_is_no_measures_is_refused_with_a_sentence(run_folder: Path) -> None:
    # in a process of its own, because in this one argument types are checked on entry
    tried = f"""
import wembed
model, store = wembed.load({str(run_folder / "model")!r}), {str(run_folder / "store")!r}
for call in (
    lambda: wembed.Embedder().fit([1.0]),
    lambda: model.transform([1.0]),
    lambda: model.pairwise([1.0]),
    lambda: model.distance([1.0], [1.0]),
    lambda: wembed.evaluate(model, [1.0]),
    lambda: wembed.Index(model, [1.0]),
    lambda: wembed.exact_distances([1.0], [(0, 0)]),
    lambda: wembed.precompute([1.0], store),
):
    try:
        call()
    except wembed.MeasureError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", tried], capture_output=True, text=True, check=False)
    said = "these are no Measures but a list; build them with Measures.from_images, "
    assert done.stdout.count(said) == 8, done.stderr


def test_what_is_no_option_is_refused_with_a_sentence(run_folder: Path, some_digits: Measures, tmp_path: Path) -> None:
    # in a process of its own, as above
    some_digits.save(tmp_path / "measures")
    tried = f"""
import wembed
model, m = wembed.load({str(run_folder / "model")!r}), wembed.Measures.load({str(tmp_path / "measures")!r})
index = wembed.Index(model, m[:30])
for call in (
    lambda: index.query(m[:2], k=1.5),
    lambda: index.query(m[:2], k="3"),
    lambda: index.query(m[:2], k=3, rerank="5"),
    lambda: index.query(m[:2], k=3, recall="0.9"),
    lambda: index.query(m[:2], k=3, certified="yes"),
    lambda: wembed.Index("model", m[:3]),
    lambda: model.calibrate(m, pairs="100"),
    lambda: model.calibrate(m, seed=-1),
    lambda: model.distance(m[:2], m[:2], tolerance="0.02"),
    lambda: model.distance(m[:2], m[:2], refine=1),
    lambda: wembed.bounds(m, [(0, 1)], references="2"),
    lambda: wembed.bounds(m, [(0, 1)], seed=-1),
    lambda: wembed.bounds(m, [(0, 1)], n_jobs="2"),
    lambda: wembed.Embedder(calibration="0.05").fit(m[:100]),
    lambda: wembed.Embedder(pairs="many").fit(m[:100]),
    lambda: wembed.Embedder().fit(m[:100], target_error="0.01"),
    lambda: wembed.evaluate(model, m[:9], pairs="x"),
    lambda: wembed.evaluate("model", m[:9]),
):
    try:
        call()
    except wembed.SettingError as error:
        print(error)
for call in (lambda: model.calibrate([1.0]), lambda: model.bounds(m[:2], None), lambda: model.unseen([1.0])):
    try:
        call()
    except wembed.MeasureError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", tried], capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 21, done.stdout + done.stderr


def test_test_measures_are_seen_by_nothing(quick: TrainingSettings, tmp_path: Path) -> None:
    measures = clouds(60, 2)
    store = wembed.precompute(measures, tmp_path / "a", pairs=400)
    fitted = Embedder(dim=8, training=quick).fit(measures, distances=store)
    moved = measures.support.copy()
    for i in fitted.split_.test:
        moved[measures.offsets[i] : measures.offsets[i + 1]] *= 100
    other = Measures(measures.offsets, moved, measures.weights)
    again = Embedder(dim=8, training=quick).fit(other, distances=wembed.precompute(other, tmp_path / "b", pairs=400))
    np.testing.assert_array_equal(again.transform(measures), fitted.transform(measures))


@pytest.fixture
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "_FIRST", 100)
    monkeypatch.setattr(curve, "_PAYS", -1.0)  # go on as long as there are pairs


@pytest.mark.usefixtures("small_rounds")
def test_rounds_are_the_same_in_memory_in_a_store_and_again(quick: TrainingSettings, tmp_path: Path) -> None:
    measures, settings = clouds(60, 2), {"dim": 8, "pairs": "auto", "training": quick, "n_jobs": 1}
    alone = Embedder(**settings).fit(measures)
    sizes = [one.pairs for one in alone.learning_curve_.rounds]
    assert len(sizes) == 3
    assert sizes == sorted(sizes)
    assert alone.learning_curve_.stopped == "there are hardly more pairs to solve"
    assert alone.pairs_used_["train"] > 0.95 * 42 * 41 / 2
    kept = Embedder(**settings).fit(measures, distances=tmp_path, checkpoint=tmp_path / "training.safetensors")
    again = Embedder(**settings).fit(measures, distances=wembed.DistanceStore(tmp_path))
    assert [one.pairs for one in kept.learning_curve_.rounds] == sizes
    assert wembed.DistanceStore(tmp_path).complete
    assert not list(tmp_path.glob("*.safetensors"))
    for other in (kept, again):
        np.testing.assert_array_equal(other.transform(measures), alone.transform(measures))


@pytest.mark.parametrize(
    "late", ["learned.Candidate.seconds_a_measure", "embedder.Embedder._trusted", "embedder.exact_distances"]
)
def test_a_fit_that_is_interrupted_leaves_the_embedder_as_it_was(
    late: str, quick: TrainingSettings, some_digits: Measures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    def interrupted(embedder: Embedder) -> None:
        embedder.set_params(training=along)
        with monkeypatch.context() as patched:
            patched.setattr(f"wembed.{late}", stop)
            with pytest.raises(KeyboardInterrupt):
                embedder.fit(some_digits[60:])

    along = replace(quick, reconstruction=0.01)
    settings = {"encoder": "quantiles", "pairs": 300, "references": 0, "n_jobs": 1}
    fresh = Embedder(**settings)
    interrupted(fresh)
    with pytest.raises(wembed.NotFittedError, match="call fit"):
        fresh.transform(some_digits)
    embedder = Embedder(**settings, training=quick).fit(some_digits[:60])
    embedder.save(tmp_path / "before")
    interrupted(embedder)
    embedder.save(tmp_path / "after")
    before, after = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("before", "after"))
    assert after == before


@pytest.mark.usefixtures("small_rounds")
def test_rounds_go_on_from_an_interruption(
    quick: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures, settings = clouds(60, 2), {"dim": 8, "pairs": 400, "training": quick, "n_jobs": 1}
    whole = Embedder(**settings).fit(measures, max_seconds=1e6)
    real, steps = learned_module.train, []

    def interrupted(*arguments: Any) -> Any:
        *rest, _ = arguments

        def stop(step: int, total: int, error: float) -> None:
            steps.append(step)
            if len(steps) == 90:  # in the second round
                raise KeyboardInterrupt

        return real(*rest, stop)

    places = {"distances": tmp_path / "distances", "checkpoint": tmp_path / "training.safetensors"}
    monkeypatch.setattr(learned_module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Embedder(**settings).fit(measures, max_seconds=1e6, **places)
    assert len(list(tmp_path.glob("training-*.safetensors"))) == 1
    steps[:] = range(1_000)
    again = Embedder(**settings).fit(measures, max_seconds=1e6, **places)
    assert len(steps) - 1_000 == 2 * (60 + 1) - 20, "the second round goes on from its second check"
    assert not list(tmp_path.glob("*.safetensors"))
    assert len(again.learning_curve_.rounds) == len(whole.learning_curve_.rounds) == 2
    np.testing.assert_array_equal(again.transform(measures), whole.transform(measures))


def test_pairs_are_the_most_that_a_wish_may_take(quick: TrainingSettings) -> None:
    fitted = Embedder(dim=8, pairs=300, training=quick, n_jobs=1).fit(clouds(60, 2), target_error=1e-9)
    assert [one.pairs <= 300 for one in fitted.learning_curve_.rounds] == [True]
    assert fitted.learning_curve_.stopped == "there are hardly more pairs to solve"
    assert fitted.learning_curve_.break_even() > 1


def test_rounds_take_pairs_of_ones_own_as_they_are(quick: TrainingSettings, tmp_path: Path) -> None:
    measures = clouds(60, 2)
    wembed.precompute(measures, tmp_path, pairs="all")
    fitted = Embedder(dim=8, pairs="auto", training=quick, n_jobs=1).fit(measures, distances=tmp_path)
    assert [one.pairs for one in fitted.learning_curve_.rounds] == [60 * 59 // 2]


def test_a_model_is_found_in_its_run_and_never_written_over_a_file(
    fitted: Embedder, run_folder: Path, some_digits: Measures, tmp_path: Path
) -> None:
    np.testing.assert_array_equal(wembed.load(run_folder).transform(some_digits[:3]), fitted.transform(some_digits[:3]))
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(SettingError, match=r"notes\.txt is a file; give a folder"):
        fitted.save(file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("given", ["drawn", "all"])
def test_measures_that_come_often_are_learned_from_once(
    quick: wembed.TrainingSettings, tmp_path: Path, given: str
) -> None:
    measures = clouds(60, 2)
    often = measures[[*range(60), *range(30)]]
    settings = {"pairs": 400, "training": quick, "n_jobs": 1, "references": 0, "encoder": "quantiles"}

    def fit(source: Measures, name: str) -> Embedder:
        if given == "drawn":
            return Embedder(**settings).fit(source)
        return Embedder(**settings).fit(source, distances=wembed.precompute(source, tmp_path / name, "all", n_jobs=1))

    once, again = fit(measures, "once"), fit(often, "often")
    for name, part in once.split_.parts().items():
        np.testing.assert_array_equal(again.split_.parts()[name], part)
    assert again.pairs_used_ == once.pairs_used_
    np.testing.assert_array_equal(once.transform(measures), again.transform(measures))
    assert again.trust.calibrated_on == once.trust.calibrated_on
    fresh = again.unseen(often)
    assert len(fresh) == np.isin(often.digests(), measures[once.split_.test].digests()).sum()


def test_saved_and_loaded_gives_the_same_vectors(fitted: Embedder, some_digits: Measures, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    loaded = wembed.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(some_digits), fitted.transform(some_digits))
    assert loaded.get_params() == fitted.get_params()
    assert loaded.mean_distance_ == fitted.mean_distance_
    np.testing.assert_array_equal(loaded.split_.test, fitted.split_.test)
    assert len(loaded.unseen(some_digits)) == len(fitted.split_.test)
    fresh = np.intersect1d(np.arange(100), fitted.split_.test)
    assert len(loaded.unseen(some_digits[:100])) == len(fresh)
    other = Measures.concatenate([some_digits[fitted.split_.train[:3]], clouds(5, 2)])
    assert loaded.unseen(other).fingerprint == other[3:].fingerprint
    with pytest.raises(wembed.SettingError, match="fitted to or calibrated on all of the 4 measures"):
        loaded.unseen(some_digits[fitted.split_.train[:4]])
    (weights,) = (tmp_path / "model").glob("weights-*.safetensors")
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"model.json", weights.name}


@pytest.mark.parametrize(
    ("metric", "order", "dim"),
    [("euclidean", 1, 2), ("euclidean", 2, 1), ("cityblock", 1, 3), ("chebyshev", 2, 2), ("euclidean", 2, 4)],
)
def test_every_metric_fits_saves_and_predicts(metric: str, order: float, dim: int, tmp_path: Path) -> None:
    measures = clouds(60, dim)
    settings = TrainingSettings(steps=150)
    embedder = Embedder(metric=metric, order=order, dim=64, pairs=700, training=settings, n_jobs=1).fit(measures)
    report = wembed.evaluate(embedder, clouds(30, dim, seed=1), pairs=200, queries=0, n_jobs=1)
    assert report.errors["wembed"].relative_error < 0.7 * report.errors["mean predictor"].relative_error
    embedder.save(tmp_path)
    np.testing.assert_array_equal(wembed.load(tmp_path).transform(measures), embedder.transform(measures))


@pytest.mark.parametrize("unit", ["great-circle", "great-circle-degrees"])
def test_measures_on_the_sphere(unit: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = [rng.normal([40 * rng.uniform(-1, 1), 100 * rng.uniform(-1, 1)], 5, (6, 2)) for _ in range(60)]
    measures = Measures.from_point_clouds([np.deg2rad(p) if unit == "great-circle" else p for p in places])
    embedder = Embedder(unit, 1, dim=16, pairs=700, training=TrainingSettings(steps=150), n_jobs=1).fit(measures)
    report = wembed.evaluate(embedder, measures[embedder.split_.test], pairs=15, queries=0, n_jobs=1)
    assert report.errors["wembed"].relative_error < 0.5 * report.errors["mean predictor"].relative_error
    embedder.save(tmp_path)
    np.testing.assert_array_equal(wembed.load(tmp_path).transform(measures), embedder.transform(measures))


def test_on_the_sphere_every_answer_reads_distances_of_vectors_as_chords() -> None:
    rng = np.random.default_rng(3)
    around = np.stack([rng.uniform(-60, 60, 90), rng.uniform(-180, 180, 90)], axis=1)
    measures = Measures.from_point_clouds([centre + rng.normal(0, 2, (5, 2)) for centre in around])
    settings = TrainingSettings(steps=20)
    embedder = Embedder("great-circle-degrees", 1, pairs=1_000, training=settings, n_jobs=1).fit(measures)
    unseen = measures[embedder.split_.test]
    vectors = embedder.transform(unseen).astype(np.float64)
    chords = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    arcs = 2 * np.rad2deg(np.arcsin(np.minimum(chords * np.pi / 360, 1)))
    assert chords.max() < 0.9 * arcs.max(), "some are far enough apart to tell"
    np.testing.assert_allclose(embedder.pairwise(unseen), arcs, atol=2e-2)
    np.testing.assert_allclose(embedder.distance(unseen, unseen[::-1]), np.diagonal(arcs[::-1]), atol=2e-2)
    for refine in (False, True):
        found = embedder.pairwise(unseen, interval=0.8, refine=refine)
        np.testing.assert_allclose(found.predicted, arcs, atol=2e-2)
    nearest = wembed.Index(embedder, unseen).query(unseen, len(unseen)).distances
    np.testing.assert_allclose(nearest, np.sort(arcs, axis=1), atol=2e-2)
    report = wembed.evaluate(embedder, unseen, pairs=20, queries=0, n_jobs=1)
    np.testing.assert_allclose(report.predicted, arcs[tuple(report.asked.T)], atol=2e-2)
    check = embedder.learning_curve_.error
    assert check < 0.05, "it was compared with exact distances, not with chords"


def test_a_cost_matrix_is_saved_with_the_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(12, 2))
    matrix = np.linalg.norm(places[:, None] - places, axis=2)
    measures = Measures.from_histograms(rng.exponential(size=(60, 12)), np.arange(12.0))
    embedder = Embedder(matrix, 1, dim=8, pairs=700, training=TrainingSettings(steps=150), n_jobs=1).fit(measures)
    report = wembed.evaluate(embedder, measures[embedder.split_.test], pairs=15, queries=0, n_jobs=1)
    assert report.errors["wembed"].relative_error < 0.7 * report.errors["mean predictor"].relative_error
    embedder.save(tmp_path)
    np.testing.assert_array_equal(wembed.load(tmp_path).transform(measures), embedder.transform(measures))


def test_the_network_of_the_paper_learns_images(
    some_digits: Measures, digit_store: wembed.DistanceStore, tmp_path: Path
) -> None:
    settings = TrainingSettings(steps=60, learning_rate=1e-3)
    embedder = Embedder(encoder="dwe", dim=50, training=settings).fit(some_digits, distances=digit_store)
    assert embedder.history_[-1][1] < embedder.history_[0][1]
    embedder.save(tmp_path)
    np.testing.assert_array_equal(wembed.load(tmp_path).transform(some_digits), embedder.transform(some_digits))


def test_scikit_learn_takes_it_for_one_of_its_own(fitted: Embedder, some_digits: Measures) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "split_")
    copy.set_params(dim=16, pairs=300, training=TrainingSettings(steps=5))
    pipeline = make_pipeline(copy, NearestNeighbors(n_neighbors=3)).fit(some_digits)
    assert pipeline[:-1].transform(some_digits).shape == (300, 16)
    assert copy.get_params()["dim"] == 16


def test_digits_of_a_large_offset_survive(quick: TrainingSettings) -> None:
    measures = clouds(60, 2)
    far = Measures(measures.offsets, measures.support + 1e7, measures.weights)
    embedder = Embedder(dim=8, pairs=400, training=quick, n_jobs=1).fit(far)
    predicted = embedder.distance(far[:30], far[30:])
    exact = wembed.exact_distances(far, [(i, 30 + i) for i in range(30)], n_jobs=1)
    assert np.abs(predicted / exact - 1).mean() < 0.3


def test_a_cost_matrix_means_the_same_on_another_processor(tmp_path: Path) -> None:
    rows, columns = np.divmod(np.arange(36), 6)
    matrix = np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns).astype(float)  # equal eigenvalues
    measures = Measures.from_histograms(np.random.default_rng(0).exponential(size=(60, 36)), np.arange(36.0))
    embedder = Embedder(matrix, 1, dim=8, pairs=300, training=TrainingSettings(steps=10), n_jobs=1).fit(measures)
    embedder.save(tmp_path / "model")
    measures.save(tmp_path / "measures")
    script = (
        "import sys, numpy, wembed; folder = sys.argv[1]; "
        "vectors = wembed.load(folder + '/model').transform(wembed.Measures.load(folder + '/measures')); "
        "numpy.save(folder + '/vectors.npy', vectors)"
    )
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), embedder.transform(measures), atol=1e-3)


@pytest.mark.parametrize("points", [np.zeros((1, 2)), np.zeros((3, 2)), np.array([[0.0, 0.0], [1.0, 0.0]])])
def test_a_collection_at_distance_0_of_itself_gives_finite_vectors(points: np.ndarray) -> None:
    alike = [(np.concatenate([points[:1].repeat(k, axis=0), points]), [1 / k] * k) for k in range(1, 31)]
    same = Measures.from_point_clouds([p for p, _ in alike], [np.array([*w, *[1] * len(points)]) for _, w in alike])
    assert len(np.unique(same.digests())) == 30  # one atom in ever more parts
    embedder = Embedder(dim=8, pairs=100, training=TrainingSettings(steps=5), n_jobs=1).fit(same)
    np.testing.assert_allclose(embedder.pairwise(same), 0, atol=1e-12)
    other = Measures.from_point_clouds([np.random.default_rng(0).normal(size=(9, 2))])
    with pytest.warns(wembed.UnusualWarning, match="1 of 1 measures is unlike those"):
        assert np.isfinite(embedder.transform(other)).all()


def test_a_collection_of_one_measure_over_and_over_is_refused() -> None:
    with pytest.raises(SettingError, match="1 measures, without 29 that repeat one of them, are too few"):
        Embedder(pairs=100, n_jobs=1).fit(clouds(1, 2)[[0] * 30])


def test_twenty_measures_are_enough(tmp_path: Path) -> None:
    measures = clouds(20, 2)
    embedder = Embedder(dim=8, training=TrainingSettings(steps=5), n_jobs=1).fit(measures)
    report = wembed.evaluate(embedder, embedder.unseen(measures), n_jobs=1)
    assert report.pairs == 1
    assert report.errors["wembed"].r2 is None
    embedder.save(tmp_path)
    assert wembed.load(tmp_path).errors_ == report.as_dict()


def test_no_measure_has_no_vector(fitted: Embedder, some_digits: Measures) -> None:
    assert fitted.transform(some_digits[:0]).shape == (0, 128)


def test_parameters_set_after_the_fit_wait_for_the_next(
    some_digits: Measures, fitted: Embedder, tmp_path: Path
) -> None:
    before = fitted.transform(some_digits[:5])
    changed = copy.copy(fitted).set_params(dim=3, order=1)
    np.testing.assert_array_equal(changed.transform(some_digits[:5]), before)
    assert changed.cost == wembed.GroundCost("euclidean", 2)
    changed.save(tmp_path)
    loaded = wembed.load(tmp_path)
    assert (loaded.dim, loaded.order) == (fitted.dim, 2)
    np.testing.assert_array_equal(loaded.transform(some_digits[:5]), before)


def test_test_pairs_of_the_store_are_not_solved_again(
    fitted: Embedder, some_digits: Measures, digit_store: wembed.DistanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved = []

    def counting(measures: Measures, pairs: np.ndarray, *rest: Any) -> np.ndarray:
        solved.append(len(pairs))
        return wembed.exact_distances(measures, pairs, *rest)

    monkeypatch.setattr(evaluation, "exact_distances", counting)
    unseen = some_digits[fitted.split_.test]
    held = np.isin(digit_store.pairs, fitted.split_.test).all(axis=1)
    stored, embedder = int(held.sum()), copy.copy(fitted)
    report = wembed.evaluate(embedder, unseen, pairs=stored, queries=0, distances=digit_store, n_jobs=1)
    np.testing.assert_array_equal(np.sort(report.exact), np.sort(digit_store.distances[held]))
    assert (report.errors["wembed"].pearson or 0) > 0.9  # each exact distance beside the prediction of its own pair
    wembed.evaluate(embedder, unseen, pairs=stored + 9, queries=0, distances=digit_store, n_jobs=1)
    assert [count for count in solved if count] == [9]  # the queries, none, are asked for as well
    few = [
        wembed.evaluate(embedder, unseen, 20, seed, queries=0, distances=digit_store, n_jobs=1).exact for seed in (0, 1)
    ]
    assert len(few[0]) == 20
    assert not np.array_equal(*few)  # drawn at random, not the first
    with pytest.raises(wembed.SettingError, match="test measures of its collection"):
        wembed.evaluate(embedder, unseen[::-1], distances=digit_store)


def test_a_store_of_another_fit_is_not_evaluated_on(fitted: Embedder, some_digits: Measures, tmp_path: Path) -> None:
    other = wembed.precompute(some_digits, tmp_path, pairs=100, seed=3, n_jobs=1)
    with pytest.raises(wembed.ArtifactError, match="was fitted with"):
        wembed.evaluate(copy.copy(fitted), some_digits[fitted.split_.test], distances=other)


def test_an_unfinished_store_is_refused(some_digits: Measures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wembed.transport import precompute as module

    measures = some_digits[:60]
    monkeypatch.setattr(module, "solve_blocks", lambda *_: iter(()))
    store = wembed.precompute(measures, tmp_path / "store", pairs=100, n_jobs=1)
    with pytest.raises(wembed.ArtifactError, match=r"holds 0 of \d+ pairs; run the same precompute again"):
        Embedder().fit(measures, distances=store)


def test_an_unfitted_embedder_says_so(some_digits: Measures, tmp_path: Path) -> None:
    with pytest.raises(wembed.NotFittedError, match="call fit"):
        Embedder().transform(some_digits)
    with pytest.raises(wembed.NotFittedError):
        Embedder().save(tmp_path)
    with pytest.raises(wembed.NotFittedError):
        _ = Embedder().decoder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"encoder": "magic"},
            "unknown encoder 'magic'; choose one of auto, quantiles, transport, combined, sinkhorn, dwe",
        ),
        ({"metric": "magic"}, "unknown metric 'magic'"),
        ({"order": 0.5}, "order is 0.5"),
        ({"dim": 0}, "dim=0"),
        ({"pairs": 0}, "pairs=0"),
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"random_state": -1}, "random_state=-1"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"validation": 0.6, "test": 0.6}, "leave no measures"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_solved(
    settings: dict[str, object], said: str, some_digits: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wembed.solved.exact_distances", lambda *_: pytest.fail("solved"))
    with pytest.raises(wembed.SettingError, match=said):
        Embedder(**settings).fit(some_digits)  # type: ignore[arg-type]


def test_a_checkpoint_that_is_none_is_refused_before_anything_is_solved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wembed.solved.exact_distances", lambda *_: pytest.fail("solved"))
    save_file({"weight": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(wembed.ArtifactError, match=r"other\.safetensors belongs to another training"):
        Embedder(pairs=300).fit(clouds(60, 2), checkpoint=tmp_path / "other.safetensors")


def test_too_few_measures_are_refused(some_digits: Measures) -> None:
    with pytest.raises(wembed.SettingError, match="too few to split"):
        Embedder().fit(some_digits[:5])


def test_measures_of_another_dimension_are_refused(fitted: Embedder) -> None:
    with pytest.raises(wembed.MeasureError, match="dimension 3; this model was fitted on dimension 2"):
        fitted.transform(clouds(3, 3))


def test_collections_of_different_lengths_have_no_paired_distance(fitted: Embedder, some_digits: Measures) -> None:
    with pytest.raises(wembed.SettingError, match="use pairwise"):
        fitted.distance(some_digits[:2], some_digits[:3])


def test_a_store_of_other_measures_or_another_cost_is_refused(
    some_digits: Measures, digit_store: wembed.DistanceStore
) -> None:
    with pytest.raises(wembed.ArtifactError, match="other measures"):
        Embedder().fit(some_digits[:200], distances=digit_store)
    with pytest.raises(wembed.ArtifactError, match="another ground cost"):
        Embedder(order=1).fit(some_digits, distances=digit_store)


def test_pairs_of_ones_own_are_split_by_measure(quick: TrainingSettings, tmp_path: Path) -> None:
    measures = clouds(60, 2)
    store = wembed.precompute(measures, tmp_path / "all", pairs="all")
    embedder = Embedder(dim=8, training=quick).fit(measures, distances=store)
    assert embedder.pairs_used_ == {"train": 42 * 41 // 2, "validation": 15}
    few = wembed.precompute(measures, tmp_path / "few", pairs=[(0, 1), (2, 3)])
    with pytest.raises(wembed.SettingError, match="no pair lies within"):
        Embedder(dim=8, training=quick).fit(measures, distances=few)


def test_a_damaged_model_is_refused(run_folder: Path, tmp_path: Path) -> None:
    def copied() -> Path:
        folder = tmp_path / "copy"
        folder.mkdir(exist_ok=True)
        for file in (run_folder / "model").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    (weights,) = copied().glob("weights-*.safetensors")
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    with pytest.raises(wembed.ArtifactError, match=r"safetensors is damaged"):
        wembed.load(tmp_path / "copy")
    weights.unlink()
    with pytest.raises(wembed.ArtifactError, match=r"safetensors is gone"):
        wembed.load(tmp_path / "copy")
    text = (copied() / "model.json").read_text()
    (tmp_path / "copy" / "model.json").write_text(text.replace('"unit": ', '"unit": 1'))
    with pytest.raises(wembed.ArtifactError, match="its checksum is another"):
        wembed.load(tmp_path / "copy")
    (copied() / "model.json").write_text("{")
    with pytest.raises(wembed.ArtifactError, match=r"model\.json is damaged"):
        wembed.load(tmp_path / "copy")
    other = json.loads((copied() / "model.json").read_text()) | {"format": 99}
    (tmp_path / "copy" / "model.json").write_text(json.dumps(other))
    with pytest.raises(wembed.ArtifactError, match="format 99"):
        wembed.load(tmp_path / "copy")
    with pytest.raises(wembed.ReadError, match="holds no model"):
        wembed.load(tmp_path / "nowhere")


def test_points_too_far_out_are_refused_by_name(fitted: wembed.Embedder, some_digits: wembed.Measures) -> None:
    near = some_digits[:2]
    far = wembed.Measures.from_point_clouds([measure.support for measure in near] + [np.array([[0, 0], [1e200, 3]])])
    with pytest.raises(wembed.MeasureError, match=r"measure 2 lies too far out.*check its unit"):
        fitted.transform(far)


def test_distances_beyond_float32_are_refused_before_training() -> None:
    points = np.random.default_rng(0).normal(size=(40, 5, 2))
    for scale in (1e-35, 1e35):
        measures = wembed.Measures.from_point_clouds(list(points * scale))
        with pytest.raises(wembed.SettingError, match="rescale the measures"):
            Embedder(dim=8, pairs=100, training=TrainingSettings(steps=5), n_jobs=1).fit(measures)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 10**12},
        {"dim": np.array([8, 16])},
        {"pairs": np.array([100, 200])},
        {"pairs": "many"},
        {"random_state": 10**23},
        {"random_state": -1},
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_solved(wrong: dict[str, Any]) -> None:
    measures = wembed.Measures.from_point_clouds(list(np.random.default_rng(0).normal(size=(40, 5, 2))))
    with pytest.raises(wembed.SettingError, match=next(iter(wrong))):
        Embedder().set_params(**wrong).check(measures)  # past the types, which tests check on entry


def test_numbers_of_numpy_mean_the_same_as_plain_ones(tmp_path: Path) -> None:
    measures, models = clouds(60, 2), []
    numbers = {"order": 2.0, "dim": 8, "pairs": 400, "references": 2, "random_state": 3, "test": 0.25}
    for settings in (numbers, {name: np.array(value)[()] for name, value in numbers.items()}):
        embedder = Embedder(encoder="quantiles", n_jobs=1).set_params(**settings)  # past the types
        embedder.fit(measures, checkpoint=tmp_path / "training.safetensors").save(tmp_path / "model")
        models.append(wembed.load(tmp_path / "model"))
    plain, other = models
    np.testing.assert_array_equal(other.encode(measures), plain.encode(measures))
    assert other.get_params() == plain.get_params()


@pytest.mark.parametrize(
    ("pairs", "stopped"), [(300, "so many pairs were asked for"), (20_000, "parts of the collection hold no")]
)
def test_a_fit_says_where_there_were_not_so_many_pairs(pairs: int, stopped: str) -> None:
    rng = np.random.default_rng(0)
    clouds = Measures.from_point_clouds([rng.normal(size=(5, 2)) for _ in range(200)])
    embedder = Embedder(pairs=pairs, training=TrainingSettings(steps=3), encoder="quantiles", n_jobs=1).fit(clouds)
    assert embedder.learning_curve_.stopped.startswith(stopped)
