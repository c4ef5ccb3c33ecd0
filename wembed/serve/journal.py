"""Journal: changes on the disk before they are answered, one record after the other, each with its checksum."""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from wembed.errors import ArtifactError
from wembed.transport.store import sync

__all__ = ["Journal"]

_MAGIC = b"wembed journal 1\n"
_LENGTH = struct.Struct("<QI")  # of the record, and the checksum of these eight bytes
_HEAD = _LENGTH.size + hashlib.sha256().digest_size


class Journal:
    """A file of records, there as long as it has some.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: int | None = None  # bytes to cut it to before anything else

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, record: bytes) -> None:
        """Put a record on the disk; when this returns it survives a crash, and when it raises nothing is left of it.

        Raises:
            OSError: it could not be written; the disk may be full.
        """
        length = struct.pack("<Q", len(record))
        head = length + struct.pack("<I", zlib.crc32(length)) + hashlib.sha256(record).digest()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)  # nothing is held back for later
        try:
            if self._whole is not None:  # what another one left could not be cut off at that time
                self._cut(handle, self._whole)
            before = os.fstat(handle).st_size
            try:
                for part in (b"" if before else _MAGIC, head, record):
                    left = memoryview(part)
                    while left:
                        left = left[os.write(handle, left) :]
                os.fsync(handle)
                if not before:
                    sync(self.path.parent)
            except OSError:
                self._cut(handle, before)
                raise
        finally:
            os.close(handle)

    def _cut(self, handle: int, size: int) -> None:
        self._whole = size
        os.ftruncate(handle, size)
        os.fsync(handle)
        self._whole = None

    def records(self) -> Iterator[bytes]:
        """What was appended, oldest first. A record that a crash cut short was never answered, and is cut off.

        Raises:
            ArtifactError: damaged elsewhere than at its end.
        """
        if not self.path.exists():
            return
        size, whole = self.size, len(_MAGIC)
        with self.path.open("rb") as file:
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC and not _MAGIC.startswith(magic.rstrip(b"\0")):
                raise self._damaged(0)
            while magic == _MAGIC and whole < size:
                head = file.read(_HEAD)
                if len(head) < _HEAD:
                    break
                (length, check), digest = _LENGTH.unpack_from(head), head[_LENGTH.size :]
                if zlib.crc32(head[:8]) != check:
                    if head.strip(b"\0") or file.read().strip(b"\0"):
                        raise self._damaged(whole)
                    break  # a crash may leave zeros where the disk had begun a record
                record = file.read(length) if whole + _HEAD + length <= size else b""
                if len(record) < length:
                    break
                if hashlib.sha256(record).digest() != digest:
                    if whole + _HEAD + length < size:
                        raise self._damaged(whole)
                    break
                yield record
                whole += _HEAD + length
        if magic != _MAGIC or whole == len(_MAGIC):
            self.clear()
        elif whole < size:
            os.truncate(self.path, whole)

    def clear(self) -> None:
        """Remove the file, once what it says is elsewhere."""
        self.path.unlink(missing_ok=True)
        sync(self.path.parent)
        self._whole = None

    def _damaged(self, place: int) -> ArtifactError:
        return ArtifactError(
            f"{self.path} is damaged at byte {place}. After `truncate -s {place} {self.path}` the changes before that "
            "are kept and all later ones lost; without the file the index is as it was last written. Keep a copy first"
        )
