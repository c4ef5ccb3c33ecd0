"""Spherical harmonics: closed forms, invariance under turns, and distances along the globe."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

import wembed
from wembed import Embedder, GroundCost, Measures, SettingError, TrainingSettings
from wembed import learned as learned_module
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
    for points in (1, 3, 10, 14):
        monkeypatch.setattr(harmonics, "_POINTS", points)
        np.testing.assert_allclose(moments(measures), found, atol=1e-14)
    assert moments(measures[:0]).shape == (0, found.shape[1])


def test_harmonics_are_those_of_scipy() -> None:
    pytest.importorskip("scipy", minversion="1.15")
    from scipy.special import sph_harm_y

    points = np.concatenate([on_sphere(4, 30, 1).support, [[0, 0, 1], [0, 0, -1], [-1, 0, 0]]])
    x, y, z = points.T
    polar, azimuth = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    found = moments(Measures.from_point_clouds(list(points[:, None])))
    for degree in range(1, 13):
        scale = np.sqrt(4 * np.pi / (2 * degree + 1) / degree**3)
        for order in range(degree + 1):
            value = scale * sph_harm_y(degree, order, polar, azimuth)
            place = degree**2 - 1
            if order == 0:
                np.testing.assert_allclose(found[:, place], value.real, atol=1e-13)
            else:
                both = found[:, [place + 2 * order - 1, place + 2 * order]]
                np.testing.assert_allclose(both, 2**0.5 * np.stack([value.real, value.imag], 1), atol=1e-13)


def test_on_a_common_support_moments_are_those_of_the_same_clouds() -> None:
    rng = np.random.default_rng(6)
    places = on_sphere(7, 9, 1).support
    weights = rng.random((5, 9)) * (rng.random((5, 9)) < 0.6) + np.eye(5, 9) * 0.1
    shared = Measures.from_histograms(weights, places)
    clouds = Measures.from_point_clouds([one.support for one in shared], [one.weights for one in shared])
    np.testing.assert_allclose(moments(shared), moments(clouds), atol=1e-12)


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
    assert learned.dim_ == 171


def test_of_measures_as_wide_as_the_globe_it_learns_what_their_centroids_do_not_tell() -> None:
    rng = np.random.default_rng(8)
    places = [centres(rng, 12) * [1.5, 2] for _ in range(240)]
    wide = Measures.from_point_clouds(places, list(rng.dirichlet(np.full(12, 0.5), 240)))
    settings: dict[str, Any] = {"encoder": "harmonics", "pairs": 5_000, "references": 0, "n_jobs": 1}
    errors = [
        Embedder("great-circle-degrees", 1, training=TrainingSettings(steps=steps), **settings)
        .fit(wide[:200])
        .pairwise(wide[200:])[tuple(all_pairs(40).T)]
        / wembed.exact_distances(wide[200:], all_pairs(40), DEGREES, n_jobs=1)
        - 1
        for steps in (1, 500)
    ]
    started, trained = (float(np.abs(one).mean()) for one in errors)
    assert trained < 0.6 * started


@pytest.mark.parametrize("dim", [20, 200])
def test_vectors_are_as_long_as_asked_for(dim: int, learned: Embedder) -> None:
    other = fitted(dim=dim, training=TrainingSettings(steps=50))
    assert other.encode(regions(1, 3)).shape == (3, dim)
    assert other.learning_curve_.error < 0.2


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


def test_on_the_sphere_harmonics_come_first_and_maps_where_linear_transport_comes_near() -> None:
    measures = regions(0, 10)
    assert suited(DEGREES, measures) == "harmonics"
    assert slower("harmonics", DEGREES, measures, 1.4, 10) == "transport"
    assert slower("harmonics", DEGREES, measures, 1.6, 10**6) is None


@pytest.mark.parametrize("closer", [True, False])
def test_maps_are_learned_too_and_taken_where_they_are_closer(closer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Candidate, "is_closer", lambda one, *_: one.learned.encoding.kind == "transport" and closer)
    monkeypatch.setattr(learned_module, "slower", lambda *_: "transport")
    embedder = fitted(encoder="auto", training=TrainingSettings(steps=5))
    assert embedder.encoder_ == ("transport" if closer else "harmonics")
    assert set(embedder.learning_curve_.compared) == {"harmonics", "linear", "transport"}
    assert embedder.learning_curve_.second is None, "it was learned within the round"
