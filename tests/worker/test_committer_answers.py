"""Group commit: who is answered when, and what a disk that is full or broken changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest
from leveret.link.poller import Poller
from leveret.storage.commit_log import CommitLog, Operation
from leveret.storage.environment import DiskFull, StoreFailed
from leveret.storage.faulty_log import FaultyLog
from leveret.storage.memory_log import MemoryLog
from leveret.worker import committer as committing
from leveret.worker.directory import Directory
from leveret.worker.message_store import MessageStore
from leveret.worker.queue_journal import QueueJournal
from tests.queue.recording import RecordingConsumer

from tests.link.loop import run
from tests.worker.driven_queue import DrivenQueue
from tests.worker.driven_state import DrivenState

HERE, ELSEWHERE = 0, 1  # indexes of the two workers
CHANNEL = 900
FULL = DiskFull("no room")
PRESSED_MESSAGES = 1024  # what stays of a queue under memory pressure


class GatedLog(MemoryLog):
    """A slow disk: once `shut`, each commit waits until it is let through, and can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.shut = False
        self._arrived = asyncio.Semaphore(0)
        self._passes = threading.Semaphore(0)
        self._loop = asyncio.get_running_loop()

    def commit(self, operations: Sequence[Operation]) -> None:
        if self.shut:
            self._loop.call_soon_threadsafe(self._arrived.release)
            assert self._passes.acquire(timeout=20), "nobody lets the commit through"
        super().commit(operations)

    async def arrival(self) -> None:
        """Wait until one more commit has begun."""
        await self._arrived.acquire()

    def let_through(self, count: int = 1) -> None:
        """So many commits, the one that waits among them, may end."""
        self._passes.release(count)


class Stage:
    """A worker with one durable queue for each log, on a shard of its own; nobody consumes."""

    def __init__(self, poller: Poller, logs: Sequence[CommitLog]) -> None:
        self.state = DrivenState(poller, Directory(), HERE, 2, 1 << 20)
        self.committer = self.state.committer
        self.logs = logs
        self.queues = []
        for shard, log in enumerate(logs):
            store = MessageStore(log, shard, self.committer.wall_offset_ms)
            store.load()
            self.committer.add_store(store)
            queue = DrivenQueue(self.state, shard + 1, f"q{shard}", "/", durable=True)
            self.state.add_queue(queue)
            queue.keep_journal(QueueJournal(queue, self.committer, store, store.open_queue(shard + 1)), True)
            self.queues.append(queue)
        self.committer.start()
        self.publish_no = 0

    def publish(self, body: bytes = b"body", *, shard: int = 0, channel: int = CHANNEL, origin: int = HERE) -> int:
        """One message that its channel waits for; its publish number, from 1."""
        assert self.queues[shard].put(body)
        self.publish_no += 1
        self.state.expect(origin, channel, self.publish_no)
        return self.publish_no

    def stored(self, shard: int = 0) -> list[bytes]:
        """What a process would find that begins now: the bodies of the shard's queue, oldest first."""
        state = DrivenState(self.state.poller, Directory(), HERE, 2, 1 << 20)
        log = self.logs[shard]
        store = MessageStore(log.inner if isinstance(log, FaultyLog) else log, shard, 0)
        found = store.load()
        queue = DrivenQueue(state, shard + 1, "found", "/", durable=True)
        index = found[shard + 1] if found else store.open_queue(shard + 1)
        queue.keep_journal(QueueJournal(queue, state.committer, store, index), True)
        queue.recover(index.live, index.live_bytes, index.first_position, index.last_position, 0)
        bodies = drained(queue)
        queue.clear()
        state.committer.failed.cancel()
        return bodies


def drained(queue: DrivenQueue) -> list[bytes]:
    """The bodies of all that is ready, oldest first, to a consumer that never acks and goes at the end."""
    consumer = RecordingConsumer(b"c")
    queue.add_consumer(consumer)
    consumer.activate()
    while queue.unfinished:
        queue.pump_now()
    bodies = [body for _, body, _ in consumer.deliveries]
    queue.remove_consumer(consumer)
    return bodies


