import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators
from test_store import full_disk

import wembed
from wembed import GroundCost, Measures, SettingError, SolverError, exact_distances
from wembed.transport import exact, parallel
from wembed.transport.pairs import Listed, PairPlan, all_pairs
from wembed.transport.parallel import block_boundaries

ROOT = Path(wembed.__file__).parents[1]


@pytest.fixture(scope="module")
def measures():
    rng = np.random.default_rng(0)
    return Measures.from_point_clouds([rng.normal(size=(n, 2)) for n in rng.integers(1, 30, 18)])


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few pairs, each sent to a worker."""
    monkeypatch.setattr(parallel, "_BLOCK_WORK", 2e6)
    monkeypatch.setattr(parallel, "ALONE_WORK", 0)


def every_pair(measures):
    return np.array(list(itertools.combinations(range(len(measures)), 2)))


# ---- values


@pytest.mark.parametrize("cost", [GroundCost(), GroundCost("cityblock", 1)], ids=["w2", "w1"])
def test_values_do_not_depend_on_the_number_of_workers_nor_on_the_backend(measures, small_blocks, cost):
    pairs = every_pair(measures)
    alone = exact_distances(measures, pairs, cost, n_jobs=1)
    np.testing.assert_array_equal(exact_distances(measures, pairs, cost, n_jobs=2), alone)
    for backend in ("threading", "sequential", "multiprocessing"):
        with joblib.parallel_config(backend=backend):
            np.testing.assert_array_equal(exact_distances(measures, pairs, cost, n_jobs=2), alone)
            np.testing.assert_array_equal(exact_distances(measures, pairs, cost, n_jobs=-1), alone)


def test_values_do_not_depend_on_the_cut_into_blocks(measures, monkeypatch):
    pairs = every_pair(measures)
    whole = exact_distances(measures, pairs, n_jobs=1)
    monkeypatch.setattr(parallel, "_BLOCK_WORK", 3e5)
    np.testing.assert_array_equal(exact_distances(measures, pairs, n_jobs=1), whole)


def test_values_follow_the_order_of_the_pairs_they_were_asked_in(measures, small_blocks):
    pairs = every_pair(measures)
    order = np.random.default_rng(0).permutation(len(pairs))
    expected = exact_distances(measures, pairs, n_jobs=1)[order]
    with joblib.parallel_config(backend="threading"):
        np.testing.assert_array_equal(exact_distances(measures, pairs[order][:, ::-1], n_jobs=2), expected)


def test_a_measure_is_0_from_itself_and_repeated_pairs_are_solved_alike(measures):
    found = exact_distances(measures, [(3, 3), (4, 7), (7, 4), (0, 0), (4, 7)], n_jobs=1)
    assert found[0] == found[3] == 0
    assert found[1] == found[2] == found[4] > 0


def test_memory_mapped_measures_have_the_same_distances(measures, small_blocks, tmp_path):
    measures.save(tmp_path)
    pairs = every_pair(measures)
    mapped = exact_distances(Measures.load(tmp_path), pairs, n_jobs=2)
    np.testing.assert_array_equal(mapped, exact_distances(measures, pairs, n_jobs=1))


def test_images_and_the_same_pixels_as_clouds_have_the_same_distances():
    images = np.random.default_rng(0).integers(0, 3, (6, 5, 5)) + np.eye(5, dtype=int)
    left = Measures.from_images(images)
    right = Measures.from_point_clouds([m.support for m in left], [m.weights for m in left])
    pairs = every_pair(left)
    np.testing.assert_allclose(exact_distances(left, pairs), exact_distances(right, pairs), rtol=1e-12)


def test_the_default_cost_is_euclidean_w2(measures):
    found = exact_distances(measures, [(0, 1)])
    assert found.tolist() == exact_distances(measures, [(0, 1)], GroundCost("euclidean", 2)).tolist()


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_no_pairs_have_no_distances(measures, n_jobs):
    assert exact_distances(measures, np.empty((0, 2), dtype=int), n_jobs=n_jobs).shape == (0,)


# ---- refusing


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([(0, 18)], r"pair 0 is \(0, 18\) and there are 18 measures"),
        ([(0, 1), (-1, 2)], r"pair 1 is \(-1, 2\)"),
        (np.array([[0, 1, 2]]), "shape"),
        (np.array([[0.5, 1.0]]), "type float64"),
    ],
)
def test_pairs_that_are_no_pairs_are_refused(measures, pairs, sentence):
    with pytest.raises(SettingError, match=sentence):
        exact_distances(measures, pairs)


def test_a_cost_that_does_not_fit_the_measures_is_refused(measures):
    with pytest.raises(SettingError, match="latitude"):
        exact_distances(measures, [(0, 1)], GroundCost("great-circle"))
    with pytest.raises(SettingError, match="common support"):
        exact_distances(measures, [(0, 1)], GroundCost(np.zeros((2, 2))))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_error_in_a_worker_reaches_the_caller_in_its_own_words(measures, small_blocks, monkeypatch, n_jobs):
    monkeypatch.setattr(exact, "_MAX_ITERATIONS", 3)
    exact.simplex_solver.cache_clear()
    with (
        joblib.parallel_config(backend="threading"),
        pytest.raises(SolverError, match=r"measures \d+ and \d+ \(\d+ and \d+ atoms\): the network simplex stopped"),
    ):
        exact_distances(measures, every_pair(measures), n_jobs=n_jobs)
    exact.simplex_solver.cache_clear()


# ---- progress


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_counts_up_to_all_pairs(measures, small_blocks, n_jobs):
    calls = []
    with joblib.parallel_config(backend="threading"):
        exact_distances(measures, every_pair(measures), n_jobs=n_jobs, progress=lambda *call: calls.append(call))
    done, total = zip(*calls, strict=True)
    assert len(calls) > 3
    assert set(total) == {153}
    assert (np.diff(done) > 0).all()
    assert done[-1] == 153


# ---- blocks


@given(generators(), st.integers(0, 60), st.floats(1e5, 1e8))
def test_blocks_cover_the_plan_and_hold_about_the_same_work(rng, count, block_work):
    measures = Measures.from_point_clouds([rng.normal(size=(n, 1)) for n in rng.integers(1, 60, 20)])
    pairs, before = rng.integers(0, 20, (count, 2)), parallel._BLOCK_WORK
    try:
        parallel._BLOCK_WORK = block_work
        cuts = block_boundaries(measures, PairPlan((Listed(pairs),)))
    finally:
        parallel._BLOCK_WORK = before
    assert cuts[0] == 0
    assert cuts[-1] == count
    assert (np.diff(cuts) > 0).all()
    work = parallel._work(measures, pairs) if count else np.zeros(0)
    for start, stop in itertools.pairwise(cuts.tolist()):
        assert (
            work[start:stop].sum() < block_work + work[stop - 1] + 1
        )  # no more than a block and the pair that fills it


def test_blocks_do_not_depend_on_how_the_plan_is_read(measures, small_blocks, monkeypatch):
    plan = PairPlan((all_pairs(np.arange(len(measures))),))
    whole = block_boundaries(measures, plan)
    assert len(whole) > 5
    monkeypatch.setattr(parallel, "_CHUNK", 7)
    np.testing.assert_array_equal(block_boundaries(measures, plan), whole)


def test_blocks_do_not_depend_on_the_number_of_workers(measures, small_blocks, monkeypatch):
    asked = []
    original = parallel.solve_blocks

    def spy(measures, plan, boundaries, *rest):
        asked.append(boundaries.tolist())
        return original(measures, plan, boundaries, *rest)

    monkeypatch.setattr(parallel, "solve_blocks", spy)
    for n_jobs in (1, 2, 3):
        with joblib.parallel_config(backend="threading"):
            exact_distances(measures, every_pair(measures), n_jobs=n_jobs)
    assert asked[0] == asked[1] == asked[2]


def test_a_pair_of_large_measures_weighs_more_than_one_of_small_ones(monkeypatch):
    measures = Measures.from_point_clouds([np.zeros((n, 1)) for n in (1, 1, 1000, 1000)])
    monkeypatch.setattr(parallel, "_BLOCK_WORK", 1e9)
    small, large = (PairPlan((Listed(np.tile([pair], (count, 1))),)) for pair, count in (((0, 1), 1000), ((2, 3), 10)))
    assert len(block_boundaries(measures, small)) == 2
    assert len(block_boundaries(measures, large)) == 11


# ---- workers


def test_workers_solve_without_importing_torch():
    script = """
