"""Links to the other processes: answers, silence and returning processes, over real Unix sockets in one process."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from leveret.codec.errors import NotFound
from leveret.link.dial import LinkServer
from leveret.link.link import Hello, Link
from leveret.link.poller import Poller, running_poller
from leveret.link.stream import socket_pair
from leveret.management import peers as peers_module
from leveret.management.peers import Peers
from leveret.management.problem import Problem


class Process:
    """Plays another process of the node: answers `statistics` with its name, or as `behaviour` says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.behaviour = "answers"
        self.opened = asyncio.Event()

    def on_link_open(self, link: Link) -> None:
        self.opened.set()

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        if self.behaviour == "hangs":
            return asyncio.get_running_loop().create_future()
        if self.behaviour == "fails":
            raise RuntimeError("a bug over there")
        if self.behaviour == "refuses":
            raise NotFound("no such thing")
        if self.behaviour == "says no":
            return {"refused": "in words"}
        if self.behaviour == "hangs up":
            link.close("on purpose")
            return {}
        if self.behaviour == "answers nonsense":
            return 17
        return {"name": self.name, "verb": verb}

    def on_notice(self, link: Link, verb: str, body: Any) -> None: ...

    def on_link_closed(self, link: Link) -> None:
        self.opened.clear()


class Processes:
    """A router, two workers and a supervisor, and the `Peers` that ask them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.poller: Poller = running_poller()
        self.router = Process("router")
        self.workers = [Process("worker-0"), Process("worker-1")]
        self.supervisor = Process("supervisor")
        self.servers = {name: self.serve(name, process) for name, process in self.by_name().items()}
        ours, theirs = socket_pair()
        self.line = Link(self.poller, theirs, Hello("supervisor", 0, os.getpid()), self.supervisor)
        hello = Hello("management", 0, os.getpid())
        self.peers = Peers(self.poller, folder, 2, hello, Link(self.poller, ours, hello, peers_module._Deaf()))

    def by_name(self) -> dict[str, Process]:
        return {"router": self.router, "worker-0": self.workers[0], "worker-1": self.workers[1]}

    def serve(self, name: str, process: Process) -> LinkServer:
        kind, _, index = name.partition("-")
        return LinkServer(self.poller, self.folder / f"{name}.sock", Hello(kind, int(index or 0), os.getpid()), process)

    async def open(self) -> None:
        async with asyncio.timeout(30):
            for process in self.by_name().values():
                await process.opened.wait()
            await self.line.opened
            await self.peers.opened()

    def close(self) -> None:
        self.peers.close()
        for server in self.servers.values():
            server.close()
        self.poller.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="lv") as name:
        yield Path(name)


def with_processes(folder: Path, scenario: Any) -> None:
    async def run() -> None:
        processes = Processes(folder)
        try:
            await processes.open()
            await scenario(processes)
        finally:
            processes.close()

    asyncio.run(run())


def test_every_process_is_asked_by_its_own_link(folder: Path) -> None:
    async def scenario(processes: Processes) -> None:
        ask = processes.peers.ask
        assert await ask("router", 0, "topology") == {"name": "router", "verb": "topology"}
        assert await ask("worker", 1, "statistics") == {"name": "worker-1", "verb": "statistics"}
        assert await ask("supervisor", 0, "node") == {"name": "supervisor", "verb": "node"}
        assert list(processes.peers.workers) == [0, 1]

    with_processes(folder, scenario)


@pytest.mark.parametrize("behaviour", ["hangs", "fails", "refuses", "answers nonsense"])
def test_a_process_that_gives_no_answer_gives_none_in_bounded_time(
    folder: Path, behaviour: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def scenario(processes: Processes) -> None:
        processes.workers[0].behaviour = behaviour
        async with asyncio.timeout(30):
            with monkeypatch.context() as impatient:
                impatient.setattr(peers_module, "ANSWER_S", 0.05)
                assert await processes.peers.ask("worker", 0, "statistics") is None
                assert await processes.peers.ask("worker", 0, "statistics") is None
        assert await processes.peers.ask("worker", 1, "statistics") is not None
        processes.workers[0].behaviour = "answers"
        assert await processes.peers.ask("worker", 0, "statistics") == {"name": "worker-0", "verb": "statistics"}
        lines = [record.message for record in caplog.records if record.name == peers_module.__name__]
        assert [line.split(":")[0] for line in lines] == ["no answer from worker 0 to 'statistics'", "worker 0 answers 'statistics' again"]

    with_processes(folder, scenario)


@pytest.mark.parametrize(
    ("behaviour", "status", "reason"),
    [
        ("fails", 500, "the worker-0 process failed over it; its log tells why"),
        ("refuses", 500, "the worker-0 process failed over it; its log tells why"),
        ("says no", 400, "in words"),
        ("hangs up", 503, "the worker-0 process went away"),
    ],
)
def test_a_request_that_is_not_carried_out_is_a_problem(folder: Path, behaviour: str, status: int, reason: str) -> None:
    async def scenario(processes: Processes) -> None:
        processes.workers[0].behaviour = behaviour
        async with asyncio.timeout(30):
            with pytest.raises(Problem) as raised:
                await processes.peers.order("worker", 0, "backup", {"shard": 0})
        assert (raised.value.status, raised.value.reason) == (status, reason)
        answer = await processes.peers.order("router", 0, "backup", {"directory": "/x"})
        assert answer == {"name": "router", "verb": "backup"}

    with_processes(folder, scenario)


def test_a_request_to_a_process_that_is_away_is_a_problem_at_once(folder: Path) -> None:
    async def scenario(processes: Processes) -> None:
        processes.servers["worker-1"].close()
        async with asyncio.timeout(30):
            while await processes.peers.ask("worker", 1, "statistics") is not None:
                pass
            with pytest.raises(Problem, match="the worker-1 process does not answer"):
                await processes.peers.order("worker", 1, "shards", {})
        processes.servers["worker-1"] = processes.serve("worker-1", processes.workers[1])

    with_processes(folder, scenario)


def test_a_process_that_comes_back_is_asked_again(folder: Path) -> None:
    async def scenario(processes: Processes) -> None:
        processes.servers["worker-1"].close()
        async with asyncio.timeout(30):
            while await processes.peers.ask("worker", 1, "statistics") is not None:
                pass
            processes.servers["worker-1"] = processes.serve("worker-1", processes.workers[1])
            await processes.peers.opened()
            assert await processes.peers.ask("worker", 1, "statistics") == {"name": "worker-1", "verb": "statistics"}

    with_processes(folder, scenario)
