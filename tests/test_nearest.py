"""Nearest vectors, exactly and by a graph."""

from pathlib import Path

import numpy as np
import pytest

from wembed import ArtifactError
from wembed import nearest as nearest_module
from wembed.nearest import Graph, nearest


def test_nearest_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, vectors = (rng.normal(size=(n, 8)).astype(np.float32) for n in (37, 500))
    monkeypatch.setattr(nearest_module, "_BLOCK_NUMBERS", 64 * 8)
    monkeypatch.setattr(nearest_module, "_QUERIES", 10)
    ids, distances = nearest(queries, vectors, 7)
    full = np.linalg.norm(queries[:, None] - vectors, axis=2)
    np.testing.assert_array_equal(ids, np.argsort(full, axis=1)[:, :7])
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :7], rtol=1e-5)


def test_ties_go_to_the_earlier_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_module, "_BLOCK_NUMBERS", 600)
    vectors = np.zeros((1_000, 2), dtype=np.float32)
    ids, _ = nearest(vectors[:1], vectors, 3)
    assert ids.tolist() == [[0, 1, 2]]


def clustered(seed: int, count: int, dim: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(40, dim)) * 3
    return (centres[rng.integers(40, size=count)] + rng.normal(size=(count, dim))).astype(np.float32)


def test_a_graph_misses_few() -> None:
    vectors, queries = clustered(1, 5_000), clustered(2, 200)
    ids, _ = nearest(queries, vectors, 10)
    found, about = Graph.build(vectors).nearest(queries, vectors, 10)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(ids, found, strict=True)]) > 9.8
    own = np.linalg.norm(queries[:, None] - vectors[found], axis=2)
    np.testing.assert_allclose(about, own, rtol=1e-5)
    assert (np.diff(about, axis=1) >= 0).all()


def test_all_vectors_of_a_graph_can_be_asked_for() -> None:
    vectors = clustered(1, 300)
    found, _ = Graph.build(vectors).nearest(vectors[:3], vectors, 300)
    assert all(sorted(row) == list(range(300)) for row in found.tolist())


def test_what_float32_cannot_square_is_searched_exactly() -> None:
    vectors = clustered(1, 300)
    ids, distances = Graph.build(vectors).nearest(vectors[:2] * np.float32(1e25), vectors, 3)
    np.testing.assert_array_equal(ids, nearest(vectors[:2] * np.float32(1e25), vectors, 3)[0])
    assert np.isfinite(distances).all()


def test_progress_of_building_ends_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_module, "_ADDED", 128)
    seen: list[tuple[int, int]] = []
    Graph.build(clustered(1, 300), lambda done, total: seen.append((done, total)))
    assert seen == [(128, 300), (256, 300), (300, 300)]


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graph").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="graph is damaged"):
        Graph.read(tmp_path / "graph")
