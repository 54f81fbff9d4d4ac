"""What a queue promises, one promise a test: order, turns, priority, prefetch, bounds, and what happens when a consumer fails."""

from __future__ import annotations

import gc
import time
import weakref

import pytest
from leveret.queue.consumer import Consumer
from leveret.queue.queue import InExclusiveUse, Queue
from tests.queue.recording import RecordingConsumer, RecordingQueue

ACK, REQUEUE, DISCARD = 0, 1, 2
ALL = 2**64 - 1


def consuming(queue: RecordingQueue, **settings: object) -> RecordingConsumer:
    """A consumer that is added and active."""
    consumer = RecordingConsumer(b"c", **settings)
    queue.add_consumer(consumer)
    consumer.activate()
    return consumer


def bodies(consumer: RecordingConsumer) -> list[bytes]:
    return [body for _, body, _ in consumer.deliveries]


def publish(queue: RecordingQueue, count: int) -> None:
    for number in range(1, count + 1):
        queue.publish_body(b"%d" % number)


def finish(queue: RecordingQueue) -> int:
    """Run the pumps that are due; how many."""
    runs = 0
    while queue.pumps_due:
        queue.run_pump()
        runs += 1
    return runs


def test_nothing_is_delivered_before_activation() -> None:
    queue = RecordingQueue()
    publish(queue, 2)
    consumer = RecordingConsumer(b"c")
    queue.add_consumer(consumer)
    publish(queue, 1)
    assert consumer.deliveries == []
    consumer.activate()
    assert consumer.deliveries == [(1, b"1", False), (2, b"2", False), (3, b"1", False)]


def test_equal_consumers_take_turns() -> None:
    queue = RecordingQueue()
    consumers = [consuming(queue) for _ in range(3)]
    publish(queue, 7)
    assert [bodies(consumer) for consumer in consumers] == [[b"1", b"4", b"7"], [b"2", b"5"], [b"3", b"6"]]


def test_a_lower_priority_waits_until_no_higher_one_can_take() -> None:
    queue = RecordingQueue()
    low = consuming(queue, priority=-1)
    high = consuming(queue, priority=10, prefetch=2)
    middle = consuming(queue, prefetch=1)
    publish(queue, 5)
    assert (bodies(high), bodies(middle), bodies(low)) == ([b"1", b"2"], [b"3"], [b"4", b"5"])
    queue.settle_range(high, 1, 1, ACK)
    queue.publish_body(b"6")
    assert bodies(high) == [b"1", b"2", b"6"]


def test_a_thousand_blocked_consumers_are_not_asked_again() -> None:
    """Each is found blocked once, leaves the rotation, and costs the later publishes nothing."""

    queue = RecordingQueue()
    blocked = [consuming(queue, prefetch=1) for _ in range(1000)]
    publish(queue, 1000)
    assert all(len(consumer.deliveries) == 1 for consumer in blocked)
    free = consuming(queue, no_ack=True)
    publish(queue, 3)
    started_s = time.process_time()
    publish(queue, 20_000)
    spent_s = time.process_time() - started_s
    assert len(free.deliveries) == 20_003
    # Asking a thousand for each would be 20 million calls, several hundred times as much.
    assert spent_s < 1.0
    queue.settle_range(blocked[500], 1, 1, ACK)
    publish(queue, 2)
    assert len(blocked[500].deliveries) == 2


def test_prefetch_counts_what_is_unacked_and_changes_at_once() -> None:
    queue = RecordingQueue()
    consumer = consuming(queue, prefetch=2)
    publish(queue, 10)
    assert bodies(consumer) == [b"1", b"2"]
    consumer.set_prefetch(4)
    assert len(consumer.deliveries) == 4
    consumer.set_prefetch(1)
    queue.settle_range(consumer, 1, 3, ACK)
    assert len(consumer.deliveries) == 4
    queue.settle_range(consumer, 4, 4, ACK)
    assert len(consumer.deliveries) == 5
    consumer.set_prefetch(0)
    assert len(consumer.deliveries) == 10


