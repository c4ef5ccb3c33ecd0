"""Distances between blocks of vectors against the plain formula."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from wembed import euclidean
from wembed.euclidean import distances_between, paired_distances


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 24)).astype(np.float32)


def test_distances_are_those_of_scipy() -> None:
    x, y = vectors(70), vectors(90, seed=1)
    np.testing.assert_allclose(distances_between(x, y), cdist(x, y), rtol=1e-5)


def test_tiles_do_not_change_the_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = vectors(70), vectors(90, seed=1)
    whole = distances_between(x, y)
    monkeypatch.setattr(euclidean, "_TILE", (16, 7))
    monkeypatch.setattr(euclidean, "_PAIRS", 3)
    np.testing.assert_allclose(distances_between(x, y), whole, rtol=1e-6)


@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-5])
def test_a_distance_near_zero_keeps_its_digits(gap: float) -> None:
    x = vectors(40) + 3
    y = x.copy()
    y[:, 0] += np.float32(gap)
    expected = np.abs(y[:, 0].astype(float) - x[:, 0])
    np.testing.assert_allclose(np.diagonal(distances_between(x, y)), expected, rtol=1e-3)


def test_a_vector_is_at_distance_zero_from_itself() -> None:
    x = vectors(40) * 1000
    assert not np.diagonal(distances_between(x, x)).any()


def test_paired_distances_are_the_diagonal() -> None:
    x, y = vectors(40), vectors(40, seed=1)
    np.testing.assert_allclose(paired_distances(x, y), np.diagonal(distances_between(x, y)), rtol=1e-5)


def test_nothing_against_something_is_an_empty_matrix() -> None:
    assert distances_between(vectors(0), vectors(3)).shape == (0, 3)
    assert distances_between(vectors(3), vectors(0)).shape == (3, 0)


@pytest.mark.parametrize("far", [1e4, 1e9, 1e15, 1e30, -3e33])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("count", [2, 3, 40, 3_000])
def test_a_far_vector_takes_no_digits_from_the_others(far: float, offset: float, count: int) -> None:
    rng = np.random.default_rng(0)
    x, y = ((offset + rng.normal(size=(n, 16))).astype(np.float32) for n in (5, count))
    y[1] *= np.float32(far)
    expected = np.sqrt(np.square(x[:, None].astype(np.float64) - y[None]).sum(axis=2))
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(distances_between(x, y), expected, rtol=2e-4)
        np.testing.assert_allclose(distances_between(y, x), expected.T, rtol=2e-4)
        np.testing.assert_allclose(paired_distances(np.repeat(x[:1], count, axis=0), y), expected[0], rtol=2e-4)
