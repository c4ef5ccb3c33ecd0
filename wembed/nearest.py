"""Nearest vectors: exactly, block by block; or by a graph, nearly always the same ones and far sooner."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from wembed.errors import ArtifactError
from wembed.euclidean import Residuals, distances_between, distances_of_pairs
from wembed.transport.parallel import Progress

__all__ = ["Graph", "nearest"]

_BLOCK_NUMBERS = 1 << 21  # in the vectors that are looked at in one go, for any number of queries up to _QUERIES
_QUERIES = 256
_LINKS = 24  # of each vector in the graph; twice as many in its lowest layer
_TRIED = 100  # candidates for them
_LOOKED_AT = 96  # candidates of a query at least
_MORE = 32  # neighbours than twice the wanted ones, that residuals are compared of
_PIECE = 1 << 20  # bytes written in one go
_ADDED = 20_000  # vectors between two signs of progress


def nearest(
    queries: Float32[np.ndarray, "q dim"],
    vectors: Float32[np.ndarray, "n dim"],
    k: int,
    among: Int64[np.ndarray, " m"] | None = None,
    progress: Progress | None = None,
    residuals: Residuals | None = None,
) -> tuple[Int64[np.ndarray, "q k"], Float64[np.ndarray, "q k"]]:
    """Places and distances of the k nearest vectors to each query, nearest first; ties by place.

    With `among`, of those at these places, in ascending order, which are at least k.
    """
    ids = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k))
    count = len(vectors) if among is None else len(among)
    block = max(k, _BLOCK_NUMBERS // vectors.shape[1])
    for start in range(0, len(queries), _QUERIES):
        asking = queries[start : start + _QUERIES]
        best = np.empty((len(asking), 0), dtype=np.uint64)
        for begin in range(0, count, block):
            part = slice(begin, begin + block)
            these = np.asarray(vectors[part if among is None else among[part]])
            found = distances_between(asking, these, residuals=residuals)
            # Floats >= 0 compare as their bits do; with the place below them, one integer orders both.
            keys = found.view(np.uint32).astype(np.uint64) << np.uint64(32)
            keys |= np.arange(begin, begin + found.shape[1], dtype=np.uint64)
            if keys.shape[1] > k:
                keys = np.partition(keys, k - 1, axis=1)[:, :k]
            best = np.sort(np.concatenate([best, keys], axis=1), axis=1)[:, :k]
        places = (best & np.uint64(0xFFFFFFFF)).astype(np.int64)
        ids[start : start + len(asking)] = places if among is None else among[places]
        distances[start : start + len(asking)] = (best >> np.uint64(32)).astype(np.uint32).view(np.float32)
        if progress:
            progress(start + len(asking), len(queries))
    return ids, distances


class Graph:
    """A hierarchical navigable small world (Malkov and Yashunin 2020) of vectors, by faiss.

    It is searched from vector to nearer vector, and may miss a neighbour; benchmarks/index.py says how many.
    """

    def __init__(self, found: Any) -> None:
        self._found = found

    def __len__(self) -> int:
        return int(self._found.ntotal)

    @classmethod
    def build(cls, vectors: Float32[np.ndarray, "n dim"], progress: Progress | None = None) -> "Graph":
        """The graph of these vectors, which it holds a copy of."""
        import faiss  # imported late: small collections do without

        found = faiss.IndexHNSWFlat(vectors.shape[1], _LINKS)
        found.hnsw.efConstruction = _TRIED
        for start in range(0, len(vectors), _ADDED):
            found.add(np.ascontiguousarray(vectors[start : start + _ADDED]))
            if progress:
                progress(min(start + _ADDED, len(vectors)), len(vectors))
        return cls(found)

    def nearest(
        self,
        queries: Float32[np.ndarray, "q dim"],
        vectors: Float32[np.ndarray, "n dim"],
        k: int,
        allowed: Bool[np.ndarray, " n"] | None = None,
        progress: Progress | None = None,
        residuals: Residuals | None = None,
    ) -> tuple[Int64[np.ndarray, "q k"], Float64[np.ndarray, "q k"]]:
        """Places and distances of about the k nearest vectors to each query, nearest first.

        The vectors are those of the graph; with `allowed` these alone are answers, at least k. What float32 has no
        squares for is searched exactly, and so is what too few are found for.
        """
        if residuals:
            return self._by_residuals(queries, vectors, k, allowed, residuals)
        import faiss

        ids, distances = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k))
        effort: dict[str, Any] = {"efSearch": max(_LOOKED_AT, 2 * k)}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            effort["sel"] = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]
            effort["efSearch"] = int(effort["efSearch"] * len(allowed) / np.count_nonzero(allowed))
        looked_at = faiss.SearchParametersHNSW(**effort)  # type: ignore[attr-defined]
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            squares, ids[part] = self._found.search(np.ascontiguousarray(queries[part]), k, params=looked_at)
            distances[part] = np.sqrt(squares, dtype=np.float64)
            if progress:
                progress(min(start + _QUERIES, len(queries)), len(queries))
        lost = np.flatnonzero((ids < 0).any(axis=1) | ~np.isfinite(distances).all(axis=1))
        if len(lost):
            among = None if allowed is None else np.flatnonzero(allowed)
            ids[lost], distances[lost] = nearest(queries[lost], vectors, k, among)
        return ids, distances

    def _by_residuals(
        self,
        queries: Float32[np.ndarray, "q dim"],
        vectors: Float32[np.ndarray, "n dim"],
        k: int,
        allowed: Bool[np.ndarray, " n"] | None,
        residuals: Residuals,
    ) -> tuple[Int64[np.ndarray, "q k"], Float64[np.ndarray, "q k"]]:
        """The nearest of those that are near if all residuals are orthogonal, and those that are if all point one way.

        The first are found by a query without its residual, and are in the right order but for vectors nearly alike;
        the second by the plain distance, and are the vectors nearly alike.
        """
        there = len(self) if allowed is None else int(np.count_nonzero(allowed))
        orthogonal = queries.copy()
        orthogonal[:, 0] = 0
        ids = np.concatenate(
            [self.nearest(asked, vectors, min(there, 2 * k + _MORE), allowed)[0] for asked in (orthogonal, queries)],
            axis=1,
        )
        ids.sort(axis=1)
        pairs = np.stack([np.arange(len(queries)).repeat(ids.shape[1]), ids.ravel()], axis=1)
        distances = distances_of_pairs(queries, pairs, vectors, residuals).reshape(ids.shape)
        distances[:, 1:][ids[:, 1:] == ids[:, :-1]] = np.inf  # found both ways
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)

    def write(self, file: Path) -> None:
        """Save it; `read` maps it into memory.

        Raises:
            OSError: it could not be written; faiss alone would not always say so.
        """
        import faiss

        lost: list[OSError] = []
        with file.open("wb") as handle:

            def write(part: bytes) -> int:
                try:
                    return handle.write(part)
                except OSError as error:
                    lost.append(error)
                    return 0

            try:
                faiss.write_index(self._found, faiss.PyCallbackIOWriter(write, _PIECE))  # type: ignore[attr-defined]
            except RuntimeError as error:
                raise lost[0] if lost else OSError(str(error)) from error

    @classmethod
    def read(cls, file: Path) -> "Graph":
        """What `write` wrote, as a memory map.

        Raises:
            ArtifactError: it is damaged.
        """
        import faiss

        try:
            found = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ArtifactError(f"{file} is damaged; make the index again") from error
        return cls(found)
