"""Upper bounds on W_p: plans between two measures, glued from their plans to a common reference."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from wembed.errors import SolverError
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.exact import solve

__all__ = ["Glued", "References"]

_REFERENCE_ATOMS = 256  # of a larger reference so many are taken


@dataclass(frozen=True, eq=False)
class Glued:
    """What `References` keeps of each of n measures: where its optimal plans send the atoms of all references.

    Attributes:
        places: the mean of what an atom is sent to; for a cost matrix the number of the heaviest point of it.
        spread: how far it lies about its mean: the variance of each atom for the euclidean metric and p < 2, their sum
            for p = 2, and otherwise W_p of the measure and its means, for each reference.
        distances: W_p to each reference.
    """

    places: Float64[np.ndarray, "n atoms axes"]
    spread: Float64[np.ndarray, "n parts"]
    distances: Float64[np.ndarray, "n references"]

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, eq=False)
class References:
    """Measures through which plans are glued (Villani 2009, gluing lemma).

    From a plan of mu and a reference and one of nu and the same reference, mass of mu goes where mass of nu goes that
    shares its atom of the reference. What that costs is at least W_p, and nearly W_p where the reference lies between.

    Attributes:
        cost: the ground cost.
        measures: the references.
    """

    cost: GroundCost
    measures: Measures

    @classmethod
    def build(cls, measures: Measures, cost: GroundCost, seed: int = 0) -> "References":
        """References of these measures, thinned where they have many atoms."""
        rng = np.random.default_rng([seed, 9])
        kept = [
            np.sort(rng.permutation(np.arange(start, stop))[:_REFERENCE_ATOMS])
            for start, stop in pairwise(measures.offsets.tolist())
        ]
        offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in kept])]).astype(np.int64)
        rows = np.concatenate(kept)
        weights = np.asarray(measures.weights)[rows]
        weights = weights / np.repeat(np.add.reduceat(weights, offsets[:-1]), np.diff(offsets))
        if measures.atoms is None:
            return cls(cost, Measures(offsets, np.asarray(measures.support)[rows], weights))
        atoms = np.asarray(measures.atoms)[rows]
        return cls(cost, Measures(offsets, measures.support, weights, atoms, measures.grid))

    def __call__(self, measures: Measures) -> Glued:
        """Solve each measure against each reference.

        Raises:
            SolverError: a solution could not be certified.
        """
        together = Measures.concatenate([self.measures, measures])
        count, parts = len(self.measures), self._parts
        places = np.empty((len(measures), int(self.measures.offsets[-1]), self._axes(measures)))
        spread, distances = np.empty((len(measures), parts[-1].stop)), np.empty((len(measures), count))
        for row in range(len(measures)):
            for reference, (start, stop) in enumerate(pairwise(self.measures.offsets.tolist())):
                try:
                    found = self._glue(together, reference, count + row)
                except SolverError as error:
                    raise SolverError(f"measure {row} against a reference: {error}") from error
                places[row, start:stop], spread[row, parts[reference]], distances[row, reference] = found
        return Glued(places, spread, distances)

    def upper(
        self, a: Glued, b: Glued, i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, "k references"]:
        """At least W_p of a[i] and b[j], by the plan glued through each reference."""
        p, starts = self.cost.order, self.measures.offsets[:-1]
        far = self._between(a.places[i], b.places[j])
        if self._squared:
            spread = a.spread[i] + b.spread[j]
            if self._by_atom:  # E |X - Y|^p <= (E |X - Y|^2)^(p/2), as p <= 2
                powers = (far + spread) ** (p / 2) * self.measures.weights
                return np.asarray(np.add.reduceat(powers, starts, axis=1) ** (1 / p))
            return np.asarray(np.sqrt(np.add.reduceat(far * self.measures.weights, starts, axis=1) + spread))
        means = np.add.reduceat(far**p * self.measures.weights, starts, axis=1) ** (1 / p)
        return np.asarray(means + a.spread[i] + b.spread[j])  # the triangle inequality

    @property
    def _squared(self) -> bool:
        return self.cost.is_euclidean and self.cost.order <= 2

    @property
    def _by_atom(self) -> bool:
        return self._squared and self.cost.order < 2

    @property
    def _parts(self) -> list[slice]:
        """Where the spread about each reference stands."""
        count, offsets = len(self.measures), self.measures.offsets.tolist()
        return [slice(*ends) for ends in (pairwise(offsets) if self._by_atom else pairwise(range(count + 1)))]

    def _axes(self, measures: Measures) -> int:
        return self.cost.coordinates(measures[:1]).dim if isinstance(self.cost.metric, str) else 1

    def _between(self, x: np.ndarray, y: np.ndarray) -> Float64[np.ndarray, "k atoms"]:
        """Ground distances, or their squares where those are summed."""
        metric = self.cost.metric
        if not isinstance(metric, str):
            return np.asarray(metric[x[..., 0].astype(np.int64), y[..., 0].astype(np.int64)])
        x -= y  # gathered for this call
        if metric == "cityblock":
            return np.asarray(np.abs(x).sum(axis=-1))
        if metric == "chebyshev":
            return np.asarray(np.abs(x).max(axis=-1))
        squares = np.einsum("kad,kad->ka", x, x)
        if self._squared:
            return np.asarray(squares)
        if metric == "euclidean":
            return np.asarray(np.sqrt(squares))
        return self.cost.from_euclidean(self.cost.radius * np.sqrt(squares))

    def _glue(self, together: Measures, reference: int, row: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Places, spread and W_p of one measure and one reference, both in `together`."""
        cost, p = self.cost, self.cost.order
        found = solve(together, reference, row, cost)
        coupling = found.coupling
        coupling[coupling.sum(axis=1) == 0] = together[row].weights  # too light an atom for the solver to see
        shares = coupling / coupling.sum(axis=1, keepdims=True)
        weights = self.measures[reference].weights
        if not isinstance(cost.metric, str):
            own = cost.places(together, row)
            chosen = own[shares.argmax(axis=1)]
            moments = (shares * cost.metric[chosen[:, None], own] ** p).sum(axis=1)
            return chosen[:, None].astype(np.float64), np.array([(weights @ moments) ** (1 / p)]), found.distance
        points = cost.coordinates(together[[row]]).points()
        if cost.is_great_circle:
            points = points / np.linalg.norm(points, axis=1, keepdims=True)
        places = shares @ points
        if cost.is_great_circle:
            lengths = np.linalg.norm(places, axis=1, keepdims=True)
            places = np.where(lengths > 1e-9, places / np.maximum(lengths, 1e-9), points[shares.argmax(axis=1)])
        moments = np.einsum("an,an->a", shares, self._from_each(places, points))
        if self._by_atom:
            return places, moments, found.distance
        return (
            places,
            np.array([weights @ moments if p == 2 and self._squared else (weights @ moments) ** (1 / p)]),
            found.distance,
        )

    def _from_each(self, places: np.ndarray, points: np.ndarray) -> Float64[np.ndarray, "atoms n"]:
        """What `spread` is the mean of: squared distances where those are summed, else their p-th powers."""
        if self.cost.is_great_circle:
            from scipy.spatial.distance import cdist  # imported late, as SciPy is everywhere here

            return np.asarray(self.cost.from_euclidean(self.cost.radius * cdist(places, points)) ** self.cost.order)
        cost = GroundCost() if self._squared else self.cost
        powers, unit = cost.powers(places, points)
        return np.asarray(powers * unit**cost.order)
