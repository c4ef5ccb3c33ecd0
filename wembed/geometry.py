"""Geometry: barycenters and interpolations, as arithmetic on vectors that are decoded, or by exact couplings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from wembed.embedder import Embedder
from wembed.errors import SettingError
from wembed.measures import Measures
from wembed.options import switch
from wembed.transport.between import displaced, iterated
from wembed.transport.parallel import Progress

__all__ = ["Decoded", "barycenter", "class_means", "interpolate"]

METHODS = ("learned", "polish", "exact")
_ITERATIONS = {"polish": 2, "exact": 50}
_ROUNDING = 1e-6  # that a sum of weights may be off 1 by


@dataclass(frozen=True, eq=False)
class Decoded:
    """Measures that were made, and their vectors.

    Attributes:
        measures: what was made.
        vectors: what it was decoded from; of measures that were made by couplings, those that they are encoded to.
    """

    measures: Measures
    vectors: Float32[np.ndarray, "n dim"]


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
        method: "learned", the mean of the vectors, decoded; "polish", two steps of the fixed-point iteration from there
            (Alvarez-Esteban et al. 2016, as Cuturi and Doucet 2014 do it for discrete measures), each with an exact
            coupling to every measure; "exact", that iteration from the measure nearest to the mean, until atoms move by
            less than a thousandth of the spread. The last two give clouds, and are for euclidean W_2.
        normalize: divide the weights by their sum.
        progress: called with the couplings solved, and the most there may be.

    Raises:
        SettingError: weights that are negative or do not sum to 1, an unknown method, one that is not for this cost, or
            a model without a decoder.
        MeasureError: as `Embedder.transform`.
        SolverError: a coupling could not be certified.
    """
    _check_method(embedder, method)
    switch("normalize", normalize)
    shares = _shares(weights, len(measures), normalize)
    vectors = embedder.transform(measures)
    mean = (shares @ vectors.astype(np.float64)).astype(np.float32)[None]
    if method == "learned":
        return Decoded(embedder.decode(mean), mean)
    nearest = int(np.square(vectors - mean).sum(axis=1).argmin())
    start = measures[[nearest]] if method == "exact" else embedder.decode(mean)
    made = iterated(start, measures, shares, embedder.cost, _ITERATIONS[method], progress)
    return Decoded(made, embedder.encode(made))


def interpolate(
    embedder: Embedder, a: Measures, b: Measures, t: Any, *, method: str = "learned", progress: Progress | None = None
) -> Decoded:
    """Measures on the way from a[i] to b[i]: at t = 0 they are a[i], at t = 1 b[i].

    Args:
        embedder: with a decoder, unless the method is "exact".
        a: measures.
        b: as many.
        t: a number of [0, 1], or several.
        method: "learned", the same way between the vectors, decoded; "exact", the displacement interpolation along the
            optimal coupling (McCann 1997); "polish", the barycenter of the two with weights 1 - t and t, from what is
            learned. The last two give clouds, and are for euclidean W_2.
        progress: called with the pairs done and the pairs in all.

    Returns:
        As many for each pair as t has numbers, pair after pair.

    Raises:
        SettingError: t outside [0, 1], collections of different lengths, an unknown method, one that is not for this
            cost, or a model without a decoder.
        MeasureError: as `Embedder.transform`.
        SolverError: a coupling could not be certified.
    """
    _check_method(embedder, method)
    times = np.atleast_1d(np.asarray(t, dtype=object)).ravel()
    if not len(times) or not all(isinstance(one, (int, float, np.number)) and 0 <= one <= 1 for one in times):
        raise SettingError(f"t={t!r}; give numbers of [0, 1]")
    if len(a) != len(b) or not len(a):
        raise SettingError(f"there are {len(a)} measures to go from and {len(b)} to go to; give as many, one at least")
    steps = times.astype(np.float64)
    left, right = embedder.transform(a), embedder.transform(b)
    way = (1 - steps[:, None]) * left[:, None].astype(np.float64) + steps[:, None] * right[:, None]
    vectors = way.reshape(-1, left.shape[1]).astype(np.float32)
    if method == "learned":
        return Decoded(embedder.decode(vectors), vectors)
    decoded = embedder.decode(vectors) if method == "polish" else None
    parts = []
    for i in range(len(a)):
        pair = Measures.concatenate([a[[i]], b[[i]]])
        if decoded is None:
            parts += displaced(pair, embedder.cost, steps)
        else:
            for k, one in enumerate(steps.tolist()):
                start = decoded[[i * len(steps) + k]]
                shares = np.array([1 - one, one])
                parts.append(iterated(start, pair, shares, embedder.cost, _ITERATIONS[method], None))
        if progress:
            progress(i + 1, len(a))
    made = Measures.concatenate(parts)
    return Decoded(made, embedder.encode(made))


def class_means(embedder: Embedder, measures: Measures, labels: Any) -> tuple[np.ndarray, Decoded]:
    """The barycenter of the measures of each label: the labels in order, and what the means of the vectors decode to.

    Raises:
        SettingError: another number of labels than of measures, or a model without a decoder.
        MeasureError: as `Embedder.transform`.
    """
    if len(labels) != len(measures) or not len(measures):
        raise SettingError(f"there are {len(measures)} measures and {len(labels)} labels; give one for each")
    _check_method(embedder, "learned")
    names, whose = np.unique(np.asarray(labels), return_inverse=True)
    vectors = embedder.transform(measures).astype(np.float64)
    means = np.stack([vectors[whose == number].mean(axis=0) for number in range(len(names))]).astype(np.float32)
    return names, Decoded(embedder.decode(means), means)


def _check_method(embedder: Embedder, method: str) -> None:
    if method not in METHODS:
        raise SettingError(f"method={method!r}; choose one of {', '.join(METHODS)}")
    if method != "exact":
        embedder.check_decoder()
    if method != "learned" and not embedder.cost.splits_translation:
        raise SettingError(f"method={method!r} is for euclidean W_2; under this cost there is 'learned'")


def _shares(weights: Any, count: int, normalize: bool) -> Float64[np.ndarray, " n"]:
    if count == 0:
        raise SettingError("there are no measures to find a barycenter of")
    if weights is None:
        return np.full(count, 1 / count)
    given = np.asarray(weights)
    if given.shape != (count,) or given.dtype.kind not in "iuf" or not np.isfinite(given).all() or (given < 0).any():
        raise SettingError(f"weights have shape {given.shape}; give a number >= 0 for each of {count} measures")
    total = float(given.sum())
    if not normalize and abs(total - 1) > _ROUNDING:
        raise SettingError(f"weights sum to {total:g} and not to 1; change them, or ask for normalize=True")
    if total <= 0:
        raise SettingError("weights sum to 0; give some that do not")
    return np.asarray(given / total, dtype=np.float64)
