"""C side of `leveret.codec.tables`: strings and tables from a cursor and into a buffer, and two looks at a table that make no objects."""

from libc.stdint cimport uint8_t

from leveret.codec.wire cimport Buffer, Cursor

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
