"""The immediate flag: a message is delivered at once to some consumer of some queue, or comes back with 313. RabbitMQ refuses it."""

from __future__ import annotations

import pika
import pytest
from pika.spec import Basic, Confirm

from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement
from tests.returns import Returns, publish_immediate
from tests.wire import FRAME_BODY, FRAME_HEADER, WireClient, frame_bytes, header_payload, method_bytes

pytestmark = pytest.mark.not_on_peer("RabbitMQ refuses the flag")

KINDS = ["default exchange", "named exchange"]


def ready(placement: Placement, queue: str) -> int:
    return int(placement.owner.queue_declare(queue, passive=True).method.message_count)


def target(placement: Placement, kind: str) -> tuple[str, str, str]:
    """A queue, and exchange and routing key that lead to it."""
    queue = placement.queue()
    if kind == "default exchange":
        return queue, "", queue
    exchange = placement.exchange("direct")
    placement.owner.queue_bind(queue, exchange, "k")
    return queue, exchange, "k"


def waiting_consumer(placement: Placement, queue: str, **consume: bool) -> Inbox:
    """A consumer that has proven that it can take messages (one on another worker may do so a moment after consume-ok)."""
    inbox = Inbox(placement.consumer, queue, **consume)
    placement.owner.basic_publish("", queue, b"first")
    assert inbox.bodies(1) == [b"first"]
    return inbox


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("auto_ack", [False, True], ids=["acks", "no acks"])
def test_a_waiting_consumer_gets_the_message(placement: Placement, kind: str, auto_ack: bool) -> None:
    queue, exchange, key = target(placement, kind)
    inbox = waiting_consumer(placement, queue, auto_ack=auto_ack)
    returns = Returns(placement.publisher)
    for number in range(20):
        publish_immediate(placement.publisher, exchange, key, str(number).encode())
    assert inbox.bodies(20) == [str(number).encode() for number in range(20)]
    placement.publisher.queue_declare(queue, passive=True)
    assert returns.messages == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_consumer_the_message_comes_back_and_is_in_no_queue(placement: Placement, kind: str) -> None:
    queue, exchange, key = target(placement, kind)
    returns = Returns(placement.publisher)
    publish_immediate(placement.publisher, exchange, key, b"nobody")
    assert returns.wait(1) == [(313, "NO_CONSUMERS", exchange, key, b"nobody")]
    assert ready(placement, queue) == 0


def test_a_consumer_whose_prefetch_is_used_up_does_not_count(placement: Placement) -> None:
    queue = placement.queue()
    placement.consumer.basic_qos(prefetch_count=1)
    inbox = waiting_consumer(placement, queue)
    returns = Returns(placement.publisher)
    publish_immediate(placement.publisher, "", queue, b"busy")
    assert returns.wait(1) == [(313, "NO_CONSUMERS", "", queue, b"busy")]
    assert ready(placement, queue) == 0
    inbox.barrier()
    assert inbox.waiting == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_queue_at_all_is_no_consumer_or_if_mandatory_no_route(placement: Placement, kind: str) -> None:
    exchange = "" if kind == "default exchange" else "amq.direct"
    returns = Returns(placement.publisher)
    publish_immediate(placement.publisher, exchange, "no-such-key", b"1")
    publish_immediate(placement.publisher, exchange, "no-such-key", b"2", mandatory=True)
    assert returns.wait(2) == [
        (313, "NO_CONSUMERS", exchange, "no-such-key", b"1"),
        (312, "NO_ROUTE", exchange, "no-such-key", b"2"),
    ]


def test_of_several_queues_those_with_a_waiting_consumer_get_it_and_one_is_enough(placement: Placement) -> None:
    exchange = placement.exchange("fanout")
    served, unserved = placement.queue(), placement.queue()
    for queue in (served, unserved):
        placement.owner.queue_bind(queue, exchange)
    elsewhere = placement.consumer.queue_declare("", exclusive=True).method.queue
    placement.consumer.queue_bind(elsewhere, exchange)
    inbox = waiting_consumer(placement, served)
    returns = Returns(placement.publisher)
    publish_immediate(placement.publisher, exchange, "", b"one takes it")
    assert inbox.bodies(1) == [b"one takes it"]
    placement.publisher.queue_declare(served, passive=True)
    assert returns.messages == []
    assert ready(placement, unserved) == 0
    assert placement.consumer.queue_declare(elsewhere, passive=True).method.message_count == 0


