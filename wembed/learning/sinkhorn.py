"""Linear optimal transport to a learned reference, its maps found by Sinkhorn's iterations, and covariances beside."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from scipy.optimize import nnls
from torch import nn

from wembed.euclidean import distances_of_pairs
from wembed.learning.geometric import GeometricEncoding
from wembed.learning.roots import CovarianceRoots
from wembed.learning.training import Examples
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress

__all__ = ["SinkhornEncoder", "SinkhornEncoding"]

_ATOMS = 256  # of the reference
_MOST_NUMBERS = 16_384  # in a vector whose length is not given: fewer reference atoms where dimensions are many
_ROOT_AXES = 50  # of a covariance
_ROOTS = (0.375, 0.5)  # of covariances; for euclidean W_2 the latter is enough
_LEAST_SHARE = 1e-4  # of a part in squared distances at the start, so that training may find a use for it
_MOST_ENTRIES = 1 << 14  # in a coupling: what a step of training takes in time and memory
_LOG_ITERATIONS = 3
_ITERATIONS = 10
_SOFTNESS = (0.01, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.2)  # in units of a typical distance, squared
_TRIED_PAIRS = 1_792  # that the softness is chosen by
_REACH = 10.0  # a step of training moves the reference this much farther than a weight
_BLOCK_NUMBERS = 1 << 22  # reference atoms times atoms of measures in one go, where no gradient is taken
_INPUT_NUMBERS = 1 << 24  # of measures that are encoded in one go, all as wide as the widest
_TINY = 1e-9


class SinkhornEncoder(nn.Module):
    """Where an entropic optimal coupling (Cuturi 2013) sends each atom of a reference of equal masses, and covariances.

    The reference is learned, and so is, by small perceptrons that start at nothing, what an atom shows to it, what is
    carried to it, and what the covariance is taken of. Vectors are the barycentric projections, roots of the
    covariance, and the centroid where it does not stand beside them, each with a factor that is fitted before training
    and then learned.
    """

    def __init__(
        self, dim: int, atoms: int, *, centred: bool, roots: tuple[float, ...] = _ROOTS, width: int = 256
    ) -> None:
        super().__init__()
        self.centred = centred  # else the centroid is a part of the vector
        self.reference = nn.Parameter(torch.zeros(atoms, dim))
        self.log_softness = nn.Parameter(torch.zeros(()))
        self.key, self.value = _starting_at_nothing(dim, width), _starting_at_nothing(dim, width)
        self.roots = CovarianceRoots(dim, _ROOT_AXES, roots, _starting_at_nothing(dim, width))
        self.log_scales = nn.Parameter(torch.zeros(1 + len(roots) + (not centred)))
        self.size = atoms * dim + self.roots.size + (0 if centred else dim)

    def forward(self, atoms: torch.Tensor) -> torch.Tensor:
        """Vectors (n, size) of measures (n, most atoms, dim + 1): points, and weights, 0 where there is no atom."""
        vectors = atoms.new_empty(len(atoms), self.size)
        for rows, block in self._blocks(atoms):
            points, weights, centroids = _centred(block)
            parts = [self.projections(points, weights), *self._beside(points, weights, centroids)]
            scaled = [part * scale for part, scale in zip(parts, self.log_scales.exp(), strict=True)]
            vectors[rows] = torch.cat(scaled, dim=1)
        return vectors

    def _blocks(self, atoms: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Rows, and the measures in them, no wider than the widest.

        All at once where a gradient is taken; else so many as keep memory bounded, of which none has less than half
        the atoms of another.
        """
        widths = _widths(atoms)
        if torch.is_grad_enabled():
            yield torch.arange(len(atoms), device=atoms.device), atoms[:, : max(widths.tolist(), default=1)]
            return
        widths, order = widths.sort(descending=True, stable=True)
        start = 0
        while start < len(order):
            widest = int(widths[start])
            most = max(1, _BLOCK_NUMBERS // (len(self.reference) * widest))
            rows = order[start : min(start + most, int((2 * widths >= widest).sum()))]
            yield rows, atoms[rows, :widest]
            start += len(rows)

    def _beside(self, points: torch.Tensor, weights: torch.Tensor, centroids: torch.Tensor) -> list[torch.Tensor]:
        """The parts of the vectors that are no projections, before they are scaled."""
        roots = self.roots(points, weights)
        return roots if self.centred else [*roots, centroids]

    def projections(self, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Where centred points are sent to, in mean, from each atom of the reference."""
        shown = points + self.key(points)
        affinity = torch.einsum("kd,nad->nka", 2 * _REACH * self.reference, shown) / self.log_softness.exp()
        kernel = (affinity + _potentials(affinity.detach(), weights)).exp()
        columns = weights
        for _ in range(_ITERATIONS):
            rows = 1 / (torch.bmm(kernel, columns) + _TINY)
            columns = weights / (torch.bmm(kernel.transpose(1, 2), rows) / len(self.reference) + _TINY)
        coupling = kernel * columns.transpose(1, 2)
        coupling = coupling / (coupling.sum(dim=2, keepdim=True) + _TINY)
        return torch.bmm(coupling, points + self.value(points)).flatten(1) / math.sqrt(len(self.reference))

    def start_from(self, atoms: torch.Tensor, examples: Examples, seed: int) -> None:
        """Draw the reference from the normal law of the atoms, and fit softness and factors to exact distances."""
        centred, weights, _ = _centred(atoms)
        covariance = torch.einsum("nad,nae->de", centred * weights, centred) / len(atoms)
        values, vectors = torch.linalg.eigh(covariance.double())
        drawn = np.random.default_rng([seed, 7]).standard_normal(self.reference.shape)
        spread = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        pairs, exact = examples.train_pairs[:_TRIED_PAIRS], examples.train_distances[:_TRIED_PAIRS]
        used, place = np.unique(pairs, return_inverse=True)
        tried, place = torch.from_numpy(examples.features[0, used]), place.reshape(-1, 2)
        beside = examples.exact_part[pairs[:, 0]] - examples.exact_part[pairs[:, 1]]
        wanted = (np.square(exact) - np.square(beside).sum(axis=1)).clip(0)
        weight = 1 / np.maximum(exact, _LEAST_SHARE)  # errors of squares, over what they are squares of
        fits = []

        def squares(parts: Iterable[torch.Tensor]) -> np.ndarray:
            return np.asarray(np.square(distances_of_pairs(torch.cat(list(parts)).numpy(), place)))

        with torch.no_grad():
            self.roots.start_from(covariance)
            self.reference.copy_(torch.from_numpy(drawn).float() @ spread.float() / _REACH)
            rows, seen = zip(*self._blocks(tried), strict=True)
            place = torch.cat(rows).argsort().numpy()[place]
            blocks = [_centred(block) for block in seen]
            beside_them = [squares(parts) for parts in zip(*(self._beside(*block) for block in blocks), strict=True)]
            for softness in _SOFTNESS:
                self.log_softness.fill_(math.log(softness))
                projected = squares(self.projections(points, weights) for points, weights, _ in blocks)
                columns = np.stack([projected, *beside_them], axis=1, dtype=np.float64)
                sizes = columns.mean(axis=0).clip(np.finfo(float).tiny)
                shares, error = nnls(columns / sizes * weight[:, None], wanted * weight)
                fits.append((error, softness, np.maximum(shares, _LEAST_SHARE * exact.mean() ** 2) / sizes))
            _, softness, factors = min(fits, key=lambda fit: fit[0])
            self.log_softness.fill_(math.log(softness))
            self.log_scales.copy_(torch.from_numpy(np.log(factors.clip(1e-12, 1e12)) / 2))


def _widths(atoms: torch.Tensor) -> torch.Tensor:
    """How many of the columns of each measure there are up to its last atom: 1 or more."""
    columns = torch.arange(1, atoms.shape[1] + 1, device=atoms.device)
    return ((atoms[..., -1] > 0) * columns).amax(dim=1).clamp_min(1)


def _centred(atoms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points (n, atoms, dim) from their centroids, weights (n, atoms, 1), and the centroids (n, dim)."""
    points, weights = atoms[..., :-1], atoms[..., -1:]
    centroids = (points * weights).sum(dim=1)
    return points - centroids[:, None], weights, centroids


def _potentials(affinity: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What to add so that the kernel is nearly balanced from the start: the iterations are then well conditioned.

    A few of Sinkhorn's iterations on logarithms. They move where the others start, and no gradient passes through them.
    """
    mass = weights.clamp_min(1e-37).log().transpose(1, 2)
    columns = torch.zeros_like(mass)
    for _ in range(_LOG_ITERATIONS):
        rows = -torch.logsumexp(affinity + columns + mass, dim=2, keepdim=True)
        columns = math.log(affinity.shape[1]) - torch.logsumexp(affinity + rows, dim=1, keepdim=True)
    return rows + columns


def _starting_at_nothing(dim: int, width: int) -> nn.Sequential:
    last = nn.Linear(width, dim, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(dim, width), nn.GELU(), last)


class SinkhornEncoding(GeometricEncoding):
    """The atoms themselves, for a SinkhornEncoder."""

    kind = "sinkhorn"
    steps = 200
    learning_rate = 1e-3
    waits_from = 2_000
    learns_short = False
    module: SinkhornEncoder

    def __init__(self, cost: GroundCost, centre: np.ndarray, places: np.ndarray | None, atoms: int, seed: int) -> None:
        super().__init__(cost, centre, None, places)
        self.seed = seed
        centred = bool(self.exact_dim)
        roots = _ROOTS[1:] if cost.splits_translation else _ROOTS
        self.module = SinkhornEncoder(len(centre), atoms, centred=centred, roots=roots)
        self.dim = self.module.size + self.exact_dim

    @classmethod
    def build(cls, cost: GroundCost, training: Measures, dim: int | None, seed: int) -> "SinkhornEncoding":
        _, centre, places = cls.layout(cost, training)
        most = min(_MOST_NUMBERS // len(centre), _MOST_ENTRIES // int(training.sizes.max()))
        return cls(cost, centre, places, max(1, min(_ATOMS, most)), seed)

    @classmethod
    def restored(
        cls, cost: GroundCost, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "SinkhornEncoding":
        return cls(cost, arrays["centre"], arrays.get("places"), description["atoms"], 0)

    def inputs(
        self, measures: Measures, unit: float, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "n atoms numbers"]:
        placed = self.placed(measures)
        inside = np.arange(placed.sizes.max(initial=1)) < placed.sizes[:, None]
        atoms = np.zeros((*inside.shape, placed.dim + 1), dtype=np.float32)
        origin = placed.centroids() if self.exact_dim else np.broadcast_to(self.centre, (len(placed), placed.dim))
        atoms[inside, :-1] = (placed.points() - np.repeat(origin, placed.sizes, axis=0)) / unit
        atoms[inside, -1] = placed.weights
        return atoms

    def at_once(self, measures: Measures) -> int:
        numbers = np.maximum.accumulate(measures.sizes) * np.arange(1, len(measures) + 1) * (len(self.centre) + 1)
        return max(1, int(np.count_nonzero(numbers <= _INPUT_NUMBERS)))

    def start_from(self, examples: Examples) -> None:
        super().start_from(examples)
        known = torch.from_numpy(examples.features[0, np.unique(examples.train_pairs)])
        self.module.start_from(known, examples, self.seed)

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "atoms": len(self.module.reference)}
