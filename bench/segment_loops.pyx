"""The loops of `bench/segments.py`: each runs one piece of the store's work many times in C, so that what is timed is the store's own cost.

Messages here have no owner to hold beyond a counter. Times are taken by the caller around the call.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.storage.queue_index cimport QueueIndex
from leveret.storage.segment_store cimport SegmentReader, SegmentStore


cdef class CountingStore(SegmentStore):
    """Counts how many messages it holds, and holds nothing."""

    cdef readonly long held

    cdef void keep(self, void* owner) noexcept:
        self.held += 1

    cdef void let_go(self, void* owner) noexcept:
        self.held -= 1


cdef class CountingReader(SegmentReader):
    cdef readonly uint64_t count

    cdef int take(self, uint64_t position, uint64_t note, const uint8_t* data, uint32_t size) except -1:
        self.count += 1
        return 0


def add_many(CountingStore store not None, QueueIndex queue not None, bytes data not None, uint64_t first, uint64_t count):
    """Positions `first` to `first + count - 1`, each a message of its own."""
    cdef uint64_t position
    for position in range(first, first + count):
        store.add(queue, position, 0, <const uint8_t*>data, <uint32_t>len(data), <uint32_t>len(data), <void*>(position + 1))


def settle_many(CountingStore store not None, QueueIndex queue not None, uint32_t body_size, uint64_t first, uint64_t last):
    """One by one, ascending."""
    cdef uint64_t position
    for position in range(first, last + 1):
        store.settle(queue, position, body_size)


def read_by_runs(CountingStore store not None, QueueIndex queue not None):
    """Everything that can be read, a run at a time. How many messages it were."""
    cdef CountingReader reader = CountingReader()
    cdef uint64_t first = 1
    cdef uint64_t last = store.run_end(queue, first)
    while last:
        store.read(queue, first, last, reader)
        first = last + 1
        last = store.run_end(queue, first)
    return reader.count
