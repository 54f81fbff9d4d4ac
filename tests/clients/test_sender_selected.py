"""Sender-selected distribution: further routing keys in the headers CC and BCC."""

from __future__ import annotations

from typing import Any

import pika
import pytest

from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed
from tests.returns import Returns


def publish(placement: Placement, exchange: str, key: str, headers: dict[str, Any], **publish: Any) -> None:
    placement.publisher.basic_publish(exchange, key, b"body", pika.BasicProperties(headers=headers), **publish)


def received(placement: Placement, queue: str) -> list[tuple[str, dict[str, Any] | None]]:
    """Routing key and headers of all that the queue has; it is emptied."""
    messages = []
    while (got := placement.owner.basic_get(queue, auto_ack=True))[0] is not None:
        method, properties, _ = got
        messages.append((method.routing_key, properties.headers))
    return messages


def settle(placement: Placement) -> None:
    """What the publisher has sent is in its queues."""
    placement.publisher.basic_publish("", marker := placement.queue(), b"")
    for queue in (marker, *placement._queues):
        placement.publisher.queue_declare(queue, passive=True)


@pytest.mark.parametrize("kind", ["default", "direct", "topic"])
def test_the_queues_of_all_keys_get_the_message_with_its_own_key(placement: Placement, kind: str) -> None:
    queues = [placement.queue() for _ in range(4)]
    exchange = "" if kind == "default" else placement.exchange(kind)
    keys = queues if kind == "default" else ["a", "b", "c", "d"]
    if exchange:
        for queue, key in zip(queues, keys, strict=True):
            placement.owner.queue_bind(queue, exchange, key)
    publish(placement, exchange, keys[0], {"CC": [keys[1]], "BCC": [keys[2]], "other": 1})
    settle(placement)
    expected = [(keys[0], {"CC": [keys[1]], "other": 1})]
    assert [received(placement, queue) for queue in queues] == [expected, expected, expected, []]


def test_bcc_alone_leaves_no_trace(placement: Placement) -> None:
    open_, secret = placement.queue(), placement.queue()
    publish(placement, "", open_, {"BCC": [secret], "n": 1})
    settle(placement)
    assert received(placement, open_) == received(placement, secret) == [(open_, {"n": 1})]


def test_an_empty_table_is_left_when_bcc_was_all_of_it(placement: Placement) -> None:
    queue = placement.queue()
    publish(placement, "", queue, {"BCC": ["nobody"]})
    settle(placement)
    assert received(placement, queue) == [(queue, {})]


@pytest.mark.parametrize("kind", ["default", "direct", "fanout"])
def test_a_queue_gets_one_copy_however_many_keys_lead_to_it(placement: Placement, kind: str) -> None:
    queue = placement.queue()
    exchange = "" if kind == "default" else placement.exchange(kind)
    keys = [queue] if kind == "default" else ["a", "b", "c"]
    for key in keys if exchange else []:
        placement.owner.queue_bind(queue, exchange, key)
    publish(placement, exchange, keys[0], {"CC": [keys[-1], keys[0]], "BCC": [keys[0], keys[-1]]})
    settle(placement)
    assert len(received(placement, queue)) == 1


@pytest.mark.parametrize("kind", ["default", "direct"])
def test_mandatory_is_content_with_any_of_the_keys(placement: Placement, kind: str) -> None:
    queue = placement.queue()
    exchange, key = ("", queue) if kind == "default" else (placement.exchange("direct"), "k")
    if exchange:
        placement.owner.queue_bind(queue, exchange, key)
    returns = Returns(placement.publisher)
    publish(placement, exchange, "nowhere", {"CC": ["nowhere either", key]}, mandatory=True)
    publish(placement, exchange, "nowhere", {"BCC": [key]}, mandatory=True)
    publish(placement, exchange, "nowhere", {"CC": ["nowhere either"], "BCC": []}, mandatory=True)
    assert returns.wait(1) == [(312, "NO_ROUTE", exchange, "nowhere", b"body")]
    settle(placement)
    assert len(received(placement, queue)) == 2
    assert len(returns.messages) == 1


