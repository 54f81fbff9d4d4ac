"""An ascending ledger: what has been handed out and is not yet settled, under strictly ascending 64-bit keys.

A consumer keeps its unacked messages in one (key: delivery number), a channel its delivery tags. The owner of the ledger gives `item` its
meaning and holds whatever reference that implies; the ledger only keeps slots in order. Appending is O(1), finding is O(1) while the keys
run without gaps and a binary search otherwise.

An erased slot stays as a hole (`item` NULL) until `ledger_tidy`, which drops the holes in front and, when there are more than live + 64
of them, closes the gaps. So one slot that is never settled, with millions settled after it, costs a few kilobytes and no time.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

cdef enum:
    LEDGER_CAPACITY_MIN = 8
    LEDGER_CAPACITY_KEPT = 256  # an empty ledger gives a larger block back
    LEDGER_HOLES_MAX = 64       # more than the live slots

cdef struct Slot:
    uint64_t key
    void* item                  # NULL: a hole
    uint64_t number
    uint64_t expires_ms         # a deadline that goes with the item; 0: none
    uint32_t flags

cdef struct Ledger:
    Slot* slots                 # those from head to tail - 1 count
    size_t head
    size_t tail
    size_t capacity
    size_t live                 # slots that are not holes


cdef inline int ledger_move(Ledger* ledger, size_t capacity) except -1:
    """Move the slots to the start of a new block of `capacity`; MemoryError leaves all as it was."""
    cdef size_t span = ledger.tail - ledger.head
    cdef Slot* slots = <Slot*>malloc(capacity * sizeof(Slot))
    if slots == NULL:
        raise MemoryError("a ledger of unsettled deliveries cannot grow")
    if span:
        memcpy(slots, ledger.slots + ledger.head, span * sizeof(Slot))
    free(ledger.slots)
    ledger.slots = slots
    ledger.head = 0
    ledger.tail = span
    ledger.capacity = capacity
    return 0


cdef inline int ledger_make_room(Ledger* ledger) except -1:
    cdef size_t span = ledger.tail - ledger.head
    if span and span <= ledger.capacity // 2:
        memmove(ledger.slots, ledger.slots + ledger.head, span * sizeof(Slot))
        ledger.head = 0
        ledger.tail = span
        return 0
    return ledger_move(ledger, max(<size_t>LEDGER_CAPACITY_MIN, ledger.capacity * 2))


cdef inline int ledger_reserve(Ledger* ledger) except -1:
    """Make room for one slot, so that the next append cannot fail."""
    if ledger.tail == ledger.capacity:
        return ledger_make_room(ledger)
    return 0


cdef inline int ledger_append(
    Ledger* ledger, uint64_t key, void* item, uint64_t number, uint64_t expires_ms, uint32_t flags,
) except -1:
    """Add a slot; `key` above every earlier one, `item` not NULL. MemoryError leaves the ledger as it was."""
    cdef Slot* slot
    ledger_reserve(ledger)
    assert item != NULL and (ledger.head == ledger.tail or ledger.slots[ledger.tail - 1].key < key)
    slot = &ledger.slots[ledger.tail]
    slot.key = key
    slot.item = item
    slot.number = number
    slot.expires_ms = expires_ms
    slot.flags = flags
    ledger.tail += 1
    ledger.live += 1
    return 0


cdef inline size_t ledger_seek(const Ledger* ledger, uint64_t key) noexcept:
    """Index of the first slot (it may be a hole) whose key is `key` or above; `tail` if there is none.

    To visit the live slots of a range of keys: go on from here while index < tail and slots[index].key <= last, skipping holes.
    """
    cdef size_t low, high, middle
    cdef uint64_t first, last
    if ledger.head == ledger.tail:
        return ledger.tail
    low = ledger.head
    high = ledger.tail - 1
    first = ledger.slots[low].key
    last = ledger.slots[high].key
    if key <= first:
        return low
    if key > last:
        return ledger.tail
    # Keys are distinct and ascending, so the slot lies at most as many places from either end as the keys differ; without gaps these
    # two bounds meet.
    if last - key < high - low:
        low = high - <size_t>(last - key)
    if key - first < high - ledger.head:
        high = ledger.head + <size_t>(key - first)
    while low < high:
        middle = (low + high) // 2
        if ledger.slots[middle].key < key:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline Slot* ledger_find(const Ledger* ledger, uint64_t key) noexcept:
    """The live slot with that key, or NULL. Good until the next append or tidy."""
    cdef size_t index = ledger_seek(ledger, key)
    if index == ledger.tail or ledger.slots[index].key != key or ledger.slots[index].item == NULL:
        return NULL
    return &ledger.slots[index]


cdef inline void ledger_erase(Ledger* ledger, Slot* slot) noexcept:
    """Turn a live slot into a hole. Nothing moves; call `ledger_tidy` after the last of a row."""
    slot.item = NULL
    ledger.live -= 1


cdef inline int ledger_retract(Ledger* ledger) except -1:
    """Undo the latest append, whose slot is live and still the last: its key may be given again."""
    assert ledger.tail > ledger.head and ledger.slots[ledger.tail - 1].item != NULL
    ledger.tail -= 1
    ledger.live -= 1
    return 0


cdef inline void ledger_close_gaps(Ledger* ledger) noexcept:
    cdef Slot* slots = ledger.slots
    cdef size_t source
    cdef size_t place = 0
    for source in range(ledger.head, ledger.tail):
        if slots[source].item != NULL:
            if place != source:
                slots[place] = slots[source]
            place += 1
    ledger.head = 0
    ledger.tail = place


cdef inline void ledger_shrink(Ledger* ledger) noexcept:
    """Halve the block until less than 7/8 of it stand empty."""
    cdef size_t span = ledger.tail - ledger.head
    cdef size_t capacity = ledger.capacity
    cdef Slot* slots
    while capacity > LEDGER_CAPACITY_KEPT and span * 8 < capacity:
        capacity //= 2
    if ledger.head:
        memmove(ledger.slots, ledger.slots + ledger.head, span * sizeof(Slot))
        ledger.head = 0
        ledger.tail = span
    slots = <Slot*>realloc(ledger.slots, capacity * sizeof(Slot))
    if slots != NULL:           # otherwise the large block goes on serving
        ledger.slots = slots
        ledger.capacity = capacity


cdef inline void ledger_tidy(Ledger* ledger) noexcept:
    """Drop the holes in front; close the gaps when the holes outnumber the live slots by more than 64; give memory back."""
    cdef size_t span
    while ledger.head < ledger.tail and ledger.slots[ledger.head].item == NULL:
        ledger.head += 1
    span = ledger.tail - ledger.head
    if span == 0:
        ledger.head = ledger.tail = 0
    elif span - ledger.live > ledger.live + LEDGER_HOLES_MAX:
        ledger_close_gaps(ledger)
        span = ledger.live
    if ledger.capacity > LEDGER_CAPACITY_KEPT and span * 8 < ledger.capacity:
        ledger_shrink(ledger)


cdef inline void ledger_free(Ledger* ledger) noexcept:
    """Give the block back. What the items refer to is the caller's matter."""
    free(ledger.slots)
    ledger.slots = NULL
    ledger.head = ledger.tail = ledger.capacity = ledger.live = 0
