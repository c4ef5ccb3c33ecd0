"""Measures: many discrete measures in three flat arrays."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float64, Int32, Int64

from wembed.errors import MeasureError, ReadError, SettingError
from wembed.options import integral

__all__ = ["Measure", "Measures", "blocks_of_atoms", "hashed_points"]

_SMALL = 1 << 16  # pixels of a grid whose places are kept, to be there for the next images
_BLOCK = 1 << 22  # numbers looked at in one go while checking and packing


@dataclass(frozen=True, slots=True)
class Measure:
    """One discrete measure: a probability on finitely many points.

    Attributes:
        support: the points, one a row.
        weights: the mass of each point, positive, summing to 1.
    """

    support: Float64[np.ndarray, "atoms dim"]
    weights: Float64[np.ndarray, " atoms"]


@dataclass(frozen=True, eq=False, repr=False)
class Measures:
    """A collection of discrete measures, stored ragged.

    Build one with `from_images`, `from_histograms`, `from_point_clouds` or `wembed.read`: these check and normalise,
    and everything behind them trusts the result. Atoms without mass are dropped; atoms that coincide are kept apart.

    Measure i owns the atoms `offsets[i]:offsets[i + 1]`. Where all measures live on a common support (images,
    histograms), `atoms` says which row of `support` each atom is, and an atom costs 12 bytes; otherwise `atoms` is
    None and row k of `support` is atom k.

    Attributes:
        offsets: where each measure begins; n + 1 numbers.
        support: the points.
        weights: the mass of each atom; each measure sums to 1.
        atoms: for a common support, the row of each atom.
        grid: for images, their shape, so that they can be laid out as images again.
    """

    offsets: Int64[np.ndarray, " n_plus_1"]
    support: Float64[np.ndarray, "points dim"]
    weights: Float64[np.ndarray, " atoms"]
    atoms: Int32[np.ndarray, " atoms"] | None = None
    grid: tuple[int, ...] | None = None

    @classmethod
    def from_images(cls, images: Any) -> "Measures":
        """Images as densities: the atoms are the non-zero pixels at (row, column), one pixel apart.

        Args:
            images: (n, h, w), or (n, d, h, w) for volumes; numbers >= 0 of any type.

        Raises:
            MeasureError: not 3 or 4 axes, a negative or non-finite pixel, an image without mass.
        """
        images = _numeric(images, "images")
        if images.ndim not in (3, 4):
            raise MeasureError(
                f"images have shape {images.shape}; expected (n, height, width) or (n, depth, height, width)"
            )
        if images.size == 0:
            raise MeasureError(f"there are no images in an array of shape {images.shape}")
        grid = tuple(int(side) for side in images.shape[1:])
        support = pixel_places(grid)
        offsets, weights, atoms = _pack_rows(images.reshape(len(images), -1), "image")
        return cls(offsets, support, weights, atoms, grid)

    @classmethod
    def from_histograms(cls, weights: Any, support: Any) -> "Measures":
        """Histograms over one common support.

        Args:
            weights: (n, s), dense or scipy sparse, >= 0.
            support: (s, dim), the place of each bin; (s,) is taken as (s, 1).

        Raises:
            MeasureError: shapes that disagree, negative or non-finite numbers, a histogram without mass.
        """
        points = _points(support, "the support")
        if not hasattr(weights, "tocsr"):
            weights = _numeric(weights, "weights")
        elif weights.dtype.kind not in "biuf":
            raise MeasureError(f"weights have type {weights.dtype}; expected real numbers")
        if weights.ndim != 2 or weights.shape[1] != len(points):
            raise MeasureError(
                f"weights have shape {weights.shape} and the support has {len(points)} points; "
                f"expected weights of shape (n, {len(points)})"
            )
        if hasattr(weights, "tocsr"):
            offsets, packed, atoms = _pack_sparse(weights)
        else:
            offsets, packed, atoms = _pack_rows(weights, "histogram")
        return cls(offsets, points, packed, atoms)

    @classmethod
    def from_point_clouds(cls, points: Sequence[Any], weights: Sequence[Any] | None = None) -> "Measures":
        """Point clouds, each with its own points.

        Args:
            points: n arrays (n_i, dim); an array (n_i,) is taken as (n_i, 1).
            weights: n arrays (n_i,) of mass >= 0; without them every point of a cloud has the same mass.

        Raises:
            MeasureError: an empty cloud, mixed dimensions, non-finite points, negative, non-finite or no mass.
        """
        if len(points) == 0:
            raise MeasureError("there are no point clouds; expected at least one array of shape (atoms, dim)")
        clouds = [_points(cloud, f"measure {i}") for i, cloud in enumerate(points)]
        dims = np.array([cloud.shape[1] for cloud in clouds])
        if (dims != dims[0]).any():
            odd = int(np.argmax(dims != dims[0]))
            raise MeasureError(
                f"measure {odd} has dimension {dims[odd]} and measure 0 has {dims[0]}; all must have the same"
            )
        sizes = np.array([len(cloud) for cloud in clouds], dtype=np.int64)
        if weights is None:
            flat = np.ones(int(sizes.sum()))
        else:
            if len(weights) != len(clouds):
                raise MeasureError(f"there are {len(clouds)} point clouds and {len(weights)} arrays of weights")
            masses = [_numeric(w, f"weights of measure {i}").astype(np.float64) for i, w in enumerate(weights)]
            for i, (mass, size) in enumerate(zip(masses, sizes, strict=True)):
                if mass.shape != (size,):
                    raise MeasureError(f"measure {i} has {size} points and weights of shape {mass.shape}")
            flat = np.concatenate(masses)
        return cls.from_flat(np.concatenate(clouds), flat, sizes)

    @classmethod
    def from_flat(
        cls,
        points: Float64[np.ndarray, "atoms dim"],
        weights: Float64[np.ndarray, " atoms"],
        sizes: Int64[np.ndarray, " n"],
    ) -> "Measures":
        """Point clouds already laid end to end: the first `sizes[0]` atoms are measure 0, and so on.

        Raises:
            MeasureError: non-finite points, negative or non-finite mass, a measure without atoms or mass.
        """
        if len(sizes) == 0:
            raise MeasureError("there are no measures; give at least one")
        if (sizes < 0).any() or not sizes.sum() == len(points) == len(weights):
            raise MeasureError(
                f"the sizes sum to {sizes.sum()}, and there are {len(points)} points and {len(weights)} weights"
            )
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        _refuse(~np.isfinite(points).all(axis=1), owner, "measure {} has a point that is NaN or infinite")
        _check_mass(weights, owner, "measure")
        if (sizes == 0).any():
            raise MeasureError(f"measure {int(np.argmax(sizes == 0))} has no atoms; drop it or give it points")
        offsets, packed, kept = _normalise(offsets, weights, "measure")
        return cls(offsets, np.ascontiguousarray(points if kept is None else points[kept]), packed)

    @classmethod
    def concatenate(cls, parts: Sequence["Measures"]) -> "Measures":
        """The measures of several collections, one collection after the other.

        Raises:
            MeasureError: the collections have different dimensions.
        """
        if not parts:
            raise MeasureError("there are no collections to put together")
        first = parts[0]
        for part in parts[1:]:
            if part.dim != first.dim:
                raise MeasureError(f"measures of dimension {first.dim} and {part.dim} do not go together")
        starts = np.cumsum([0] + [len(part.weights) for part in parts])
        offsets = np.concatenate(
            [[0]] + [part.offsets[1:] + start for part, start in zip(parts, starts[:-1], strict=True)]
        ).astype(np.int64)
        weights = np.concatenate([part.weights for part in parts])
        atoms = [
            part.atoms
            for part in parts
            if part.atoms is not None and (part.support is first.support or np.array_equal(part.support, first.support))
        ]
        if len(atoms) == len(parts):
            return cls(offsets, first.support, weights, np.concatenate(atoms), first.grid)
        return cls(offsets, np.concatenate([part.points() for part in parts]), weights)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        kind = "point clouds" if self.atoms is None else "histograms" if self.grid is None else f"images {self.grid}"
        return f"Measures({len(self):,} {kind}, {len(self.weights):,} atoms, dimension {self.dim})"

    def __iter__(self) -> Iterator[Measure]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer) -> Measure: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> "Measures": ...
    def __getitem__(self, index: Any) -> "Measure | Measures":
        if isinstance(index, (int, np.integer)):
            count = len(self.offsets) - 1
            if not -count <= index < count:
                raise IndexError(f"measure {index} of {count}")
            i = int(index) % count
            own = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
            return Measure(self.support[own if self.atoms is None else self.atoms[own]], self.weights[own])
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._run(start, max(start, stop))
        return self._take(np.arange(len(self))[index])

    def _run(self, start: int, stop: int) -> "Measures":
        """Views of what is there, so that a memory map stays one."""
        offsets = self.offsets[start : stop + 1]
        own = slice(int(offsets[0]), int(offsets[-1]))
        if self.atoms is None:
            return Measures(offsets - offsets[0], self.support[own], self.weights[own])
        return Measures(offsets - offsets[0], self.support, self.weights[own], self.atoms[own], self.grid)

    def _take(self, indices: np.ndarray) -> "Measures":
        if len(indices) and (np.diff(indices) == 1).all():
            return self._run(int(indices[0]), int(indices[-1]) + 1)
        sizes = self.sizes[indices]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        flat = np.repeat(self.offsets[indices] - offsets[:-1], sizes) + np.arange(offsets[-1])
        if self.atoms is None:
            return Measures(offsets, self.support[flat], self.weights[flat])
        return Measures(offsets, self.support, self.weights[flat], self.atoms[flat], self.grid)

    @property
    def dim(self) -> int:
        """Dimension of the points."""
        return int(self.support.shape[1])

    @property
    def sizes(self) -> Int64[np.ndarray, " n"]:
        """Number of atoms of each measure."""
        return np.diff(self.offsets)

    def points(self) -> Float64[np.ndarray, "atoms dim"]:
        """The point of every atom, measure after measure."""
        return self.support if self.atoms is None else self.support[self.atoms]

    def centroids(self) -> Float64[np.ndarray, "n dim"]:
        """The mean of each measure."""
        moments = [
            np.add.reduceat(self.weights * _column(self, axis), self.offsets[:-1]) if len(self) else np.zeros(0)
            for axis in range(self.dim)
        ]
        return np.stack(moments, axis=1)

    def on(self, support: Float64[np.ndarray, "points dim"], grid: tuple[int, ...] | None = None) -> "Measures":
        """The same measures as histograms over a common support, each point of which is there once.

        Raises:
            MeasureError: a point that is none of the support's.
        """
        points = self.points()
        if self.dim != support.shape[1]:
            raise MeasureError(f"these measures have dimension {self.dim}, and the common support {support.shape[1]}")
        known, wanted = hashed_points(support), hashed_points(points)
        order = np.argsort(known)
        place = order[np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)]
        lost = (support[place] != points).any(axis=1)
        if lost.any():
            first = int(np.argmax(lost))
            owner = int(np.searchsorted(self.offsets, first, side="right")) - 1
            raise MeasureError(
                f"measure {owner} has a point at {points[first].tolist()}, which is none of the {len(support)} points "
                "of the common support"
            )
        return Measures(self.offsets, support, self.weights, place.astype(np.int32), grid)

    def mixed(self, other: "Measures", shares: Float64[np.ndarray, " k"]) -> "Measures":
        """Mixtures (1 - share) self[i] + share other[i]: one for each share, pair after pair.

        Raises:
            MeasureError: as many measures, of one kind, are not in both; or a share outside [0, 1].
        """
        if len(self) != len(other) or not ((shares >= 0) & (shares <= 1)).all():
            raise MeasureError(f"{len(self)} and {len(other)} measures, in shares {shares.tolist()}, do not mix")
        if self.atoms is not None and other.atoms is not None and np.array_equal(self.support, other.support):
            dense = np.stack([self.histograms(), other.histograms()], axis=1)
            masses = (np.stack([1 - shares, shares], axis=1) @ dense).reshape(-1, len(self.support))
            if self.grid is not None:
                return Measures.from_images(masses.reshape(-1, *self.grid))
            return Measures.from_histograms(masses, self.support)
        points, mass = [], []
        for i in range(len(self)):
            a, b = self[i], other[i]
            for share in shares.tolist():
                points.append(np.concatenate([a.support, b.support]))
                mass.append(np.concatenate([(1 - share) * a.weights, share * b.weights]))
        return Measures.from_point_clouds(points, mass)

    def on_pixels(self, grid: tuple[int, ...]) -> "Measures":
        """As images of so many pixels: the mass of each atom is shared by those around it, so that centroids stay.

        Atoms beyond the frame come to its border. What lies between pixels is blurred, by half a pixel and more.

        Raises:
            MeasureError: measures of another dimension than the grid.
            SettingError: a grid that is no whole numbers of at least 1.
        """
        if not isinstance(grid, Sequence) or not all(integral(side) and side > 0 for side in grid):
            raise SettingError(f"grid={grid!r}; give the pixels along each axis, such as (28, 28)")
        if self.grid == tuple(grid):
            return self
        if self.dim != len(grid):
            raise MeasureError(f"these measures have dimension {self.dim}, and the grid {len(grid)} axes")
        last = np.array(grid) - 1
        points = np.clip(self.points(), 0, last)
        corner = np.minimum(points.astype(np.int64), np.maximum(last - 1, 0))
        within, owner = points - corner, np.repeat(np.arange(len(self)), self.sizes)
        images = np.zeros((len(self), math.prod(grid)))
        for offset in itertools.product((0, 1), repeat=len(grid)):
            share = np.where(offset, within, 1 - within).prod(axis=1)
            place = np.ravel_multi_index(tuple(np.minimum(corner + offset, last).T), grid)
            flat = np.bincount(owner * images.shape[1] + place, self.weights * share, minlength=images.size)
            images += flat.reshape(images.shape)
        return Measures.from_images(images.reshape(-1, *grid))

    def histograms(self) -> Float64[np.ndarray, "n points"]:
        """The weights laid out over the common support, zeros included.

        Raises:
            MeasureError: the measures have no common support.
        """
        if self.atoms is None:
            raise MeasureError("point clouds have no common support; images and histograms do")
        dense = np.zeros((len(self), len(self.support)))
        dense[np.repeat(np.arange(len(self)), self.sizes), self.atoms] = self.weights
        return dense

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content: equal for equal measures, in equal order and stored alike, whatever their file."""
        digest = hashlib.sha256(f"measures {len(self)} {self.dim} {self.atoms is None}".encode())
        for array in (self.offsets, self.support, self.weights, self.atoms):
            if array is not None:
                for start in range(0, len(array), _BLOCK):
                    digest.update(np.ascontiguousarray(array[start : start + _BLOCK]).data)
        return digest.hexdigest()

    def digests(self, *, exact: bool = False) -> Int64[np.ndarray, " n"]:
        """A 64-bit hash of each measure: equal for the same points and weights, whatever their order and storage.

        Weights are told apart to nine decimals: the same image is rounded differently from bytes and from fractions.
        With `exact` they are told apart to the last bit, as it takes to call a distance 0.
        """
        return self._exact_digests if exact else self._digests

    def first_alike(self, *, exact: bool = False) -> Int64[np.ndarray, " n"]:
        """Of each measure the number of the first that equals it, by `digests`: its own, unless it has come before."""
        _, first, place = np.unique(self.digests(exact=exact), return_index=True, return_inverse=True)
        return np.asarray(first[place], dtype=np.int64)

    @cached_property
    def _digests(self) -> Int64[np.ndarray, " n"]:
        return self._hashed_by(lambda weights: np.round(weights * 1e9).astype(np.uint64))

    @cached_property
    def _exact_digests(self) -> Int64[np.ndarray, " n"]:
        return self._hashed_by(lambda weights: np.ascontiguousarray(weights, dtype=np.float64).view(np.uint64))

    def _hashed_by(self, told_apart: Callable[[np.ndarray], np.ndarray]) -> Int64[np.ndarray, " n"]:
        """Digests by what weights are told apart by."""
        hashes = np.empty(len(self), dtype=np.uint64)
        # Of a common support each point is hashed once, unless the measures are few for it.
        common = None if self.atoms is None or len(self.support) > len(self.atoms) else hashed_points(self.support)
        for rows, own in blocks_of_atoms(self.offsets, _BLOCK):
            atoms = own if self.atoms is None else self.atoms[own]
            points = hashed_points(self.support[atoms]) if common is None else common[atoms]
            mass = told_apart(np.asarray(self.weights[own]))
            # A sum forgets the order; splitting an atom in two is another way to store the measure, and is not seen.
            hashes[rows] = np.add.reduceat(_mixed(points ^ _mixed(mass)), self.offsets[rows] - own.start)
        hashes.flags.writeable = False  # everybody is given the same array
        return hashes.view(np.int64)

    def save(self, folder: str | Path) -> None:
        """Write the arrays into a folder, from which `Measures.load` maps them into memory."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = self.arrays()
        for name, array in arrays.items():  # under another name first: they may be mapped from this very folder
            np.save(folder / f"{name}.part.npy", array)
        for name in arrays:
            (folder / f"{name}.part.npy").replace(folder / f"{name}.npy")
        header = {"kind": "measures", "format": 1, "count": len(self), "grid": self.grid, "arrays": list(arrays)}
        (folder / "measures.json").write_text(json.dumps(header, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Measures":
        """The measures that `save` wrote, as memory maps: nothing is read until it is used.

        Raises:
            ReadError: a file is missing, truncated, or not what `save` writes.
        """
        folder = Path(folder)
        try:
            header = json.loads((folder / "measures.json").read_text())
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in header["arrays"]
            }
            grid, count = header["grid"], header["count"]
            measures = cls(**arrays, grid=None if grid is None else tuple(grid))
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise ReadError(f"{folder} is not a folder that Measures.save wrote whole: {error}") from error
        atoms = len(measures.support if measures.atoms is None else measures.atoms)
        whole = len(measures) == count and int(measures.offsets[-1]) == len(measures.weights) == atoms
        if measures.support.ndim != 2 or not whole:
            raise ReadError(f"{folder} is damaged: its arrays do not agree; write it again with Measures.save")
        return measures

    def arrays(self) -> dict[str, np.ndarray]:
        """Those it is made of, by name."""
        named = {"offsets": self.offsets, "support": self.support, "weights": self.weights}
        return named if self.atoms is None else named | {"atoms": self.atoms}


def pixel_places(grid: tuple[int, ...]) -> Float64[np.ndarray, "pixels axes"]:
    """Of the pixels of a grid, as images have them: (row, column)."""
    return _small_grid(grid) if math.prod(grid) <= _SMALL else _places(grid)


def _places(grid: tuple[int, ...]) -> Float64[np.ndarray, "pixels axes"]:
    places = np.stack(np.unravel_index(np.arange(math.prod(grid)), grid), axis=1).astype(np.float64)
    places.flags.writeable = False  # many measures may have it in common
    return places


@lru_cache(maxsize=16)
def _small_grid(grid: tuple[int, ...]) -> Float64[np.ndarray, "pixels axes"]:
    return _places(grid)


def blocks_of_atoms(offsets: Int64[np.ndarray, " n_plus_1"], most: int) -> Iterator[tuple[slice, slice]]:
    """Of measures in their order as many as have `most` atoms together, or one that has more; and of their atoms."""
    start = 0
    while start < len(offsets) - 1:
        reached = int(np.searchsorted(offsets, offsets[start] + most, side="right")) - 1
        stop = max(reached, start + 1)
        yield slice(start, stop), slice(int(offsets[start]), int(offsets[stop]))
        start = stop


def hashed_points(points: Float64[np.ndarray, "n dim"]) -> np.ndarray:
    """A 64-bit hash of each row."""
    hashes = np.zeros(len(points), dtype=np.uint64)
    for column in points.T:
        hashes = _mixed(hashes ^ np.ascontiguousarray(column + 0.0).view(np.uint64))  # + 0.0 makes -0.0 a 0.0
    return hashes


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """The output function of splitmix64 (Steele, Lea and Flood 2014), one number at a time."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))


