"""py-amqp, the client beneath kombu and Celery: its connection and channel methods against the broker."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import amqp
import pytest
from amqp import Channel, Connection, Message
from amqp.exceptions import AccessRefused, ConsumerCancelled, NotAllowed, NotFound, PreconditionFailed, ResourceLocked

from tests.deadline import eventually
from tests.names import unique
from tests.node import Broker

WITHIN_S = 30

Connect = Callable[..., Connection]


@pytest.fixture
def connect(broker: Broker) -> Iterator[Connect]:
    """A function that opens a connection, closed with the test. Its arguments are py-amqp's."""
    made: list[Connection] = []

    def opened(**settings: Any) -> Connection:
        host = f"{broker.host}:{broker.port}"
        connection = Connection(**({"host": host, "userid": broker.user, "password": broker.password} | settings))
        made.append(connection)
        connection.connect()
        return connection

    yield opened
    for connection in made:
        connection.collect()


@pytest.fixture
def channel(connect: Connect) -> Channel:
    return connect().channel()


@pytest.fixture
def queue(channel: Channel, connect: Connect) -> Iterator[str]:
    """A queue of the test's own, not exclusive."""
    name = unique("q")
    channel.queue_declare(name, durable=True, auto_delete=False)
    yield name
    connect().channel().queue_delete(name)


class Deliveries:
    """What was delivered to one consumer, in order."""

    def __init__(self, channel: Channel, queue: str, **consume: Any) -> None:
        self.messages: list[Message] = []
        self.connection = channel.connection
        self.tag = channel.basic_consume(queue, callback=self.messages.append, **consume)

    def take(self, count: int = 1) -> list[Message]:
        """Wait for the next `count`; `socket.timeout` when they do not come."""
        while len(self.messages) < count:
            self.connection.drain_events(timeout=WITHIN_S)
        taken = self.messages[:count]
        del self.messages[:count]
        return taken

    def bodies(self, count: int) -> list[str]:
        """The bodies of the next `count`."""
        return [message.body for message in self.take(count)]


def ready(channel: Channel, queue: str) -> int:
    """How many messages wait; what was delivered before has arrived when it answers."""
    return int(channel.queue_declare(queue, passive=True).message_count)


@pytest.mark.parametrize("login_method", ["PLAIN", "AMQPLAIN"])
def test_login(connect: Connect, login_method: str) -> None:
    connection = connect(login_method=login_method)
    assert connection.connected
    assert connection.server_capabilities["publisher_confirms"] is True
    with pytest.raises(AccessRefused, match="Login was refused using authentication mechanism"):
        connect(login_method=login_method, password="wrong")


def test_a_missing_virtual_host_is_refused(connect: Connect) -> None:
    with pytest.raises(NotAllowed, match="vhost nowhere not found"):
        connect(virtual_host="nowhere")


def test_heartbeats_keep_a_silent_connection(connect: Connect) -> None:
    connection = connect(heartbeat=1)
    assert connection.heartbeat == 1
    before = connection.bytes_recv
    for _ in range(12):  # longer than the broker would wait for a client that sends nothing
        with contextlib.suppress(socket.timeout):
            connection.drain_events(timeout=0.3)
        connection.heartbeat_tick()
    assert connection.bytes_recv > before  # and the broker sends its own
    assert connection.channel().queue_declare(exclusive=True).message_count == 0


def test_a_message_arrives_as_it_was_sent(channel: Channel, queue: str) -> None:
    headers = {"text": "grün", "int": 7, "big": 2**40, "float": 1.5, "yes": True, "none": None, "list": [1, "two"], "table": {"k": "v"}}
    properties = {
        "content_type": "text/plain",
        "delivery_mode": 2,
        "priority": 3,
        "correlation_id": "c",
        "reply_to": "r",
        "message_id": "m",
    }
    channel.basic_publish(Message("body", application_headers=headers, **properties), routing_key=queue)
    [message] = Deliveries(channel, queue, no_ack=True).take()
    assert message.body == "body"
    assert message.headers == headers
    assert {name: message.properties[name] for name in properties} == properties
    assert (message.delivery_info["exchange"], message.delivery_info["routing_key"]) == ("", queue)


def test_confirmed_publishing_and_returns(connect: Connect) -> None:
    connection = connect(confirm_publish=True)
    channel = connection.channel()
    returned: list[tuple[amqp.AMQPError, str, str, Message]] = []
    channel.events["basic_return"].add(lambda *reply: returned.append(reply))
    name = channel.queue_declare(exclusive=True).queue
    for _ in range(20):
        channel.basic_publish(Message("x"), routing_key=name, timeout=WITHIN_S)  # returns at the ack
    assert ready(channel, name) == 20
    channel.basic_publish(Message("back"), exchange="amq.topic", routing_key=unique("nowhere"), mandatory=True, timeout=WITHIN_S)
    [(error, exchange, _, message)] = returned
    assert (error.reply_code, error.reply_text, exchange, message.body) == (312, "NO_ROUTE", "amq.topic", "back")


