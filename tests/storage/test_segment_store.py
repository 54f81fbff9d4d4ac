"""The segment store, case by case: what a batch holds, who holds a message's memory, what is refused, and how large the file may become."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from leveret.storage.commit_log import CommitLog, Operation, Table
from leveret.storage.environment import DamagedSegment, DiskFull, ForeignStore
from leveret.storage.faulty_log import FaultyLog
from leveret.storage.layout import CHUNK_BYTES, INDEX_KEY, QUEUE_KEY, SEGMENT_KEY, Target, decode_index, decode_segment
from leveret.storage.local_log import LocalLog
from leveret.storage.memory_log import MemoryLog
from leveret.storage.queue_index import QueueIndex
from leveret.storage.verify import verify_log

from tests.storage.recording import RecordingStore


def commit(store: RecordingStore) -> list[Operation]:
    """Take a batch and commit it: its operations."""
    batch = store.take_batch()
    store.log.commit(batch.operations)
    store.batch_done(batch)
    return batch.operations


def commit_all(store: RecordingStore) -> int:
    """Until there is nothing to do: how many batches that took."""
    count = 0
    while store.busy():
        commit(store)
        count += 1
        assert count < 10_000, "the store never runs out of work"
    return count


def fill(store: RecordingStore, queue: QueueIndex, first: int, count: int, size: int = 100) -> None:
    for position in range(first, first + count):
        store.put(position.to_bytes(8, "big") * (size // 8), [(queue, position, position)])


def positions(store: RecordingStore, queue: QueueIndex) -> list[int]:
    return [position for position, _, _ in store.fetch(queue)]


def recovered(log: CommitLog, queue_id: int) -> list[int]:
    """What a start would find of a queue."""
    store = RecordingStore(log)
    return positions(store, store.open_queue(queue_id))


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def store(log: MemoryLog) -> RecordingStore:
    return RecordingStore(log)


def values(operations: list[Operation], table: Table) -> dict[bytes, bytes | None]:
    return {key: value for number, key, value in operations if number == table}


# --- what a batch holds


def test_the_records_are_as_the_layout_has_them(store: RecordingStore) -> None:
    """Byte for byte: these are in people's files."""
    first, second = store.open_queue(7), store.open_queue(0x01020304)
    store.put(b"abc", [(first, 5, 0x1122334455667788)], 2)
    store.put(b"defg", [(first, 7, 0), (second, 1, 9)])
    store.mark_queue(first, 6, 2)
    operations = commit(store)
    assert operations == [
        (
            Table.SEGMENTS,
            bytes.fromhex("0000000000000001 00000000"),
            bytes.fromhex("03000000 02000000 0100 0000 00000000 8877665544332211")
            + b"abc"
            + bytes.fromhex("04000000 04000000 0200 0000 02000000 0000000000000000 0100 00000000 0900000000000000")
            + b"defg",
        ),
        (
            Table.INDEX,
            bytes.fromhex("0000000000000001"),
            bytes.fromhex("4500000000000000 01000000 02000000 03000000 02000000")
            + bytes.fromhex("07000000 03000000 02000000 00000000 0500000000000000 0600000000000000 fa")
            + bytes.fromhex("04030201 01000000 01000000 00000000 0100000000000000 0400000000000000 fe"),
        ),
        (Table.QUEUES, bytes.fromhex("00000007"), bytes.fromhex("0600000000000000 0200000000000000")),
    ]


def test_a_message_for_many_queues_is_stored_once(store: RecordingStore) -> None:
    queues = [store.open_queue(number) for number in range(1, 301)]
    store.put(b"once" * 50, [(queue, 1, queue.queue_id) for queue in queues])
    operations = commit(store)
    (value,) = values(operations, Table.SEGMENTS).values()
    assert value is not None
    assert decode_segment(value) == [(200, tuple(Target(number, 0, number + 1) for number in range(300)), b"once" * 50)]
    assert all(store.fetch(queue) == [(1, queue.queue_id, b"once" * 50)] for queue in queues)
    assert store.keep_calls == store.let_go_calls == 1


