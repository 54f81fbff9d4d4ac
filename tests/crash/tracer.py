"""strace on a process that runs: which system calls it makes on some of its files, and harm done at a chosen one of them.

Owns `Tracer`, one strace attached to a process and all its threads. `require_strace` skips a test where there is none (in CI it fails).
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients.toolchain import require

ATTACH_WITHIN_S = 20.0
# What a commit may consist of on some kernel and build of LMDB. What it does consist of is counted, not believed.
CANDIDATES = ("pwrite64", "pwritev", "pwritev2", "write", "writev", "fdatasync", "fsync", "msync", "ftruncate", "sync_file_range")


def require_strace() -> None:
    """Skip the test unless strace is here and may attach."""
    require("strace")
    done = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"strace may not trace here: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


class Tracer:
    """strace attached to `pid`, seeing the calls in `calls` on `paths` only; a context.

    inject: strace's own words behind `-e inject=CALL:`, such as `signal=SIGKILL:when=3` or `error=EIO:when=1`.
    options: of strace, about how it writes its log.
    """

    def __init__(
        self, pid: int, paths: Sequence[Path], calls: tuple[str, ...], log: Path, inject: str = "", options: tuple[str, ...] = ()
    ) -> None:
        self.log = log
        names = ",".join(calls)
        command = ["strace", "-f", "-p", str(pid), "-o", str(log), "-e", f"trace={names}", *options]
        for path in paths:
            command += ["-P", str(path)]
        if inject:
            command += ["-e", f"inject={names}:{inject}"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def __enter__(self) -> Tracer:
        assert self._process.stderr is not None
        told = b""
        while b"attached" not in told:
            readable, _, _ = select.select([self._process.stderr], [], [], ATTACH_WITHIN_S)
            chunk = os.read(self._process.stderr.fileno(), 4096) if readable else b""
            if not chunk:
                self._end()
                raise AssertionError(f"strace does not attach: {told.decode(errors='replace')}")
            told += chunk
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """Detach; the process goes on, if it is still there."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(ATTACH_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def seen(self) -> Counter[str]:
        """How often each call was seen so far."""
        return Counter(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)[( ]", self.log.read_text(errors="replace"), re.MULTILINE))

    def injected(self) -> bool:
        """Whether a call has been given a false answer."""
        return "(INJECTED)" in self.log.read_text(errors="replace")
