"""Torch modules that map the features of a measure to a vector."""

from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from wembed.errors import SettingError

__all__ = ["AuxiliaryHead", "DWEEncoder", "PerceptronEncoder", "TurnedEncoder"]

_BLOCK = 4096  # rows in one go where sums over all of them are taken


class PerceptronEncoder(nn.Module):
    """A linear map plus a small multilayer perceptron on features that are nearly isometric already.

    The linear map starts as the projection on the principal components of the features, and the perceptron small, so
    that training starts from the sliced Wasserstein distance and learns what is missing. That is little: in training
    the perceptron is multiplied in bfloat16 where that is quicker. Its weights, the linear map, and all products once
    it is trained are float32.
    """

    centre: torch.Tensor
    scale: torch.Tensor
    share: torch.Tensor  # of the perceptron in the output
    _SHARE = 0.2  # keeps the first steps of training calm
    _ALL_FROM = 0.25  # of a typical distance, that features are apart; less of the perceptron where they are nearer

    def __init__(self, features: int, dim: int, width: int = 512) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("share", torch.tensor(self._SHARE))
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
            apart = (2 * (known - self.centre).square().sum(dim=1).mean()).sqrt()
            self.share.copy_(self._SHARE * (apart / self._ALL_FROM).clamp_max(1.0))
            self.linear.weight.zero_()
            self.linear.weight[: len(principal)] = principal

    @property
    def is_small(self) -> bool:
        """Whether features are so near each other that they are little of a typical distance."""
        return bool(self.share < self._SHARE)

    def lengthen(self, factor: float) -> None:
        """Multiply the linear map."""
        with torch.no_grad():
            self.linear.weight.mul_(factor)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Vectors (n, dim) of features (n, features)."""
        centred = features - self.centre
        with _half_where_quicker(self, features):
            missing = self.perceptron(centred / self.scale)
        vectors: torch.Tensor = self.linear(centred) + self.share * missing.float()
        return vectors

    def hidden(self, features: torch.Tensor) -> torch.Tensor:
        """What the perceptron makes of the features before its last layer (n, width)."""
        units: torch.Tensor = self.perceptron[:-1]((features - self.centre) / self.scale)
        return units


class TurnedEncoder(nn.Module):
    """What a PerceptronEncoder makes of a measure in several turns, side by side or along the axes of most variance.

    Distances do not change when all measures are turned alike. Those of an encoder do a little, and the mean of their
    squares over the turns is nearer to exact than each. As turns are linear maps of the features, they are multiplied
    into the first layer, and the axes into the last. Of all vectors with the distances that the axes hold these are
    the nearest to the encoder's own.
    """

    def __init__(self, features: int, dim: int, turns: int, width: int = 512) -> None:
        super().__init__()
        self.linear = nn.Linear(features, dim)
        self.first = nn.Linear(features, turns * width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(turns * width, dim, bias=False)

    @classmethod
    def of(
        cls,
        encoder: PerceptronEncoder,
        turns: Float32[np.ndarray, "turns shown features"],
        views: Iterable[Float32[np.ndarray, "turns _ shown"]],
        dim: int,
    ) -> "TurnedEncoder":
        """From a trained encoder.

        Args:
            encoder: what gives the vectors in one turn.
            turns: maps of the features to what the encoder is shown in each turn; the first is the measure as it is.
            views: what it is shown of the training measures, in blocks, by whose vectors the axes are found.
            dim: numbers of a vector; as many as all turns have leave them side by side.
        """
        count, numbers = len(turns), encoder.linear.out_features
        with torch.no_grad():
            maps = torch.from_numpy(turns)
            if dim == count * numbers:
                axes = torch.eye(dim)
            else:
                seen = (torch.cat([encoder(view) for view in torch.from_numpy(block)], dim=1) for block in views)
                axes = _axes_alike(torch.cat(list(seen)).double() / count**0.5, dim).float()
            axes /= count**0.5
            made = cls(maps.shape[2], dim, count, encoder.width)
            made.linear.weight.zero_()
            made.linear.bias.zero_()
            first, second, last = (layer for layer in encoder.perceptron if isinstance(layer, nn.Linear))
            made.first.weight.copy_(torch.cat([first.weight / encoder.scale @ turn for turn in maps]))
            made.first.bias.copy_((first.bias - first.weight @ encoder.centre / encoder.scale).repeat(count))
            made.second.load_state_dict(second.state_dict())
            blocks = torch.split(axes, numbers, dim=1)  # of the axes, in each turn
            made.last.weight.copy_(torch.cat([encoder.share * block @ last.weight for block in blocks], dim=1))
            for block, turn in zip(blocks, maps, strict=True):
                made.linear.weight.add_(block @ encoder.linear.weight @ turn)
                made.linear.bias.sub_(block @ encoder.linear.weight @ encoder.centre)
        return made.eval()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Vectors (n, dim) of features (n, features)."""
        hidden = nn.functional.gelu(self.first(features)).reshape(-1, self.second.in_features)
        hidden = nn.functional.gelu(self.second(hidden)).reshape(len(features), -1)
        vectors: torch.Tensor = self.linear(features) + self.last(hidden)
        return vectors


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
        with _half_where_quicker(encoder, features):
            missing = self.last(encoder.hidden(features))
        predicted: torch.Tensor = self.linear(features) + missing
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


def _half_where_quicker(encoder: nn.Module, features: torch.Tensor) -> torch.autocast:
    """Products of bfloat16 (Kalamkar et al. 2019) while an encoder is trained, on processors that can."""
    quicker = encoder.training and features.device.type == "cpu" and _multiplies_halves()
    return torch.autocast("cpu", torch.bfloat16, enabled=quicker)


@cache
def _multiplies_halves() -> bool:
    """Whether the processor has instructions for bfloat16; where it has none, float32 is quicker."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def _axes_alike(vectors: torch.Tensor, dim: int) -> torch.Tensor:
    """Maps (dim, columns) onto the axes of most variance, turned so as to give nearly the first `dim` columns.

    That is the orthogonal Procrustes problem (Schoenemann 1966).
    """
    principal = _principal_axes(vectors, dim).double()
    covariance = torch.cov(vectors.T, correction=0)
    left, _, right = torch.linalg.svd(principal @ covariance[:, :dim])
    axes: torch.Tensor = (left @ right).T @ principal
    return axes


def _principal_axes(features: torch.Tensor, most: int) -> torch.Tensor:
    """The orthonormal directions of most variance, largest first; of as good as none, any that complete them."""
    centred = features.double() - features.mean(dim=0).double()
    count, numbers = centred.shape
    if count < numbers:
        right = torch.linalg.svd(centred, full_matrices=False).Vh.T
        vectors = right if most <= count else torch.linalg.qr(right, mode="complete").Q
    else:
        vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
    principal = vectors[:, :most].T
    signs = torch.sign(principal.gather(1, principal.abs().argmax(dim=1, keepdim=True)))  # LAPACK leaves it open
    axes: torch.Tensor = (principal * signs).float()
    return axes
