"""Intervals cover what they promise, of errors whose law is known."""

import numpy as np
import pytest

from wembed import SettingError
from wembed.learning.intervals import IntervalModel


def made_up(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions too short near zero and where the first trait is high, and surest where the second is low."""
    predicted = rng.gamma(6.0, 0.5, count)
    traits = np.stack([rng.normal(size=count), rng.uniform(0, 1, count), rng.normal(size=count)], axis=1)
    spread = 0.01 * np.exp(1.5 * traits[:, 1])
    exact = predicted * (1 + 0.05 * np.exp(-predicted) + 0.02 * traits[:, 0] + spread * rng.standard_t(5, count))
    return traits, predicted, np.abs(exact)


def apart(count: int) -> np.ndarray:
    """Pairs that share no measure."""
    return np.arange(2 * count).reshape(-1, 2)


def sharing(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of measures that make each of their distances longer or shorter."""
    pairs = np.stack(np.triu_indices(count, 1), axis=1)
    predicted, lengthened = rng.gamma(6.0, 0.5, len(pairs)), 0.02 * rng.standard_t(5, count)
    exact = predicted * (1 + lengthened[pairs].sum(axis=1) + 0.01 * rng.normal(size=len(pairs)))
    return rng.normal(size=(len(pairs), 3)), predicted, exact, pairs


@pytest.fixture(scope="module")
def model() -> IntervalModel:
    rng = np.random.default_rng(0)
    return IntervalModel.fit(*made_up(rng, 2_000)).calibrated(*made_up(rng, 4_000), apart(4_000))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.98])
def test_a_share_of_exact_distances_lies_within(model: IntervalModel, level: float) -> None:
    traits, predicted, exact = made_up(np.random.default_rng(1), 20_000)
    lower, upper = model.interval(level, traits, predicted)
    inside = (lower <= exact) & (exact <= upper)
    assert inside.mean() == pytest.approx(level, abs=0.02)
    for part in np.array_split(np.argsort(predicted), 5):
        assert inside[part].mean() == pytest.approx(level, abs=0.05)


def test_the_estimate_is_nearer_than_the_prediction(model: IntervalModel) -> None:
    traits, predicted, exact = made_up(np.random.default_rng(2), 5_000)
    estimate = model.estimate(traits, predicted)
    assert np.abs(estimate - exact).mean() < 0.85 * np.abs(predicted - exact).mean()


def test_intervals_are_wide_where_errors_are(model: IntervalModel) -> None:
    traits, predicted, _ = made_up(np.random.default_rng(3), 4_000)
    lower, upper = model.interval(0.9, traits, predicted)
    width = (upper - lower) / predicted
    sure, unsure = traits[:, 1] < 0.2, traits[:, 1] > 0.8
    assert np.median(width[unsure]) > 1.8 * np.median(width[sure])


def test_a_higher_level_contains_a_lower_one(model: IntervalModel) -> None:
    traits, predicted, _ = made_up(np.random.default_rng(4), 500)
    narrow, wide = (model.interval(level, traits, predicted) for level in (0.6, 0.95))
    assert (wide[0] <= narrow[0]).all()
    assert (narrow[1] <= wide[1]).all()


def test_coverage_is_right_in_the_mean_however_few_calibrate() -> None:
    rng, shares = np.random.default_rng(5), []
    for _ in range(300):
        few = IntervalModel.fit(*made_up(rng, 60)).calibrated(*made_up(rng, 25), apart(25))
        traits, predicted, exact = made_up(rng, 200)
        lower, upper = few.interval(0.8, traits, predicted)
        shares.append(((lower <= exact) & (exact <= upper)).mean())
    assert np.mean(shares) == pytest.approx(0.8, abs=0.02)


def test_coverage_is_right_in_the_mean_where_pairs_share_measures() -> None:
    rng, shares = np.random.default_rng(8), []

    for _ in range(300):
        few = IntervalModel.fit(*sharing(rng, 30)[:3]).calibrated(*sharing(rng, 30))
        traits, predicted, exact, _ = sharing(rng, 40)
        lower, upper = few.interval(0.9, traits, predicted)
        shares.append(((lower <= exact) & (exact <= upper)).mean())
    assert 0.89 <= np.mean(shares) <= 0.94


