"""Fill a store with exact distances: the only place where solving and saving meet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from wembed.errors import ArtifactError, LockedError, SettingError
from wembed.measures import Measures
from wembed.options import whole
from wembed.transport.costs import GroundCost
from wembed.transport.pairs import DRAWS, Listed, PairPlan, Split, all_pairs, listed_pairs, split_pairs
from wembed.transport.parallel import Progress, block_boundaries, check_jobs, solve_blocks
from wembed.transport.store import DistanceStore

__all__ = ["precompute", "stored_settings", "stored_split"]


def precompute(
    measures: Measures,
    path: str | Path,
    pairs: "int | str | np.ndarray | Sequence[tuple[int, int]]" = 20_000,
    cost: GroundCost | None = None,
    n_jobs: int = -1,
    seed: int = 0,
    *,
    draw: str = "cliques",
    validation: float = 0.1,
    test: float = 0.1,
    calibration: float = 0.05,
    progress: Progress | None = None,
) -> DistanceStore:
    """Solve pairs exactly, in parallel, and keep the distances in a folder.

    Interrupted at any moment, the same call goes on where it stopped and repeats at most the blocks under way, one a
    worker. A finished call again does nothing. The same call with more pairs adds to those that are there; with
    fewer it leaves them as they are.

    Args:
        measures: the collection.
        path: the folder of the store.
        pairs: how many pairs, drawn within the parts of the split of measures, equal measures counting as one; or
            "all"; or a (k, 2) array of your own.
        cost: the ground cost; euclidean W_2 by default.
        n_jobs: processes, or -1 for one a core. `joblib.parallel_config` chooses the backend.
        seed: draws the split and the pairs.
        draw: "cliques" of eight measures, from which an encoder learns faster; or "random", each pair by itself.
        validation: share of the measures, and of the pairs, for validation.
        test: share of the measures, and of the pairs, for test.
        calibration: share of the measures that intervals are calibrated on, as in `Split.draw`; 0 for none.
        progress: called with the pairs done and the pairs in all.

    Raises:
        SettingError: pairs outside the measures, too few measures to split, a cost that does not fit them.
        ArtifactError: the folder holds distances of other measures, another cost or other pairs; or the disk is full.
        LockedError: another process is filling this store.
        SolverError: a solution could not be certified; everything solved before is kept.
    """
    cost = GroundCost.given(cost)
    cost.check(measures)
    check_jobs(n_jobs)
    path = Path(path)
    found = DistanceStore(path) if (path / "_manifest.json").exists() else None
    rounds, recipe = _plan(measures, pairs, draw, seed, (validation, test, calibration), found)
    plan = _joined(rounds)
    identity: dict[str, Any] = {
        "measures": measures.fingerprint,
        "count": len(measures),
        "cost": cost.as_dict(),
        "plan": recipe,
        "plan_sha256": plan.digest(),
        "pairs": len(plan),
    }
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
        store = _opened(path, identity, _joined(rounds[:-1]).digest())
        boundaries = None if store.complete and not store.absent() else _boundaries(measures, rounds)
        try:
            if boundaries is not None:
                store.mend(boundaries)
            store.clean()
        except OSError as error:
            raise ArtifactError(f"could not write {error.filename or path}: {error.strerror}") from error
        if progress:
            progress(len(store), len(plan))
        if boundaries is None:
            return store
        for block, distances in solve_blocks(measures, plan, boundaries, store.missing(boundaries), cost, n_jobs):
            start = int(boundaries[block])
            store.add(start, plan.take(start, start + len(distances)), distances)
            if progress:
                progress(len(store), len(plan))
    finally:
        lock.release(force=True)
    return store


def stored_split(
    store: DistanceStore,
    measures: Measures,
    seed: int,
    validation: float = 0.1,
    test: float = 0.1,
    calibration: float = 0.05,
) -> Split:
    """The split that the pairs of a store were drawn within; a fresh one where the pairs were the user's own."""
    shares: dict[str, Any] = {"validation": validation, "test": test, "calibration": calibration, "seed": seed}
    plan = store.manifest["plan"]
    if plan["kind"] == "split":
        shares = {name: plan[name] for name in shares}
    return Split.of(measures, **shares)


