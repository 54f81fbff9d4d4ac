"""Crash, start, publish, stop, start again: the second start is where other brokers lost what was written behind a crash's traces.

Everything here is confirmed before the next end, and nobody consumes meanwhile unless the test says so. So each queue must give exactly
what was published, once, in order.
"""

from __future__ import annotations

import random

import pika
import pytest

from tests.conftest import MakeNode
from tests.crash.environments import verify_environments
from tests.deadline import eventually
from tests.node import Node
from tests.placement import connect_on

QUEUES = ("second.on-0", "second.on-1")
ENDS = [  # of the first run and of the second
    ("killed", "stopped"),
    ("killed", "killed"),
    ("worker killed", "worker killed"),
    ("router killed", "killed"),
]
PERSISTENT = pika.BasicProperties(delivery_mode=2)


def declare(node: Node) -> None:
    """A durable queue on each worker, bound to one exchange."""
    for worker, queue in enumerate(QUEUES):
        with connect_on(node, worker) as connection:
            channel = connection.channel()
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "amq.topic", "second.#")


def publish(node: Node, phase: str, dice: random.Random) -> list[bytes]:
    """Confirmed messages, to both queues through the exchange, to each of them directly, and some of many kilobytes."""
    with node.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        bodies = [f"{phase} {number} ".encode() + dice.randbytes(dice.choice([0, 10, 1000, 70_000, 1_500_000])) for number in range(12)]
        for body in bodies:
            channel.basic_publish("amq.topic", "second.x", body, PERSISTENT, mandatory=True)
        for number in range(30):
            body = f"{phase} straight {number}".encode()
            bodies.append(body)
            for queue in QUEUES:
                channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)
        return bodies


def end(node: Node, how: str) -> None:
    """End the node and start it again, or one of its processes, and verify what lies on disk in between where nobody has it open."""
    if how in ("stopped", "killed"):
        node.stop() if how == "stopped" else node.kill()
        verify_environments(node.data_dir)
        node.start()
        return
    name = {"worker killed": "worker-1", "router killed": "router"}[how]
    pid = node.kill_process(name)
    eventually(lambda: node.processes().get(name, pid) != pid, within_s=20, what=f"{name} is back")


def contents(node: Node, queue: str, *, most: int = 1_000_000) -> list[tuple[bytes, bool]]:
    """Gets and acks up to `most` messages; bodies and redelivered flags, in order. All acks are handled when it returns."""
    with node.connect() as connection:
        channel = connection.channel()
        found: list[tuple[bytes, bool]] = []
        while len(found) < most:
            method, _, body = channel.basic_get(queue)
            if method is None:
                break
            found.append((body, method.redelivered))
            channel.basic_ack(method.delivery_tag)
        channel.queue_declare(queue, passive=True)
        return found


@pytest.mark.needs("message store")
@pytest.mark.parametrize(("first", "second"), ENDS)
def test_what_was_confirmed_before_and_between_two_ends_is_there(fresh_node: MakeNode, first: str, second: str) -> None:
    dice = random.Random(f"{first} {second}")
    node = fresh_node(workers=2)
    declare(node)
    expected = publish(node, "before", dice)
    end(node, first)
    expected += publish(node, "between", dice)
    end(node, second)
    expected += publish(node, "after", dice)
    end(node, "stopped")
    for queue in QUEUES:
        assert contents(node, queue) == [(body, False) for body in expected], queue
    end(node, "killed")
    # Nothing but the last commits' acks may be forgotten, and a stop forgets none.
    for queue in QUEUES:
        contents(node, queue)
    end(node, "stopped")
    assert [contents(node, queue) for queue in QUEUES] == [[], []]
    node.stop()
    verify_environments(node.data_dir)


@pytest.mark.needs("message store")
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_what_was_settled_stays_settled_and_the_rest_keeps_its_place(fresh_node: MakeNode, how: str) -> None:
    dice = random.Random(how)
    node = fresh_node(workers=2)
    declare(node)
    expected = publish(node, "before", dice)
    queue = QUEUES[0]
    assert [body for body, _ in contents(node, queue, most=10)] == expected[:10]
    end(node, "stopped")
    channel = connect_on(node, 1).channel()  # the queue's worker is 0
    held = [channel.basic_get(queue) for _ in range(5)]
    assert [body for _, _, body in held] == expected[10:15]
    assert not any(method.redelivered for method, _, _ in held)
    channel.basic_ack(held[1][0].delivery_tag)
    channel.basic_ack(held[3][0].delivery_tag)
    channel.queue_declare(queue, passive=True)
    between = publish(node, "between", dice)  # confirmed behind the acks, so these are on disk too
    end(node, how)
    found = contents(node, queue)
    left = [expected[10], expected[12], expected[14]]
    assert [body for body, _ in found] == left + expected[15:] + between
    assert [redelivered for _, redelivered in found[:3]] == [True] * 3
    if how == "stopped":  # after a crash, a message may be called redelivered without having been delivered
        assert not any(redelivered for _, redelivered in found[3:])
    end(node, "stopped")
    assert contents(node, queue) == []
