"""Index: exact search of the vectors, exact reranking, and what is on disk."""

from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import wembed
from wembed import index as module


@pytest.fixture(scope="module")
def index(fitted: wembed.Embedder, some_digits: wembed.Measures) -> wembed.Index:
    return wembed.Index(fitted, some_digits)


def test_a_measure_is_its_own_nearest_neighbour(index: wembed.Index, some_digits: wembed.Measures) -> None:
    found = index.query(some_digits[10:20], k=3)
    assert found.ids[:, 0].tolist() == list(range(10, 20))
    np.testing.assert_allclose(found.distances[:, 0], 0, atol=1e-5)
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_reranked_distances_are_exact(index: wembed.Index, some_digits: wembed.Measures) -> None:
    found = index.query(some_digits[:4], k=3, rerank=12, n_jobs=1)
    for row, (ids, distances) in enumerate(zip(found.ids, found.distances, strict=True)):
        exact = wembed.exact_distances(some_digits, [(row, int(i)) for i in ids], n_jobs=1)
        np.testing.assert_allclose(distances, exact, rtol=1e-9)


def test_reranking_everything_gives_the_exact_neighbours(fitted: wembed.Embedder, some_digits: wembed.Measures) -> None:
    collection = some_digits[:40]
    found = wembed.Index(fitted, collection).query(some_digits[50:52], k=5, rerank=40, n_jobs=1)
    together = wembed.Measures.concatenate([some_digits[50:52], collection])
    for row in range(2):
        exact = wembed.exact_distances(together, [(row, 2 + i) for i in range(40)], n_jobs=1)
        assert found.ids[row].tolist() == np.argsort(exact)[:5].tolist()


def test_a_saved_index_answers_the_same_from_memory_maps(
    index: wembed.Index, some_digits: wembed.Measures, tmp_path: Path
) -> None:
    index.save(tmp_path / "index")
    loaded = wembed.Index.load(tmp_path / "index")
    assert isinstance(loaded.vectors, np.memmap)
    before, after = index.query(some_digits[:5]), loaded.query(some_digits[:5])
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.distances, after.distances)
    np.testing.assert_array_equal(
        loaded.query(some_digits[:2], k=2, rerank=4, n_jobs=1).distances,
        index.query(some_digits[:2], k=2, rerank=4, n_jobs=1).distances,
    )


def part(folder: Path, kind: str = "segment") -> Path:
    """The one subfolder of this kind with files of an index."""
    (only,) = folder.glob(f"{kind}-*")
    return only


