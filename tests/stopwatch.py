"""A stopwatch for the few goals that are stated in seconds: it stops while others have the processor.

Owns `Stopwatch`. On a machine that builds, tests and starts JVMs at the same time, whoever waits for a broker mostly waits for a core. The
scheduler counts for each thread how long it was ready to run and did not (`/proc/<pid>/task/*/schedstat`, the second figure); what of that
fell to the broker and to us is taken off. What the broker itself makes somebody wait for (work in the same turn, a timer, a lock, the disk)
is not, so a limit holds at any load and is as tight as on a quiet machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path


class Stopwatch:
    """Runs from when it is made. `pids`: the processes that are waited for; our own is always among those that may have been kept waiting.

    Threads that wait at the same time are all taken off, so it may run slow on a busy machine, down to 0; on a quiet one it tells the time.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._queued_s = queued_s(self._pids)
        self._began_s = time.perf_counter()

    @property
    def read_s(self) -> float:
        """Seconds since it was made or reset, less those without a core."""
        passed_s = time.perf_counter() - self._began_s
        return max(0.0, passed_s - (queued_s(self._pids) - self._queued_s))

    def reset(self) -> None:
        """Begin anew."""
        self._queued_s = queued_s(self._pids)
        self._began_s = time.perf_counter()


def queued_s(pids: Iterable[int]) -> float:
    """Seconds that the living threads of these processes have been ready to run and waited for a core, since they began."""
    queued_ns = 0
    for pid in pids:
        for figures in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                queued_ns += int(figures.read_text().split()[1])
    return queued_ns / 1e9
