"""A broker that a bench may start, watch and stop: what `Peer` (RabbitMQ) and `LeveretNode` have in common.

Each node listens on a port of its own on the loopback address, keeps its files in a private folder that goes away with it, and is
ready when its port answers an AMQP handshake. Only processes that the node itself started are ever ended, by their pid.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Protocol

_AMQP_GREETING = b"AMQP\x00\x00\x09\x01"


class Node(Protocol):
    """One running broker."""

    name: str
    label: str  # name and version, for tables
    port: int
    start_s: float  # from the command to the first answered handshake
    fsyncs_before_confirm: bool  # of persistent messages to durable queues

    @property
    def pid(self) -> int:
        """Root of the process tree that counts as the broker."""
        ...

    @property
    def uri(self) -> str: ...

    def stop(self) -> None: ...


class NodeFailed(Exception):
    """A broker did not start, or ended by itself; the text says which and shows the end of its log."""


def answers_handshake(port: int, timeout_s: float = 1.0) -> bool:
    """Whether `connection.start` comes back from `port`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as probe:
            probe.settimeout(timeout_s)
            probe.sendall(_AMQP_GREETING)
            answer = probe.recv(11)
    except OSError:
        return False
    # Frame type 1 on channel 0, then (after the size) class 10, method 10.
    return answer[:3] == b"\x01\x00\x00" and answer[7:11] == b"\x00\x0a\x00\x0a"


def wait_ready(process: subprocess.Popen[bytes], port: int, log: Path, name: str, timeout_s: float) -> None:
    """Return once `port` answers a handshake; NodeFailed when the process ends first or `timeout_s` have passed."""
    deadline = time.monotonic() + timeout_s
    while not answers_handshake(port):
        if process.poll() is not None:
            raise NodeFailed(f"{name} ended with exit code {process.returncode} before it was ready\n{tail(log)}")
        if time.monotonic() > deadline:
            raise NodeFailed(f"{name} was not ready within {timeout_s:.0f} s\n{tail(log)}")
        time.sleep(0.01)  # nothing to wait on: the port is opened by another process


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log file, for an error message."""
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return "(no log)"


def end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """SIGTERM, then after `timeout_s` SIGKILL to the process group that the process was started as the leader of."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
