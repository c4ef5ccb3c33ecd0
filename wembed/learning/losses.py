"""Separable losses on predicted and exact distances."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64

__all__ = [
    "Loss",
    "distance_error",
    "relative_deviation",
    "relative_distance_error",
    "squared_distance_error",
    "suited_loss",
]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (squared predicted, exact distances) -> scalar
_LEAST = 0.01  # of a typical distance: relative errors of smaller ones do not count in full
_WIDE = 0.2  # of the mean: where one distance in twenty is smaller, they span orders of magnitude


def distance_error(squared: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Mean of (W - predicted)^2, from the squared predicted distances."""
    predicted = squared.clamp_min(1e-12).sqrt()  # the root has no gradient at 0
    return (predicted - exact).square().mean()


def relative_distance_error(squared: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Mean of (W - predicted)^2 / (W^2 + 0.01^2), for distances in units in which a typical one is 1."""
    predicted = squared.clamp_min(1e-12).sqrt()
    return ((predicted - exact).square() / (exact.square() + _LEAST**2)).mean()


def relative_deviation(squared: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Mean of |W - predicted| / (W^2 + 0.01^2)^(1/2), in the same units: few pairs that are far off count for less."""
    predicted = squared.clamp_min(1e-12).sqrt()
    return ((predicted - exact).abs() / (exact.square() + _LEAST**2).sqrt()).mean()


def squared_distance_error(squared: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Mean of (W^2 - predicted^2)^2, the loss of Courty, Flamary and Ducoffe (2018), eq. 3."""
    return (squared - exact.square()).square().mean()


def suited_loss(distances: Float64[np.ndarray, " k"]) -> Loss:
    """Relative errors where distances span orders of magnitude, so that near measures are told apart; else absolute."""
    wide = float(np.quantile(distances, 0.05)) < _WIDE * float(distances.mean())
    return relative_distance_error if wide else distance_error
