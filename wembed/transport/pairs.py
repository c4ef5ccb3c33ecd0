"""Which pairs to solve, and the split of measures into train, validation, test and calibration."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from wembed.errors import SettingError
from wembed.measures import Measures
from wembed.options import number, whole

__all__ = [
    "DRAWS",
    "Cliques",
    "Listed",
    "PairPlan",
    "Split",
    "all_pairs",
    "clique_pairs",
    "random_pairs",
    "split_pairs",
]

CLIQUE = 8  # measures in a clique; at equal numbers of pairs smaller cliques show the encoder more measures
_SMALLEST_PART = 2
_CALIBRATION = 100, 500  # measures at least and at most; the least only if it is no more than
_CALIBRATION_SHARE = 1 / 8  # of those that would be for training
_CALIBRATION_PAIRS = 4  # a measure, each by itself: cliques would tell less of how errors vary


@dataclass(frozen=True, eq=False)
class Cliques:
    """All pairs within each of several groups of the same size.

    Attributes:
        members: the measures of each clique, one clique a row.
    """

    members: Int64[np.ndarray, "cliques size"]

    @property
    def clique_pairs(self) -> int:
        """Pairs in one clique."""
        size = int(self.members.shape[1])
        return size * (size - 1) // 2

    def __len__(self) -> int:
        return len(self.members) * self.clique_pairs

    def take(self, start: int, stop: int) -> Int64[np.ndarray, "k 2"]:
        """Pairs number start to stop - 1."""
        clique, rank = np.divmod(np.arange(start, stop), max(self.clique_pairs, 1))
        first, second = _unrank(rank, self.members.shape[1])
        return np.sort(np.stack([self.members[clique, first], self.members[clique, second]], axis=1), axis=1)


@dataclass(frozen=True, eq=False)
class Listed:
    """Pairs that are written out.

    Attributes:
        pairs: the two measures of each pair.
    """

    pairs: Int64[np.ndarray, "k 2"]

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, start: int, stop: int) -> Int64[np.ndarray, "k 2"]:
        """Pairs number start to stop - 1."""
        return np.sort(self.pairs[start:stop], axis=1)


@dataclass(frozen=True, eq=False)
class Split:
    """Which measures an encoder learns from, is chosen by, and is judged on. Pairs never cross the parts.

    Attributes:
        train: measures that training steps see.
        validation: measures that choose the checkpoint and set the calibration.
        test: measures that nothing sees before the errors are reported.
        calibration: measures that set how wide an interval is, and nothing else.
    """

    train: Int64[np.ndarray, " n_train"]
    validation: Int64[np.ndarray, " n_validation"]
    test: Int64[np.ndarray, " n_test"]
    calibration: Int64[np.ndarray, " n_calibration"]

    @classmethod
    def of(
        cls, measures: Measures, *, validation: float = 0.1, test: float = 0.1, calibration: float = 0.05, seed: int = 0
    ) -> "Split":
        """Split measures at random; see `draw`.

        Of those that are equal only the first is in a part: in two it would be learned from and judged on.
        """
        shares = {"validation": validation, "test": test, "calibration": calibration}
        _check_shares(shares, seed)
        distinct = np.unique(measures.first_alike())
        drawn = cls._drawn(len(distinct), shares, seed, repeats=len(measures) - len(distinct))
        return cls(**{name: distinct[part] for name, part in drawn.parts().items()})

    @classmethod
    def draw(
        cls, count: int, *, validation: float = 0.1, test: float = 0.1, calibration: float = 0.05, seed: int = 0
    ) -> "Split":
        """Split `count` measures at random.

        Where `calibration` is not 0, at least 100 measures are for it, or an eighth of those that would be for training
        where that is less, and at most 500: the width of an interval is as sure as they are many, and each is solved
        against references.

        Raises:
            SettingError: fractions that leave a part empty, or too few measures to split.
        """
        shares = {"validation": validation, "test": test, "calibration": calibration}
        _check_shares(shares, seed)
        return cls._drawn(count, shares, seed)

    @classmethod
    def _drawn(cls, count: int, shares: dict[str, float], seed: int, repeats: int = 0) -> "Split":
        if not _large_enough(count, **shares):
            held = shares["validation"], shares["test"]
            training = min(1 - sum(shares.values()), (1 - sum(held)) * (1 - _CALIBRATION_SHARE))
            enough = int(4 / min(share for share in (*held, training) if share > 0)) + 4
            while _large_enough(enough - 1, **shares):
                enough -= 1
            repeated = f", without {repeats} that repeat one of them," if repeats else ""
            raise SettingError(
                f"{count} measures{repeated} are too few to split into train, validation and test; "
                f"give at least {enough}, or solve all pairs with wembed.exact_distances"
            )
        order = np.random.default_rng([seed, 0]).permutation(count)
        parts = [np.sort(part) for part in np.split(order, np.cumsum(_sizes(count, **shares)))]
        return cls(train=parts[3], validation=parts[0], test=parts[1], calibration=parts[2])

    def parts(self) -> dict[str, Int64[np.ndarray, " n"]]:
        """The parts by name."""
        return {name: getattr(self, name) for name in ("train", "validation", "test", "calibration")}


def _check_shares(shares: dict[str, float], seed: int) -> None:
    for name, share in shares.items():
        if not number(share) or not 0 <= share < 1 or (name == "validation" and share == 0):
            above = "above 0" if name == "validation" else "from 0"
            raise SettingError(f"{name}={share!r}; give a share of the measures, {above} to below 1")
    if sum(shares.values()) >= 1:
        given = ", ".join(f"{name}={share}" for name, share in shares.items())
        raise SettingError(f"{given}: these leave no measures to train on")
    whole("seed", seed)


def _sizes(count: int, validation: float, test: float, calibration: float) -> list[int]:
    held = [round(count * validation), round(count * test)]
    least = min(_CALIBRATION[0], round(max(count - sum(held), 0) * _CALIBRATION_SHARE))
    return [*held, min(max(round(count * calibration), least), _CALIBRATION[1]) if calibration else 0]


def _large_enough(count: int, validation: float, test: float, calibration: float) -> bool:
    sizes = _sizes(count, validation, test, calibration)
    return min(sizes[0], count - sum(sizes), sizes[1] if test else sizes[0]) >= _SMALLEST_PART


@dataclass(frozen=True, eq=False)
class PairPlan:
    """An ordered list of pairs (i < j), kept as the recipe that makes it.

    Attributes:
        segments: what the pairs are made of, in order.
    """

    segments: tuple[Cliques | Listed, ...]

    def __len__(self) -> int:
        return sum(len(segment) for segment in self.segments)

    def take(self, start: int, stop: int) -> Int64[np.ndarray, "k 2"]:
        """Pairs number start to stop - 1."""
        taken, begin = [np.empty((0, 2), dtype=np.int64)], 0
        for segment in self.segments:
            low, high = max(start - begin, 0), min(stop - begin, len(segment))
            if low < high:
                taken.append(segment.take(low, high))
            begin += len(segment)
        return np.concatenate(taken)

    def digest(self) -> str:
        """A hash of the recipe: equal for plans that list the same pairs in the same way."""
        digest = hashlib.sha256()
        for segment in self.segments:
            array = segment.members if isinstance(segment, Cliques) else segment.pairs
            digest.update(f"{type(segment).__name__} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype=np.int64).data)
        return digest.hexdigest()


def all_pairs(members: Int64[np.ndarray, " n"]) -> Cliques:
    """Every pair of the members: one clique of all of them."""
    return Cliques(np.asarray(members, dtype=np.int64)[None, :])


def random_pairs(members: Int64[np.ndarray, " n"], count: int, rng: np.random.Generator) -> Listed:
    """`count` different pairs of the members, uniformly at random."""
    total = len(members) * (len(members) - 1) // 2
    if count * 3 > total:
        ranks = rng.permutation(total)[:count]
    else:  # rejection keeps memory at the size of the answer
        ranks = np.empty(0, dtype=np.int64)
        while len(ranks) < count:
            ranks = np.unique(np.concatenate([ranks, rng.integers(0, total, 2 * (count - len(ranks)) + 16)]))
        ranks = rng.permutation(ranks)[:count]
    first, second = _unrank(ranks, len(members))
    return Listed(np.stack([members[first], members[second]], axis=1).astype(np.int64))


def clique_pairs(
    members: Int64[np.ndarray, " n"], count: int, rng: np.random.Generator, size: int = CLIQUE
) -> Cliques | Listed:
    """About `count` pairs in cliques, so that an encoder looks at few measures for many pairs.

    Every member is used once before any is used again. Where `count` is a good part of all pairs, cliques would
    repeat pairs: then it is that many different pairs at random, or simply all of them.
    """
    total = len(members) * (len(members) - 1) // 2
    if count >= total:
        return all_pairs(members)
    if len(members) < size or count * 3 > total:
        return random_pairs(members, count, rng)
    cliques = max(1, count // (size * (size - 1) // 2))
    rounds = -(-cliques // (len(members) // size))
    usable = len(members) // size * size
    drawn = [rng.permutation(members)[:usable].reshape(-1, size) for _ in range(rounds)]
    return Cliques(np.concatenate(drawn)[:cliques].astype(np.int64))


def some_pairs(members: Int64[np.ndarray, " n"], count: int, rng: np.random.Generator) -> Cliques | Listed:
    """`count` different pairs of the members, uniformly at random; all of them where there are no more."""
    if count >= len(members) * (len(members) - 1) // 2:
        return all_pairs(members)
    return random_pairs(members, count, rng)


DRAWS: dict[str, Callable[[np.ndarray, int, np.random.Generator], Cliques | Listed]] = {
    "cliques": clique_pairs,
    "random": some_pairs,
}


def split_pairs(
    split: Split, count: int, seed: int, draw: str = "cliques", earlier: Sequence[PairPlan] = ()
) -> PairPlan:
    """About `count` pairs, each part of the split getting its share by number of measures.

    The calibration part, few as its measures may be, gets four pairs a measure, or a tenth of the pairs where that is
    less.

    Args:
        split: the parts; no pair crosses them.
        count: pairs in all.
        seed: draws them.
        draw: a name in DRAWS.
        earlier: rounds drawn before, of the same split and seed. Where pairs are scarce none of theirs comes again.
    """
    total = sum(len(part) for part in split.parts().values())
    segments: list[Cliques | Listed] = []
    for k, (name, part) in enumerate(split.parts().items()):
        if len(part):
            rng = np.random.default_rng([seed, 1 + k, *([len(earlier)] if earlier else [])])
            wanted = max(1, round(count * len(part) / total))
            before = [round_.segments[len(segments)] for round_ in earlier]
            if name == "calibration":
                wanted, draw = max(wanted, min(_CALIBRATION_PAIRS * len(part), count // 10)), "random"
            if before and (wanted + sum(map(len, before))) * 3 > len(part) * (len(part) - 1) // 2:
                segments.append(_other_pairs(part, wanted, before, rng))
            else:
                segments.append(DRAWS[draw](part, wanted, rng))
    return PairPlan(tuple(segments))


def _other_pairs(
    members: np.ndarray, count: int, before: Sequence[Cliques | Listed], rng: np.random.Generator
) -> Listed:
    known = np.searchsorted(members, np.concatenate([segment.take(0, len(segment)) for segment in before]))
    left = np.ones(len(members) * (len(members) - 1) // 2, dtype=bool)
    left[known[:, 1] * (known[:, 1] - 1) // 2 + known[:, 0]] = False
    first, second = _unrank(rng.permutation(np.flatnonzero(left))[:count], len(members))
    return Listed(np.stack([members[first], members[second]], axis=1).astype(np.int64))


def listed_pairs(pairs: "np.ndarray | Sequence[tuple[int, int]]", count: int) -> Int64[np.ndarray, "k 2"]:
    """A user's own pairs, checked against the number of measures.

    Raises:
        SettingError: not a (k, 2) array of integers, or an index outside the measures.
    """
    array = np.asarray(pairs)
    if array.size == 0:
        return np.empty((0, 2), dtype=np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise SettingError(f"pairs have shape {array.shape} and type {array.dtype}; expected integers (k, 2)")
    if len(array) and (int(array.min()) < 0 or int(array.max()) >= count):
        row = int(np.argmax((array < 0).any(axis=1) | (array >= count).any(axis=1)))
        raise SettingError(f"pair {row} is {tuple(array[row].tolist())} and there are {count} measures, from 0")
    return np.sort(array.astype(np.int64), axis=1)


def _unrank(rank: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pair (i, j), i < j < size, with the given place in the order (0,1), (0,2), (1,2), (0,3), ..."""
    second = ((1 + np.sqrt(1 + 8 * rank.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > rank  # the square root may be off by one for large ranks
    second += (second + 1) * second // 2 <= rank
    return rank - second * (second - 1) // 2, np.minimum(second, size - 1)
