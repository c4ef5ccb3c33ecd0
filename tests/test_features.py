"""Sliced quantiles against brute force, and what they must not depend on."""

import numpy as np
import pytest
import threadpoolctl

from wembed import MeasureError, Measures, exact_distances
from wembed.learning.features import LinearTransport, Pixels, SlicedQuantiles, directions_for, levels_for


def clouds(dim: int, count: int = 7, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, count)
    return [rng.normal(size=(n, dim)) + 5 for n in sizes], [rng.uniform(0.1, 1, n) for n in sizes]


def sliced(dim: int, levels: int = 32) -> SlicedQuantiles:
    return SlicedQuantiles(directions_for(dim, np.random.default_rng(0)), levels)


def by_brute_force(features: SlicedQuantiles, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Quantile functions on a fine grid, then averaged."""
    weights = weights / weights.sum()
    centred = points - weights @ points
    fine = 4_000
    answer = []
    for direction in features.directions:
        position = centred @ direction
        order = np.argsort(position)
        level = (np.arange(features.levels * fine) + 0.5) / (features.levels * fine)
        place = np.searchsorted(np.cumsum(weights[order]), level)
        quantile = position[order][np.minimum(place, len(order) - 1)]
        answer.append(quantile.reshape(features.levels, fine).mean(axis=1))
    return np.concatenate(answer) * np.sqrt(points.shape[1] / features.size)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_features_are_averaged_quantiles_of_the_slices(dim: int) -> None:
    points, weights = clouds(dim)
    features = sliced(dim)
    found = features(Measures.from_point_clouds(points, weights))
    for row, cloud, mass in zip(found, points, weights, strict=True):
        np.testing.assert_allclose(row, by_brute_force(features, cloud, mass), atol=2e-4)


def reordered(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(1).permutation(len(points))
    return points[order], weights[order]


def padded(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([points, points[:1] + 100]), np.concatenate([weights, [0.0]])


def split(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([points, points[:1]]), np.concatenate([[weights[0] / 3], weights[1:], [weights[0] * 2 / 3]])


@pytest.mark.parametrize("same_measure", [reordered, padded, split])
def test_features_depend_on_the_measure_alone(same_measure) -> None:  # type: ignore[no-untyped-def]
    points, weights = clouds(2)
    features = sliced(2)
    other = [same_measure(p, w) for p, w in zip(points, weights, strict=True)]
    left = features(Measures.from_point_clouds(points, weights))
    right = features(Measures.from_point_clouds([p for p, _ in other], [w for _, w in other]))
    np.testing.assert_allclose(left, right, atol=2e-5)


def test_features_do_not_see_a_translation() -> None:
    points, weights = clouds(3)
    features = sliced(3)
    moved = [p + np.array([3.0, -7.0, 11.0]) for p in points]
    left = features(Measures.from_point_clouds(points, weights))
    np.testing.assert_allclose(features(Measures.from_point_clouds(moved, weights)), left, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6, 1e12])
def test_features_scale_with_the_measures(scale: float) -> None:
    points, weights = clouds(2)
    features = sliced(2)
    left = features(Measures.from_point_clouds(points, weights))
    right = features(Measures.from_point_clouds([p * scale for p in points], weights))
    np.testing.assert_allclose(right / scale, left, atol=1e-5)


def test_features_do_not_depend_on_the_batch() -> None:
    points, weights = clouds(2, count=50)
    measures = Measures.from_point_clouds(points, weights)
    features = sliced(2)
    np.testing.assert_array_equal(features(measures)[17:19], features(measures[17:19]))


def test_a_block_is_never_wider_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    measures = Measures.from_point_clouds([rng.normal(size=(n, 2)) for n in [1] * 200 + [3000] * 5 + [2] * 50])
    features = sliced(2)
    whole = features(measures)
    widths: list[int] = []

    def spied(self: SlicedQuantiles, block: Measures) -> np.ndarray:
        widths.append(len(block) * int(block.sizes.max()))
        return honest(self, block)

    honest = SlicedQuantiles._block
    monkeypatch.setattr(SlicedQuantiles, "_block", spied)
    np.testing.assert_array_equal(features(measures), whole)
    assert max(widths) * len(features.directions) <= 131_072


def test_on_the_line_feature_distance_is_w2_of_the_centred_measures() -> None:
    rng = np.random.default_rng(2)
    points = [rng.normal(size=(64, 1)) * s for s in (1.0, 2.0)]
    features = SlicedQuantiles(np.ones((1, 1)), 64)
    left, right = features(Measures.from_point_clouds(points))
    exact = np.sqrt(np.mean((np.sort(points[0] - points[0].mean(), 0) - np.sort(points[1] - points[1].mean(), 0)) ** 2))
    assert np.linalg.norm(left - right) == pytest.approx(exact, rel=1e-5)


def test_a_dirac_has_no_shape() -> None:
    assert not sliced(2)(Measures.from_point_clouds([np.array([[3.0, 4.0]])])).any()


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 50])
def test_directions_are_unit_vectors_that_see_every_axis_alike(dim: int) -> None:
    directions = directions_for(dim, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(directions.T @ directions, np.eye(dim) * len(directions) / dim, atol=1e-12)
    assert levels_for(len(directions)) >= 32


def test_another_dimension_is_refused() -> None:
    with pytest.raises(MeasureError, match="dimension 3; these features are for 2"):
        sliced(2)(Measures.from_point_clouds([np.ones((4, 3))]))


def test_pixels_lay_the_image_out_with_mean_one() -> None:
    images = np.random.default_rng(0).integers(0, 9, (5, 4, 6)) + np.eye(4, 6, dtype=int)
    found = Pixels((4, 6))(Measures.from_images(images))
    np.testing.assert_allclose(found, images / images.mean(axis=(1, 2), keepdims=True), rtol=1e-6)


def test_pixels_of_another_shape_are_refused() -> None:
    with pytest.raises(MeasureError, match=r"shape \(4, 6\)"):
        Pixels((4, 6))(Measures.from_images(np.ones((2, 3, 3))))


def test_the_reference_of_linear_transport_is_the_same_on_any_number_of_threads() -> None:
    measures = Measures.from_point_clouds([np.random.default_rng(i).normal(size=(60, 2)) for i in range(200)])
    references = []
    for threads in (1, 2, 4):
        with threadpoolctl.threadpool_limits(threads):
            references.append(LinearTransport.build(measures, 32, 2**40, 2).references)
    np.testing.assert_array_equal(references[0], references[1])
    np.testing.assert_array_equal(references[0], references[2])


def test_linear_transport_bounds_the_distance_from_above_and_equals_it_for_stretches() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(16, 2))
    measures = Measures.from_point_clouds([cloud, cloud * 2 + 5, *(rng.normal(size=(16, 2)) for _ in range(6))])
    features = LinearTransport((cloud - cloud.mean(axis=0))[None])(measures)
    centred = Measures(
        measures.offsets, measures.support - np.repeat(measures.centroids(), 16, axis=0), measures.weights
    )
    pairs = np.stack(np.triu_indices(8, 1), axis=1)
    found = np.linalg.norm(features[pairs[:, 0]] - features[pairs[:, 1]], axis=1)
    exact = exact_distances(centred, pairs, n_jobs=1)
    assert found[0] == pytest.approx(exact[0], rel=1e-5)
    assert (found >= exact * (1 - 1e-5)).all()


def test_few_distinct_atoms_make_a_small_reference() -> None:
    measures = Measures.from_point_clouds([np.array([[0.0, 0.0], [1.0, 0.0]]) + shift for shift in (0, 0.1, 7)])
    assert LinearTransport.build(measures, 64, 0).references.shape == (1, 2, 2)


def test_distances_by_several_references_are_the_root_of_the_mean_of_their_squares() -> None:
    measures = Measures.from_point_clouds(clouds(3)[0], clouds(3)[1])
    both = LinearTransport.build(measures, 16, 0, 2)
    told: list[tuple[int, int]] = []
    features = both(measures, progress=lambda done, total: told.append((done, total)))
    alone = [LinearTransport(reference[None])(measures) for reference in both.references]
    assert not np.allclose(alone[0], alone[1])
    squared = [np.square(rows[:, None] - rows).sum(axis=2) for rows in (features, *alone)]
    np.testing.assert_allclose(squared[0], (squared[1] + squared[2]) / 2, rtol=1e-5, atol=1e-6)
    assert told[-1] == (2 * len(measures), 2 * len(measures))
    assert told == sorted(told)
