"""Losses: what they weigh, and which of them suits which distances."""

import numpy as np
import pytest
import torch

from wembed.learning.losses import distance_error, relative_distance_error, squared_distance_error, suited_loss


@pytest.mark.parametrize("loss", [distance_error, relative_distance_error, squared_distance_error])
def test_a_loss_is_zero_for_exact_predictions_and_has_a_gradient_everywhere(loss):
    exact = torch.tensor([0.0, 1e-3, 0.5, 2.0], dtype=torch.float64)
    assert float(loss(exact.square(), exact)) < 1e-7
    squared = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss(squared, exact).backward()
    assert torch.isfinite(squared.grad).all()


def test_near_and_far_count_alike_in_relative_errors():
    exact = torch.tensor([0.5, 5.0], dtype=torch.float64)
    off_by_a_tenth = (1.1 * exact).square()
    near, far = (float(relative_distance_error(off_by_a_tenth[i], exact[i])) for i in (0, 1))
    assert near == pytest.approx(0.01, rel=1e-3)
    assert far == pytest.approx(near, rel=1e-3)


def test_distances_that_span_orders_of_magnitude_are_learned_by_relative_errors():
    rng = np.random.default_rng(0)
    assert suited_loss(rng.normal(1, 0.25, 1_000).clip(0.1)) is distance_error
    assert suited_loss(10 ** rng.uniform(-3, 0, 1_000)) is relative_distance_error
    assert suited_loss(1e6 * 10 ** rng.uniform(-3, 0, 1_000)) is relative_distance_error
