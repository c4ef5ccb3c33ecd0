import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from strategies import NORMS, generators, lengths, norms, orders

from wembed import ArtifactError, Embedder, GroundCost, Measures, SettingError, TrainingSettings
from wembed.transport import costs
from wembed.transport.costs import METRICS

EARTH = 6371.0088  # km, the mean radius
CITIES = {  # latitude, longitude
    "Paris": (48.8566, 2.3522),
    "London": (51.5074, -0.1278),
    "New York": (40.7128, -74.0060),
    "Tokyo": (35.6762, 139.6503),
    "Sydney": (-33.8688, 151.2093),
    "Suva": (-18.1248, 178.4501),
    "Apia": (-13.8507, -171.7514),
}
KILOMETRES = {  # as atlases give them
    ("Paris", "London"): 344,
    ("London", "New York"): 5570,
    ("New York", "Tokyo"): 10850,
    ("Tokyo", "Sydney"): 7820,
    ("Suva", "Apia"): 1150,  # across the date line
}


def metric_of(cost: GroundCost, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The ground metric, read back from its powers."""
    powers, unit = cost.powers(source, target)
    assert (powers >= 0).all()
    assert powers.max() == 0 or 1e-4 <= powers.max() <= 1e4  # where a solver is safe
    return np.array([[cost.root(power, unit) for power in row] for row in powers.tolist()])


def on_support(points: np.ndarray) -> Measures:
    return Measures.from_histograms(np.ones((2, len(points))), points)


# ---- metrics


@given(generators(), norms, orders, st.integers(1, 5))
def test_a_norm_is_what_its_formula_says(rng, metric, order, dim):
    x, y = rng.normal(size=(7, dim)), rng.normal(size=(4, dim))
    np.testing.assert_allclose(metric_of(GroundCost(metric, order), x, y), lengths(x[:, None] - y, metric), rtol=1e-12)


@given(generators(), norms, orders)
def test_a_norm_is_what_scipy_says(rng, metric, order):
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(5, 3))
    np.testing.assert_allclose(metric_of(GroundCost(metric, order), x, y), cdist(x, y, metric), rtol=1e-12)


@pytest.mark.parametrize(("pair", "kilometres"), KILOMETRES.items())
def test_great_circles_join_cities(pair, kilometres):
    source, target = (np.array([CITIES[name]]) for name in pair)
    degrees = metric_of(GroundCost("great-circle-degrees", 1), source, target)[0, 0]
    radians = metric_of(GroundCost("great-circle", 1), np.deg2rad(source), np.deg2rad(target))[0, 0]
    assert radians * EARTH == pytest.approx(kilometres, rel=1e-3, abs=1)
    assert np.deg2rad(degrees) == pytest.approx(radians, rel=1e-13)


@pytest.mark.parametrize(
    ("source", "target", "angle"),
    [
        ((0, 0), (0, 90), 90),
        ((90, 0), (-90, 77), 180),
        ((90, 0), (90, 123), 0),  # every longitude names the same pole
        ((0, 10), (0, -170), 180),
        ((0, 179.5), (0, -179.5), 1),  # across the date line
        ((0, 5), (0, 365), 0),  # longitudes go round
        ((60, 0), (60, 180), 60),  # over the pole
        ((10, 20), (55, 20), 45),
        ((0, 0), (1e-9, 0), 1e-9),  # the law of cosines would say 0
        ((45, 45), (45, 45), 0),
    ],
)
def test_great_circles_in_closed_form(source, target, angle):
    found = metric_of(GroundCost("great-circle-degrees", 1), np.array([source], float), np.array([target], float))
    assert found[0, 0] == pytest.approx(angle, rel=1e-12, abs=1e-13)


@given(generators(), orders)
def test_a_great_circle_is_the_angle_between_unit_vectors(rng, order):
    points = np.stack([np.arcsin(rng.uniform(-1, 1, 9)), rng.uniform(-7, 7, 9)], axis=1)
    latitude, longitude = points.T
    ball = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)
    cross, dot = np.linalg.norm(np.cross(ball[:5, None], ball[5:]), axis=-1), ball[:5] @ ball[5:].T
    found = metric_of(GroundCost("great-circle", order), points[:5], points[5:])
    np.testing.assert_allclose(found, np.arctan2(cross, dot), rtol=1e-7)


@given(generators(), orders)
def test_a_matrix_is_its_own_metric(rng, order):
    metric = cdist(*[rng.normal(size=(6, 2))] * 2)
    rows, columns = rng.integers(0, 6, 4), rng.integers(0, 6, 5)
    found = metric_of(GroundCost(metric, order), rows, columns)
    np.testing.assert_allclose(found, metric[np.ix_(rows, columns)], rtol=1e-12)


@given(generators(), norms, orders, st.integers(-300, 300))
def test_a_norm_scales_with_the_points(rng, metric, order, power):
    x, y, scale = rng.normal(size=(5, 3)), rng.normal(size=(6, 3)), 10.0**power
    cost = GroundCost(metric, order)
    np.testing.assert_allclose(metric_of(cost, scale * x, scale * y), scale * metric_of(cost, x, y), rtol=1e-12)


@given(generators(), orders, st.integers(-300, 300))
def test_a_matrix_may_have_any_scale(rng, order, power):
    metric, scale, rows = cdist(*[rng.normal(size=(6, 2))] * 2), 10.0**power, np.arange(6)
    np.testing.assert_allclose(metric_of(GroundCost(metric * scale, order), rows, rows), metric * scale, rtol=1e-12)


@given(norms, orders)
def test_a_point_costs_nothing_to_itself(metric, order):
    cost = GroundCost(metric, order)
    assert not metric_of(cost, np.ones((1, 2)), np.ones((3, 2))).any()


@given(orders, st.floats(1e-6, 1e6), st.floats(0, 1))
def test_the_root_undoes_the_power(order, largest, distance):
    root = GroundCost("euclidean", order).root(distance**order, largest)
    assert root == pytest.approx(largest * distance, rel=1e-12)
    assert GroundCost("euclidean", order).root(-1e-18, largest) == 0  # rounding below zero is zero


# ---- refusing


@pytest.mark.parametrize("order", [0.999, 0, -2, np.nan, np.inf, -np.inf])
def test_an_order_that_makes_no_distance_is_refused(order):
    with pytest.raises(SettingError, match="p >= 1"):
        GroundCost("euclidean", order)


@pytest.mark.parametrize("metric", ["manhattan", "Euclidean", "", "great circle", "great-circle-km", "haversine"])
def test_an_unknown_metric_is_refused_with_the_choices(metric):
    with pytest.raises(SettingError, match="unknown metric") as caught:
        GroundCost(metric)
    assert all(choice in str(caught.value) for choice in METRICS)
    assert "the degrees of great-circle-degrees times 111.195" in str(caught.value)


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((0, 0)), r"shape \(0, 0\)"),
        (np.array([[0, np.nan], [np.nan, 0]]), "NaN"),
        (np.array([[0, np.inf], [np.inf, 0]]), "infinite"),
        (np.array([[0, -1], [-1, 0]]), "negative"),
        (np.array([[0, 1], [2, 0]]), "not symmetric"),
        (np.array([[0, 1], [1, 1e-9]]), "zero diagonal"),
        (np.array([[0, 1e-9], [2e-9, 0]]), "not symmetric"),
    ],
)
def test_a_matrix_that_is_no_metric_is_refused(matrix, sentence):
    with pytest.raises(SettingError, match=sentence):
        GroundCost(matrix)


@pytest.mark.parametrize("settings", [{"order": "two"}, {"metric": np.array([["a"]])}, {"metric": None}])
def test_settings_that_are_no_numbers_are_refused_in_a_sentence(settings):
    unchecked = GroundCost.__new__(GroundCost)  # as in a user's Python, where nothing checks types
    for name in ("metric", "order"):
        object.__setattr__(unchecked, name, settings.get(name, {"metric": "euclidean", "order": 2.0}[name]))
    with pytest.raises(SettingError):
        unchecked.__post_init__()


def test_a_matrix_of_another_size_than_the_support_is_refused():
    with pytest.raises(SettingError, match="3 points and the support has 4"):
        GroundCost(1.0 - np.eye(3)).check(on_support(np.arange(4.0)))


def test_a_matrix_on_point_clouds_is_refused():
    with pytest.raises(SettingError, match="common support"):
        GroundCost(1.0 - np.eye(3)).check(Measures.from_point_clouds([[[0, 0], [1, 1], [2, 2]]]))


@pytest.mark.parametrize(
    ("metric", "points", "sentence"),
    [
        ("great-circle", [[0, 0, 0]], "3 axes"),
        ("great-circle", [[0.0]], "1 axes"),
        ("great-circle", [[1, 20], [80, 0]], r"measure 1 has the latitude 80, outside .*order and in radians: are the"),
        ("great-circle-degrees", [[91.0, 0], [0, 0]], r"measure 1 has the latitude 91, outside \[-90, 90\]; .*swapped"),
        ("great-circle-degrees", [[-150.0, 0]], r"latitude -150, .*points \(latitude, longitude\), in that order"),
    ],
)
def test_points_that_are_not_on_a_globe_are_refused(metric, points, sentence):
    fine = np.zeros((2, len(points[0])))
    with pytest.raises(SettingError, match=sentence):
        GroundCost(metric).check(Measures.from_point_clouds([fine, points]))


def test_a_latitude_of_a_common_support_is_named_by_the_first_measure_with_mass_there():
    support = np.array([[0.0, 0.0], [10.0, 0.0], [95.0, 0.0]])
    cost = GroundCost("great-circle-degrees")
    with pytest.raises(SettingError, match="measure 1 has the latitude 95"):
        cost.check(Measures.from_histograms(np.array([[1.0, 1, 0], [1, 0, 1]]), support))
    with pytest.raises(SettingError, match="point 2 of the support has the latitude 95"):
        cost.check(Measures.from_histograms(np.array([[1.0, 1, 0]]), support))


def test_poles_are_on_the_globe():
    GroundCost("great-circle").check(Measures.from_point_clouds([[[np.pi / 2, 9.0], [-np.pi / 2, 0.0]]]))
    GroundCost("great-circle-degrees").check(Measures.from_point_clouds([[[90, 360], [-90, -180]]]))


# ---- identity


def test_costs_are_equal_where_they_give_the_same_distances():
    metric = 1.0 - np.eye(3)
    assert GroundCost("euclidean", 2) == GroundCost(order=2.0)
    assert GroundCost(metric) == GroundCost(metric.astype(np.float32).T)
    assert hash(GroundCost(metric)) == hash(GroundCost(metric.copy()))
    assert (
        len({GroundCost(), GroundCost("cityblock"), GroundCost(order=1), GroundCost(metric), GroundCost(2 * metric)})
        == 5
    )
    assert GroundCost() != "euclidean"


@pytest.mark.parametrize("cost", [GroundCost("chebyshev", 1.5), GroundCost(1.0 - np.eye(3), 1)], ids=["name", "matrix"])
def test_a_cost_comes_back_from_its_description(cost):
    matrix = None if isinstance(cost.metric, str) else np.asarray(cost.metric)
    assert GroundCost.from_dict(cost.as_dict(), matrix) == cost


def test_a_description_does_not_come_back_with_another_matrix():
    entry = GroundCost(1.0 - np.eye(3)).as_dict()
    with pytest.raises(ArtifactError, match="matrix is missing"):
        GroundCost.from_dict(entry)
    with pytest.raises(ArtifactError, match="not the one"):
        GroundCost.from_dict(entry, 2.0 - 2 * np.eye(3))


def test_a_cost_does_not_change_with_the_array_it_was_made_from():
    metric = 1.0 - np.eye(3)
    cost = GroundCost(metric)
    before = cost.as_dict()
    metric[0, 1] = metric[1, 0] = 5
    assert cost.as_dict() == before


def test_only_euclidean_w2_splits_off_the_translation():
    assert GroundCost("euclidean", 2).splits_translation
    others = [
        GroundCost("euclidean", 1),
        GroundCost("cityblock", 2),
        GroundCost("great-circle", 2),
        GroundCost(np.zeros((1, 1))),
    ]
    assert not any(cost.splits_translation for cost in others)


# ---- coordinates


@given(generators(), st.integers(1, 4), st.integers(2, 12))
def test_coordinates_of_a_euclidean_matrix_are_as_far_apart_as_it_says(rng, dim, size):
    points = rng.normal(size=(size, dim))
    metric = cdist(points, points)
    found = GroundCost(metric).coordinates(on_support(np.arange(float(size)))).support
    assert found.shape[1] <= max(dim, 1)
    np.testing.assert_allclose(cdist(found, found), metric, atol=1e-5 * metric.max())


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_coordinates_follow_the_scale_of_the_matrix(scale):
    points = np.random.default_rng(0).normal(size=(6, 2))
    metric = scale * cdist(points, points)
    found = GroundCost(metric).coordinates(on_support(points)).support
    np.testing.assert_allclose(cdist(found, found), metric, rtol=1e-9, atol=1e-9 * scale)


def test_coordinates_of_points_that_are_one_are_one_point():
    found = GroundCost(np.zeros((3, 3))).coordinates(on_support(np.arange(3.0))).support
    assert not cdist(found, found).any()


@pytest.mark.parametrize(("metric", "unit"), [("great-circle", 1.0), ("great-circle-degrees", 180 / np.pi)])
def test_coordinates_on_the_globe_are_chords_in_the_unit_of_the_metric(metric, unit):
    rng = np.random.default_rng(0)
    points = unit * np.stack([np.arcsin(rng.uniform(-1, 1, 8)), rng.uniform(-np.pi, np.pi, 8)], axis=1)
    found = GroundCost(metric).coordinates(on_support(points)).support
    arcs = metric_of(GroundCost(metric, 1), points, points) / unit
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), unit, rtol=1e-13)
    np.testing.assert_allclose(cdist(found, found), unit * 2 * np.sin(arcs / 2), atol=1e-7 * unit)


@pytest.mark.parametrize(("metric", "unit"), [("great-circle", 1.0), ("great-circle-degrees", 180 / np.pi)])
def test_chords_of_the_globe_are_read_as_arcs(metric, unit):
    cost, rng = GroundCost(metric, 1), np.random.default_rng(1)
    points = unit * np.stack([np.arcsin(rng.uniform(-1, 1, 9)), rng.uniform(-np.pi, np.pi, 9)], axis=1)
    places = cost.coordinates(on_support(points)).support
    arcs = metric_of(cost, points, points)
    np.testing.assert_allclose(cost.from_euclidean(cdist(places, places)), arcs, atol=1e-6 * unit)
    np.testing.assert_allclose(cost.from_euclidean(cost.to_euclidean(arcs)), arcs, atol=1e-6 * unit)
    beyond = np.array([2.0, 2.1, 9.0], dtype=np.float32) * np.float32(unit)
    np.testing.assert_allclose(cost.from_euclidean(beyond), np.pi * unit, rtol=1e-3)
    assert cost.from_euclidean(beyond).dtype == np.float32


@pytest.mark.parametrize("metric", [*sorted(NORMS), np.zeros((2, 2))])
def test_of_other_metrics_lengths_are_the_distances(metric):
    lengths = np.array([0.0, 1.0, 1e9])
    assert GroundCost(metric).from_euclidean(lengths) is lengths
    assert GroundCost(metric).to_euclidean(lengths) is lengths


@pytest.mark.parametrize("metric", sorted(NORMS))
def test_norms_keep_their_points(metric):
    measures = on_support(np.eye(3))
    assert GroundCost(metric).coordinates(measures) is measures


def test_coordinates_keep_weights_and_atoms():
    measures = Measures.from_images(np.random.default_rng(0).integers(0, 3, (4, 2, 3)) + 1)
    moved = GroundCost(1.0 - np.eye(6)).coordinates(measures)
    assert moved.weights is measures.weights
    assert moved.atoms is measures.atoms


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the matrices whose points were laid out, one after the other."""
    sizes: list[int] = []
    scaling = costs._classical_scaling
    monkeypatch.setattr(costs, "_classical_scaling", lambda matrix: [sizes.append(len(matrix)), scaling(matrix)][1])
    return sizes


def test_a_fit_lays_out_the_points_of_a_matrix_once(scaled, tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 3))
    bags = Measures.from_histograms(rng.uniform(size=(40, 60)) < 0.1, np.arange(60.0))
    training = TrainingSettings(steps=3)
    fitted = Embedder(cdist(points, points), 1, pairs=300, training=training, references=0, n_jobs=1).fit(bags)
    fitted.encode(bags)
    fitted.save(tmp_path)
    assert scaled == [60]


