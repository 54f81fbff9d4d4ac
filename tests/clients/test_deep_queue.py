"""A durable queue deeper than what stays in memory, consumed while it is published to: order, and each message once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.node import Node
from tests.placement import connect_on

QUEUE = "deep"
BEFORE = 100_000  # six times what stays in memory
MEANWHILE = 20_000
WITHIN_S = 100.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    started = Node(tmp_path_factory.mktemp("deep") / "data", workers=2)
    started.start()
    yield started
    started.stop()


def publish(channel: BlockingChannel, numbers: range) -> None:
    """Persistent messages with these numbers as bodies."""
    properties = pika.BasicProperties(delivery_mode=2)
    for number in numbers:
        channel.basic_publish("", QUEUE, b"%d" % number, properties)


class Counter:
    """Consumes the queue and acknowledges: now one, now several, with some of them behind. `came` is what came, in order."""

    def __init__(self, channel: BlockingChannel, total: int) -> None:
        self.came: list[int] = []
        self.redelivered = 0
        self._total = total
        self._late: list[int] = []
        channel.basic_qos(prefetch_count=700)
        channel.basic_consume(QUEUE, self._on_message)

    def _on_message(
        self, channel: BlockingChannel, method: pika.spec.Basic.Deliver, _properties: pika.BasicProperties, body: bytes
    ) -> None:
        number = int(body)
        self.came.append(number)
        self.redelivered += method.redelivered
        tag = method.delivery_tag
        if number % 1000 < 500:
            channel.basic_ack(tag)
        elif number % 1000 == 999:
            channel.basic_ack(tag, multiple=True)  # all those between, and the late ones
            self._late.clear()
        elif number % 7 == 0:
            self._late.append(tag)
        elif number % 50 == 0 and self._late:
            channel.basic_ack(self._late.pop(0))
        if len(self.came) == self._total:
            channel.basic_ack(0, multiple=True)
            channel.stop_consuming()


def test_a_deep_queue_is_consumed_in_order_while_it_grows(node: Node) -> None:
    with connect_on(node, 0) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        publish(channel, range(BEFORE))
        eventually(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count == BEFORE, WITHIN_S)
        eventually(lambda: node.api("queues/%2F/deep")["messages_paged_out"] > BEFORE // 2, WITHIN_S, "most of it has left memory")

    begun = threading.Event()

    def grow() -> None:
        with connect_on(node, 0) as publishing:
            channel = publishing.channel()
            begun.wait(WITHIN_S)
            publish(channel, range(BEFORE, BEFORE + MEANWHILE))

    with ThreadPoolExecutor(1) as pool, connect_on(node, 1) as connection:
        growing = pool.submit(grow)
        channel = connection.channel()
        counter = Counter(channel, BEFORE + MEANWHILE)
        begun.set()
        channel.start_consuming()
        growing.result(WITHIN_S)
        assert counter.came == list(range(BEFORE + MEANWHILE))
        assert counter.redelivered == 0
        assert channel.queue_declare(QUEUE, passive=True).method.message_count == 0
    # What was acknowledged is gone for good.
    node.stop()
    node.start()
    with node.connect() as connection:
        assert connection.channel().queue_declare(QUEUE, passive=True).method.message_count == 0


def test_what_was_unacked_comes_back_before_the_rest(fresh_node: MakeNode) -> None:
    total, held = 60_000, 700
    node = fresh_node(workers=2)
    with connect_on(node, 0) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        publish(channel, range(total))
        eventually(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count == total, WITHIN_S)
    with connect_on(node, 1) as connection:
        channel = connection.channel()
        for number in range(held):
            assert channel.basic_get(QUEUE)[2] == b"%d" % number
    eventually(lambda: node.api("queues/%2F/deep")["messages_ready"] == total, WITHIN_S)
    with connect_on(node, 1) as connection:
        channel = connection.channel()
        came = []
        redelivered = []
        for method, _, body in channel.consume(QUEUE, auto_ack=True):
            came.append(int(body))
            if method.redelivered:
                redelivered.append(int(body))
            if len(came) == total:
                break
        assert came == list(range(total))
        assert redelivered == list(range(held))
