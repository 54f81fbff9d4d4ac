"""Waiting with a deadline: for state that can only be looked at, never for time to pass.

Tests call `eventually` where no event reaches them (a row of the management API, a process table); where one does (a frame, a delivery, a
closed socket), they wait for that instead. `busy_factor` is for the few goals that are stated in seconds of a quiet machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def busy_factor() -> float:
    """How many times as long as on a quiet machine something may take now: runnable processes for each core, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def eventually(look: Callable[[], T], within_s: float = 10.0, what: str = "") -> T:
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
