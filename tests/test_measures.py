import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from strategies import collections, generators

import wembed.measures
from wembed import Measure, MeasureError, Measures, ReadError, WembedError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def images(rng):
    return rng.integers(0, 3, (30, 5, 7)) + np.eye(5, 7, dtype=np.int64)


@pytest.fixture
def point_clouds(rng):
    return Measures.from_point_clouds(
        [rng.normal(size=(n, 3)) for n in range(1, 11)], [rng.random(n) + 0.1 for n in range(1, 11)]
    )


def run(script, *arguments):
    """Run a script in a Python of its own, in which nothing checks shapes."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=Path(wembed.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def same(one: Measure, other: Measure) -> bool:
    return np.array_equal(one.support, other.support) and np.array_equal(one.weights, other.weights)


# ---- building


def test_atoms_of_an_image_are_its_nonzero_pixels_at_row_and_column():
    measure = Measures.from_images([[[0, 2, 0], [0, 0, 6]]])[0]
    assert measure.support.tolist() == [[0, 1], [1, 2]]
    assert measure.weights.tolist() == [0.25, 0.75]


def test_atoms_of_a_volume_are_its_nonzero_voxels():
    volume = np.zeros((1, 2, 3, 4))
    volume[0, 1, 2, 3] = volume[0, 0, 1, 0] = 5
    measures = Measures.from_images(volume)
    assert measures[0].support.tolist() == [[0, 1, 0], [1, 2, 3]]
    assert measures.grid == (2, 3, 4)
    assert measures.dim == 3


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint64, np.int8, np.int64, np.float16, np.float32, np.longdouble])
def test_the_type_of_the_pixels_does_not_change_the_measures(dtype):
    images = np.eye(4).reshape(1, 4, 4)
    assert Measures.from_images(images.astype(dtype)).fingerprint == Measures.from_images(images).fingerprint


def test_images_laid_out_again_are_the_images_at_unit_mass(images):
    laid_out = Measures.from_images(images).histograms()
    np.testing.assert_allclose(laid_out.reshape(images.shape), images / images.sum(axis=(1, 2), keepdims=True))


def test_an_image_costs_twelve_bytes_an_atom(rng):
    measures = Measures.from_images(rng.random((50, 28, 28)) + 0.1)
    assert measures.weights.nbytes + measures.atoms.nbytes == 12 * 50 * 28 * 28
    assert measures.support.shape == (784, 2)


@pytest.mark.parametrize("form", [sp.csr_array, sp.csc_matrix, sp.coo_array, sp.lil_matrix, sp.dok_array])
def test_sparse_histograms_are_the_dense_ones(rng, form):
    dense = rng.integers(0, 3, (20, 9)) + np.eye(20, 9, k=-5, dtype=np.int64) + np.eye(20, 9, dtype=np.int64)
    dense[:, 0] += 1
    support = rng.normal(size=(9, 2))
    assert (
        Measures.from_histograms(form(dense), support).fingerprint
        == Measures.from_histograms(dense, support).fingerprint
    )


def test_duplicate_and_explicit_zero_entries_of_a_sparse_matrix_are_summed_and_dropped():
    coordinates = sp.coo_array(([1.0, 2.0, 0.0, 4.0], ([0, 0, 0, 1], [2, 2, 1, 0])), shape=(2, 3))
    rows = sp.csr_array(([1.0, 0.0, 2.0, 4.0], [2, 1, 2, 0], [0, 3, 4]), shape=(2, 3))
    for matrix in (coordinates, rows):
        measures = Measures.from_histograms(matrix, [0.0, 1.0, 2.0])
        assert measures.sizes.tolist() == [1, 1]
        assert measures.points().tolist() == [[2.0], [0.0]]


def test_building_leaves_what_it_was_given_alone(rng):
    dense, support = rng.integers(0, 2, (5, 4)) + np.eye(5, 4) + np.eye(5, 4, k=-1), rng.normal(size=(4, 2))
    matrix = sp.csr_array(dense)
    matrix.data[0] = 0.0
    copies = dense.copy(), support.copy(), matrix.data.copy()
    Measures.from_histograms(dense, support)
    Measures.from_histograms(matrix, support)
    cloud = Measures.from_point_clouds([support], [dense[0] + 1])
    cloud.support[0] = 99
    for now, before in zip((dense, support, matrix.data), copies, strict=True):
        np.testing.assert_array_equal(now, before)


def test_a_support_of_numbers_is_a_support_on_the_line():
    measures = Measures.from_histograms([[1, 0, 1]], [0.0, 10.0, 20.0])
    assert measures[0].support.tolist() == [[0.0], [20.0]]


def test_points_without_weights_share_the_mass_equally():
    measures = Measures.from_point_clouds([[[0, 0], [1, 1], [1, 1], [2, 2]], [[5, 5]]])
    assert measures[0].weights.tolist() == [0.25] * 4
    assert measures[1].weights.tolist() == [1.0]


def test_a_flat_array_of_points_is_a_cloud_on_the_line():
    measures = Measures.from_point_clouds([[3, 1, 2], np.array([7.0])])
    assert measures.dim == 1
    assert measures[0].support.tolist() == [[3.0], [1.0], [2.0]]


def test_clouds_laid_end_to_end_are_the_clouds(rng, point_clouds):
    flat = Measures.from_flat(point_clouds.support.copy(), point_clouds.weights * 7, point_clouds.sizes)
    assert len(flat) == len(point_clouds)
    for one, other in zip(flat, point_clouds, strict=True):
        np.testing.assert_array_equal(one.support, other.support)
        np.testing.assert_allclose(one.weights, other.weights, rtol=1e-14)


def test_atoms_without_mass_are_dropped_in_every_form():
    points, weights = np.array([[0.0, 1], [2, 3], [4, 5]]), np.array([1.0, 0.0, 3.0])
    forms = [
        Measures.from_point_clouds([points], [weights]),
        Measures.from_histograms([weights], points),
        Measures.from_histograms(sp.csr_array(weights[None]), points),
        Measures.from_flat(points, weights, np.array([3])),
    ]
    for measures in forms:
        assert measures[0].support.tolist() == [[0, 1], [4, 5]]
        assert measures[0].weights.tolist() == [0.25, 0.75]


def test_coinciding_atoms_are_kept_apart():
    measure = Measures.from_point_clouds([[[1, 2], [1, 2], [1, 2]]])[0]
    assert measure.support.tolist() == [[1, 2]] * 3


@given(generators(), st.integers(-300, 300), st.integers(1, 40))
def test_the_mass_of_every_measure_is_one_however_huge_or_tiny_it_came(rng, power, size):
    weights = (rng.random((3, size)) + 1e-6) * 10.0**power
    points = rng.normal(size=(size, 2))
    for measures in (
        Measures.from_histograms(weights, points),
        Measures.from_histograms(sp.csr_array(weights), points),
        Measures.from_point_clouds([points] * 3, list(weights)),
    ):
        np.testing.assert_allclose([m.weights.sum() for m in measures], 1, rtol=0, atol=1e-14)
        np.testing.assert_allclose(
            measures[1].weights, weights[1] / weights[1].max() / (weights[1] / weights[1].max()).sum()
        )


@pytest.mark.parametrize("mass", [5e-324, 1e-310, 1.7e308])
def test_the_smallest_and_the_largest_float_are_masses(mass):
    assert Measures.from_point_clouds([[0.0, 1.0, 2.0]], [[mass] * 3])[0].weights.tolist() == [1 / 3] * 3
    assert Measures.from_images(np.full((1, 2, 2), mass))[0].weights.tolist() == [0.25] * 4


@given(generators())
def test_building_in_blocks_changes_nothing(rng):
    images = rng.integers(0, 4, (13, 3, 3)) + np.eye(3, dtype=np.int64)
    whole, before = Measures.from_images(images), wembed.measures._BLOCK
    try:
        wembed.measures._BLOCK = 20
        blocks = Measures.from_images(images)
        assert blocks.fingerprint == whole.fingerprint
        np.testing.assert_array_equal(blocks.weights, whole.weights)
        images[9, 1, 1] = -1
        with pytest.raises(MeasureError, match="image 9 has a negative"):
            Measures.from_images(images)
    finally:
        wembed.measures._BLOCK = before


# ---- refusing

nan, inf = np.nan, np.inf
two = [[0.0, 0.0], [1.0, 1.0]]
line = [0.0, 1.0]
REFUSED = {
    "a pixel that is NaN": (lambda: Measures.from_images([[[1.0]], [[nan]]]), "image 1 .*NaN"),
    "a pixel that is infinite": (lambda: Measures.from_images([[[1.0, 2]], [[1, inf]]]), "image 1 .*NaN or inf"),
    "a negative pixel": (lambda: Measures.from_images([[[1]], [[1]], [[-1]]]), "image 2 .*negative"),
    "a black image": (lambda: Measures.from_images([[[1.0]], [[0.0]]]), "image 1 sum to 0"),
    "no images": (lambda: Measures.from_images(np.zeros((0, 28, 28))), "no images"),
    "images without pixels": (lambda: Measures.from_images(np.zeros((3, 0, 5))), "no images"),
    "one image alone": (lambda: Measures.from_images(np.ones((28, 28))), r"\(28, 28\).*expected \(n, height, width\)"),
    "colour images in a batch of volumes": (lambda: Measures.from_images(np.ones((1, 2, 2, 2, 3))), "shape"),
    "ragged images": (lambda: Measures.from_images([[[1, 2]], [[1]]]), "ragged"),
    "images of strings": (lambda: Measures.from_images([[["a"]]]), "type"),
    "images of objects": (lambda: Measures.from_images(np.array([[[None]]])), "type object"),
    "complex images": (lambda: Measures.from_images(np.ones((1, 2, 2)) * 1j), "type complex"),
    "dates for images": (lambda: Measures.from_images(np.zeros((1, 2, 2), dtype="M8[s]")), "type datetime"),
    "a weight that all but vanishes": (lambda: Measures.from_images([[[1e308, 1e-300]]]), "image 0"),
    "a histogram with NaN": (lambda: Measures.from_histograms([[1, 1], [nan, 1]], line), "histogram 1 .*NaN"),
    "a negative bin": (lambda: Measures.from_histograms([[1, 1], [-1, 2]], line), "histogram 1 .*negative"),
    "an empty histogram": (lambda: Measures.from_histograms([[1, 1], [0, 0]], line), "histogram 1 sum to 0"),
    "no histograms": (lambda: Measures.from_histograms(np.zeros((0, 2)), line), "no histograms"),
    "bins that are not the support's": (
        lambda: Measures.from_histograms(np.ones((2, 3)), line),
        r"expected .*\(n, 2\)",
    ),
    "one flat histogram": (lambda: Measures.from_histograms([1, 1], line), "shape"),
    "a support with NaN": (lambda: Measures.from_histograms([[1, 1]], [0, nan]), "support .*NaN"),
    "an empty support": (lambda: Measures.from_histograms(np.ones((1, 0)), np.ones((0, 2))), "support has no atoms"),
    "a support of three axes": (lambda: Measures.from_histograms([[1]], [[[1]]]), "support have shape"),
    "a sparse row without mass": (
        lambda: Measures.from_histograms(sp.csr_array([[1.0, 1], [0, 0]]), line),
        "histogram 1",
    ),
    "a sparse row with NaN": (
        lambda: Measures.from_histograms(sp.csr_array([[1.0, 1], [0, nan]]), line),
        "gram 1 .*NaN",
    ),
    "a sparse negative bin": (lambda: Measures.from_histograms(sp.csr_array([[1.0, 1], [3, -1]]), line), "histogram 1"),
    "no sparse rows": (lambda: Measures.from_histograms(sp.csr_array((0, 2)), line), "histogram"),
    "complex sparse bins": (lambda: Measures.from_histograms(sp.csr_array([[1, 1j]]), line), "complex"),
    "no clouds": (lambda: Measures.from_point_clouds([]), "no point clouds"),
    "an empty cloud": (lambda: Measures.from_point_clouds([two, np.zeros((0, 2))]), "measure 1 has no atoms"),
    "a cloud with NaN": (lambda: Measures.from_point_clouds([two, [[nan, 0]]]), "measure 1 .*NaN"),
    "a cloud with infinity": (lambda: Measures.from_point_clouds([two, [[0, -inf]]]), "measure 1 .*infinite"),
    "mixed dimensions": (lambda: Measures.from_point_clouds([two, two, [[1, 2, 3]]]), "measure 2 has dimension 3"),
    "points of three axes": (lambda: Measures.from_point_clouds([two, [two]]), "measure 1 have shape"),
    "points without axes": (lambda: Measures.from_point_clouds([two, np.zeros((3, 0))]), "measure 1 have shape"),
    "a number for a cloud": (lambda: Measures.from_point_clouds([two, 3.0]), "measure 1 have shape"),
    "ragged points": (lambda: Measures.from_point_clouds([two, [[1, 2], [3]]]), "measure 1 are ragged"),
    "points of strings": (lambda: Measures.from_point_clouds([two, [["a", "b"]]]), "measure 1 have type"),
    "points of objects": (lambda: Measures.from_point_clouds([two, [[None, 1]]]), "measure 1 have type object"),
    "a weight too many": (
        lambda: Measures.from_point_clouds([two, two], [[1, 1], [1, 1, 1]]),
        "measure 1 has 2 points",
    ),
    "weights of two axes": (lambda: Measures.from_point_clouds([two], [[[1], [1]]]), "measure 0 has 2 points"),
    "weights for fewer clouds": (lambda: Measures.from_point_clouds([two, two], [[1, 1]]), "2 point clouds and 1"),
    "weights that are strings": (lambda: Measures.from_point_clouds([two], [["1", "x"]]), "weights of measure 0"),
    "a negative weight": (lambda: Measures.from_point_clouds([two, two], [[1, 1], [-1, 2]]), "measure 1 .*negative"),
    "a weight that is NaN": (lambda: Measures.from_point_clouds([two, two], [[1, 1], [nan, 2]]), "measure 1 .*NaN"),
    "an infinite weight": (lambda: Measures.from_point_clouds([two, two], [[1, 1], [inf, 2]]), "measure 1 .*infinite"),
    "a cloud without mass": (lambda: Measures.from_point_clouds([two, two], [[1, 1], [0, 0]]), "measure 1 sum to 0"),
    "a flat point that is infinite": (
        lambda: Measures.from_flat(np.array([[0.0], [1], [inf]]), np.ones(3), np.array([1, 2])),
        "measure 1 .*infinite",
    ),
    "a flat weight that is negative": (
        lambda: Measures.from_flat(np.ones((3, 1)), np.array([1.0, 1, -1]), np.array([1, 2])),
        "measure 1 .*negative",
    ),
    "a flat weight that is NaN": (
        lambda: Measures.from_flat(np.ones((3, 1)), np.array([1.0, nan, 1]), np.array([1, 2])),
        "measure 1 .*NaN",
    ),
    "a flat measure without mass": (
        lambda: Measures.from_flat(np.ones((3, 1)), np.array([1.0, 0, 0]), np.array([1, 2])),
        "measure 1 sum to 0",
    ),
    "a flat measure without atoms": (
        lambda: Measures.from_flat(np.ones((3, 2)), np.ones(3), np.array([1, 0, 2])),
        "measure 1 has no atoms",
    ),
    "flat sizes that end early": (lambda: Measures.from_flat(np.ones((3, 2)), np.ones(3), np.array([1, 1])), "sizes"),
    "flat sizes that go too far": (lambda: Measures.from_flat(np.ones((3, 2)), np.ones(3), np.array([1, 3])), "sizes"),
    "collections of two dimensions": (
        lambda: Measures.concatenate([Measures.from_point_clouds([two]), Measures.from_point_clouds([line])]),
        "dimension 2 and 1",
    ),
    "nothing to concatenate": (lambda: Measures.concatenate([]), "no "),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_the_measure_named(what):
    build, sentence = REFUSED[what]
    with pytest.raises(MeasureError, match=sentence):
        build()


def test_a_measure_error_is_a_value_error_and_a_wembed_error():
    with pytest.raises(ValueError, match="no point clouds") as caught:
        Measures.from_point_clouds([])
    assert isinstance(caught.value, WembedError)


# ---- taking apart and putting together


@pytest.mark.parametrize("index", [0, 3, -1, np.int32(4), np.int64(-10)])
def test_an_integer_takes_one_measure(point_clouds, index):
    assert same(point_clouds[index], list(point_clouds)[index])


@pytest.mark.parametrize("index", [10, -11])
def test_a_measure_that_is_not_there_is_an_index_error(point_clouds, index):
    with pytest.raises(IndexError, match="of 10"):
        point_clouds[index]


INDICES = {
    "slice": slice(2, 7),
    "open slice": slice(None),
    "backwards": slice(None, None, -1),
    "strided": slice(1, None, 3),
    "list": [5, 1, 9],
    "repeats": np.array([3, 3, 0, 3]),
    "a run": np.array([4, 5, 6]),
    "negative": np.array([-1, 0, -2]),
    "bools": np.arange(10) % 3 == 0,
    "no bool true": np.zeros(10, dtype=bool),
    "empty list": [],
    "empty slice": slice(7, 2),
}


@pytest.mark.parametrize("source", ["images", "clouds"])
@pytest.mark.parametrize("name", INDICES)
def test_indices_take_measures_as_they_take_numbers(images, point_clouds, source, name):
    measures = Measures.from_images(images[:10]) if source == "images" else point_clouds
    taken = measures[INDICES[name]]
    expected = np.arange(10)[INDICES[name]]
    assert isinstance(taken, Measures)
    assert (len(taken), taken.dim, taken.grid) == (len(expected), measures.dim, measures.grid)
    for one, number in zip(taken, expected, strict=True):
        assert same(one, measures[int(number)])


@pytest.mark.parametrize("index", [[0, 10], np.ones(9, dtype=bool), [0.5]])
def test_indices_that_do_not_fit_are_index_errors(point_clouds, index):
    with pytest.raises(IndexError):
        point_clouds[index]


@given(collections(4), st.lists(st.integers(-4, 3), max_size=6))
def test_taking_twice_is_taking_once(drawn, indices):
    measures = drawn.measures
    indices = np.array(indices, dtype=np.int64)
    assert measures[indices][::-1].fingerprint == measures[indices[::-1]].fingerprint


def test_a_run_of_measures_is_a_view(images, point_clouds):
    for measures in (Measures.from_images(images), point_clouds):
        assert np.shares_memory(measures[2:6].weights, measures.weights)


def test_iterating_gives_measure_after_measure_and_can_be_done_twice(point_clouds):
    for _ in range(2):
        assert [len(m.weights) for m in point_clouds] == list(range(1, 11))


def test_the_centroid_is_the_mean_of_the_atoms(images, point_clouds):
    for measures in (Measures.from_images(images), point_clouds):
        expected = [m.weights @ m.support for m in measures]
        np.testing.assert_allclose(measures.centroids(), expected, rtol=1e-13)
    assert point_clouds[:0].centroids().shape == (0, 3)


def test_clouds_have_no_histograms(point_clouds):
    with pytest.raises(MeasureError, match="no common support"):
        point_clouds.histograms()


def test_concatenated_images_stay_images(images):
    measures = Measures.from_images(images)
    again = Measures.concatenate([measures[:7], measures[7:8], measures[8:]])
    assert again.fingerprint == measures.fingerprint
    assert again.grid == measures.grid


def test_concatenated_clouds_are_the_clouds_in_order(point_clouds):
    again = Measures.concatenate([point_clouds[:4], point_clouds[4:]])
    assert again.fingerprint == point_clouds.fingerprint


def test_images_and_clouds_go_together_as_clouds(images):
    left, right = Measures.from_images(images[:2]), Measures.from_point_clouds([[[0.5, 0.5]], [[1, 2], [3, 4]]])
    both = Measures.concatenate([left, right])
    assert both.atoms is None
    for one, other in zip(both, [*left, *right], strict=True):
        assert same(one, other)


def test_images_of_two_sizes_go_together_as_clouds():
    left, right = Measures.from_images(np.ones((1, 2, 3))), Measures.from_images(np.ones((1, 3, 2)))
    both = Measures.concatenate([left, right])
    assert same(both[0], left[0])
    assert same(both[1], right[0])


# ---- fingerprints


def test_the_fingerprint_is_that_of_the_content_whatever_it_came_from(images, tmp_path):
    measures = Measures.from_images(images)
    measures.save(tmp_path)
    rows, columns = np.indices(images.shape[1:]).reshape(2, -1)
    flat = images.reshape(len(images), -1)
    support = np.stack([rows, columns], axis=1)
    others = [
        Measures.from_images(images * 4.0),
        Measures.from_histograms(flat, support),
        Measures.from_histograms(sp.csc_array(flat), support.astype(np.float32)),
        Measures.load(tmp_path),
        measures[:],
        Measures.concatenate([measures[:1], measures[1:]]),
    ]
    assert {other.fingerprint for other in others} == {measures.fingerprint}


def test_a_cloud_has_the_fingerprint_of_its_lists(rng):
    points, weights = rng.normal(size=(2, 4, 3)), rng.random((2, 4)) + 0.1
    lists = Measures.from_point_clouds(points.tolist(), weights.tolist())
    flat = Measures.from_flat(points.reshape(8, 3), weights.reshape(8), np.array([4, 4]))
    assert Measures.from_point_clouds(list(points), list(weights)).fingerprint == lists.fingerprint == flat.fingerprint


def test_the_fingerprint_changes_with_any_part_of_the_content(rng):
    points, weights = [rng.normal(size=(4, 2)) for _ in range(3)], [rng.random(4) + 0.1 for _ in range(3)]
    moved = [points[0], points[1], points[2] + np.array([[0, 0], [0, 0], [0, 1e-12], [0, 0]])]
    heavier = [weights[0], weights[1] * np.array([1, 1 + 1e-12, 1, 1]), weights[2]]
    prints = [
        Measures.from_point_clouds(points, weights).fingerprint,
        Measures.from_point_clouds(moved, weights).fingerprint,
        Measures.from_point_clouds(points, heavier).fingerprint,
        Measures.from_point_clouds(points[::-1], weights[::-1]).fingerprint,
        Measures.from_point_clouds(points[:2], weights[:2]).fingerprint,
        Measures.from_flat(np.concatenate(points), np.concatenate(weights), np.array([4, 3, 5])).fingerprint,
    ]
    assert len(set(prints)) == len(prints)


def test_the_fingerprint_of_measures_does_not_depend_on_the_block_it_is_hashed_in(point_clouds, monkeypatch):
    before = point_clouds.fingerprint
    monkeypatch.setattr(wembed.measures, "_BLOCK", 7)
    assert point_clouds[:].fingerprint == before


# ---- files


@pytest.mark.parametrize("source", ["images", "clouds"])
def test_saved_measures_load_as_memory_maps_of_the_same_content(images, point_clouds, source, tmp_path):
    measures = Measures.from_images(images) if source == "images" else point_clouds
    measures.save(tmp_path / "deep" / "folder")
    loaded = Measures.load(tmp_path / "deep" / "folder")
    assert isinstance(loaded.weights, np.memmap)
    assert isinstance(loaded[2:5].weights, np.memmap)
    assert loaded.fingerprint == measures.fingerprint
    assert loaded.grid == measures.grid
    for one, other in zip(loaded, measures, strict=True):
        assert same(one, other)


def test_a_loaded_collection_can_be_cut_and_saved_again(point_clouds, tmp_path):
    point_clouds.save(tmp_path / "all")
    Measures.load(tmp_path / "all")[3:7].save(tmp_path / "some")
    assert Measures.load(tmp_path / "some").fingerprint == point_clouds[3:7].fingerprint


def test_saving_over_other_measures_leaves_nothing_of_them(images, point_clouds, tmp_path):
    Measures.from_images(images).save(tmp_path)
    point_clouds.save(tmp_path)
    assert Measures.load(tmp_path).fingerprint == point_clouds.fingerprint


def test_saving_a_part_over_the_folder_it_is_mapped_from_is_safe(tmp_path):
    script = """
