"""Scores against definitions worked out by hand."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

import wembed
from wembed.learning.baselines import LinearOT, SlicedWasserstein
from wembed.learning.evaluation import MEAN, Intervals, Neighborhoods, compare, score


def noisy(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    exact = rng.uniform(1, 5, count)
    return exact * rng.uniform(0.9, 1.1, count), exact


def test_scores_are_their_definitions() -> None:
    predicted, exact = noisy()
    found = score(predicted, exact, order=2)
    assert found.mse == pytest.approx(np.mean((exact**2 - predicted**2) ** 2))
    assert found.relative_mse == pytest.approx(found.mse / np.mean(exact**4))
    assert found.relative_error == pytest.approx(np.mean(np.abs(predicted - exact) / exact))
    assert found.r2 == pytest.approx(1 - np.sum((exact - predicted) ** 2) / np.sum((exact - exact.mean()) ** 2))
    assert found.pearson == pytest.approx(np.corrcoef(exact, predicted)[0, 1])
    assert found.spearman == pytest.approx(stats.spearmanr(exact, predicted)[0])
    assert (found.ratio_p01, found.ratio_p99) == pytest.approx(np.percentile(predicted / exact, [1, 99]))


def test_a_perfect_prediction_has_no_error() -> None:
    _, exact = noisy()
    found = score(exact, exact, order=1)
    assert (found.mse, found.relative_error, found.r2) == (0, 0, 1)


def test_a_constant_prediction_has_no_correlation_and_no_nan() -> None:
    _, exact = noisy()
    found = score(np.full(len(exact), exact.mean()), exact, order=2)
    assert found.pearson is None
    assert found.r2 == pytest.approx(0)


def test_pairs_at_distance_zero_do_not_enter_relative_errors() -> None:
    found = score(np.array([0.1, 2.2, 3.3]), np.array([0.0, 2.0, 3.0]), order=2)
    assert found.relative_error == pytest.approx(0.1)


def test_recall_counts_shared_neighbours_and_leaves_the_query_out() -> None:
    exact = np.arange(30.0)[None]
    hoods = Neighborhoods(np.array([0]), exact)
    assert hoods.recall(exact) == 1.0
    half = exact.copy()
    half[0, 1:6] = 100  # five of the ten nearest are lost
    assert hoods.recall(half) == 0.5
    assert hoods.recall(-exact) == 0.0


def test_measures_that_are_all_alike_are_not_evaluated(fitted: wembed.Embedder) -> None:
    halves = [np.repeat(np.arange(4.0), k)[:, None] * [1, 1] for k in range(1, 13)]  # atoms split into k
    alike = wembed.Measures.from_point_clouds(halves)
    assert len(np.unique(alike.digests())) == 12
    with pytest.raises(wembed.SettingError, match="are at distance 0 of each other; give some that differ"):
        wembed.evaluate(fitted, alike, queries=0)


def test_recall_needs_enough_measures() -> None:
    assert Neighborhoods(np.array([0]), np.zeros((1, 15))).recall(np.zeros((1, 15))) is None


def test_a_report_scores_every_method_on_the_same_unseen_pairs(
    fitted: wembed.Embedder, some_digits: wembed.Measures, digit_store: wembed.DistanceStore
) -> None:
    unseen = some_digits[fitted.split_.test]
    pairs, exact = digit_store.pairs, digit_store.distances
    held = np.isin(pairs, fitted.split_.validation).all(axis=1)
    rows = np.searchsorted(fitted.split_.validation, pairs[held])
    validation = some_digits[fitted.split_.validation]
    others = {
        "linear OT": LinearOT(16).fit(validation, rows, exact[held]),
        "sliced": SlicedWasserstein(2).fit(validation, rows, exact[held]),
    }
    report = wembed.evaluate(fitted, unseen, pairs=150, queries=3, others=others)
    assert set(report.errors) == {"wembed", "linear OT", "sliced", MEAN}
    for name in ("wembed", "linear OT", "sliced"):
        assert report.errors[name].relative_error < 0.5 * report.errors[MEAN].relative_error
    assert report.errors[MEAN].recall_at_10 == pytest.approx(10 / 29)
    assert report.pairs == 150
    drawn = report.asked
    assert len(np.unique(drawn, axis=0)) == 150
    np.testing.assert_array_equal(report.exact, wembed.exact_distances(unseen, drawn))
    np.testing.assert_allclose(report.predicted, fitted.distance(unseen[drawn[:, 0]], unseen[drawn[:, 1]]), rtol=1e-5)
    assert fitted.errors_ == report.as_dict()
    assert {"exact", "predicted"}.isdisjoint(report.as_dict())


def test_the_same_measures_ask_for_neighbours_whatever_pairs_are_known() -> None:
    clouds = wembed.Measures.from_point_clouds(list(np.random.default_rng(0).normal(size=(40, 3, 2))))
    known = np.array([[0, 1], [5, 9], [7, 2]])

    def asking(known: tuple[np.ndarray, np.ndarray] | None) -> list[list[int]]:
        settings: dict[str, Any] = {"cost": wembed.GroundCost(), "mean_distance": 1.0, "queries": 4, "n_jobs": 1}
        report = compare(SlicedWasserstein(2), clouds, 20, candidates=30, known=known, **settings)
        return [report.pool.tolist(), report.hoods.queries.tolist()]

    assert asking(None) == asking((known, wembed.exact_distances(clouds, known, n_jobs=1)))


def test_linear_ot_is_exact_for_translates() -> None:
    cloud = np.random.default_rng(0).normal(size=(20, 2))
    measures = wembed.Measures.from_point_clouds([cloud, cloud + [3, 4], cloud * 2])
    baseline = LinearOT(8).fit(measures, np.array([[0, 2]]), wembed.exact_distances(measures, [(0, 2)]))
    vectors = baseline.transform(measures)
    assert np.linalg.norm(vectors[0] - vectors[1]) == pytest.approx(5, rel=1e-5)


def test_recall_is_looked_for_among_a_bounded_number(fitted: wembed.Embedder, some_digits: wembed.Measures) -> None:
    report = wembed.evaluate(fitted, fitted.unseen(some_digits), pairs=3, queries=2, candidates=25)
    assert (report.queries, report.candidates) == (2, 25)
    assert report.errors[MEAN].recall_at_10 == pytest.approx(10 / 24)


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"queries": -1}, {"seed": -1}, {"candidates": 0}])
def test_counts_below_the_least_are_refused(
    wrong: dict[str, int], fitted: wembed.Embedder, some_digits: wembed.Measures
) -> None:
    with pytest.raises(
        wembed.SettingError, match="{}={}; give a whole number of at least".format(*next(iter(wrong.items())))
    ):
        wembed.evaluate(fitted, fitted.unseen(some_digits)[:20], **wrong)


def test_one_measure_cannot_be_evaluated(fitted: wembed.Embedder, some_digits: wembed.Measures) -> None:
    with pytest.raises(wembed.SettingError, match="at least two"):
        wembed.evaluate(fitted, fitted.unseen(some_digits)[[0]])


def test_an_exact_embedding_finds_all_neighbours_among_drawn_candidates() -> None:
    places = np.random.default_rng(0).normal(size=(80, 1, 1))
    diracs = wembed.Measures.from_point_clouds(list(places))

    class Places:
        def transform(self, measures: wembed.Measures) -> np.ndarray:
            return measures.centroids().astype(np.float32)

    report = compare(
        Places(), diracs, 10, cost=wembed.GroundCost(), mean_distance=1.0, queries=5, candidates=30, n_jobs=1
    )
    assert report.errors["wembed"].recall_at_10 == 1.0
    assert report.errors["wembed"].relative_error < 1e-5


def test_coverage_is_the_share_of_the_pairs_within_and_stands_in_the_numbers(
    fitted: wembed.Embedder, some_digits: wembed.Measures
) -> None:
    report = wembed.evaluate(fitted, fitted.unseen(some_digits)[:12], pairs=10, queries=1, n_jobs=1)
    lower = np.stack([report.exact + np.repeat([1, 0], 5), report.exact - 1])
    intervals = Intervals((0.5, 0.9), lower, np.stack([report.exact + 2, report.exact]))
    np.testing.assert_array_equal(intervals.coverage(report.exact), [0.5, 1.0])
    plain = replace(report, intervals=intervals, unusualness=np.zeros(12)).as_dict()
    assert plain["coverage"] == {"0.5": 0.5, "0.9": 1.0}
    assert json.loads(json.dumps(plain)) == plain


def test_an_evaluation_encodes_each_measure_once(
    fitted: wembed.Embedder, some_digits: wembed.Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, encoded, encode = fitted.unseen(some_digits)[:15], list[int](), wembed.Embedder.encode
    monkeypatch.setattr(wembed.Embedder, "encode", lambda *given: [encoded.append(len(given[1])), encode(*given)][1])
    wembed.evaluate(fitted, fresh, pairs=10, queries=1, candidates=12, n_jobs=1)
    assert encoded == [15]


def test_a_report_says_which_measures_it_is_of(fitted: wembed.Embedder, some_digits: wembed.Measures) -> None:
    some_digits = fitted.unseen(some_digits)
    report = wembed.evaluate(fitted, some_digits, pairs=15, queries=2, candidates=25, seed=3, n_jobs=1)
    left, right = (some_digits[report.asked[:, side]] for side in (0, 1))
    np.testing.assert_allclose(report.predicted, fitted.distance(left, right), rtol=1e-5)
    np.testing.assert_array_equal(report.exact, wembed.exact_distances(some_digits, report.asked, n_jobs=1))
    np.testing.assert_array_equal(report.vectors, fitted.transform(some_digits))
    asking = some_digits[report.pool[report.hoods.queries]]
    np.testing.assert_allclose(
        report.predicted_hoods, fitted.pairwise(asking, some_digits[report.pool]), rtol=1e-4, atol=1e-4
    )
    assert (report.predicted_hoods.shape, report.hoods.exact.shape, report.seed) == ((2, 25), (2, 25), 3)
