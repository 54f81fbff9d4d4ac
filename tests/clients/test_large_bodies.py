"""Large bodies through a whole node: every byte, on every way that a body can take, and no memory got anew for each."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pika
import pytest

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.inbox import Inbox
from tests.node import Node
from tests.placement import Placement

BY_REFERENCE_MIN = 16 * 1024
SIZES = [1, 4096, BY_REFERENCE_MIN - 1, BY_REFERENCE_MIN, 65_536, 131_064, 131_065, 300_000, 1_000_000, 0]
PERSISTENT = pika.BasicProperties(delivery_mode=2)


def bodies() -> list[bytes]:
    rng = random.Random(7)
    return [rng.randbytes(size) for size in SIZES for _ in range(4)]


@pytest.mark.parametrize("kind", ["default", "fanout"])
@pytest.mark.parametrize("frame_max", [4096, 131_072])
def test_bodies_of_all_sizes_arrive_byte_for_byte(placement: Placement, kind: str, frame_max: int) -> None:
    queues = [placement.queue() for _ in range(1 if kind == "default" else 3)]
    exchange = ""
    if kind == "fanout":
        exchange = placement.exchange("fanout")
        for queue in queues:
            placement.owner.queue_bind(queue, exchange)
    publisher = placement.connect(placement.sites.publisher, frame_max=frame_max).channel()
    publisher.confirm_delivery()
    consumer = placement.connect(placement.sites.consumer, frame_max=frame_max).channel()
    inboxes = [Inbox(consumer, queue) for queue in queues]
    for body in bodies():
        publisher.basic_publish(exchange, queues[0], body)
    for inbox in inboxes:
        assert inbox.bodies(len(bodies())) == bodies()


def test_a_large_body_comes_by_get_and_again_after_a_requeue(placement: Placement) -> None:
    queue = placement.queue()
    placement.publisher.confirm_delivery()
    for body in bodies():
        placement.publisher.basic_publish("", queue, body, PERSISTENT)
    for body in bodies():
        method, _, got = placement.consumer.basic_get(queue)
        assert got == body and not method.redelivered
    placement.consumer.basic_recover(requeue=True)
    for body in bodies():
        method, _, got = placement.consumer.basic_get(queue, auto_ack=True)
        assert got == body and method.redelivered


def test_a_large_body_is_returned_whole(placement: Placement) -> None:
    came: list[bytes] = []
    publisher = placement.connect(placement.sites.publisher).channel()
    exchange = placement.exchange("direct")

    def on_return(_channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
        came.append(body)

    publisher.add_on_return_callback(on_return)
    for number, body in enumerate(bodies()):
        publisher.basic_publish(exchange if number % 2 else "", placement.name(), body, mandatory=True)
    publisher.basic_get(placement.queue())  # an answer behind those that need no other process
    eventually(lambda: publisher.connection.process_data_events(time_limit=0.1) or len(came) == len(bodies()), what="all returns")
    assert sorted(came) == sorted(bodies())


def faults(node: Node) -> int:
    """Minor page faults of the node's only worker so far."""
    return int(Path(f"/proc/{node.workers()[0]}/stat").read_text().rsplit(")", 1)[1].split()[7])


def test_messages_of_64_kb_are_not_faulted_in_one_by_one(fresh_node: MakeNode) -> None:
    """Each has 16 pages. A worker that gave them back after each message would get 16 faults or more for the next."""
    node = fresh_node(workers=1)
    body = bytes(65_536)
    count = 100
    with node.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q")

        def once() -> None:
            for _ in range(count):
                channel.basic_publish("", "q", body)
            for _ in range(count):
                _, _, got = channel.basic_get("q", auto_ack=True)
                assert len(got) == len(body)

        once()
        before = faults(node)
        for _ in range(5):
            once()
        assert before > 0 and faults(node) - before < 5 * count * 4
