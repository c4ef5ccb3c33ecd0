"""Unusualness: near 0 for more of the same, high for what is not."""

import warnings

import numpy as np
import pytest
from halved import SIDE

import wembed
from wembed import Embedder, Measures
from wembed.learning.novelty import Novelty, _shapes
from wembed.unusual import warn_of_unusual_sides


def clouds(seed: int, count: int, atoms: int = 20, scale: float = 1.0) -> Measures:
    rng = np.random.default_rng(seed)
    return Measures.from_point_clouds(
        [scale * rng.normal(size=(atoms, 2)) * rng.uniform(0.5, 1.5, 2) for _ in range(count)]
    )


def vectors(measures: Measures) -> np.ndarray:
    """Second moments, say."""
    return np.array([(m.weights @ m.support**2) ** 0.5 for m in measures], dtype=np.float32)


@pytest.fixture(scope="module")
def novelty() -> Novelty:
    known, typical = clouds(0, 400), clouds(1, 300)
    return Novelty.fit(known, vectors(known)).calibrated(typical, vectors(typical))


def test_a_hundredth_of_the_same_kind_is_above_one(novelty: Novelty) -> None:
    fresh = clouds(2, 3_000)
    found = novelty(fresh, vectors(fresh))
    assert np.median(found) == pytest.approx(0, abs=0.1)
    assert 0.002 < (found > 1).mean() < 0.03


@pytest.mark.parametrize(("atoms", "scale"), [(400, 1.0), (20, 3.0), (3, 1.0)])
def test_many_more_atoms_and_another_scale_are_seen(novelty: Novelty, atoms: int, scale: float) -> None:
    strange = clouds(3, 50, atoms, scale)
    assert np.median(novelty(strange, vectors(strange))) > 2


@pytest.mark.parametrize("dim", [3, 12])
def test_a_shape_that_none_has_is_seen_wherever_its_vector_lies(dim: int) -> None:
    def of(seed: int, count: int, flat: int = 0) -> Measures:
        rng, spread = np.random.default_rng(seed), np.ones(dim)
        spread[dim - flat :] = 0
        return Measures.from_point_clouds([rng.normal(size=(30, dim)) * spread for _ in range(count)])

    def blind(measures: Measures) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(measures), 4)).astype(np.float32)

    known, typical, fresh = of(0, 300), of(1, 150), of(2, 300)
    found = Novelty.fit(known, blind(known)).calibrated(typical, blind(typical))
    assert (found(fresh, blind(fresh)) > 1).mean() < 0.05
    for flat in (1, dim - 1) if dim == 3 else (dim - 2, dim - 1):
        assert found(of(3, 20, flat), blind(fresh[:20])).min() > 2.5


def test_traits_of_a_shape_do_not_depend_on_where_it_lies_or_how_it_is_turned() -> None:
    rng = np.random.default_rng(0)
    points = [rng.normal(size=(n, 3)) * [3, 2, 0.5] for n in (1, 2, 7, 40)]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    wide = [np.pad(one, ((0, 0), (0, 9))) for one in points]  # beyond a few dimensions another way is taken
    shapes = _shapes(Measures.from_point_clouds(points))
    np.testing.assert_allclose(_shapes(Measures.from_point_clouds([p @ turn + 5 for p in points])), shapes, atol=1e-6)
    np.testing.assert_allclose(_shapes(Measures.from_point_clouds(wide))[:, : shapes.shape[1]], shapes, atol=1e-6)
    for row, one in enumerate(points):
        np.testing.assert_array_equal(_shapes(Measures.from_point_clouds([one]))[0], shapes[row])


def test_large_measures_are_looked_at_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = clouds(0, 50)
    whole = _shapes(measures)
    monkeypatch.setattr("wembed.learning.novelty._BLOCK_NUMBERS", 150)
    np.testing.assert_array_equal(_shapes(measures), whole)
    monkeypatch.setattr("wembed.learning.novelty._BLOCK_NUMBERS", 1)
    np.testing.assert_array_equal(_shapes(measures), whole)


def test_two_typical_measures_are_enough_to_go_by() -> None:
    known, typical, fresh = clouds(0, 200), clouds(1, 2), clouds(2, 500)
    found = Novelty.fit(known, vectors(known)).calibrated(typical, vectors(typical))(fresh, vectors(fresh))
    assert (found > 2).mean() < 0.02
    shares = []
    for seed in range(20, 80, 10):
        known, typical, fresh = clouds(seed, 200), clouds(seed + 1, 2), clouds(seed + 2, 500)
        few = Novelty.fit(known, vectors(known)).calibrated(typical, vectors(typical))
        shares.append((few(fresh, vectors(fresh)) > 1).mean())
    assert np.mean(shares) < 0.017


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_unit_of_length_does_not_matter(novelty: Novelty, scale: float) -> None:
    known, typical, fresh = (clouds(seed, count, scale=scale) for seed, count in ((0, 400), (1, 300), (2, 50)))
    found = Novelty.fit(known, vectors(known)).calibrated(typical, vectors(typical))(fresh, vectors(fresh))
    plain = clouds(2, 50)
    np.testing.assert_allclose(found, novelty(plain, vectors(plain)), atol=1e-3)


