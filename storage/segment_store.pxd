"""The C interface of the segment store (`segment_store.pyx` says what it owns and promises).

A queue is a `QueueIndex`, a message is (queue, position) and opaque bytes. The worker subclasses `SegmentStore` to say what holding
and letting go of a message's memory means, and `SegmentReader` to take messages that come back.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.storage.queue_index cimport QueueIndex
from leveret.storage.segment cimport Pointers, Run, Segment
from leveret.storage.segment_draft cimport SegmentDraft

cdef class Batch                # before the next line: the modules name each other
cdef class SegmentStore

from leveret.storage.sweep cimport Sweep


cdef struct Entry:
    # One message for one queue, in the batch that is gathering.
    PyObject* queue             # NULL: settled before it was written
    uint64_t position
    uint64_t note
    uint32_t body_size
    uint32_t group              # index of its Group


cdef struct Group:
    # One message of the batch that is gathering, with the entries from `entry` to the next group's.
    void* owner
    const uint8_t* data
    uint32_t size
    uint32_t wanted             # entries not settled
    uint32_t entry


cdef class SegmentReader:
    """Takes what `SegmentStore.read` finds."""

    cdef int take(self, uint64_t position, uint64_t note, const uint8_t* data, uint32_t size) except -1


cdef class Batch:
    """What one commit writes: `operations` for `CommitLog.commit`, `size_bytes` of values in it."""

    cdef readonly list operations
    cdef readonly uint64_t size_bytes
    cdef bint messages          # what has gathered is among it
    cdef Pointers written       # new segments
    cdef Pointers copies        # new segments that stand for the ones in `moved`
    cdef Pointers moved
    cdef Pointers rewritten     # their index record changed
    cdef Pointers dropped
    cdef list queues            # those that had entries
    cdef list marks
    cdef list forgotten


cdef class SegmentStore:
    cdef readonly object log                # CommitLog
    cdef dict queues                        # queue id -> QueueIndex
    cdef bint loaded
    cdef uint64_t next_segment_no
    cdef readonly uint64_t gathered_bytes   # of message data waiting for `take_batch`, settled ones left out
    cdef readonly uint64_t stored_bytes     # of all segment values
    cdef readonly uint64_t live_stored_bytes  # the part of them that counts as live
    cdef size_t small_count                 # segments so small that many of them are worth merging
    cdef Entry* entries
    cdef size_t entry_count
    cdef size_t entry_capacity
    cdef Group* groups
    cdef size_t group_count
    cdef size_t group_capacity
    cdef list open_queues                   # those with entries in the batch that is gathering
    cdef list marks
    cdef list forgotten
    cdef Pointers segments
    cdef Pointers dirty                     # their index record must be written again
    cdef Pointers dead                      # nothing live in them
    cdef readonly uint64_t moved_segments   # since the start: what compaction has done
    cdef SegmentDraft draft                 # the segment that is being encoded
    cdef Sweep sweep
    cdef Batch flying                       # taken, neither done nor failed
    cdef uint64_t cached_no
    cdef object cached_value

    # Hot: no encoding, no log. The loop's thread only.
    cdef int add(self, QueueIndex queue, uint64_t position, uint64_t note, const uint8_t* data, uint32_t size, uint32_t body_size,
                 void* owner) except -1
    cdef void keep(self, void* owner) noexcept
    cdef void let_go(self, void* owner) noexcept
    cdef int settle(self, QueueIndex queue, uint64_t position, uint32_t body_size) except -1
    cdef int settle_range(self, QueueIndex queue, uint64_t first, uint64_t last) except -1
    cdef int forget(self, QueueIndex queue) except -1
    cdef int mark(self, QueueIndex queue, uint64_t delivered, uint64_t lease) except -1
    cdef bint holds(self, QueueIndex queue, uint64_t position) noexcept
    cdef int read(self, QueueIndex queue, uint64_t first, uint64_t last, SegmentReader reader) except -1
    cdef uint64_t run_end(self, QueueIndex queue, uint64_t first) noexcept
    cdef bint has_work(self) except -1

    cdef int _grow_open(self, QueueIndex queue) except -1
    cdef int _open_group(self, const uint8_t* data, uint32_t size, void* owner) except -1
    cdef int _settle_open(self, QueueIndex queue, size_t at) noexcept
    cdef int settle_in_run(self, Run* run, uint64_t position, uint32_t body_size) except -1
    cdef uint64_t settle_in_runs(self, QueueIndex queue, uint64_t first, uint64_t last, uint64_t* body_bytes) except? 0xFFFFFFFFFFFFFFFF
    cdef uint64_t _settle_unread(self, Run* run, uint64_t first, uint64_t last, uint64_t* body_bytes) except? 0xFFFFFFFFFFFFFFFF
    cdef uint64_t _settle_part(self, Run* run, uint64_t first, uint64_t last, uint64_t* body_bytes) except? 0xFFFFFFFFFFFFFFFF
    cdef void _touch(self, Segment* segment) noexcept
    cdef object value_of(self, Segment* segment)

    cdef Segment* finish_segment(self, Batch batch) except NULL
    cdef int _encode_gathered(self, Batch batch) except -1
    cdef int _finish_new(self, Batch batch) except -1
    cdef int write_removal(self, Batch batch, Segment* segment) except -1
    cdef int _end(self, Batch batch) except -1
    cdef int _write_index(self, Batch batch, Segment* segment) except -1
    cdef int _add_segment(self, Segment* segment) except -1
    cdef void remove_segment(self, Segment* segment) noexcept
    cdef int _load_segment(self, uint64_t segment_no, const uint8_t* data, size_t size) except -1
