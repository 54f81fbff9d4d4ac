"""The acceptors of several workers on one listening socket: how connections spread, however they come and go."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from leveret.link.loop import PollerLoop
from leveret.link.poller import Poller, running_poller
from leveret.worker.acceptor import LOAD_PAUSE_S, UNTOLD_MAX, Acceptor

WITHIN_S = 30.0


class StandInWorker:
    """A worker without links: `load` notices go to the others' acceptors directly, as soon as the loop comes round."""

    def __init__(self, index: int, workers: list[StandInWorker], count: int, directory: Path, poller: Poller) -> None:
        self.index = index
        self.child = SimpleNamespace(loop=asyncio.get_running_loop(), poller=poller, runtime_dir=directory)
        self.connections: set[socket.socket] = set()
        self.changed = asyncio.Event()
        self.heard: list[tuple[int, int]] = []  # notices: worker, its connections
        self.state = SimpleNamespace(workers=[Line(self, workers, other) if other != index else None for other in range(count)])
        self.acceptor = Acceptor(self, count)  # type: ignore[arg-type]

    def accept(self, sock: socket.socket) -> None:
        self.connections.add(sock)
        self.acceptor.load_changed()
        self.changed.set()

    def hear(self, index: int, body: dict[str, int]) -> None:
        self.acceptor.told(index, body)
        self.heard.append((index, body["connections"]))
        self.changed.set()

    async def until_heard(self, index: int, connections: int) -> None:
        """Return when that worker's latest notice has told of so many connections."""
        while (index, connections) not in self.heard:
            self.changed.clear()
            await self.changed.wait()

    def end_one(self) -> None:
        self.connections.pop().close()
        self.acceptor.load_changed()


class Line:
    """What stands in for the link from one worker to another."""

    def __init__(self, source: StandInWorker, workers: list[StandInWorker], index: int) -> None:
        self.index = index
        self.link: Line | None = self
        self._source = source
        self._workers = workers

    def notify(self, verb: str, body: dict[str, int]) -> None:
        assert verb == "load"
        self._source.child.loop.call_soon(self._workers[self.index].hear, self._source.index, body)


class Node:
    """Some workers and their listening socket. `connect(n)` opens clients and waits until all are accepted."""

    def __init__(self, count: int, directory: Path) -> None:
        self.loop = asyncio.get_running_loop()
        self.poller = running_poller()
        self.workers: list[StandInWorker] = []
        for index in range(count):
            self.workers.append(StandInWorker(index, self.workers, count, directory, self.poller))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.clients: list[socket.socket] = []

    def start(self) -> None:
        for worker in self.workers:
            worker.acceptor.start(self.listener)

    @property
    def loads(self) -> list[int]:
        return [len(worker.connections) for worker in self.workers]

    async def connect(self, count: int) -> None:
        wanted = sum(self.loads) + count
        for _ in range(count):
            self.clients.append(socket.create_connection(self.listener.getsockname()))
        while sum(self.loads) < wanted:
            waits = [asyncio.ensure_future(worker.changed.wait()) for worker in self.workers]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            for worker in self.workers:
                worker.changed.clear()

    def close(self) -> None:
        for worker in self.workers:
            worker.acceptor.close()
            worker.acceptor.close()  # is harmless
            while worker.connections:
                worker.connections.pop().close()
        for client in self.clients:
            client.close()
        self.listener.close()
        self.poller.close()


def run(count: int, directory: Path, main: Callable[[Node], Awaitable[None]]) -> None:
    async def bounded() -> None:
        node = Node(count, directory)
        try:
            await asyncio.wait_for(main(node), WITHIN_S)
        finally:
            node.close()

    with asyncio.Runner(loop_factory=PollerLoop) as runner:
        runner.run(bounded())


