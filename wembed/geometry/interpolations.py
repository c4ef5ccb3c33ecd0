"""Interpolations: what lies on the way from a measure to another."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from wembed.embedder import Embedder
from wembed.errors import SettingError
from wembed.geometry.decoded import THIN, Decoded, check_asked, decoded_thin
from wembed.measures import Measures
from wembed.options import number
from wembed.transport.between import later, thinned, ways
from wembed.transport.parallel import Progress

__all__ = ["TURNS", "check_times", "interpolate"]

TURNS = 2  # of a polish: the middle of the first way is nearer to the shortest than what was decoded


def interpolate(
    embedder: Embedder, a: Measures, b: Measures, t: Any, *, method: str = "learned", progress: Progress | None = None
) -> Decoded:
    """Measures on the way from a[i] to b[i]: from t = 0, where they are a[i], to t = 1, where they are b[i].

    The learned ones are those as far as the decoder gives measures back: the ends too are decoded.

    Args:
        embedder: with a decoder, unless the method is "exact".
        a: measures.
        b: as many.
        t: a number of [0, 1], or several.
        method: "learned", the same way between the vectors, decoded; "exact", the displacement interpolation along the
            optimal coupling (McCann 1997); "polish", along the coupling that exact couplings of both ends with what the
            middle of their vectors decodes to give, of at most 150 atoms there (`wembed.transport.between.ways`), and
            once more with the middle of that way. The last two give clouds, and are for euclidean W_2.
        progress: called with the pairs done and the pairs in all, which a polish does twice; not for "learned".

    Returns:
        As many for each pair as t has numbers, pair after pair.

    Raises:
        SettingError: t outside [0, 1], collections of different lengths, an unknown method, one that is not for this
            cost, or a model without a decoder.
        MeasureError: as `Embedder.transform`.
        SolverError: a coupling could not be certified.
    """
    check_asked(embedder, method, a, b)
    times = check_times(t)
    if len(a) != len(b) or not len(a):
        raise SettingError(f"there are {len(a)} measures to go from and {len(b)} to go to; give as many, one at least")
    left, right = embedder.transform(a).astype(np.float64), embedder.transform(b).astype(np.float64)
    if method == "learned":
        way = (1 - times[:, None]) * left[:, None] + times[:, None] * right[:, None]
        return Decoded.from_vectors(embedder, way.reshape(-1, left.shape[1]))
    cost, n_jobs = embedder.cost, embedder.n_jobs
    if method == "exact":
        found = ways(a, b, cost, None, n_jobs, progress)
    else:
        middles = [decoded_thin(embedder, middle) for middle in (left + right) / 2]
        for turn in range(TURNS):
            through = Measures.from_point_clouds([one.support for one in middles], [one.weights for one in middles])
            found = ways(a, b, cost, through, n_jobs, later(progress, turn * len(a), TURNS * len(a)))
            middles = [thinned(way.at(0.5)[0], THIN) for way in found]
    return Decoded.of(embedder, Measures.concatenate([way.at(one) for way in found for one in times.tolist()]))


def check_times(t: Any) -> Float64[np.ndarray, " k"]:
    """Shares of a way.

    Raises:
        SettingError: they are not numbers of [0, 1].
    """
    times = np.atleast_1d(np.asarray(t, dtype=object))
    if times.ndim != 1 or not len(times) or not all(number(one) and 0 <= one <= 1 for one in times):
        raise SettingError(f"t={t!r}; give a number of [0, 1], or a list of them")
    return times.astype(np.float64)
