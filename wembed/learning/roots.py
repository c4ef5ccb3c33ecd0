"""Roots of the covariances of measures, as vectors: differentiable, whatever their rank."""

from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["CovarianceRoots", "symmetric_power"]

_LEAST = 1e-5  # of the largest eigenvalue: it is added to all, so that those of 0 have powers
_FLOOR = 1e-10  # in units of a typical distance, squared: the same for a measure of one atom
_ALIKE = 1e-3  # eigenvalues whose difference is a smaller share of their sum are taken for equal


class CovarianceRoots(nn.Module):
    """Powers of the covariance of a measure: the upper triangle, scaled so that Euclidean distance is Frobenius'.

    Between centred normal laws whose covariances commute, W_2 is the Frobenius distance of the square roots (Dowson and
    Landau 1982). The covariance is that of the atoms after a map that starts as the identity, or, where dimensions are
    many, as the projection on the axes of most variance, and is learned.
    """

    axes: torch.Tensor
    scaling: torch.Tensor

    def __init__(self, dim: int, most: int, exponents: tuple[float, ...], shown: nn.Module) -> None:
        super().__init__()
        self.exponents, self.shown = exponents, shown
        rank = min(dim, most)
        self.register_buffer("axes", torch.eye(rank, dim))
        rows, columns = np.triu_indices(rank)
        self.places = torch.from_numpy(rows), torch.from_numpy(columns)
        self.register_buffer("scaling", torch.from_numpy(np.where(rows == columns, 1.0, np.sqrt(2.0))).float())
        self.size = len(exponents) * len(rows)

    def start_from(self, covariance: torch.Tensor) -> None:
        """Point the axes to where the atoms of the training measures vary most; all axes stay as they are."""
        if self.axes.shape[0] < self.axes.shape[1]:
            _, vectors = torch.linalg.eigh(covariance.double())
            self.axes.copy_(vectors.flip(1)[:, : len(self.axes)].T)

    def forward(self, points: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
        """For each exponent, vectors (n, r (r + 1) / 2) of points (n, atoms, dim) and weights (n, atoms, 1)."""
        seen = (points + self.shown(points)) @ self.axes.T
        spread = (seen - (seen * weights).sum(dim=1, keepdim=True)) * weights.sqrt()
        wide = spread.shape[1] < spread.shape[2]
        turned = spread.transpose(1, 2)
        gram = spread @ turned if wide else turned @ spread
        finite = torch.isfinite(gram).all(dim=2).all(dim=1)[:, None, None]
        gram = torch.where(finite, gram, 0.0)  # no eigenvalues can be found of others; they come out as NaN
        rows, columns = self.places
        powers = []
        for exponent in self.exponents:
            less = symmetric_power(gram, exponent - 1)  # and once more: what is added to eigenvalues of 0 is gone
            power = turned @ less @ spread if wide else less @ gram
            powers.append(torch.where(finite, power, torch.nan)[:, rows, columns] * self.scaling)
        return powers


def symmetric_power(matrices: torch.Tensor, exponent: float) -> torch.Tensor:
    """Powers of positive semidefinite matrices (n, k, k), a little added to their eigenvalues.

    The gradient is Daleckii and Krein's; it stays finite where eigenvalues are equal.
    """
    power: torch.Tensor = _SymmetricPower.apply(matrices, exponent)  # type: ignore[no-untyped-call]
    return power


class _SymmetricPower(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, matrices: torch.Tensor, exponent: float) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(matrices)
        values = values.clamp_min(0)
        values = values + _LEAST * values[:, -1:] + _FLOOR
        powers = values**exponent
        context.save_for_backward(values, vectors, powers)
        context.exponent = exponent
        power: torch.Tensor = (vectors * powers[:, None, :]) @ vectors.transpose(1, 2)
        return power

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        values, vectors, powers = context.saved_tensors
        sums, differences = values[:, :, None] + values[:, None, :], values[:, :, None] - values[:, None, :]
        alike = differences.abs() < _ALIKE * sums
        slopes = (powers[:, :, None] - powers[:, None, :]) / torch.where(alike, 1.0, differences)
        slopes = torch.where(alike, context.exponent * (sums / 2) ** (context.exponent - 1), slopes)
        turned = vectors.transpose(1, 2)
        inside = turned @ (gradient + gradient.transpose(1, 2)) @ vectors / 2
        return vectors @ (slopes * inside) @ turned, None