import os, sys
import joblib
import numpy as np
from wembed import Measures, exact_distances
from wembed.transport import parallel

def loaded():
    return os.getpid(), "torch" in sys.modules, "ot" in sys.modules, "wembed.transport.exact" in sys.modules

parallel._BLOCK_WORK, parallel.ALONE_WORK = 1e6, 0
measures = Measures.from_images(np.random.default_rng(0).random((20, 4, 4)))
pairs = np.stack(np.triu_indices(20, 1), axis=1)
before = exact_distances(measures, pairs, n_jobs=2)
seen = joblib.Parallel(n_jobs=2)(joblib.delayed(loaded)() for _ in range(40))
assert os.getpid() not in {pid for pid, *_ in seen}, "nothing ran in a worker"
assert any(ot for _, _, ot, _ in seen), "the workers are others than those that solved"
assert not any(torch for _, torch, _, _ in seen), "a worker imported torch"
assert "torch" not in sys.modules and "ot" not in sys.modules, "the parent imported what only workers need"
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_exact_half_imports_neither_torch_nor_pot_nor_scipy():
    script = """
import sys
import wembed.transport.precompute, wembed.transport.store, wembed.transport.parallel
from wembed import GroundCost, Measures
assert not {"torch", "ot", "scipy.spatial", "sklearn"} & set(sys.modules), sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_few_pairs_are_solved_without_starting_workers(measures, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("workers were started")

    monkeypatch.setattr(joblib, "Parallel", refuse)
    assert exact_distances(measures, [(0, 1), (2, 3)], n_jobs=8).shape == (2,)


def test_a_worker_computes_on_one_thread(monkeypatch):
    threads = []

    def task():
        threads.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())

    monkeypatch.setenv("WEMBED_WORKER", "")
    with threadpoolctl.threadpool_limits(2):
        parallel._as_worker(-1, task, ())
    assert set(threads) == {1}


def killed(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_a_sentence():
    with pytest.raises(SolverError, match=r"worker process was killed.*fewer jobs"):
        list(parallel.in_workers(killed, ((i,) for i in range(4)), 2))


def test_no_room_for_the_data_of_the_workers_is_a_sentence(tmp_path):
    with full_disk() as no_more_than, joblib.parallel_config(temp_folder=tmp_path):
        no_more_than(100_000)
        with pytest.raises(SolverError, match="JOBLIB_TEMP_FOLDER"):
            list(parallel.in_workers(len, ((np.zeros(1_000_000),) for _ in range(4)), 2))


@pytest.mark.parametrize(("backend", "ahead"), [("multiprocessing", 2), ("loky", 4)])
def test_tasks_are_drawn_as_they_are_needed(backend, ahead):
    drawn = []

    def tasks():
        for index in range(40):
            drawn.append(index)
            yield (-index,)

    with joblib.parallel_config(backend=backend):
        results = parallel.in_workers(abs, tasks(), 2)
        first = next(results)
        assert len(drawn) <= ahead + 4  # results that are there already let further tasks go
        assert sorted([first, *results]) == list(range(40))
