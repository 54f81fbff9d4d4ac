"""Transactions cut off by a crash: of each, every shard has all of its part or nothing, and all of it if the client has heard commit-ok."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter

import pika
import pytest
from pika.exceptions import AMQPError

from tests.conftest import MakeNode
from tests.node import Node
from tests.placement import connect_on

ROUNDS = 6
COPIES = 4
PERSISTENT = pika.BasicProperties(delivery_mode=2)
# Queue -> the worker, and so the shard, that has it. A part of each transaction goes straight to a queue, another through an exchange.
QUEUES = {"tx.straight": 1, "tx.routed": 1, "tx.here": 0}


def declare(node: Node) -> None:
    for queue, worker in QUEUES.items():
        with connect_on(node, worker) as connection:
            channel = connection.channel()
            channel.queue_declare(queue, durable=True)
            if queue in ("tx.routed", "tx.here"):
                channel.queue_bind(queue, "amq.topic", "tx.#")


def run_transactions(connection: pika.BlockingConnection, names: range, answered: set[int], first: threading.Event) -> None:
    """One transaction after the other until the connection ends; the names of those that were answered go into the set.

    `first` is set at the first answer.
    """
    channel = connection.channel()
    channel.tx_select()
    with contextlib.suppress(AMQPError):
        for name in names:
            body = b"%d" % name
            for _ in range(COPIES):
                channel.basic_publish("", "tx.straight", body, PERSISTENT)
                channel.basic_publish("amq.topic", "tx.x", body, PERSISTENT)
            channel.tx_commit()
            answered.add(name)
            first.set()


def counts(node: Node) -> dict[str, Counter[int]]:
    """How many messages of each transaction are in each queue."""
    found: dict[str, Counter[int]] = {}
    with node.connect() as connection:
        channel = connection.channel()
        for queue in QUEUES:
            found[queue] = Counter()
            while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
                found[queue][int(got[2])] += 1
    return found


@pytest.mark.timeout(300)
def test_a_crash_leaves_all_or_nothing_of_a_transaction_on_each_shard(fresh_node: MakeNode) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    node = fresh_node(workers=2)
    declare(node)
    cut_off = 0
    for number in range(ROUNDS):
        connection = connect_on(node, 0)
        answered: set[int] = set()
        first = threading.Event()
        names = range(number * 1_000_000, (number + 1) * 1_000_000)
        worker = threading.Thread(target=run_transactions, args=(connection, names, answered, first))
        worker.start()
        assert first.wait(30), "not one transaction was answered"
        worker.join(dice.random() * 0.4)  # the moment of the crash
        assert worker.is_alive(), "the transactions stopped before the crash"
        node.kill()
        worker.join(30)
        assert not worker.is_alive()
        node.start()
        found = counts(node)
        for queue in ("tx.straight", "tx.routed", "tx.here"):
            assert set(found[queue].values()) <= {COPIES}, f"round {number}: a part of a transaction is in {queue}"
            assert answered <= set(found[queue]), f"round {number}: {queue} lacks a transaction that was answered"
        assert set(found["tx.straight"]) == set(found["tx.routed"]), f"round {number}: one shard has half a transaction"
        cut_off += len(found["tx.straight"].keys() - answered)
    print(f"{cut_off} transactions were cut off after they had come to the disk")
