"""The seam between the segment store and what makes its records durable: a commit is all or nothing, and a read sees every commit.

`LocalLog` (LMDB) is the log of one node; `MemoryLog` and `FaultyLog` stand in for it in tests. A replicated log is a later implementation,
so nothing here knows of files: whoever writes a record must be able to say the same on another machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Protocol


class Table(IntEnum):
    """The four ordered tables of a log; `leveret.storage.layout` says what their keys and values are."""

    META = 0
    SEGMENTS = 1
    INDEX = 2
    QUEUES = 3


# Put (a value) or remove (None; no error if it is not there).
Operation = tuple[int, bytes, bytes | None]


class Sizes(NamedTuple):
    """In bytes. free_bytes: what the disk has left for everybody; 2**63 - 1 where there is no disk."""

    file_bytes: int
    used_bytes: int
    free_bytes: int


class CommitLog(Protocol):
    """An ordered map for each table. One thread at a time calls `commit`; the others may be called meanwhile, from one other thread."""

    def commit(self, operations: Sequence[Operation]) -> None:
        """Apply all of them in order, or none, and return when they are durable.

        Raises `DiskFull` when nothing was applied and a later commit may work, `StoreFailed` when what is there is unknown: the process
        that holds the log must then end and read it anew.
        """

    def catches_up(self, size_bytes: int) -> bool:
        """Whether a commit of so many bytes would also do what earlier ones have put off; it then takes longer than its size tells."""

    def is_behind(self) -> bool:
        """Whether anything is put off."""

    def catch_up(self) -> None:
        """Do what was put off, as a commit of its own. Raises what `commit` does; after `DiskFull` it is put off still, nothing is lost."""

    def get(self, table: int, key: bytes) -> bytes | None:
        """The value, or None. Raises `StoreFailed` if it cannot be read."""

    def scan(self, table: int, first_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) of a table from `first_key` on, ascending, as they were when the scan began."""

    def sizes(self) -> Sizes:
        """What the log takes and what is left."""

    def copy_to(self, directory: Path) -> None:
        """Write a copy that can be opened as a log, as of one commit, into an empty directory. May run beside commits, in any thread."""

    def close(self) -> None:
        """Nothing is called afterwards. What was committed stays."""
