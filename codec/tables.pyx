"""Field values: short and long strings, and the tables and arrays that carry arguments, headers and capabilities, both ways.

Called by the methods and properties modules for every table on the wire, and by whoever needs a table's values. Reads only what lies within
the length it was given, in time linear to it; never goes deeper than `TABLE_DEPTH_MAX`. Types are RabbitMQ's: `l` and `L` are both signed
64 bits, there is no short string as a value.

    tag  RabbitMQ's name  plain Python value         tag  RabbitMQ's name  plain Python value
    S    longstr          str, or bytes if no UTF-8  l L  long             int
    t    bool             bool                       f    float            float
    b    byte             int                        d    double           float
    B    unsignedbyte     int                        D    decimal          Decimal (scale 0..255, signed 32 bits)
    s    short            int                        T    timestamp        Timestamp (an int: seconds since 1970)
    u    unsignedshort    int                        F    table            dict
    I    signedint        int                        A    array            list
    i    unsignedint      int                        x    binary           bytes
                                                     V    void             None
"""

from datetime import datetime, timezone
from decimal import Decimal

from libc.math cimport isinf
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from leveret.codec.wire cimport (
    Buffer, Cursor, buffer_at, buffer_free, buffer_mark, buffer_u8, buffer_u16, buffer_u32, buffer_u64, buffer_write, cursor_take,
    cursor_u8, cursor_u16, cursor_u32, cursor_u64, load_u32, store_u32,
)

from leveret.codec.errors import CommandSyntaxError, FrameError

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)

TYPE_NAMES = {
    "S": "longstr", "I": "signedint", "D": "decimal", "T": "timestamp", "F": "table", "A": "array", "b": "byte", "d": "double",
    "f": "float", "l": "long", "L": "long", "s": "short", "t": "bool", "x": "binary", "V": "void", "B": "unsignedbyte",
    "u": "unsignedshort", "i": "unsignedint",
}

cdef dict INT_RANGES = {
    "b": (-0x80, 0x7F), "B": (0, 0xFF), "s": (-0x8000, 0x7FFF), "u": (0, 0xFFFF), "I": (-0x80000000, 0x7FFFFFFF), "i": (0, 0xFFFFFFFF),
    "l": (-0x8000000000000000, 0x7FFFFFFFFFFFFFFF), "L": (-0x8000000000000000, 0x7FFFFFFFFFFFFFFF), "T": (0, 0xFFFFFFFFFFFFFFFF),
}
cdef dict TAGS = {ord(tag): tag for tag in TYPE_NAMES}     # one str per tag, shared by all `Typed`


class Timestamp(int):
    """Seconds since 1970, 0..2**64 - 1. Its own class so that a table with one comes back as it went."""

    __slots__ = ()

    def __repr__(self):
        return f"Timestamp({int(self)})"


cdef class Typed:
    """A value and its wire type: what `decode_table(…, typed=True)` puts in place of every value. Immutable, hashable.

    tag: one of `TYPE_NAMES`; value: as in the table above, with `Typed` in place of the items of a table or array.
    """

    def __init__(self, str tag not None, value):
        if tag not in TYPE_NAMES:
            raise ValueError(f"no field type {tag!r}")
        self.tag = tag
        self.value = value

    def __eq__(self, other):
        if not isinstance(other, Typed):
            return NotImplemented
        return self.tag == (<Typed>other).tag and self.value == (<Typed>other).value

    def __hash__(self):
        if isinstance(self.value, dict):
            return hash((self.tag, frozenset(self.value.items())))
        if isinstance(self.value, list):
            return hash((self.tag, tuple(self.value)))
        return hash((self.tag, self.value))

    def __repr__(self):
        return f"Typed({self.tag!r}, {self.value!r})"


def type_name(str tag not None):
    """RabbitMQ's name of a field type, as its reply texts say it ("signedint"). `ValueError` for a tag that is none."""
    name = TYPE_NAMES.get(tag)
    if name is None:
        raise ValueError(f"no field type {tag!r}")
    return name