import sys
import numpy as np
from wembed import Measures
measures = Measures.from_images(np.random.default_rng(0).random((200, 20, 20)))
measures.save(sys.argv[1])
kept = Measures.load(sys.argv[1])[50:]
kept.save(sys.argv[1])
assert Measures.load(sys.argv[1]).fingerprint == measures[50:].fingerprint
"""
    done = run(script, tmp_path)  # writing into a file that is mapped may end a process by a signal
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(images, tmp_path):
    Measures.from_images(images).save(tmp_path / "measures")
    return tmp_path / "measures"


@pytest.mark.parametrize("file", ["measures.json", "offsets.npy", "support.npy", "weights.npy", "atoms.npy"])
@pytest.mark.parametrize("harm", ["gone", "empty", "truncated", "other bytes"])
def test_a_damaged_folder_is_refused(folder, file, harm):
    content = (folder / file).read_bytes()
    if harm == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes({"empty": b"", "truncated": content[:-16], "other bytes": b"\xff\xfe" * 40}[harm])
    with pytest.raises(ReadError, match="measures"):
        Measures.load(folder)


def test_arrays_that_do_not_agree_are_refused_also_where_shapes_are_not_checked(folder, images):
    Measures.from_images(images[:9]).save(folder.parent / "fewer")
    script = """
