"""Encoding by spherical harmonics, of measures on the sphere."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float32, Float64
from scipy.special import sph_harm_y
from torch import nn

from wembed.errors import SettingError
from wembed.learning.encoders import LinearEncoder
from wembed.learning.geometric import GeometricEncoding, starting_scale
from wembed.learning.losses import Loss, relative_distance_error
from wembed.learning.training import Auxiliary, Examples
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress

__all__ = ["HarmonicEncoding", "moments"]

_DEGREE = 12
_NUMBERS = (_DEGREE + 1) ** 2 - 1
_ATOMS = 100_000  # in one go
_POINTS, _ROWS = 2_048, 128  # whose distances from each other are learned, and how many of them in a step
_NEIGHBORS = 128  # of each that count
_LEAST = 0.02  # of a typical distance: nearer ones don't
_WEIGHT = 2e3  # of what neighbours in different directions differ by, which is squared and small


class HarmonicEncoding(GeometricEncoding):
    """Moments by spherical harmonics, and a linear map of them.

    It learns from points too, whose distances from each other are known without a solve. What is trained on measures
    alone is nearer to some neighbours than to others as near, depending on the direction.
    """

    kind = "harmonics"
    steps = 3_000
    learning_rate = 2e-2
    module: LinearEncoder

    def __init__(self, cost: GroundCost, centre: np.ndarray, dim: int | None) -> None:
        super().__init__(cost, centre, dim, None)
        self.dim = dim or _NUMBERS
        self.module = LinearEncoder(_NUMBERS, self.dim)

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "HarmonicEncoding":
        return cls(cost, moments(cost.coordinates(training)).mean(axis=0), dim)

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "HarmonicEncoding":
        return cls(cost, arrays["centre"], dim)

    @staticmethod
    def check_collection(cost: GroundCost, measures: Measures) -> None:
        if not cost.is_great_circle:
            raise SettingError(
                "the harmonics encoder takes measures on the sphere, under a great-circle metric; for others use "
                "encoder='auto'"
            )

    def inputs(
        self, measures: Measures, unit: float, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "n harmonics"]:
        return np.asarray((moments(self.placed(measures)) - self.centre) / unit, dtype=np.float32)

    def start_from(self, examples: Examples) -> None:
        super().start_from(examples)
        self.module.start_from(examples.features[0, np.unique(examples.train_pairs)])
        self.module.lengthen(starting_scale(self.module.linear, examples, self.loss))

    @staticmethod
    def _suited_loss(distances: Float64[np.ndarray, " k"]) -> Loss:
        return relative_distance_error

    def auxiliary(
        self, measures: Measures, unit: float, pairs: int, seed: int, n_jobs: int, progress: Progress | None
    ) -> Auxiliary | None:
        """How far places of atoms, drawn by their weights, are from each other."""
        rng = np.random.default_rng([seed, 5])
        own = rng.integers(len(measures), size=_POINTS)
        first, last = measures.offsets[own], measures.offsets[own + 1] - 1
        reached = np.concatenate([[0.0], np.cumsum(measures.weights, dtype=np.float64)])
        share = reached[first] + rng.random(_POINTS) * (reached[last + 1] - reached[first])
        drawn = np.clip(np.searchsorted(reached, share, "right") - 1, first, last)
        places = measures.support[drawn if measures.atoms is None else measures.atoms[drawn]]
        points = Measures.from_flat(places, np.ones(_POINTS), np.ones(_POINTS, dtype=np.int64))
        features, (powers, largest) = self.inputs(points, unit), self.cost.powers(places, places)
        targets = (powers ** (1 / self.cost.order) * (largest / unit)).astype(np.float32)
        return Auxiliary(_FromPoints(features), features, targets, _unevenness, _ROWS)

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind}


class _FromPoints(nn.Module):
    """How far vectors are from those of fixed points."""

    points: torch.Tensor

    def __init__(self, points: Float32[np.ndarray, "n harmonics"]) -> None:
        super().__init__()
        self.register_buffer("points", torch.from_numpy(points), persistent=False)

    def forward(self, encoder: nn.Module, features: torch.Tensor) -> torch.Tensor:
        """Squared distances (rows, points) of the vectors of features (rows, harmonics) from those of the points."""
        own, others = encoder(features), encoder(self.points)
        return cast(torch.Tensor, own.square().sum(1)[:, None] + others.square().sum(1) - 2 * own @ others.T)


def _unevenness(squared: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """By how much farther than exact others lie in some directions than in others, from squared predicted distances.

    Of the nearest to each point, in the order of their distance, it is the mean square of the difference from one to
    the next in the share of the exact distance that is predicted. Nearer and farther ones, and those around different
    points, may have different shares: only the order of neighbours counts.
    """
    nearest, which = torch.topk(exact, min(_NEIGHBORS, exact.shape[1]), dim=1, largest=False)
    shares = squared.gather(1, which).clamp_min(1e-12).sqrt() / nearest.clamp_min(_LEAST)
    apart = nearest[:, :-1] > _LEAST
    return _WEIGHT * torch.where(apart, shares.diff(dim=1), 0).square().sum() / (apart.sum() + 1)


def moments(placed: Measures) -> Float64[np.ndarray, "n harmonics"]:
    """Means of the real spherical harmonics from degree one on, of measures on a sphere about the origin.

    They are scaled so that between two points at an angle t the squared distances of those of degree l sum to
    2 (1 - P_l(cos t)) / l^3, in units of the radius; those of degree one are the centroid.
    """
    found = np.zeros((len(placed), _NUMBERS))
    for start in range(0, len(placed.weights), _ATOMS):
        block = slice(start, start + _ATOMS)
        points = placed.support[block if placed.atoms is None else placed.atoms[block]]
        weighted = _harmonics(points) * placed.weights[block, None]
        first, last = np.searchsorted(placed.offsets, [start, start + len(points) - 1], "right") - 1
        begins = np.maximum(placed.offsets[first : last + 1] - start, 0)
        found[first : last + 1] += np.add.reduceat(weighted, begins, axis=0)
    return found


def _harmonics(points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n harmonics"]:
    radius = np.linalg.norm(points, axis=1)
    polar = np.arctan2(np.hypot(points[:, 0], points[:, 1]), points[:, 2])
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    columns = []
    for degree in range(1, _DEGREE + 1):
        scale = radius * np.sqrt(4 * np.pi / (2 * degree + 1) / degree**3)
        for order in range(degree + 1):
            value = sph_harm_y(degree, order, polar, azimuth) * scale
            columns += [value.real] if order == 0 else [2**0.5 * value.real, 2**0.5 * value.imag]
    return np.stack(columns, axis=1)
