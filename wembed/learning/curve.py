"""Learning in rounds: how the error falls with the pairs solved, and when more of them no longer pay."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from wembed.errors import SettingError
from wembed.options import above_zero

__all__ = ["LearningCurve", "Round", "Wish", "in_rounds"]

_FIRST = 5_000  # pairs in the first round
_FACTOR = 4  # from one round to the next: all rounds together then train little longer than twice the last
_LEAST_FACTOR = 1.5  # below it a round is not worth its training
_PAYS = 0.05  # share of the error that twice the pairs should take away
_FAR = 16  # times the pairs, as far as a target is believed to be in reach
_TRAINING_GROWS = 0.75  # power of the pairs: steps grow with their root, transport maps with themselves


@dataclass(frozen=True)
class Round:
    """One training from nothing.

    Attributes:
        pairs: exact pairs in all, over train, validation and test measures.
        error: mean relative error on the validation pairs.
        solving: seconds in which the pairs that it added were solved.
        training: seconds.
    """

    pairs: int
    error: float
    solving: float
    training: float


@dataclass(frozen=True)
class Wish:
    """When to stop asking for more pairs.

    Attributes:
        max_seconds: a round is begun only if it should end in time; the first one always is.
        target_error: mean relative error on the validation measures that is good enough.

    Raises:
        SettingError: a number that is not above 0.
    """

    max_seconds: float | None = None
    target_error: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None:
                above_zero(name, value, 300 if name == "max_seconds" else 0.01)
        if self.target_error is not None and self.target_error >= 1:
            raise SettingError(f"target_error={self.target_error:g}; give a share of the distance: 0.03 is 3 %")


@dataclass(frozen=True)
class LearningCurve:
    """The rounds of a fit, and why it stopped.

    Attributes:
        rounds: with ever more pairs.
        seconds_a_pair: of an exact solve, all processes together.
        seconds_a_measure: of the encoding of one measure.
        stopped: why there was no other round, as a clause.
        second: the training of the combined encoder, from the pairs of the last round and after it, where that was
            tried; its error is that of what was kept. Others are learned within a round.
        compared: validation error of each encoder that was looked at, after the last round, before vectors are made
            short; that of linear on some of the pairs.
    """

    rounds: tuple[Round, ...]
    seconds_a_pair: float
    seconds_a_measure: float
    stopped: str = "so many pairs were asked for"
    second: Round | None = None
    compared: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> "LearningCurve":
        """The curve that `as_dict` described."""
        rounds, second = tuple(Round(**one) for one in entry["rounds"]), entry["second"]
        return cls(**{**entry, "rounds": rounds, "second": second and Round(**second)})

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {**asdict(self), "rounds": [asdict(one) for one in self.rounds]}

    @property
    def error(self) -> float:
        """Mean relative error on the validation pairs of what was kept."""
        return (self.second or self.rounds[-1]).error

    def error_at(self, pairs: float) -> float | None:
        """What the last two rounds foretell: the error falls with a power of the pairs. None after one round.

        That of what was learned by maps is taken to fall alike.
        """
        if len(self.rounds) < 2:
            return None
        before, last = self.rounds[-2:]
        power = math.log(before.error / last.error) / math.log(last.pairs / before.pairs) if last.error > 0 else 0.0
        return float(self.error * (pairs / last.pairs) ** -max(power, 0.0))

    def break_even(self) -> int:
        """The number of measures from which a fit and all predicted distances take less time than all exact ones."""
        pair, last = self.seconds_a_pair, self.rounds[-1]
        trained = last.training + (self.second.training if self.second else 0.0)
        spent, half = last.pairs * pair + trained, self.seconds_a_measure + pair / 2
        return math.ceil((half + math.sqrt(half**2 + 2 * pair * spent)) / pair) if pair > 0 else 0

    def expected_seconds(self, pairs: int) -> float:
        """Of a next round, by what the last one took."""
        last = self.rounds[-1]
        training = last.training * float((pairs / last.pairs) ** _TRAINING_GROWS)
        return (pairs - last.pairs) * self.seconds_a_pair + training


def in_rounds(
    learn: Callable[[int], LearningCurve], most: int, wish: Wish, clock: Callable[[], float] = time.perf_counter
) -> LearningCurve:
    """Learn from ever more pairs until that no longer pays, or a wish is fulfilled.

    Args:
        learn: learns from so many pairs; what it returns holds that round alone.
        most: pairs that there are, or that may be solved.
        wish: when to stop before.
        clock: seconds.
    """
    started = clock()
    rounds: tuple[Round, ...] = ()
    pairs, reason = min(_FIRST, most), ""
    while not reason:
        curve = learn(pairs)
        rounds = (*rounds, *curve.rounds)
        curve = replace(curve, rounds=rounds)
        left = math.inf if wish.max_seconds is None else wish.max_seconds - (clock() - started)
        pairs, reason = _next(curve, pairs, most, wish.target_error, left)
    return replace(curve, stopped=reason)


def _next(curve: LearningCurve, pairs: int, most: int, target: float | None, left: float) -> tuple[int, str]:
    """The pairs to ask for after so many, or the reason to ask for none."""
    last = curve.rounds[-1]
    if target is not None and last.error <= target:
        return 0, "the target is reached"
    if _LEAST_FACTOR * pairs > most:
        return 0, "there are hardly more pairs to solve"
    twice, far = curve.error_at(2 * last.pairs), curve.error_at(_FAR * last.pairs)
    if twice is not None and far is not None:
        hopeful = target is not None and far <= target
        if twice > (1 - _PAYS) * last.error and not hopeful:
            return 0, "more pairs no longer pay" if target is None else "the target is out of reach of more pairs"
    wanted = min(most, _FACTOR * pairs)
    while wanted > pairs and curve.expected_seconds(wanted) > left:
        wanted = int(0.9 * wanted)
    if wanted < _LEAST_FACTOR * pairs:
        return 0, "another round would have taken too long"
    return wanted, ""
