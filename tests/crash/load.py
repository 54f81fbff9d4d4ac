"""The load: the durable objects that the laboratory's clients use, and these clients together.

Owns `Load`. It declares queues over all workers, starts publishers of every kind of route and a consumer for each queue, ends them, and
drains. `Laboratory` does harm under it.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys

from pika.exceptions import AMQPError

from tests.crash.checker import lost
from tests.crash.consumer import Consumer, drain
from tests.crash.ledger import Ledger
from tests.crash.publisher import Publisher, Route, TransactionPublisher
from tests.deadline import eventually
from tests.node import Node

FANOUT, TOPIC = "lab.fanout", "lab.topic"
STRAIGHT = ("lab.a", "lab.b", "lab.c")  # through the default exchange
ROUGH = "lab.rough"  # whose consumers requeue
TRANSACTED = "lab.tx"
FANNED = ("lab.fan-a", "lab.fan-b", "lab.fan-c")
LATE = ("lab.late-a", "lab.late-b")  # consumed at the end only: what many a start has to bring back
FIRST, LAST = "lab.topic-first", "lab.topic-last"  # bound to first.# and #.last
QUEUES = (*STRAIGHT, ROUGH, *LATE, TRANSACTED, *FANNED, FIRST, LAST)

DRAIN_WITHIN_S = 120.0
PERF_QUEUE = "lab.perf"


class Load:
    """Clients with one ledger. `rate`: messages a second of each of the five publishers."""

    def __init__(self, node: Node, dice: random.Random, *, rate: float = 120.0, epoch: int = 1) -> None:
        self.node = node
        self.ledger = Ledger()
        self._perf: subprocess.Popen[bytes] | None = None
        straight = [Route("", queue, (queue,)) for queue in (*STRAIGHT, ROUGH, *LATE)]
        topic = [Route(TOPIC, "first.x", (FIRST,)), Route(TOPIC, "x.last", (LAST,)), Route(TOPIC, "first.last", (FIRST, LAST))]

        def publisher(name: str, routes: list[Route], window: int) -> Publisher:
            return Publisher(f"{name}{epoch}", node, self.ledger, routes, random.Random(dice.random()), rate=rate, window=window)

        self.publishers = [
            publisher("straight", straight, 64),
            publisher("slow", straight, 1),
            publisher("fanout", [Route(FANOUT, "", FANNED)], 32),
            publisher("topic", topic, 200),
            TransactionPublisher(
                f"tx{epoch}", node, self.ledger, Route("", TRANSACTED, (TRANSACTED,)), random.Random(dice.random()), rate=rate, per_commit=5
            ),
        ]
        self.consumers = [
            Consumer(node, self.ledger, queue, random.Random(dice.random()), prefetch=50, rough=queue == ROUGH)
            for queue in (*QUEUES, ROUGH)
        ]

    def declare(self) -> None:
        """Declare everything, or find it declared already."""
        with self.node.connect() as connection:
            channel = connection.channel()
            channel.exchange_declare(FANOUT, "fanout", durable=True)
            channel.exchange_declare(TOPIC, "topic", durable=True)
            for queue in QUEUES:
                channel.queue_declare(queue, durable=True, arguments={"x-queue-leader-locator": "balanced"})
            for queue in FANNED:
                channel.queue_bind(queue, FANOUT)
            channel.queue_bind(FIRST, TOPIC, "first.#")
            channel.queue_bind(LAST, TOPIC, "#.last")

    def start(self) -> None:
        """Let all clients begin."""
        for consumer in self.consumers:
            if consumer.queue not in LATE:
                consumer.start()
        for publisher in self.publishers:
            publisher.start()

    def finish_publishing(self) -> None:
        """Let the publishers end; afterwards nothing is unanswered."""
        for publisher in self.publishers:
            publisher.finish()

    def finish_consuming(self) -> None:
        """Let all consumers empty their queues and end, and drain what they left; afterwards all queues are empty."""
        for consumer in self.consumers:
            if consumer.queue in LATE:
                consumer.start()

        def all_idle() -> bool:
            busy = [str(consumer) for consumer in self.consumers if not consumer.idle.is_set()]
            assert not busy, f"still busy: {', '.join(busy)}"
            return True

        eventually(all_idle, within_s=DRAIN_WITHIN_S, what="every queue is empty")
        for consumer in self.consumers:
            consumer.finish()
        self.drain()

    def drain(self) -> None:
        """Get and ack what still comes."""

        def drained() -> bool:
            # What a rough consumer gave back last may still be on its way to the queue.
            return not sum(drain(self.node, self.ledger, queue) for queue in QUEUES) and not lost(self.ledger.events)

        with contextlib.suppress(AssertionError):  # what is still lost then is the checker's to tell
            eventually(drained)

    def begin_perf(self, seconds: float = 1.0) -> None:
        """Beside the ledger's clients, `leveret perf` for a while, 2,000 persistent messages a second; it may die with what it talks to."""
        self.end_perf()
        command = [sys.executable, "-m", "leveret.perf.main", "--uri", self.node.url, "--queue", PERF_QUEUE, "--keep", "--quiet"]
        command += ["--persistent", "--durable", "--confirms", "200", "--ack", "multiple:20", "--prefetch", "200", "--size", "1000"]
        command += ["--rate", "2000", "--seconds", str(seconds), "--warmup", "0"]
        self._perf = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end_perf(self) -> None:
        """Wait for the end of `leveret perf`, if it runs, and delete its queue, if the broker is there."""
        if self._perf is None:
            return
        try:
            self._perf.wait(20)
        except subprocess.TimeoutExpired:
            self._perf.terminate()
            self._perf.wait(10)
        self._perf = None
        with contextlib.suppress(AMQPError, OSError), self.node.connect() as connection:
            connection.channel().queue_delete(PERF_QUEUE)

    def abandon(self) -> None:
        """Let all clients end without a word, after a failure."""
        for client in (*self.publishers, *self.consumers):
            client.abandon()
        self.end_perf()
