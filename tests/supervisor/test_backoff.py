"""When a child is started again: pure, no clock."""

from __future__ import annotations

from leveret.supervisor.backoff import Backoff


def test_once_up_it_is_tried_for_ever_later_and_later() -> None:
    backoff = Backoff()
    backoff.on_ready()
    delays = [backoff.on_death(served_s=0.0) for _ in range(10)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert [backoff.on_death(0.0) for _ in range(2000)][-1] == 5.0


def test_never_up_it_is_tried_three_times() -> None:
    backoff = Backoff()
    assert [backoff.on_death(0.0) for _ in range(3)] == [0.0, 0.1, None]


def test_service_earns_a_fresh_start() -> None:
    backoff = Backoff()
    backoff.on_ready()
    assert [backoff.on_death(served_s) for served_s in (1.0, 29.9, 30.0, 1.0, 3600.0)] == [0.0, 0.1, 0.0, 0.1, 0.0]
