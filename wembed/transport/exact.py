"""One transport problem, solved and certified."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from wembed.errors import SolverError
from wembed.measures import Measures
from wembed.transport.costs import GroundCost

__all__ = ["Transport", "coupled", "distance_1d", "shuffled", "solve", "solve_pairs"]

TOLERANCE = 1e-9  # largest certified error of a scaled cost, in units of the largest ground cost
_SMALLEST_DISTANCE = 1e-7  # in units of the largest ground distance: W_p need not be known more finely
_ASSIGNED = 64  # atoms up to which an assignment is the faster way between equal masses, in every case measured
_MAX_ITERATIONS = 1_000_000_000

# (cost, source potential, target potential, coupling, whether the solver reports an optimum)
RawSolution = tuple[float, np.ndarray, np.ndarray, np.ndarray, bool]
SimplexSolver = Callable[[np.ndarray, np.ndarray, np.ndarray], RawSolution]


@dataclass(frozen=True, slots=True)
class Transport:
    """Solution of one Kantorovich problem.

    Attributes:
        distance: W_p, in the unit of the supports.
        coupling: mass sent from atom i of the source to atom j of the target.
        gap: certified error of the optimal cost, relative to the largest ground cost.
    """

    distance: float
    coupling: Float64[np.ndarray, "n m"]
    gap: float


def solve(measures: Measures, i: int, j: int, cost: GroundCost) -> Transport:
    """Solve the transport problem between measures i and j, with its coupling.

    Raises:
        SolverError: the solution could not be certified.
    """
    (x, a), (y, b) = ((cost.places(measures, one), measures[one].weights) for one in (i, j))
    rows, columns = shuffled(len(a)), shuffled(len(b))
    try:
        distance, coupling, gap = coupled(x[rows], a[rows], y[columns], b[columns], cost)
    except SolverError as error:
        raise SolverError(f"measures {i} and {j} ({len(a)} and {len(b)} atoms): {error}") from error
    in_order = np.empty_like(coupling)
    in_order[np.ix_(rows, columns)] = coupling
    return Transport(distance, in_order, gap)


def coupled(
    x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray, cost: GroundCost
) -> tuple[float, np.ndarray, float]:
    """Distance, coupling and gap, between atoms in an order that `shuffled` gives.

    Args:
        x: what the cost needs to know of the source's atoms, its `places`.
        a: their masses.
        y: the same of the target's.
        b: their masses.
        cost: ground cost.

    Raises:
        SolverError: the solution could not be certified.
    """
    matrix, unit = cost.powers(x, y)
    value, coupling, gap = _certified(a, b, matrix.copy(), cost.order)
    if not (coupling.min() >= 0 and abs(float(np.vdot(coupling, matrix)) - value) <= TOLERANCE * matrix.max()):
        raise SolverError("the coupling does not have the cost that the solver reports")
    return cost.root(value, unit), coupling, gap


def solve_pairs(measures: Measures, pairs: Int64[np.ndarray, "k 2"], cost: GroundCost) -> Float64[np.ndarray, " k"]:
    """W_p of each pair, one after the other, in this process.

    Each value depends on its two measures alone, not on their order in the pair nor on what else is solved.

    Raises:
        SolverError: a solution could not be certified; the message names the pair.
    """
    on_a_line = measures.dim == 1 and isinstance(cost.metric, str)
    # Squared distances of pixels are small whole numbers, so one matrix product gives them exactly.
    on_a_grid = cost.splits_translation and measures.grid is not None and sum(n * n for n in measures.grid) <= 1e4
    lifted = _lifted(measures.support) if on_a_grid else None
    atoms: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def prepared(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if index not in atoms:
            own = slice(int(measures.offsets[index]), int(measures.offsets[index + 1]))
            order = shuffled(own.stop - own.start)
            if lifted is not None and measures.atoms is not None:
                rows = measures.atoms[own][order]
                x, y = lifted[0][rows], lifted[1][rows]
            else:
                x = y = cost.places(measures, index)[order]
            atoms[index] = (x, y, measures.weights[own][order])
        return atoms[index]

    distances = np.zeros(len(pairs))
    memory = _Buffer()
    for row, (i, j) in enumerate(np.sort(pairs, axis=1).tolist()):
        if i == j:
            continue
        (x, _, a), (_, y, b) = prepared(i), prepared(j)
        alike = len(a) == len(b) <= _ASSIGNED and a[0] == b[0] and bool((a == a[0]).all() and (b == a[0]).all())
        try:
            if on_a_line:
                distances[row] = distance_1d(x[:, 0], a, y[:, 0], b, cost.order)
            else:
                out = memory.shaped((len(a), len(b)))
                matrix, unit = (np.matmul(x, y.T, out=out), 1.0) if on_a_grid else cost.powers(x, y, out=out)
                value = _assigned(matrix) if alike else _certified(a, b, matrix, cost.order)[0]
                distances[row] = cost.root(value, unit)
            if not np.isfinite(distances[row]):
                raise SolverError("the points are too far apart for a floating-point number; rescale them")
        except SolverError as error:
            raise SolverError(f"measures {i} and {j} ({len(a)} and {len(b)} atoms): {error}") from error
    return distances


def _lifted(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose inner products are squared distances: |x - y|^2 = <(-2x, |x|^2, 1), (y, 1, |y|^2)>."""
    squares, ones = np.square(points).sum(axis=1, keepdims=True), np.ones((len(points), 1))
    return np.concatenate([-2 * points, squares, ones], axis=1), np.concatenate([points, ones, squares], axis=1)


