"""Charts: the collection on two axes, for people to look at."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float32

from wembed.errors import SettingError
from wembed.index import Index

__all__ = ["Chart", "Charts", "methods"]


_MOST = 100_000  # measures on a chart; of more, some at random


@dataclass(frozen=True, eq=False)
class Chart:
    """Where each measure of an index is drawn, or each of some of many.

    Attributes:
        ids: of the measures.
        x: along the first axis.
        y: along the second.
        labels: of the measures; None where there is none.
    """

    ids: np.ndarray
    x: Float32[np.ndarray, " n"]
    y: Float32[np.ndarray, " n"]
    labels: list[str | None]


class Charts:
    """The last chart that was made by each method, made again once the index has changed."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[weakref.ref[Index], Chart]] = {}

    def of(self, index: Index, method: str) -> Chart:
        """A chart of an index.

        Raises:
            SettingError: a method that is not there.
        """
        if method not in methods():
            raise SettingError(f"method={method!r}; choose one of {', '.join(methods())}")
        before = self._made.get(method)
        if before is None or before[0]() is not index:
            some = np.sort(np.random.default_rng(0).permutation(len(index))[:_MOST])
            places, labels = _METHODS[method](np.asarray(index.vectors[some])), index.labels
            chart = Chart(index.ids[some], places[:, 0].copy(), places[:, 1].copy(), [labels[row] for row in some])
            before = self._made[method] = weakref.ref(index), chart
        return before[1]


def methods() -> list[str]:
    """By which charts can be made here."""
    return ["pca"] + ["umap"] * (find_spec("umap") is not None)


def _principal(vectors: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n 2"]:
    """Along the two axes of most variance: distances on it are at most those of the vectors."""
    from sklearn.decomposition import PCA

    if min(vectors.shape) < 2:
        return np.zeros((len(vectors), 2), dtype=np.float32)
    return np.asarray(PCA(2, svd_solver="randomized", random_state=0).fit_transform(vectors), dtype=np.float32)


def _by_umap(vectors: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n 2"]:
    import umap  # of those who have installed it

    return np.asarray(umap.UMAP(random_state=0, n_jobs=1).fit_transform(vectors), dtype=np.float32)


_METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"pca": _principal, "umap": _by_umap}
