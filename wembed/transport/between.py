"""Measures between measures, by exact couplings: barycenters, ways from one to another, and many mixtures.

All of it is for euclidean W_2.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64

from wembed.measures import Measure, Measures
from wembed.transport.costs import GroundCost
from wembed.transport.exact import solve
from wembed.transport.parallel import ALONE_WORK, Progress, in_threads, in_workers, work_boundaries, work_of

__all__ = ["Mixture", "Way", "images_of", "iterated", "later", "mixed", "thinned", "ways"]

_SETTLED = 1e-3  # of the spread of a barycenter: atoms that move less are where they belong
_SLIVER = 1e-13  # mass that is there by rounding alone
_PIECES = 8  # of what is soon done
_TOGETHER = 50  # mixtures that a worker makes in one go

Mixture = tuple[np.ndarray, np.ndarray]  # of any length: numbers of measures, and their weights


@dataclass(frozen=True, eq=False)
class Way:
    """Pieces of mass, each on its straight way from a place to another: a displacement interpolation (McCann 1997).

    Attributes:
        first: where each begins.
        last: where it ends.
        mass: of each.
    """

    first: Float64[np.ndarray, "pieces dim"]
    last: Float64[np.ndarray, "pieces dim"]
    mass: Float64[np.ndarray, " pieces"]

    def at(self, t: float) -> Measures:
        """The measure at a share of the way."""
        return Measures.from_point_clouds([(1 - t) * self.first + t * self.last], [self.mass])


def ways(
    a: Measures,
    b: Measures,
    cost: GroundCost,
    through: Measures | None = None,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> list[Way]:
    """The way from a[i] to b[i], along an exact coupling of the two.

    Args:
        a: measures.
        b: as many.
        cost: of the couplings.
        through: as many, to go through: mass of a[i] and mass of b[i] that one atom of through[i] is coupled with are
            coupled (a gluing, Villani 2009, p. 11; a factored coupling, Forrow et al. 2019). Where that has far fewer
            atoms this is sooner done than a coupling of the two, and the way is as short if it lies on the shortest.
        n_jobs: processes, or -1 for one a core.
        progress: called with the pairs done and the pairs in all.

    Raises:
        SolverError: a coupling could not be certified.
    """
    if through is None:
        work = work_of(a.sizes, b.sizes)
    else:
        work = work_of(a.sizes, through.sizes) + work_of(through.sizes, b.sizes)

    def task(own: slice) -> tuple[Any, ...]:
        return a[own], b[own], None if through is None else through[own], cost

    return list(chain.from_iterable(_in_blocks(_block_of_ways, task, work, n_jobs, progress)))


def _block_of_ways(a: Measures, b: Measures, through: Measures | None, cost: GroundCost) -> list[Way]:
    found = []
    for i in range(len(a)):
        if through is None:
            rows, columns, mass = _pieces(a[i], b[i], cost)
        else:
            _, rows, one = _pieces(through[i], a[i], cost)
            _, columns, other = _pieces(through[i], b[i], cost)
            one, other = one.cumsum(), other.cumsum()  # by the atom gone through, and as far for both at its end
            levels = np.union1d(one / one[-1], other / other[-1])
            mass = np.diff(levels, prepend=0.0)
            level, mass = (levels - mass / 2)[mass > _SLIVER], mass[mass > _SLIVER]
            rows = rows[np.searchsorted(one / one[-1], level)]
            columns = columns[np.searchsorted(other / other[-1], level)]
        found.append(Way(a[i].support[rows], b[i].support[columns], mass))
    return found


def _pieces(one: Measure, other: Measure, cost: GroundCost) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the optimal coupling sends, atom by atom of the first: from which, to which, and how much."""
    coupling = solve(_clouds(one, other), 0, 1, cost).coupling
    rows, columns = np.nonzero(coupling > _SLIVER)
    return rows, columns, coupling[rows, columns]


def _clouds(*some: Measure) -> Measures:
    return Measures.from_point_clouds([one.support for one in some], [one.weights for one in some])