def staged(main: Callable[[Stage], Awaitable[None]], make_logs: Callable[[], Sequence[CommitLog]]) -> None:
    """Run `main(stage)` in a loop."""

    async def on_stage(poller: Poller) -> None:
        stage = Stage(poller, make_logs())
        await stage.committer.written()
        try:
            await main(stage)
        finally:
            stage.committer.close()

    run(on_stage)


@pytest.fixture
def always_on_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk counts as quick, so every commit leaves the loop."""
    monkeypatch.setattr(committing, "QUICK_S", -1.0)


async def turns(count: int = 20) -> None:
    """Let the loop go round: whatever waits for no time and no descriptor has run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until `is_so()`, which no event tells of; the loop's own bound ends it otherwise."""
    for _ in range(30_000):
        if is_so():
            return
        await asyncio.sleep(0.001)


# --- when


@pytest.mark.usefixtures("always_on_thread")
def test_a_confirm_comes_after_its_commit_and_what_gathers_meanwhile_goes_with_the_next() -> None:
    async def main(stage: Stage) -> None:
        (log,) = stage.logs
        assert isinstance(log, GatedLog)
        log.shut = True
        commits = log.commits
        for _ in range(3):
            stage.publish()
        await log.arrival()
        for _ in range(500):
            stage.publish()
        late = stage.committer.written()
        await turns()
        assert stage.state.answers == []
        assert stage.stored() == []
        log.let_through()
        await log.arrival()
        assert stage.state.answers == [(HERE, CHANNEL, 1, 3, False)]
        assert len(stage.stored()) == 3
        assert not late.done()
        log.let_through()
        await late
        assert stage.state.answers[1:] == [(HERE, CHANNEL, 4, 500, False)]
        assert len(stage.stored()) == 503
        assert log.commits == commits + 2

    staged(main, lambda: [GatedLog()])


@pytest.mark.usefixtures("always_on_thread")
def test_a_round_is_answered_after_the_last_of_its_shards() -> None:
    async def main(stage: Stage) -> None:
        slow = stage.logs[1]
        assert isinstance(slow, GatedLog)
        slow.shut = True
        stage.publish(shard=0)
        stage.publish(shard=1)
        await slow.arrival()
        assert stage.stored(0) == [b"body"]
        await turns()
        assert stage.state.answers == []
        slow.let_through()
        await stage.committer.written()
        assert stage.state.answers == [(HERE, CHANNEL, 1, 2, False)]

    staged(main, lambda: [MemoryLog(), GatedLog()])


