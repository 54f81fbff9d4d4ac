"""Alternate exchanges: where messages go that no binding wants, in chains, in circles, and when the alternate comes and goes."""

from __future__ import annotations

import pytest
from pika.exceptions import UnroutableError

from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed
from tests.returns import Returns


def with_alternate(placement: Placement, alternate: str, exchange_type: str = "direct") -> str:
    return placement.exchange(exchange_type, arguments={"alternate-exchange": alternate})


def count(placement: Placement, queue: str) -> int:
    return int(placement.consumer.queue_purge(queue).method.message_count)


def confirmed(placement: Placement, exchange: str, key: str, body: bytes = b"x") -> None:
    """Publish it, and be sure that it has been routed; `UnroutableError` if nobody wanted it."""
    channel = placement.connect(placement.sites.publisher).channel()
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, body, mandatory=True)


def test_what_no_binding_wants_goes_to_the_alternate_with_its_own_names(placement: Placement) -> None:
    unrouted, wanted = placement.queue(), placement.queue()
    alternate = placement.exchange("fanout")
    exchange = with_alternate(placement, alternate)
    placement.owner.queue_bind(unrouted, alternate)
    placement.owner.queue_bind(wanted, exchange, "k")
    confirmed(placement, exchange, "k", b"1")
    confirmed(placement, exchange, "other", b"2")
    delivery = Inbox(placement.consumer, unrouted, auto_ack=True).take_one()
    assert (delivery.method.exchange, delivery.method.routing_key, delivery.body) == (exchange, "other", b"2")
    assert (count(placement, unrouted), count(placement, wanted)) == (0, 1)


def test_a_chain_is_followed_to_the_first_that_has_a_queue(placement: Placement) -> None:
    queues = [placement.queue() for _ in range(3)]
    last = placement.exchange("fanout")
    third = with_alternate(placement, last)
    second = with_alternate(placement, third)
    first = with_alternate(placement, second)
    placement.owner.queue_bind(queues[0], second, "two")
    placement.owner.queue_bind(queues[1], third, "three")
    placement.owner.queue_bind(queues[2], last)
    for key in ("two", "three", "two", "four", "three", "three"):
        confirmed(placement, first, key)
    assert [count(placement, queue) for queue in queues] == [2, 3, 1]


def test_mandatory_is_returned_only_when_the_alternates_fail_too(placement: Placement) -> None:
    queue = placement.queue()
    alternate = placement.exchange("direct")
    exchange = with_alternate(placement, alternate)
    placement.owner.queue_bind(queue, alternate, "k")
    returns = Returns(placement.publisher)
    placement.publisher.basic_publish(exchange, "k", b"taken", mandatory=True)
    placement.publisher.basic_publish(exchange, "nowhere", b"back", mandatory=True)
    assert returns.wait(1) == [(312, "NO_ROUTE", exchange, "nowhere", b"back")]
    assert Inbox(placement.consumer, queue, auto_ack=True).bodies(1) == [b"taken"]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_circle_of_alternates_ends(placement: Placement, length: int) -> None:
    names = [placement.name("x") for _ in range(length)]
    for name, alternate in zip(names, names[1:] + names[:1], strict=True):
        placement.publisher.exchange_declare(name, "direct", arguments={"alternate-exchange": alternate})
        placement._exchanges.append(name)
    with pytest.raises(UnroutableError):
        confirmed(placement, names[0], "nowhere")
    queue = placement.queue()
    placement.owner.queue_bind(queue, names[-1], "k")
    confirmed(placement, names[0], "k")
    assert count(placement, queue) == 1


