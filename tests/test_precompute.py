import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from filelock import FileLock
from test_store import full_disk

import wembed
from wembed import (
    ArtifactError,
    DistanceStore,
    GroundCost,
    LockedError,
    Measures,
    SettingError,
    SolverError,
    Split,
    exact_distances,
    precompute,
)
from wembed.transport import exact, parallel
from wembed.transport import store as store_module
from wembed.transport.precompute import stored_split

precompute_module = sys.modules["wembed.transport.precompute"]
ROOT = Path(wembed.__file__).parents[1]


@pytest.fixture(scope="module")
def measures():
    return Measures.from_images(np.random.default_rng(0).integers(0, 3, (40, 4, 4)) + np.eye(4, dtype=int))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of some 45 pairs, each sent to a worker: all pairs of the measures are 18 of them."""
    monkeypatch.setattr(parallel, "_BLOCK_WORK", 9e6)
    monkeypatch.setattr(parallel, "ALONE_WORK", 0)


def content(path: Path) -> tuple[list, list]:
    store = DistanceStore(path)
    return store.pairs.tolist(), store.distances.tolist()


def shards(path: Path) -> dict[str, tuple[int, int]]:
    """Each shard with what changes when it is written again."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in path.glob("*.parquet")}


class Stopped(Exception):  # noqa: N818
    pass


def interrupt_after(pairs: int):
    def progress(done: int, total: int) -> None:
        if done >= pairs:
            raise Stopped

    return progress


def interrupted(measures, path, after, *arguments, **settings) -> None:
    with pytest.raises(Stopped):
        precompute(measures, path, *arguments, n_jobs=1, progress=interrupt_after(after), **settings)


# ---- what is stored


@pytest.mark.parametrize("pairs", [200, "all", np.array([[3, 1], [0, 39], [5, 6]])], ids=["drawn", "all", "listed"])
@pytest.mark.parametrize("cost", [GroundCost(), GroundCost("cityblock", 1)], ids=["w2", "w1"])
def test_a_store_holds_the_exact_distances_of_its_pairs(measures, tmp_path, pairs, cost):
    store = precompute(measures, tmp_path, pairs, cost, n_jobs=1)
    assert store.complete
    assert (store.pairs[:, 0] < store.pairs[:, 1]).all()
    np.testing.assert_array_equal(store.distances, exact_distances(measures, store.pairs, cost, n_jobs=1))
    assert content(tmp_path) == (store.pairs.tolist(), store.distances.tolist())


def test_all_pairs_are_each_pair_once(measures, tmp_path):
    store = precompute(measures, tmp_path, "all", n_jobs=1)
    assert len(store) == len(np.unique(store.pairs, axis=0)) == 40 * 39 // 2


def test_listed_pairs_are_stored_in_their_order(measures, tmp_path):
    store = precompute(measures, tmp_path, [(9, 2), (0, 1), (2, 9)], n_jobs=1)
    assert store.pairs.tolist() == [[2, 9], [0, 1], [2, 9]]


def test_drawn_pairs_never_cross_the_split_they_were_drawn_in(measures, tmp_path):
    store = precompute(measures, tmp_path, 300, n_jobs=1, seed=4)
    split = stored_split(store, measures, seed=99)
    assert split.train.tolist() == Split.draw(40, seed=4).train.tolist()
    part_of = np.empty(40, dtype=int)
    for k, part in enumerate(split.parts().values()):
        part_of[part] = k
    assert (part_of[store.pairs[:, 0]] == part_of[store.pairs[:, 1]]).all()
    assert set(part_of[store.pairs[:, 0]]) == {0, 1, 2, 3}


def test_the_shares_of_the_split_are_kept_with_the_store(measures, tmp_path):
    store = precompute(measures, tmp_path, 300, n_jobs=1, validation=0.25, test=0.3)
    split = stored_split(DistanceStore(tmp_path), measures, seed=0)
    assert (len(split.validation), len(split.test)) == (10, 12)
    assert stored_split(store, measures, seed=7).test.tolist() == split.test.tolist()


