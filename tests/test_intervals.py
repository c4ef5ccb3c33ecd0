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


@pytest.fixture(scope="module")
def model() -> IntervalModel:
    rng = np.random.default_rng(0)
    return IntervalModel.fit(*made_up(rng, 2_000)).calibrated(*made_up(rng, 4_000))


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
        few = IntervalModel.fit(*made_up(rng, 60)).calibrated(*made_up(rng, 25))
        traits, predicted, exact = made_up(rng, 200)
        lower, upper = few.interval(0.8, traits, predicted)
        shares.append(((lower <= exact) & (exact <= upper)).mean())
    assert np.mean(shares) == pytest.approx(0.8, abs=0.02)


def test_chances_are_the_shares_they_say(model: IntervalModel) -> None:
    traits, predicted, exact = made_up(np.random.default_rng(6), 40_000)
    for share in (0.95, 0.98, 1.0, 1.03):
        chance = model.chance_below(share * predicted, traits, predicted)
        assert chance.mean() == pytest.approx((exact < share * predicted).mean(), abs=0.02)
    far = model.chance_below(0.5 * predicted, traits, predicted)
    assert (far > 0).all()
    assert far.max() < 0.02


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
    few = IntervalModel.fit(*made_up(rng, 50)).calibrated(*made_up(rng, 30))
    few.interval(0.9, *made_up(rng, 5)[:2])
    assert few.highest_level == pytest.approx(1 - 2 / 31)
    with pytest.raises(SettingError, match=r"takes 199 calibration pairs .* and the model has 30"):
        few.interval(0.99, *made_up(rng, 5)[:2])
