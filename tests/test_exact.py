import itertools
import sys
from typing import NamedTuple

import numpy as np
import ot
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from strategies import collections, generators, known_pairs, norms, orders, scales

from wembed import GroundCost, Measures, SolverError
from wembed.transport import exact
from wembed.transport.exact import distance_1d, solve, solve_pairs


def apart(measures: Measures, cost: GroundCost, i: int = 0, j: int = 1) -> float:
    return float(solve_pairs(measures, np.array([[i, j]]), cost)[0])


def floor(measures: Measures, cost: GroundCost) -> float:
    """What rounding the weights to 53 bits may move: that share of the mass, over the whole extent."""
    return 2 * float(np.ptp(measures.support, axis=0).sum()) * 1e-15 ** (1 / cost.order)


def two_clouds(seed: int = 0, atoms: tuple[int, int] = (30, 40), dim: int = 2) -> Measures:
    rng = np.random.default_rng(seed)
    return Measures.from_point_clouds(
        [rng.normal(size=(n, dim)) + k for k, n in enumerate(atoms)], [rng.random(n) + 0.1 for n in atoms]
    )


def publicly(measures: Measures, matrix: np.ndarray, order: float) -> float:
    """W_p by POT's public call."""
    return float(ot.emd2(measures[0].weights, measures[1].weights, matrix**order, numItermax=10**7)) ** (1 / order)


# ---- second opinions


@given(known_pairs)
def test_closed_forms(known):
    found = apart(known.measures, known.cost)
    assert found == pytest.approx(known.distance, rel=1e-9, abs=floor(known.measures, known.cost))
    assert solve(known.measures, 0, 1, known.cost).distance == pytest.approx(
        known.distance, rel=1e-9, abs=floor(known.measures, known.cost)
    )


@given(collections(2, atoms=30), norms, orders)
def test_pot_s_public_call_agrees(drawn, metric, order):
    measures = drawn.measures
    expected = publicly(measures, cdist(measures[0].support, measures[1].support, metric), order)
    cost = GroundCost(metric, order)
    assert apart(measures, cost) == pytest.approx(expected, rel=1e-9, abs=floor(measures, cost))


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_pot_s_public_call_agrees_on_the_globe(order):
    rng = np.random.default_rng(0)
    points = [np.stack([np.arcsin(rng.uniform(-1, 1, n)), rng.uniform(-np.pi, np.pi, n)], axis=1) for n in (20, 25)]
    measures = Measures.from_point_clouds(points)
    balls = [
        np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
        for lat, lon in (p.T for p in points)
    ]
    arcs = np.arccos(np.clip(balls[0] @ balls[1].T, -1, 1))
    assert apart(measures, GroundCost("great-circle", order)) == pytest.approx(
        publicly(measures, arcs, order), rel=1e-9
    )
    degrees = Measures.from_point_clouds([np.rad2deg(p) for p in points])
    assert np.deg2rad(apart(degrees, GroundCost("great-circle-degrees", order))) == pytest.approx(
        publicly(measures, arcs, order), rel=1e-9
    )


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("order", [1.0, 1.5, 2.0])
def test_pot_s_public_call_agrees_on_a_cost_matrix(dim, order):
    rng = np.random.default_rng(0)
    support = rng.normal(size=(12, dim))
    metric = np.minimum(cdist(support, support), 1.0)  # not the metric of the support
    measures = Measures.from_histograms(rng.random((2, 12)) * (rng.random((2, 12)) < 0.7) + np.eye(2, 12), support)
    rows, columns = (measures.atoms[measures.offsets[k] : measures.offsets[k + 1]] for k in (0, 1))
    expected = publicly(measures, metric[np.ix_(rows, columns)], order)
    assert apart(measures, GroundCost(metric, order)) == pytest.approx(expected, rel=1e-9)
    assert solve(measures, 0, 1, GroundCost(metric, order)).distance == pytest.approx(expected, rel=1e-9)


