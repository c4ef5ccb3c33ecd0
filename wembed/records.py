"""Records: what questions about distances and neighbours are answered with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from wembed.measures import Measure

__all__ = ["Distances", "Entry", "Id", "Neighbors"]

Id = int | np.integer | str  # of a measure in an index


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances, and what is known of how far off they may be; all arrays have the shape of the answer.

    Attributes:
        predicted: as the model reads it from the vectors: their Euclidean distance, unless they have residuals; on the
            globe the arc over it.
        estimate: the exact distance where it was solved; else the predicted one, corrected by what calibration pairs
            like it have shown, where there are such, and moved into the interval; into the certified bounds as well
            where references were used, which bring it nearer to the exact distance in the mean. Without them it is
            about as near as the predicted one.
        lower: lower end of the interval; the exact distance where it was solved.
        upper: upper end of the interval.
        exact: whether it was solved, or is that of a measure to itself.
        unusualness: of the more unusual of the two measures: 0 is typical of unseen measures like the training ones, 1
            the most unusual hundredth of them, and from 2.5 on there is a warning.
        solved: pairs that were solved; a symmetric matrix shows each twice, and equal pairs are solved once.
    """

    predicted: Float64[np.ndarray, "*shape"]
    estimate: Float64[np.ndarray, "*shape"]
    lower: Float64[np.ndarray, "*shape"]
    upper: Float64[np.ndarray, "*shape"]
    exact: Bool[np.ndarray, "*shape"]
    unusualness: Float64[np.ndarray, "*shape"]
    solved: int = 0

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that have the shape of the answer."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def shaped(self, shape: tuple[int, int]) -> "Distances":
        """The same as matrices."""
        return self._each(lambda array: array.reshape(shape))

    def mirrored(self, count: int) -> "Distances":
        """Of pairs on and above the diagonal, the symmetric matrices."""
        i, j = np.triu_indices(count)

        def matrix(array: np.ndarray) -> np.ndarray:
            full = np.empty((count, count), dtype=array.dtype)
            full[i, j] = full[j, i] = array
            return full

        return self._each(matrix)

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Distances":
        changed: dict[str, Any] = {name: change(array) for name, array in self.arrays.items()}
        return replace(self, **changed)


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest measures of each query, nearest first.

    Attributes:
        ids: of the neighbours.
        distances: W_p to each neighbour, predicted; exact where the query was reranked.
        solved: pairs that were solved exactly for each query.
    """

    ids: np.ndarray
    distances: Float64[np.ndarray, "q k"]
    solved: Int64[np.ndarray, " q"]


@dataclass(frozen=True, eq=False)
class Entry:
    """What an index holds of one measure.

    Attributes:
        id: of the measure.
        measure: itself.
        vector: its embedding.
        label: what it is called or counted among; None without one.
        payload: what was given with it; None without.
    """

    id: int | str
    measure: Measure
    vector: Float32[np.ndarray, " dim"]
    label: str | None
    payload: Any