def test_an_alternate_that_is_not_declared_yet_counts_from_its_declare_and_until_its_delete(placement: Placement) -> None:
    queue, alternate = placement.queue(), placement.name("x")
    exchange = with_alternate(placement, alternate)
    for _ in range(3):
        with pytest.raises(UnroutableError):
            confirmed(placement, exchange, "k")
        placement.publisher.exchange_declare(alternate, "fanout")
        with pytest.raises(UnroutableError):
            confirmed(placement, exchange, "k")
        placement.owner.queue_bind(queue, alternate)
        confirmed(placement, exchange, "k")
        assert count(placement, queue) == 1
        placement.publisher.exchange_delete(alternate)


def test_the_alternate_of_an_exchange_reached_by_a_binding_is_followed(placement: Placement) -> None:
    """An exchange that passes a message on to another has routed nothing yet; the other's alternate counts."""
    queue, alternate = placement.queue(), placement.exchange("fanout")
    inner = with_alternate(placement, alternate)
    outer = placement.exchange("fanout")
    placement.owner.exchange_bind(inner, outer)
    placement.owner.queue_bind(queue, alternate)
    confirmed(placement, outer, "nowhere")
    assert count(placement, queue) == 1


def test_a_message_that_reaches_one_queue_by_its_exchange_does_not_go_to_the_alternate(placement: Placement) -> None:
    queue, unrouted = placement.queue(), placement.queue()
    alternate = placement.exchange("fanout")
    exchange = with_alternate(placement, alternate, "topic")
    placement.owner.queue_bind(queue, exchange, "a.#")
    placement.owner.queue_bind(unrouted, alternate)
    for key in ("a", "a.b", "b"):
        confirmed(placement, exchange, key)
    assert (count(placement, queue), count(placement, unrouted)) == (2, 1)


def test_an_internal_exchange_may_be_the_alternate(placement: Placement) -> None:
    queue, alternate = placement.queue(), placement.exchange("fanout", internal=True)
    exchange = with_alternate(placement, alternate)
    placement.owner.queue_bind(queue, alternate)
    confirmed(placement, exchange, "k")
    assert count(placement, queue) == 1


def test_an_unbound_queue_sends_messages_to_the_alternate_from_then_on(placement: Placement) -> None:
    queue, unrouted, alternate = placement.queue(), placement.queue(), placement.exchange("fanout")
    exchange = with_alternate(placement, alternate)
    placement.owner.queue_bind(queue, exchange, "k")
    placement.owner.queue_bind(unrouted, alternate)
    confirmed(placement, exchange, "k")
    placement.owner.queue_unbind(queue, exchange, "k")
    confirmed(placement, exchange, "k")
    assert (count(placement, queue), count(placement, unrouted)) == (1, 1)


@pytest.mark.parametrize(("value", "shown"), [(1, "signedint"), (True, "bool"), ({"a": 1}, "table")])
def test_an_alternate_that_is_no_name_is_406(placement: Placement, value: object, shown: str) -> None:
    name = placement.name("x")
    text = f"PRECONDITION_FAILED - invalid type '{shown}' for arg 'alternate-exchange' in exchange '{name}' in vhost '/'"
    with channel_closed(406, text):
        placement.publisher.exchange_declare(name, "direct", arguments={"alternate-exchange": value})


@pytest.mark.parametrize(
    ("current", "received", "words"),
    [
        ("a", "b", "received 'b' but current is 'a'"),
        ("a", None, "received none but current is the value 'a' of type 'longstr'"),
        (None, "b", "received the value 'b' of type 'longstr' but current is none"),
    ],
)
def test_a_redeclare_with_another_alternate_is_406(placement: Placement, current: str, received: str, words: str) -> None:
    def arguments(alternate: str | None) -> dict[str, str]:
        return {} if alternate is None else {"alternate-exchange": alternate}

    name = placement.exchange("direct", arguments=arguments(current))
    placement.consumer.exchange_declare(name, "direct", arguments=arguments(current) | {"x-else": 1})
    text = f"PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange '{name}' in vhost '/': {words}"
    with channel_closed(406, text):
        placement.consumer.exchange_declare(name, "direct", arguments=arguments(received))
