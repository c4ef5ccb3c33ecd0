"""Short vectors from long ones, whose distances are known for all pairs: no exact one is solved for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32

from wembed.euclidean import Residuals, distances_between, distances_of_pairs, product
from wembed.transport.parallel import Progress

__all__ = ["Shortening"]

_MOST_AXES = 2_048  # of the long vectors that others are learned from
_STEPS = 600
_BATCH = 512  # vectors in a step: all their pairs
_RATE = 1e-3
_WIDTHS = np.geomspace(0.01, 2.0, 48)  # of the kernel, in units of the mean squared distance between coordinates
_ASKING, _NEIGHBORS = 1_000, 20  # vectors, and the nearest to each of them, by which the width is chosen


@dataclass(frozen=True, eq=False)
class Shortening:
    """A linear map of long vectors, and beside it, on wish, the length of what it leaves out.

    Attributes:
        centre: of the long vectors.
        axes: what the numbers of a short vector are, in terms of those of a long one. Where there is a residual they
            are orthonormal.
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
    def with_residual(cls, vectors: Float32[np.ndarray, "n long"], dim: int) -> "Shortening":
        """Coordinates along the axes of most variance, and the length of the residual in front of them."""
        centre, axes = _principal(vectors, dim - 1)
        plain = cls(centre, axes, Residuals(1.0, dim - 1))
        return replace(plain, residuals=Residuals(_suited_width(vectors, plain(vectors)), dim - 1))

    @classmethod
    def plain(
        cls, vectors: Float32[np.ndarray, "n long"], dim: int, seed: int, progress: Progress | None = None
    ) -> "Shortening":
        """A linear map that keeps plain distances as well as it can: it starts along the axes of most variance.

        It learns from all pairs of the vectors, which takes no exact distance: the long ones are taken as right.
        """
        centre, axes = _principal(vectors, min(_MOST_AXES, len(vectors), vectors.shape[1]))
        if len(axes) <= dim:  # nothing would be lost
            return cls(centre, _padded(axes, dim), None)
        places = torch.from_numpy(product(vectors - centre, axes.T))
        size = float(places.square().sum(dim=1).mean().sqrt()) or 1.0
        places /= size
        kept = float(places[:, :dim].square().sum(dim=1).mean().sqrt()) or 1.0
        weights = torch.zeros(dim, len(axes))
        weights.fill_diagonal_(1 / kept)
        weights.requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=_RATE, betas=(0.9, 0.99))
        rng = np.random.default_rng([seed, 11])
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
            if progress:
                progress(step + 1, _STEPS)
        return cls(centre, product(weights.detach().numpy(), axes), None)


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


def _padded(axes: Float32[np.ndarray, "few long"], rows: int) -> Float32[np.ndarray, "rows long"]:
    return np.concatenate([axes, np.zeros((rows - len(axes), axes.shape[1]), dtype=np.float32)])


def _suited_width(long: Float32[np.ndarray, "n long"], short: Float32[np.ndarray, "n short"]) -> float:
    """That by which the distances to the nearest vectors are kept best, relative errors squared."""
    asking = np.linspace(0, len(long) - 1, min(len(long), _ASKING)).astype(int)
    apart = distances_between(long[asking], long)
    apart[np.arange(len(asking)), asking] = np.inf
    apart[apart == 0] = np.inf  # equal measures are as near as can be with any width
    near = np.argpartition(apart, min(_NEIGHBORS, len(long) - 1) - 1, axis=1)[:, :_NEIGHBORS]
    exact = np.take_along_axis(apart, near, axis=1).ravel()
    pairs = np.stack([np.repeat(asking, near.shape[1]), near.ravel()], axis=1)[np.isfinite(exact)]
    exact = exact[np.isfinite(exact)]
    typical = 2 * float(short[:, 1:].astype(np.float64).var(axis=0).sum()) or 1.0

    def lost(width: float) -> float:
        made = distances_of_pairs(short, pairs, residuals=Residuals(width, short.shape[1] - 1))
        return float(np.square(made / exact - 1).sum())

    return min((float(share * typical) for share in _WIDTHS), key=lost)
