import json
import os
import re
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import generators

from wembed import ArtifactError, DistanceStore, ReadError
from wembed.transport import store as store_module
from wembed.transport.store import write_atomically


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def plan_of(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    i = rng.integers(0, 1000, rows)
    return np.stack([i, i + 1 + rng.integers(0, 1000, rows)], axis=1), rng.random(rows)


def fill(path: Path, rows: int, cuts: list[int], order: list[int] | None = None) -> DistanceStore:
    """A store of `rows` pairs written as the shards between the cuts, in the given order."""
    pairs, distances = plan_of(rows)
    store = DistanceStore.create(path, {"measures": "m", "count": 2000, "cost": {}, "plan": {}, "pairs": rows})
    edges = [0, *cuts, rows]
    for k in order if order is not None else range(len(edges) - 1):
        start, stop = edges[k], edges[k + 1]
        store.add(start, pairs[start:stop], distances[start:stop])
    return store


def assert_holds(store: DistanceStore, rows: int) -> None:
    pairs, distances = plan_of(rows)
    np.testing.assert_array_equal(store.pairs, pairs)
    np.testing.assert_array_equal(store.distances, distances)
    assert len(store) == rows
    assert store.complete
    read_pairs, read_distances, digest = store.read()
    np.testing.assert_array_equal(read_pairs, pairs)
    np.testing.assert_array_equal(read_distances, distances)
    assert digest == store.digest


def shards(path: Path) -> list[Path]:
    return sorted(path.glob("*.parquet"))


# ---- content


@settings(max_examples=25)
@given(generators(), st.integers(1, 400))
def test_what_is_added_in_any_order_is_read_in_the_order_of_the_plan(tmp_path_factory, rng, rows):
    path = tmp_path_factory.mktemp("store")
    cuts = sorted(set(rng.integers(1, rows, 6).tolist())) if rows > 1 else []
    fill(path, rows, cuts, rng.permutation(len(cuts) + 1).tolist())
    assert_holds(DistanceStore(path), rows)


def test_an_empty_store_holds_no_pairs(tmp_path):
    store = DistanceStore.create(tmp_path / "new" / "folder", {"pairs": 5})
    assert len(store) == 0
    assert not store.complete
    assert store.pairs.shape == (0, 2)
    assert store.pairs.dtype == np.int64
    assert store.distances.shape == (0,)


def test_distances_keep_every_bit(tmp_path):
    distances = np.array([5e-324, 1 / 3, np.nextafter(1, 2), 1.7e308, 0.0])
    store = DistanceStore.create(tmp_path, {"pairs": 5})
    store.add(0, np.array([[0, 2**31 - 1]] * 5), distances)
    assert DistanceStore(tmp_path).distances.tobytes() == distances.tobytes()
    assert DistanceStore(tmp_path).pairs.max() == 2**31 - 1


def test_batches_go_through_the_shards_in_order(tmp_path):
    store = fill(tmp_path, 10, [4, 7])
    assert [len(distances) for _, distances in store.batches()] == [4, 3, 3]


def test_the_manifest_is_plain_json_and_names_what_the_distances_belong_to(tmp_path):
    fill(tmp_path, 10, [4])
    manifest = json.loads((tmp_path / "_manifest.json").read_text())
    assert manifest["kind"] == "distances"
    assert manifest["format"] == 1
    assert manifest["measures"] == "m"
    assert [shard["rows"] for shard in manifest["shards"]] == [4, 6]


def test_blocks_are_missing_until_a_shard_covers_them(tmp_path):
    boundaries = np.array([0, 3, 5, 6, 9, 10])
    store = DistanceStore.create(tmp_path, {"pairs": 10})
    pairs, distances = plan_of(10)
    assert store.missing(boundaries).tolist() == [0, 1, 2, 3, 4]
    store.add(3, pairs[3:5], distances[3:5])
    assert store.missing(boundaries).tolist() == [0, 2, 3, 4]
    store.add(5, pairs[5:10], distances[5:10])
    assert store.missing(boundaries).tolist() == [0]
    store.add(0, pairs[:3], distances[:3])
    assert store.missing(boundaries).tolist() == []


# ---- merging


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_many_small_shards_are_merged_and_keep_their_content(tmp_path, order):
    rows, cuts = 240, list(range(2, 240, 2))
    turn = {
        "forwards": np.arange(120),
        "backwards": np.arange(120)[::-1],
        "shuffled": np.random.default_rng(0).permutation(120),
    }
    fill(tmp_path, rows, cuts, turn[order].tolist())
    assert_holds(DistanceStore(tmp_path), rows)
    assert len(shards(tmp_path)) < 60
    assert {file.name for file in shards(tmp_path)} == {s["file"] for s in DistanceStore(tmp_path).manifest["shards"]}


def test_shards_of_very_different_sizes_are_merged(tmp_path):
    sizes = [1, 40] * 60
    fill(tmp_path, sum(sizes), np.cumsum(sizes)[:-1].tolist())
    assert_holds(DistanceStore(tmp_path), sum(sizes))
    assert len(shards(tmp_path)) < 60


def test_a_store_that_was_merged_while_it_was_read_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_MERGE", 3)
    store = fill(tmp_path, 20, [10])
    reader = DistanceStore(tmp_path)
    store.manifest["pairs"] = 30
    pairs, distances = plan_of(30)
    store.add(20, pairs[20:], distances[20:])
    with pytest.raises(ArtifactError, match="written to while it was read; open it again"):
        list(reader.batches())


def test_shards_apart_are_not_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_MERGE", 3)
    store = DistanceStore.create(tmp_path, {"pairs": 100})
    pairs, distances = plan_of(100)
    for start in (0, 20, 40, 60):
        store.add(start, pairs[start : start + 10], distances[start : start + 10])
    assert len(shards(tmp_path)) == 4


def test_large_shards_are_left_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_MERGE", 3)
    monkeypatch.setattr(store_module, "_SHARD_ROWS", 25)
    fill(tmp_path, 60, list(range(10, 60, 10)))
    assert len(shards(tmp_path)) == 6
    assert_holds(DistanceStore(tmp_path), 60)


@settings(max_examples=15)
@given(generators(), st.integers(2, 5))
def test_merging_preserves_content_whatever_the_sizes(tmp_path_factory, rng, merge):
    path, before = tmp_path_factory.mktemp("store"), store_module._MERGE
    cuts = sorted(set(rng.integers(1, 300, 25).tolist()))
    try:
        store_module._MERGE = merge
        fill(path, 300, cuts, rng.permutation(len(cuts) + 1).tolist())
    finally:
        store_module._MERGE = before
    assert_holds(DistanceStore(path), 300)


def test_the_digest_is_that_of_the_content_in_whatever_order_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_MERGE", 4)
    cuts = list(range(5, 100, 5))
    forwards = fill(tmp_path / "forwards", 100, cuts)
    shuffled = fill(tmp_path / "shuffled", 100, cuts, np.random.default_rng(1).permutation(20).tolist())
    assert DistanceStore(tmp_path / "forwards").digest == forwards.digest
    assert forwards.digest == shuffled.digest


def test_the_digest_changes_with_a_distance_and_with_the_cost(tmp_path):
    def digest(name, cost, distance):
        store = DistanceStore.create(tmp_path / name, {"cost": cost, "pairs": 1})
        store.add(0, np.array([[0, 1]]), np.array([distance]))
        return store.digest

    assert len({digest("a", "x", 1.0), digest("b", "x", 1.0 + 1e-15), digest("c", "y", 1.0)}) == 3


# ---- other readers


def test_arrow_reads_the_folder(tmp_path):
    fill(tmp_path, 20, [5, 12])
    (tmp_path / ".lock").touch()
    table = pq.read_table(tmp_path)
    check_frame(*(table[name].to_numpy() for name in ("i", "j", "distance")))


def test_pandas_reads_the_folder(tmp_path):
    pd = pytest.importorskip("pandas")
    fill(tmp_path, 20, [5, 12])
    frame = pd.read_parquet(tmp_path)
    check_frame(frame["i"].to_numpy(), frame["j"].to_numpy(), frame["distance"].to_numpy())


def test_polars_reads_the_shards(tmp_path):
    pl = pytest.importorskip("polars")
    fill(tmp_path, 20, [5, 12])
    frame = pl.read_parquet(str(tmp_path / "*.parquet"))
    check_frame(frame["i"].to_numpy(), frame["j"].to_numpy(), frame["distance"].to_numpy())


def test_duckdb_reads_the_shards(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    fill(tmp_path, 20, [5, 12])
    rows = duckdb.sql(f"select i, j, distance from read_parquet('{tmp_path}/*.parquet') order by filename").fetchall()
    check_frame(*(np.array(column) for column in zip(*rows, strict=True)))


def check_frame(i, j, distance):
    pairs, distances = plan_of(20)
    np.testing.assert_array_equal(np.stack([i, j], axis=1), pairs)
    np.testing.assert_array_equal(distance, distances)


# ---- damage


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 0x20
    file.write_bytes(content)


@pytest.mark.parametrize("place", [0, 40, 200, -50, -1])
def test_a_flipped_byte_is_an_error_that_names_the_file_and_the_cure(tmp_path, place):
    fill(tmp_path, 1000, [500])
    victim = shards(tmp_path)[1]
    flip(victim, place)
    for read in (lambda store: store.distances, lambda store: store.pairs, lambda store: list(store.batches())):
        with pytest.raises(ArtifactError, match=re.escape(str(victim))) as caught:
            read(DistanceStore(tmp_path))
        assert "Delete that file" in str(caught.value)


def test_a_truncated_shard_is_an_error_that_names_the_file(tmp_path):
    fill(tmp_path, 1000, [500])
    victim = shards(tmp_path)[0]
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=re.escape(str(victim))):
        DistanceStore(tmp_path).distances  # noqa: B018


def test_a_missing_shard_is_an_error_that_names_the_file(tmp_path):
    fill(tmp_path, 1000, [500])
    shards(tmp_path)[0].unlink()
    with pytest.raises(ArtifactError, match=r"shard-000000000000-500.parquet is gone"):
        DistanceStore(tmp_path).pairs  # noqa: B018


def test_a_shard_taken_from_another_store_is_an_error(tmp_path):
    fill(tmp_path / "a", 1000, [500])
    store = DistanceStore.create(tmp_path / "b", {"pairs": 500})
    store.add(0, plan_of(1000)[0][:500], np.ones(500))
    shards(tmp_path / "b")[0].replace(shards(tmp_path / "a")[0])
    with pytest.raises(ArtifactError, match="checksum"):
        DistanceStore(tmp_path / "a").distances  # noqa: B018


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_folder_without_a_store_holds_no_distances(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReadError, match=r"holds no distances; write them with wembed\.precompute"):
        DistanceStore(tmp_path / name)


MANIFESTS = {
    "empty": lambda text: b"",
    "cut in the middle": lambda text: text[: len(text) // 2].encode(),
    "cut at the end": lambda text: text[:-3].encode(),
    "not JSON": lambda text: b"kind: distances",
    "not text": lambda text: text.encode().replace(b"distances", b"\xff\xfe\x80"),
    "a list": lambda text: b"[]",
    "a number": lambda text: b"3",
    "null": lambda text: b"null",
    "nothing in it": lambda text: b"{}",
    "of another kind": lambda text: text.replace('"distances"', '"model"').encode(),
    "of a later format": lambda text: text.replace('"format": 1', '"format": 2').encode(),
    "without shards": lambda text: text.replace('"shards"', '"parts"').encode(),
    "with shards that are no list": lambda text: json.dumps({**json.loads(text), "shards": {"a": 1}}).encode(),
    "with a shard that is no record": lambda text: json.dumps({**json.loads(text), "shards": [3]}).encode(),
    "with a shard without rows": lambda text: text.replace('"rows"', '"row"').encode(),
    "with a shard without a file": lambda text: text.replace('"file"', '"name"').encode(),
    "with a shard without a checksum": lambda text: text.replace('"sha256"', '"md5"').encode(),
    "without the number of pairs": lambda text: text.replace('"pairs"', '"pears"').encode(),
}


@pytest.mark.parametrize("harm", MANIFESTS)
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path, harm):
    fill(tmp_path, 100, [50])
    manifest = tmp_path / "_manifest.json"
    manifest.write_bytes(MANIFESTS[harm](manifest.read_text()))
    with pytest.raises(ArtifactError, match=r"_manifest.json is damaged or of another format") as caught:
        DistanceStore(tmp_path)
    assert str(manifest) in str(caught.value)


@pytest.mark.parametrize("change", [("rows", 51), ("rows", 0), ("start", 7)])
def test_a_manifest_that_miscounts_a_shard_is_an_error(tmp_path, change):
    fill(tmp_path, 100, [50])
    manifest = json.loads((tmp_path / "_manifest.json").read_text())
    manifest["shards"][1][change[0]] = change[1]
    (tmp_path / "_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"manifest|shard"):
        list(DistanceStore(tmp_path).batches())


def test_mending_drops_missing_shards_and_whatever_a_kill_left_behind(tmp_path):
    store = fill(tmp_path, 100, [30, 60])
    shards(tmp_path)[1].unlink()
    for stray in ("shard-000000000060-7.parquet", "shard-000000000030-30.parquet.part", "_manifest.json.part"):
        (tmp_path / stray).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    store.mend(np.array([0, 30, 60, 100]))
    store.clean()
    assert len(store) == len(DistanceStore(tmp_path)) == 70
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "_manifest.json",
        "notes.txt",
        "shard-000000000000-30.parquet",
        "shard-000000000060-40.parquet",
    ]


# ---- writing


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "file"
    write_atomically(file, b"old")
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("fault", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, fault):
    def fail(*_):
        raise OSError(28, "No space left on device")

    file = tmp_path / "file"
    write_atomically(file, b"old")
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[fault], fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(file, b"new")
    assert caught.value.filename == str(file)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps, replace = [], Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: steps.append("sync"))
    monkeypatch.setattr(Path, "replace", lambda part, file: steps.append("rename") or replace(part, file))
    write_atomically(tmp_path / "file", b"content")
    assert steps == ["sync", "rename", "sync"]  # the file, its name, the folder


