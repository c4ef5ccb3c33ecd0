"""DistanceStore: exact distances of pairs on disk, written atomically and read with a checksum."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from wembed.errors import ArtifactError, ReadError

__all__ = ["DistanceStore", "check_ours", "sync", "write_atomically"]

_FORMAT = 1
_MERGE = 32  # small neighbouring shards that are merged into one
_SHARD_ROWS = 2_000_000  # rows of a shard that is not merged any further
_OURS = re.compile(r"shard-[\d-]+\.parquet(\.part)?|_manifest\.json\.part")


class DistanceStore:
    """Pairs (i < j) and their W_p in Parquet shards, beside a manifest that says what they belong to.

    Every shard holds the columns i, j and distance of a run of pairs. pandas opens the folder as it is (Arrow passes
    over names that begin with _), polars and DuckDB its `*.parquet`. `wembed.precompute` writes a store; this class
    reads it.

    Attributes:
        path: the folder.
        manifest: what the distances belong to, as written in _manifest.json.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a store that exists.

        Raises:
            ReadError: there is no store at `path`.
            ArtifactError: the manifest is damaged or of another format.
        """
        self.path = Path(path)
        try:
            text = (self.path / "_manifest.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ReadError(f"{self.path} holds no distances; write them with wembed.precompute") from error
        try:
            self.manifest: dict[str, Any] = json.loads(text)
            if self.manifest["kind"] != "distances" or self.manifest["format"] != _FORMAT:
                raise KeyError("kind")
            _check_shards(self.manifest["shards"], self.manifest["pairs"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{self.path / '_manifest.json'} is damaged or of another format; remove the folder and precompute "
                "again"
            ) from error

    @classmethod
    def create(cls, path: str | Path, manifest: dict[str, Any]) -> "DistanceStore":
        """Begin an empty store whose manifest says what it belongs to."""
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            _write_json(path / "_manifest.json", {"kind": "distances", "format": _FORMAT, **manifest, "shards": []})
        except OSError as error:
            raise ArtifactError(f"could not write {error.filename or path}: {error.strerror}") from error
        return cls(path)

    def __len__(self) -> int:
        """Pairs that are solved."""
        return sum(shard["rows"] for shard in self.manifest["shards"])

    @property
    def complete(self) -> bool:
        """Whether every planned pair is solved."""
        return len(self) == int(self.manifest["pairs"])

    @property
    def digest(self) -> str:
        """A hash of what the distances belong to and of the distances, however they are cut into shards."""
        return self._digest(distances for _, distances in self.batches())

    @property
    def pairs(self) -> Int64[np.ndarray, "k 2"]:
        """The solved pairs, in the order of the plan."""
        parts = [pairs for pairs, _ in self.batches()]
        return np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.int64)

    @property
    def distances(self) -> Float64[np.ndarray, " k"]:
        """W_p of the solved pairs, in the unit of the support."""
        parts = [distances for _, distances in self.batches()]
        return np.concatenate(parts) if parts else np.empty(0)

    def read(self) -> tuple[Int64[np.ndarray, "k 2"], Float64[np.ndarray, " k"], str]:
        """`pairs`, `distances` and `digest`, in one pass over the shards in place of three."""
        parts = [(np.empty((0, 2), dtype=np.int64), np.empty(0)), *self.batches()]
        pairs, distances = (np.concatenate(column) for column in zip(*parts, strict=True))
        return pairs, distances, self._digest([distances])

    def _digest(self, parts: Iterable[np.ndarray]) -> str:
        head = {key: value for key, value in self.manifest.items() if key != "shards"}
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        for distances in parts:
            digest.update(np.ascontiguousarray(distances).data)
        return digest.hexdigest()

    def batches(self) -> Iterator[tuple[Int64[np.ndarray, "k 2"], Float64[np.ndarray, " k"]]]:
        """Pairs and distances a shard at a time, each checked against its checksum.

        Raises:
            ArtifactError: a shard is missing or damaged; the message names the file.
        """
        for shard in self.manifest["shards"]:
            table = self._read(shard)
            pairs = np.stack([table["i"].to_numpy(), table["j"].to_numpy()], axis=1).astype(np.int64)
            yield pairs, table["distance"].to_numpy().astype(np.float64)

    def grow(self, manifest: dict[str, Any]) -> None:
        """Say that the store belongs to a longer plan, which begins with the one it had."""
        try:
            self.manifest |= manifest
            self._write_manifest()
        except OSError as error:
            raise ArtifactError(f"could not write {error.filename or self.path}: {error.strerror}") from error

    def mend(self, boundaries: Int64[np.ndarray, " blocks_plus_1"]) -> None:
        """Drop shards whose files are gone or that were cut into other blocks."""
        cuts, absent = set(boundaries.tolist()), set(self.absent())
        kept = [
            shard
            for shard in self.manifest["shards"]
            if shard["file"] not in absent and {shard["start"], shard["start"] + shard["rows"]} <= cuts
        ]
        if len(kept) < len(self.manifest["shards"]):
            self.manifest["shards"] = kept
            self._write_manifest()

    def absent(self) -> list[str]:
        """Files of shards that are not there."""
        return [shard["file"] for shard in self.manifest["shards"] if not (self.path / shard["file"]).exists()]

    def clean(self) -> None:
        """Delete what a kill left behind, which no entry names; a user's own files are not touched."""
        listed = {shard["file"] for shard in self.manifest["shards"]}
        for file in self.path.iterdir():
            if _OURS.fullmatch(file.name) and file.name not in listed:
                file.unlink()

    def missing(self, boundaries: Int64[np.ndarray, " blocks_plus_1"]) -> Int64[np.ndarray, " k"]:
        """Which of the blocks [boundaries[b], boundaries[b + 1]) of the plan are not stored yet."""
        covered = np.zeros(len(boundaries) - 1, dtype=bool)
        for shard in self.manifest["shards"]:
            inside = (boundaries[:-1] >= shard["start"]) & (boundaries[1:] <= shard["start"] + shard["rows"])
            covered |= inside
        return np.flatnonzero(~covered)

    def add(self, start: int, pairs: np.ndarray, distances: np.ndarray) -> None:
        """Save the distances of the pairs `start`, `start + 1`, ... of the plan: first the shard, then its entry.

        Raises:
            ArtifactError: the disk is full or the folder cannot be written; what was saved before is kept.
        """
        before = self.manifest["shards"]
        try:
            added = self._write(start, pairs, distances)
            self.manifest["shards"] = sorted([*before, added], key=lambda shard: int(shard["start"]))
            self._write_manifest()
            before = self.manifest["shards"]
            self._merge()
        except OSError as error:
            self.manifest["shards"] = before
            raise ArtifactError(
                f"could not write {error.filename or self.path}: {error.strerror}; {len(self):,} distances are safe in "
                f"{self.path}. Make room and run the same call again: it goes on from there"
            ) from error

    def _merge(self) -> None:
        """Turn a run of small neighbouring shards into one, so that a long job does not end in many files.

        No shard is more than half of what it is merged into, so that a row is written again log2 of the rows times.
        """
        shards = self.manifest["shards"]
        for first in range(len(shards) - _MERGE + 1):
            run = shards[first : first + _MERGE]
            adjacent = all(a["start"] + a["rows"] == b["start"] for a, b in itertools.pairwise(run))
            rows = sum(shard["rows"] for shard in run)
            if not adjacent or rows > _SHARD_ROWS or 2 * max(s["rows"] for s in run) > rows:
                continue
            tables = [self._read(shard) for shard in run]
            pairs = np.concatenate([np.stack([t["i"].to_numpy(), t["j"].to_numpy()], axis=1) for t in tables])
            merged = self._write(run[0]["start"], pairs, np.concatenate([t["distance"].to_numpy() for t in tables]))
            self.manifest["shards"] = shards[:first] + [merged] + shards[first + _MERGE :]
            self._write_manifest()
            for shard in run:
                (self.path / shard["file"]).unlink()
            return

    def _write(self, start: int, pairs: np.ndarray, distances: np.ndarray) -> dict[str, Any]:
        table = pa.table(
            {
                "i": pa.array(pairs[:, 0].astype(np.int32)),
                "j": pa.array(pairs[:, 1].astype(np.int32)),
                "distance": pa.array(distances),
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        name = _shard_name(start, len(pairs))
        write_atomically(self.path / name, content)
        return {"file": name, "start": start, "rows": len(pairs), "sha256": hashlib.sha256(content).hexdigest()}

    def _read(self, shard: dict[str, Any]) -> pa.Table:
        file = self.path / shard["file"]
        try:
            content = file.read_bytes()
        except OSError as error:
            manifest = self.path / "_manifest.json"
            if manifest.exists() and json.loads(manifest.read_bytes()) != self.manifest:
                raise ArtifactError(f"{self.path} was written to while it was read; open it again") from error
            raise ArtifactError(f"{file} is gone; run the same precompute again: it solves its pairs anew") from error
        if hashlib.sha256(content).hexdigest() != shard["sha256"]:
            raise ArtifactError(
                f"{file} is damaged: its checksum is not the manifest's. Delete that file and run the same precompute "
                "again: it solves its pairs anew"
            )
        return pq.read_table(pa.BufferReader(content))

    def _write_manifest(self) -> None:
        _write_json(self.path / "_manifest.json", self.manifest)


def _check_shards(shards: list[dict[str, Any]], pairs: int) -> None:
    """Raise ValueError, KeyError or TypeError for entries that this version did not write."""
    end = 0
    for shard in shards:
        start, rows = shard["start"], shard["rows"]
        if start < end or rows < 1 or shard["file"] != _shard_name(start, rows) or len(shard["sha256"]) != 64:
            raise ValueError("shards")
        end = start + rows
    if end > pairs:
        raise ValueError("pairs")


def _shard_name(start: int, rows: int) -> str:
    return f"shard-{start:012d}-{rows}.parquet"


def check_ours(file: Path, kind: str) -> bool:
    """Whether the description of an artifact is there already; something else of the same name is refused.

    Raises:
        ArtifactError: the file is not the description of such an artifact.
    """
    if not file.exists():
        return False
    try:
        found = json.loads(file.read_bytes())
    except ValueError:
        return True  # a damaged one of ours, to be replaced
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise ArtifactError(f"{file} is not the description of a wembed {kind}; give another folder")
    return True


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that a kill or a full disk leaves either the old content or the new, never a part."""
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        error.filename = str(file)
        raise
    sync(file.parent)


def sync(path: Path) -> None:
    """Have a file on the disk, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())
