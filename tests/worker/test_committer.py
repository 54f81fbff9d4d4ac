"""Group commit: what goes into which commit, and what waits for none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from leveret.link.poller import Poller
from leveret.storage.commit_log import Operation, Table
from leveret.storage.environment import DiskFull, StoreFailed
from leveret.storage.layout import QUEUE_KEY, QUEUE_VALUE
from leveret.storage.memory_log import MemoryLog
from leveret.worker import committer as committing
from leveret.worker.directory import Directory
from leveret.worker.message_store import MessageStore
from leveret.worker.queue_journal import QueueJournal
from leveret.worker.state import WorkerState
from tests.queue.recording import RecordingConsumer

from tests.link.loop import run
from tests.worker.driven_queue import DrivenQueue

QUEUE = 7


class NotingLog(MemoryLog):
    """Keeps what each commit wrote, and can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[list[Operation]] = []
        self.segments_max = 1_000_000  # as on a full disk: who adds one while there are so many is refused, whatever else is removed
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def commit(self, operations: Sequence[Operation]) -> None:
        adds = any(table == Table.SEGMENTS and value is not None for table, _, value in operations)
        if adds and len(self.held(Table.SEGMENTS)) >= self.segments_max:
            raise DiskFull("no room")
        super().commit(operations)
        self.written.append(list(operations))
        self._loop.call_soon_threadsafe(self._changed.set)  # a large commit runs on a thread

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait until `is_so()`; it is asked again after each commit."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    def held(self, table: Table) -> list[bytes]:
        """The values in a table."""
        return [value for _, value in self.scan(table)]

    def record(self) -> tuple[int, int]:
        """How far the queue's record says it has handed out, and its lease; zeros if there is none."""
        value = self.get(Table.QUEUES, QUEUE_KEY.pack(QUEUE))
        delivered, lease = QUEUE_VALUE.unpack(value) if value else (0, 0)
        return delivered, lease


class Stage:
    """A worker's durable queue with a consumer that takes everything, over a log in memory whose commits run in the loop."""

    def __init__(self, poller: Poller, log: type[NotingLog]) -> None:
        self.state = WorkerState(poller, Directory(), 0, 1, 1 << 20)
        self.committer = self.state.committer
        self.log: Any = log()
        store = MessageStore(self.log, 0, self.committer.wall_offset_ms)
        store.load()
        self.committer.add_store(store)
        self.committer.start()
        self.queue = DrivenQueue(self.state, QUEUE, "q", "/", durable=True)
        self.state.add_queue(self.queue)
        self.queue.keep_journal(QueueJournal(self.queue, self.committer, store, store.open_queue(QUEUE)), True)
        self.consumer = RecordingConsumer(b"c")
        self.queue.add_consumer(self.consumer)
        self.consumer.activate()

    async def hand_out(self, body: bytes = b"body") -> int:
        """Publish, have it delivered and wait until it is written. Gives the delivery's number."""
        assert self.queue.put(body)
        await self.committer.written()
        return self.consumer.deliveries[-1][0]


def staged(main: Callable[[Stage], Awaitable[None]], log: type[NotingLog] = NotingLog) -> None:
    """Run `main(stage)` in a loop, over a `log`."""

    async def on_stage(poller: Poller) -> None:
        stage = Stage(poller, log)
        try:
            await main(stage)
        finally:
            stage.committer.close()

    run(on_stage)