class _Buffer:
    """Memory that is used again: fresh pages for each small matrix cost more than the arithmetic on it."""

    def __init__(self) -> None:
        self.memory = np.empty(0)

    def shaped(self, shape: tuple[int, int]) -> Float64[np.ndarray, "n m"]:
        size = shape[0] * shape[1]
        if size > len(self.memory):
            self.memory = np.empty(size)
        return self.memory[:size].reshape(shape)


def distance_1d(
    x: Float64[np.ndarray, " n"],
    a: Float64[np.ndarray, " n"],
    y: Float64[np.ndarray, " m"],
    b: Float64[np.ndarray, " m"],
    order: float,
) -> float:
    """W_p on the line, in closed form: the L_p distance of the quantile functions (Santambrogio 2015, Prop. 2.17)."""
    by_x, by_y = np.argsort(x), np.argsort(y)
    x, y = x[by_x], y[by_y]
    mass_x, mass_y = np.cumsum(a[by_x]), np.cumsum(b[by_y])
    levels = np.sort(np.concatenate([mass_x[:-1], mass_y[:-1], [1.0]]))
    steps = np.diff(np.clip(levels, 0, 1), prepend=0.0)
    steps[steps < 1e-15 * len(levels)] = 0.0  # two sums that should meet: mass that exists by rounding alone
    moved = np.abs(x[np.searchsorted(mass_x[:-1], levels)] - y[np.searchsorted(mass_y[:-1], levels)])
    farthest = float(moved.max())
    if farthest == 0:
        return 0.0
    if not np.isfinite(farthest):
        return farthest
    return farthest * float(float(steps @ (moved / farthest) ** order) ** (1 / order))


@lru_cache(maxsize=4096)
def shuffled(count: int) -> Int64[np.ndarray, " count"]:
    """A fixed random order of `count` atoms: the network simplex needs fewer pivots than in raster order."""
    return np.random.default_rng(count).permutation(count)


def _assigned(cost: np.ndarray) -> float:
    """Optimal value between equal numbers of equal masses: an assignment, by Birkhoff's theorem (Birkhoff 1946).

    SciPy's shortest augmenting paths end at the optimum or not at all; its sum has no rounded masses in it.
    """
    from scipy.optimize import linear_sum_assignment  # imported late, as SciPy is everywhere here

    return float(cost[linear_sum_assignment(cost)].mean())