@pytest.mark.parametrize("thread", [True, False])
def test_every_channel_is_told_of_its_own_publishes_in_rows(thread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if thread:
        monkeypatch.setattr(committing, "QUICK_S", -1.0)

    async def main(stage: Stage) -> None:
        for origin, channel, publish_no in [
            (HERE, 1, 1),
            (HERE, 1, 2),
            (ELSEWHERE, 1, 3),  # the same number is another channel there
            (ELSEWHERE, 1, 4),
            (HERE, 1, 4),  # 3 went elsewhere
            (HERE, 2, 5),
            (HERE, 1, 5),
        ]:
            stage.queues[0].put(b"")
            stage.state.expect(origin, channel, publish_no)
        await stage.committer.written()
        assert stage.state.answers == [
            (HERE, 1, 1, 2, False),
            (ELSEWHERE, 1, 3, 2, False),
            (HERE, 1, 4, 1, False),
            (HERE, 2, 5, 1, False),
            (HERE, 1, 5, 1, False),
        ]

    staged(main, lambda: [MemoryLog()])


def test_a_message_that_was_acked_before_its_commit_is_confirmed_without_one() -> None:
    async def main(stage: Stage) -> None:
        consumer = RecordingConsumer(b"c")
        stage.queues[0].add_consumer(consumer)
        consumer.activate()
        (log,) = stage.logs
        assert isinstance(log, MemoryLog)
        stage.publish()
        stage.queues[0].ack(consumer, 1, 1)
        await stage.committer.written()
        assert stage.state.answers == [(HERE, CHANNEL, 1, 1, False)]
        assert stage.stored() == []

    staged(main, lambda: [MemoryLog()])


def test_who_asks_while_nothing_has_gathered_is_answered_without_a_commit() -> None:
    async def main(stage: Stage) -> None:
        (log,) = stage.logs
        assert isinstance(log, MemoryLog)
        commits = log.commits
        await stage.committer.written()
        assert log.commits == commits

    staged(main, lambda: [MemoryLog()])


@pytest.mark.usefixtures("always_on_thread")
def test_closing_writes_all_that_has_gathered_and_what_is_under_way() -> None:
    async def main(stage: Stage) -> None:
        (log,) = stage.logs
        assert isinstance(log, GatedLog)
        log.shut = True
        stage.publish(b"under way")
        await log.arrival()
        stage.publish(b"gathered")
        log.let_through(2)
        stage.committer.close()
        assert stage.stored() == [b"under way", b"gathered"]

    staged(main, lambda: [GatedLog()])


# --- a full disk


@pytest.mark.parametrize("thread", [True, False])
def test_a_full_disk_refuses_exactly_the_round_that_it_met(thread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if thread:
        monkeypatch.setattr(committing, "QUICK_S", -1.0)

    async def main(stage: Stage) -> None:
        (log,) = stage.logs
        assert isinstance(log, FaultyLog)
        stage.publish(b"before")
        await stage.committer.written()
        log.fail_at = log.operations + 1
        for _ in range(40):
            stage.publish(b"refused")
        stage.publish(b"refused", channel=3, origin=ELSEWHERE)
        with pytest.raises(DiskFull, match="no room"):
            await stage.committer.written()
        assert stage.committer.full
        assert not stage.committer.failed.done()
        stage.publish(b"after")
        await stage.committer.written()
        assert not stage.committer.full
        assert (stage.committer.commits_failed, log.failures) == (1, 1)
        assert stage.state.answers == [
            (HERE, CHANNEL, 1, 1, False),
            (HERE, CHANNEL, 2, 40, True),
            (ELSEWHERE, 3, 42, 1, True),
            (HERE, CHANNEL, 43, 1, False),
        ]
        assert stage.stored() == [b"before", b"after"]

    staged(main, lambda: [FaultyLog(MemoryLog(), 0, FULL)])


def test_one_full_shard_refuses_the_round_and_the_others_keep_what_they_have() -> None:
    """Who is refused may send again: twice is allowed, never is not."""

    async def main(stage: Stage) -> None:
        full = stage.logs[1]
        assert isinstance(full, FaultyLog)
        full.fail_at = full.operations + 1
        stage.publish(b"kept", shard=0)
        stage.publish(b"not kept", shard=1)
        with pytest.raises(DiskFull):
            await stage.committer.written()
        assert stage.state.answers == [(HERE, CHANNEL, 1, 2, True)]
        assert (stage.stored(0), stage.stored(1)) == ([b"kept"], [])
        stage.publish(shard=0)
        await stage.committer.written()
        assert stage.state.answers[1:] == [(HERE, CHANNEL, 3, 1, False)]

    staged(main, lambda: [MemoryLog(), FaultyLog(MemoryLog(), 0, FULL)])


def test_acks_that_met_the_full_disk_are_written_later_though_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "RETRY_S", 0.001)

    async def main(stage: Stage) -> None:
        (log,) = stage.logs
        assert isinstance(log, FaultyLog)
        (queue,) = stage.queues
        consumer = RecordingConsumer(b"c")
        queue.add_consumer(consumer)
        consumer.activate()
        stage.publish(b"acked")
        stage.publish(b"kept")
        await stage.committer.written()
        log.fail_at = log.operations + 1
        queue.ack(consumer, 1, 1)
        stage.publish(b"refused")
        with pytest.raises(DiskFull):
            await stage.committer.written()
        await until(lambda: stage.stored() == [b"kept"])
        assert not stage.committer.failed.done()

    staged(main, lambda: [FaultyLog(MemoryLog(), 0, FULL)])


def test_refused_messages_stay_deliverable_leave_memory_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has them though the store has not: among others they go to scratch, and none is missed or doubled."""
    monkeypatch.setattr(committing, "PRESSURE_EVERY_S", 0.001)

    async def main(stage: Stage) -> None:
        (log,) = stage.logs
        assert isinstance(log, FaultyLog)
        (queue,) = stage.queues
        scratch = MemoryLog()
        stage.committer.make_scratch = lambda: scratch
        bodies = [b"%d" % number for number in range(9000)]
        for start in range(0, 9000, 3000):
            log.fail_at = log.operations + 1 if start == 3000 else 0
            for body in bodies[start : start + 3000]:
                stage.publish(body)
            if start == 3000:
                with pytest.raises(DiskFull):
                    await stage.committer.written()
            else:
                await stage.committer.written()
        assert stage.stored() == bodies[:3000] + bodies[6000:]
        stage.committer.memory_max = 1
        await until(lambda: queue.ready_count - queue.paged_count <= PRESSED_MESSAGES)
        assert scratch.commits > 0
        assert queue.ready_count == 9000
        assert drained(queue) == bodies

    staged(main, lambda: [FaultyLog(MemoryLog(), 0, FULL)])


# --- a broken disk


@pytest.mark.parametrize("thread", [True, False])
@pytest.mark.parametrize("error", [StoreFailed("the disk says EIO"), OSError(5, "surprise")])
@pytest.mark.parametrize("applied", [True, False])
def test_any_other_failure_ends_it_and_answers_nobody(
    thread: bool, error: Exception, applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ack nor nack: nobody knows what is on the disk. What comes afterwards is not written either."""
    if thread:
        monkeypatch.setattr(committing, "QUICK_S", -1.0)

    async def main(stage: Stage) -> None:
        (log,) = stage.logs
        assert isinstance(log, FaultyLog)
        stage.publish(b"before")
        await stage.committer.written()
        log.fail_at = log.operations + 1
        log.applied = applied
        asked = stage.committer.written()
        stage.publish(b"unknown")
        assert await stage.committer.failed is error
        operations = log.operations
        stage.publish(b"too late")
        await turns()
        assert log.operations == operations
        assert not asked.done()
        assert stage.state.answers == [(HERE, CHANNEL, 1, 1, False)]
        stage.committer.close()
        assert log.operations == operations
        assert stage.stored() == ([b"before", b"unknown"] if applied else [b"before"])

    staged(main, lambda: [FaultyLog(MemoryLog(), 0, error)])


def test_a_round_in_which_one_shard_breaks_answers_nobody() -> None:
    async def main(stage: Stage) -> None:
        broken = stage.logs[1]
        assert isinstance(broken, FaultyLog)
        broken.fail_at = broken.operations + 1
        stage.publish(shard=0)
        stage.publish(shard=1)
        assert isinstance(await stage.committer.failed, StoreFailed)
        await turns()
        assert stage.state.answers == []

    staged(main, lambda: [MemoryLog(), FaultyLog(MemoryLog(), 0, StoreFailed("broken"))])


def test_the_next_process_knows_how_far_the_last_has_handed_out() -> None:
    """Marks are records like others: they are there after the commit that carries them."""

    async def main(stage: Stage) -> None:
        (log,) = stage.logs
        assert isinstance(log, MemoryLog)
        (queue,) = stage.queues
        for number in range(10):
            stage.publish(b"%d" % number)
        consumer = RecordingConsumer(b"c", prefetch=4)
        queue.add_consumer(consumer)
        consumer.activate()
        assert len(consumer.deliveries) == 4
        await stage.committer.written()
        after = MessageStore(log, 0, 0).load()[1]
        assert (after.live, after.delivered) == (10, 4)
        assert after.lease > 4, "a consumer has just come, and may take more at any moment"

    staged(main, lambda: [MemoryLog()])
