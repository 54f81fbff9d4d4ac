"""The acceptors of several workers on one listening socket: how connections spread, however they come and go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from leveret.link.listener import Listener
from leveret.link.loop import PollerLoop
from leveret.link.poller import Poller, running_poller
from leveret.worker.acceptor import Acceptor
from leveret.worker.loads import Loads

WITHIN_S = 30.0


class StandInWorker:
    """A worker that serves nobody. Its links take only what an acceptor tells the others, and tell them as soon as the loop comes round."""

    def __init__(self, index: int, workers: list[StandInWorker], count: int, directory: Path, poller: Poller) -> None:
        self.index = index
        self.child = SimpleNamespace(loop=asyncio.get_running_loop(), poller=poller, runtime_dir=directory)
        self.connections: set[socket.socket] = set()
        self.changed = asyncio.Event()
        self.state = SimpleNamespace(workers=[Line(workers, other) if other != index else None for other in range(count)])
        self.loads = Loads(directory / "loads", index, count)
        self.acceptor = Acceptor(self, count)  # type: ignore[arg-type]

    def accept(self, descriptor: int) -> None:
        self.connections.add(socket.socket(fileno=descriptor))
        self.loads.set_connections(len(self.connections))
        self.changed.set()

    def end_one(self) -> None:
        self.connections.pop().close()
        self.loads.set_connections(len(self.connections))


class Line:
    """What stands in for the link to another worker."""

    def __init__(self, workers: list[StandInWorker], index: int) -> None:
        self.link: Line | None = self
        self._workers = workers
        self._index = index

    def notify(self, verb: str, body: dict[str, int]) -> None:
        assert (verb, body) == ("client_waits", {})
        acceptor = self._workers[self._index].acceptor
        asyncio.get_running_loop().call_soon(acceptor.look_again)


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
        giving._pass_on(socket.socketpair()[0].detach(), 1)  # a new client's, before it on the line
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


def nonblocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


def test_without_descriptors_it_looks_away_for_a_moment_and_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bool] = []

    class OnceFullListener(Listener):
        def accept(self) -> int:
            tries.append(bool(tries))
            if len(tries) == 1:
                raise OSError(24, "Too many open files")
            return super().accept()

    async def main(node: Node) -> None:
        monkeypatch.setattr("leveret.worker.acceptor.OUT_OF_FILES_PAUSE_S", 0.01)
        monkeypatch.setattr("leveret.worker.acceptor.Listener", OnceFullListener)
        node.start()
        await node.connect(1)
        assert node.loads == [1]
        assert tries == [False, True], "once in vain, once with success"

    run(1, tmp_path, main)


def full_listener(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """From now on acceptors that start can accept nothing; set when one has tried."""
    tried = asyncio.Event()

    class FullListener(Listener):
        def accept(self) -> int:
            tried.set()
            raise OSError(24, "Too many open files")

    monkeypatch.setattr("leveret.worker.acceptor.Listener", FullListener)
    return tried


def test_a_client_whom_the_one_that_was_woken_cannot_take_is_taken_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NotWoken(Listener):
        """Of two who sleep the kernel wakes the other one; in one process, as here, it would tell both."""

        def __init__(self, poller: Poller, file: socket.socket, on_ring: Callable[[], object]) -> None:
            super().__init__(poller, file, on_ring)
            self.be_silent()

        def look_again(self) -> None:
            self.listen_again()

    async def main(node: Node) -> None:
        out_of_files = full_listener(monkeypatch)
        node.workers[0].acceptor.start(node.listener)
        monkeypatch.setattr("leveret.worker.acceptor.OUT_OF_FILES_PAUSE_S", WITHIN_S)
        monkeypatch.setattr("leveret.worker.acceptor.Listener", NotWoken)
        for neighbour in node.workers[1].state.workers:
            if neighbour is not None:
                neighbour.link = None  # it has no descriptors for what is passed on either
        node.workers[1].acceptor.start(node.listener)
        await node.connect(1)
        assert out_of_files.is_set()
        assert node.loads == [0, 1]

    run(2, tmp_path, main)


def test_no_connection_is_taken_while_it_looks_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(node: Node) -> None:
        monkeypatch.setattr("leveret.worker.acceptor.OUT_OF_FILES_PAUSE_S", WITHIN_S)
        out_of_files = full_listener(monkeypatch)
        node.workers[0].acceptor.start(node.listener)
        monkeypatch.undo()
        monkeypatch.setattr("leveret.worker.acceptor.OUT_OF_FILES_PAUSE_S", WITHIN_S)
        node.clients.append(socket.create_connection(node.listener.getsockname()))
        await out_of_files.wait()
        node.workers[1].acceptor.start(node.listener)
        out_of_files.clear()
        await node.connect(3)  # the one that waits is among those accepted, by the other worker
        assert not out_of_files.is_set()
        assert node.loads[1] >= 1

    run(2, tmp_path, main)