@given(collections(2, dim=1, atoms=30), norms)
def test_scipy_agrees_on_the_line(drawn, metric):
    measures = drawn.measures
    (x, a), (y, b) = ((m.support[:, 0], m.weights) for m in measures)
    cost = GroundCost(metric, 1)
    assert apart(measures, cost) == pytest.approx(wasserstein_distance(x, y, a, b), rel=1e-9, abs=floor(measures, cost))


@given(collections(2, dim=1), orders)
def test_the_line_and_the_network_simplex_agree(drawn, order):
    line, cost = drawn.measures, GroundCost("euclidean", order)
    plane = Measures.from_flat(line.support @ np.array([[0.6, 0.8]]), line.weights.copy(), line.sizes)
    assert apart(plane, cost) == pytest.approx(apart(line, cost), rel=1e-9, abs=floor(line, cost))


@given(generators(), orders, st.integers(2, 15))
def test_equal_masses_are_an_assignment(rng, order, size):
    x, y = rng.normal(size=(2, size, 3))
    matrix = cdist(x, y) ** order
    expected = matrix[linear_sum_assignment(matrix)].mean() ** (1 / order)
    assert apart(Measures.from_point_clouds([x, y]), GroundCost("euclidean", order)) == pytest.approx(
        expected, rel=1e-9
    )


def test_distances_on_the_line_follow_the_quantiles():
    x, a, y, b = np.array([3.0, 0.0]), np.array([0.25, 0.75]), np.array([5.0, 1.0, 2.0]), np.array([0.5, 0.25, 0.25])
    # Levels 0 to 0.25: 0 to 1; to 0.5: 0 to 2; to 0.75: 0 to 5; to 1: 3 to 5.
    for order, moved in ((1, (1 + 2 + 5 + 2) / 4), (2, (1 + 4 + 25 + 4) / 4), (3, (1 + 8 + 125 + 8) / 4)):
        assert distance_1d(x, a, y, b, float(order)) == pytest.approx(moved ** (1 / order), rel=1e-14)


@given(generators(), st.integers(1, 4))
def test_gaussian_moments_bound_w2_from_below(rng, dim):
    """Gelbrich (1990), Thm 2.1: |m - n|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2) <= W_2^2."""
    x, y = rng.normal(size=(25, dim)) @ rng.normal(size=(dim, dim)), rng.normal(size=(20, dim)) + 1
    left, right = (np.atleast_2d(np.cov(points.T, bias=True)) for points in (x, y))
    values, vectors = np.linalg.eigh(left)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    bures = np.trace(left + right) - 2 * np.sqrt(np.clip(np.linalg.eigvalsh(root @ right @ root), 0, None)).sum()
    bound = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + bures
    assert apart(Measures.from_point_clouds([x, y]), GroundCost()) ** 2 >= bound * (1 - 1e-12)


# ---- axioms


@given(collections(3, atoms=15), norms, orders)
def test_the_distance_is_a_metric(drawn, metric, order):
    measures, cost = drawn.measures, GroundCost(metric, order)
    pairs = np.array(list(itertools.product(range(3), repeat=2)))
    d = solve_pairs(measures, pairs, cost).reshape(3, 3)
    assert np.array_equal(d, d.T)
    assert not d.diagonal().any()
    assert (d >= 0).all()
    for i, j, k in itertools.permutations(range(3)):
        assert d[i, k] <= (d[i, j] + d[j, k]) * (1 + 1e-9) + floor(measures, cost)


@given(collections(1, atoms=30), norms, orders)
def test_equal_measures_are_exactly_0_apart(drawn, metric, order):
    measures = drawn.measures[[0, 0]]
    assert apart(measures, GroundCost(metric, order)) == 0
    assert solve(measures, 0, 1, GroundCost(metric, order)).distance == 0


@given(collections(2), norms, orders)
def test_the_distance_does_not_depend_on_which_measure_comes_first(drawn, metric, order):
    measures, cost = drawn.measures, GroundCost(metric, order)
    assert apart(measures[[1, 0]], cost) == pytest.approx(apart(measures, cost), rel=1e-9, abs=floor(measures, cost))


