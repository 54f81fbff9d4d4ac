"""The supervisor itself: the first process of a node, parent of all others, the last to end.

It owns the children and their restarts, the listening sockets, signals, the data folder's lock, the memory and disk alarms, readiness and
the order of start and stop. `leveret.ctl.start` makes one and awaits `run`. It never accepts a connection and never sees a message, so
that nothing a client does can take it down.

Start: router and workers at once; when all of them are ready, the node is ready, and the management process (whose imports cost a third of
a second) starts behind that. Its sockets listen from the beginning, so its first callers wait and are not refused.
Stop: management, then workers (they close their connections with 320), then router; each within a time, after which SIGKILL.

Verbs on a child's line, bodies are maps:

    to a child     request  shutdown {reason}                 answered at once; the child ends by itself; reason is "shutdown",
                                                              the word that RabbitMQ gives its clients
                   notice   alarms   {memory, disk}           booleans; sent when one changes, and to a new child if one stands
    from a child   notice   ready    {facts}
                   notice   failed   {sentence, exit_code}    a refusal in the user's words, before it ends
                   notice   room     {bytes}                  what its files could take without growing, when that changes
                   request  node     {}                       answered with `Supervisor.node_facts()`
                   request  stop     {reason}                 answered at once; the node stops
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from leveret import __version__
from leveret.link.link import Hello
from leveret.link.poller import Poller
from leveret.refusal import OK, SOFTWARE, Refusal
from leveret.supervisor import machine, readiness
from leveret.supervisor.backoff import Backoff
from leveret.supervisor.child_process import ChildCommand, ChildProcess, child_command, exit_reason
from leveret.supervisor.listeners import control_listener, local_port, tcp_listener
from leveret.supervisor.memory import SAMPLE_MIN_S, LowDisk, MemoryGauge, Watermark, cpu_time, watermark_bytes
from leveret.supervisor.runtime import DataDir, RuntimeDir

if TYPE_CHECKING:
    from leveret.config import Settings
    from leveret.link.link import Link

log = logging.getLogger(__name__)

DISK_SAMPLE_S = 1.0
DISK_NEAR = 10  # ten times a second when less is free than so many times the limit
CHILD_START_TIMEOUT_S = 30.0
CLIENTS_REASON = "shutdown"
LINELESS_MAX_S = 5.0  # from the closing of a child's line to its end
# For one that is stuck: on a busy machine management's two seconds of grace for its clients, or the router's last sync, may take some more.
MANAGEMENT_STOP_TIMEOUT_S = 10.0
ROUTER_STOP_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Post:
    """A place that some process must hold for as long as the node runs: its kind, its number, and who holds it now."""

    kind: str
    index: int
    backoff: Backoff = field(default_factory=Backoff)
    child: ChildProcess | None = None
    restarts: int = 0
    refusal: Refusal | None = None  # what the last child said before it ended
    restart_timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index}" if self.kind == "worker" else self.kind

    @property
    def is_ready(self) -> bool:
        return self.child is not None and self.child.is_ready


class Supervisor:
    """One node. `run` is its whole life.

    `command` says how a child is started (tests put stand-ins there). `on_ready` is called once, with the facts that also go into
    `node.json`: pid, run_id, node_name, version, amqp_host, amqp_port, http_host, http_port, control_socket, data_dir, runtime_dir,
    workers, durability, memory_limit_bytes, started_at (seconds since 1970).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: ChildCommand = child_command,
        on_ready: Callable[[dict[str, Any]], None] = lambda facts: None,
    ) -> None:
        self.settings = replace(settings, workers=settings.workers or min(machine.cores(), 64))
        self.run_id = secrets.token_hex(8)
        self.started_at = time.time()
        self._started_monotonic = time.monotonic()
        self._command = command
        self._on_ready = on_ready
        self._hello = Hello(kind="supervisor", index=0, pid=os.getpid())
        self.is_ready = False
        self._stopping: asyncio.Task[None] | None = None
        self._kill_all = False
        self._failure: Refusal | None = None
        self._memory_total_bytes = machine.memory_total_bytes()
        self._watermark = Watermark(watermark_bytes(settings.memory_watermark, self._memory_total_bytes))
        self._low_disk = LowDisk(settings.disk_free_limit_bytes)
        self._memory_used_bytes = 0
        self._disk_free_bytes = 0
        self._disk_at_s = 0.0  # when it is looked at next
        self._own_memory = MemoryGauge(os.getpid())
        self.posts = [
            Post("router", 0),
            *(Post("worker", index) for index in range(self.settings.workers)),
            Post("management", 0),
        ]

    async def run(self) -> int:
        """Start the node, keep it up until it is told to stop, and return the exit code.

        Raises `Refusal` if it cannot start: folders, ports, or a child that does not come up in three tries.
        """
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._files_max = machine.raise_open_files_limit()
        with contextlib.ExitStack() as owned:
            self._data_dir = DataDir(self.settings.data_dir)
            owned.callback(self._data_dir.close)
            runtime_dir = RuntimeDir(self.settings.runtime_dir)
            owned.callback(runtime_dir.close)
            self._listeners: dict[str, dict[str, socket.socket]] = {"router": {}, "worker": {}, "management": {}}
            self._control_path = runtime_dir.control_socket
            amqp = owned.enter_context(tcp_listener(self.settings.host, self.settings.port, self.settings.backlog, "--port"))
            http = owned.enter_context(tcp_listener(self.settings.http_host, self.settings.http_port, 128, "--http-port"))
            control = owned.enter_context(control_listener(self._control_path))
            self._listeners["worker"] = {"amqp": amqp}
            self._listeners["management"] = {"http": http, "control": control}
            self._amqp_port, self._http_port = local_port(amqp), local_port(http)
            self._poller = Poller(self._loop)
            self._poller.attach()
            owned.callback(self._poller.close)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._loop.add_signal_handler(number, self._on_signal, number)
                owned.callback(self._loop.remove_signal_handler, number)
            readiness.notify(STATUS="starting")
            self._watch()
            try:
                for post in self.posts:
                    if post.kind != "management":
                        self._start(post)
                await self._ended
            finally:
                await self._kill_children()
        if self._failure is not None:
            raise self._failure
        return OK

    def stop(self, reason: str) -> None:
        """Begin a graceful stop; a second call changes nothing."""
        if self._stopping is None:
            log.info("stopping: %s", reason)
            self._stopping = self._loop.create_task(self._stop(reason))

    # --- children: start, ready, end

    def _start(self, post: Post) -> None:
        post.restart_timer = None
        post.refusal = None
        try:
            child = ChildProcess(
                kind=post.kind,
                index=post.index,
                command=self._command(post.kind, post.index),
                settings=self.settings,
                run_id=self.run_id,
                listeners=self._listeners[post.kind],
                held_fds=[self._data_dir.lock_fd],
                poller=self._poller,
                hello=self._hello,
                receiver=_ChildLine(self, post),
            )
        except OSError as error:
            log.error("%s cannot be started: %s", post.name, error)
            self._after_death(post, served_s=0.0, why=f"cannot be started: {error}")
            return
        post.child = child
        log.debug("%s started, process %d", post.name, child.pid)
        child.exited.add_done_callback(lambda exited: self._on_exit(post, child, exited.result()))
        timeout = self._loop.call_later(CHILD_START_TIMEOUT_S, self._on_start_timeout, post, child)
        child.exited.add_done_callback(lambda exited: timeout.cancel())

    def _on_start_timeout(self, post: Post, child: ChildProcess) -> None:
        if not child.is_ready:
            log.error("%s, process %d, was not ready after %.0f s: killing it", post.name, child.pid, CHILD_START_TIMEOUT_S)
            child.kill()

    def _on_child_ready(self, post: Post, facts: dict[str, Any]) -> None:
        child = post.child
        if child is None or child.is_ready:
            return
        child.ready_at = time.monotonic()
        child.facts = facts
        post.backoff.on_ready()
        log.log(
            logging.INFO if self.is_ready else logging.DEBUG,
            "%s is ready, process %d, after %.2f s",
            post.name,
            child.pid,
            child.ready_at - child.started_at,
        )
        if not self.is_ready and self._stopping is None and all(other.is_ready for other in self.posts if other.kind != "management"):
            self._on_node_ready()

    def _on_node_ready(self) -> None:
        self.is_ready = True
        facts = self.ready_facts()
        self._data_dir.write_node(facts)
        log.info(
            "node ready after %.2f s, %d workers, durability %s",
            *(time.monotonic() - self._started_monotonic, self.settings.workers, self.settings.durability),
        )
        self._on_ready(facts)
        readiness.notify(READY=1, STATUS=f"serving AMQP on port {self._amqp_port}")
        self._start(self._post("management"))

    def _on_exit(self, post: Post, child: ChildProcess, returncode: int) -> None:
        post.child = None
        if self._stopping is not None:
            if returncode != 0 and (child.is_ready or post.kind != "management"):
                log.warning("%s, process %d, ended with %s while stopping", post.name, child.pid, exit_reason(returncode))
            return
        served_s = time.monotonic() - child.ready_at if child.ready_at is not None else 0.0
        log.error("%s, process %d, ended unexpectedly: %s", post.name, child.pid, exit_reason(returncode))
        self._after_death(post, served_s, exit_reason(returncode))

    def _after_death(self, post: Post, served_s: float, why: str) -> None:
        if self._stopping is not None:
            return
        # What a child refuses in words will not go away by trying again; once the node serves, it goes on serving without it.
        delay_s = post.backoff.on_death(served_s)
        if not post.backoff.ever_ready and post.refusal is not None:
            self._fail(post.refusal)
        elif delay_s is None:
            self._fail(Refusal(f"the {post.name} process does not start ({why}); the log lines above tell why", SOFTWARE))
        else:
            post.restarts += 1
            if delay_s:
                log.warning("%s is started again in %.1f s", post.name, delay_s)
            post.restart_timer = self._loop.call_later(delay_s, self._start, post)

    def _fail(self, failure: Refusal) -> None:
        self._failure = failure
        self.stop("the node cannot start")

    def _post(self, kind: str) -> Post:
        return next(post for post in self.posts if post.kind == kind)

    # --- stop

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stopping is None:
            self.stop(f"{name} received")
        elif number == signal.SIGINT and not self._kill_all:
            log.warning("second %s: killing the children at once", name)
            self._kill_all = True
            for child in self._children():
                child.kill()

    async def _stop(self, reason: str) -> None:
        readiness.notify(STOPPING=1, STATUS=f"stopping: {reason}")
        for post in self.posts:
            if post.restart_timer is not None:
                post.restart_timer.cancel()
        await self._end("management", MANAGEMENT_STOP_TIMEOUT_S)
        await self._end("worker", self.settings.shutdown_timeout_s)
        await self._end("router", ROUTER_STOP_TIMEOUT_S)
        log.info("stopped")
        if not self._ended.done():
            self._ended.set_result(None)

    async def _end(self, kind: str, timeout_s: float) -> None:
        """Ask every child of that kind to end, wait for it, and kill those that are still there after `timeout_s`."""
        children = list(self._children(kind))
        if not children:
            return
        for child in children:
            if kind == "management" and not child.is_ready:
                child.kill()  # still importing, it holds nothing and would not hear us before it is done
            elif not child.link.is_closed:
                answer = child.link.ask("shutdown", {"reason": CLIENTS_REASON})
                # It tells nothing that the exit does not; its failure (a child that dies first) is no news either.
                answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        await asyncio.wait([child.exited for child in children], timeout=timeout_s)
        for child in children:
            if not child.exited.done():
                log.error("%s, process %d, did not end within %.1f s: killing it", child.name, child.pid, timeout_s)
                child.kill()
        await asyncio.wait([child.exited for child in children])

    async def _kill_children(self) -> None:
        """The last resort, also when `run` itself failed: nothing that we started outlives us."""
        if self._stopping is None:  # an error of ours: no child may be started again
            self._stopping = self._loop.create_task(asyncio.sleep(0))
        children = list(self._children())
        for child in children:
            child.kill()
        if children:
            await asyncio.wait([child.exited for child in children])

    def _children(self, kind: str | None = None) -> Iterable[ChildProcess]:
        return [post.child for post in self.posts if post.child is not None and kind in (None, post.kind)]

    # --- alarms

    def _watch(self) -> None:
        """Sample, and again when the memory could have reached its limit or the disk is due."""
        try:
            self._sample()
        finally:
            memory_at_s = self._loop.time() + self._watermark.next_sample_s(self._memory_used_bytes, self.settings.workers)
            self._loop.call_at(min(memory_at_s, self._disk_at_s), self._watch)

    def _sample(self) -> None:
        used = self._own_memory.read()[1]
        for child in self._children():
            used += child.memory.read()[1]
        self._memory_used_bytes = used
        changed = self._watermark.sample(used)
        if changed:
            log.warning(
                "memory alarm %s: %.1f MiB used, limit %.1f MiB; publishers are %s",
                "set" if self._watermark.alarm else "cleared",
                used / 2**20,
                self._watermark.limit_bytes / 2**20,
                "held back until consumers have drained the queues" if self._watermark.alarm else "served again",
            )
        if self._loop.time() >= self._disk_at_s:
            changed |= self._sample_disk()
            near = self._disk_free_bytes < DISK_NEAR * self.settings.disk_free_limit_bytes
            self._disk_at_s = self._loop.time() + (SAMPLE_MIN_S if near else DISK_SAMPLE_S)
        if changed:
            for child in self._children():
                child.link.notify("alarms", self.alarms())

    def _sample_disk(self) -> bool:
        try:
            status = os.statvfs(self.settings.data_dir)
        except OSError as error:
            log.error("cannot read the free space below %s: %s", self.settings.data_dir, error.strerror)
            return False
        self._disk_free_bytes = status.f_bavail * status.f_frsize
        # A file keeps the room that consumers make in it. If that did not count, the alarm of a disk that our own messages have filled
        # would stand for ever.
        room_bytes = sum(child.room_bytes for child in self._children())
        changed = self._low_disk.sample(self._disk_free_bytes + room_bytes)
        if changed:
            log.warning(
                "disk alarm %s: %.1f MiB free, %.1f MiB more within our files, limit %.1f MiB",
                "set" if self._low_disk.alarm else "cleared",
                self._disk_free_bytes / 2**20,
                room_bytes / 2**20,
                self._low_disk.limit_bytes / 2**20,
            )
        return changed

    def alarms(self) -> dict[str, bool]:
        """Body of the notice `alarms`."""
        return {"memory": self._watermark.alarm, "disk": self._low_disk.alarm}

    # --- facts

    def ready_facts(self) -> dict[str, Any]:
        """Where the node can be reached; see the class."""
        return {
            "pid": os.getpid(),
            "run_id": self.run_id,
            "node_name": self.settings.node_name,
            "version": __version__,
            "amqp_host": self.settings.host,
            "amqp_port": self._amqp_port,
            "http_host": self.settings.http_host,
            "http_port": self._http_port,
            "control_socket": str(self._control_path),
            "data_dir": str(self.settings.data_dir),
            "runtime_dir": str(self.settings.runtime_dir),
            "workers": self.settings.workers,
            "durability": self.settings.durability,
            "memory_limit_bytes": self._watermark.limit_bytes,
            "started_at": self.started_at,
        }

    def node_facts(self) -> dict[str, Any]:
        """Answer to `node`: the node and every process of it, now.

        Sizes in bytes, times in seconds; `started_at` since 1970. A post that nobody holds just now has pid None and state "restarting".
        """
        self._sample()  # the last sample may be a second old
        now = time.monotonic()
        own_resident, own_private = self._own_memory.read()
        own_cpu = cpu_time(os.getpid())
        processes = [
            {
                "name": "supervisor",
                "kind": "supervisor",
                "index": 0,
                "pid": os.getpid(),
                "state": "stopping" if self._stopping is not None else "running",
                "cpu_user_s": own_cpu.user_s,
                "cpu_system_s": own_cpu.system_s,
                "rss_bytes": own_resident,
                "private_bytes": own_private,
                "restarts": 0,
                "uptime_s": now - self._started_monotonic,
                "facts": {},
            },
            *(self._process_facts(post, now) for post in self.posts),
        ]
        return {
            "name": self.settings.node_name,
            "run_id": self.run_id,
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self.started_at,
            "uptime_s": now - self._started_monotonic,
            "data_dir": str(self.settings.data_dir),
            "runtime_dir": str(self.settings.runtime_dir),
            "workers": self.settings.workers,
            "durability": self.settings.durability,
            "files_max": self._files_max,
            "processes": processes,
            "alarms": self.alarms(),
            "memory": {
                "total_bytes": self._memory_total_bytes,
                "limit_bytes": self._watermark.limit_bytes,
                "used_bytes": self._memory_used_bytes,
                "alarm": self._watermark.alarm,
            },
            "disk": {
                "free_bytes": self._disk_free_bytes,
                "limit_bytes": self._low_disk.limit_bytes,
                "alarm": self._low_disk.alarm,
            },
            "listeners": [
                {"name": "amqp", "address": self.settings.host, "port": self._amqp_port},
                {"name": "http", "address": self.settings.http_host, "port": self._http_port},
                {"name": "control", "address": str(self._control_path), "port": 0},
            ],
        }

    def _process_facts(self, post: Post, now: float) -> dict[str, Any]:
        child = post.child
        facts: dict[str, Any] = {"name": post.name, "kind": post.kind, "index": post.index, "restarts": post.restarts}
        if child is None:
            absent: dict[str, Any] = {"pid": None, "state": "restarting", "cpu_user_s": 0.0, "cpu_system_s": 0.0}
            return facts | absent | {"rss_bytes": 0, "private_bytes": 0, "uptime_s": 0.0, "facts": {}}
        resident, private = child.memory.read()
        cpu = cpu_time(child.pid)
        return facts | {
            "pid": child.pid,
            "state": "stopping" if self._stopping is not None else "running" if child.is_ready else "starting",
            "cpu_user_s": cpu.user_s,
            "cpu_system_s": cpu.system_s,
            "rss_bytes": resident,
            "private_bytes": private,
            "uptime_s": now - child.started_at,
            "facts": child.facts,
        }


