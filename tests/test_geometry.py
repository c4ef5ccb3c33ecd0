"""Barycenters and interpolations: closed forms, and that couplings make what was learned better."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halved import halved_digits

import wembed
from wembed import Embedder, Measure, MeasureError, Measures, NotFittedError, SettingError, TrainingSettings
from wembed.geometry import Clusters, barycenter, class_means, geodesic_pca, interpolate, kmeans
from wembed.transport.between import images_of, iterated, mixed, thinned, ways


@pytest.fixture(scope="module")
def decoding(fitted: Embedder, some_digits: Measures, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tmp_path_factory.mktemp("geometry")
    fitted.save(folder)
    return wembed.load(folder).fit_decoder(some_digits[fitted.split_.train], steps=200, mixtures=150)


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
    settings = TrainingSettings(steps=2)
    embedder = Embedder(encoder="quantiles", pairs=200, n_jobs=1, training=settings, calibration=0).fit(measures)
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
    (alone,) = ways(unseen[pair[:1]], unseen[pair[1:]], fitted.cost)
    np.testing.assert_allclose(found[0].support, alone.at(shares[1])[0].support, atol=1e-12)


def test_a_decoder_that_has_seen_what_lies_between_makes_better_barycenters(
    fitted: Embedder, some_digits: Measures, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    measures, _ = halved_digits()
    some = measures[-40:]
    cost = []
    for mixtures in (0, 150):
        embedder = wembed.load(tmp_path)
        embedder.fit_decoder(some_digits[fitted.split_.train], steps=120, mixtures=mixtures)
        cost.append(np.square(between(barycenter(embedder, some).measures, some)).mean())
    assert cost[1] < 0.8 * cost[0]


def test_couplings_make_a_learned_barycenter_better(decoding: Embedder) -> None:
    measures, labels = halved_digits()
    sevens = measures[np.flatnonzero(np.asarray(labels) == 7)[:20]]
    cost = {}
    told: list[tuple[int, int]] = []
    for method in ("learned", "polish", "exact"):
        found = barycenter(decoding, sevens, method=method, progress=lambda done, total: told.append((done, total)))
        cost[method] = np.square(between(found.measures, sevens)).mean()
    assert cost["polish"] < cost["learned"]
    assert cost["exact"] < cost["learned"]
    assert cost["polish"] < 1.02 * cost["exact"]
    assert {(20, 20), (20, 1_000), (40, 1_000)} <= {*told}
    assert told[0][0] < 20  # it is told while it goes on


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
        ([1.5, -0.5, 0.0], "there is a weight of -0.5; give finite ones that are not negative"),
        ([1.0, np.nan, 0.0], "there is a weight of nan"),
        ([0.5, 0.5], r"weights are float64 \(2,\); give a number for each of 3 measures"),
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
    for t in (-0.1, 1.1, np.nan, "x", [], [0.5, 2], True, [[0.5]]):
        with pytest.raises(SettingError, match=r"give a number of \[0, 1\], or a list"):
            interpolate(decoding, unseen[:1], unseen[1:2], t)
    with pytest.raises(SettingError, match="2 measures to go from and 1 to go to"):
        interpolate(decoding, unseen[:2], unseen[:1], 0.5)
    with pytest.raises(SettingError, match="method='best'; choose one of learned, polish, exact"):
        barycenter(decoding, unseen[:3], method="best")
    with pytest.raises(SettingError, match="no measures to find a barycenter of"):
        barycenter(decoding, unseen[:0])
    with pytest.raises(SettingError, match="weights sum to 0"):
        barycenter(decoding, unseen[:2], [0.0, 0.0], normalize=True)
    with pytest.raises(SettingError, match="weights sum to 0"):
        barycenter(decoding, unseen[:2], [0.0, 0.0])
    with pytest.raises(MeasureError, match="dimension"):
        barycenter(decoding, Measures.from_point_clouds([np.zeros((2, 3))]))
    line = Measures.from_point_clouds([np.random.default_rng(k).normal(size=9) for k in range(40)])
    other = Embedder(order=1, pairs=100, n_jobs=1, training=TrainingSettings(steps=2), calibration=0).fit(line)
    for method in ("exact", "polish"):  # before it is told that there is no decoder
        with pytest.raises(SettingError, match="is for euclidean W_2; under this cost there is 'learned'"):
            barycenter(other, line, method=method)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "b"], "3 measures and 2 labels"),
        (np.zeros((3, 2)), r"3 measures and an array \(3, 2\) of labels"),
        (None, "labels are a NoneType"),
        ("abc", "labels are a str"),
        (["a", "b", None], "all numbers or all text"),
        ([1, "a", 2], "all numbers or all text"),
        ([1.0, 2.0, np.nan], "a label is NaN"),
    ],
)
def test_labels_that_are_none_are_refused(decoding: Embedder, unseen: Measures, labels: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        class_means(decoding, unseen[:3], labels)


MAKERS: dict[str, Any] = {
    "barycenter": barycenter,
    "class_means": lambda embedder, m, **how: class_means(embedder, m, [0] * 3, **how),
    "interpolate": lambda embedder, m, **how: interpolate(embedder, m, m, 0.5, **how),
    "kmeans": lambda embedder, m, **how: kmeans(embedder, m, 2, **how),
    "geodesic_pca": lambda embedder, m, **how: geodesic_pca(embedder, m, 2, **how),
}


@pytest.mark.parametrize("method", ["learned", "exact"])
@pytest.mark.parametrize("which", MAKERS)
def test_every_verb_tells_of_what_it_cannot_take(decoding: Embedder, unseen: Measures, which: str, method: str) -> None:
    make = MAKERS[which]
    with pytest.raises(NotFittedError):
        make(Embedder(), unseen[:3], method=method)
    small = Measures.from_images(np.random.default_rng(0).uniform(size=(3, 16, 16)))
    with pytest.raises(MeasureError, match="images of 16 x 16 pixels, and the model was fitted on images of 14 x 14"):
        make(decoding, small, method=method)


@pytest.mark.parametrize("method", ["polish", "exact"])
@pytest.mark.parametrize("which", MAKERS)
def test_progress_ends_with_all_that_there_was(decoding: Embedder, unseen: Measures, which: str, method: str) -> None:
    told: list[tuple[int, int]] = []
    MAKERS[which](decoding, unseen[:3], method=method, progress=lambda *done: told.append(done))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


def test_principal_geodesics_of_each_method_go_the_same_way_round(decoding: Embedder, unseen: Measures) -> None:
    learned, polished, exact = (
        geodesic_pca(decoding, unseen[:20], 2, method=method).scores for method in ("learned", "polish", "exact")
    )
    for scores in (polished, exact):
        assert ((learned * scores).sum(axis=0) > 0).all()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_measures_that_are_all_alike_have_no_clusters_and_no_ways(decoding: Embedder, unseen: Measures) -> None:
    alike = unseen[[0, 0, 0, 0]]
    with pytest.raises(SettingError, match="these measures have 1 different vectors"):
        kmeans(decoding, alike, 2)
    assert geodesic_pca(decoding, alike, 1).explained.tolist() == [0]


def clouds(count: int, atoms: int, seed: int = 0) -> Measures:
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(count, 1, 2)) + rng.uniform(0.5, 2, (count, 1, 2)) * rng.normal(size=(count, atoms, 2))
    return Measures.from_point_clouds(list(spread), list(rng.uniform(0.1, 1, (count, atoms))))


def test_a_thinned_measure_has_its_mass_and_its_mean_and_lies_near() -> None:
    measures = clouds(6, 200)
    for atoms in (1, 7, 60):
        few = [thinned(one, atoms) for one in (measures[i] for i in range(6))]
        made = Measures.from_point_clouds([one.support for one in few], [one.weights for one in few])
        assert (made.sizes == atoms).all()
        np.testing.assert_allclose([one.weights.sum() for one in few], 1, atol=1e-12)
        np.testing.assert_allclose(made.centroids(), measures.centroids(), atol=1e-9)
        about = measures.points() - np.repeat(measures.centroids(), measures.sizes, axis=0)
        spread = np.sqrt(np.add.reduceat(measures.weights * np.square(about).sum(axis=1), measures.offsets[:-1]))
        off = np.diag(between(made, measures)) / spread
        assert (off < {1: 1.0 + 1e-9, 7: 0.55, 60: 0.2}[atoms]).all()
    assert len(thinned(measures[0], 200).weights) == 200
    same = Measures.from_point_clouds([np.zeros((5, 2))])[0]
    assert len(thinned(same, 3).weights) == 3


def test_a_way_through_the_middle_is_the_shortest_and_through_elsewhere_is_longer(fitted: Embedder) -> None:
    measures = clouds(8, 30)
    a, b = measures[:4], measures[4:]
    whole = np.diag(between(a, b))
    straight = ways(a, b, fitted.cost)
    middles = Measures.concatenate([way.at(0.5) for way in straight])
    for through, longer in ((middles, False), (clouds(4, 30, seed=9), True)):
        found = ways(a, b, fitted.cost, through)
        lengths = np.array([np.sqrt(way.mass @ np.square(way.last - way.first).sum(axis=1)) for way in found])
        assert (lengths > whole - 1e-9).all()
        assert (lengths > 1.01 * whole).all() == longer
        np.testing.assert_allclose(lengths, whole, rtol=1 if longer else 1e-6)
        for end, at in ((a, 0.0), (b, 1.0)):
            np.testing.assert_allclose(
                np.diag(between(Measures.concatenate([w.at(at) for w in found]), end)), 0, atol=1e-6
            )


def test_couplings_come_out_the_same_on_any_number_of_workers(fitted: Embedder) -> None:
    measures = clouds(140, 200)
    told: list[tuple[int, int]] = []
    one, two = (
        iterated(measures[0], measures, np.full(140, 1 / 140), fitted.cost, 1, jobs, lambda *done: told.append(done))
        for jobs in (1, 2)
    )
    np.testing.assert_array_equal(one.support, two.support)
    assert told.count((140, 140)) == 2
    assert len(told) > 2  # there was more than one block


def test_a_barycenter_is_the_sum_of_images_by_shares(fitted: Embedder) -> None:
    measures, shares = clouds(5, 20), np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    images = images_of(measures[0], measures, fitted.cost)
    np.testing.assert_allclose(images[0], measures[0].support, atol=1e-12)
    found = iterated(measures[0], measures, shares, fitted.cost, 1)
    np.testing.assert_allclose(found.support, np.tensordot(shares, images, 1), atol=1e-12)


@pytest.mark.parametrize("method", ["learned", "polish", "exact"])
def test_clusters_are_those_that_are_apart(decoding: Embedder, unseen: Measures, method: str) -> None:
    shapes = [unseen[i] for i in range(3)]
    rng = np.random.default_rng(0)
    places = np.repeat([[-2.0, 0.0], [2.0, -1.5], [0.0, 3.0]], 4, axis=0) + 0.1 * rng.normal(size=(12, 2))
    measures = Measures.from_point_clouds(
        [shapes[i % 3].support + place for i, place in enumerate(places)], [shapes[i % 3].weights for i in range(12)]
    )
    told: list[tuple[int, int]] = []
    found = kmeans(decoding, measures, 3, method=method, progress=lambda *done: told.append(done))
    assert [len(set(part)) for part in found.labels.reshape(3, 4)] == [1, 1, 1]
    assert len(set(found.labels.tolist())) == len(found.measures) == len(found.vectors) == 3
    own = between(measures, found.measures)[np.arange(12), found.labels]
    if method == "exact":
        assert found.inertia == pytest.approx(np.square(own).mean())
        assert told[-1] == (20, 20)
    elif method == "polish":
        assert found.inertia == pytest.approx(np.square(own).mean(), rel=0.2)
        assert told[-1] == (12, 12)
        centres = np.stack([places[found.labels == one].mean(axis=0) for one in range(3)])
        np.testing.assert_allclose(found.measures.centroids(), centres + _mean_centroid(shapes, found), atol=2.0)


def _mean_centroid(shapes: list[Measure], found: Clusters) -> np.ndarray:
    means = np.stack([one.weights @ one.support for one in shapes])
    return np.stack([means[np.flatnonzero(found.labels == one) % 3].mean(axis=0) for one in range(3)])


@pytest.mark.parametrize("method", ["exact", "polish"])
def test_the_first_principal_geodesic_of_translates_is_their_translation(
    decoding: Embedder, unseen: Measures, method: str
) -> None:
    one, along = unseen[0], np.array([3.0, 4.0]) / 5
    moves = np.array([-3.0, -1.0, 0.0, 1.5, 2.5])
    measures = Measures.from_point_clouds([one.support + move * along for move in moves], [one.weights] * 5)
    found = geodesic_pca(decoding, measures, 2, times=[-1, 0, 2], method=method)
    near = {"exact": 1e-6, "polish": 1e-3}[method]  # some mass goes another way from what is not a translate
    assert found.explained[0] == pytest.approx(1, abs=near)
    assert found.deviations[0] == pytest.approx(moves.std(ddof=1), rel=near)
    sign = np.sign(found.scores[-1, 0])
    np.testing.assert_allclose(sign * found.scores[:, 0], moves, atol=10 * near)
    way = found.walks[0].measures.centroids() - found.mean.measures.centroids()
    np.testing.assert_allclose(way, sign * np.outer([-1, 0, 2], along) * moves.std(ddof=1), atol=10 * near)
    np.testing.assert_allclose(found.walks[0].vectors, decoding.transform(found.walks[0].measures), atol=1e-4)


def test_learned_principal_geodesics_are_those_of_the_vectors(decoding: Embedder, unseen: Measures) -> None:
    found = geodesic_pca(decoding, unseen, 3, times=[-1.0, 0.0, 1.0])
    vectors = decoding.transform(unseen).astype(np.float64)
    covered = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    np.testing.assert_allclose(found.explained, covered[:3] / covered.sum(), rtol=1e-6)
    np.testing.assert_allclose(found.deviations**2, covered[:3] / (len(vectors) - 1), rtol=1e-6)
    for number, walk in enumerate(found.walks):
        np.testing.assert_allclose(walk.vectors[1], vectors.mean(axis=0), atol=1e-4)
        apart = np.linalg.norm(walk.vectors[2] - walk.vectors[0])
        assert apart == pytest.approx(2 * found.deviations[number], rel=1e-4)
        np.testing.assert_array_equal(walk.measures.weights, decoding.decode(walk.vectors).weights)
    assert found.scores.shape == (len(unseen), 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"components": 0}, "components=0"),
        ({"components": 500}, "give at most 29"),
        ({"times": []}, "give finite numbers"),
        ({"times": [np.nan]}, "give finite numbers"),
        ({"method": "fast"}, "choose one of"),
    ],
)
def test_principal_geodesics_that_there_are_not(
    decoding: Embedder, unseen: Measures, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        geodesic_pca(decoding, unseen, **options)
    with pytest.raises(SettingError, match="two measures at least"):
        geodesic_pca(decoding, unseen[:1])


@pytest.mark.parametrize(("k", "said"), [(0, "k=0"), (4, "give at most 3"), (-2, "k=-2")])
def test_clusters_that_there_are_not(decoding: Embedder, unseen: Measures, k: Any, said: str) -> None:
    with pytest.raises(SettingError, match=re.escape(said)):
        kmeans(decoding, unseen[:3], k)
