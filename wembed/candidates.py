"""Candidates for the nearest measures: which of those left may yet be nearer than those that are solved."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from wembed.trust import Side, Trust

__all__ = ["Left", "LeftByBounds", "LeftByChance"]


@runtime_checkable
class Left(Protocol):
    """What is known of candidates that are not solved."""

    def more(self, rows: np.ndarray, solved: np.ndarray, kth: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """Whether queries `rows`, of whose candidates so many are solved, may have a nearer one left than the k-th.

        `exact` holds the distances of the candidates of each, infinite from the first unsolved one on.
        """
        ...


@dataclass(frozen=True, eq=False)
class LeftByBounds:
    """Candidates in the order of lower bounds on their distances."""

    lower: Float64[np.ndarray, "q n"]

    def more(
        self, rows: np.ndarray, solved: np.ndarray, kth: np.ndarray, exact: np.ndarray
    ) -> Bool[np.ndarray, " rows"]:
        return np.asarray(self.lower[rows, solved.clip(max=self.lower.shape[1] - 1)] < kth)


@dataclass(frozen=True, eq=False)
class LeftByChance:
    """Candidates in the order of predicted distances, of which some neighbours may be missed."""

    trust: Trust
    queries: Side
    candidates: Side
    places: Int64[np.ndarray, "q c"]
    allowed: float

    def more(
        self, rows: np.ndarray, solved: np.ndarray, kth: np.ndarray, exact: np.ndarray
    ) -> Bool[np.ndarray, " rows"]:
        done = np.arange(self.places.shape[1]) < solved[:, None]
        sides = self.queries, self.candidates
        row, column = np.nonzero(done)
        scores = self.trust.standard_scores(exact[row, column], *sides, rows[row], self.places[rows[row], column])
        mean = np.bincount(row, scores, len(rows)) / solved
        row, column = np.nonzero(~done)
        chance = self.trust.chance_below(
            kth[row], *sides, (rows[row], self.places[rows[row], column]), (mean[row], solved[row])
        )
        return np.asarray(np.bincount(row, chance, len(rows)) > self.allowed)
