"""The acceptor: takes new connections from the listening socket and spreads them evenly over the workers.

All workers share the supervisor's listening sockets, and the kernel wakes one of them for each client, the idle ones in turn
(`leveret.link.listener`). If another worker has fewer connections (`leveret.worker.loads`), the fresh socket is passed on to it (SCM_RIGHTS
over a datagram socket) before a byte of it is read, so that two busy connections do not share a worker while another idles. When the line
to that worker is full for a moment, as in a burst, the socket waits here, and the others in the listener's backlog, for 20 ms at most.

The same line takes the sockets of connections that move later (`leveret.worker.handover`), each under a token: who asks for it by that
token gets it.

A datagram: 1 byte, the sender's index; of a socket that moves, 8 bytes more, its token (little-endian). One descriptor goes with it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

from leveret.link.doorbell import Doorbell
from leveret.link.listener import Listener

if TYPE_CHECKING:
    from pathlib import Path

    from leveret.worker.worker import Worker

log = logging.getLogger(__name__)

LINE_FULL_PAUSE_S = 0.001
LINE_FULL_TRIES = 20  # then we serve the client ourselves: that worker may be stopped
OUT_OF_FILES_PAUSE_S = 0.2
_INT_BYTES = struct.calcsize("i")  # of a descriptor in a control message
TOKEN_BYTES = 8
OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Made once by its worker, which has `loads` by then."""

    def __init__(self, worker: Worker, worker_count: int) -> None:
        self._worker = worker
        self._loop = worker.child.loop
        self._runtime_dir = worker.child.runtime_dir
        self._lines = [str(self._handoff_path(index)) for index in range(worker_count)]
        self._travellers: dict[tuple[int, int], int] = {}  # (worker, token) -> descriptor, not asked for yet
        self._turns = [(worker.index + step) % worker_count for step in range(1, worker_count)]  # the others, in our order
        self._listener: Listener | None = None
        self._waiting: int | None = None  # accepted, for a worker whose line is full
        self._tries = 0
        path = self._handoff_path(worker.index)
        path.unlink(missing_ok=True)
        self._handoffs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._handoffs.bind(str(path))
        self._handoff_bell = Doorbell(worker.child.poller, self._handoffs, self._on_handoff)

    def _handoff_path(self, index: int) -> Path:
        return self._runtime_dir / f"handoff-{index}.sock"

    def start(self, listener: socket.socket) -> None:
        """Accept from now on."""
        self._listener = Listener(self._worker.child.poller, listener, self._on_listener)

    def close(self) -> None:
        """Accept no more. Safe to call twice."""
        if self._listener is not None:
            self._listener.close("no more connections are accepted")
            self._listener = None
        if self._waiting is not None:
            os.close(self._waiting)
            self._waiting = None
        self._handoff_bell.close("no more connections are accepted")
        self._handoffs.close()
        for index in range(len(self._lines)):
            self.forget_travellers(index)

    def _on_listener(self) -> None:
        """One connection a turn: another turn is cheaper than to ask in vain for more, and the others may have told of theirs by then."""
        assert self._listener is not None
        try:
            descriptor = self._listener.accept()
        except OSError as error:
            if error.errno in OUT_OF_FILES:
                self._pause(self._listener, error)
            return  # or the client has gone between its connect and our accept
        if descriptor >= 0:  # else another worker was quicker
            self._place(descriptor)

    def _pause(self, listener: Listener, error: OSError) -> None:
        """No descriptors left: the listener would stay readable for ever, so look away for a moment. Clients wait in the backlog.

        The kernel has woken only us for this one, and others may have descriptors.
        """
        log.error("cannot accept connections: %s; trying again in %.1f s", error.strerror, OUT_OF_FILES_PAUSE_S)
        listener.be_silent()
        for neighbour in self._worker.state.workers:
            if neighbour is not None and neighbour.link is not None:
                neighbour.link.notify("client_waits", {})
        self._loop.call_later(OUT_OF_FILES_PAUSE_S, listener.listen_again)

    def look_again(self) -> None:
        """A client may wait whom another worker was woken for and has not taken."""
        if self._listener is not None:
            self._listener.look_again()

    def _place(self, descriptor: int) -> None:
        """Keep it, or pass it on to the worker with the fewest."""
        ours, loads = len(self._worker.connections), self._worker.loads
        best, fewest = self._worker.index, ours
        # Each begins with another one, or all who accept at this moment would choose the same.
        for index in self._turns:
            neighbour = self._worker.state.workers[index]
            if neighbour is not None and neighbour.link is not None and (count := loads.connections(index)) < fewest:
                best, fewest = index, count
        try:
            passed_on = best != self._worker.index and self._pass_on(descriptor, best)
        except BlockingIOError:
            if self._tries < LINE_FULL_TRIES and self._listener is not None:
                self._wait(descriptor, self._listener)
                return
            passed_on = False
        self._tries = 0
        if passed_on:
            self._worker.loads.passed_on(best)
            return
        self._worker.accept(descriptor)

    def _wait(self, descriptor: int, listener: Listener) -> None:
        """Keep the socket for a millisecond, and accept no others meanwhile."""
        self._waiting = descriptor
        self._tries += 1
        listener.be_silent()
        self._loop.call_later(LINE_FULL_PAUSE_S, self._place_waiting)

    def _place_waiting(self) -> None:
        descriptor, self._waiting = self._waiting, None
        if descriptor is None or self._listener is None:  # closed meanwhile
            return
        self._place(descriptor)
        if self._waiting is None:
            self._listener.listen_again()

    def _pass_on(self, descriptor: int, index: int) -> bool:
        """Whether it was taken. Raises `BlockingIOError` when the line is full."""
        try:
            self._send(descriptor, index, bytes([self._worker.index]))
        except BlockingIOError:
            raise
        except OSError:
            return False  # it is down: we serve the client ourselves
        os.close(descriptor)
        return True

    def _send(self, descriptor: int, index: int, about: bytes) -> None:
        """Raises `OSError`; `BlockingIOError` when the line is full."""
        rights = descriptor.to_bytes(_INT_BYTES, sys.byteorder)
        # By the socket that we receive at: one call, where a socket for each would be four.
        self._handoffs.sendmsg((about,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),), 0, self._lines[index])

    def _on_handoff(self) -> None:
        self._receive()

    def _receive(self) -> bool:
        """Take one socket off the line; False when there is none."""
        if self._handoffs.fileno() < 0:
            return False
        try:
            about, descriptors, _flags, _address = socket.recv_fds(self._handoffs, 1 + TOKEN_BYTES, 1)
        except BlockingIOError:
            return False
        except OSError as error:
            log.error("cannot take a connection over: %s", error.strerror)
            return False
        sender, token = about[0], about[1:]
        for descriptor in descriptors:
            if token:
                self._travellers[sender, int.from_bytes(token, "little")] = descriptor
            else:
                self._worker.accept(descriptor)
        if not token:
            self._worker.loads.taken_from(sender)
        return True

    # --- connections that move

    def send_traveller(self, descriptor: int, index: int, token: int) -> bool:
        """Send a copy of the descriptor to a worker, which will `claim` it. False: it is down, or its line is full."""
        try:
            self._send(descriptor, index, bytes([self._worker.index]) + token.to_bytes(TOKEN_BYTES, "little"))
        except OSError:
            return False
        return True

    def claim(self, sender: int, token: int) -> int | None:
        """The descriptor that worker `sender` has sent under that token, which is the caller's now; None if there is none."""
        while (sender, token) not in self._travellers and self._receive():
            pass
        return self._travellers.pop((sender, token), None)

    def forget_travellers(self, sender: int) -> None:
        """That worker has died: nobody asks for what it has sent and not announced."""
        while self._receive():
            pass
        for key in [key for key in self._travellers if key[0] == sender]:
            os.close(self._travellers.pop(key))