def test_a_consumer_without_acks_is_not_held_by_prefetch() -> None:
    queue = RecordingQueue()
    consumer = consuming(queue, no_ack=True, prefetch=1)
    publish(queue, 5)
    assert bodies(consumer) == [b"1", b"2", b"3", b"4", b"5"]
    assert set(queue.held()) == {0}


def test_what_comes_back_goes_to_its_old_place_marked_redelivered() -> None:
    queue = RecordingQueue()
    consumer = consuming(queue, prefetch=4)
    publish(queue, 6)
    consumer.deactivate()
    queue.settle_range(consumer, 2, 3, REQUEUE)
    assert queue.ready() == [(2, b"2", True), (3, b"3", True), (5, b"5", False), (6, b"6", False)]
    consumer.activate()
    assert consumer.deliveries[4:] == [(5, b"2", True), (6, b"3", True)]


def test_each_return_is_counted() -> None:
    queue = RecordingQueue()
    getter = RecordingConsumer(b"")
    queue.add_getter(getter)
    publish(queue, 2)
    for number in range(1, 6):
        assert queue.get(getter) == (number, b"1", number > 1)
        queue.settle_range(getter, number, number, REQUEUE)
    assert queue.return_counts() == [5, 0]
    assert queue.statistics()["message_stats"]["redeliver"] == 4


def test_a_cancelled_consumer_keeps_and_can_settle_what_it_holds() -> None:
    queue = RecordingQueue()
    consumer = consuming(queue)
    publish(queue, 3)
    queue.cancel_consumer(consumer)
    publish(queue, 1)
    assert (queue.consumer_count, queue.unacked_count, queue.ready_count) == (0, 3, 1)
    assert queue.settle_range(consumer, 1, 2, ACK) == 2
    assert consumer.queue is queue
    assert queue.settle_range(consumer, 3, 3, REQUEUE) == 1
    assert consumer.queue is None
    assert [body for _, body, _ in queue.ready()] == [b"3", b"1"]


def test_a_removed_consumers_messages_go_to_the_others() -> None:
    queue = RecordingQueue()
    first = consuming(queue)
    publish(queue, 3)
    second = consuming(queue)
    assert queue.remove_consumer(first) == 3
    assert second.deliveries == [(1, b"1", True), (2, b"2", True), (3, b"3", True)]
    assert queue.remove_consumer(first) == 0


def test_a_closing_connections_consumers_do_not_inherit_from_each_other() -> None:
    queue = RecordingQueue()
    consumers = [consuming(queue) for _ in range(2)]
    publish(queue, 4)
    for consumer in consumers:
        consumer.deactivate()
    assert [queue.remove_consumer(consumer) for consumer in consumers] == [2, 2]
    assert [len(consumer.deliveries) for consumer in consumers] == [2, 2]
    assert [body for _, body, _ in queue.ready()] == [b"1", b"2", b"3", b"4"]


def test_an_exclusive_consumer_stands_alone() -> None:
    queue = RecordingQueue()
    only = consuming(queue, exclusive=True)
    assert queue.exclusive_consumer is only
    with pytest.raises(InExclusiveUse, match=r"^queue 'q' in vhost '/' in exclusive use$"):
        queue.add_consumer(RecordingConsumer(b"late"))
    queue.remove_consumer(only)
    assert queue.exclusive_consumer is None
    other = consuming(queue)
    assert not queue.may_consume(exclusive=True)
    with pytest.raises(InExclusiveUse):
        queue.add_consumer(RecordingConsumer(b"late", exclusive=True))
    assert queue.consumers == [other]


