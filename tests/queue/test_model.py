"""The queue against a plain model of it, step by step: random commands, and after each the deliveries, sizes and counters must agree.

The model is the rules in the fewest words: a sorted list of what is ready, a dict of what each consumer holds, a list of who is in the
rotation. In the end everything is let go and no message may be held by anybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.queue.recording import RecordingConsumer, RecordingQueue

ACK, REQUEUE, DISCARD = 0, 1, 2
SETTLED_AS = {ACK: "ack", REQUEUE: "requeue", DISCARD: "discard"}


@dataclass(eq=False)
class ModelConsumer:
    """What the model knows of one consumer, beside the real one."""

    real: RecordingConsumer
    no_ack: bool
    priority: int
    prefetch: int
    room: int = -1
    active: bool = False
    consuming: bool = True
    next_no: int = 1
    held: dict[int, tuple[int, bytes, bool]] = field(default_factory=dict)
    deliveries: list[tuple[int, bytes, bool]] = field(default_factory=list)

    def can_take(self) -> bool:
        return self.active and self.room != 0 and (self.prefetch == 0 or len(self.held) < self.prefetch)


class QueueModel:
    """A queue without any cleverness."""

    def __init__(self) -> None:
        self.ready: list[tuple[int, bytes, bool]] = []  # position, body, redelivered
        self.rotation: list[ModelConsumer] = []
        self.next_position = 1
        self.handed_through = 0  # the highest position that somebody has had and might have given back
        self.counts = dict.fromkeys(
            ["publish", "deliver", "deliver_no_ack", "get", "get_no_ack", "redeliver", "ack", "get_empty", "requeue", "discard"], 0
        )

    def publish(self, body: bytes) -> None:
        self.ready.append((self.next_position, body, False))
        self.next_position += 1
        self.counts["publish"] += 1
        self.run()

    def run(self) -> None:
        """Deliver for as long as somebody in the rotation can take; who cannot, leaves it."""
        while self.ready and self.rotation:
            highest = max(consumer.priority for consumer in self.rotation)
            consumer = next(consumer for consumer in self.rotation if consumer.priority == highest)
            self.rotation.remove(consumer)
            if not consumer.can_take():
                continue
            self.rotation.append(consumer)
            position, body, redelivered = self.ready.pop(0)
            consumer.deliveries.append((consumer.next_no, body, redelivered))
            self.hold(consumer, position, body, redelivered)
            self.counts["deliver_no_ack" if consumer.no_ack else "deliver"] += 1
            if consumer.room > 0:
                consumer.room -= 1

    def hold(self, consumer: ModelConsumer, position: int, body: bytes, redelivered: bool) -> None:
        if not consumer.no_ack:
            consumer.held[consumer.next_no] = (position, body, redelivered)
            self.handed_through = max(self.handed_through, position)
        consumer.next_no += 1
        self.counts["redeliver"] += redelivered

    def ready_again(self, consumer: ModelConsumer) -> None:
        if consumer.consuming and consumer.can_take() and consumer not in self.rotation:
            self.rotation.append(consumer)
        self.run()

    def settle(self, consumer: ModelConsumer, first: int, last: int, outcome: int) -> int:
        numbers = [number for number in consumer.held if first <= number <= last]
        for number in numbers:
            position, body, _ = consumer.held.pop(number)
            if outcome == REQUEUE:
                self.ready.append((position, body, True))
        self.ready.sort()
        self.counts[SETTLED_AS[outcome]] += len(numbers)
        if numbers:
            self.ready_again(consumer)
        return len(numbers)

    def get(self, consumer: ModelConsumer) -> tuple[int, bytes, bool] | None:
        if not self.ready:
            self.counts["get_empty"] += 1
            return None
        position, body, redelivered = self.ready.pop(0)
        got = (consumer.next_no, body, redelivered)
        self.hold(consumer, position, body, redelivered)
        self.counts["get_no_ack" if consumer.no_ack else "get"] += 1
        return got

    def cancel(self, consumer: ModelConsumer) -> None:
        consumer.active = consumer.consuming = False
        if consumer in self.rotation:
            self.rotation.remove(consumer)

    def remove(self, consumer: ModelConsumer) -> int:
        self.cancel(consumer)
        return self.settle(consumer, 0, 2**64 - 1, REQUEUE)


class QueueMachine(RuleBasedStateMachine):
    """Commands go to the real queue and to the model alike."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = RecordingQueue()
        self.model = QueueModel()
        self.consumers: list[ModelConsumer] = []
        self.getters: list[ModelConsumer] = []
        self.serial = 0

    def paged(self) -> tuple[int, int]:
        """Messages that are not in memory, and bytes of their bodies: without a journal there are none."""
        return 0, 0

    def holders(self) -> list[ModelConsumer]:
        return self.consumers + self.getters

    def pick(self, data: st.DataObject, among: list[ModelConsumer]) -> ModelConsumer:
        return among[data.draw(st.integers(0, len(among) - 1))]

    @rule(count=st.sampled_from([1, 1, 2, 5, 5, 90]))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            body = b"m%d" % self.serial + b"." * (self.serial % 5)
            self.queue.publish_body(body)
            self.model.publish(body)

    @precondition(lambda self: len(self.consumers) < 8)
    @rule(
        no_ack=st.booleans(),
        priority=st.sampled_from([0, 0, 0, 0, 1, -3]),
        prefetch=st.sampled_from([0, 2, 5, 100]),
        activated_first=st.sampled_from([True, True, True, False]),
    )
    def add_consumer(self, no_ack: bool, priority: int, prefetch: int, activated_first: bool) -> None:
        real = RecordingConsumer(b"c", no_ack=no_ack, priority=priority, prefetch=prefetch)
        consumer = ModelConsumer(real, no_ack, priority, prefetch)
        self.consumers.append(consumer)
        if activated_first:
            real.activate()
            consumer.active = True
        self.queue.add_consumer(real)
        self.model.ready_again(consumer)

    @precondition(lambda self: len(self.getters) < 3)
    @rule(no_ack=st.booleans())
    def add_getter(self, no_ack: bool) -> None:
        real = RecordingConsumer(b"", no_ack=no_ack)
        self.queue.add_getter(real)
        self.getters.append(ModelConsumer(real, no_ack, 0, 0, consuming=False))

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def activate(self, data: st.DataObject) -> None:
        consumer = self.pick(data, self.consumers)
        if consumer.consuming:
            consumer.real.activate()
            consumer.active = True
            self.model.ready_again(consumer)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def deactivate(self, data: st.DataObject) -> None:
        consumer = self.pick(data, self.consumers)
        consumer.real.deactivate()
        consumer.active = False
        if consumer in self.model.rotation:
            self.model.rotation.remove(consumer)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data(), room=st.sampled_from([-1, -1, -1, 0, 4]))
    def make_room(self, data: st.DataObject, room: int) -> None:
        consumer = self.pick(data, self.consumers)
        consumer.room = room
        consumer.real.make_room(room)
        if consumer.real.queue is not None:
            self.model.ready_again(consumer)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data(), prefetch=st.sampled_from([0, 0, 2, 50]))
    def set_prefetch(self, data: st.DataObject, prefetch: int) -> None:
        consumer = self.pick(data, self.consumers)
        consumer.prefetch = prefetch
        consumer.real.set_prefetch(prefetch)
        if consumer.real.queue is not None:
            self.model.ready_again(consumer)

    @precondition(lambda self: any(consumer.held for consumer in self.holders()))
    @rule(data=st.data(), outcome=st.sampled_from([ACK, ACK, REQUEUE, REQUEUE, DISCARD]))
    def settle_one(self, data: st.DataObject, outcome: int) -> None:
        consumer = self.pick(data, [consumer for consumer in self.holders() if consumer.held])
        number = data.draw(st.sampled_from(list(consumer.held)))
        assert self.queue.settle_range(consumer.real, number, number, outcome) == 1
        assert self.model.settle(consumer, number, number, outcome) == 1

    @precondition(lambda self: self.holders())
    @rule(data=st.data(), width=st.integers(0, 100), outcome=st.sampled_from([ACK, REQUEUE, DISCARD]))
    def settle_range(self, data: st.DataObject, width: int, outcome: int) -> None:
        """Also numbers that are settled already, or not given out yet."""
        consumer = self.pick(data, self.holders())
        first = data.draw(st.integers(0, consumer.next_no + 1))
        expected = self.model.settle(consumer, first, first + width, outcome)
        assert self.queue.settle_range(consumer.real, first, first + width, outcome) == expected

    @precondition(lambda self: any(len(consumer.held) > 1 for consumer in self.holders()))
    @rule(data=st.data())
    def requeue_each_in_some_order(self, data: st.DataObject) -> None:
        consumer = self.pick(data, [consumer for consumer in self.holders() if len(consumer.held) > 1])
        for number in data.draw(st.permutations(list(consumer.held))):
            expected = self.model.settle(consumer, number, number, REQUEUE)
            assert self.queue.settle_range(consumer.real, number, number, REQUEUE) == expected

    @precondition(lambda self: self.getters)
    @rule(data=st.data(), count=st.integers(1, 6))
    def get(self, data: st.DataObject, count: int) -> None:
        getter = self.pick(data, self.getters)
        for _ in range(count):
            assert self.queue.get(getter.real) == self.model.get(getter)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def cancel_consumer(self, data: st.DataObject) -> None:
        consumer = self.pick(data, self.consumers)
        self.queue.cancel_consumer(consumer.real)
        self.model.cancel(consumer)
        assert (consumer.real.queue is None) == (not consumer.held)

    @precondition(lambda self: self.holders())
    @rule(data=st.data())
    def remove_consumer(self, data: st.DataObject) -> None:
        consumer = self.pick(data, self.holders())
        assert self.queue.remove_consumer(consumer.real) == self.model.remove(consumer)
        assert consumer.real.queue is None
        (self.consumers if consumer in self.consumers else self.getters).remove(consumer)

    @rule()
    def purge(self) -> None:
        assert self.queue.purge() == len(self.model.ready)
        self.model.ready.clear()

    @invariant()
    def agree(self) -> None:
        self.queue.verify()
        assert self.queue.ready() == self.model.ready
        for consumer in self.holders():
            assert consumer.real.deliveries == consumer.deliveries
            assert consumer.real.outstanding() == list(consumer.held)
        statistics = self.queue.statistics()
        stats = statistics["message_stats"]
        assert stats["deliver_get"] == stats["deliver"] + stats["deliver_no_ack"] + stats["get"] + stats["get_no_ack"]
        counts = {name: count for name, count in stats.items() if name != "deliver_get"}
        counts |= {"requeue": self.queue.requeued, "discard": self.queue.discarded}
        assert counts == self.model.counts
        unacked = [body for consumer in self.holders() for _, body, _ in consumer.held.values()]
        paged_count, paged_bytes = self.paged()
        assert {name: value for name, value in statistics.items() if name != "message_stats"} == {
            "messages_ready": len(self.model.ready),
            "messages_unacknowledged": len(unacked),
            "messages": len(self.model.ready) + len(unacked),
            "message_bytes_ready": sum(len(body) for _, body, _ in self.model.ready),
            "message_bytes_unacknowledged": sum(map(len, unacked)),
            "message_bytes": sum(len(body) for _, body, _ in self.model.ready) + sum(map(len, unacked)),
            "messages_paged_out": paged_count,
            "message_bytes_paged_out": paged_bytes,
            "consumers": sum(consumer.consuming for consumer in self.consumers),
        }
        assert sum(self.queue.held()) == len(self.model.ready) - paged_count + len(unacked)

    def teardown(self) -> None:
        told = self.queue.clear()
        assert told == [consumer.real for consumer in self.consumers if consumer.consuming]
        assert set(self.queue.held()) <= {0}
        self.queue.verify()


QueueMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=60, deadline=None)
TestQueue = QueueMachine.TestCase
