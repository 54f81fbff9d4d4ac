"""Queues that hold more than memory has room for: what waits goes to disk, durable or not, and nobody notices but by the numbers."""

from __future__ import annotations

import re
import select
from collections.abc import Iterator
from typing import Any

import pytest
from pika.spec import Basic, Confirm, Connection, Queue

from tests.conftest import MakeNode
from tests.deadline import eventually
from tests.node import Node
from tests.placement import connect_on
from tests.wire import FRAME_BODY, FRAME_HEADER, WireClient, frame_bytes, header_payload, method_bytes

WITHIN_S = 100.0
MIB = 1 << 20
KEPT_IN_MEMORY = 16_384 + 1024  # of a durable queue's persistent messages at most
SHARE_BYTES = MIB  # of a worker for what waits, by the settings of `shared_node`
OVERHEAD_BYTES = 96  # that a waiting message counts beside its body
NUMBER = re.compile(rb"#(\d{8})\.")


@pytest.fixture(scope="module")
def shared_node(shared_nodes: MakeNode) -> Node:
    return shared_nodes(workers=2, memory_watermark=4096 * MIB, memory_paging_ratio=0.0005)


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """A node of which each worker keeps a mebibyte of waiting messages in memory, and which has none."""
    with shared_node.lent() as node:
        yield node


def body(number: int) -> bytes:
    return b"#%08d." % number


def publishes(queue: str, numbers: range, modes: tuple[int, ...]) -> bytes:
    """The frames of publishes on channel 1; their delivery modes take turns."""
    method = method_bytes(1, Basic.Publish(exchange="", routing_key=queue))
    headers = [frame_bytes(FRAME_HEADER, 1, header_payload(60, len(body(0)), 1 << 12, bytes([mode]))) for mode in modes]
    return b"".join(method + headers[number % len(modes)] + frame_bytes(FRAME_BODY, 1, body(number)) for number in numbers)


def filled(node: Node, queue: str, count: int, modes: tuple[int, ...]) -> WireClient:
    """A client that has published so many messages into the durable queue, all of them confirmed."""
    client = WireClient.opened(node).open_channel()
    client.send_method(1, Queue.Declare(queue=queue, durable=True))
    client.expect(Queue.DeclareOk)
    client.send_method(1, Confirm.Select())
    client.expect(Confirm.SelectOk)
    for first in range(0, count, 10_000):
        last = min(first + 10_000, count)
        publish_confirmed(client, publishes(queue, range(first, last), modes), range(first + 1, last + 1))
    client.send_method(1, Queue.Declare(queue=queue, passive=True))
    assert client.expect(Queue.DeclareOk).message_count == count
    return client


def publish_confirmed(client: WireClient, data: bytes, tags: range) -> None:
    """Send it, and wait until each of these tags is acked."""
    client.send(data)
    waiting = set(tags)
    while waiting:
        ack = client.expect(Basic.Ack)
        waiting -= {tag for tag in waiting if tag <= ack.delivery_tag} if ack.multiple else {ack.delivery_tag}


def about(node: Node, queue: str) -> dict[str, Any]:
    """The queue's row in the management API."""
    row: dict[str, Any] = node.api(f"queues/%2F/{queue}")
    return row


def wait_paged_out(node: Node, queue: str, count: int) -> None:
    eventually(lambda: about(node, queue)["messages_paged_out"] >= count, WITHIN_S, f"{count} messages of {queue} have left memory")


def consumed(node: Node, queue: str, count: int) -> list[int]:
    """The numbers of the next `count` messages, in order, without acks; a client of its own that reads as fast as it can."""
    with WireClient.opened(node, timeout_s=WITHIN_S).open_channel() as client:
        client.send_method(1, Basic.Consume(queue=queue, consumer_tag="c", no_ack=True))
        client.expect(Basic.ConsumeOk)
        data = bytearray()
        numbers: list[int] = []
        while len(numbers) < count:
            data += client.receive_some()
            end = 0
            for found in NUMBER.finditer(data):
                numbers.append(int(found[1]))
                end = found.end()
            del data[:end]
        return numbers


