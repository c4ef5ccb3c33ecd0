"""The encodings that an Embedder can have, by name, and which of them suits which measures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from wembed.errors import SettingError
from wembed.learning.encoders import DWEEncoder
from wembed.learning.encoding import Encoding
from wembed.learning.features import Pixels
from wembed.learning.geometric import (
    FEW_MEASURES,
    CombinedEncoding,
    LinearEncoding,
    QuantileEncoding,
    TransportEncoding,
)
from wembed.learning.landmarks import LandmarkEncoding
from wembed.learning.losses import squared_distance_error
from wembed.learning.sinkhorn import SinkhornEncoding
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress

__all__ = ["ENCODINGS", "PixelEncoding", "slower", "suited"]

_PAPER_DIM = 50  # of DWE
_FEW_ATOMS = 64  # in the largest measure
_WORTH_MAPS = 1.5  # digits, which slices tell nearly all of, have 1.75, doodles 1.3
_CHEAP_MAPS = 0.25  # of the work of the pairs: then more is gained by maps than by more pairs


class PixelEncoding(Encoding):
    """The image as it is, for the network of the method's paper."""

    kind = "dwe"

    def __init__(self, cost: GroundCost, grid: tuple[int, ...], dim: int) -> None:
        self.cost, self.features, self.dim = cost, Pixels(grid), dim
        self.module = DWEEncoder(grid, dim)
        self.loss = squared_distance_error

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "PixelEncoding":
        assert training.grid is not None  # check_collection has seen to it
        return cls(cost, training.grid, dim or _PAPER_DIM)

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "PixelEncoding":
        return cls(cost, tuple(description["grid"]), dim)

    @staticmethod
    def check_collection(cost: GroundCost, measures: Measures) -> None:
        if measures.grid is None or len(measures.grid) != 2:
            raise SettingError("the dwe encoder takes images in the plane; for other measures use encoder='auto'")

    def check(self, measures: Measures) -> None:
        self.cost.check(measures)
        self.features(measures[:0])

    def inputs(
        self, measures: Measures, unit: float, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "n *grid"]:
        return self.features(measures)

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "grid": self.features.grid}

    def arrays(self) -> dict[str, np.ndarray]:
        return {}


ENCODINGS: dict[str, type[Encoding]] = {
    encoding.kind: encoding
    for encoding in (
        QuantileEncoding,
        TransportEncoding,
        CombinedEncoding,
        SinkhornEncoding,
        PixelEncoding,
        LinearEncoding,
        LandmarkEncoding,
    )
}


def suited(cost: GroundCost, measures: Measures) -> str:
    """The name of the encoding that suits the training measures best, as benchmarks/accuracy.py found it.

    On a line slices tell all, in the plane and on the sphere nearly all, if there are measures enough to learn the rest
    from. Else optimal maps do: to fixed references, found exactly; or, where atoms are few beyond the plane, to a
    learned one.
    """
    dim = cost.coordinates(measures[:1]).dim
    on_surface = dim == 2 or cost.is_great_circle
    if dim == 1 or (on_surface and len(measures) >= FEW_MEASURES):
        return QuantileEncoding.kind
    return TransportEncoding.kind if on_surface or measures.sizes.max() > _FEW_ATOMS else SinkhornEncoding.kind


def slower(quick: str, cost: GroundCost, measures: Measures, share: float, pairs: int) -> str | None:
    """The name of an encoding that takes optimal maps to encode with, and may be closer than the one that suits.

    Args:
        quick: the one that suits.
        cost: the ground cost.
        measures: those that are learned from.
        share: the error of linear optimal transport, as a share of that of the quick one.
        pairs: that were solved.

    Returns:
        Maps alone where linear optimal transport is closer; maps beside slices, in the plane, where it comes near, or
        where maps take little beside what the pairs took; else None, and where the quick one has such maps itself.
    """
    if quick == TransportEncoding.kind:
        return None
    if share < 1:
        return TransportEncoding.kind
    if not (cost.is_euclidean and measures.dim == 2):
        return None
    worth = share < _WORTH_MAPS or CombinedEncoding.solves(measures) <= _CHEAP_MAPS * pairs
    return CombinedEncoding.kind if worth else None
