"""What was appended is read again, wherever a crash cut the file; damage elsewhere is told."""

from pathlib import Path

import numpy as np
import pytest

from wembed.errors import ArtifactError
from wembed.serve.journal import Journal

RECORDS = [b"one", b"", bytes(1000), b"four"]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal")
    for record in RECORDS:
        journal.append(record)
    return journal


def test_records_are_read_in_order_and_again(journal: Journal) -> None:
    assert list(journal.records()) == list(journal.records()) == RECORDS


def test_a_file_cut_anywhere_has_all_records_before_the_cut(journal: Journal) -> None:
    whole, ends = journal.path.read_bytes(), []
    for count in range(len(RECORDS) + 1):
        other = Journal(journal.path.with_name(f"first {count}"))
        for record in RECORDS[:count]:
            other.append(record)
        ends.append(other.size)
    for cut in range(len(whole)):
        journal.path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends[1:])
        assert list(journal.records()) == RECORDS[:kept]
        assert journal.size == (ends[kept] if kept else 0)
        journal.append(b"more")
        assert list(journal.records()) == [*RECORDS[:kept], b"more"]


def test_zeros_at_the_end_are_a_record_that_was_never_written(journal: Journal) -> None:
    size = journal.size
    with journal.path.open("ab") as file:
        file.write(bytes(5000))
    assert list(journal.records()) == RECORDS
    assert journal.size == size


def test_damage_before_the_last_record_is_told(journal: Journal) -> None:
    whole = bytearray(journal.path.read_bytes())
    last = len(whole) - len(RECORDS[-1]) - 44
    for place in np.random.default_rng(0).integers(last, size=60).tolist():
        damaged = whole.copy()
        damaged[place] ^= 0x10
        journal.path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="is damaged at byte"):
            list(journal.records())


def test_what_could_not_be_written_leaves_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    size = journal.size

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wembed.serve.journal.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        journal.append(bytes(10_000))
    assert journal.size == size
    assert list(journal.records()) == RECORDS


def test_without_records_there_is_no_file(journal: Journal) -> None:
    journal.clear()
    assert not journal.path.exists()
    assert list(journal.records()) == []