async def turns(count: int = 20) -> None:
    """Let the loop go round: whatever waits for no time and no descriptor has run."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_an_ack_goes_with_the_next_messages_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "LINGER_S", 3600.0)

    async def main(stage: Stage) -> None:
        delivery = await stage.hand_out(b"first")
        assert len(stage.log.held(Table.SEGMENTS)) == 1
        commits = stage.log.commits
        for number in range(5):
            assert stage.queue.ack(stage.consumer, delivery, delivery) == 1
            await turns()
            assert stage.log.commits == commits + number, "nobody waits for the ack"
            delivery = await stage.hand_out(b"next")
            assert stage.log.commits == commits + number + 1
            assert len(stage.log.held(Table.SEGMENTS)) == 1, "the acked one went with it"

    staged(main)


def test_an_ack_alone_is_written_before_long() -> None:
    async def main(stage: Stage) -> None:
        delivery = await stage.hand_out()
        stage.queue.ack(stage.consumer, delivery, delivery)
        await stage.log.until(lambda: not stage.log.held(Table.SEGMENTS))
        assert stage.log.held(Table.INDEX) == []

    staged(main)


def test_messages_that_nobody_waits_for_gather_and_are_written_before_long() -> None:
    async def main(stage: Stage) -> None:
        stage.queue.remove_consumer(stage.consumer)
        await stage.committer.written()
        commits = stage.log.commits
        for number in range(50):
            assert stage.queue.put(b"%d" % number)
            await turns(2)
        await stage.log.until(lambda: stage.log.held(Table.SEGMENTS))
        await stage.committer.written()
        assert stage.log.commits < commits + 25, "not one for each turn"
        assert b"49" in b"".join(stage.log.held(Table.SEGMENTS))

    staged(main)


def test_what_gathers_is_written_at_once_when_somebody_waits_or_it_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "LINGER_S", 3600.0)

    async def main(stage: Stage) -> None:
        stage.queue.remove_consumer(stage.consumer)
        await stage.committer.written()
        assert stage.queue.put(b"first")
        await turns()
        assert stage.log.held(Table.SEGMENTS) == []
        await stage.committer.written()
        assert len(stage.log.held(Table.SEGMENTS)) == 1
        for _ in range(2):
            assert stage.queue.put(bytes(100 * 1024))
            await turns()
        assert len(stage.log.held(Table.SEGMENTS)) == 1
        assert stage.queue.put(bytes(100 * 1024))
        await stage.log.until(lambda: len(stage.log.held(Table.SEGMENTS)) > 1)

    staged(main)


def test_an_ack_that_somebody_asks_for_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "LINGER_S", 3600.0)

    async def main(stage: Stage) -> None:
        delivery = await stage.hand_out()
        stage.queue.ack(stage.consumer, delivery, delivery)
        await stage.committer.written()
        assert stage.log.held(Table.SEGMENTS) == []

    staged(main)


def test_a_message_acked_in_its_own_turn_is_never_written() -> None:
    async def main(stage: Stage) -> None:
        stage.queue.put(b"body")
        stage.queue.ack(stage.consumer, 1, 1)
        await stage.committer.written()
        assert {table for batch in stage.log.written for table, _, _ in batch} <= {Table.QUEUES}

    staged(main)


def test_acks_are_written_when_the_worker_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "LINGER_S", 3600.0)

    async def main(stage: Stage) -> None:
        delivery = await stage.hand_out()
        stage.queue.ack(stage.consumer, delivery, delivery)
        stage.committer.close()
        assert stage.log.held(Table.SEGMENTS) == []
        assert stage.log.record() == (1, 1), "and how far it had handed out, exactly"

    staged(main)


def test_what_was_acked_makes_room_on_a_full_disk_whatever_is_published_meanwhile() -> None:
    async def main(stage: Stage) -> None:
        delivery = await stage.hand_out(b"kept")
        stage.log.segments_max = 1
        with pytest.raises(DiskFull):
            await stage.hand_out(b"refused")
        stage.queue.ack(stage.consumer, delivery, delivery)
        await stage.hand_out(b"kept again")
        assert len(stage.log.held(Table.SEGMENTS)) == 1

    staged(main)


def test_a_busy_queue_writes_a_lease_and_then_nothing_until_half_of_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "BUSY_MS", 3_600_000)

    async def main(stage: Stage) -> None:
        await stage.hand_out()
        await stage.hand_out()
        _, lease = stage.log.record()
        assert lease > 10_000, "positions, so that what is handed out during the next commits is covered by this one"
        written = len(stage.log.written)
        for _ in range(50):
            await stage.hand_out()
        assert len(stage.log.written) >= written + 50
        assert not [batch for batch in stage.log.written[written:] for table, _, _ in batch if table == Table.QUEUES]
        for _ in range(lease // 2):
            stage.queue.put(b"")
        await stage.committer.written()
        assert stage.log.record()[1] > lease

    staged(main)


def test_a_queue_that_pauses_gives_its_lease_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "BUSY_MS", 3_600_000)
    monkeypatch.setattr(committing, "EXACT_AFTER_S", 0.001)

    async def main(stage: Stage) -> None:
        for _ in range(3):
            await stage.hand_out()
        assert stage.log.record()[1] > 3
        monkeypatch.setattr(committing, "BUSY_MS", 0)
        await stage.log.until(lambda: stage.log.record() == (3, 3))

    staged(main)


# --- what a log puts off


class PuttingOffLog(NotingLog):
    """Is behind from its first commit on, until it is told to catch up, which does what `trouble` says."""

    def __init__(self) -> None:
        super().__init__()
        self.behind = False
        self.large = False
        self.caught_up: list[str] = []  # the threads that it was done on
        self.committed: list[str] = []
        self.trouble: Exception | None = None

    def commit(self, operations: Sequence[Operation]) -> None:
        super().commit(operations)
        self.behind = True
        self.committed.append(threading.current_thread().name)

    def catches_up(self, size_bytes: int) -> bool:
        return self.large

    def is_behind(self) -> bool:
        return self.behind

    def catch_up(self) -> None:
        self.caught_up.append(threading.current_thread().name)
        if self.trouble is None:
            self.behind = False
        self._loop.call_soon_threadsafe(self._changed.set)
        if self.trouble is not None:
            raise self.trouble


def test_what_a_log_has_put_off_is_done_before_long_and_not_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(committing, "PRESSURE_EVERY_S", 0.001)

    async def main(stage: Stage) -> None:
        log = stage.log
        await stage.hand_out()
        await log.until(lambda: log.caught_up)
        assert log.caught_up[0].startswith("commit")
        assert not log.behind
        await stage.hand_out()
        await log.until(lambda: len(log.caught_up) >= 2)

    staged(main, PuttingOffLog)


def test_a_log_that_has_nothing_put_off_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "LINGER_S", 3600.0)  # the mark of what was handed out is no commit of this test's

    async def main(stage: Stage) -> None:
        log = stage.log
        await stage.hand_out()
        log.behind = False
        commits = stage.committer.commits
        monkeypatch.setattr(committing, "CATCH_UP_S", 0.0)
        stage.committer._watch()
        await turns()
        assert (log.caught_up, stage.committer.commits) == ([], commits)

    staged(main, PuttingOffLog)


def test_a_commit_that_does_what_was_put_off_is_not_made_in_the_loop() -> None:
    async def main(stage: Stage) -> None:
        log = stage.log
        log.large = True
        await stage.hand_out()
        assert log.committed[-1].startswith("commit")

    staged(main, PuttingOffLog)


def test_on_a_full_disk_it_is_put_off_further_and_publishes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(committing, "PRESSURE_EVERY_S", 0.001)

    async def main(stage: Stage) -> None:
        log = stage.log
        log.trouble = DiskFull("no room")
        await stage.hand_out()
        await log.until(lambda: len(log.caught_up) >= 3)
        await stage.hand_out()
        assert not stage.committer.failed.done()
        log.trouble = None
        await log.until(lambda: not log.behind)

    staged(main, PuttingOffLog)


def test_any_other_failure_of_it_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(committing, "PRESSURE_EVERY_S", 0.001)

    async def main(stage: Stage) -> None:
        stage.log.trouble = StoreFailed("broken")
        await stage.hand_out()
        assert await stage.committer.failed is stage.log.trouble

    staged(main, PuttingOffLog)


# --- how often the queues are looked at


def test_queues_are_looked_at_before_what_can_come_in_has_filled_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(stage: Stage) -> None:
        waits: list[float] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda wait_s, *_: waits.append(wait_s))
        room = int(committing.FILLED_BYTES_PER_S * committing.PRESSURE_EVERY_S)
        for stage.committer.memory_max in (0, 100 * room, 5 * room, room, 1):
            stage.committer._watch()
        often, seldom = committing.PRESSURE_EVERY_S, committing.PRESSURE_EVERY_S * committing.CALM_LOOKS
        assert waits == pytest.approx([seldom, seldom, 5 * often, often, often], rel=1e-3)

    staged(main)


# --- what is not durable


def test_a_scratch_disk_that_was_full_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused stays in memory, at the positions that are offered again."""
    monkeypatch.setattr(committing, "PRESSURE_STEP_S", 60.0)

    async def main(stage: Stage) -> None:
        committer, queue = stage.committer, DrivenQueue(stage.state, QUEUE + 1, "transient", "/", durable=False)
        stage.state.add_queue(queue)
        queue.keep_journal(QueueJournal(queue, committer, None, None), False)
        scratch = NotingLog()
        committer.make_scratch = lambda: scratch
        for _ in range(4000):
            queue.put(bytes(1000))
        committer.memory_max = 1
        scratch.segments_max = 0
        for _ in range(3):
            committer._watch()
            assert (queue.paged_count, scratch.commits) == (0, 0)
        scratch.segments_max = 1_000_000
        committer._watch()
        assert 0 < queue.paged_count < 4000
        assert scratch.commits > 0
        assert queue.ready_count == 4000

    staged(main)