def test_a_value_does_not_depend_on_what_else_is_solved():
    measures = Measures.concatenate([two_clouds(seed, (6, 9)) for seed in range(4)])
    pairs = np.array(list(itertools.combinations(range(8), 2)))
    together = solve_pairs(measures, pairs, GroundCost())
    alone = [apart(measures, GroundCost(), i, j) for i, j in pairs.tolist()]
    backwards = solve_pairs(measures, pairs[::-1, ::-1].copy(), GroundCost())[::-1]
    assert together.tolist() == alone == backwards.tolist()


# ---- equivariance


@pytest.mark.parametrize("metric", ["euclidean", "cityblock", "chebyshev"])
@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_distance_scales_with_the_points(metric, order, dim):
    measures, cost = two_clouds(dim=dim), GroundCost(metric, order)
    expected = apart(measures, cost)
    for scale in 10.0 ** np.array([-300, -150, -12, -6, -3, 3, 6, 12, 150, 300]):
        scaled = Measures(measures.offsets, measures.support * scale, measures.weights)
        assert apart(scaled, cost) == pytest.approx(scale * expected, rel=1e-9, abs=0)


@given(collections(2), norms, orders, scales)
def test_any_measures_scale_with_their_points(drawn, metric, order, scale):
    measures, cost = drawn.measures, GroundCost(metric, order)
    scaled = Measures(measures.offsets, measures.support * scale, measures.weights)
    expected = scale * apart(measures, cost)
    assert apart(scaled, cost) == pytest.approx(expected, rel=1e-9, abs=scale * floor(measures, cost))


@given(generators(), norms, orders, st.integers(1, 3))
def test_moving_everything_changes_nothing(rng, metric, order, dim):
    measures, cost = two_clouds(1, (8, 9), dim), GroundCost(metric, order)
    moved = Measures(measures.offsets, measures.support + 100 * rng.normal(size=dim), measures.weights)
    assert apart(moved, cost) == pytest.approx(apart(measures, cost), rel=1e-9)


def test_points_at_the_ends_of_the_floats_get_a_finite_distance_or_an_error():
    for dim in (1, 2):
        points = 1.7e308 * np.ones((1, dim))
        measures = Measures.from_point_clouds([points, -points])  # 3.4e308 apart: no float
        with np.errstate(all="ignore"), pytest.raises(SolverError):
            apart(measures, GroundCost())


# ---- the measure, not its arrays


def reordered(points, weights, rng):
    order = rng.permutation(len(points))
    return points[order], weights[order]


def split(points, weights, rng):
    share = rng.random(len(weights))
    return np.concatenate([points, points]), np.concatenate([share * weights, (1 - share) * weights])


def padded(points, weights, rng):
    return np.concatenate([rng.normal(size=points.shape), points]), np.concatenate([0 * weights, weights])


def heavier(points, weights, rng):
    return points, weights * rng.lognormal(0, 20)


@pytest.mark.parametrize("same_measure", [reordered, split, padded, heavier])
@given(collections(2), generators(), norms, orders)
def test_the_distance_depends_on_the_measure_alone(same_measure, drawn, rng, metric, order):
    (points, weights), other = drawn.clouds
    cost = GroundCost(metric, order)
    changed = Measures.from_point_clouds(*zip(same_measure(points, weights, rng), other, strict=True))
    expected = apart(drawn.measures, cost)
    assume(expected > 0)  # for measures that are the same see below
    assert apart(changed, cost) == pytest.approx(expected, rel=1e-9, abs=floor(drawn.measures, cost))


@pytest.mark.parametrize("same_measure", [reordered, split, padded, heavier])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_same_measure_written_in_another_way_is_0_apart(same_measure, dim):
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(20, dim)), rng.random(20)
    measures = Measures.from_point_clouds(*zip((points, weights), same_measure(points, weights, rng), strict=True))
    for order in (1.0, 2.0):
        assert apart(measures, GroundCost("euclidean", order)) <= floor(measures, GroundCost("euclidean", order))


