"""The destinations of one binding key, as a C struct: an array to walk when routing, and a use count for each.

A destination is a queue's or an exchange's id in a 64-bit word (`DESTINATION_EXCHANGE` set: an exchange). The same destination may be bound
several times under one key (with different arguments, or by patterns that mean the same); it stands in the array once and goes with its
last binding. From `INDEXED_FROM` members on a hash index finds a member, so that a fanout to 100,000 queues takes bindings off in constant
time.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from leveret.lookup.integer_map cimport (
    IntegerMap, integer_map_find, integer_map_free, integer_map_remove, integer_map_set,
)

cdef enum:
    INDEXED_FROM = 32

cdef struct DestinationSet:
    uint64_t* destinations
    uint32_t* uses
    uint32_t count
    uint32_t capacity
    IntegerMap index        # destination -> its place + 1, once there are INDEXED_FROM of them


cdef inline Py_ssize_t destination_set_place(const DestinationSet* set, uint64_t destination) noexcept nogil:
    """The destination's place in the array, or -1."""
    cdef uint32_t at
    cdef uint64_t* found
    if set.index.count:
        found = integer_map_find(&set.index, destination)
        return <Py_ssize_t>found[0] - 1 if found != NULL else -1
    for at in range(set.count):
        if set.destinations[at] == destination:
            return at
    return -1


cdef inline int destination_set_add(DestinationSet* set, uint64_t destination) except -1 nogil:
    cdef Py_ssize_t place = destination_set_place(set, destination)
    cdef uint32_t at, capacity
    cdef void* moved
    if place >= 0:
        set.uses[place] += 1
        return 0
    if set.count == set.capacity:
        capacity = set.capacity * 2 if set.capacity else 2
        moved = realloc(set.destinations, capacity * sizeof(uint64_t))
        if moved != NULL:
            set.destinations = <uint64_t*>moved
            moved = realloc(set.uses, capacity * sizeof(uint32_t))
        if moved == NULL:
            with gil:
                raise MemoryError()
        set.uses = <uint32_t*>moved
        set.capacity = capacity
    set.destinations[set.count] = destination
    set.uses[set.count] = 1
    set.count += 1
    if set.index.count:
        integer_map_set(&set.index, destination, set.count)
    elif set.count == INDEXED_FROM:
        for at in range(set.count):
            integer_map_set(&set.index, set.destinations[at], at + 1)
    return 0


cdef inline bint destination_set_remove(DestinationSet* set, uint64_t destination) noexcept nogil:
    """Take one use off; whether it was there."""
    cdef Py_ssize_t place = destination_set_place(set, destination)
    cdef uint64_t* last
    if place < 0:
        return False
    set.uses[place] -= 1
    if set.uses[place]:
        return True
    set.count -= 1
    if set.index.count:
        last = integer_map_find(&set.index, set.destinations[set.count])
        last[0] = place + 1
        integer_map_remove(&set.index, destination)
    set.destinations[place] = set.destinations[set.count]
    set.uses[place] = set.uses[set.count]
    if set.count == 0:
        destination_set_free(set)
    return True


cdef inline void destination_set_free(DestinationSet* set) noexcept nogil:
    free(set.destinations)
    free(set.uses)
    integer_map_free(&set.index)
    set.destinations = NULL
    set.uses = NULL
    set.count = 0
    set.capacity = 0