def test_a_shard_is_written_before_its_entry(tmp_path, monkeypatch):
    written, write = [], store_module.write_atomically
    monkeypatch.setattr(
        store_module, "write_atomically", lambda file, content: written.append(file.suffix) or write(file, content)
    )
    fill(tmp_path, 20, [10])
    assert written == [".json", ".parquet", ".json", ".parquet", ".json"]


@contextmanager
def full_disk():
    """A function that lets no file grow beyond a number of bytes any more, until the block is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [400, 900, 1150, 1300, 1500, 1700])
def test_a_full_disk_is_an_error_that_counts_what_is_safe(tmp_path, monkeypatch, limit):
    create = DistanceStore.create
    with full_disk() as no_more_than:
        monkeypatch.setattr(DistanceStore, "create", lambda *store: (create(*store), no_more_than(limit))[0])
        with pytest.raises(ArtifactError) as caught:
            fill(tmp_path, 100, list(range(10, 100, 10)))
    store, message = DistanceStore(tmp_path), str(caught.value)
    assert message.startswith(f"could not write {tmp_path}")
    assert "File too large" in message
    assert f" {len(store):,} distances are safe in {tmp_path}" in message
    assert "Make room and run the same call again: it goes on from there" in message
    np.testing.assert_array_equal(store.distances, plan_of(100)[1][: len(store)])
    assert not list(tmp_path.glob("*.part"))
