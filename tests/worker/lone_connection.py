"""A client's connection of this process, over a socket pair, with nobody behind it: no router, no other worker, no queue.

Owns the client's end (`Client`) and what the connection needs of a worker when nothing but publishing happens. The poller is turned by hand
(`on_a_poller`): each piece that is sent is a read.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from leveret.codec.errors import AmqpError
from leveret.codec.frames import FrameReader
from leveret.link.poller import Poller
from leveret.worker.connection import Connection
from leveret.worker.directory import Directory
from leveret.worker.patience import Patience
from leveret.worker.state import WorkerState
from pika.spec import Channel

from tests.link.loop import run
from tests.wire import FRAME_METHOD, PROTOCOL_HEADER, method_bytes

FRAME_MAX = 131072
OPEN = method_bytes(1, Channel.Open())


class Session:
    """Lets the client in at once, and notes why it would be closed."""

    def __init__(self, vhost: Any, frame_max: int) -> None:
        self._vhost = vhost
        self._frame_max = frame_max
        self.errors: list[str] = []

    def begin(self, connection: Connection) -> None:
        connection.frame_max = self._frame_max
        connection.opened(self._vhost, "guest")

    def hears_close(self, connection: Connection, error: AmqpError) -> bool:
        self.errors.append(error.reply_text)
        return True


class Worker:
    """What a connection needs of its worker when nothing but publishing happens."""

    alarm_reason = ""

    def __init__(self, poller: Poller, state: WorkerState) -> None:
        self.state = state
        self.parting = Patience(poller.loop, 60.0, lambda connection: connection.close("the client did not answer"))
        self.closed: list[str] = []

    def check_permission(self, connection: Connection, kind: str, what: str, name: str) -> None:
        pass

    def consumers_gone(self, consumers: list[Any]) -> None:
        assert consumers == []

    def connection_closed(self, connection: Connection, reason: str) -> None:
        self.parting.end(connection)
        self.closed.append(reason)


class Client:
    """The client's end: sends in pieces, and reads what comes back as whole frames."""

    def __init__(self, poller: Poller, frame_max: int = FRAME_MAX, sent_at_once: int | None = None) -> None:
        directory = Directory()
        directory.apply({"change": "vhost_added", "name": "/"})
        self.poller = poller
        self.worker = Worker(poller, WorkerState(poller, directory, 0, 1, 512 * 1024 * 1024))
        self.session = Session(directory.vhosts["/"], frame_max)
        ours, self.socket = socket.socketpair()
        if sent_at_once is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sent_at_once)
        self.socket.setblocking(False)
        self.connection = Connection(poller, ours, self.worker, self.session, "client -> broker", "run/0.1")
        self._reader = FrameReader()
        self._came = b""
        self.push(PROTOCOL_HEADER + OPEN)
        ((kind, _, _),) = self.frames()
        assert kind == FRAME_METHOD

    def push(self, data: bytes) -> None:
        """Send all of it, turning the poller and reading whenever the socket is full, and once at the end."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                self.poller.turn()
                self.read()
        self.poller.turn()

    def read(self) -> bool:
        """Take in what the broker has sent. False when there was nothing."""
        with contextlib.suppress(BlockingIOError):
            came = self.socket.recv(1 << 20)
            self._reader.feed(came)
            return came != b""
        return False

    def frames(self) -> list[tuple[int, int, bytes]]:
        """All that the broker answers to what was sent: (type, channel, payload)."""
        self.poller.turn()
        while self.read() or (not self.connection.is_closed and self.connection.unsent_bytes):
            self.poller.turn()
        return [(frame.type, frame.channel, frame.payload) for frame in self._reader]

    def close(self) -> None:
        self.connection.close("the test is over")
        self.socket.close()


def on_a_poller(main: Callable[[Poller], None]) -> None:
    async def once(poller: Poller) -> None:
        main(poller)

    ran: Callable[[Poller], Awaitable[None]] = once
    run(ran)
