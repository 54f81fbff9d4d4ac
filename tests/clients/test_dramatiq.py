"""Dramatiq on the broker: actors, retries and delayed messages, with the worker in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import dramatiq
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from tests.names import unique
from tests.node import Broker

WITHIN_S = 30.0


class Outbox:
    """What the actors have done, for the test to wait for."""

    def __init__(self) -> None:
        self.items: list[object] = []
        self._changed = threading.Condition()

    def put(self, item: object) -> None:
        """Called by an actor."""
        with self._changed:
            self.items.append(item)
            self._changed.notify()

    def wait(self, count: int) -> list[object]:
        """All items, once there are `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.items) >= count, WITHIN_S), self.items
            return list(self.items)


@pytest.fixture
def queue(broker: Broker) -> Iterator[str]:
    name = unique("dramatiq")
    yield name
    with broker.connect() as connection:
        for queue in (name, f"{name}.DQ", f"{name}.XQ"):
            connection.channel().queue_delete(queue)


@pytest.fixture
def dramatiq_broker(broker: Broker, queue: str) -> Iterator[RabbitmqBroker]:
    made = RabbitmqBroker(url=broker.url, confirm_delivery=True)
    yield made
    made.close()


def test_actors_run_are_retried_and_wait(dramatiq_broker: RabbitmqBroker, queue: str) -> None:
    outbox = Outbox()
    attempts: list[int] = []

    @dramatiq.actor(broker=dramatiq_broker, queue_name=queue)
    def store(item: object) -> None:
        outbox.put(item)

    @dramatiq.actor(broker=dramatiq_broker, queue_name=queue, max_retries=3, min_backoff=100, max_backoff=200)
    def third_time_lucky() -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise RuntimeError("not yet")
        outbox.put("lucky")

    @dramatiq.actor(broker=dramatiq_broker, queue_name=queue)
    def tell_time() -> None:
        outbox.put(time.time())

    worker = dramatiq.Worker(dramatiq_broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        for number in range(20):
            store.send(number)
        assert sorted(outbox.wait(20)) == list(range(20))  # type: ignore[type-var]
        third_time_lucky.send()
        assert outbox.wait(21)[-1] == "lucky"
        asked = time.time()
        tell_time.send_with_options(delay=1000)
        ran = outbox.wait(22)[-1]
        assert isinstance(ran, float)
        assert ran >= asked + 1
        dramatiq_broker.join(queue, timeout=int(WITHIN_S * 1000))
    finally:
        worker.stop()
