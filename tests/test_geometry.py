"""Barycenters and interpolations: closed forms, and that couplings make what was learned better."""

from pathlib import Path

import numpy as np
import pytest

import wembed
from wembed import Embedder, MeasureError, Measures, SettingError, TrainingSettings
from wembed.geometry import barycenter, class_means, interpolate
from wembed.readers import digits
from wembed.transport.between import displaced, mixed


@pytest.fixture(scope="module")
def decoding(fitted: Embedder, some_digits: Measures, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tmp_path_factory.mktemp("geometry")
    fitted.save(folder)
    return wembed.load(folder).fit_decoder(some_digits[fitted.split_.train], steps=200)


@pytest.fixture(scope="module")
def unseen(decoding: Embedder, some_digits: Measures) -> Measures:
    return some_digits[decoding.split_.test]


def between(a: Measures, b: Measures) -> np.ndarray:
    """W_2 of each of a and each of b."""
    rows, columns = np.divmod(np.arange(len(a) * len(b)), len(b))
    together = Measures.concatenate([a, b])
    return wembed.exact_distances(together, np.stack([rows, columns + len(a)], axis=1)).reshape(len(a), len(b))


def test_an_exact_interpolation_goes_straight_and_evenly(fitted: Embedder, unseen: Measures) -> None:
    a, b, times = unseen[[0]], unseen[[1]], [0.0, 0.25, 0.5, 1.0]
    found = interpolate(fitted, a, b, times, method="exact")
    whole = between(a, b)[0, 0]
    np.testing.assert_allclose(between(a, found.measures)[0], np.array(times) * whole, atol=1e-6)
    np.testing.assert_allclose(between(found.measures, b)[:, 0], (1 - np.array(times)) * whole, atol=1e-6)
    np.testing.assert_allclose(found.vectors, fitted.transform(found.measures), atol=1e-5)


def test_a_learned_interpolation_goes_straight_in_vectors(decoding: Embedder, unseen: Measures) -> None:
    found = interpolate(decoding, unseen[:3], unseen[3:6], [0.0, 0.5])
    left, right = decoding.transform(unseen[:3]), decoding.transform(unseen[3:6])
    np.testing.assert_allclose(found.vectors[::2], left, atol=1e-6)
    np.testing.assert_allclose(found.vectors[1::2], (left + right) / 2, atol=1e-5)
    np.testing.assert_allclose(found.measures.weights, decoding.decode(found.vectors).weights, atol=1e-7)
    middle = (unseen[:3].centroids() + unseen[3:6].centroids()) / 2
    np.testing.assert_allclose(found.measures.centroids()[1::2], middle, atol=1e-5)


def test_couplings_bring_an_interpolation_nearer_to_the_middle(decoding: Embedder, unseen: Measures) -> None:
    a, b = unseen[:4], unseen[4:8]
    half = np.diag(between(a, b)) / 2
    off = {}
    for method in ("learned", "polish"):
        made = interpolate(decoding, a, b, 0.5, method=method).measures
        off[method] = np.abs(np.stack([np.diag(between(a, made)), np.diag(between(made, b))]) / half - 1).mean()
    assert off["polish"] < 0.5 * off["learned"]
    assert off["polish"] < 0.05


def test_the_barycenter_on_a_line_has_the_mean_of_the_quantile_functions() -> None:
    rng = np.random.default_rng(0)
    points = [np.sort(rng.normal(k, 1 + k, 20)) for k in range(60)]
    measures = Measures.from_point_clouds(points)
    embedder = Embedder(pairs=200, n_jobs=1, training=TrainingSettings(steps=2), calibration=0).fit(measures)
    shares = rng.dirichlet(np.ones(60))
    found = barycenter(embedder, measures, shares, method="exact").measures
    np.testing.assert_allclose(np.sort(found.support[:, 0]), shares @ np.stack(points), atol=1e-6)
    twice = barycenter(embedder, measures, 2 * shares, method="exact", normalize=True).measures
    np.testing.assert_allclose(twice.support, found.support, atol=1e-9)


def test_the_exact_barycenter_of_translates_is_the_translate_in_the_middle(fitted: Embedder, unseen: Measures) -> None:
    one = unseen[0]
    moves = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 3.0]])
    clouds = Measures.from_point_clouds([one.support + move for move in moves], [one.weights] * 3)
    shares = np.array([0.5, 0.25, 0.25])
    found = barycenter(fitted, clouds, shares, method="exact").measures
    middle = Measures.from_point_clouds([one.support + shares @ moves], [one.weights])
    assert between(found, middle)[0, 0] < 1e-6


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_many_mixtures_are_those_of_each_by_itself(unseen: Measures, fitted: Embedder, n_jobs: int) -> None:
    rng = np.random.default_rng(0)
    chosen = [(rng.choice(len(unseen), k, replace=False), rng.dirichlet(np.ones(k))) for k in (2, 3, 5) * 20]
    told: list[tuple[int, int]] = []
    found = mixed(unseen, chosen, fitted.cost, n_jobs, lambda done, total: told.append((done, total)))
    assert len(found) == told[-1][0] == told[-1][1] == 60
    for number in (0, 1, 59):
        rows, shares = chosen[number]
        np.testing.assert_allclose(
            found.centroids()[number], shares @ unseen[rows].centroids(), atol=1e-9
        )  # of what lies between, the mean lies between the means
    pair, shares = chosen[0]
    (alone,) = displaced(unseen[pair], fitted.cost, shares[1:])
    np.testing.assert_allclose(found[0].support, alone[0].support, atol=1e-12)


