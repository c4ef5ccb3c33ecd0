"""Index: a collection of measures by id, searched for the nearest neighbours."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Bool, Float32, Float64, Int64

from wembed.candidates import Left, LeftByBounds, LeftByChance
from wembed.catalogue import Catalogue
from wembed.embedder import Embedder, load
from wembed.errors import ArtifactError, LockedError, MeasureError, ReadError, SettingError, WembedError
from wembed.measures import Measures, pixel_places
from wembed.options import share, switch, whole
from wembed.progress import bar
from wembed.records import Entry, Id, Neighbors
from wembed.segment import Segment
from wembed.transport.parallel import Progress, exact_distances
from wembed.transport.store import check_ours, write_atomically
from wembed.trust import Side

__all__ = ["JOURNAL", "Index"]

JOURNAL = "journal"  # beside index.json: what a service accepted since it was written

_FORMAT = 3
_METHODS = ("auto", "flat", "hnsw")
_LARGE = 50_000  # measures from which on a graph is worth its making
_MOST_REMOVED = 0.2  # of a segment, before those that are left are written anew
_ASKING = 64  # queries whose candidates are solved together
_BOUNDED = 2_000_000  # bounds that are in memory at once
_CANDIDATES = 500  # by predicted distance, among which the nearest are looked for
_STEP = 4  # candidates that are solved between two looks at those left

Spending = Callable[[np.ndarray, np.ndarray], None]


class Index:
    """A collection of measures and their embeddings, to be searched for the nearest.

    Args:
        embedder: fitted or loaded.
        measures: the collection; kept for exact reranking.
        ids: of the measures, whole numbers or strings (up to 200 characters), each its own; None for 0, 1, 2, ...
        labels: a string for each, or None.
        payloads: anything that JSON has a form for, for each, or None.
        method: "flat" looks at all vectors, block by block, and misses none; "hnsw" goes along a graph of them, far
            sooner where they are many, and may miss some; "auto" takes the graph from 50,000 measures on.
        progress: called with the vectors that are in the graph, and all.

    Attributes:
        embedder: as it was when the index was made: later fits and calibrations are for another index.
        ids: of the measures, in the order in which they came.
        labels: of the measures, in that order; None where there is none.
        measures: the collection, in that order.
        vectors: the embedding of each measure, in that order; a memory map when loaded from a folder and not changed.
        method: "flat" or "hnsw", which is how most of it is searched.

    Raises:
        SettingError: something else than an Embedder, no measure, ids that are not all different, other numbers of ids,
            labels or payloads than of measures, or an unknown method.
        MeasureError: as `Embedder.transform`.
    """

    def __init__(
        self,
        embedder: Embedder,
        measures: Measures,
        ids: Any = None,
        labels: Any = None,
        payloads: Any = None,
        *,
        method: str = "auto",
        progress: Progress | None = None,
    ) -> None:
        if method not in _METHODS:
            raise SettingError(f"method={method!r}; choose one of {', '.join(_METHODS)}")
        if not isinstance(embedder, Embedder):
            raise SettingError(f"an index is made with a fitted Embedder, and this is a {type(embedder).__name__}")
        embedder.cost.check(measures)
        if len(measures) == 0:
            raise SettingError("an index of no measures finds none; give it at least one")
        self.embedder = copy(embedder)  # what is fitted or calibrated later goes with other vectors and intervals
        self._wanted_method = method
        self._segments: list[Segment] = []
        self._next = 0
        self._folder: Path | None = None
        self._written: dict[str, Any] | None = None
        self._lock: FileLock | None = None
        self.add(measures, ids, labels, payloads, progress=progress)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def __repr__(self) -> str:
        return f"Index({len(self):,} measures, {self.embedder.dim_:,} numbers a vector)"

    def __contains__(self, wanted: object) -> bool:
        return bool(self._sought([wanted])[0] >= 0)

    def __getitem__(self, wanted: Id) -> Entry:
        """What is known of one measure, by its id."""
        (place,) = self._found([wanted]).tolist()
        return self._entry(place)

    def _entry(self, place: int) -> Entry:
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        segment, row = self._segments[number], np.array([place - int(self._starts[number])])
        known = segment.catalogue
        (one,), (label,), (payload,) = known.ids(row).tolist(), known.labels(row), known.payloads(row)
        return Entry(one, segment.measures[int(row[0])], np.array(segment.vectors[row[0]]), label, payload)

    def at(self, ids: Iterable[Id]) -> Measures:
        """The measures with these ids, in their order.

        Raises:
            SettingError: an id that is not there.
        """
        asked, back = np.unique(self._found(ids), return_inverse=True)
        return self._at(asked)[back]

    def sizes_at(self, ids: Iterable[Id]) -> Int64[np.ndarray, " k"]:
        """How many atoms the measures with these ids have, in their order.

        Raises:
            SettingError: an id that is not there.
        """
        asked, back = np.unique(self._found(ids), return_inverse=True)
        return self._sizes_at(asked)[back]

    def labels_at(self, ids: np.ndarray) -> list[str | None]:
        """The labels of the measures with these ids, in their order.

        Raises:
            SettingError: an id that is not there.
        """
        asked, back = np.unique(self._found(ids.ravel().tolist()), return_inverse=True)
        found = [
            label for number, own in self._by_segment(asked) for label in self._segments[number].catalogue.labels(own)
        ]
        return [found[place] for place in back.tolist()]

    def first(self, count: int = 2) -> np.ndarray:
        """The ids of the first few measures."""
        return self._ids_at(self._alive[:count])

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Of images, their pixels along each axis; None for other measures."""
        grids = {segment.measures.grid for segment in self._segments}
        return grids.pop() if len(grids) == 1 else None

    @property
    def support(self) -> Float64[np.ndarray, "points dim"] | None:
        """Of histograms, the common support; None for clouds, or where it is not the same for all."""
        first, *others = (segment.measures for segment in self._segments)
        alike = (other.atoms is not None and np.array_equal(other.support, first.support) for other in others)
        return first.support if first.atoms is not None and all(alike) else None

    @property
    def numbered(self) -> bool:
        """Whether the ids are whole numbers; else they are strings."""
        return self._segments[0].catalogue.numbered

    def get(self, wanted: Id) -> Entry | None:
        """What is known of one measure, by its id; None where there is none."""
        (place,) = self._sought([wanted]).tolist()
        return None if place < 0 else self._entry(place)

    @property
    def method(self) -> str:
        """How most of it is searched."""
        largest = max(self._segments, key=len)
        return "hnsw" if largest.graph else "flat"

    @cached_property
    def ids(self) -> np.ndarray:
        """Of the measures, in the order in which they came."""
        return np.concatenate([segment.catalogue.ids()[segment.alive] for segment in self._segments])

    @cached_property
    def labels(self) -> list[str | None]:
        """Of the measures, in the order in which they came."""
        return [
            label for segment in self._segments for label in segment.catalogue.labels(np.flatnonzero(segment.alive))
        ]

    @cached_property
    def measures(self) -> Measures:
        """The collection, in the order in which they came."""
        whole = self._untouched
        return whole.checked() if whole else self._at(self._alive)

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "n dim"]:
        """The embedding of each measure."""
        whole = self._untouched
        return whole.vectors if whole else np.concatenate([part.vectors[part.alive] for part in self._segments])

    def add(
        self,
        measures: Measures,
        ids: Any = None,
        labels: Any = None,
        payloads: Any = None,
        *,
        vectors: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Take more measures in, and return their ids: those given, or the next whole numbers.

        Few at a time are as good as many: what came lately is kept apart, and joined to the rest now and then. Nothing
        is on the disk before `save`. Measures whose `vectors` are given are not encoded again.

        Raises:
            SettingError: an id that is there already, or of another kind than those there; see `Index` for the others.
            MeasureError: as `Embedder.transform`; or clouds, off the pixels, for an index of images.
        """
        measures = self._alike(measures)
        self.embedder.cost.check(measures)
        known = Catalogue.of(len(measures), self._numbered(len(measures)) if ids is None else ids, labels, payloads)
        new = known.ids()
        if not len(new):
            return new
        if self._segments and known.numbered != self.numbered:
            was, now = ("strings", "whole numbers")[:: 1 if known.numbered else -1]
            raise SettingError(f"the ids of this index are {was}, and these are {now}; give {was}")
        if self._segments and ids is not None:  # numbers in turn are new, and nothing is looked up
            there = self._sought(new.tolist()) >= 0
            if there.any():
                first = new[there][0].item()
                raise SettingError(f"the id {first!r} is there already; give another one, or use update")
        self._segments.append(Segment.of(measures, self._encoded(measures, vectors), known, False))
        if known.numbered:
            self._next = max(self._next, int(new.max()) + 1)
        self._tidy(progress)
        return new

    def remove(self, ids: Iterable[Id], *, progress: Progress | None = None) -> None:
        """Forget measures. Once a fifth of what came together is gone, the rest of it is put together anew.

        Raises:
            SettingError: an id that is not there, or nothing would be left.
        """
        places = np.unique(self._found(ids))
        if len(places) == len(self):
            raise SettingError("an index of no measures finds none; remove its folder in place of all its measures")
        self._forget(places)
        self._tidy(progress)

    def update(
        self,
        ids: Any,
        measures: Measures,
        labels: Any = None,
        payloads: Any = None,
        *,
        vectors: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Put other measures in the place of those with these ids; without labels or payloads, theirs are kept.

        Measures whose `vectors` are given are not encoded again.

        Raises:
            SettingError: an id that is not there; see `Index` for the others.
            MeasureError: as `add`.
        """
        measures = self._alike(measures)
        self.embedder.cost.check(measures)
        self._found(ids)
        before = [self[one] for one in np.asarray(ids).tolist()]
        known = Catalogue.of(
            len(measures),
            ids,
            [one.label for one in before] if labels is None else labels,
            [one.payload for one in before] if payloads is None else payloads,
        )
        new = Segment.of(measures, self._encoded(measures, vectors), known, False)
        self._forget(np.sort(self._found(known.ids().tolist())))
        self._segments.append(new)
        self._tidy(progress)

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
        among: Iterable[Id] | None = None,
        vectors: np.ndarray | None = None,
        before: Spending | None = None,
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
            among: ids, of which alone the neighbours may be; None for all.
            vectors: of the queries, where they are there already; they are not encoded again then.
            before: called with the atoms of both measures of each pair, before it is solved; what it raises ends it.

        Raises:
            SettingError: k outside 1..len(index), rerank below k, recall outside (0, 1), more than one of the three
                asked for, a model without calibration (recall) or without references (certified), or an id that is not
                there.
        """
        whole("k", k, 1)
        whole("rerank", rerank)
        switch("certified", certified)
        if recall is not None:
            share("recall", recall, 0.99, also="; for all of them, ask for certified ones")
        places = None if among is None else np.unique(self._found(among))
        count = len(self) if places is None else len(places)
        if not count:
            raise SettingError("among names no measure; leave it out for all of them")
        if k > count:
            what = "the index holds" if places is None else "there are to be neighbours among"
            raise SettingError(f"k={k}; {what} {count} measures, so ask for 1 to {count}")
        if (rerank > 0) + (recall is not None) + certified > 1:
            raise SettingError("rerank, recall and certified are three ways to choose what is solved; give one of them")
        if rerank and rerank < k:
            raise SettingError(f"rerank={rerank} candidates cannot give k={k} neighbours; rerank at least k")
        vectors = self._encoded(measures, vectors)
        if len(vectors) and (recall is not None or certified):
            found = self._proven(measures, vectors, k, recall, n_jobs, progress, places, before)
        else:
            solved = min(rerank, count)
            nearest, lengths = self._nearest(vectors, max(k, solved), places, None if rerank else progress)
            distances = self.embedder.cost.from_euclidean(lengths)
            if rerank:
                rows = np.repeat(np.arange(len(measures)), solved)
                solved_ones = self._solve(measures, rows, nearest.ravel(), n_jobs, progress, before)
                distances = solved_ones.reshape(nearest.shape)
                order = np.argsort(distances, axis=1, kind="stable")[:, :k]
                nearest, distances = (np.take_along_axis(array, order, axis=1) for array in (nearest, distances))
            found = Neighbors(nearest, distances, np.full(len(nearest), solved))
        return replace(found, ids=self._ids_at(found.ids))

    def copy(self) -> "Index":
        """Another index of the same measures, at no cost: what is done to one of the two is not seen in the other."""
        other = copy(self)
        other._segments = list(self._segments)
        return other

    def release(self) -> None:
        """Let other processes write the folder that this index was loaded from with `hold`."""
        if self._lock:
            self._lock.release()

    def save(self, folder: "str | Path") -> None:
        """Write it into a folder; `Index.load` maps it into memory.

        What is in the folder already, of the same index, is not written again. An index that is there stays whole until
        the new one is complete, whenever this is interrupted: index.json, which names the files, is replaced last.

        Raises:
            ArtifactError: the folder holds an index.json that is not an index's, one that another process has written
                since this one was loaded, or changes that a service accepted and has not taken in.
            LockedError: another process is writing this index.
            SettingError: it is a file.
        """
        folder = Path(folder).resolve()
        if folder.exists() and not folder.is_dir():
            raise SettingError(f"{folder} is a file; give a folder for the index")
        ours = check_ours(folder / "index.json", "index")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = self._lock is not None and Path(self._lock.lock_file).parent == folder
            with self._lock if self._lock and held else FileLock(folder / ".lock", timeout=0):
                if (folder / JOURNAL).exists() and not held:
                    raise ArtifactError(
                        f"{folder / JOURNAL} holds changes that a service accepted before it was interrupted; start "
                        "`wembed serve` on this index once, which takes them in"
                    )
                if folder == self._folder and _header_of(folder) != self._written:
                    raise ArtifactError(f"{folder} was written again since this index was loaded; load it again")
                made: list[Path] = []
                try:
                    header = self._write(folder, made)
                    text = json.dumps(header, indent=1) + "\n"
                    write_atomically(folder / "index.json", text.encode())
                except BaseException:
                    for unfinished in made:
                        shutil.rmtree(unfinished, ignore_errors=True)
                    raise
                self._folder, self._written = folder, header
                if ours:
                    _clean(folder, header)
        except Timeout as error:
            raise _locked(folder) from error

    def _write(self, folder: Path, made: list[Path]) -> dict[str, Any]:
        """Write what is not there; the header, which names everything."""
        here = self._written if folder == self._folder else None

        def fresh(kind: str) -> Path:
            made.append(folder / f"{kind}-{secrets.token_hex(8)}")
            return made[-1]

        if here is None:
            model = fresh("model")
            self.embedder.save(model)
            named = {"model": model.name, "model_sha256": _model_hash(model)}
        else:
            named = {key: here[key] for key in ("model", "model_sha256")}
        stored: dict[str, Any] = {} if here is None else {one["folder"]: one for one in here["segments"]}
        segments, written = [], []
        for segment in self._segments:
            if segment.path is None or segment.path.parent != folder or segment.path.name not in stored:
                path = fresh("segment")
                known = segment.save(path)
                segment = replace(segment, path=path)
            else:
                known = stored[segment.path.name]
            removed = np.flatnonzero(~segment.alive)
            segments.append(known | {"removed": removed.tolist()})
            written.append(segment)
        self._segments = written
        return {
            "kind": "index",
            "format": _FORMAT,
            "count": len(self),
            "dim": self.embedder.dim_,
            "method": self._wanted_method,
            "next_id": self._next,
            **named,
            "segments": segments,
        }

    @classmethod
    def load(cls, folder: "str | Path", *, hold: bool = False) -> "Index":
        """The index that `save` wrote, its vectors and measures as memory maps.

        Args:
            folder: of the index.
            hold: keep other processes from writing there, until `release`.

        Raises:
            ReadError: there is no index in the folder.
            ArtifactError: a file is damaged or belongs to another index.
            LockedError: it is to be held, and another process is writing or holding it.
        """
        folder = Path(folder).resolve()
        header = _header_of(folder)
        if hold:
            lock = FileLock(folder / ".lock", timeout=0, thread_local=False)
            try:
                lock.acquire()
                index = cls.load(folder)
            except Timeout as error:
                raise _locked(folder) from error
            except BaseException:
                lock.release()
                raise
            index._lock = lock
            return index
        index = cls.__new__(cls)
        try:
            if header["kind"] != "index" or header["format"] != _FORMAT:
                raise ArtifactError(
                    f"{folder} holds format {header['format']} of a {header['kind']}, and this wembed reads format "
                    f"{_FORMAT} of an index; make the index again"
                )
            model = folder / Path(header["model"]).name
            if _model_hash(model) != header["model_sha256"]:
                raise ArtifactError(f"{model} is not the model this index was made with")
            index.embedder = load(model)
            index._wanted_method, index._next = header["method"], header["next_id"]
            index._folder, index._written, index._lock = folder, header, None
            index._segments = [
                Segment.load(folder / Path(one["folder"]).name, one, np.asarray(one["removed"], dtype=np.int64))
                for one in header["segments"]
            ]
            index._changed()
        except (KeyError, TypeError, IndexError, OSError, ValueError, WembedError) as error:
            if _header_of(folder) != header:  # written again in the meantime
                return cls.load(folder)
            if isinstance(error, WembedError):
                raise
            what = f"index.json lacks {error}" if isinstance(error, KeyError) else error
            raise ArtifactError(f"{folder} is damaged: {what}; make the index again") from error
        return index

    # ---- places: numbers of measures, those removed too, segment after segment

    def _changed(self) -> None:
        """Forget what was derived from the segments."""
        self._side: Side | None = None
        for name, value in vars(type(self)).items():
            if isinstance(value, cached_property):
                self.__dict__.pop(name, None)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " segments"]:
        return np.cumsum([0, *map(len, self._segments)])[:-1].astype(np.int64)

    @cached_property
    def _counts(self) -> Int64[np.ndarray, " segments"]:
        return np.array([np.count_nonzero(segment.alive) for segment in self._segments], dtype=np.int64)

    @cached_property
    def _alive(self) -> Int64[np.ndarray, " n"]:
        """Places of those that are there."""
        return np.flatnonzero(np.concatenate([segment.alive for segment in self._segments]))

    @property
    def _untouched(self) -> Segment | None:
        """The only segment, if there is but one and all of it is there."""
        (first, *others) = self._segments
        return first if not others and first.alive.all() else None

    def _numbered(self, count: int) -> Int64[np.ndarray, " n"]:
        if self._segments and not self.numbered:
            raise SettingError("the ids of this index are strings; give one for each of the measures")
        if self._next + count <= np.iinfo(np.int64).max:
            return np.arange(self._next, self._next + count)
        free = np.setdiff1d(np.arange(len(self) + count), self.ids)  # somebody has used the last number
        return free[:count]

    def _found(self, ids: Iterable[Any]) -> Int64[np.ndarray, " k"]:
        """Places of ids."""
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise SettingError(f"ids are a list of whole numbers or strings, and this is {ids!r}")
        wanted = list(ids)
        places = self._sought(wanted)
        if (places < 0).any():
            first = wanted[int(places.argmin())]
            named = first.item() if isinstance(first, np.generic) else first
            kind = "whole numbers" if self.numbered else "strings"
            raise SettingError(f"there is no measure with the id {named!r} in this index, whose ids are {kind}")
        return places

    def _sought(self, ids: list[Any]) -> Int64[np.ndarray, " k"]:
        """Places of ids, and -1 where there is none."""
        places = np.full(len(ids), -1)
        for segment, start in zip(self._segments, self._starts.tolist(), strict=True):
            rows = segment.catalogue.rows(ids)
            there = (rows >= 0) & segment.alive[rows]
            places[there] = rows[there] + start
        return places

    def _alike(self, measures: Measures) -> Measures:
        """Of the kind that is here: images, or else clouds and histograms."""
        here = self.grid if self._segments else measures.grid
        if here == measures.grid:
            return measures
        if here is None:
            if self.support is not None and np.array_equal(measures.support, self.support):
                return Measures(measures.offsets, measures.support, measures.weights, measures.atoms)
            return Measures.from_flat(measures.points(), measures.weights, measures.sizes)
        size = " x ".join(map(str, here))
        if measures.grid is not None:
            theirs = " x ".join(map(str, measures.grid))
            raise MeasureError(f"the images of this index are of {size} pixels, and these of {theirs}; resize them")
        try:
            return measures.on(pixel_places(here), here)
        except MeasureError as error:
            raise MeasureError(
                f"this index is of images of {size} pixels, and these measures are none: give images, such as "
                f"measures.on_pixels({here}) makes"
            ) from error

    def _encoded(self, measures: Measures, vectors: np.ndarray | None) -> Float32[np.ndarray, "n dim"]:
        """Their embeddings, unless these are given."""
        if vectors is None:
            return self.embedder.transform(measures)
        given, expected = np.ascontiguousarray(vectors, dtype=np.float32), (len(measures), self.embedder.dim_)
        if given.shape != expected:
            raise SettingError(f"vectors have shape {given.shape}; expected {expected}, as transform has it")
        return given

    def _ids_at(self, places: Int64[np.ndarray, "*shape"]) -> np.ndarray:
        """Their ids, which of strings are as long as these have it."""
        asked, back = np.unique(places, return_inverse=True)
        parts = [self._segments[k].catalogue.ids(own) for k, own in self._by_segment(asked)]
        return np.concatenate(parts or [self._segments[0].catalogue.ids()[:0]])[back].reshape(places.shape)

    def _by_segment(self, places: Int64[np.ndarray, " k"]) -> list[tuple[int, Int64[np.ndarray, " own"]]]:
        """Of ascending places, the segments and the rows in each."""
        cuts = np.searchsorted(places, [*self._starts[1:].tolist(), np.iinfo(np.int64).max])
        parts = np.split(places, cuts[:-1])
        return [(k, own - self._starts[k]) for k, own in enumerate(parts) if len(own)]

    def _forget(self, places: Int64[np.ndarray, " k"]) -> None:
        """Those at ascending places are no longer there."""
        for number, own in self._by_segment(places):
            self._segments[number] = self._segments[number].without(own)

    def _at(self, places: Int64[np.ndarray, " k"]) -> Measures:
        """The measures at ascending places."""
        return Measures.concatenate([self._segments[k].checked()[own] for k, own in self._by_segment(places)])

    def _sizes_at(self, places: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Atoms of the measures at ascending places."""
        offsets = [(self._segments[k].measures.offsets, own) for k, own in self._by_segment(places)]
        return np.concatenate([places[:0], *(ends[rows + 1] - ends[rows] for ends, rows in offsets)])

    def _vectors_at(self, places: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "k dim"]:
        return np.concatenate([self._segments[k].vectors[own] for k, own in self._by_segment(places)])

    def _tidy(self, progress: Progress | None) -> None:
        """Put together what has become small pieces, so that a segment is more than twice as large as the next one."""
        kept: list[Segment] = []
        for segment in self._segments:
            parts, count = [segment], int(np.count_nonzero(segment.alive))
            while kept and np.count_nonzero(kept[-1].alive) <= 2 * count:
                parts.insert(0, kept.pop())
                count += int(np.count_nonzero(parts[0].alive))
            by_graph = self._by_graph(count)
            worn = count < (1 - _MOST_REMOVED) * len(segment)
            if count and (len(parts) > 1 or worn or by_graph != (segment.graph is not None)):
                segment = Segment.merged(parts, by_graph, progress)
            if count:
                kept.append(segment)
        self._segments = kept
        self._changed()

    def _by_graph(self, count: int) -> bool:
        return self._wanted_method == "hnsw" or (self._wanted_method == "auto" and count >= _LARGE)

    def _nearest(
        self,
        vectors: Float32[np.ndarray, "q dim"],
        k: int,
        among: Int64[np.ndarray, " m"] | None = None,
        progress: Progress | None = None,
    ) -> tuple[Int64[np.ndarray, "q k"], Float64[np.ndarray, "q k"]]:
        """Places of the k nearest vectors, nearest first, and how far these are."""
        wanted: list[Bool[np.ndarray, " n"] | None] = [None] * len(self._segments)
        if among is not None:
            wanted = [np.zeros(len(segment), dtype=bool) for segment in self._segments]
            for number, own in self._by_segment(among):
                mask = wanted[number]
                assert mask is not None
                mask[own] = True
        places, distances = [], []
        for segment, start, mask in zip(self._segments, self._starts.tolist(), wanted, strict=True):
            rows, far = segment.nearest(vectors, k, mask, progress, self.embedder.residuals)
            places.append(rows + start)
            distances.append(far)
        if len(places) == 1:
            return places[0], distances[0]
        every, far = np.concatenate(places, axis=1), np.concatenate(distances, axis=1)
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(every, order, axis=1), np.take_along_axis(far, order, axis=1)

    # ---- neighbours that are solved until a promise is kept

    def _proven(
        self,
        queries: Measures,
        vectors: np.ndarray,
        k: int,
        recall: float | None,
        n_jobs: int,
        progress: Progress | None,
        among: Int64[np.ndarray, " m"] | None,
        before: Spending | None,
    ) -> Neighbors:
        """Solve candidates in order until enough is known of those left: by chance with a recall, else for certain."""
        trust, found = self.embedder.trust, list[Neighbors]()
        if recall is not None:
            trust.check()
        places = self._alive if among is None else among
        columns = np.searchsorted(self._alive, places)
        collection = self._sketched(n_jobs) if recall is None else None
        left: Left
        together = _ASKING if collection is None else int(np.clip(_BOUNDED // len(places), 1, _ASKING))
        for start in range(0, len(queries), together):
            asking, own = queries[start : start + together], vectors[start : start + together]
            rows = np.arange(len(asking))[:, None]
            if collection is not None:
                side = trust.side(asking, own, True, n_jobs)
                every = np.broadcast_to(columns, (len(asking), len(columns)))
                lower = trust.lower(side, collection, np.repeat(rows, len(columns)), every.ravel()).reshape(every.shape)
                first, _ = self._nearest(own, k, among)
                lower[rows, np.searchsorted(places, first)] = -1.0  # a small k-th distance early leaves less to solve
                order = np.argsort(lower, axis=1, kind="stable")
                ids, left = places[order], LeftByBounds(np.take_along_axis(lower, order, axis=1))
            else:
                ids, _ = self._nearest(own, min(len(places), max(_CANDIDATES, 10 * k)), among)
                side = trust.side(asking, own, False)
                listed, place = np.unique(ids, return_inverse=True)
                others = trust.side(self._at(listed), self._vectors_at(listed), False)
                left = LeftByChance(trust, side, others, place.reshape(ids.shape), (1 - (recall or 1.0)) * k)
            found.append(self._best_first(asking, ids, k, left, n_jobs, before))
            if progress:
                progress(start + len(asking), len(queries))
        return Neighbors(*(np.concatenate([getattr(part, name) for part in found]) for name in vars(found[0])))

    def _best_first(
        self, queries: Measures, ids: np.ndarray, k: int, left: Left, n_jobs: int, before: Spending | None
    ) -> Neighbors:
        exact, solved = np.full(ids.shape, np.inf), np.zeros(len(ids), dtype=np.int64)
        open_ = np.arange(len(ids))
        step = k
        while len(open_):
            chosen = [np.arange(solved[row], min(solved[row] + step, ids.shape[1])) for row in open_]
            rows, columns = np.repeat(open_, [len(c) for c in chosen]), np.concatenate(chosen)
            exact[rows, columns] = self._solve(queries, rows, ids[rows, columns], n_jobs, None, before)
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

    def _solve(
        self,
        queries: Measures,
        rows: np.ndarray,
        places: np.ndarray,
        n_jobs: int,
        progress: Progress | None,
        before: Spending | None,
    ) -> Float64[np.ndarray, " k"]:
        """W_p of queries[rows] and the measures at these places."""
        candidates, place = np.unique(places, return_inverse=True)
        if before:
            before(queries.sizes[rows], self._sizes_at(candidates)[place.ravel()])
        together = Measures.concatenate([queries, self._at(candidates)])
        pairs = np.stack([rows, place.ravel() + len(queries)], axis=1)
        return exact_distances(together, pairs, self.embedder.cost, n_jobs, progress)


def _locked(folder: Path) -> LockedError:
    return LockedError(f"another process is writing {folder}, or serves it; wait for it, or give another folder")


def _header_of(folder: Path) -> dict[str, Any]:
    """Of the index in a folder.

    Raises:
        ReadError: there is none.
        ArtifactError: it is damaged.
    """
    try:
        header = json.loads((folder / "index.json").read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ReadError(f"{folder} holds no index; make one with wembed index or Index.save") from error
    except ValueError as error:
        raise ArtifactError(f"{folder / 'index.json'} is damaged; make the index again") from error
    if not isinstance(header, dict):
        raise ArtifactError(f"{folder / 'index.json'} is damaged; make the index again")
    return header


def _clean(folder: Path, header: dict[str, Any]) -> None:
    """Remove what earlier indices left in a folder, and what interrupted writers did."""
    named = {header["model"], *(one["folder"] for one in header["segments"])}
    for kind in ("model", "segment"):
        for old in folder.glob(f"{kind}-" + "[0-9a-f]" * 16):
            if old.name not in named:
                shutil.rmtree(old, ignore_errors=True)


def _model_hash(folder: Path) -> str:
    """The weights' checksum as model.json gives it, with what else decides the vectors."""
    try:
        description = json.loads((folder / "model.json").read_text())
        decisive = [description[key] for key in ("weights_sha256", "cost", "features", "unit", "calibration")]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{folder} is damaged or missing; make the index again") from error
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
