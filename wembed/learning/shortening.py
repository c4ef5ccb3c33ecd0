"""Short vectors from long ones, whose distances are known for all pairs: no exact one is solved for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from wembed.euclidean import Residuals, distances_between, distances_of_pairs, product
from wembed.transport.parallel import Progress

__all__ = ["Shortening"]

_MOST_AXES = 2_048  # of the long vectors that others are learned from
_STEPS = 600
_BATCH = 512  # vectors in a step: all their pairs
_RATE = 1e-3
_LOOK = 100  # steps, after each of which the map is judged
_MISSED = 0.01  # neighbours, that no map is thought better than
_REAL = 0.5  # of the squared length of an axis that is there: others are zeros
_WIDTHS = np.geomspace(0.01, 2.0, 48)  # of the kernel, in units of the mean squared distance between coordinates
_ASKING, _NEIGHBORS = 1_000, 20  # vectors, and the nearest to each of them, by which the width is chosen


@dataclass(frozen=True, eq=False)
class Shortening:
    """A linear map of long vectors, and beside it, on wish, the length of what it leaves out.

    Attributes:
        centre: of the long vectors.
        axes: what the numbers of a short vector are, in terms of those of a long one. Where there is a residual they
            are orthonormal, or zeros where there are no more.
        residuals: how distances are read where the length of the residual comes first; None without it.
        scale: of short vectors.
    """

    centre: Float32[np.ndarray, " long"]
    axes: Float32[np.ndarray, "short long"]
    residuals: Residuals | None
    scale: float = 1.0

    @property
    def dim(self) -> int:
        """Numbers of a short vector."""
        return len(self.axes) + (self.residuals is not None)

    def __call__(self, vectors: Float32[np.ndarray, "n long"]) -> Float32[np.ndarray, "n short"]:
        """Short vectors of long ones."""
        centred = vectors - self.centre
        short = product(centred, self.axes.T)
        if self.residuals is not None:
            centred -= product(short, self.axes)  # not by Pythagoras: where little is left, that would be rounding
            short = np.concatenate([np.linalg.norm(centred, axis=1)[:, None], short], axis=1)
        short *= np.float32(self.scale)
        return short

    def scaled(self, factor: float) -> "Shortening":
        """Distances multiplied by a factor."""
        residuals = self.residuals and self.residuals.in_units(1 / factor)
        return replace(self, scale=self.scale * factor, residuals=residuals)

    def arrays(self) -> dict[str, np.ndarray]:
        """What to save; `restored` takes it."""
        kept = {"centre": self.centre, "axes": self.axes, "scale": np.array([self.scale])}
        return kept if self.residuals is None else kept | {"width": np.array([self.residuals.width])}

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> "Shortening":
        """What `arrays` were taken from."""
        axes = arrays["axes"]
        residuals = Residuals(float(arrays["width"][0]), len(axes)) if "width" in arrays else None
        return cls(arrays["centre"], axes, residuals, float(arrays["scale"][0]))

    @classmethod
    def with_residual(
        cls,
        vectors: Float32[np.ndarray, "n long"],
        others: Float32[np.ndarray, "m long"],
        dim: int,
        progress: Progress | None = None,
    ) -> "Shortening":
        """Coordinates along the axes of most variance, and the length of the residual in front of them.

        The width of the kernel is chosen by other vectors: of those that the axes were found by residuals are shorter.
        """
        steps = 1 + len(_WIDTHS)
        if progress:
            progress(0, steps)
        centre, axes = _principal(vectors, dim - 1)
        made = cls(centre, axes, Residuals(1.0, dim - 1))
        width = _suited_width(others, made(others), lambda done: progress and progress(1 + done, steps))
        return replace(made, residuals=Residuals(width, dim - 1))

    @classmethod
    def plain(
        cls,
        vectors: Float32[np.ndarray, "n long"],
        others: Float32[np.ndarray, "m long"],
        dim: int,
        seed: int,
        progress: Progress | None = None,
    ) -> "Shortening":
        """A linear map that keeps plain distances as well as it can.

        It learns from all pairs of the vectors, which takes no exact distance: the long ones are taken as right. It
        starts along the axes of most variance; and again along half as many, beside random directions that hold what
        is beyond these in the mean. The state that is nearest to the distances between other vectors is taken.
        """
        starts = [dim, dim // 2]
        if progress:
            progress(0, len(starts) * _STEPS)
        centre, axes = _principal(vectors, min(_MOST_AXES, len(vectors), vectors.shape[1]))
        axes = axes[np.square(axes).sum(axis=1) > _REAL]
        known, judges = product(vectors - centre, axes.T), _Judges.of(others - centre)
        found = []
        for number, start in enumerate(starts):

            def show(step: int, before: int = number * _STEPS) -> None:
                if progress:
                    progress(before + step, len(starts) * _STEPS)

            first = _extended(axes[:start], dim, seed)
            found.append(_learned(known, axes, first, judges, seed, show))
        return cls(centre, min(found, key=lambda one: one[0])[1], None)


def _learned(
    known: Float32[np.ndarray, "n axes"],
    axes: Float32[np.ndarray, "axes long"],
    first: Float32[np.ndarray, "short long"],
    judges: "_Judges",
    seed: int,
    progress: Callable[[int], None],
) -> tuple[float, Float32[np.ndarray, "short long"]]:
    """What a map of long vectors comes to, by what is known of them along some axes, and how far off it is."""
    places = torch.from_numpy(known)
    size = float(places.square().sum(dim=1).mean().sqrt()) or 1.0
    shown = float(np.square(product(known, product(axes, first.T))).sum(axis=1).mean()) ** 0.5 or 1.0
    first = first * np.float32(size / shown)
    best = judges.scaled(first)
    kept = product(first, axes.T)
    beyond = first - product(kept, axes)  # is left as it is
    places = places / size
    weights = torch.from_numpy(kept).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=_RATE, betas=(0.9, 0.99))
    rng = np.random.default_rng([seed, 13])
    count = min(_BATCH, len(places))
    above = torch.triu_indices(count, count, 1)
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / (0.1 * _STEPS)) * 0.5 * (1 + np.cos(np.pi * step / _STEPS))
        some = places[torch.from_numpy(rng.permutation(len(places))[:count])]
        wanted = _squares(some)[above[0], above[1]].clamp_min(0).sqrt()
        made = _squares(some @ weights.T)[above[0], above[1]].clamp_min(1e-12).sqrt()
        lost = (made - wanted).square().mean()
        optimizer.zero_grad()
        lost.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % _LOOK == 0:
            now = product(weights.detach().numpy(), axes) + beyond
            best = min(best, judges.scaled(now), key=lambda one: one[0])
        progress(step + 1)
    return best


@dataclass(frozen=True, eq=False)
class _Judges:
    """Vectors that a map is judged by, and how far apart they are: pairs at random, and some with their nearest."""

    vectors: Float32[np.ndarray, "m long"]
    nearest: Int64[np.ndarray, "a k"]
    pairs: Int64[np.ndarray, "pairs 2"]
    exact: Float64[np.ndarray, " pairs"]

    @classmethod
    def of(cls, vectors: Float32[np.ndarray, "m long"]) -> "_Judges":
        nearest, near = _nearest(vectors)
        pairs = np.concatenate([near, np.random.default_rng(0).integers(len(vectors), size=near.shape)])
        exact = distances_of_pairs(vectors, pairs)
        return cls(vectors, nearest, pairs[exact > 0], exact[exact > 0])

    def scaled(self, axes: Float32[np.ndarray, "short long"]) -> tuple[float, Float32[np.ndarray, "short long"]]:
        """The map at the scale that suits, and its mean relative error times the squared share of neighbours missed."""
        short = product(self.vectors, axes.T)
        ratio = distances_of_pairs(short, self.pairs) / self.exact
        middle = float(np.median(ratio)) if len(ratio) else 0.0
        if middle <= 0:
            return np.inf, axes
        found, _ = _nearest(short)
        kept = np.mean([np.isin(one, other).mean() for one, other in zip(found, self.nearest, strict=True)])
        return float(np.abs(ratio / middle - 1).mean() * (1 - kept + _MISSED) ** 2), axes / np.float32(middle)


def _squares(vectors: torch.Tensor) -> torch.Tensor:
    """Squared distances between all."""
    gram = vectors @ vectors.T
    norms = gram.diagonal()
    return norms[:, None] + norms - 2 * gram


def _principal(
    vectors: Float32[np.ndarray, "n long"], most: int
) -> tuple[Float32[np.ndarray, " long"], Float32[np.ndarray, "most long"]]:
    """The mean of vectors, and orthonormal axes of most variance; rows of zeros where there are no more of them."""
    centre = vectors.mean(axis=0)
    centred = torch.from_numpy(vectors - centre)
    wide = centred.shape[0] < centred.shape[1]
    gram = (centred @ centred.T if wide else centred.T @ centred).double()
    values, found = torch.linalg.eigh(gram)
    real = values > 1e-9 * values[-1].clamp_min(torch.finfo(torch.double).tiny)
    found = found[:, real].flip(1)[:, :most].float()
    axes = found.T
    if wide:
        axes = torch.linalg.qr((centred.T @ found).double()).Q.T.float()
    return centre, _padded(axes.contiguous().numpy(), most)


def _extended(axes: Float32[np.ndarray, "few long"], rows: int, seed: int) -> Float32[np.ndarray, "rows long"]:
    """And random directions orthogonal to them, as much longer as keeps squared lengths beyond the axes in the mean."""
    more, beyond = rows - len(axes), axes.shape[1] - len(axes)
    if not more:
        return axes
    drawn = np.random.default_rng([seed, 11]).normal(size=(axes.shape[1], more)).astype(np.float32)
    drawn -= product(axes.T, product(axes, drawn))
    directions = np.linalg.qr(drawn.astype(np.float64)).Q.T.astype(np.float32)
    return np.concatenate([axes, directions * np.float32((beyond / more) ** 0.5)])


def _padded(axes: Float32[np.ndarray, "few long"], rows: int) -> Float32[np.ndarray, "rows long"]:
    return np.concatenate([axes, np.zeros((rows - len(axes), axes.shape[1]), dtype=np.float32)])


def _nearest(vectors: Float32[np.ndarray, "n dim"]) -> tuple[Int64[np.ndarray, "a k"], Int64[np.ndarray, "pairs 2"]]:
    """Those nearest to each of some vectors but itself, and the pairs that they are with it."""
    asking = np.linspace(0, len(vectors) - 1, min(len(vectors), _ASKING)).astype(np.int64)
    apart = distances_between(vectors[asking], vectors)
    apart[np.arange(len(asking)), asking] = np.inf
    most = max(1, min(_NEIGHBORS, len(vectors) - 1))
    nearest = np.argpartition(apart, most - 1, axis=1)[:, :most]
    return nearest, np.stack([asking.repeat(most), nearest.ravel()], axis=1)


def _suited_width(
    long: Float32[np.ndarray, "n long"], short: Float32[np.ndarray, "n short"], progress: Callable[[int], object]
) -> float:
    """That by which the distances to the nearest vectors are kept best, relative errors squared."""
    _, pairs = _nearest(long)
    exact = distances_of_pairs(long, pairs)
    pairs, exact = pairs[exact > 0], exact[exact > 0]
    typical = 2 * float(short[:, 1:].astype(np.float64).var(axis=0).sum()) or 1.0
    lost = []
    for done, width in enumerate(_WIDTHS * typical):
        made = distances_of_pairs(short, pairs, residuals=Residuals(float(width), short.shape[1] - 1))
        lost.append(float(np.square(made / exact - 1).sum()))
        progress(done + 1)
    return float(_WIDTHS[int(np.argmin(lost))] * typical)