# ---- the coupling


@given(collections(2, atoms=20), norms, orders)
def test_the_coupling_moves_each_measure_onto_the_other_at_the_cost_it_says(drawn, metric, order):
    measures, cost = drawn.measures, GroundCost(metric, order)
    found = solve(measures, 0, 1, cost)
    (x, a), (y, b) = ((m.support, m.weights) for m in measures)
    assert (found.coupling >= 0).all()
    np.testing.assert_allclose(found.coupling.sum(axis=1), a, atol=1e-12)
    np.testing.assert_allclose(found.coupling.sum(axis=0), b, atol=1e-12)
    paid = (found.coupling * cdist(x, y, metric) ** order).sum() ** (1 / order)
    assert paid == pytest.approx(found.distance, rel=1e-9, abs=floor(measures, cost))
    assert 0 <= found.gap <= 1e-9


@given(collections(2), norms, orders)
def test_a_solution_with_its_coupling_has_the_distance_of_one_without(drawn, metric, order):
    measures, cost = drawn.measures, GroundCost(metric, order)
    assert solve(measures, 0, 1, cost).distance == pytest.approx(
        apart(measures, cost), rel=1e-9, abs=floor(measures, cost)
    )


# ---- no wrong number, whatever the measures


def certified_or_refused(measures: Measures, cost: GroundCost, expected: float) -> None:
    """Right to six digits, or an error; a distance that is nothing beside the extent may come out as another such."""
    try:
        found = apart(measures, cost)
    except SolverError:
        return
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-7 * float(np.ptp(measures.support, axis=0).max()))


@pytest.mark.parametrize("order", [2.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0])
def test_a_high_order_gives_the_distance_or_an_error(order):
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y, a, b = rng.normal(size=20), rng.normal(size=25) + 0.5, rng.random(20), rng.random(25)
        line = Measures.from_point_clouds([x, y], [a, b])
        plane = Measures.from_point_clouds([np.outer(x, [0.6, 0.8]), np.outer(y, [0.6, 0.8])], [a, b])
        certified_or_refused(plane, GroundCost("euclidean", order), apart(line, GroundCost("euclidean", order)))


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, 4.0, 20.0, 50.0])
@pytest.mark.parametrize("far", [0, 1e2, 1e4, 1e6])
def test_masses_that_sum_to_the_same_on_the_line_send_no_sliver_across_it(order, far):
    x = np.concatenate([np.linspace(0, 1, 7), far + np.linspace(0, 1, 7)])
    measures = Measures.from_point_clouds([x, np.repeat(x + 0.01, 3)])  # 14 / 14 is 42 / 42, but not to the last bit
    certified_or_refused(measures, GroundCost("euclidean", order), 0.01)


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("far", [1e2, 1e4, 1e6, 1e8])
def test_an_atom_far_away_that_both_share_does_not_spoil_the_distance_of_the_rest(order, far):
    rng = np.random.default_rng(0)
    x, y, outlier = rng.normal(size=(20, 2)), rng.normal(size=(20, 2)) + 0.5, np.array([[far, 0]])
    near = Measures.from_point_clouds([x, y])
    both = Measures.from_point_clouds([np.concatenate([x, outlier]), np.concatenate([y, outlier])])
    cost = GroundCost("euclidean", order)
    certified_or_refused(both, cost, apart(near, cost) * (20 / 21) ** (1 / order))


@given(generators(), orders)
def test_tiny_weights_give_the_distance(rng, order):
    points, rest = rng.normal(size=(2, 6, 2)), rng.random(5)
    tiny = 10.0 ** rng.uniform(-18, -6)
    measures = Measures.from_point_clouds(list(points), [np.append(rest, tiny), np.append(tiny, rest)])
    expected = publicly(measures, cdist(*points), order)
    assert apart(measures, GroundCost("euclidean", order)) == pytest.approx(expected, rel=1e-6)


