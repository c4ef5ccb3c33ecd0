"""Index: the embeddings of a collection, searched for nearest neighbours."""

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float32, Float64, Int64

from wembed.embedder import Embedder, load
from wembed.errors import ArtifactError, LockedError, ReadError, SettingError, WembedError
from wembed.euclidean import distances_between
from wembed.measures import Measures
from wembed.transport.parallel import Progress, exact_distances
from wembed.transport.store import check_ours, write_atomically

__all__ = ["Index", "Neighbors"]

_FORMAT = 1
_BLOCK_NUMBERS = 1 << 21  # in the vectors that are looked at in one go, for any number of queries up to _QUERIES
_QUERIES = 256


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest measures of each query, nearest first.

    Attributes:
        ids: of the neighbours, by place in the collection.
        distances: W_p to each neighbour, predicted; exact where the query was reranked.
    """

    ids: Int64[np.ndarray, "q k"]
    distances: Float64[np.ndarray, "q k"]


class Index:
    """Embeddings of a collection, searched exactly, block by block.

    Args:
        embedder: fitted or loaded.
        measures: the collection; kept for exact reranking.

    Attributes:
        vectors: the embedding of each measure; a memory map when loaded from a folder.
    """

    def __init__(self, embedder: Embedder, measures: Measures) -> None:
        self.embedder = embedder
        self.measures = measures
        self.vectors: Float32[np.ndarray, "n dim"] = embedder.transform(measures)
        self._expected_measures = measures.fingerprint

    def __len__(self) -> int:
        return len(self.measures)

    def query(
        self, measures: Measures, k: int = 10, rerank: int = 0, n_jobs: int = -1, progress: Progress | None = None
    ) -> Neighbors:
        """The k nearest measures of the collection to each query.

        Args:
            measures: the queries.
            k: neighbours to return.
            rerank: candidates whose distance is solved exactly before the best k are kept; 0 for none.
            n_jobs: processes for the exact solves, or -1 for one a core.
            progress: called with what is done and what there is: pairs solved where `rerank` asks for them, else
                queries compared with the collection.

        Raises:
            SettingError: k outside 1..len(index), or rerank below k.
        """
        if not 1 <= k <= len(self):
            raise SettingError(f"k={k}; the index holds {len(self)} measures, so ask for 1 to {len(self)}")
        if rerank and rerank < k:
            raise SettingError(f"rerank={rerank} candidates cannot give k={k} neighbours; rerank at least k")
        vectors, count = self.embedder.transform(measures), min(max(k, rerank), len(self))
        ids, distances = nearest(vectors, self.vectors, count, None if rerank else progress)
        if rerank:
            distances = self._exact(measures, ids, n_jobs, progress)
            order = np.argsort(distances, axis=1, kind="stable")[:, :k]
            ids, distances = np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)
        return Neighbors(ids, distances)

    def _exact(
        self, queries: Measures, ids: np.ndarray, n_jobs: int, progress: Progress | None
    ) -> Float64[np.ndarray, "q k"]:
        if self._expected_measures != self.measures.fingerprint:
            raise ArtifactError("the index was made of other measures than lie in its folder; make it again")
        candidates, place = np.unique(ids, return_inverse=True)
        together = Measures.concatenate([queries, self.measures[candidates]])
        rows = np.repeat(np.arange(len(queries)), ids.shape[1])
        pairs = np.stack([rows, place.ravel() + len(queries)], axis=1)
        return exact_distances(together, pairs, self.embedder.cost, n_jobs, progress).reshape(ids.shape)

    def save(self, folder: "str | Path") -> None:
        """Write vectors, measures and model into a folder; `Index.load` maps them into memory.

        An index that is there already stays whole until the new one is complete, whenever this is interrupted: the
        files lie in a subfolder of their own, and index.json, which names it, is replaced last.

        Raises:
            ArtifactError: the folder holds an index.json that is not an index's.
            LockedError: another process is writing this index.
        """
        folder = Path(folder)
        ours = check_ours(folder / "index.json", "index")
        folder.mkdir(parents=True, exist_ok=True)
        content = folder / f"content-{secrets.token_hex(8)}"
        try:
            with FileLock(folder / ".lock", timeout=0):
                self._write(content)
                header = {"content": content.name, **self._header(content)}
                write_atomically(folder / "index.json", (json.dumps(header, indent=1) + "\n").encode())
                for old in folder.glob("content-" + "[0-9a-f]" * 16) if ours else ():
                    if old != content:
                        shutil.rmtree(old, ignore_errors=True)
        except Timeout as error:
            raise LockedError(f"another process is writing {folder}; wait for it, or give another folder") from error

    def _write(self, content: Path) -> None:
        try:
            self.embedder.save(content / "model")
            self.measures.save(content / "measures")
            np.save(content / "vectors.npy", self.vectors)
            for file in content.rglob("*.*"):  # on the disk, before index.json says that they are there
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        except BaseException:
            shutil.rmtree(content, ignore_errors=True)
            raise

    def _header(self, content: Path) -> dict[str, Any]:
        return {
            "kind": "index",
            "format": _FORMAT,
            "count": len(self),
            "dim": self.vectors.shape[1],
            "model_sha256": _model_hash(content / "model"),
            "vectors_sha256": _file_hash(content / "vectors.npy"),
            "measures": self.measures.fingerprint,
        }

    @classmethod
    def load(cls, folder: "str | Path") -> "Index":
        """The index that `save` wrote, its vectors and measures as memory maps.

        Raises:
            ReadError: there is no index in the folder.
            ArtifactError: a file is damaged or belongs to another index.
        """
        folder = Path(folder)
        try:
            header = json.loads((folder / "index.json").read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ReadError(f"{folder} holds no index; make one with wembed index or Index.save") from error
        except ValueError as error:
            raise ArtifactError(f"{folder / 'index.json'} is damaged; make the index again") from error
        index = cls.__new__(cls)
        try:
            if header["kind"] != "index" or header["format"] != _FORMAT:
                raise ArtifactError(f"{folder} holds format {header['format']} of a {header['kind']}")
            content = folder / Path(header["content"]).name
            vectors = content / "vectors.npy"
            if _model_hash(content / "model") != header["model_sha256"]:
                raise ArtifactError(f"{content / 'model'} is not the model this index was made with")
            if _file_hash(vectors) != header["vectors_sha256"]:
                raise ArtifactError(f"{vectors} is damaged: its checksum is another; make the index again")
            index._expected_measures = header["measures"]
            index.embedder = load(content / "model")
            index.measures = Measures.load(content / "measures")
            index.vectors = np.load(vectors, mmap_mode="r", allow_pickle=False)
            shape = (header["count"], header["dim"])
        except (KeyError, TypeError, OSError, ValueError) as error:
            if json.loads((folder / "index.json").read_text()) != header:  # written again in the meantime
                return cls.load(folder)
            if isinstance(error, WembedError):
                raise
            raise ArtifactError(f"{folder} is damaged: {error}; make the index again") from error
        if index.vectors.shape != shape or len(index.measures) != shape[0]:
            raise ArtifactError(f"{folder} is damaged: vectors and measures do not agree; make the index again")
        return index


def nearest(
    queries: Float32[np.ndarray, "q dim"],
    vectors: Float32[np.ndarray, "n dim"],
    k: int,
    progress: Progress | None = None,
) -> tuple[Int64[np.ndarray, "q k"], Float64[np.ndarray, "q k"]]:
    """Places and distances of the k nearest vectors to each query, nearest first; ties by place."""
    ids = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k))
    block = max(k, _BLOCK_NUMBERS // vectors.shape[1])
    for start in range(0, len(queries), _QUERIES):
        asking = queries[start : start + _QUERIES]
        best = np.empty((len(asking), 0), dtype=np.uint64)
        for begin in range(0, len(vectors), block):
            found = distances_between(asking, np.asarray(vectors[begin : begin + block]))
            # Floats >= 0 compare as their bits do; with the place below them, one integer orders both.
            keys = found.view(np.uint32).astype(np.uint64) << np.uint64(32)
            keys |= np.arange(begin, begin + found.shape[1], dtype=np.uint64)
            if keys.shape[1] > k:
                keys = np.partition(keys, k - 1, axis=1)[:, :k]
            best = np.sort(np.concatenate([best, keys], axis=1), axis=1)[:, :k]
        ids[start : start + len(asking)] = best & np.uint64(0xFFFFFFFF)
        distances[start : start + len(asking)] = (best >> np.uint64(32)).astype(np.uint32).view(np.float32)
        if progress:
            progress(start + len(asking), len(queries))
    return ids, distances


def _file_hash(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _model_hash(folder: Path) -> str:
    """The weights' checksum as model.json gives it, with what else decides the vectors."""
    try:
        description = json.loads((folder / "model.json").read_text())
        decisive = [description[key] for key in ("weights_sha256", "cost", "features", "unit", "calibration")]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{folder} is damaged or missing; make the index again") from error
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
