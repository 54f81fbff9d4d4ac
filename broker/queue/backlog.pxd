from libc.stdint cimport uint32_t, uint64_t

from leveret.queue.heap cimport Heap
from leveret.queue.journal cimport Journal
from leveret.queue.message cimport Message, message_retain
from leveret.queue.ring cimport ENTRY_STORED, Entry, Ring, ring_at, ring_push_back, ring_reserve

cdef enum:
    # Paging: with less than this in the ring, more is read; so consumers do not wait for the disk one message at a time.
    PAGE_IN_BELOW_MESSAGES = 1000
    PAGE_IN_BELOW_BYTES = 1024 * 1024


cdef class Backlog:
    cdef readonly size_t ready_count    # messages, and bytes of their bodies
    cdef readonly uint64_t ready_bytes

    cdef Ring ring                      # ready, oldest first
    cdef Heap heap                      # ready too, see leveret.queue.heap
    cdef Ring tail                      # ready too, behind what is paged out; empty when nothing is
    cdef Ring purged                    # no longer ours, memory not yet given back
    cdef uint64_t next_position
    cdef readonly Journal journal       # None: everything stays in memory
    cdef readonly bint stores           # persistent messages go into it; else it only serves paging
    cdef readonly size_t paged_count    # of the ready ones: not in memory
    cdef readonly uint64_t paged_bytes
    cdef uint64_t tail_bytes
    cdef uint64_t paged_first           # where they begin; all of them lie behind the ring's last and before the tail's first
    cdef uint64_t paged_last
    cdef readonly uint64_t handed_through   # the highest position ever handed out

    # What a subclass fills in.
    cdef bint may_get_back(self) noexcept
    # Order.
    cdef int pop(self, Entry* entry) except -1
    cdef int put_back(self, Entry* run, size_t count) except -1
    cdef uint32_t next_bytes(self) noexcept
    # Dropping.
    cdef size_t drop_ready(self) except? 0
    cdef int drop(self, Message* message) except -1
    cdef int release_purged(self, size_t count) except -1
    # Paging.
    cdef int page_out(self, size_t keep, uint64_t keep_bytes) except -1
    cdef int refill(self) except -1
    cdef int join_tail(self) except -1


cdef inline Entry* front(Backlog self) noexcept:
    """The oldest ready one, where it lies; NULL: there is none."""
    if self.heap.count and (self.ring.count == 0 or self.heap.entries[0].position < ring_at(&self.ring, 0).position):
        return &self.heap.entries[0]
    return ring_at(&self.ring, 0) if self.ring.count else NULL


cdef inline int push(Backlog self, Message* message, uint64_t expires_ms, bint stored) except -1:
    """Take a message in at the back, retaining it; `stored`: the journal is to have it. MemoryError: not taken.

    Inlined into `Queue.publish`: as a method it cost a publish 30 instructions more.
    """
    cdef Ring* back = &self.tail if self.paged_count else &self.ring
    if stored:
        ring_reserve(back, 1)
        self.journal.add(self.next_position, expires_ms, message)
    ring_push_back(back, message, self.next_position, expires_ms, ENTRY_STORED if stored else 0)
    message_retain(message)
    if self.paged_count:
        self.tail_bytes += message.body_size
    self.next_position += 1
    self.ready_count += 1
    self.ready_bytes += message.body_size
    return 0
