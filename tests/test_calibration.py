"""The one-number calibration against answers that are known."""

import numpy as np
import pytest

from wembed.learning.calibration import fitted_scale, shrunken_scale
from wembed.learning.losses import Loss, distance_error, relative_distance_error


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7])
def test_a_known_shrinkage_is_found(scale: float) -> None:
    rng = np.random.default_rng(0)
    learned, fixed = rng.uniform(0.5, 2, 500), rng.uniform(0, 1, 500)
    assert fitted_scale(learned, fixed, np.hypot(fixed, scale * learned)) == pytest.approx(scale, rel=1e-4)


@pytest.mark.parametrize("loss", [distance_error, relative_distance_error])
def test_of_two_scales_the_loss_says_which_counts(loss: Loss) -> None:
    learned, scales = np.array([0.1, 3.0]), np.array([2.0, 1.0])
    exact = learned * scales
    weights = 1 / exact**2 if loss is relative_distance_error else np.ones(2)
    least_squares = float((weights * learned * exact).sum() / (weights * learned**2).sum())
    assert fitted_scale(learned, np.zeros(2), exact, loss) == pytest.approx(least_squares, rel=2e-3)


def test_no_other_factor_fits_better() -> None:
    rng = np.random.default_rng(1)
    learned, fixed = rng.uniform(0.5, 2, 500), rng.uniform(0, 1, 500)
    exact = np.hypot(fixed, 1.1 * learned) * rng.uniform(0.9, 1.1, 500)

    def error(scale: float) -> float:
        return float(np.square(np.hypot(fixed, scale * learned) - exact).mean())

    best = fitted_scale(learned, fixed, exact)
    assert all(error(best) <= error(best * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_nothing_learned_leaves_the_factor_alone() -> None:
    assert fitted_scale(np.zeros(3), np.ones(3), np.ones(3)) == 1.0


def told(seed: int, measures: int, scale: float, noise: float) -> tuple[float, float]:
    """The fitted and the shrunken factor, where each measure makes all distances to it a little longer or shorter."""
    rng = np.random.default_rng(seed)
    pairs = np.stack(np.triu_indices(measures, 1), axis=1)
    own = rng.normal(scale=noise, size=measures)
    learned, fixed = rng.uniform(0.5, 2, len(pairs)), rng.uniform(0, 0.1, len(pairs))
    exact = np.hypot(fixed, learned * scale * np.exp(own[pairs].sum(axis=1)))
    return fitted_scale(learned, fixed, exact), shrunken_scale(learned, fixed, exact, pairs)


def test_what_few_measures_cannot_tell_is_left_alone() -> None:
    found = np.array([told(seed, 12, 1.0, 0.05) for seed in range(40)])
    fitted, shrunken = np.abs(np.log(found)).T
    assert (shrunken == 0).mean() > 0.5
    assert shrunken.mean() < 0.6 * fitted.mean()


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_what_many_measures_tell_is_believed(scale: float) -> None:
    fitted, shrunken = told(0, 120, scale, 0.02)
    assert shrunken == pytest.approx(fitted, rel=2e-3)


@pytest.mark.parametrize("noise", [0.01, 0.1])
@pytest.mark.parametrize("measures", [3, 4, 30])
def test_a_shrunken_factor_lies_between_the_fitted_one_and_none(measures: int, noise: float) -> None:
    for seed in range(20):
        fitted, shrunken = told(seed, measures, 0.95, noise)
        assert min(fitted, 1.0) <= shrunken <= max(fitted, 1.0)


def test_one_pair_tells_no_factor() -> None:
    assert shrunken_scale(np.ones(1), np.zeros(1), np.full(1, 2.0), np.array([[0, 1]])) == 1.0
