"""Fill a store with exact distances: the only place where solving and saving meet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from wembed.errors import ArtifactError, LockedError, SettingError
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.pairs import Listed, PairPlan, Split, all_pairs, listed_pairs, split_pairs
from wembed.transport.parallel import Progress, block_boundaries, check_jobs, solve_blocks
from wembed.transport.store import DistanceStore

__all__ = ["precompute", "stored_split"]


def precompute(
    measures: Measures,
    path: str | Path,
    pairs: "int | str | np.ndarray | Sequence[tuple[int, int]]" = 20_000,
    cost: GroundCost | None = None,
    n_jobs: int = -1,
    seed: int = 0,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    progress: Progress | None = None,
) -> DistanceStore:
    """Solve pairs exactly, in parallel, and keep the distances in a folder.

    Interrupted at any moment, the same call goes on where it stopped and repeats at most the blocks under way, one a
    worker. A finished call again does nothing.

    Args:
        measures: the collection.
        path: the folder of the store.
        pairs: how many pairs, drawn in cliques within the train, validation and test measures; or "all"; or a
            (k, 2) array of your own.
        cost: the ground cost; euclidean W_2 by default.
        n_jobs: processes, or -1 for one a core. `joblib.parallel_config` chooses the backend.
        seed: draws the split and the pairs.
        validation: share of the measures, and of the pairs, for validation.
        test: share of the measures, and of the pairs, for test.
        progress: called with the pairs done and the pairs in all.

    Raises:
        SettingError: pairs outside the measures, too few measures to split, a cost that does not fit them.
        ArtifactError: the folder holds distances of other measures, another cost or other pairs; or the disk is full.
        LockedError: another process is filling this store.
        SolverError: a solution could not be certified; everything solved before is kept.
    """
    cost = cost or GroundCost()
    cost.check(measures)
    check_jobs(n_jobs)
    plan, recipe = _plan(len(measures), pairs, seed, validation, test)
    identity: dict[str, Any] = {
        "measures": measures.fingerprint,
        "count": len(measures),
        "cost": cost.as_dict(),
        "plan": recipe,
        "plan_sha256": plan.digest(),
        "pairs": len(plan),
    }
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise SettingError(f"{path} is a file; give a folder for the distances")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot make the folder {path}: {error.strerror}") from error
    lock = FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(f"another process is filling {path}; wait for it, or give another folder") from error
    try:
        store = _opened(path, identity)
        boundaries = block_boundaries(measures, plan)
        store.mend(boundaries)
        if progress:
            progress(len(store), len(plan))
        if store.complete:
            return store
        for block, distances in solve_blocks(measures, plan, boundaries, store.missing(boundaries), cost, n_jobs):
            start = int(boundaries[block])
            store.add(start, plan.take(start, start + len(distances)), distances)
            if progress:
                progress(len(store), len(plan))
    finally:
        lock.release(force=True)
    return store


def stored_split(store: DistanceStore, seed: int, validation: float = 0.1, test: float = 0.1) -> Split:
    """The split that the pairs of a store were drawn within; a fresh one where the pairs were the user's own."""
    plan = store.manifest["plan"]
    if plan["kind"] == "split":
        return Split.draw(store.manifest["count"], validation=plan["validation"], test=plan["test"], seed=plan["seed"])
    return Split.draw(store.manifest["count"], validation=validation, test=test, seed=seed)


def _plan(count: int, pairs: Any, seed: int, validation: float, test: float) -> tuple[PairPlan, dict[str, Any]]:
    if isinstance(pairs, str):
        if pairs != "all":
            raise SettingError(f"pairs={pairs!r}; give a number, 'all', or a (k, 2) array")
        return PairPlan((all_pairs(np.arange(count)),)), {"kind": "all"}
    if isinstance(pairs, (int, np.integer)):
        if pairs < 1:
            raise SettingError(f"pairs={pairs}; give at least one")
        split = Split.draw(count, validation=validation, test=test, seed=seed)
        recipe = {"kind": "split", "pairs": int(pairs), "seed": int(seed), "validation": validation, "test": test}
        return split_pairs(split, int(pairs), seed), recipe
    return PairPlan((Listed(listed_pairs(pairs, count)),)), {"kind": "listed"}


def _opened(path: Path, identity: dict[str, Any]) -> DistanceStore:
    if not (path / "manifest.json").exists():
        return DistanceStore.create(path, identity)
    store = DistanceStore(path)
    differences = {
        "measures": "other measures",
        "cost": "another ground cost",
        "plan": "other pairs",
        "plan_sha256": "other pairs",
    }
    for key, what in differences.items():
        if store.manifest.get(key) != identity[key]:
            raise ArtifactError(
                f"{path} holds distances of {what} ({key}: {store.manifest.get(key)}, now {identity[key]}); "
                "give another folder, or remove this one"
            )
    return store
