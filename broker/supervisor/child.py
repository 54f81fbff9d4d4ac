"""A child process's own side of its supervisor: what it was given, when it is ready, when it shall end.

`run_child(kind, main)` is the whole of a child's `__main__`: it reads what `leveret.supervisor.child_process` handed over, ties the life of
the process to the supervisor's, sets up logs and the event loop, and awaits `main(child)`. The router, the workers and the management
process call it; it knows nothing of what they do.

    async def main(child: Child) -> None:
        ...                                     # open what is needed, start to serve child.listeners
        child.ready(queues=3)                   # facts for `leveret status`
        reason = await child.shutdown_requested
        ...                                     # close connections, files
                                                # returning ends the process with status 0

    if __name__ == "__main__":
        run_child("worker", main)

Two threads tie a child to its supervisor, so that none is ever left behind: the kernel sends SIGKILL when the supervisor ends
(PR_SET_PDEATHSIG), and the line closing ends the child too. SIGINT and SIGHUP (a terminal sends them to the whole group) and SIGTERM
(systemd sends it to the whole control group) are left to the supervisor, which ends its children in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgpack
from leveret import logs
from leveret.config import Settings
from leveret.refusal import OK, SOFTWARE, TEMPORARY, USAGE, Refusal
from leveret.supervisor.child_process import CHILD_FACTS_VERSION, CHILD_FD_VARIABLE
from leveret.supervisor.freed_memory import CHeap, FreedMemory, keep_freed_memory

if TYPE_CHECKING:
    from leveret.link.link import Hello, Link
    from leveret.link.poller import Poller

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_COMM_BYTES_MAX = 15  # proc(5)


class Child:
    """This process, as its supervisor started it. One per process, made by `run_child`, handed to `main`.

    `listeners` are listening, non-blocking sockets by name: "amqp" for a worker; "http" and "control" for management. `alarms` maps
    "memory" and "disk" to whether that alarm stands; set `on_alarms` to hear of changes. `on_request` and `on_notice` take the verbs that
    are not this module's own. All of them are called from the loop.
    """

    def __init__(self, facts: Mapping[str, Any], loop: asyncio.AbstractEventLoop, poller: Poller) -> None:
        from leveret.link.link import Hello, Link

        self.kind: str = facts["kind"]
        self.index: int = facts["index"]
        self.run_id: str = facts["node"]["run_id"]
        self.settings = Settings.from_map(facts["settings"])
        self.loop = loop
        self.poller = poller
        self.listeners: dict[str, socket.socket] = {}
        for name, descriptor in facts["listeners"].items():
            os.set_inheritable(descriptor, False)
            self.listeners[name] = socket.socket(fileno=descriptor)
            self.listeners[name].setblocking(False)
        self.alarms: dict[str, bool] = {"memory": False, "disk": False}
        self.on_alarms: Callable[[dict[str, bool]], None] = lambda alarms: None
        self.on_notice: Callable[[str, Any], None] = self._unknown_notice
        self.on_request: Callable[[str, Any], Any] = self._unknown_request
        self.hello: Hello = Hello(kind=self.kind, index=self.index, pid=os.getpid())
        self._shutdown: asyncio.Future[str] = loop.create_future()
        self._is_ready = False
        self._main: asyncio.Task[None] | None = None
        self._ending = False
        self._freed_memory: FreedMemory | None = None
        os.set_inheritable(facts["line"], False)
        self.supervisor: Link = Link(poller, socket.socket(fileno=facts["line"]), self.hello, _Line(self))
        self.supervisor.opened.add_done_callback(self._on_opened)

    @property
    def name(self) -> str:
        """As in the logs: "router", "worker-0", "management"."""
        return process_name(self.kind, self.index)

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir

    @property
    def runtime_dir(self) -> Path:
        return self.settings.runtime_dir

    def ready(self, **facts: object) -> None:
        """Tell the supervisor that this process serves. `facts` (small, msgpack) are shown on the status pages."""
        self._is_ready = True
        self.supervisor.notify("ready", {"facts": facts})

    @property
    def shutdown_requested(self) -> Awaitable[str]:
        """Await it for the reason of the shutdown, a word for clients. As many as like may wait; one that is cancelled disturbs no other.

        A child that is not ready yet, and may be waiting for another that never comes, does not hear of it: its `main` is cancelled.
        """
        return asyncio.shield(self._shutdown)

    @property
    def is_shutting_down(self) -> bool:
        return self._shutdown.done()

    def request_stop(self, reason: str) -> asyncio.Future[Any]:
        """Ask the supervisor to stop the whole node. The answer means that it has begun."""
        return self.supervisor.ask("stop", {"reason": reason})

    def give_back_freed_memory(self) -> None:
        """From now on, what malloc has free and nobody needs goes back to the system. Without glibc nothing happens."""
        with contextlib.suppress(AttributeError):
            self._freed_memory = FreedMemory(CHeap())
            self._freed_memory.start(self.loop)

    # --- what the supervisor says

    def _request(self, verb: str, body: Any) -> Any:
        if verb == "shutdown":
            if not self._shutdown.done():
                self._shutdown.set_result(str(body["reason"]))
                if not self._is_ready and self._main is not None:
                    self._main.cancel()
            return {}
        return self.on_request(verb, body)

    def _notice(self, verb: str, body: Any) -> None:
        if verb != "alarms":
            self.on_notice(verb, body)
            return
        self.alarms = {"memory": bool(body["memory"]), "disk": bool(body["disk"])}
        if self._freed_memory is not None:
            self._freed_memory.set_alarm(self.alarms["memory"])
        self.on_alarms(self.alarms)

    def _on_opened(self, opened: asyncio.Future[Hello]) -> None:
        if not opened.cancelled() and opened.exception() is not None:
            self._on_supervisor_gone()

    def _on_supervisor_gone(self) -> None:
        if not self._ending:
            log.error("the supervisor is gone; ending")
            os._exit(TEMPORARY)

    @staticmethod
    def _unknown_request(verb: str, body: Any) -> Any:
        raise ValueError(f"unknown request {verb!r} from the supervisor")

    @staticmethod
    def _unknown_notice(verb: str, body: Any) -> None:
        log.error("unknown notice %r from the supervisor", verb)


class _Line:
    """Receiver of the link to the supervisor."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def on_link_open(self, link: Link) -> None:
        pass

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        return self._child._request(verb, body)

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        self._child._notice(verb, body)

    def on_link_closed(self, link: Link) -> None:
        self._child._on_supervisor_gone()


