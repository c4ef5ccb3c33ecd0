"""Measures in the plane are seen in several turns: what that does to features, vectors and distances."""

from pathlib import Path

import numpy as np
import pytest
import torch

import wembed
from wembed import Embedder, GroundCost, Measures, TrainingSettings
from wembed.errors import SettingError
from wembed.euclidean import distances_between
from wembed.learning.encoders import PerceptronEncoder, TurnedEncoder
from wembed.learning.features import LinearTransport
from wembed.learning.geometric import CombinedEncoding, QuantileEncoding
from wembed.learning.losses import Loss, distance_error, relative_distance_error
from wembed.learning.training import train

KINDS = [QuantileEncoding, CombinedEncoding]
PLACE = np.pi / 16  # from one direction to the next


def clouds(seed: int, count: int = 60) -> Measures:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 12, count)
    points = [rng.normal(size=(n, 2)) * rng.exponential(1.0, 2) + rng.normal(size=2) for n in sizes]
    return Measures.from_point_clouds(points, [rng.uniform(0.1, 1.0, n) for n in sizes])


def turned(measures: Measures, angle: float, about: np.ndarray) -> Measures:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return Measures.from_flat((measures.points() - about) @ turn.T + about, measures.weights, measures.sizes)


def encoding(
    order: float = 2, kind: type[QuantileEncoding | CombinedEncoding] = QuantileEncoding
) -> QuantileEncoding | CombinedEncoding:
    return kind.build(GroundCost(order=order), clouds(0), 16, 0)


@pytest.mark.parametrize("places", [0, 1, -1, 5, 16, -17, 32])
def test_features_of_a_turned_measure_are_those_of_the_measure_in_another_order(places: int) -> None:
    features, measures = QuantileEncoding.build(GroundCost(), clouds(0), 16, 0).features, clouds(1)
    found = features(turned(measures, places * PLACE, np.zeros(2)))
    np.testing.assert_allclose(found, features(measures) @ features.turned(places).T, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2])
def test_the_copies_are_of_the_measures_turned(
    order: float, kind: type[QuantileEncoding | CombinedEncoding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wembed.learning.geometric._BLOCK", 25)
    made, measures, done = encoding(order, kind), clouds(1), list[tuple[int, int]]()
    turns = made.turns
    assert turns is not None
    copies = made.copies(measures, 0.5, 0, progress=lambda *now: done.append(now))
    seen_in = (0, 1, -1) if kind is QuantileEncoding else (0, 1, -1, 2, -2)  # solved anew in each, and so worth more
    for copy, places in zip(copies, seen_in, strict=True):
        seen = made.inputs(turned(measures, places * PLACE, made.centre), 0.5) @ turns[0].T
        np.testing.assert_allclose(copy, seen, atol=1e-5)
    np.testing.assert_allclose(made.inputs_of(copies), made.inputs(measures, 0.5), atol=1e-5)
    assert sorted(done) == done
    assert {total for _, total in done} <= {len(measures)}


def test_slices_have_a_fifth_of_squared_distances_and_maps_the_rest() -> None:
    made = CombinedEncoding.build(GroundCost(), clouds(0), None, 0)
    both, measures = made.features, clouds(1)
    slices, maps = (
        distances_between(found, found)
        for found in (both.slices(measures), LinearTransport(both.maps.references[:1])(measures))
    )
    shown, *_ = made.copies(measures, 1.0, 0)
    np.testing.assert_allclose(distances_between(shown, shown), np.sqrt(0.2 * slices**2 + 0.8 * maps**2), atol=1e-5)


@pytest.mark.parametrize(("metric", "dim"), [("cityblock", 2), ("great-circle", 2), ("euclidean", 1), ("euclidean", 3)])
def test_slices_and_maps_in_turns_are_for_the_plane(metric: str, dim: int) -> None:
    measures = Measures.from_point_clouds([np.random.default_rng(i).uniform(size=(4, dim)) for i in range(30)])
    with pytest.raises(SettingError, match="the combined encoder takes measures in the plane"):
        Embedder(metric, encoder="combined").fit(measures)


@pytest.mark.parametrize("cost", [GroundCost("cityblock"), GroundCost("chebyshev"), GroundCost(1.0 - np.eye(5))])
def test_there_are_no_turns_where_they_change_distances(cost: GroundCost) -> None:
    measures = Measures.from_histograms(np.random.default_rng(0).uniform(size=(20, 5)), np.zeros((5, 2)) + [[0, 1]])
    assert QuantileEncoding.build(cost, measures, 16, 0).turns is None


def test_there_are_none_off_the_plane() -> None:
    measures = Measures.from_point_clouds([np.random.default_rng(i).normal(size=(4, 3)) for i in range(20)])
    assert QuantileEncoding.build(GroundCost(), measures, 16, 0).turns is None


def trained(features: np.ndarray) -> PerceptronEncoder:
    torch.manual_seed(0)
    encoder = PerceptronEncoder(features.shape[1], 6, width=24)
    encoder.start_from(features)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return encoder


@pytest.mark.parametrize("kind", KINDS)
def test_squared_distances_are_means_over_the_turns_as_far_as_the_axes_hold_them(
    kind: type[QuantileEncoding | CombinedEncoding],
) -> None:
    made = encoding(kind=kind)
    turns = made.turns
    assert turns is not None
    views, features = made.copies(clouds(1), 1.0, 0), made.inputs(clouds(1), 1.0)
    encoder = trained(views[0]).eval()
    with torch.no_grad():
        parts = [encoder(torch.from_numpy(view)).numpy() for view in views]
        whole = np.sqrt(np.mean([np.square(distances_between(part, part)) for part in parts], axis=0))
        halves = [views[:, :20], views[:, 20:]]
        vectors, side_by_side = (
            TurnedEncoder.of(encoder, turns, halves, dim)(torch.from_numpy(features)).numpy()
            for dim in (6, 6 * len(turns))
        )
    np.testing.assert_allclose(distances_between(side_by_side, side_by_side), whole, atol=1e-4)
    found = distances_between(vectors, vectors)
    assert (found < whole + 1e-4).all()
    assert np.square(found).sum() > 0.9 * np.square(whole).sum()
    centred = [one - one.mean(axis=0) for one in (vectors, parts[0], np.roll(parts[0], 1, axis=1))]
    assert np.square(centred[0] - centred[1]).sum() < 0.2 * np.square(centred[0] - centred[2]).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2])
def test_a_model_of_the_plane_is_saved_with_its_turns(
    order: float, kind: type[QuantileEncoding | CombinedEncoding], tmp_path: Path
) -> None:
    training = TrainingSettings(steps=10, checks=2)
    settings = {"pairs": 500, "n_jobs": 1, "calibration": 0, "training": training}
    embedder = Embedder(order=order, encoder=kind.kind, **settings).fit(clouds(0))
    assert embedder.encoder_ == kind.kind
    embedder.save(tmp_path)
    np.testing.assert_array_equal(wembed.load(tmp_path).encode(clouds(1)), embedder.encode(clouds(1)))


def test_slices_and_maps_learn_from_relative_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[Loss] = []
    monkeypatch.setattr("wembed.learned.train", lambda *given: [losses.append(given[3]), train(*given)][1])
    rng, training = np.random.default_rng(0), TrainingSettings(steps=2)
    alike = Measures.from_point_clouds([rng.normal(size=(6, 2)) for _ in range(60)])
    for encoder in ("quantiles", "combined"):
        Embedder(encoder=encoder, pairs=300, n_jobs=1, calibration=0, training=training).fit(alike)
    assert losses == [distance_error, relative_distance_error]
