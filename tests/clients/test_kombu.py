"""kombu, by the parts that applications use: producers and consumers, simple queues, broadcasts, and reconnecting by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu.pidbox import Mailbox

from tests.conftest import MakeNode
from tests.names import unique
from tests.node import Broker

WITHIN_S = 30


@pytest.fixture
def connection(broker: Broker) -> Iterator[Connection]:
    with Connection(broker.url, transport_options={"confirm_publish": True}) as made:
        yield made


def test_a_producer_declares_what_it_needs_and_a_consumer_takes_it(connection: Connection) -> None:
    exchange = Exchange(unique("x"), "topic", durable=False, auto_delete=True)
    queue = Queue(unique("q"), exchange, routing_key="a.*", durable=False, auto_delete=True)
    taken: list[Any] = []

    def on_message(body: Any, message: Any) -> None:
        taken.append((body, message.headers, message.content_type))
        message.ack()

    with connection.Consumer(queue, callbacks=[on_message]):
        producer = connection.Producer()
        body = {"text": "grün", "list": [1, 2.5, None]}
        producer.publish(body, exchange=exchange, routing_key="a.b", declare=[queue], headers={"n": 1}, serializer="json", retry=True)
        producer.publish({"lost": True}, exchange=exchange, routing_key="b")
        producer.publish("compressed", exchange=exchange, routing_key="a.c", compression="zlib")
        while len(taken) < 2:
            connection.drain_events(timeout=WITHIN_S)
    assert taken[0] == (body, {"n": 1}, "application/json")
    assert taken[1][0] == "compressed"


def test_simple_queues(connection: Connection) -> None:
    name = unique("simple")
    with connection.SimpleQueue(name) as queue:
        queue.put({"n": 1})
        assert queue.qsize() == 1
        first = queue.get(timeout=WITHIN_S)
        assert first.payload == {"n": 1}
        first.requeue()
        again = queue.get(timeout=WITHIN_S)
        assert again.payload == {"n": 1}
        assert again.delivery_info["redelivered"] is True
        again.ack()
        queue.put({"n": 2})
        queue.get(timeout=WITHIN_S).reject()
        with pytest.raises(queue.Empty):
            queue.get_nowait()
    connection.default_channel.queue_delete(name)


def test_a_mailbox_asks_everybody_and_gathers_the_answers(broker: Broker, connection: Connection) -> None:
    # The queues of a mailbox would expire by themselves; that is another test's.
    mailbox = Mailbox(unique("mailbox"), type="fanout", reply_queue_expires=None)
    asked: list[str] = []
    with Connection(broker.url) as other:

        def listen(name: str) -> None:
            node = mailbox(other).Node(name, state=None, channel=other.channel())

            def double(state: None, number: int) -> dict[str, Any]:
                asked.append(name)
                return {"from": name, "twice": 2 * number}

            node.handlers["double"] = double
            node.listen()

        listen("first")
        listen("second")

        def answer() -> None:
            while len(asked) < 2:
                other.drain_events(timeout=WITHIN_S)

        answering = threading.Thread(target=answer)
        answering.start()
        answers = mailbox(connection).multi_call("double", {"number": 21}, timeout=WITHIN_S, limit=2)
        answering.join(WITHIN_S)
    assert sorted((answer["from"], answer["twice"]) for row in answers for answer in row.values()) == [("first", 42), ("second", 42)]


def test_qos_is_each_consumers_own(connection: Connection) -> None:
    """kombu chooses the scope of basic.qos by the product's name and version; for ours each consumer has its own limit."""
    taken: list[Any] = []
    channel = connection.channel()
    with connection.SimpleQueue(unique("q")) as filled:
        for number in range(6):
            filled.put(number)
        consumers = [Consumer(channel, filled.queue, callbacks=[lambda _, message: taken.append(message)]) for _ in range(2)]
        consumers[0].qos(prefetch_count=2, apply_global=False)
        for consumer in consumers:
            consumer.consume()
        while len(taken) < 4:
            connection.drain_events(timeout=WITHIN_S)
        assert filled.qsize() == 2
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.2)
        for consumer in consumers:
            consumer.cancel()
        filled.queue.delete()


def test_a_producer_goes_on_after_the_broker_has_been_restarted(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=1)
    name = unique("q")
    with Connection(node.url, transport_options={"confirm_publish": True}) as connection:
        queue = Queue(name, Exchange(""), routing_key=name, durable=True)
        producer = connection.Producer()
        policy = {"max_retries": 20, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.5}
        producer.publish("before", routing_key=name, declare=[queue], retry=True, retry_policy=policy)
        node.stop()
        node.start()
        producer.publish("after", routing_key=name, declare=[queue], retry=True, retry_policy=policy)
        with connection.SimpleQueue(queue) as simple:
            last = simple.get(timeout=WITHIN_S)
            while last.payload != "after":  # the one before is there too once messages outlive a restart
                last.ack()
                last = simple.get(timeout=WITHIN_S)
            last.ack()