def test_more_queues_than_a_message_can_have_targets_store_it_again(store: RecordingStore) -> None:
    queues = [store.open_queue(number) for number in range(1, 10_001)]
    store.put(b"many", [(queue, 1, 0) for queue in queues])
    operations = commit(store)
    messages = [message for value in values(operations, Table.SEGMENTS).values() if value for message in decode_segment(value)]
    assert [len(message.targets) for message in messages] == [4096, 4096, 10_000 - 2 * 4096]
    assert all(store.fetch(queue) == [(1, 0, b"many")] for queue in queues)
    assert store.keep_calls == store.let_go_calls == 3
    assert store.blocks_held == 0


@pytest.mark.parametrize("size", [0, 1, 65_495, 65_496, 65_497, CHUNK_BYTES - 24, CHUNK_BYTES - 23, 3 * CHUNK_BYTES, 5_000_000])
def test_a_large_message_has_a_segment_of_its_own_in_chunks(store: RecordingStore, log: MemoryLog, size: int) -> None:
    queue = store.open_queue(1)
    data = random.Random(size).randbytes(size)
    store.put(b"before", [(queue, 1, 1)])
    store.put(data, [(queue, 2, 2)])
    store.put(b"behind", [(queue, 3, 3)])
    stored = values(commit(store), Table.SEGMENTS)
    assert all(value is not None and 0 < len(value) <= CHUNK_BYTES for value in stored.values())
    assert len({SEGMENT_KEY.unpack(key)[0] for key in stored}) == (1 if size < 1000 else 3 if size > 65_472 else 2)
    assert store.fetch(queue) == [(1, 1, b"before"), (2, 2, data), (3, 3, b"behind")]
    again = RecordingStore(log)
    assert again.fetch(again.open_queue(1), 2, 2) == [(2, 2, data)]
    assert store.settle_one(queue, 2, size)
    commit_all(store)
    assert positions(store, queue) == [1, 3]
    if size > 65_496:
        assert log.sizes().used_bytes < 1000


def test_a_long_hole_begins_another_run(store: RecordingStore) -> None:
    queue = store.open_queue(1)
    for position in (10, 12, 268, 524, 781, 10**15):
        store.put(b"x", [(queue, position, 0)])
    (record,) = values(commit(store), Table.INDEX).values()
    assert record is not None
    assert [(run.first, run.span, run.live) for run in decode_index(record).runs] == [(10, 515, 4), (781, 1, 1), (10**15, 1, 1)]
    assert (queue.first_position, queue.last_position) == (10, 10**15)
    assert [store.end_of_run(queue, first) for first in (1, 524, 525, 782, 10**15, 10**15 + 1)] == [524, 524, 781, 10**15, 10**15, 0]


def test_what_is_settled_before_the_batch_is_taken_is_never_written(store: RecordingStore) -> None:
    queue = store.open_queue(1)
    store.put(b"one", [(queue, 1, 0)])
    store.put(b"two", [(queue, 2, 0)])
    assert store.settle_one(queue, 1, 3)
    assert store.blocks_held == 1, "its memory is not wanted any more"
    assert store.settle_many(queue, 1, 9) == 1
    assert (store.blocks_held, store.gathered_bytes, queue.live, queue.live_bytes, queue.stored_through) == (0, 0, 0, 0, 0)
    assert store.busy(), "whoever waits for the commit is to be answered"
    assert commit(store) == []
    assert queue.stored_through == 2


def test_what_is_settled_during_a_commit_goes_with_the_next(store: RecordingStore, log: MemoryLog) -> None:
    queue = store.open_queue(1)
    fill(store, queue, 1, 3)
    batch = store.take_batch()
    assert positions(store, queue) == [], "not readable before the commit is done"
    assert queue.live == 3
    assert store.settle_one(queue, 2, 96)
    assert not store.settle_one(queue, 2, 96)
    log.commit(batch.operations)
    store.batch_done(batch)
    assert positions(store, queue) == [1, 3]
    assert recovered(log, 1) == [1, 2, 3]
    assert list(values(commit(store), Table.SEGMENTS)) == []
    assert recovered(log, 1) == [1, 3]


def test_an_index_record_is_written_once_a_commit_however_many_are_settled(store: RecordingStore) -> None:
    queue = store.open_queue(1)
    fill(store, queue, 1, 500)
    commit(store)
    assert store.settle_many(queue, 1, 400) == 400
    assert [(number, key) for number, key, _ in commit(store)] == [(Table.INDEX, INDEX_KEY.pack(1))]
    assert not store.busy()
    assert store.settle_many(queue, 1, 10_000) == 100
    assert commit(store) == [(Table.SEGMENTS, SEGMENT_KEY.pack(1, 0), None), (Table.INDEX, INDEX_KEY.pack(1), None)]


