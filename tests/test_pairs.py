import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import generators

from wembed import Measures, SettingError, Split
from wembed.transport.pairs import (
    CLIQUE,
    Cliques,
    Listed,
    PairPlan,
    _unrank,
    all_pairs,
    clique_pairs,
    listed_pairs,
    random_pairs,
    split_pairs,
)

members = st.integers(2, 60).flatmap(
    lambda count: generators().map(lambda rng: np.sort(rng.permutation(200)[:count]).astype(np.int64))
)


def whole(plan) -> np.ndarray:
    return plan.take(0, len(plan))


def distinct(pairs: np.ndarray) -> int:
    return len(np.unique(pairs, axis=0))


def check_pairs(pairs: np.ndarray, members: np.ndarray) -> None:
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert np.isin(pairs, members).all()


# ---- the numbering of pairs


@given(st.integers(2, 40))
def test_ranks_number_the_pairs_column_after_column(size):
    first, second = _unrank(np.arange(size * (size - 1) // 2), size)
    assert list(zip(first, second, strict=True)) == [(i, j) for j in range(size) for i in range(j)]


@given(st.integers(2, 3_000_000_000), st.integers(0, 3_000_000_000))
def test_ranks_are_right_at_the_corners_up_to_billions_of_measures(second, first):
    assume(first < second)
    corners = [0, first, second - 1]
    ranks = np.array([second * (second - 1) // 2 + corner for corner in corners])
    i, j = _unrank(ranks, second + 1)
    assert i.tolist() == corners
    assert j.tolist() == [second] * 3


def test_ranks_are_right_around_a_million_million():
    ranks = 10**12 + np.arange(-2000, 2000)
    i, j = _unrank(ranks, 2_000_000)
    assert ((i >= 0) & (i < j)).all()
    np.testing.assert_array_equal(j * (j - 1) // 2 + i, ranks)


# ---- families of pairs


@given(members)
def test_all_pairs_are_each_pair_once(chosen):
    pairs = whole(all_pairs(chosen))
    check_pairs(pairs, chosen)
    assert len(pairs) == distinct(pairs) == len(chosen) * (len(chosen) - 1) // 2


def test_one_measure_has_no_pairs():
    assert len(all_pairs(np.array([3]))) == 0
    assert whole(all_pairs(np.array([3]))).shape == (0, 2)


@given(members, st.integers(1, 300), generators())
def test_random_pairs_are_different_and_as_many_as_asked(chosen, count, rng):
    total = len(chosen) * (len(chosen) - 1) // 2
    pairs = whole(random_pairs(chosen, count, rng))
    check_pairs(pairs, chosen)
    assert len(pairs) == distinct(pairs) == min(count, total)


def test_random_pairs_of_many_measures_need_no_list_of_all():
    pairs = whole(random_pairs(np.arange(10_000_000), 1000, np.random.default_rng(0)))
    assert distinct(pairs) == 1000
    assert pairs.max() > 9_000_000


def test_random_pairs_are_uniform():
    rng = np.random.default_rng(0)
    for count in (1, 5):  # by rejection, and from a list of all
        drawn = np.concatenate([whole(random_pairs(np.arange(6), count, rng)) for _ in range(3000 // count)])
        _, seen = np.unique(drawn, axis=0, return_counts=True)
        assert len(seen) == 15
        assert seen.min() > 145  # 200 each; the deviation is 14
        assert seen.max() < 255


@given(members, st.integers(1, 3000), generators())
def test_cliques_hold_pairs_of_members_and_about_as_many_as_asked(chosen, count, rng):
    plan = clique_pairs(chosen, count, rng)
    total = len(chosen) * (len(chosen) - 1) // 2
    per_clique = CLIQUE * (CLIQUE - 1) // 2
    pairs = whole(plan)
    check_pairs(pairs, chosen)
    assert len(pairs) == len(plan)
    assert min(count, total) - per_clique < len(pairs) <= max(min(count, total), per_clique)


def test_cliques_use_every_member_before_any_again():
    plan = clique_pairs(np.arange(160), 28 * 50, np.random.default_rng(0))
    assert isinstance(plan, Cliques)
    uses = np.bincount(plan.members.ravel(), minlength=160)
    assert plan.members.shape == (50, CLIQUE)
    assert set(uses) == {2, 3}
    assert all(len(set(clique)) == CLIQUE for clique in plan.members.tolist())
    assert len({frozenset(clique) for clique in plan.members.tolist()}) == 50  # not the same company again


def test_asking_for_more_pairs_than_there_are_gives_all():
    assert distinct(whole(clique_pairs(np.arange(20), 10_000, np.random.default_rng(0)))) == 190


@pytest.mark.parametrize("pairs", [[(2, 1), (0, 3)], np.array([[2, 1], [0, 3]], dtype=np.uint8), ((2, 1), (0, 3))])
def test_listed_pairs_are_a_user_s_own_with_the_smaller_first(pairs):
    plan = Listed(listed_pairs(list(pairs) if isinstance(pairs, tuple) else pairs, 4))
    assert whole(plan).tolist() == [[1, 2], [0, 3]]
    assert whole(plan).dtype == np.int64


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (np.array([0, 1]), "shape"),
        (np.array([[0, 1, 2]]), "shape"),
        (np.array([[0.0, 1.0]]), "type float64"),
        (np.array([["a", "b"]]), "type"),
        (np.array([[0, 1], [1, 4]]), r"pair 1 is \(1, 4\) and there are 4 measures"),
        (np.array([[0, 1], [0, 1], [-1, 2]]), r"pair 2 is \(-1, 2\)"),
        (np.array([[0, 2**63]], dtype=np.uint64), "pair 0"),
    ],
)
def test_listed_pairs_that_are_no_pairs_are_refused(pairs, sentence):
    with pytest.raises(SettingError, match=sentence):
        listed_pairs(pairs, 4)


def test_no_pairs_at_all_are_no_pairs():
    assert listed_pairs(np.empty((0, 2), dtype=int), 4).shape == (0, 2)


# ---- plans


SEGMENTS = {
    "cliques": lambda rng: Cliques(np.stack([rng.permutation(30)[:4] for _ in range(5)]).astype(np.int64)),
    "all": lambda rng: all_pairs(np.arange(7)),
    "one": lambda rng: all_pairs(np.array([5])),
    "listed": lambda rng: Listed(rng.integers(0, 30, (9, 2))),
    "empty": lambda rng: Listed(np.empty((0, 2), dtype=np.int64)),
}
segments = st.lists(st.sampled_from(sorted(SEGMENTS)), max_size=4)


@given(segments, generators(), st.integers(0, 130), st.integers(0, 130))
def test_taking_a_range_is_slicing_the_whole_list(segments, rng, start, stop):
    plan = PairPlan(tuple(SEGMENTS[segment](rng) for segment in segments))
    assert whole(plan).shape == (len(plan), 2)
    start, stop = min(start, len(plan)), min(stop, len(plan))
    np.testing.assert_array_equal(plan.take(start, stop), whole(plan)[start:stop])


def test_the_digest_tells_pairs_kinds_and_shapes_apart():
    plans = [
        (Listed(np.array([[0, 1], [2, 3]])),),
        (Listed(np.array([[2, 3], [0, 1]])),),
        (Listed(np.array([[0, 1]])), Listed(np.array([[2, 3]]))),
        (Cliques(np.array([[0, 1], [2, 3]])),),
        (Cliques(np.array([[0, 1, 2, 3]])),),
    ]
    assert len({PairPlan(segments).digest() for segments in plans}) == len(plans)


@pytest.mark.parametrize("count", [1, 50, 400, 5000])
def test_pairs_never_cross_the_parts_of_a_split(count):
    split = Split.draw(300, seed=1)
    part_of = np.empty(300, dtype=int)
    for k, part in enumerate(split.parts().values()):
        part_of[part] = k
    pairs = whole(split_pairs(split, count, seed=1))
    assert (part_of[pairs[:, 0]] == part_of[pairs[:, 1]]).all()
    assert set(part_of[pairs[:, 0]]) == {0, 1, 2, 3}
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_the_parts_get_pairs_by_their_share_of_the_measures():
    split = Split.draw(1000, validation=0.2, test=0.3, calibration=0.1, seed=0)
    plan = split_pairs(split, 10_000, seed=0)
    np.testing.assert_allclose([len(segment) for segment in plan.segments], [4000, 2000, 3000, 1000], atol=28)
    assert abs(len(plan) - 10_000) < 4 * 28


@pytest.mark.parametrize(("pairs", "expected"), [(2_000, 200), (4_000, 400), (100_000, 4_950)])
def test_few_calibration_measures_get_pairs_enough_to_calibrate_on(pairs, expected):
    split = Split.draw(2_000, calibration=0.01)
    assert len(split.calibration) == 100
    calibrating = whole(PairPlan(split_pairs(split, pairs, seed=0).segments[3:]))
    assert (
        len(calibrating) == len(np.unique(calibrating, axis=0)) == min(expected, 100 * 99 // 2, max(pairs // 10, 100))
    )


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(40, 0.05, 4), (900, 0.05, 90), (1_500, 0.05, 100), (50_000, 0.05, 500), (900, 0.5, 450), (900, 0, 0)],
)
def test_the_calibration_part_is_neither_too_small_to_tell_nor_larger_than_needed(count, share, expected):
    split = Split.draw(count, calibration=share)
    assert len(split.calibration) == expected
    assert len(split.train) == count - 2 * round(0.1 * count) - expected


def test_a_split_without_a_test_part_gives_pairs_to_the_others():
    split = Split.draw(100, test=0, seed=0)
    assert len(split.test) == 0
    first = split_pairs(split, 500, seed=0)
    assert len(first.segments) == 3
    assert np.isin(whole(PairPlan(first.segments[2:])), split.calibration).all()
    second = split_pairs(split, 500, seed=0, earlier=[first])
    assert np.isin(whole(PairPlan(second.segments[2:])), split.calibration).all()


def test_the_seed_and_nothing_else_draws_the_pairs():
    def drawn(seed):
        np.random.default_rng(seed).random(3)  # somebody else's randomness
        return split_pairs(Split.draw(200, seed=seed), 1000, seed=seed).digest()

    split = Split.draw(200, seed=0)
    assert split_pairs(split, 1000, seed=0).digest() != split_pairs(split, 1000, seed=1).digest()
    assert drawn(0) == drawn(0)
    assert len({drawn(seed) for seed in range(5)}) == 5


# ---- splits


@given(st.integers(16, 500), st.floats(0.1, 0.4), st.floats(0.1, 0.4), st.integers(0, 2**32))
def test_a_split_is_disjoint_and_covers_every_measure(count, validation, test, seed):
    split = Split.draw(count, validation=validation, test=test, seed=seed)
    together = np.concatenate(list(split.parts().values()))
    assert sorted(together.tolist()) == list(range(count))
    assert len(split.validation) == round(count * validation)
    assert len(split.test) == round(count * test)
    assert all((np.diff(part) > 0).all() for part in split.parts().values())


@pytest.mark.parametrize(
    ("validation", "test", "said"),
    [
        (0, 0.1, "^validation=0; give a share of the measures, above 0 to below 1$"),
        (-0.1, 0.1, "^validation=-0.1; give a share of the measures, above 0 to below 1$"),
        (1.0, 0, "^validation=1.0; give a share of the measures, above 0 to below 1$"),
        (0.5, 0.5, "leave no measures to train on"),
        (0.6, 0.5, "leave no measures to train on"),
        (0.1, 1.0, "^test=1.0; give a share of the measures, from 0 to below 1$"),
        (0.1, -0.1, "^test=-0.1; give a share of the measures, from 0 to below 1$"),
        (np.nan, 0, "^validation=nan; give a share of the measures, above 0 to below 1$"),
    ],
)
def test_shares_that_leave_a_part_empty_are_refused(validation, test, said):
    with pytest.raises(SettingError, match=said):
        Split.draw(1000, validation=validation, test=test)


@pytest.mark.parametrize("calibration", [-0.1, 1])
def test_a_wrong_share_is_named(calibration):
    with pytest.raises(SettingError, match=f"^calibration={calibration}; give a share of the measures, from 0"):
        Split.draw(1000, calibration=calibration)


def enough(count: int, validation: float, test: float) -> bool:
    try:
        split = Split.draw(count, validation=validation, test=test)
    except SettingError:
        return False
    return min(len(split.train), len(split.validation), len(split.test) if test else 2) >= 2


shares = st.sampled_from([0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.475, 0.6, 0.8])


@given(st.integers(0, 40), shares, st.one_of(st.just(0.0), shares))
def test_too_few_measures_are_told_how_many_are_enough_and_that_many_are(count, validation, test):
    assume(validation + test < 0.94)
    assume(not enough(count, validation, test))
    with pytest.raises(SettingError, match="too few") as caught:
        Split.draw(count, validation=validation, test=test)
    needed = int(re.search(r"at least (\d+)", str(caught.value))[1])
    assert needed > count
    assert all(enough(more, validation, test) for more in range(needed, needed + 15))
    assert not enough(needed - 1, validation, test)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_a_handful_of_measures_cannot_be_split(count):
    with pytest.raises(SettingError, match=f"{count} measures are too few"):
        Split.draw(count)


def test_of_equal_measures_only_the_first_is_in_a_part():
    points = np.random.default_rng(0).normal(size=(60, 5, 2))
    order = np.concatenate([np.arange(60), np.arange(0, 60, 2), [0] * 10])
    measures = Measures.from_point_clouds(list(points[order]))
    split = Split.of(measures, seed=3)
    for name, part in Split.draw(60, seed=3).parts().items():
        np.testing.assert_array_equal(split.parts()[name], part)  # the others come after them
    turned = Split.of(measures[np.arange(100)[::-1]], seed=3)
    named = order[::-1][np.concatenate(list(turned.parts().values()))]
    assert sorted(named) == list(range(60))
    with pytest.raises(SettingError, match="1 measures, without 99 that repeat one of them, are too few"):
        Split.of(measures[[0] * 100])


def test_random_pairs_can_be_drawn_in_place_of_cliques():
    split = Split.draw(400)
    plan = split_pairs(split, 1_000, 0, draw="random")
    pairs = whole(plan)
    assert len(np.unique(pairs, axis=0)) == len(pairs) == pytest.approx(1_000, abs=150)
    for members in split.parts().values():
        ends = np.isin(pairs, members)
        assert (ends[:, 0] == ends[:, 1]).all()
    _, times = np.unique(pairs, return_counts=True)
    assert len(times) > 350  # cliques would show each measure seven times or not at all
    assert len(whole(split_pairs(Split.draw(30), 10**6, 0, draw="random"))) == 21 * 20 // 2 + 3 + 3 + 3


def test_a_later_round_draws_other_cliques():
    split = Split.draw(4_000)
    first = split_pairs(split, 5_000, 0)
    second = whole(split_pairs(split, 5_000, 0, earlier=[first]))
    again = np.isin(second @ np.array([4_000, 1]), whole(first) @ np.array([4_000, 1]))
    assert again.mean() < 0.05