def decode_table(bytes data not None, *, bint typed=False):
    """The table that `data` is: 4 bytes of length and exactly as many of content. typed: see `Typed`.

    Of two fields with the same name the first counts, as in RabbitMQ's look-ups. A name that is not UTF-8 keeps its bytes as surrogate
    escapes, and goes out again as it came. Raises `FrameError` for malformed bytes, `CommandSyntaxError` beyond `TABLE_DEPTH_MAX`.
    """
    cdef Cursor at
    at.at = <const uint8_t*>data
    at.end = at.at + len(data)
    at.failed = False
    table = read_table(&at, typed)
    if at.failed or at.at != at.end:
        raise FrameError("malformed field table: its length is not that of its bytes")
    return table


def find_field(bytes data not None, str name not None, *, bint typed=False):
    """The value of the first field called `name` of a table like `decode_table` takes, without reading the others; None: no such field.

    Raises as `decode_table` does.
    """
    cdef const uint8_t* table = <const uint8_t*>data
    cdef bytes key = name.encode("utf-8", "surrogateescape")
    cdef uint8_t tag
    cdef size_t value_size
    cdef Cursor at
    cdef int fault
    if len(data) < 4 or load_u32(table) != len(data) - 4:
        raise FrameError("malformed field table: its length is not that of its bytes")
    fault = check_table(table + 4, len(data) - 4)
    if fault != TABLE_OK:
        raise table_error(fault)
    at.at = find_in_table(table + 4, len(data) - 4, key, len(key), &tag, &value_size)
    if at.at == NULL:
        return None
    at.at -= 1                  # the tag stands before the value
    at.end = at.at + 1 + value_size
    at.failed = False
    return _read_value(&at, typed, 1)


def encode_table(dict table not None):
    """`table` with its 4 bytes of length. Values: plain ones as above, or `Typed` where the wire type matters.

    A plain int goes as `I` when 32 bits hold it, else as `l`; a float as `d`; a datetime as `T` (a naive one is taken as UTC); a tuple
    as an array. `TypeError` for values that have no wire type and names that are no str; `ValueError` for what does not fit its type, for
    names over 255 bytes and for nesting beyond `TABLE_DEPTH_MAX`.
    """
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    try:
        write_table(&out, table)
        return out.data[:out.length]
    finally:
        buffer_free(&out)


cdef object table_error(int fault):
    """The exception for what `check_table` found."""
    if fault == TABLE_TOO_DEEP:
        return CommandSyntaxError(f"field tables and arrays nested deeper than {TABLE_DEPTH_MAX}")
    return FrameError("malformed field table")


cdef str read_shortstr(Cursor* at):
    cdef uint8_t size = cursor_u8(at)
    cdef const uint8_t* text = cursor_take(at, size)
    if text == NULL:
        return ""
    try:
        return PyUnicode_DecodeUTF8(<const char*>text, size, NULL)
    except UnicodeDecodeError:
        raise FrameError("Malformed UTF-8 in shortstr") from None


cdef str read_opaque_shortstr(Cursor* at):
    """A short string that RabbitMQ takes for bytes (field names, properties): what is not UTF-8 becomes surrogate escapes."""
    cdef uint8_t size = cursor_u8(at)
    cdef const uint8_t* text = cursor_take(at, size)
    if text == NULL:
        return ""
    return PyUnicode_DecodeUTF8(<const char*>text, size, "surrogateescape")


cdef bytes read_longstr(Cursor* at):
    cdef uint32_t size = cursor_u32(at)
    cdef const uint8_t* data = cursor_take(at, size)
    if data == NULL:
        return b""
    return data[:size]


cdef dict read_table(Cursor* at, bint typed):
    return _read_table(at, typed, 1)


cdef dict _read_table(Cursor* at, bint typed, int depth):
    cdef uint32_t size = cursor_u32(at)
    cdef const uint8_t* start = cursor_take(at, size)
    cdef Cursor inner
    cdef dict table = {}
    if start == NULL:
        return table
    inner.at = start
    inner.end = start + size
    inner.failed = False
    while inner.at < inner.end:
        key = read_opaque_shortstr(&inner)
        if inner.at == inner.end:
            raise FrameError("malformed field table: ends within a field")
        value = _read_value(&inner, typed, depth)
        if inner.failed:
            raise FrameError("malformed field table: ends within a field")
        table.setdefault(key, value)
    return table