def test_a_store_of_listed_pairs_gets_the_split_that_is_asked_for(measures, tmp_path):
    store = precompute(measures, tmp_path, [(0, 1)], n_jobs=1)
    assert (
        stored_split(store, measures, 3, 0.2, 0.2).test.tolist()
        == Split.draw(40, validation=0.2, test=0.2, seed=3).test.tolist()
    )


def test_a_cost_matrix_is_stored_by_its_hash(measures, tmp_path):
    metric = 1.0 - np.eye(16)
    store = precompute(measures, tmp_path, [(0, 1), (1, 2)], GroundCost(metric, 1), n_jobs=1)
    assert store.manifest["cost"] == GroundCost(metric, 1).as_dict()
    total_variation = np.abs(np.diff(measures.histograms()[:3], axis=0)).sum(axis=1) / 2
    np.testing.assert_allclose(store.distances, total_variation, rtol=1e-9)


def test_the_manifest_names_the_measures_and_the_cost(measures, tmp_path):
    manifest = precompute(measures, tmp_path, 100, GroundCost("chebyshev", 3), n_jobs=1).manifest
    assert manifest["measures"] == measures.fingerprint
    assert manifest["cost"] == {"metric": "chebyshev", "order": 3.0}
    assert manifest["count"] == 40


def test_progress_starts_with_what_is_stored_and_ends_with_all(measures, small_blocks, tmp_path):
    interrupted(measures, tmp_path, 200, "all")
    calls = []
    precompute(measures, tmp_path, "all", n_jobs=1, progress=lambda *call: calls.append(call))
    assert calls[0][0] >= 200
    assert calls[-1] == (780, 780)
    assert (np.diff([done for done, _ in calls]) > 0).all()


# ---- workers


def test_the_content_does_not_depend_on_the_number_of_workers(measures, small_blocks, tmp_path):
    precompute(measures, tmp_path / "1", "all", n_jobs=1)
    precompute(measures, tmp_path / "2", "all", n_jobs=2)
    with joblib.parallel_config(backend="threading"):
        precompute(measures, tmp_path / "4", "all", n_jobs=4)
    expected = content(tmp_path / "1")
    assert len(expected[0]) == 780
    assert content(tmp_path / "2") == content(tmp_path / "4") == expected


# ---- a finished call does nothing


def test_a_finished_call_again_solves_nothing_and_writes_nothing(measures, small_blocks, tmp_path, monkeypatch):
    precompute(measures, tmp_path, "all", n_jobs=1)
    before = shards(tmp_path), (tmp_path / "_manifest.json").stat().st_mtime_ns
    monkeypatch.setattr(precompute_module, "solve_blocks", lambda *_: pytest.fail("solved again"))
    begin = time.perf_counter()
    store = precompute(measures, tmp_path, "all", n_jobs=2)
    assert time.perf_counter() - begin < 1
    assert len(store) == 780
    assert (shards(tmp_path), (tmp_path / "_manifest.json").stat().st_mtime_ns) == before


# ---- interruption


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_interrupted_call_goes_on_where_it_stopped(measures, small_blocks, tmp_path, monkeypatch, n_jobs):
    precompute(measures, tmp_path / "whole", "all", n_jobs=1)
    interrupted(measures, tmp_path / "cut", 300, "all")
    kept, stored = shards(tmp_path / "cut"), len(DistanceStore(tmp_path / "cut"))
    assert 300 <= stored < 780
    solved, solve_blocks = [], parallel.solve_blocks

    def count(*arguments):
        for block, distances in solve_blocks(*arguments):
            solved.append(len(distances))
            yield block, distances

    monkeypatch.setattr(precompute_module, "solve_blocks", count)
    precompute(measures, tmp_path / "cut", "all", n_jobs=n_jobs)
    assert sum(solved) == 780 - stored
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert kept.items() <= shards(tmp_path / "cut").items()


def test_a_call_that_failed_can_be_made_again_while_its_error_is_still_looked_at(measures, small_blocks, tmp_path):
    with pytest.raises(Stopped) as caught:
        precompute(measures, tmp_path, "all", n_jobs=1, progress=interrupt_after(300))
    assert precompute(measures, tmp_path, "all", n_jobs=1).complete
    assert caught.value is not None  # as a notebook keeps the last error


