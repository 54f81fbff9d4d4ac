"""A private Leveret for the side-by-side bench, started in the same manner as its peer: own ports, own folder, ready at a handshake."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from leveret import __version__

from bench.node import NodeFailed, end, wait_ready
from bench.ports import spare_port

_READY_S = 20.0
_STOP_S = 20.0
_HALT_S = 60.0


class LeveretNode:
    """Leveret, running, with one worker for each core. `LeveretNode()` returns when it is ready; use it as a context manager.

    `workers` is 0 for one a core; `durability` as in `leveret start`. Raises NodeFailed when it does not come up.
    """

    name = "Leveret"

    def __init__(self, workers: int = 0, durability: str = "disk") -> None:
        self.label = f"{self.name} {__version__} (durability {durability})"
        self.fsyncs_before_confirm = durability == "disk"
        self.workers = workers or len(os.sched_getaffinity(0))
        self.port = spare_port()
        self.http_port = spare_port()
        self._folder = Path(tempfile.mkdtemp(prefix="leveret-bench-node-"))
        self.data_dir = self._folder / "data"
        self._log = self._folder / "console.log"
        self.durability = durability
        self.start()

    def start(self) -> None:
        """Start it, again after `halt`, on the same data. Raises NodeFailed when it does not come up."""
        command = [sys.executable, "-m", "leveret", "start", "--data-dir", str(self.data_dir), "--workers", str(self.workers)]
        command += ["--durability", self.durability]
        command += ["--port", str(self.port), "--http-port", str(self.http_port), "--host", "127.0.0.1", "--http-host", "127.0.0.1"]
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_ready(self._process, self.port, self._log, self.name, _READY_S)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - began

    def settle(self) -> LeveretNode:
        """Return when the last of its processes is up, the management API: while that starts, it takes CPU that is no message's.

        Raises NodeFailed when it does not come up.
        """
        deadline_s = time.monotonic() + _READY_S
        while True:
            try:
                self._api("queues")
                return self
            except OSError as error:
                if time.monotonic() > deadline_s:
                    raise NodeFailed(f"the API of {self.name} did not answer within {_READY_S:.0f} s: {error}") from None
                time.sleep(0.05)  # nothing to wait on: the port is opened by another process

    def halt(self, *, kill: bool = False) -> None:
        """End it and keep its data: by SIGTERM, or with SIGKILL to every process."""
        if kill:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        else:
            end(self._process, _HALT_S)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def uri(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def placement(self, queue: str) -> dict[str, int]:
        """On which worker `queue` and each connection of `leveret perf` is, by the management API: `{"queue": 0, "publisher 0": 0, …}`."""
        rows = self._api("connections")
        told = {row["user_provided_name"].removeprefix("leveret perf "): row["worker"] for row in rows if row["user_provided_name"]}
        return told | {"queue": row["worker"] for row in self._api("queues") if row["name"] == queue}  # noqa: B035 - names are unique

    def _api(self, path: str) -> list[dict[str, Any]]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/api/{path}")
        request.add_header("Authorization", "Basic " + base64.b64encode(b"guest:guest").decode())
        with urllib.request.urlopen(request, timeout=5.0) as answer:
            rows: list[dict[str, Any]] = json.load(answer)
            return rows

    def stop(self) -> None:
        end(self._process, _STOP_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> LeveretNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