def test_connections_one_by_one_spread_evenly(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        node.start()
        for total in range(1, 13):
            await node.connect(1)
            assert max(node.loads) - min(node.loads) <= 1, f"{node.loads} of {total}"

    run(3, tmp_path, main)


def test_a_crowd_spreads_evenly(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        node.start()
        await node.connect(120)
        assert sum(node.loads) == 120
        assert max(node.loads) - min(node.loads) <= 2

    run(4, tmp_path, main)


def test_a_worker_that_lost_its_connections_gets_the_next_ones(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        node.start()
        await node.connect(12)
        for _ in range(4):
            node.workers[2].end_one()
        for other in (0, 1):
            await node.workers[other].until_heard(2, 0)
        before = node.loads
        await node.connect(4)
        assert node.loads == [before[0], before[1], 4]

    run(3, tmp_path, main)


def test_nothing_is_passed_to_a_worker_that_is_down(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        down = node.workers[1]
        for worker in node.workers:
            if line := worker.state.workers[1]:
                line.link = None
        node.workers[0].acceptor.start(node.listener)
        await node.connect(6)
        assert node.loads == [6, 0] and down.connections == set()

    run(2, tmp_path, main)


def test_a_connection_that_cannot_be_passed_on_is_served_here(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        node.workers[1].acceptor.close()
        (tmp_path / "handoff-1.sock").unlink()
        node.workers[0].acceptor.start(node.listener)
        await node.connect(4)
        assert node.loads == [4, 0]

    run(2, tmp_path, main)


def test_what_is_passed_on_is_the_clients_own_socket(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        node.workers[0].acceptor.start(node.listener)
        await node.connect(2)
        assert node.loads == [1, 1]
        served = {sock.getpeername(): sock for worker in node.workers for sock in worker.connections}
        for client in node.clients:
            client.sendall(b"AMQP")
            assert await node.loop.sock_recv(nonblocking(served[client.getsockname()]), 4) == b"AMQP"

    run(2, tmp_path, main)


def test_a_socket_that_moves_is_given_to_who_names_its_token_and_is_no_new_client(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        giving, taking = node.workers[0].acceptor, node.workers[1].acceptor
        ours, clients = socket.socketpair()
        giving._pass_on(socket.socketpair()[0], 1)  # a new client's, before it on the line
        assert giving.send_traveller(ours.fileno(), 1, 7)
        ours.close()
        assert taking.claim(0, 6) is None
        assert taking.claim(2, 7) is None
        descriptor = taking.claim(0, 7)
        assert descriptor is not None
        assert taking.claim(0, 7) is None
        assert node.loads == [0, 1]
        with socket.socket(fileno=descriptor) as moved:
            clients.sendall(b"AMQP")
            assert moved.recv(4) == b"AMQP"
        clients.close()

    run(2, tmp_path, main)


def test_a_socket_that_nobody_asks_for_ends_with_the_worker_that_sent_it(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        ours, clients = socket.socketpair()
        assert node.workers[0].acceptor.send_traveller(ours.fileno(), 1, 1)
        ours.close()
        node.workers[1].acceptor.forget_travellers(0)
        assert clients.recv(1) == b""
        assert node.workers[1].acceptor.claim(0, 1) is None
        clients.close()

    run(2, tmp_path, main)


def test_a_full_line_and_a_worker_that_is_down_take_no_socket(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        ours, clients = socket.socketpair()
        acceptor = node.workers[0].acceptor
        taken = 0
        while acceptor.send_traveller(ours.fileno(), 1, taken):
            taken += 1
            assert taken < 100_000
        assert taken > 0
        (tmp_path / "handoff-1.sock").unlink()
        assert not acceptor.send_traveller(ours.fileno(), 1, taken)
        ours.close()
        clients.close()

    run(2, tmp_path, main)


def test_the_others_hear_how_busy_a_worker_is(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        node.workers[0].acceptor.busy_percent = 63
        node.workers[0].acceptor.load_changed()
        for _ in range(3):  # the notice is written at the end of this turn, sent, and heard
            await asyncio.sleep(0)
        assert [worker.acceptor.busy for worker in node.workers] == [[0, 0], [63, 0]]

    run(2, tmp_path, main)


def nonblocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


def test_without_descriptors_it_looks_away_for_a_moment_and_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullListener:
        """Accepts nothing for as long as `full`."""

        full = True
        tried = 0

        def __init__(self, listener: socket.socket) -> None:
            self._listener = listener

        def fileno(self) -> int:
            return self._listener.fileno()

        def accept(self) -> tuple[socket.socket, Any]:
            self.tried += 1
            if self.full:
                self.full = False
                raise OSError(24, "Too many open files")
            return self._listener.accept()

    async def main(node: Node) -> None:
        monkeypatch.setattr("leveret.worker.acceptor.OUT_OF_FILES_PAUSE_S", 0.01)
        listener = FullListener(node.listener)
        node.workers[0].acceptor.start(listener)  # type: ignore[arg-type]
        await node.connect(1)
        assert node.loads == [1]
        assert listener.tried == 2, "once in vain, once with success"

    run(1, tmp_path, main)


def test_a_crowd_is_told_of_in_few_notices(tmp_path: Path) -> None:
    async def main(node: Node) -> None:
        node.start()
        await node.connect(120)
        for worker in node.workers:
            other = node.workers[1 - worker.index]
            await other.until_heard(worker.index, len(worker.connections))
            pauses = (node.loop.time() - began_s) / LOAD_PAUSE_S
            assert len(other.heard) <= 1 + pauses + len(worker.connections) / UNTOLD_MAX, "one at once, one each pause, one for every four"

    began_s = time.monotonic()
    run(2, tmp_path, main)


def test_no_connection_is_taken_while_it_looks_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(node: Node) -> None:
        monkeypatch.setattr("leveret.worker.acceptor.OUT_OF_FILES_PAUSE_S", WITHIN_S)
        out_of_files = asyncio.Event()

        def accept() -> tuple[socket.socket, Any]:
            out_of_files.set()
            raise OSError(24, "Too many open files")

        real = node.listener
        listener = SimpleNamespace(fileno=real.fileno, accept=accept, family=real.family, type=real.type, proto=real.proto)
        node.workers[0].acceptor.start(listener)  # type: ignore[arg-type]
        node.clients.append(socket.create_connection(node.listener.getsockname()))
        await out_of_files.wait()
        node.workers[1].acceptor.start(node.listener)
        out_of_files.clear()
        await node.connect(3)  # the one that waits is among those accepted, by the other worker
        assert not out_of_files.is_set()
        assert node.loads[1] >= 1

    run(2, tmp_path, main)
