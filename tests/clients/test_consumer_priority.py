"""Consumer priorities: the highest that can take a message gets it; equals take turns; the busy are passed over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed


def publish(placement: Placement, queue: str, count: int) -> None:
    for number in range(count):
        placement.owner.basic_publish("", queue, str(number).encode())


def consumers(placement: Placement, queue: str, *priorities: int | None, prefetch: int = 0) -> list[Inbox]:
    """One consumer of each priority, on the publisher's, owner's and consumer's workers in turn; all of them can take messages."""
    sites = [placement.sites.publisher, placement.sites.queue, placement.sites.consumer]
    inboxes = []
    for number, priority in enumerate(priorities):
        channel = placement.connect(sites[number % 3]).channel()
        channel.basic_qos(prefetch_count=prefetch)
        inboxes.append(Inbox(channel, queue, arguments={} if priority is None else {"x-priority": priority}))
        # Its worker has told the queue's that it can take messages once it has answered this.
        inboxes[-1].barrier()
    return inboxes


def arrived(inboxes: list[Inbox]) -> list[int]:
    """How many messages each has by now."""
    for inbox in inboxes:
        inbox.barrier()
    return [len(inbox.waiting) for inbox in inboxes]


def test_the_highest_priority_gets_everything_it_can_take(placement: Placement) -> None:
    queue = placement.queue()
    inboxes = consumers(placement, queue, 1, 10, None, -5)
    publish(placement, queue, 30)
    assert eventually(lambda: arrived(inboxes) == [0, 30, 0, 0])


def test_nothing_said_is_0_and_negative_is_lower(placement: Placement) -> None:
    queue = placement.queue()
    inboxes = consumers(placement, queue, -1, None)
    publish(placement, queue, 10)
    assert eventually(lambda: arrived(inboxes) == [0, 10])
    inboxes[1].cancel()
    publish(placement, queue, 10)
    assert eventually(lambda: arrived(inboxes)[0] == 10)


def test_when_the_high_ones_are_busy_the_next_get_their_turn(placement: Placement) -> None:
    queue = placement.queue()
    inboxes = consumers(placement, queue, 0, 5, 10, prefetch=4)
    publish(placement, queue, 20)
    assert eventually(lambda: arrived(inboxes) == [4, 4, 4])
    high = inboxes[2]
    high.channel.basic_ack(high.waiting[-1].tag, multiple=True)
    assert eventually(lambda: arrived(inboxes) == [4, 4, 8])
    assert placement.owner.queue_declare(queue, passive=True).method.message_count == 4


def test_equal_priorities_take_turns(placement: Placement) -> None:
    queue = placement.queue()
    inboxes = consumers(placement, queue, 7, 7, 7, 1)
    publish(placement, queue, 30)
    assert eventually(lambda: arrived(inboxes) == [10, 10, 10, 0])


@pytest.mark.parametrize("priority", [2**31, -(2**31) - 1, 2**63 - 1])
def test_any_integer_will_do(placement: Placement, priority: int) -> None:
    queue = placement.queue()
    inboxes = consumers(placement, queue, 0, priority)
    publish(placement, queue, 5)
    assert eventually(lambda: arrived(inboxes) == ([0, 5] if priority > 0 else [5, 0]))


@pytest.mark.parametrize(("value", "shown"), [("10", "longstr"), (True, "bool"), ({"a": 1}, "table")])
def test_a_priority_that_is_no_integer_is_406_and_its_type_is_named(placement: Placement, value: Any, shown: str) -> None:
    queue = placement.queue()
    text = f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{queue}' in vhost '/': \"expected integer, got {shown}\""
    with channel_closed(406, text):
        Inbox(placement.consumer, queue, arguments={"x-priority": value})
