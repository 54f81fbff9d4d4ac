"""When something is due next: one timer of the loop for all queues of a worker, however many there are.

`WorkerState` makes one; its queues set a moment each, the latest word counting. Nothing here knows what becomes due: `call` is told whose
moment has come. The clock is the worker's own, monotonic, so a jump of the wall clock makes nothing due.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

DUE_PER_CALL: Final = 100  # more wait for the loop's next round
STALE_MAX: Final = 64  # moments that were replaced, beyond as many as there are, before they are swept out


Key = TypeVar("Key", bound=Hashable)


class Deadlines(Generic[Key]):
    """`now_ms`: the monotonic clock, milliseconds. `call` is called with the key, once for each moment that comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now_ms: Callable[[], int], call: Callable[[Key], None]) -> None:
        self._loop = loop
        self._now_ms = now_ms
        self._call = call
        self._moments: dict[Key, int] = {}
        self._heap: list[tuple[int, int, Key]] = []  # a moment that is not the one in `_moments` is stale
        self._serial = 0
        self._timer: asyncio.Handle | None = None
        self._timer_ms = 0

    def __len__(self) -> int:
        """How many keys wait for their moment."""
        return len(self._moments)

    def set(self, key: Key, moment_ms: int) -> None:
        """Call for `key` at that moment, or as soon after it as the loop comes round, and not at the one set before."""
        if self._moments.get(key) == moment_ms:
            return
        self._moments[key] = moment_ms
        self._serial += 1
        heapq.heappush(self._heap, (moment_ms, self._serial, key))
        self._sweep()
        self._arm()

    def forget(self, key: Key) -> None:
        """Do not call for it any more."""
        self._moments.pop(key, None)
        self._sweep()

    def _sweep(self) -> None:
        if len(self._heap) <= 2 * len(self._moments) + STALE_MAX:
            return
        self._heap = [entry for entry in self._heap if self._moments.get(entry[2]) == entry[0]]
        heapq.heapify(self._heap)

    def _arm(self) -> None:
        """Have the timer at the earliest moment."""
        if not self._heap:
            return
        moment_ms = self._heap[0][0]
        if self._timer is not None:
            if self._timer_ms <= moment_ms:
                return
            self._timer.cancel()
        self._timer_ms = moment_ms
        self._timer = self._loop.call_later(max(0, moment_ms - self._now_ms()) / 1000, self._come)

    def _come(self) -> None:
        self._timer = None
        now_ms = self._now_ms()
        for _ in range(DUE_PER_CALL):
            if not self._heap or self._heap[0][0] > now_ms:
                break
            moment_ms, _, key = heapq.heappop(self._heap)
            if self._moments.get(key) == moment_ms:
                del self._moments[key]
                self._loop.call_soon(self._call, key)  # each on its own, so that an error in one stops nobody else
        self._arm()
