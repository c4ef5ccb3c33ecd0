"""What an Embedder says of its own errors, and what it solves to keep a promise."""

import copy
from pathlib import Path

import numpy as np
import pytest
from halved import halved_digits
from scipy.stats import binom

import wembed
from wembed import Embedder, Index, Measures, SettingError, TrainingSettings
from wembed.records import Distances
from wembed.transport.bounds import Bounds, Sketcher
from wembed.trust import Asked, _ends, _worth_solving


@pytest.fixture(scope="module")
def calibrated(some_digits: Measures, digit_store: wembed.DistanceStore, quick: TrainingSettings) -> Embedder:
    """A model like `fitted`, with ten references and intervals from digits it has not seen."""
    embedder = Embedder(encoder="quantiles", training=quick, references=10).fit(some_digits, distances=digit_store)
    return embedder.calibrate(halved_digits()[0][400:560], pairs=1_600)


@pytest.fixture(scope="module")
def unseen() -> Measures:
    return halved_digits()[0][700:760]


@pytest.fixture(scope="module")
def exact(unseen: Measures) -> np.ndarray:
    pairs = np.stack(np.triu_indices(len(unseen), 1), axis=1)
    between = np.zeros((len(unseen), len(unseen)))
    between[tuple(pairs.T)] = wembed.exact_distances(unseen, pairs)
    return between + between.T


@pytest.mark.parametrize("refine", [False, True])
def test_intervals_hold_what_they_promise_on_unseen_digits(
    calibrated: Embedder, unseen: Measures, exact: np.ndarray, refine: bool
) -> None:
    above = np.triu_indices(len(unseen), 1)
    for level in (0.6, 0.9):
        found = calibrated.pairwise(unseen, interval=level, refine=refine)
        inside = (found.lower <= exact) & (exact <= found.upper)
        assert inside[above].mean() == pytest.approx(level, abs=0.1)
        assert (found.lower <= found.estimate).all()
        assert (found.estimate <= found.upper).all()
        assert found.solved == 0
    np.testing.assert_allclose(found.predicted, calibrated.pairwise(unseen), atol=2e-3)
    for array in found.arrays.values():
        np.testing.assert_array_equal(array, array.T)
    assert not found.upper.diagonal().any()


def test_references_narrow_the_intervals_and_correct_the_prediction(
    calibrated: Embedder, unseen: Measures, exact: np.ndarray
) -> None:
    above = np.triu_indices(len(unseen), 1)
    plain, refined = (calibrated.pairwise(unseen, interval=0.9, refine=refine) for refine in (False, True))
    widths = [np.median((found.upper - found.lower)[above]) for found in (plain, refined)]
    assert widths[1] < 0.75 * widths[0]
    off = [np.abs(distances - exact)[above].mean() for distances in (plain.predicted, refined.estimate)]
    assert off[1] < 0.8 * off[0]


def test_references_are_used_where_they_pay(calibrated: Embedder, unseen: Measures) -> None:
    asked = calibrated.pairwise(unseen, interval=0.9)
    refined = calibrated.pairwise(unseen, interval=0.9, refine=True)
    np.testing.assert_array_equal(asked.lower, refined.lower)  # 60 measures in 1,770 pairs
    few = calibrated.distance(unseen[:20], unseen[20:40], interval=0.9)
    np.testing.assert_array_equal(
        few.lower, calibrated.distance(unseen[:20], unseen[20:40], interval=0.9, refine=False).lower
    )