def test_a_consumer_in_anothers_place_has_its_turn_its_messages_and_their_numbers() -> None:
    queue = RecordingQueue()
    first, moving, last = (consuming(queue, prefetch=2) for _ in range(3))
    publish(queue, 8)
    assert bodies(moving) == [b"2", b"5"]
    moved = RecordingConsumer(b"c", prefetch=2)
    queue.replace_consumer(moving, moved)
    assert queue.consumers == [first, moved, last]
    assert (queue.unacked_count, moved.unacked_count, moved.outstanding()) == (6, 2, [1, 2])
    assert (moving.queue, moving.unacked_count) == (None, 0)
    queue.settle_range(moved, 1, 1, ACK)
    assert bodies(moved) == [], "not before it is activated"
    moved.activate()
    assert moved.deliveries == [(3, b"7", False)]
    queue.settle_range(first, 1, 1, ACK)
    assert bodies(first) == [b"1", b"4", b"8"]
    assert queue.remove_consumer(moved) == 2
    assert moved.queue is None
    queue.settle_range(last, 0, ALL, ACK)
    assert last.deliveries[2:] == [(3, b"5", True), (4, b"7", True)]


def test_consumers_that_are_activated_together_share_what_has_gathered() -> None:
    queue = RecordingQueue()
    consumers = [RecordingConsumer(b"c") for _ in range(3)]
    low = RecordingConsumer(b"c", priority=-1)
    for consumer in [*consumers, low]:
        queue.add_consumer(consumer)
    publish(queue, 6)
    queue.activate_together([*consumers, low])
    assert [bodies(consumer) for consumer in consumers] == [[b"1", b"4"], [b"2", b"5"], [b"3", b"6"]]
    assert low.deliveries == []


def test_an_exclusive_consumer_in_anothers_place_stands_alone_and_a_cancelled_one_ends() -> None:
    queue = RecordingQueue()
    alone = consuming(queue, exclusive=True)
    publish(queue, 1)
    moved = RecordingConsumer(b"c", exclusive=True)
    queue.replace_consumer(alone, moved)
    moved.activate()
    with pytest.raises(InExclusiveUse):
        queue.add_consumer(RecordingConsumer(b"d"))
    queue.cancel_consumer(moved)
    queue.settle_range(moved, 1, 1, ACK)
    assert moved.queue is None
    queue.add_consumer(RecordingConsumer(b"d"))


def test_a_getter_is_no_consumer_but_holds_its_messages() -> None:
    queue = RecordingQueue()
    getter = RecordingConsumer(b"")
    queue.add_getter(getter)
    assert queue.get(getter) is None
    publish(queue, 2)
    assert queue.get(getter) == (1, b"1", False)
    assert (queue.consumer_count, queue.unacked_count) == (0, 1)
    assert queue.may_consume(exclusive=True)
    assert queue.remove_consumer(getter) == 1
    assert queue.ready() == [(1, b"1", True), (2, b"2", False)]


def test_what_a_getter_gives_back_goes_to_those_who_wait() -> None:
    queue = RecordingQueue()
    getter = RecordingConsumer(b"")
    queue.add_getter(getter)
    publish(queue, 2)
    queue.get(getter)
    queue.get(getter)
    waiting = consuming(queue)
    assert queue.settle_range(getter, 1, 1, REQUEUE) == 1
    assert waiting.deliveries == [(1, b"1", True)]
    assert queue.remove_consumer(getter) == 1
    assert waiting.deliveries == [(1, b"1", True), (2, b"2", True)]


def test_one_who_stands_aside_does_not_cost_another_its_turn() -> None:
    queue = RecordingQueue()
    consumers = [consuming(queue) for _ in range(4)]
    publish(queue, 1)
    consumers[3].deactivate()
    publish(queue, 1)
    assert [len(consumer.deliveries) for consumer in consumers] == [1, 1, 0, 0]
    consumers[2].deactivate()
    publish(queue, 2)
    assert [len(consumer.deliveries) for consumer in consumers] == [2, 2, 0, 0]


