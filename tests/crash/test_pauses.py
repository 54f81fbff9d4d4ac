"""SIGSTOP of a worker and of the router: others serve meanwhile, heartbeats are on time, and after SIGCONT nothing is lost.

`LEVERET_CRASH_PAUSE_S` is how long the pause is; `make crash` makes it 20 seconds.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pika
import pytest
from pika.frame import Heartbeat

from tests.crash.laboratory import Laboratory, tell
from tests.deadline import busy_factor, eventually
from tests.node import Node
from tests.placement import connect_on
from tests.stopwatch import Stopwatch
from tests.wire import FRAME_HEARTBEAT, WireClient, frame_bytes

PAUSE_S = float(os.environ.get("LEVERET_CRASH_PAUSE_S", "5"))
HEARTBEAT_S = 2  # sent twice an interval
SERVED_WITHIN_S = 1.0  # a confirmed publish and a get, on a quiet machine


class HeartbeatWatch:
    """A silent connection to a worker, and how long the worker's heartbeats to it kept away at most (`longest_s`)."""

    def __init__(self, node: Node, worker: int) -> None:
        self.longest_s = 0.0
        self.count = 0
        self.failure: BaseException | None = None
        self._leaving = threading.Event()
        self.client = self._connect(node, worker)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def _connect(node: Node, worker: int) -> WireClient:
        missed: list[WireClient] = []  # kept open meanwhile, since new connections go where there are fewer
        try:
            for _ in range(64):
                client = WireClient.opened(node, heartbeat=HEARTBEAT_S)
                port = client.socket.getsockname()[1]
                rows = eventually(lambda port=port: [row for row in node.api("connections") if row["peer_port"] == port])
                if rows[0]["worker"] == worker:
                    return client
                missed.append(client)
            raise AssertionError(f"no connection came to worker {worker}")
        finally:
            for client in missed:
                client.close()

    def _watch(self) -> None:
        try:
            before = time.monotonic()
            while not self._leaving.is_set():
                if isinstance(self.client.receive(), Heartbeat):
                    now = time.monotonic()
                    self.longest_s = max(self.longest_s, now - before)
                    self.count += 1
                    before = now
                    self.client.send(frame_bytes(FRAME_HEARTBEAT, 0, b""))
        except (OSError, EOFError, AssertionError) as failure:
            self.failure = failure

    def __enter__(self) -> HeartbeatWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join(20)  # the next heartbeat ends it
        self.client.close()


@pytest.mark.timeout(300 + 4 * PAUSE_S)
@pytest.mark.parametrize("name", ["worker-0", "router"])
def test_others_serve_while_a_process_stands_still_and_nothing_is_lost(tmp_path: Path, name: str) -> None:
    with Laboratory(Node(tmp_path / "data", workers=2), seed=1) as laboratory:
        node = laboratory.node
        load = laboratory.begin_epoch(rate=60)
        connection = connect_on(node, 1)
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("served", durable=True)
        persistent = pika.BasicProperties(delivery_mode=2)
        load.ledger.wait_for_confirms(200)
        longest_s, count = 0.0, 0
        stopwatch = Stopwatch(node.processes().values())
        with HeartbeatWatch(node, 1) as watch, laboratory.paused(name):
            until = time.monotonic() + PAUSE_S
            while time.monotonic() < until:
                stopwatch.reset()
                channel.basic_publish("", "served", b"x", persistent, mandatory=True)
                method, _, _ = channel.basic_get("served", auto_ack=True)
                assert method is not None
                longest_s = max(longest_s, stopwatch.read_s)
                count += 1
        tell(f"{name} paused for {PAUSE_S} s: {count} rounds beside it, {longest_s:.3f} s the longest; heartbeats {watch.longest_s:.2f} s")
        assert watch.failure is None
        assert watch.count >= PAUSE_S / HEARTBEAT_S - 1
        assert longest_s < SERVED_WITHIN_S * busy_factor()
        assert watch.longest_s < HEARTBEAT_S * 1.5
        connection.close()
        load.ledger.wait_for_confirms(200)
        laboratory.end_epoch()
        assert laboratory.bugs() == []


@pytest.mark.needs("message store")
@pytest.mark.timeout(300)
def test_a_process_killed_while_it_stands_still_loses_nothing(tmp_path: Path) -> None:
    """The queues of a worker that neither answers nor dies: what others sent it meanwhile stays unanswered, and what it confirmed stays."""
    with Laboratory(Node(tmp_path / "data", workers=2), seed=random.SystemRandom().randrange(10**6)) as laboratory:
        load = laboratory.begin_epoch()
        for worker in (0, 1):
            load.ledger.wait_for_confirms(200)
            laboratory.pause_and_kill(f"worker-{worker}", within_s=1.0)
        load.ledger.wait_for_confirms(200)
        laboratory.end_epoch()
