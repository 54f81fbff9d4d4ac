"""A binary heap of entries by position: those that came back to a place amid the ring, where moving its entries would cost too much.

The queue owns it and takes its next entry from the heap or from the ring, whichever has the older one. It is empty in ordinary traffic:
a requeue goes into the ring unless it would move many more entries than it brings (`leveret.queue.queue`, `put_back`), which a client can
provoke by giving messages back one by one in a bad order. With the heap each costs at most the logarithm of their number.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc

from leveret.queue.ring cimport Entry

cdef enum:
    HEAP_CAPACITY_MIN = 16

cdef struct Heap:
    Entry* entries              # entries[0] is the oldest; the children of i are 2i + 1 and 2i + 2
    size_t count
    size_t capacity


cdef inline int heap_reserve(Heap* heap, size_t more) except -1:
    """Make room for `more` entries, so that adding them cannot fail."""
    cdef size_t capacity = heap.capacity
    cdef Entry* entries
    if heap.count + more <= capacity:
        return 0
    if capacity < HEAP_CAPACITY_MIN:
        capacity = HEAP_CAPACITY_MIN
    while capacity < heap.count + more:
        capacity *= 2
    entries = <Entry*>realloc(heap.entries, capacity * sizeof(Entry))
    if entries == NULL:
        raise MemoryError("a queue's heap of returned messages cannot grow")
    heap.entries = entries
    heap.capacity = capacity
    return 0


cdef inline int heap_push(Heap* heap, const Entry* entry) except -1:
    cdef size_t place = heap.count
    cdef size_t parent
    if place == heap.capacity:
        heap_reserve(heap, 1)
    heap.count += 1
    while place > 0:
        parent = (place - 1) // 2
        if heap.entries[parent].position < entry.position:
            break
        heap.entries[place] = heap.entries[parent]
        place = parent
    heap.entries[place] = entry[0]
    return 0


cdef inline void heap_free(Heap* heap) noexcept:
    """Give the block back. The entries' references are the caller's matter."""
    free(heap.entries)
    heap.entries = NULL
    heap.count = heap.capacity = 0


cdef inline int heap_pop(Heap* heap, Entry* entry) except -1:
    """Move the oldest to `entry`; count > 0. The block is given back with the last one."""
    assert heap.count > 0
    cdef Entry* entries = heap.entries
    cdef Entry last
    cdef uint64_t position
    cdef size_t place = 0
    cdef size_t child
    entry[0] = entries[0]
    heap.count -= 1
    if heap.count == 0:
        heap_free(heap)
        return 0
    last = entries[heap.count]
    position = last.position
    while True:
        child = 2 * place + 1
        if child >= heap.count:
            break
        if child + 1 < heap.count and entries[child + 1].position < entries[child].position:
            child += 1
        if position < entries[child].position:
            break
        entries[place] = entries[child]
        place = child
    entries[place] = last
    return 0
