"""Publishing by pika: bodies, properties and headers carried untouched, mandatory returns, publisher confirms."""

from __future__ import annotations

import datetime
import decimal
import os
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.placement import Placement
from tests.refusal import channel_closed

FRAME_MAX = 131072


@pytest.mark.parametrize(
    "size", [0, 1, 7, 4096, FRAME_MAX - 9, FRAME_MAX - 8, FRAME_MAX - 7, 2 * (FRAME_MAX - 8), 1_000_003, 16 * 1024 * 1024]
)
def test_a_body_of_any_size_arrives_whole(placement: Placement, size: int) -> None:
    queue = placement.queue()
    body = os.urandom(min(size, 1 << 20)) * (max(size >> 20, 1))
    assert len(body) == size
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish("", queue, body, mandatory=True)
    assert Inbox(placement.consumer, queue, auto_ack=True).take_one().body == body


@pytest.mark.not_on_peer("3.10 allows 128 MiB")
def test_a_body_beyond_the_largest_message_is_406_and_the_channel_alone_closes(placement: Placement) -> None:
    queue = placement.queue()
    connection = placement.connect(placement.sites.publisher)
    channel, sound = connection.channel(), connection.channel()
    size = 16 * 1024 * 1024 + 1
    with channel_closed(406, f"PRECONDITION_FAILED - message size {size} is larger than configured max size 16777216"):
        channel.basic_publish("", queue, bytes(size))
        channel.queue_declare(queue, passive=True)
    assert sound.queue_declare(queue, passive=True).method.message_count == 0


PROPERTIES = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "delivery_mode": 2,
    "priority": 7,
    "correlation_id": "c-1",
    "reply_to": "answers",
    "expiration": "60000",
    "message_id": "m-1",
    "timestamp": 1_700_000_000,
    "type": "greeting",
    "user_id": "guest",
    "app_id": "suite",
    "cluster_id": "none",
}


@pytest.mark.parametrize("names", [[], *[[name] for name in PROPERTIES], list(PROPERTIES)], ids=lambda names: "+".join(names) or "none")
def test_properties_arrive_as_they_were_sent(placement: Placement, names: list[str]) -> None:
    queue = placement.queue()
    sent = pika.BasicProperties(**{name: PROPERTIES[name] for name in names})
    placement.publisher.basic_publish("", queue, b"x", sent)
    assert Inbox(placement.consumer, queue, auto_ack=True).take_one().properties == sent


HEADERS: dict[str, Any] = {
    "str": "text",
    "empty": "",
    "umlaut": "grün",
    "bytes": b"\x00\xff",
    "true": True,
    "false": False,
    "int": 2**31 - 1,
    "negative": -(2**31),
    "long": 2**63 - 1,
    "negative long": -(2**63),
    "decimal": decimal.Decimal("3.14"),
    "time": datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC),
    "void": None,
    "table": {"a": {"b": {"c": [1, "two", [3], {"d": None}]}}},
    "array": [1, "x", None, True, {"k": "v"}, [], {}],
    "x" * 128: "a name of RabbitMQ's longest kind",
}


@pytest.mark.parametrize(
    "names", [*[[name] for name in HEADERS], list(HEADERS)], ids=lambda names: names[0][:20] if len(names) == 1 else "all"
)
def test_headers_of_every_type_arrive_as_they_were_sent(placement: Placement, names: list[str]) -> None:
    queue = placement.queue()
    headers = {name: HEADERS[name] for name in names}
    placement.publisher.basic_publish("", queue, b"x", pika.BasicProperties(headers=headers))
    assert Inbox(placement.consumer, queue, auto_ack=True).take_one().properties.headers == headers


def test_a_long_run_of_headers_arrives(placement: Placement) -> None:
    queue = placement.queue()
    headers = {f"header-{number}": number for number in range(3000)}
    placement.publisher.basic_publish("", queue, b"", pika.BasicProperties(headers=headers))
    assert Inbox(placement.consumer, queue, auto_ack=True).take_one().properties.headers == headers


@pytest.mark.parametrize("key", ["", "k" * 255, "ключ", "a b\tc"])
def test_a_routing_key_arrives_as_it_was_sent(placement: Placement, key: str) -> None:
    exchange, queue = placement.exchange("fanout"), placement.queue()
    placement.owner.queue_bind(queue, exchange)
    placement.publisher.basic_publish(exchange, key, b"x")
    delivery = Inbox(placement.consumer, queue, auto_ack=True).take_one()
    assert (delivery.method.exchange, delivery.method.routing_key) == (exchange, key)


