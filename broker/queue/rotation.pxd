"""The rotation: which consumers of a queue are ready, and whose turn it is.

Ready consumers of the highest priority take turns; a lower priority has its turn only when no higher one is ready. A consumer that cannot
take more leaves the rotation and comes back behind the others of its priority, so blocked consumers cost a publish nothing.

Each consumer embeds its `Turn`; those of one priority form a ring, and the levels are an array sorted by priority, the highest last,
that holds only levels with somebody in them. The queue owns the rotation and keeps alive whom it points to.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

cdef struct Turn:
    Turn* next                  # NULL: not in the rotation
    Turn* previous
    void* owner                 # the Consumer, borrowed
    int64_t priority

cdef struct Level:
    int64_t priority
    Turn* first                 # whose turn it is

cdef struct Rotation:
    Level* levels
    size_t count
    size_t capacity


cdef inline int rotation_reserve(Rotation* rotation, size_t consumers) except -1:
    """Make room for as many levels as there are consumers, so that joining cannot fail."""
    cdef size_t capacity = rotation.capacity
    cdef Level* levels
    if consumers <= capacity:
        return 0
    capacity = max(consumers, 2 * capacity)
    levels = <Level*>realloc(rotation.levels, capacity * sizeof(Level))
    if levels == NULL:
        raise MemoryError("a queue's rotation cannot grow")
    rotation.levels = levels
    rotation.capacity = capacity
    return 0


cdef inline size_t rotation_level(const Rotation* rotation, int64_t priority) noexcept:
    """Index of the first level with that priority or a higher one; `count` if there is none."""
    cdef size_t low = 0
    cdef size_t high = rotation.count
    cdef size_t middle
    while low < high:
        middle = (low + high) // 2
        if rotation.levels[middle].priority < priority:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline Turn* rotation_first(const Rotation* rotation) noexcept:
    """Whose turn it is, or NULL when nobody is ready."""
    if rotation.count == 0:
        return NULL
    return rotation.levels[rotation.count - 1].first


cdef inline void rotation_advance(Rotation* rotation) noexcept:
    """The first of the highest level has had its turn; count > 0."""
    cdef Level* level = &rotation.levels[rotation.count - 1]
    level.first = level.first.next


cdef inline int rotation_join(Rotation* rotation, Turn* turn) except -1:
    """Queue up behind the others of its priority. Not in the rotation yet; room has been reserved."""
    cdef size_t index = rotation_level(rotation, turn.priority)
    cdef Level* level
    assert turn.next == NULL and rotation.count < rotation.capacity + 1
    if index < rotation.count and rotation.levels[index].priority == turn.priority:
        level = &rotation.levels[index]
        turn.next = level.first
        turn.previous = level.first.previous
        turn.previous.next = turn
        turn.next.previous = turn
        return 0
    assert rotation.count < rotation.capacity
    level = &rotation.levels[index]
    memmove(level + 1, level, (rotation.count - index) * sizeof(Level))
    level.priority = turn.priority
    level.first = turn.next = turn.previous = turn
    rotation.count += 1
    return 0


cdef inline int rotation_leave(Rotation* rotation, Turn* turn) except -1:
    """Take it out, if it is in."""
    cdef size_t index
    cdef Level* level
    if turn.next == NULL:
        return 0
    index = rotation_level(rotation, turn.priority)
    level = &rotation.levels[index]
    assert index < rotation.count and level.priority == turn.priority
    if turn.next == turn:
        rotation.count -= 1
        memmove(level, level + 1, (rotation.count - index) * sizeof(Level))
    else:
        if level.first == turn:
            level.first = turn.next
        turn.previous.next = turn.next
        turn.next.previous = turn.previous
    turn.next = turn.previous = NULL
    return 0


cdef inline void rotation_free(Rotation* rotation) noexcept:
    free(rotation.levels)
    rotation.levels = NULL
    rotation.count = rotation.capacity = 0
