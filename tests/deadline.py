"""Waiting with a deadline: for state that can only be looked at, never for time to pass.

Tests call `eventually` where no event reaches them (a row of the management API, a process table); where one does (a frame, a delivery, a
closed socket), they wait for that instead. `busy_factor` is for the few goals that are stated in seconds of a quiet machine.

`WITHIN_S` is how long any test waits for what must come: never a claim about speed. It only costs time when the test fails anyway.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

WITHIN_S = 30.0  # two cores may have four test processes and their brokers, compilers and JVMs on them
PROBE_CPU_S = 0.02


def busy_factor() -> float:
    """How many times as long as on a quiet machine something may take now, at least 1.

    The larger of two measures: runnable processes for each core (the last minute's average, so it lags), and how much longer than its
    processor time a short computation takes right now, which knows of a container's quota too.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1), stretch())


def stretch() -> float:
    """Seconds that pass for a second of computing: 1 on a machine that has nothing else to do."""
    began_s, began_cpu_s = time.perf_counter(), time.thread_time()
    while (used_s := time.thread_time() - began_cpu_s) < PROBE_CPU_S:
        pass
    return (time.perf_counter() - began_s) / used_s


def eventually(look: Callable[[], T], within_s: float = WITHIN_S, what: str = "") -> T:
    """Look again and again until the answer is true (not falsy), and give it back; `AssertionError` after `within_s` seconds.

    An `AssertionError` raised by `look` counts as "not yet", so a look may be written with asserts; the last one is chained to the failure.
    """
    deadline = time.monotonic() + within_s
    pause_s = 0.002
    while True:
        failure: AssertionError | None = None
        answer: T | None = None
        try:
            answer = look()
            if answer:
                return answer
        except AssertionError as error:
            failure = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within_s} s: {what or 'condition'}; last seen: {answer!r}") from failure
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)
