"""Bounds hold for every metric and order, and are what they are known to be in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wembed
from wembed import GroundCost, Measures, SettingError, bounds, exact_distances
from wembed.transport.bounds import Sketcher

METRICS = ("euclidean", "cityblock", "chebyshev", "great-circle", "great-circle-degrees", "matrix")


def random_measures(metric: str, count: int, dim: int, seed: int) -> tuple[Measures, "str | np.ndarray"]:
    rng = np.random.default_rng(seed)
    if metric == "matrix":
        points = rng.normal(size=(15, 2))
        weights = rng.random((count, 15)) * (rng.random((count, 15)) < 0.5) + 1e-3
        between = np.linalg.norm(points[:, None] - points, axis=2) ** 0.7  # a metric that no space has
        return Measures.from_histograms(weights, np.arange(15)), between
    if metric.startswith("great-circle"):
        half = np.array([90.0, 180.0]) * (1 if metric.endswith("degrees") else np.pi / 180)
        clouds = [rng.uniform(-1, 1, (rng.integers(1, 12), 2)) * half for _ in range(count)]
    else:
        clouds = [
            rng.normal(size=(rng.integers(1, 12), dim)) * rng.uniform(0, 2, dim) + rng.normal(size=dim)
            for _ in range(count)
        ]
    return Measures.from_point_clouds(clouds, [rng.uniform(0.01, 1, len(cloud)) for cloud in clouds]), metric


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=12, deadline=None)
@given(
    order=st.sampled_from([1, 1.5, 2, 2.5, 4]),
    dim=st.sampled_from([1, 2, 3, 40]),
    references=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_exact_distance_lies_between(metric: str, order: float, dim: int, references: int, seed: int) -> None:
    measures, own = random_measures(metric, 9, dim, seed)
    pairs, cost = np.stack(np.triu_indices(9), axis=1), GroundCost(own, order)
    exact = exact_distances(measures, pairs, cost, n_jobs=1)
    found = bounds(measures, pairs, cost, references=references, n_jobs=1, seed=seed)
    slack = 1e-9 * max(1.0, float(exact.max()))
    assert (found.lower <= exact + slack).all()
    assert (exact <= found.upper + slack).all()
    assert (found.lower <= found.upper).all()


def test_bounds_of_real_digits_are_near() -> None:
    measures, _ = wembed.readers.digits()
    pairs = np.stack(np.triu_indices(60, 1), axis=1)
    found, exact = bounds(measures[:60], pairs, n_jobs=1), exact_distances(measures[:60], pairs, n_jobs=1)
    assert np.median(found.lower / exact) > 0.84
    assert np.median(found.upper / exact) < 1.07
    assert np.median(found.upper / found.lower) < 1.3


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("metric", ["euclidean", "cityblock", "chebyshev"])
def test_a_measure_that_was_moved_is_as_far_as_it_was_moved(metric: str, order: float) -> None:
    rng = np.random.default_rng(0)
    cloud, shift = rng.normal(size=(20, 3)), np.array([4.0, 0.0, 0.0])
    measures = Measures.from_point_clouds([cloud, cloud + shift])
    found = bounds(measures, [(0, 1)], GroundCost(metric, order), n_jobs=1)
    assert found.lower[0] == pytest.approx(4.0, rel=1e-6)
    assert found.upper[0] >= 4.0 * (1 - 1e-12)


def test_gaussians_are_as_far_as_their_covariances_tell() -> None:
    rng = np.random.default_rng(1)
    cloud = rng.normal(size=(60, 5))
    stretched = cloud * np.array([3, 1, 1, 0.5, 1])
    measures = Measures.from_point_clouds([cloud, stretched])
    exact = exact_distances(measures, [(0, 1)], n_jobs=1)
    assert bounds(measures, [(0, 1)], n_jobs=1).lower == pytest.approx(exact, rel=1e-2)


def test_scaling_the_points_scales_the_bounds() -> None:
    measures, _ = random_measures("euclidean", 8, 2, 5)
    pairs = np.stack(np.triu_indices(8, 1), axis=1)
    found = bounds(measures, pairs, n_jobs=1)
    for factor in (1e-120, 1e-9, 1e9, 1e120):
        scaled = Measures(measures.offsets, measures.support * factor, measures.weights)
        again = bounds(scaled, pairs, n_jobs=1)
        np.testing.assert_allclose(again.lower, found.lower * factor, rtol=1e-6)
        np.testing.assert_allclose(again.upper, found.upper * factor, rtol=1e-6)


def test_bounds_do_not_depend_on_the_number_of_workers() -> None:
    measures, _ = wembed.readers.digits()
    pairs = np.stack(np.triu_indices(130, 1), axis=1)[::7]
    alone, together = (bounds(measures[:130], pairs, n_jobs=jobs) for jobs in (1, 2))
    np.testing.assert_array_equal(alone.lower, together.lower)
    np.testing.assert_array_equal(alone.upper, together.upper)


def test_more_references_only_tighten() -> None:
    measures, _ = wembed.readers.digits()
    measures, pairs = measures[:40], np.stack(np.triu_indices(40, 1), axis=1)
    medians = [np.median(bounds(measures, pairs, references=count, n_jobs=1).upper) for count in (1, 4, 12)]
    assert medians == sorted(medians, reverse=True)


@pytest.mark.parametrize("metric", ["euclidean", "matrix"])
def test_a_sketcher_comes_back_as_it_was(metric: str) -> None:
    measures, own = random_measures(metric, 12, 2, 3)
    cost, every = GroundCost(own, 2), np.arange(6)
    kept = Sketcher.build(measures, cost, 3)
    again = Sketcher.restored(cost, kept.arrays())
    for one in ("lower", "upper"):
        found = [getattr(s, one)(s(measures), s(measures), every, every + 6) for s in (kept, again)]
        np.testing.assert_array_equal(*found)


def test_a_measure_and_itself_are_at_distance_zero() -> None:
    measures, _ = random_measures("euclidean", 3, 2, 0)
    found = bounds(measures, [(1, 1), (0, 2)], n_jobs=1)
    assert (found.lower[0], found.upper[0]) == (0, 0)
    assert found.upper[1] > 0
    assert len(bounds(measures, np.empty((0, 2), dtype=int)).lower) == 0


def test_a_matrix_without_the_triangle_inequality_has_no_bounds() -> None:
    matrix = np.array([[0, 1, 9], [1, 0, 1], [9, 1, 0.0]])
    measures = Measures.from_histograms(np.eye(3) + 0.1, np.arange(3))
    with pytest.raises(SettingError, match="from point 0 to 2 it gives 9, and 2 by way of others"):
        bounds(measures, [(0, 1)], GroundCost(matrix, 1))


def test_what_cannot_be_bounded_is_told() -> None:
    measures, _ = random_measures("euclidean", 3, 2, 0)
    with pytest.raises(SettingError, match="references=0; give a whole number of at least 1"):
        bounds(measures, [(0, 1)], references=0)
    with pytest.raises(SettingError, match="there are 3 measures"):
        bounds(measures, [(0, 3)])
    with pytest.raises(SettingError, match="great-circle takes points"):
        bounds(Measures.from_point_clouds([np.ones((2, 3))] * 2), [(0, 1)], GroundCost("great-circle", 1))