def _certified(a: np.ndarray, b: np.ndarray, cost: np.ndarray, order: float) -> tuple[float, np.ndarray, float]:
    """Optimal value, coupling and relative gap of a problem; or an error, never a wrong number.

    The potentials of the last basis always reach its value, feasible or not; so the lower bound is taken after
    replacing the target potential by the largest feasible one (the c-transform, Santambrogio 2015, Def. 1.10). What is
    left between the two bounds must not show in W_p either. The costs may be overwritten.
    """
    from scipy.linalg.blas import dger  # imported late: SciPy doubles the import time of wembed

    largest = float(cost.max()) or 1.0  # before the solver, while the costs are still in the cache
    value, source_potential, _, coupling, optimal = simplex_solver()(a, b, cost)
    if not optimal:
        raise SolverError("the network simplex stopped before the optimum")
    columns = cost.T if order <= 2 else cost.T.copy(order="F")
    reduced = dger(-1.0, np.ones(len(b)), source_potential, a=columns, overwrite_a=1).T  # in place
    gap = (value - float(a @ source_potential + b @ reduced.min(axis=0))) / largest
    sent, received = coupling @ np.ones(len(b)) - a, np.ones(len(a)) @ coupling - b
    misplaced = float(sent @ sent + received @ received) ** 0.5
    if not (abs(gap) <= TOLERANCE and misplaced <= TOLERANCE):  # written so that NaN fails
        raise SolverError(f"no certificate: duality gap {gap:.1e}, misplaced mass {misplaced:.1e}")
    share = value / largest
    distance = share ** (1 / order)
    doubt = distance - max(share - max(gap, 0.0) - 1e-15, 0.0) ** (1 / order)
    if share > 0 and doubt > max(1e-6 * distance, _SMALLEST_DISTANCE):  # never so for an order up to 2
        if not cost[coupling > 1e-15 * len(a) * len(b)].any():  # the same measure twice, but for rounding
            return 0.0, coupling, max(gap, 0.0)
        raise SolverError(
            f"W_{order:g} is certain to {doubt:.1e} of the largest ground distance only: the mass that rounding moves "
            "weighs too much at this order. Choose a lower one, or drop atoms that lie far from all others"
        )
    return value, coupling, max(gap, 0.0)


@lru_cache(maxsize=1)
def simplex_solver() -> SimplexSolver:
    """POT's compiled network simplex; its public wrapper where the private entry point has changed."""
    if os.environ.get("WEMBED_WORKER") == "1":
        os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")  # 2.8 s and 180 MiB a worker, for nothing
    compiled = _compiled_solver()
    return compiled if compiled is not None and _agrees(compiled) else public_solver()


def _compiled_solver() -> SimplexSolver | None:
    try:
        from ot.lp.emd_wrap import emd_c
    except ImportError:
        return None

    def solver(a: np.ndarray, b: np.ndarray, cost: np.ndarray) -> RawSolution:
        coupling, value, u, v, status = emd_c(a, b * (a.sum() / b.sum()), cost, _MAX_ITERATIONS, 1)
        return value, u, v, coupling, status == 1

    return solver


def public_solver() -> SimplexSolver:
    """POT's public call, which costs half the time on small problems."""
    import ot

    def solver(a: np.ndarray, b: np.ndarray, cost: np.ndarray) -> RawSolution:
        coupling, log = ot.emd(a, b, cost, numItermax=_MAX_ITERATIONS, log=True, center_dual=False)
        return float(log["cost"]), log["u"], log["v"], coupling, log["warning"] is None

    return solver


def _agrees(solver: SimplexSolver) -> bool:
    """Whether the private entry point still takes and returns what it did: a 2 x 2 problem with a known answer."""
    expected: Any = [[0.25, 0.0], [0.25, 0.5]]
    try:
        value, u, _, coupling, optimal = solver(
            np.array([0.25, 0.75]), np.array([0.5, 0.5]), np.array([[0.0, 1.0], [1.0, 0.0]])
        )
        return bool(optimal and abs(value - 0.25) < 1e-12 and np.allclose(coupling, expected) and u.shape == (2,))
    except Exception:  # whatever a changed signature leads to, the public call is there
        return False