class _ChildLine:
    """Receiver of the line to the child that holds `post`."""

    def __init__(self, supervisor: Supervisor, post: Post) -> None:
        self._supervisor = supervisor
        self._post = post

    def on_link_open(self, link: Link) -> None:
        alarms = self._supervisor.alarms()
        if any(alarms.values()):
            link.notify("alarms", alarms)

    def on_request(self, link: Link, verb: str, body: Any) -> Any:
        if verb == "node":
            return self._supervisor.node_facts()
        if verb == "stop":
            self._supervisor.stop(str(body["reason"]))
            return {}
        raise ValueError(f"unknown request {verb!r} from {self._post.name}")

    def on_notice(self, link: Link, verb: str, body: Any) -> None:
        if verb == "ready":
            self._supervisor._on_child_ready(self._post, dict(body["facts"]))
        elif verb == "room":
            if self._post.child is not None:
                self._post.child.room_bytes = int(body["bytes"])
        elif verb == "failed":
            self._post.refusal = Refusal(str(body["sentence"]), int(body["exit_code"]))
        else:
            log.error("unknown notice %r from %s", verb, self._post.name)

    def on_link_closed(self, link: Link) -> None:
        # A child that closes its line is ending; one that lives on without it could not be told to stop, so it must go.
        child = self._post.child
        if child is not None and child.link is link:
            self._supervisor._loop.call_later(LINELESS_MAX_S, child.kill)
