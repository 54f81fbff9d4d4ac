"""Exchanges by pika: declare, passive, redeclare, delete, reserved names, bindings between exchanges."""

from __future__ import annotations

from typing import Any

import pytest

from tests.node import Broker
from tests.placement import Placement
from tests.refusal import channel_closed


@pytest.mark.parametrize("name", ["", "amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"])
def test_the_predeclared_exchanges_are_there(broker: Broker, name: str) -> None:
    with broker.connect() as connection:
        connection.channel().exchange_declare(name or "amq.direct", passive=True)


@pytest.mark.parametrize("exchange_type", ["direct", "fanout", "topic"])
@pytest.mark.parametrize("durable", [False, True])
def test_an_exchange_is_declared_once_and_found_from_everywhere(placement: Placement, exchange_type: str, durable: bool) -> None:
    exchange = placement.exchange(exchange_type, durable=durable)
    placement.consumer.exchange_declare(exchange, exchange_type, durable=durable)
    placement.owner.exchange_declare(exchange, passive=True)


def test_a_passive_declare_of_a_missing_exchange_is_404(placement: Placement) -> None:
    with channel_closed(404, "NOT_FOUND - no exchange 'missing' in vhost '/'"):
        placement.consumer.exchange_declare("missing", passive=True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"exchange_type": "fanout"},
            "inequivalent arg 'type' for exchange '{name}' in vhost '/': received 'fanout' but current is 'direct'",
        ),
        ({"durable": True}, "inequivalent arg 'durable' for exchange '{name}' in vhost '/': received 'true' but current is 'false'"),
        (
            {"auto_delete": True},
            "inequivalent arg 'auto_delete' for exchange '{name}' in vhost '/': received 'true' but current is 'false'",
        ),
        ({"internal": True}, "inequivalent arg 'internal' for exchange '{name}' in vhost '/': received 'true' but current is 'false'"),
    ],
    ids=["type", "durable", "auto_delete", "internal"],
)
def test_an_inequivalent_redeclare_is_406(placement: Placement, change: dict[str, Any], text: str) -> None:
    exchange = placement.exchange("direct")
    with channel_closed(406, "PRECONDITION_FAILED - " + text.format(name=exchange)):
        placement.consumer.exchange_declare(exchange, **({"exchange_type": "direct"} | change))


@pytest.mark.not_on_peer("3.10 closes the connection with 503 instead")
def test_an_unknown_exchange_type_is_406(placement: Placement) -> None:
    with channel_closed(406, "PRECONDITION_FAILED - unknown exchange type 'x-foo'"):
        placement.publisher.exchange_declare(placement.name("x"), "x-foo")


def test_a_new_exchange_with_a_reserved_name_is_403(placement: Placement) -> None:
    with channel_closed(403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"):
        placement.publisher.exchange_declare("amq.mine", "direct")


def test_an_equal_redeclare_of_a_predeclared_exchange_is_allowed(placement: Placement) -> None:
    placement.publisher.exchange_declare("amq.direct", "direct", durable=True)
    assert placement.publisher.is_open


def test_the_default_exchange_can_be_neither_declared_deleted_bound_nor_unbound(placement: Placement) -> None:
    queue = placement.queue()
    text = "ACCESS_REFUSED - operation not permitted on the default exchange"
    connection = placement.connect(placement.sites.publisher)
    with channel_closed(403, text):
        connection.channel().exchange_declare("", "direct")
    with channel_closed(403, text):
        connection.channel().exchange_delete("")
    with channel_closed(403, text):
        connection.channel().queue_bind(queue, "", "key")
    with channel_closed(403, text):
        connection.channel().queue_unbind(queue, "", queue)
    with channel_closed(403, text):
        connection.channel().exchange_bind("", "amq.fanout", "key")


@pytest.mark.parametrize("name", ["amq.direct", "amq.topic"])
def test_a_predeclared_exchange_cannot_be_deleted(placement: Placement, name: str) -> None:
    with channel_closed(403, f"ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed"):
        placement.publisher.exchange_delete(name)


def test_a_deleted_exchange_is_gone_for_every_worker(placement: Placement) -> None:
    exchange = placement.exchange("fanout")
    placement.consumer.exchange_delete(exchange)
    with channel_closed(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"):
        placement.publisher.exchange_declare(exchange, passive=True)


def test_deleting_a_missing_exchange_succeeds(placement: Placement) -> None:
    placement.publisher.exchange_delete(placement.name("x"))
    assert placement.publisher.is_open


def test_delete_if_unused_refuses_while_bound(placement: Placement) -> None:
    exchange, queue = placement.exchange("direct"), placement.queue()
    placement.owner.queue_bind(queue, exchange, "k")
    with channel_closed(406, f"PRECONDITION_FAILED - exchange '{exchange}' in vhost '/' in use"):
        placement.consumer.exchange_delete(exchange, if_unused=True)
    placement.owner.queue_unbind(queue, exchange, "k")
    placement.publisher.exchange_delete(exchange, if_unused=True)
    with channel_closed(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"):
        placement.publisher.exchange_declare(exchange, passive=True)


def test_an_auto_delete_exchange_goes_with_its_last_binding(placement: Placement) -> None:
    exchange = placement.exchange("direct", auto_delete=True)
    queue = placement.queue()
    placement.owner.queue_bind(queue, exchange, "a")
    placement.owner.queue_bind(queue, exchange, "b")
    placement.owner.queue_unbind(queue, exchange, "a")
    placement.consumer.exchange_declare(exchange, passive=True)
    placement.owner.queue_unbind(queue, exchange, "b")
    with channel_closed(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"):
        placement.consumer.exchange_declare(exchange, passive=True)


def test_publishing_to_a_missing_exchange_is_404(placement: Placement) -> None:
    channel = placement.publisher
    with channel_closed(404, "NOT_FOUND - no exchange 'missing' in vhost '/'"):
        channel.basic_publish("missing", "k", b"")
        channel.queue_declare("", exclusive=True)


def test_publishing_to_an_internal_exchange_is_403(placement: Placement) -> None:
    exchange = placement.exchange("fanout", internal=True)
    channel = placement.publisher
    with channel_closed(403, f"ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'"):
        channel.basic_publish(exchange, "k", b"")
        channel.queue_declare("", exclusive=True)


@pytest.mark.parametrize("role", ["source", "destination"])
def test_binding_a_missing_exchange_to_an_exchange_is_404(placement: Placement, role: str) -> None:
    ends = {"source": placement.exchange("direct"), "destination": placement.exchange("direct")} | {role: "missing"}
    with channel_closed(404, "NOT_FOUND - no exchange 'missing' in vhost '/'"):
        placement.consumer.exchange_bind(ends["destination"], ends["source"], "k")


def test_a_binding_between_exchanges_forwards_until_it_is_unbound(placement: Placement) -> None:
    outer, inner = placement.exchange("direct"), placement.exchange("fanout", internal=True)
    queue = placement.queue()
    placement.owner.exchange_bind(inner, outer, "in")
    placement.owner.queue_bind(queue, inner)
    channel = placement.publisher
    channel.confirm_delivery()
    channel.basic_publish(outer, "in", b"forwarded", mandatory=True)
    assert placement.consumer.basic_get(queue, auto_ack=True)[2] == b"forwarded"
    placement.owner.exchange_unbind(inner, outer, "in")
    channel.basic_publish(outer, "in", b"lost")
    assert placement.consumer.basic_get(queue, auto_ack=True)[0] is None