def test_removals_are_spread_over_batches_the_last_to_die_first(store: RecordingStore, log: MemoryLog) -> None:
    queue = store.open_queue(1)
    for position in range(1, 1501):
        store.put(b"x" * 66_000, [(queue, position, 0)])
    commit(store)
    store.settle_many(queue, 1, 1400)
    store.settle_many(queue, 1401, 1500)
    removed = [[key for number, key, _ in commit(store) if number == Table.INDEX] for _ in range(2)]
    assert removed == [
        [INDEX_KEY.pack(number) for number in range(1500, 500, -1)],
        [INDEX_KEY.pack(number) for number in range(500, 0, -1)],
    ]
    assert not store.busy()
    assert log.sizes().used_bytes == 0


# --- marks, forgetting, and misuse


def test_marks_come_back_and_go_with_the_queue(store: RecordingStore, log: MemoryLog) -> None:
    queue = store.open_queue(1)
    store.mark_queue(queue, 5, 7)
    store.mark_queue(queue, 2**64 - 1, 8)
    assert len(commit(store)) == 1
    again = RecordingStore(log)
    assert {number: (index.delivered, index.lease) for number, index in again.load().items()} == {1: (2**64 - 1, 8)}
    queue = again.open_queue(1)
    again.mark_queue(queue, 9, 9)
    again.forget_queue(queue)
    again.forget_queue(queue)
    again.mark_queue(queue, 10, 10)
    assert commit(again) == [(Table.QUEUES, QUEUE_KEY.pack(1), None)]
    assert RecordingStore(log).load() == {}


def test_a_position_that_does_not_ascend_is_refused_and_nothing_changes(store: RecordingStore) -> None:
    queue = store.open_queue(1)
    store.put(b"x", [(queue, 5, 0)])
    for position in (5, 4, 0):
        with pytest.raises(ValueError, match=f"position {position} of queue 1"):
            store.put(b"again", [(queue, position, 0)])
    assert (queue.live, queue.live_bytes, store.blocks_held, store.gathered_bytes) == (1, 1, 1, 1)
    commit(store)
    assert store.fetch(queue) == [(5, 0, b"x")]


@pytest.mark.parametrize("good", [True, False])
def test_a_queue_that_is_forgotten_and_opened_again_begins_anew(store: RecordingStore, log: MemoryLog, good: bool) -> None:
    """Its deletion was told by a router that died before it was on the disk, and the next one knows the queue still."""
    first = store.open_queue(1)
    fill(store, first, 1, 5)
    store.mark_queue(first, 3, 4)
    commit(store)
    store.forget_queue(first)
    queue = store.open_queue(1)
    assert (queue.live, queue.first_position, queue.last_position) == (0, 0, 5)
    fill(store, queue, 6, 2)
    store.mark_queue(queue, 6, 7)
    if not good:
        store.batch_failed(store.take_batch())
        fill(store, queue, 8, 1)
    commit_all(store)
    kept = [6, 7] if good else [8]
    assert positions(store, store.open_queue(1)) == kept
    assert recovered(log, 1) == kept
    again = RecordingStore(log).load()[1]
    assert (again.delivered, again.lease) == (6, 7)


def test_one_batch_at_a_time(store: RecordingStore) -> None:
    batch = store.take_batch()
    with pytest.raises(RuntimeError, match="under way"):
        store.take_batch()
    store.batch_done(batch)
    for end in (store.batch_done, store.batch_failed):
        with pytest.raises(RuntimeError, match="not under way"):
            end(batch)


def test_memory_without_an_owner_is_not_held(store: RecordingStore) -> None:
    queue = store.open_queue(1)
    data = [b"first", b"second"]
    for position, body in enumerate(data, 1):
        store.put_unowned(body, queue, position)
    commit(store)
    assert store.fetch(queue) == [(1, 0, b"first"), (2, 0, b"second")]
    assert store.keep_calls == store.let_go_calls == 0