def images_of(
    start: Measure,
    measures: Measures,
    cost: GroundCost,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Float64[np.ndarray, "n atoms dim"]:
    """Where the optimal coupling to each measure sends the atoms of a measure, in the mean: barycentric projections.

    Args:
        start: whose atoms are sent.
        measures: to which.
        cost: of the couplings.
        n_jobs: processes, or -1 for one a core.
        progress: called with the couplings solved and the couplings in all.

    Raises:
        SolverError: a coupling could not be certified.
    """
    return np.concatenate(_images(start, measures, None, cost, n_jobs, progress))


def _images(
    start: Measure,
    measures: Measures,
    shares: Float64[np.ndarray, " n"] | None,
    cost: GroundCost,
    n_jobs: int,
    progress: Progress | None,
) -> list[np.ndarray]:
    """Blocks of images, or of their sum by shares."""
    work = work_of(np.full(len(measures), len(start.weights)), measures.sizes)

    def task(own: slice) -> tuple[Any, ...]:
        return start, measures[own], None if shares is None else shares[own], cost

    return _in_blocks(_block_of_images, task, work, n_jobs, progress)


def _block_of_images(start: Measure, measures: Measures, shares: np.ndarray | None, cost: GroundCost) -> np.ndarray:
    count = len(measures) if shares is None else 1
    images = np.zeros((count, *start.support.shape))
    for i in range(len(measures)):
        own = measures[i]
        coupling = solve(_clouds(start, own), 0, 1, cost).coupling
        image = (coupling @ own.support) / coupling.sum(axis=1, keepdims=True)
        if shares is None:
            images[i] = image
        else:
            images[0] += shares[i] * image
    return images


def iterated(
    start: Measure,
    measures: Measures,
    shares: Float64[np.ndarray, " n"],
    cost: GroundCost,
    iterations: int,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Measures:
    """A barycenter by its fixed-point iteration: each atom goes to the mean of where the optimal couplings send it.

    Alvarez-Esteban et al. 2016; of discrete measures with weights that stay, Cuturi and Doucet 2014, algorithm 2. It
    ends early where atoms move by less than a thousandth of the spread.

    Args:
        start: one measure.
        measures: any number.
        shares: weights of them, summing to 1.
        cost: of the couplings.
        iterations: at most.
        n_jobs: processes, or -1 for one a core. The answer does not depend on it.
        progress: called with the couplings solved, and the most there may be.

    Raises:
        SolverError: a coupling could not be certified.
    """
    used = np.flatnonzero(shares)
    some, own = measures[used], shares[used]
    for turn in range(iterations):
        shown = later(progress, turn * len(used), iterations * len(used))
        points = np.sum(_images(start, some, own, cost, n_jobs, shown), axis=0)[0]
        step = _root_mean_square(points - start.support, start.weights)
        start = Measure(points, start.weights)
        if step <= _SETTLED * _root_mean_square(points - start.weights @ points, start.weights):
            break
    return _clouds(start)


def _root_mean_square(moved: np.ndarray, mass: np.ndarray) -> float:
    return float(np.sqrt(mass @ np.square(moved).sum(axis=1)))


def later(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part that begins after some is done."""
    return None if progress is None else lambda done, _: progress(before + done, total)


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
    blocks = [mixtures[start : start + _TOGETHER] for start in range(0, len(mixtures), _TOGETHER)]
    tasks = ((measures, list(block), cost) for block in blocks)
    made = _in_order(_block_mixed, tasks, list(map(len, blocks)), n_jobs if len(blocks) > 1 else 1, progress)
    return Measures.concatenate(list(chain.from_iterable(made)))


def _block_mixed(measures: Measures, mixtures: list[Mixture], cost: GroundCost) -> list[Measures]:
    found = []
    for rows, shares in mixtures:
        own = measures[rows]
        if len(rows) == 2:
            (way,) = _block_of_ways(own[:1], own[1:], None, cost)
            found.append(way.at(float(shares[1])))
        else:
            found.append(_clouds(Measure(_block_of_images(own[0], own, shares, cost)[0], own[0].weights)))
    return found


def thinned(measure: Measure, atoms: int) -> Measure:
    """At most so many atoms in its place: cells of it are split where mass is spread the most, each to its mean.

    Each cell is cut at its mean, across the axis along which its mass is spread the most (Wan, Wong and Prusinkiewicz
    1988).
    """
    points, mass = measure.support, measure.weights
    if len(mass) <= atoms:
        return measure
    heap: list[tuple[float, int, int, np.ndarray]] = []

    def keep(cell: np.ndarray) -> None:
        mean = mass[cell] @ points[cell] / mass[cell].sum()
        along = mass[cell] @ np.square(points[cell] - mean)
        spread = float(along.max()) if len(cell) > 1 else -1.0  # what has one atom is cut last
        heappush(heap, (-spread, int(cell[0]), int(along.argmax()), cell))

    keep(np.arange(len(mass)))
    while len(heap) < atoms:
        _, _, axis, cell = heappop(heap)
        cell = cell[np.argsort(points[cell, axis], kind="stable")]
        mean = mass[cell] @ points[cell, axis] / mass[cell].sum()
        cut = int(np.clip(np.searchsorted(points[cell, axis], mean, side="right"), 1, len(cell) - 1))
        keep(cell[:cut])
        keep(cell[cut:])
    cells = [cell for *_, cell in heap]
    weights = np.array([mass[cell].sum() for cell in cells])
    return Measure(np.stack([mass[cell] @ points[cell] for cell in cells]) / weights[:, None], weights)


def _in_blocks(
    function: Callable[..., Any],
    task: Callable[[slice], tuple[Any, ...]],
    work: Float64[np.ndarray, " n"],
    n_jobs: int,
    progress: Progress | None,
) -> list[Any]:
    """What a function makes of each block of about equal work, in their order."""
    alone = float(work.sum()) < ALONE_WORK
    cuts = _even(work) if alone else work_boundaries([work]).tolist()
    blocks = [slice(*ends) for ends in pairwise(cuts)]
    sizes = [block.stop - block.start for block in blocks]
    if not alone:
        return _in_order(function, map(task, blocks), sizes, n_jobs, progress)
    made = []
    for found, done in zip(in_threads(function, map(task, blocks), n_jobs), np.cumsum(sizes).tolist(), strict=True):
        made.append(found)
        if progress:
            progress(done, len(work))
    return made


def _even(work: Float64[np.ndarray, " n"]) -> list[int]:
    """Cuts into a few blocks of about equal work; where, does not depend on who does it."""
    ends = np.searchsorted(work.cumsum(), np.linspace(0, work.sum(), _PIECES + 1)[1:-1])
    return sorted({0, *ends.tolist(), len(work)})


def _in_order(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    sizes: list[int],
    n_jobs: int,
    progress: Progress | None,
) -> list[Any]:
    made, done = dict[int, Any](), 0
    for number, found in in_workers(_numbered, ((function, n, one) for n, one in enumerate(tasks)), n_jobs):
        made[number] = found
        done += sizes[number]
        if progress:
            progress(done, sum(sizes))
    return [made[number] for number in range(len(sizes))]


def _numbered(function: Callable[..., Any], number: int, task: tuple[Any, ...]) -> tuple[int, Any]:
    return number, function(*task)
