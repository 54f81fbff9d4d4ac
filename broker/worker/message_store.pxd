from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from leveret.queue.message cimport Message
from leveret.queue.ring cimport Entry, Ring
from leveret.storage.segment_store cimport QueueIndex, SegmentReader, SegmentStore


cdef class MessageStore(SegmentStore):
    cdef readonly int shard             # -1: the scratch store
    cdef int64_t wall_offset_ms         # the wall clock minus the worker's monotonic clock, when the process began

    cdef int add_message(self, QueueIndex queue, uint64_t position, uint64_t expires_ms, Message* message) except -1


cdef class MessageReader(SegmentReader):
    cdef int64_t wall_offset_ms
    cdef Entry* entries
    cdef size_t count
    cdef size_t capacity

    cdef int move_to(self, Ring* ring, uint32_t flags, uint64_t redelivered_through) except -1
