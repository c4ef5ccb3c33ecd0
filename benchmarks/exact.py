"""How much of POT's compiled solver is left when wembed calls it, on one core and on two?"""

import os

os.environ["POT_BACKEND_DISABLE_PYTORCH"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # a core is one thread, that of the linear algebra included

from functools import partial

import numpy as np
import ot
from common import alternate, arguments, record, spread
from ot.lp.emd_wrap import emd_c
from scipy.spatial.distance import cdist

from wembed import GroundCost, Measures, exact_distances
from wembed.readers import digits
from wembed.transport.exact import _assigned, _certified, shuffled, solve_pairs
from wembed.transport.pairs import clique_pairs

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def problems(measures: Measures, pairs: np.ndarray, cost: GroundCost, *, shuffle: bool) -> list[Problem]:
    """Weights and costs of each pair; the atoms in raster order, or in the order in which wembed hands them over."""
    made = []
    for i, j in pairs.tolist():
        source, target = measures[i], measures[j]
        rows, columns = (shuffled(len(m.weights)) if shuffle else np.arange(len(m.weights)) for m in (source, target))
        matrix, _ = cost.powers(source.support[rows], target.support[columns])
        made.append((source.weights[rows], target.weights[columns], matrix))
    return made


def bare(prepared: list[Problem]) -> list[float]:
    return [emd_c(a, b, matrix, 1_000_000_000, 1)[1] for a, b, matrix in prepared]


def as_users_call(measures: Measures, pairs: np.ndarray) -> np.ndarray:
    """ot.emd2 on the non-zero pixels, in raster order."""
    values = []
    for i, j in pairs.tolist():
        source, target = measures[i], measures[j]
        values.append(ot.emd2(source.weights, target.weights, ot.dist(source.support, target.support)))
    return np.asarray(np.sqrt(np.array(values)))


def by_assignment(runs: int) -> dict[str, dict[str, float]]:
    """How many times as fast as the _certified simplex an assignment is, for equal masses in three situations."""
    rng = np.random.default_rng(1)
    ratios: dict[str, dict[str, float]] = {}
    for atoms in (8, 64, 256):
        same = np.full(atoms, 1 / atoms)
        for name, dim, shift in (("alike", 2, 0.0), ("apart", 2, 1.0), ("in 10 dimensions", 10, 0.0)):
            costs = [
                cdist(rng.normal(size=(atoms, dim)), rng.normal(size=(atoms, dim)) + shift, "sqeuclidean")
                for _ in range(max(2, 2_000 // atoms))
            ]
            simplex, assigned = alternate(
                runs,
                partial(lambda costs, same: [_certified(same, same, c.copy(), 2.0) for c in costs], costs, same),
                partial(lambda costs: [_assigned(c) for c in costs], costs),
            )
            ratios[f"{atoms} atoms, {name}"] = spread([a / b for a, b in zip(simplex, assigned, strict=True)])
    return ratios


def main() -> None:
    chosen = arguments(__doc__ or "")
    measures, _ = digits()
    cost = GroundCost()
    rng = np.random.default_rng(0)
    count, runs = (60, 1) if chosen.smoke else (2_000, 7)
    plan = clique_pairs(np.arange(len(measures)), count, rng)
    pairs = plan.take(0, len(plan))
    few = pairs[:84]  # short turns: what slows the machine for a second then slows all alike
    prepared = problems(measures, few, cost, shuffle=True)
    in_raster_order = problems(measures, few, cost, shuffle=False)
    on_two = exact_distances(measures, pairs, cost, n_jobs=2)
    by_users = as_users_call(measures, few)
    one, raw, raster, users = alternate(
        8 * runs,
        partial(solve_pairs, measures, few, cost),
        partial(bare, prepared),
        partial(bare, in_raster_order),
        partial(as_users_call, measures, few),
    )
    two, alone = alternate(
        runs, partial(exact_distances, measures, pairs, cost, 2), partial(solve_pairs, measures, pairs, cost)
    )
    record(
        "exact",
        __doc__ or "",
        {
            "pairs": len(pairs),
            "atoms_mean": float(measures.sizes.mean()),
            "solves_per_second": {
                "wembed, one core": len(few) / np.median(one),
                "bare compiled solver, wembed's order of atoms, one core": len(few) / np.median(raw),
                "bare compiled solver, raster order, one core": len(few) / np.median(raster),
                "ot.emd2 as users call it, one core": len(few) / np.median(users),
                "wembed, one core, more pairs": len(pairs) / np.median(alone),
                "wembed, two cores, the same pairs": len(pairs) / np.median(two),
            },
            "wembed_over_bare_same_order": spread([b / a for a, b in zip(one, raw, strict=True)]),
            "wembed_over_bare_raster_order": spread([b / a for a, b in zip(one, raster, strict=True)]),
            "wembed_over_emd2": spread([b / a for a, b in zip(one, users, strict=True)]),
            "two_cores_over_one": spread([b / a for a, b in zip(two, alone, strict=True)]),
            "assignment_over_simplex": by_assignment(runs),
            "largest_relative_difference_from_emd2": float(np.abs(on_two[: len(few)] / by_users - 1).max()),
        },
        smoke=chosen.smoke,
    )


if __name__ == "__main__":
    main()