@pytest.mark.parametrize("kind", ["default", "direct"])
def test_a_confirm_speaks_for_all_the_queues(placement: Placement, kind: str) -> None:
    """The queues are on all workers; when the confirm is there, each has the message."""
    owners = [placement.publisher, placement.owner, placement.consumer, placement.owner]
    queues = [owner.queue_declare("", exclusive=True).method.queue for owner in owners]
    exchange = "" if kind == "default" else placement.exchange("direct")
    if exchange:
        for owner, queue in zip(owners, queues, strict=True):
            owner.queue_bind(queue, exchange, queue)
    channel = placement.publisher.connection.channel()
    channel.confirm_delivery()
    for number in range(1, 31):
        channel.basic_publish(exchange, queues[0], b"x", pika.BasicProperties(headers={"CC": queues[1:3], "BCC": queues[3:]}))
        counts = [owner.queue_declare(queue, passive=True).method.message_count for owner, queue in zip(owners, queues, strict=True)]
        assert counts == [number] * 4


def test_many_keys_at_once(placement: Placement) -> None:
    queues = [placement.queue() for _ in range(5)]
    keys = [f"nobody-{number}" for number in range(2000)]
    publish(placement, "", "nobody", {"CC": keys[:1000] + queues[:3], "BCC": queues[3:] + keys[1000:]})
    settle(placement)
    assert [len(received(placement, queue)) for queue in queues] == [1] * 5


@pytest.mark.parametrize("header", ["CC", "BCC"])
@pytest.mark.parametrize(
    ("value", "shown"), [("a", "longstr"), (1, "signedint"), ({"a": 1}, "table"), (True, "bool"), (None, "void")], ids=repr
)
def test_anything_but_an_array_is_406(placement: Placement, header: str, value: Any, shown: str) -> None:
    queue = placement.queue()
    text = f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{header}",{shown}}}'
    with channel_closed(406, text):
        publish(placement, "", queue, {header: value})
        placement.publisher.queue_declare(queue, passive=True)
    assert placement.owner.queue_declare(queue, passive=True).method.message_count == 0


def test_elements_that_are_not_strings_are_passed_over(placement: Placement) -> None:
    queue = placement.queue()
    publish(placement, "", "nowhere", {"CC": [1, True, queue, None, {"a": 1}]})
    settle(placement)
    assert received(placement, queue) == [("nowhere", {"CC": [1, True, queue, None, {"a": 1}]})]


def test_keys_are_matched_as_topics_too(placement: Placement) -> None:
    exchange = placement.exchange("topic")
    queues = {pattern: placement.queue() for pattern in ("eu.#", "*.de", "us.#")}
    for pattern, queue in queues.items():
        placement.owner.queue_bind(queue, exchange, pattern)
    publish(placement, exchange, "asia.jp", {"CC": ["eu.de"], "BCC": ["us.ny.nyc"]})
    settle(placement)
    assert [len(received(placement, queue)) for queue in queues.values()] == [1, 1, 1]


def test_keys_go_through_bindings_between_exchanges(placement: Placement) -> None:
    outer, inner, queue = placement.exchange("fanout"), placement.exchange("direct"), placement.queue()
    placement.owner.exchange_bind(inner, outer)
    placement.owner.queue_bind(queue, inner, "k")
    publish(placement, outer, "nowhere", {"CC": ["k"]})
    settle(placement)
    assert received(placement, queue) == [("nowhere", {"CC": ["k"]})]


def test_in_a_transaction_they_go_with_the_commit(placement: Placement) -> None:
    first, second, exchange = placement.queue(), placement.queue(), placement.exchange("direct")
    placement.owner.queue_bind(first, exchange, "k")
    placement.publisher.tx_select()
    publish(placement, "", first, {"BCC": [second]})
    publish(placement, exchange, "nowhere", {"CC": ["k"]})
    placement.publisher.basic_publish("", second, b"plain")
    placement.publisher.tx_commit()
    assert received(placement, first) == [(first, {}), ("nowhere", {"CC": ["k"]})]
    assert received(placement, second) == [(first, {}), (second, None)]


def test_large_bodies_are_copied_whole(placement: Placement) -> None:
    queues = [placement.queue() for _ in range(3)]
    body = bytes(range(256)) * 2000
    placement.publisher.basic_publish("", queues[0], body, pika.BasicProperties(headers={"CC": queues[1:]}))
    for queue in queues:
        assert Inbox(placement.consumer, queue, auto_ack=True).bodies(1) == [body]