def test_deliveries_never_nest() -> None:
    """What comes back within a delivery waits until that has ended: no frame is written amid another."""
    queue = RecordingQueue()
    dying, heir = consuming(queue), consuming(queue)

    def die(consumer: RecordingConsumer) -> None:
        queue.remove_consumer(consumer)
        assert heir.deliveries == []

    dying.on_delivery = die
    publish(queue, 1)
    assert heir.deliveries == [(1, b"1", True)]


def test_one_pump_delivers_a_bounded_slice() -> None:
    queue = RecordingQueue()
    publish(queue, 2500)
    consumer = consuming(queue, no_ack=True)
    assert (len(consumer.deliveries), queue.pumps_due, queue.unfinished) == (1000, 1, True)
    publish(queue, 1)  # joins the end and does not start a slice of its own
    assert (len(consumer.deliveries), queue.pumps_due) == (1000, 1)
    assert queue.run_pump()
    assert (len(consumer.deliveries), queue.pumps_due) == (2000, 1)
    assert not queue.run_pump()
    assert bodies(consumer) == [b"%d" % number for number in range(1, 2501)] + [b"1"]
    assert not queue.unfinished


def test_a_slice_that_ends_with_the_last_message_asks_for_no_other() -> None:
    queue = RecordingQueue()
    publish(queue, 1000)
    consumer = consuming(queue)
    assert (len(consumer.deliveries), queue.pumps_due, queue.unfinished) == (1000, 0, False)


def test_a_purge_leaves_what_is_unacked_and_frees_in_slices() -> None:
    queue = RecordingQueue()
    consumer = consuming(queue, prefetch=1)
    publish(queue, 25_001)
    assert queue.purge() == 25_000
    assert (queue.ready_count, queue.ready_bytes, queue.unacked_count) == (0, 0, 1)
    assert sum(queue.held()) == 1 + 15_000
    publish(queue, 1)
    assert queue.purge() == 1
    assert sum(queue.held()) == 1 + 5_001
    assert finish(queue) == 1
    assert sum(queue.held()) == 1
    assert queue.settle_range(consumer, 1, 1, ACK) == 1


def test_a_cleared_queue_lets_everybody_go() -> None:
    queue = RecordingQueue()
    consumer = consuming(queue, prefetch=3)
    cancelled = consuming(queue, prefetch=1)
    getter = RecordingConsumer(b"")
    queue.add_getter(getter)
    publish(queue, 30_000)
    queue.cancel_consumer(cancelled)
    queue.get(getter)
    assert queue.clear() == [consumer]
    assert (consumer.queue, cancelled.queue, getter.queue) == (None, None, None)
    assert queue.settle_range(consumer, 0, ALL, ACK) == 0
    finish(queue)
    assert set(queue.held()) == {0}
    queue.verify()


def test_a_delivery_that_fails_is_undone_and_the_consumer_stands_aside() -> None:
    queue = RecordingQueue()
    failing, sound = consuming(queue), consuming(queue)
    failing.error = OSError("no more")
    with pytest.raises(OSError, match="no more"):
        queue.publish_body(b"a")
    queue.verify()
    assert (failing.active, failing.outstanding(), failing.next_delivery_no) == (False, [], 1)
    assert queue.ready() == [(1, b"a", False)]
    finish(queue)
    assert sound.deliveries == [(1, b"a", False)]
    assert queue.statistics()["message_stats"]["deliver"] == 1


@pytest.mark.parametrize("no_ack", [False, True])
def test_a_failure_amid_a_pump_keeps_the_order(no_ack: bool) -> None:
    queue = RecordingQueue()
    publish(queue, 5)
    consumer = RecordingConsumer(b"c", no_ack=no_ack)
    consumer.on_delivery = lambda real: setattr(real, "error", OSError() if len(real.deliveries) == 3 else None)
    queue.add_consumer(consumer)
    with pytest.raises(OSError):
        consumer.activate()
    queue.verify()
    finish(queue)
    assert [body for _, body, _ in queue.ready()] == [b"4", b"5"]
    consumer.on_delivery = None
    consumer.activate()
    assert consumer.deliveries == [(number, b"%d" % number, False) for number in range(1, 6)]
    assert queue.held() == ([0] if no_ack else [1]) * 5
    assert [queue.settle_range(consumer, number, number, ACK) for number in range(1, 6)] == ([0] if no_ack else [1]) * 5


