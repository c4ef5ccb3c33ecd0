"""Torch modules that map the features of a measure to a vector."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from wembed.errors import SettingError

__all__ = ["AuxiliaryHead", "DWEEncoder", "PerceptronEncoder", "ProjectionEncoder"]

_BLOCK = 4096  # rows in one go where sums over all of them are taken


class PerceptronEncoder(nn.Module):
    """A linear map plus a small multilayer perceptron on features that are nearly isometric already.

    The linear map starts as the projection on the principal components of the features, and the perceptron small, so
    that training starts from the sliced Wasserstein distance and learns what is missing.
    """

    centre: torch.Tensor
    scale: torch.Tensor
    _SHARE = 0.2  # of the perceptron in the output at the start: keeps the first steps of training calm

    def __init__(self, features: int, dim: int, width: int = 512) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(()))
        self.linear = nn.Linear(features, dim, bias=False)
        last = nn.Linear(width, dim, bias=False)
        with torch.no_grad():
            last.weight.mul_(0.1)
        self.perceptron = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last)

    def start_from(self, features: Float32[np.ndarray, "n features"]) -> None:
        """Set the starting point from the features of the training measures."""
        known = torch.from_numpy(features)
        principal = _principal_axes(known, self.linear.out_features)
        with torch.no_grad():
            self.centre.copy_(known.mean(dim=0))
            self.scale.copy_((known - self.centre).std().clamp_min(1e-3))  # of a typical distance: below is rounding
            self.linear.weight.zero_()
            self.linear.weight[: len(principal)] = principal

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Vectors (n, dim) of features (n, features)."""
        centred = features - self.centre
        vectors: torch.Tensor = self.linear(centred) + self._SHARE * self.perceptron(centred / self.scale)
        return vectors

    def hidden(self, features: torch.Tensor) -> torch.Tensor:
        """What the perceptron makes of the features before its last layer (n, width)."""
        units: torch.Tensor = self.perceptron[:-1]((features - self.centre) / self.scale)
        return units


class ProjectionEncoder(nn.Module):
    """The features as they are, or their principal components where fewer numbers are wanted. Nothing is learned."""

    axes: torch.Tensor

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.whole = dim == features
        if not self.whole:
            self.register_buffer("axes", torch.zeros(dim, features))

    def start_from(self, features: Float32[np.ndarray, "n features"]) -> None:
        """Find the axes of most variance from the features of the training measures."""
        if not self.whole:
            principal = _principal_axes(torch.from_numpy(features), len(self.axes))
            self.axes[: len(principal)] = principal

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Vectors (n, dim) of features (n, features)."""
        projected: torch.Tensor = features if self.whole else features @ self.axes.T
        return projected


class AuxiliaryHead(nn.Module):
    """Predicts something else of a measure from the hidden units of a PerceptronEncoder: a linear map beside them.

    Hidden units that serve two tasks generalise better (Caruana 1997). The linear map starts at the least-squares fit
    from the features, so that the hidden units are asked for the rest.
    """

    def __init__(
        self,
        encoder: PerceptronEncoder,
        features: Float32[np.ndarray, "n features"],
        targets: Float32[np.ndarray, "n t"],
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(features.shape[1], targets.shape[1])
        self.last = nn.Linear(encoder.width, targets.shape[1], bias=False)
        mean, middle = (torch.from_numpy(known.mean(axis=0, dtype=np.float64)) for known in (features, targets))
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.double)
        together = torch.zeros(len(mean), len(middle), dtype=torch.double)
        for start in range(0, len(features), _BLOCK):
            part = torch.from_numpy(features[start : start + _BLOCK]).double() - mean
            covariance += part.T @ part
            together += part.T @ (torch.from_numpy(targets[start : start + _BLOCK]).double() - middle)
        covariance.diagonal().add_(1e-6 * covariance.trace() / len(covariance) + torch.finfo(torch.double).tiny)
        fit = torch.linalg.solve(covariance, together)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.linear.weight.copy_(fit.T)
            self.linear.bias.copy_(middle - mean @ fit)

    def forward(self, encoder: PerceptronEncoder, features: torch.Tensor) -> torch.Tensor:
        """The prediction (n, t) from features (n, features)."""
        predicted: torch.Tensor = self.linear(features) + self.last(encoder.hidden(features))
        return predicted


class DWEEncoder(nn.Module):
    """The convolutional network of Courty, Flamary and Ducoffe (2018): 20@3x3, 5@5x5, dense 100, dense `dim`.

    It has no notion of translation or of mass; it is here as the method's reference, for images in the plane.
    """

    def __init__(self, grid: tuple[int, ...], dim: int = 50) -> None:
        super().__init__()
        if len(grid) != 2:
            raise SettingError(f"the dwe encoder takes images in the plane; these have {len(grid)} axes")
        self.network = nn.Sequential(
            nn.Conv2d(1, 20, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(20, 5, 5, padding="same"),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * grid[0] * grid[1], 100),
            nn.ReLU(),
            nn.Linear(100, dim),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors (n, dim) of images (n, h, w)."""
        vectors: torch.Tensor = self.network(images[:, None])
        return vectors


def _principal_axes(features: torch.Tensor, most: int) -> torch.Tensor:
    """The orthonormal directions of most variance, largest first."""
    centred = features.double() - features.mean(dim=0).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    principal = vectors.flip(1)[:, :most].T
    signs = torch.sign(principal.gather(1, principal.abs().argmax(dim=1, keepdim=True)))  # LAPACK leaves it open
    axes: torch.Tensor = (principal * signs).float()
    return axes