def test_closing_lets_go_of_what_was_not_written(store: RecordingStore) -> None:
    fill(store, store.open_queue(1), 1, 10)
    assert store.blocks_held == 10
    store.close()
    store.close()
    assert store.blocks_held == 0
    assert store.keep_calls == store.let_go_calls == 10


# --- a full disk


@pytest.mark.parametrize("fail_at", [1, 2, 4])
def test_a_failed_batch_loses_its_messages_and_keeps_its_settlements(log: MemoryLog, fail_at: int) -> None:
    """Wherever in the commit it fails: first operation, in the middle, last."""
    faulty = FaultyLog(log, 0, DiskFull("no room"))
    store = RecordingStore(faulty)
    queue = store.open_queue(1)
    fill(store, queue, 1, 4)
    commit(store)
    assert store.settle_many(queue, 1, 2) == 2
    fill(store, queue, 5, 2)
    store.mark_queue(queue, 3, 4)
    batch = store.take_batch()
    assert len(batch.operations) == 4
    assert store.settle_one(queue, 5, 96)
    faulty.fail_at = faulty.operations + fail_at
    with pytest.raises(DiskFull):
        faulty.commit(batch.operations)
    store.batch_failed(batch)
    assert (queue.live, queue.live_bytes, queue.stored_through) == (2, 192, 4)
    assert not store.settle_one(queue, 6, 96)
    assert store.blocks_held == 0
    assert {number for number, _, _ in commit(store)} == {Table.INDEX, Table.QUEUES}
    again = RecordingStore(log)
    assert positions(again, again.open_queue(1)) == [3, 4]
    assert again.open_queue(1).delivered == 3
    fill(store, queue, 7, 1)
    commit(store)
    assert (queue.stored_through, positions(store, queue)) == (7, [3, 4, 7])


def test_a_queue_forgotten_in_a_failed_batch_is_forgotten_with_the_next(store: RecordingStore, log: MemoryLog) -> None:
    queue = store.open_queue(1)
    fill(store, queue, 1, 1)
    store.mark_queue(queue, 1, 1)
    commit(store)
    store.forget_queue(queue)
    store.batch_failed(store.take_batch())
    assert store.busy()
    commit(store)
    assert RecordingStore(log).load() == {}
    assert log.sizes().used_bytes == 0


def test_what_makes_room_can_be_written_without_what_takes_it(store: RecordingStore, log: MemoryLog) -> None:
    queue = store.open_queue(1)
    fill(store, queue, 1, 10)
    commit(store)
    for position in range(1, 11):
        store.settle_one(queue, position, 96)
    fill(store, queue, 11, 2)
    store.mark_queue(queue, 10, 10)
    batch = store.take_batch(messages=False)
    assert {table for table, _, value in batch.operations if value is None} == {Table.SEGMENTS, Table.INDEX}
    assert {table for table, _, value in batch.operations if value is not None} == {Table.QUEUES}
    store.log.commit(batch.operations)
    store.batch_done(batch)
    assert queue.stored_through == 10
    assert recovered(log, 1) == []
    commit(store)
    assert (queue.stored_through, recovered(log, 1)) == (12, [11, 12])


def test_on_a_full_disk_nothing_is_moved_until_a_commit_succeeds() -> None:
    faulty = FaultyLog(MemoryLog(), 0, DiskFull("no room"))
    store = RecordingStore(faulty, waste_bytes_max=1 << 16)
    queue = store.open_queue(1)
    fill(store, queue, 1, 10_000)
    commit(store)
    for position in range(1, 10_001):
        if position % 10:
            store.settle_one(queue, position, 96)
    faulty.fail_at = faulty.operations + 1
    batch = store.take_batch()
    with pytest.raises(DiskFull):
        faulty.commit(batch.operations)
    store.batch_failed(batch)
    assert all(value is None or number == Table.INDEX for number, _, value in commit(store)), "a copy was made while the disk was full"
    assert store.moved_segments == 0
    commit_all(store)
    assert store.moved_segments > 5
    assert positions(store, queue) == list(range(10, 10_001, 10))
    assert list(verify_log(faulty)) == []


# --- reading


def test_a_reader_may_settle_what_it_is_given(store: RecordingStore) -> None:
    queue = store.open_queue(1)
    fill(store, queue, 1, 2000)
    commit(store)
    taken = store.fetch(queue, on_take=lambda position: store.settle_many(queue, position - 1, position))
    assert [position for position, _, _ in taken] == list(range(1, 2001))
    assert queue.live == 0


