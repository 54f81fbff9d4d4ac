"""The queue with a journal against the model of the queue without one: what leaves memory and comes back must not be seen by anybody.

The machine of `test_model` with messages of both kinds, a journal that pages out as much as it likes whenever it likes, commits at random
moments, and crashes: then a new queue begins with what was committed. The journal's live messages are at any time exactly the persistent
ones that are ready or unacked.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from tests.queue.recording import RecordingJournal, RecordingQueue

from tests.queue.test_model import REQUEUE, QueueMachine, QueueModel

LARGE = b"." * 400_000  # three of them are as much as a queue reads ahead
READY_MAX = 6000
Kept = dict[int, bytes]


def is_persistent(body: bytes) -> bool:
    return body.startswith(b"p")


class PagingMachine(QueueMachine):
    """Beside the model: what a crash would leave of it."""

    def __init__(self) -> None:
        super().__init__()
        self.begin_life()
        self.journal = RecordingJournal(self.queue)
        self.queue.keep_journal(self.journal, True)
        self.committed: Kept = {}
        self.handed_committed = 0
        self.large_count = 0

    def begin_life(self) -> None:
        """A new process: nothing but an empty queue."""
        self.queue = RecordingQueue(durable=True)
        self.model = QueueModel()
        self.consumers.clear()
        self.getters.clear()

    @initialize(page_in_max=st.sampled_from([1, 7, 300, 2000]), has_scratch=st.sampled_from([True, True, False]))
    def choose(self, page_in_max: int, has_scratch: bool) -> None:
        self.journal.page_in_max = page_in_max
        self.journal.has_scratch = has_scratch

    @rule(count=st.sampled_from([1, 2, 5, 90, 1500]), persistent=st.sampled_from([True, True, False, None]), large=st.integers(0, 9))
    def publish(self, count: int, persistent: bool | None, large: int) -> None:
        """persistent: None for a mixture."""
        for _ in range(min(count, READY_MAX - len(self.model.ready))):
            self.serial += 1
            keep = self.serial % 3 != 0 if persistent is None else persistent
            body = (b"p%d" if keep else b"t%d") % self.serial + b"." * (self.serial % 5)
            if large == 0 and count < 90 and self.large_count < 20:
                self.large_count += 1
                body += LARGE
            self.queue.publish_body(body, persistent=keep)
            self.model.publish(body)

    @precondition(lambda self: self.getters)
    @rule(data=st.data(), count=st.sampled_from([1, 3, 200, 1200]))
    def get(self, data: st.DataObject, count: int) -> None:
        super().get(data, count)

    @rule()
    def commit(self) -> None:
        self.journal.commit()
        self.committed = {position: body for position, body in self.everything() if is_persistent(body)}
        self.handed_committed = self.model.handed_through
        assert self.journal.marked_through == self.handed_committed

    @rule(
        keep=st.sampled_from([1, 2, 50, 1000]),
        keep_bytes=st.sampled_from([1, 10, 1_000_000]),
        page_out_max=st.sampled_from([0, 1, 40, 100_000, 100_000]),
    )
    def page_out(self, keep: int, keep_bytes: int, page_out_max: int) -> None:
        self.journal.page_out_max = page_out_max
        assert 0 <= self.queue.let_go(keep, keep_bytes) <= page_out_max

    @rule()
    def commit_and_page_out(self) -> None:
        """As the worker does for a queue with much: all that may go, but for the next few."""
        self.commit()
        self.journal.page_out_max = 1 << 30
        in_ring, in_heap, _ = self.queue.places()
        was_paged = self.queue.paged_count > 0
        self.queue.let_go(1, 1)
        if self.journal.has_scratch:
            assert self.queue.tail_size() == 0
            if not was_paged and not in_heap and not self.holding():
                assert self.queue.places()[0] == min(in_ring, 1)

    @precondition(lambda self: any(len(consumer.held) > 2 for consumer in self.getters))
    @rule(data=st.data())
    def give_some_back_and_page_out(self, data: st.DataObject) -> None:
        """What is still held belongs amid what would like to leave memory."""
        getter = self.pick(data, [consumer for consumer in self.getters if len(consumer.held) > 2])
        for number in data.draw(st.lists(st.sampled_from(list(getter.held)), min_size=2, max_size=20, unique=True)):
            assert self.queue.settle_range(getter.real, number, number, REQUEUE) == self.model.settle(getter, number, number, REQUEUE)
        self.commit_and_page_out()

    @rule(lease=st.sampled_from([0, 0, 3, 2000]))
    def crash(self, lease: int) -> None:
        """Uncommitted settles come back, uncommitted messages do not, nor do transient ones. What may have been handed out is marked."""
        told = self.queue.clear()
        assert told == [consumer.real for consumer in self.consumers if consumer.consuming]
        assert set(self.queue.held()) <= {0}
        through = self.handed_committed + lease
        journal = self.journal
        self.begin_life()
        self.journal = journal.recover(self.queue, through)
        self.model.ready = [(position, body, position <= through) for position, body in sorted(self.committed.items())]
        self.model.next_position = max([through, *self.committed]) + 1
        self.model.handed_through = self.handed_committed = through

    @invariant()
    def agree(self) -> None:
        while self.queue.pumps_due:  # a thousand deliveries are a turn's share; the model knows no turns
            self.queue.run_pump()
        super().agree()

    def everything(self) -> list[tuple[int, bytes]]:
        """Position and body of what is ready and what is unacked."""
        held = [message for consumer in self.holders() for message in consumer.held.values()]
        return [(position, body) for position, body, _ in self.model.ready + held]

    def holding(self) -> bool:
        return any(consumer.held for consumer in self.holders())

    def paged(self) -> tuple[int, int]:
        persistent = {position: body for position, body in self.everything() if is_persistent(body)}
        assert self.journal.live == persistent
        paged = self.queue.paged()
        # Of the scratch, only what is paged out.
        assert self.journal.scratch == {position: body for position, body, _ in paged if not is_persistent(body)}
        return len(paged), sum(len(body) for _, body, _ in paged)


PagingMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestPaging = PagingMachine.TestCase
