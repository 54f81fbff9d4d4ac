"""A growing ring of entries: what a queue holds ready, oldest first, one C struct an entry.

The queue owns it; nobody else touches it. Its entries are in strictly ascending order of position, from front to back. A ring moves
entries and never looks into a message: references are the queue's matter. Memory doubles when full and halves when 7/8 of it stand empty.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from leveret.queue.message cimport Message

cdef enum:
    RING_CAPACITY_MIN = 16

# Flags of an entry. The upper 24 bits count how often it has been handed out and come back.
cdef enum:
    ENTRY_REDELIVERED = 1
    ENTRY_STORED = 2            # the queue's journal has it
    ENTRY_EXPIRED = 4           # dead, and why; on its way to its dead letter exchange
    ENTRY_REJECTED = 8
    ENTRY_MAXLEN = 16
    ENTRY_DEATHS = 28           # these three
    ENTRY_RETURN_UNIT = 0x100
    ENTRY_RETURNS_MAX = 0xFFFFFF00

cdef struct Entry:
    Message* message
    uint64_t position           # order of arrival in this queue, from 1; kept when the entry comes back
    uint64_t expires_ms         # on the worker's monotonic clock, milliseconds; 0: never. Kept when the entry comes back
    uint32_t flags

cdef struct Ring:
    Entry* entries
    size_t head                 # where the front lies
    size_t count
    size_t capacity             # 0 or a power of two


cdef inline uint32_t entry_returned(uint32_t flags) noexcept:
    """The flags of an entry that has come back: redelivered, and counted once more (24 bits, then it stands still)."""
    if flags < <uint32_t>ENTRY_RETURNS_MAX:
        flags += ENTRY_RETURN_UNIT
    return flags | ENTRY_REDELIVERED


cdef inline Entry* ring_at(const Ring* ring, size_t index) noexcept:
    """The entry `index` places behind the front; index < count."""
    return &ring.entries[(ring.head + index) & (ring.capacity - 1)]


cdef inline int ring_resize(Ring* ring, size_t capacity) except -1:
    """Move all entries into a block for `capacity` of them, a power of two not below their count; MemoryError leaves the ring as it was."""
    assert capacity >= ring.count and capacity & (capacity - 1) == 0
    cdef Entry* entries = <Entry*>malloc(capacity * sizeof(Entry))
    cdef size_t first
    if entries == NULL:
        raise MemoryError("a queue's ring cannot grow")
    if ring.count:
        first = min(ring.count, ring.capacity - ring.head)
        memcpy(entries, ring.entries + ring.head, first * sizeof(Entry))
        memcpy(entries + first, ring.entries, (ring.count - first) * sizeof(Entry))
    free(ring.entries)
    ring.entries = entries
    ring.head = 0
    ring.capacity = capacity
    return 0


cdef inline int ring_reserve(Ring* ring, size_t more) except -1:
    """Make room for `more` entries, so that adding them cannot fail."""
    cdef size_t capacity = ring.capacity
    if ring.count + more <= capacity:
        return 0
    if capacity < RING_CAPACITY_MIN:
        capacity = RING_CAPACITY_MIN
    while capacity < ring.count + more:
        capacity *= 2
    return ring_resize(ring, capacity)


cdef inline int ring_push_back(Ring* ring, Message* message, uint64_t position, uint64_t expires_ms, uint32_t flags) except -1:
    """Add behind the last; `position` above every other in the ring."""
    cdef Entry* entry
    if ring.count == ring.capacity:
        ring_reserve(ring, 1)
    assert ring.count == 0 or ring_at(ring, ring.count - 1).position < position
    entry = ring_at(ring, ring.count)
    entry.message = message
    entry.position = position
    entry.expires_ms = expires_ms
    entry.flags = flags
    ring.count += 1
    return 0


cdef inline int ring_push_front(Ring* ring, const Entry* entry) except -1:
    """Add before the first; its position is below every other in the ring."""
    if ring.count == ring.capacity:
        ring_reserve(ring, 1)
    assert ring.count == 0 or ring_at(ring, 0).position > entry.position
    ring.head = (ring.head - 1) & (ring.capacity - 1)
    ring.entries[ring.head] = entry[0]
    ring.count += 1
    return 0


cdef inline int ring_shrink(Ring* ring) except -1:
    """Halve the block, while 7/8 of it stand empty."""
    cdef size_t capacity = ring.capacity
    while capacity > RING_CAPACITY_MIN and ring.count * 8 <= capacity:
        capacity //= 2
    if capacity == ring.capacity:
        return 0
    try:
        ring_resize(ring, capacity)
    except MemoryError:     # the large block goes on serving
        pass
    return 0


cdef inline int ring_pop_front(Ring* ring, Entry* entry) except -1:
    """Move the oldest to `entry`; count > 0."""
    assert ring.count > 0
    entry[0] = ring.entries[ring.head]
    ring.head = (ring.head + 1) & (ring.capacity - 1)
    ring.count -= 1
    if ring.count * 8 <= ring.capacity and ring.capacity > RING_CAPACITY_MIN:
        ring_shrink(ring)
    return 0


cdef inline int ring_split(Ring* ring, size_t index, Ring* rest) except -1:
    """Move the entries from `index` on to `rest`, which is empty; MemoryError leaves both as they were."""
    cdef size_t place
    assert rest.count == 0 and index <= ring.count
    ring_reserve(rest, ring.count - index)
    for place in range(index, ring.count):
        ring_at(rest, place - index)[0] = ring_at(ring, place)[0]
    rest.count = ring.count - index
    ring.count = index
    ring_shrink(ring)
    return 0


cdef inline size_t ring_rank(const Ring* ring, uint64_t position) noexcept:
    """How many entries are older than `position`."""
    cdef size_t low = 0
    cdef size_t high = ring.count
    cdef size_t middle
    while low < high:
        middle = (low + high) // 2
        if ring_at(ring, middle).position < position:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline size_t ring_merge_cost(const Ring* ring, const Entry* run, size_t count) noexcept:
    """How many entries of the ring `ring_merge` would move for this run."""
    cdef size_t older = ring_rank(ring, run[count - 1].position)
    cdef size_t newer = ring.count - ring_rank(ring, run[0].position)
    return min(older, newer)


cdef inline int ring_merge(Ring* ring, const Entry* run, size_t count) except -1:
    """Put `count` (> 0) entries, ascending by position, into their places; MemoryError leaves the ring as it was.

    Only the entries on one side of the run move, those before its last or those behind its first, whichever are fewer.
    """
    cdef size_t older = ring_rank(ring, run[count - 1].position)
    cdef size_t newer = ring.count - ring_rank(ring, run[0].position)
    cdef size_t place, source, taken
    ring_reserve(ring, count)
    if older <= newer:
        ring.head = (ring.head - count) & (ring.capacity - 1)
        ring.count += count
        place = 0
        source = count
        taken = 0
        while taken < count:
            if source < count + older and ring_at(ring, source).position < run[taken].position:
                ring_at(ring, place)[0] = ring_at(ring, source)[0]
                source += 1
            else:
                ring_at(ring, place)[0] = run[taken]
                taken += 1
            place += 1
        return 0
    source = ring.count         # one above the next to move, as are `place` and `taken`
    ring.count += count
    place = ring.count
    taken = count
    while taken > 0:
        if source > 0 and ring_at(ring, source - 1).position > run[taken - 1].position:
            ring_at(ring, place - 1)[0] = ring_at(ring, source - 1)[0]
            source -= 1
        else:
            ring_at(ring, place - 1)[0] = run[taken - 1]
            taken -= 1
        place -= 1
    return 0


cdef inline void ring_free(Ring* ring) noexcept:
    """Give the block back. The entries' references are the caller's matter."""
    free(ring.entries)
    ring.entries = NULL
    ring.head = ring.count = ring.capacity = 0
