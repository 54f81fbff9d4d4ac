"""How links come to be: a server listens at a Unix socket path, a dialler keeps one link to a path open.

It owns the listening sockets and the redialling. `worker`, `router` and `management` use it at start. It never looks into packets. A
peer of another user is refused (SO_PEERCRED), though the directory's mode keeps it out already.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from leveret.link.link import Link, LinkClosed

if TYPE_CHECKING:
    from leveret.link.link import Hello
    from leveret.link.poller import Poller

log = logging.getLogger(__name__)

REDIAL_FIRST_S = 0.02
REDIAL_MAX_S = 0.2
SOCKET_BUFFER_BYTES = 1 << 20


class Receiver(Protocol):
    """What a process does with the control packets of its links."""

    def on_link_open(self, link: Link) -> None: ...

    def on_request(self, link: Link, verb: str, body: Any) -> Any: ...

    def on_notice(self, link: Link, verb: str, body: Any) -> None: ...

    def on_link_closed(self, link: Link) -> None: ...


LinkFactory = Callable[["Poller", socket.socket, "Hello", Receiver], Link]


def peer_uid(sock: socket.socket) -> int:
    """User id of the process at the other end of a Unix socket."""
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


def _widen(sock: socket.socket) -> None:
    """Room for a turn's packets in the kernel, so that one write takes them (as far as the system's limit allows)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)


class LinkServer:
    """Accepts links at `path`; each becomes `make_link(poller, sock, hello, receiver)`."""

    def __init__(self, poller: Poller, path: Path, hello: Hello, receiver: Receiver, make_link: LinkFactory = Link) -> None:
        self._poller = poller
        self._path = path
        self._hello = hello
        self._receiver = receiver
        self._make_link = make_link
        self.links: set[Link] = set()
        path.unlink(missing_ok=True)  # a killed predecessor's
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self._socket.listen(128)
        poller.loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        self.links = {link for link in self.links if not link.is_closed}
        while True:
            try:
                sock, _address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("could not accept a link: %s", error)
                return
            if peer_uid(sock) not in (os.geteuid(), 0):
                log.warning("refused a link from user id %d", peer_uid(sock))
                sock.close()
                continue
            _widen(sock)
            self.links.add(self._make_link(self._poller, sock, self._hello, self._receiver))

    def close(self) -> None:
        """Stop accepting and close the links accepted here."""
        self._poller.loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._path.unlink(missing_ok=True)
        for link in self.links:
            link.close("the process is ending")


async def connect_link(poller: Poller, path: Path, hello: Hello, receiver: Receiver, make_link: LinkFactory = Link) -> Link:
    """Open a link to the process listening at `path` and wait for its hello. Raises `OSError` or `LinkClosed`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    _widen(sock)
    link = make_link(poller, sock, hello, receiver)
    try:
        await link.opened
    except asyncio.CancelledError:
        link.close("given up before it was open")
        raise
    return link


class Dialler:
    """Keeps one link to `path` open: dials, and dials again 20 to 200 ms after it was lost, until `close`.

    `link` is the open one or None. The receiver hears of every opening and closing.
    """

    def __init__(self, poller: Poller, path: Path, hello: Hello, receiver: Receiver, make_link: LinkFactory = Link) -> None:
        self.link: Link | None = None
        self.is_open = asyncio.Event()
        self._poller = poller
        self._path = path
        self._hello = hello
        self._receiver = receiver
        self._make_link = make_link
        self._lost = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep())
        self._task.add_done_callback(self._stopped)

    async def _keep(self) -> None:
        wait_s = REDIAL_FIRST_S
        while True:
            try:
                await connect_link(self._poller, self._path, self._hello, _Tap(self), self._make_link)
            except (OSError, LinkClosed):
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, REDIAL_MAX_S)
                continue
            wait_s = REDIAL_FIRST_S
            await self._lost.wait()
            self._lost.clear()

    def _stopped(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("dialling %s has ended by a bug", self._path, exc_info=task.exception())

    def close(self) -> None:
        """Stop dialling and close the link."""
        self._task.cancel()
        if self.link is not None:
            self.link.close("the process is ending")


class _Tap:
    """Passes everything on to the receiver and tells the dialler when its link opens and closes."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._receiver = dialler._receiver

    def on_link_open(self, link: Link) -> None:
        self._dialler.link = link
        self._dialler.is_open.set()
        self._receiver.on_link_open(link)

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        return self._receiver.on_request(link, verb, body)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        self._receiver.on_notice(link, verb, body)

    def on_link_closed(self, link: Link) -> None:
        self._dialler.link = None
        self._dialler.is_open.clear()
        self._dialler._lost.set()
        self._receiver.on_link_closed(link)
