"""Many transport problems at once, on any joblib backend."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pickle import PicklingError
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from wembed.errors import SettingError, SolverError
from wembed.measures import Measures
from wembed.options import integral
from wembed.transport.costs import GroundCost
from wembed.transport.exact import solve_pairs
from wembed.transport.pairs import Listed, PairPlan, listed_pairs

__all__ = [
    "ALONE_WORK",
    "Progress",
    "block_boundaries",
    "exact_distances",
    "in_threads",
    "in_workers",
    "of_block",
    "solve_blocks",
    "start_workers",
    "work_boundaries",
    "work_of",
]

_PAIR_WORK = 2e5  # what a pair costs however few atoms it has, in units of n m (n + m)
_BLOCK_WORK = 2e9  # work of a block: some half second on one core
ALONE_WORK = 2e9  # below this, starting workers costs more than it saves
_CHUNK = 200_000  # pairs looked at in one go while cutting a plan into blocks

Progress = Callable[[int, int], None]  # (pairs done, pairs in all)


def of_block(progress: Progress, start: int, count: int, everything: int) -> Progress:
    """For the progress of `count` things, from `start` on, that tells `progress` of the progress of everything."""

    def show(done: int, total: int) -> None:
        progress(start + count * done // total, everything)

    return show


def exact_distances(
    measures: Measures,
    pairs: "np.ndarray | list[tuple[int, int]]",
    cost: GroundCost | None = None,
    n_jobs: int = -1,
    progress: Progress | None = None,
) -> Float64[np.ndarray, " k"]:
    """Exact W_p of each pair, solved in parallel and certified.

    Args:
        measures: the collection that the pairs index.
        pairs: (k, 2) integers, in any order; a measure may be paired with itself.
        cost: the ground cost; euclidean W_2 by default.
        n_jobs: processes, or -1 for one a core. `joblib.parallel_config` chooses the backend.
        progress: called with the pairs done and the pairs in all.

    Returns:
        W_p in the unit of the support. The values do not depend on the number of workers.

    Raises:
        SettingError: pairs outside the measures, a cost that does not fit them, or no process.
        SolverError: a solution could not be certified.
    """
    cost = GroundCost.given(cost)
    cost.check(measures)
    check_jobs(n_jobs)
    plan = PairPlan((Listed(listed_pairs(pairs, len(measures))),))
    boundaries = block_boundaries(measures, plan)
    distances = np.empty(len(plan))
    done = 0
    for block, solved in solve_blocks(measures, plan, boundaries, np.arange(len(boundaries) - 1), cost, n_jobs):
        distances[boundaries[block] : boundaries[block + 1]] = solved
        done += len(solved)
        if progress:
            progress(done, len(plan))
    return distances


def start_workers(measures: Measures, pairs: Int64[np.ndarray, "k 2"], n_jobs: int) -> None:
    """Have most workers running, where these pairs are work for some, so that what is timed next is mostly solving."""
    from joblib import effective_n_jobs  # imported late: half of wembed never solves

    if _work(measures, pairs).sum() < ALONE_WORK:
        return
    for _ in in_workers(_import_solver, [()] * int(effective_n_jobs(n_jobs)), n_jobs):
        pass


def check_jobs(n_jobs: int) -> None:
    """Refuse a number of processes that joblib would not take.

    Raises:
        SettingError: zero.
    """
    if not integral(n_jobs) or n_jobs == 0:
        raise SettingError(f"n_jobs={n_jobs!r}; give a number of processes, or -1 for one a core")


def block_boundaries(measures: Measures, plan: PairPlan) -> Int64[np.ndarray, " blocks_plus_1"]:
    """Cut a plan into blocks of about equal work, which for one pair is n m (n + m) and a constant.

    The cuts depend on the measures and the plan alone, so that an interrupted job finds them again.
    """
    starts = range(0, len(plan), _CHUNK)
    return work_boundaries(_work(measures, plan.take(start, min(start + _CHUNK, len(plan)))) for start in starts)


def work_boundaries(chunks: Iterable[Float64[np.ndarray, " k"]]) -> Int64[np.ndarray, " blocks_plus_1"]:
    """Cut tasks, whose work comes in chunks, into blocks of about equal work."""
    cuts, count, before = [0], 0, 0.0
    for work in chunks:
        running = np.cumsum(np.concatenate([[before], work]))
        full = np.diff(np.floor(running / _BLOCK_WORK)) > 0
        cuts.extend((count + 1 + np.flatnonzero(full)).tolist())
        count, before = count + len(work), float(running[-1])
    if cuts[-1] != count:
        cuts.append(count)
    return np.array(cuts, dtype=np.int64)


def solve_blocks(
    measures: Measures,
    plan: PairPlan,
    boundaries: Int64[np.ndarray, " blocks_plus_1"],
    blocks: Int64[np.ndarray, " k"],
    cost: GroundCost,
    n_jobs: int,
) -> Iterator[tuple[int, Float64[np.ndarray, " pairs"]]]:
    """Solve the given blocks of a plan and yield each as soon as it is done, in any order.

    At most two blocks a worker are under way, so memory does not grow with the plan. The measures reach each process
    once, as a memory map.
    """

    def pairs_of(block: int) -> np.ndarray:
        return plan.take(int(boundaries[block]), int(boundaries[block + 1]))

    if len(blocks) <= 2 and sum(float(_work(measures, pairs_of(b)).sum()) for b in blocks.tolist()) < ALONE_WORK:
        n_jobs = 1
    yield from in_workers(_solve_block, ((measures, b, pairs_of(b), cost) for b in blocks.tolist()), n_jobs)


def in_workers(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], n_jobs: int) -> Iterator[Any]:
    """Call a function with each tuple of arguments and yield each result as soon as it is there, in any order.

    At most two tasks a worker are under way. A worker runs on one thread and never imports torch.

    Raises:
        SolverError: a worker was killed, or there is no room for what the workers share.
    """
    if n_jobs == 1:
        for task in tasks:
            with _thread_pools().limit(
                limits=1
            ):  # on matrices as small as these, more threads take several times as long
                result = function(*task)
            yield result
        return
    try:
        yield from _from_workers(function, tasks, n_jobs)
    except BrokenExecutor as error:
        raise SolverError(
            "a worker process was killed, most often because memory ran out; what was stored is safe: run the same "
            "call again, with fewer jobs"
        ) from error
    except PicklingError as error:
        raise SolverError(
            f"the workers could not be given their data: {error.__cause__ or error}; make room in the temporary "
            "folder, or name another one in JOBLIB_TEMP_FOLDER"
        ) from error


def in_threads(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], n_jobs: int) -> Iterator[Any]:
    """Call a function with each tuple of arguments and yield the results in their order.

    For what is too short for processes: POT's network simplex lets other threads run, while most else does not.
    """
    from joblib import effective_n_jobs  # imported late: half of wembed never solves

    with _thread_pools().limit(limits=1), ThreadPoolExecutor(int(effective_n_jobs(n_jobs))) as pool:
        yield from pool.map(lambda task: function(*task), tasks)


@lru_cache(maxsize=1)
def _thread_pools() -> Any:
    import scipy.linalg  # noqa: F401  its thread pool is another than that of NumPy, and there once it is imported
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _from_workers(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], n_jobs: int) -> Iterator[Any]:
    from joblib import Parallel, delayed, effective_n_jobs  # imported late: half of wembed never solves
    from joblib.parallel import get_active_backend

    call = delayed(_as_worker)
    calls = (call(os.getpid(), function, task) for task in tasks)
    if not get_active_backend()[0].supports_return_generator:  # such as multiprocessing: then in waves
        with Parallel(n_jobs=n_jobs) as pool:
            while wave := list(islice(calls, effective_n_jobs(n_jobs))):
                yield from pool(wave)
        return
    results = Parallel(n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="2 * n_jobs")(calls)
    try:
        for result in results:  # noqa: UP028  `yield from` would close them before the warning is silenced
            yield result
    finally:
        with warnings.catch_warnings():  # joblib warns of results left unused when the caller stops early
            warnings.simplefilter("ignore")
            results.close()


def work_of(n: np.ndarray, m: np.ndarray) -> Float64[np.ndarray, " k"]:
    """About what problems with n and m atoms cost, in units of n m (n + m)."""
    n, m = n.astype(np.float64), m.astype(np.float64)
    return np.asarray(n * m * (n + m) + _PAIR_WORK)


def _work(measures: Measures, pairs: np.ndarray) -> Float64[np.ndarray, " k"]:
    return work_of(*measures.sizes[pairs].T)


def _solve_block(measures: Measures, block: int, pairs: np.ndarray, cost: GroundCost) -> tuple[int, np.ndarray]:
    return block, solve_pairs(measures, pairs, cost)


def _import_solver() -> None:
    import ot  # noqa: F401  what a worker's first solve waits for


def _as_worker(parent: int, function: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    if os.getpid() == parent:
        return function(*task)
    from threadpoolctl import threadpool_limits  # imported late: for workers only

    os.environ["WEMBED_WORKER"] = "1"
    with threadpool_limits(1):
        return function(*task)