# ---- no wrong number, whatever the solver


@pytest.fixture
def solver_cache():
    exact.simplex_solver.cache_clear()
    yield
    exact.simplex_solver.cache_clear()


class Answer(NamedTuple):
    value: float
    u: np.ndarray
    v: np.ndarray
    coupling: np.ndarray
    optimal: bool


def outer(answer, a, b, cost):
    return answer._replace(coupling=np.outer(a, b))


def outer_and_its_value(answer, a, b, cost):
    return answer._replace(coupling=np.outer(a, b), value=float(a @ cost @ b))


def turns(a, b):
    """Masses to add to a coupling that leave its marginals alone: one more here and there, one less across."""
    for i, j in itertools.product(range(1, len(a)), range(1, len(b))):
        turn = np.zeros((len(a), len(b)))
        turn[0, 0] = turn[i, j] = 0.1
        turn[0, j] = turn[i, 0] = -0.1
        yield turn


def negative_mass_at_less_cost(answer, a, b, cost):
    turn = max(turns(a, b), key=lambda turn: abs((turn * cost).sum()))
    coupling = answer.coupling - np.sign((turn * cost).sum()) * turn
    assert coupling.min() < 0
    return answer._replace(value=float((coupling * cost).sum()), coupling=coupling)


def negative_mass_at_the_same_cost(answer, a, b, cost):
    one, other, *_ = turns(a, b)
    coupling = answer.coupling + one - (one * cost).sum() / (other * cost).sum() * other
    assert coupling.min() < 0
    return answer._replace(coupling=coupling)


def misplaced_mass_at_the_same_cost(answer, a, b, cost):
    (i, j), (k, m), *_ = np.argwhere(answer.coupling > 1e-3)
    coupling, moved = answer.coupling.copy(), 1e-4
    coupling[i, j] += moved * cost[k, m]
    coupling[k, m] -= moved * cost[i, j]
    return answer._replace(coupling=coupling)


LIES = {
    "a value too high": lambda answer, *_: answer._replace(value=answer.value * 1.01),
    "a value a little too high": lambda answer, *_: answer._replace(value=answer.value + 1e-6),
    "a value too low": lambda answer, *_: answer._replace(value=answer.value * 0.99),
    "a value of 0": lambda answer, *_: answer._replace(value=0.0),
    "a negative value": lambda answer, *_: answer._replace(value=-answer.value),
    "a value that is NaN": lambda answer, *_: answer._replace(value=np.nan),
    "an infinite value": lambda answer, *_: answer._replace(value=np.inf),
    "a value of minus infinity": lambda answer, *_: answer._replace(value=-np.inf),
    "a status that is no optimum": lambda answer, *_: answer._replace(optimal=False),
    "potentials of zero": lambda answer, *_: answer._replace(u=0 * answer.u),
    "potentials turned round": lambda answer, *_: answer._replace(u=-answer.u),
    "one potential off": lambda answer, *_: answer._replace(u=answer.u + 0.1 * np.eye(len(answer.u))[0]),
    "a potential that is NaN": lambda answer, *_: answer._replace(u=answer.u + np.nan * np.eye(len(answer.u))[0]),
    "an infinite potential": lambda answer, *_: answer._replace(
        u=np.where(np.arange(len(answer.u)) == 0, np.inf, answer.u)
    ),
    "zero for everything": lambda answer, *_: answer._replace(value=0.0, u=0 * answer.u, v=0 * answer.v),
    "no coupling": lambda answer, *_: answer._replace(coupling=0 * answer.coupling),
    "a coupling that is NaN": lambda answer, *_: answer._replace(coupling=answer.coupling * np.nan),
    "a coupling of half the mass": lambda answer, *_: answer._replace(coupling=answer.coupling / 2),
    "a coupling with its rows turned round": lambda answer, *_: answer._replace(coupling=answer.coupling[::-1].copy()),
    "a coupling with its columns turned round": lambda answer, *_: answer._replace(
        coupling=answer.coupling[:, ::-1].copy()
    ),
    "a coupling that is not optimal": outer,
    "a coupling that is not optimal, and its value": outer_and_its_value,
    "a coupling of negative mass at less cost, and its value": negative_mass_at_less_cost,
    "a coupling of negative mass at the same cost": negative_mass_at_the_same_cost,
    "a coupling of misplaced mass at the same cost": misplaced_mass_at_the_same_cost,
}

