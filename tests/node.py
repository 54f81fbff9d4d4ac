"""A broker under test: where it listens, and the process behind it.

Owns `Broker` (an address with what a client needs to reach it) and `Node` (a Leveret started by the suite on free ports and a private data
directory, which can be stopped, killed and started again). The fixtures of `conftest.py` make them; tests ask them for connections and for
the management API. Readiness is sd_notify's `READY=1`, so nothing here guesses how long a start takes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pika
import psutil

from bench.ports import spare_port
from tests.deadline import eventually

START_WITHIN_S = 60.0  # for a loaded two-core machine with several nodes starting at once; the goal itself has its own test
STOP_WITHIN_S = 60.0
KILL_WITHIN_S = 30.0
# A test's clients stay where the test has put them. "always" runs the suite with connections that move at every opportunity.
HANDOVER = os.environ.get("LEVERET_TEST_HANDOVER", "off")


@dataclass
class Broker:
    """A running broker: Leveret, or the peer that the suite is checked against.

    `http_port` is None when the broker's management API is not to be asked (the peer).
    """

    host: str
    port: int
    http_port: int | None = None
    user: str = "guest"
    password: str = "guest"

    @property
    def is_peer(self) -> bool:
        """Whether this is the peer, of which nothing is known beyond its AMQP port."""
        return self.http_port is None

    @property
    def url(self) -> str:
        """Its address as pika's and other clients' URL."""
        return f"amqp://{quote(self.user)}:{quote(self.password)}@{self.host}:{self.port}/%2F"

    def parameters(self, **overrides: Any) -> pika.ConnectionParameters:
        """pika's parameters for it; `overrides` are pika's own names."""
        settings: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "credentials": pika.PlainCredentials(self.user, self.password),
            "socket_timeout": 30,
            "stack_timeout": 40,
            "blocked_connection_timeout": 120,
        }
        return pika.ConnectionParameters(**(settings | overrides))

    def connect(self, **overrides: Any) -> pika.BlockingConnection:
        """A new blocking connection."""
        return pika.BlockingConnection(self.parameters(**overrides))

    def api(self, path: str) -> Any:
        """The JSON that `GET /api/<path>` answers; `AssertionError` for any status but 200."""
        response = self._http.get(f"http://{self.host}:{self.http_port}/api/{path}", auth=(self.user, self.password))
        assert response.status_code == 200, f"GET /api/{path}: {response.status_code} {response.text}"
        return response.json()

    @functools.cached_property
    def _http(self) -> httpx.Client:
        # One client for all requests, because making one reads every certificate authority of the system; a connection for each, because a
        # kept one would not outlive the process behind it.
        return httpx.Client(timeout=60, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    def processes(self) -> dict[str, int]:
        """The pid of each of its processes that is there, by name: `router`, `management`, `worker-0`, …"""

        def told() -> list[dict[str, Any]]:
            (node,) = self.api("nodes")
            return list(node["processes"])  # none when the supervisor, who knows them, did not answer in time

        return {str(process["name"]): int(process["pid"]) for process in eventually(told, what="the processes") if process["pid"]}

    def workers(self) -> dict[int, int]:
        """The pid of each worker, by index."""
        return {int(name.removeprefix("worker-")): pid for name, pid in self.processes().items() if name.startswith("worker-")}


class Node(Broker):
    """A Leveret of the suite's own. `start()` it, and `stop()` or `kill()` it before the test ends.

    `config` is written as the node's `leveret.toml`. The ports are free ones, and stay the same over all starts.
    """

    def __init__(self, data_dir: Path, *, workers: int, config: dict[str, Any] | None = None) -> None:
        super().__init__("127.0.0.1", spare_port(), spare_port())
        self.data_dir = data_dir
        self.worker_count = workers
        self.config = config or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.start_took_s = 0.0  # from the exec to READY=1
        self.log_path = data_dir.with_name(data_dir.name + ".log")

    def start(self) -> Node:
        """Start it and wait for `READY=1`; `AssertionError` with the end of its log when it dies or is late."""
        assert self.process is None, "started twice"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        config_path = self.data_dir.with_name(self.data_dir.name + ".toml")
        config: dict[str, Any] = {"host": self.host, "http_host": self.host, "disk_free_limit_bytes": 0, "connection_handover": HANDOVER}
        config["shutdown_timeout_s"] = 30  # a worker that is killed because a busy machine let it wait would make a stop a crash
        config |= self.config
        config_path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items()))
        command = [sys.executable, "-m", "leveret", "start", "--config", str(config_path)]
        command += ["--data-dir", str(self.data_dir), "--workers", str(self.worker_count)]
        command += ["--port", str(self.port), "--http-port", str(self.http_port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
        began = time.monotonic()
        with ReadySocket() as ready, self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,  # not the checkout: what is tested is the installed package
                env=environment | {"NOTIFY_SOCKET": ready.address},
            )
            if not ready.wait(self.process, START_WITHIN_S):
                status = self.process.poll()
                self.kill()
                why = f"ended with status {status}" if status is not None else f"not ready within {START_WITHIN_S} s"
                raise AssertionError(f"{why}:\n{self.log_tail()}")
        self.start_took_s = time.monotonic() - began
        self._read_ports()
        return self

    def stop(self) -> None:
        """Ask it to stop as systemd would (SIGTERM) and wait for its end; `AssertionError` when it fails or takes too long."""
        if self.process is None:
            return
        self.process.terminate()
        self.wait_stopped()

    def wait_stopped(self) -> None:
        """Wait for the end of a stop asked for in another way; `AssertionError` when it fails or takes too long."""
        assert self.process is not None
        try:
            status = self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {STOP_WITHIN_S} s after the stop:\n{self.log_tail()}") from None
        self.process = None
        assert status == 0, f"exit status {status}:\n{self.log_tail()}"

    def kill(self, *, supervisor_alone: bool = False) -> None:
        """SIGKILL the supervisor and all it started, or it alone, and wait until all are dead. The data directory stays as it was."""
        if self.process is None:
            return
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.ExitStack() as deaths:
            # Not psutil's wait: an orphan stays a zombie until whoever inherits it looks, and that may take a second.
            pidfds = []
            for child in family:
                with contextlib.suppress(ProcessLookupError):
                    pidfds.append(os.pidfd_open(child.pid))
                    deaths.callback(os.close, pidfds[-1])
            self.process.kill()
            for child in () if supervisor_alone else family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            for pidfd in pidfds:
                dead, _, _ = select.select([pidfd], [], [], KILL_WITHIN_S)
                assert dead, f"a process outlives its supervisor by more than {KILL_WITHIN_S} s"
        self.process.wait()
        self.process = None

    def kill_process(self, name: str) -> int:
        """SIGKILL one of its processes by its name in `/api/nodes`; gives back the pid."""
        pid = self.processes()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    @contextlib.contextmanager
    def lent(self) -> Iterator[Node]:
        """It for one test of several that stop, kill and fill it in turn: running, and without a queue or exchange of the one before.

        What is left behind is deleted. One that a test has broken is killed and loses its data, so that it begins anew with the next.
        """
        if self.process is None:
            self.start()
        try:
            yield self
            self.clear()
        except BaseException:
            self.kill()
            shutil.rmtree(self.data_dir)
            raise

    def clear(self) -> None:
        """Delete all queues, and all exchanges but the predeclared."""
        with self.connect() as connection:
            channel = connection.channel()
            for row in self.api("queues"):
                channel.queue_delete(row["name"])
            for row in self.api("exchanges"):
                if row["name"] and not row["name"].startswith("amq."):
                    channel.exchange_delete(row["name"])

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of what it wrote to standard output and error."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _read_ports(self) -> None:
        state = json.loads((self.data_dir / "node.json").read_text())
        self.port = int(state["amqp_port"])
        self.http_port = int(state["http_port"])


class ReadySocket:
    """Stands in for systemd: a datagram socket whose `address` goes into `NOTIFY_SOCKET`."""

    def __init__(self) -> None:
        # An abstract address: a path under a test's temporary directory may be longer than the 107 bytes of sun_path.
        self.address = f"@leveret-ready-{os.getpid()}-{os.urandom(6).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind("\0" + self.address[1:])

    def __enter__(self) -> ReadySocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait(self, process: subprocess.Popen[bytes], within_s: float) -> bool:
        """Whether `READY=1` came within `within_s` seconds and before the process ended."""
        pidfd = os.pidfd_open(process.pid)
        try:
            deadline = time.monotonic() + within_s
            while (left_s := deadline - time.monotonic()) > 0:
                readable, _, _ = select.select([self._socket.fileno(), pidfd], [], [], left_s)
                if self._socket.fileno() in readable:
                    if "READY=1" in self._socket.recv(4096).decode().split("\n"):
                        return True
                elif pidfd in readable:
                    return False
            return False
        finally:
            os.close(pidfd)
