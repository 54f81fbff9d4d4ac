"""A segment store that a Python test can drive, with messages in C memory of its own: it counts who holds them.

Only the tests use it. A block that is let go is overwritten before it is freed, so that a read too late shows up as wrong bytes.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from leveret.storage.queue_index cimport QueueIndex
from leveret.storage.segment_store cimport SegmentReader, SegmentStore

cdef struct Block:
    uint32_t references
    uint32_t size
    # Data follows.


cdef class RecordingReader(SegmentReader):
    """Notes each message as (position, note, data); calls `on_take(position)` after it."""

    cdef public list taken
    cdef public object on_take

    def __init__(self, on_take=None):
        self.taken = []
        self.on_take = on_take

    cdef int take(self, uint64_t position, uint64_t note, const uint8_t* data, uint32_t size) except -1:
        self.taken.append((position, note, data[:size]))
        if self.on_take is not None:
            self.on_take(position)
        return 0


cdef class RecordingStore(SegmentStore):
    """`blocks_held` is how many messages are in memory, for whatever reason."""

    cdef public long blocks_held
    cdef public long let_go_calls
    cdef public long keep_calls

    def __init__(self, log, segment_bytes=None, small_bytes=None, small_count_max=None, waste_bytes_max=None):
        super().__init__(log)
        if segment_bytes is not None:
            self.draft.segment_bytes = segment_bytes
        self.sweep.set_bounds(
            self.sweep.small_bytes if small_bytes is None else small_bytes,
            self.sweep.small_count_max if small_count_max is None else small_count_max,
            self.sweep.waste_bytes_max if waste_bytes_max is None else waste_bytes_max)

    cdef void keep(self, void* owner) noexcept:
        (<Block*>owner).references += 1
        self.keep_calls += 1

    cdef void let_go(self, void* owner) noexcept:
        self.let_go_calls += 1
        self.release(<Block*>owner)

    cdef void release(self, Block* block) noexcept:
        block.references -= 1
        if block.references == 0:
            memset(<uint8_t*>block + sizeof(Block), 0xDD, block.size)
            free(block)
            self.blocks_held -= 1

    def put(self, bytes data not None, list targets not None, body_size=None):
        """One message for some queues: targets are (queue, position, note). body_size: len(data) unless given."""
        cdef Block* block = <Block*>malloc(sizeof(Block) + len(data))
        cdef uint8_t* copy = <uint8_t*>block + sizeof(Block)
        cdef QueueIndex queue
        cdef uint32_t body = len(data) if body_size is None else body_size
        block.references = 1
        block.size = <uint32_t>len(data)
        memcpy(copy, <const uint8_t*>data, len(data))
        self.blocks_held += 1
        try:
            for queue, position, note in targets:
                self.add(queue, position, note, copy, block.size, body, block)
        finally:
            self.release(block)

    def put_unowned(self, bytes data not None, QueueIndex queue not None, uint64_t position):
        """A message whose memory needs no holding; the caller keeps `data`."""
        self.add(queue, position, 0, <const uint8_t*>data, <uint32_t>len(data), <uint32_t>len(data), NULL)

    def settle_one(self, QueueIndex queue not None, uint64_t position, uint32_t body_size):
        return bool(self.settle(queue, position, body_size))

    def settle_many(self, QueueIndex queue not None, uint64_t first, uint64_t last):
        return self.settle_range(queue, first, last)

    def forget_queue(self, QueueIndex queue not None):
        self.forget(queue)

    def mark_queue(self, QueueIndex queue not None, uint64_t delivered, uint64_t lease):
        self.mark(queue, delivered, lease)

    def fetch(self, QueueIndex queue not None, uint64_t first=1, uint64_t last=0xFFFFFFFFFFFFFFFE, on_take=None):
        """(position, note, data) of what can be read back."""
        reader = RecordingReader(on_take)
        count = self.read(queue, first, last, reader)
        assert count == len(reader.taken)
        return reader.taken

    def end_of_run(self, QueueIndex queue not None, uint64_t first):
        return self.run_end(queue, first)

    def busy(self):
        return bool(self.has_work())
