"""The check of one shard's records while nobody writes to them: whether they say what `layout.py` says, and agree with one another.

Tools and tests call it. It changes nothing and repairs nothing. `verify_directory` must not be called on a shard whose worker runs: a
second program in the file is what LMDB's owner excludes.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from leveret.storage.commit_log import CommitLog, Table
from leveret.storage.environment import StoreError, page_problems
from leveret.storage.layout import (
    CHUNK_BYTES,
    INDEX_KEY,
    QUEUE_KEY,
    QUEUE_VALUE,
    SEGMENT_KEY,
    Damaged,
    IndexRecord,
    decode_index,
    decode_segment,
)
from leveret.storage.local_log import FILES, LocalLog

# Called with (segments checked, segments in all), both 0 at first.
Progress = Callable[[int, int], None]


class Finding(NamedTuple):
    """where: a record, in words; what: a sentence about it."""

    where: str
    what: str


def verify_directory(directory: Path, progress: Progress | None = None) -> Iterator[Finding]:
    """What is wrong with the shard in `directory`: LMDB's pages first, and if they are sound, the records in them. Nothing: it is good.

    Whose shard it is, is not asked: a backup can be checked too.
    """
    if not (directory / FILES[0]).is_file():
        yield Finding(str(directory), "there are no messages of a shard")
        return
    problems = page_problems(directory)
    for problem in problems:
        yield Finding(str(directory / FILES[0]), problem)
    if problems:
        return
    try:
        log = LocalLog(directory, identity=None, shard=None)
    except StoreError as error:
        yield Finding(str(directory), str(error))
        return
    try:
        yield from verify_log(log, progress)
    except StoreError as error:
        yield Finding(str(directory), str(error))
    finally:
        log.close()


def verify_log(log: CommitLog, progress: Progress | None = None) -> Iterator[Finding]:
    """What is wrong with the records of a log. Memory: the index, and one segment at a time."""
    index: dict[int, IndexRecord] = {}
    for key, value in log.scan(Table.INDEX):
        try:
            (segment_no,) = INDEX_KEY.unpack(key)
            index[segment_no] = decode_index(value)
        except struct.error:
            yield Finding(f"index key {key.hex()}", "it is no segment's")
        except Damaged as error:
            yield Finding(f"segment {segment_no}", str(error))
    if progress is not None:
        progress(0, len(index))
    yield from _find_overlaps(index)
    checked = 0
    for segment_no, chunks in _segments(log):
        record = index.pop(segment_no, None)
        if record is None:
            yield Finding(f"segment {segment_no}", "it has no index record")
            continue
        for what in _problems(record, chunks):
            yield Finding(f"segment {segment_no}", what)
        checked += 1
        if progress is not None:
            progress(checked, checked + len(index))
    for segment_no in index:
        yield Finding(f"segment {segment_no}", "its index record has no value beside it")
    for key, value in log.scan(Table.QUEUES):
        if len(key) != QUEUE_KEY.size or len(value) != QUEUE_VALUE.size:
            yield Finding(f"queue record {key.hex()}", "it has another size")


def _find_overlaps(index: dict[int, IndexRecord]) -> Iterator[Finding]:
    runs = sorted(
        (run.queue_id, run.first, run.span, segment_no) for segment_no, record in index.items() for run in record.runs if run.live
    )
    for (queue_id, first, span, segment_no), (next_id, next_first, _, next_no) in itertools.pairwise(runs):
        if queue_id == next_id and first + span > next_first:
            yield Finding(f"segment {next_no}", f"position {next_first} of queue {queue_id} lies within a run of segment {segment_no} too")


def _segments(log: CommitLog) -> Iterator[tuple[int, dict[int, bytes]]]:
    """(segment, its chunks by number), ascending. A key that is none comes as segment -1."""
    current = -1
    chunks: dict[int, bytes] = {}
    for key, value in log.scan(Table.SEGMENTS):
        segment_no, chunk = SEGMENT_KEY.unpack(key) if len(key) == SEGMENT_KEY.size else (-1, 0)
        if segment_no != current and chunks:
            yield current, chunks
            chunks = {}
        current = segment_no
        chunks[chunk] = value
    if chunks:
        yield current, chunks


def _problems(record: IndexRecord, chunks: dict[int, bytes]) -> Iterator[str]:
    """What one segment's value and its index record disagree about."""
    if sorted(chunks) != list(range(record.chunk_count)):
        yield f"it has chunks {sorted(chunks)}, its index record tells of {record.chunk_count}"
        return
    value = b"".join(chunks[number] for number in range(record.chunk_count))
    if len(value) != record.value_size:
        yield f"it has {len(value)} bytes, its index record tells of {record.value_size}"
    if any(len(chunks[number]) != CHUNK_BYTES for number in range(record.chunk_count - 1)):
        yield "a chunk before the last is not full"
    try:
        messages = decode_segment(value)
    except Damaged as error:
        yield str(error)
        return
    if len(messages) != record.message_count:
        yield f"it has {len(messages)} messages, its index record tells of {record.message_count}"
    stored = [0] * len(record.runs)
    live_bytes = [0] * len(record.runs)
    target_count = 0
    for message in messages:
        for target in message.targets:
            target_count += 1
            if target.run >= len(record.runs) or target.offset >= record.runs[target.run].span:
                yield f"a message is for run {target.run}, offset {target.offset}, which the index record does not have"
                continue
            bit = 1 << target.offset
            if stored[target.run] & bit:
                yield f"two messages are for run {target.run}, offset {target.offset}"
            stored[target.run] |= bit
            if not record.runs[target.run].settled & bit:
                live_bytes[target.run] += message.body_size
    if target_count != record.target_count:
        yield f"its messages have {target_count} targets, its index record tells of {record.target_count}"
    for number, run in enumerate(record.runs):
        live = ~run.settled & ((1 << run.span) - 1)
        if live & ~stored[number]:
            yield f"run {number} has live messages that are not stored"
        elif live_bytes[number] != run.live_bytes:
            yield f"run {number} has {live_bytes[number]} live bytes, its index record tells of {run.live_bytes}"
        if stored[number].bit_length() != run.span or not stored[number] & 1:
            yield f"run {number} does not begin and end with a message"
