"""What a client hears, and in which order, where client libraries do not show it. Found by the differential test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from pika.spec import Basic, Channel, Connection, Exchange, Queue

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement
from tests.wire import FRAME_HEARTBEAT, WireClient, frame_bytes


@pytest.fixture
def client(broker: Broker) -> Iterator[WireClient]:
    """An open connection with channel 1 open."""
    with WireClient.opened(broker) as opened:
        yield opened.open_channel()


@pytest.fixture
def queue() -> str:
    return f"q-{uuid.uuid4().hex[:12]}"


def consume(client: WireClient, queue: str, *tags: str) -> None:
    for tag in tags:
        client.send_method(1, Basic.Consume(queue=queue, consumer_tag=tag))
        client.expect(Basic.ConsumeOk)


def test_who_deletes_a_queue_is_answered_before_its_consumers_are_cancelled(client: WireClient, queue: str) -> None:
    client.send_method(1, Queue.Declare(queue=queue))
    client.expect(Queue.DeclareOk)
    consume(client, queue, "one", "two")
    client.send_method(1, Queue.Delete(queue=queue))
    client.expect(Queue.DeleteOk)
    assert {client.expect(Basic.Cancel).consumer_tag for _ in range(2)} == {"one", "two"}


def test_a_consumer_on_another_channel_hears_of_the_end_of_its_queue(client: WireClient, queue: str) -> None:
    client.send_method(1, Queue.Declare(queue=queue))
    client.expect(Queue.DeclareOk)
    consume(client, queue, "one")
    client.open_channel(2)
    client.send_method(2, Queue.Delete(queue=queue, nowait=True))
    assert client.expect(Basic.Cancel, 1).consumer_tag == "one"


def test_exclusive_queues_are_gone_when_the_client_hears_of_a_hard_error(broker: Broker, client: WireClient, queue: str) -> None:
    client.send_method(1, Queue.Declare(queue=queue, exclusive=True))
    client.expect(Queue.DeclareOk)
    client.send_method(1, Channel.Open())
    assert client.expect(Connection.Close, 0).reply_code == 504
    with WireClient.opened(broker) as other:
        other.open_channel()
        other.send_method(1, Queue.Declare(queue=queue, passive=True))
        other.expect_channel_close(1, 404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", 50, 10)


def test_the_answer_to_a_close_after_a_malformed_frame_ends_the_connection(client: WireClient) -> None:
    """The test's own patience is what fails it: a broker that reads no more would end the connection by a timer."""
    client.send(frame_bytes(FRAME_HEARTBEAT, 0, b"not empty"))
    assert client.expect(Connection.Close, 0).reply_code == 501
    client.socket.settimeout(2.0)
    client.send_method(0, Connection.CloseOk())
    assert client.expect_end() == b""


def test_a_channel_that_waits_for_close_ok_cannot_be_opened(client: WireClient) -> None:
    client.send_method(1, Basic.Get(queue="none-such"))
    assert client.expect(Channel.Close, 1).reply_code == 404
    client.send_method(1, Channel.Open())
    client.expect_connection_close(504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10)


def test_close_ok_on_an_open_channel_is_no_method_of_a_client(client: WireClient) -> None:
    client.send_method(1, Channel.CloseOk())
    client.expect_connection_close(503, "COMMAND_INVALID - unimplemented method", 20, 41)


def test_line_breaks_vanish_from_names_that_are_declared_bound_or_deleted(client: WireClient, queue: str) -> None:
    broken = f"\r{queue}\n"
    client.send_method(1, Queue.Declare(queue=broken))
    assert client.expect(Queue.DeclareOk).queue == queue
    client.send_method(1, Exchange.Declare(exchange=broken, type="fanout"))
    client.expect(Exchange.DeclareOk)
    client.send_method(1, Queue.Bind(queue=broken, exchange=broken))
    client.expect(Queue.BindOk)
    client.send_method(1, Exchange.Bind(source=broken, destination="amq.fanout"))
    client.expect(Exchange.BindOk)
    client.send_method(1, Exchange.Unbind(source=queue, destination="amq.fanout"))
    client.expect(Exchange.UnbindOk)
    client.send_method(1, Queue.Unbind(queue=queue, exchange=broken))
    client.expect(Queue.UnbindOk)
    for operation, ids in ((Basic.Get, (60, 70)), (Basic.Consume, (60, 20)), (Queue.Purge, (50, 30))):
        client.send_method(1, operation(queue=broken))
        client.expect_channel_close(1, 404, f"NOT_FOUND - no queue '{broken}' in vhost '/'", *ids)
    client.send_method(1, Queue.Delete(queue=broken))
    client.expect(Queue.DeleteOk)
    client.send_method(1, Exchange.Delete(exchange=broken))
    client.expect(Exchange.DeleteOk)
    client.send_method(1, Queue.Declare(queue=queue, passive=True))
    client.expect_channel_close(1, 404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", 50, 10)


def test_what_comes_back_from_a_closed_channel_goes_to_no_other_consumer_of_it(placement: Placement) -> None:
    """Else it would be lost: the other one acknowledges nothing, and its channel is gone."""
    queue = placement.queue()
    for number in range(20):
        placement.publisher.basic_publish("", queue, b"%d" % number)
    holder = Inbox(placement.consumer, queue)
    holder.take(20)
    Inbox(placement.consumer, queue, auto_ack=True)
    placement.consumer.close()
    assert eventually(lambda: placement.owner.queue_declare(queue, passive=True).method.message_count == 20)


def test_the_shared_limit_is_nothing_to_a_consumer_without_acks(placement: Placement) -> None:
    queue, other = placement.queue(), placement.queue()
    placement.consumer.basic_qos(prefetch_count=1, global_qos=True)
    held = Inbox(placement.consumer, other)
    free = Inbox(placement.consumer, queue, auto_ack=True)
    placement.publisher.basic_publish("", other, b"held")
    held.take_one()
    for number in range(3):
        placement.publisher.basic_publish("", queue, b"%d" % number)
    assert free.bodies(3) == [b"0", b"1", b"2"]


def test_a_limit_for_each_consumer_lifts_the_shared_one(placement: Placement) -> None:
    queue = placement.queue()
    placement.consumer.basic_qos(prefetch_count=1, global_qos=True)
    placement.consumer.basic_qos(prefetch_count=3)
    inbox = Inbox(placement.consumer, queue)
    for number in range(4):
        placement.publisher.basic_publish("", queue, b"%d" % number)
    assert inbox.bodies(3) == [b"0", b"1", b"2"]
    assert eventually(lambda: inbox.barrier() == 1)
    assert inbox.waiting == []
