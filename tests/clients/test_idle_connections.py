"""Two thousand connections that do nothing: how soon they are open, what each costs in memory, and that none of them costs time."""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
from pika.spec import Connection

from tests.conftest import MakeNode
from tests.deadline import busy_factor, eventually
from tests.node import Node
from tests.wire import PROTOCOL_HEADER, method_bytes

COUNT = 2000
OPEN_WITHIN_S = 2.0
MEMORY_EACH_MAX = 16 * 1024
START_OK = method_bytes(0, Connection.StartOk({"product": "idle"}, "PLAIN", b"\0guest\0guest", "en_US"))
TUNE_OK_AND_OPEN = method_bytes(0, Connection.TuneOk(2047, 131072, 60)) + method_bytes(0, Connection.Open("/"))
OPEN_OK_END = b"\x00\x0a\x00\x29\x00\xce"


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Descriptors enough for both ends' needs here; the broker raises its own limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = COUNT + 500
    if hard < wanted:
        pytest.skip(f"RLIMIT_NOFILE's hard limit is {hard}, this needs {wanted}: raise it (ulimit -Hn), else the goal is not tested")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections opened all at once by one thread: each a socket and the step of the handshake that it waits for."""

    def __init__(self, node: Node, count: int) -> None:
        self.sockets: list[socket.socket] = []
        waiting = selectors.EpollSelector()
        for _ in range(count):
            line = socket.socket()
            line.setblocking(False)
            line.connect_ex((node.host, node.port))
            waiting.register(line, selectors.EVENT_WRITE)
            self.sockets.append(line)
        unopened = count
        deadline = time.monotonic() + 60
        while unopened:
            events = waiting.select(deadline - time.monotonic())
            assert events, f"{unopened} of {count} connections are not open"
            for key, mask in events:
                line = key.fileobj
                assert isinstance(line, socket.socket)
                if mask & selectors.EVENT_WRITE:
                    line.send(PROTOCOL_HEADER)
                    waiting.modify(line, selectors.EVENT_READ, b"start")
                    continue
                data = line.recv(4096)
                assert data, "closed by the broker"
                # Each answer here is one short frame, which the loopback does not split.
                if key.data == b"start":
                    assert data.endswith(b"\xce"), data
                    line.send(START_OK)
                    waiting.modify(line, selectors.EVENT_READ, b"tune")
                elif key.data == b"tune":
                    assert len(data) == 20, data
                    line.send(TUNE_OK_AND_OPEN)
                    waiting.modify(line, selectors.EVENT_READ, b"open")
                else:
                    assert data.endswith(OPEN_OK_END), data
                    waiting.unregister(line)
                    unopened -= 1
        waiting.close()

    def close(self) -> None:
        for line in self.sockets:
            line.close()


def resident_bytes(node: Node) -> int:
    """Memory of all workers together."""
    return sum(psutil.Process(pid).memory_info().rss for pid in node.workers().values())


def cpu_s(node: Node) -> float:
    """Processor time that the workers and the router have used."""
    pids = [pid for name, pid in node.processes().items() if name not in ("management", "supervisor")]
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def shares(node: Node) -> list[int]:
    """How many connections each of the two workers has."""
    workers = [row["worker"] for row in node.api("connections")]
    return [workers.count(worker) for worker in (0, 1)]


def test_two_thousand_connections_open_at_once_and_cost_little(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2)
    Crowd(node, 50).close()  # code and pools that the first ones bring are not theirs
    before = resident_bytes(node)
    began = time.monotonic()
    crowd = Crowd(node, COUNT)
    took_s = time.monotonic() - began
    each = (resident_bytes(node) - before) / COUNT
    spread = shares(node)
    crowd.close()
    print(f"{COUNT} connections in {took_s:.2f} s, {each:.0f} bytes each, over the workers {spread}")
    assert each <= MEMORY_EACH_MAX
    assert min(spread) >= 0.45 * COUNT, "evenly spread, though all came at once"
    assert took_s <= OPEN_WITHIN_S * busy_factor()


def test_connections_that_come_one_by_one_are_spread_exactly(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2)
    connections = []
    for count in range(1, 21):
        connections.append(node.connect())
        assert abs(shares(node)[0] - shares(node)[1]) <= 1, f"after {count}"
    for connection in connections[::3]:
        connection.close()
    eventually(lambda: sum(shares(node)) == 13)
    connections = connections[1::3] + connections[2::3] + [node.connect() for _ in range(7)]
    assert abs(shares(node)[0] - shares(node)[1]) <= 1
    for connection in connections:
        connection.close()


def test_idle_connections_are_not_polled(fresh_node: MakeNode) -> None:
    node = fresh_node(workers=2)
    crowd = Crowd(node, COUNT)
    try:
        with node.connect() as connection:
            before = cpu_s(node)
            connection.sleep(3)  # what is measured is three seconds of nothing
            used_s = cpu_s(node) - before
        assert used_s < 0.15, f"{used_s:.2f} s of CPU in 3 s with {COUNT} idle connections"
    finally:
        crowd.close()
