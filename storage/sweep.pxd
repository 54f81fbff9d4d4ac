"""The C interface of compaction; `sweep.pyx` says what it owns."""

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from leveret.storage.segment cimport Pointers, Segment

cdef class Sweep                # before the next line: the modules name each other

from leveret.storage.segment_store cimport Batch, SegmentStore


cdef struct Moved:
    # What was settled of a segment while its copy was being written: done again on the copy.
    PyObject* queue
    uint64_t first
    uint64_t last
    uint32_t body_size          # of the one message, if first = last


cdef class Sweep:
    cdef size_t small_bytes                 # the bounds; the tests make them small
    cdef size_t small_count_max
    cdef uint64_t waste_bytes_max
    cdef uint64_t next_bytes                # no new candidates are looked for before this much is wasted
    cdef size_t next_small                  # ... or this many are small
    cdef bint enabled                       # False from a failed commit to the next good one
    cdef Pointers candidates                # to be moved, the best first from `candidate_next` on
    cdef size_t candidate_next
    cdef Moved* moves
    cdef size_t move_count
    cdef size_t move_capacity

    cdef void set_bounds(self, size_t small_bytes, size_t small_count_max, uint64_t waste_bytes_max) noexcept
    cdef void lower_bounds(self, SegmentStore store) noexcept
    cdef void leave_out(self, Segment* segment) noexcept
    cdef int note_move(self, PyObject* queue, uint64_t first, uint64_t last, uint32_t body_size) except -1
    cdef uint64_t waste(self, SegmentStore store) noexcept
    cdef bint is_due(self, SegmentStore store) noexcept
    cdef int move(self, SegmentStore store, Batch batch) except -1
    cdef int switch_to_copies(self, SegmentStore store, Batch batch) except -1

    cdef int _find_candidates(self, SegmentStore store) except -1
    cdef int _move_segment(self, SegmentStore store, Batch batch, Segment* segment) except -1
    cdef int _finish_copy(self, SegmentStore store, Batch batch) except -1
    cdef object _sound_value(self, SegmentStore store, Segment* segment)
