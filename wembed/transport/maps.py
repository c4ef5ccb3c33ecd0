"""Optimal maps from one fixed reference to many measures, in parallel."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64

from wembed.errors import MeasureError, SolverError
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.exact import coupled, shuffled
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
    work = work_of(measures.sizes, np.full(len(measures), len(reference)))
    blocks = list(pairwise(work_boundaries([work]).tolist()))
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
    block, cost = measures[start:stop], GroundCost()
    centred = block.points() - np.repeat(block.centroids(), block.sizes, axis=0)
    atoms = shuffled(len(reference))
    sources, masses = reference[atoms], np.full(len(atoms), 1 / len(atoms))
    maps = np.empty((len(block), *reference.shape), dtype=np.float32)
    for row, (first, last) in enumerate(pairwise(block.offsets.tolist())):
        order = first + shuffled(last - first)
        targets = centred[order]
        try:
            _, coupling, _ = coupled(sources, masses, targets, block.weights[order], cost)
        except SolverError as error:
            raise SolverError(f"measure {start + row} against the reference: {error}") from error
        maps[row, atoms] = coupling @ targets * len(atoms)
    return start, stop, maps