class Returns:
    """What came back to a publishing channel, in order, with what was confirmed."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.methods: list[pika.spec.Basic.Return] = []
        self.contents: list[tuple[pika.BasicProperties, bytes]] = []
        channel.add_on_return_callback(self._on_return)
        self.channel = channel

    def _on_return(self, _: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self.methods.append(method)
        self.contents.append((properties, body))

    def wait(self, count: int) -> None:
        """Wait for `count` returns."""

        def look() -> bool:
            self.channel.connection.process_data_events(time_limit=0.5)
            return len(self.methods) >= count

        assert eventually(look, what=f"{count} returns")


@pytest.mark.parametrize("exchange", ["", "amq.direct", "amq.fanout", "amq.topic"])
def test_an_unroutable_mandatory_message_comes_back_whole(placement: Placement, exchange: str) -> None:
    returns = Returns(placement.publisher)
    properties = pika.BasicProperties(headers={"n": 1}, message_id="m")
    key = placement.name("unbound")
    body = os.urandom(300_000)
    if exchange == "amq.fanout":
        exchange = placement.exchange("fanout")  # the predeclared one may be bound by another test
    placement.publisher.basic_publish(exchange, key, body, properties, mandatory=True)
    returns.wait(1)
    method = returns.methods[0]
    assert (method.reply_code, method.reply_text, method.exchange, method.routing_key) == (312, "NO_ROUTE", exchange, key)
    assert returns.contents == [(properties, body)]


def test_an_unroutable_message_that_is_not_mandatory_vanishes(placement: Placement) -> None:
    returns = Returns(placement.publisher)
    placement.publisher.basic_publish("", placement.name("nowhere"), b"lost")
    placement.publisher.basic_publish("amq.direct", placement.name("nowhere"), b"lost")
    placement.publisher.basic_publish("", placement.name("nowhere"), b"seen", mandatory=True)
    returns.wait(1)
    assert [body for _, body in returns.contents] == [b"seen"]


@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_an_unroutable_mandatory_message_is_returned_before_it_is_confirmed(placement: Placement, exchange: str) -> None:
    placement.publisher.confirm_delivery()
    with pytest.raises(UnroutableError) as unroutable:
        placement.publisher.basic_publish(exchange, placement.name("nowhere"), b"back", mandatory=True)
    assert [message.body for message in unroutable.value.messages] == [b"back"]
    assert placement.publisher.is_open


@pytest.mark.parametrize("exchange", ["", "amq.direct"])
def test_an_unroutable_message_is_confirmed(placement: Placement, exchange: str) -> None:
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish(exchange, placement.name("nowhere"), b"gone")  # returns at the ack, raises at a nack


@pytest.mark.parametrize("kind", ["default", "direct", "fanout", "topic"])
def test_a_confirmed_message_is_in_the_queue(placement: Placement, kind: str) -> None:
    queue = placement.queue()
    exchange, key = "", queue
    if kind != "default":
        exchange, key = placement.exchange(kind), "k"
        placement.owner.queue_bind(queue, exchange, key)
    placement.publisher.confirm_delivery()
    for number in range(50):
        placement.publisher.basic_publish(exchange, key, b"x", mandatory=True)
        assert placement.owner.queue_declare(queue, passive=True).method.message_count == number + 1


def test_confirm_select_twice_is_harmless(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.publisher
    channel.confirm_delivery()
    channel._impl.confirm_delivery(ack_nack_callback=lambda _: None)  # the blocking adapter itself sends it once only
    channel.basic_publish("", queue, b"x", mandatory=True)
    assert placement.owner.queue_declare(queue, passive=True).method.message_count == 1


def test_a_transient_message_goes_through_a_durable_queue_and_a_persistent_one_through_a_transient_queue(placement: Placement) -> None:
    for durable, mode in ((True, 1), (False, 2)):
        queue = placement.queue(durable=durable)
        placement.publisher.basic_publish("", queue, b"x", pika.BasicProperties(delivery_mode=mode))
        assert Inbox(placement.consumer, queue, auto_ack=True).take_one().properties.delivery_mode == mode


@pytest.mark.not_on_peer("RabbitMQ answers it with 540")
@pytest.mark.parametrize("kind", ["default", "fanout"])
def test_an_immediate_message_is_delivered_at_once_or_comes_back(placement: Placement, kind: str) -> None:
    queue = placement.queue()
    exchange, key = "", queue
    if kind != "default":
        exchange, key = placement.exchange(kind), "k"
        placement.owner.queue_bind(queue, exchange, key)
    channel = placement.publisher
    returns = Returns(channel)

    def publish(body: bytes) -> None:
        # pika's own publish has no such flag any more; the method and its content are sent by its parts.
        method = pika.spec.Basic.Publish(exchange=exchange, routing_key=key, immediate=True)
        channel._impl._send_method(method, (pika.BasicProperties(), body))
        channel.connection.process_data_events(time_limit=0)  # writes it out

    publish(b"nobody is there")
    returns.wait(1)
    assert (returns.methods[0].reply_code, returns.methods[0].reply_text) == (313, "NO_CONSUMERS")
    assert returns.contents[0][1] == b"nobody is there"
    inbox = Inbox(placement.consumer, queue, auto_ack=True)
    publish(b"now")
    assert inbox.bodies(1) == [b"now"]
    assert placement.owner.queue_declare(queue, passive=True).method.message_count == 0


@pytest.mark.parametrize("user_id", ["somebody", ""])
def test_a_user_id_that_is_not_the_logins_is_406(placement: Placement, user_id: str) -> None:
    channel = placement.publisher
    text = f"PRECONDITION_FAILED - user_id property set to '{user_id}' but authenticated user was 'guest'"
    with channel_closed(406, text):
        channel.basic_publish("amq.direct", "k", b"", pika.BasicProperties(user_id=user_id))
        channel.queue_declare("", exclusive=True)
