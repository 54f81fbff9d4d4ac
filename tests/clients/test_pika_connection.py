"""Connections by pika's blocking adapter: login, vhost, tune, heartbeats, closing."""

from __future__ import annotations

import time

import pika
import pytest
from pika.exceptions import (
    AMQPHeartbeatTimeout,
    ConnectionClosedByBroker,
    ConnectionWrongStateError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    StreamLostError,
)

from tests.deadline import WITHIN_S
from tests.node import Broker
from tests.refusal import channel_closed, connection_closed

LOGIN_REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."


def test_a_login_gives_an_open_connection_with_the_extensions_announced(broker: Broker) -> None:
    with broker.connect() as connection:
        assert connection.is_open
        assert connection.publisher_confirms_supported
        assert connection.basic_nack_supported
        assert connection.consumer_cancel_notify_supported
        assert connection.exchange_exchange_bindings_supported
    assert connection.is_closed


@pytest.mark.parametrize(("user", "password"), [("guest", "wrong"), ("guest", ""), ("nobody", "guest"), ("gäst", "' --")])
def test_a_refused_login_is_told_403(broker: Broker, user: str, password: str) -> None:
    with pytest.raises(ProbableAuthenticationError, match=LOGIN_REFUSED) as refused:
        broker.connect(credentials=pika.PlainCredentials(user, password))
    assert "(403)" in str(refused.value)


def test_an_unknown_vhost_is_told_530(broker: Broker) -> None:
    with pytest.raises((ProbableAccessDeniedError, ConnectionClosedByBroker)) as refused:
        broker.connect(virtual_host="nowhere")
    assert "530" in str(refused.value)
    assert "NOT_ALLOWED - vhost nowhere not found" in str(refused.value)


def test_the_url_form_of_an_address_connects(broker: Broker) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        assert connection.channel().is_open


def test_a_negotiated_frame_max_splits_bodies_both_ways(broker: Broker) -> None:
    body = bytes(range(256)) * 200
    with broker.connect(frame_max=8192) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, body)
        assert channel.basic_get(queue, auto_ack=True)[2] == body


def test_a_client_may_ask_for_the_least_frame_max_of_the_specification(broker: Broker) -> None:
    # RabbitMQ 4.1 raised its least value to 8192 and broke clients with that; 4096 stays allowed here.
    with broker.connect(frame_max=4096) as connection:
        assert connection.channel().is_open


def test_a_negotiated_channel_max_is_a_bound(broker: Broker) -> None:
    with broker.connect(channel_max=2) as connection:
        connection.channel()
        connection.channel()
        with pytest.raises(pika.exceptions.NoFreeChannels):
            connection.channel()


def test_heartbeats_keep_a_silent_connection(broker: Broker) -> None:
    with broker.connect(heartbeat=1) as connection:
        began = time.monotonic()
        # pika raises AMQPHeartbeatTimeout by itself when the broker's heartbeats stay away.
        while time.monotonic() - began < 4:
            connection.process_data_events(time_limit=0.5)
        assert connection.channel().is_open


def test_a_client_that_stops_its_heartbeats_is_dropped(broker: Broker) -> None:
    connection = broker.connect(heartbeat=1)
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    # A blocking connection sends nothing unless its owner calls it; the exclusive queue goes when the broker gives it up.
    with broker.connect() as other, other.channel() as witness:
        deadline = time.monotonic() + WITHIN_S
        gone = False
        while not gone and time.monotonic() < deadline:
            try:
                other.sleep(0.1)
                witness.queue_declare(queue, passive=True)
            except pika.exceptions.ChannelClosedByBroker as closed:
                gone = closed.reply_code == 404
                witness = other.channel()
        assert gone, "the silent client's queue is still there"
    with pytest.raises((StreamLostError, AMQPHeartbeatTimeout, ConnectionWrongStateError, ConnectionClosedByBroker)):
        connection.process_data_events(time_limit=30)
        channel.queue_declare("", exclusive=True)


def test_closing_the_connection_closes_its_channels_and_exclusive_queues(broker: Broker) -> None:
    connection = broker.connect()
    first, second = connection.channel(), connection.channel()
    queue = first.queue_declare("", exclusive=True).method.queue
    connection.close(200, "done")
    assert first.is_closed
    assert second.is_closed
    with broker.connect() as other, channel_closed(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'"):
        other.channel().queue_declare(queue, passive=True)


def test_a_connection_exception_closes_the_connection_with_its_reply(broker: Broker) -> None:
    connection = broker.connect()
    channel = connection.channel()
    channel._impl._send_method(pika.spec.Channel.Open())
    with connection_closed(504, "CHANNEL_ERROR - second 'channel.open' seen"):
        channel.queue_declare("", exclusive=True)
    assert connection.is_closed
    assert channel.is_closed


def test_many_connections_at_once_serve_each_its_own(broker: Broker) -> None:
    connections = [broker.connect() for _ in range(30)]
    try:
        channels = [connection.channel() for connection in connections]
        queues = [channel.queue_declare("", exclusive=True).method.queue for channel in channels]
        assert len(set(queues)) == len(queues)
        for number, (channel, queue) in enumerate(zip(channels, queues, strict=True)):
            channel.basic_publish("", queue, str(number).encode())
        for number, (channel, queue) in enumerate(zip(channels, queues, strict=True)):
            assert channel.basic_get(queue, auto_ack=True)[2] == str(number).encode()
    finally:
        for connection in connections:
            connection.close()
