"""Bytes in C: big-endian loads and stores, a bounds-checked read cursor, and a growing write buffer.

Inline and without the GIL, so that every module that cimports this compiles them into its own loops. `Cursor` is the one place where a read
is checked against the bytes left: a read past the end sets `failed`, returns zeros and leaves the cursor at its end, so a decoder may
read a whole method and ask once. `Buffer` owns its memory (`buffer_free`); its unread part is `data[start:length]`.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

cdef extern from *:
    """
    #define leveret_swap16(x) __builtin_bswap16(x)
    #define leveret_swap32(x) __builtin_bswap32(x)
    #define leveret_swap64(x) __builtin_bswap64(x)
    """
    uint16_t leveret_swap16(uint16_t) noexcept nogil
    uint32_t leveret_swap32(uint32_t) noexcept nogil
    uint64_t leveret_swap64(uint64_t) noexcept nogil


cdef inline uint16_t load_u16(const uint8_t* at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return leveret_swap16(value)


cdef inline uint32_t load_u32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return leveret_swap32(value)


cdef inline uint64_t load_u64(const uint8_t* at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return leveret_swap64(value)


cdef inline void store_u16(uint8_t* at, uint16_t value) noexcept nogil:
    value = leveret_swap16(value)
    memcpy(at, &value, 2)


cdef inline void store_u32(uint8_t* at, uint32_t value) noexcept nogil:
    value = leveret_swap32(value)
    memcpy(at, &value, 4)


cdef inline void store_u64(uint8_t* at, uint64_t value) noexcept nogil:
    value = leveret_swap64(value)
    memcpy(at, &value, 8)


cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end
    bint failed         # a read ran past `end`; what it returned is zeros


cdef inline size_t cursor_left(const Cursor* cursor) noexcept nogil:
    return <size_t>(cursor.end - cursor.at)


cdef inline const uint8_t* cursor_take(Cursor* cursor, size_t size) noexcept nogil:
    """The next `size` bytes where they lie, or NULL (and `failed`) when fewer are left."""
    cdef const uint8_t* taken = cursor.at
    if <size_t>(cursor.end - cursor.at) < size:
        cursor.failed = True
        cursor.at = cursor.end
        return NULL
    cursor.at += size
    return taken


cdef inline uint8_t cursor_u8(Cursor* cursor) noexcept nogil:
    cdef const uint8_t* at = cursor_take(cursor, 1)
    return at[0] if at != NULL else 0


cdef inline uint16_t cursor_u16(Cursor* cursor) noexcept nogil:
    cdef const uint8_t* at = cursor_take(cursor, 2)
    return load_u16(at) if at != NULL else 0


cdef inline uint32_t cursor_u32(Cursor* cursor) noexcept nogil:
    cdef const uint8_t* at = cursor_take(cursor, 4)
    return load_u32(at) if at != NULL else 0


cdef inline uint64_t cursor_u64(Cursor* cursor) noexcept nogil:
    cdef const uint8_t* at = cursor_take(cursor, 8)
    return load_u64(at) if at != NULL else 0


cdef struct Buffer:
    uint8_t* data
    size_t start        # bytes before it have been read or sent
    size_t length       # bytes before it have been written
    size_t capacity


cdef inline size_t buffer_unread(const Buffer* buffer) noexcept nogil:
    return buffer.length - buffer.start


cdef inline uint8_t* buffer_reserve(Buffer* buffer, size_t size) noexcept nogil:
    """Room for `size` bytes after what is written, or NULL when memory is out. The caller adds to `length` what it wrote."""
    cdef size_t needed, capacity
    cdef uint8_t* moved
    if buffer.capacity - buffer.length >= size and buffer.data != NULL:     # an empty buffer has no place even for 0 bytes
        return buffer.data + buffer.length
    if buffer.start > 0 and buffer.start >= buffer.length - buffer.start:
        # The read part is at least half: slide instead of growing.
        memmove(buffer.data, buffer.data + buffer.start, buffer.length - buffer.start)
        buffer.length -= buffer.start
        buffer.start = 0
        if buffer.capacity - buffer.length >= size:
            return buffer.data + buffer.length
    needed = buffer.length + size
    capacity = buffer.capacity * 2 if buffer.capacity else 512
    while capacity < needed:
        capacity *= 2
    moved = <uint8_t*>realloc(buffer.data, capacity)
    if moved == NULL:
        return NULL
    buffer.data = moved
    buffer.capacity = capacity
    return buffer.data + buffer.length


cdef inline int buffer_write(Buffer* buffer, const void* data, size_t size) except -1 nogil:
    cdef uint8_t* at = buffer_reserve(buffer, size)
    if at == NULL:
        with gil:
            raise MemoryError()
    memcpy(at, data, size)
    buffer.length += size
    return 0


cdef inline void buffer_consume(Buffer* buffer, size_t size) noexcept nogil:
    """Drop `size` bytes from the front; an emptied buffer starts over at its beginning."""
    buffer.start += size
    if buffer.start >= buffer.length:
        buffer.start = 0
        buffer.length = 0


cdef inline void buffer_free(Buffer* buffer) noexcept nogil:
    free(buffer.data)
    buffer.data = NULL
    buffer.start = 0
    buffer.length = 0
    buffer.capacity = 0


cdef inline int buffer_u8(Buffer* buffer, uint8_t value) except -1 nogil:
    return buffer_write(buffer, &value, 1)


cdef inline int buffer_u16(Buffer* buffer, uint16_t value) except -1 nogil:
    value = leveret_swap16(value)
    return buffer_write(buffer, &value, 2)


cdef inline int buffer_u32(Buffer* buffer, uint32_t value) except -1 nogil:
    value = leveret_swap32(value)
    return buffer_write(buffer, &value, 4)


cdef inline int buffer_u64(Buffer* buffer, uint64_t value) except -1 nogil:
    value = leveret_swap64(value)
    return buffer_write(buffer, &value, 8)


cdef inline size_t buffer_mark(const Buffer* buffer) noexcept nogil:
    """A place to come back to: stays right when the buffer grows or slides, until somebody consumes from it."""
    return buffer.length - buffer.start


cdef inline uint8_t* buffer_at(Buffer* buffer, size_t mark) noexcept nogil:
    return buffer.data + buffer.start + mark


cdef inline void buffer_rewind(Buffer* buffer, size_t mark) noexcept nogil:
    """Forget what has been written since `mark`."""
    buffer.length = buffer.start + mark
