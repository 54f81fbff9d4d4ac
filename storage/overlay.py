"""Operations that lie over the tables of an environment: committed, but written into the tables later, and all at once.

`LocalLog` keeps one beside the write-ahead file, lays each batch over it, and asks it before the tables. Most of what passes through a
broker is removed soon after it came, and then never reaches the tables at all. It is plain memory, and knows no file.

One thread at a time changes it; another may look up single keys meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

from leveret.storage.commit_log import Operation, Table


class Unknown(Enum):
    """Neither a value nor None, which is a removal: the table below has to be asked."""

    UNKNOWN = 0


class Overlay:
    """For each table, the last word on some of its keys. `size_bytes` counts the values, what keys and objects take is little beside."""

    def __init__(self) -> None:
        self._tables: dict[int, dict[bytes, bytes | None]] = {table: {} for table in Table}
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return any(self._tables.values())

    def add(self, operations: Sequence[Operation], highest: Mapping[int, bytes]) -> None:
        """Lay a batch over what is there. highest: for some tables, a key above which the table below has none, so that what was put there
        and is removed again leaves nothing behind."""
        for table, key, value in operations:
            laid = self._tables[table]
            before = laid.get(key)
            if before is not None:
                self.size_bytes -= len(before)
            if value is not None:
                laid[key] = value
                self.size_bytes += len(value)
            elif key > highest.get(table, key):
                laid.pop(key, None)
            else:
                laid[key] = None

    def with_added(self, operations: Sequence[Operation], highest: Mapping[int, bytes]) -> Overlay:
        """Another one, with a batch laid over it; this one is as before."""
        other = Overlay()
        other._tables = {table: dict(laid) for table, laid in self._tables.items()}
        other.size_bytes = self.size_bytes
        other.add(operations, highest)
        return other

    def get(self, table: int, key: bytes) -> bytes | Unknown | None:
        """The value, None if it is removed, `UNKNOWN` if nothing is laid over this key."""
        return self._tables[table].get(key, Unknown.UNKNOWN)

    def operations(self) -> list[Operation]:
        """All of them, each key once, ascending in each table."""
        return [(table, key, laid[key]) for table, laid in self._tables.items() for key in sorted(laid)]

    def over(self, table: int, first_key: bytes, below: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of a table from `first_key` on, ascending, where `below` is what the table itself has of that."""
        laid = dict(self._tables[table])
        waiting = iter(sorted(key for key in laid if key >= first_key))
        mine = next(waiting, None)
        for key, value in below:
            while mine is not None and mine <= key:
                if (put := laid[mine]) is not None:
                    yield mine, put
                mine = next(waiting, None)
            if key not in laid:
                yield key, value
        while mine is not None:
            if (put := laid[mine]) is not None:
                yield mine, put
            mine = next(waiting, None)
