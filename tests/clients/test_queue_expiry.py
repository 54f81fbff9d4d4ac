"""x-expires: a queue that nobody uses is deleted; to consume, to get and to declare again is to use it."""

from __future__ import annotations

import time

import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.placement import Placement

EXPIRES_MS = 1000  # a connection that is used all the time must not be kept from it for so long


@pytest.fixture(autouse=True)
def connected(placement: Placement) -> None:
    """All connections are open before a queue's time begins to run: on a busy machine that takes as long as the queue lives."""
    assert placement.publisher.is_open and placement.owner.is_open and placement.consumer.is_open


def exists(placement: Placement, queue: str) -> bool:
    """Whether the queue is there, asked without using it."""
    if placement.broker.is_peer:
        pytest.skip("the peer cannot be asked without using the queue")
    return queue in {row["name"] for row in placement.broker.api("queues")}


def wait_until_gone(placement: Placement, queue: str) -> float:
    """Seconds until it was deleted."""
    began_s = time.monotonic()
    eventually(lambda: not exists(placement, queue), what="the queue to be deleted")
    return time.monotonic() - began_s


def test_an_unused_queue_is_deleted(placement: Placement) -> None:
    """With all that is in it, which makes no dead letters."""
    target = placement.queue()
    began_s = time.monotonic()
    queue = placement.queue(arguments={"x-expires": EXPIRES_MS, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": target})
    placement.publisher.basic_publish("", queue, b"x")
    wait_until_gone(placement, queue)
    assert time.monotonic() - began_s >= EXPIRES_MS / 1000
    assert Inbox(placement.consumer, target).barrier() == 0
    with pytest.raises(ChannelClosedByBroker, match="no queue"):
        placement.consumer.queue_declare(queue, passive=True)


def test_a_consumer_keeps_it_and_its_leaving_begins_the_time(placement: Placement) -> None:
    queue = placement.queue(arguments={"x-expires": EXPIRES_MS})
    inbox = Inbox(placement.consumer, queue)
    began_s = time.monotonic()
    eventually(lambda: time.monotonic() - began_s > 1.5 * EXPIRES_MS / 1000, what="its time to be over")
    assert exists(placement, queue)
    placement.publisher.basic_publish("", queue, b"x")
    assert inbox.take_one().body == b"x"
    left_s = time.monotonic()
    inbox.cancel()
    wait_until_gone(placement, queue)
    assert time.monotonic() - left_s >= EXPIRES_MS / 1000


@pytest.mark.parametrize("use", ["get", "declare", "passive declare"])
def test_it_lives_while_it_is_used(placement: Placement, use: str) -> None:
    arguments = {"x-expires": EXPIRES_MS}
    queue = placement.queue(arguments=arguments)
    until_s = time.monotonic() + 1.5 * EXPIRES_MS / 1000
    used_s = 0.0
    while used_s < until_s:  # as fast as the broker answers
        used_s = time.monotonic()
        if use == "get":
            placement.consumer.basic_get(queue)
        else:
            placement.consumer.queue_declare(queue, durable=True, passive=use != "declare", arguments=arguments)
    wait_until_gone(placement, queue)
    assert time.monotonic() - used_s >= EXPIRES_MS / 1000


def test_publishing_is_no_use(placement: Placement) -> None:
    queue = placement.queue(arguments={"x-expires": EXPIRES_MS})
    placement.publisher.confirm_delivery()

    def gone() -> bool:
        placement.publisher.basic_publish("", queue, b"x")
        return not exists(placement, queue)

    eventually(gone, what="the queue to be deleted")
