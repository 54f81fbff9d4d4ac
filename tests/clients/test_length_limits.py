"""x-max-length, x-max-length-bytes and x-overflow: what a queue does with more than it may hold."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from pika.exceptions import NackError

from tests.inbox import Inbox
from tests.placement import Placement

LIMITS: list[dict[str, Any]] = [{"x-max-length": 3}, {"x-max-length-bytes": 30}, {"x-max-length": 3, "x-max-length-bytes": 1_000}]


def body(number: int) -> bytes:
    return b"message %02d" % number


def rest(placement: Placement, queue: str) -> list[bytes]:
    """All that is in the queue."""
    inbox = Inbox(placement.consumer, queue, auto_ack=True)
    inbox.barrier()
    return [delivery.body for delivery in inbox.take(len(inbox.waiting))]


@pytest.mark.parametrize("limit", LIMITS)
def test_the_oldest_make_room(placement: Placement, limit: dict[str, Any]) -> None:
    """Each publish is confirmed all the same."""
    queue = placement.queue(arguments=limit)
    placement.publisher.confirm_delivery()
    for number in range(10):
        placement.publisher.basic_publish("", queue, body(number))
    assert rest(placement, queue) == [body(number) for number in (7, 8, 9)]


def test_a_message_that_alone_is_too_much_is_dropped(placement: Placement) -> None:
    queue = placement.queue(arguments={"x-max-length-bytes": 20})
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish("", queue, b"x" * 20)
    placement.publisher.basic_publish("", queue, b"x" * 21)
    assert rest(placement, queue) == []


@pytest.mark.parametrize("exchange", ["", "amq.fanout"])
@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_queue_refuses(placement: Placement, exchange: str, overflow: str, limit: dict[str, Any]) -> None:
    """With a nack, and with a dead letter if it is to make one."""
    target = placement.queue()
    arguments = limit | {"x-overflow": overflow, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}
    queue, other = placement.queue(arguments=arguments), placement.queue()
    if exchange:
        for bound in (queue, other):
            placement.owner.queue_bind(bound, exchange)
    placement.publisher.confirm_delivery()
    for number in range(3):
        placement.publisher.basic_publish(exchange, queue, body(number))
    for number in (3, 4):
        with pytest.raises(NackError):
            placement.publisher.basic_publish(exchange, queue, body(number))
    letters = Inbox(placement.consumer, target, auto_ack=True)
    if overflow == "reject-publish-dlx":
        for number in (3, 4):
            letter = letters.take_one()
            assert (letter.body, letter.properties.headers["x-death"][0]["reason"]) == (body(number), "maxlen")
    assert letters.barrier() == 0
    assert rest(placement, queue) == [body(number) for number in range(3)]
    if exchange:  # the others take what one refuses
        assert rest(placement, other) == [body(number) for number in range(5)]
    placement.publisher.basic_publish("", queue, body(5))  # there is room again


def test_without_confirms_what_is_refused_is_gone(placement: Placement) -> None:
    queue = placement.queue(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    for number in range(3):
        placement.publisher.basic_publish("", queue, body(number))
    placement.publisher.queue_declare(queue, passive=True)
    assert rest(placement, queue) == [body(0)]


def test_only_what_is_ready_counts(placement: Placement) -> None:
    """What a consumer holds does not; when it gives that back, the oldest make room."""
    queue = placement.queue(arguments={"x-max-length": 2})
    inbox = Inbox(placement.consumer, queue)
    for number in range(3):
        placement.publisher.basic_publish("", queue, body(number))
    tags = [delivery.tag for delivery in inbox.take(3)]
    inbox.cancel()
    placement.publisher.basic_publish("", queue, body(3))
    placement.publisher.queue_declare(queue, passive=True)
    placement.consumer.basic_nack(tags[-1], multiple=True, requeue=True)
    assert rest(placement, queue) == [body(2), body(3)]


def test_a_limit_of_nothing(placement: Placement) -> None:
    """Only consumers that can take it at once get a message."""
    queue = placement.queue(arguments={"x-max-length": 0})
    placement.publisher.basic_publish("", queue, body(0))
    placement.publisher.queue_declare(queue, passive=True)
    inbox = Inbox(placement.consumer, queue, auto_ack=True)
    assert inbox.barrier() == 0
    placement.publisher.basic_publish("", queue, body(1))
    assert inbox.take_one().body == body(1)


def test_a_transaction_that_a_full_queue_refuses(placement: Placement) -> None:
    queue = placement.queue(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    placement.publisher.tx_select()
    for number in range(2):
        placement.publisher.basic_publish("", queue, body(number))
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="partial tx completion"):
        placement.publisher.tx_commit()
