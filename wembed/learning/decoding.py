"""Decoding: from vectors back to measures."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import nn

from wembed.errors import SettingError
from wembed.euclidean import product
from wembed.learning.augmentation import distorted
from wembed.learning.decoders import CloudDecoder, Decoder, HistogramDecoder, ImageDecoder, Reconstruction
from wembed.learning.encoding import Encoding
from wembed.learning.features import LinearTransport, directions_for
from wembed.learning.training import Auxiliary
from wembed.measures import Measures, pixel_places
from wembed.options import whole
from wembed.transport.between import Mixture, mixed
from wembed.transport.costs import GroundCost
from wembed.transport.parallel import Progress, check_jobs

__all__ = [
    "ATOMS",
    "DECODINGS",
    "DecoderSettings",
    "Decoding",
    "finish_decoding",
    "joint_decoding",
    "learned_decoding",
    "suited_decoding",
]

ATOMS = 128  # of a decoded cloud

_BATCH, _RATE, _DECAY, _WARM_UP = 128, 3e-3, 1e-2, 0.15
_CHECKS = 20
_BLOCK = 256  # vectors decoded in one go
_SPREAD = 20.0  # weight of how far misplaced mass is off, for each point along an axis
_SLICES = 3  # of the directions, looked at in a step of training
_FAINT = 0.01  # share of the brightest pixel, below which a pixel is left out
_NEWTON = 50  # steps at most
_STRIDE = 5.0  # of one
_LEAST_FACTOR = 0.2
_WITHIN = 1e-9  # of the support's extent, that a centroid is met to
_INSIDE = 0.02  # share of the support's extent, that a centroid keeps from its border
_OF_TWO, _OF_MANY = 0.6, 0.15  # shares of mixtures of any two, and of many
_MOST_OF, _MANY, _POOL = 8, 24, 1_000  # measures in one of a few, and in one of many; chosen among how many
_STRENGTH, _COPIES, _MOST_COPIES = 0.5, 3, 30_000  # of distorted copies; for each measure, and at most
_MOST_MIXED = 12_000
_MOST_CHECKED = 1_000  # measures that choose the state of a decoder
_REFERENCE = 14  # draws which measures the reference of a cloud is made of


class Decoding(ABC):
    """From vectors to measures of one kind.

    Attributes:
        kind: its name in DECODINGS and in a saved model.
        module: the decoder.
    """

    kind: ClassVar[str]
    module: Decoder

    @classmethod
    @abstractmethod
    def build(cls, dim: int, own: int, measures: Measures, atoms: int, flat: bool) -> "Decoding":
        """An untrained one for vectors of this length and measures like these.

        Args:
            dim: length of the vectors.
            own: how many of their numbers, the first, stay when a measure is moved.
            measures: such as are to be made.
            atoms: of a cloud.
            flat: whether distances are those of the coordinates.
        """

    @classmethod
    @abstractmethod
    def restored(cls, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Decoding":
        """The one that `description` and `arrays` were taken from, its decoder without weights yet."""

    @abstractmethod
    def targets(self, measures: Measures, n_jobs: int, progress: Progress) -> torch.Tensor:
        """What the decoder is to give of each measure."""

    @abstractmethod
    def loss(self, made: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """How far what the decoder gives is from the targets; a number."""

    @abstractmethod
    def block(self, vectors: torch.Tensor, centroids: Float64[np.ndarray, "n axes"] | None) -> Measures:
        """The measures of some vectors, about these centroids where they are known."""

    @property
    @abstractmethod
    def most_atoms(self) -> int:
        """Atoms that a decoded measure may have."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a saved model says of it."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What to save beside the decoder's weights."""

    def __call__(
        self, vectors: Float[np.ndarray, "n dim"], centroids: Float[np.ndarray, "n axes"] | None, device: str = "cpu"
    ) -> Measures:
        """The measures of vectors.

        Args:
            vectors: of an embedding.
            centroids: of the measures, where the embedding holds them.
            device: a torch device.
        """
        self.module.to(device).eval()
        known = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
        places = None if centroids is None else np.asarray(centroids, dtype=np.float64)
        parts = []
        with torch.no_grad():
            for start in range(0, len(known), _BLOCK):
                own = slice(start, start + _BLOCK)
                parts.append(self.block(known[own].to(device), None if places is None else places[own]))
        return Measures.concatenate(parts)


