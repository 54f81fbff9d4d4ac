"""What of a segment needs Python: a cursor that raises where the bytes of a value do not fit their layout."""

from leveret.storage.environment import DamagedSegment


cdef bint advance(Cursor* cursor) except -1:
    cdef int found = next_message(cursor)
    if found < 0:
        raise DamagedSegment("the value of a stored segment is damaged")
    return found