cdef list _read_array(Cursor* at, bint typed, int depth):
    cdef uint32_t size = cursor_u32(at)
    cdef const uint8_t* start = cursor_take(at, size)
    cdef Cursor inner
    cdef list array = []
    if start == NULL:
        return array
    inner.at = start
    inner.end = start + size
    inner.failed = False
    while inner.at < inner.end:
        array.append(_read_value(&inner, typed, depth))
        if inner.failed:
            raise FrameError("malformed field array: ends within a value")
    return array


cdef object _read_value(Cursor* at, bint typed, int depth):
    cdef uint8_t tag = cursor_u8(at)
    cdef object value = _read_tagged(at, tag, typed, depth)
    cdef Typed wrapped
    if not typed:
        return value
    wrapped = Typed.__new__(Typed)
    wrapped.tag = <str>TAGS[tag]
    wrapped.value = value
    return wrapped


cdef object _read_tagged(Cursor* at, uint8_t tag, bint typed, int depth):
    cdef uint32_t size, bits32
    cdef uint64_t bits64
    cdef const uint8_t* data
    cdef float single
    cdef double real
    cdef int32_t unscaled
    if tag == c"S":
        size = cursor_u32(at)
        data = cursor_take(at, size)
        if data == NULL:
            return ""
        try:
            return PyUnicode_DecodeUTF8(<const char*>data, size, NULL)
        except UnicodeDecodeError:
            return data[:size]
    if tag == c"t":
        return cursor_u8(at) != 0
    if tag == c"I":
        return <int32_t>cursor_u32(at)
    if tag == c"l" or tag == c"L":
        return <int64_t>cursor_u64(at)
    if tag == c"b":
        return <int8_t>cursor_u8(at)
    if tag == c"B":
        return cursor_u8(at)
    if tag == c"s":
        return <int16_t>cursor_u16(at)
    if tag == c"u":
        return cursor_u16(at)
    if tag == c"i":
        return cursor_u32(at)
    if tag == c"T":
        return Timestamp(cursor_u64(at))
    if tag == c"V":
        return None
    if tag == c"f":
        bits32 = cursor_u32(at)
        memcpy(&single, &bits32, 4)
        return <double>single
    if tag == c"d":
        bits64 = cursor_u64(at)
        memcpy(&real, &bits64, 8)
        return real
    if tag == c"D":
        size = cursor_u8(at)
        unscaled = <int32_t>cursor_u32(at)
        # Through the tuple, not by scaleb: the current decimal context must not round it.
        return Decimal((unscaled < 0, tuple(map(int, str(abs(<int64_t>unscaled)))), -<int>size))
    if tag == c"x":
        return read_longstr(at)
    if tag == c"F" or tag == c"A":
        if depth >= TABLE_DEPTH_MAX:
            raise table_error(TABLE_TOO_DEEP)
        return _read_table(at, typed, depth + 1) if tag == c"F" else _read_array(at, typed, depth + 1)
    raise FrameError(f"malformed field table: unknown field type {tag}")


cdef int write_shortstr(Buffer* out, str text) except -1:
    cdef Py_ssize_t size
    cdef const char* encoded
    if text is None:
        raise TypeError("a short string must be a str, not None")
    encoded = PyUnicode_AsUTF8AndSize(text, &size)
    if size > 255:
        raise ValueError(f"a short string holds at most 255 bytes, not {size}")
    buffer_u8(out, <uint8_t>size)
    return buffer_write(out, encoded, size)


cdef int write_opaque_shortstr(Buffer* out, str text) except -1:
    """What `read_opaque_shortstr` read, byte for byte."""
    cdef bytes encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) > 255:
        raise ValueError(f"a short string holds at most 255 bytes, not {len(encoded)}")
    buffer_u8(out, <uint8_t>len(encoded))
    return buffer_write(out, <const char*>encoded, len(encoded))


cdef int write_longstr(Buffer* out, bytes data) except -1:
    if data is None:
        raise TypeError("a long string must be bytes, not None")
    return _write_sized(out, data)


