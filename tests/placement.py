"""Where a test's publisher, queue and consumer stand: all on one worker, or each on its own.

Owns the connections of one test and the names it declares. New connections are spread by count, so `connect_on` opens them until one sits
on the wanted worker (the management API tells which) and closes the others. A queue is put on a worker by declaring it from a connection
there. Against the peer there is one place only, and nothing is steered.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from tests.deadline import eventually
from tests.node import Broker

ATTEMPTS_MAX = 64  # connections opened in search of one worker


@dataclass(frozen=True)
class Sites:
    """A worker's index for each role; None where it is all the same."""

    name: str
    publisher: int | None
    queue: int | None
    consumer: int | None


ANYWHERE = Sites("anywhere", None, None, None)
TOGETHER = Sites("together", 1, 1, 1)
SPREAD = Sites("spread", 0, 1, 2)


def connect_on(broker: Broker, worker: int | None, **overrides: Any) -> pika.BlockingConnection:
    """A connection that sits on worker `worker`, or anywhere for None. `overrides` are pika's connection parameters."""
    if worker is None:
        return broker.connect(**overrides)
    missed: list[tuple[int, pika.BlockingConnection]] = []
    try:
        return find_on(broker, worker, missed, **overrides)
    finally:
        for _, connection in missed:
            connection.close()


def find_on(broker: Broker, worker: int, missed: list[tuple[int, pika.BlockingConnection]], **overrides: Any) -> pika.BlockingConnection:
    """As `connect_on`; the connections that came to other workers are the caller's, each in `missed` behind its worker."""
    for _ in range(ATTEMPTS_MAX):
        name = f"placed-{uuid.uuid4().hex}"
        properties = {**overrides.get("client_properties", {}), "connection_name": name}
        connection = broker.connect(**(overrides | {"client_properties": properties}))
        came_to = worker_of_connection(broker, name)
        if came_to == worker:
            return connection
        missed.append((came_to, connection))
    raise AssertionError(f"none of {ATTEMPTS_MAX} new connections came to worker {worker}")


def worker_of_connection(broker: Broker, name: str) -> int:
    """The index of the worker on which the connection with client property `connection_name` sits."""

    def look() -> list[int]:
        return [int(row["worker"]) for row in broker.api("connections") if row["user_provided_name"] == name]

    return eventually(look, what=f"connection {name} in /api/connections")[0]


class Placement:
    """One test's connections and names. Everything is made at first use; `close()` deletes and closes what was made."""

    def __init__(self, broker: Broker, sites: Sites) -> None:
        self.broker = broker
        self.sites = sites
        self._connections: list[pika.BlockingConnection] = []
        self._unused: list[tuple[int, pika.BlockingConnection]] = []  # found while looking for another worker's
        self._queues: list[str] = []
        self._exchanges: list[str] = []

    @functools.cached_property
    def publisher(self) -> BlockingChannel:
        """A channel on the publisher's worker."""
        return self.connect(self.sites.publisher).channel()

    @functools.cached_property
    def owner(self) -> BlockingChannel:
        """A channel on the worker that owns the test's queues; a connection of its own."""
        return self.connect(self.sites.queue).channel()

    @functools.cached_property
    def consumer(self) -> BlockingChannel:
        """A channel on the consumer's worker; a connection of its own."""
        return self.connect(self.sites.consumer).channel()

    def connect(self, worker: int | None = None, **overrides: Any) -> pika.BlockingConnection:
        """One more connection on a worker (`sites.publisher`, …), closed with the placement."""
        if worker is None or overrides:
            connection = connect_on(self.broker, worker, **overrides)
        else:
            connection = next((found for at, found in self._unused if at == worker), None) or find_on(self.broker, worker, self._unused)
            self._unused = [(at, found) for at, found in self._unused if found is not connection]
        self._connections.append(connection)
        return connection

    def name(self, kind: str = "q") -> str:
        """A name that no other test has; what it names is for the test to remove."""
        return f"{kind}-{uuid.uuid4().hex[:12]}"

    def queue(self, **declare: Any) -> str:
        """A new queue on the queue's worker: durable, not exclusive, unless `declare` (pika's arguments) says otherwise."""
        name = declare.pop("name", None) or self.name("q")
        self.owner.queue_declare(name, **({"durable": True} | declare))
        self._queues.append(name)
        return name

    def exchange(self, exchange_type: str = "direct", **declare: Any) -> str:
        """A new exchange, declared by the publisher."""
        name = self.name("x")
        self.publisher.exchange_declare(name, exchange_type, **declare)
        self._exchanges.append(name)
        return name

    def close(self) -> None:
        """Delete the queues and exchanges made here, and close the connections."""
        if self._queues or self._exchanges:
            with self.broker.connect() as connection:
                channel = connection.channel()
                for queue in self._queues:
                    channel.queue_delete(queue)
                for exchange in self._exchanges:
                    channel.exchange_delete(exchange)
        for connection in (*self._connections, *(unused for _, unused in self._unused)):
            if connection.is_open:
                with contextlib.suppress(pika.exceptions.AMQPError):
                    connection.close()
