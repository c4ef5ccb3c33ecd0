"""Segments: measures that came into an index together, with their vectors; written once, and never changed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from wembed.catalogue import Catalogue
from wembed.errors import ArtifactError
from wembed.euclidean import Residuals
from wembed.measures import Measures
from wembed.nearest import Graph, nearest
from wembed.transport.parallel import Progress
from wembed.transport.store import sync

__all__ = ["Segment"]

_GRAPH_SHARE = 0.1  # of the vectors of a graph that may be answers, below which these are looked at one by one


@dataclass(frozen=True, eq=False)
class Segment:
    """Measures, their vectors, and what is known of each.

    Attributes:
        measures: all that came, those that were removed later too.
        vectors: of each.
        catalogue: what is known of each.
        alive: which are still there.
        graph: of the vectors, where they are many.
        fingerprint: of the measures, when they came.
        path: the folder that it lies in, if it does.
    """

    measures: Measures
    vectors: Float32[np.ndarray, "n dim"]
    catalogue: Catalogue
    alive: Bool[np.ndarray, " n"]
    graph: Graph | None
    fingerprint: str
    path: Path | None = None

    @classmethod
    def of(
        cls,
        measures: Measures,
        vectors: Float32[np.ndarray, "n dim"],
        catalogue: Catalogue,
        by_graph: bool,
        progress: Progress | None = None,
    ) -> "Segment":
        """All of them there."""
        graph = Graph.build(vectors, progress) if by_graph else None
        return cls(measures, vectors, catalogue, np.ones(len(measures), dtype=bool), graph, measures.fingerprint)

    @classmethod
    def merged(cls, parts: Sequence["Segment"], by_graph: bool, progress: Progress | None = None) -> "Segment":
        """Those that are still there of several, in order."""
        if len(parts) == 1 and parts[0].alive.all():  # nothing but its graph is new
            return replace(parts[0], graph=Graph.build(parts[0].vectors, progress) if by_graph else None, path=None)
        rows = [np.flatnonzero(part.alive) for part in parts]
        return cls.of(
            Measures.concatenate([part.checked()[own] for part, own in zip(parts, rows, strict=True)]),
            np.concatenate([part.vectors[own] for part, own in zip(parts, rows, strict=True)]),
            Catalogue.joined([part.catalogue.at(own) for part, own in zip(parts, rows, strict=True)]),
            by_graph,
            progress,
        )

    def __len__(self) -> int:
        return len(self.alive)

    def without(self, rows: Int64[np.ndarray, " k"]) -> "Segment":
        """The same, some of them removed."""
        alive = self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive)

    def checked(self) -> Measures:
        """The measures, after a look whether they are those that came.

        Raises:
            ArtifactError: they are others.
        """
        if self.measures.fingerprint != self.fingerprint:
            raise ArtifactError("the index was made of other measures than lie in its folder; make it again")
        return self.measures

    def nearest(
        self,
        queries: Float32[np.ndarray, "q dim"],
        k: int,
        wanted: Bool[np.ndarray, " n"] | None = None,
        progress: Progress | None = None,
        residuals: Residuals | None = None,
    ) -> tuple[Int64[np.ndarray, "q found"], Float64[np.ndarray, "q found"]]:
        """Rows and distances of the k nearest vectors that are there and wanted, or of all these if they are fewer."""
        allowed = self.alive if wanted is None else self.alive & wanted
        count = int(np.count_nonzero(allowed))
        k = min(k, count)
        if k == 0:
            return np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0))
        if self.graph is not None and count >= _GRAPH_SHARE * len(self):
            only = allowed if count < len(self) else None
            return self.graph.nearest(queries, self.vectors, k, only, progress, residuals)
        among = np.flatnonzero(allowed) if count < len(self) else None
        return nearest(queries, self.vectors, k, among, progress, residuals)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write it, and return what `load` has to know."""
        from pyarrow import feather

        folder.mkdir()
        self.measures.save(folder / "measures")
        np.save(folder / "vectors.npy", self.vectors)
        feather.write_feather(self.catalogue.table, str(folder / "table.arrow"), compression="uncompressed")
        if self.graph:
            self.graph.write(folder / "graph.faiss")
        for file in [*folder.rglob("*"), folder]:  # on the disk, before anything says that they are there
            sync(file)
        return {"folder": folder.name, "count": len(self), "fingerprint": self.fingerprint, "sha256": _hashes(folder)}

    @classmethod
    def load(cls, folder: Path, known: dict[str, Any], removed: Int64[np.ndarray, " k"]) -> "Segment":
        """What `save` wrote, as memory maps.

        Raises:
            ArtifactError: a file is damaged.
        """
        from pyarrow import feather

        for name, expected in known["sha256"].items():
            if _file_hash(folder / name) != expected:
                raise ArtifactError(f"{folder / name} is damaged: its checksum is another; make the index again")
        graph = Graph.read(folder / "graph.faiss") if "graph.faiss" in known["sha256"] else None
        alive = np.ones(known["count"], dtype=bool)
        alive[removed] = False
        segment = cls(
            Measures.load(folder / "measures"),
            np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False),
            Catalogue(feather.read_table(str(folder / "table.arrow"), memory_map=True)),
            alive,
            graph,
            known["fingerprint"],
            folder,
        )
        if not len(segment.measures) == len(segment.vectors) == len(segment.catalogue) == known["count"]:
            raise ArtifactError(f"{folder} is damaged: vectors and measures do not agree; make the index again")
        return segment


def _file_hash(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    names = ("vectors.npy", "table.arrow", "graph.faiss")
    return {name: _file_hash(folder / name) for name in names if (folder / name).exists()}
