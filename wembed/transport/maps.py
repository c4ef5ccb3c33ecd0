"""Optimal maps from one fixed reference to many measures, in parallel."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64

from wembed.errors import MeasureError, SolverError
from wembed.measures import Measures
from wembed.transport.exact import certified, shuffled
from wembed.transport.parallel import Progress, check_jobs, in_workers, work_boundaries, work_of

__all__ = ["transport_maps"]


def transport_maps(
    measures: Measures,
    reference: Float64[np.ndarray, "r dim"],
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Float32[np.ndarray, "n r dim"]:
    """Where the optimal coupling sends each atom of a reference, for each measure moved to its centroid.

    The reference has equal masses and the cost is the squared euclidean distance. An atom whose mass is split goes to
    the mean of its targets: the barycentric projection (Ambrosio, Gigli and Savare 2008, Def. 5.4.2), which linear
    optimal transport takes for a map (Wang et al. 2013).

    Args:
        measures: any number, of the dimension of the reference.
        reference: places of atoms of equal mass.
        n_jobs: processes, or -1 for one a core.
        progress: called with the measures done and the measures in all.

    Raises:
        MeasureError: measures of another dimension.
        SettingError: no process.
        SolverError: a solution could not be certified.
    """
    check_jobs(n_jobs)
    if measures.dim != reference.shape[1]:
        raise MeasureError(f"the measures have dimension {measures.dim}; this reference has {reference.shape[1]}")
    edges = work_boundaries(work_of(measures.sizes, np.full(len(measures), len(reference)))).tolist()
    blocks = list(pairwise(edges))
    maps = np.empty((len(measures), *reference.shape), dtype=np.float32)
    done = 0
    tasks = ((measures, reference, start, stop) for start, stop in blocks)
    for start, stop, found in in_workers(_map_block, tasks, n_jobs if len(blocks) > 1 else 1):
        maps[start:stop] = found
        done += stop - start
        if progress:
            progress(done, len(measures))
    return maps


def _map_block(measures: Measures, reference: np.ndarray, start: int, stop: int) -> tuple[int, int, np.ndarray]:
    count, dim = reference.shape
    mass = np.full(count, 1 / count)
    squares = np.square(reference).sum(axis=1)[:, None]
    maps = np.empty((stop - start, count, dim), dtype=np.float32)
    for row, index in enumerate(range(start, stop)):
        measure = measures[index]
        order = shuffled(len(measure.weights))
        weights = measure.weights[order]
        points = measure.support[order] - (weights @ measure.support[order]) / weights.sum()
        costs = np.maximum(squares + np.square(points).sum(axis=1) - 2 * (reference @ points.T), 0.0)
        try:
            coupling = certified(mass, weights, costs / (costs.max() or 1.0), 2)[1]
        except SolverError as error:
            raise SolverError(f"measure {index} ({len(weights)} atoms) and the reference: {error}") from error
        maps[row] = coupling @ points * count
    return start, stop, maps