def test_a_consumer_may_be_removed_within_its_delivery() -> None:
    """A write finds the connection dead, and the worker takes all of it down there and then."""
    queue = RecordingQueue()
    dying, heir = consuming(queue), consuming(queue)
    dying.on_delivery = queue.remove_consumer
    publish(queue, 3)
    queue.verify()
    assert bodies(dying) == [b"1"]
    assert heir.deliveries == [(1, b"1", True), (2, b"2", False), (3, b"3", False)]


def test_a_consumer_may_be_removed_within_a_pump_and_then_fail() -> None:
    queue = RecordingQueue()
    publish(queue, 3)

    def die(consumer: RecordingConsumer) -> None:
        queue.remove_consumer(consumer)
        raise ConnectionResetError

    dying = RecordingConsumer(b"c")
    dying.on_delivery = die
    queue.add_consumer(dying)
    with pytest.raises(ConnectionResetError):
        dying.activate()
    finish(queue)
    queue.verify()
    assert queue.ready() == [(1, b"1", True), (2, b"2", False), (3, b"3", False)]
    assert queue.held() == [1, 1, 1]


def test_a_queue_may_be_cleared_within_a_delivery_and_its_message_outlives_it() -> None:
    """The connection that dies in the write was the one of an exclusive queue."""
    queue = RecordingQueue()
    publish(queue, 3)
    held = []

    def delete(_: RecordingConsumer) -> None:
        assert queue.clear() == [consumer]
        held.extend(queue.held())

    consumer = RecordingConsumer(b"c")
    consumer.on_delivery = delete
    queue.add_consumer(consumer)
    consumer.activate()
    queue.verify()
    assert held == [1, 1, 1]
    assert bodies(consumer) == [b"1"]
    assert finish(queue) == 1
    assert queue.held() == [0, 0, 0]


def test_a_consumer_may_be_added_within_a_delivery() -> None:
    queue = RecordingQueue()
    late = RecordingConsumer(b"late", priority=1)

    def add(consumer: RecordingConsumer) -> None:
        consumer.on_delivery = None
        queue.add_consumer(late)
        late.activate()

    first = RecordingConsumer(b"first")
    first.on_delivery = add
    queue.add_consumer(first)
    publish(queue, 1)
    first.activate()
    publish(queue, 1)
    queue.verify()
    assert (len(first.deliveries), len(late.deliveries)) == (1, 1)


