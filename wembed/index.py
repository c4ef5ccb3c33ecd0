"""Index: the embeddings of a collection, searched for nearest neighbours."""

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Bool, Float32, Float64, Int64

from wembed.embedder import Embedder, load
from wembed.errors import ArtifactError, LockedError, ReadError, SettingError, WembedError
from wembed.measures import Measures
from wembed.nearest import Graph, nearest
from wembed.options import share, switch, whole
from wembed.progress import bar
from wembed.transport.parallel import Progress, exact_distances
from wembed.transport.store import check_ours, write_atomically
from wembed.trust import Side, Trust

__all__ = ["Index", "Neighbors"]

_FORMAT = 3
_METHODS = ("auto", "flat", "hnsw")
_LARGE = 50_000  # measures from which on a graph is worth its making
_ASKING = 64  # queries whose candidates are solved together
_BOUNDED = 2_000_000  # bounds that are in memory at once
_CANDIDATES = 500  # by predicted distance, among which the nearest are looked for
_STEP = 4  # candidates that are solved between two looks at those left


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest measures of each query, nearest first.

    Attributes:
        ids: of the neighbours, by place in the collection.
        distances: W_p to each neighbour, predicted; exact where the query was reranked.
        solved: pairs that were solved exactly for each query.
    """

    ids: Int64[np.ndarray, "q k"]
    distances: Float64[np.ndarray, "q k"]
    solved: Int64[np.ndarray, " q"]


class Index:
    """Embeddings of a collection, to be searched for the nearest.

    Args:
        embedder: fitted or loaded.
        measures: the collection; kept for exact reranking.
        method: "flat" looks at all vectors, block by block, and misses none; "hnsw" goes along a graph of them, far
            sooner where they are many, and may miss some; "auto" takes the graph from 50,000 measures on.
        progress: called with the vectors that are in the graph, and all.

    Attributes:
        vectors: the embedding of each measure; a memory map when loaded from a folder.
        method: "flat" or "hnsw".

    Raises:
        SettingError: something else than an Embedder, no measure, or an unknown method.
        MeasureError: as `Embedder.transform`.
    """

    def __init__(
        self, embedder: Embedder, measures: Measures, method: str = "auto", progress: Progress | None = None
    ) -> None:
        if method not in _METHODS:
            raise SettingError(f"method={method!r}; choose one of {', '.join(_METHODS)}")
        if not isinstance(embedder, Embedder):
            raise SettingError(f"an index is made with a fitted Embedder, and this is a {type(embedder).__name__}")
        if len(measures) == 0:
            raise SettingError("an index of no measures finds none; give it at least one")
        self.embedder = embedder
        self.measures = measures
        self.vectors: Float32[np.ndarray, "n dim"] = embedder.transform(measures)
        self._expected_measures = measures.fingerprint
        self._side: Side | None = None
        by_graph = method == "hnsw" or (method == "auto" and len(measures) >= _LARGE)
        self._graph = Graph.build(self.vectors, progress) if by_graph else None

    @property
    def method(self) -> str:
        """How it is searched."""
        return "hnsw" if self._graph else "flat"

    def _nearest(
        self, vectors: Float32[np.ndarray, "q dim"], k: int, progress: Progress | None = None
    ) -> tuple[Int64[np.ndarray, "q k"], Float64[np.ndarray, "q k"]]:
        if self._graph:
            return self._graph.nearest(vectors, self.vectors, k, progress)
        return nearest(vectors, self.vectors, k, progress)

    def __len__(self) -> int:
        return len(self.measures)

    def __repr__(self) -> str:
        return f"Index({len(self):,} measures, {self.vectors.shape[1]:,} numbers a vector)"

    def query(
        self,
        measures: Measures,
        k: int = 10,
        rerank: int = 0,
        n_jobs: int = -1,
        progress: Progress | None = None,
        *,
        recall: float | None = None,
        certified: bool = False,
    ) -> Neighbors:
        """The k nearest measures of the collection to each query.

        Args:
            measures: the queries.
            k: neighbours to return.
            rerank: candidates whose distance is solved exactly before the best k are kept; 0 for none.
            n_jobs: processes for the exact solves, or -1 for one a core.
            progress: called with what is done and what there is: pairs solved where `rerank` asks for it, queries
                finished where `recall` or `certified` does, else queries compared with the collection.
            recall: share of the true k nearest to find in the mean. Candidates are solved, nearest first, until those
                left are expected to hold no more than the rest, by the errors of the calibration pairs. They are the
                500 that are nearest by prediction, or 10 k; neighbours predicted to be farther are not found.
            certified: solve until the k nearest are proven by lower bounds on the distances of all others. The first
                call solves the whole collection against the model's references, and keeps what it learns in memory:
                some 30 kB a measure for images of 150 atoms.

        Raises:
            SettingError: k outside 1..len(index), rerank below k, recall outside (0, 1), more than one of the three
                asked for, a model without calibration (recall) or without references (certified).
        """
        whole("k", k, 1)
        whole("rerank", rerank)
        switch("certified", certified)
        if recall is not None:
            share("recall", recall, 0.99, also="; for all of them, ask for certified ones")
        if k > len(self):
            raise SettingError(f"k={k}; the index holds {len(self)} measures, so ask for 1 to {len(self)}")
        if (rerank > 0) + (recall is not None) + certified > 1:
            raise SettingError("rerank, recall and certified are three ways to choose what is solved; give one of them")
        if rerank and rerank < k:
            raise SettingError(f"rerank={rerank} candidates cannot give k={k} neighbours; rerank at least k")
        vectors = self.embedder.transform(measures)
        if len(vectors) and (recall is not None or certified):
            return self._proven(measures, vectors, k, recall, n_jobs, progress)
        count = min(max(k, rerank), len(self))
        ids, distances = self._nearest(vectors, count, None if rerank else progress)
        if rerank:
            distances = self._exact(measures, ids, n_jobs, progress)
            order = np.argsort(distances, axis=1, kind="stable")[:, :k]
            ids, distances = np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)
        return Neighbors(ids, distances, np.full(len(ids), rerank and count))

    def _proven(
        self,
        queries: Measures,
        vectors: np.ndarray,
        k: int,
        recall: float | None,
        n_jobs: int,
        progress: Progress | None,
    ) -> Neighbors:
        """Solve candidates in order until enough is known of those left: by chance with a recall, else for certain."""
        trust, found = self.embedder.trust, list[Neighbors]()
        if recall is not None:
            trust.check()
        collection = self._sketched(n_jobs) if recall is None else None
        left: _Left
        together = _ASKING if collection is None else int(np.clip(_BOUNDED // len(self), 1, _ASKING))
        for start in range(0, len(queries), together):
            asking, own = queries[start : start + together], vectors[start : start + together]
            rows = np.arange(len(asking))[:, None]
            if collection is not None:
                side = trust.side(asking, own, True, n_jobs)
                every = np.broadcast_to(np.arange(len(self)), (len(asking), len(self)))
                lower = trust.lower(side, collection, np.repeat(rows, len(self)), every.ravel()).reshape(every.shape)
                first, _ = self._nearest(own, k)
                lower[rows, first] = -1.0  # a small k-th distance early leaves less to solve
                ids = np.argsort(lower, axis=1, kind="stable")
                left = _LeftByBounds(np.take_along_axis(lower, ids, axis=1))
            else:
                ids, _ = self._nearest(own, min(len(self), max(_CANDIDATES, 10 * k)))
                side = trust.side(asking, own, False)
                listed, place = np.unique(ids, return_inverse=True)
                others = trust.side(self.measures[listed], np.asarray(self.vectors[listed]), False)
                left = _LeftByChance(trust, side, others, place.reshape(ids.shape), (1 - (recall or 1.0)) * k)
            found.append(self._best_first(asking, ids, k, left, n_jobs))
            if progress:
                progress(start + len(asking), len(queries))
        return Neighbors(*(np.concatenate([getattr(part, name) for part in found]) for name in vars(found[0])))

    def _best_first(self, queries: Measures, ids: np.ndarray, k: int, left: "_Left", n_jobs: int) -> Neighbors:
        exact, solved = np.full(ids.shape, np.inf), np.zeros(len(ids), dtype=np.int64)
        open_ = np.arange(len(ids))
        step = k
        while len(open_):
            chosen = [np.arange(solved[row], min(solved[row] + step, ids.shape[1])) for row in open_]
            rows, columns = np.repeat(open_, [len(c) for c in chosen]), np.concatenate(chosen)
            exact[rows, columns] = self._solve(queries, rows, ids[rows, columns], n_jobs)
            solved[open_] += [len(c) for c in chosen]
            kth = np.partition(exact[open_], k - 1, axis=1)[:, k - 1]
            open_ = open_[(solved[open_] < ids.shape[1]) & left.more(open_, solved[open_], kth, exact[open_])]
            step = max(_STEP, k // 2)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        return Neighbors(np.take_along_axis(ids, order, axis=1), np.take_along_axis(exact, order, axis=1), solved)

    def _sketched(self, n_jobs: int) -> Side:
        """What bounds know of the collection."""
        if self._side is None:
            with bar(self.embedder.verbose, "references", unit="measures") as show:
                self._side = self.embedder.trust.side(self.measures, np.asarray(self.vectors), True, n_jobs, show)
        return self._side

    def _exact(
        self, queries: Measures, ids: np.ndarray, n_jobs: int, progress: Progress | None
    ) -> Float64[np.ndarray, "q k"]:
        rows = np.repeat(np.arange(len(queries)), ids.shape[1])
        return self._solve(queries, rows, ids.ravel(), n_jobs, progress).reshape(ids.shape)

    def _solve(
        self, queries: Measures, rows: np.ndarray, ids: np.ndarray, n_jobs: int, progress: Progress | None = None
    ) -> Float64[np.ndarray, " k"]:
        """W_p of queries[rows] and collection[ids]."""
        if self._expected_measures != self.measures.fingerprint:
            raise ArtifactError("the index was made of other measures than lie in its folder; make it again")
        candidates, place = np.unique(ids, return_inverse=True)
        together = Measures.concatenate([queries, self.measures[candidates]])
        pairs = np.stack([rows, place.ravel() + len(queries)], axis=1)
        return exact_distances(together, pairs, self.embedder.cost, n_jobs, progress)

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
            if self._graph:
                self._graph.write(content / "graph.faiss")
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
            "method": self.method,
            "graph_sha256": _file_hash(content / "graph.faiss") if self._graph else None,
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
        index._side = None
        try:
            if header["kind"] != "index" or header["format"] != _FORMAT:
                raise ArtifactError(
                    f"{folder} holds format {header['format']} of a {header['kind']}, and this wembed reads format "
                    f"{_FORMAT} of an index; make the index again"
                )
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
            index._graph = None
            if header["method"] == "hnsw":
                graph = content / "graph.faiss"
                if _file_hash(graph) != header["graph_sha256"]:
                    raise ArtifactError(f"{graph} is damaged: its checksum is another; make the index again")
                index._graph = Graph.read(graph)
            shape = (header["count"], header["dim"])
        except (KeyError, TypeError, OSError, ValueError) as error:
            if json.loads((folder / "index.json").read_text()) != header:  # written again in the meantime
                return cls.load(folder)
            if isinstance(error, WembedError):
                raise
            what = f"index.json lacks {error}" if isinstance(error, KeyError) else error
            raise ArtifactError(f"{folder} is damaged: {what}; make the index again") from error
        if index.vectors.shape != shape or len(index.measures) != shape[0]:
            raise ArtifactError(f"{folder} is damaged: vectors and measures do not agree; make the index again")
        return index


class _Left(Protocol):
    def more(self, rows: np.ndarray, solved: np.ndarray, kth: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """Whether queries `rows`, of whose candidates so many are solved, may have a nearer one left than the k-th.

        `exact` holds the distances of the candidates of each, infinite from the first unsolved one on.
        """
        ...


@dataclass(frozen=True, eq=False)
class _LeftByBounds:
    """Candidates in the order of lower bounds on their distances."""

    lower: Float64[np.ndarray, "q n"]

    def more(
        self, rows: np.ndarray, solved: np.ndarray, kth: np.ndarray, exact: np.ndarray
    ) -> Bool[np.ndarray, " rows"]:
        return np.asarray(self.lower[rows, solved.clip(max=self.lower.shape[1] - 1)] < kth)


@dataclass(frozen=True, eq=False)
class _LeftByChance:
    """Candidates in the order of predicted distances, of which some neighbours may be missed."""

    trust: Trust
    queries: Side
    candidates: Side
    places: Int64[np.ndarray, "q c"]
    allowed: float

    def more(
        self, rows: np.ndarray, solved: np.ndarray, kth: np.ndarray, exact: np.ndarray
    ) -> Bool[np.ndarray, " rows"]:
        done = np.arange(self.places.shape[1]) < solved[:, None]
        sides = self.queries, self.candidates
        row, column = np.nonzero(done)
        scores = self.trust.standard_scores(exact[row, column], *sides, rows[row], self.places[rows[row], column])
        mean = np.bincount(row, scores, len(rows)) / solved
        row, column = np.nonzero(~done)
        chance = self.trust.chance_below(
            kth[row], *sides, (rows[row], self.places[rows[row], column]), (mean[row], solved[row])
        )
        return np.asarray(np.bincount(row, chance, len(rows)) > self.allowed)


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
