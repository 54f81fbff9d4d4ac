"""One timer for all that is due: order, replacement, forgetting and bounds, on a loop whose clock the test turns."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from leveret.worker.deadlines import DUE_PER_CALL, STALE_MAX, Deadlines


class Timer:
    """What `call_later` gives."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class TurnedLoop:
    """The two calls of a loop that are used, and its time."""

    def __init__(self) -> None:
        self.now_ms = 100
        self.timers: list[tuple[float, Timer, Callable[[], None]]] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer()
        self.timers.append((self.now_ms + delay_s * 1000, timer, call))
        return timer

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        call(*arguments)

    def turn(self, milliseconds: int) -> None:
        """Let time pass, and call what is due in it."""
        self.now_ms += milliseconds
        while due := [entry for entry in self.timers if entry[0] <= self.now_ms]:
            self.timers.remove(due[0])
            if not due[0][1].cancelled:
                due[0][2]()

    @property
    def waiting(self) -> int:
        return sum(not timer.cancelled for _, timer, _ in self.timers)


def made() -> tuple[TurnedLoop, Deadlines[str], list[str]]:
    loop, called = TurnedLoop(), []
    return loop, Deadlines(loop, lambda: loop.now_ms, called.append), called  # type: ignore[arg-type]


def test_each_is_called_once_at_its_moment_with_one_timer() -> None:
    loop, deadlines, called = made()
    for key, moment_ms in (("late", 130), ("early", 110), ("middle", 120)):
        deadlines.set(key, moment_ms)
    assert loop.waiting == 1
    loop.turn(9)
    assert called == []
    for expected in (["early"], ["early", "middle"], ["early", "middle", "late"]):
        loop.turn(1 if len(expected) == 1 else 10)
        assert called == expected
    assert (loop.waiting, len(deadlines)) == (0, 0)


def test_the_latest_word_counts() -> None:
    loop, deadlines, called = made()
    deadlines.set("a", 110)
    deadlines.set("a", 150)
    deadlines.set("b", 150)
    deadlines.set("b", 110)
    loop.turn(10)
    assert called == ["b"]
    loop.turn(40)
    assert called == ["b", "a"]


def test_what_is_forgotten_is_not_called() -> None:
    loop, deadlines, called = made()
    deadlines.set("a", 110)
    deadlines.forget("a")
    deadlines.forget("never set")
    loop.turn(20)
    assert called == []


def test_a_moment_that_has_passed_comes_at_once() -> None:
    loop, deadlines, called = made()
    deadlines.set("a", 1)
    loop.turn(0)
    assert called == ["a"]


def test_many_at_once_are_called_in_slices() -> None:
    loop, deadlines, called = made()
    for number in range(3 * DUE_PER_CALL):
        deadlines.set(str(number), 110)
    loop.now_ms = 110
    _, _, come = loop.timers.pop(0)
    come()
    assert len(called) == DUE_PER_CALL
    loop.turn(0)
    assert called == [str(number) for number in range(3 * DUE_PER_CALL)]


def test_moments_that_are_set_again_and_again_cost_no_memory() -> None:
    loop, deadlines, called = made()
    dice = random.Random(1)
    for _ in range(10_000):
        deadlines.set(dice.choice("abc"), dice.randrange(1_000, 2_000))
        assert len(deadlines._heap) <= 2 * len(deadlines) + STALE_MAX + 1
    loop.turn(5_000)
    assert sorted(called) == ["a", "b", "c"]
