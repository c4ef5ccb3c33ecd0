"""Losses: what they weigh, and which of them suits which distances."""

import numpy as np
import pytest
import torch

from wembed.learning.losses import (
    distance_error,
    relative_deviation,
    relative_distance_error,
    squared_distance_error,
    suited_loss,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", [distance_error, relative_deviation, relative_distance_error, squared_distance_error])
def test_a_loss_is_zero_for_exact_predictions_and_its_gradient_finite_and_not_zero_beyond_the_clamp(loss, dtype):
    exact = torch.tensor([0.0, 1e-3, 0.5, 2.0], dtype=dtype)
    assert float(loss(exact.square(), exact)) < (1e-4 if loss is relative_deviation else 1e-7)
    for predicted in (0.0, 2e-12):  # the root is clamped at 1e-12
        squared = torch.full((4,), predicted, dtype=dtype, requires_grad=True)
        loss(squared, exact).backward()
        assert torch.isfinite(squared.grad).all()
        assert predicted == 0 or (squared.grad != 0).all()


def test_near_and_far_count_alike_in_relative_errors():
    exact = torch.tensor([0.5, 5.0], dtype=torch.float64)
    off_by_a_tenth = (1.1 * exact).square()
    near, far = (float(relative_distance_error(off_by_a_tenth[i], exact[i])) for i in (0, 1))
    assert near == pytest.approx(0.01, rel=1e-3)
    assert far == pytest.approx(near, rel=1e-3)


def test_relative_deviations_count_each_pair_by_how_far_off_it_is_and_not_by_the_square():
    exact = torch.tensor([0.5, 0.5, 5.0, 5.0], dtype=torch.float64)
    predicted = exact * torch.tensor([1.02, 0.98, 1.02, 1.3], dtype=torch.float64)
    assert float(relative_deviation(predicted.square(), exact)) == pytest.approx((3 * 0.02 + 0.3) / 4, rel=1e-3)


def test_distances_that_span_orders_of_magnitude_are_learned_by_relative_errors():
    rng = np.random.default_rng(0)
    assert suited_loss(rng.normal(1, 0.25, 1_000).clip(0.1)) is distance_error
    assert suited_loss(10 ** rng.uniform(-3, 0, 1_000)) is relative_distance_error
    assert suited_loss(1e6 * 10 ** rng.uniform(-3, 0, 1_000)) is relative_distance_error


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("small", "loss"), [(0.19, relative_distance_error), (0.21, distance_error)])
def test_relative_errors_begin_where_one_distance_in_twenty_is_below_a_fifth_of_the_mean(small, loss, unit):
    distances = np.repeat([small, (1 - 0.1 * small) / 0.9], [10, 90])
    assert distances.mean() == pytest.approx(1)
    assert suited_loss(unit * distances) is loss