def test_what_a_reader_raises_ends_the_read(store: RecordingStore) -> None:
    queue = store.open_queue(1)
    fill(store, queue, 1, 10)
    commit(store)
    seen: list[int] = []

    def stop(position: int) -> None:
        seen.append(position)
        if position == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError):
        store.fetch(queue, on_take=stop)
    assert seen == [1, 2, 3]
    assert positions(store, queue) == list(range(1, 11))


def test_a_purge_in_slices_counts_every_message_once(store: RecordingStore) -> None:
    queue = store.open_queue(1)
    fill(store, queue, 1, 3000)
    commit(store)
    fill(store, queue, 3001, 500)
    assert [store.settle_many(queue, first, first + 699) for first in range(1, 3501, 700)] == [700] * 5
    assert (queue.live, queue.live_bytes) == (0, 0)
    commit_all(store)
    assert store.log.sizes().used_bytes == 0


# --- damage


def stored(log: MemoryLog) -> None:
    store = RecordingStore(log)
    queue, other = store.open_queue(1), store.open_queue(2)
    store.put(b"a" * 10, [(queue, 1, 1), (other, 1, 1)])
    store.put(b"b" * 20, [(queue, 2, 2)])
    store.settle_one(queue, 1, 10)
    commit(store)


def test_an_index_record_cut_at_any_byte_or_longer_is_damage(log: MemoryLog) -> None:
    stored(log)
    whole = log.get(Table.INDEX, INDEX_KEY.pack(1))
    assert whole is not None
    for cut in [*(whole[:size] for size in range(len(whole))), whole + b"\0"]:
        log.commit([(Table.INDEX, INDEX_KEY.pack(1), cut)])
        with pytest.raises(ForeignStore, match="index record of segment 1 is damaged"):
            RecordingStore(log).load()
        assert list(verify_log(log)) != []


def test_a_position_that_is_there_twice_is_damage(log: MemoryLog) -> None:
    stored(log)
    for table, pack in ((Table.INDEX, INDEX_KEY.pack(2)), (Table.SEGMENTS, SEGMENT_KEY.pack(2, 0))):
        log.commit([(table, pack, log.get(table, INDEX_KEY.pack(1) + pack[8:]))])
    with pytest.raises(ForeignStore, match=r"the index holds position \d of queue \d twice"):
        RecordingStore(log).load()
    assert any("lies within a run of segment 1 too" in finding.what for finding in verify_log(log))


@pytest.mark.parametrize("size", [0, 1, 9, 10, 23, 30, 40])
def test_a_value_that_is_cut_short_is_an_error_and_not_a_message(log: MemoryLog, size: int) -> None:
    stored(log)
    value = log.get(Table.SEGMENTS, SEGMENT_KEY.pack(1, 0))
    assert value is not None
    log.commit([(Table.SEGMENTS, SEGMENT_KEY.pack(1, 0), value[:size])])
    store = RecordingStore(log)
    with pytest.raises(DamagedSegment, match=f"segment 1 has {size} bytes, not {len(value)}"):
        store.fetch(store.open_queue(1))


@pytest.mark.parametrize("at", [0, 8])
def test_a_value_whose_sizes_do_not_fit_is_an_error(log: MemoryLog, at: int) -> None:
    stored(log)
    value = log.get(Table.SEGMENTS, SEGMENT_KEY.pack(1, 0))
    assert value is not None
    log.commit([(Table.SEGMENTS, SEGMENT_KEY.pack(1, 0), value[:at] + b"\xff\xff" + value[at + 2 :])])
    store = RecordingStore(log)
    with pytest.raises(DamagedSegment, match="value of a stored segment is damaged"):
        store.fetch(store.open_queue(1))


def test_a_missing_value_is_an_error(log: MemoryLog) -> None:
    stored(log)
    log.commit([(Table.SEGMENTS, SEGMENT_KEY.pack(1, 0), None)])
    store = RecordingStore(log)
    with pytest.raises(DamagedSegment, match="segment 1 is missing"):
        store.fetch(store.open_queue(2))


# --- compaction


