"""One segment in memory, and a cursor over its value: plain C but for the value itself.

The segment store owns every segment; the indexes of queues point into them. Nothing here touches the log. `layout.py` has the bytes that
the cursor reads; whoever drives it says what damage means.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from *:
    int popcount "__builtin_popcountll"(unsigned long long word) noexcept nogil

cdef enum:
    MESSAGE_HEAD_SIZE = 10
    TARGET_SIZE = 14

cdef enum:
    SEGMENT_FLYING = 1          # its first commit is under way
    SEGMENT_DIRTY = 2           # in SegmentStore.dirty
    SEGMENT_DEAD = 4            # in SegmentStore.dead, or its removal is under way
    SEGMENT_MOVING = 8          # the batch under way writes a copy of it and removes it
    SEGMENT_TOUCHED = 16        # settled in while it was moving
    SEGMENT_CANDIDATE = 32      # in Sweep.candidates
    SEGMENT_DAMAGED = 64        # its value cannot be read: nothing of it is moved


cdef struct Run:
    # The messages of one queue within one segment: positions `first` to `first + span - 1`.
    PyObject* queue             # its QueueIndex, borrowed from `SegmentStore.queues`
    Segment* segment
    uint64_t* settled           # a bit a position: 1 = settled, or never stored here
    uint64_t first
    uint64_t live_bytes         # body sizes of the live ones
    uint32_t span
    uint32_t live               # bits that are 0
    uint32_t queue_id


cdef struct Segment:
    # Up to SEGMENT_BYTES of messages as one value in the log. Runs and their bitmaps lie in the same block of memory.
    uint64_t segment_no
    uint64_t value_size
    uint32_t chunk_count
    uint32_t message_count
    uint32_t target_count       # messages times the queues each was stored for
    uint32_t live               # of the targets
    uint32_t unit               # bytes that count as live for each live target
    uint32_t run_count
    uint32_t slot               # its place in `SegmentStore.segments`
    uint32_t candidate          # ... and in `Sweep.candidates`, if it is flagged as one
    uint32_t flags              # SEGMENT_*
    PyObject* value             # the value itself (bytes, owned) while a batch that concerns it is under way; else NULL
    Run* runs


cdef struct Pointers:
    # A growing array of segments.
    Segment** items
    size_t count
    size_t capacity


cdef struct Cursor:
    # Over a segment's value: the message it stands on.
    const uint8_t* at
    const uint8_t* end
    const uint8_t* targets
    const uint8_t* data
    uint32_t size
    uint32_t body_size
    uint32_t target_count


cdef struct Target:
    uint32_t run
    uint32_t offset
    uint64_t note


cdef inline bint bit_is_set(const uint64_t* bits, uint64_t index) noexcept nogil:
    return (bits[index >> 6] >> (index & 63)) & 1


cdef inline void set_bit(uint64_t* bits, uint64_t index) noexcept nogil:
    bits[index >> 6] |= <uint64_t>1 << (index & 63)


cdef inline void clear_bit(uint64_t* bits, uint64_t index) noexcept nogil:
    bits[index >> 6] &= ~(<uint64_t>1 << (index & 63))


cdef inline size_t words_for(uint32_t span) noexcept nogil:
    return (<size_t>span + 63) >> 6


cdef inline bint live_from(const Run* run, uint64_t first) noexcept nogil:
    """Whether something in the run is live at or after the position."""
    cdef uint64_t offset = first - run.first if first > run.first else 0
    cdef size_t word = offset >> 6
    cdef uint64_t zeros
    if offset >= run.span:
        return False
    zeros = ~run.settled[word] & (~<uint64_t>0 << (offset & 63))
    while True:
        if zeros:
            return True
        word += 1
        if word == words_for(run.span):
            return False
        zeros = ~run.settled[word]


cdef inline int pointers_reserve(Pointers* pointers, size_t count) except -1:
    """Room for `count` in all, so that pushes up to there cannot fail."""
    cdef size_t capacity
    cdef Segment** items
    if count <= pointers.capacity:
        return 0
    capacity = max(count, 2 * pointers.capacity, <size_t>16)
    items = <Segment**>realloc(pointers.items, capacity * sizeof(Segment*))
    if items == NULL:
        raise MemoryError
    pointers.items = items
    pointers.capacity = capacity
    return 0


cdef inline void pointers_push(Pointers* pointers, Segment* segment) noexcept nogil:
    pointers.items[pointers.count] = segment
    pointers.count += 1


cdef inline void pointers_drop_flagged(Pointers* pointers, uint32_t flags) noexcept nogil:
    """Keep those without any of the flags."""
    cdef size_t index
    cdef size_t kept = 0
    for index in range(pointers.count):
        if not pointers.items[index].flags & flags:
            pointers.items[kept] = pointers.items[index]
            kept += 1
    pointers.count = kept


cdef inline void segment_free(Segment* segment) noexcept:
    if segment.value != NULL:
        Py_DECREF(<object>segment.value)
    free(segment)


cdef inline void drop_value(Segment* segment) noexcept:
    cdef PyObject* value = segment.value
    segment.value = NULL
    if value != NULL:
        Py_DECREF(<object>value)


cdef inline Segment* segment_new(uint32_t run_count, size_t words) except NULL:
    """A zeroed segment with its runs, followed by `words` of bitmap, all ones; the runs do not point there yet."""
    cdef size_t head = sizeof(Segment) + run_count * sizeof(Run)
    cdef Segment* segment = <Segment*>malloc(head + words * sizeof(uint64_t))
    if segment == NULL:
        raise MemoryError
    memset(segment, 0, head)
    memset(<uint8_t*>segment + head, 0xFF, words * sizeof(uint64_t))
    segment.run_count = run_count
    segment.runs = <Run*>(<uint8_t*>segment + sizeof(Segment))
    return segment


cdef inline int next_message(Cursor* cursor) noexcept nogil:
    """1 and the next message, 0 at the end, -1 where the bytes do not fit the layout."""
    cdef uint16_t targets
    cdef size_t left = cursor.end - cursor.at
    if left == 0:
        return 0
    if left >= MESSAGE_HEAD_SIZE:
        memcpy(&cursor.size, cursor.at, 4)
        memcpy(&cursor.body_size, cursor.at + 4, 4)
        memcpy(&targets, cursor.at + 8, 2)
        cursor.target_count = targets
        cursor.targets = cursor.at + MESSAGE_HEAD_SIZE
        if left - MESSAGE_HEAD_SIZE >= <size_t>targets * TARGET_SIZE + cursor.size:
            cursor.data = cursor.targets + <size_t>targets * TARGET_SIZE
            cursor.at = cursor.data + cursor.size
            return 1
    return -1


# Whether there is a next message; the cursor stands on it. Raises `DamagedSegment` where the bytes do not fit the layout.
cdef bint advance(Cursor* cursor) except -1


cdef inline Target target_at(const Cursor* cursor, uint32_t index) noexcept nogil:
    cdef Target target
    cdef uint16_t run
    cdef const uint8_t* at = cursor.targets + <size_t>index * TARGET_SIZE
    memcpy(&run, at, 2)
    memcpy(&target.offset, at + 2, 4)
    memcpy(&target.note, at + 6, 8)
    target.run = run
    return target


cdef inline Cursor cursor_over(object value):
    cdef Cursor cursor
    memset(&cursor, 0, sizeof(Cursor))
    cursor.at = <const uint8_t*>PyBytes_AS_STRING(value)
    cursor.end = cursor.at + PyBytes_GET_SIZE(value)
    return cursor


cdef inline int run_order(const void* left, const void* right) noexcept nogil:
    cdef uint64_t first = (<Run**>left)[0].first
    cdef uint64_t second = (<Run**>right)[0].first
    return (first > second) - (first < second)


cdef inline int segment_order(const void* left, const void* right) noexcept nogil:
    cdef uint64_t first = (<Segment**>left)[0].segment_no
    cdef uint64_t second = (<Segment**>right)[0].segment_no
    return (first > second) - (first < second)
