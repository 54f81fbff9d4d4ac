"""One child process as its supervisor sees it: started by exec, watched by pidfd, spoken to over an inherited socket pair.

Started by exec, not fork: LMDB environments and uvloop loops do not cross a fork. What a child needs to begin travels in a sealed memory
file whose descriptor number is in `LEVERET_CHILD_FD`; it holds the default password, so neither arguments nor the environment, which other
users can see, will do. `leveret.supervisor.child` reads it at the other end. Signals go through the pidfd, so they cannot hit a stranger
who got the number of a process that has ended.

The memory file, version 1, is a msgpack map:

    version       1; the two ends are of one build, so a change here needs no reader of the old one
    kind, index   "router" | "worker" | "management", and its number among its kind
    node          {"run_id": str, "supervisor_pid": int}
    settings      Settings.to_map()
    line          descriptor of the socket pair to the supervisor
    listeners     {name: descriptor}
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgpack
from leveret.link.link import Hello, Link
from leveret.supervisor.memory import MemoryGauge

if TYPE_CHECKING:
    from leveret.config import Settings
    from leveret.link.dial import Receiver
    from leveret.link.poller import Poller

CHILD_FD_VARIABLE = "LEVERET_CHILD_FD"
CHILD_FACTS_VERSION = 1

ChildCommand = Callable[[str, int], Sequence[str]]


def child_command(kind: str, index: int) -> list[str]:
    """How a child is started. `-P`: a file in the working directory must never stand in for a module of ours."""
    return [sys.executable, "-P", "-m", f"leveret.{kind}", str(index)]


class ChildProcess:
    """A started child. `exited` is done when it has ended, with its return code: an exit status, or minus a signal's number."""

    def __init__(
        self,
        *,
        kind: str,
        index: int,
        command: Sequence[str],
        settings: Settings,
        run_id: str,
        listeners: Mapping[str, socket.socket],
        held_fds: Sequence[int],
        poller: Poller,
        hello: Hello,
        receiver: Receiver,
    ) -> None:
        """Start it. `held_fds` are inherited and never looked at (the data folder's lock). Raises `OSError` if it cannot be started."""
        self.kind = kind
        self.index = index
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.facts: dict[str, Any] = {}
        self.exited: asyncio.Future[int] = poller.loop.create_future()
        self._loop = poller.loop

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        facts = {
            "version": CHILD_FACTS_VERSION,
            "kind": kind,
            "index": index,
            "node": {"run_id": run_id, "supervisor_pid": os.getpid()},
            "settings": settings.to_map(),
            "line": theirs.fileno(),
            "listeners": {name: listener.fileno() for name, listener in listeners.items()},
        }
        memory_file = os.memfd_create("leveret-child")
        try:
            os.write(memory_file, msgpack.packb(facts))
            os.lseek(memory_file, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[memory_file, theirs.fileno(), *held_fds, *(listener.fileno() for listener in listeners.values())],
                env={**os.environ, CHILD_FD_VARIABLE: str(memory_file)},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(memory_file)
            theirs.close()
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self.memory = MemoryGauge(self.pid)
        self.room_bytes = 0  # what its files could take without growing, as it says
        self._loop.add_reader(self._pidfd, self._on_exit)
        self.link = Link(poller, ours, hello, receiver)

    @property
    def name(self) -> str:
        """How logs and pages name it: "router", "worker-0", "management"."""
        return f"{self.kind}-{self.index}" if self.kind == "worker" else self.kind

    @property
    def is_ready(self) -> bool:
        return self.ready_at is not None

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        returncode = self._process.wait()  # it has ended: this reaps it and does not wait
        os.close(self._pidfd)
        self.memory.close()
        self.link.close("the process has ended")
        self.exited.set_result(returncode)

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def exit_reason(returncode: int) -> str:
    """A return code in words."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"signal {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"
