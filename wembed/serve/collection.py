"""Collection: an index that changes while it is asked, and forgets nothing that it has confirmed."""

import hashlib
import json
import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from safetensors.numpy import load, save

from wembed.errors import WembedError
from wembed.index import JOURNAL, Index
from wembed.measures import Measures
from wembed.serve.journal import Journal

__all__ = ["Collection"]

_log = logging.getLogger("wembed.serve")
_MOST_JOURNAL = 64 << 20  # bytes, before the index itself is written


class Collection:
    """An index in a folder, asked by any number of threads and changed by one at a time.

    `index` is never changed: each change makes another one, which is taken once it is in the journal. What the journal
    holds is in the index after the next start, however the process ended.

    Args:
        folder: of an index; no other process may write it until `close`.
        most_journal: bytes of the journal, from which on the index itself is written, and the journal begun anew.

    Attributes:
        index: what is there now.
        replayed: changes that were found in the journal.

    Raises:
        ReadError: no index in the folder.
        ArtifactError: it, or the journal, is damaged.
        LockedError: another process writes it, or serves it.
    """

    def __init__(self, folder: "str | Path", most_journal: int = _MOST_JOURNAL) -> None:
        self.folder = Path(folder).resolve()
        self.index = Index.load(self.folder, hold=True)
        self._most_journal = self._due = most_journal
        self._journal, self._supports = Journal(self.folder / JOURNAL), dict[str, np.ndarray]()
        try:
            self.replayed = self._replay()
            if self.replayed:
                self.save()
        except BaseException:
            self.index.release()
            raise

    def __enter__(self) -> "Collection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(
        self,
        measures: Measures,
        vectors: Float32[np.ndarray, "n dim"],
        ids: Any = None,
        labels: Any = None,
        payloads: Any = None,
        *,
        update: bool = False,
    ) -> np.ndarray:
        """Take measures in, or with `update` put them in the place of those with these ids; their ids.

        Raises:
            SettingError: as `Index.add` and `Index.update`.
            OSError: the journal could not be written, and nothing was changed.
        """
        changed = self.index.copy()
        if update:
            changed.update(ids, measures, labels, payloads, vectors=vectors)
        else:
            nothing = [None] * len(measures)  # said, so that it is not taken for an update that keeps what there was
            labels, payloads = (nothing if given is None else given for given in (labels, payloads))
            ids = changed.add(measures, ids, labels, payloads, vectors=vectors)
        given = np.asarray(ids)
        if len(given):
            self._take(changed, _Change(given.tolist(), measures, vectors, labels, payloads))
        return given

    def remove(self, ids: Sequence[int | str]) -> None:
        """Forget measures.

        Raises:
            SettingError: as `Index.remove`.
            OSError: the journal could not be written, and nothing was changed.
        """
        changed = self.index.copy()
        changed.remove(ids)
        self._take(changed, _Change(list(ids)))

    def save(self) -> None:
        """Write the index, and begin the journal anew."""
        self.index.save(self.folder)
        self._journal.clear()
        self._supports = {}

    def close(self) -> None:
        """Write what has changed, and let other processes write."""
        if self._journal.size:
            self.save()
        self.index.release()

    def _take(self, changed: Index, change: "_Change") -> None:
        self._journal.append(change.record(self._supports))
        self._supports |= change.support
        self.index = changed
        if self._journal.size > self._due:
            try:
                self.save()
            except (OSError, WembedError):  # the change is in the journal, which grows until this succeeds
                _log.exception("the index could not be written; the journal goes on")
            self._due = self._journal.size + self._most_journal

    def _replay(self) -> int:
        """Do again what the journal says; the number of changes.

        Some of it may be in the index already, as the process may have ended between writing that and clearing the
        journal. So measures are added or updated, whichever they need, and only what is not added again later is
        removed, at the end: what has become of each is the same then.
        """
        count, gone = 0, dict[int | str, None]()
        supports: dict[str, np.ndarray] = {}
        for change in (_Change.of(record, supports) for record in self._journal.records()):
            count += 1
            if change.measures is None:
                gone |= dict.fromkeys(change.ids)
                continue
            for one in change.ids:
                gone.pop(one, None)
            there = np.array([one in self.index for one in change.ids])
            if there.any():
                self.index.update(**change.at(np.flatnonzero(there)).arguments())
            if not there.all():
                self.index.add(**change.at(np.flatnonzero(~there)).arguments())
        last = [one for one in gone if one in self.index]
        if last:
            self.index.remove(last)
        return count


@dataclass(frozen=True, eq=False)
class _Change:
    """Measures that came under these ids; or without measures, ids that were removed."""

    ids: list[int | str]
    measures: Measures | None = None
    vectors: Float32[np.ndarray, "n dim"] | None = None
    labels: Any = None
    payloads: Any = None

    def at(self, rows: Int64[np.ndarray, " k"]) -> "_Change":
        """That of some of the measures."""
        some = {
            name: [values[row] for row in rows.tolist()]
            for name, values in (("ids", self.ids), ("labels", self.labels), ("payloads", self.payloads))
            if values is not None
        }
        assert self.measures is not None
        assert self.vectors is not None
        return replace(self, measures=self.measures[rows], vectors=self.vectors[rows], **some)

    def arguments(self) -> dict[str, Any]:
        """Of `Index.add` and `Index.update`."""
        return dict(vars(self))

    @property
    def support(self) -> dict[str, np.ndarray]:
        """A support that many measures have in common, by its hash."""
        if self.measures is None or self.measures.atoms is None:
            return {}
        points = np.ascontiguousarray(self.measures.support)
        return {hashlib.sha256(repr(points.shape).encode() + points.tobytes()).hexdigest(): points}

    def record(self, supports: Container[str]) -> bytes:
        """Arrays in the safetensors format; one of them is the rest as JSON. Of a support there its hash is enough."""
        arrays: dict[str, np.ndarray] = {}
        known: dict[str, Any] = {"ids": self.ids}
        if self.measures is not None and self.vectors is not None:
            arrays = self.measures.arrays() | {"vectors": self.vectors}
            for name in [name for name in self.support if name in supports]:
                del arrays["support"]
                known["support"] = name
            named = None if self.labels is None else [None if one is None else str(one) for one in self.labels]
            known |= {"labels": named, "payloads": self.payloads, "grid": self.measures.grid}
        arrays["known"] = np.frombuffer(json.dumps(known, allow_nan=False).encode(), dtype=np.uint8)
        return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))

    @classmethod
    def of(cls, record: bytes, supports: dict[str, np.ndarray]) -> "_Change":
        """The change that a record tells of; supports of earlier ones are known, and its own is added."""
        arrays = load(record)
        known = json.loads(arrays.pop("known").tobytes())
        if "grid" not in known:
            return cls(known["ids"])
        vectors, grid = arrays.pop("vectors"), known["grid"]
        if "support" in known:
            arrays["support"] = supports[known["support"]]
        measures = Measures(**arrays, grid=None if grid is None else tuple(grid))
        change = cls(known["ids"], measures, vectors, known["labels"], known["payloads"])
        supports |= change.support
        return change