def test_a_hardly_larger_radius_is_not_strange_where_all_are_alike() -> None:
    def rings(count: int, radius: float) -> Measures:
        angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (count, 1)) + np.linspace(0, 2 * np.pi, 12)[:-1]
        return Measures.from_point_clouds(list(radius * np.stack([np.cos(angles), np.sin(angles)], axis=2)))

    blind = np.random.default_rng(1).normal(size=(120, 3)).astype(np.float32)
    found = Novelty.fit(rings(120, 1e3), blind).calibrated(rings(120, 1e3), blind)
    assert found(rings(120, 1.01e3), blind).max() < 2.5
    assert found(rings(120, 1.5e3), blind).min() > 2.5


def test_doodles_and_noise_are_warned_of_and_digits_are_not(fitted: Embedder, some_digits: Measures) -> None:
    unseen = some_digits[fitted.split_.test]
    fitted.transform(unseen)  # a warning would be an error here
    rng = np.random.default_rng(0)
    noise = Measures.from_images(rng.random((5, SIDE, SIDE)))
    with pytest.warns(wembed.UnusualWarning, match="5 of 5 measures are unlike those") as caught:
        fitted.transform(noise)
    assert caught[0].filename == __file__
    with pytest.warns(wembed.UnusualWarning) as caught:
        fitted.distance(noise, noise)
    assert [str(one.message)[:24] for one in caught] == ["5 of 5 measures of a are", "5 of 5 measures of b are"]
    assert caught[0].filename == __file__
    assert fitted.unusualness(noise).min() > 2 > fitted.unusualness(unseen).max()
    squeezed = Measures.from_point_clouds([m.support * 0.5 for m in unseen], [m.weights for m in unseen])
    with pytest.warns(wembed.UnusualWarning):
        fitted.distance(squeezed, squeezed)


def test_many_that_are_a_little_unusual_are_warned_of_together(fitted: Embedder, some_digits: Measures) -> None:
    unseen = some_digits[fitted.split_.test]
    larger = Measures.from_point_clouds([m.support * 1.25 for m in unseen], [m.weights for m in unseen])
    assert fitted.unusualness(larger).max() > 1
    rare = larger[np.flatnonzero(fitted.unusualness(larger) < 2.5)]
    assert (fitted.unusualness(rare) > 1).sum() > 4
    with pytest.warns(wembed.UnusualWarning):
        fitted.transform(rare)


def test_being_far_off_is_not_strange_where_that_is_exact(fitted: Embedder, some_digits: Measures) -> None:
    unseen = some_digits[fitted.split_.test]
    moved = Measures.from_point_clouds([m.support + 1_000 for m in unseen], [m.weights for m in unseen])
    np.testing.assert_allclose(fitted.unusualness(moved), fitted.unusualness(unseen), atol=0.05)


def test_a_table_of_pairs_is_warned_of_by_its_measures_and_not_by_its_pairs() -> None:
    one = np.full(40, 0.5)
    one[3] = 1.2  # as 1 in 100 usual measures is
    pairs = np.maximum(one[:, None], one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unusual_sides(pairs, 1)
        warn_of_unusual_sides(np.maximum(one[:, None], np.full(50, 0.4)), 2)
    one[7] = 3.0
    with pytest.warns(
        wembed.UnusualWarning,
        match="1 of 40 measures of a is unlike .*: distances may .* highest, 3, is that of number 7,",
    ):
        warn_of_unusual_sides(np.maximum(one[:, None], np.full(50, 0.4)), 2)
    with pytest.warns(
        wembed.UnusualWarning, match="1 of 40 measures is unlike .*: distances may .* highest, 3, is that of number 7,"
    ):
        warn_of_unusual_sides(np.maximum(one[:, None], one), 1)
    with pytest.warns(wembed.UnusualWarning, match="pairs"):
        warn_of_unusual_sides(one, 2)


def test_the_warning_says_first_what_it_means_and_then_by_which_numbers() -> None:
    with pytest.warns(wembed.UnusualWarning) as caught:
        warn_of_unusual_sides(np.array([[0.1], [2.0], [3.1], [9.6], [1.2]]), 2)
    assert str(caught[0].message) == (
        "4 of 5 measures of a are unlike those that the model learned from: distances may be further off than the "
        "errors of the model say (unusualness above 1, as of 1 in 100 usual ones; the highest, 9.6, is that of "
        "number 3, counted from 0)"
    )