def requeue_seconds(count: int, order: str) -> float:
    """CPU time to give `count` messages back, with as many newer ones ready and nobody to take them; checks that order is kept."""
    queue = RecordingQueue()
    consumer = consuming(queue, prefetch=count)
    for _ in range(2 * count):
        queue.publish_body(b"")
    consumer.deactivate()
    finish(queue)
    numbers = {
        "one by one": range(1, count + 1),
        "newest first": range(count, 0, -1),
        "halves in turn": [number for pair in zip(range(1, count // 2 + 1), range(count, count // 2, -1), strict=True) for number in pair],
        "scattered": [1 + index * 7919 % count for index in range(count)],
        "at once": [],
    }[order]
    started_s = time.process_time()
    for number in numbers:
        queue.settle_range(consumer, number, number, REQUEUE)
    if order == "at once":
        assert queue.settle_range(consumer, 1, ALL, REQUEUE) == count
    spent_s = time.process_time() - started_s
    queue.verify()
    assert (queue.ready_count, queue.unacked_count) == (2 * count, 0)
    assert [position for position, _, _ in queue.ready()] == list(range(1, 2 * count + 1))
    return spent_s


@pytest.mark.parametrize("order", ["one by one", "newest first", "halves in turn", "scattered"])
def test_requeueing_in_any_order_is_not_quadratic(order: str) -> None:
    """100,000 given back singly. Moving the ring for each would touch up to 10 billion entries: minutes."""
    assert requeue_seconds(100_000, order) < 3.0


def test_a_million_requeued_at_once_is_linear() -> None:
    assert requeue_seconds(1_000_000, "at once") < 3.0


def test_many_consumers_that_die_together_give_back_in_linear_time() -> None:
    """A thousand, each with every thousandth message: merging each into the whole before it would move 50 million entries a hundredfold."""
    queue = RecordingQueue()
    consumers = [consuming(queue, prefetch=200) for _ in range(1000)]
    for _ in range(250_000):
        queue.publish_body(b"")
    for consumer in consumers:
        consumer.deactivate()
    started_s = time.process_time()
    assert [queue.remove_consumer(consumer) for consumer in consumers] == [200] * 1000
    assert time.process_time() - started_s < 3.0
    assert [position for position, _, _ in queue.ready()] == list(range(1, 250_001))
    heir = consuming(queue, no_ack=True)
    finish(queue)
    assert len(heir.deliveries) == 250_000
    assert [redelivered for _, _, redelivered in heir.deliveries] == [True] * 200_000 + [False] * 50_000


def test_one_message_never_acked_costs_nothing_while_a_million_pass() -> None:
    queue = RecordingQueue()
    consumer = consuming(queue)
    queue.publish_body(b"stuck")
    for number in range(2, 300_000):
        queue.publish_body(b"")
        assert queue.settle_range(consumer, number, number, ACK) == 1
    span, capacity = consumer.ledger_size()
    assert span <= 2 + 64
    assert capacity <= 256
    assert consumer.outstanding() == [1]


def test_an_emptied_queue_gives_its_memory_back() -> None:
    queue = RecordingQueue()
    publish(queue, 100_000)
    assert queue.places()[2] >= 100_000
    getter = RecordingConsumer(b"", no_ack=True)
    queue.add_getter(getter)
    for _ in range(100_000):
        queue.get(getter)
    assert queue.places() == (0, 0, 16)


def test_a_consumer_that_vanishes_with_its_queue_releases_what_it_held() -> None:
    """A worker that drops both without a word, cycle and all, leaks nothing."""

    class WatchedQueue(RecordingQueue):
        pass

    queue = WatchedQueue()
    consumer = consuming(queue, prefetch=2)
    publish(queue, 5)
    watch = weakref.ref(queue)
    del queue, consumer
    gc.collect()
    assert watch() is None


def test_a_consumer_must_say_how_it_delivers() -> None:
    queue = RecordingQueue()
    queue.add_consumer(consumer := Consumer(b"abstract"))
    consumer.activate()
    with pytest.raises(NotImplementedError, match="Consumer does not say how it delivers"):
        queue.publish_body(b"a")
    assert queue.ready_count == 1


def test_settings_can_be_read_back() -> None:
    queue = Queue(7, "jobs", "prod", durable=True, auto_delete=True, exclusive=True, arguments={"x-a": 1})
    assert (queue.id, queue.name, queue.vhost, queue.arguments) == (7, "jobs", "prod", {"x-a": 1})
    assert (queue.durable, queue.auto_delete, queue.exclusive) == (True, True, True)
    consumer = Consumer(b"t", no_ack=True, exclusive=True, priority=-(2**40), prefetch=9, arguments={"k": b"v"})
    assert (consumer.tag, consumer.no_ack, consumer.exclusive, consumer.prefetch) == (b"t", True, True, 9)
    assert (consumer.priority, consumer.arguments, consumer.active) == (-(2**40), {"k": b"v"}, False)
