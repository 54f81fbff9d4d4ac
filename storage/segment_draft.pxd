"""The C interface of a segment that is being encoded; `segment_draft.pyx` says what it owns."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.storage.queue_index cimport QueueIndex
from leveret.storage.segment cimport Run, Segment

cdef enum:
    DRAFT_TARGETS_MAX = 4096    # of a message; with more it is stored again


cdef class SegmentDraft:
    cdef PyObject* value        # so far (bytes that nobody else knows yet), or NULL
    cdef size_t size
    cdef size_t capacity
    cdef size_t next_target     # where the last message's next target goes
    cdef Run* runs
    cdef uint32_t run_count
    cdef uint32_t run_capacity
    cdef uint32_t message_count
    cdef uint32_t target_count
    cdef uint64_t stamp         # which of all segments ever built, so that a queue can tell whether it has a run in this one
    cdef size_t segment_bytes   # the bound; the tests make it small

    cdef bint is_full(self, uint32_t size, uint32_t targets) noexcept
    cdef int add_message(self, const uint8_t* data, uint32_t size, uint32_t body_size, uint32_t targets) except -1
    cdef int add_target(self, QueueIndex queue, uint64_t position, uint64_t note, uint32_t body_size, ssize_t source) except -1
    cdef Segment* finish(self, uint64_t segment_no) except NULL
