"""Catalogue: what an index knows of each of its measures beside the measure itself, found by id."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from wembed.errors import SettingError
from wembed.options import integral

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Catalogue"]

_LONGEST = 200  # characters of an id
_WHOLE = np.iinfo(np.int64)


class Catalogue:
    """An id, a label and a payload for each of some measures; it never changes.

    Args:
        table: of each the id, the label and the payload as JSON, null where there is none.
    """

    def __init__(self, table: "pyarrow.Table") -> None:
        self.table = table

    @classmethod
    def of(cls, count: int, ids: Any, labels: Any, payloads: Sequence[Any] | None) -> "Catalogue":
        """What is known of so many measures, checked.

        Raises:
            SettingError: another number of them, an id that comes twice or is no whole number and no string of 1 to 200
                printable characters, or a payload that JSON has no form for.
        """
        import pyarrow as pa

        for name, given in (("ids", ids), ("labels", labels), ("payloads", payloads)):
            if given is None:
                continue
            if isinstance(given, str) or not hasattr(given, "__len__"):
                raise SettingError(f"{name}={given!r}; give a list, one for each of {count} measures")
            if len(given) != count:
                raise SettingError(f"there are {count} measures and {len(given)} {name}; give one for each")
        listed = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        strings = sum(isinstance(one, str) for one in listed)
        if 0 < strings < len(listed):
            raise SettingError("some ids are strings and some are not; give whole numbers alone, or strings alone")
        for one in listed if strings else ():
            if not (0 < len(one) <= _LONGEST and one.isprintable()):
                raise SettingError(f"the id {one[:40]!r}; give strings of 1 to {_LONGEST} printable characters")
        ids = np.asarray(listed)
        if ids.ndim != 1 or (count and ids.dtype.kind not in "iU"):  # unsigned are those from 2^63 on
            some = ", ".join(f"{one!r:.40}" for one in listed[:3]) + (", ..." if count > 3 else "")
            raise SettingError(f"the ids {some} are not whole numbers below 2^63, nor strings")
        ids = ids.astype(str if ids.dtype.kind == "U" else np.int64)
        found, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            raise SettingError(
                f"the id {found[times > 1].tolist()[0]!r} comes {times[times > 1][0]} times; give each measure its own"
            )
        nothing = [None] * count
        try:
            kept = nothing if payloads is None else payloads
            written = [None if one is None else json.dumps(one, allow_nan=False) for one in kept]
        except (TypeError, ValueError) as error:
            raise SettingError(f"a payload is kept as JSON, and one has no such form: {error}") from error
        named = [None if label is None else str(label) for label in (nothing if labels is None else labels)]
        columns = {
            "id": pa.array(ids.tolist(), pa.string() if ids.dtype.kind == "U" else pa.int64()),
            "label": pa.array(named, pa.string()),
            "payload": pa.array(written, pa.string()),
        }
        return cls(pa.table(columns))

    @classmethod
    def joined(cls, parts: Sequence["Catalogue"]) -> "Catalogue":
        """Of the measures of several, in order."""
        import pyarrow as pa

        return cls(pa.concat_tables([part.table for part in parts]).combine_chunks())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def at(self, rows: Int64[np.ndarray, " k"]) -> "Catalogue":
        """Of the measures in these rows."""
        return Catalogue(self.table.take(rows))

    @property
    def numbered(self) -> bool:
        """Whether the ids are whole numbers; else they are strings."""
        import pyarrow as pa

        return bool(pa.types.is_integer(self.table.schema.field("id").type))

    def ids(self, rows: "Int64[np.ndarray, ' k'] | slice" = slice(None)) -> np.ndarray:
        """Of the measures in these rows, or of all."""
        column = self.table.column("id")
        found = (column if isinstance(rows, slice) else column.take(rows)).to_numpy()
        return np.asarray(found if self.numbered else found.astype(str))

    def labels(self, rows: Int64[np.ndarray, " k"]) -> list[str | None]:
        """Of the measures in these rows."""
        return list(self.table.column("label").take(rows).to_pylist())

    def payloads(self, rows: Int64[np.ndarray, " k"]) -> list[Any]:
        """Of the measures in these rows."""
        written = self.table.column("payload").take(rows).to_pylist()
        return [None if one is None else json.loads(one) for one in written]

    def rows(self, ids: Sequence[Any]) -> Int64[np.ndarray, " k"]:
        """The rows of the measures with these ids, and -1 for what is no id here."""
        if not self.numbered:
            known = self._named
            return np.array([known.get(one, -1) if isinstance(one, str) else -1 for one in ids], dtype=np.int64)
        whole = np.array([integral(one) and _WHOLE.min <= one <= _WHOLE.max for one in ids], dtype=bool)
        wanted = np.array([int(one) if fits else 0 for one, fits in zip(ids, whole, strict=True)], dtype=np.int64)
        ascending, order = self._sorted
        place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
        return np.where(whole & (ascending[place] == wanted), order[place], -1)

    @cached_property
    def _named(self) -> dict[str, int]:
        return {one: row for row, one in enumerate(self.table.column("id").to_pylist())}

    @cached_property
    def _sorted(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        ids = self.ids()
        order = np.argsort(ids, kind="stable")
        return ids[order], order
