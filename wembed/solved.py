"""Exact distances to learn from, divided by the split of their measures, and where more of them come from."""

import hashlib
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from wembed.errors import ArtifactError, SettingError
from wembed.measures import Measures
from wembed.transport.costs import GroundCost
from wembed.transport.pairs import PairPlan, Split, split_pairs
from wembed.transport.parallel import Progress, exact_distances
from wembed.transport.precompute import precompute, stored_settings, stored_split
from wembed.transport.store import DistanceStore

__all__ = ["Draw", "Drawn", "Given", "Kept", "Solved", "Source"]


@dataclass(frozen=True)
class Draw:
    """What the split of a collection is drawn by.

    Attributes:
        seed: draws the pairs as well.
        validation: share of the measures.
        test: share of the measures.
        calibration: share of the measures.
    """

    seed: int
    validation: float
    test: float
    calibration: float

    def split(self, measures: Measures) -> Split:
        """The split of these measures."""
        return Split.of(measures, **asdict(self))


@dataclass(frozen=True, eq=False)
class Solved:
    """Exact distances, divided by the split of their measures.

    Attributes:
        split: the parts; pairs that cross them are left out.
        train_pairs: of measures to learn from.
        train_distances: their W_p.
        validation_pairs: of measures that choose and calibrate.
        validation_distances: their W_p.
        calibration_pairs: of measures that intervals are calibrated on; there may be none.
        calibration_distances: their W_p.
        total: pairs in all, those of test measures and those that cross parts too.
        digest: a hash of where they come from.
    """

    split: Split
    train_pairs: Int64[np.ndarray, "k 2"]
    train_distances: Float64[np.ndarray, " k"]
    validation_pairs: Int64[np.ndarray, "v 2"]
    validation_distances: Float64[np.ndarray, " v"]
    calibration_pairs: Int64[np.ndarray, "c 2"]
    calibration_distances: Float64[np.ndarray, " c"]
    total: int
    digest: str

    @classmethod
    def divide(
        cls, split: Split, measures: Measures, pairs: np.ndarray, distances: np.ndarray, total: int, digest: str
    ) -> "Solved":
        """Find the part of each pair; of equal measures each stands for the first.

        Raises:
            SettingError: no pair lies within the train part, or none within the validation part.
        """
        pairs, distances = _of_distinct(measures.first_alike(), pairs, distances)
        chosen = {}
        for name, members in split.parts().items():
            inside = np.zeros(len(measures), dtype=bool)
            inside[members] = True
            chosen[name] = inside[pairs].all(axis=1)
            if name in ("train", "validation") and not chosen[name].any():
                raise SettingError(
                    f"no pair lies within the {len(members)} {name} measures; solve more pairs, or leave the choice of "
                    "pairs to wembed.precompute"
                )
        train, check, calibration = (chosen[name] for name in ("train", "validation", "calibration"))
        return cls(
            split,
            train_pairs=pairs[train],
            train_distances=distances[train],
            validation_pairs=pairs[check],
            validation_distances=distances[check],
            calibration_pairs=pairs[calibration],
            calibration_distances=distances[calibration],
            total=total,
            digest=digest,
        )

    def beginning(self, share: float) -> "Solved":
        """The first of the training pairs, a share of them; the others are all kept."""
        count = max(1, round(share * len(self.train_pairs)))
        return replace(
            self,
            train_pairs=self.train_pairs[:count],
            train_distances=self.train_distances[:count],
            total=round(share * self.total),
        )

    @property
    def learned_from(self) -> Int64[np.ndarray, " n"]:
        """The measures of training and validation pairs, in ascending order."""
        return np.unique(np.concatenate([self.train_pairs, self.validation_pairs]))

    def checked_by(self, most: int) -> "Solved":
        """With no more than so many validation pairs."""
        return replace(
            self,
            validation_pairs=self.validation_pairs[:most],
            validation_distances=self.validation_distances[:most],
        )


@runtime_checkable
class Source(Protocol):
    """Where exact distances come from.

    Attributes:
        most: pairs to ask for to have all that there are.
        added: pairs that it has solved by now, test measures' included.
        seconds: that they took.
    """

    most: int
    added: int
    seconds: float

    def solved(self, pairs: int, progress: Progress | None = None) -> Solved:
        """About so many pairs over train, validation and test measures, or all that can be had."""
        ...


