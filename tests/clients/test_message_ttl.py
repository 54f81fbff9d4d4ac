"""x-message-ttl and expiration: what is too old is delivered to nobody, and leaves from the front."""

from __future__ import annotations

import time

import pika
import pytest

from tests.deadline import busy_factor, eventually
from tests.inbox import Inbox
from tests.placement import Placement
from tests.returns import publish_immediate

HOUR_MS = 3_600_000


def ready(placement: Placement, queue: str) -> int:
    return int(placement.owner.queue_declare(queue, passive=True).method.message_count)


@pytest.mark.parametrize(
    ("ttl_ms", "expiration"), [(50, None), (None, "50"), (HOUR_MS, "50"), (50, str(HOUR_MS)), (None, "+50"), (None, "00050")]
)
def test_the_lower_of_both_counts(placement: Placement, ttl_ms: int | None, expiration: str | None) -> None:
    queue = placement.queue(arguments={} if ttl_ms is None else {"x-message-ttl": ttl_ms})
    began_s = time.monotonic()
    placement.publisher.basic_publish("", queue, b"x", pika.BasicProperties(expiration=expiration))
    eventually(lambda: ready(placement, queue) == 1 or time.monotonic() - began_s >= 0.05, what="the message to come")
    eventually(lambda: ready(placement, queue) == 0, what="the message to expire")
    assert time.monotonic() - began_s >= 0.05
    assert placement.consumer.basic_get(queue) == (None, None, None)


@pytest.mark.parametrize("expiration", [None, "0"])
def test_zero_means_now_or_never(placement: Placement, expiration: str | None) -> None:
    """Delivered to a consumer that can take it at once; gone otherwise."""
    queue = placement.queue(arguments={"x-message-ttl": HOUR_MS if expiration else 0})
    properties = pika.BasicProperties(expiration=expiration)
    placement.publisher.basic_publish("", queue, b"nobody", properties)
    eventually(lambda: ready(placement, queue) == 0, what="the message to expire")
    inbox = Inbox(placement.consumer, queue)
    inbox.barrier()
    placement.publisher.basic_publish("", queue, b"somebody", properties)
    assert inbox.take_one().body == b"somebody"


def test_a_message_expires_where_it_stands_in_front(placement: Placement) -> None:
    """As in RabbitMQ's classic queues, one that lasts longer holds up those behind it."""
    queue = placement.queue()
    for body, expiration in ((b"long", str(HOUR_MS)), (b"short", "1"), (b"none", None)):
        placement.publisher.basic_publish("", queue, body, pika.BasicProperties(expiration=expiration))
    eventually(lambda: ready(placement, queue) == 3, what="the messages")
    assert placement.consumer.basic_get(queue, auto_ack=True)[2] == b"long"
    assert placement.consumer.basic_get(queue, auto_ack=True)[2] == b"none"


def test_an_unacked_message_does_not_expire_but_keeps_its_time(placement: Placement) -> None:
    placement.publisher.confirm_delivery()  # what it publishes has come, and its time runs
    queue = placement.queue(arguments={"x-message-ttl": 200})
    inbox = Inbox(placement.consumer, queue)
    inbox.barrier()  # it can take messages now, wherever it is
    began_s = time.monotonic()
    placement.publisher.basic_publish("", queue, b"old")
    old = inbox.take_one()
    inbox.cancel()
    placement.publisher.basic_publish("", queue, b"new")
    eventually(lambda: time.monotonic() - began_s > 0.2 and ready(placement, queue) == 0, what="the second to expire")
    placement.consumer.basic_ack(old.tag)  # it is known still
    third = Inbox(placement.consumer, queue)  # before the message comes, whose time runs from then on
    third.barrier()
    placement.publisher.basic_publish("", queue, b"third")
    tag = third.take_one().tag
    third.cancel()
    eventually(lambda: time.monotonic() - began_s > 0.6, what="the third's time to be over")
    placement.consumer.basic_nack(tag, requeue=True)
    eventually(lambda: ready(placement, queue) == 0, what="the third to expire as it comes back")
    assert Inbox(placement.consumer, queue).barrier() == 0


def test_a_requeued_message_comes_again_within_its_time(placement: Placement) -> None:
    queue = placement.queue(arguments={"x-message-ttl": HOUR_MS})
    placement.publisher.basic_publish("", queue, b"x")
    inbox = Inbox(placement.consumer, queue)
    placement.consumer.basic_nack(inbox.take_one().tag, requeue=True)
    assert inbox.take_one().method.redelivered


def test_a_purge_size_burst_of_expiries_holds_nobody_up(placement: Placement) -> None:
    """Others are served while a hundred thousand expire, each of which is a dead letter."""
    count = 100_000
    target = placement.queue(durable=False)
    arguments = {"x-message-ttl": 1_500, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}
    queue, other = placement.queue(durable=False, arguments=arguments), placement.queue(durable=False)
    for number in range(count):
        placement.publisher.basic_publish("", queue, b"%d" % number)
    inbox = Inbox(placement.consumer, other, auto_ack=True)
    longest_s = 0.0
    while ready(placement, target) < count:
        began_s = time.monotonic()
        placement.owner.basic_publish("", other, b"x")
        inbox.take(1, within_s=20.0)
        longest_s = max(longest_s, time.monotonic() - began_s)
    assert longest_s < 2.0 * busy_factor()
    assert ready(placement, queue) == 0


@pytest.mark.not_on_peer("immediate")
def test_immediate_and_a_ttl_of_zero(placement: Placement) -> None:
    queue = placement.queue(arguments={"x-message-ttl": 0})
    inbox = Inbox(placement.consumer, queue)
    inbox.barrier()
    publish_immediate(placement.publisher, "", queue, b"x")
    assert inbox.take_one().body == b"x"


@pytest.mark.not_on_peer("restarts")
def test_what_expired_while_the_node_was_down_does_not_come_back(fresh_node) -> None:  # type: ignore[no-untyped-def]
    node = fresh_node(workers=1)
    with node.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        for body, expiration in ((b"short", "1"), (b"long", str(HOUR_MS))):
            channel.basic_publish("", "q", body, pika.BasicProperties(delivery_mode=2, expiration=expiration))
    node.stop()
    node.start()
    with node.connect() as connection:
        channel = connection.channel()
        eventually(lambda: channel.queue_declare("q", passive=True).method.message_count == 1, what="one message")
        assert channel.basic_get("q", auto_ack=True)[2] == b"long"
