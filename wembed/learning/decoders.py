"""Torch modules that map a vector back to a measure."""

import math
from itertools import pairwise

import torch
from torch import nn

__all__ = ["CloudDecoder", "Decoder", "HistogramDecoder", "ImageDecoder", "Reconstruction"]

_SMALLEST = 8  # pixels along the longer side, from which images are doubled until they are large enough
_NARROWEST = 8  # channels of a layer


class Decoder(nn.Module):
    """What is looked at of vectors, their first `dim` numbers, is brought to mean 0 and a common scale before."""

    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.looked_at = dim
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    def start_from(self, vectors: torch.Tensor) -> None:
        """Look at vectors like these."""
        own = vectors[:, : self.looked_at]
        self.centre.copy_(own.mean(dim=0))
        self.scale.copy_((own - self.centre).std().clamp_min(torch.finfo(torch.float32).tiny))

    def stretched(self, numbers: int, factor: float) -> None:
        """Make of vectors whose first numbers are so many times as large what was made of them before."""
        first = next(layer for layer in self.modules() if isinstance(layer, nn.Linear))
        with torch.no_grad():
            first.weight[:, :numbers] /= factor
            self.centre[:numbers] *= factor

    def seen(self, vectors: torch.Tensor) -> torch.Tensor:
        """What the layers see of vectors (n, dim)."""
        return (vectors[:, : self.looked_at] - self.centre) / self.scale


class Reconstruction(nn.Module):
    """What a decoder makes of the vectors of an encoder, for both to learn from.

    It is given what the encoder sees of a measure (of this shape) in one row, and after it the numbers that stand
    beside the encoder's output. Vectors are in the unit of the data.
    """

    def __init__(self, decoder: Decoder, shape: tuple[int, ...], unit: float) -> None:
        super().__init__()
        self.decoder, self.shape, self.unit = decoder, shape, unit

    def vectors(self, encoder: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """Vectors (n, dim) of rows (n, shown + beside)."""
        shown = math.prod(self.shape)
        learned = encoder(rows[:, :shown].reshape(-1, *self.shape))
        return torch.cat([learned, rows[:, shown:]], dim=1) * self.unit

    def forward(self, encoder: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """What is made of each."""
        made: torch.Tensor = self.decoder(self.vectors(encoder, rows))
        return made


class ImageDecoder(Decoder):
    """Densities on the pixels of an image, by convolutions that double its sides (sub-pixel, Shi et al. 2016)."""

    def __init__(self, dim: int, grid: tuple[int, ...], width: int = 32, hidden: int = 384) -> None:
        super().__init__(dim)
        self.grid = grid
        doublings = max(0, math.ceil(math.log2(max(grid) / _SMALLEST)))
        self.start = tuple(-(-side // 2**doublings) for side in grid)
        widths = [max(width >> step, _NARROWEST) for step in range(doublings + 1)]
        self.dense = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, width * math.prod(self.start)), nn.GELU()
        )
        layers: list[nn.Module] = []
        for wide, narrow in pairwise([*widths[:-1], 1] if doublings else []):
            layers += [nn.Conv2d(wide, 4 * narrow, 3, padding=1), nn.PixelShuffle(2), nn.GELU()]
        self.image = nn.Sequential(*layers[:-1]) if doublings else nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Logarithms of the densities (n, pixels) of vectors (n, dim)."""
        begun = self.dense(self.seen(vectors)).reshape(len(vectors), -1, *self.start)
        height, width = self.grid
        logits = self.image(begun)[:, 0, :height, :width].reshape(len(vectors), -1)
        return torch.log_softmax(logits, dim=1)


class HistogramDecoder(Decoder):
    """Masses on the points of a common support, by a perceptron."""

    def __init__(self, dim: int, bins: int, hidden: int = 512) -> None:
        super().__init__(dim)
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bins)
        )

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Logarithms of the masses (n, bins) of vectors (n, dim)."""
        return torch.log_softmax(self.layers(self.seen(vectors)), dim=1)


class CloudDecoder(Decoder):
    """A fixed number of points, by a perceptron."""

    def __init__(self, dim: int, points: int, axes: int, unit: float, hidden: int = 512) -> None:
        super().__init__(dim)
        self.points, self.axes, self.unit = points, axes, unit  # that of a point from the middle, along an axis
        last = nn.Linear(hidden, points * axes)
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), last)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Points (n, points, axes) of vectors (n, dim)."""
        found: torch.Tensor = self.layers(self.seen(vectors)) * self.unit
        return found.reshape(len(vectors), self.points, self.axes)