def test_an_unsolvable_pair_is_named_and_what_was_solved_before_is_kept(measures, small_blocks, tmp_path, monkeypatch):
    honest, calls = exact.simplex_solver(), []

    def fails_after_two_hundred(a, b, cost):
        calls.append(1)
        value, u, v, coupling, optimal = honest(a, b, cost)
        return value, u, v, coupling, optimal and len(calls) <= 200

    monkeypatch.setattr(exact, "simplex_solver", lambda: fails_after_two_hundred)
    with pytest.raises(SolverError, match=r"measures \d+ and \d+"):
        precompute(measures, tmp_path, "all", n_jobs=1)
    gc.collect()
    assert 100 < len(DistanceStore(tmp_path)) < 201
    monkeypatch.setattr(exact, "simplex_solver", lambda: honest)
    assert precompute(measures, tmp_path, "all", n_jobs=1).complete


class Killed(BaseException):
    pass


def test_a_kill_after_any_renaming_or_deletion_loses_nothing_and_leaves_nothing(measures, tmp_path, monkeypatch):
    """As from a kill: what the process would have done next does not happen, on a copy of the folder."""
    monkeypatch.setattr(parallel, "_BLOCK_WORK", 3e6)  # 7 blocks: the last one completes the store and a merge
    monkeypatch.setattr(store_module, "_MERGE", 3)
    pairs = np.stack(np.triu_indices(16, 1), axis=1)[:100]
    expected = exact_distances(measures, pairs, n_jobs=1)
    replace, unlink, left = Path.replace, Path.unlink, 0

    def then_killed(action):
        def call(*arguments, **settings):
            nonlocal left
            action(*arguments, **settings)
            left -= 1
            if left == 0:
                raise Killed

        return call

    for step in range(1, 100):
        left = step
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", then_killed(replace))
            patch.setattr(Path, "unlink", then_killed(unlink))
            try:
                precompute(measures, tmp_path / f"{step}", pairs, n_jobs=1)
            except Killed:
                pass
            else:
                break
        copy = shutil.copytree(tmp_path / f"{step}", tmp_path / f"{step}-resumed")
        store = precompute(measures, copy, pairs, n_jobs=1)
        assert store.pairs.tolist() == pairs.tolist()
        assert store.distances.tolist() == expected.tolist()
        listed = {shard["file"] for shard in store.manifest["shards"]}
        assert {file.name for file in copy.iterdir()} - {".lock"} == {"_manifest.json", *listed}, step
    assert step > 20


KILLED = """
import os, sys, time
import numpy as np
from wembed import Measures, precompute
from wembed.transport import parallel
parallel._BLOCK_WORK, parallel.ALONE_WORK = 9e6, 0
measures = Measures.load(sys.argv[1])
precompute(measures, sys.argv[2], "all", n_jobs=2, progress=lambda done, total: time.sleep(0.1))
"""


def test_a_killed_process_loses_only_the_blocks_under_way(measures, small_blocks, tmp_path, monkeypatch):
    measures.save(tmp_path / "measures")
    path = tmp_path / "distances"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path / "measures", path],
        cwd=ROOT,
        env=os.environ | {"POT_BACKEND_DISABLE_PYTORCH": "1"},  # a quick start
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while len(shards(path)) < 4:
            assert process.poll() is None, "it finished before it could be killed"
            assert time.monotonic() < deadline, "it wrote nothing"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    entries = {shard["file"] for shard in DistanceStore(path).manifest["shards"]}  # a shard may still lack its entry
    kept, stored = {name: stat for name, stat in shards(path).items() if name in entries}, len(DistanceStore(path))
    assert len(kept) >= 3
    assert 0 < stored < 780
    solved, solve_blocks = [], parallel.solve_blocks
    monkeypatch.setattr(
        precompute_module,
        "solve_blocks",
        lambda *arguments: (solved.append(len(done)) or (block, done) for block, done in solve_blocks(*arguments)),
    )
    store = precompute(measures, path, "all", n_jobs=1)
    assert sum(solved) == 780 - stored
    assert kept.items() <= shards(path).items()
    assert shards(path).keys() == {shard["file"] for shard in store.manifest["shards"]}
    assert not list(path.glob("*.part"))
    np.testing.assert_array_equal(store.distances, exact_distances(measures, store.pairs, n_jobs=1))


