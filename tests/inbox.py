"""A consumer that remembers: what a queue delivered to one pika channel, in order.

Owns one subscription of a blocking channel. Tests call `take(n)` to wait for deliveries and `barrier()` to be sure that none is on its way.
It never acks by itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from tests.deadline import WITHIN_S


@dataclass(frozen=True)
class Delivery:
    """One `basic.deliver` with its content."""

    method: pika.spec.Basic.Deliver
    properties: pika.BasicProperties
    body: bytes

    @property
    def tag(self) -> int:
        """Its delivery tag on the consumer's channel."""
        return int(self.method.delivery_tag)


class Inbox:
    """Consumes `queue` on `channel` and keeps the deliveries in `waiting` (oldest first) until a test takes them."""

    def __init__(self, channel: BlockingChannel, queue: str, *, auto_ack: bool = False, **consume: Any) -> None:
        self.channel = channel
        self.queue = queue
        self.waiting: list[Delivery] = []
        self.cancelled = False
        channel.add_on_cancel_callback(self._on_cancel)
        self.consumer_tag: str = channel.basic_consume(queue, self._on_delivery, auto_ack=auto_ack, **consume)

    def take(self, count: int, within_s: float = WITHIN_S) -> list[Delivery]:
        """Wait until `count` deliveries are there, and take them out; `AssertionError` when they do not come in time."""
        deadline = time.monotonic() + within_s
        while len(self.waiting) < count:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"{len(self.waiting)} of {count} deliveries from {self.queue!r} within {within_s} s"
            self.channel.connection.process_data_events(time_limit=left_s)
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def take_one(self) -> Delivery:
        """The next delivery."""
        return self.take(1)[0]

    def bodies(self, count: int) -> list[bytes]:
        """The bodies of the next `count` deliveries."""
        return [delivery.body for delivery in self.take(count)]

    def barrier(self) -> int:
        """Ask the queue for its state and return its ready messages.

        The queue's answer follows, on the same line, whatever it delivered before; so a delivery not in `waiting` afterwards was not made.
        """
        ready = int(self.channel.queue_declare(self.queue, passive=True).method.message_count)
        self.channel.connection.process_data_events(time_limit=0)
        return ready

    def cancel(self) -> None:
        """Cancel the subscription; waits for cancel-ok. Deliveries already taken over stay unacked."""
        self.channel.basic_cancel(self.consumer_tag)

    def _on_delivery(self, _: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self.waiting.append(Delivery(method, properties, body))

    def _on_cancel(self, frame: Any) -> None:
        if frame.method.consumer_tag == self.consumer_tag:
            self.cancelled = True
