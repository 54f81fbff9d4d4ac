"""Consumer cancel notify: the server's basic.cancel when a queue goes, to clients that have declared the capability, and to no others."""

from __future__ import annotations

import pytest
from pika.spec import Basic, Queue

from tests.deadline import eventually
from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement
from tests.wire import CLIENT_CAPABILITIES, Connection, WireClient


def opened(broker: Broker, *, cancel_notify: bool) -> WireClient:
    """A client that has, or has not, declared consumer_cancel_notify, with channel 1 open."""
    client = WireClient(broker)
    client.start(capabilities=CLIENT_CAPABILITIES | {"consumer_cancel_notify": cancel_notify})
    client.tune()
    client.send_method(0, Connection.Open(virtual_host="/"))
    client.expect(Connection.OpenOk)
    return client.open_channel()


def test_every_consumer_of_a_deleted_queue_is_told(placement: Placement) -> None:
    queue = placement.queue()
    channels = [placement.publisher, placement.consumer, placement.consumer.connection.channel()]
    inboxes = [Inbox(channel, queue) for channel in (*channels, *channels)]
    unconcerned = Inbox(placement.consumer, placement.queue())
    placement.owner.queue_delete(queue)

    def all_are_told() -> bool:
        for channel in channels:
            channel.connection.process_data_events(0.05)
        return all(inbox.cancelled for inbox in inboxes)

    assert eventually(all_are_told)
    assert not unconcerned.cancelled
    assert [channel.consumer_tags for channel in channels] == [[], [unconcerned.consumer_tag], []]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(True, marks=pytest.mark.not_on_peer("3.10 closes the connection with 503"), id="cancel-ok"),
        pytest.param(False, id="silence"),
    ],
)
def test_the_notice_expects_no_answer_and_takes_one(broker: Broker, answers: bool) -> None:
    with opened(broker, cancel_notify=True) as client:
        queue = f"notice-{answers}"
        client.send_method(1, Queue.Declare(queue=queue, exclusive=True))
        client.expect(Queue.DeclareOk)
        client.send_method(1, Basic.Consume(queue=queue, consumer_tag="t"))
        client.expect(Basic.ConsumeOk)
        client.send_method(1, Queue.Delete(queue=queue))
        replies = {type(method): method for method in (client.receive().method, client.receive().method)}
        assert replies.keys() == {Basic.Cancel, Queue.DeleteOk}
        notice = replies[Basic.Cancel]
        assert (notice.consumer_tag, notice.nowait) == ("t", True)
        if answers:
            client.send_method(1, Basic.CancelOk(consumer_tag="t"))
        client.send_method(1, Queue.Declare(queue=queue, exclusive=True))
        client.expect(Queue.DeclareOk)
        client.send_method(1, Basic.Consume(queue=queue, consumer_tag="t"))
        assert client.expect(Basic.ConsumeOk).consumer_tag == "t", "the tag is free again"


def test_a_client_that_cannot_hear_it_is_not_told(broker: Broker) -> None:
    with opened(broker, cancel_notify=False) as client:
        client.send_method(1, Queue.Declare(queue="", exclusive=True))
        queue = client.expect(Queue.DeclareOk).queue
        client.send_method(1, Basic.Consume(queue=queue, consumer_tag="t"))
        client.expect(Basic.ConsumeOk)
        client.send_method(1, Queue.Delete(queue=queue))
        client.expect(Queue.DeleteOk)
        client.send_method(1, Queue.Declare(queue="", exclusive=True))
        client.expect(Queue.DeclareOk)
        client.send_method(1, Basic.Cancel(consumer_tag="t"))
        assert client.expect(Basic.CancelOk).consumer_tag == "t"


def test_what_was_unacked_of_a_queue_that_is_gone_may_still_be_acked(placement: Placement) -> None:
    queue = placement.queue()
    for number in range(3):
        placement.owner.basic_publish("", queue, str(number).encode())
    channel = placement.consumer
    inbox = Inbox(channel, queue)
    held = inbox.take(3)
    placement.owner.queue_delete(queue)
    assert eventually(lambda: channel.connection.process_data_events(0.05) or inbox.cancelled)
    channel.basic_ack(held[0].tag)
    channel.basic_nack(held[2].tag, multiple=True, requeue=True)
    assert channel.basic_get(placement.queue()) == (None, None, None)