cdef int _write_sized(Buffer* out, bytes data) except -1:
    cdef Py_ssize_t size = len(data)
    if size > <Py_ssize_t>0xFFFFFFFF:
        raise ValueError(f"a long string holds at most 4294967295 bytes, not {size}")
    buffer_u32(out, <uint32_t>size)
    return buffer_write(out, <const char*>data, size)


cdef int write_table(Buffer* out, dict table) except -1:
    if table is None:
        raise TypeError("a table must be a dict, not None")
    return _write_table(out, table, 1)


cdef int _end_nested(Buffer* out, size_t mark) except -1:
    cdef size_t size = buffer_mark(out) - mark - 4
    if size > 0xFFFFFFFF:
        raise ValueError("a table or array holds at most 4294967295 bytes")
    store_u32(buffer_at(out, mark), <uint32_t>size)
    return 0


cdef int _write_table(Buffer* out, table, int depth) except -1:
    cdef size_t mark = buffer_mark(out)
    if depth > TABLE_DEPTH_MAX:
        raise ValueError(f"field tables and arrays nested deeper than {TABLE_DEPTH_MAX}")
    buffer_u32(out, 0)
    for key, value in table.items():
        if not isinstance(key, str):
            raise TypeError(f"a field name must be a str, not {type(key).__name__}")
        write_opaque_shortstr(out, key)
        _write_value(out, value, depth)
    return _end_nested(out, mark)


cdef int _write_array(Buffer* out, array, int depth) except -1:
    cdef size_t mark = buffer_mark(out)
    if depth > TABLE_DEPTH_MAX:
        raise ValueError(f"field tables and arrays nested deeper than {TABLE_DEPTH_MAX}")
    buffer_u32(out, 0)
    for value in array:
        _write_value(out, value, depth)
    return _end_nested(out, mark)


cdef int _write_value(Buffer* out, value, int depth) except -1:
    if isinstance(value, Typed):
        return _write_tagged(out, (<Typed>value).tag, (<Typed>value).value, depth)
    if isinstance(value, str):
        return _write_tagged(out, "S", value, depth)
    if isinstance(value, bool):
        return _write_tagged(out, "t", value, depth)
    if isinstance(value, Timestamp):
        return _write_tagged(out, "T", value, depth)
    if isinstance(value, int):
        return _write_tagged(out, "I" if -0x80000000 <= value <= 0x7FFFFFFF else "l", value, depth)
    if value is None:
        return _write_tagged(out, "V", value, depth)
    if isinstance(value, float):
        return _write_tagged(out, "d", value, depth)
    if isinstance(value, dict):
        return _write_tagged(out, "F", value, depth)
    if isinstance(value, (list, tuple)):
        return _write_tagged(out, "A", value, depth)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _write_tagged(out, "x", bytes(value), depth)
    if isinstance(value, Decimal):
        return _write_tagged(out, "D", value, depth)
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
        return _write_tagged(out, "T", int(moment.timestamp()), depth)
    raise TypeError(f"no field type for {type(value).__name__}")


cdef int _write_tagged(Buffer* out, str tag, value, int depth) except -1:
    cdef uint8_t letter = <uint8_t>ord(tag)
    cdef uint64_t bits64
    cdef uint32_t bits32
    cdef float single
    cdef double real
    buffer_u8(out, letter)
    if tag in INT_RANGES:
        if not isinstance(value, int):
            raise TypeError(f"a {TYPE_NAMES[tag]} must be an int, not {type(value).__name__}")
        low, high = INT_RANGES[tag]
        if not low <= value <= high:
            raise ValueError(f"{value} does not fit a {TYPE_NAMES[tag]}")
        bits64 = value & 0xFFFFFFFFFFFFFFFF
        if letter == c"b" or letter == c"B":
            return buffer_u8(out, <uint8_t>bits64)
        if letter == c"s" or letter == c"u":
            return buffer_u16(out, <uint16_t>bits64)
        if letter == c"I" or letter == c"i":
            return buffer_u32(out, <uint32_t>bits64)
        return buffer_u64(out, bits64)
    if letter == c"S":
        if isinstance(value, str):
            value = value.encode("utf-8")
        return _write_sized(out, value)
    if letter == c"x":
        return _write_sized(out, value)
    if letter == c"t":
        return buffer_u8(out, 1 if value else 0)
    if letter == c"V":
        if value is not None:
            raise TypeError(f"a void must be None, not {type(value).__name__}")
        return 0
    if letter == c"d":
        real = value
        memcpy(&bits64, &real, 8)
        return buffer_u64(out, bits64)
    if letter == c"f":
        real = value
        single = <float>real
        if isinf(single) and not isinf(real):
            raise ValueError(f"{value} does not fit a float")
        memcpy(&bits32, &single, 4)
        return buffer_u32(out, bits32)
    if letter == c"D":
        return _write_decimal(out, value)
    if letter == c"F":
        if not isinstance(value, dict):
            raise TypeError(f"a table must be a dict, not {type(value).__name__}")
        return _write_table(out, value, depth + 1)
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"an array must be a list or tuple, not {type(value).__name__}")
    return _write_array(out, value, depth + 1)


