"""An index as a collection: measures that come and go by id, with labels and payloads, in memory and on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import wembed
from wembed import Index, Measures, SettingError
from wembed import index as module


@pytest.fixture(scope="module")
def index(fitted: wembed.Embedder, some_digits: Measures) -> Index:
    return Index(
        fitted, some_digits[:60], labels=[f"label {i}" for i in range(60)], payloads=[{"n": i} for i in range(60)]
    )


@pytest.mark.parametrize(("method", "seed"), [("flat", 0), ("hnsw", 1), ("auto", 2)])
def test_whatever_comes_and_goes_the_answers_are_those_of_what_is_there(
    fitted: wembed.Embedder,
    some_digits: Measures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    seed: int,
) -> None:
    monkeypatch.setattr(module, "_LARGE", 40)
    rng = np.random.default_rng(seed)
    held = {i: i for i in range(30)}
    index = Index(fitted, some_digits[:30], method=method)
    segments = set()
    for step in range(25):
        match rng.integers(4):
            case 0 | 1:
                rows = rng.permutation(300)[: rng.integers(1, 20)]
                held |= dict(zip(index.add(some_digits[rows]).tolist(), rows.tolist(), strict=True))
            case 2:
                gone = rng.permutation(list(held))[: rng.integers(1, max(2, len(held) // 3))].tolist()
                index.remove(gone)
                held = {one: row for one, row in held.items() if one not in gone}
            case _:
                ids = rng.permutation(list(held))[:4].tolist()
                rows = rng.permutation(300)[: len(ids)]
                index.update(ids, some_digits[rows])
                held |= dict(zip(ids, rows.tolist(), strict=True))
        if step % 5 == 4:
            index.save(tmp_path / "index")
            index = Index.load(tmp_path / "index")
        segments.add(len(index._segments))
        assert sorted(index.ids.tolist()) == sorted(held)
        assert len(index) == len(held)
        rows = np.array([held[one] for one in index.ids.tolist()])
        np.testing.assert_array_equal(index.measures.digests(), some_digits[rows].digests())
        np.testing.assert_allclose(index.vectors, fitted.transform(some_digits[rows]), atol=1e-4)
        asking = some_digits[rng.permutation(300)[:3]]
        k = min(5, len(held))
        found = index.query(asking, k=k).distances
        rows = np.array(list(held.values()))
        expected = np.sort(fitted.pairwise(asking, some_digits[rows]), axis=1)[:, :k]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)
    assert max(segments) > 1
    again = index.query(asking, k=k, rerank=k, n_jobs=1)
    together = Measures.concatenate([asking, some_digits])
    for row, ids in enumerate(again.ids.tolist()):
        pairs = [(row, len(asking) + held[one]) for one in ids]
        np.testing.assert_allclose(again.distances[row], wembed.exact_distances(together, pairs, n_jobs=1), rtol=1e-9)
    assert [folder.name for folder in tmp_path.iterdir()] == ["index"]
    index.save(tmp_path / "index")
    stored = [one for one in (tmp_path / "index").iterdir() if one.is_dir()]
    assert len(stored) == len(index._segments) + 1  # and the model: nothing else is left behind


def test_labels_and_payloads_stay_with_their_measures(index: Index, some_digits: Measures, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    changed = Index.load(tmp_path / "index")
    changed.remove([0, 7])
    assert changed.add(some_digits[60:62], labels=["new", None], payloads=[None, [1, "ü"]]).tolist() == [60, 61]
    changed.update([5], some_digits[[99]])
    changed.update([6], some_digits[[98]], labels=["other"], payloads=[{"n": "six"}])
    changed.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert loaded.ids.tolist() == changed.ids.tolist()
    assert dict(zip(loaded.ids.tolist(), loaded.labels, strict=True)) == {
        **{i: f"label {i}" for i in range(60) if i not in (0, 7)},
        6: "other",
        60: "new",
        61: None,
    }
    assert (loaded[5].label, loaded[5].payload) == ("label 5", {"n": 5})
    assert (loaded[6].label, loaded[6].payload) == ("other", {"n": "six"})
    assert (loaded[61].label, loaded[61].payload) == (None, [1, "ü"])
    np.testing.assert_array_equal(loaded[5].measure.support, some_digits[99].support)
    np.testing.assert_allclose(loaded[5].vector, index.embedder.transform(some_digits[[99]])[0], atol=1e-5)
    assert 7 not in loaded
    assert 61 in loaded
    assert index.labels[7] == "label 7"  # the one that was saved is as it was


def test_ids_may_be_strings(fitted: wembed.Embedder, some_digits: Measures, tmp_path: Path) -> None:
    names = [f"digit {i}" for i in range(20)]
    index = Index(fitted, some_digits[:20], ids=names)
    index.add(some_digits[20:23], ids=["a", "b", "ä"])
    index.remove(["digit 3"])
    index.save(tmp_path / "index")
    found = Index.load(tmp_path / "index").query(some_digits[[2, 22, 3]], k=1)
    assert found.ids[:2, 0].tolist() == ["digit 2", "ä"]
    assert found.ids[2, 0] != "digit 3"
    assert index.add(some_digits[:0], ids=[]).tolist() == []
    with pytest.raises(SettingError, match="ids of this index are strings; give one for each"):
        index.add(some_digits[:1])
    with pytest.raises(SettingError, match="are strings, and these are whole numbers"):
        index.add(some_digits[:1], ids=[7])


def test_ids_of_what_is_gone_are_not_given_again(
    fitted: wembed.Embedder, some_digits: Measures, tmp_path: Path
) -> None:
    index = Index(fitted, some_digits[:5])
    index.remove([4])
    index.save(tmp_path / "index")
    assert Index.load(tmp_path / "index").add(some_digits[5:7]).tolist() == [5, 6]
    index.add(some_digits[7:8], ids=[40])
    assert index.add(some_digits[8:9]).tolist() == [41]
    index.add(some_digits[9:10], ids=[4])  # but may be taken


@pytest.mark.parametrize(
    ("way", "method"),
    [({}, "flat"), ({}, "hnsw"), ({"rerank": 6}, "hnsw"), ({"recall": 0.9}, "flat"), ({"certified": True}, "flat")],
)
def test_neighbours_are_found_among_those_wanted(
    fitted: wembed.Embedder, some_digits: Measures, way: dict[str, float], method: str
) -> None:
    index = Index(fitted, some_digits[:60], method=method)
    index.add(some_digits[60:75])
    index.remove([3, 62])
    asking = some_digits[100:103]
    for wanted in (np.arange(10, 75, 2)[:-1], np.array([8, 1, 70])):
        wanted = wanted[wanted != 62]
        alone = Index(fitted, some_digits[np.sort(wanted)], ids=np.sort(wanted))
        expected = alone.query(asking, k=3, n_jobs=1, **way)
        found = index.query(asking, k=3, n_jobs=1, among=wanted.tolist(), **way)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.solved, expected.solved)
    with pytest.raises(SettingError, match="neighbours among 2 measures"):
        index.query(asking, k=3, among=[1, 2])
    with pytest.raises(SettingError, match="among names no measure"):
        index.query(asking, k=1, among=[])
    with pytest.raises(SettingError, match="no measure with the id 62"):
        index.query(asking, k=1, among=[1, 62])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ids": [1, 2]}, "3 measures and 2 ids"),
        ({"ids": [1, 2, 1]}, "the id 1 comes 2 times"),
        ({"ids": [1.5, 2, 3]}, "the ids 1.5, 2, 3 are not whole numbers below 2\\^63, nor strings"),
        ({"ids": [1, 2, 2**63]}, "not whole numbers below 2\\^63, nor strings"),
        ({"ids": "abc"}, "ids='abc'; give a list, one for each of 3 measures"),
        ({"labels": 7}, "labels=7; give a list"),
        ({"ids": [59, 100, 101]}, "the id 59 is there already; give another one, or use update"),
        ({"ids": ["a", "b", "c"]}, "are whole numbers, and these are strings"),
        ({"labels": ["one"]}, "3 measures and 1 labels"),
        ({"payloads": [{}, {1, 2}, {}]}, "kept as JSON"),
        ({"payloads": [{}, float("nan"), {}]}, "kept as JSON"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(
    index: Index, some_digits: Measures, given: dict[str, list[object]], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        index.add(some_digits[:3], **given)
    assert index.ids.tolist() == list(range(60))


def test_what_is_not_there_is_neither_removed_nor_changed(index: Index, some_digits: Measures) -> None:
    for call in (
        lambda: index.remove([1, 60]),
        lambda: index.update([1, 60], some_digits[:2]),
        lambda: index[60],
    ):
        with pytest.raises(SettingError, match="no measure with the id"):
            call()
    with pytest.raises(SettingError, match="remove its folder"):
        index.remove(range(60))
    with pytest.raises(SettingError, match="2 measures and 1 ids"):
        index.update([1], some_digits[:2])
    assert index.ids.tolist() == list(range(60))
    assert index.add(some_digits[:0], ids=[]).tolist() == []
    assert [one in index for one in (0, "0", "zero", 2.5, 60, -1, 2**70)] == [True, *[False] * 6]
    index.remove([])


def test_what_is_on_disk_is_not_written_again(index: Index, some_digits: Measures, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "index").rglob("*.npy")}
    loaded = Index.load(tmp_path / "index")
    loaded.add(some_digits[60:62])
    loaded.remove([9])
    loaded.save(tmp_path / "index")
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "index").rglob("*.npy")}
    assert before.items() <= after.items()
    elsewhere = tmp_path / "elsewhere"
    loaded.save(elsewhere)
    assert Index.load(elsewhere).ids.tolist() == loaded.ids.tolist()
    assert Index.load(tmp_path / "index").ids.tolist() == loaded.ids.tolist()


def test_an_index_that_another_one_has_written_is_not_written_over(
    index: Index, some_digits: Measures, tmp_path: Path
) -> None:
    index.save(tmp_path / "index")
    one, other = Index.load(tmp_path / "index"), Index.load(tmp_path / "index")
    one.add(some_digits[60:61])
    one.save(tmp_path / "index")
    other.add(some_digits[61:62])
    with pytest.raises(wembed.ArtifactError, match="written again since this index was loaded"):
        other.save(tmp_path / "index")
    assert len(Index.load(tmp_path / "index")) == 61
    with pytest.raises(SettingError, match="is a file"):
        one.save(next((tmp_path / "index").glob("index.json")))


def test_a_kill_at_any_moment_of_a_write_leaves_an_index_whole(
    index: Index, some_digits: Measures, tmp_path: Path
) -> None:
    index.save(tmp_path / "index")
    some_digits[60:90].save(tmp_path / "more")
    script = (
        "import sys, wembed; from wembed import Index, Measures; import os; folder, more = sys.argv[1:]; "
        "index = Index.load(folder); measures = Measures.load(more); print('ready', flush=True)\n"
        "for i in range(10 ** 6):\n"
        "    index.add(measures[i % 30 : i % 30 + 1]); index.save(folder)"
    )
    rng, counts = np.random.default_rng(0), [60]
    for _ in range(2):
        arguments = [sys.executable, "-c", script, str(tmp_path / "index"), str(tmp_path / "more")]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(rng.uniform(0.1, 0.6))
            writer.send_signal(signal.SIGKILL)
        loaded = Index.load(tmp_path / "index")
        loaded.query(some_digits[:2], k=3, rerank=3, n_jobs=1)
        counts.append(len(loaded))
    assert counts == sorted(counts)
    assert counts[-1] > 60
    header = json.loads((tmp_path / "index" / "index.json").read_text())
    loaded.add(some_digits[:1])
    loaded.save(tmp_path / "index")
    named = [one for one in (tmp_path / "index").iterdir() if one.is_dir()]
    assert len(named) == len(loaded._segments) + 1  # what was left half written is gone
    assert header["count"] == counts[-1]


def test_images_are_histograms_to_an_index_of_histograms() -> None:
    support = np.stack(np.unravel_index(np.arange(16), (4, 4)), axis=1).astype(float)
    metric = np.abs(support[:, None] - support).sum(axis=2)
    images = np.random.default_rng(0).uniform(0, 1, (80, 4, 4)) ** 4
    histograms = Measures.from_histograms(images.reshape(80, 16), support)
    training = wembed.TrainingSettings(steps=10)
    embedder = wembed.Embedder(metric, order=1, pairs=300, training=training, calibration=0, n_jobs=1).fit(histograms)
    index = Index(embedder, histograms[:40])
    ids = index.add(Measures.from_images(images[40:50]), vectors=embedder.transform(histograms[40:50]))
    found = index.query(Measures.from_histograms(images[45:46].reshape(1, 16), support), k=3, rerank=10)
    assert (found.ids[0, 0], found.distances[0, 0]) == (ids[5], pytest.approx(0, abs=1e-9))
    assert index.grid is None
    with pytest.raises(SettingError, match="a cost matrix needs measures on a common support"):
        index.add(Measures.from_images(np.ones((1, 5, 5))))
