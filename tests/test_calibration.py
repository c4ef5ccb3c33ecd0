"""The one-number calibration against answers that are known."""

import numpy as np
import pytest

from wembed.learning.calibration import fitted_scale
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
