"""Stores that were damaged while the node was down: what can be served is served, and the rest is told of."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pika
import pytest
from leveret.storage.layout import decode_segment
from pika.adapters.blocking_connection import BlockingChannel

from tests.conftest import MakeNode
from tests.inbox import Inbox
from tests.node import Node
from tests.placement import connect_on

COUNT = 3000
BODY = b"%06d" + b"." * 200
PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture
def node(fresh_node: MakeNode) -> Node:
    """Two shards with a durable queue each, `queue-0` and `queue-1`, of COUNT messages, and the node stopped."""
    node = fresh_node(workers=2)
    for worker in (0, 1):
        with connect_on(node, worker) as connection:
            channel = connection.channel()
            channel.queue_declare(f"queue-{worker}", durable=True)
            for number in range(COUNT):
                channel.basic_publish("", f"queue-{worker}", BODY % number, PERSISTENT)
            channel.confirm_delivery()
            channel.basic_publish("", f"queue-{worker}", BODY % COUNT, PERSISTENT)
    node.stop()
    return node


def shard_file(node: Node, number: int) -> Path:
    return node.data_dir / "shards" / str(number) / "data.mdb"


def numbers(channel: BlockingChannel, queue: str) -> list[int]:
    """What is in the queue, drained."""
    count = channel.queue_declare(queue, durable=True, passive=True).method.message_count
    inbox = Inbox(channel, queue, auto_ack=True)
    found = [int(body[:6]) for body in inbox.bodies(count)]
    inbox.cancel()
    return found


@pytest.mark.parametrize("damage", ["cut short", "overwritten", "no database"])
def test_a_shard_that_cannot_be_used_is_set_aside_and_the_others_serve(node: Node, damage: str) -> None:
    path = shard_file(node, 0)
    size = path.stat().st_size
    if damage == "cut short":
        os.truncate(path, size // 2)
    elif damage == "overwritten":
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(b"\xa5" * (size - 8192))
    else:
        path.write_bytes(b"not a database at all" * 1000)
    node.start()
    with node.connect() as connection:
        channel = connection.channel()
        assert numbers(channel, "queue-1") == list(range(COUNT + 1))
        assert numbers(channel, "queue-0") == []
        channel.confirm_delivery()
        channel.basic_publish("", "queue-0", BODY % 7, PERSISTENT)
        assert numbers(channel, "queue-0") == [7]
    aside = [found.name for found in (node.data_dir / "shards").iterdir() if ".corrupt-" in found.name]
    assert len(aside) == 1
    assert aside[0].startswith("0.corrupt-")
    assert "set aside" in node.log_path.read_text()


@pytest.mark.parametrize("damage", ["cut short", "a message's own size"])
def test_the_messages_of_a_damaged_segment_are_lost_and_no_others(node: Node, damage: str) -> None:
    environment = lmdb.open(str(shard_file(node, 0).parent), max_dbs=8, map_size=1 << 30)
    segments = environment.open_db(b"segments", create=False)
    with environment.begin(write=True) as txn:
        keys = [bytes(key) for key, _ in txn.cursor(segments)]
        assert len(keys) > 4
        damaged = keys[len(keys) // 2]
        value = bytearray(txn.get(damaged, db=segments))
        if damage == "cut short":
            del value[-100:]
        else:
            (message,) = decode_segment(bytes(value))[:1]
            value[bytes(value).index(message.data)] ^= 0x55  # the first of its fields
        txn.put(damaged, bytes(value), db=segments)
    environment.close()
    node.start()
    with node.connect() as connection:
        channel = connection.channel()
        inbox = Inbox(channel, "queue-0")
        while inbox.barrier() > 0:  # more than a connection's output holds at a time
            pass
        # The queue has given all of it away; some may still be on its way, from another worker or for want of room in the output.
        given = node.api("queues/%2F/queue-0")["messages_unacknowledged"]
        found = [int(delivery.body[:6]) for delivery in inbox.take(given)]
        lost = sorted(set(range(COUNT + 1)) - set(found))
        assert found == sorted(found)
        assert lost == list(range(lost[0], lost[-1] + 1)), "one stretch"
        assert 0 < len(lost) < COUNT // 2
        assert f"{len(lost)} messages of queue 'queue-0' in vhost '/' are lost" in node.log_path.read_text()
        channel.basic_ack(0, multiple=True)
        status = channel.queue_declare("queue-0", durable=True, passive=True).method
        assert status.message_count == 0
        assert numbers(channel, "queue-1") == list(range(COUNT + 1))
    node.stop()
    node.start()
    with node.connect() as connection:
        assert connection.channel().queue_declare("queue-0", durable=True, passive=True).method.message_count == 0
