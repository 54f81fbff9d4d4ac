"""Publishers of the load: each a thread with a pika connection of its own that publishes on until it is told to finish.

Owns `PublisherThread`, the life of either, and its two kinds: `Publisher` (confirms, many in flight) and `TransactionPublisher`
(`tx.commit`). Both write into the ledger what they attempt and how
it was answered, connect again by themselves after a crash, and publish some of what stayed unanswered once more. `Load` makes and ends
them.
"""

from __future__ import annotations

import abc
import collections
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.select_connection import SelectConnection
from pika.exceptions import AMQPError

from tests.crash.ledger import Attempted, Blocked, Confirmed, Ended, Ledger, MessageId, Nacked, Strange, Unanswered, body_of, now_s
from tests.node import Broker

TICK_S = 0.005  # between looks at what is due
RECONNECT_S = 0.03
RETRY_SHARE = 0.5  # of what stayed unanswered; the rest is never heard of again
FINISH_WITHIN_S = 120.0
# What pika 1.3 raises when a peer has gone the moment its connection stands (`getpeername() failed`).
PIKA_FAILED = (ValueError,)
SIZES = ((0.62, 1, 200), (0.24, 201, 4_096), (0.11, 4_097, 65_536), (0.03, 65_537, 300_000))  # share, least, most bytes


@dataclass(frozen=True)
class Route:
    """How a message gets to its queues."""

    exchange: str
    key: str
    queues: tuple[str, ...]


def random_size(dice: random.Random) -> int:
    """Mostly small ones, some large: 1 to 300,000 bytes."""
    pick = dice.random()
    for share, least, most in SIZES:
        if pick < share:
            return dice.randint(least, most)
        pick -= share
    return 1


class PublisherThread(abc.ABC):
    """A thread that publishes from `start` on; `_run` is its kind's, and ends once `_leaving` is set."""

    def __init__(self, name: str, broker: Broker, ledger: Ledger, dice: random.Random) -> None:
        self.name = name
        self.broker = broker
        self.ledger = ledger
        self.dice = dice
        self._abandoned = False
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def finish(self) -> None:
        """Publish nothing new, wait until everything is answered, and end; `AssertionError` when that takes too long."""
        self._leaving.set()
        self._thread.join(FINISH_WITHIN_S)
        assert not self._thread.is_alive(), f"publisher {self.name} still waits for {self._awaited()}"

    def abandon(self) -> None:
        """Let it end as soon as it has a mind to, after a failure."""
        self._abandoned = True
        self._leaving.set()

    @abc.abstractmethod
    def _awaited(self) -> str:
        """What it waits for, in words."""

    @abc.abstractmethod
    def _run(self) -> None:
        """What the thread does."""


