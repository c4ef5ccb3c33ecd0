"""Spherical harmonics: closed forms, invariance under turns, and neighbours that are as near in all directions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

import wembed
from wembed import Embedder, GroundCost, Measures, SettingError, TrainingSettings
from wembed import learned as learned_module
from wembed.euclidean import distances_between
from wembed.learned import Candidate
from wembed.learning import harmonics
from wembed.learning.encodings import slower, suited
from wembed.learning.harmonics import moments

DEGREES = GroundCost("great-circle-degrees", 1)


def regions(seed: int, count: int, atoms: int = 6, spread: float = 2.0) -> Measures:
    """Small clouds of weighted places, on a third of the globe."""
    rng = np.random.default_rng(seed)
    places = [centre + rng.normal(scale=spread, size=(atoms, 2)) for centre in centres(rng, count)]
    return Measures.from_point_clouds(places, list(rng.random((count, atoms)) + 0.1))


def centres(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.stack([np.rad2deg(np.arcsin(rng.uniform(-0.7, 0.7, count))), rng.uniform(-80, 80, count)], axis=1)


def on_sphere(seed: int, count: int, atoms: int, radius: float = 1.0) -> Measures:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, atoms, 3))
    points *= radius / np.linalg.norm(points, axis=2, keepdims=True)
    return Measures.from_point_clouds(list(points), list(rng.random((count, atoms)) + 0.1))


def test_between_points_moments_are_as_far_apart_as_legendre_polynomials_say() -> None:
    points = on_sphere(0, 12, 1, radius=3.0)
    cosines = np.clip(points.support @ points.support.T / 9, -1, 1)
    expected = sum(2 * (1 - eval_legendre(degree, cosines)) / degree**3 for degree in range(1, 13))
    found = moments(points)
    squared = np.square(found[:, None] - found).sum(axis=2)
    np.testing.assert_allclose(squared, 9 * expected, atol=1e-12)


def test_moments_are_means_and_those_of_degree_one_are_the_centroid(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = on_sphere(1, 20, 7)
    found = moments(measures)
    np.testing.assert_allclose(np.abs(found[:, [1, 2, 0]]), np.abs(measures.centroids()), atol=1e-7)
    one = measures[[4]]
    of_atoms = moments(Measures.from_point_clouds(list(one.support[:, None])))
    np.testing.assert_allclose(found[4], one.weights @ of_atoms, atol=1e-7)
    for atoms in (1, 3, 10, 14):
        monkeypatch.setattr(harmonics, "_ATOMS", atoms)
        np.testing.assert_allclose(moments(measures), found, atol=1e-14)
    assert moments(measures[:0]).shape == (0, found.shape[1])


def test_a_turn_of_the_sphere_leaves_distances_between_moments_as_they_are() -> None:
    measures = on_sphere(2, 15, 5)
    turn = Rotation.random(random_state=np.random.default_rng(3)).as_matrix()
    turned = Measures.from_flat(measures.support @ turn.T, measures.weights, measures.sizes)
    before, after = (moments(each) for each in (measures, turned))
    assert not np.allclose(before, after)
    norms = [np.linalg.norm(each[:, None] - each, axis=2) for each in (before, after)]
    np.testing.assert_allclose(*norms, atol=1e-12)


def fitted(**settings: Any) -> Embedder:
    common: dict[str, Any] = {"encoder": "harmonics", "pairs": 3_000, "references": 0, "n_jobs": 1}
    return Embedder(**{"metric": "great-circle-degrees", "order": 1, **common, **settings}).fit(regions(0, 200))


@pytest.fixture(scope="module")
def learned() -> Embedder:
    return fitted(training=TrainingSettings(steps=400))


def unevenness(embedder: Embedder) -> float:
    """By how much the way from a place to others as far away is longer in some directions than in others."""
    rng = np.random.default_rng(5)
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles), np.full(8, 1 / np.tan(np.deg2rad(8)))], axis=1)
    spreads = []
    for latitude, longitude in centres(rng, 40):
        centre = Rotation.from_euler("yz", [90 - latitude, longitude], degrees=True)
        places = np.concatenate([[[0, 0, 1.0]], circle / np.linalg.norm(circle, axis=1, keepdims=True)])
        x, y, z = centre.apply(places).T
        places = np.rad2deg(np.stack([np.arcsin(np.clip(z, -1, 1)), np.arctan2(y, x)], axis=1))
        vectors = embedder.encode(Measures.from_point_clouds(list(places[:, None])))
        apart = distances_between(vectors[:1], vectors[1:])
        spreads.append(apart.std() / apart.mean())
    return float(np.median(spreads))


def test_from_points_it_learns_to_be_as_near_in_all_directions(learned: Embedder) -> None:
    alone = fitted(training=TrainingSettings(steps=400, auxiliary=0.0))
    assert unevenness(learned) < 0.003
    assert unevenness(alone) > 5 * unevenness(learned)


def test_unseen_regions_are_nearly_as_far_apart_as_exactly(learned: Embedder) -> None:
    unseen = regions(7, 60)
    pairs = np.stack(np.triu_indices(60, 1), axis=1)
    exact = wembed.exact_distances(unseen, pairs, DEGREES, n_jobs=1)
    vectors = learned.encode(unseen)
    errors = np.abs(distances_between(vectors, vectors)[tuple(pairs.T)] / exact - 1)
    assert np.median(errors) < 0.05
    assert learned.dim_ == 168


@pytest.mark.parametrize("dim", [20, 200])
def test_vectors_are_as_long_as_asked_for(dim: int, learned: Embedder) -> None:
    other = fitted(dim=dim, training=TrainingSettings(steps=50))
    assert other.encode(regions(1, 3)).shape == (3, dim)
    assert other.learning_curve_.error < 0.2


def test_places_are_drawn_by_the_weights_of_atoms() -> None:
    places = np.array([[0.0, 10.0], [5.0, 20.0], [-5.0, 30.0], [10.0, 40.0]])
    weights = np.array([[0.7, 0.3, 0.0, 0.0], [0.0, 0.0, 0.1, 0.9]])
    measures = Measures.from_histograms(weights, places)
    encoding = harmonics.HarmonicEncoding.build(DEGREES, measures, None, 0)
    task = encoding.auxiliary(measures, 60.0, 100, 0, 1, None)
    assert task is not None
    shown = encoding.inputs(Measures.from_point_clouds(list(places[:, None])), 60.0)
    drawn = np.abs(task.features[:, None] - shown).max(axis=2).argmin(axis=1)
    found = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(found, [0.35, 0.15, 0.05, 0.45], atol=0.04)
    exact = wembed.exact_distances(Measures.from_point_clouds(list(places[:, None])), [(0, 3)], DEGREES, n_jobs=1)
    pair = np.flatnonzero(drawn == 0)[0], np.flatnonzero(drawn == 3)[0]
    assert task.targets[pair] * 60 == pytest.approx(float(exact[0]), rel=1e-6)


def test_degrees_and_radians_give_the_same_vectors_in_their_units() -> None:
    training = TrainingSettings(steps=20)
    degrees, places = fitted(training=training), regions(0, 200)
    settings = {**degrees.get_params(), "metric": "great-circle"}
    turned = Measures.from_flat(np.deg2rad(places.support), places.weights, places.sizes)
    radians = Embedder(**settings).fit(turned)
    np.testing.assert_allclose(np.rad2deg(radians.pairwise(turned[:30])), degrees.pairwise(places[:30]), rtol=1e-2)


def test_places_that_are_all_the_same_are_no_distance_apart() -> None:
    same = Measures.from_point_clouds([np.tile([[10.0, 20.0]], (k, 1)) for k in range(1, 41)])
    settings: dict[str, Any] = {"encoder": "harmonics", "pairs": 300, "n_jobs": 1}
    embedder = Embedder("great-circle-degrees", 1, training=TrainingSettings(steps=5), **settings).fit(same)
    np.testing.assert_allclose(embedder.pairwise(same), 0, atol=1e-5)


def test_a_model_is_the_same_when_it_is_loaded(learned: Embedder, tmp_path: Path) -> None:
    learned.save(tmp_path / "model")
    again = wembed.load(tmp_path / "model")
    np.testing.assert_array_equal(again.encode(regions(1, 9)), learned.encode(regions(1, 9)))


def test_it_takes_measures_on_the_sphere_alone() -> None:
    with pytest.raises(SettingError, match="the harmonics encoder takes measures on the sphere"):
        Embedder(encoder="harmonics").fit(regions(0, 40))


def test_on_the_sphere_harmonics_come_first_and_maps_where_linear_transport_is_closer() -> None:
    small, large = regions(0, 10), regions(0, 10, atoms=100)
    assert suited(DEGREES, small) == suited(DEGREES, large) == "harmonics"
    assert slower("harmonics", DEGREES, small, 0.9, 10**6) == "sinkhorn"
    assert slower("harmonics", DEGREES, large, 0.9, 10) == "transport"
    assert slower("harmonics", DEGREES, large, 1.1, 10**6) is None


@pytest.mark.parametrize("closer", [True, False])
def test_maps_are_learned_too_and_taken_where_they_are_closer(closer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Candidate, "is_closer", lambda one, *_: one.learned.encoding.kind == "sinkhorn" and closer)
    monkeypatch.setattr(learned_module, "slower", lambda *_: "sinkhorn")
    embedder = fitted(encoder="auto", training=TrainingSettings(steps=5))
    assert embedder.encoder_ == ("sinkhorn" if closer else "harmonics")
    assert set(embedder.learning_curve_.compared) == {"harmonics", "linear", "sinkhorn"}
    assert embedder.learning_curve_.second is None, "it was learned within the round"
