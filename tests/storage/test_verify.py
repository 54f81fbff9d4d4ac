"""The offline check: a good shard has no findings, and each kind of damage has one that says what it is."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from leveret.storage.commit_log import CommitLog, Table
from leveret.storage.layout import INDEX_KEY, SEGMENT_KEY
from leveret.storage.local_log import LocalLog
from leveret.storage.memory_log import MemoryLog
from leveret.storage.verify import verify_directory, verify_log

from tests.storage.recording import RecordingStore

SEGMENT = SEGMENT_KEY.pack(1, 0)
INDEX = INDEX_KEY.pack(1)
LARGE = SEGMENT_KEY.pack(2, 1)


def fill(log: CommitLog) -> None:
    """Segment 1: five messages of two queues, one settled. Segment 2: one in three chunks."""
    store = RecordingStore(log)
    queue, other = store.open_queue(1), store.open_queue(2)
    for position in range(1, 6):
        store.put(b"x" * position, [(queue, position, 0), (other, position, 0)])
    store.put(b"x" * 2_500_000, [(queue, 6, 0)])
    store.mark_queue(queue, 1, 1)
    batch = store.take_batch()
    log.commit(batch.operations)
    store.batch_done(batch)
    store.settle_one(queue, 3, 3)
    batch = store.take_batch()
    log.commit(batch.operations)


def changed(log: CommitLog, table: Table, key: bytes, at: int, fields: str, *numbers: int) -> None:
    value = log.get(table, key)
    assert value is not None
    packed = struct.pack("<" + fields, *numbers)
    log.commit([(table, key, value[:at] + packed + value[at + len(packed) :])])


def test_a_good_log_has_no_findings_and_progress_is_told() -> None:
    log = MemoryLog()
    fill(log)
    steps: list[tuple[int, int]] = []
    assert list(verify_log(log, lambda done, total: steps.append((done, total)))) == []
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert list(verify_log(MemoryLog())) == []


# Offsets by the table in `layout.py`: an index record's head has 24 bytes, a run 32 and one of bits here; a message's head 10, a target 14.
DAMAGE: list[tuple[str, Callable[[CommitLog], None], str]] = [
    ("value gone", lambda log: log.commit([(Table.SEGMENTS, SEGMENT, None)]), "no value beside it"),
    ("index gone", lambda log: log.commit([(Table.INDEX, INDEX, None)]), "it has no index record"),
    ("chunk gone", lambda log: log.commit([(Table.SEGMENTS, LARGE, None)]), r"chunks \[0, 2\], its index record tells of 3"),
    ("chunk more", lambda log: log.commit([(Table.SEGMENTS, SEGMENT_KEY.pack(1, 1), b"")]), r"chunks \[0, 1\]"),
    ("chunk short", lambda log: log.commit([(Table.SEGMENTS, LARGE, b"x")]), "a chunk before the last is not full"),
    ("value short", lambda log: log.commit([(Table.SEGMENTS, SEGMENT, b"x")]), "a message's head is cut short"),
    ("value longer", lambda log: log.commit([(Table.SEGMENTS, SEGMENT, bytes(4) + b"\xff" * 6)]), "a message is cut short"),
    ("value size", lambda log: changed(log, Table.INDEX, INDEX, 0, "Q", 1), "its index record tells of 1"),
    ("message count", lambda log: changed(log, Table.INDEX, INDEX, 12, "I", 6), "5 messages, its index record tells of 6"),
    ("target count", lambda log: changed(log, Table.INDEX, INDEX, 16, "I", 11), "10 targets, its index record tells of 11"),
    ("run count", lambda log: changed(log, Table.INDEX, INDEX, 20, "I", 3), "the index record is cut short"),
    ("fewer runs", lambda log: changed(log, Table.INDEX, INDEX, 20, "I", 1), "followed by something else"),
    ("empty span", lambda log: changed(log, Table.INDEX, INDEX, 28, "I", 0), "a run of the index record is not whole"),
    ("live count", lambda log: changed(log, Table.INDEX, INDEX, 32, "I", 5), "counts other messages than its bits"),
    ("bits past the end", lambda log: changed(log, Table.INDEX, INDEX, 28, "III", 3, 4, 0), "a run has bits past its end"),
    ("live bytes", lambda log: changed(log, Table.INDEX, INDEX, 48, "Q", 7), "run 0 has 12 live bytes, its index record tells of 7"),
    (
        "bits of what is not there",
        lambda log: changed(log, Table.INDEX, INDEX, 28, "IIIQQB", 6, 5, 0, 1, 12, 0b11000100),
        "has live messages that are not stored",
    ),
    ("target of no run", lambda log: changed(log, Table.SEGMENTS, SEGMENT, 10, "H", 9), "for run 9, offset 0, which"),
    ("target of no offset", lambda log: changed(log, Table.SEGMENTS, SEGMENT, 12, "I", 70), "for run 0, offset 70, which"),
    ("target twice", lambda log: changed(log, Table.SEGMENTS, SEGMENT, 12, "I", 1), "two messages are for run 0, offset 1"),
    ("run without its first", lambda log: changed(log, Table.SEGMENTS, SEGMENT, 12, "I", 1), "run 0 does not begin and end with"),
    ("index key", lambda log: log.commit([(Table.INDEX, b"short", b"")]), "it is no segment's"),
    ("queue record", lambda log: log.commit([(Table.QUEUES, b"1234", b"short")]), "it has another size"),
    (
        "a position twice",
        lambda log: log.commit([(Table.INDEX, INDEX_KEY.pack(9), log.get(Table.INDEX, INDEX))]),
        "position 1 of queue 1 lies within a run of segment 1 too",
    ),
]


@pytest.mark.parametrize(("damage", "sentence"), [pytest.param(do, sentence, id=name) for name, do, sentence in DAMAGE])
def test_damage_is_found(damage: Callable[[CommitLog], None], sentence: str) -> None:
    log = MemoryLog()
    fill(log)
    damage(log)
    findings = [what for _, what in verify_log(log)]
    assert any(re.search(sentence, what) for what in findings), findings


def test_a_directory_is_checked_whosever_it_is(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "good", identity=b"somebody", shard=12)
    fill(log)
    log.close()
    assert list(verify_directory(tmp_path / "good")) == []


def test_pages_that_are_damaged_are_found_before_the_records_are_read(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    fill(log)
    log.close()
    path = tmp_path / "data.mdb"
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    for page in range(2, pages):
        content[page * 4096 + 10 : page * 4096 + 16] = b"\xff" * 6
    path.write_bytes(content)
    findings = list(verify_directory(tmp_path))
    assert findings
    assert all(finding.where == str(path) for finding in findings)


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "there are no messages of a shard"), (b"text" * 5000, "(?i)magic|not.*LMDB|meta"), (b"", ".")]
)
def test_what_is_no_shard_is_a_finding(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "data.mdb").write_bytes(content)
    findings = [what for _, what in verify_directory(tmp_path)]
    assert any(re.search(sentence, what) for what in findings), findings
    assert sorted(path.name for path in tmp_path.iterdir()) == ([] if content is None else ["data.mdb"])
