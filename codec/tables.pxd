"""C side of `leveret.codec.tables`: strings and tables from a cursor and into a buffer, and looks at a table that make no objects."""

from libc.stdint cimport uint8_t

from leveret.codec.wire cimport Buffer, Cursor, load_u32

cdef enum:
    TABLE_DEPTH_MAX = 32        # tables and arrays within each other, the outermost counted

# What `check_table` may answer.
cdef enum:
    TABLE_OK = 0
    TABLE_MALFORMED = -1        # a length beyond the bytes left, or a type that nobody knows
    TABLE_TOO_DEEP = -2


cdef class Typed:
    cdef readonly str tag
    cdef readonly object value


# Read: past the end they set `at.failed` and return something empty. What is wrong within the bytes raises.
cdef str read_shortstr(Cursor* at)
cdef str read_opaque_shortstr(Cursor* at)
cdef bytes read_longstr(Cursor* at)
cdef dict read_table(Cursor* at, bint typed)

# Write: on an exception the buffer may hold a part of it; the caller rewinds.
cdef int write_shortstr(Buffer* out, str text) except -1
cdef int write_opaque_shortstr(Buffer* out, str text) except -1
cdef int write_longstr(Buffer* out, bytes data) except -1
cdef int write_table(Buffer* out, dict table) except -1

cdef int check_table(const uint8_t* table, size_t size) noexcept nogil
cdef const uint8_t* find_in_table(
    const uint8_t* table, size_t size, const char* key, size_t key_size, uint8_t* tag, size_t* value_size,
) noexcept nogil
cdef object table_error(int fault)


cdef inline Py_ssize_t value_width(uint8_t tag, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Bytes of a value after its tag, nested ones wholly; -1: malformed. At most what is left."""
    cdef size_t left = <size_t>(end - at)
    cdef size_t width
    if tag == c"S" or tag == c"x" or tag == c"F" or tag == c"A":
        if left < 4:
            return -1
        width = <size_t>4 + load_u32(at)
    elif tag == c"I" or tag == c"i" or tag == c"f":
        width = 4
    elif tag == c"l" or tag == c"L" or tag == c"d" or tag == c"T":
        width = 8
    elif tag == c"t" or tag == c"b" or tag == c"B":
        width = 1
    elif tag == c"s" or tag == c"u":
        width = 2
    elif tag == c"D":
        width = 5
    elif tag == c"V":
        width = 0
    else:
        return -1
    return <Py_ssize_t>width if width <= left else -1