class Publisher(PublisherThread):
    """Publishes with confirms through one exchange, at most `window` unanswered, about `rate` a second.

    All `routes` share one exchange, so that what it sends to a queue has an order. `sizes` gives the size of the next body.
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        ledger: Ledger,
        routes: Sequence[Route],
        dice: random.Random,
        *,
        rate: float,
        window: int,
        sizes: Callable[[random.Random], int] = random_size,
    ) -> None:
        assert len({route.exchange for route in routes}) == 1
        super().__init__(name, broker, ledger, dice)
        self.routes = routes
        self.rate = rate
        self.window = window
        self.sizes = sizes
        self.blocked = False
        self._sequence = 0
        self._due = 0.0  # messages that may go now
        self._looked_s = now_s()
        self._session = 0
        self._again: collections.deque[tuple[MessageId, Route, int]] = collections.deque()
        self._in_flight: dict[int, tuple[MessageId, Route, int]] = {}  # publish sequence number of the channel -> what
        self._number = 0
        self._connection: SelectConnection | None = None
        self._channel: Any = None

    def _awaited(self) -> str:
        return f"answers to {list(self._in_flight.values())[:5]}"

    def _run(self) -> None:
        while not self._has_ended():
            try:
                self._connection = SelectConnection(
                    self.broker.parameters(client_properties={"connection_name": self.name}),
                    on_open_callback=self._on_open,
                    on_open_error_callback=self._on_failed,
                    on_close_callback=self._on_closed,
                )
                self._connection.ioloop.start()
                self._connection.ioloop.close()
            except PIKA_FAILED:
                self._give_up()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shall hear of it and not wait in vain
                self.ledger.write(Strange(now_s(), f"publisher {self.name} broke: {error!r}"))
                return
            if not self._has_ended():
                time.sleep(RECONNECT_S)  # not a wait for `_leaving`: what is to be published again is, once it is set

    def _has_ended(self) -> bool:
        return self._leaving.is_set() and (self._abandoned or not self._again)

    # --- pika's callbacks

    def _on_failed(self, connection: SelectConnection, _: Exception) -> None:
        connection.ioloop.stop()

    def _on_open(self, connection: SelectConnection) -> None:
        self._session = self.ledger.new_session("")
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_closed)
        channel.confirm_delivery(self._on_answer, callback=self._on_selected)

    def _on_selected(self, _: Any) -> None:
        self._number = 0
        self._tick()

    def _on_channel_closed(self, _: Any, reason: Exception) -> None:
        connection = self._connection
        if connection is not None and connection.is_open:
            self.ledger.write(Ended(now_s(), self._session, f"channel of {self.name}: {reason}"))
            self._give_up()
            connection.close()

    def _on_closed(self, connection: SelectConnection, reason: Exception) -> None:
        if not isinstance(reason, pika.exceptions.ConnectionClosedByClient):
            self.ledger.write(Ended(now_s(), self._session, f"connection of {self.name}: {reason}"))
        self._give_up()
        self.blocked = False
        connection.ioloop.stop()

    def _on_answer(self, frame: Any) -> None:
        answer = Confirmed if isinstance(frame.method, pika.spec.Basic.Ack) else Nacked
        number = frame.method.delivery_tag
        if frame.method.multiple:
            numbers = [each for each in self._in_flight if not number or each <= number]
        else:
            numbers = [number] if number in self._in_flight else []
        if not numbers:
            self.ledger.write(Strange(now_s(), f"{answer.__name__.lower()} of number {number}, which {self.name} does not wait for"))
        at_s = now_s()
        self.ledger.write(*(answer(at_s, self._in_flight.pop(each)[0]) for each in numbers))

    # --- publishing

    def _set_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        self.ledger.write(Blocked(now_s(), self._session, blocked))

    def _give_up(self) -> None:
        """The channel is gone: what it did not answer is unknown."""
        self._channel = None
        for message, route, size in self._in_flight.values():
            self.ledger.write(Unanswered(now_s(), message))
            if self.dice.random() < RETRY_SHARE:
                self._again.append((message, route, size))
        self._in_flight.clear()

    def _tick(self) -> None:
        channel, connection = self._channel, self._connection
        if channel is None or connection is None or not channel.is_open:
            return
        looked_s, self._looked_s = self._looked_s, now_s()
        self._due = min(self._due + (self._looked_s - looked_s) * self.rate, self.window)
        while self._due >= 1 and len(self._in_flight) < self.window and not self.blocked:
            if self._again:
                self._publish(*self._again.popleft())
            elif not self._leaving.is_set():
                self._sequence += 1
                self._publish(MessageId(self.name, self._sequence), self.dice.choice(self.routes), self.sizes(self.dice))
            else:
                break
            self._due -= 1
        if self._leaving.is_set() and not self._in_flight and self._has_ended():
            connection.close()
            return
        connection.ioloop.call_later(TICK_S, self._tick)

    def _publish(self, message: MessageId, route: Route, size: int) -> None:
        self._number += 1
        self._in_flight[self._number] = message, route, size
        self.ledger.write(Attempted(now_s(), message, route.exchange, route.queues, size, ""))
        properties = pika.BasicProperties(delivery_mode=2, message_id=str(message))
        self._channel.basic_publish(route.exchange, route.key, body_of(message, size), properties)


class TransactionPublisher(PublisherThread):
    """Publishes `per_commit` messages in each transaction into one queue, one transaction after the other."""

    def __init__(
        self, name: str, broker: Broker, ledger: Ledger, route: Route, dice: random.Random, *, rate: float, per_commit: int
    ) -> None:
        assert len(route.queues) == 1, "a transaction is whole on one queue"
        super().__init__(name, broker, ledger, dice)
        self.route = route
        self.pause_s = per_commit / rate
        self.per_commit = per_commit
        self._sequence = 0
        self._commits = 0

    def _awaited(self) -> str:
        return "tx.commit-ok"

    def _run(self) -> None:
        while not self._leaving.is_set():
            session = 0
            try:
                connection = self.broker.connect(client_properties={"connection_name": self.name})
                session = self.ledger.new_session("")
                channel = connection.channel()
                channel.tx_select()
                while not self._leaving.is_set():
                    self._commit(channel)
                    connection.process_data_events(time_limit=self.pause_s)
                connection.close()
            except (AMQPError, OSError, *PIKA_FAILED) as error:
                if session:
                    self.ledger.write(Ended(now_s(), session, f"connection of {self.name}: {error!r}"))
                self._leaving.wait(RECONNECT_S)
            except Exception as error:  # noqa: BLE001 - as above
                self.ledger.write(Strange(now_s(), f"publisher {self.name} broke: {error!r}"))
                return

    def _commit(self, channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
        self._commits += 1
        messages = [MessageId(self.name, self._sequence + number) for number in range(1, self.per_commit + 1)]
        self._sequence += self.per_commit
        sizes = [random_size(self.dice) for _ in messages]
        group = f"{self.name}:{self._commits}"
        at_s = now_s()
        route = self.route
        self.ledger.write(
            *(Attempted(at_s, message, route.exchange, route.queues, size, group) for message, size in zip(messages, sizes, strict=True))
        )
        answer: type[Confirmed] | type[Unanswered] = Unanswered
        try:
            for message, size in zip(messages, sizes, strict=True):
                properties = pika.BasicProperties(delivery_mode=2, message_id=str(message))
                channel.basic_publish(route.exchange, route.key, body_of(message, size), properties)
            channel.tx_commit()
            answer = Confirmed
        finally:
            at_s = now_s()
            self.ledger.write(*(answer(at_s, message) for message in messages))
