"""The segment store beside a plain model: random calls, commits that are done or fail, crashes; what comes back must be the model's.

The bounds are made small, so that a few dozen messages fill many segments and compaction runs all the time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from leveret.storage.ahead_record import BLOCK_BYTES
from leveret.storage.commit_log import CommitLog
from leveret.storage.environment import DiskFull
from leveret.storage.faulty_log import FaultyLog
from leveret.storage.local_log import LocalLog
from leveret.storage.memory_log import MemoryLog
from leveret.storage.queue_index import QueueIndex
from leveret.storage.segment_store import Batch
from leveret.storage.verify import verify_log

from tests.storage.recording import RecordingStore

LAST = 2**64 - 2
# Sizes around what ends a segment (512 in this test) and a chunk.
SIZES = st.one_of(st.integers(0, 40), st.integers(0, 600), st.sampled_from([70_000, 2**20 - 40, 2**20 + 5]))
GAPS = st.one_of(st.just(1), st.just(1), st.integers(1, 5), st.sampled_from([63, 64, 65, 255, 256, 257, 300, 5000]))

Message = tuple[int, bytes, int]  # note, data, body size


class QueueModel:
    """What one queue holds by rights: `live` now, `gathering` and `flying` of it not yet committed, `committed` what the log must say."""

    def __init__(self) -> None:
        self.live: dict[int, Message] = {}
        self.gathering: set[int] = set()
        self.flying: set[int] = set()
        self.highest = 0
        self.grew = False  # messages came since the last batch was taken, settled by now or not
        self.taken_through: int | None = None  # how far the batch under way goes, if it has anything of this queue
        self.stored_through = 0
        self.marks = (0, 0)


class Committed:
    """What the log holds after a batch."""

    def __init__(self, queues: dict[int, QueueModel]) -> None:
        self.live = {queue_id: dict(queue.live) for queue_id, queue in queues.items()}
        self.marks = {queue_id: queue.marks for queue_id, queue in queues.items()}


class StoreMachine(RuleBasedStateMachine):
    """The store, the model, and at most one batch under way."""

    def make_log(self) -> CommitLog:
        return MemoryLog()

    def reopen_log(self, log: CommitLog) -> CommitLog:
        return log

    @initialize()
    def start(self) -> None:
        self.log = self.make_log()
        self.queues: dict[int, QueueModel] = {}
        self.next_queue_id = 1
        self.committed = Committed({})
        self.taken: Committed | None = None
        self.batch: Batch | None = None
        self.written = False  # the batch under way is in the log
        self.open_store()
        self.declare()
        self.declare()

    def open_store(self) -> None:
        self.store = RecordingStore(self.log, segment_bytes=512, small_bytes=256, small_count_max=1, waste_bytes_max=64)
        self.indexes: dict[int, QueueIndex] = self.store.load()

    def index(self, queue_id: int) -> QueueIndex:
        return self.indexes[queue_id]

    @rule()
    def declare(self) -> None:
        if len(self.queues) < 4:
            self.queues[self.next_queue_id] = QueueModel()
            self.indexes[self.next_queue_id] = self.store.open_queue(self.next_queue_id)
            self.next_queue_id += 1

    @precondition(lambda self: self.queues)
    @rule(data=st.data(), size=SIZES, count=st.sampled_from([1, 1, 1, 3, 30]), note=st.integers(0, 2**64 - 1))
    def publish(self, data: st.DataObject, size: int, count: int, note: int) -> None:
        """`count` messages of like size to some queues, each with its own holes before it."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.queues)), min_size=1, unique=True))
        gaps = data.draw(st.lists(GAPS, min_size=len(chosen), max_size=len(chosen)))
        if size > 1000:
            count = 1
        for queue_id in chosen:
            self.queues[queue_id].grew = True
        for number in range(count):
            content = bytes([(number * 7 + size) % 256]) * size
            body_size = size // 2
            targets = []
            for queue_id, gap in zip(chosen, gaps, strict=True):
                queue = self.queues[queue_id]
                queue.highest += gap if number == 0 else 1
                queue.live[queue.highest] = (note, content, body_size)
                queue.gathering.add(queue.highest)
                targets.append((self.index(queue_id), queue.highest, note))
            self.store.put(content, targets, body_size)

    @precondition(lambda self: any(queue.highest for queue in self.queues.values()))
    @rule(data=st.data(), count=st.sampled_from([1, 1, 5, 40]))
    def settle(self, data: st.DataObject, count: int) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.queues)))
        queue = self.queues[queue_id]
        for position in data.draw(st.lists(st.sampled_from(sorted(queue.live) or [1]), max_size=count)):
            message = queue.live.pop(position, None)
            settled = self.store.settle_one(self.index(queue_id), position, message[2] if message else 0)
            assert settled is (message is not None)
            queue.gathering.discard(position)
            queue.flying.discard(position)

    @precondition(lambda self: self.queues)
    @rule(data=st.data(), size=st.integers(0, 300), times=st.integers(1, 8))
    def trickle(self, data: st.DataObject, size: int, times: int) -> None:
        """One message a commit: tiny segments, to be merged."""
        for _ in range(times):
            self.publish(data, size, 1, size)
            self.commit_until_idle(1)

    @precondition(lambda self: any(queue.live for queue in self.queues.values()))
    @rule(keep=st.integers(2, 9), start=st.integers(0, 8))
    def settle_most(self, keep: int, start: int) -> None:
        """All but one in `keep`: sparse segments, to be moved together."""
        for queue_id, queue in self.queues.items():
            for number, position in enumerate(sorted(queue.live)):
                if number % keep != start % keep:
                    body_size = queue.live.pop(position)[2]
                    assert self.store.settle_one(self.index(queue_id), position, body_size)
                    queue.gathering.discard(position)
                    queue.flying.discard(position)

    @precondition(lambda self: self.queues)
    @rule(data=st.data())
    def settle_what_is_not_there(self, data: st.DataObject) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.queues)))
        queue = self.queues[queue_id]
        position = data.draw(st.integers(1, queue.highest + 10).filter(lambda position: position not in queue.live))
        assert not self.store.settle_one(self.index(queue_id), position, 0)

    @precondition(lambda self: self.queues)
    @rule(data=st.data())
    def settle_range(self, data: st.DataObject) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.queues)))
        queue = self.queues[queue_id]
        first = data.draw(st.sampled_from([1, *sorted(queue.live)]))
        last = data.draw(st.integers(first, max(first, queue.highest)))
        gone = [position for position in queue.live if first <= position <= last]
        assert self.store.settle_many(self.index(queue_id), first, last) == len(gone)
        for position in gone:
            del queue.live[position]
        queue.gathering.difference_update(gone)
        queue.flying.difference_update(gone)

    @precondition(lambda self: len(self.queues) > 1)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.queues)))
        index = self.indexes.pop(queue_id)
        self.store.forget_queue(index)
        assert (index.live, index.live_bytes, index.first_position) == (0, 0, 0)
        del self.queues[queue_id]
        with pytest.raises(ValueError, match="forgotten"):
            self.store.put(b"late", [(index, index.last_position + 1, 0)])

    @precondition(lambda self: self.queues)
    @rule(data=st.data(), delivered=st.integers(0, 2**64 - 1), lease=st.integers(0, 2**64 - 1))
    def mark(self, data: st.DataObject, delivered: int, lease: int) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.queues)))
        self.queues[queue_id].marks = (delivered, lease)
        self.store.mark_queue(self.index(queue_id), delivered, lease)

    @precondition(lambda self: self.batch is None)
    @rule()
    def take(self) -> None:
        busy = self.store.busy()
        self.batch = self.store.take_batch()
        assert busy or not self.batch.operations
        self.taken = Committed(self.queues)
        for queue in self.queues.values():
            queue.flying, queue.gathering = queue.gathering, set()
            queue.taken_through = queue.highest if queue.grew else None
            queue.grew = False

    @precondition(lambda self: self.batch is not None and not self.written)
    @rule()
    def write(self) -> None:
        """The log commits; the store does not know it yet."""
        assert self.batch is not None
        assert self.taken is not None
        try:
            self.log.commit(self.batch.operations)
        except DiskFull:
            batch, self.batch = self.batch, None
            self.store.batch_failed(batch)
            for queue in self.queues.values():
                for position in queue.flying:
                    del queue.live[position]
                queue.flying.clear()
        else:
            self.written = True
            self.committed = self.taken

    @precondition(lambda self: self.written)
    @rule()
    def finish(self) -> None:
        assert self.batch is not None
        batch, self.batch, self.written = self.batch, None, False
        self.store.batch_done(batch)
        for queue in self.queues.values():
            queue.flying.clear()
            if queue.taken_through is not None:
                queue.stored_through = queue.taken_through

    def commit(self) -> None:
        if not self.written:
            self.write()
        if self.written:
            self.finish()

    @rule(times=st.integers(1, 6))
    def commit_until_idle(self, times: int) -> None:
        for _ in range(times):
            if self.batch is None:
                self.take()
            self.commit()

    @rule(applied=st.booleans())
    def crash(self, applied: bool) -> None:
        """The store is gone, with or without the batch under way; what was committed is not."""
        if self.batch is not None and applied and not self.written:
            try:
                self.log.commit(self.batch.operations)
            except DiskFull:
                pass
            else:
                assert self.taken is not None
                self.committed = self.taken
        self.store.close()
        assert self.store.blocks_held == 0
        self.batch = self.taken = None
        self.written = False
        self.log = self.reopen_log(self.log)
        self.open_store()
        self.queues = {}
        held = {queue_id for queue_id, live in self.committed.live.items() if live} | {
            queue_id for queue_id, marks in self.committed.marks.items() if marks != (0, 0)
        }
        assert held <= set(self.indexes), "a queue that has something is not loaded"
        for queue_id in sorted(set(self.committed.live) | set(self.indexes)):
            queue = self.queues[queue_id] = QueueModel()
            index = self.indexes[queue_id] = self.store.open_queue(queue_id)
            queue.live = dict(self.committed.live.get(queue_id, {}))
            queue.marks = self.committed.marks.get(queue_id, (0, 0))
            queue.highest = queue.stored_through = index.last_position
            assert queue.highest >= max(queue.live, default=0)

    @precondition(lambda self: self.queues)
    @rule(data=st.data())
    def read_part(self, data: st.DataObject) -> None:
        queue_id = data.draw(st.sampled_from(sorted(self.queues)))
        queue = self.queues[queue_id]
        first = data.draw(st.integers(0, queue.highest + 1))
        last = data.draw(st.integers(first, queue.highest + 2))
        assert self.store.fetch(self.index(queue_id), first, last) == self.readable(queue, first, last)

    def readable(self, queue: QueueModel, first: int, last: int) -> list[tuple[int, int, bytes]]:
        waiting = queue.gathering | queue.flying
        return [(p, m[0], m[1]) for p, m in sorted(queue.live.items()) if first <= p <= last and p not in waiting]

    @invariant()
    def the_queues_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        for queue_id, queue in self.queues.items():
            index = self.index(queue_id)
            assert index.live == len(queue.live)
            assert index.live_bytes == sum(message[2] for message in queue.live.values())
            assert index.last_position == queue.highest
            assert index.stored_through == queue.stored_through
            readable = self.readable(queue, 0, LAST)
            assert self.store.fetch(index) == readable
            # By runs, as a queue is read.
            position, found = 1, []
            while end := self.store.end_of_run(index, position):
                part = self.store.fetch(index, position, end)
                assert part, "a run was promised that has nothing live"
                found += part
                position = end + 1
            assert found == readable
        waiting = {id(m) for q in self.queues.values() for p, m in q.live.items() if p in q.gathering}
        assert self.store.blocks_held <= len(waiting)
        assert (self.store.blocks_held == 0) == (not waiting)

    @invariant()
    def the_log_is_in_order(self) -> None:
        if hasattr(self, "log"):
            assert list(verify_log(self.log)) == []

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for _ in range(50):
            if self.batch is None:
                if not self.store.busy():
                    break
                self.take()
            self.commit()
        else:
            raise AssertionError("the store never runs out of work")
        self.crash(True)
        self.the_queues_agree()
        self.log.close()


