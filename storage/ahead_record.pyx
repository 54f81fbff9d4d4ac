"""A record of the write-ahead file: one batch of operations as bytes, and what such bytes still say after a crash.

`AheadFile` encodes one for each commit, which is a whole round for a client that waits for each confirm, so that is done in C;
`LocalLog` reads them back when it opens what a process that died has left. Nothing here knows a file or a table.

    a record     16 bytes file id | u64 sequence | u32 size | u32 count | u64 checksum | operations | zeros up to the next block
    an operation u8 table | u8 key size | u32 value size, 2**32 - 1 for a removal | key | value

All little-endian; `size` is that of the operations. The checksum is XXH3 (64 bits) over everything before it and the operations. Sequences
ascend by one. The file id is drawn anew by every process that writes, and stands in the shard's META (`layout.py`): no record of an earlier
round, and no message that looks like a record, is ever taken for one. A record fills whole blocks of BLOCK_BYTES, so one that is torn takes
no other along. A change of these bytes is a change of the store's format: `layout.py` says how that is done.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import struct

import xxhash

cdef extern from "Python.h":
    enum:
        PyBUF_READ

cdef enum:
    BLOCK = 4096
    FILE_ID_SIZE = 16
    HEAD_SIZE = 32
    DATA_AT = 40                # the checksum lies between
    OPERATION_SIZE = 6
    REMOVAL = 0xFFFFFFFF

BLOCK_BYTES = BLOCK
ID_BYTES = FILE_ID_SIZE

cdef object digest = xxhash.xxh3_64_intdigest
_HEAD = struct.Struct(f"<{FILE_ID_SIZE}sQII")
_CHECKSUM = struct.Struct("<Q")
_OPERATION = struct.Struct("<BBI")


class DamagedRecord(ValueError):
    """Records of the file were on the disk and cannot be read any more; the text says which."""


cdef uint64_t checksum_of(const uint8_t* record, uint32_t size) except? 0:
    """XXH3 over the head and the operations of a record."""
    head = digest(PyMemoryView_FromMemory(<char*>record, HEAD_SIZE, PyBUF_READ))
    return digest(PyMemoryView_FromMemory(<char*>record + DATA_AT, size, PyBUF_READ), head)


def encode_record(bytes file_id not None, uint64_t sequence, operations not None):
    """A record, filled up to whole blocks. Keys have at most 255 bytes, values and all of them together less than 4 GiB.

    Raises ValueError where that is not so.
    """
    cdef tuple operation
    cdef bytes key, value
    cdef uint64_t size = 0
    cdef uint64_t whole
    cdef uint32_t count = 0
    cdef uint32_t value_size
    cdef uint64_t checksum
    cdef uint8_t* record
    cdef uint8_t* at
    for operation in operations:
        key = operation[1]
        value = operation[2]
        if PyBytes_GET_SIZE(key) > 255:
            raise ValueError(f"a key of {len(key)} bytes")
        size += OPERATION_SIZE + PyBytes_GET_SIZE(key) + (0 if value is None else PyBytes_GET_SIZE(value))
        count += 1
    if PyBytes_GET_SIZE(file_id) != FILE_ID_SIZE or size >= REMOVAL:
        raise ValueError(f"a file id of {len(file_id)} bytes, and {size} bytes of operations")
    whole = (DATA_AT + size + BLOCK - 1) // BLOCK * BLOCK
    encoded = PyBytes_FromStringAndSize(NULL, whole)
    record = <uint8_t*>PyBytes_AS_STRING(encoded)
    memcpy(record, PyBytes_AS_STRING(file_id), FILE_ID_SIZE)
    memcpy(record + 16, &sequence, 8)
    value_size = <uint32_t>size
    memcpy(record + 24, &value_size, 4)
    memcpy(record + 28, &count, 4)
    at = record + DATA_AT
    for operation in operations:
        key = operation[1]
        value = operation[2]
        value_size = REMOVAL if value is None else <uint32_t>PyBytes_GET_SIZE(value)
        at[0] = operation[0]
        at[1] = <uint8_t>PyBytes_GET_SIZE(key)
        memcpy(at + 2, &value_size, 4)
        at += OPERATION_SIZE
        memcpy(at, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        at += PyBytes_GET_SIZE(key)
        if value is not None:
            memcpy(at, PyBytes_AS_STRING(value), value_size)
            at += value_size
    memset(at, 0, record + whole - at)
    checksum = checksum_of(record, <uint32_t>size)
    memcpy(record + HEAD_SIZE, &checksum, 8)
    return encoded


def read_records(bytes content not None, bytes file_id not None, uint64_t after):
    """The operations of each record behind sequence `after`, in order, up to the first that was not written to its end.

    content: the whole file. Raises `DamagedRecord` if there are records behind one that cannot be read: they were written one by one, so it
    had been on the disk; and for one whose checksum is right and whose operations are not as long as it says.
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


def _record_at(bytes content, size_t at, bytes file_id):
    """(sequence, bytes up to the next record, operations) of the record that begins there; None if there is none, or not all of it."""
    cdef uint32_t size, count, value_size
    cdef size_t place, end
    if content[at : at + ID_BYTES] != file_id or len(content) - at < DATA_AT:
        return None
    _, sequence, size, count = _HEAD.unpack_from(content, at)
    (checksum,) = _CHECKSUM.unpack_from(content, at + HEAD_SIZE)
    if len(content) - at - DATA_AT < size or checksum != checksum_of(<const uint8_t*>PyBytes_AS_STRING(content) + at, size):
        return None
    operations = []
    place = at + DATA_AT
    end = place + size
    for _ in range(count):
        if place + OPERATION_SIZE > end:
            raise DamagedRecord(f"record {sequence} has {count} operations and no room for them")
        table, key_size, value_size = _OPERATION.unpack_from(content, place)
        place += OPERATION_SIZE
        key = content[place : place + key_size]
        place += key_size
        if value_size == REMOVAL:
            operations.append((table, key, None))
        else:
            operations.append((table, key, content[place : place + value_size]))
            place += value_size
    if place != end:
        raise DamagedRecord(f"record {sequence} has {count} operations that do not fill it")
    return sequence, (DATA_AT + <uint64_t>size + BLOCK - 1) // BLOCK * BLOCK, operations