def test_what_is_uncertain_is_solved(calibrated: Embedder, unseen: Measures, exact: np.ndarray) -> None:
    above = np.triu_indices(len(unseen), 1)
    found = calibrated.pairwise(unseen, tolerance=0.02)
    assert found.solved == found.exact[above].sum()
    assert 0 < found.solved < len(above[0])
    assert found.exact.diagonal().all()
    np.testing.assert_array_equal(found.exact, found.exact.T)
    np.testing.assert_allclose(found.estimate[found.exact], exact[found.exact], rtol=1e-9)
    np.testing.assert_array_equal(found.lower[found.exact], found.upper[found.exact])
    within = np.abs(found.estimate - exact) <= 0.02 * exact
    assert within[above].mean() > 0.9
    left = above[0][~found.exact[above]], above[1][~found.exact[above]]
    assert (found.estimate[left] <= 1.02 * found.lower[left] * (1 + 1e-9)).all()
    assert (found.estimate[left] >= 0.98 * found.upper[left] * (1 - 1e-9)).all()
    assert calibrated.pairwise(unseen, tolerance=1e-9).exact[above].all()
    tolerant = calibrated.pairwise(unseen, tolerance=9.0, refine=False)
    near = tolerant.predicted < calibrated.trust.near  # nothing says how near these are
    np.testing.assert_array_equal(tolerant.exact[above], near[above])
    assert tolerant.solved == near[above].sum() < 0.02 * len(above[0])


def test_what_may_be_too_short_is_as_uncertain_as_what_may_be_too_long() -> None:
    estimate, lower, upper = np.full(4, 10.0), np.array([9.9, 9.0, 9.9, 9.9]), np.array([10.1, 10.1, 12.0, 14.0])
    found = Distances(estimate, estimate, lower, upper, np.array([False, False, False, True]), np.zeros(4))
    assert _worth_solving(found, Asked(tolerance=0.02)).tolist() == [2, 1]
    assert _worth_solving(found, Asked(interval=0.9)).tolist() == []


def test_a_budget_is_spent_where_the_interval_is_widest(calibrated: Embedder, unseen: Measures) -> None:
    before = calibrated.distance(unseen[:30], unseen[30:], interval=0.9)
    found = calibrated.distance(unseen[:30], unseen[30:], budget=7)
    assert found.solved == 7
    open_ = np.maximum(before.estimate / before.lower - 1, 1 - before.estimate / before.upper)
    assert open_[found.exact].min() >= open_[~found.exact].max()
    assert calibrated.distance(unseen[:30], unseen[30:], tolerance=1e-9, budget=4).solved == 4
    assert calibrated.distance(unseen[:30], unseen[30:], tolerance=9.0, budget=4).solved == 0


def test_two_collections_make_a_rectangle(calibrated: Embedder, unseen: Measures) -> None:
    found = calibrated.pairwise(unseen[:4], unseen[4:9], interval=0.8)
    assert found.estimate.shape == found.exact.shape == found.unusualness.shape == (4, 5)
    one = calibrated.distance(unseen[[2]], unseen[[7]], interval=0.8)
    assert one.lower[0] == pytest.approx(found.lower[2, 3], rel=1e-6)
    same = calibrated.distance(unseen[:3], unseen[:3], interval=0.9)
    assert not same.estimate.any()
    assert not same.upper.any()
    assert calibrated.distance(unseen[:0], unseen[:0], interval=0.9).lower.shape == (0,)


def test_a_prediction_can_be_put_within_certified_bounds(
    calibrated: Embedder, unseen: Measures, exact: np.ndarray
) -> None:
    bounds = calibrated.bounds(unseen[:30], unseen[30:])
    truth = exact[np.arange(30), np.arange(30, 60)]
    assert (bounds.lower <= truth).all()
    assert (truth <= bounds.upper).all()
    assert np.median(bounds.upper / truth) < 1.06  # the best of ten references
    assert np.median(bounds.lower / truth) > 0.8


