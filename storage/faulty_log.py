"""A commit log that fails when it is told to: for tests of whoever commits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from leveret.storage.commit_log import CommitLog, Operation, Sizes


class FaultyLog:
    """Passes everything to `inner`, but raises `error` at the `fail_at`-th operation of all commits, the first being 1.

    The commit in which that operation lies is not applied; with `applied` it is, as when a disk has written and then reports an error.
    `fail_at` may be set anew: it counts from `operations`, how many were seen so far. 0: it does not fail.
    """

    def __init__(self, inner: CommitLog, fail_at: int, error: Exception, *, applied: bool = False) -> None:
        self.inner = inner
        self.fail_at = fail_at
        self.error = error
        self.applied = applied
        self.operations = 0
        self.failures = 0

    def commit(self, operations: Sequence[Operation]) -> None:
        before = self.operations
        fails = before < self.fail_at <= before + len(operations)
        self.operations = self.fail_at if fails else before + len(operations)
        if not fails or self.applied:
            self.inner.commit(operations)
        if fails:
            self.failures += 1
            raise self.error

    def catches_up(self, size_bytes: int) -> bool:
        return self.inner.catches_up(size_bytes)

    def is_behind(self) -> bool:
        return self.inner.is_behind()

    def catch_up(self) -> None:
        self.inner.catch_up()

    def get(self, table: int, key: bytes) -> bytes | None:
        return self.inner.get(table, key)

    def scan(self, table: int, first_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return self.inner.scan(table, first_key)

    def sizes(self) -> Sizes:
        return self.inner.sizes()

    def copy_to(self, directory: Path) -> None:
        self.inner.copy_to(directory)

    def close(self) -> None:
        self.inner.close()