cdef int _write_decimal(Buffer* out, value) except -1:
    if not isinstance(value, Decimal):
        raise TypeError(f"a decimal must be a Decimal, not {type(value).__name__}")
    negative, digits, exponent = value.as_tuple()
    # The length first: 10**exponent of a hostile exponent would be a very long number.
    if not isinstance(exponent, int) or exponent < -255 or exponent > 10 or len(digits) > 10:
        raise ValueError(f"{value} does not fit a decimal")
    unscaled = int("".join(map(str, digits)) or "0") * 10 ** max(exponent, 0)
    if negative:
        unscaled = -unscaled
    if not -0x80000000 <= unscaled <= 0x7FFFFFFF:
        raise ValueError(f"{value} does not fit a decimal")
    buffer_u8(out, <uint8_t>max(-exponent, 0))
    return buffer_u32(out, <uint32_t>(<int32_t>unscaled))


cdef int check_table(const uint8_t* table, size_t size) noexcept nogil:
    """Whether the `size` bytes of a table's content (after its length) are a table that `decode_table` would take.

    One walk with its own small stack, no objects.
    """
    cdef const uint8_t* ends[TABLE_DEPTH_MAX]
    cdef bint arrays[TABLE_DEPTH_MAX]
    cdef const uint8_t* at = table
    cdef const uint8_t* end = table + size
    cdef int depth = 0
    cdef uint8_t tag
    cdef Py_ssize_t width
    ends[0] = end
    arrays[0] = False
    while True:
        while at == ends[depth]:
            if depth == 0:
                return TABLE_OK
            depth -= 1
        end = ends[depth]
        if not arrays[depth]:
            if <size_t>(end - at) < <size_t>at[0] + 2:
                return TABLE_MALFORMED
            at += <size_t>at[0] + 1
        tag = at[0]
        at += 1
        if (tag == c"F" or tag == c"A") and depth + 1 == TABLE_DEPTH_MAX:
            return TABLE_TOO_DEEP
        width = value_width(tag, at, end)
        if width < 0:
            return TABLE_MALFORMED
        if tag == c"F" or tag == c"A":
            depth += 1
            ends[depth] = at + width
            arrays[depth] = tag == c"A"
            at += 4
        else:
            at += width


cdef const uint8_t* find_in_table(
    const uint8_t* table, size_t size, const char* key, size_t key_size, uint8_t* tag, size_t* value_size,
) noexcept nogil:
    """The value of the first field called `key` in a checked table's content, its tag and size; NULL: no such field."""
    cdef const uint8_t* at = table
    cdef const uint8_t* end = table + size
    cdef size_t name_size
    cdef const uint8_t* name
    cdef Py_ssize_t width
    while at < end:
        name_size = at[0]
        if <size_t>(end - at) < name_size + 2:
            return NULL
        name = at + 1
        tag[0] = name[name_size]
        at = name + name_size + 1
        width = value_width(tag[0], at, end)
        if width < 0:
            return NULL
        if name_size == key_size and memcmp(name, key, key_size) == 0:
            value_size[0] = <size_t>width
            return at
        at += width
    return NULL