def test_a_measure_that_comes_often_is_solved_against_the_references_once(
    calibrated: Embedder, unseen: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = calibrated.pairwise(unseen[:1], unseen[:20], refine=True)
    bounds = calibrated.bounds(unseen[:1], unseen[7:8])
    solved, whole = [], Sketcher.__call__

    def counted(self: Sketcher, measures: Measures, *rest: object) -> object:
        solved.append(len(measures))
        return whole(self, measures, *rest)

    monkeypatch.setattr(Sketcher, "__call__", counted)
    often = calibrated.distance(unseen[[0] * 20], unseen[:20], refine=True)
    assert solved == [1, 20]
    for name, array in once.arrays.items():
        np.testing.assert_allclose(getattr(often, name), array[0], rtol=1e-6, atol=1e-5)  # rounding of vectors
    again = calibrated.bounds(unseen[[0] * 20], unseen[[7] * 20])
    assert solved == [1, 20, 1, 1]
    assert np.ptp(again.upper) == 0
    assert (again.lower[0], again.upper[0]) == (bounds.lower[0], bounds.upper[0])
    few = calibrated.distance(unseen[[0, 1] * 40], unseen[[2, 3] * 40], interval=0.9)  # four measures in 80 pairs
    assert solved == [1, 20, 1, 1, 2, 2]
    assert np.isfinite(few.lower).all()


def test_of_many_pairs_some_at_random_are_taken() -> None:
    pairs = np.stack(np.triu_indices(40, 1), axis=1)  # the first 39 of them share a measure
    some, distances = Embedder()._some(pairs, np.arange(len(pairs)).astype(float), 60)
    np.testing.assert_array_equal(pairs[distances.astype(int)], some)
    assert len(some) == 60
    assert np.bincount(some.ravel()).max() < 15


def test_a_loaded_model_answers_alike(calibrated: Embedder, unseen: Measures, tmp_path: Path) -> None:
    calibrated.save(tmp_path)
    loaded = wembed.load(tmp_path)
    for refine in (False, True):
        kept, again = (m.pairwise(unseen[:9], interval=0.9, refine=refine) for m in (calibrated, loaded))
        for name, array in vars(kept).items():
            np.testing.assert_array_equal(array, getattr(again, name))


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("change", ["moved", "noise", "fewer atoms", "larger", "split atom"])
def test_of_near_copies_no_more_is_said_than_that_they_are_near(
    calibrated: Embedder, unseen: Measures, change: str, refine: bool
) -> None:
    rng = np.random.default_rng(0)
    points, weights = [m.support.astype(float) for m in unseen], [m.weights for m in unseen]
    match change:
        case "moved":
            points = [p + [0.05, 0] for p in points]
        case "noise":
            points = [p + 0.2 * rng.normal(size=p.shape) for p in points]
        case "fewer atoms":
            points, weights = [p[1:] for p in points], [w[1:] for w in weights]
        case "larger":
            points = [1.03 * p for p in points]
        case _:
            points = [np.concatenate([p[:1], p]) for p in points]
            weights = [np.concatenate([[w[0] / 2, w[0] / 2], w[1:]]) for w in weights]
    copies = Measures.from_point_clouds(points, weights)
    pairs = np.stack([np.arange(60), np.arange(60) + 60], axis=1)
    exact = wembed.exact_distances(Measures.concatenate([unseen, copies]), pairs)
    found = calibrated.distance(unseen, copies, interval=0.9, refine=refine)
    assert (found.predicted < calibrated.trust.near).all()
    held = (found.lower <= exact + 1e-9) & (exact <= found.upper)
    assert held.mean() > 0.95
    assert (found.lower <= found.estimate).all()
    assert (found.estimate <= found.upper).all()
    if refine:
        np.testing.assert_allclose(found.lower, calibrated.bounds(unseen, copies).lower, rtol=1e-8, atol=1e-12)
    else:
        np.testing.assert_array_equal(found.lower, 0)
        np.testing.assert_array_equal(found.estimate, found.predicted)
        assert calibrated.distance(unseen, copies, tolerance=0.02, refine=False).exact.all()


def test_an_interval_beyond_the_range_goes_by_the_end_of_the_range(calibrated: Embedder, unseen: Measures) -> None:
    trust, level = calibrated.trust, 0.9
    traits = np.zeros((2, 2))
    assert trust.plain is not None
    lower, upper = trust._interval(trust.plain, level, traits, np.array([0.3, 1.0]) * trust.near)
    assert upper[0] == upper[1] > trust.near
    assert lower[0] == 0 < lower[1]
    lower, upper = trust._interval(trust.plain, level, traits, np.array([1.0, 50.0]) * trust.far)
    assert upper[1] >= 50 * upper[0] > lower[0] > 0
    assert lower[1] <= 50 * lower[0]
    assert lower[1] <= 50 * trust.far <= upper[1]
    np.testing.assert_allclose(upper[1] - lower[1], 50 * (upper[0] - lower[0]), rtol=0.3)


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("shift", [20, 10_000])
def test_measures_moved_far_apart_are_predicted_well_and_said_to_be(
    calibrated: Embedder, unseen: Measures, shift: float, refine: bool
) -> None:
    moved = Measures.from_point_clouds([m.support + [shift, 0] for m in unseen], [m.weights for m in unseen])
    pairs = np.stack([np.arange(30), np.arange(30, 60) + 60], axis=1)
    exact = wembed.exact_distances(Measures.concatenate([unseen, moved]), pairs)
    found = calibrated.distance(unseen[:30], moved[30:], interval=0.9, refine=refine)
    assert (found.predicted > calibrated.trust.far).all()
    held = (found.lower <= exact) & (exact <= found.upper)
    assert held.mean() > 0.9
    assert (np.abs(found.estimate / exact - 1) <= np.abs(found.predicted / exact - 1) + 1e-9).all()
    if not refine:
        np.testing.assert_array_equal(found.estimate, found.predicted)
    sure = calibrated.distance(unseen[:30], moved[30:], tolerance=0.02, refine=refine)
    assert (np.abs(sure.estimate / exact - 1) <= 0.02).all()


def test_equal_pairs_count_once_in_a_budget(calibrated: Embedder, unseen: Measures) -> None:
    a, b = unseen[[0] * 10 + [1, 2, 3]], unseen[[5] * 10 + [6, 7, 8]]
    found = calibrated.distance(a, b, budget=3, refine=False)
    assert found.solved == 3
    spent = calibrated.distance(unseen[:4], unseen[5:9], budget=3, refine=False)
    np.testing.assert_array_equal(found.exact[9:], spent.exact)
    assert np.ptp(found.exact[:10].astype(int)) == 0
    assert calibrated.distance(a, b, budget=0).solved == 0
    twice = calibrated.pairwise(unseen[[*range(10)] * 2], budget=45, refine=False)
    assert twice.solved == 45
    assert twice.exact.all()


def test_nothing_is_calibrated_on_measures_next_to_each_other(run_folder: Path, unseen: Measures) -> None:
    rng = np.random.default_rng(0)
    points = unseen[0].support.astype(float)
    next_to = Measures.from_point_clouds([points + 1e-9 * rng.normal(size=points.shape) for _ in range(40)])
    with pytest.raises(SettingError, match="nearly all of these measures are at distance 0"):
        wembed.load(run_folder).calibrate(next_to, pairs=200)


def test_equal_pairs_are_solved_once(calibrated: Embedder, unseen: Measures) -> None:
    a, b = unseen[[0, 1, 0, 2]], unseen[[1, 0, 1, 3]]
    found = calibrated.distance(a, b, tolerance=1e-9, refine=False)
    assert found.solved == 2
    assert found.exact.all()
    together = Measures.concatenate([a, b])
    np.testing.assert_array_equal(
        found.estimate, wembed.exact_distances(together, [(0, 4), (0, 4), (0, 4), (3, 7)], n_jobs=1)
    )


def test_measures_that_nearly_equal_are_not_certified_to_be_at_distance_0(
    calibrated: Embedder, unseen: Measures
) -> None:
    weights = [m.weights.copy() for m in unseen]
    for w in weights:
        w[[0, -1]] += [4e-10, -4e-10]
    nearly = Measures.from_point_clouds([m.support for m in unseen], weights)
    alike = unseen.digests() == nearly.digests()
    assert alike.any()  # told apart to nine decimals
    a, b = unseen[alike], nearly[alike]
    exact = _of_pairs(a, b)
    assert exact.min() > 1e-6
    bounds, found = calibrated.bounds(a, b), calibrated.distance(a, b, interval=0.9)
    assert (bounds.lower <= exact).all()
    assert (exact <= bounds.upper).all()
    assert not found.exact.any()
    np.testing.assert_allclose(calibrated.distance(a, b, tolerance=1e-3).estimate, exact, rtol=1e-6)


def test_a_measure_that_was_rounded_once_more_is_the_same(calibrated: Embedder, unseen: Measures) -> None:
    rng = np.random.default_rng(0)
    order = [rng.permutation(len(one.weights)) for one in unseen]
    again = Measures.from_point_clouds(
        [one.support[own] for one, own in zip(unseen, order, strict=True)],
        [0.731 * one.weights[own] for one, own in zip(unseen, order, strict=True)],
    )
    shuffled = Measures.concatenate([unseen[:1], again[1:]])
    bitwise = unseen.digests(exact=True) == shuffled.digests(exact=True)
    assert 0 < bitwise.sum() < len(unseen)  # else nothing is tried
    for refine in (False, True):
        found = calibrated.distance(unseen, shuffled, tolerance=1e-3, refine=refine)
        assert found.exact.all()
        assert found.solved == 0
        assert not found.estimate.any()
        assert not found.upper.any()
    bounds, exact = calibrated.bounds(unseen, shuffled), _of_pairs(unseen, shuffled)
    assert (bounds.lower <= exact + 1e-12).all()
    assert (exact <= bounds.upper).all()
    assert not bounds.upper[bitwise].any()
    other = calibrated.distance(unseen[[0, 1, 2]], shuffled[[0, 2, 1]], interval=0.9)
    assert other.exact.tolist() == [True, False, False]


def _of_pairs(a: Measures, b: Measures) -> np.ndarray:
    pairs = np.stack([np.arange(len(a)), np.arange(len(a)) + len(a)], axis=1)
    return wembed.exact_distances(Measures.concatenate([a, b]), pairs)


def test_bounds_of_a_measure_and_itself_are_0(calibrated: Embedder, unseen: Measures) -> None:
    bounds = calibrated.bounds(unseen[[0, 1, 2]], unseen[[0, 3, 2]])
    assert bounds.upper[[0, 2]].tolist() == bounds.lower[[0, 2]].tolist() == [0, 0]
    assert bounds.lower[1] > 0


def test_other_measures_with_the_same_vector_are_not_taken_for_the_same(
    calibrated: Embedder, unseen: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = np.zeros((1, calibrated.dim_), dtype=np.float32)
    monkeypatch.setattr(Embedder, "encode", lambda self, measures: every.repeat(len(measures), axis=0))
    monkeypatch.setattr("wembed.embedder.warn_of_unusual", lambda *_: None)
    pair = unseen[:1], unseen[1:2]
    (exact,) = wembed.exact_distances(unseen, [(0, 1)])
    assert calibrated.distance(*pair, interval=0.9).upper[0] > 0
    assert calibrated.distance(*pair, refine=True).upper[0] >= exact
    assert calibrated.distance(*pair, tolerance=1e-3).estimate[0] == pytest.approx(exact)
    same = calibrated.distance(pair[0], pair[0], interval=0.9)
    assert same.exact.all()
    assert not same.upper.any()


def test_an_interval_outside_the_bounds_gives_way_to_them(calibrated: Embedder) -> None:
    bounds = Bounds(np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0]))
    same = np.zeros(3, dtype=bool)
    lower, upper = _ends(np.array([0.1, 0.5, 2.5]), np.array([0.9, 1.5, 3.0]), same, bounds)
    np.testing.assert_allclose(lower, [1.0, 1.0, 1.0], rtol=2e-9)
    np.testing.assert_allclose(upper, [2.0, 1.5, 2.0], rtol=2e-9)
    assert (lower <= bounds.lower).all()  # the exact distance may be rounded past a bound that it reaches
    assert upper[2] >= bounds.upper[2]


