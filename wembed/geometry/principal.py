"""Principal geodesics: along which straight ways measures differ most."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from wembed.embedder import Embedder
from wembed.errors import SettingError
from wembed.geometry.decoded import Decoded, check_asked, check_count
from wembed.geometry.means import weighted_barycenter
from wembed.measures import Measures
from wembed.transport.between import images_of
from wembed.transport.parallel import Progress

__all__ = ["Geodesics", "geodesic_pca"]

TIMES = (-2.0, -1.0, 0.0, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Geodesics:
    """The mean of measures, and the ways through it along which they differ most.

    Attributes:
        mean: the one measure that all ways go through.
        walks: along each component, the measures at `times`.
        times: of a walk, in standard deviations along it.
        deviations: standard deviation of the measures along each component, in the unit of the data.
        explained: share of the variance along each component.
        scores: where each measure lies along each component, in the unit of the data.
    """

    mean: Decoded
    walks: tuple[Decoded, ...]
    times: Float64[np.ndarray, " steps"]
    deviations: Float64[np.ndarray, " components"]
    explained: Float64[np.ndarray, " components"]
    scores: Float64[np.ndarray, "n components"]


def geodesic_pca(
    embedder: Embedder,
    measures: Measures,
    components: int = 3,
    *,
    times: Any = TIMES,
    method: str = "learned",
    progress: Progress | None = None,
) -> Geodesics:
    """Principal geodesics of measures, and a walk along each.

    Args:
        embedder: with a decoder, unless the method is "exact".
        measures: two at least.
        components: how many ways.
        times: of a walk, in standard deviations, any number of them.
        method: "learned", principal components of the vectors, decoded along them; "exact", those of the tangent space
            at the exact barycenter, in which a measure is where the optimal coupling sends the atoms of the barycenter
            (Wang et al. 2013; log-PCA in Cazelles et al. 2018); "polish", the same at the barycenter that `barycenter`
            polishes. The last two give clouds, and are for euclidean W_2. Which end of a way comes first is arbitrary,
            and the same for each method.
        progress: called with the couplings solved at the barycenter and in all; not for "learned".

    Raises:
        SettingError: fewer than two measures, more components than there can be, times that are not finite, an unknown
            method, one that is not for this cost, or a model without a decoder.
        MeasureError: as `Embedder.transform`.
        SolverError: a coupling could not be certified.
    """
    check_asked(embedder, method, measures)
    if len(measures) < 2:
        raise SettingError("principal geodesics are of two measures at least; give more")
    most = min(len(measures) - 1, embedder.dim_)
    check_count("components", components, most, "fewer than there are measures, and no more than numbers in a vector")
    steps = np.atleast_1d(np.asarray(times))
    if steps.ndim != 1 or not len(steps) or steps.dtype.kind not in "iuf" or not np.isfinite(steps).all():
        raise SettingError(f"times={times!r}; give finite numbers, in standard deviations")
    steps = steps.astype(np.float64)
    vectors = embedder.transform(measures)
    learned = _Principal.of(vectors.astype(np.float64), components)
    if method == "learned":
        found = learned
        ways = [Decoded.from_vectors(embedder, places) for places in found.walks(steps)]
        return found.told(Decoded.from_vectors(embedder, found.mean[None]), ways, steps)
    shares = np.full(len(measures), 1 / len(measures))
    middle = weighted_barycenter(embedder, measures, vectors, shares, method, None).measures[0]
    images = images_of(middle, measures, embedder.cost, embedder.n_jobs, progress)
    lengths = np.sqrt(middle.weights)[:, None]
    found = _Principal.of((images * lengths).reshape(len(measures), -1), components).along(learned)

    def made(places: Float64[np.ndarray, "k atoms_dim"]) -> Decoded:
        points = places.reshape(len(places), *middle.support.shape) / lengths
        return Decoded.of(embedder, Measures.from_point_clouds(list(points), [middle.weights] * len(places)))

    return found.told(made(found.mean[None]), [made(places) for places in found.walks(steps)], steps)


@dataclass(frozen=True, eq=False)
class _Principal:
    """Principal components of points of a flat space."""

    mean: Float64[np.ndarray, " d"]
    directions: Float64[np.ndarray, "components d"]
    deviations: Float64[np.ndarray, " components"]
    explained: Float64[np.ndarray, " components"]
    scores: Float64[np.ndarray, "n components"]

    @classmethod
    def of(cls, points: Float64[np.ndarray, "n d"], components: int) -> "_Principal":
        from sklearn.decomposition import PCA  # imported late: scikit-learn is slow to load

        pca = PCA(components, svd_solver="full" if min(points.shape) <= 1_000 else "arpack", random_state=0)
        with np.errstate(divide="ignore", invalid="ignore"):  # of no variance
            scores = pca.fit_transform(points)
        shares = np.nan_to_num(pca.explained_variance_ratio_)  # of measures that are all alike, 0 of nothing
        return cls(pca.mean_, pca.components_, np.sqrt(pca.explained_variance_), shares, scores)

    def along(self, other: "_Principal") -> "_Principal":
        """The same, each direction the way round in which measures lie as they do along the other's."""
        signs = np.where((self.scores * other.scores).sum(axis=0) < 0, -1.0, 1.0)
        return replace(self, directions=self.directions * signs[:, None], scores=self.scores * signs)

    def walks(self, steps: Float64[np.ndarray, " steps"]) -> list[Float64[np.ndarray, "steps d"]]:
        return [
            self.mean + np.outer(steps * deviation, direction)
            for deviation, direction in zip(self.deviations, self.directions, strict=True)
        ]

    def told(self, mean: Decoded, walks: list[Decoded], steps: Float64[np.ndarray, " steps"]) -> Geodesics:
        return Geodesics(mean, tuple(walks), steps, self.deviations, self.explained, self.scores)
