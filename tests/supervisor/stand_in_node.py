"""A node whose children are stand-ins: `StandInNode` for tests; run as a program it is that node's supervisor.

Everything a test waits for is an event: the ready line on a pipe, a log line on another, a pidfd.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WITHIN_S = 30.0
STAND_IN = Path(__file__).with_name("stand_in.py")


class StandInNode:
    """A supervisor in a process of its own, with stand-ins as its children. Ended (and its children with it) by `close`."""

    def __init__(self, data_dir: Path, *, behaviour: dict[str, str] | None = None, environment: dict[str, str] | None = None, **flags: str):
        self.data_dir = data_dir
        self.lines: list[str] = []
        self._rest = b""
        given = {
            "data_dir": str(data_dir),
            "runtime_dir": f"/tmp/leveret-test-{os.getpid()}-{abs(hash(data_dir)):x}"[:60],
            "host": "127.0.0.1",
            "port": "0",
            "http_host": "127.0.0.1",
            "http_port": "0",
            "workers": "2",
            "log_level": "debug",
            "disk_free_limit_bytes": "0",
        }
        self.ready_fd, ready_fd = os.pipe()
        self._log_fd, log_fd = os.pipe()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_") and name != "NOTIFY_SOCKET"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__)), json.dumps(given | flags), str(ready_fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log_fd,
                pass_fds=[ready_fd],
                env=kept | {"LEVERET_TEST_BEHAVIOUR": json.dumps(behaviour or {})} | (environment or {}),
            )
        finally:
            os.close(ready_fd)
            os.close(log_fd)

    def ready(self) -> dict[str, Any]:
        """The facts of the ready line; `AssertionError` with the log if it does not come."""
        content = b""
        deadline = time.monotonic() + WITHIN_S
        while select.select([self.ready_fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            chunk = os.read(self.ready_fd, 65536)
            if not chunk:
                break
            content += chunk
        assert content.endswith(b"\n"), f"not ready: {self.rest_of_log()}"
        facts: dict[str, Any] = json.loads(content)
        return facts

    def line(self, pattern: str) -> re.Match[str]:
        """The next log line in which `pattern` is found, after those seen by earlier calls."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                self.lines.append(line.decode())
                if found := re.search(pattern, self.lines[-1]):
                    return found
            left_s = deadline - time.monotonic()
            assert left_s > 0 and select.select([self._log_fd], [], [], left_s)[0], f"no line with {pattern!r} in {self.lines}"
            chunk = os.read(self._log_fd, 65536)
            assert chunk, f"the log ended without {pattern!r}: {self.lines}"
            self._rest += chunk

    def rest_of_log(self) -> list[str]:
        """Every log line, read to the end: the node must be ending."""
        while chunk := os.read(self._log_fd, 65536):
            self._rest += chunk
        self.lines += self._rest.decode().splitlines()
        self._rest = b""
        return self.lines

    def children(self, count: int = 4) -> dict[str, int]:
        """Process id of each child by name, once `count` of them (router, two workers, management) are ready."""
        found: dict[str, int] = {}
        while len(found) < count:
            name, pid = self.line(r"supervisor (\S+) is ready, process (\d+)").groups()
            found[name] = int(pid)
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code of the supervisor."""
        return self.process.wait(WITHIN_S)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ready_fd)
        os.close(self._log_fd)


def has_ended(pidfds: list[int]) -> bool:
    """Whether every one of these processes ends within the time."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + WITHIN_S
    left = set(pidfds)
    while left and time.monotonic() < deadline:
        for pidfd, _ in poll.poll(max(0, (deadline - time.monotonic()) * 1000)):
            poll.unregister(pidfd)
            left.discard(pidfd)
    return not left


def _be_the_node() -> int:
    from leveret.ctl.start import start
    from leveret.refusal import Refusal

    try:
        return start(
            json.loads(sys.argv[1]),
            {},
            None,
            int(sys.argv[2]),
            command=lambda kind, index: [sys.executable, "-P", str(STAND_IN), kind, str(index)],
        )
    except Refusal as refusal:
        print(f"refused: {refusal.sentence}", file=sys.stderr)
        return refusal.exit_code


if __name__ == "__main__":
    sys.exit(_be_the_node())
