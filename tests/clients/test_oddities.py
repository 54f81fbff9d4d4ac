"""Relics and leniencies: what hardly anybody sends, and RabbitMQ takes all the same."""

from __future__ import annotations

import pika.spec
import pytest
from pika.spec import Basic, Queue

from tests.node import Broker
from tests.placement import Placement
from tests.wire import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, WireClient, frame_bytes, header_payload, method_bytes

FRAME_MAX = 131072


def test_access_request_is_answered_with_ticket_1(broker: Broker) -> None:
    """A relic of AMQP 0-8: class 30, with a realm and five bits."""
    with WireClient.opened(broker) as client:
        client.open_channel().send(frame_bytes(FRAME_METHOD, 1, b"\0\x1e\0\x0a\x05/data\x1f"))
        answer = client.receive_exactly(7 + 6 + 1)
        assert answer == frame_bytes(FRAME_METHOD, 1, b"\0\x1e\0\x0b\0\x01")


def test_no_local_is_taken_and_makes_no_difference(placement: Placement) -> None:
    queue = placement.queue()
    with WireClient.opened(placement.broker) as client:
        client.open_channel().send_method(1, Basic.Consume(queue=queue, consumer_tag="t", no_local=True, no_ack=True))
        client.expect(Basic.ConsumeOk)
        client.send(method_bytes(1, Basic.Publish(exchange="", routing_key=queue)))
        client.send(frame_bytes(FRAME_HEADER, 1, header_payload(60, 0)))
        assert client.expect(Basic.Deliver).consumer_tag == "t", "its own message"


def test_a_frame_may_be_eight_bytes_too_large(broker: Broker) -> None:
    """Clients disagree whether frame_max counts the eight bytes around a payload."""
    with WireClient.opened(broker) as client:
        client.open_channel().send_method(1, Queue.Declare(queue="", exclusive=True))
        queue = client.expect(Queue.DeclareOk).queue
        body = b"x" * FRAME_MAX
        client.send(method_bytes(1, Basic.Publish(exchange="", routing_key=queue)))
        client.send(frame_bytes(FRAME_HEADER, 1, header_payload(60, len(body))) + frame_bytes(FRAME_BODY, 1, body))
        client.send_method(1, Basic.Get(queue=queue, no_ack=True))
        client.expect(Basic.GetOk)
        assert client.receive().body_size == FRAME_MAX
        first, second = client.receive().fragment, client.receive().fragment
        assert (len(first), first + second) == (FRAME_MAX - 8, body), "and the answer is of the right size"


def test_an_exclusive_queue_is_never_durable(placement: Placement) -> None:
    queue = placement.name()
    for durable in (True, False, True):
        placement.owner.queue_declare(queue, durable=durable, exclusive=True)


@pytest.mark.parametrize("method", ["queue.delete", "queue.unbind", "exchange.delete", "exchange.unbind", "basic.cancel"])
def test_removing_what_is_not_there_is_answered(placement: Placement, method: str) -> None:
    channel = placement.consumer
    {
        "queue.delete": lambda: channel.queue_delete("missing"),
        "queue.unbind": lambda: channel.queue_unbind(placement.queue(), placement.exchange("direct"), "never bound"),
        "exchange.delete": lambda: channel.exchange_delete("missing"),
        "exchange.unbind": lambda: channel.exchange_unbind(placement.exchange("direct"), placement.exchange("direct"), "never bound"),
        "basic.cancel": lambda: channel._impl._rpc(pika.spec.Basic.Cancel(consumer_tag="nobody"), None, [pika.spec.Basic.CancelOk]),
    }[method]()
    channel.queue_declare("", exclusive=True)
    assert channel.is_open
