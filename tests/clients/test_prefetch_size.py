"""basic.qos beyond RabbitMQ's: a prefetch in bytes, and limits that reach the consumers that are there."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.placement import Placement

pytestmark = pytest.mark.not_on_peer("RabbitMQ refuses a prefetch size and does not change the limits of consumers that are there")


def fill(placement: Placement, queue: str, *sizes: int) -> None:
    """A message of each size, in bytes."""
    for size in sizes:
        placement.owner.basic_publish("", queue, b"x" * size)
    placement.owner.queue_declare(queue, passive=True)


def taken_and_left(inbox: Inbox, count: int, left: int) -> list[int]:
    """The sizes of the next `count` messages, and proof that the queue keeps `left` more."""
    sizes = [len(delivery.body) for delivery in inbox.take(count)]
    assert eventually(lambda: inbox.barrier() == left, what=f"{left} messages left")
    assert inbox.waiting == []
    return sizes


def test_unacked_bodies_stay_within_the_prefetch_size(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, *[400] * 5)
    channel = placement.consumer
    channel.basic_qos(prefetch_size=1000)
    inbox = Inbox(channel, queue)
    assert taken_and_left(inbox, 2, 3) == [400, 400]
    channel.basic_ack(1)
    assert taken_and_left(inbox, 1, 2) == [400]
    channel.basic_ack(0, multiple=True)
    assert taken_and_left(inbox, 2, 0) == [400, 400]


def test_a_message_that_fills_the_size_exactly_fits(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 600, 400, 1)
    channel = placement.consumer
    channel.basic_qos(prefetch_size=1000)
    assert taken_and_left(Inbox(channel, queue), 2, 1) == [600, 400]


def test_a_message_larger_than_the_size_comes_alone(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 5000, 10, 5000, 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_size=100)
    inbox = Inbox(channel, queue)
    assert taken_and_left(inbox, 1, 3) == [5000]
    channel.basic_ack(1)
    assert taken_and_left(inbox, 1, 2) == [10]
    channel.basic_ack(2)
    assert taken_and_left(inbox, 1, 1) == [5000]
    channel.basic_ack(3)
    assert taken_and_left(inbox, 1, 0) == [10]


def test_size_and_count_both_bound(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 10, 10, 10, 900, 900)
    channel = placement.consumer
    channel.basic_qos(prefetch_size=1000, prefetch_count=2)
    inbox = Inbox(channel, queue)
    assert taken_and_left(inbox, 2, 3) == [10, 10]
    channel.basic_ack(0, multiple=True)
    assert taken_and_left(inbox, 2, 1) == [10, 900]


def test_a_consumer_without_acks_is_not_bounded(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, *[400] * 20)
    placement.consumer.basic_qos(prefetch_size=100)
    assert len(Inbox(placement.consumer, queue, auto_ack=True).take(20)) == 20


def test_the_size_is_each_consumers_own(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, *[400] * 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_size=800)
    first, second = Inbox(channel, queue), Inbox(channel, queue)
    first.take(2)
    assert taken_and_left(second, 2, 6) == [400, 400]


def test_a_shared_size_bounds_the_whole_channel(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, *[400] * 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_size=1200, global_qos=True)
    inboxes = [Inbox(channel, queue), Inbox(channel, queue)]
    seen = 0
    while seen < 10:
        assert eventually(lambda: arrived(channel, inboxes))
        assert 1 <= sum(len(inbox.waiting) for inbox in inboxes) <= 3
        for inbox in inboxes:
            for delivery in inbox.take(len(inbox.waiting)):
                channel.basic_ack(delivery.tag)
                seen += 1
    assert inboxes[0].barrier() == 0


def arrived(channel: BlockingChannel, inboxes: list[Inbox]) -> bool:
    channel.connection.process_data_events(time_limit=0.1)
    return any(inbox.waiting for inbox in inboxes)


def test_a_higher_limit_reaches_the_consumers_that_are_there(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, *[10] * 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue)
    taken_and_left(inbox, 1, 9)
    channel.basic_qos(prefetch_count=4)
    taken_and_left(inbox, 3, 6)
    channel.basic_qos(prefetch_count=0)
    taken_and_left(inbox, 6, 0)


def test_a_lower_limit_waits_until_so_many_are_acked(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, *[10] * 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_count=5)
    inbox = Inbox(channel, queue)
    taken_and_left(inbox, 5, 5)
    channel.basic_qos(prefetch_count=2)
    channel.basic_ack(3, multiple=True)
    taken_and_left(inbox, 0, 5)
    channel.basic_ack(4)
    taken_and_left(inbox, 1, 4)


def test_a_changed_size_reaches_the_consumers_that_are_there(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, *[400] * 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_size=400)
    inbox = Inbox(channel, queue)
    taken_and_left(inbox, 1, 9)
    channel.basic_qos(prefetch_size=1200)
    taken_and_left(inbox, 2, 7)
    channel.basic_qos(prefetch_size=0)
    taken_and_left(inbox, 7, 0)