# The value is right all the same, and proven so by the potentials; `solve`, which hands out the coupling, refuses it.
HARMLESS_FOR_THE_DISTANCE = {"a coupling that is not optimal", "a coupling of negative mass at the same cost"}


@pytest.fixture
def lying_solver(monkeypatch):
    def install(lie):
        honest = exact.public_solver()
        monkeypatch.setattr(
            exact, "simplex_solver", lambda: lambda a, b, cost: tuple(lie(Answer(*honest(a, b, cost)), a, b, cost))
        )

    return install


@pytest.mark.parametrize("lie", LIES)
def test_a_solver_that_lies_gives_no_number_but_an_error_that_names_the_pair(lying_solver, lie):
    measures = Measures.concatenate([two_clouds(seed, (7, 7)) for seed in range(2)])
    lying_solver(LIES[lie])
    named = r"measures (1 and 3|3 and 1)"
    if lie not in HARMLESS_FOR_THE_DISTANCE:
        with np.errstate(all="ignore"), pytest.raises(SolverError, match=named):
            solve_pairs(measures, np.array([[3, 1]]), GroundCost())
    with np.errstate(all="ignore"), pytest.raises(SolverError, match=named):
        solve(measures, 3, 1, GroundCost())


def test_a_solver_that_tells_the_truth_is_believed(lying_solver):
    measures = two_clouds()
    expected = apart(measures, GroundCost())
    lying_solver(lambda answer, *_: answer)
    assert apart(measures, GroundCost()) == pytest.approx(expected, rel=1e-12)
    lying_solver(lambda answer, *_: answer._replace(u=answer.u + 1000, v=answer.v - 1000))  # as good potentials
    assert apart(measures, GroundCost()) == pytest.approx(expected, rel=1e-12)


def test_a_solver_at_its_iteration_cap_gives_an_error(monkeypatch, solver_cache):
    monkeypatch.setattr(exact, "_MAX_ITERATIONS", 3)
    with pytest.raises(SolverError, match="stopped before the optimum"):
        apart(two_clouds(), GroundCost())


@pytest.mark.parametrize("seed", range(5))
def test_the_private_entry_point_and_the_public_call_agree(seed):
    compiled, public = exact._compiled_solver(), exact.public_solver()
    assert compiled is not None
    measures = two_clouds(seed)
    (x, a), (y, b) = ((m.support, m.weights) for m in measures)
    matrix, _ = GroundCost().powers(x, y)
    value, u, v, coupling, optimal = compiled(a, b, matrix)
    other, other_u, other_v, other_coupling, other_optimal = public(a, b, matrix)
    assert optimal
    assert other_optimal
    assert value == pytest.approx(other, rel=1e-12)
    np.testing.assert_allclose(coupling, other_coupling, atol=1e-12)
    np.testing.assert_allclose(u[:, None] + v, other_u[:, None] + other_v, atol=1e-9)


def test_the_private_entry_point_is_the_one_in_use(monkeypatch, solver_cache):
    monkeypatch.setattr(exact, "public_solver", lambda: pytest.fail("the slow call was taken"))
    assert apart(two_clouds(), GroundCost()) > 0


def swapped(a, b, cost, iterations, threads):
    value, coupling, u, v, status = 0.25, np.array([[0.25, 0.0], [0.25, 0.5]]), np.zeros(2), np.zeros(2), 1
    return value, coupling, u, v, status


def raises(error):
    def emd_c(a, b, cost, iterations, threads):
        raise error

    return emd_c


