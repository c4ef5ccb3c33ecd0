"""Landmarks: what vectors keep of how far optimal maps move atoms, and where that is everything."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wembed
from wembed import Embedder, GroundCost, Measures, SettingError, TrainingSettings
from wembed.learning.landmarks import LandmarkEncoder

FEW: dict[str, Any] = {"pairs": 600, "n_jobs": 1, "references": 0, "training": TrainingSettings(steps=15)}
ATOMS, TURNS, DIM = 12, 2, 2


def seen(seed: int, count: int, about: float = 1.0) -> np.ndarray:
    """What an encoder is shown: smooth maps of a reference, alike in each turn, and a centroid."""
    rng = np.random.default_rng(seed)
    reference = np.random.default_rng(0).normal(size=(ATOMS, DIM))
    stretch = np.eye(DIM) + 0.4 * rng.normal(size=(count, DIM, DIM))
    places = (about * reference @ stretch).reshape(count, -1) / (TURNS * ATOMS) ** 0.5
    centroids = rng.normal(size=(count, DIM))
    return np.concatenate([places] * TURNS + [centroids], axis=1).astype(np.float32)


def between(encoder: LandmarkEncoder, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        vectors = encoder(torch.from_numpy(inputs)).double().numpy()
    return np.linalg.norm(vectors[:, None] - vectors, axis=2)


def moved(inputs: np.ndarray, order: float) -> np.ndarray:
    """Mean moves of atoms between each two, by the definition."""
    maps, centroids = inputs[:, :-DIM].astype(np.float64), inputs[:, -DIM:].astype(np.float64)
    places = maps.reshape(len(inputs), TURNS, ATOMS, DIM)[:, 0] * (TURNS * ATOMS) ** 0.5 + centroids[:, None]
    moves = np.linalg.norm(places[:, None] - places, axis=3)
    return (moves**order).mean(axis=2) ** (1 / order)


@pytest.mark.parametrize("landmarks", [2, 40, 200])
def test_mean_squared_moves_are_distances_between_vectors_of_anything(landmarks: int) -> None:
    encoder = LandmarkEncoder.of(seen(1, landmarks), TURNS, DIM, 2.0)
    for inputs in (seen(1, 40), seen(2, 30), seen(3, 30, about=3.0)):
        np.testing.assert_allclose(between(encoder, inputs), moved(inputs, 2.0), atol=2e-3)


@pytest.mark.parametrize("order", [1.0, 1.5, 3.0])
def test_other_moves_are_nearer_than_by_maps_alone(order: float) -> None:
    encoder, unseen = LandmarkEncoder.of(seen(1, 400), TURNS, DIM, order), seen(2, 60)
    apart = ~np.eye(60, dtype=bool)
    exact, found, maps = (made[apart] for made in (moved(unseen, order), between(encoder, unseen), moved(unseen, 2)))
    maps *= np.median(exact / maps)
    off, by_maps = (np.abs(one / exact - 1).mean() for one in (found, maps))
    assert off < 0.7 * by_maps


def test_measures_that_are_all_the_same_are_no_distance_apart() -> None:
    same = np.repeat(seen(1, 1), 30, axis=0)
    assert between(LandmarkEncoder.of(same, TURNS, DIM, 1.0), same).max() < 1e-3


def stretched(seed: int, count: int, dim: int = 3) -> Measures:
    rng = np.random.default_rng(seed)
    shape = np.random.default_rng(0).normal(size=(70, dim))
    shapes = shape @ (np.eye(dim) + 0.5 * rng.normal(size=(count, dim, dim)))
    return Measures.from_point_clouds(list(shapes + 0.3 * rng.normal(size=(count, 1, dim))))


@pytest.mark.parametrize("dim", [2, 3])
def test_what_is_only_moved_is_as_far_apart_as_it_was_moved(dim: int) -> None:
    rng = np.random.default_rng(0)
    shape, places = rng.normal(size=(15, dim)), rng.normal(size=(160, dim))
    moved_there = Measures.from_point_clouds([shape + place for place in places])
    found = Embedder(order=1, encoder="landmarks", **FEW).fit(moved_there).pairwise(moved_there)
    np.testing.assert_allclose(found, np.linalg.norm(places[:, None] - places, axis=2), rtol=2e-3, atol=5e-3)


@pytest.fixture(scope="module")
def auto() -> Embedder:
    return Embedder(order=1, **(FEW | {"pairs": 1_000})).fit(stretched(0, 200))


def test_auto_takes_landmarks_where_they_are_closer_than_what_was_learned(auto: Embedder) -> None:
    unseen, pairs = stretched(1, 30), np.stack(np.triu_indices(30, 1), axis=1)
    exact = wembed.exact_distances(unseen, pairs, GroundCost(order=1), n_jobs=1)
    off = np.abs(auto.pairwise(unseen)[tuple(pairs.T)] / exact - 1).mean()
    compared = auto.learning_curve_.compared
    assert auto.encoder_ == "landmarks"
    assert list(compared) == ["transport", "linear", "landmarks"]
    assert off < 0.9 * compared["transport"]


def test_asked_for_by_name_they_are_what_auto_takes_from_a_fit(auto: Embedder) -> None:
    unseen = stretched(1, 20)
    by_name = Embedder(order=1, encoder="landmarks", **(FEW | {"pairs": 1_000})).fit(stretched(0, 200))
    assert by_name.dim_ == pytest.approx(auto.dim_, abs=40)
    assert by_name.learning_curve_.rounds[-1].error == pytest.approx(auto.learning_curve_.rounds[-1].error, rel=0.1)
    np.testing.assert_allclose(by_name.pairwise(unseen), auto.pairwise(unseen), rtol=0.05, atol=0.02)


def test_a_model_is_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    measures = stretched(0, 100)
    made = Embedder(order=1, encoder="landmarks", **FEW).fit(measures)
    made.save(tmp_path)
    np.testing.assert_array_equal(wembed.load(tmp_path).transform(measures[:9]), made.transform(measures[:9]))


@pytest.mark.parametrize("residual", [False, True])
def test_vectors_are_made_shorter(residual: bool) -> None:
    measures = stretched(0, 120)
    short = Embedder(order=1, encoder="landmarks", dim=30, residual=residual, **FEW).fit(measures)
    assert short.transform(measures[:3]).shape == (3, 30)


@pytest.mark.parametrize(
    ("metric", "order", "dim", "why"),
    [
        ("euclidean", 2, 3, "is for other W_p than W_2"),
        ("euclidean", 1, 4, "of dimension 4 under the euclidean metric"),
        ("euclidean", 1, 1, "of dimension 1 under"),
        ("cityblock", 1, 2, "under the cityblock metric"),
    ],
)
def test_where_there_are_no_turns_or_maps_tell_all_there_are_no_landmarks(
    metric: str, order: float, dim: int, why: str
) -> None:
    with pytest.raises(SettingError, match=f"{why}.*use encoder='auto'"):
        Embedder(metric, order, encoder="landmarks", **FEW).fit(stretched(0, 60, dim))


def test_they_learn_nothing_that_a_decoder_could_share() -> None:
    training = TrainingSettings(steps=5, reconstruction=0.1)
    with pytest.raises(SettingError, match="use fit_decoder"):
        Embedder(order=1, encoder="landmarks", **(FEW | {"training": training})).fit(stretched(0, 60, 2))