def test_chances_are_the_shares_they_say(model: IntervalModel) -> None:
    traits, predicted, exact = made_up(np.random.default_rng(6), 40_000)
    nothing = np.zeros(len(exact)), np.zeros(len(exact), dtype=np.int64)
    for share in (0.95, 0.98, 1.0, 1.03):
        chance = model.chance_below(share * predicted, traits, predicted, *nothing)
        assert chance.mean() == pytest.approx((exact < share * predicted).mean(), abs=0.02)
    far = model.chance_below(0.5 * predicted, traits, predicted, *nothing)
    assert (far > 0).all()
    assert far.max() < 0.02


def test_what_is_solved_of_a_measure_tells_of_its_other_pairs() -> None:
    rng = np.random.default_rng(9)
    model = IntervalModel.fit(*sharing(rng, 60)[:3]).calibrated(*sharing(rng, 300))
    assert 0.3 < model.shared < 0.5  # of the variance of a pair, each measure's own share is 0.41
    traits, predicted, exact, pairs = sharing(rng, 300)
    solved, left = pairs[:, 0] < 60, pairs[:, 0] >= 60
    scores = model.standard_scores(traits, predicted, exact)
    number = np.bincount(pairs[solved, 1], minlength=300)
    mean = np.bincount(pairs[solved, 1], scores[solved], 300) / np.maximum(number, 1)
    below, chances = exact[left] < predicted[left], []
    for seen in (mean, number), (0 * mean, 0 * number):
        of_pairs = [one[pairs[left, 1]] for one in seen]
        chances.append(model.chance_below(predicted[left], traits[left], predicted[left], *of_pairs))
    knowing, blind = (np.square(chance - below).mean() for chance in chances)
    assert knowing < 0.9 * blind
    for part in np.array_split(np.argsort(chances[0]), 4):
        assert chances[0][part].mean() == pytest.approx(below[part].mean(), abs=0.08)


def test_traits_beyond_those_seen_count_as_the_farthest_seen(model: IntervalModel) -> None:
    predicted = np.full(2, 3.0)
    ends = model.interval(0.9, np.array([model.high, model.high * 50]), predicted)
    np.testing.assert_allclose([end[0] for end in ends], [end[1] for end in ends])


@pytest.mark.parametrize("level", [0, 1, -0.5, 90])
def test_a_level_is_a_share(model: IntervalModel, level: float) -> None:
    with pytest.raises(SettingError, match="give a share between 0 and 1"):
        model.interval(level, np.zeros((1, 3)), np.ones(1))


def test_too_few_calibration_pairs_promise_no_high_level() -> None:
    rng = np.random.default_rng(7)
    few = IntervalModel.fit(*made_up(rng, 50)).calibrated(*made_up(rng, 30), apart(30))
    few.interval(0.9, *made_up(rng, 5)[:2])
    assert few.highest_level == pytest.approx(1 - 2 / 31)
    with pytest.raises(SettingError, match=r"too high a share for a model calibrated on 60 measures.* at most 0\.935"):
        few.interval(0.99, *made_up(rng, 5)[:2])


@pytest.mark.parametrize("count", [9, 40])
def test_the_highest_level_is_kept(count: int) -> None:
    rng, shares = np.random.default_rng(10), []
    for _ in range(250):
        few = IntervalModel.fit(*made_up(rng, 200)).calibrated(*made_up(rng, count), apart(count))
        traits, predicted, exact = made_up(rng, 100)
        lower, upper = few.interval(few.highest_level, traits, predicted)
        shares.append(((lower <= exact) & (exact <= upper)).mean())
    assert np.mean(shares) == pytest.approx(few.highest_level, abs=0.02)


def test_predictions_that_are_equal_fall_into_no_empty_range() -> None:
    rng = np.random.default_rng(11)
    traits, predicted, exact = made_up(rng, 2_000)
    predicted = np.where(predicted < np.median(predicted), 3.0, 5.0)
    model = IntervalModel.fit(traits, predicted, exact).calibrated(traits, predicted, exact, apart(2_000))
    lower, upper = model.interval(0.9, traits, predicted)
    assert np.isfinite([lower, upper]).all()
    assert ((lower <= exact) & (exact <= upper)).mean() == pytest.approx(0.9, abs=0.02)