def stored_settings(path: str | Path) -> dict[str, Any] | None:
    """What `precompute` was given for the pairs that a folder holds; None where it holds none."""
    if not (Path(path) / "_manifest.json").exists():
        return None
    store = DistanceStore(path)
    plan = dict(store.manifest["plan"])
    match plan.pop("kind"):
        case "split":
            rounds = plan.pop("rounds")
            return {**plan, "pairs": sum(rounds)}
        case "all":
            return {"pairs": "all"}
        case _ if store.complete:
            return {"pairs": store.pairs}
    raise ArtifactError(f"{path} lacks some of the pairs that it was given; run the same precompute again")


def _plan(
    measures: Measures,
    pairs: Any,
    draw: str,
    seed: int,
    shares: tuple[float, float, float],
    found: DistanceStore | None,
) -> tuple[list[PairPlan], dict[str, Any]]:
    """The pairs in rounds, each added to a store that held those before, and the recipe that makes them again."""
    if draw not in DRAWS:
        raise SettingError(f"draw={draw!r}; choose one of {', '.join(DRAWS)}")
    if isinstance(pairs, str):
        if pairs != "all":
            raise SettingError(f"pairs={pairs!r}; give a number, 'all', or a (k, 2) array")
        return [PairPlan((all_pairs(np.arange(len(measures))),))], {"kind": "all"}
    if not isinstance(pairs, (int, np.integer)):
        return [PairPlan((Listed(listed_pairs(pairs, len(measures))),))], {"kind": "listed"}
    whole("pairs", pairs, 1)
    of_measures: dict[str, Any] = dict(zip(("validation", "test", "calibration"), shares, strict=True))
    split = Split.of(measures, **of_measures, seed=seed)
    recipe = {"kind": "split", "draw": draw, "seed": int(seed), **of_measures}
    sizes = [int(pairs)]
    stored = {} if found is None else found.manifest.get("plan", {})
    before = stored.get("rounds", [])
    if before and stored == {**recipe, "rounds": before}:
        sizes = [*before, int(pairs) - sum(before)] if sum(before) < pairs else before
    rounds: list[PairPlan] = []
    for size in sizes:
        rounds.append(split_pairs(split, size, seed, draw, rounds))
    return rounds, recipe | {"rounds": sizes}


def _joined(rounds: list[PairPlan]) -> PairPlan:
    return PairPlan(tuple(segment for round_ in rounds for segment in round_.segments))


def _boundaries(measures: Measures, rounds: list[PairPlan]) -> np.ndarray:
    """Blocks never cross rounds, so that those of the earlier rounds stay where they were."""
    starts = np.cumsum([0, *map(len, rounds)])
    cuts = [block_boundaries(measures, round_) + start for round_, start in zip(rounds, starts, strict=False)]
    return np.unique(np.concatenate(cuts))


def _opened(path: Path, identity: dict[str, Any], earlier: str) -> DistanceStore:
    """The store in the folder, made where there is none, and told of the pairs to add where it holds those before."""
    if not (path / "_manifest.json").exists():
        if foreign := next(path.glob("shard-*.parquet"), None):
            raise ArtifactError(f"{foreign} is there without a _manifest.json; give another folder, or remove it")
        return DistanceStore.create(path, identity)
    store = DistanceStore(path)
    grows = store.manifest.get("plan_sha256") == earlier
    for key, what in (
        ("measures", "other measures"),
        ("cost", "another ground cost"),
        ("plan", "other pairs"),
        ("plan_sha256", "other pairs"),
    ):
        if store.manifest.get(key) != identity[key] and not (grows and key.startswith("plan")):
            raise ArtifactError(
                f"{path} holds distances of {what} than those asked for; give another folder, or remove this one"
            )
    if grows:
        store.grow(identity)
    return store