@given(generators(), st.integers(1, 12))
def test_coordinates_that_were_found_change_nothing_else_of_a_cost(rng, size):
    points = rng.normal(size=(size, 2))
    fresh, used = (GroundCost(cdist(points, points), 1) for _ in range(2))
    found = used.coordinates(on_support(np.arange(float(size)))).support
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert used.as_dict() == fresh.as_dict()
    assert pickle.dumps(used) == pickle.dumps(fresh)  # a worker process is sent no more
    sent = pickle.loads(pickle.dumps(used))
    assert sent == used
    again = sent.coordinates(on_support(np.arange(float(size)))).support
    np.testing.assert_allclose(cdist(again, again), cdist(found, found), atol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0  # others are given it too


# ---- isometries


@given(generators(), st.sampled_from(METRICS), st.integers(1, 5), st.integers(1, 6))
def test_isometries_keep_every_distance(rng, metric, dim, count):
    dim = 3 if metric.startswith("great-circle") else dim
    maps = GroundCost(metric).isometries(dim, count, rng)
    assert len(maps) == count
    np.testing.assert_array_equal(maps[0], np.eye(dim))
    points = rng.normal(size=(6, dim))
    name = metric if metric in NORMS else "euclidean"  # on the sphere, chords
    for turned in (points @ turn for turn in maps):
        np.testing.assert_allclose(cdist(turned, turned, name), cdist(points, points, name), rtol=1e-9)


@pytest.mark.parametrize(("metric", "dim"), [("euclidean", 2), ("euclidean", 3), ("euclidean", 6), ("great-circle", 3)])
def test_isometries_are_different_small_turns_and_the_generator_alone_draws_them(metric, dim):
    maps, again = (GroundCost(metric).isometries(dim, 6, np.random.default_rng(0), 12) for _ in range(2))
    assert len({turn.tobytes() for turn in maps}) == 6
    np.testing.assert_array_equal(maps, again)
    moved = [np.rad2deg(np.sqrt(np.square(turn - np.eye(dim)).sum(axis=0).mean())) for turn in maps]
    assert max(moved) == pytest.approx(12, abs=0.2)


def test_a_matrix_has_no_isometry_but_the_identity():
    maps = GroundCost(1.0 - np.eye(4)).isometries(3, 5, np.random.default_rng(0))
    assert [turn.tolist() for turn in maps] == [np.eye(3).tolist()]
