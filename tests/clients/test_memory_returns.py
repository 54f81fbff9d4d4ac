"""What many messages have held goes back to the system when they are gone, whichever way they went."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests.deadline import eventually
from tests.node import Node

QUEUE = "burst"
STAYS = "stays"
BATCH = 10_000
BODY = b"x" * 128
KEPT_BYTES_MAX = 24 << 20  # beyond what the worker had before


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    started = Node(tmp_path_factory.mktemp("burst") / "data", workers=1)
    started.start()
    yield started
    started.stop()


def own_bytes(pid: int) -> int:
    """Resident memory that is no file's."""
    resident, shared = Path(f"/proc/{pid}/statm").read_bytes().split()[1:3]
    return (int(resident) - int(shared)) * 4096


def fill(channel: BlockingChannel, messages: int) -> None:
    """So many messages that are not durable, and behind them one elsewhere that stays: it holds the heap's end where it is."""
    channel.queue_declare(QUEUE)
    frame = b"".join(
        part.marshal()
        for part in (
            pika.frame.Method(channel.channel_number, pika.spec.Basic.Publish(exchange="", routing_key=QUEUE)),
            pika.frame.Header(channel.channel_number, len(BODY), pika.BasicProperties()),
            pika.frame.Body(channel.channel_number, BODY),
        )
    )
    for _ in range(messages // BATCH):
        channel.connection._impl._output_marshaled_frames([frame * BATCH])
        channel.connection.process_data_events(0)
    eventually(lambda: channel.queue_declare(QUEUE, passive=True).method.message_count == messages, what="all messages in the queue")
    channel.queue_declare(STAYS)
    channel.basic_publish("", STAYS, BODY)
    eventually(lambda: channel.queue_declare(STAYS, passive=True).method.message_count == 1)


def drain(channel: BlockingChannel, messages: int) -> None:
    for _ in itertools.islice(channel.consume(QUEUE, auto_ack=True), messages):
        pass
    channel.cancel()


@pytest.mark.parametrize(("way", "messages"), [("purged", 1_000_000), ("deleted", 1_000_000), ("drained", 300_000)])
def test_messages_that_are_gone_leave_no_memory_behind(node: Node, way: str, messages: int) -> None:
    pid = node.workers()[0]
    with node.connect() as connection:
        channel = connection.channel()
        before = own_bytes(pid)
        fill(channel, messages)
        assert own_bytes(pid) - before >= messages * len(BODY)
        if way == "purged":
            channel.queue_purge(QUEUE)
        elif way == "deleted":
            channel.queue_delete(QUEUE)
        else:
            drain(channel, messages)
        eventually(lambda: own_bytes(pid) - before <= KEPT_BYTES_MAX, what="the memory to go back")
        for queue in (QUEUE, STAYS):
            channel.queue_delete(queue)
