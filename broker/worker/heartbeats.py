"""Heartbeats: one timer a second for all connections, which touches only those whose time has come.

A connection with an interval of `h` seconds is looked at every h/2: if nothing was sent for that long, a heartbeat frame goes out; if
nothing has come for two intervals and more, the client is gone and the connection closes. Any byte counts as life. A connection that an
alarm blocks, or that waits for a link, is not read, so its silence means nothing; it is watched by its socket instead. One that does not
read its answers is not read either; it lives for as long as its socket takes bytes from us.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.worker.connection import Connection

log = logging.getLogger(__name__)

TICK_S = 1.0
MISSED_INTERVALS = 2


class Heartbeats:
    """The connections to be looked at, by the tick at which they are."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tick = 0
        self._due: dict[int, set[Connection]] = {}
        self._watched: dict[Connection, tuple[int, int]] = {}  # its interval, and the tick at which it is due
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection, interval_s: int) -> None:
        """Watch it from now on, until `remove`."""
        self._plan(connection, interval_s)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._on_tick)

    def remove(self, connection: Connection) -> None:
        """Watch it no more, and forget it at once: its tick may be nine hours away. Safe to call for one that is not watched."""
        _interval_s, tick = self._watched.pop(connection, (0, 0))
        due = self._due.get(tick)
        if due is not None:
            due.discard(connection)
            if not due:
                del self._due[tick]

    def _plan(self, connection: Connection, interval_s: int) -> None:
        tick = self._tick + max(1, interval_s // 2)
        self._watched[connection] = (interval_s, tick)
        self._due.setdefault(tick, set()).add(connection)

    def _on_tick(self) -> None:
        self._tick += 1
        for connection in self._due.pop(self._tick, ()):
            if connection in self._watched:  # not closed by one before it
                self._look_at(connection, self._watched[connection][0])
        # Without connections the process has nothing to wake up for.
        self._timer = self._loop.call_later(TICK_S, self._on_tick) if self._due else None

    def _look_at(self, connection: Connection, interval_s: int) -> None:
        now_ms = int(self._loop.time() * 1000)
        heard_at_ms = max(connection.received_at_ms, connection.sent_at_ms if connection.is_unread else 0)
        if connection.is_blocked or connection.is_held_up:
            connection.excuse_silence()
        elif now_ms - heard_at_ms > (MISSED_INTERVALS * interval_s + interval_s // 2) * 1000:
            log.warning("missed heartbeats from %s, timeout: %d s", connection.name, interval_s)
            connection.close(f"missed heartbeats from client, timeout: {interval_s}s")
            return
        if now_ms - connection.sent_at_ms >= interval_s * 1000 // 2:
            connection.send_heartbeat()
        self._plan(connection, interval_s)
