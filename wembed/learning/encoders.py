"""Torch modules that map the features of a measure to a vector."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from wembed.errors import SettingError

__all__ = ["DWEEncoder", "QuantileEncoder"]


class QuantileEncoder(nn.Module):
    """A linear map plus a small multilayer perceptron on features that are nearly isometric already.

    The linear map starts as the projection on the principal components of the features, and the perceptron small, so
    that training starts from the sliced Wasserstein distance and learns what is missing.
    """

    centre: torch.Tensor
    scale: torch.Tensor
    _SHARE = 0.2  # of the perceptron in the output at the start: keeps the first steps of training calm

    def __init__(self, features: int, dim: int, width: int = 512) -> None:
        super().__init__()
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
        centred = known - known.mean(dim=0)
        covariance = centred.T.double() @ centred.double()
        _, vectors = torch.linalg.eigh(covariance)
        dim = self.linear.out_features
        principal = vectors.flip(1)[:, :dim].T
        signs = torch.sign(principal.gather(1, principal.abs().argmax(dim=1, keepdim=True)))  # LAPACK leaves it open
        with torch.no_grad():
            self.centre.copy_(known.mean(dim=0))
            self.scale.copy_(centred.std().clamp_min(1e-3))  # in units of a typical distance: below is rounding
            self.linear.weight.zero_()
            self.linear.weight[: len(principal)] = (principal * signs).float()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Vectors (n, dim) of features (n, features)."""
        centred = features - self.centre
        vectors: torch.Tensor = self.linear(centred) + self._SHARE * self.perceptron(centred / self.scale)
        return vectors


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
