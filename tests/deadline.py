"""Waiting with a deadline: for state that can only be looked at, never for time to pass.

Owns one function, `eventually`. Tests call it where no event reaches them (a row of the management API, a process table). Where an event
does (a frame, a delivery, a closed socket), they wait for that instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