def test_a_store_begun_with_blocks_of_another_size_is_finished_without_a_pair_twice(measures, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_BLOCK_WORK", 9e6)
    interrupted(measures, tmp_path, 300, "all")
    gc.collect()
    monkeypatch.setattr(parallel, "_BLOCK_WORK", 7e6)
    store = precompute(measures, tmp_path, "all", n_jobs=1)
    assert len(store) == 780
    assert len(np.unique(store.pairs, axis=0)) == 780
    assert store.complete


# ---- strays


STRAYS = [
    "shard-000000000000-3.parquet",
    "shard-000000000999-40.parquet",
    "shard-1.parquet.part",
    "_manifest.json.part",
]


@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
def test_what_a_kill_left_behind_is_cleaned_away(measures, small_blocks, tmp_path, finished):
    interrupted(measures, tmp_path, 300, "all")
    gc.collect()
    if finished:
        precompute(measures, tmp_path, "all", n_jobs=1)
    for stray in STRAYS:
        (tmp_path / stray).write_bytes(b"half")
    store = precompute(measures, tmp_path, "all", n_jobs=1)
    listed = {shard["file"] for shard in store.manifest["shards"]}
    assert {file.name for file in tmp_path.iterdir()} - {".lock"} == {"_manifest.json", *listed}


# ---- healing


def test_a_damaged_shard_heals_when_it_is_deleted_and_the_call_made_again(measures, small_blocks, tmp_path):
    precompute(measures, tmp_path, "all", n_jobs=1)
    expected = content(tmp_path)
    victim = sorted(tmp_path.glob("*.parquet"))[3]
    harmed = bytearray(victim.read_bytes())
    harmed[len(harmed) // 2] ^= 1
    victim.write_bytes(harmed)
    with pytest.raises(ArtifactError, match=re.escape(str(victim))) as caught:
        content(tmp_path)
    assert "Delete that file and run the same precompute again" in str(caught.value)
    untouched = shards(tmp_path)
    victim.unlink()
    precompute(measures, tmp_path, "all", n_jobs=1)
    assert content(tmp_path) == expected
    assert all(shards(tmp_path)[name] == stat for name, stat in untouched.items() if name != victim.name)


def test_missing_shards_heal(measures, small_blocks, tmp_path):
    precompute(measures, tmp_path, "all", n_jobs=1)
    expected = content(tmp_path)
    for victim in sorted(tmp_path.glob("*.parquet"))[::2]:
        victim.unlink()
    with pytest.raises(ArtifactError, match="is gone"):
        content(tmp_path)
    precompute(measures, tmp_path, "all", n_jobs=1)
    assert content(tmp_path) == expected


def test_files_of_the_user_are_left_alone(measures, tmp_path):
    (tmp_path / "clouds.parquet").write_bytes(b"mine")
    (tmp_path / "notes.part").write_bytes(b"mine")
    precompute(measures, tmp_path, 100, n_jobs=1)
    next(tmp_path.glob("shard-*.parquet")).unlink()
    precompute(measures, tmp_path, 100, n_jobs=1)
    assert (tmp_path / "clouds.parquet").read_bytes() == (tmp_path / "notes.part").read_bytes() == b"mine"


# ---- adding pairs


def test_more_pairs_are_added_to_those_that_are_there(measures, tmp_path, monkeypatch):
    first = precompute(measures, tmp_path, 100, n_jobs=1)
    pairs, distances, shard = first.pairs, first.distances, first.manifest["shards"][0]["file"]
    solved = []
    monkeypatch.setattr(
        parallel, "solve_pairs", lambda m, pairs, cost: solved.append(len(pairs)) or exact.solve_pairs(m, pairs, cost)
    )
    grown = precompute(measures, tmp_path, 300, n_jobs=1)
    assert grown.complete
    assert sum(solved) == len(grown) - len(first)
    np.testing.assert_array_equal(grown.pairs[: len(pairs)], pairs)
    np.testing.assert_array_equal(grown.distances[: len(pairs)], distances)
    assert (tmp_path / shard).exists()
    np.testing.assert_array_equal(grown.distances, exact_distances(measures, grown.pairs, n_jobs=1))
    assert len(np.unique(grown.pairs, axis=0)) == len(grown)  # few measures: none comes twice
    again = precompute(measures, tmp_path, 300, n_jobs=1)
    assert again.digest == grown.digest
    assert precompute(measures, tmp_path, 100, n_jobs=1).digest == grown.digest  # there are more already


def test_shards_without_a_manifest_are_not_taken_nor_deleted(measures, tmp_path):
    (tmp_path / "shard-000000000000-500.parquet").write_bytes(b"mine")
    with pytest.raises(ArtifactError, match="without a _manifest"):
        precompute(measures, tmp_path, 100, n_jobs=1)
    assert (tmp_path / "shard-000000000000-500.parquet").read_bytes() == b"mine"


def test_an_interrupted_store_can_be_asked_for_more(measures, tmp_path):
    precompute(measures, tmp_path / "whole", 100, n_jobs=1)
    whole = precompute(measures, tmp_path / "whole", 200, n_jobs=1)
    precompute(measures, tmp_path / "part", 100, n_jobs=1)
    for shard in (tmp_path / "part").glob("*.parquet"):
        shard.unlink()
    part = precompute(measures, tmp_path / "part", 200, n_jobs=1)
    np.testing.assert_array_equal(part.pairs, whole.pairs)
    np.testing.assert_array_equal(part.distances, whole.distances)


def test_pairs_can_be_added_until_there_are_no_more(measures, tmp_path):
    for count in (50, 400, 10_000, 20_000):
        store = precompute(measures, tmp_path, count, n_jobs=1)
    assert store.complete
    parts = Split.draw(len(measures)).parts().values()
    assert len(np.unique(store.pairs, axis=0)) == len(store) == sum(len(p) * (len(p) - 1) // 2 for p in parts)


# ---- refusing


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"measures": slice(0, 39)}, "other measures"),
        ({"measures": [1, 0, *range(2, 40)]}, "other measures"),
        ({"cost": GroundCost(order=1)}, "another ground cost"),
        ({"cost": GroundCost("cityblock")}, "another ground cost"),
        ({"cost": GroundCost(1.0 - np.eye(16))}, "another ground cost"),
        ({"pairs": "all"}, "other pairs"),
        ({"pairs": np.array([[0, 1]])}, "other pairs"),
        ({"seed": 1}, "other pairs"),
        ({"test": 0.2}, "other pairs"),
        ({"draw": "random"}, "other pairs"),
    ],
)
def test_a_store_of_something_else_is_never_added_to(measures, tmp_path, change, sentence):
    precompute(measures, tmp_path, 100, n_jobs=1)
    before = content(tmp_path)
    settings = {"pairs": 100, "n_jobs": 1, **change}
    with pytest.raises(ArtifactError, match=sentence) as caught:
        precompute(measures[settings.pop("measures", slice(None))], tmp_path, **settings)
    assert str(tmp_path) in str(caught.value)
    assert "give another folder" in str(caught.value)
    assert content(tmp_path) == before


