"""Landmarks: vectors from how far optimal maps say that it is to measures that are known, for W_p other than W_2."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from wembed.errors import SettingError
from wembed.learning.geometric import TURNS, TransportEncoding
from wembed.learning.training import Examples
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress

__all__ = ["LandmarkEncoder", "LandmarkEncoding"]

_MOST = 1_000  # landmarks
_BLOCK_NUMBERS = 1 << 22  # moves of atoms in one go
_LEAST = 1e-6  # of the largest eigenvalue


class LandmarkEncoder(nn.Module):
    """Vectors by landmark multidimensional scaling (de Silva and Tenenbaum 2004), in each of several turns.

    From one measure to another, atoms of a reference move by (mean |T_x - T_y|^p)^(1/p), where T are the optimal maps
    to the two. That is near W_p, and for p other than 2 no distance between vectors. Its squares from a measure to the
    landmarks give the coordinates of the measure along the axes of most variance among them, and its squared length
    beyond. What is beyond points to where the map does, as far as the axes do not tell it, with that length.

    Attributes:
        order: p.
        places: to which maps send each atom, of the landmarks.
        squares: the mean squared move between each landmark and all.
        axes: from squared moves to coordinates.
        centre: mean places, over the root of the number of atoms.
        slopes: from coordinates to places less the mean.
    """

    places: torch.Tensor
    squares: torch.Tensor
    axes: torch.Tensor
    centre: torch.Tensor
    slopes: torch.Tensor

    def __init__(self, turns: int, landmarks: int, atoms: int, dim: int, axes: int, order: float) -> None:
        super().__init__()
        self.order = order
        self.register_buffer("places", torch.zeros(turns, landmarks, atoms, dim))
        self.register_buffer("squares", torch.zeros(turns, landmarks))
        self.register_buffer("axes", torch.zeros(turns, landmarks, axes))
        self.register_buffer("centre", torch.zeros(turns, atoms * dim))
        self.register_buffer("slopes", torch.zeros(turns, axes, atoms * dim))

    @classmethod
    def of(cls, inputs: Float32[np.ndarray, "n inputs"], turns: int, dim: int, order: float) -> "LandmarkEncoder":
        """With the measures for landmarks that these are the inputs of: maps in each turn, and the centroid."""
        atoms = (inputs.shape[1] - dim) // (turns * dim)
        made = cls(turns, len(inputs), atoms, dim, 0, order)
        made.places.copy_(made._placed(torch.from_numpy(inputs)).transpose(0, 1))
        made._settle(made._best_count())
        return made

    def _settle(self, count: int) -> None:
        """Find so many axes."""
        axes, slopes = [], []
        for turn, places in enumerate(self.places):
            squares = self._moved(turn, places).double().square().fill_diagonal_(0.0)
            means = squares.mean(dim=1)
            gram = (means[:, None] + means - squares - means.mean()) / 2
            values, along = (found.flip(-1)[..., :count] for found in torch.linalg.eigh((gram + gram.T) / 2))
            least = max(_LEAST * float(values[0]), torch.finfo(values.dtype).tiny)
            flat = self._flat(places).double()
            self.squares[turn], self.centre[turn] = means, flat.mean(dim=0)
            axes.append(torch.where(values > least, along / values.clamp_min(least).sqrt(), 0.0))
            slopes.append(axes[-1].T @ (flat - flat.mean(dim=0)))
        self.axes, self.slopes = (torch.stack(parts).float() for parts in (axes, slopes))

    def _best_count(self) -> int:
        """Axes by which two thirds of the landmarks tell best how far atoms move between the others.

        Moves are no distances between vectors, so that axes of little variance tell of others what is not so.
        """
        _, landmarks, atoms, dim = self.places.shape
        held = torch.arange(landmarks) % 3 == 0
        number = int(held.sum())
        if number < 2:
            return 1
        some, others = (LandmarkEncoder(1, int(part.sum()), atoms, dim, 0, self.order) for part in (~held, held))
        some.places, others.places = self.places[:1, ~held], self.places[:1, held]
        rows, columns = torch.triu_indices(number, number, 1)
        wanted = others._moved(0, others.places[0])[rows, columns]
        apart = wanted > _LEAST * wanted.max()
        if not apart.any():
            return 1
        errors: dict[int, float] = {}
        for count in (2**power for power in range(number.bit_length() - 1)):
            some._settle(count)
            seen = some._seen(0, others.places[0])
            ratios = ((seen[rows] - seen[columns]).norm(dim=1) / wanted)[apart]
            errors[count] = float((ratios / ratios.median().clamp_min(_LEAST) - 1).abs().mean())
        return min(errors, key=lambda count: errors[count])

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        turns, axes, numbers = self.slopes.shape
        return turns * (axes + numbers)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Vectors (n, size) of inputs (n, inputs)."""
        placed = self._placed(inputs)
        parts = [self._seen(turn, placed[:, turn]) for turn in range(len(self.places))]
        vectors: torch.Tensor = torch.cat(parts, dim=1) / len(parts) ** 0.5
        return vectors

    def _placed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Where maps send each atom (n, turns, atoms, dim): the places about the centroid, and that."""
        turns, _, atoms, dim = self.places.shape
        maps, centroids = inputs[:, :-dim], inputs[:, -dim:]
        about = maps.reshape(len(inputs), turns, atoms, dim) * (turns * atoms) ** 0.5
        placed: torch.Tensor = about + centroids[:, None, None]
        return placed

    def _flat(self, places: torch.Tensor) -> torch.Tensor:
        flat: torch.Tensor = places.flatten(1) / places.shape[1] ** 0.5
        return flat

    def _seen(self, turn: int, places: torch.Tensor) -> torch.Tensor:
        squares = self._moved(turn, places).square()
        means = self.squares[turn]
        along = (means - squares) / 2 @ self.axes[turn]
        beyond = squares.mean(dim=1) - means.mean() / 2 - along.square().sum(dim=1)
        rest = self._flat(places) - self.centre[turn] - along @ self.slopes[turn]
        length = beyond.clamp_min(0.0).sqrt() / rest.norm(dim=1).clamp_min(torch.finfo(rest.dtype).tiny)
        return torch.cat([along, rest * length[:, None]], dim=1)

    def _moved(self, turn: int, places: torch.Tensor) -> torch.Tensor:
        """How far atoms move from each measure to each landmark (n, landmarks)."""
        theirs = self.places[turn].transpose(0, 1)
        norms = theirs.square().sum(dim=2)[:, None]
        _, landmarks, atoms, _ = self.places.shape
        found = torch.empty(len(places), landmarks, dtype=places.dtype, device=places.device)
        rows = max(1, _BLOCK_NUMBERS // (landmarks * atoms))
        for start in range(0, len(places), rows):
            ours = places[start : start + rows].transpose(0, 1)
            moves = torch.baddbmm(norms + ours.square().sum(dim=2)[:, :, None], ours, theirs.transpose(1, 2), alpha=-2)
            moves = moves.clamp_min_(0.0).pow_(self.order / 2)
            found[start : start + rows] = moves.mean(dim=0).pow_(1 / self.order)
        return found


class LandmarkEncoding(TransportEncoding):
    """Of the exact optimal maps to one reference, in three turns, how far it is to landmarks by them.

    Nothing is trained, and only the scale is fitted to solved pairs.
    """

    kind = "landmarks"
    network = nn.Identity

    @staticmethod
    def suits(cost: GroundCost, dim: int) -> bool:
        """Whether measures are seen in turns, and W_p is not W_2, whose maps move measures as far as vectors do."""
        return cost.is_euclidean and not cost.splits_translation and 2 <= dim <= TransportEncoding.most_turned

    @staticmethod
    def check_collection(cost: GroundCost, measures: Measures) -> None:
        """Refuse what `suits` does not hold for."""
        if cost.splits_translation:
            raise SettingError(
                "the landmarks encoder is for other W_p than W_2, of which optimal maps alone tell as much; use "
                "encoder='auto'"
            )
        if not LandmarkEncoding.suits(cost, measures.dim):
            under = f"the {cost.metric} metric" if isinstance(cost.metric, str) else "a cost matrix"
            raise SettingError(
                "the landmarks encoder takes measures in the plane or in space, also images, by euclidean distance; "
                f"these are of dimension {measures.dim} under {under}; use encoder='auto'"
            )

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "LandmarkEncoding":
        made = super().build(cost, training, dim, seed)
        assert isinstance(made, cls)
        made.features = made.features.first_turns(TURNS)
        return made

    @classmethod
    def of(cls, transport: TransportEncoding, inputs: Float32[np.ndarray, "n inputs"]) -> "LandmarkEncoding":
        """With the measures for landmarks whose maps another encoding has found."""
        made = cls(transport.cost, transport.features, transport.centre, None, transport.places)
        made.loss = transport.loss
        made._place(inputs)
        return made

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "LandmarkEncoding":
        made = super().restored(cost, dim, description, arrays)
        assert isinstance(made, cls)
        turns, atoms, numbers = made.features.references.shape
        made.module = LandmarkEncoder(turns, description["landmarks"], atoms, numbers, description["axes"], cost.order)
        return made

    def copies(
        self, measures: Measures, unit: float, seed: int, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "copies n inputs"]:
        return self.inputs(measures, unit, n_jobs, progress)[None]

    def start_from(self, examples: Examples) -> None:
        super().start_from(examples)
        self._place(examples.features[0, np.unique(examples.train_pairs)])

    def description(self) -> dict[str, Any]:
        assert isinstance(self.module, LandmarkEncoder)
        _, landmarks, axes = self.module.axes.shape
        return {"kind": self.kind, "landmarks": landmarks, "axes": axes}

    @property
    def _rotations(self) -> None:
        """None: all turns are seen at once, from the start."""

    def _place(self, inputs: Float32[np.ndarray, "n inputs"]) -> None:
        some = inputs[np.linspace(0, len(inputs) - 1, min(len(inputs), _MOST)).astype(int)]
        turns, _, dim = self.features.references.shape
        self.module = LandmarkEncoder.of(some, turns, dim, self.cost.order)
        self.dim = self.module.size
