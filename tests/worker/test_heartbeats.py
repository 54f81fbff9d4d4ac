"""Heartbeats on a clock that the test turns: who is sent one, who is given up, and that nobody else is looked at."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from leveret.worker.heartbeats import Heartbeats


class Clock:
    """A loop with timers and nothing else. `turn(seconds)` lets time pass and calls what is due."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.calls = 0

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        self.timers.append((self.now_s + delay_s, callback))
        return callback

    def turn(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while due := [timer for timer in self.timers if timer[0] <= end_s]:
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now_s = timer[0]
            self.calls += 1
            timer[1]()
        self.now_s = end_s


@dataclass(eq=False)
class Client:
    """A connection, as far as heartbeats look at one."""

    clock: Clock
    name: str = "127.0.0.1:1 -> 127.0.0.1:5672"
    is_blocked: bool = False
    is_held_up: bool = False
    is_unread: bool = False
    heartbeats: list[float] = field(default_factory=list)
    closed: list[tuple[float, str]] = field(default_factory=list)
    looked_at: int = 0
    _received_at_ms: int = 0
    sent_at_ms: int = 0

    def __post_init__(self) -> None:
        self.hear()
        self.sent_at_ms = int(self.clock.now_s * 1000)

    @property
    def received_at_ms(self) -> int:
        self.looked_at += 1
        return self._received_at_ms

    def hear(self) -> None:
        self._received_at_ms = int(self.clock.now_s * 1000)

    def excuse_silence(self) -> None:
        self.hear()

    def send_heartbeat(self) -> None:
        self.sent_at_ms = int(self.clock.now_s * 1000)
        self.heartbeats.append(self.clock.now_s)

    def close(self, reason: str) -> None:
        self.closed.append((self.clock.now_s, reason))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heartbeats(clock: Clock) -> Any:
    return Heartbeats(clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("interval_s", [1, 2, 7, 60])
def test_an_idle_client_is_sent_a_heartbeat_each_half_interval(clock: Clock, heartbeats: Any, interval_s: int) -> None:
    client = Client(clock)
    heartbeats.add(client, interval_s)
    for _ in range(20 * interval_s):
        client.hear()
        clock.turn(1)
    gaps_s = [later - earlier for earlier, later in zip(client.heartbeats, client.heartbeats[1:], strict=False)]
    assert gaps_s and max(gaps_s) <= max(1, interval_s)
    assert client.closed == []


def test_a_client_to_whom_something_was_sent_needs_no_heartbeat(clock: Clock, heartbeats: Any) -> None:
    client = Client(clock)
    heartbeats.add(client, 10)
    for _ in range(100):
        client.hear()
        client.sent_at_ms = int(clock.now_s * 1000)
        clock.turn(1)
    assert client.heartbeats == []


@pytest.mark.parametrize("interval_s", [1, 2, 5, 60])
def test_a_silent_client_is_given_up_after_two_to_three_intervals(clock: Clock, heartbeats: Any, interval_s: int) -> None:
    client = Client(clock)
    heartbeats.add(client, interval_s)
    began_s = clock.now_s
    clock.turn(10 * interval_s)
    [(closed_s, reason)] = client.closed
    assert 2 * interval_s < closed_s - began_s <= 3 * interval_s + 1
    assert reason == f"missed heartbeats from client, timeout: {interval_s}s"


def test_a_client_that_is_not_read_is_not_given_up(clock: Clock, heartbeats: Any) -> None:
    blocked, held_up = Client(clock, is_blocked=True), Client(clock, is_held_up=True)
    for client in (blocked, held_up):
        heartbeats.add(client, 2)
    clock.turn(60)
    assert blocked.closed == held_up.closed == []
    assert len(blocked.heartbeats) > 10, "it hears of us all the same"
    blocked.is_blocked = False
    began_s = clock.now_s
    clock.turn(20)
    assert blocked.closed[0][0] - began_s > 3, "its silence counts from when it is read again"
    assert held_up.closed == []


def test_a_removed_client_is_left_alone(clock: Clock, heartbeats: Any) -> None:
    client = Client(clock)
    heartbeats.add(client, 2)
    heartbeats.remove(client)
    clock.turn(60)
    assert (client.closed, client.heartbeats, client.looked_at) == ([], [], 0)
    heartbeats.remove(client)


def test_a_tick_looks_only_at_those_whose_time_has_come(clock: Clock, heartbeats: Any) -> None:
    clients = [Client(clock) for _ in range(1000)]
    for client in clients:
        heartbeats.add(client, 600)
    clock.turn(299)
    assert sum(client.looked_at for client in clients) == 0
    clock.turn(1)
    assert sum(client.looked_at for client in clients) == 1000


def test_without_clients_the_clock_is_left_alone(clock: Clock, heartbeats: Any) -> None:
    client = Client(clock)
    heartbeats.add(client, 4)
    clock.turn(3)
    heartbeats.remove(client)
    clock.turn(10)
    assert clock.timers == []
    calls = clock.calls
    clock.turn(100)
    assert clock.calls == calls
    heartbeats.add(client, 2)
    clock.turn(4)
    assert client.heartbeats, "and it starts again with the next one"


@pytest.mark.parametrize("interval_s", [1, 60, 65535])
def test_a_client_that_has_gone_is_not_kept_until_its_tick(clock: Clock, heartbeats: Any, interval_s: int) -> None:
    """A client may ask for 65,535 s and come and go as often as it likes: its dead connections must not pile up for nine hours."""
    stays, gone = Client(clock), Client(clock)
    heartbeats.add(stays, 60)
    heartbeats.add(gone, interval_s)
    heartbeats.remove(gone)
    seen = weakref.ref(gone)
    del gone
    gc.collect()
    assert seen() is None


def test_a_client_that_does_not_read_lives_as_long_as_its_socket_takes_bytes(clock: Clock, heartbeats: Any) -> None:
    """It is not read either, so what it sends does not show."""
    client = Client(clock, is_unread=True)
    heartbeats.add(client, 2)
    for _ in range(30):
        client.sent_at_ms = int(clock.now_s * 1000)
        clock.turn(1)
    assert client.closed == []
    clock.turn(20)
    client.send_heartbeat = lambda: None  # type: ignore[method-assign]
    clock.turn(20)
    assert client.closed
