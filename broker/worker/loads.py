"""The loads: how many connections each worker has and how busy it is, in memory that all workers of the node share.

The acceptor reads it for each client that comes, so it has to be true at that moment; to tell the others by a notice would wake all of them
for each client. Every worker writes a row of its own and reads those of the others, so nothing needs a lock. A row is of 64-bit numbers:

    connections | busy percent | passed on to each worker | taken over from each worker

What worker s has passed on to worker r and r has not taken yet is on the way, and counts as r's already for s. The file lies in the runtime
folder, which the supervisor empties when a node starts; so a worker's row outlives the worker, and its successor goes on with it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

_CONNECTIONS: Final = 0
_BUSY: Final = 1
_PASSED_ON: Final = 2
_NUMBER_BYTES: Final = 8


class Loads:
    """Row `index` (0 to worker_count - 1) is ours to write. Raises `OSError` when the file cannot be made or its disk is full."""

    def __init__(self, path: Path, index: int, worker_count: int) -> None:
        self._index = index
        self._row = _PASSED_ON + 2 * worker_count  # numbers of one
        self._taken = _PASSED_ON + worker_count
        size = worker_count * self._row * _NUMBER_BYTES
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a page that the disk has no room for would end us when it is written to
            self._numbers = memoryview(mmap.mmap(descriptor, size)).cast("Q")  # which keeps the mapping
        finally:
            os.close(descriptor)
        self.set_connections(0)
        self.set_busy_percent(0)
        for other in range(worker_count):  # what was on the way to the one before us has ended with its line
            self._numbers[self._at(index, self._taken + other)] = self._numbers[self._at(other, _PASSED_ON + index)]

    def _at(self, worker: int, column: int) -> int:
        return worker * self._row + column

    def connections(self, worker: int) -> int:
        """How many that worker has, with those on the way from us to it."""
        numbers, at = self._numbers, worker * self._row
        return numbers[at] + numbers[self._index * self._row + _PASSED_ON + worker] - numbers[at + self._taken + self._index]

    def busy_percent(self, worker: int) -> int:
        """How much of a core that worker uses, 0 to 100."""
        return self._numbers[self._at(worker, _BUSY)]

    def set_connections(self, count: int) -> None:
        """So many are ours now."""
        self._numbers[self._at(self._index, _CONNECTIONS)] = count

    def set_busy_percent(self, percent: int) -> None:
        self._numbers[self._at(self._index, _BUSY)] = percent

    def passed_on(self, worker: int) -> None:
        """One of ours is on its way to that worker."""
        self._numbers[self._at(self._index, _PASSED_ON + worker)] += 1

    def taken_from(self, worker: int) -> None:
        """One has come from that worker, and is counted among ours."""
        self._numbers[self._at(self._index, self._taken + worker)] += 1
