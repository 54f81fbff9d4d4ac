"""Python faces on the C structures below a queue, for tests that compare them with a list or a dict. Nothing here holds a message."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from leveret.queue.heap cimport Heap, heap_free, heap_pop, heap_push
from leveret.queue.ledger cimport Ledger, Slot, ledger_append, ledger_erase, ledger_find, ledger_free, ledger_seek, ledger_tidy
from leveret.queue.ring cimport (
    Entry,
    Ring,
    entry_returned,
    ring_at,
    ring_free,
    ring_merge,
    ring_merge_cost,
    ring_pop_front,
    ring_push_back,
    ring_push_front,
)


cdef class OpenRing:
    """A ring of bare positions."""

    cdef Ring ring

    def __dealloc__(self):
        ring_free(&self.ring)

    def push_back(self, uint64_t position):
        ring_push_back(&self.ring, NULL, position, 0, 0)

    def push_front(self, uint64_t position):
        cdef Entry entry = Entry(NULL, position, 0, 0)
        ring_push_front(&self.ring, &entry)

    def pop_front(self):
        cdef Entry entry
        ring_pop_front(&self.ring, &entry)
        return entry.position

    def merge(self, list positions):
        """Merge an ascending run; returns the cost that was foretold."""
        cdef size_t count = len(positions)
        cdef Entry* run = <Entry*>malloc(count * sizeof(Entry))
        cdef size_t index, cost
        for index in range(count):
            run[index] = Entry(NULL, positions[index], 0, 0)
        cost = ring_merge_cost(&self.ring, run, count)
        ring_merge(&self.ring, run, count)
        free(run)
        return cost

    def positions(self):
        cdef size_t index
        return [ring_at(&self.ring, index).position for index in range(self.ring.count)]

    @property
    def capacity(self):
        return self.ring.capacity


cdef class OpenHeap:
    """A heap of bare positions."""

    cdef Heap heap

    def __dealloc__(self):
        heap_free(&self.heap)

    def push(self, uint64_t position):
        cdef Entry entry = Entry(NULL, position, 0, 0)
        heap_push(&self.heap, &entry)

    def pop(self):
        cdef Entry entry
        heap_pop(&self.heap, &entry)
        return entry.position

    def __len__(self):
        return self.heap.count

    @property
    def capacity(self):
        return self.heap.capacity


cdef class OpenLedger:
    """A ledger whose numbers are its payload; items are only not NULL."""

    cdef Ledger ledger

    def __dealloc__(self):
        ledger_free(&self.ledger)

    def append(self, uint64_t key, uint64_t number):
        ledger_append(&self.ledger, key, <void*>self, number, 0, 0)

    def find(self, uint64_t key):
        cdef Slot* slot = ledger_find(&self.ledger, key)
        return None if slot == NULL else slot.number

    def erase(self, uint64_t first, uint64_t last):
        """Erase a range of keys as a settle does; the numbers that were there, in order."""
        cdef size_t index = ledger_seek(&self.ledger, first)
        erased = []
        while index < self.ledger.tail and self.ledger.slots[index].key <= last:
            if self.ledger.slots[index].item != NULL:
                erased.append(self.ledger.slots[index].number)
                ledger_erase(&self.ledger, &self.ledger.slots[index])
            index += 1
        ledger_tidy(&self.ledger)
        return erased

    def keys(self):
        cdef size_t index
        return [self.ledger.slots[index].key for index in range(self.ledger.head, self.ledger.tail)
                if self.ledger.slots[index].item != NULL]

    def __len__(self):
        return self.ledger.live

    @property
    def span(self):
        return self.ledger.tail - self.ledger.head

    @property
    def capacity(self):
        return self.ledger.capacity


def flags_returned(uint32_t flags):
    return entry_returned(flags)
