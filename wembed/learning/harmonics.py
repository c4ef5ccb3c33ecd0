"""Encoding by spherical harmonics, of measures on the sphere."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array

from wembed.errors import SettingError
from wembed.learning.encoders import LinearEncoder
from wembed.learning.geometric import GeometricEncoding, starting_scale
from wembed.learning.losses import Loss, relative_distance_deviation
from wembed.learning.training import Examples
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress

__all__ = ["HarmonicEncoding", "moments"]

_DEGREE = 12
_NUMBERS = (_DEGREE + 1) ** 2 - 1
_POINTS = 4_000  # in one go
_START = 1e-4  # that moments count for at first: of nothing at all there is nothing to learn


class HarmonicEncoding(GeometricEncoding):
    """The direction of the centroid, moments by spherical harmonics, and a linear map of both.

    It starts as the direction alone: the distance is then the arc between the centroids, put back on the sphere, which
    is W_p of single points, and nearly that of measures as small as they are far apart. Training is on errors, not
    their squares, so that few bad pairs do not spoil what is as good as exact for most.
    """

    kind = "harmonics"
    module: LinearEncoder

    def __init__(self, cost: GroundCost, centre: np.ndarray, dim: int | None) -> None:
        super().__init__(cost, centre, dim, None)
        self.dim = dim or 3 + _NUMBERS
        self.module = LinearEncoder(3 + _NUMBERS, self.dim)

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "HarmonicEncoding":
        return cls(cost, _seen(cost.coordinates(training)).mean(axis=0), dim)

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
    ) -> Float32[np.ndarray, "n numbers"]:
        return np.asarray((_seen(self.placed(measures)) - self.centre) / unit, dtype=np.float32)

    def start_from(self, examples: Examples) -> None:
        super().start_from(examples)
        shrunk = examples.features[0, np.unique(examples.train_pairs)]
        shrunk[:, 3:] *= _START
        self.module.start_from(shrunk)
        with torch.no_grad():
            self.module.linear.weight[:, 3:] *= _START
        self.module.lengthen(starting_scale(self.module.linear, examples, self.loss))

    @staticmethod
    def _suited_loss(distances: Float64[np.ndarray, " k"]) -> Loss:
        return relative_distance_deviation

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind}


def _seen(placed: Measures) -> Float64[np.ndarray, "n numbers"]:
    """Of measures on a sphere about the origin their centroids put back on it, and their moments."""
    radius = float(np.linalg.norm(placed.support[:1]))
    found = moments(placed)
    centroids = placed.centroids()
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    directions = radius * np.divide(centroids, lengths, out=np.zeros_like(centroids), where=lengths > 0)
    return np.concatenate([directions, found], axis=1)


def moments(placed: Measures) -> Float64[np.ndarray, "n harmonics"]:
    """Means of the real spherical harmonics from degree one on, of measures on a sphere about the origin.

    They are scaled so that between two points at an angle t the squared distances of those of degree l sum to
    2 (1 - P_l(cos t)) / l^3, in units of the radius; those of degree one are the centroid.
    """
    points, columns = placed.support, np.arange(len(placed.weights))
    if placed.atoms is not None:
        used, columns = np.unique(placed.atoms, return_inverse=True)
        points = points[used]
    weights = placed.weights.astype(np.float64)
    shares = csr_array((weights, columns, placed.offsets), shape=(len(placed), len(points))).tocsc()
    found = np.zeros((len(placed), _NUMBERS))
    for start in range(0, len(points), _POINTS):
        block = slice(start, start + _POINTS)
        found += shares[:, block] @ _harmonics(points[block])
    return found


def _harmonics(points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n harmonics"]:
    """By recurrence in the degree from l = m on, without angles (Press et al. 2007, Numerical Recipes, sect. 6.7)."""
    radius = np.linalg.norm(points, axis=1)
    x, y, z = points.T / np.where(radius > 0, radius, 1)
    found = np.empty((_NUMBERS, len(points)))
    cosine, sine = np.ones(len(points)), np.zeros(len(points))  # of m times the longitude, times that of the latitude
    first = np.full(len(points), (4 * np.pi) ** -0.5)
    for order in range(_DEGREE + 1):
        if order:
            cosine, sine = cosine * x - sine * y, sine * x + cosine * y
            first = first * -((1 + 0.5 / order) ** 0.5)
        before, value = np.zeros(len(points)), first
        for degree in range(max(order, 1), _DEGREE + 1):
            if degree > order:
                step = ((4 * degree**2 - 1) / (degree**2 - order**2)) ** 0.5
                back = (
                    (((degree - 1) ** 2 - order**2) / (4 * (degree - 1) ** 2 - 1)) ** 0.5 if degree - 1 > order else 0
                )
                before, value = value, step * (z * value - back * before)
            scaled = value * radius * (4 * np.pi / (2 * degree + 1) / degree**3) ** 0.5
            place = degree**2 - 1
            if order == 0:
                found[place] = scaled
            else:
                found[place + 2 * order - 1 : place + 2 * order + 1] = 2**0.5 * scaled * np.stack([cosine, sine])
    return found.T
