"""Fixed geometric features of a measure: what an encoder sees of it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64
from scipy.linalg import block_diag

from wembed.errors import MeasureError
from wembed.measures import Measures
from wembed.transport.maps import transport_maps
from wembed.transport.parallel import Progress

__all__ = [
    "LinearTransport",
    "Pixels",
    "SlicedQuantiles",
    "SlicesAndMaps",
    "directions_for",
    "levels_for",
    "planar_turns",
]

_PLANAR_DIRECTIONS = 16
_MANY_DIMENSIONS = 64
_REFERENCE_MEASURES = 300  # that reference atoms are placed by
_REFERENCE_POINTS = 20_000
_SLICES_SHARE = 0.2  # of squared distances, where maps stand beside them
_BLOCK_NUMBERS = 1 << 17  # padded atoms times directions in one go: the working set stays in the cache


@dataclass(frozen=True, eq=False)
class SlicedQuantiles:
    """Quantile functions of the centred measure along fixed directions, averaged over equal steps of mass.

    The features are scaled so that their Euclidean distance is sqrt(dim) times the sliced W_2 of the centred measures
    (Bonneel et al. 2015), up to the averaging: exact for two measures that are translates along a line.

    Attributes:
        directions: unit vectors to project on.
        levels: steps of mass in which each quantile function is averaged.
    """

    directions: Float64[np.ndarray, "directions dim"]
    levels: int

    @classmethod
    def build(cls, dim: int, seed: int) -> "SlicedQuantiles":
        """As many directions, and steps of mass, as suit the dimension."""
        directions = directions_for(dim, np.random.default_rng(seed))
        return cls(directions, levels_for(len(directions)))

    @property
    def size(self) -> int:
        """Numbers in the features of one measure."""
        return len(self.directions) * self.levels

    @property
    def shown(self) -> int:
        """Numbers of them that tell of one turn: all."""
        return self.size

    def __call__(self, measures: Measures) -> Float32[np.ndarray, "n features"]:
        """Features of each measure, in the unit of the support.

        Raises:
            MeasureError: measures of another dimension than the directions.
        """
        if measures.dim != self.directions.shape[1]:
            raise MeasureError(
                f"the measures have dimension {measures.dim}; these features are for {self.directions.shape[1]}"
            )
        sizes = measures.sizes
        by_size = np.argsort(-sizes, kind="stable")  # blocks of like sizes waste little padding; the widest come first
        features = np.empty((len(measures), self.size), dtype=np.float32)
        start = 0
        while start < len(by_size):
            atoms = int(sizes[by_size[start]])
            stop = start + max(1, _BLOCK_NUMBERS // (atoms * len(self.directions)))
            block = by_size[start:stop]
            features[block] = self._block(measures[block])
            start = stop
        features *= (measures.dim / self.size) ** 0.5
        return features

    def turned(self, places: int) -> Float32[np.ndarray, "features features"]:
        """The map from the features of a measure in the plane to those of it turned by so many places.

        A place is the angle from each direction to the next. Turned by one, the slice along a direction is what it was
        along the one before; before the first comes the last, the other way round.
        """
        count = len(self.directions)
        found = np.zeros((count, self.levels, count, self.levels), dtype=np.float32)
        for direction in range(count):
            halves, before = divmod(direction - places, count)
            same = np.eye(self.levels)
            found[direction, :, before] = same if halves % 2 == 0 else -same[::-1]
        return found.reshape(self.size, self.size)

    def _block(self, measures: Measures) -> Float32[np.ndarray, "n features"]:
        count, widest = len(measures), int(measures.sizes.max(initial=1))
        inside = np.arange(widest) < measures.sizes[:, None]
        points = np.zeros((count, widest, measures.dim))
        points[inside] = measures.points()
        weights = np.zeros((count, widest), dtype=np.float32)
        weights[inside] = measures.weights
        points -= measures.centroids()[:, None, :]
        points[~inside] = 0.0
        slices = np.matmul(self.directions.astype(np.float32), points.astype(np.float32).transpose(0, 2, 1))
        position, mass = _sort_together(slices.reshape(-1, widest), np.repeat(weights, len(self.directions), axis=0))
        return _averaged_quantiles(position, mass, self.levels).reshape(count, -1)


@dataclass(frozen=True, eq=False)
class LinearTransport:
    """Linear optimal transport (Wang et al. 2013): where the optimal maps send each atom of fixed references.

    The measures are moved to their centroids. The Euclidean distance of the features is at least the W_2 of the centred
    measures, up to the splitting of mass. One exact solve a measure and reference; squared distances are means over
    the references, which are too long in different places.

    A map to the reference of a measure that is turned is found as that to the reference turned the other way round, so
    that each turn takes one solve.

    Attributes:
        references: for each reference, places of atoms of equal mass.
        turns: rotations, the first none; the reference for each is the first, turned the other way round. None where
            references are not one that is turned.
    """

    references: Float64[np.ndarray, "references r dim"]
    turns: Float64[np.ndarray, "references dim dim"] | None = None

    @classmethod
    def build(cls, measures: Measures, atoms: int, seed: int, count: int = 1) -> "LinearTransport":
        """References at k-means centres of the atoms of some of these measures, moved to their centroids."""
        from sklearn.cluster import KMeans  # imported late: heavy
        from threadpoolctl import threadpool_limits

        rng = np.random.default_rng(seed)
        chosen = measures[np.sort(rng.permutation(len(measures))[:_REFERENCE_MEASURES])]
        some = np.sort(rng.permutation(len(chosen.weights))[:_REFERENCE_POINTS])
        owner = np.searchsorted(chosen.offsets, some, side="right") - 1
        places = some if chosen.atoms is None else chosen.atoms[some]
        points = chosen.support[places] - chosen.centroids()[owner]
        spread = float(points.std()) or 1.0
        distinct = len(np.unique(np.round(points / spread, 6), axis=0))
        centres = []
        for number in range(count):
            clusters = KMeans(min(atoms, distinct), n_init=1, random_state=(seed + number) % 2**32)
            with threadpool_limits(1):  # more threads sum in the order in which they finish
                centres.append(clusters.fit(points / spread, sample_weight=chosen.weights[some]).cluster_centers_)
        return cls(np.stack(centres) * spread)

    def facing(self, turns: Float64[np.ndarray, "turns dim dim"]) -> "LinearTransport":
        """To the first reference, of measures in each of these turns."""
        return LinearTransport(self.references[0] @ turns, turns)

    def first_turns(self, count: int) -> "LinearTransport":
        """In the first of the turns alone."""
        assert self.turns is not None
        return LinearTransport(self.references[:count], self.turns[:count])

    @property
    def size(self) -> int:
        """Numbers in the features of one measure."""
        return self.references.size

    @property
    def shown(self) -> int:
        """Numbers of them that tell of one turn."""
        return self.size if self.turns is None else self.references[0].size

    def turned(self, number: int) -> Float32[np.ndarray, "shown features"]:
        """The map from the features of a measure to those of it in one turn, by the one reference."""
        assert self.turns is not None
        maps = np.zeros((self.shown, len(self.turns), self.shown), dtype=np.float32)
        maps[:, number] = len(self.turns) ** 0.5 * np.kron(np.eye(len(self.references[0])), self.turns[number])
        return maps.reshape(self.shown, -1)

    def __call__(
        self, measures: Measures, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "n features"]:
        """sqrt(mass) times the place to which each reference atom is sent.

        Raises:
            MeasureError: measures of another dimension than the references.
            SolverError: a coupling could not be certified.
        """
        count, atoms, _ = self.references.shape
        features = np.empty((len(measures), count, self.size // count), dtype=np.float32)
        for number, reference in enumerate(self.references):

            def show(done: int, total: int, before: int = number * len(measures)) -> None:
                if progress:
                    progress(before + done, count * total)

            features[:, number] = transport_maps(measures, reference, n_jobs, show).reshape(len(measures), -1)
        features /= np.float32(np.sqrt(count * atoms))
        return features.reshape(len(measures), -1)


@dataclass(frozen=True, eq=False)
class SlicesAndMaps:
    """Of a measure in the plane, and of it turned: sliced quantiles, and the optimal maps to one reference.

    In each turn squared distances are a fifth those of slices, which are too short, most of all between measures that
    are nearly alike, and for the rest those of maps, which are nearer.

    Attributes:
        slices: along fixed directions.
        maps: to one reference, in each of the turns.
        places: how far measures are turned, in angles between directions; the first is no turn.
    """

    slices: SlicedQuantiles
    maps: LinearTransport
    places: tuple[int, ...]

    @classmethod
    def build(cls, measures: Measures, atoms: int, seed: int, places: tuple[int, ...]) -> "SlicesAndMaps":
        """Maps to a reference at k-means centres of the atoms of some of these measures, moved to their centroids."""
        maps = LinearTransport.build(measures, atoms, seed).facing(planar_turns(places))
        return cls(SlicedQuantiles.build(measures.dim, seed), maps, places)

    def first_turns(self, count: int) -> "SlicesAndMaps":
        """In the first of the turns alone."""
        return SlicesAndMaps(self.slices, self.maps.first_turns(count), self.places[:count])

    @property
    def turns(self) -> Float64[np.ndarray, "turns 2 2"] | None:
        """Rotations of the plane, the first none."""
        return self.maps.turns

    @property
    def size(self) -> int:
        """Numbers in the features of one measure."""
        return self.slices.size + self.maps.size

    @property
    def shown(self) -> int:
        """Numbers of them that tell of one turn."""
        return self.slices.size + self.maps.shown

    def __call__(
        self, measures: Measures, n_jobs: int = 1, progress: Progress | None = None
    ) -> Float32[np.ndarray, "n features"]:
        """Features of each measure, in the unit of the support.

        Raises:
            MeasureError: measures of another dimension than the references.
            SolverError: a coupling could not be certified.
        """
        slices = self.slices(measures) * np.float32(_SLICES_SHARE**0.5)
        maps = self.maps(measures, n_jobs, progress) * np.float32((1 - _SLICES_SHARE) ** 0.5)
        return np.concatenate([slices, maps], axis=1)

    def turned(self, number: int) -> Float32[np.ndarray, "shown features"]:
        """The map from the features of a measure to the slices, and the map to the reference, of it in one turn."""
        return block_diag(self.slices.turned(self.places[number]), self.maps.turned(number))


@dataclass(frozen=True, eq=False)
class Pixels:
    """The image itself, as a density with mean 1.

    Attributes:
        grid: the shape of the images.
    """

    grid: tuple[int, ...]

    def __call__(self, measures: Measures) -> Float32[np.ndarray, "n *grid"]:
        """The images, laid out on their grid.

        Raises:
            MeasureError: measures that are not images of this shape.
        """
        if measures.grid != self.grid:
            raise MeasureError(f"this encoder takes images of shape {self.grid}; these measures have {measures.grid}")
        dense = measures.histograms().reshape(len(measures), *self.grid)
        return (dense * float(np.prod(self.grid))).astype(np.float32)


def directions_for(dim: int, rng: np.random.Generator) -> Float64[np.ndarray, "directions dim"]:
    """Directions that cover half the sphere: evenly in the plane, by random orthonormal bases beyond it.

    Beyond 64 dimensions it is 128 random directions, so that the features stay few.
    """
    if dim == 1:
        return np.ones((1, 1))
    if dim == 2:
        angles = np.arange(_PLANAR_DIRECTIONS) * np.pi / _PLANAR_DIRECTIONS
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if dim > _MANY_DIMENSIONS:
        drawn = rng.standard_normal((2 * _MANY_DIMENSIONS, dim))
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
    bases = max(2, -(-24 // dim))
    return np.concatenate([np.linalg.qr(rng.standard_normal((dim, dim)))[0].T for _ in range(bases)])


def planar_turns(places: tuple[int, ...]) -> Float64[np.ndarray, "turns 2 2"]:
    """The plane turned anticlockwise by so many times the angle from one direction to the next."""
    angles = np.array(places) * np.pi / _PLANAR_DIRECTIONS
    return np.stack([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)


def levels_for(directions: int) -> int:
    """Steps of mass for each direction: 32, more where there are few directions."""
    return max(32, 256 // directions)


def _sort_together(position: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort each row by position and carry the mass along.

    Both float32 travel as the two halves of one 64-bit integer, because NumPy sorts integers with vector
    instructions, several times faster than it sorts indices. Flipping the sign bit, or all bits of a negative
    number, makes floats compare as unsigned integers do.
    """
    bits = np.ascontiguousarray(position).view(np.uint32)
    bits ^= (bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(0x80000000)
    packed = bits.astype(np.uint64)
    packed <<= np.uint64(32)
    packed |= mass.view(np.uint32)
    packed.sort(axis=-1)
    mass = packed.astype(np.uint32).view(np.float32)
    packed >>= np.uint64(32)
    bits = packed.astype(np.uint32)
    bits ^= ~(bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(0x80000000)
    return bits.view(np.float32), mass


def _averaged_quantiles(position: np.ndarray, mass: np.ndarray, levels: int) -> Float32[np.ndarray, "rows levels"]:
    """Mean of each row's quantile function over each of `levels` equal steps of mass.

    The integral of a quantile function from 0 to t is piecewise linear in t with a knot at each cumulated mass; its
    differences at the multiples of 1/levels are the means.
    """
    rows, widest = position.shape
    reached = mass.astype(np.float64)
    integral = reached * position
    for sums in map(torch.from_numpy, (reached, integral)):  # NumPy's cumsum takes five times as long
        torch.cumsum(sums, dim=1, out=sums)
    reached *= levels / reached[:, -1:]  # in steps of mass, so that the edges of the steps are whole numbers
    step = reached.astype(np.int64)
    step += np.arange(rows)[:, None] * (levels + 1)
    counts = np.bincount(step.ravel(), minlength=rows * (levels + 1)).reshape(rows, levels + 1)
    first = np.minimum(np.cumsum(counts[:, : levels - 1], axis=1), widest - 1)  # atom in which edge 1, 2, ... falls
    flat = first + np.arange(rows)[:, None] * widest
    started = first > 0
    flat_before = flat - started
    edges = np.zeros((rows, levels + 1))
    edges[:, 1:-1] = np.arange(1, levels) - np.where(started, reached.ravel()[flat_before], 0.0)
    edges[:, 1:-1] *= position.ravel()[flat] / levels
    edges[:, 1:-1] += np.where(started, integral.ravel()[flat_before], 0.0)
    edges[:, -1] = integral[:, -1]
    return (np.diff(edges, axis=1) * levels).astype(np.float32)
