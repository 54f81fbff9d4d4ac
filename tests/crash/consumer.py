"""Consumers of the load: each a thread that reads one queue, acks, and writes into the ledger what it got and what surely was settled.

Owns `Consumer`. It connects again by itself after a crash. `drain` empties a queue at the end. `Load` makes and ends consumers.
"""

from __future__ import annotations

import random
import threading
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from tests.crash.ledger import Acked, Ended, Ledger, MessageId, Received, Requeued, Strange, Synced, body_of, now_s
from tests.crash.publisher import PIKA_FAILED
from tests.node import Broker

RECONNECT_S = 0.03
SYNC_AFTER = 40  # deliveries
IDLE_S = 0.05  # without a delivery for so long, it asks as well
FINISH_WITHIN_S = 60.0


class Consumer:
    """Consumes `queue` with `prefetch` unacked at most. `rough`: requeues a share of what it gets, and acks out of order."""

    def __init__(self, broker: Broker, ledger: Ledger, queue: str, dice: random.Random, *, prefetch: int, rough: bool = False) -> None:
        self.broker = broker
        self.ledger = ledger
        self.queue = queue
        self.dice = dice
        self.prefetch = prefetch
        self.rough = rough
        self.idle = threading.Event()  # the queue was empty at the last question, and nothing has come since
        self._held: list[tuple[int, MessageId]] = []  # delivery tags not yet settled, in order
        self.ready = 0  # at the last question
        self._doing = ""
        self._session = 0
        self._since_sync = 0
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"consumer of {queue}", daemon=True)

    def __str__(self) -> str:
        return f"{self.queue} ({self.ready} ready, {len(self._held)} held, session {self._session}, {self._doing})"

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def finish(self) -> None:
        """Settle what is held, and end; `AssertionError` when that takes too long."""
        self._leaving.set()
        self._thread.join(FINISH_WITHIN_S)
        assert not self._thread.is_alive(), f"the consumer of {self.queue} does not end"

    def abandon(self) -> None:
        """Let it end as soon as it has a mind to, after a failure."""
        self._leaving.set()

    def _run(self) -> None:
        while not self._leaving.is_set():
            self._session = 0
            try:
                self._consume()
            except (AMQPError, OSError, *PIKA_FAILED) as error:
                self.idle.clear()
                if self._session:
                    self.ledger.write(Ended(now_s(), self._session, f"consumer of {self.queue}: {error!r}"))
                self._leaving.wait(RECONNECT_S)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shall hear of it and not wait in vain
                self.ledger.write(Strange(now_s(), f"consumer of {self.queue} broke: {error!r}"))
                return

    def _consume(self) -> None:
        self._doing = "connecting"
        connection = self.broker.connect(client_properties={"connection_name": f"consumer of {self.queue}"})
        self._held.clear()
        self._since_sync = 0
        self._session = self.ledger.new_session(self.queue)
        channel = connection.channel()
        channel.basic_qos(prefetch_count=self.prefetch)
        cancelled: list[str] = []
        channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
        self._doing = "subscribing"
        tag = channel.basic_consume(self.queue, self._on_delivery)
        while not self._leaving.is_set():
            before = self._since_sync
            self._doing = "waiting"
            connection.process_data_events(time_limit=IDLE_S)
            idle = self._since_sync == before
            self._settle(channel, everything=idle)
            if (idle and not self.idle.is_set()) or self._since_sync >= SYNC_AFTER:
                self._doing = "asking"
                self.ready = self._sync(channel)
                if idle and not self.ready and not self._held and not self._since_sync:
                    self.idle.set()
            if cancelled:
                self.ledger.write(Ended(now_s(), self._session, f"consumer of {self.queue}: cancelled by the broker"))
                connection.close()
                return
        channel.basic_cancel(tag)
        self._settle(channel, everything=True)
        self._sync(channel)
        connection.close()

    def _on_delivery(self, _: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self.idle.clear()
        self._since_sync += 1
        message = MessageId.parse(properties.message_id)
        self._held.append((method.delivery_tag, message))
        self.ledger.write(receipt(self._session, self.queue, message, method.redelivered, body))

    def _settle(self, channel: BlockingChannel, everything: bool) -> None:
        """Ack what is held; a rough one not all of it, not in order, and gives some back."""
        if not self._held:
            return
        if not self.rough:
            # Written first: an ack that was sent and a ledger that does not know of it would be a false "lost".
            self.ledger.settle(self._session, self.queue, [message for _, message in self._held])
            if self.dice.random() < 0.5:
                channel.basic_ack(self._held[-1][0], multiple=True)
            else:
                for tag, _ in self._held:
                    channel.basic_ack(tag)
            self._held.clear()
            return
        self.dice.shuffle(self._held)
        keep = 0 if everything else len(self._held) // 4
        while len(self._held) > keep:
            tag, message = self._held.pop()
            if self.dice.random() < 0.15:
                self.ledger.write(Requeued(now_s(), self._session, self.queue, message))
                channel.basic_nack(tag, requeue=True)
            else:
                self.ledger.write(Acked(now_s(), self._session, self.queue, message))
                channel.basic_ack(tag)

    def _sync(self, channel: BlockingChannel) -> int:
        """Ask the queue for its ready messages: the answer comes behind all that this channel sent before."""
        asked_at = len(self.ledger.events)
        self._since_sync = 0
        ready = int(channel.queue_declare(self.queue, passive=True).method.message_count)
        self.ledger.write(Synced(now_s(), self._session, asked_at))
        return ready


def receipt(session: int, queue: str, message: MessageId, redelivered: bool, body: bytes) -> Received:
    """The event of one delivery."""
    return Received(now_s(), session, queue, message, bool(redelivered), len(body), body == body_of(message, len(body)))


def drain(broker: Broker, ledger: Ledger, queue: str) -> int:
    """Get and ack everything that is ready in `queue`, and tell how many that were."""
    connection = broker.connect()
    session = ledger.new_session(queue)
    channel = connection.channel()
    count = 0
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            break
        count += 1
        message = MessageId.parse(properties.message_id)
        ledger.write(receipt(session, queue, message, method.redelivered, body), Acked(now_s(), session, queue, message))
        channel.basic_ack(method.delivery_tag)
    asked_at = len(ledger.events)
    channel.queue_declare(queue, passive=True)
    ledger.write(Synced(now_s(), session, asked_at))
    connection.close()
    return count
