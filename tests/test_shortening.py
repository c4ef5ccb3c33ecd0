"""Short vectors: what they keep of the distances between long ones, and how those with a residual are read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from serving import running

import wembed
from wembed import Embedder, Index, Measures, TrainingSettings
from wembed.euclidean import Residuals, distances_between, distances_of_pairs, paired_distances
from wembed.learning.shortening import Shortening
from wembed.nearest import Graph, nearest

LONG = 300


def vectors(seed: int, count: int, dim: int = LONG, decay: float = 0.99) -> np.ndarray:
    """Normal, each axis of less variance than the one before."""
    given = np.random.default_rng(seed).normal(size=(count, dim)) * decay ** np.arange(dim)
    return (given + 5).astype(np.float32)


def with_residuals(seed: int, count: int, coordinates: int = 6, centroid: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(count, 1 + coordinates + centroid))
    made[:, 0] = np.abs(made[:, 0])
    return made.astype(np.float32)


def read(x: np.ndarray, y: np.ndarray, residuals: Residuals) -> np.ndarray:
    """The formula as the docstring has it, in float64."""
    x, y, n = x.astype(np.float64), y.astype(np.float64), 1 + residuals.coordinates
    near = cdist(x[:, 1:n], y[:, 1:n], "sqeuclidean")
    r, s = x[:, :1], y[:, 0]
    alike = np.exp(-near / residuals.width)
    moved = cdist(x[:, n:], y[:, n:], "sqeuclidean") if x.shape[1] > n else 0.0
    return np.sqrt(near + r**2 + s**2 - 2 * r * s * alike + moved)


@pytest.mark.parametrize("centroid", [0, 2])
@pytest.mark.parametrize("width", [0.1, 3.0, 100.0])
def test_distances_with_residuals_are_those_of_the_formula(width: float, centroid: int) -> None:
    residuals = Residuals(width, 6)
    x, y = with_residuals(0, 1_500, centroid=centroid), with_residuals(1, 40, centroid=centroid)
    expected = read(x, y, residuals)
    np.testing.assert_allclose(distances_between(x, y, residuals=residuals), expected, rtol=1e-5)
    np.testing.assert_allclose(paired_distances(x[:40], y, residuals), np.diagonal(expected), rtol=1e-5)
    pairs = np.stack([np.arange(1_500), np.arange(1_500) % 40], axis=1)
    np.testing.assert_allclose(distances_of_pairs(x, pairs, y, residuals), expected[tuple(pairs.T)], rtol=1e-5)


@given(st.integers(0, 1_000), st.floats(0.01, 100.0))
def test_distances_with_residuals_are_those_of_a_hilbert_space(seed: int, width: float) -> None:
    x = with_residuals(seed, 30)
    x[20:, 1:7] = x[:10, 1:7] + np.float32(0.01)  # nearly alike
    far = distances_between(x, x, residuals=Residuals(width, 6)).astype(np.float64)
    assert not np.diagonal(far).any()
    np.testing.assert_allclose(far, far.T, rtol=1e-5)
    assert (far <= (far[:, :, None] + far[None]).min(axis=1) * (1 + 1e-5) + 1e-6).all()
    centring = np.eye(len(x)) - 1 / len(x)
    assert np.linalg.eigvalsh(-0.5 * centring @ far**2 @ centring).min() > -1e-4 * np.square(far).max()


@pytest.mark.parametrize("gap", [1e-2, 1e-4])
def test_a_small_distance_with_residuals_keeps_its_digits(gap: float) -> None:
    x = with_residuals(0, 40)
    y = x.copy()
    y[:, 1] += np.float32(gap)
    residuals = Residuals(2.0, 6)
    moved = np.square(y[:, 1].astype(np.float64) - x[:, 1])
    expected = np.sqrt(moved - 2 * np.square(x[:, 0].astype(np.float64)) * np.expm1(-moved / 2.0))
    np.testing.assert_allclose(np.diagonal(distances_between(x, y, residuals=residuals)), expected, rtol=2e-3)
    np.testing.assert_allclose(paired_distances(x, y, residuals), expected, rtol=1e-5)


@pytest.mark.parametrize("unit", [1e-22, 1e22])
def test_distances_with_residuals_have_the_unit_of_the_vectors(unit: float) -> None:
    x, residuals = with_residuals(0, 30), Residuals(2.0, 6)
    far, within = x * np.float32(unit), Residuals(2.0 * unit**2, 6)
    plain = distances_between(x, x, residuals=residuals)
    np.testing.assert_allclose(distances_between(far, far, residuals=within) / np.float32(unit), plain, rtol=1e-4)
    np.testing.assert_allclose(
        paired_distances(far[1:], far[:-1], within) / np.float32(unit), np.diagonal(plain, 1), rtol=1e-4
    )


def off(shortening: Shortening, seed: int = 1) -> float:
    """The mean relative error of distances between other vectors."""
    others = vectors(seed, 200)
    exact, pairs = cdist(others, others), np.stack(np.triu_indices(200, 1), axis=1)
    made = distances_of_pairs(shortening(others), pairs, residuals=shortening.residuals)
    return float(np.abs(made / exact[tuple(pairs.T)] - 1).mean())


@pytest.fixture(scope="module")
def plain() -> Shortening:
    return Shortening.plain(vectors(0, 320), vectors(2, 300), 12, 0)


def test_a_residual_keeps_most_of_what_the_axes_lose(plain: Shortening) -> None:
    known = vectors(0, 320)
    whole = Shortening.with_residual(known, vectors(2, 300), 12)
    assert whole.dim == whole(known).shape[1] == plain.dim == plain(known).shape[1] == 12
    assert off(whole) < 0.3 * off(plain)
    tripled, others = whole.scaled(3.0), vectors(1, 100)
    near = others + np.float32(0.1) * vectors(2, 100)
    for these in (near, vectors(3, 100)):
        once, thrice = (paired_distances(one(others), one(these), one.residuals) for one in (whole, tripled))
        np.testing.assert_allclose(thrice, 3 * once, rtol=1e-4)


def test_a_plain_map_is_nearer_than_the_axes_of_most_variance(plain: Shortening) -> None:
    known = vectors(0, 320)
    centre = known.mean(axis=0)
    axes = np.linalg.svd(known - centre, full_matrices=False)[2][:12]
    principal = Shortening(centre, axes, None)
    exact, made = (cdist(v, v) for v in (known, principal(known)))
    assert off(plain) < 0.96 * off(principal.scaled((exact * made).sum() / (made**2).sum()))


def test_a_plain_map_is_the_same_again() -> None:
    one, again = (Shortening.plain(vectors(0, 60), vectors(2, 60), 12, 0) for _ in range(2))
    np.testing.assert_array_equal(one.axes, again.axes)


@pytest.mark.parametrize("count", [30, 200, 2_000])
def test_vectors_nearly_alike_stay_near(count: int) -> None:
    known, unseen, others = vectors(0, count), vectors(2, 300), vectors(3, 50)
    noise = np.random.default_rng(2).normal(size=others.shape)
    twins = (others + 0.03 * noise * others.std(axis=0)).astype(np.float32)
    shortening = Shortening.with_residual(known, unseen, 12)
    made = paired_distances(shortening(others), shortening(twins), shortening.residuals)
    exact = np.linalg.norm(others - twins, axis=1)
    assert 0.5 < np.median(made / exact) < 2.5
    orthogonal = Residuals(1e-9, 11)
    assert np.median(paired_distances(shortening(others), shortening(twins), orthogonal) / exact) > 5


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3])
def test_a_graph_finds_the_nearest_by_residuals(spread: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3_000, 13)).astype(np.float32)
    x[:, 0] = 6 * np.exp(spread * rng.normal(size=len(x)))  # far longer than the coordinates
    residuals, graph = Residuals(4.0, 12), Graph.build(x)
    ids, distances = graph.nearest(x[:200], x, 10, None, None, residuals)
    np.testing.assert_array_equal(ids[:, 0], np.arange(200))
    assert not distances[:, 0].any()
    exact, _ = nearest(x[:200], x, 10, residuals=residuals)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(ids, exact, strict=True)]) > 9.2
    assert all(len(set(row)) == 10 for row in ids)
    allowed = np.arange(3_000) % 3 > 0
    ids, _ = graph.nearest(x[:20], x, 10, allowed, None, residuals)
    assert allowed[ids].all()


@pytest.mark.parametrize("count", [50, 400])
def test_nothing_is_lost_where_the_axes_hold_all(count: int) -> None:
    rng = np.random.default_rng(0)
    known = (rng.normal(size=(count, 5)) @ rng.normal(size=(5, LONG))).astype(np.float32)
    exact = cdist(known, known)
    for shortening in (Shortening.with_residual(known, known, 6), Shortening.plain(known[:50], known, 9, 0)):
        made = distances_between(shortening(known), shortening(known), residuals=shortening.residuals)
        np.testing.assert_allclose(made, exact, rtol=1e-4, atol=1e-3)
        tripled = shortening.scaled(3.0)
        again = Shortening.restored(tripled.arrays())
        np.testing.assert_array_equal(again(known), tripled(known))
        made = distances_between(again(known), again(known), residuals=again.residuals)
        np.testing.assert_allclose(made, 3 * exact, rtol=1e-4, atol=3e-3)


def test_numbers_that_no_known_vector_shows_still_tell_of_others() -> None:
    known, others = vectors(0, 40), vectors(1, 200)
    exact = cdist(others, others)[np.triu_indices(200, 1)]
    shortening = Shortening.plain(known, vectors(2, 100), 120, 0)
    assert shortening(others).shape == (200, 120)
    made = cdist(shortening(others), shortening(others))[np.triu_indices(200, 1)]
    within = Shortening(shortening.centre, shortening.axes[:39], None)
    lost = cdist(within(others), within(others))[np.triu_indices(200, 1)]
    assert abs(np.mean(made / exact) - 1) < 0.05
    assert np.mean(lost / exact) < 0.6
    np.testing.assert_allclose(cdist(shortening(known), shortening(known)), cdist(known, known), rtol=0.02)


def test_vectors_that_are_all_the_same_are_shortened_too() -> None:
    same = np.ones((20, 30), dtype=np.float32)
    for shortening in (Shortening.with_residual(same, same, 4), Shortening.plain(same, same, 4, 0)):
        made = distances_between(shortening(same), shortening(same), residuals=shortening.residuals)
        np.testing.assert_array_equal(made, np.zeros((20, 20)))


def clouds(seed: int, count: int, dim: int = 3) -> Measures:
    rng = np.random.default_rng(seed)
    points = [rng.normal(size=(int(rng.integers(3, 9)), dim)) + rng.normal(size=dim) for _ in range(count)]
    return Measures.from_point_clouds(points)


@pytest.fixture(scope="module", params=["quantiles", "transport", "sinkhorn", "linear"])
def short(request: pytest.FixtureRequest) -> Embedder:
    settings = {"training": TrainingSettings(steps=20, checks=2), "pairs": 1_500, "n_jobs": 1, "verbose": False}
    return Embedder(encoder=request.param, dim=16, residual=True, **settings).fit(clouds(0, 160))


def test_all_that_a_model_answers_reads_the_residuals(short: Embedder, tmp_path: Path) -> None:
    unseen = clouds(1, 30)
    found, far = short.transform(unseen), short.pairwise(unseen)
    assert found.shape == (30, 16)
    assert short.residuals is not None
    np.testing.assert_array_equal(short.between(found), far)
    np.testing.assert_allclose(far, read(found, found, short.residuals), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(short.distance(unseen[1:], unseen[:-1]), np.diagonal(far, 1), rtol=1e-4)
    np.testing.assert_allclose(short.paired(found[1:], found[:-1]), np.diagonal(far, 1), rtol=1e-4)
    np.testing.assert_allclose(short.pairwise(unseen, interval=0.8).predicted, far, rtol=1e-4)
    report = wembed.evaluate(short, unseen, pairs=50, queries=3)
    np.testing.assert_allclose(report.predicted, far[tuple(report.asked.T)], rtol=1e-4)
    assert report.hoods is not None
    asking = report.pool[report.hoods.queries]
    np.testing.assert_allclose(report.predicted_hoods, far[asking][:, report.pool], rtol=1e-4)
    short.save(tmp_path)
    loaded = wembed.load(tmp_path)
    assert loaded.residuals == short.residuals
    np.testing.assert_array_equal(loaded.pairwise(unseen), far)


@pytest.mark.parametrize("method", ["flat", "hnsw"])
def test_neighbours_are_those_by_the_residuals(short: Embedder, method: str, tmp_path: Path) -> None:
    collection, asked = clouds(2, 400), clouds(3, 20)
    far = short.pairwise(asked, collection)
    Index(short, collection, method=method).save(tmp_path)
    index = Index.load(tmp_path)
    found = index.query(asked, k=5)
    np.testing.assert_allclose(found.distances, np.take_along_axis(far, found.ids, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.distances, np.sort(far, axis=1)[:, :5], rtol=1e-4)
    own = index.query(collection[:20], k=1)
    np.testing.assert_array_equal(own.ids[:, 0], np.arange(20))
    np.testing.assert_allclose(own.distances, 0, atol=1e-2)
    among = index.query(asked, k=3, among=range(0, 400, 2))
    np.testing.assert_allclose(among.distances, np.sort(far[:, ::2], axis=1)[:, :3], rtol=1e-4)


def test_a_service_reads_the_residuals(short: Embedder, tmp_path: Path) -> None:
    collection, asked = clouds(2, 60), clouds(3, 5)
    Index(short, collection).save(tmp_path)
    with running(tmp_path) as url, wembed.Client(url) as client:
        assert short.residuals is not None
        assert client.info()["residuals"] == {"width": short.residuals.width, "coordinates": 12}
        np.testing.assert_allclose(client.pairwise(asked), short.pairwise(asked), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(
            client.distance(asked[1:], asked[:-1]), short.distance(asked[1:], asked[:-1]), rtol=1e-4
        )
        np.testing.assert_allclose(client.query(asked, k=3).distances, Index.load(tmp_path).query(asked, k=3).distances)


def test_a_measure_moved_is_as_far_as_it_was_moved(short: Embedder) -> None:
    unseen, by = clouds(1, 20), np.array([3.0, -4.0, 12.0])
    moved = Measures.from_point_clouds([one.support + by for one in unseen])
    np.testing.assert_allclose(short.distance(unseen, moved), 13.0, rtol=1e-3)


def test_short_vectors_with_a_residual_are_nearer_to_long_ones() -> None:
    measures, unseen = clouds(0, 150), clouds(1, 60)
    settings = {"training": TrainingSettings(steps=20, checks=2), "pairs": 2_000, "n_jobs": 1, "encoder": "sinkhorn"}
    rows = np.triu_indices(60, 1)
    whole = Embedder(**settings).fit(measures).pairwise(unseen)[rows]
    plain, residual = (
        Embedder(dim=12, residual=flag, **settings).fit(measures).pairwise(unseen)[rows] for flag in (False, True)
    )
    errors = [np.abs(short / whole - 1).mean() for short in (plain, residual)]
    assert errors[1] < 0.5 * errors[0]


FEW = {"training": TrainingSettings(steps=3), "pairs": 300, "n_jobs": 1}


def test_vectors_are_no_longer_than_the_encoder_has_them() -> None:
    measures = clouds(0, 40)
    whole = Embedder(encoder="linear", **FEW).fit(measures)
    for residual in (False, True):
        long = Embedder(encoder="linear", dim=5_000, residual=residual, **FEW).fit(measures)
        assert (long.dim_, long.residuals) == (whole.dim_, None)
        np.testing.assert_array_equal(long.transform(measures), whole.transform(measures))


@pytest.mark.parametrize("dim", [128, 200])
def test_an_encoder_that_is_long_enough_by_itself_needs_no_residual(dim: int) -> None:
    measures = clouds(0, 40)
    one, other = (Embedder(encoder="quantiles", dim=dim, residual=flag, **FEW).fit(measures) for flag in (False, True))
    assert (other.dim_, other.residuals) == (dim, None)
    np.testing.assert_array_equal(other.transform(measures), one.transform(measures))


@pytest.mark.parametrize(
    ("settings", "dim"),
    [
        ({"order": 1}, 3),  # no centroid beside
        ({"dim": 4}, 3),  # too little room for one
        ({"dim": 2}, 1),
        ({"metric": "great-circle-degrees", "order": 1, "dim": 7}, 2),
        ({"residual": False}, 3),
        ({"encoder": "quantiles"}, 2),
    ],
)
@pytest.mark.parametrize("encoder", ["linear", "transport"])
def test_short_vectors_of_any_kind_are_near_and_saved(settings: dict, dim: int, encoder: str, tmp_path: Path) -> None:
    measures, unseen = clouds(0, 150, dim), clouds(1, 30, dim)
    settings = {"encoder": encoder, "residual": True, "dim": 12, **FEW, **settings}
    short = Embedder(**settings).fit(measures)
    whole = Embedder(**settings | {"dim": None, "residual": False}).fit(measures)
    assert short.transform(unseen).shape == (30, settings["dim"])
    assert (short.residuals is not None) == settings["residual"]
    rows = np.triu_indices(30, 1)
    assert np.abs(short.pairwise(unseen)[rows] / whole.pairwise(unseen)[rows] - 1).mean() < 0.15
    short.save(tmp_path)
    np.testing.assert_array_equal(wembed.load(tmp_path).pairwise(unseen), short.pairwise(unseen))


@pytest.mark.parametrize(("dim", "there"), [(12, True), (4, False)])
def test_centroids_are_read_only_where_they_are(dim: int, there: bool) -> None:
    measures = clouds(0, 60)
    short = Embedder(encoder="linear", dim=dim, residual=True, **FEW).fit(measures)
    found = short._learned.centroids(short.transform(measures))
    assert (found is not None) == there
    if found is not None:
        np.testing.assert_allclose(found, measures.centroids(), atol=1e-5)
    short.fit_decoder(measures, atoms=8, steps=5, mixtures=0)
    assert len(short.decode(short.transform(measures))) == 60


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("unit", [1e-20, 1e20])
def test_short_vectors_have_the_unit_of_the_points(unit: float, residual: bool) -> None:
    near = Embedder(encoder="linear", dim=9, residual=residual, **FEW).fit(clouds(0, 60))
    far = Embedder(encoder="linear", dim=9, residual=residual, **FEW).fit(scaled(clouds(0, 60), unit))
    expected = near.pairwise(clouds(1, 20))
    np.testing.assert_allclose(
        far.pairwise(scaled(clouds(1, 20), unit)) / np.float32(unit), expected, rtol=1e-3, atol=1e-3
    )


def scaled(measures: Measures, factor: float) -> Measures:
    return Measures.from_point_clouds([one.support * factor for one in measures])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"residual": True}, "a residual takes dim=2 or more, of which one number is its length; here is none"),
        ({"residual": True, "dim": 1}, "here is dim=1"),
        ({"dim": 8, "training": TrainingSettings(reconstruction=0.1)}, "reads vectors at full length"),
        (
            {"dim": 8, "residual": True, "encoder": "quantiles", "training": TrainingSettings(reconstruction=0.1)},
            "reads vectors at full length",
        ),
    ],
)
def test_what_cannot_be_made_short_is_refused_before_anything_is_solved(settings: dict, named: str) -> None:
    with pytest.raises(wembed.SettingError, match=named):
        Embedder(**settings).check(clouds(0, 60))


def test_vectors_of_another_model_are_refused(short: Embedder) -> None:
    found = short.transform(clouds(1, 4))
    for wrong in (found[:, :5], found[0], found.astype(int)):
        with pytest.raises(wembed.SettingError, match="expected floats"):
            short.between(wrong)
    with pytest.raises(wembed.SettingError, match="as many of both"):
        short.paired(found, found[:2])
    found[2, 3] = np.nan
    with pytest.raises(wembed.SettingError, match="vector 2 has a number that is NaN"):
        short.between(found)
