"""`leveret stop`: ask the node to stop over its control socket, and wait for its supervisor's end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path

from leveret.ctl.control_client import ControlClient
from leveret.refusal import TEMPORARY, Refusal

ASK_TIMEOUT_S = 5.0
STOP_PATH = "/api/control/stop"


def stop_node(data_dirs: Sequence[Path], timeout_s: float) -> str:
    """Stop the node and wait for its end; a sentence to be printed.

    Raises `Refusal`: 69 if none runs, 75 if it has not ended after `timeout_s` seconds.
    """
    client = ControlClient(data_dirs, min(ASK_TIMEOUT_S, timeout_s))
    pid = int(client.facts["pid"])
    stopped = f"Stopped {client.facts['node_name']}.\n"
    try:
        supervisor = os.pidfd_open(pid)
    except ProcessLookupError:
        return stopped  # it ended meanwhile
    try:
        _ask(client, supervisor)
        ended = select.poll()
        ended.register(supervisor, select.POLLIN)
        if not ended.poll(timeout_s * 1000):
            raise Refusal(f"the broker, process {pid}, was asked to stop but is still there after {timeout_s:g} s", TEMPORARY)
    finally:
        os.close(supervisor)
    return stopped


def _ask(client: ControlClient, supervisor: int) -> None:
    try:
        client.post(STOP_PATH)
    except Refusal:
        # The management process is starting, busy or broken; the supervisor hears a signal all the same. Its number is not a stranger's:
        # the node's control socket was listening a moment ago, and it is the supervisor that holds it open.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(supervisor, signal.SIGTERM)
