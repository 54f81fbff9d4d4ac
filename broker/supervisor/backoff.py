"""When to start a child again: at once the first time, then ever later, and never if it has not once come up.

Pure: the supervisor hands in the time. A child that has served for a while has earned a fresh start.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY_S = 0.1
DELAY_MAX_S = 5.0
FORGIVEN_AFTER_S = 30.0
DEATHS_BEFORE_READY_MAX = 3


@dataclass(slots=True)
class Backoff:
    """One post's history. `deaths` in a row, and whether a child at this post has ever been ready."""

    deaths: int = 0
    ever_ready: bool = False

    def on_ready(self) -> None:
        """A child at this post has come up."""
        self.ever_ready = True

    def on_death(self, served_s: float) -> float | None:
        """A child ended that had been ready for `served_s` seconds (0 if never).

        Returns the delay in seconds after which to start the next one: 0, 0.1, 0.2, 0.4 … 5. None: the post has never been held and three
        tries have failed, so the node cannot start.
        """
        self.deaths = 1 if served_s >= FORGIVEN_AFTER_S else self.deaths + 1
        if not self.ever_ready and self.deaths >= DEATHS_BEFORE_READY_MAX:
            return None
        if self.deaths == 1:
            return 0.0
        return float(min(DELAY_MAX_S, FIRST_DELAY_S * 2 ** min(self.deaths - 2, 16)))
