"""Encodings: when there is a second task, and how large it may be."""

import numpy as np
import pytest
import torch

from wembed import GroundCost, Measures
from wembed.learning import geometric
from wembed.learning.geometric import GeometricEncoding, LinearEncoding, QuantileEncoding
from wembed.learning.sinkhorn import SinkhornEncoding


def clouds(dim: int, count: int = 30, atoms: int = 6, shift: float = 0.0) -> Measures:
    rng = np.random.default_rng(0)
    return Measures.from_point_clouds([rng.normal(size=(atoms, dim)) + shift for _ in range(count)])


def encoding(measures: Measures, order: float = 2) -> QuantileEncoding:
    return QuantileEncoding.build(GroundCost(order=order), measures, 16, 0)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_second_task_shows_the_measures_and_distorted_ones(dim: int) -> None:
    measures = clouds(dim)
    made = encoding(measures)
    task = made.auxiliary(measures, 1.0, 6_000, 0, 1, None)
    assert task is not None
    np.testing.assert_allclose(task.features[:30], made.inputs(measures, 1.0), atol=1e-6)
    assert len(task.features) == len(task.targets) >= 2 * task.features.shape[1]
    assert task.targets.shape[1] <= 128
    again = made.auxiliary(measures, 1.0, 6_000, 0, 1, None)
    assert again is not None
    np.testing.assert_array_equal(again.features, task.features)
    np.testing.assert_array_equal(again.targets, task.targets)


def test_there_are_more_references_where_pairs_pay_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometric, "_AUXILIARY_MEASURES", 1_100)
    monkeypatch.setattr(geometric, "_AUXILIARY_ATOMS", 4)
    asked: list[int] = []
    build = geometric.LinearTransport.build
    monkeypatch.setattr(geometric.LinearTransport, "build", lambda *given: asked.append(given[3]) or build(*given))
    for pairs in (2_400, 60_000):
        assert encoding(clouds(2)).auxiliary(clouds(2), 1.0, pairs, 0, 1, None) is not None
    assert asked == [1, 4]


def test_the_second_task_does_not_depend_on_where_the_measures_are() -> None:
    here, there = clouds(2), clouds(2, shift=1e4)
    tasks = [encoding(m, order=1).auxiliary(m, 1.0, 6_000, 0, 1, None) for m in (here, there)]
    assert tasks[0] is not None
    assert tasks[1] is not None
    np.testing.assert_allclose(tasks[0].features, tasks[1].features, atol=1e-2)
    with torch.no_grad():
        for task in tasks:
            missed = task.head.linear(torch.from_numpy(task.features)).numpy() - task.targets
            assert np.square(missed).sum() < 0.5 * np.square(task.targets - task.targets.mean(axis=0)).sum()


@pytest.mark.parametrize(
    ("measures", "pairs"),
    [(clouds(1), 6_000), (clouds(2), 60), (clouds(2)[np.zeros(30, dtype=int)], 60), (clouds(2, atoms=1), 6_000)],
    ids=["a line", "few pairs", "one measure", "diracs"],
)
def test_there_is_none_where_it_would_teach_nothing(measures: Measures, pairs: int) -> None:
    assert encoding(measures).auxiliary(measures, 1.0, pairs, 0, 1, None) is None


def test_the_second_task_keeps_to_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = clouds(2)
    monkeypatch.setattr(geometric, "_AUXILIARY_BYTES", 6_000_000)
    monkeypatch.setattr(geometric, "_AUXILIARY_MEASURES", 1_200)
    task = encoding(measures).auxiliary(measures, 1.0, 10**9, 0, 1, None)
    assert task is not None
    assert len(task.features) == 1_200
    monkeypatch.setattr(geometric, "_AUXILIARY_BYTES", 400_000)
    assert encoding(measures).auxiliary(measures, 1.0, 10**9, 0, 1, None) is None


@pytest.mark.parametrize("kind", [QuantileEncoding, LinearEncoding, SinkhornEncoding])
def test_vectors_hold_the_centroid_for_euclidean_w2_alone(kind: type[GeometricEncoding]) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3))
    bags = Measures.from_histograms(rng.uniform(size=(9, 20)), points)
    matrix = np.linalg.norm(points[:, None] - points, axis=2)
    for metric, order in (("euclidean", 1), ("cityblock", 2), (matrix, 1), (matrix, 2)):
        other = kind.build(GroundCost(metric, order), bags, None, 0)
        assert other.centroids(rng.normal(size=(4, other.dim))) is None
    split = kind.build(GroundCost(), bags, None, 0)
    vectors = np.concatenate([rng.normal(size=(9, split.dim - 3)), split.exact_part(bags)], axis=1)
    found = split.centroids(vectors)
    assert found is not None
    np.testing.assert_allclose(found, bags.centroids(), atol=1e-6)


def test_long_rows_are_cut_to_their_principal_axes() -> None:
    rng = np.random.default_rng(0)
    mean = 100 * rng.normal(size=40)  # which is no direction of variance
    rows = (rng.normal(size=(50, 3)) @ rng.normal(size=(3, 40)) + mean).astype(np.float32)
    short = geometric._principal(rows, 3)
    assert short.shape == (50, 3)
    np.testing.assert_allclose(np.linalg.norm(short[0] - short[1]), np.linalg.norm(rows[0] - rows[1]), rtol=1e-4)
    assert geometric._principal(short, 3) is short
