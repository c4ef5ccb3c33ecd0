"""Measures on the globe: distances between vectors are chords, and what is predicted the arcs over them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wembed
from wembed import Embedder, GroundCost, Measures, TrainingSettings

DEGREES = GroundCost("great-circle-degrees", 1)


def regions(seed: int, count: int, atoms: int = 6, spread: float = 2.0) -> Measures:
    """Small clouds of weighted places, on a third of the globe."""
    rng = np.random.default_rng(seed)
    places = [centre + rng.normal(scale=spread, size=(atoms, 2)) for centre in centres(rng, count)]
    return Measures.from_point_clouds(places, list(rng.random((count, atoms)) + 0.1))


def centres(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.stack([np.rad2deg(np.arcsin(rng.uniform(-0.7, 0.7, count))), rng.uniform(-80, 80, count)], axis=1)


def fitted(spread: float = 2.0, **settings: Any) -> Embedder:
    common: dict[str, Any] = {"pairs": 3_000, "references": 0, "n_jobs": 1}
    known = regions(0, 300, spread=spread)
    return Embedder(**{"metric": "great-circle-degrees", "order": 1, **common, **settings}).fit(known)


@pytest.fixture(scope="module")
def learned() -> Embedder:
    return fitted(training=TrainingSettings(steps=400))


def all_pairs(count: int) -> np.ndarray:
    return np.stack(np.triu_indices(count, 1), axis=1)


def test_single_places_are_as_far_apart_as_on_the_globe(learned: Embedder) -> None:
    rng = np.random.default_rng(5)
    places = np.concatenate([[[90, 0], [-90, 0], [0, 180], [0, -180], [0, 0]], centres(rng, 40)])
    alone = Measures.from_point_clouds(list(places[:, None]))
    settings = {**learned.get_params(), "training": TrainingSettings(steps=20)}
    found = Embedder(**settings).fit(alone).pairwise(alone)
    exact = wembed.exact_distances(alone, all_pairs(45), DEGREES, n_jobs=1)
    np.testing.assert_allclose(found[np.triu_indices(45, 1)], exact, rtol=1e-3, atol=0.1)
    assert exact.max() == pytest.approx(180)


def test_unseen_regions_are_as_far_apart_as_exactly(learned: Embedder) -> None:
    unseen, pairs = regions(7, 60), all_pairs(60)
    exact = wembed.exact_distances(unseen, pairs, DEGREES, n_jobs=1)
    errors = np.abs(learned.pairwise(unseen)[tuple(pairs.T)] / exact - 1)
    assert np.median(errors) < 1e-3
    assert errors.mean() < 0.01
    assert (learned.encoder_, learned.dim_) == ("quantiles", 128)


def test_of_small_regions_nothing_is_learned_that_may_be_chance() -> None:
    unseen = regions(7, 20, spread=0.3)
    found = [fitted(0.3, training=TrainingSettings(steps=40, seed=seed)) for seed in range(2)]
    assert all(min(one.history_, key=lambda check: check[1])[0] > 0 for one in found)  # a later state looks closer
    first, second = (one.transform(unseen) for one in found)
    np.testing.assert_array_equal(first, second)


def test_of_measures_as_wide_as_the_globe_it_learns_what_their_centroids_do_not_tell() -> None:
    rng = np.random.default_rng(8)
    places = [centres(rng, 12) * [1.5, 2] for _ in range(340)]
    wide = Measures.from_point_clouds(places, list(rng.dirichlet(np.full(12, 0.5), 340)))
    unseen, pairs = wide[300:], all_pairs(40)
    exact = wembed.exact_distances(unseen, pairs, DEGREES, n_jobs=1)
    settings = TrainingSettings(steps=500)
    embedder = Embedder("great-circle-degrees", 1, pairs=5_000, references=0, training=settings, n_jobs=1)
    predicted = embedder.fit(wide[:300]).pairwise(unseen)[tuple(pairs.T)]
    centroids = DEGREES.coordinates(unseen).centroids()
    apart = np.linalg.norm(centroids[pairs[:, 0]] - centroids[pairs[:, 1]], axis=1)
    learned_error, plain_error = (np.abs(one / exact - 1).mean() for one in (predicted, DEGREES.from_euclidean(apart)))
    assert learned_error < 0.05
    assert plain_error > 4 * learned_error


@pytest.mark.parametrize("order", [1.0, 2.0, 3.5])
def test_centroids_are_no_farther_apart_than_vectors_have_to_be(order: float) -> None:
    rng = np.random.default_rng(9)
    places = [centre + rng.normal(scale=spread, size=(5, 2)) for spread in (1, 10) for centre in centres(rng, 10)]
    measures, cost = Measures.from_point_clouds(places), GroundCost("great-circle-degrees", order)
    pairs = all_pairs(20)
    wanted = cost.to_euclidean(wembed.exact_distances(measures, pairs, cost, n_jobs=1))
    centroids = cost.coordinates(measures).centroids()
    apart = np.linalg.norm(centroids[pairs[:, 0]] - centroids[pairs[:, 1]], axis=1)
    assert (apart <= wanted * (1 + 1e-6)).all()
    assert (apart > 0.9 * wanted).any(), "and hardly nearer, where measures are small"


@pytest.mark.parametrize("dim", [2, 20, 200])
def test_vectors_are_as_long_as_asked_for(dim: int, learned: Embedder) -> None:
    other = fitted(dim=dim, training=TrainingSettings(steps=50))
    assert other.encode(regions(1, 3)).shape == (3, dim)
    assert other.learning_curve_.error < (0.02 if dim > 3 else 0.9)


def test_degrees_and_radians_give_the_same_vectors_in_their_units() -> None:
    training = TrainingSettings(steps=20)
    degrees, places = fitted(training=training), regions(0, 300)
    settings = {**degrees.get_params(), "metric": "great-circle"}
    turned = Measures.from_flat(np.deg2rad(places.support), places.weights, places.sizes)
    radians = Embedder(**settings).fit(turned)
    np.testing.assert_allclose(np.rad2deg(radians.pairwise(turned[:30])), degrees.pairwise(places[:30]), rtol=1e-2)


def test_places_that_are_all_the_same_are_no_distance_apart() -> None:
    same = Measures.from_point_clouds([np.tile([[10.0, 20.0]], (k, 1)) for k in range(1, 41)])
    settings: dict[str, Any] = {"pairs": 300, "n_jobs": 1}
    embedder = Embedder("great-circle-degrees", 1, training=TrainingSettings(steps=5), **settings).fit(same)
    np.testing.assert_allclose(embedder.pairwise(same), 0, atol=1e-5)


def test_who_asks_for_a_decoder_is_told_that_clouds_on_the_globe_have_none(learned: Embedder) -> None:
    with pytest.raises(wembed.SettingError, match="on the globe takes histograms"):
        learned.decode(learned.transform(regions(1, 2)))
    with pytest.raises(wembed.SettingError, match="in flat space alone"):
        learned.fit_decoder(regions(1, 60))


def test_a_model_is_the_same_when_it_is_loaded(learned: Embedder, tmp_path: Path) -> None:
    learned.save(tmp_path / "model")
    again = wembed.load(tmp_path / "model")
    np.testing.assert_array_equal(again.encode(regions(1, 9)), learned.encode(regions(1, 9)))