class Drawn:
    """Pairs drawn for a fit, solved and kept in memory; those of test measures are left unsolved."""

    def __init__(self, measures: Measures, cost: GroundCost, draw: Draw, n_jobs: int) -> None:
        self.measures, self.cost, self.seed, self.n_jobs = measures, cost, draw.seed, n_jobs
        self.split = draw.split(measures)
        self.most, self.added, self.seconds = _most(self.split), 0, 0.0
        self._asked, self._rounds = 0, list[PairPlan]()
        self._pairs, self._distances = np.empty((0, 2), dtype=np.int64), np.empty(0)

    def solved(self, pairs: int, progress: Progress | None = None) -> Solved:
        """What was solved before, and as many more as make so many pairs in all."""
        if pairs > self._asked:
            plan = split_pairs(self.split, pairs - self._asked, self.seed, earlier=self._rounds)
            self._asked = pairs
            parts = [name for name, part in self.split.parts().items() if len(part)]
            kept = zip(parts, plan.segments, strict=True)
            wanted = PairPlan(tuple(segment for name, segment in kept if name != "test"))
            added = wanted.take(0, len(wanted))
            started = time.perf_counter()
            distances = exact_distances(self.measures, added, self.cost, self.n_jobs, progress)
            self.seconds += time.perf_counter() - started
            self.added += len(added)
            self._rounds.append(plan)
            self._pairs = np.concatenate([self._pairs, added])
            self._distances = np.concatenate([self._distances, distances])
        digest = hashlib.sha256(self._pairs.tobytes() + self._distances.tobytes()).hexdigest()
        total = sum(map(len, self._rounds))
        return Solved.divide(self.split, self.measures, self._pairs, self._distances, total, digest)


class Given:
    """A finished store, taken as it is."""

    def __init__(self, store: DistanceStore, measures: Measures, cost: GroundCost, draw: Draw) -> None:
        self.store, self.measures, self.cost, self.draw = store, measures, cost, draw
        self.most, self.added, self.seconds = len(store), 0, 0.0

    def solved(self, pairs: int, progress: Progress | None = None) -> Solved:
        """All that the store holds.

        Raises:
            ArtifactError: it holds distances of other measures or another cost, or not all that it was asked for.
        """
        store = self.store
        for key, mine, what in (
            ("measures", self.measures.fingerprint, "other measures"),
            ("cost", self.cost.as_dict(), "another ground cost"),
        ):
            if store.manifest[key] != mine:
                raise ArtifactError(
                    f"{store.path} holds distances of {what} than those of this fit; precompute them in another folder"
                )
        if not store.complete:
            raise ArtifactError(
                f"{store.path} holds {len(store):,} of {store.manifest['pairs']:,} pairs; run the same precompute "
                "again: it goes on from there"
            )
        split = stored_split(store, self.measures, **asdict(self.draw))
        pairs_there, distances, digest = store.read()
        return Solved.divide(split, self.measures, pairs_there, distances, len(store), digest)


class Kept:
    """A store that is added to where more pairs are asked for, and begun where there is none."""

    def __init__(self, path: Path, measures: Measures, cost: GroundCost, draw: Draw, n_jobs: int) -> None:
        self.path, self.measures, self.cost, self.draw, self.n_jobs = path, measures, cost, draw, n_jobs
        self.settings = stored_settings(path) or {"pairs": 0, **asdict(draw)}
        grows = isinstance(self.settings["pairs"], int)
        self.most = _most(self._drawn_again().split(measures)) if grows else len(DistanceStore(path))
        self.added, self.seconds = 0, 0.0

    def solved(self, pairs: int, progress: Progress | None = None) -> Solved:
        """The first so many pairs of the store, which grows where it is drawn; pairs of one's own are all there are."""
        if isinstance(self.settings["pairs"], int):
            self.settings["pairs"] = max(pairs, self.settings["pairs"])
        there = len(DistanceStore(self.path)) if (self.path / "_manifest.json").exists() else 0
        started = time.perf_counter()
        store = precompute(
            self.measures, self.path, cost=self.cost, n_jobs=self.n_jobs, progress=progress, **self.settings
        )
        self.seconds += time.perf_counter() - started
        self.added += len(store) - there
        found = Given(store, self.measures, self.cost, self.draw).solved(pairs)
        there_are = self.settings["pairs"] if isinstance(self.settings["pairs"], int) else len(store)
        return found.beginning(pairs / there_are) if pairs < there_are else found

    def _drawn_again(self) -> Draw:
        return Draw(*(self.settings[field.name] for field in fields(Draw)))


def _of_distinct(
    first: Int64[np.ndarray, " n"], pairs: Int64[np.ndarray, "k 2"], distances: Float64[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, "m 2"], Float64[np.ndarray, " m"]]:
    """Pairs in terms of the first of equal measures; one with a copy is kept where there is none that says the same."""
    copied = (first[pairs] != pairs).any(axis=1)
    if not copied.any():
        return pairs, distances
    low, high = np.sort(first[pairs], axis=1).T
    keys, order = low * len(first) + high, np.argsort(copied, kind="stable")  # those without a copy come first
    told = np.zeros(len(pairs), dtype=bool)
    told[order[np.unique(keys[order], return_index=True)[1]]] = True
    kept = (low != high) & (told | ~copied)
    return np.stack([low[kept], high[kept]], axis=1), distances[kept]


def _most(split: Split) -> int:
    """How many pairs to ask for so that every part, given its share of them, has all of its own."""
    parts = [len(part) for part in split.parts().values()]
    return sum(parts) * (max(parts) - 1) // 2