def test_a_decoder_that_has_seen_what_lies_between_makes_better_barycenters(
    fitted: Embedder, some_digits: Measures, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    measures, labels = digits()
    sevens = measures[np.flatnonzero(np.asarray(labels) == 7)[-40:]]
    cost = []
    for mixtures in (0, 400):
        embedder = wembed.load(tmp_path)
        embedder.fit_decoder(some_digits[fitted.split_.train], steps=300, mixtures=mixtures)
        cost.append(np.square(between(barycenter(embedder, sevens).measures, sevens)).mean())
    assert cost[1] < 0.97 * cost[0]


def test_couplings_make_a_learned_barycenter_better(decoding: Embedder) -> None:
    measures, labels = digits()
    sevens = measures[np.flatnonzero(np.asarray(labels) == 7)[:20]]
    cost = {}
    told: list[tuple[int, int]] = []
    for method in ("learned", "polish", "exact"):
        found = barycenter(decoding, sevens, method=method, progress=lambda done, total: told.append((done, total)))
        cost[method] = np.square(between(found.measures, sevens)).mean()
    assert cost["polish"] < cost["learned"]
    assert cost["exact"] < cost["learned"]
    assert cost["polish"] < 1.02 * cost["exact"]
    assert told[19:21] == [(20, 40), (21, 40)]


def test_a_learned_barycenter_is_the_mean_of_vectors_and_knows_its_weights(
    decoding: Embedder, unseen: Measures
) -> None:
    vectors = decoding.transform(unseen[:5])
    alone = barycenter(decoding, unseen[:5], [0, 0, 1, 0, 0])
    np.testing.assert_allclose(alone.vectors, vectors[2:3], atol=1e-6)
    np.testing.assert_allclose(alone.measures.weights, decoding.decode(vectors[2:3]).weights, atol=1e-6)
    labels = np.array(["b", "a", "b", "a", "a"])
    names, means = class_means(decoding, unseen[:5], labels)
    assert names.tolist() == ["a", "b"]
    for number, rows in enumerate(([1, 3, 4], [0, 2])):
        np.testing.assert_allclose(means.vectors[number], barycenter(decoding, unseen[rows]).vectors[0], atol=1e-5)
    assert len(means.measures) == 2


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([0.5, 0.2, 0.2], "weights sum to 0.9 and not to 1; change them, or ask for normalize=True"),
        ([1.5, -0.5, 0.0], "give a number >= 0 for each of 3 measures"),
        ([1.0, np.nan, 0.0], "give a number >= 0 for each of 3 measures"),
        ([0.5, 0.5], "give a number >= 0 for each of 3 measures"),
    ],
)
def test_weights_that_are_none_are_refused(decoding: Embedder, unseen: Measures, weights: list, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        barycenter(decoding, unseen[:3], weights)


def test_what_cannot_be_made_is_told(fitted: Embedder, decoding: Embedder, unseen: Measures, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="has no decoder"):
        barycenter(fitted, unseen[:3])
    with pytest.raises(SettingError, match="has no decoder"):
        interpolate(fitted, unseen[:1], unseen[1:2], 0.5, method="polish")
    for t in (-0.1, 1.1, np.nan, "x", [], [0.5, 2]):
        with pytest.raises(SettingError, match=r"give numbers of \[0, 1\]"):
            interpolate(decoding, unseen[:1], unseen[1:2], t)
    with pytest.raises(SettingError, match="2 measures to go from and 1 to go to"):
        interpolate(decoding, unseen[:2], unseen[:1], 0.5)
    with pytest.raises(SettingError, match="method='best'; choose one of learned, polish, exact"):
        barycenter(decoding, unseen[:3], method="best")
    with pytest.raises(SettingError, match="no measures to find a barycenter of"):
        barycenter(decoding, unseen[:0])
    with pytest.raises(SettingError, match="weights sum to 0"):
        barycenter(decoding, unseen[:2], [0.0, 0.0], normalize=True)
    with pytest.raises(SettingError, match="3 measures and 2 labels"):
        class_means(decoding, unseen[:3], ["a", "b"])
    with pytest.raises(MeasureError, match="dimension"):
        barycenter(decoding, Measures.from_point_clouds([np.zeros((2, 3))]))
    line = Measures.from_point_clouds([np.random.default_rng(k).normal(size=9) for k in range(40)])
    other = Embedder(order=1, pairs=100, n_jobs=1, training=TrainingSettings(steps=2), calibration=0).fit(line)
    with pytest.raises(SettingError, match="is for euclidean W_2; under this cost there is 'learned'"):
        barycenter(other, line, method="exact")
