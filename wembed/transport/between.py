"""Measures between measures, by exact couplings: barycenters, displacement interpolations, and many of both."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float64

from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.exact import solve
from wembed.transport.parallel import Progress, in_workers

__all__ = ["Mixture", "displaced", "iterated", "mixed"]

_SETTLED = 1e-3  # of the spread of a barycenter: atoms that move less are where they belong
_TOGETHER = 50  # mixtures that a worker makes in one go

Mixture = tuple[np.ndarray, np.ndarray]  # of any length: numbers of measures, and their weights


def mixed(
    measures: Measures,
    mixtures: Sequence[Mixture],
    cost: GroundCost,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Measures:
    """A measure between some, for each of many choices: clouds.

    Args:
        measures: what to choose from.
        mixtures: numbers of measures, and their weights, which sum to 1. Between two it is the displacement
            interpolation; between more, one step of the iteration of the barycenter, from the first of them.
        cost: of the couplings.
        n_jobs: processes, or -1 for one a core.
        progress: called with the mixtures done and the mixtures in all.

    Raises:
        SolverError: a coupling could not be certified.
    """
    blocks = [list(mixtures[start : start + _TOGETHER]) for start in range(0, len(mixtures), _TOGETHER)]
    made: dict[int, list[Measures]] = {}
    done = 0
    tasks = ((measures, number, block, cost) for number, block in enumerate(blocks))
    for number, found in in_workers(_block_mixed, tasks, n_jobs if len(blocks) > 1 else 1):
        made[number] = found
        done += len(found)
        if progress:
            progress(done, len(mixtures))
    return Measures.concatenate(list(chain.from_iterable(made[number] for number in range(len(blocks)))))


def _block_mixed(
    measures: Measures, number: int, mixtures: list[Mixture], cost: GroundCost
) -> tuple[int, list[Measures]]:
    found = []
    for rows, shares in mixtures:
        own = measures[rows]
        if len(rows) == 2:
            found += displaced(own, cost, shares[1:])
        else:
            found.append(iterated(own[:1], own, shares, cost, 1))
    return number, found


def iterated(
    start: Measures,
    measures: Measures,
    shares: Float64[np.ndarray, " n"],
    cost: GroundCost,
    iterations: int,
    progress: Progress | None = None,
) -> Measures:
    """A barycenter by its fixed-point iteration: each atom goes to the mean of where the optimal couplings send it.

    Alvarez-Esteban et al. 2016; of discrete measures with weights that stay, Cuturi and Doucet 2014, algorithm 2. For
    euclidean W_2; it ends early where atoms move by less than a thousandth of the spread.

    Args:
        start: one measure.
        measures: any number.
        shares: weights of them, summing to 1.
        cost: of the couplings.
        iterations: at most.
        progress: called with the couplings solved, and the most there may be.

    Raises:
        SolverError: a coupling could not be certified.
    """
    points, mass = start[0].support, start[0].weights
    used = np.flatnonzero(shares)
    for turn in range(iterations):
        together = Measures.concatenate([Measures.from_point_clouds([points], [mass]), measures[used]])
        moved = np.zeros_like(points)
        for number, share in enumerate(shares[used].tolist()):
            coupling = solve(together, 0, number + 1, cost).coupling
            moved += share * (coupling @ together[number + 1].support) / coupling.sum(axis=1, keepdims=True)
            if progress:
                progress(turn * len(used) + number + 1, iterations * len(used))
        step = float(np.sqrt((mass[:, None] * (moved - points) ** 2).sum()))
        spread = float(np.sqrt((mass[:, None] * (moved - mass @ moved) ** 2).sum()))
        points = moved
        if step <= _SETTLED * spread:
            break
    return Measures.from_point_clouds([points], [mass])


def displaced(pair: Measures, cost: GroundCost, steps: Float64[np.ndarray, " k"]) -> list[Measures]:
    """The displacement interpolation (McCann 1997): each piece of mass of the first on its straight way to the second.

    Args:
        pair: two measures.
        cost: of the coupling.
        steps: how far on the way, in [0, 1].

    Raises:
        SolverError: the coupling could not be certified.
    """
    coupling = solve(pair, 0, 1, cost).coupling
    rows, columns = np.nonzero(coupling)
    first, second = pair[0].support[rows], pair[1].support[columns]
    return [Measures.from_point_clouds([(1 - t) * first + t * second], [coupling[rows, columns]]) for t in steps]
