"""Learning in rounds: when it stops, and what it foretells."""

import json
import math
from dataclasses import replace

import pytest

from wembed import SettingError, cli, sections
from wembed.learning.curve import LearningCurve, Round, Wish, in_rounds

PLENTY = 10**9


class World:
    """Errors that fall with a power of the pairs, and a clock that solving and training move."""

    def __init__(self, power: float, a_pair: float = 1e-3, training: float = 1.0) -> None:
        self.power, self.a_pair, self.training = power, a_pair, training
        self.now, self.solved = 0.0, 0

    def learn(self, pairs: int) -> LearningCurve:
        solving, training = (pairs - self.solved) * self.a_pair, self.training * (pairs / 5_000) ** 0.5
        self.solved = pairs
        self.now += solving + training
        done = Round(pairs, 0.02 * (pairs / 5_000) ** -self.power, solving, training)
        return LearningCurve((done,), self.a_pair, 1e-5)

    def run(self, most: int = PLENTY, **wish: float) -> LearningCurve:
        return in_rounds(self.learn, most, Wish(**wish), lambda: self.now)


def test_rounds_end_when_twice_the_pairs_take_away_less_than_a_twentieth():
    assert World(power=0.05).run().stopped == "more pairs no longer pay"
    assert len(World(power=0.05).run().rounds) == 2
    steep = World(power=0.3).run(most=10**6)
    assert [one.pairs for one in steep.rounds] == [5_000, 20_000, 80_000, 320_000, 1_000_000]
    assert steep.stopped == "there are hardly more pairs to solve"


def test_a_collection_with_few_pairs_takes_one_round_of_all():
    curve = World(power=0.3).run(most=780)
    assert [one.pairs for one in curve.rounds] == [780]
    assert curve.error_at(10_000) is None


def test_a_target_ends_the_rounds_and_keeps_them_going_while_it_is_in_reach():
    reached = World(power=0.3).run(target_error=0.012)
    assert reached.stopped == "the target is reached"
    assert reached.rounds[-1].error <= 0.012 < reached.rounds[-2].error
    slow = World(power=0.06).run(target_error=0.0165)
    assert slow.stopped == "the target is reached"
    assert len(slow.rounds) > 2
    assert World(power=0.06).run(target_error=0.001).stopped == "the target is out of reach of more pairs"


@pytest.mark.parametrize("seconds", [1.0, 10.0, 30.0, 100.0, 1_000.0])
def test_no_round_is_begun_that_would_end_too_late(seconds: float):
    world = World(power=0.3)
    curve = world.run(max_seconds=seconds)
    assert curve.stopped == "another round would have taken too long"
    assert len(curve.rounds) == 1 or world.now <= seconds
    if seconds >= 30:
        assert world.now > seconds / 3, "time was left for a larger round"


def test_an_error_that_falls_with_a_power_is_foretold():
    curve = World(power=0.2).run(most=80_000)
    assert math.isclose(curve.error_at(640_000) or 0.0, 0.02 * 128**-0.2, rel_tol=1e-12)


def test_an_error_that_rises_is_foretold_to_stay():
    curve = LearningCurve((Round(5_000, 0.02, 1.0, 1.0), Round(20_000, 0.021, 1.0, 1.0)), 1e-3, 1e-5)
    assert curve.error_at(40_000) == 0.021


@pytest.mark.parametrize("a_pair", [1e-6, 1e-3, 2.0])
@pytest.mark.parametrize("a_measure", [0.0, 1e-4, 1e-1])
def test_a_fit_pays_from_the_break_even_on_and_not_before(a_pair: float, a_measure: float):
    curve = LearningCurve((Round(20_000, 0.01, 20.0, 60.0),), a_pair, a_measure)

    def saved(n: int) -> float:
        return n * (n - 1) / 2 * a_pair - (20_000 * a_pair + 60.0 + n * a_measure)

    assert saved(curve.break_even()) >= -1e-6
    assert saved(curve.break_even() - 1) < 0


def test_what_maps_brought_is_the_error_and_falls_with_more_pairs_as_the_rounds_did():
    curve = World(power=0.2).run()
    better = replace(curve, second=Round(curve.rounds[-1].pairs, curve.error / 2, 0.0, 100.0))
    assert better.error == curve.error / 2
    assert math.isclose(better.error_at(10**6) or 0.0, (curve.error_at(10**6) or 0.0) / 2)
    assert better.break_even() > curve.break_even()
    assert LearningCurve.from_dict(json.loads(json.dumps(better.as_dict()))) == better


def test_a_wished_for_error_is_a_share():
    with pytest.raises(SettingError, match=r"target_error=3; give a share of the distance: 0.03 is 3 %"):
        Wish(target_error=3)


@pytest.mark.parametrize(("error", "told"), [(0.005, "0.5"), (0.0105, "closer")])
def test_a_person_is_told_what_maps_brought(error: float, told: str, capsys: pytest.CaptureFixture[str]):
    one = LearningCurve((Round(5_000, 0.0105, 5.0, 20.0),), 1e-3, 1e-5, second=Round(5_000, error, 0.0, 40.0))
    cli._curve(one, 16.0)
    (row,) = [line for line in capsys.readouterr().err.splitlines() if "the same, combined" in line]
    (sentence,) = [line for line in sections.learning(one, []).sentences if "optimal maps as well" in line]
    assert told in row
    assert told in sentence
    assert "40 s" in row


def test_a_curve_comes_back_from_its_numbers():
    curve = World(power=0.3).run(most=80_000)
    assert LearningCurve.from_dict(curve.as_dict()) == curve


@pytest.mark.parametrize("wish", [{"max_seconds": 0}, {"target_error": -0.1}, {"target_error": math.nan}])
def test_wishes_that_nothing_fulfils_are_refused(wish: dict[str, float]):
    with pytest.raises(SettingError, match="give a number above 0"):
        Wish(**wish)
