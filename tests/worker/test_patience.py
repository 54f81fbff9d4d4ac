"""Waiting for many connections with one timer: who is overdue, when, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leveret.worker.patience import Patience

WAIT_S = 10.0


class Clock:
    """A loop whose time moves by hand. `timers`: (moment, callback) of those that have not fired."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, moment_s: float, callback: Callable[[], None]) -> object:
        self.timers.append((moment_s, callback))
        return self.timers[-1]

    def call_later(self, wait_s: float, callback: Callable[[], None]) -> object:
        return self.call_at(self.now_s + wait_s, callback)

    def go_to(self, moment_s: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= moment_s]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now_s = first[0]
            first[1]()
        self.now_s = moment_s


def waiting() -> tuple[Clock, Patience, list[tuple[float, Any]]]:
    clock = Clock()
    overdue: list[tuple[float, Any]] = []
    patience = Patience(clock, WAIT_S, lambda connection: overdue.append((clock.now_s - 1000.0, connection)))  # type: ignore[arg-type]
    return clock, patience, overdue


def test_each_is_overdue_after_its_own_wait_and_no_earlier() -> None:
    clock, patience, overdue = waiting()
    for second, name in enumerate(("a", "b", "c")):
        clock.go_to(1000.0 + 3 * second)
        patience.begin(name)  # type: ignore[arg-type]
    clock.go_to(1009.9)
    assert overdue == []
    clock.go_to(1020.0)
    assert overdue == [(10.0, "a"), (13.0, "b"), (16.0, "c")]
    assert clock.timers == [] and len(patience) == 0, "without anybody to wait for there is nothing to wake up for"


def test_who_came_in_time_is_not_overdue_and_the_next_one_is_on_time() -> None:
    clock, patience, overdue = waiting()
    patience.begin("in time")  # type: ignore[arg-type]
    clock.go_to(1004.0)
    patience.begin("late")  # type: ignore[arg-type]
    patience.end("in time")  # type: ignore[arg-type]
    patience.end("in time")  # type: ignore[arg-type]
    patience.end("never seen")  # type: ignore[arg-type]
    clock.go_to(1100.0)
    assert overdue == [(14.0, "late")]


def test_one_timer_serves_a_thousand() -> None:
    clock, patience, overdue = waiting()
    for number in range(1000):
        patience.begin(number)  # type: ignore[arg-type]
        assert len(clock.timers) == 1
        if number % 2:
            patience.end(number)  # type: ignore[arg-type]
    clock.go_to(1010.0)
    assert [connection for _, connection in overdue] == list(range(0, 1000, 2))


def test_begun_anew_it_has_the_whole_wait_again() -> None:
    clock, patience, overdue = waiting()
    patience.begin("a")  # type: ignore[arg-type]
    patience.begin("b")  # type: ignore[arg-type]
    clock.go_to(1008.0)
    patience.begin("a")  # type: ignore[arg-type]
    assert patience.oldest() == ("b", 1000.0)
    clock.go_to(1100.0)
    assert overdue == [(10.0, "b"), (18.0, "a")]


def test_one_that_is_overdue_may_take_others_with_it() -> None:
    clock = Clock()
    overdue: list[Any] = []

    def on_overdue(connection: Any) -> None:
        overdue.append(connection)
        patience.end("b")  # type: ignore[arg-type]
        if connection == "a":
            patience.begin("d")  # type: ignore[arg-type]

    patience = Patience(clock, WAIT_S, on_overdue)  # type: ignore[arg-type]
    for name in ("a", "b", "c"):
        patience.begin(name)  # type: ignore[arg-type]
    clock.go_to(1010.0)
    assert overdue == ["a", "c"]
    clock.go_to(1020.0)
    assert overdue == ["a", "c", "d"]
