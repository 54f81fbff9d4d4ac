"""A hash map from 64-bit integers (never 0) to 64-bit values, as a C struct: ids to what stands behind them.

Open addressing with linear probing, at most half full, so that a look-up is a multiplication and a cache line or two. Keys are our own
(ids that the router gave out), so the hash need not resist a chosen key; for bytes that come from clients there is `byte_map`. A map of
zeros is an empty map. Whoever embeds one frees it (`integer_map_free`).
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef struct IntegerSlot:
    uint64_t key        # 0: free
    uint64_t value

cdef struct IntegerMap:
    IntegerSlot* slots
    size_t capacity     # a power of two, or 0
    size_t count


cdef inline size_t integer_map_home(const IntegerMap* map, uint64_t key) noexcept nogil:
    return <size_t>((key * <uint64_t>0x9E3779B97F4A7C15) >> 29) & (map.capacity - 1)


cdef inline uint64_t* integer_map_find(const IntegerMap* map, uint64_t key) noexcept nogil:
    """Where the value of `key` stands, until the next change of the map; NULL when there is none."""
    cdef size_t at
    if map.count == 0:
        return NULL
    at = integer_map_home(map, key)
    while map.slots[at].key:
        if map.slots[at].key == key:
            return &map.slots[at].value
        at = (at + 1) & (map.capacity - 1)
    return NULL


cdef inline int integer_map_set(IntegerMap* map, uint64_t key, uint64_t value) except -1 nogil:
    cdef size_t at, old_capacity = map.capacity
    cdef IntegerSlot* old = map.slots
    cdef IntegerSlot* grown
    cdef uint64_t* found = integer_map_find(map, key)
    if found != NULL:
        found[0] = value
        return 0
    if (map.count + 1) * 2 > map.capacity:
        grown = <IntegerSlot*>calloc(old_capacity * 2 if old_capacity else 8, sizeof(IntegerSlot))
        if grown == NULL:
            with gil:
                raise MemoryError()
        map.slots = grown
        map.capacity = old_capacity * 2 if old_capacity else 8
        for at in range(old_capacity):
            if old[at].key:
                integer_map_place(map, old[at].key, old[at].value)
        free(old)
    integer_map_place(map, key, value)
    map.count += 1
    return 0


cdef inline void integer_map_place(IntegerMap* map, uint64_t key, uint64_t value) noexcept nogil:
    """Put a key that is not there into a map that has room."""
    cdef size_t at = integer_map_home(map, key)
    while map.slots[at].key:
        at = (at + 1) & (map.capacity - 1)
    map.slots[at].key = key
    map.slots[at].value = value


cdef inline bint integer_map_remove(IntegerMap* map, uint64_t key) noexcept nogil:
    """Whether the key was there."""
    cdef size_t hole, at, home
    cdef uint64_t* found = integer_map_find(map, key)
    if found == NULL:
        return False
    hole = (<size_t>found - <size_t>map.slots) // sizeof(IntegerSlot)
    at = hole
    while True:
        # Pull back whatever probed past the hole, so that no tombstones are needed.
        at = (at + 1) & (map.capacity - 1)
        if map.slots[at].key == 0:
            break
        home = integer_map_home(map, map.slots[at].key)
        if ((at - home) & (map.capacity - 1)) >= ((at - hole) & (map.capacity - 1)):
            map.slots[hole] = map.slots[at]
            hole = at
    map.slots[hole].key = 0
    map.count -= 1
    return True


cdef inline void integer_map_clear(IntegerMap* map) noexcept nogil:
    """Empty, keeping the memory."""
    if map.count:
        memset(map.slots, 0, map.capacity * sizeof(IntegerSlot))
        map.count = 0


cdef inline void integer_map_free(IntegerMap* map) noexcept nogil:
    free(map.slots)
    map.slots = NULL
    map.capacity = 0
    map.count = 0