def test_no_queries_have_no_neighbours(calibrated: Embedder, unseen: Measures) -> None:
    index = wembed.Index(calibrated, unseen)
    for way in ({"recall": 0.9}, {"certified": True}, {}):
        assert index.query(unseen[:0], k=3, **way).ids.shape == (0, 3)


def test_without_calibration_there_are_no_intervals(some_digits: Measures) -> None:
    bare = Embedder(pairs=300, calibration=0, references=0, training=TrainingSettings(steps=5), n_jobs=1)
    bare.fit(some_digits[:100])
    with pytest.raises(SettingError, match=r"and 20 of calibration measures, and it has [1-9][0-9]+ and 0;"):
        bare.distance(some_digits[:2], some_digits[2:4], interval=0.9)
    with pytest.raises(SettingError, match="fitted with references=0"):
        bare.pairwise(some_digits[:2], interval=0.9, refine=True)
    with pytest.raises(SettingError, match="fitted with references=0"):
        bare.bounds(some_digits[:2], some_digits[:2])
    with pytest.raises(SettingError, match="are too few to calibrate on"):
        bare.calibrate(some_digits[100:110])
    bare.errors_ = {"coverage": {"0.9": 0.5}, "pairs": 3}
    bare.calibrate(some_digits[100:160], pairs=400)
    assert bare.errors_ == {"pairs": 3}  # what is known of other intervals is forgotten
    assert bare.pairwise(some_digits[160:165], interval=0.9).upper.max() > 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"interval": 1.0}, "give a share between 0 and 1"),
        ({"interval": 90}, "give a share between 0 and 1"),
        ({"tolerance": 0}, "tolerance=0; give a number above 0"),
        ({"tolerance": float("inf")}, "tolerance=inf; give a number above 0"),
        ({"budget": -1}, "budget=-1; give a whole number of at least 0"),
        ({"budget": True}, "budget=True; give a whole number"),
        ({"interval": 0.9999}, "too high a share for a model calibrated on 80 measures"),
    ],
)
def test_impossible_wishes_are_refused(calibrated: Embedder, unseen: Measures, asked: dict, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        calibrated.distance(unseen[:2], unseen[2:4], **asked)


def test_measures_that_come_often_calibrate_once(run_folder: Path, unseen: Measures) -> None:
    often = Measures.concatenate([unseen[:30]] * 4)
    once, again = (wembed.load(run_folder / "model").calibrate(m, pairs=200) for m in (unseen[:30], often))
    assert again.trust.calibrated_on == once.trust.calibrated_on == 15
    np.testing.assert_array_equal(
        once.pairwise(unseen[30:40], interval=0.8).upper, again.pairwise(unseen[30:40], interval=0.8).upper
    )


def test_calibration_measures_are_not_unseen(fitted: Embedder, some_digits: Measures) -> None:
    assert len(fitted.split_.calibration) == 30
    assert len(fitted.unseen(some_digits)) == len(fitted.split_.test)
    with pytest.raises(SettingError, match="give some it has not seen"):
        fitted.unseen(some_digits[fitted.split_.calibration])


def test_calibrating_on_others_than_were_learned_from_is_warned_of(run_folder: Path, unseen: Measures) -> None:
    larger = Measures.from_point_clouds([2 * m.support for m in unseen[:30]], [m.weights for m in unseen[:30]])
    with pytest.warns(wembed.UnusualWarning, match="for measures like these now, and may not hold of others"):
        wembed.load(run_folder / "model").calibrate(larger, pairs=200)


def test_measures_calibrated_on_are_seen_and_those_calibrated_on_before_are_not(
    run_folder: Path, some_digits: Measures, unseen: Measures, tmp_path: Path
) -> None:
    embedder = wembed.load(run_folder / "model")
    own = some_digits[embedder.split_.calibration]
    embedder.calibrate(Measures.concatenate([own, unseen[:10]]), pairs=200)
    assert embedder.trust.calibrated_on == 20  # half of these: its own may be calibrated on again
    embedder.calibrate(unseen[:30], pairs=200).save(tmp_path)
    loaded = wembed.load(tmp_path)
    assert len(loaded.unseen(own)) == len(own)
    np.testing.assert_array_equal(loaded.unseen(unseen).digests(), unseen[30:].digests())
    with pytest.raises(SettingError, match="of which 0 were learned from and 10 repeat another"):
        loaded.calibrate(Measures.concatenate([unseen[:10]] * 2))


def test_an_evaluation_on_measures_that_were_seen_says_so(fitted: Embedder, some_digits: Measures) -> None:
    seen = Measures.concatenate([some_digits[fitted.split_.train[:3]], some_digits[fitted.split_.test]])
    with pytest.warns(wembed.SeenWarning, match=f"3 of {len(seen)} measures") as caught:
        report = wembed.evaluate(copy.copy(fitted), seen, pairs=20, queries=0, n_jobs=1)
    assert caught[0].filename == __file__
    assert report.seen == 3
    assert wembed.evaluate(copy.copy(fitted), seen[3:], pairs=20, queries=0, n_jobs=1).seen == 0


# ---- neighbours


@pytest.fixture(scope="module")
def index(calibrated: Embedder, some_digits: Measures) -> Index:
    return Index(calibrated, some_digits)


@pytest.fixture(scope="module")
def truth(index: Index, unseen: Measures) -> np.ndarray:
    together = Measures.concatenate([unseen[:16], index.measures])
    pairs = np.stack([np.repeat(np.arange(16), 300), 16 + np.tile(np.arange(300), 16)], axis=1)
    return wembed.exact_distances(together, pairs).reshape(16, 300)


def test_certified_neighbours_are_the_true_ones(index: Index, unseen: Measures, truth: np.ndarray) -> None:
    found, truth = index.query(unseen[:8], k=5, certified=True), truth[:8]
    np.testing.assert_allclose(found.distances, np.sort(truth, axis=1)[:, :5], rtol=1e-9)
    np.testing.assert_allclose(np.take_along_axis(truth, found.ids, axis=1), found.distances, rtol=1e-9)
    assert (found.solved >= 5).all()
    assert found.solved.max() < 300


@pytest.mark.parametrize("recall", [0.9, 0.99])
def test_recall_is_at_least_what_was_asked_for(
    index: Index, unseen: Measures, truth: np.ndarray, recall: float
) -> None:
    found = index.query(unseen[:16], k=5, recall=recall)
    fifth = np.sort(truth, axis=1)[:, 4:5]
    missed = (np.take_along_axis(truth, found.ids, axis=1) > fifth * (1 + 1e-9)).sum()
    assert missed <= binom.isf(0.05, 16 * 5, 1 - recall)
    assert found.solved.mean() < 100
    np.testing.assert_allclose(np.take_along_axis(truth, found.ids, axis=1), found.distances, rtol=1e-9)


def test_more_recall_takes_more_solves(index: Index, unseen: Measures) -> None:
    solved = [index.query(unseen[:8], k=5, recall=recall).solved.sum() for recall in (0.5, 0.9, 0.999)]
    assert solved == sorted(solved)
    assert solved[0] < solved[-1]


def test_an_index_keeps_the_model_it_was_made_with(run_folder: Path, unseen: Measures) -> None:
    embedder = wembed.load(run_folder)
    index = Index(embedder, unseen)
    before = index.query(unseen[:3], k=4, recall=0.9)
    embedder.calibrate(unseen[:30])
    embedder.random_state, embedder.pairs, embedder.training = 5, 300, TrainingSettings(steps=5)
    embedder.fit(unseen)
    after = index.query(unseen[:3], k=4, recall=0.9)
    assert index.embedder.trust is not embedder.trust
    np.testing.assert_array_equal(after.ids, before.ids)
    np.testing.assert_array_equal(after.solved, before.solved)
    np.testing.assert_allclose(index.add(unseen[:1]), [len(unseen)])
    np.testing.assert_allclose(index.vectors[-1], index.vectors[0], atol=1e-5)


def test_all_of_a_small_index_can_be_asked_for(index: Index, unseen: Measures, truth: np.ndarray) -> None:
    small = Index(index.embedder, index.measures[:6])
    for way in ({"recall": 0.9}, {"certified": True}):
        found = small.query(unseen[:2], k=6, **way)
        np.testing.assert_allclose(found.distances, np.sort(truth[:2, :6], axis=1), rtol=1e-9)
        assert found.solved.tolist() == [6, 6]


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ({"recall": 1.0}, "for all of them, ask for certified ones"),
        ({"recall": 0.9, "certified": True}, "give one of them"),
        ({"rerank": 9, "certified": True}, "give one of them"),
    ],
)
def test_one_promise_at_a_time(index: Index, unseen: Measures, way: dict, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        index.query(unseen[:1], k=2, **way)
