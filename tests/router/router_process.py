"""A real router process without its node: started as the supervisor starts it, with scripted workers and a management at its links.

Owns `RouterProcess` (start, kill, restart on the same data) and `ScriptedPeer` (a link that answers as a worker does and keeps what it is
told). Tests of the router alone use them; whole nodes are `tests.node`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from leveret.config import Settings, load
from leveret.link.dial import connect_link
from leveret.link.link import Hello, Link
from leveret.link.poller import running_poller
from leveret.router.commands import Command, to_map, verb
from leveret.supervisor.child_process import ChildProcess, child_command

WITHIN_S = 20.0


class ScriptedPeer:
    """One end of a link to the router. `snapshot` and `changes` are what it was told; `says_applied` can be turned off to be slow."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.snapshot: list[dict[str, Any]] = []
        self.snapshot_parts = 0
        self.identity = ""
        self.shards = 0
        self.changes: list[dict[str, Any]] = []
        self.notices: list[tuple[str, Any]] = []
        self.says_applied = True
        self.version = 0
        self.loaded = asyncio.Event()
        self.closed = asyncio.Event()
        self.news = asyncio.Condition()
        self.barrier: Callable[[], Awaitable[Any]] | None = None

    def on_link_open(self, link: Link) -> None:
        pass

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        assert verb == "barrier"
        assert self.barrier is not None
        return self.barrier()

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        if verb == "snapshot":
            self.snapshot += body["changes"]
            self.snapshot_parts += 1
            self.identity, self.shards = body["identity"], body["shards"]
            if body["last"]:
                self.loaded.set()
        elif verb == "changes":
            self.changes += body["changes"]
        else:
            self.notices.append((verb, body))
        if "version" in body:
            self.version = body["version"]
            if self.says_applied and body.get("last", True):
                self.say_applied()
        asyncio.ensure_future(self._tell())

    def on_link_closed(self, link: Link) -> None:
        self.closed.set()

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def hears(self, what: Callable[[], bool]) -> None:
        """Wait until `what` holds of what was told."""
        async with asyncio.timeout(WITHIN_S), self.news:
            await self.news.wait_for(what)

    def say_applied(self) -> None:
        assert self.link is not None
        self.link.notify("applied", {"version": self.version})

    async def do(self, command: Command) -> Any:
        """Send a command and return its result."""
        return await self.ask(verb(command), to_map(command))

    async def ask(self, verb: str, body: Any = None) -> Any:
        """Any request."""
        assert self.link is not None
        return await self.link.request(verb, body, timeout_s=WITHIN_S)


class _Supervisor:
    """The supervisor's end of the line."""

    def __init__(self) -> None:
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.refusal: dict[str, Any] = {}

    def on_link_open(self, link: Link) -> None:
        pass

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        raise ValueError(verb)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        if verb == "ready":
            self.ready.set_result(body["facts"])
        else:
            self.refusal = body

    def on_link_closed(self, link: Link) -> None:
        if not self.ready.done():
            self.ready.cancel()


class RouterProcess:
    """`async with RouterProcess(folder, workers=2) as router`: started and ready. The folder's path must be short."""

    def __init__(self, folder: Path, workers: int = 2, **options: str) -> None:
        flags = {"data_dir": str(folder / "data"), "runtime_dir": str(folder / "run"), "workers": str(workers), **options}
        loaded = load(flags, {}, None)
        self.settings: Settings = loaded.settings
        (folder / "run").mkdir(mode=0o700, exist_ok=True)
        self.run_id = "run-1"
        self.process: ChildProcess | None = None
        self.facts: dict[str, Any] = {}
        self.refusal: dict[str, Any] = {}
        self._stand_ins: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> RouterProcess:
        self.poller = running_poller()
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.kill()
        for stand_in in self._stand_ins:
            stand_in.kill()
            stand_in.wait()
        self.poller.close()

    async def start(self) -> int | None:
        """Start the process and wait until it is ready, or has ended: then its return code."""
        supervisor = _Supervisor()
        self.process = ChildProcess(
            kind="router",
            index=0,
            command=child_command("router", 0),
            settings=self.settings,
            run_id=self.run_id,
            listeners={},
            held_fds=[],
            poller=self.poller,
            hello=Hello("supervisor", 0, os.getpid()),
            receiver=supervisor,
        )
        waited: list[asyncio.Future[Any]] = [supervisor.ready, self.process.exited]
        async with asyncio.timeout(WITHIN_S):
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if supervisor.ready.done() and not supervisor.ready.cancelled():
                self.facts = supervisor.ready.result()
                return None
            returncode = await self.process.exited
        self.refusal = supervisor.refusal
        return returncode

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        assert self.process is not None
        self.process.kill()
        async with asyncio.timeout(WITHIN_S):
            await asyncio.shield(self.process.exited)

    async def stop(self) -> int:
        """Ask it to end as the supervisor does; its return code."""
        assert self.process is not None
        await self.process.link.request("shutdown", {"reason": "test"}, timeout_s=WITHIN_S)
        async with asyncio.timeout(WITHIN_S):
            return await asyncio.shield(self.process.exited)

    def stand_in(self) -> subprocess.Popen[bytes]:
        """A process that does nothing, whose life stands for a worker's."""
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self._stand_ins.append(process)
        return process

    async def connect(self, kind: str, index: int = 0, pid: int | None = None, *, waits: bool = True) -> ScriptedPeer:
        """Open a link as that process; a worker has its snapshot when this returns, unless `waits` is off."""
        peer = ScriptedPeer()
        hello = Hello(kind, index, os.getpid() if pid is None else pid)
        peer.link = await connect_link(self.poller, self.settings.runtime_dir / "router.sock", hello, _Early(peer))
        if kind == "worker" and waits:
            async with asyncio.timeout(WITHIN_S):
                await peer.loaded.wait()
        return peer


class _Early:
    """Sets the peer's link before anything is told to it."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self._peer = peer

    def on_link_open(self, link: Link) -> None:
        self._peer.link = link

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        return self._peer.on_request(link, verb, body)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        self._peer.on_notice(link, verb, body)

    def on_link_closed(self, link: Link) -> None:
        self._peer.on_link_closed(link)
