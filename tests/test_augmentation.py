"""Distorted measures: near what they were made of, and none of it."""

import tracemalloc

import numpy as np
import pytest

from wembed import Measures, exact_distances
from wembed.learning import augmentation
from wembed.learning.augmentation import distorted


@pytest.mark.parametrize("dim", [2, 3, 20])
def test_distorted_measures_lie_nearer_to_their_origin_than_others_but_not_at_it(dim: int) -> None:
    rng = np.random.default_rng(dim)
    measures = Measures.from_point_clouds([rng.normal(size=(40, dim)) * rng.uniform(0.5, 2, dim) for _ in range(10)])
    made = distorted(measures[[0]], 10, seed=1)
    everything = Measures.concatenate([measures, made])
    moved = exact_distances(everything, [(0, 10 + k) for k in range(10)], n_jobs=1)
    apart = exact_distances(everything, [(0, k) for k in range(1, 10)], n_jobs=1)
    assert moved.min() > 0.01 * apart.mean()
    assert moved.mean() < apart.mean()


@pytest.mark.parametrize("dim", [2, 3, 20])
def test_a_distortion_moves_atoms_by_a_quarter_of_the_spread_in_any_dimension(dim: int) -> None:
    points = np.random.default_rng(0).normal(size=(40, dim))
    made = distorted(Measures.from_point_clouds([points]), 500)
    moved = made.support.reshape(500, 40, dim) - points
    assert np.sqrt(np.square(moved).mean()) / points.std() == pytest.approx(0.23, rel=0.1)


def test_distortions_follow_the_unit_and_the_seed_and_keep_the_weights() -> None:
    rng = np.random.default_rng(0)
    measures = Measures.from_point_clouds([rng.normal(size=(9, 2)) + 4], [rng.uniform(1, 2, 9)])
    one, again, other = distorted(measures, 5), distorted(measures, 5), distorted(measures, 5, seed=1)
    np.testing.assert_array_equal(one.support, again.support)
    assert not np.allclose(one.support, other.support)
    np.testing.assert_allclose(one.weights.reshape(5, 9), np.tile(measures.weights, (5, 1)), rtol=1e-6)
    larger = distorted(Measures(measures.offsets, measures.support * 1e3, measures.weights), 5)
    np.testing.assert_allclose(larger.support, one.support * 1e3, rtol=1e-9)


@pytest.mark.parametrize("block", [4, 4_000_000])
def test_distorted_measures_stay_where_their_origins_are(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "_BLOCK_NUMBERS", block)
    rng = np.random.default_rng(0)
    measures = Measures.from_point_clouds([rng.normal(size=(30, 2)) + [1e3, -2e3] for _ in range(3)])
    made = distorted(measures, 20)
    assert np.abs(made.centroids() - [1e3, -2e3]).max() < 2
    spreads = [np.sqrt(np.square(measure.support - measure.support.mean(axis=0)).mean()) for measure in made]
    assert 0.5 < min(spreads) < max(spreads) < 2


def test_diracs_stay_diracs() -> None:
    made = distorted(Measures.from_point_clouds([np.ones((1, 2)), np.zeros((1, 2))]), 4)
    assert made.sizes.tolist() == [1, 1, 1, 1]
    assert np.isfinite(made.support).all()


@pytest.mark.parametrize("dim", [1, 2, 30])
def test_distortions_do_not_depend_on_how_many_atoms_are_looked_at_in_one_go(
    dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(dim)
    clouds = [rng.normal(size=(int(rng.integers(1, 60)), dim)) + 3 for _ in range(9)]
    measures = Measures.from_point_clouds(clouds, [rng.uniform(0.5, 1, len(cloud)) for cloud in clouds])
    whole = distorted(measures, 50, seed=dim)
    monkeypatch.setattr(augmentation, "_BLOCK_COORDINATES", 40 * dim)
    parts = distorted(measures, 50, seed=dim)
    np.testing.assert_array_equal(parts.sizes, whole.sizes)
    np.testing.assert_allclose(parts.support, whole.support, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(parts.weights, whole.weights)


@pytest.mark.parametrize("kind", ["clouds", "images"])
def test_distorting_takes_little_more_memory_than_what_it_makes(kind: str) -> None:
    rng = np.random.default_rng(0)
    if kind == "clouds":
        measures = Measures.from_point_clouds([rng.normal(size=(150, 2)) for _ in range(50)])
    else:
        measures = Measures.from_images(rng.integers(0, 3, (50, 15, 15)))
    tracemalloc.start()
    try:
        made = distorted(measures, 6_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    result = made.support.nbytes + made.weights.nbytes + made.offsets.nbytes
    assert result > 2e7
    assert peak < result + 2e7
