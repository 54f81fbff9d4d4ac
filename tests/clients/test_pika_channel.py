"""Channels by pika: open, close, number, flow; a channel exception closes the channel and nothing else."""

from __future__ import annotations

import pika
import pytest
from pika.exceptions import ChannelWrongStateError

from tests.inbox import Inbox
from tests.node import Broker
from tests.placement import Placement
from tests.refusal import channel_closed, connection_closed


def test_a_channel_opens_closes_and_its_number_can_be_used_again(broker: Broker) -> None:
    with broker.connect() as connection:
        for _ in range(3):
            channel = connection.channel(channel_number=7)
            assert channel.channel_number == 7
            channel.close()
            assert channel.is_closed
            with pytest.raises(ChannelWrongStateError):
                channel.basic_publish("", "nowhere", b"")


def test_many_channels_of_one_connection_are_independent(placement: Placement) -> None:
    connection = placement.connect(placement.sites.publisher)
    queue = placement.queue()
    channels = [connection.channel() for _ in range(200)]
    for channel in channels:
        channel.basic_publish("", queue, str(channel.channel_number).encode())
        channel.queue_declare(queue, passive=True)  # an answer on each channel: all that it published is in
    bodies = Inbox(placement.consumer, queue, auto_ack=True).bodies(len(channels))
    assert sorted(map(int, bodies)) == sorted(channel.channel_number for channel in channels)


def test_a_channel_number_of_the_highest_kind_works(broker: Broker) -> None:
    with broker.connect() as connection:
        channel = connection.channel(channel_number=2047)
        assert channel.queue_declare("", exclusive=True).method.queue.startswith("amq.gen-")


def test_a_channel_exception_leaves_the_other_channels_alone(placement: Placement) -> None:
    queue = placement.queue()
    connection = placement.connect(placement.sites.consumer)
    broken, sound = connection.channel(), connection.channel()
    inbox = Inbox(sound, queue)
    with channel_closed(404, "NOT_FOUND - no queue 'no-such-queue' in vhost '/'"):
        broken.queue_declare("no-such-queue", passive=True)
    assert broken.is_closed
    assert sound.is_open
    placement.publisher.basic_publish("", queue, b"still here")
    assert inbox.take_one().body == b"still here"
    assert connection.channel(broken.channel_number).is_open, "the closed channel's number is free again"


def test_closing_a_channel_gives_its_unacked_messages_back(placement: Placement) -> None:
    queue = placement.queue()
    for body in (b"1", b"2", b"3"):
        placement.publisher.basic_publish("", queue, body)
    connection = placement.connect(placement.sites.consumer)
    leaving = connection.channel()
    assert Inbox(leaving, queue).bodies(3) == [b"1", b"2", b"3"]
    leaving.close()
    deliveries = Inbox(placement.consumer, queue).take(3)
    assert [(delivery.body, delivery.method.redelivered) for delivery in deliveries] == [(b"1", True), (b"2", True), (b"3", True)]


@pytest.mark.not_on_peer("RabbitMQ answers flow off with 540")
def test_flow_stops_deliveries_until_it_is_on_again(placement: Placement) -> None:
    queue = placement.queue()
    channel = placement.consumer
    inbox = Inbox(channel, queue, auto_ack=True)
    assert channel.flow(True) is True
    placement.publisher.confirm_delivery()
    placement.publisher.basic_publish("", queue, b"1")
    assert inbox.bodies(1) == [b"1"]
    assert channel.flow(False) is False
    placement.publisher.basic_publish("", queue, b"2")
    inbox.barrier()
    assert inbox.waiting == []
    assert channel.flow(True) is True
    assert inbox.bodies(1) == [b"2"]


def test_opening_more_channels_than_negotiated_is_refused_by_the_broker(broker: Broker) -> None:
    connection = broker.connect(channel_max=3)
    for _ in range(3):
        connection.channel()
    connection._impl._channels.clear()  # pika keeps the bound by itself; make it forget, so that the broker has to
    with connection_closed(530, "NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)"):
        connection.channel(channel_number=4)
    assert isinstance(connection, pika.BlockingConnection)
    assert connection.is_closed