import shutil, sys
from pathlib import Path
from wembed import Measures, ReadError
measures, fewer = Path(sys.argv[1]), Path(sys.argv[2])
for name in ("offsets", "weights", "atoms", "support"):
    mixed = shutil.copytree(measures, measures.parent / name)
    shutil.copy(fewer / f"{'weights' if name == 'support' else name}.npy", mixed / f"{name}.npy")
    try:
        loaded = Measures.load(mixed)
    except ReadError:
        continue
    sys.exit(f"{name}.npy of other measures was taken: {loaded}")
"""
    done = run(script, folder, folder.parent / "fewer")
    assert done.returncode == 0, done.stderr


def test_a_header_without_its_count_is_refused(folder):
    header = json.loads((folder / "measures.json").read_text())
    del header["count"]
    (folder / "measures.json").write_text(json.dumps(header))
    with pytest.raises(ReadError, match="measures"):
        Measures.load(folder)


def test_a_pickle_is_never_loaded(folder):
    np.save(folder / "weights.npy", np.array([{"harm": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ReadError):
        Measures.load(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ReadError, match="nowhere"):
        Measures.load(tmp_path / "nowhere")


def test_a_collection_shows_itself_in_one_line():
    images = Measures.from_images(np.ones((3, 2, 2)))
    assert repr(images) == "Measures(3 images (2, 2), 12 atoms, dimension 2)"
    assert "point clouds" in repr(Measures.from_point_clouds([np.ones((2, 3))]))


def test_the_digest_is_of_the_measure_whatever_the_order_and_storage_of_its_atoms(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 6, 5)).astype(np.uint8)
    measures = Measures.from_images(images)
    digests = measures.digests()
    assert len(np.unique(digests)) == 40
    np.testing.assert_array_equal(Measures.from_images(images / 255).digests(), digests)
    np.testing.assert_array_equal(measures[[7, 3, 7]].digests(), digests[[7, 3, 7]])
    turned = [rng.permutation(len(m.weights)) for m in measures]
    clouds = Measures.from_point_clouds(
        [m.support[t] for m, t in zip(measures, turned, strict=True)],
        [m.weights[t] for m, t in zip(measures, turned, strict=True)],
    )
    np.testing.assert_array_equal(clouds.digests(), digests)
    for block in (1, 29, 64, 10**6):
        monkeypatch.setattr(wembed.measures, "_BLOCK", block)
        np.testing.assert_array_equal(measures.digests(), digests)
    assert len(measures[:0].digests()) == 0


def test_the_digest_tells_points_weights_and_the_pairing_of_both_apart():
    points = np.array([[0.0, 1.0], [2.0, 3.0]])
    pairs = [
        (points, [0.25, 0.75]),
        (points, [0.75, 0.25]),
        (points, [0.5, 0.5]),
        (points[:, ::-1], [0.25, 0.75]),
        (points + 1e-9, [0.25, 0.75]),
        (points[:1], [1.0]),
    ]
    digests = Measures.from_point_clouds([p for p, _ in pairs], [np.array(w) for _, w in pairs]).digests()
    assert len(np.unique(digests)) == len(pairs)
    zeros = Measures.from_point_clouds([np.array([[0.0, 1.0]]), np.array([[-0.0, 1.0]])]).digests()
    assert zeros[0] == zeros[1]
