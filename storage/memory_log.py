"""A commit log in memory, with the semantics of the one on disk: for tests, and for measuring the store without a disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from leveret.storage.commit_log import Operation, Sizes, Table
from leveret.storage.environment import StoreFailed


class MemoryLog:
    """Four dicts. What a crash leaves is what was committed, so a crash is tried by making a new store over the same log."""

    def __init__(self) -> None:
        self._tables: dict[int, dict[bytes, bytes]] = {table: {} for table in Table}
        self.commits = 0

    def commit(self, operations: Sequence[Operation]) -> None:
        for table, key, value in operations:
            if value is None:
                self._tables[table].pop(key, None)
            else:
                self._tables[table][key] = bytes(value)
        self.commits += 1

    def catches_up(self, size_bytes: int) -> bool:
        return False

    def is_behind(self) -> bool:
        return False

    def catch_up(self) -> None:
        """Nothing is ever put off."""

    def get(self, table: int, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def scan(self, table: int, first_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(item for item in self._tables[table].items() if item[0] >= first_key))

    def sizes(self) -> Sizes:
        used = sum(len(key) + len(value) for table in self._tables.values() for key, value in table.items())
        return Sizes(used, used, 2**63 - 1)

    def copy_to(self, directory: Path) -> None:
        raise StoreFailed(f"a log in memory cannot be copied to {directory}")

    def close(self) -> None:
        """Nothing to give back; what was committed stays, for the next store over this log."""
