"""basic.recover: requeue=true puts everything unacked back; requeue=false hands it to the same consumers again, which RabbitMQ refuses."""

from __future__ import annotations

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, Queue

from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement
from tests.refusal import channel_closed
from tests.wire import WireClient, publish_bytes

beyond = pytest.mark.not_on_peer("RabbitMQ refuses basic.recover with requeue=false")


def fill(placement: Placement, queue: str, count: int) -> list[bytes]:
    bodies = [str(number).encode() for number in range(count)]
    for body in bodies:
        placement.owner.basic_publish("", queue, body)
    placement.owner.queue_declare(queue, passive=True)
    return bodies


def ready(placement: Placement, queue: str) -> int:
    return int(placement.owner.queue_declare(queue, passive=True).method.message_count)


def recover(channel: BlockingChannel) -> None:
    channel.basic_recover(requeue=False)


@beyond
def test_without_requeue_unacked_messages_come_again_to_their_consumer_under_new_tags(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 5)
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    first = inbox.take(5)
    channel.basic_ack(first[1].tag)
    recover(channel)
    again = inbox.take(4)
    assert [delivery.body for delivery in again] == [bodies[0], *bodies[2:]]
    assert [delivery.tag for delivery in again] == [6, 7, 8, 9]
    assert all(delivery.method.redelivered for delivery in again)
    assert {delivery.method.consumer_tag for delivery in again} == {inbox.consumer_tag}
    channel.basic_ack(0, multiple=True)
    channel.close()
    assert ready(placement, queue) == 0


@beyond
def test_without_requeue_the_old_tags_are_unknown(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 1)
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    old = inbox.take_one()
    recover(channel)
    inbox.take_one()
    with channel_closed(406, f"PRECONDITION_FAILED - unknown delivery tag {old.tag}"):
        channel.basic_ack(old.tag)
        channel.queue_declare(queue, passive=True)


@beyond
def test_without_requeue_each_consumer_gets_its_own_again_and_nobody_elses(placement: Placement) -> None:
    queue, other = placement.queue(), placement.queue()
    bodies = fill(placement, queue, 3)
    channel, bystander = placement.consumer, placement.connect(placement.sites.publisher).channel()
    inbox = Inbox(channel, queue)
    inbox.take(3)
    second = Inbox(channel, other)
    placement.owner.basic_publish("", other, b"of the other queue")
    second.take_one()
    idle = Inbox(bystander, queue)
    recover(channel)
    assert inbox.bodies(3) == bodies
    assert second.bodies(1) == [b"of the other queue"]
    idle.barrier()
    assert idle.waiting == []


@beyond
def test_without_requeue_what_has_no_consumer_any_more_goes_back_to_its_queue(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 3)
    channel = placement.consumer
    channel.basic_get(queue)
    inbox = Inbox(channel, queue)
    inbox.take(2)
    inbox.cancel()
    assert ready(placement, queue) == 0
    recover(channel)
    channel.queue_declare(queue, passive=True)
    deliveries = Inbox(placement.connect(placement.sites.publisher).channel(), queue).take(3)
    assert [(delivery.body, delivery.method.redelivered) for delivery in deliveries] == [(b"0", True), (b"1", True), (b"2", True)]


@beyond
def test_without_requeue_again_and_again(placement: Placement) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 10)
    channel = placement.consumer
    channel.basic_qos(prefetch_count=10)
    inbox = Inbox(channel, queue)
    assert inbox.bodies(10) == bodies
    for _ in range(5):
        recover(channel)
        assert inbox.bodies(10) == bodies
    fill(placement, queue, 1)
    assert inbox.barrier() == 1, "the prefetch is still used up"
    assert inbox.waiting == []


@beyond
def test_a_transactions_acks_are_not_recovered_and_a_rollback_brings_them_into_reach(placement: Placement) -> None:
    queue = placement.queue()
    fill(placement, queue, 2)
    channel = placement.consumer
    channel.tx_select()
    inbox = Inbox(channel, queue)
    first, _ = inbox.take(2)
    channel.basic_ack(first.tag)
    recover(channel)
    assert inbox.bodies(1) == [b"1"]
    channel.tx_rollback()
    recover(channel)
    assert sorted(inbox.bodies(2)) == [b"0", b"1"]


@pytest.mark.parametrize("requeue", [True, pytest.param(False, marks=beyond)])
def test_recover_ok_comes_before_the_messages(broker: Broker, requeue: bool) -> None:
    with WireClient.opened(broker) as client:
        client.open_channel()
        client.send_method(1, Queue.Declare(queue="", exclusive=True))
        queue = client.expect(Queue.DeclareOk).queue
        client.send(publish_bytes(1, "", queue, b"m"))
        client.send_method(1, Basic.Consume(queue=queue))
        client.expect(Basic.ConsumeOk)
        assert not client.expect(Basic.Deliver).redelivered
        assert (client.receive().body_size, client.receive().fragment) == (1, b"m")
        client.send_method(1, Basic.Recover(requeue=requeue))
        client.expect(Basic.RecoverOk)
        assert client.expect(Basic.Deliver).redelivered


@pytest.mark.parametrize("requeue", [True, pytest.param(False, marks=beyond)])
def test_recover_async_does_the_same_without_an_answer(placement: Placement, requeue: bool) -> None:
    queue = placement.queue()
    bodies = fill(placement, queue, 3)
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    inbox.take(3)
    channel._impl._send_method(pika.spec.Basic.RecoverAsync(requeue=requeue))
    channel.connection.process_data_events(0)
    assert inbox.bodies(3) == bodies