def _column(measures: Measures, axis: int) -> np.ndarray:
    column = measures.support[:, axis]
    return column if measures.atoms is None else column[measures.atoms]


def _numeric(values: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise MeasureError(f"{what} are ragged; expected an array of numbers") from error
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise MeasureError(f"{what} have type {array.dtype}; expected real numbers")
    return array


def _points(values: Any, what: str) -> Float64[np.ndarray, "points dim"]:
    points = _numeric(values, f"points of {what}").astype(np.float64)
    if points.ndim == 1:
        points = points[:, None]
    if points.ndim != 2 or points.shape[1] == 0:
        raise MeasureError(f"points of {what} have shape {points.shape}; expected (atoms, dim)")
    if len(points) == 0:
        raise MeasureError(f"{what} has no atoms; drop it or give it points")
    if not np.isfinite(points).all():
        raise MeasureError(f"{what} has a point that is NaN or infinite")
    return points


def _refuse(bad: np.ndarray, owner: np.ndarray, sentence: str) -> None:
    if bad.any():
        raise MeasureError(sentence.format(int(owner[int(np.argmax(bad))])))


def _check_mass(weights: np.ndarray, owner: np.ndarray, what: str) -> None:
    if weights.dtype.kind == "f":
        _refuse(~np.isfinite(weights), owner, f"{what} {{}} has a weight that is NaN or infinite")
    if weights.dtype.kind != "u":
        _refuse(weights < 0, owner, f"{what} {{}} has a negative weight; mass must be >= 0")


def _normalise(offsets: np.ndarray, weights: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Unit mass for each measure, massless atoms left out; also which atoms are kept (None: all of them)."""
    # Dividing by the largest weight first keeps sums of huge or tiny masses finite.
    sizes = np.diff(offsets)
    peaks = np.maximum.reduceat(weights, offsets[:-1])
    if (peaks == 0).any():
        raise MeasureError(f"weights of {what} {int(np.argmax(peaks == 0))} sum to 0; drop it or give it mass")
    weights = weights / np.repeat(peaks, sizes)
    kept = None
    if (weights == 0).any():
        kept = weights > 0
        sizes = np.add.reduceat(kept, offsets[:-1], dtype=np.int64)
        weights = weights[kept]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    weights /= np.repeat(np.add.reduceat(weights, offsets[:-1]), sizes)
    return offsets, weights, kept


def _pack_rows(rows: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, weights and column numbers of the non-zero entries of each row, a block of rows at a time."""
    if rows.shape[0] == 0 or rows.shape[1] == 0:
        raise MeasureError(f"there are no {what}s in an array of shape {rows.shape}")
    step = max(1, _BLOCK // rows.shape[1])
    starts = range(0, len(rows), step)
    sizes = np.concatenate([np.count_nonzero(rows[start : start + step], axis=1) for start in starts])
    if (sizes == 0).any():
        raise MeasureError(f"weights of {what} {int(np.argmax(sizes == 0))} sum to 0; drop it or give it mass")
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    weights = np.empty(int(offsets[-1]))
    atoms = np.empty(int(offsets[-1]), dtype=np.int32)
    for start in starts:
        block = rows[start : start + step]
        row, column = np.nonzero(block)
        mass = block[row, column]
        _check_mass(mass, row + start, what)
        begin, end = int(offsets[start]), int(offsets[start + len(block)])
        own = offsets[start : start + len(block) + 1] - begin
        _, packed, kept = _normalise(own, mass.astype(np.float64), what)
        if kept is not None:  # a weight so small beside its row's largest that it underflows
            raise MeasureError(f"a weight of {what} {start + int(row[~kept][0])} is below 1e-300 of its largest")
        weights[begin:end] = packed
        atoms[begin:end] = column
    return offsets, weights, atoms


def _pack_sparse(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    matrix = matrix.tocsr().astype(np.float64)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    sizes = np.diff(matrix.indptr)
    if len(sizes) == 0 or (sizes == 0).any():
        row = int(np.argmax(sizes == 0)) if len(sizes) else 0
        raise MeasureError(f"weights of histogram {row} sum to 0; drop it or give it mass")
    _check_mass(matrix.data, np.repeat(np.arange(len(sizes)), sizes), "histogram")
    offsets, weights, kept = _normalise(matrix.indptr.astype(np.int64), matrix.data, "histogram")
    atoms = matrix.indices.astype(np.int32)
    return offsets, weights, atoms if kept is None else atoms[kept]
