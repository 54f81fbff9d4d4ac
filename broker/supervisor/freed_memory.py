"""Freed memory: what the C library keeps of it for the next message, and when it goes back to the system.

malloc gives back by itself only what lies free at the very end of its heap, and one small block that lives there holds all before it. So a
queue that was drained, or a burst, would stay in the process for good. `FreedMemory` looks how much the process has that malloc's blocks do
not use, beyond what it had of that after the last time, and has whole free pages given back: when so much was spare all the time for five
to ten seconds, so nobody needs it; at once when it is so much that giving back more in one go would hold up the loop; and at any rate while
the memory alarm stands. Each process of a node has one (`leveret.supervisor.child`). It never touches what is in use, and where the C
library is not glibc it does nothing.

Malloc knows what is free and not which of it has pages: those were given back before, or never touched. So it is the process's own pages
that are looked at. (Taking for bare what was free after the last time missed bursts shorter than the pause between two looks: 4 and 7 % of
two workers in twenty minutes of clients that come and go.) What else takes pages, like Python's arenas, looks spare once, for ten seconds.

What a look costs: some 12 us, and about 40 ns for each free piece, of which a heap full of holes has hundreds of thousands; so the next
look comes no sooner than after a thousand times the processor time that the last one took. (By the clock on the wall it would be a minute
on a busy machine.) Giving back takes as long as a look and 40 us a MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from typing import Final, Protocol

from leveret.supervisor.memory import MemoryGauge

MIB: Final = 1024 * 1024
SPARE_BYTES: Final = MIB // 2  # less than this is not worth the page faults
SPARE_S: Final = 5.0  # at each end of such a span: was it spare all the time?
AT_ONCE_BYTES: Final = 64 * MIB  # given back in some 3 ms
OFTEN_S: Final = 0.1  # between two looks while so much is in use that AT_ONCE_BYTES may become free
SELDOM_S: Final = 1.0  # otherwise
ALARM_FIRST_S: Final = 1.0  # from the alarm to the first time that all is given back; doubled with each
ALARM_MAX_S: Final = 10.0
COST_SHARE: Final = 1000

# mallopt(3), and what malloc comes to by itself in a process that has freed a block of 8 MiB.
_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_KEPT_FREE_BYTES: Final = AT_ONCE_BYTES
_GROWTH_BYTES: Final = MIB // 2
_OWN_MAPPING_BYTES: Final = 8 * MIB


class Heap(Protocol):
    """What is asked of the C library."""

    def look(self) -> tuple[int, int]:
        """(bytes of malloc's that are in use, bytes of all of the process's own pages)."""

    def give_back(self) -> None:
        """Whole free pages go back to the system. The addresses stay free in the heap."""


class _Counts(ctypes.Structure):
    """struct mallinfo2, mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


class CHeap:
    """This process's malloc. Raises AttributeError where it is not glibc 2.33 or later."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._mallinfo = library.mallinfo2
        self._mallinfo.restype = _Counts
        self._trim = library.malloc_trim
        self._gauge = MemoryGauge(os.getpid())

    def look(self) -> tuple[int, int]:
        """See `Heap`."""
        counts = self._mallinfo()
        return counts.uordblks + counts.hblkhd, self._gauge.read()[1]

    def give_back(self) -> None:
        """See `Heap`."""
        self._trim(0)


def keep_freed_memory() -> None:
    """Let malloc keep up to 64 MiB that are free at the end of the heap, and take blocks of less than 8 MiB from the heap.

    Without this it gives a message's memory back to the kernel at once and gets it again for the next one: page faults were a fifth of what
    a message of 64 KB costs, and with 16 MiB still a tenth, for so much comes and goes in a queue of them. Who has no `FreedMemory` to give
    it back when nobody needs it must not call this. Where there is no glibc nothing happens.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
        mallopt(_M_TOP_PAD, _GROWTH_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)


class FreedMemory:
    """Gives back what `heap` has free and nobody needs. `look` at it again and again, or `start` doing so.

    clock_s: a monotonic clock, seconds. cost_clock_s: what a look's cost is read off, seconds of this thread's processor time.
    """

    def __init__(
        self, heap: Heap, clock_s: Callable[[], float] = time.monotonic, cost_clock_s: Callable[[], float] = time.thread_time
    ) -> None:
        self._heap = heap
        self._clock_s = clock_s
        self._cost_clock_s = cost_clock_s
        self._needed_bytes = 0  # own pages beyond what is in use that are no spare ones: the least seen since the last giving back
        self._spare_bytes = 0  # the least that there was beyond those since ...
        self._since_s = clock_s()
        self._alarm_at_s: float | None = None  # when all is given back next; None: there is no alarm
        self._alarm_wait_s = ALARM_FIRST_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for as long as the loop lives."""
        self._loop = loop
        self._on_timer()

    def set_alarm(self, stands: bool) -> None:
        """The memory alarm came or went. While it stands all that is free goes back, after a second, two, four ... ten."""
        if not stands:
            self._alarm_at_s = None
        elif self._alarm_at_s is None:
            self._alarm_wait_s = ALARM_FIRST_S
            self._alarm_at_s = self._clock_s() + self._alarm_wait_s
        if self._timer is not None:
            self._timer.cancel()
            self._on_timer()

    def look(self) -> float:
        """Look, and give back what is due. How long to wait until the next look, seconds."""
        began_s = self._cost_clock_s()
        in_use, own = self._heap.look()
        cost_s = self._cost_clock_s() - began_s
        now_s = self._clock_s()
        self._needed_bytes = min(self._needed_bytes, own - in_use)
        spare = own - in_use - self._needed_bytes
        self._spare_bytes = min(self._spare_bytes, spare)
        wait_s = max(OFTEN_S if in_use + spare >= AT_ONCE_BYTES else SELDOM_S, COST_SHARE * cost_s)
        alarm_is_due = self._alarm_at_s is not None and now_s >= self._alarm_at_s
        if alarm_is_due:
            self._alarm_wait_s = min(2 * self._alarm_wait_s, ALARM_MAX_S)
            self._alarm_at_s = now_s + self._alarm_wait_s
        if alarm_is_due or spare >= AT_ONCE_BYTES:
            self._give_back(now_s)
        elif now_s - self._since_s >= SPARE_S:
            if self._spare_bytes >= SPARE_BYTES:
                self._give_back(now_s)
            else:
                self._spare_bytes, self._since_s = spare, now_s
        return wait_s if self._alarm_at_s is None else min(wait_s, self._alarm_at_s - now_s)

    def _give_back(self, now_s: float) -> None:
        self._heap.give_back()
        in_use, own = self._heap.look()
        self._needed_bytes = own - in_use
        self._spare_bytes, self._since_s = 0, now_s

    def _on_timer(self) -> None:
        assert self._loop is not None  # `start` has set it
        self._timer = self._loop.call_later(self.look(), self._on_timer)