CHANGED = {
    "fewer arguments": lambda a, b, cost: None,
    "more arguments": lambda a, b, cost, iterations, threads, tolerance: None,
    "nothing returned": lambda *_: None,
    "fewer results": lambda *_: (np.eye(2), 0.25),
    "more results": lambda *_: (np.eye(2), 0.25, np.zeros(2), np.zeros(2), 1, "log"),
    "results in another order": swapped,
    "a record returned": lambda *_: {"coupling": np.eye(2), "cost": 0.25, "u": [0, 0], "v": [0, 0], "status": 1},
    "lists for potentials": lambda *_: ([[0.25, 0.0], [0.25, 0.5]], 0.25, [0.0, 1.0], [0.0, 0.0], 1),
    "no potentials": lambda *_: ([[0.25, 0.0], [0.25, 0.5]], 0.25, None, None, 1),
    "another status for an optimum": lambda *_: (np.array([[0.25, 0], [0.25, 0.5]]), 0.25, np.zeros(2), np.zeros(2), 0),
    "another value": lambda *_: (np.array([[0.25, 0], [0.25, 0.5]]), 0.5, np.zeros(2), np.zeros(2), 1),
    "another coupling": lambda *_: (np.eye(2) / 2, 0.25, np.zeros(2), np.zeros(2), 1),
    "a coupling of another shape": lambda *_: (np.ones(3), 0.25, np.zeros(2), np.zeros(2), 1),
    "a refusal of the types": raises(TypeError("expected float32")),
    "a refusal of the values": raises(ValueError("buffer dtype mismatch")),
    "a deprecation": raises(AttributeError("emd_c has moved")),
    "not written yet": raises(NotImplementedError()),
    "a failure": raises(RuntimeError("emd_c takes a struct now")),
}


@pytest.mark.parametrize("change", [*CHANGED, "gone", "gone with its module"])
def test_a_private_entry_point_that_has_changed_is_left_for_the_public_call(monkeypatch, solver_cache, change):
    import ot.lp.emd_wrap

    measures = two_clouds()
    expected = apart(measures, GroundCost())
    exact.simplex_solver.cache_clear()
    public, used = exact.public_solver(), []
    monkeypatch.setattr(exact, "public_solver", lambda: lambda *problem: used.append(1) or public(*problem))
    if change == "gone":
        monkeypatch.delattr(ot.lp.emd_wrap, "emd_c")
    elif change == "gone with its module":
        monkeypatch.setitem(sys.modules, "ot.lp.emd_wrap", None)
    else:
        monkeypatch.setattr(ot.lp.emd_wrap, "emd_c", CHANGED[change])
    assert apart(measures, GroundCost()) == pytest.approx(expected, rel=1e-12)
    assert used


def test_an_unsolvable_pair_is_named_among_many(monkeypatch):
    measures = Measures.concatenate([two_clouds(seed, (5, 6)) for seed in range(3)])
    honest = exact.simplex_solver()

    def fails_on_six(a, b, cost):
        value, u, v, coupling, optimal = honest(a, b, cost)
        return value, u, v, coupling, optimal and len(b) != 6

    monkeypatch.setattr(exact, "simplex_solver", lambda: fails_on_six)
    with pytest.raises(SolverError, match="measures 2 and 5") as caught:
        solve_pairs(measures, np.array([[0, 2], [2, 4], [5, 2], [1, 3]]), GroundCost())
    assert "stopped before the optimum" in str(caught.value)


def test_a_shuffle_is_a_fixed_permutation():
    for count in (1, 2, 17):
        assert sorted(exact.shuffled(count).tolist()) == list(range(count))
        assert exact.shuffled(count).tolist() == np.random.default_rng(count).permutation(count).tolist()


@given(generators())
def test_massless_pixels_change_nothing(rng):
    images = rng.integers(0, 3, (2, 4, 4))
    assume(images.any(axis=(1, 2)).all())
    framed = np.pad(images, ((0, 0), (2, 3), (1, 2)))
    assert apart(Measures.from_images(framed), GroundCost()) == apart(Measures.from_images(images), GroundCost())
