"""Separable losses on predicted and exact distances."""

from collections.abc import Callable

import torch

__all__ = ["Loss", "distance_error", "squared_distance_error"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (squared predicted, exact distances) -> scalar


def distance_error(squared: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Mean of (W - predicted)^2, from the squared predicted distances."""
    predicted = squared.clamp_min(1e-12).sqrt()  # the root has no gradient at 0
    return (predicted - exact).square().mean()


def squared_distance_error(squared: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Mean of (W^2 - predicted^2)^2, the loss of Courty, Flamary and Ducoffe (2018), eq. 3."""
    return (squared - exact.square()).square().mean()