def test_consuming_with_acks_and_prefetch(channel: Channel, queue: str) -> None:
    for body in "12345":
        channel.basic_publish(Message(body), routing_key=queue)
    channel.basic_qos(0, 2, a_global=False)
    deliveries = Deliveries(channel, queue)
    first, second = deliveries.take(2)
    assert (first.body, second.body) == ("1", "2")
    assert ready(channel, queue) == 3
    assert deliveries.messages == []
    channel.basic_ack(first.delivery_tag)
    channel.basic_reject(second.delivery_tag, requeue=True)
    assert sorted(deliveries.bodies(2)) == ["2", "3"]
    channel.basic_recover(requeue=True)
    again = deliveries.take(2)
    assert sorted(message.body for message in again) == ["2", "3"]
    assert all(message.delivery_info["redelivered"] for message in again)
    channel.basic_cancel(deliveries.tag)
    channel.basic_ack(again[-1].delivery_tag, multiple=True)
    assert ready(channel, queue) == 2


def test_get_and_purge(channel: Channel, queue: str) -> None:
    assert channel.basic_get(queue) is None
    channel.basic_publish(Message("1"), routing_key=queue)
    channel.basic_publish(Message("2"), routing_key=queue)
    message = channel.basic_get(queue, no_ack=True)
    assert (message.body, message.delivery_info["message_count"]) == ("1", 1)
    assert channel.queue_purge(queue) == 1


@pytest.mark.not_on_peer("RabbitMQ refuses to pause")
def test_flow_stops_and_resumes_deliveries(channel: Channel, queue: str) -> None:
    deliveries = Deliveries(channel, queue, no_ack=True)
    channel.flow(False)
    channel.basic_publish(Message("held"), routing_key=queue)
    ready(channel, queue)
    assert deliveries.messages == []
    channel.flow(True)
    assert deliveries.bodies(1) == ["held"]


def test_transactions(connect: Connect, channel: Channel, queue: str) -> None:
    transacting = connect().channel()
    transacting.tx_select()
    transacting.basic_publish(Message("never"), routing_key=queue)
    transacting.tx_rollback()
    transacting.basic_publish(Message("kept"), routing_key=queue)
    assert ready(channel, queue) == 0
    transacting.tx_commit()
    assert ready(channel, queue) == 1
    assert channel.basic_get(queue, no_ack=True).body == "kept"


def test_exchanges_bound_to_exchanges(channel: Channel, queue: str) -> None:
    source, middle = unique("source"), unique("middle")
    channel.exchange_declare(source, "topic", auto_delete=False)
    channel.exchange_declare(middle, "fanout", auto_delete=False)
    channel.exchange_bind(middle, source, "a.*")
    channel.queue_bind(queue, middle)
    channel.basic_publish(Message("x"), exchange=source, routing_key="a.b")
    channel.basic_publish(Message("x"), exchange=source, routing_key="b")
    assert eventually(lambda: ready(channel, queue) == 1)
    channel.exchange_unbind(middle, source, "a.*")
    channel.queue_unbind(queue, middle)
    channel.exchange_delete(source)
    channel.exchange_delete(middle, if_unused=True)


def redeclare_otherwise(channel: Channel, queue: str) -> None:
    channel.queue_declare(queue, durable=False, auto_delete=False)


def ack_what_never_came(channel: Channel, queue: str) -> None:
    channel.basic_ack(7)
    channel.basic_get(queue)


REFUSED: dict[str, tuple[Callable[[Channel, str], Any], type[amqp.AMQPError], str]] = {
    "no queue": (lambda channel, _: channel.queue_declare("nowhere", passive=True), NotFound, "no queue 'nowhere' in vhost '/'"),
    "no exchange": (lambda channel, queue: channel.queue_bind(queue, "nowhere"), NotFound, "no exchange 'nowhere' in vhost '/'"),
    "another queue": (redeclare_otherwise, PreconditionFailed, "inequivalent arg 'durable'"),
    "reserved": (lambda channel, _: channel.queue_declare("amq.mine"), AccessRefused, "contains reserved prefix 'amq.*'"),
    "unknown tag": (ack_what_never_came, PreconditionFailed, "unknown delivery tag 7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(connect: Connect, queue: str, case: str) -> None:
    operation, error, text = REFUSED[case]
    connection = connect()
    with pytest.raises(error, match=text.replace("*", r"\*")):
        operation(connection.channel(), queue)
    assert connection.channel().queue_declare(exclusive=True).message_count == 0


def test_a_foreign_exclusive_queue_is_locked(connect: Connect, channel: Channel) -> None:
    name = channel.queue_declare(exclusive=True).queue
    with pytest.raises(ResourceLocked, match="cannot obtain exclusive access to locked queue"):
        connect().channel().queue_declare(name, passive=True)


def test_a_consumer_is_told_that_its_queue_is_gone(connect: Connect, channel: Channel) -> None:
    name = unique("q")
    channel.queue_declare(name, auto_delete=False)
    Deliveries(channel, name)
    connect().channel().queue_delete(name)
    with pytest.raises(ConsumerCancelled):
        channel.connection.drain_events(timeout=WITHIN_S)