def test_when_no_queue_of_several_has_a_consumer_it_comes_back_once(placement: Placement) -> None:
    exchange = placement.exchange("fanout")
    for owner in (placement.publisher, placement.owner, placement.consumer):
        queue = owner.queue_declare("", exclusive=True).method.queue
        owner.queue_bind(queue, exchange)
    returns = Returns(placement.publisher)
    publish_immediate(placement.publisher, exchange, "k", b"x")
    assert returns.wait(1) == [(313, "NO_CONSUMERS", exchange, "k", b"x")]
    publish_immediate(placement.publisher, exchange, "k", b"y")
    assert [message[4] for message in returns.wait(2)] == [b"x", b"y"]


def test_further_keys_count_like_the_first(placement: Placement) -> None:
    served, unserved = placement.queue(), placement.queue()
    inbox = waiting_consumer(placement, served)
    returns = Returns(placement.publisher)
    publish_immediate(placement.publisher, "", unserved, b"cc", pika.BasicProperties(headers={"CC": [served]}))
    assert inbox.bodies(1) == [b"cc"]
    publish_immediate(placement.publisher, "", unserved, b"back", pika.BasicProperties(headers={"CC": [placement.name()]}))
    assert [message[4] for message in returns.wait(1)] == [b"back"]
    assert ready(placement, unserved) == 0


def test_a_message_that_waits_is_not_overtaken(placement: Placement) -> None:
    """An ordinary message in the queue means that its consumers are busy, so an immediate one comes back rather than before it."""
    queue = placement.queue()
    placement.consumer.basic_qos(prefetch_count=1)
    inbox = waiting_consumer(placement, queue)
    placement.owner.basic_publish("", queue, b"second")
    returns = Returns(placement.publisher)
    assert ready(placement, queue) == 1
    publish_immediate(placement.publisher, "", queue, b"immediate")
    assert [message[4] for message in returns.wait(1)] == [b"immediate"]
    placement.consumer.basic_ack(0, multiple=True)
    assert inbox.bodies(1) == [b"second"]


def test_in_a_transaction_it_is_decided_at_the_commit(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.publisher
    channel.tx_select()
    returns = Returns(channel)
    publish_immediate(channel, "", queue, b"rolled back")
    channel.tx_rollback()
    publish_immediate(channel, "", queue, b"too early")
    channel.tx_commit()
    assert [message[4] for message in returns.wait(1)] == [b"too early"]
    publish_immediate(channel, "", queue, b"in time")
    inbox = waiting_consumer(placement, queue)
    channel.tx_commit()
    assert inbox.bodies(1) == [b"in time"]
    assert len(returns.messages) == 1


@pytest.mark.parametrize("exchange", ["", "amq.fanout"])
def test_the_return_precedes_the_confirm(broker: Broker, exchange: str) -> None:
    with broker.connect() as connection, WireClient.opened(broker) as client:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.fanout")
        client.open_channel().send_method(1, Confirm.Select())
        client.expect(Confirm.SelectOk)
        client.send(method_bytes(1, Basic.Publish(exchange=exchange, routing_key=queue, immediate=True)))
        client.send(frame_bytes(FRAME_HEADER, 1, header_payload(60, 1)) + frame_bytes(FRAME_BODY, 1, b"x"))
        returned = client.expect(Basic.Return, 1)
        assert (returned.reply_code, returned.reply_text) == (313, "NO_CONSUMERS")
        assert client.receive().body_size == 1
        assert client.receive().fragment == b"x"
        assert client.expect(Basic.Ack, 1).delivery_tag == 1