def process_name(kind: str, index: int) -> str:
    """How logs, `leveret status` and pages name a process; only workers are numbered."""
    return f"{kind}-{index}" if kind == "worker" else kind


def run_child(
    kind: str,
    main: Callable[[Child], Coroutine[Any, Any, None]],
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> NoReturn:
    """Be the child process of that kind: await `main(child)`, then end the process.

    new_loop: makes the event loop; unless told, one that lives on our poller, which suits a process that mostly serves streams.
    Status 0 when `main` returns, the refusal's code when it raises `Refusal` (the supervisor is told the sentence), 70 when it raises
    anything else, which is a bug and is logged whole.
    """
    facts = _read_facts(kind)
    _die_with(facts["node"]["supervisor_pid"])
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    faulthandler.enable()
    if kind != "management":  # it moves no messages
        keep_freed_memory()
    settings = facts["settings"]
    name = process_name(kind, facts["index"])
    logs.set_up(name, settings["log_level"], settings["log_format"])
    name_process(name)

    from leveret.link.loop import PollerLoop

    with asyncio.Runner(loop_factory=new_loop or PollerLoop) as runner:
        status = runner.run(_serve(facts, main))
    sys.exit(status)


async def _serve(facts: Mapping[str, Any], main: Callable[[Child], Coroutine[Any, Any, None]]) -> int:
    from leveret.link.poller import running_poller

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, _on_sigterm)
    poller = running_poller()
    child: Child | None = None

    async def live() -> None:
        # Made in the step in which `main` begins: nothing that the supervisor says is heard before `main` has said who hears it.
        nonlocal child
        child = Child(facts, loop, poller)
        child._main = asyncio.current_task()
        child.give_back_freed_memory()
        await main(child)

    try:
        await loop.create_task(live())
        return OK
    except asyncio.CancelledError:
        if child is None or not child.is_shutting_down:
            raise
        return OK
    except Refusal as refusal:
        assert child is not None  # `main` has raised it
        log.error("%s", refusal.sentence)
        child.supervisor.notify("failed", {"sentence": refusal.sentence, "exit_code": refusal.exit_code})
        await asyncio.sleep(0)  # the notice goes out when the loop comes round
        return refusal.exit_code
    except Exception:  # a bug: told whole; the supervisor starts a successor
        log.exception("unexpected error; the process ends")
        return SOFTWARE
    finally:
        if child is not None:
            child._ending = True
        poller.close()
        if child is not None:
            for listener in child.listeners.values():
                listener.close()


def _on_sigterm() -> None:
    log.warning("SIGTERM is left to the supervisor; `leveret stop` ends the node, SIGKILL this process alone")


def _read_facts(kind: str) -> dict[str, Any]:
    """What the supervisor handed over, from the memory file."""
    descriptor = os.environ.pop(CHILD_FD_VARIABLE, "")
    if not descriptor.isdecimal():
        print(f"leveret: leveret.{kind} is started by `leveret start`, not by hand", file=sys.stderr)
        sys.exit(USAGE)
    with os.fdopen(int(descriptor), "rb") as file:
        facts: dict[str, Any] = msgpack.unpackb(file.read())
    if facts["version"] != CHILD_FACTS_VERSION or facts["kind"] != kind:
        print(f"leveret: leveret.{kind} does not belong to the supervisor that started it", file=sys.stderr)
        sys.exit(SOFTWARE)
    return facts


def _die_with(supervisor_pid: int) -> None:
    """Have the kernel end this process when the supervisor ends, however it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != supervisor_pid:  # it ended before the line above
        sys.exit(TEMPORARY)


def name_process(name: str) -> None:
    """Show `name` in `top` and `ps -c`."""
    short = f"leveret-{name}".replace("-worker-", "-wrk-").replace("-management", "-mgmt")
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_bytes(short.encode()[:_COMM_BYTES_MAX])