def test_an_interrupted_save_leaves_the_old_index_whole(
    index: wembed.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.save(tmp_path / "index")
    smaller = wembed.Index(index.embedder, index.measures[:50])
    with monkeypatch.context() as patched:
        patched.setattr("wembed.index.write_atomically", _killed)
        with pytest.raises(KeyboardInterrupt):
            smaller.save(tmp_path / "index")
    assert len(wembed.Index.load(tmp_path / "index")) == len(index)
    smaller.save(tmp_path / "index")
    assert len(wembed.Index.load(tmp_path / "index")) == 50
    part(tmp_path / "index")  # what the interrupted one left behind is gone


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_index_that_is_written_again_while_it_is_read_is_read_again(
    index: wembed.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.save(tmp_path / "index")
    smaller, load = wembed.Index(index.embedder, index.measures[:50]), module.load

    def late(folder: Path) -> wembed.Embedder:
        monkeypatch.setattr(module, "load", load)
        smaller.save(tmp_path / "index")
        return load(folder)

    monkeypatch.setattr(module, "load", late)
    assert len(wembed.Index.load(tmp_path / "index")) == 50


def test_files_of_the_user_are_left_alone(index: wembed.Index, tmp_path: Path) -> None:
    (tmp_path / "a" / "segment-0123456789abcdef").mkdir(parents=True)
    index.save(tmp_path / "a")
    assert (tmp_path / "a" / "segment-0123456789abcdef").is_dir()
    for name in ("index.json", "model.json"):
        (tmp_path / name).write_text("[1]")
        with pytest.raises(wembed.ArtifactError, match="not the description of a wembed"):
            (index if name == "index.json" else index.embedder).save(tmp_path)
        assert (tmp_path / name).read_text() == "[1]"


def test_two_writers_of_one_index_do_not_mix(index: wembed.Index, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    with FileLock(tmp_path / "index" / ".lock"), pytest.raises(wembed.LockedError, match="another process"):
        index.save(tmp_path / "index")


def test_an_index_with_another_model_is_refused(
    index: wembed.Index, some_digits: wembed.Measures, digit_store: wembed.DistanceStore, tmp_path: Path
) -> None:
    index.save(tmp_path / "index")
    other = wembed.Embedder(random_state=1, encoder="quantiles", training=wembed.TrainingSettings(steps=2))
    other.fit(some_digits, distances=digit_store).save(part(tmp_path / "index", "model"))
    with pytest.raises(wembed.ArtifactError, match="not the model this index was made with"):
        wembed.Index.load(tmp_path / "index")


def test_saving_again_replaces_the_index_whole(
    index: wembed.Index, some_digits: wembed.Measures, tmp_path: Path
) -> None:
    index.save(tmp_path / "index")
    loaded = wembed.Index.load(tmp_path / "index")
    smaller = wembed.Index(loaded.embedder, loaded.measures[:50])
    smaller.save(tmp_path / "index")
    assert len(wembed.Index.load(tmp_path / "index")) == 50
    assert [folder.name for folder in tmp_path.iterdir()] == ["index"]


def test_swapped_measures_are_refused(index: wembed.Index, some_digits: wembed.Measures, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    some_digits[::-1].save(part(tmp_path / "index") / "measures")
    with pytest.raises(wembed.ArtifactError, match="other measures"):
        wembed.Index.load(tmp_path / "index").query(some_digits[:1], k=2, rerank=4)


def test_damage_is_refused(index: wembed.Index, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    flipped = bytearray((part(tmp_path / "index") / "vectors.npy").read_bytes())
    flipped[-3] ^= 1
    (part(tmp_path / "index") / "vectors.npy").write_bytes(flipped)
    with pytest.raises(wembed.ArtifactError, match=r"vectors\.npy is damaged"):
        wembed.Index.load(tmp_path / "index")
    index.save(tmp_path / "index")
    vectors = (part(tmp_path / "index") / "vectors.npy").read_bytes()
    (part(tmp_path / "index") / "vectors.npy").write_bytes(vectors[:5000])
    with pytest.raises(wembed.ArtifactError, match="damaged"):
        wembed.Index.load(tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text("{")
    with pytest.raises(wembed.ArtifactError, match=r"index\.json is damaged"):
        wembed.Index.load(tmp_path / "index")
    with pytest.raises(wembed.ReadError, match="holds no index"):
        wembed.Index.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("k", "rerank", "said"), [(0, 0, "k=0"), (301, 0, "ask for 1 to 300"), (10, 5, "rerank at least k")]
)
def test_impossible_queries_are_refused(
    index: wembed.Index, some_digits: wembed.Measures, k: int, rerank: int, said: str
) -> None:
    with pytest.raises(wembed.SettingError, match=said):
        index.query(some_digits[:1], k=k, rerank=rerank)


def test_an_index_of_nothing_is_refused_and_one_of_something_says_what_it_is(
    fitted: wembed.Embedder, some_digits: wembed.Measures
) -> None:
    with pytest.raises(wembed.SettingError, match="an index of no measures"):
        wembed.Index(fitted, some_digits[:0])
    assert repr(wembed.Index(fitted, some_digits[:7])) == f"Index(7 measures, {fitted.dim_} numbers a vector)"


# ---- by a graph


def test_a_graph_finds_nearly_all_and_is_taken_where_measures_are_many(
    index: wembed.Index, some_digits: wembed.Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index.method == "flat"
    monkeypatch.setattr(module, "_LARGE", 300)
    graph = wembed.Index(index.embedder, some_digits)
    assert graph.method == "hnsw"
    exactly, about = index.query(some_digits, k=10), graph.query(some_digits, k=10)
    found = np.mean([len(set(a) & set(b)) for a, b in zip(exactly.ids, about.ids, strict=True)]) / 10
    assert found > 0.99
    np.testing.assert_allclose(about.distances[:, 5], exactly.distances[:, 5], rtol=0.02)
    assert wembed.Index(index.embedder, some_digits, method="flat").method == "flat"
    assert wembed.Index(index.embedder, some_digits[:50], method="hnsw").method == "hnsw"


def test_a_graph_serves_every_kind_of_query(index: wembed.Index, some_digits: wembed.Measures, tmp_path: Path) -> None:
    index = wembed.Index(index.embedder, some_digits[:60])
    wembed.Index(index.embedder, some_digits[:60], method="hnsw").save(tmp_path / "index")
    graph, asking = wembed.Index.load(tmp_path / "index"), some_digits[:3]
    assert graph.method == "hnsw"
    for way in ({}, {"rerank": 8}, {"certified": True}):
        expected, found = index.query(asking, k=4, **way), graph.query(asking, k=4, **way)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-3, atol=1e-5)  # by another formula
    assert graph.query(asking, k=60).ids.shape == (3, 60)
    assert graph.query(asking[:0], k=4).ids.shape == (0, 4)


def test_a_damaged_graph_is_refused(index: wembed.Index, some_digits: wembed.Measures, tmp_path: Path) -> None:
    wembed.Index(index.embedder, some_digits[:60], method="hnsw").save(tmp_path / "index")
    file = part(tmp_path / "index") / "graph.faiss"
    whole = file.read_bytes()
    for damaged in (whole[:-9], bytes([whole[0] ^ 1]) + whole[1:], b""):
        file.write_bytes(damaged)
        with pytest.raises(wembed.ArtifactError, match=r"graph\.faiss is damaged"):
            wembed.Index.load(tmp_path / "index")


def test_an_unknown_method_is_refused(index: wembed.Index, some_digits: wembed.Measures) -> None:
    with pytest.raises(wembed.SettingError, match="method='tree'; choose one of auto, flat, hnsw"):
        wembed.Index(index.embedder, some_digits[:5], method="tree")
