"""What a shard's log holds, byte for byte: the one table of record layouts, and a plain decoder of each for checks and tests.

The store itself encodes and decodes in C by this table (`segment_draft.pyx`, `index_record.pyx`, `segment.pxd`); the decoders here are
written apart from it, so that `verify` and the tests are a second opinion. Keys are big-endian, so that they sort by number. Values are
little-endian, as packets are.

Layout, format version 2:

    table      key                       value
    META       b"format"                 u32   FORMAT_VERSION
    META       b"engine"                 text  version of LMDB that made the file ("0.9"): the files of 0.9 and 1.0 differ
    META       b"identity"               bytes whose queue ids these are: the node's, compared for equality
    META       b"shard"                  u32   number of the shard
    META       b"ahead"                  16 bytes id of the write-ahead file, u64 sequence of its last record that is in the tables. Not
                                         there: there is none, or nothing in it counts (`ahead_record.pyx` has its layout)
    SEGMENTS   u64 segment, u32 chunk    bytes a segment's value, cut into chunks of CHUNK_BYTES; the last is the shorter one
    INDEX      u64 segment               see below; there is one for each segment, and it names the number of chunks
    QUEUES     u32 queue                 u64 delivered, u64 lease

    a segment's value: messages, one after the other, never changed once written
        u32 size | u32 body_size | u16 targets | targets x (u16 run | u32 offset | u64 note) | size bytes
        A target says for which queue the message is: the run's, at position first + offset. `note` is the worker's.

    an index record
        u64 value size | u32 chunks | u32 messages | u32 targets | u32 runs | runs x run
        run: u32 queue | u32 span | u32 live | u32 0 | u64 first | u64 live bytes | ceil(span / 8) bytes of bits
        Bit n (the lowest of a byte first) is 1 if position first + n is settled or was never stored here; bits past the span are 1.
        `live` counts the zeros, `live bytes` sums their body sizes. The runs of one queue never overlap, in whatever segments they lie.

Versions:

    1   no write-ahead file, no META b"ahead". What it wrote is read as it is; the first commit that begins such a file makes it version 2
    2   as above

To change the format: raise FORMAT_VERSION; teach `LocalLog` to take the version before into the new form in one commit, before anything is
read; write the version into the list above with what is different; keep a directory written by the old version under `tests/fixtures/`
and a test that opens it. Never change what a version means.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

FORMAT_VERSION: Final = 2
FORMAT_VERSION_LEAST: Final = 1  # the oldest that is read
CHUNK_BYTES: Final = (1 << 20) - 16  # with LMDB's page head, a whole number of 4 KiB pages

SEGMENT_KEY: Final = struct.Struct(">QI")
INDEX_KEY: Final = struct.Struct(">Q")
QUEUE_KEY: Final = struct.Struct(">I")
QUEUE_VALUE: Final = struct.Struct("<QQ")
MESSAGE_HEAD: Final = struct.Struct("<IIH")
MESSAGE_TARGET: Final = struct.Struct("<HIQ")
INDEX_HEAD: Final = struct.Struct("<QIIII")
INDEX_RUN: Final = struct.Struct("<IIIIQQ")


class Damaged(ValueError):
    """A record that breaks the layout; the text says how, without naming the record."""


class RunRecord(NamedTuple):
    queue_id: int
    first: int
    span: int
    live: int
    live_bytes: int
    settled: int  # the bits as one number, position first + n is bit n


class IndexRecord(NamedTuple):
    value_size: int
    chunk_count: int
    message_count: int
    target_count: int
    runs: tuple[RunRecord, ...]


class Target(NamedTuple):
    run: int
    offset: int
    note: int


class MessageRecord(NamedTuple):
    body_size: int
    targets: tuple[Target, ...]
    data: bytes


def decode_index(value: bytes) -> IndexRecord:
    """An index record. Raises `Damaged` if sizes or bits are not as the table says."""
    if len(value) < INDEX_HEAD.size:
        raise Damaged("the index record is cut short")
    value_size, chunk_count, message_count, target_count, run_count = INDEX_HEAD.unpack_from(value)
    at = INDEX_HEAD.size
    runs = []
    for _ in range(run_count):
        if len(value) < at + INDEX_RUN.size:
            raise Damaged("the index record is cut short")
        queue_id, span, live, zero, first, live_bytes = INDEX_RUN.unpack_from(value, at)
        at += INDEX_RUN.size
        bit_bytes = (span + 7) // 8
        if len(value) < at + bit_bytes or not span or zero:
            raise Damaged("a run of the index record is not whole")
        bits = int.from_bytes(value[at : at + bit_bytes], "little")
        at += bit_bytes
        if bit_bytes * 8 - bits.bit_count() != live:
            raise Damaged("a run counts other messages than its bits")
        if bits >> span != (1 << (bit_bytes * 8 - span)) - 1:
            raise Damaged("a run has bits past its end")
        runs.append(RunRecord(queue_id, first, span, live, live_bytes, bits & ((1 << span) - 1)))
    if at != len(value):
        raise Damaged("the index record is followed by something else")
    return IndexRecord(value_size, chunk_count, message_count, target_count, tuple(runs))


def decode_segment(value: bytes) -> list[MessageRecord]:
    """The messages of a segment's whole value. Raises `Damaged` at the first that does not fit."""
    messages = []
    at = 0
    while at < len(value):
        if len(value) < at + MESSAGE_HEAD.size:
            raise Damaged("a message's head is cut short")
        size, body_size, target_count = MESSAGE_HEAD.unpack_from(value, at)
        at += MESSAGE_HEAD.size
        end = at + target_count * MESSAGE_TARGET.size
        if len(value) < end + size:
            raise Damaged("a message is cut short")
        targets = tuple(Target(*fields) for fields in MESSAGE_TARGET.iter_unpack(value[at:end]))
        messages.append(MessageRecord(body_size, targets, value[end : end + size]))
        at = end + size
    return messages
