"""Memory above the watermark: publishers are held back and told, consumers go on, and it ends by itself."""

from __future__ import annotations

import select

import httpx
import pytest
from pika.spec import Basic, Connection, Queue

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.held_back import fill_until_held_back, memory_alarm
from tests.inbox import Inbox
from tests.node import Node
from tests.wire import WireClient, publish_bytes

MIB = 1024 * 1024
ROOM = 48 * MIB  # between what an idle node uses and the watermark
BODY = bytes(64 * 1024)


@pytest.fixture
def node(fresh_node: MakeNode) -> Node:
    """A node whose watermark lies little above what it uses when idle."""
    node = fresh_node(workers=2)
    eventually(lambda: node.processes())  # the management process counts too
    used = int(node.api("nodes")[0]["mem_used"])
    node.stop()
    node.config["memory_watermark"] = used + ROOM
    node.config["memory_paging_ratio"] = 1  # or the queue would go to disk, and the alarm never come
    return node.start()


def test_publishers_are_blocked_consumers_drain_and_publishing_resumes(node: Node) -> None:
    assert not memory_alarm(node)
    publisher = WireClient.opened(node).open_channel()
    publisher.send_method(1, Queue.Declare(queue="q", durable=True))
    publisher.expect(Queue.DeclareOk)
    idle = WireClient.opened(node).open_channel()

    sent, unfinished = fill_until_held_back(node, publisher, "q", BODY, ROOM)
    assert sent > ROOM // 2
    blocked = publisher.expect(Connection.Blocked)
    assert blocked.reason == "low on memory"
    assert eventually(lambda: memory_alarm(node))
    response = httpx.get(f"http://{node.host}:{node.http_port}/api/health/checks/alarms", auth=("guest", "guest"))
    assert response.status_code == 503
    assert response.json()["status"] == "failed"

    # A connection that has published nothing is served as ever, and so is a new one that consumes.
    idle.send_method(1, Basic.Get(queue="q", no_ack=True))
    idle.expect(Basic.GetOk)
    idle.close()
    with node.connect() as connection:
        channel = connection.channel()
        inbox = Inbox(channel, "q", auto_ack=True)
        inbox.take(sent // len(publish_bytes(1, "", "q", BODY)) - 1 - 8, within_s=60)
        publisher.expect(Connection.Unblocked)
        assert not memory_alarm(node)
        # What was in the sockets meanwhile arrives, and so does what is published now.
        publisher.send(unfinished)
        publisher.send(publish_bytes(1, "", "q", b"the last"))
        deliveries = inbox.take(1)
        while deliveries[-1].body != b"the last":
            deliveries = inbox.take(1)
    publisher.close()


def test_a_publisher_that_comes_during_the_alarm_is_blocked_too_and_confirms_wait(node: Node) -> None:
    first = WireClient.opened(node).open_channel()
    first.send_method(1, Queue.Declare(queue="q", durable=True))
    first.expect(Queue.DeclareOk)
    fill_until_held_back(node, first, "q", BODY, ROOM)
    assert eventually(lambda: memory_alarm(node))

    second = WireClient.opened(node).open_channel()
    second.send(publish_bytes(1, "", "q", b"held back"))
    blocked = second.expect(Connection.Blocked)
    assert blocked.reason == "low on memory"

    with node.connect() as connection:
        channel = connection.channel()
        channel.queue_purge("q")
        second.expect(Connection.Unblocked)
        inbox = Inbox(channel, "q", auto_ack=True)
        deliveries = inbox.take(1)
        while deliveries[-1].body != b"held back":
            deliveries = inbox.take(1)
    first.close()
    second.close()


def test_a_client_that_cannot_hear_blocked_is_held_back_without_it(node: Node) -> None:
    client = WireClient(node)
    client.start(capabilities={})
    client.tune()
    client.send_method(0, Connection.Open("/"))
    client.expect(Connection.OpenOk)
    client.open_channel()
    client.send_method(1, Queue.Declare(queue="q", durable=True))
    client.expect(Queue.DeclareOk)
    fill_until_held_back(node, client, "q", BODY, ROOM)
    assert eventually(lambda: memory_alarm(node))
    readable, _, _ = select.select([client.socket], [], [], 0)
    assert not readable, client.receive()
    client.close()
    assert node.workers()