class _OnSupport(Decoding):
    """Masses on the points of a common support, trained on the Kullback-Leibler divergence from the measure.

    That alone takes no notice of how far off misplaced mass is. So where the points have coordinates, the squared
    differences of the distribution functions along a few directions are added (the sliced Cramer distance).
    """

    def __init__(self, module: Decoder, support: np.ndarray, grid: tuple[int, ...] | None, flat: bool) -> None:
        self.module, self.support, self.grid, self.flat = module, support, grid, flat
        if flat:
            directions = directions_for(support.shape[1], np.random.default_rng(0))
            along = support @ directions.T
            self.order = torch.from_numpy(along.argsort(axis=0, kind="stable").T.copy())
            extent = float(np.ptp(along, axis=0).max()) or 1.0
            gaps = np.diff(np.take_along_axis(along, self.order.numpy().T, axis=0), axis=0).T / extent
            self.gaps = torch.from_numpy(gaps.astype(np.float32))
            self.weight = _SPREAD * len(support) ** (1 / support.shape[1])

    @property
    def most_atoms(self) -> int:
        """Points of the support."""
        return len(self.support)

    def targets(self, measures: Measures, n_jobs: int, progress: Progress) -> torch.Tensor:
        """Masses (n, points)."""
        return torch.from_numpy(measures.histograms().astype(np.float32))

    def loss(self, made: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The divergence, and the sliced distance along a few of the directions."""
        lost: torch.Tensor = (torch.xlogy(targets, targets) - targets * made).sum(dim=1).mean()
        if not self.flat:
            return lost
        off = made.exp() - targets
        for one in torch.randperm(len(self.order))[:_SLICES].tolist():
            reached = off[:, self.order[one].to(off.device)].cumsum(dim=1)[:, :-1]
            gaps = self.gaps[one].to(off.device)
            lost = lost + self.weight / _SLICES * (reached.square() * gaps).sum(dim=1).mean()
        return lost

    def block(self, vectors: torch.Tensor, centroids: Float64[np.ndarray, "n axes"] | None) -> Measures:
        """Faint masses are left out, and the others weighted so that their mean is at the centroid."""
        made = self.module(vectors).exp()
        made = torch.nn.functional.threshold(made / made.amax(dim=1, keepdim=True), _FAINT, 0.0)
        masses = made.cpu().numpy().astype(np.float64)
        masses /= masses.sum(axis=1, keepdims=True)
        if self.flat and centroids is not None:
            masses = _moved(masses, self.support, centroids)
        if self.grid is not None:
            return Measures.from_images(masses.reshape(-1, *self.grid))
        return Measures.from_histograms(masses, self.support)


class ImageDecoding(_OnSupport):
    """Images in the plane."""

    kind = "image"

    @classmethod
    def build(cls, dim: int, own: int, measures: Measures, atoms: int, flat: bool) -> "ImageDecoding":
        assert measures.grid is not None
        return cls(ImageDecoder(dim, measures.grid), measures.support, measures.grid, flat)

    @classmethod
    def restored(cls, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "ImageDecoding":
        grid = tuple(description["grid"])
        return cls(ImageDecoder(dim, grid), pixel_places(grid), grid, bool(description["flat"]))

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "grid": self.grid, "flat": self.flat}

    def arrays(self) -> dict[str, np.ndarray]:
        return {}


class HistogramDecoding(_OnSupport):
    """Histograms over a common support, and volumes."""

    kind = "histogram"

    @classmethod
    def build(cls, dim: int, own: int, measures: Measures, atoms: int, flat: bool) -> "HistogramDecoding":
        return cls(HistogramDecoder(dim, len(measures.support)), measures.support, measures.grid, flat)

    @classmethod
    def restored(
        cls, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> "HistogramDecoding":
        support, grid = arrays["decoding.support"], description["grid"]
        grid = None if grid is None else tuple(grid)
        return cls(HistogramDecoder(dim, len(support)), support, grid, bool(description["flat"]))

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "grid": self.grid, "flat": self.flat}

    def arrays(self) -> dict[str, np.ndarray]:
        return {"decoding.support": self.support}


class CloudDecoding(Decoding):
    """Clouds of a fixed number of atoms of equal mass, trained on where optimal maps send those of a reference.

    These maps (linear optimal transport, Wang et al. 2013) say which atom of one cloud is which of another, so that a
    decoder that is right in the mean is near to right; a distance of clouds alone leaves that open, and took far more
    measures to learn from. Where vectors hold the centroid the decoder does not look at it, and a measure that is moved
    is decoded as moved; else it learns the centroid too.
    """

    kind = "cloud"

    def __init__(self, module: CloudDecoder, reference: Float64[np.ndarray, "atoms axes"], placed: bool) -> None:
        self.module, self.placed = module, placed
        self.features = LinearTransport(reference[None])

    @classmethod
    def build(cls, dim: int, own: int, measures: Measures, atoms: int, flat: bool) -> "CloudDecoding":
        reference = LinearTransport.build(measures, atoms, _REFERENCE).references[0]
        centred = measures.points() - np.repeat(measures.centroids(), measures.sizes, axis=0)
        spread = float(np.sqrt((measures.weights[:, None] * centred**2).sum() / len(measures) / measures.dim)) or 1.0
        return cls._of(own, reference, spread, placed=own < dim)

    @classmethod
    def restored(cls, dim: int, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "CloudDecoding":
        own, unit = int(description["own"]), float(description["unit"])
        return cls._of(own, arrays["decoding.reference"], unit, placed=own < dim)

    @classmethod
    def _of(cls, own: int, reference: np.ndarray, unit: float, *, placed: bool) -> "CloudDecoding":
        atoms, axes = reference.shape
        return cls(CloudDecoder(own, atoms + (not placed), axes, unit), reference, placed)

    @property
    def most_atoms(self) -> int:
        """As many as each has."""
        return len(self.features.references[0])

    def targets(self, measures: Measures, n_jobs: int, progress: Progress) -> torch.Tensor:
        """Places (n, atoms, axes) about the centroid, and last the centroid where vectors do not hold it."""
        atoms, axes = self.features.references[0].shape
        places = self.features(measures, n_jobs, progress).reshape(-1, atoms, axes) * np.float32(atoms**0.5)
        if not self.placed:
            places = np.concatenate([places, measures.centroids()[:, None].astype(np.float32)], axis=1)
        return torch.from_numpy(places)

    def loss(self, made: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """How far atoms are off, in squares of a typical distance; a centroid that is off counts as all of them."""
        off = (made - targets).square().sum(dim=2)
        lost = off[:, : self.most_atoms].mean(dim=1) + off[:, self.most_atoms :].sum(dim=1)
        return lost.mean() / self.module.unit**2  # type: ignore[operator]

    def block(self, vectors: torch.Tensor, centroids: Float64[np.ndarray, "n axes"] | None) -> Measures:
        """About the centroids that vectors hold, or else those that are learned."""
        found = self.module(vectors).cpu().numpy().astype(np.float64)
        points = found[:, : self.most_atoms]
        points -= points.mean(axis=1, keepdims=True)
        points += found[:, self.most_atoms :] if centroids is None else centroids[:, None]
        sizes = np.full(len(points), points.shape[1])
        equal = np.full(points.shape[0] * points.shape[1], 1 / points.shape[1])
        return Measures.from_flat(points.reshape(-1, points.shape[2]), equal, sizes)

    def description(self) -> dict[str, Any]:
        return {"kind": self.kind, "own": self.module.looked_at, "unit": self.module.unit}

    def arrays(self) -> dict[str, np.ndarray]:
        return {"decoding.reference": self.features.references[0]}


DECODINGS: dict[str, type[Decoding]] = {
    decoding.kind: decoding for decoding in (ImageDecoding, HistogramDecoding, CloudDecoding)
}


@dataclass(frozen=True)
class DecoderSettings:
    """How a decoder is learned.

    Attributes:
        atoms: of a decoded cloud.
        steps: of training.
        mixtures: measures between others to learn from as well; None for as many as suit.
        seed: draws all that is random.
        n_jobs: processes for couplings.
        device: a torch device.

    Raises:
        SettingError: a number outside its range.
    """

    atoms: int
    steps: int
    mixtures: int | None
    seed: int
    n_jobs: int
    device: str

    def __post_init__(self) -> None:
        check_jobs(self.n_jobs)
        plain = {"atoms": whole("atoms", self.atoms, 1), "steps": whole("steps", self.steps, 1)}
        plain["seed"] = whole("seed", self.seed)
        if self.mixtures is not None:
            plain["mixtures"] = whole("mixtures", self.mixtures, also=", or None for what suits")
        for name, value in plain.items():
            object.__setattr__(self, name, value)


def joint_decoding(
    measures: Measures,
    encoding: Encoding,
    features: Float32[np.ndarray, "n *shape"],
    unit: float,
    atoms: int,
    n_jobs: int,
    progress: Progress,
) -> tuple[Decoding, Auxiliary]:
    """An untrained decoder for an encoder that is to be trained with it, and its task.

    Args:
        measures: to learn from.
        encoding: what makes vectors of them, where its training starts from.
        features: what the encoder sees of them.
        unit: a typical distance, which the encoder's output is in units of.
        atoms: of a decoded cloud.
        n_jobs: processes for couplings.
        progress: called with what is done and what there is to do.

    Raises:
        SettingError: clouds under a metric that is not of flat space.
    """
    kind, flat = suited_decoding(measures, encoding.cost)
    decoding = kind.build(encoding.dim, encoding.dim - encoding.exact_dim, measures, atoms, flat)
    exact = encoding.exact_part(measures) / np.float32(unit)
    rows = np.concatenate([features.reshape(len(features), -1), exact], axis=1)
    head = Reconstruction(decoding.module, features.shape[1:], unit)
    decoding.module.start_from(_vectors(head, encoding.module, rows))
    targets = decoding.targets(measures, n_jobs, progress)
    return decoding, Auxiliary(head, rows, targets.numpy(), decoding.loss, _BATCH)


def _vectors(head: Reconstruction, encoder: nn.Module, rows: Float32[np.ndarray, "n width"]) -> torch.Tensor:
    with torch.no_grad():
        blocks = (torch.from_numpy(rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK))
        return torch.cat([head.vectors(encoder, block) for block in blocks])


def finish_decoding(
    decoding: Decoding,
    task: Auxiliary,
    encoding: Encoding,
    features: Float32[np.ndarray, "n *shape"],
    settings: DecoderSettings,
    progress: Progress,
) -> None:
    """Train a decoder on alone, in place, for the state that the encoder it was trained with is left in.

    That is the best one for distances, and may be one of long before the decoder was good.

    Args:
        decoding: as `joint_decoding` gave it, and trained.
        task: the same.
        encoding: the encoder, trained.
        features: what it sees of the measures now.
        settings: how; its atoms and mixtures are left aside.
        progress: called with the steps done and the steps in all.
    """
    assert isinstance(task.head, Reconstruction)
    exact = task.features[:, math.prod(task.head.shape) :]
    rows = np.concatenate([features.reshape(len(features), -1), exact], axis=1)
    head = Reconstruction(decoding.module, features.shape[1:], task.head.unit)
    vectors = _vectors(head.cpu(), encoding.module.cpu().eval(), rows).numpy()
    order = np.random.default_rng([settings.seed, 12]).permutation(len(vectors))
    check = np.sort(order[: max(1, min(_MOST_CHECKED, len(order) // 10))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        _train(decoding, vectors, torch.from_numpy(task.targets), check, settings, progress, begun=True)


def learned_decoding(
    measures: Measures,
    encode: Callable[[Measures], np.ndarray],
    own: int,
    cost: GroundCost,
    settings: DecoderSettings,
    shown: Callable[[str], Progress],
) -> tuple[Decoding, Int64[np.ndarray, " check"]]:
    """A decoder for an encoder that stays as it is, and which measures chose its state, and were not trained on.

    Args:
        measures: to learn from.
        encode: measures to vectors.
        own: numbers of a vector, the first, that stay when a measure is moved.
        cost: that distances of vectors stand for.
        settings: how.
        shown: by what is done, a function to call with what is done of it and all of it.

    Raises:
        SettingError: clouds under a metric that is not of flat space.
        SolverError: a coupling could not be certified.
    """
    kind, flat = suited_decoding(measures, cost)
    seed = settings.seed
    order = np.random.default_rng([seed, 12]).permutation(len(measures))
    check, known = np.split(order, [min(_MOST_CHECKED, len(measures) // 10)])
    parts = [measures, _copies(measures[np.sort(known)], seed)]
    vectors = [encode(part) for part in parts]
    count = min(2 * len(known), _MOST_MIXED) if settings.mixtures is None else settings.mixtures
    if count and kind is not HistogramDecoding and cost.splits_translation:
        own_vectors = vectors[0][np.sort(known)].astype(np.float64)
        chosen = _mixtures(own_vectors, count, seed)
        between = mixed(measures[np.sort(known)], chosen, cost, settings.n_jobs, shown("mixtures"))
        parts.append(between if measures.grid is None else between.on_pixels(measures.grid))
        vectors.append(np.stack([shares @ own_vectors[rows] for rows, shares in chosen]).astype(np.float32))
    everything = Measures.concatenate([part for part in parts if len(part)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoding = kind.build(vectors[0].shape[1], own, measures, settings.atoms, flat)
        targets = decoding.targets(everything, settings.n_jobs, shown("transport maps"))
        _train(decoding, np.concatenate(vectors), targets, np.sort(check), settings, shown("decoder"))
    return decoding, check


def suited_decoding(measures: Measures, cost: GroundCost) -> tuple[type[Decoding], bool]:
    """The decoding for measures like these, and whether distances are those of their coordinates.

    Raises:
        SettingError: clouds under a metric that is not of flat space.
    """
    kind = _suited(measures)
    flat = isinstance(cost.metric, str) and not cost.is_great_circle
    if kind is CloudDecoding and not flat:
        raise SettingError("clouds are decoded in flat space alone; under this cost give histograms")
    return kind, flat


def _suited(measures: Measures) -> type[Decoding]:
    if measures.grid is not None and len(measures.grid) == 2:
        return ImageDecoding
    return CloudDecoding if measures.atoms is None else HistogramDecoding


def _copies(measures: Measures, seed: int) -> Measures:
    """Slightly distorted copies of images and clouds, to learn from as well; of histograms there are none."""
    if _suited(measures) is HistogramDecoding:
        return measures[:0]
    some = distorted(measures, min(_COPIES * len(measures), _MOST_COPIES), seed, _STRENGTH)
    return some if measures.grid is None else some.on_pixels(measures.grid)


def _mixtures(vectors: Float[np.ndarray, "n dim"], count: int, seed: int) -> list[Mixture]:
    """Choices of measures to learn from what lies between: any two, a few that are near to each other, and any many."""
    rng, found = np.random.default_rng([seed, 13]), list[Mixture]()
    for kind in rng.random(count).tolist():
        if kind < _OF_TWO:
            share = rng.random()
            found.append((rng.choice(len(vectors), 2, replace=False), np.array([1 - share, share])))
            continue
        if kind < _OF_TWO + _OF_MANY:
            rows = rng.choice(len(vectors), min(_MANY, len(vectors)), replace=False)
            first = np.argsort(np.square(vectors[rows] - vectors[rows].mean(axis=0)).sum(axis=1))
            found.append((rows[first], np.full(len(rows), 1 / len(rows))))
            continue
        pool = rng.choice(len(vectors), min(_POOL, len(vectors)), replace=False)
        far = np.square(vectors[pool] - vectors[pool[0]]).sum(axis=1)
        near = pool[np.argsort(far)[: max(_MOST_OF, len(pool) // 10)]]
        rows = rng.choice(near, min(int(rng.integers(3, _MOST_OF + 1)), len(near)), replace=False)
        shares = rng.dirichlet(np.ones(len(rows)))
        first = np.argsort(np.square(vectors[rows] - shares @ vectors[rows]).sum(axis=1))
        found.append((rows[first], shares[first]))
    return found


def _train(
    decoding: Decoding,
    vectors: Float[np.ndarray, "n dim"],
    targets: torch.Tensor,
    check: Int64[np.ndarray, " v"],
    settings: DecoderSettings,
    progress: Progress,
    *,
    begun: bool = False,
) -> None:
    """Train a decoder in place and leave it in its best state on the measures it is checked on, and not trained on."""
    steps, seed, device = settings.steps, settings.seed, settings.device
    known = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
    rows = np.setdiff1d(np.arange(len(known)), check)
    module = decoding.module.to(device)
    if not begun:
        module.start_from(known[rows])
    optimizer = torch.optim.AdamW(module.parameters(), lr=_RATE, weight_decay=_DECAY)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, max(steps, 2), pct_start=_WARM_UP)
    every, rng = max(1, steps // _CHECKS), np.random.default_rng([seed, 11])

    def error() -> float:
        module.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = [
                float(decoding.loss(module(known[part].to(device)), targets[part].to(device))) * len(part)
                for part in map(torch.from_numpy, np.array_split(check, -(-len(check) // _BLOCK)))
            ]
        module.train()
        return sum(parts) / len(check)

    history = [(0, error())]
    best = copy.deepcopy(module.state_dict())
    for step in range(1, steps + 1):
        batch = torch.from_numpy(rng.choice(rows, min(_BATCH, len(rows)), replace=False))
        lost = decoding.loss(module(known[batch].to(device)), targets[batch].to(device))
        optimizer.zero_grad()
        lost.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cycle.step()
        if step % every == 0 or step == steps:
            history.append((step, error()))
            if history[-1][1] <= min(one for _, one in history):
                best = copy.deepcopy(module.state_dict())
        progress(step, steps)
    module.load_state_dict(best)
    module.to("cpu").eval()
    if not all(math.isfinite(one) for _, one in history):
        raise SettingError("the decoder did not learn anything finite; rescale the measures")


def _moved(
    masses: Float64[np.ndarray, "n points"], support: Float64[np.ndarray, "points axes"], means: np.ndarray
) -> Float64[np.ndarray, "n points"]:
    """Masses near to these, on the same points, whose means are as given.

    Each is weighted by 1 + slope . (x - mean), of which one slope meets the mean; where that would take a mass below a
    fifth of what it was, by exp(slope . x), for which Newton's method finds the slope: of all masses with that mean
    these are the nearest in the Kullback-Leibler divergence (Csiszar 1975). A mean that no weighting can have, or
    hardly one, is met as nearly as is possible.
    """
    scale = float(np.ptp(support, axis=0).max()) or 1.0
    here = (support - support.mean(axis=0)) / scale
    low, high = here.min(axis=0), here.max(axis=0)
    room = _INSIDE * (high - low)
    wanted = np.clip((means - support.mean(axis=0)) / scale, low + room, high - room)
    mean, second = _moments(masses, here)
    slopes = np.linalg.solve(second, (wanted - mean)[..., None])[..., 0]
    factor = product(slopes, here.T)
    factor += 1 - np.einsum("na,na->n", slopes, mean)[:, None]
    steep = np.flatnonzero(factor.min(axis=1) < _LEAST_FACTOR)
    moved: np.ndarray = masses * factor
    if len(steep):
        moved[steep] = _tilted(masses[steep], here, wanted[steep])
    return moved


def _tilted(
    masses: Float64[np.ndarray, "n points"], here: Float64[np.ndarray, "points axes"], wanted: np.ndarray
) -> Float64[np.ndarray, "n points"]:
    slopes, tilted = np.zeros_like(wanted), masses
    for _ in range(_NEWTON):
        mean, second = _moments(tilted, here)
        missed = wanted - mean
        if np.abs(missed).max() <= _WITHIN:
            break
        step = np.linalg.solve(second, missed[..., None])[..., 0]
        slopes += step / np.maximum(1.0, np.linalg.norm(step, axis=1, keepdims=True) / _STRIDE)
        exponent = product(slopes, here.T)
        exponent -= exponent.max(axis=1, keepdims=True, where=masses > 0, initial=-np.inf)
        tilted = np.where(masses > 0, masses * np.exp(np.minimum(exponent, 0.0)), 0.0)
        tilted /= tilted.sum(axis=1, keepdims=True)
    return tilted


def _moments(
    masses: Float64[np.ndarray, "n points"], here: Float64[np.ndarray, "points axes"]
) -> tuple[Float64[np.ndarray, "n axes"], Float64[np.ndarray, "n axes axes"]]:
    """Means (n, axes) and covariances (n, axes, axes)."""
    axes = int(here.shape[1])
    products = (here[:, :, None] * here[:, None, :]).reshape(len(here), -1)
    found = product(masses, np.concatenate([here, products], axis=1))
    mean = found[:, :axes]
    spread = found[:, axes:].reshape(-1, axes, axes) - mean[:, :, None] * mean[:, None, :]
    return np.asarray(mean), np.asarray(spread + 1e-12 * np.eye(axes))
