"""The acceptor: takes new connections from the listening socket and spreads them evenly over the workers.

All workers share the supervisor's listening sockets, and whichever wakes first accepts. If another worker has fewer connections, the fresh
socket is passed on to it (SCM_RIGHTS over a datagram socket) before a byte of it is read, so that two busy connections do not share a
worker while another idles. Each worker tells the others how many it has: at once when that changes, and again after four changes or 5 ms.
What is passed on is counted at once, and stays counted until the other says that it has come: its own number may be older than what is on
the way. When the line to that worker is full for a moment, as in a burst, the socket waits here, and the others in the listener's backlog,
for 20 ms at most.

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

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from leveret.worker.worker import Worker

log = logging.getLogger(__name__)

LINE_FULL_PAUSE_S = 0.001
LINE_FULL_TRIES = 20  # then we serve the client ourselves: that worker may be stopped
OUT_OF_FILES_PAUSE_S = 0.2
LOAD_PAUSE_S = 0.005  # between two notices of our load: each costs another process a wake-up, as much as a tenth of a handshake ...
UNTOLD_MAX = 4  # ... unless so many have come and gone: in a crowd that is nearly every turn, and the others are awake anyway
_INT_BYTES = struct.calcsize("i")  # of a descriptor in a control message
TOKEN_BYTES = 8
OUT_OF_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """`loads`: connections of each worker as last heard, and on the way to it; ours is counted by the worker itself.

    `busy`: how much of a core each worker uses, in per cent, as last heard; `busy_percent`: ours.
    """

    def __init__(self, worker: Worker, worker_count: int) -> None:
        self._worker = worker
        self._loop = worker.child.loop
        self._runtime_dir = worker.child.runtime_dir
        self._lines = [str(self._handoff_path(index)) for index in range(worker_count)]
        self.loads = [0] * worker_count
        self.busy = [0] * worker_count
        self.busy_percent = 0
        self._travellers: dict[tuple[int, int], int] = {}  # (worker, token) -> descriptor, not asked for yet
        self._sent = [0] * worker_count  # passed on to each worker, since the link to it opened
        self._taken = [0] * worker_count  # taken over from each worker, since then
        self._turns = [(worker.index + step) % worker_count for step in range(1, worker_count)]  # the others, in our order
        self._load_called = False
        self._load_timer: asyncio.TimerHandle | None = None
        self._untold = 0  # connections that came and went since we told
        self._load_told_at_s = float("-inf")
        self._listener: socket.socket | None = None
        self._bell: Doorbell | None = None
        self._waiting: socket.socket | None = None  # accepted, for a worker whose line is full
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
        self._listener = listener
        self._bell = Doorbell(self._worker.child.poller, listener, self._on_listener)

    def close(self) -> None:
        """Accept no more. Safe to call twice."""
        if self._bell is not None:
            self._bell.close("no more connections are accepted")
            self._bell = self._listener = None
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
        self._handoff_bell.close("no more connections are accepted")
        self._handoffs.close()
        for index in range(len(self.loads)):
            self.forget_travellers(index)

    def _on_listener(self) -> None:
        """One connection a turn: another turn is cheaper than to ask in vain for more, and the others may have told of theirs by then."""
        assert self._listener is not None
        try:
            sock, _address = self._listener.accept()
        except BlockingIOError:
            return  # another worker was quicker
        except OSError as error:
            if error.errno in OUT_OF_FILES:
                self._pause(error)
            return  # or the client has gone between its connect and our accept
        self._place(sock)

    def _pause(self, error: OSError) -> None:
        """No descriptors left: the listener would stay readable for ever, so look away for a moment. Clients wait in the backlog."""
        log.error("cannot accept connections: %s; trying again in %.1f s", error.strerror, OUT_OF_FILES_PAUSE_S)
        bell = self._bell
        assert bell is not None
        bell.be_silent()
        self._loop.call_later(OUT_OF_FILES_PAUSE_S, bell.listen_again)

    def _place(self, sock: socket.socket) -> None:
        """Keep it, or pass it on to the worker with the fewest."""
        ours = len(self._worker.connections)
        best, fewest = self._worker.index, ours
        # Each begins with another one, or all who accept at this moment would choose the same.
        for index in self._turns:
            neighbour = self._worker.state.workers[index]
            if neighbour is not None and neighbour.link is not None and self.loads[index] < fewest:
                best, fewest = index, self.loads[index]
        try:
            passed_on = best != self._worker.index and self._pass_on(sock, best)
        except BlockingIOError:
            if self._tries < LINE_FULL_TRIES and self._bell is not None:
                self._wait(sock, self._bell)
                return
            passed_on = False
        self._tries = 0
        if passed_on:
            self.loads[best] += 1
            self._sent[best] += 1
            return
        self._worker.accept(sock)

    def _wait(self, sock: socket.socket, bell: Doorbell) -> None:
        """Keep the socket for a millisecond, and accept no others meanwhile."""
        self._waiting = sock
        self._tries += 1
        bell.be_silent()
        self._loop.call_later(LINE_FULL_PAUSE_S, self._place_waiting)

    def _place_waiting(self) -> None:
        sock, self._waiting = self._waiting, None
        if sock is None or self._bell is None:  # closed meanwhile
            return
        self._place(sock)
        if self._waiting is None:
            self._bell.listen_again()

    def _pass_on(self, sock: socket.socket, index: int) -> bool:
        """Whether it was taken. Raises `BlockingIOError` when the line is full."""
        try:
            self._send(sock.fileno(), index, bytes([self._worker.index]))
        except BlockingIOError:
            raise
        except OSError:
            return False  # it is down: we serve the client ourselves
        sock.close()
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
        if not token:
            self._taken[sender] += 1
        for descriptor in descriptors:
            if token:
                self._travellers[sender, int.from_bytes(token, "little")] = descriptor
            else:
                self._worker.accept(self._socket(descriptor))
        return True

    def _socket(self, descriptor: int) -> socket.socket:
        """A socket that another worker has accepted. The listener is the same for all, so nobody need ask the kernel what it is."""
        if self._listener is None:
            return socket.socket(fileno=descriptor)
        return socket.socket(self._listener.family, self._listener.type, self._listener.proto, descriptor)

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

    def linked(self, index: int) -> dict[str, int]:
        """The link to a worker is open: count anew, as it does. Answers what to tell it."""
        self._sent[index] = self._taken[index] = 0
        return self._load(index)

    def told(self, index: int, load: dict[str, int]) -> None:
        """What a worker tells of its load."""
        self.busy[index] = load["busy"]
        self.loads[index] = load["connections"] + max(0, self._sent[index] - load["taken"])

    def _load(self, index: int) -> dict[str, int]:
        return {"connections": len(self._worker.connections), "taken": self._taken[index], "busy": self.busy_percent}

    def load_changed(self) -> None:
        """A connection came or went: tell the others at the end of the turn, unless they have heard of us just now and little is new."""
        self._untold += 1
        if self._load_called:
            return
        pause_s = self._load_told_at_s + LOAD_PAUSE_S - self._loop.time()
        if self._untold >= UNTOLD_MAX or pause_s <= 0:
            self._load_called = True
            self._loop.call_soon(self._tell_load)
        elif self._load_timer is None:
            self._load_timer = self._loop.call_later(pause_s, self._tell_load)

    def _tell_load(self) -> None:
        if self._load_timer is not None:
            self._load_timer.cancel()
        self._load_called, self._load_timer, self._untold = False, None, 0
        self._load_told_at_s = self._loop.time()
        for neighbour in self._worker.state.workers:
            if neighbour is not None and neighbour.link is not None:
                neighbour.link.notify("load", self._load(neighbour.index))
