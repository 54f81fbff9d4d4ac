"""The newcomers: connections of one worker that have not finished their handshake, and how many there may be.

The worker asks before it takes an accepted socket, and tells of every connection that has opened or closed. Nobody knows who a newcomer is,
and each holds a descriptor and up to one frame of memory until its handshake times out, which is watched here; so their number is bounded.
At the bound the oldest one makes room if it has had a second, which is many times what an honest handshake takes: a crowd of silent sockets
then keeps nobody out. If even the oldest is fresh, all of them may be honest, and it is the new one that is refused.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from leveret.worker.patience import Patience

if TYPE_CHECKING:
    import asyncio

    from leveret.worker.connection import Connection

log = logging.getLogger(__name__)

GRACE_S = 1.0
LOG_INTERVAL_S = 1.0


class Newcomers:
    """At most `limit` connections (> 0), and `timeout_s` seconds (> 0) for each to open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, timeout_s: float) -> None:
        self._loop = loop
        self._limit = limit
        self._patience = Patience(loop, timeout_s, lambda connection: connection.session.handshake_timed_out(connection))
        self._refused = 0
        self._dropped = 0
        self._logged_at_s = float("-inf")

    def __len__(self) -> int:
        return len(self._patience)

    def make_room(self) -> bool:
        """Whether one more may come; the oldest may have been closed for it."""
        if len(self._patience) < self._limit:
            return True
        now_s = self._loop.time()
        oldest, since_s = self._patience.oldest()
        if now_s - since_s < GRACE_S:
            self._refused += 1
            self._tell(now_s)
            return False
        self._dropped += 1
        self._tell(now_s)
        oldest.close("made room for others in its handshake")
        self.leave(oldest)
        return True

    def add(self, connection: Connection) -> None:
        """It begins its handshake."""
        self._patience.begin(connection)

    def leave(self, connection: Connection) -> None:
        """It has opened, or closed. Safe to call twice."""
        self._patience.end(connection)

    def _tell(self, now_s: float) -> None:
        """A line a second at most, because whoever floods us shall not flood the log."""
        if now_s - self._logged_at_s < LOG_INTERVAL_S:
            return
        log.warning(
            "%d connections are in their handshake (handshakes_max): refused %d new ones, dropped %d old ones",
            len(self._patience),
            self._refused,
            self._dropped,
        )
        self._refused = self._dropped = 0
        self._logged_at_s = now_s
