"""A shard's store with messages in it: how a message becomes the segment store's bytes, and bytes a message.

A stored message is what a packet carries (`leveret.queue.message`, from `properties_size` on); its note is the wall-clock time in
milliseconds at which it expires, or 0. In memory that time is on the monotonic clock: the two differ by what they differed when the process
began, so a wall clock that is put forward or back while the broker runs expires nothing. It knows no queue and starts no commit:
`leveret.worker.queue_journal` says what goes in, `leveret.worker.committer` when it is written.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from leveret.queue.message cimport (
    MESSAGE_HEAD_SIZE,
    MESSAGE_WIRE_OFFSET,
    Message,
    message_from_wire,
    message_release,
    message_retain,
    message_size,
)
from leveret.queue.ring cimport ENTRY_REDELIVERED, Entry, Ring, ring_push_back, ring_reserve
from leveret.storage.segment_store cimport QueueIndex

import time

from leveret.storage.environment import DamagedSegment


def wall_offset_ms():
    """The wall clock minus the monotonic one, milliseconds."""
    return (time.time_ns() - time.monotonic_ns()) // 1_000_000


cdef class MessageStore(SegmentStore):
    """shard: its number, -1 for the scratch store; wall_offset_ms: see the function of that name."""

    def __init__(self, log, int shard, int64_t wall_offset_ms):
        super().__init__(log)
        self.shard = shard
        self.wall_offset_ms = wall_offset_ms

    cdef void keep(self, void* owner) noexcept:
        message_retain(<Message*>owner)

    cdef void let_go(self, void* owner) noexcept:
        message_release(<Message*>owner)

    def drop(self, QueueIndex queue not None):
        """Forget a queue that nobody knows any more, and all of its messages."""
        self.forget(queue)

    cdef int add_message(self, QueueIndex queue, uint64_t position, uint64_t expires_ms, Message* message) except -1:
        return self.add(
            queue, position, expires_ms + self.wall_offset_ms if expires_ms else 0, <uint8_t*>message + MESSAGE_WIRE_OFFSET,
            <uint32_t>(message_size(message) - MESSAGE_WIRE_OFFSET), message.body_size, <void*>message)


cdef class MessageReader(SegmentReader):
    """Makes messages of what is read, and keeps them until `move_to`."""

    def __dealloc__(self):
        cdef size_t index
        for index in range(self.count):
            message_release(self.entries[index].message)
        free(self.entries)

    cdef int take(self, uint64_t position, uint64_t note, const uint8_t* data, uint32_t size) except -1:
        cdef Entry* entry
        cdef Entry* grown
        cdef size_t capacity
        if self.count == self.capacity:
            capacity = max(<size_t>64, 2 * self.capacity)
            grown = <Entry*>realloc(self.entries, capacity * sizeof(Entry))
            if grown == NULL:
                raise MemoryError("no memory to read messages back")
            self.entries = grown
            self.capacity = capacity
        # Told apart from a lack of memory: damage loses the message, and a lack of memory must not.
        if (size < MESSAGE_HEAD_SIZE - MESSAGE_WIRE_OFFSET
                or message_size(<const Message*>(data - MESSAGE_WIRE_OFFSET)) != <size_t>size + MESSAGE_WIRE_OFFSET):
            raise DamagedSegment(f"the stored message at position {position} is damaged")
        entry = &self.entries[self.count]
        entry.message = message_from_wire(data, size)
        if entry.message == NULL:
            raise MemoryError(f"no memory for a stored message of {size} bytes")
        entry.position = position
        # One that expired while the broker was down may lie before the monotonic clock's beginning.
        entry.expires_ms = <uint64_t>max(<int64_t>note - self.wall_offset_ms, <int64_t>1) if note else 0
        entry.flags = 0
        self.count += 1
        return 0

    cdef int move_to(self, Ring* ring, uint32_t flags, uint64_t redelivered_through) except -1:
        """Add all of them, with their references, behind the last of the ring. MemoryError: none."""
        cdef size_t index
        ring_reserve(ring, self.count)
        for index in range(self.count):
            ring_push_back(
                ring, self.entries[index].message, self.entries[index].position, self.entries[index].expires_ms,
                self.entries[index].flags | (ENTRY_REDELIVERED if self.entries[index].position <= redelivered_through else 0))
        self.count = 0
        return 0
