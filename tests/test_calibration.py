"""The one-number calibration against answers that are known."""

import numpy as np
import pytest

from wembed.learning.calibration import fitted_scale


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7])
def test_a_known_shrinkage_is_found(scale: float) -> None:
    rng = np.random.default_rng(0)
    learned, fixed = rng.uniform(0.5, 2, 500), rng.uniform(0, 1, 500)
    assert fitted_scale(learned, fixed, np.hypot(fixed, scale * learned)) == pytest.approx(scale, rel=1e-4)


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
