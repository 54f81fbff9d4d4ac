"""A segment's index record: which positions of which queues are in it, and which of them are settled. Bytes to C and back.

The segment store calls both; `layout.py` has the bytes. Nothing here knows a queue: a loaded run has its queue's number only.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from leveret.storage.segment cimport Run, Segment, popcount, segment_new, words_for

from leveret.storage.environment import ForeignStore
from leveret.storage.layout import CHUNK_BYTES

cdef enum:
    INDEX_HEAD_SIZE = 24
    INDEX_RUN_SIZE = 32

cdef uint64_t CHUNK = CHUNK_BYTES


cdef object encode_index(const Segment* segment):
    """The record of a segment as it stands now."""
    cdef size_t size = INDEX_HEAD_SIZE
    cdef uint32_t index
    cdef uint32_t zero = 0
    cdef size_t bit_bytes
    cdef uint8_t* at
    cdef Run* run
    for index in range(segment.run_count):
        size += INDEX_RUN_SIZE + (<size_t>segment.runs[index].span + 7) // 8
    record = PyBytes_FromStringAndSize(NULL, size)
    at = <uint8_t*>PyBytes_AS_STRING(record)
    memcpy(at, &segment.value_size, 8)
    memcpy(at + 8, &segment.chunk_count, 4)
    memcpy(at + 12, &segment.message_count, 4)
    memcpy(at + 16, &segment.target_count, 4)
    memcpy(at + 20, &segment.run_count, 4)
    at += INDEX_HEAD_SIZE
    for index in range(segment.run_count):
        run = &segment.runs[index]
        memcpy(at, &run.queue_id, 4)
        memcpy(at + 4, &run.span, 4)
        memcpy(at + 8, &run.live, 4)
        memcpy(at + 12, &zero, 4)
        memcpy(at + 16, &run.first, 8)
        memcpy(at + 24, &run.live_bytes, 8)
        at += INDEX_RUN_SIZE
        bit_bytes = (<size_t>run.span + 7) // 8
        memcpy(at, run.settled, bit_bytes)
        at += bit_bytes
    return record


cdef Segment* decode_index(uint64_t segment_no, const uint8_t* data, size_t size) except NULL:
    """A segment with its runs, which know no queue. Raises `ForeignStore` if the record is damaged."""
    cdef Segment head
    cdef Segment* segment
    cdef Run* run
    cdef Run loaded
    cdef uint64_t* words
    cdef size_t word_count = 0
    cdef size_t bit_bytes, word
    cdef const uint8_t* at
    cdef const uint8_t* end = data + size
    cdef uint32_t number
    cdef uint64_t zeros
    damaged = ForeignStore(f"the index record of segment {segment_no} is damaged")
    if size < INDEX_HEAD_SIZE:
        raise damaged
    memcpy(&head.value_size, data, 8)
    memcpy(&head.chunk_count, data + 8, 4)
    memcpy(&head.message_count, data + 12, 4)
    memcpy(&head.target_count, data + 16, 4)
    memcpy(&head.run_count, data + 20, 4)
    if (head.chunk_count == 0 or head.chunk_count != (head.value_size + CHUNK - 1) // CHUNK or head.message_count == 0
            or head.target_count < head.message_count):
        raise damaged
    at = data + INDEX_HEAD_SIZE
    for _ in range(head.run_count):
        if <size_t>(end - at) < INDEX_RUN_SIZE:
            raise damaged
        memcpy(&loaded.span, at + 4, 4)
        bit_bytes = (<size_t>loaded.span + 7) // 8
        at += INDEX_RUN_SIZE
        if loaded.span == 0 or <size_t>(end - at) < bit_bytes:
            raise damaged
        at += bit_bytes
        word_count += words_for(loaded.span)
    if at != end:
        raise damaged
    segment = segment_new(head.run_count, word_count)
    segment.segment_no = segment_no
    segment.value_size = head.value_size
    segment.chunk_count = head.chunk_count
    segment.message_count = head.message_count
    segment.target_count = head.target_count
    words = <uint64_t*>(segment.runs + segment.run_count)
    at = data + INDEX_HEAD_SIZE
    for number in range(head.run_count):
        run = &segment.runs[number]
        run.segment = segment
        memcpy(&run.queue_id, at, 4)
        memcpy(&run.span, at + 4, 4)
        memcpy(&run.live, at + 8, 4)
        memcpy(&run.first, at + 16, 8)
        memcpy(&run.live_bytes, at + 24, 8)
        at += INDEX_RUN_SIZE
        bit_bytes = (<size_t>run.span + 7) // 8
        run.settled = words
        memcpy(words, at, bit_bytes)
        at += bit_bytes
        zeros = 0
        words += words_for(run.span)
        for word in range(words_for(run.span)):
            zeros += popcount(~run.settled[word])
        if run.span & 63 and ~run.settled[words_for(run.span) - 1] >> (run.span & 63):
            zeros += 1  # a bit past the end is not 1
        if zeros != run.live or run.first == 0:
            free(segment)
            raise damaged
        segment.live += run.live
    if segment.live > segment.target_count:
        free(segment)
        raise damaged
    return segment