@pytest.mark.parametrize("keep", [2, 5, 20, 100])
def test_stored_bytes_stay_within_a_small_multiple_of_what_is_live(store: RecordingStore, log: MemoryLog, keep: int) -> None:
    """Every keep-th message stays: the file must not."""
    queue = store.open_queue(1)
    expected = []
    for first in range(1, 60_001, 1000):
        fill(store, queue, first, 1000, 1024)
        commit(store)
        for position in range(first, first + 1000):
            if position % keep:
                store.settle_one(queue, position, 1024)
            else:
                expected.append(position)
    commit_all(store)
    live = len(expected) * 1048
    assert store.stored_bytes <= 2 * live + (1 << 24) + (1 << 23)
    assert log.sizes().used_bytes <= store.stored_bytes * 1.05
    assert positions(store, queue) == expected
    assert list(verify_log(log)) == []
    again = RecordingStore(log)
    assert again.fetch(again.open_queue(1)) == store.fetch(queue)


def test_small_segments_are_merged_in_their_order(store: RecordingStore, log: MemoryLog) -> None:
    first, second = store.open_queue(1), store.open_queue(2)
    for position in range(1, 3001):
        store.put(b"%d" % position, [(first, position, position)] if position % 3 else [(first, position, 0), (second, position, 1)])
        commit(store)
        assert store.statistics()["small_segments"] <= 1024 + 256 + 1
    commit_all(store)
    assert positions(store, first) == list(range(1, 3001))
    assert store.fetch(second) == [(position, 1, b"%d" % position) for position in range(3, 3001, 3)]
    assert list(verify_log(log)) == []
    again = RecordingStore(log)
    assert positions(again, again.open_queue(1)) == list(range(1, 3001))


def moving(log: CommitLog) -> tuple[RecordingStore, QueueIndex, QueueIndex]:
    """A store whose next batch moves positions 10, 20, … 4000 of one queue and all of another's."""
    store = RecordingStore(log, waste_bytes_max=1 << 16)
    queue, other = store.open_queue(1), store.open_queue(2)
    for position in range(1, 4001):
        store.put(
            b"%d" % position * 20, [(queue, position, position)] if position % 100 else [(queue, position, 0), (other, position, 0)], 1
        )
    commit(store)
    for position in range(1, 4001):
        if position % 10:
            store.settle_one(queue, position, 1)
    return store, queue, other


@pytest.mark.parametrize("good", [True, False])
def test_what_is_settled_while_its_segment_moves_stays_settled(log: MemoryLog, good: bool) -> None:
    store, queue, other = moving(log)
    batch = store.take_batch()
    assert store.settle_one(queue, 100, 1)
    assert store.settle_one(queue, 110, 1)
    assert not store.settle_one(queue, 100, 1)
    assert store.settle_many(queue, 1000, 1500) == 51
    assert store.settle_many(queue, 1505, 1515) == 1
    store.forget_queue(other)
    fill(store, queue, 4001, 5)
    expected = [position for position in range(10, 4001, 10) if position not in (100, 110) and not 1000 <= position <= 1515]
    assert positions(store, queue) == expected
    if good:
        log.commit(batch.operations)
        assert positions(store, queue) == expected, "read between the commit and the news of it"
        store.batch_done(batch)
    else:
        store.batch_failed(batch)
        assert store.statistics()["moved_segments"] == 0
        commit(store)  # moves nothing: the disk was full
        assert recovered(log, 1) == [*expected, *range(4001, 4006)], "what was settled before and during the failed move is written"
    assert [position for position in positions(store, queue) if position <= 4000] == expected
    assert queue.live == queue.live_bytes - 5 * 96 + 5 == len(expected) + 5
    commit_all(store)
    assert positions(store, queue) == [*expected, *range(4001, 4006)]
    assert store.moved_segments > 0
    again = RecordingStore(log)
    assert {number: index.live for number, index in again.load().items() if index.live} == {1: len(expected) + 5}
    assert list(verify_log(log)) == []