def test_listed_pairs_in_another_order_are_other_pairs(measures, tmp_path):
    precompute(measures, tmp_path, [(0, 1), (2, 3)], n_jobs=1)
    with pytest.raises(ArtifactError, match="other pairs"):
        precompute(measures, tmp_path, [(2, 3), (0, 1)], n_jobs=1)


def test_a_damaged_manifest_is_an_error_and_nothing_is_overwritten(measures, tmp_path):
    precompute(measures, tmp_path, 100, n_jobs=1)
    manifest = tmp_path / "_manifest.json"
    manifest.write_text(manifest.read_text()[:-40])
    before = shards(tmp_path)
    with pytest.raises(ArtifactError, match=r"_manifest.json is damaged"):
        precompute(measures, tmp_path, 100, n_jobs=1)
    assert shards(tmp_path) == before


def test_a_store_that_another_process_is_filling_is_left_to_it(measures, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(LockedError, match=re.escape(str(tmp_path))):
        precompute(measures, tmp_path, 100, n_jobs=1)
    assert precompute(measures, tmp_path, 100, n_jobs=1).complete


def test_a_lock_held_by_a_process_is_seen_and_a_lock_left_by_a_dead_one_is_not(measures, tmp_path):
    script = """
import sys, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match="another process is filling"):
            precompute(measures, tmp_path, 100, n_jobs=1)
    finally:
        process.kill()
        process.communicate()
    assert precompute(measures, tmp_path, 100, n_jobs=1).complete


def test_a_store_is_free_again_when_the_call_has_ended(measures, tmp_path):
    precompute(measures, tmp_path, 100, n_jobs=1)
    with FileLock(tmp_path / ".lock").acquire(timeout=0):
        pass


def test_a_path_that_is_a_file_is_refused(measures, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingError, match="is a file; give a folder"):
        precompute(measures, tmp_path / "file", 100)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ArtifactError, match="cannot make the folder"):
        precompute(measures, tmp_path / "file" / "inside", 100)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pairs": 0}, "whole number of at least 1"),
        ({"pairs": -5}, "whole number of at least 1"),
        ({"pairs": "some"}, "'all'"),
        ({"pairs": np.array([[0, 40]])}, "there are 40 measures"),
        ({"pairs": np.array([0, 1])}, "shape"),
        ({"cost": GroundCost("great-circle", 1)}, "latitude"),
        ({"cost": GroundCost(np.zeros((3, 3)))}, "for 3 points and the support has 16"),
        ({"validation": 0.6, "test": 0.5}, "no measures to train on"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_outside_what_is_possible_are_refused_before_anything_is_written(
    measures, tmp_path, settings, sentence
):
    with pytest.raises(SettingError, match=sentence):
        precompute(measures, tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_too_few_measures_to_split_are_told_what_to_do(measures, tmp_path):
    with pytest.raises(SettingError, match=r"10 measures are too few .* give at least \d+, or solve all pairs"):
        precompute(measures[:10], tmp_path / "new", 20)
    assert precompute(measures[:10], tmp_path / "new", "all", n_jobs=1).complete


# ---- a full disk


@pytest.mark.parametrize(("limit", "n_jobs"), [(1100, 1), (2100, 1), (1800, 2)])
def test_a_full_disk_is_an_error_and_the_same_call_completes_when_there_is_room(
    measures, small_blocks, tmp_path, limit, n_jobs
):
    with (
        joblib.parallel_config(backend="threading"),
        full_disk() as no_more_than,
        pytest.raises(ArtifactError, match=r"could not write .*File too large") as caught,
    ):
        precompute(measures, tmp_path, "all", n_jobs=n_jobs, progress=lambda done, _: done or no_more_than(limit))
    assert f"{len(DistanceStore(tmp_path)):,} distances are safe in {tmp_path}" in str(caught.value)
    del caught
    gc.collect()
    store = precompute(measures, tmp_path, "all", n_jobs=1)
    np.testing.assert_array_equal(store.distances, exact_distances(measures, store.pairs, n_jobs=1))
    assert not list(tmp_path.glob("*.part"))


def test_a_disk_too_full_to_begin_is_an_error_and_the_same_call_completes_when_there_is_room(measures, tmp_path):
    with full_disk() as no_more_than:
        no_more_than(0)
        with pytest.raises(ArtifactError, match=r"manifest\.json.*File too large"):
            precompute(measures, tmp_path, 100, n_jobs=1)
    gc.collect()
    assert precompute(measures, tmp_path, 100, n_jobs=1).complete


def test_the_manifest_stays_readable_by_other_programs(measures, tmp_path):
    precompute(measures, tmp_path, 100, n_jobs=1)
    manifest = json.loads((tmp_path / "_manifest.json").read_text())
    assert manifest["plan"] == {
        "kind": "split",
        "draw": "cliques",
        "rounds": [100],
        "seed": 0,
        "validation": 0.1,
        "test": 0.1,
        "calibration": 0.05,
    }
