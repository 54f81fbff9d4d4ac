"""The write-ahead file of one shard: batches that are on the disk, but not in the tables yet.

`LocalLog` makes it, appends a record for each batch, and begins again at the front once the tables have what is in it. It owns the blocks
of the file and what a crash may have left of them; it knows no table, and never decides when a record is not needed any more.

A commit of LMDB waits for the disk twice, pages first and then the head page, and for the file system's own journal when the file grows.
A record in a file that was written once from end to end is one write and one flush, which is as quick as a disk can be.

    the file     `size` bytes, never more and never less, in blocks of BLOCK_BYTES; a record begins with a block, the first at 0
    a record     16 bytes file id | u64 sequence | u32 size | u32 count | u64 checksum | operations | zeros up to the next block
    an operation u8 table | u8 key size | u32 value size, 2**32 - 1 for a removal | key | value

All little-endian; `size` is that of the operations. The checksum is XXH3 (64 bits) over everything before it and the operations. Sequences
ascend by one. The file id is drawn anew by every process that writes, and stands in the shard's META (`layout.py`): no record of an earlier
round, and no message that looks like a record, is ever taken for one. A block is written by one record only, so one that is torn takes no
other along.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import xxhash
from leveret.storage.commit_log import Operation
from leveret.storage.environment import synchronise

AHEAD_NAME: Final = "ahead.wal"
BLOCK_BYTES: Final = 4096
ID_BYTES: Final = 16
_HEAD: Final = struct.Struct(f"<{ID_BYTES}sQII")
_CHECKSUM: Final = struct.Struct("<Q")
_OPERATION: Final = struct.Struct("<BBI")
_DATA_AT: Final = _HEAD.size + _CHECKSUM.size
_REMOVAL: Final = 0xFFFFFFFF

Record = tuple[bytes, bytes, bytes]  # head, operations, zeros: joined they would be copied once more


class DamagedRecord(ValueError):
    """Records of the file were on the disk and cannot be read any more; the text says which."""


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

    def encode(self, operations: Sequence[Operation]) -> Record:
        """The record that `append` would take next."""
        return encode_record(self.file_id, self.sequence + 1, operations)

    def append(self, record: Record) -> None:
        """Write what `encode` gave last, and return when the disk has it. It must fit.

        Raises `OSError`; whether the record is there is not known then, and nothing may be appended any more.
        """
        size = sum(map(len, record))
        assert self.fits(size)
        written = os.pwritev(self._descriptor, record, self._end)
        if written != size:
            raise OSError(0, f"{written} of {size} bytes were written")
        os.fdatasync(self._descriptor)
        self._end += size
        self.sequence += 1

    def begin_again(self) -> None:
        """The next record goes to the front: nobody needs those that are there."""
        self._end = 0

    def close(self) -> None:
        os.close(self._descriptor)


def encode_record(file_id: bytes, sequence: int, operations: Sequence[Operation]) -> Record:
    """A record, filled up to whole blocks, in parts that are written one after the other. Keys have at most 255 bytes."""
    parts: list[bytes] = []
    size = 0
    for table, key, value in operations:
        if value is None:
            parts += (_OPERATION.pack(table, len(key), _REMOVAL), key)
            size += _OPERATION.size + len(key)
        else:
            parts += (_OPERATION.pack(table, len(key), len(value)), key, value)
            size += _OPERATION.size + len(key) + len(value)
    head = _HEAD.pack(file_id, sequence, size, len(operations))
    data = b"".join(parts)
    checksum = _CHECKSUM.pack(xxhash.xxh3_64_intdigest(data, seed=xxhash.xxh3_64_intdigest(head)))
    return head + checksum, data, bytes(-(_DATA_AT + size) % BLOCK_BYTES)


def read_records(content: bytes, file_id: bytes, after: int) -> list[list[Operation]]:
    """The operations of each record behind sequence `after`, in order, up to the first that was not written to its end.

    content: the whole file. Raises `DamagedRecord` if there are records behind one that cannot be read: they were written one by one, so it
    had been on the disk.
    """
    found = []
    at = 0
    sequence = after
    while (record := _record_at(content, at, file_id)) is not None and record[0] == sequence + 1:
        sequence, size, operations = record
        found.append(operations)
        at += size
    for later in range(at, len(content), BLOCK_BYTES):
        record = _record_at(content, later, file_id)
        if record is not None and record[0] > sequence:
            raise DamagedRecord(f"record {sequence + 1} is damaged, and record {record[0]} behind it is not")
    return found


def _record_at(content: bytes, at: int, file_id: bytes) -> tuple[int, int, list[Operation]] | None:
    """(sequence, bytes up to the next record, operations) of the record that begins there; None if there is none, or not all of it."""
    data_at = at + _DATA_AT
    if content[at : at + ID_BYTES] != file_id or len(content) < data_at:
        return None
    head = content[at : at + _HEAD.size]
    _, sequence, size, count = _HEAD.unpack(head)
    data = content[data_at : data_at + size]
    (checksum,) = _CHECKSUM.unpack_from(content, at + _HEAD.size)
    if len(data) != size or xxhash.xxh3_64_intdigest(data, seed=xxhash.xxh3_64_intdigest(head)) != checksum:
        return None
    operations: list[Operation] = []
    place = 0
    for _ in range(count):
        table, key_size, value_size = _OPERATION.unpack_from(data, place)
        place += _OPERATION.size
        key = data[place : place + key_size]
        place += key_size
        if value_size == _REMOVAL:
            operations.append((table, key, None))
        else:
            operations.append((table, key, data[place : place + value_size]))
            place += value_size
    assert place == size
    return sequence, _DATA_AT + size + -(_DATA_AT + size) % BLOCK_BYTES, operations