def test_a_damaged_segment_is_not_moved_and_can_be_settled(log: MemoryLog) -> None:
    store, queue, _ = moving(log)
    key, value = next(iter(log.scan(Table.SEGMENTS)))
    log.commit([(Table.SEGMENTS, bytes(key), bytes(value)[:-10])])
    commit_all(store)
    assert store.moved_segments > 0
    assert log.get(Table.SEGMENTS, bytes(key)) is not None, "it lies where it was"
    last = store.end_of_run(queue, 1)
    with pytest.raises(DamagedSegment):
        store.fetch(queue, 1, last)
    live = queue.live
    # A part of its run, then the rest: what cannot be read can still be settled, and is then gone.
    assert store.settle_many(queue, 1, 25) == 2
    lost = store.settle_many(queue, 26, last)
    assert 0 < lost < live
    assert queue.live == live - 2 - lost
    assert positions(store, queue)[0] > last
    commit_all(store)
    assert recovered(log, 1) == positions(store, queue) == list(range(positions(store, queue)[0], 4001, 10))


def test_everything_settled_while_it_moves_leaves_nothing(log: MemoryLog) -> None:
    store, queue, other = moving(log)
    batch = store.take_batch()
    store.forget_queue(other)
    for position in range(10, 4001, 10):
        assert store.settle_one(queue, position, 1)
    log.commit(batch.operations)
    store.batch_done(batch)
    commit_all(store)
    assert (queue.live, queue.live_bytes, store.stored_bytes, store.live_stored_bytes) == (0, 0, 0, 0)
    assert log.sizes().used_bytes == 0


def test_compaction_that_gains_nothing_is_not_tried_for_ever(store: RecordingStore) -> None:
    """Large messages for many queues, settled in all but one, count as waste but cannot be made smaller."""
    queues = [store.open_queue(number) for number in range(1, 11)]
    for position in range(1, 41):
        store.put(b"x" * 1_000_000, [(queue, position, 0) for queue in queues])
        commit(store)
    for queue in queues[1:]:
        store.settle_many(queue, 1, 100)
    assert commit_all(store) < 10
    assert store.moved_segments == 0
    assert len(positions(store, queues[0])) == 40


@pytest.mark.parametrize("seed", [1, 2])
def test_mixed_sizes_at_constant_depth_keep_the_file_bounded(tmp_path: Path, seed: int) -> None:
    """1 B to 2 MB in LMDB itself: its free pages are found again although values differ in size."""
    chance = random.Random(seed)
    log = LocalLog(tmp_path, "scratch")
    store = RecordingStore(log)
    queue = store.open_queue(1)
    live: dict[int, int] = {}
    live_bytes = position = 0
    for _ in range(400):
        for _ in range(20):
            position += 1
            size = int(2 ** chance.uniform(0, 21)) if chance.random() < 0.2 else chance.randrange(1, 2000)
            store.put(bytes(size), [(queue, position, 0)])
            live[position] = size
            live_bytes += size
        while live_bytes > 24_000_000:
            gone = chance.choice(list(live)) if chance.random() < 0.3 else next(iter(live))
            size = live.pop(gone)
            live_bytes -= size
            assert store.settle_one(queue, gone, size)
        commit(store)
    assert log.sizes().file_bytes <= 3 * 24_000_000 + (1 << 24)
    assert positions(store, queue) == sorted(live)
    assert list(verify_log(log)) == []
    log.close()


# --- beside a committer thread


def test_the_loop_goes_on_while_a_thread_commits(tmp_path: Path) -> None:
    """As a worker runs it: adds, settles and reads on one thread, commits on another, compaction among them."""
    log = LocalLog(tmp_path, "scratch")
    store = RecordingStore(log, small_count_max=8, waste_bytes_max=1 << 16)
    queue = store.open_queue(1)
    chance = random.Random(5)
    expected: set[int] = set()
    position = 0
    for _ in range(150):
        batch = store.take_batch()
        thread = threading.Thread(target=log.commit, args=(batch.operations,))
        thread.start()
        for _ in range(3):
            for _ in range(chance.randrange(1, 30)):
                position += 1
                store.put(b"%d" % position * 10, [(queue, position, 0)], 10)
                expected.add(position)
            for gone in chance.sample(sorted(expected), max(0, len(expected) - 300)):
                expected.discard(gone)
                assert store.settle_one(queue, gone, 10)
            stored_through = queue.stored_through
            assert positions(store, queue) == sorted(number for number in expected if number <= stored_through)
        thread.join()
        store.batch_done(batch)
    commit_all(store)
    assert store.moved_segments > 0
    assert store.fetch(queue) == [(number, 0, b"%d" % number * 10) for number in sorted(expected)]
    assert list(verify_log(log)) == []
    log.close()
