"""Patience: a wait for many connections, each for the same time, with one timer for all of them.

A worker has one for handshakes (`leveret.worker.newcomers`) and one for the last word of clients that are to go. Most waits end early, some
thousand times a second, so beginning and ending one costs a dictionary's entry and never a timer. It closes nothing itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.worker.connection import Connection


class Patience:
    """`on_overdue(connection)` is called `wait_s` seconds (> 0) after `begin`, unless `end` came first; never earlier."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wait_s: float, on_overdue: Callable[[Connection], None]) -> None:
        self._loop = loop
        self._wait_s = wait_s
        self._on_overdue = on_overdue
        self._since_s: dict[Connection, float] = {}  # oldest first
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since_s)

    def begin(self, connection: Connection) -> None:
        """Wait for it from now on; anew if it is waited for already."""
        self._since_s.pop(connection, None)
        self._since_s[connection] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._wait_s, self._look)

    def end(self, connection: Connection) -> None:
        """Wait no more. Safe to call for one that is not waited for."""
        self._since_s.pop(connection, None)

    def oldest(self) -> tuple[Connection, float]:
        """The one that has been waited for longest, and since when (seconds of the loop's clock). Raises StopIteration without any."""
        return next(iter(self._since_s.items()))

    def _look(self) -> None:
        """The oldest may be due. Without any left the process has nothing to wake up for."""
        self._timer = None
        now_s = self._loop.time()
        while self._since_s:
            connection, since_s = self.oldest()
            if now_s < since_s + self._wait_s:
                self._timer = self._loop.call_at(since_s + self._wait_s, self._look)
                return
            del self._since_s[connection]
            self._on_overdue(connection)
