"""The map of a collection: by principal axes, and by UMAP where that is installed."""

import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from wembed import Embedder, Index, Measures, SettingError
from wembed.serve.charts import Charts, methods


def test_distances_on_the_map_are_at_most_those_of_the_vectors(fitted: Embedder, some_digits: Measures) -> None:
    index = Index(fitted, some_digits[:50], labels=["a"] * 50)
    charts = Charts()
    chart = charts.of(index, "pca")
    drawn = np.stack([chart.x, chart.y], axis=1).astype(float)
    between = np.linalg.norm(drawn[:, None] - drawn, axis=-1)
    assert (between <= np.linalg.norm(index.vectors[:, None] - index.vectors, axis=-1) + 1e-4).all()
    assert charts.of(index, "pca") is chart
    index = index.copy()
    index.remove([3])
    assert 3 not in charts.of(index, "pca").ids


def test_umap_draws_where_it_is_installed(
    fitted: Embedder, some_digits: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drawing:
        def __init__(self, random_state: int, n_jobs: int) -> None:
            assert random_state == 0  # the same map each time

        def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
            return vectors[:, :2] * 2.0

    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.delitem(sys.modules, "umap")
    if "umap" not in methods():
        with pytest.raises(SettingError, match="method='umap'; choose one of pca"):
            Charts().of(Index(fitted, some_digits[:5]), "umap")
    module = types.ModuleType("umap")
    module.__spec__, module.UMAP = ModuleSpec("umap", None), Drawing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    assert methods() == ["pca", "umap"]
    index = Index(fitted, some_digits[:5])
    np.testing.assert_allclose(Charts().of(index, "umap").x, 2 * index.vectors[:, 0])
