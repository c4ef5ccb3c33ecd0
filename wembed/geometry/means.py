"""Means: barycenters, of all, of each class, and of clusters."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from wembed.embedder import Embedder
from wembed.errors import SettingError
from wembed.geometry.decoded import Decoded, check_asked, check_count, check_labels, decoded_thin
from wembed.measures import Measures
from wembed.options import switch, whole
from wembed.transport.between import iterated, later, ways
from wembed.transport.parallel import Progress, exact_distances

__all__ = ["Clusters", "barycenter", "class_means", "kmeans", "most_couplings", "weighted_barycenter"]

_ITERATIONS = {"learned": 0, "polish": 1, "exact": 50}
_ROUNDS = 20  # of exact k-means, at most
_STARTS = 10  # of k-means among vectors
_ROUNDING = 1e-6  # that a sum of weights may be off 1 by


def barycenter(
    embedder: Embedder,
    measures: Measures,
    weights: Any = None,
    *,
    method: str = "learned",
    normalize: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """The Wasserstein barycenter: the measure whose mean squared distance to these is least.

    Args:
        embedder: with a decoder, unless the method is "exact".
        measures: any number.
        weights: of each measure, >= 0 and summing to 1; None for equal ones.
        method: "learned", the mean of the vectors, decoded; "polish", one step of the fixed-point iteration from there
            (Alvarez-Esteban et al. 2016, as Cuturi and Doucet 2014 do it for discrete measures), with at most 150 atoms
            and an exact coupling to every measure; "exact", that iteration from the measure nearest to the mean, until
            atoms move by less than a thousandth of the spread: a local minimum. Of two measures it is the global one,
            on the way from one to the other. The last two give clouds, and are for euclidean W_2.
        normalize: divide the weights by their sum.
        progress: called with the couplings solved, and the most there may be, which it jumps to in the end; not for
            "learned".

    Raises:
        SettingError: weights that are negative or do not sum to 1, an unknown method, one that is not for this cost, or
            a model without a decoder.
        MeasureError: as `Embedder.transform`.
        SolverError: a coupling could not be certified.
    """
    check_asked(embedder, method, measures)
    switch("normalize", normalize)
    shares = _shares(weights, len(measures), normalize)
    return weighted_barycenter(embedder, measures, embedder.transform(measures), shares, method, progress)


def most_couplings(method: str, used: int) -> int:
    """Exact couplings that a barycenter of so many measures may take, those of weight 0 left out.

    That of two is on the way between them, along one coupling.
    """
    return 1 if method == "exact" and used == 2 else _ITERATIONS.get(method, 0) * used


def weighted_barycenter(
    embedder: Embedder,
    measures: Measures,
    vectors: np.ndarray,
    shares: Float64[np.ndarray, " n"],
    method: str,
    progress: Progress | None,
) -> Decoded:
    """The barycenter of measures whose vectors are there, by weights that sum to 1."""
    mean = shares @ vectors.astype(np.float64)
    if method == "learned":
        return Decoded.from_vectors(embedder, mean[None])
    used = np.flatnonzero(shares)
    most = most_couplings(method, len(used))
    if method == "exact" and len(used) == 2:
        (way,) = ways(measures[used[:1]], measures[used[1:]], embedder.cost, n_jobs=1)
        made = way.at(float(shares[used[1]]))
    else:
        nearest = int(np.square(vectors - mean).sum(axis=1).argmin())
        start = measures[nearest] if method == "exact" else decoded_thin(embedder, mean)
        cost, n_jobs = embedder.cost, embedder.n_jobs
        made = iterated(start, measures, shares, cost, _ITERATIONS[method], n_jobs, progress)
    if progress:
        progress(most, most)
    return Decoded.of(embedder, made)


def class_means(
    embedder: Embedder, measures: Measures, labels: Any, *, method: str = "learned", progress: Progress | None = None
) -> tuple[np.ndarray, Decoded]:
    """The barycenter of the measures of each label: the labels in order, and the barycenters.

    Args:
        embedder: with a decoder, unless the method is "exact".
        measures: any number.
        labels: one for each.
        method: as of `barycenter`.
        progress: called with the couplings solved, and the most there may be; not for "learned".

    Raises:
        SettingError: another number of labels than of measures, an unknown method, one that is not for this cost, or a
            model without a decoder.
        MeasureError: as `Embedder.transform`.
        SolverError: a coupling could not be certified.
    """
    check_asked(embedder, method, measures)
    owner = check_labels(labels, len(measures))
    names, whose = np.unique(owner, return_inverse=True)
    return names, _means(embedder, measures, embedder.transform(measures), whose, len(names), method, progress)


def _means(
    embedder: Embedder,
    measures: Measures,
    vectors: np.ndarray,
    whose: Int64[np.ndarray, " n"],
    count: int,
    method: str,
    progress: Progress | None,
) -> Decoded:
    """The barycenter of each class, none of which is empty."""
    if method == "learned":
        means = np.stack([vectors[whose == one].astype(np.float64).mean(axis=0) for one in range(count)])
        return Decoded.from_vectors(embedder, means)
    made = []
    most = [most_couplings(method, int(size)) for size in np.bincount(whose)]
    for one in range(count):
        rows = np.flatnonzero(whose == one)
        shares = np.full(len(rows), 1 / len(rows))
        shown = later(progress, sum(most[:one]), sum(most))
        made.append(weighted_barycenter(embedder, measures[rows], vectors[rows], shares, method, shown))
    return Decoded(Measures.concatenate([one.measures for one in made]), np.concatenate([one.vectors for one in made]))


@dataclass(frozen=True, eq=False)
class Clusters(Decoded):
    """Centres of clusters, and which measure is in which.

    Attributes:
        labels: the cluster of each measure, from 0.
        inertia: mean of the squared distances of the measures to their centres, in squares of the unit of the data:
            exact where the method is, and else between vectors, which makes no allowance for what decoding loses, so
            that those of different methods are not to be compared.
    """

    labels: Int64[np.ndarray, " n"]
    inertia: float


def kmeans(
    embedder: Embedder,
    measures: Measures,
    k: int,
    *,
    method: str = "learned",
    seed: int = 0,
    progress: Progress | None = None,
) -> Clusters:
    """Clusters of measures about barycenters: k-means under W_2.

    Args:
        embedder: with a decoder, unless the method is "exact".
        measures: k at least.
        k: clusters.
        method: "learned", k-means among the vectors (the best of ten starts), its centres decoded; "polish", the same
            clusters, and each centre as `barycenter` polishes it; "exact", from those clusters on, Lloyd's iteration
            with exact barycenters, each a local minimum, and exact distances, at most 20 rounds of it. The last two are
            for euclidean W_2.
        seed: draws where k-means starts.
        progress: called with the couplings solved or the rounds done, and the most there may be, which it jumps to in
            the end; not for "learned".

    Raises:
        SettingError: k below 1, or above the number of measures or of vectors that differ, an unknown method, one that
            is not for this cost, or a model without a decoder.
        MeasureError: as `Embedder.transform`.
        SolverError: a problem could not be certified.
    """
    from sklearn.cluster import KMeans  # imported late: scikit-learn is slow to load
    from sklearn.exceptions import ConvergenceWarning

    check_asked(embedder, method, measures)
    check_count("k", k, len(measures), "as many clusters as there are measures")
    whole("seed", seed)
    vectors = embedder.transform(measures)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer vectors that differ than clusters
        found = KMeans(k, n_init=_STARTS, random_state=seed).fit(vectors.astype(np.float64))
    labels = _used(found.labels_.astype(np.int64))
    different = int(labels.max()) + 1
    if different < k:
        raise SettingError(f"k={k}, and these measures have {different} different vectors; ask for fewer clusters")
    if method == "exact":
        return _lloyd(embedder, measures, vectors, labels, progress)
    centres = _means(embedder, measures, vectors, labels, k, method, progress)
    off = np.square(vectors.astype(np.float64) - centres.vectors[labels]).sum(axis=1)
    return Clusters(centres.measures, centres.vectors, labels, float(off.mean()))


def _lloyd(
    embedder: Embedder,
    measures: Measures,
    vectors: np.ndarray,
    labels: Int64[np.ndarray, " n"],
    progress: Callable[[int, int], None] | None,
) -> Clusters:
    for turn in range(_ROUNDS):
        count = int(labels.max()) + 1
        centres = _means(embedder, measures, vectors, labels, count, "exact", None)
        rows, columns = np.divmod(np.arange(len(measures) * count), count)
        pairs = np.stack([rows, columns + len(measures)], axis=1)
        together = Measures.concatenate([measures, centres.measures])
        off = exact_distances(together, pairs, embedder.cost, embedder.n_jobs).reshape(len(measures), count)
        before, labels = labels, off.argmin(axis=1)
        if progress:
            progress(turn + 1, _ROUNDS)
        if (before == labels).all():
            break
        labels = _used(labels)
    if progress:
        progress(_ROUNDS, _ROUNDS)
    inertia = float(np.square(off[np.arange(len(measures)), before]).mean())
    return Clusters(centres.measures, centres.vectors, before, inertia)


def _used(labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Labels without those of clusters that have lost their last measure."""
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def _shares(weights: Any, count: int, normalize: bool) -> Float64[np.ndarray, " n"]:
    if count == 0:
        raise SettingError("there are no measures to find a barycenter of")
    if weights is None:
        return np.full(count, 1 / count)
    given = np.asarray(weights)
    if given.shape != (count,) or given.dtype.kind not in "iuf":
        raise SettingError(f"weights are {given.dtype} {given.shape}; give a number for each of {count} measures")
    if not np.isfinite(given).all() or (given < 0).any():
        wrong = given[~(np.isfinite(given) & (given >= 0))][0]
        raise SettingError(f"there is a weight of {wrong:g}; give finite ones that are not negative")
    total = float(given.sum())
    if total <= 0:
        raise SettingError("weights sum to 0; give some that do not")
    if not normalize and abs(total - 1) > _ROUNDING:
        raise SettingError(f"weights sum to {total:g} and not to 1; change them, or ask for normalize=True")
    return np.asarray(given / total, dtype=np.float64)
