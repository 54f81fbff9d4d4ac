"""The backlog of a queue: what is ready, in order, some of it in memory and some on the disk only.

Its queue, which is a subclass, pushes at the back (`push`, in backlog.pxd), pops at the front and puts back what comes back. Positions,
given by `push`, are the order: a message that returns goes to the place where it was. It knows no consumer, no rule and no clock, and makes
no Python object for a message.

In memory are the ring (what is next), the heap (what came back far from its place, see `leveret.queue.heap`) and the tail (what came in
behind what is paged out; empty when nothing is). With much ready, what is far from its turn leaves memory (`page_out`) and comes back
before its turn (`refill`); the journal (`leveret.queue.journal`) keeps it meanwhile. What is dropped in large numbers gives its memory
back in slices (`purged`).
"""

from libc.stdint cimport uint32_t, uint64_t

from leveret.queue.heap cimport heap_free, heap_pop, heap_push, heap_reserve
from leveret.queue.journal cimport Journal, Page
from leveret.queue.message cimport Message, message_release
from leveret.queue.ring cimport (
    ENTRY_STORED,
    Entry,
    Ring,
    ring_at,
    ring_free,
    ring_merge,
    ring_merge_cost,
    ring_pop_front,
    ring_push_back,
    ring_rank,
    ring_reserve,
    ring_split,
)

# A requeue moves entries of the ring up to this many times its own number, and this many whatever its number; beyond, it uses the heap.
cdef enum:
    MERGE_COST_FACTOR = 4
    MERGE_COST_FREE = 64