class FaultyMachine(StoreMachine):
    """The same over a disk that is full now and then."""

    def make_log(self) -> CommitLog:
        return FaultyLog(MemoryLog(), 0, DiskFull("no room"))

    @rule(after=st.integers(1, 6))
    def fill_the_disk(self, after: int) -> None:
        assert isinstance(self.log, FaultyLog)
        self.log.fail_at = self.log.operations + after

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert isinstance(self.log, FaultyLog)
            self.log.fail_at = 0
        super().teardown()


class LocalMachine(StoreMachine):
    """The same over LMDB, opened again after each crash."""

    def make_log(self) -> CommitLog:
        self.directory = Path(tempfile.mkdtemp())
        return LocalLog(self.directory, "os", identity=b"model", shard=3)

    def reopen_log(self, log: CommitLog) -> CommitLog:
        log.close()
        return LocalLog(self.directory, "os", identity=b"model", shard=3)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(getattr(self, "directory", ""), ignore_errors=True)


class AheadMachine(StoreMachine):
    """The same over LMDB with a small write-ahead file. A crash leaves both as they are; the next process opens a copy."""

    def make_log(self) -> CommitLog:
        memory = "/dev/shm"  # every commit is synced
        self.directory = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
        self.number = 0
        return self.opened()

    def opened(self) -> LocalLog:
        return LocalLog(self.directory / str(self.number), identity=b"model", shard=3, ahead_bytes=16 * BLOCK_BYTES)

    def reopen_log(self, log: CommitLog) -> CommitLog:
        left = self.directory / str(self.number)
        self.number += 1
        shutil.copytree(left, self.directory / str(self.number), ignore=shutil.ignore_patterns("lock.mdb"))
        log.close()
        shutil.rmtree(left)
        return self.opened()

    @rule()
    def catch_up(self) -> None:
        self.log.catch_up()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(getattr(self, "directory", ""), ignore_errors=True)


def _case(machine: type[StoreMachine], examples: int) -> Any:
    case: Any = machine.TestCase
    case.settings = settings(max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    return case


TestMemoryLog = _case(StoreMachine, 60)
TestFaultyLog = _case(FaultyMachine, 60)
TestLocalLog = _case(LocalMachine, 20)
TestAheadFile = _case(AheadMachine, 40)
