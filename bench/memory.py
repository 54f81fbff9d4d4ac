"""What all processes of a broker use together, now and at most while a load runs. Benches ask; it only reads `/proc`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from leveret.perf.fleet import Progress
from leveret.perf.process_tree import pss_parts

from bench.node import Node

_SAMPLE_S: Final = 1.0  # a look costs the kernel some 10 ms a gigabyte


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of all processes of a node: proportional ones, and those of them that are no file's pages."""

    all_bytes: int
    own_bytes: int

    @classmethod
    def of(cls, node: Node) -> Memory:
        return cls(*pss_parts(node.pid, "Pss", "Pss_Anon"))

    def __or__(self, other: Memory) -> Memory:
        """The larger of each."""
        return Memory(max(self.all_bytes, other.all_bytes), max(self.own_bytes, other.own_bytes))

    def __str__(self) -> str:
        return f"{self.all_bytes / 1e6:,.0f} MB ({self.own_bytes / 1e6:,.0f} MB without pages of files)"


class MemoryWatch:
    """What a `Fleet` calls while its load runs: looks at the node's memory once a second, and passes the progress on."""

    def __init__(self, node: Node, told: Callable[[Progress], None] = lambda _: None) -> None:
        self._node = node
        self._told = told
        self._looked_s = 0.0
        self.most = Memory.of(node)

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self._looked_s > _SAMPLE_S:
            self.look()
        self._told(progress)

    def look(self) -> None:
        self._looked_s = time.monotonic()
        self.most |= Memory.of(self._node)
