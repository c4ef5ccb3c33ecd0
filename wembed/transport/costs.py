"""GroundCost: what it costs to move mass between two points."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64

from wembed.errors import ArtifactError, MeasureError, SettingError
from wembed.measures import Measures

__all__ = ["METRICS", "GroundCost"]

METRICS = ("euclidean", "cityblock", "chebyshev", "great-circle", "great-circle-degrees")
_MOST_AXES = 64  # of a multidimensional scaling
_SAFE = 1e100  # coordinates beyond it, or below its inverse, could overflow or vanish when squared


@dataclass(frozen=True, eq=False, repr=False)
class GroundCost:
    """A metric on points and an order p: together they define W_p, in the unit of the metric.

    Attributes:
        metric: "euclidean", "cityblock" or "chebyshev" on points of any dimension; "great-circle" (radians) or
            "great-circle-degrees" on points (latitude, longitude), the distance being the angle in the same unit
            (times 6371.0088 km for radians on Earth); or an (s, s) array, the metric on the s points of a common
            support.
        order: p >= 1.

    Raises:
        SettingError: an unknown metric, an order below 1, or a matrix that is not a metric's: square, finite,
            symmetric, >= 0, with a zero diagonal. The triangle inequality is yours to guarantee.
    """

    metric: "str | np.ndarray" = "euclidean"
    order: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.metric, str):
            if self.metric not in METRICS:
                raise SettingError(
                    f"unknown metric {self.metric!r}; choose one of {', '.join(METRICS)}, or a matrix (kilometres on "
                    "Earth are the radians of great-circle times 6371.0088, or the degrees of great-circle-degrees "
                    "times 111.195)"
                )
        else:
            try:
                matrix = np.array(self.metric, dtype=np.float64, order="C")
            except (TypeError, ValueError) as error:
                raise SettingError(f"the metric is neither a name nor a matrix of numbers: {error}") from error
            if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
                raise SettingError(f"the cost matrix has shape {matrix.shape}; expected (s, s)")
            if not np.isfinite(matrix).all() or (matrix < 0).any():
                raise SettingError("the cost matrix has an entry that is NaN, infinite or negative")
            if (matrix.diagonal() != 0).any() or not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0):
                raise SettingError("the cost matrix is not symmetric with a zero diagonal, so it is no metric")
            object.__setattr__(self, "metric", matrix)
        try:
            order = float(self.order)
        except (TypeError, ValueError) as error:
            raise SettingError(f"the order is {self.order!r}; W_p is a distance for a finite p >= 1") from error
        if not (np.isfinite(order) and order >= 1):
            raise SettingError(f"the order is {self.order}; W_p is a distance for a finite p >= 1")
        object.__setattr__(self, "order", order)

    @classmethod
    def given(cls, cost: "GroundCost | None") -> "GroundCost":
        """What a caller gave, or euclidean W_2 without it.

        Raises:
            SettingError: something else than a GroundCost.
        """
        if cost is None:
            return cls()
        if not isinstance(cost, cls):
            raise SettingError(f"the cost is {cost!r}; give a GroundCost, such as GroundCost('euclidean', 2)")
        return cost

    def __repr__(self) -> str:
        metric = repr(self.metric) if isinstance(self.metric, str) else f"a matrix {self.metric.shape}"
        return f"GroundCost({metric}, order={self.order:g})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GroundCost) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.as_dict().items()))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is cached, which worker processes have no use for."""
        return {"metric": self.metric, "order": self.order}

    def as_dict(self) -> dict[str, Any]:
        """What identifies this cost, for manifests: a matrix is named by its hash."""
        if isinstance(self.metric, str):
            return {"metric": self.metric, "order": self.order}
        digest = hashlib.sha256(self.metric.tobytes()).hexdigest()
        return {"metric": "matrix", "order": self.order, "matrix_sha256": digest}

    @classmethod
    def from_dict(cls, entry: dict[str, Any], matrix: np.ndarray | None = None) -> "GroundCost":
        """The cost that `as_dict` described; `matrix` where the metric is one.

        Raises:
            ArtifactError: the matrix is not the one described.
        """
        if entry["metric"] != "matrix":
            return cls(entry["metric"], entry["order"])
        if matrix is None:
            raise ArtifactError("the ground cost is a matrix and the matrix is missing")
        cost = cls(matrix, entry["order"])
        if cost.as_dict() != entry:
            raise ArtifactError("the cost matrix is not the one this was computed with")
        return cost

    @property
    def is_euclidean(self) -> bool:
        """Whether the metric is the Euclidean one, by name."""
        return isinstance(self.metric, str) and self.metric == "euclidean"

    @property
    def is_great_circle(self) -> bool:
        """Whether the metric is an angle on the sphere, in radians or degrees."""
        return isinstance(self.metric, str) and self.metric.startswith("great-circle")

    @property
    def turns_alike(self) -> bool:
        """Whether measures are as far apart when the space of their coordinates is turned."""
        return self.is_euclidean or self.is_great_circle

    @property
    def radius(self) -> float:
        """Of the sphere on which arcs are as long as angles are under a great-circle metric; else 1."""
        return float(np.rad2deg(1.0)) if isinstance(self.metric, str) and self.metric.endswith("degrees") else 1.0

    @property
    def splits_translation(self) -> bool:
        """Whether W(mu, nu)^2 = |mean mu - mean nu|^2 + W(centred mu, centred nu)^2, as for euclidean W_2."""
        return self.is_euclidean and self.order == 2

    def check(self, measures: Measures) -> None:
        """Refuse measures on which this cost is not defined.

        Raises:
            MeasureError: something else than Measures.
            SettingError: a matrix of another size than the common support, or points that are no latitudes.
        """
        if not isinstance(measures, Measures):
            raise MeasureError(
                f"these are no Measures but a {type(measures).__name__}; build them with Measures.from_images, "
                "from_histograms, from_point_clouds or wembed.read"
            )
        if not isinstance(self.metric, str):
            if measures.atoms is None:
                raise SettingError("a cost matrix needs measures on a common support; these are point clouds")
            if len(self.metric) != len(measures.support):
                raise SettingError(
                    f"the cost matrix is for {len(self.metric)} points and the support has {len(measures.support)}"
                )
        elif self.is_great_circle:
            if measures.dim != 2:
                raise SettingError(
                    f"{self.metric} takes points (latitude, longitude); these have {measures.dim} axes, not 2"
                )
            quarter, unit = (90.0, "degrees") if self.metric.endswith("degrees") else (np.pi / 2, "radians")
            outside = np.abs(measures.support[:, 0]) > quarter * (1 + 1e-9)
            if outside.any():
                atoms = np.arange(len(outside)) if measures.atoms is None else measures.atoms
                first = int(np.argmax(outside[atoms])) if outside[atoms].any() else None
                point = int(np.argmax(outside)) if first is None else int(atoms[first])
                whose = f"point {point} of the support"
                if first is not None:
                    whose = f"measure {int(np.searchsorted(measures.offsets, first, side='right')) - 1}"
                raise SettingError(
                    f"{whose} has the latitude {measures.support[point, 0]:g}, outside [-{quarter:g}, {quarter:g}]; "
                    f"{self.metric} takes points (latitude, longitude), in that order and in {unit}: are the two "
                    "swapped, or in another unit?"
                )

    def places(self, measures: Measures, index: int) -> np.ndarray:
        """What `powers` needs to know of the atoms of one measure: its points, or its rows in the matrix."""
        own = slice(int(measures.offsets[index]), int(measures.offsets[index + 1]))
        if measures.atoms is None:
            return measures.support[own]
        rows = measures.atoms[own]
        return measures.support[rows] if isinstance(self.metric, str) else rows

    def powers(
        self, source: np.ndarray, target: np.ndarray, out: Float64[np.ndarray, "n m"] | None = None
    ) -> tuple[Float64[np.ndarray, "n m"], float]:
        """Ground costs metric^p from each source atom to each target atom, in units in which a solver is safe.

        Args:
            source: what `places` says of one measure.
            target: what `places` says of the other.
            out: memory for the answer, which saves page faults; it may be left unused.

        Returns:
            The costs, the largest of which lies in [1e-4, 1e4] or is 0; and the unit of the metric, for `root`.
        """
        if not isinstance(self.metric, str):
            return self._powered(self.metric[source[:, None], target])
        if self.is_great_circle:
            return self._powered(_great_circle(source, target, degrees=self.metric.endswith("degrees")))
        from scipy.spatial.distance import cdist  # imported late: scipy.spatial doubles the import time of wembed

        if self.metric == "euclidean" and self.order == 2:
            squares = cdist(source, target, "sqeuclidean", out=out)
            if 1e-4 <= float(squares.max()) <= 1e4:
                return squares, 1.0
        extent = max(float(np.abs(source).max()), float(np.abs(target).max()))
        if extent and not 1 / _SAFE < extent < _SAFE:
            matrix, unit = self.powers(source / extent, target / extent)
            return matrix, unit * extent
        names: dict[str, Literal["euclidean", "cityblock", "chebyshev"]] = {
            "euclidean": "euclidean",
            "cityblock": "cityblock",
            "chebyshev": "chebyshev",
        }
        return self._powered(cdist(source, target, names[self.metric]))

    def _powered(self, matrix: np.ndarray) -> tuple[np.ndarray, float]:
        unit = float(matrix.max()) or 1.0
        matrix = matrix / unit
        if self.order != 1:
            matrix **= self.order
        return np.ascontiguousarray(matrix), unit

    def root(self, optimal_cost: float, unit: float) -> float:
        """W_p from the optimal value of a problem with the costs and the unit that `powers` returned."""
        return float(unit * max(optimal_cost, 0.0) ** (1 / self.order))

    def coordinates(self, measures: Measures) -> Measures:
        """The same measures with points in a Euclidean space whose distances follow this metric.

        The sphere becomes unit vectors (chords in place of arcs, in the metric's unit), a matrix classical
        multidimensional scaling of its support (Torgerson 1952); other metrics keep their points.
        """
        if not isinstance(self.metric, str):
            support = self._scaling
        elif self.is_great_circle:
            support = self.radius * _unit_vectors(measures.support, degrees=self.metric.endswith("degrees"))
        else:
            return measures
        return Measures(measures.offsets, support, measures.weights, measures.atoms, measures.grid)

    def from_euclidean(self, lengths: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """W_p that Euclidean distances between vectors stand for.

        Under great-circle metrics they are chords, and these the arcs over them: between single points that is exact,
        and no vectors have arcs for distances. Under other metrics they are W_p themselves.
        """
        if not self.is_great_circle:
            return lengths
        found = np.asarray(lengths / (2 * self.radius))
        np.arcsin(np.minimum(found, 1, out=found), out=found)
        found *= 2 * self.radius
        return found

    def to_euclidean(self, distances: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """How far apart vectors have to be to stand for W_p: the inverse of `from_euclidean`."""
        if not self.is_great_circle:
            return distances
        return 2 * self.radius * np.sin(distances / (2 * self.radius))

    @cached_property
    def _scaling(self) -> Float64[np.ndarray, "s axes"]:
        """Coordinates of the points of a cost matrix, found once: it takes their number cubed."""
        assert not isinstance(self.metric, str)
        support = _classical_scaling(self.metric)
        support.flags.writeable = False  # everybody is given the same array
        return support

    def isometries(
        self, dim: int, count: int, rng: np.random.Generator, degrees: float = 10.0
    ) -> list[Float64[np.ndarray, "dim dim"]]:
        """Random orthogonal maps of `coordinates` that keep every distance, the identity first; at most `count`.

        For the euclidean metric and the sphere rotations that move an axis by so many degrees (their root mean
        square), and their inverses, which make measures of the same kind, in the plane by ever smaller angles; for
        cityblock and chebyshev reflections of the axes; for a matrix none.
        """
        maps = [np.eye(dim)]
        while len(maps) < count and isinstance(self.metric, str):
            if self.turns_alike and dim > 1:
                turn = np.triu(rng.standard_normal((dim, dim)), 1)
                turn *= np.deg2rad(degrees) * np.sqrt(dim / 2) / np.linalg.norm(turn)
                if dim == 2:
                    turn /= 1 + len(maps) // 2
                maps += [scipy.linalg.expm(turn - turn.T), scipy.linalg.expm(turn.T - turn)]
            else:
                maps.append(np.diag(rng.choice([-1.0, 1.0], dim)))
        return maps[:count]


def _unit_vectors(points: np.ndarray, *, degrees: bool) -> Float64[np.ndarray, "n 3"]:
    latitude, longitude = (np.deg2rad(points) if degrees else points).T
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )


def _great_circle(source: np.ndarray, target: np.ndarray, *, degrees: bool) -> Float64[np.ndarray, "n m"]:
    """Angles by the haversine formula, which keeps its precision for close points."""
    if degrees:
        source, target = np.deg2rad(source), np.deg2rad(target)
    latitudes = np.sin((source[:, None, 0] - target[:, 0]) / 2) ** 2
    longitudes = np.sin((source[:, None, 1] - target[:, 1]) / 2) ** 2
    haversine = latitudes + np.cos(source[:, None, 0]) * np.cos(target[:, 0]) * longitudes
    angle = 2 * np.arcsin(np.sqrt(np.clip(haversine, 0, 1)))
    return np.asarray(np.rad2deg(angle) if degrees else angle)


def _classical_scaling(matrix: np.ndarray) -> Float64[np.ndarray, "s dim"]:
    squares = matrix**2
    centred = squares - squares.mean(axis=0)
    gram = -0.5 * (centred - centred.mean(axis=1, keepdims=True))
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    kept = values > 1e-6 * max(float(values[-1]), np.finfo(float).tiny)
    kept[:-_MOST_AXES] = False
    if not kept.any():
        return np.zeros((len(matrix), 1))
    return np.array((vectors[:, kept] * np.sqrt(values[kept]))[:, ::-1], order="C")
