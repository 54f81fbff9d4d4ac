"""The write-ahead file of one shard: batches that are on the disk, but not in the tables yet.

`LocalLog` makes it, appends a record for each batch, and begins again at the front once the tables have what is in it. It owns the blocks
of the file, and has records encoded (`ahead_record.pyx`, which also reads what a crash has left); it knows no table, and never decides when
a record is not needed any more.

A commit of LMDB waits for the disk twice, pages first and then the head page, and for the file system's own journal when the file grows.
A record in a file that was written once from end to end is one write and one flush, which is as quick as a disk can be.

The file has `size` bytes, never more and never less, in blocks of BLOCK_BYTES; a record begins with a block, the first at 0.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from leveret.storage.ahead_record import ID_BYTES, encode_record
from leveret.storage.commit_log import Operation
from leveret.storage.environment import synchronise

AHEAD_NAME: Final = "ahead.wal"


class AheadFile:
    """The file at `path`, open for appending; made, or written anew, unless it has `size` bytes already.

    size: a multiple of BLOCK_BYTES. What an earlier process left in it is not there any more, under the new `file_id`. `sequence` is that
    of the last record, 0 before the first. Raises `OSError`; the file may then have any size.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.file_id = os.urandom(ID_BYTES)
        self.sequence = 0
        self.size = size
        self._end = 0  # where the next record begins
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._descriptor).st_size != size:
                self._fill(path)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _fill(self, path: Path) -> None:
        """Zeros to the end, since only blocks that were written once can be written again without the file system's journal."""
        os.ftruncate(self._descriptor, 0)
        zeros = bytes(1 << 20)
        at = 0
        while at < self.size:
            at += os.pwrite(self._descriptor, zeros[: self.size - at], at)
        os.fsync(self._descriptor)
        with contextlib.suppress(OSError):  # a file system that cannot sync a directory keeps its names in another way
            synchronise(path.parent)

    @property
    def is_empty(self) -> bool:
        """Whether there is no record since the file was opened or begun again."""
        return self._end == 0

    def fits(self, size: int) -> bool:
        """Whether there is room behind the last record for one of `size` bytes."""
        return self._end + size <= self.size

    def encode(self, operations: Sequence[Operation]) -> bytes:
        """The record that `append` would take next."""
        return encode_record(self.file_id, self.sequence + 1, operations)

    def append(self, record: bytes) -> None:
        """Write what `encode` gave last, and return when the disk has it. It must fit.

        Raises `OSError`; whether the record is there is not known then, and nothing may be appended any more.
        """
        assert self.fits(len(record))
        written = os.pwrite(self._descriptor, record, self._end)
        if written != len(record):
            raise OSError(0, f"{written} of {len(record)} bytes were written")
        os.fdatasync(self._descriptor)
        self._end += len(record)
        self.sequence += 1

    def begin_again(self) -> None:
        """The next record goes to the front: nobody needs those that are there."""
        self._end = 0

    def close(self) -> None:
        os.close(self._descriptor)
