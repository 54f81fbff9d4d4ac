"""channel.flow by the client: deliveries stop with flow-ok and go on where they stopped. RabbitMQ refuses it."""

from __future__ import annotations

import pytest
from pika.spec import Basic, Channel, Queue

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement
from tests.wire import WireClient, publish_bytes

pytestmark = pytest.mark.not_on_peer("RabbitMQ refuses channel.flow with active=false")


def fill(placement: Placement, queue: str, numbers: range) -> list[bytes]:
    """Publish the numbers, and be sure that the queue has them."""
    bodies = [str(number).encode() for number in numbers]
    for body in bodies:
        placement.owner.basic_publish("", queue, body)
    placement.owner.queue_declare(queue, passive=True)
    return bodies


@pytest.mark.parametrize("auto_ack", [False, True], ids=["acks", "no acks"])
def test_nothing_is_delivered_while_the_flow_is_stopped(placement: Placement, auto_ack: bool) -> None:
    queue = placement.queue()
    channel = placement.consumer
    inbox = Inbox(channel, queue, auto_ack=auto_ack)
    before = fill(placement, queue, range(5))
    assert inbox.bodies(5) == before
    assert channel.flow(active=False) is False
    during = fill(placement, queue, range(5, 200))
    inbox.barrier()
    assert inbox.waiting == []
    # They are in the queue, for whoever else may want them, and not on their way.
    assert placement.owner.queue_declare(queue, passive=True).method.message_count == 195
    assert channel.flow(active=True) is True
    assert inbox.bodies(195) == during
    after = fill(placement, queue, range(200, 210))
    assert inbox.bodies(10) == after


def test_a_consumer_that_comes_to_a_stopped_channel_waits_too(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, range(3))
    channel = placement.consumer
    channel.flow(active=False)
    inbox = Inbox(channel, queue)
    inbox.barrier()
    assert inbox.waiting == []
    channel.flow(active=True)
    assert inbox.bodies(3) == bodies


def test_a_stopped_channel_still_gets_acks_and_publishes(placement: Placement) -> None:
    queue, other = placement.queue(), placement.queue()
    fill(placement, queue, range(2))
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    first = inbox.take(2)
    channel.flow(active=False)
    channel.basic_ack(first[1].tag, multiple=True)
    channel.basic_publish("", other, b"published")
    assert eventually(lambda: channel.basic_get(other, auto_ack=True)[2] == b"published")
    channel.close()
    assert placement.owner.queue_declare(queue, passive=True).method.message_count == 0


def test_the_other_channels_of_the_connection_go_on(placement: Placement) -> None:
    queue = placement.queue()
    stopped, going = placement.consumer, placement.consumer.connection.channel()
    stopped.flow(active=False)
    inbox = Inbox(going, queue, auto_ack=True)
    bodies = fill(placement, queue, range(20))
    assert inbox.bodies(20) == bodies


def test_what_a_stopped_channel_was_given_and_not_shown_goes_to_the_next_consumer(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    channel.flow(active=False)
    bodies = fill(placement, queue, range(50))
    inbox.barrier()
    assert inbox.waiting == []
    channel.close()
    assert Inbox(placement.publisher, queue).bodies(50) == bodies


def test_prefetch_holds_after_the_flow_goes_on(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.consumer
    channel.basic_qos(prefetch_count=3)
    inbox = Inbox(channel, queue)
    channel.flow(active=False)
    fill(placement, queue, range(10))
    channel.flow(active=True)
    inbox.take(3)
    assert inbox.barrier() == 7
    assert inbox.waiting == []


def test_stopping_twice_and_starting_twice_is_answered(placement: Placement) -> None:
    channel = placement.consumer
    assert [channel.flow(active) for active in (True, False, False, True, True)] == [True, False, False, True, True]


def test_flow_ok_is_the_last_of_a_burst_that_was_under_way(broker: Broker) -> None:
    """Stop in the middle of a stream of deliveries: after flow-ok comes nothing but answers."""
    with WireClient.opened(broker) as client, WireClient.opened(broker) as publisher:
        client.open_channel()
        publisher.open_channel()
        client.send_method(1, Queue.Declare(queue="flow-burst", auto_delete=True))
        client.expect(Queue.DeclareOk)
        client.send_method(1, Basic.Consume(queue="flow-burst", no_ack=True))
        client.expect(Basic.ConsumeOk)
        for _ in range(2000):
            publisher.send(publish_bytes(1, "", "flow-burst", b"m"))
        client.send_method(1, Channel.Flow(active=False))
        delivered = 0
        while not isinstance(getattr(client_frame := client.receive(), "method", None), Channel.FlowOk):
            delivered += isinstance(getattr(client_frame, "method", None), Basic.Deliver)
        for _ in range(20):  # time for anything that might still come: round trips on another channel
            client.send_method(1, Basic.Qos(prefetch_count=0))
            client.expect(Basic.QosOk, 1)
        client.send_method(1, Channel.Flow(active=True))
        client.expect(Channel.FlowOk, 1)
        while delivered < 2000:
            delivered += isinstance(getattr(client.receive(), "method", None), Basic.Deliver)
