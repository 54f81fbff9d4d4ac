"""The newcomers: connections of one worker that have not finished their handshake, and how many there may be.

The worker asks before it takes an accepted socket, and tells of every connection that has opened or closed. Nobody knows who a newcomer is,
and each holds a descriptor and up to one frame of memory until its handshake times out; so their number is bounded. At the bound the oldest
one makes room if it has had a second, which is many times what an honest handshake takes: a crowd of silent sockets then keeps nobody out.
If even the oldest is fresh, all of them may be honest, and it is the new one that is refused.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.worker.connection import Connection

log = logging.getLogger(__name__)

GRACE_S = 1.0
LOG_INTERVAL_S = 1.0


class Newcomers:
    """At most `limit` connections (> 0), oldest first. Times are a monotonic clock's, in seconds."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._since: dict[Connection, float] = {}
        self._refused = 0
        self._dropped = 0
        self._logged_at_s = float("-inf")

    def __len__(self) -> int:
        return len(self._since)

    def make_room(self, now_s: float) -> bool:
        """Whether one more may come; the oldest may have been closed for it."""
        if len(self._since) < self._limit:
            return True
        oldest, since_s = next(iter(self._since.items()))
        if now_s - since_s < GRACE_S:
            self._refused += 1
            self._tell(now_s)
            return False
        self._dropped += 1
        self._tell(now_s)
        oldest.close("made room for others in its handshake")
        self.leave(oldest)
        return True

    def add(self, connection: Connection, now_s: float) -> None:
        """It begins its handshake."""
        self._since[connection] = now_s

    def leave(self, connection: Connection) -> None:
        """It has opened, or closed. Safe to call twice."""
        self._since.pop(connection, None)

    def _tell(self, now_s: float) -> None:
        """A line a second at most, because whoever floods us shall not flood the log."""
        if now_s - self._logged_at_s < LOG_INTERVAL_S:
            return
        log.warning(
            "%d connections are in their handshake (handshakes_max): refused %d new ones, dropped %d old ones",
            len(self._since),
            self._refused,
            self._dropped,
        )
        self._refused = self._dropped = 0
        self._logged_at_s = now_s