@pytest.mark.parametrize("durable", [True, False])
def test_two_hundred_thousand_transient_messages_go_to_scratch_and_come_back(node: Node, durable: bool) -> None:
    count = 200_000
    client = WireClient.opened(node).open_channel()
    client.send_method(1, Queue.Declare(queue="q", durable=durable))
    client.expect(Queue.DeclareOk)
    client.send(publishes("q", range(count), (1,)))
    client.send_method(1, Queue.Declare(queue="q", passive=True))
    assert client.expect(Queue.DeclareOk).message_count == count
    # The worker lets go until what waits fits into its share, and no more: what comes after the last look may stay if it fits.
    wait_paged_out(node, "q", count - SHARE_BYTES // (OVERHEAD_BYTES + len(body(0))))
    row = about(node, "q")
    assert row["messages_persistent"] == 0
    assert row["message_bytes_paged_out"] == row["messages_paged_out"] * len(body(0))
    assert sum(file.stat().st_size for file in (node.data_dir / "scratch").rglob("data.mdb")) > count * len(body(0))
    assert consumed(node, "q", count) == list(range(count))
    eventually(lambda: about(node, "q")["messages"] == 0)
    assert about(node, "q")["messages_paged_out"] == 0
    client.close()


def test_both_kinds_in_one_queue_keep_their_order_and_a_crash_takes_only_the_transient(node: Node) -> None:
    """Two persistent messages, one transient, and so on; half of the queue is consumed, the other half meets the crash."""
    count = 60_000
    client = filled(node, "q", count, (2, 2, 1))
    wait_paged_out(node, "q", count - KEPT_IN_MEMORY)
    first = consumed(node, "q", count // 2)
    assert first[: count // 2] == list(range(count // 2))
    # Whatever was on its way to that consumer is gone with it; the rest is in order.
    eventually(lambda: about(node, "q")["consumers"] == 0)
    left = about(node, "q")["messages"]
    persistent = about(node, "q")["messages_persistent"]
    expected = [number for number in range(count - left, count) if number % 3 != 2]
    assert persistent == len(expected)
    publish_confirmed(client, publishes("q", range(count, count + 1), (2,)), range(count + 1, count + 2))  # with it go the settles before
    client.close()
    node.kill()
    node.start()
    assert consumed(node, "q", len(expected) + 1) == [*expected, count]


@pytest.mark.parametrize("modes", [(1,), (2,), (1, 2)])
def test_a_purge_of_a_paged_queue_leaves_nothing_and_the_queue_goes_on(node: Node, modes: tuple[int, ...]) -> None:
    count = 40_000
    client = filled(node, "q", count, modes)
    wait_paged_out(node, "q", count - KEPT_IN_MEMORY)
    client.send_method(1, Queue.Purge(queue="q"))
    assert client.expect(Queue.PurgeOk).message_count == count
    row = about(node, "q")
    assert [row[name] for name in ("messages", "messages_paged_out", "messages_persistent", "message_bytes_paged_out")] == [0, 0, 0, 0]
    publish_confirmed(client, publishes("q", range(100), (2,)), range(count + 1, count + 101))
    client.close()
    node.kill()
    node.start()
    assert consumed(node, "q", 100) == list(range(100))
    assert about(node, "q")["messages"] == 0


@pytest.mark.parametrize("modes", [(1,), (2,), (1, 2)])
def test_a_paged_queue_may_be_deleted(node: Node, modes: tuple[int, ...]) -> None:
    """Its worker lives on, and the next queue of that name is empty, now and after a restart."""
    count = 40_000
    workers = eventually(node.workers)
    client = filled(node, "q", count, modes)
    wait_paged_out(node, "q", count - KEPT_IN_MEMORY)
    client.send(publishes("q", range(50), modes))  # these lie behind what is paged out
    client.send_method(1, Queue.Delete(queue="q"))
    while not isinstance(answer := client.receive().method, Queue.DeleteOk):
        assert isinstance(answer, Basic.Ack)
    assert answer.message_count == count + 50
    client.send_method(1, Queue.Declare(queue="q", durable=True))
    # The last confirms come when the disk has what they wait for: before either answer, between the two, or after both.
    while not isinstance(declared := client.receive().method, Queue.DeclareOk):
        assert isinstance(declared, Basic.Ack)
    assert declared.message_count == 0
    client.close()
    assert node.workers() == workers
    node.stop()
    node.start()
    assert about(node, "q")["messages"] == 0


def test_what_a_consumer_gives_back_comes_before_what_is_paged_out(node: Node) -> None:
    count, held = 40_000, 5000
    filled(node, "q", count, (2, 1)).close()
    wait_paged_out(node, "q", count - KEPT_IN_MEMORY)
    with connect_on(node, 1) as connection:
        channel = connection.channel()
        tags = [channel.basic_get("q")[0].delivery_tag for _ in range(held)]
        for tag in tags[::2]:
            channel.basic_nack(tag, requeue=True)
        channel.queue_declare("q", passive=True)
        channel.basic_nack(tags[-1], multiple=True, requeue=True)
        assert channel.queue_declare("q", passive=True).method.message_count == count
    assert consumed(node, "q", count) == list(range(count))


def test_memory_that_paging_cannot_free_holds_publishers_back(fresh_node: MakeNode) -> None:
    """What clients hold unacked stays in memory, so the alarm comes; when they give it back, it goes to disk and the alarm ends."""
    node = fresh_node(workers=2)
    eventually(node.processes)
    used = int(node.api("nodes")[0]["mem_used"])
    node.stop()
    node.config |= {"memory_watermark": used + 64 * MIB, "memory_paging_ratio": 0.05}
    node.start()
    publisher = WireClient.opened(node).open_channel()
    publisher.send_method(1, Queue.Declare(queue="q", durable=True))
    publisher.expect(Queue.DeclareOk)
    message = publish_bytes_in_frames(MIB)
    getter = WireClient.opened(node).open_channel()
    held = 0
    # Memory is looked at some times a second: 128 MiB are surely too much, and then it is for the broker to say so.
    while held < 128 and not select.select([publisher.socket], [], [], 0)[0]:
        publisher.send(message)
        getter.send_method(1, Basic.Get(queue="q"))
        if isinstance(getter.receive().method, Basic.GetOk):
            getter.receive_exactly(len(message) - PUBLISH_SIZE)
            held += 1
    assert select.select([publisher.socket], [], [], WITHIN_S)[0], f"{held} MiB are held and nobody is told"
    assert publisher.expect(Connection.Blocked).reason == "low on memory"
    assert node.api("nodes")[0]["mem_alarm"] is True
    assert held > 20
    getter.close()
    publisher.expect(Connection.Unblocked)
    eventually(lambda: about(node, "q")["messages_paged_out"] > held // 2, WITHIN_S)
    publisher.close()


PUBLISH_SIZE = len(method_bytes(1, Basic.Publish(exchange="", routing_key="q")))


def publish_bytes_in_frames(size: int) -> bytes:
    """A transient publish on channel 1 to the queue q, its body in frames of 128 KiB at most."""
    data = method_bytes(1, Basic.Publish(exchange="", routing_key="q")) + frame_bytes(FRAME_HEADER, 1, header_payload(60, size))
    for start in range(0, size, 131_064):
        data += frame_bytes(FRAME_BODY, 1, bytes(min(131_064, size - start)))
    return data
