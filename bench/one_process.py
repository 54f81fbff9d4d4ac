"""A whole node inside this process: router and workers as they are, over real links, driven turn by turn by whoever measures them.

It owns a folder, an asyncio loop that is not running while one measures, and a poller for each part. Clients are socket pairs. It is set up
by the protocol alone (handshakes, declares, consumes), so a change inside the broker needs none here; then `turn` lets each part read what
there is, in a fixed order. So the same bytes always take the same instructions, which processes with a scheduler between them never do.
`bench.counted` is its caller. It never counts or times anything itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from leveret.codec.frames import FrameReader, encode_method_frame
from leveret.codec.methods import (
    BasicConsume,
    ChannelOpen,
    ConfirmSelect,
    ConnectionOpen,
    ConnectionStartOk,
    ConnectionTuneOk,
    ExchangeDeclare,
    Method,
    QueueBind,
    QueueDeclare,
    decode_method,
)
from leveret.config import Settings
from leveret.link.poller import Poller
from leveret.router.router import Router
from leveret.supervisor.child import Child
from leveret.worker.worker import Worker

FRAME_MAX = 131072
CHANNEL = 1  # of each client
SOCKET_BUFFER_BYTES = 1 << 20
STEP_TIMEOUT_S = 60.0  # of the set-up, which runs some fifty times slower while instructions are counted


class Client:
    """One connection with one open channel. number: of the node's clients, from 1.

    `socket` is its end: non-blocking, and what the measured part sends and reads.
    """

    def __init__(self, node: OneProcessNode, worker: int, number: int) -> None:
        self.number = number
        self._node = node
        self._reader = FrameReader(FRAME_MAX)
        self._frames: list[Any] = []
        self.socket, theirs = socket.socketpair()
        for end in (self.socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self.socket.setblocking(False)
        node.workers[worker].accept(theirs.detach())
        self.socket.send(b"AMQP\0\0\x09\x01")
        self._next()
        self.ask(ConnectionStartOk(client_properties={}, mechanism="PLAIN", response=b"\0guest\0guest", locale="en_US"), channel=0)
        self._send(ConnectionTuneOk(channel_max=2047, frame_max=FRAME_MAX, heartbeat=0), 0)
        self.ask(ConnectionOpen(virtual_host="/"), channel=0)
        self.ask(ChannelOpen())

    def ask(self, method: Method, channel: int = CHANNEL) -> Method:
        """Send a method and wait for the method that answers it."""
        self._send(method, channel)
        return self._next()

    def declare(self, queue: str, *, durable: bool = False) -> None:
        """A queue on this connection's worker."""
        self.ask(QueueDeclare(queue=queue, durable=durable))

    def bind(self, exchange: str, kind: str, queue: str, key: str) -> None:
        self.ask(ExchangeDeclare(exchange=exchange, type=kind))
        self.ask(QueueBind(queue=queue, exchange=exchange, routing_key=key))

    def consume(self, queue: str, *, no_ack: bool) -> None:
        self.ask(BasicConsume(queue=queue, consumer_tag="consumer-of-" + queue, no_ack=no_ack))

    def confirm(self) -> None:
        self.ask(ConfirmSelect())

    def _send(self, method: Method, channel: int) -> None:
        self.socket.send(encode_method_frame(channel, method))

    def _next(self) -> Method:
        async def read() -> Method:
            while not self._frames:
                self._reader.feed(await asyncio.wait_for(self._node.loop.sock_recv(self.socket, 65536), STEP_TIMEOUT_S))
                self._frames += self._reader
            return decode_method(self._frames.pop(0).payload)

        return self._node.loop.run_until_complete(read())


class OneProcessNode:
    """`OneProcessNode(workers)` returns when every worker serves. `close` it."""

    def __init__(self, workers: int) -> None:
        self.loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="leveret-one-process-")
        folder = Path(self._folder.name)
        (folder / "run").mkdir(mode=0o700)
        settings = Settings(
            data_dir=folder / "data", runtime_dir=folder / "run", node_name="one-process", workers=workers, disk_free_limit_bytes=0
        )
        self._settings = settings.to_map()
        self._lines: list[socket.socket] = []
        self._children: list[Child] = []
        self.workers: list[Worker] = []
        self._clients: list[Client] = []
        self.loop.run_until_complete(self._start(workers))
        # The router first: what it has from the turn before goes to workers that have not had theirs.
        self._pollers = [child.poller for child in self._children]

    async def _start(self, workers: int) -> None:
        self._router = Router(self._child("router", 0))
        # All of them live and end in this process: there is none to be watched (and valgrind knows no pidfd_open).
        self._router._process_watches = {index: os.eventfd(0) for index in range(workers)}
        await self._router.make_defaults()
        self._router.serve()
        for index in range(workers):
            worker = Worker(self._child("worker", index), workers)
            self.workers.append(worker)
            await asyncio.wait_for(worker.loaded, STEP_TIMEOUT_S)
            worker.meet_workers()
        for worker in self.workers:
            for neighbour in worker.state.workers:
                if neighbour is not None:
                    await worker.link_to(neighbour, STEP_TIMEOUT_S)

    def _child(self, kind: str, index: int) -> Child:
        ours, theirs = socket.socketpair()
        self._lines.append(ours)
        poller = Poller(self.loop)
        poller.attach()
        node = {"run_id": "one-process", "supervisor_pid": os.getpid()}
        facts = {"kind": kind, "index": index, "node": node, "settings": self._settings, "listeners": {}, "line": theirs.detach()}
        child = Child(facts, self.loop, poller)
        self._children.append(child)
        return child

    def client(self, worker: int) -> Client:
        """A connection to that worker, past its handshake."""
        client = Client(self, worker, len(self._clients) + 1)
        self._clients.append(client)
        return client

    def turn(self, times: int) -> None:
        """Let router and workers read what there is, in their order, so many times over."""
        pollers = self._pollers
        for _ in range(times):
            for poller in pollers:
                poller.turn()

    def settle(self) -> None:
        """Run the loop for a moment, so that the set-up leaves nothing undone."""
        self.loop.run_until_complete(asyncio.sleep(0))
        self.turn(8)
        self.loop.run_until_complete(asyncio.sleep(0))

    def close(self) -> None:
        """End all of it; nothing is left, on disk neither."""
        self.loop.run_until_complete(self._stop())
        self.loop.close()
        self._folder.cleanup()

    async def _stop(self) -> None:
        for client in self._clients:
            client.socket.close()
        for child in self._children:
            child._ending = True  # or it would end this process with its supervisor's line
        for worker in self.workers:
            worker.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._router.close(), STEP_TIMEOUT_S)
        for child in self._children:
            child.poller.close()
        for line in self._lines:
            line.close()
