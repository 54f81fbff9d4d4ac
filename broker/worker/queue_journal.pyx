"""The journal of one queue: its durable messages go into its shard's store, and what memory has no room for into that or the scratch store.

Made by `leveret.worker.worker` with the queue, called by the queue (`leveret.queue.journal` says when) and, after each commit, by the
committer. It commits nothing itself but scratch, which waits for no disk and is wiped at every start.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport qsort

from leveret.queue.journal cimport Page
from leveret.queue.message cimport Message, message_size
from leveret.queue.ring cimport ENTRY_STORED, Entry, Ring, ring_at
from leveret.storage.segment_store cimport QueueIndex
from leveret.worker.committer cimport LEASE, Committer
from leveret.worker.message_store cimport MessageReader, MessageStore
from leveret.worker.state cimport ShardQueue

import logging
import time

from leveret.storage.environment import DamagedSegment

log = logging.getLogger(__name__)


cdef int by_position(const void* left, const void* right) noexcept nogil:
    cdef uint64_t left_position = (<const Entry*>left).position
    cdef uint64_t right_position = (<const Entry*>right).position
    return -1 if left_position < right_position else left_position > right_position


cdef class QueueJournal(Journal):
    """store and index: where the queue's durable messages are; None for a queue without any."""

    def __init__(self, ShardQueue queue not None, Committer committer not None, MessageStore store, QueueIndex index):
        self.queue = queue
        self.committer = committer
        self.store = store
        self.index = index

    # --- from the queue

    cdef int add(self, uint64_t position, uint64_t expires_ms, Message* message) except -1:
        self.store.add_message(self.index, position, expires_ms, message)
        if not self.crowded and (
                self.queue.paged_count
                or self.queue.ready_count > CROWDED_MESSAGES
                or self.queue.ready_bytes > CROWDED_BYTES):
            self.crowded = True
            self.committer.crowded.append(self)
        return self.committer.want_message(message_size(message))

    cdef int settle(self, uint64_t position, Message* message) except -1:
        self.store.settle(self.index, position, message.body_size)
        return self.committer.want_soon()

    cdef int expect(self, bint somebody) except -1:
        if self.store is None:
            return 0
        # As if it had handed out just now, and a lease is written; or not for long, and the exact place is.
        self.marked_at_ms = time.monotonic_ns() // 1_000_000 if somebody else 0
        if self.queue.marked:
            return 0
        self.queue.marked = True
        return self.mark()

    cdef int mark(self) except -1:
        if self.store is None:
            return 0
        self.committer.marked.append(self)
        if self.index.lease >= self.queue.handed_through + LEASE // 2:      # what is on the disk says so already
            return self.committer.want_soon()
        return self.committer.want()

    cdef size_t page_out(self, Ring* ring, uint64_t* size) except? 0:
        """What is on the disk may go. What is not durable is written to the scratch store first, a few megabytes at a time."""
        cdef size_t count = 0
        cdef size_t written = 0
        cdef uint64_t scratched = 0
        cdef uint64_t highest = 0           # of what the scratch store has of the queue
        cdef Entry* entry
        cdef MessageStore scratch = None
        while count < ring.count and scratched < SCRATCH_STEP_BYTES:
            entry = ring_at(ring, count)
            if entry.flags & ENTRY_STORED and entry.position > self.index.stored_through:
                break
            # A message that was refused because the disk was full is not in the store, whatever its flag says.
            if not entry.flags & ENTRY_STORED or (self.committer.commits_failed and not self.store.holds(self.index, entry.position)):
                if scratch is None:
                    scratch = self.committer.need_scratch()
                    if scratch is None:
                        break
                    if self.scratch is None:
                        self.scratch = scratch.open_queue(self.queue.id)
                    written = count
                    highest = self.scratch.highest
                scratch.add_message(self.scratch, entry.position, entry.expires_ms, entry.message)
                scratched += entry.message.body_size + 64
            count += 1
        if scratch is not None and not self.committer.write_scratch():
            count = written
            self.scratch.highest = highest      # they stay in memory, and are tried again
        size[0] = 0
        for written in range(count):
            size[0] += ring_at(ring, written).message.body_size
        return count

    cdef int page_in(self, uint64_t first, Ring* into, Page* page) except -1:
        cdef MessageReader reader = MessageReader()
        cdef MessageStore scratch = self.committer.scratch
        cdef uint64_t last = 0
        cdef uint64_t end
        cdef uint64_t damaged = 0           # from here on the store's part cannot be read
        cdef size_t durable
        cdef size_t index
        reader.wall_offset_ms = self.committer.wall_offset_ms
        if self.index is not None:
            last = self.store.run_end(self.index, first)
        if self.scratch is not None:
            end = scratch.run_end(self.scratch, first)
            if end and (last == 0 or end < last):
                last = end
        last = min(last, self.queue.paged_last)
        page.lost = 0
        if last < first:
            last = self.queue.paged_last
            page.lost = self.queue.paged_count
            log.error("%d messages of queue '%s' in vhost '%s' are lost: the store does not have them",
                      page.lost, self.queue.name, self.queue.vhost)
        try:
            if self.index is not None:
                try:
                    self.store.read(self.index, first, last, reader)
                except DamagedSegment as error:
                    damaged = reader.entries[reader.count - 1].position + 1 if reader.count else first
                    page.lost = self.store.settle_range(self.index, damaged, last)
                    log.error("%d messages of queue '%s' in vhost '%s' are lost: %s",
                              page.lost, self.queue.name, self.queue.vhost, error)
            durable = reader.count
            for index in range(durable):
                reader.entries[index].flags = ENTRY_STORED
            if self.scratch is not None:
                scratch.read(self.scratch, first, last, reader)
        except Exception as error:
            raise self.committer.fail(error) from error
        if durable and reader.count > durable:
            qsort(reader.entries, reader.count, sizeof(Entry), by_position)
        page.count = reader.count
        page.size = 0
        page.last = last
        for index in range(reader.count):
            page.size += reader.entries[index].message.body_size
        reader.move_to(into, 0, self.queue.handed_through)
        if page.count > durable:
            scratch.settle_range(self.scratch, first, last)
        return 0

    cdef int drop_pages(self, uint64_t first, uint64_t last) except -1:
        if self.index is not None:
            self.store.settle_range(self.index, first, last)
        if self.scratch is not None:
            self.committer.scratch.settle_range(self.scratch, first, last)
        return self.committer.want()

    # --- from the committer and the worker

    cdef int relieve(self) except -1:
        """The queue holds much, and a commit has gone by since: let go of what can be read again."""
        self.crowded = False
        return self.queue.page_out(KEEP_MESSAGES, KEEP_BYTES)

    def forget(self):
        """The queue is deleted, and everything of it with it."""
        if self.index is not None:
            self.store.forget(self.index)
            self.committer.want()
        if self.scratch is not None:
            self.committer.scratch.forget(self.scratch)