cdef class Backlog:
    """Abstract. Empty, and without a journal, when it is made."""

    def __cinit__(self, *args, **kwargs):
        self.next_position = 1

    def __dealloc__(self):
        cdef size_t index
        for index in range(self.ring.count):
            message_release(ring_at(&self.ring, index).message)
        for index in range(self.heap.count):
            message_release(self.heap.entries[index].message)
        for index in range(self.tail.count):
            message_release(ring_at(&self.tail, index).message)
        for index in range(self.purged.count):
            message_release(ring_at(&self.purged, index).message)
        ring_free(&self.ring)
        heap_free(&self.heap)
        ring_free(&self.tail)
        ring_free(&self.purged)

    # What a subclass fills in.

    cdef bint may_get_back(self) noexcept:
        """Whether messages that were popped may yet be put back."""
        return False

    # Order.

    cdef int pop(self, Entry* entry) except -1:
        """Take the oldest ready one out, its reference with it."""
        if self.paged_count and self.ring.count < PAGE_IN_BELOW_MESSAGES:
            self.refill()
        if self.heap.count and (self.ring.count == 0 or self.heap.entries[0].position < ring_at(&self.ring, 0).position):
            heap_pop(&self.heap, entry)
        else:
            ring_pop_front(&self.ring, entry)
        self.ready_count -= 1
        self.ready_bytes -= entry.message.body_size
        return 0

    cdef int put_back(self, Entry* run, size_t count) except -1:
        """Make `count` (> 0) entries, ascending by position, ready again, in their places and with their references; all or none."""
        cdef size_t index
        if ring_merge_cost(&self.ring, run, count) <= MERGE_COST_FREE + MERGE_COST_FACTOR * count:
            ring_merge(&self.ring, run, count)
        else:
            heap_reserve(&self.heap, count)
            for index in range(count):
                heap_push(&self.heap, &run[index])
        self.ready_count += count
        for index in range(count):
            self.ready_bytes += run[index].message.body_size
        return 0

    cdef uint32_t next_bytes(self) noexcept:
        """Body size of the oldest ready message; 0 if there is none."""
        cdef Entry* head = front(self)
        return 0 if head == NULL else head.message.body_size

    # Dropping.

    cdef size_t drop_ready(self) except? 0:
        """Drop everything ready, at once for all who look; the memory comes back by `release_purged`. The number."""
        cdef size_t count = self.ready_count
        cdef size_t index
        cdef Entry entry
        cdef Ring emptied
        self.ready_count = 0
        self.ready_bytes = 0
        if self.paged_count:
            self.journal.drop_pages(self.paged_first, self.paged_last)
            self.paged_count = 0
        self.paged_bytes = 0
        self.tail_bytes = 0
        if self.journal is not None:
            for index in range(self.ring.count):
                if ring_at(&self.ring, index).flags & ENTRY_STORED:
                    self.journal.settle(ring_at(&self.ring, index).position, ring_at(&self.ring, index).message)
        if self.purged.count == 0:
            emptied = self.purged
            self.purged = self.ring
            self.ring = emptied
        while self.ring.count:
            ring_pop_front(&self.ring, &entry)
            self.drop(entry.message)
        while self.heap.count:
            heap_pop(&self.heap, &entry)
            if entry.flags & ENTRY_STORED and self.journal is not None:
                self.journal.settle(entry.position, entry.message)
            self.drop(entry.message)
        while self.tail.count:
            ring_pop_front(&self.tail, &entry)
            if entry.flags & ENTRY_STORED and self.journal is not None:
                self.journal.settle(entry.position, entry.message)
            self.drop(entry.message)
        return count

    cdef int drop(self, Message* message) except -1:
        """Let a message go, its memory in a later slice."""
        cdef uint64_t position = 1      # of no meaning any more, but a ring's positions ascend
        if self.purged.count:
            position = ring_at(&self.purged, self.purged.count - 1).position + 1
        try:
            ring_push_back(&self.purged, message, position, 0, 0)
        except MemoryError:
            message_release(message)
        return 0

    cdef int release_purged(self, size_t count) except -1:
        cdef Entry entry
        while count and self.purged.count:
            ring_pop_front(&self.purged, &entry)
            message_release(entry.message)
            count -= 1
        return 0

    # Paging.

    def keep_journal(self, Journal journal not None, bint stores) -> None:
        """From now on the journal is told. The queue has none yet, and holds nothing that it should know.

        stores: persistent messages are added to it; else it is asked for paging only.
        """
        assert self.journal is None
        self.journal = journal
        self.stores = stores

    def recover(self, size_t count, uint64_t size, uint64_t first, uint64_t last, uint64_t handed_through) -> None:
        """The journal holds `count` messages from before the process began, with bodies of `size` bytes, at positions from `first` to
        `last`; those up to `handed_through` come back as redelivered. The queue is empty and has not been used."""
        assert self.next_position == 1 and self.ready_count == 0
        self.handed_through = handed_through
        self.next_position = max(last, handed_through) + 1
        self.paged_count = self.ready_count = count
        self.paged_bytes = self.ready_bytes = size
        self.paged_first = first
        self.paged_last = last
        self.refill()

    cdef int page_out(self, size_t keep, uint64_t keep_bytes) except -1:
        """Let go of what the journal can bring back, but for the `keep` messages, with bodies of `keep_bytes`, that are next."""
        cdef size_t index = 0
        cdef size_t count
        cdef uint64_t size = 0
        cdef Entry entry
        if self.paged_count == 0:
            while index < self.ring.count and index < keep and size < keep_bytes:
                size += ring_at(&self.ring, index).message.body_size
                index += 1
            if self.heap.count or self.may_get_back():
                # What comes back to its place, or lies in the heap, must not be amid what is paged out.
                index = max(index, ring_rank(&self.ring, self.handed_through + 1))
            if index == self.ring.count:
                return 0
            ring_split(&self.ring, index, &self.tail)
            for index in range(self.tail.count):
                self.tail_bytes += ring_at(&self.tail, index).message.body_size
        size = 0
        count = self.journal.page_out(&self.tail, &size)
        if count:
            if self.paged_count == 0:
                self.paged_first = ring_at(&self.tail, 0).position
            self.paged_last = ring_at(&self.tail, count - 1).position
            self.paged_count += count
            self.paged_bytes += size
            self.tail_bytes -= size
            while count:
                ring_pop_front(&self.tail, &entry)
                message_release(entry.message)
                count -= 1
        elif self.paged_count == 0:
            self.join_tail()
        return 0

    cdef int refill(self) except -1:
        """Bring back the oldest of what is paged out, until enough of it is in memory for the next deliveries."""
        cdef Page page
        # Never fewer than two, so that one more can be taken and the queue still knows what is next.
        while self.paged_count and (self.ring.count < 2 or (
                self.ring.count < PAGE_IN_BELOW_MESSAGES
                and self.ready_bytes - self.paged_bytes - self.tail_bytes < PAGE_IN_BELOW_BYTES)):
            self.journal.page_in(self.paged_first, &self.ring, &page)
            assert page.count + page.lost <= self.paged_count and page.size <= self.paged_bytes
            self.paged_count -= page.count + page.lost
            self.paged_bytes -= page.size
            self.ready_count -= page.lost
            self.paged_first = page.last + 1
        if self.paged_count == 0:
            self.ready_bytes -= self.paged_bytes        # of those that were lost
            self.paged_bytes = 0
            self.join_tail()
        return 0

    cdef int join_tail(self) except -1:
        """Nothing is paged out: what came since follows the ring at once."""
        cdef Ring emptied
        cdef Entry entry
        self.tail_bytes = 0
        if self.ring.count == 0:
            emptied = self.ring
            self.ring = self.tail
            self.tail = emptied
        elif self.tail.count:
            ring_reserve(&self.ring, self.tail.count)
            while self.tail.count:
                ring_pop_front(&self.tail, &entry)
                ring_push_back(&self.ring, entry.message, entry.position, entry.expires_ms, entry.flags)
        return 0
