"""The headers exchange: a binding's arguments are compared with the message's headers, the routing key says nothing.

`x-match` in the arguments: `all` (the default) or `any` of the others must be there with the same value; an argument without value (void)
asks for presence only. As in RabbitMQ a value counts, not the width in which a client packs it: all integers and timestamps compare as
numbers, with floats too, and so do long strings and byte arrays as bytes. Everything else wants the same type. Names that begin with `x-`
are not compared, unless it is `all-with-x` or `any-with-x`. The headers are read once per message, where they lie, and only those that
some binding asks for are noted; then each binding is a few comparisons of bytes.
"""

from libc.math cimport floor
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from leveret.codec.wire cimport Cursor, cursor_left, cursor_take, cursor_u8, cursor_u16, cursor_u32, load_u16, load_u32, load_u64
from leveret.lookup.byte_map cimport byte_map_find, byte_map_free, byte_map_remove, byte_map_set
from leveret.router.exchanges.exchange cimport Destinations, Exchange, Subject

from leveret.codec.errors import PreconditionFailed, quoted_bytes
from leveret.codec.tables import Typed, encode_table, type_name

cdef enum:
    FLAG_CONTENT_TYPE = 1 << 15
    FLAG_CONTENT_ENCODING = 1 << 14
    FLAG_HEADERS = 1 << 13
    FLAG_MORE = 1

MATCHES = {"all": (False, False), "any": (True, False), "all-with-x": (False, True), "any-with-x": (True, True)}


cdef enum Kind:
    OTHER           # compared byte by byte, with its type
    INTEGER
    LARGE           # an unsigned integer beyond the signed ones
    FLOAT
    BYTES


cdef Kind read_value(uint8_t tag, const uint8_t* at, int64_t* integer, double* number) noexcept nogil:
    """The kind of a field value, and what it is if that is a number. The value has been checked by `value_size`."""
    cdef uint64_t bits64
    cdef uint32_t bits32
    cdef float single
    if tag == c"S" or tag == c"x":
        return BYTES
    if tag == c"b":
        integer[0] = <int8_t>at[0]
    elif tag == c"B":
        integer[0] = at[0]
    elif tag == c"s":
        integer[0] = <int16_t>load_u16(at)
    elif tag == c"u":
        integer[0] = load_u16(at)
    elif tag == c"I":
        integer[0] = <int32_t>load_u32(at)
    elif tag == c"i":
        integer[0] = load_u32(at)
    elif tag == c"l" or tag == c"L" or tag == c"T":
        integer[0] = <int64_t>load_u64(at)
        if tag == c"T" and integer[0] < 0:
            return LARGE
    elif tag == c"f":
        bits32 = load_u32(at)
        memcpy(&single, &bits32, 4)
        number[0] = single
        return FLOAT
    elif tag == c"d":
        bits64 = load_u64(at)
        memcpy(number, &bits64, 8)
        return FLOAT
    else:
        return OTHER
    return INTEGER


cdef inline bint same_number(int64_t integer, double number) noexcept nogil:
    """Exactly: a double beyond 2 ** 53 is some integer, and only that one."""
    return -9.223372036854775808e18 <= number < 9.223372036854775808e18 and number == floor(number) and <int64_t>number == integer


cdef bint same_value(uint8_t tag, const uint8_t* value, size_t size, uint8_t other_tag, const uint8_t* other,
                     size_t other_size) noexcept nogil:
    cdef int64_t integer = 0, other_integer = 0
    cdef double number = 0, other_number = 0
    cdef Kind kind, other_kind
    if tag == other_tag and size == other_size and memcmp(value, other, size) == 0:
        return True
    kind = read_value(tag, value, &integer, &number)
    other_kind = read_value(other_tag, other, &other_integer, &other_number)
    if kind == INTEGER and other_kind == INTEGER:
        return integer == other_integer
    if kind == FLOAT and other_kind == FLOAT:
        return number == other_number
    if kind == INTEGER and other_kind == FLOAT:
        return same_number(integer, other_number)
    if kind == FLOAT and other_kind == INTEGER:
        return same_number(other_integer, number)
    return kind == BYTES and other_kind == BYTES and size == other_size and memcmp(value, other, size) == 0


cdef inline Py_ssize_t value_size(uint8_t tag, const uint8_t* at, size_t left) noexcept nogil:
    """Bytes of a field value, or -1 if it does not lie within `left`."""
    cdef size_t size
    if tag == c"S" or tag == c"x" or tag == c"F" or tag == c"A":
        if left < 4:
            return -1
        size = 4 + <size_t>load_u32(at)
    elif tag == c"V":
        size = 0
    elif tag == c"t" or tag == c"b" or tag == c"B":
        size = 1
    elif tag == c"s" or tag == c"u":
        size = 2
    elif tag == c"I" or tag == c"i" or tag == c"f":
        size = 4
    elif tag == c"D":
        size = 5
    elif tag == c"l" or tag == c"L" or tag == c"d" or tag == c"T":
        size = 8
    else:
        return -1
    return <Py_ssize_t>size if size <= left else -1


cdef class Rule:
    """What one binding asks for."""

    def __dealloc__(self):
        free(self.wanted)


cdef tuple identity_of(uint64_t destination, bytes key, dict arguments):
    """What makes a binding the same. Arguments by their bytes: a value that is not a number does not even equal itself."""
    return destination, key, encode_table({name: arguments[name] for name in sorted(arguments)})


cdef class HeadersExchange(Exchange):
    """Headers."""

    def __init__(self, id):
        Exchange.__init__(self, id)
        self.by_key = False
        self.rules = {}
        self.ordered = []
        self.free_numbers = []

    def __dealloc__(self):
        byte_map_free(&self.names)
        free(self.headers)

    cdef uint32_t name_number(self, bytes name) except? 0:
        """The number of a header's name, with one use more."""
        cdef uint64_t* found = byte_map_find(&self.names, name, len(name))
        cdef uint32_t number
        cdef Header* moved
        if found != NULL:
            found[0] += <uint64_t>1 << 32
            return <uint32_t>found[0]
        if self.free_numbers:
            number = self.free_numbers.pop()
        else:
            moved = <Header*>realloc(self.headers, (self.header_count + 1) * sizeof(Header))
            if moved == NULL:
                raise MemoryError()
            self.headers = moved
            number = self.header_count
            memset(&self.headers[number], 0, sizeof(Header))
            self.header_count += 1
        byte_map_set(&self.names, name, len(name), (<uint64_t>1 << 32) | number)
        return number

    cdef int add(self, bytes key, uint64_t destination, dict arguments) except -1:
        cdef tuple identity = identity_of(destination, key, arguments)
        cdef Rule rule
        cdef bytes value, encoded_name
        known = self.rules.get(identity)
        if known is not None:
            known[1] += 1
            return 0
        x_match = arguments.get("x-match", Typed("S", "all"))
        if x_match.tag != "S":
            raise PreconditionFailed(f"Invalid x-match field type {type_name(x_match.tag)} (value {x_match.value}); expected longstr")
        if x_match.value not in MATCHES:
            shown = x_match.value.encode() if isinstance(x_match.value, str) else x_match.value
            raise PreconditionFailed(
                f"Invalid x-match field value {quoted_bytes(shown)}; expected all, any, all-with-x, or any-with-x"
            )
        rule = Rule.__new__(Rule)
        rule.destination = destination
        rule.any, with_x = MATCHES[x_match.value]
        rule.names = [
            name for name in arguments if name != "x-match" and (with_x or not name.startswith("x-"))
        ]
        rule.encoded = []
        rule.wanted = <Wanted*>calloc(len(rule.names) or 1, sizeof(Wanted))
        if rule.wanted == NULL:
            raise MemoryError()
        for name in rule.names:
            encoded_name = name.encode("utf-8", "surrogateescape")
            value = encode_table({name: arguments[name]})[4 + 1 + len(encoded_name):]
            rule.encoded.append(value)
            rule.wanted[rule.wanted_count].name = self.name_number(encoded_name)
            rule.wanted[rule.wanted_count].tag = 0 if value[0] == c"V" else value[0]
            rule.wanted[rule.wanted_count].value = <const uint8_t*>value + 1
            rule.wanted[rule.wanted_count].value_size = len(value) - 1
            rule.wanted_count += 1
        self.rules[identity] = [rule, 1]
        self.ordered.append(rule)
        return 0

    cdef int remove(self, bytes key, uint64_t destination, dict arguments) except -1:
        cdef tuple identity = identity_of(destination, key, arguments)
        cdef uint64_t* found
        cdef bytes encoded_name
        cdef Rule rule
        known = self.rules[identity]
        known[1] -= 1
        if known[1]:
            return 0
        del self.rules[identity]
        rule = known[0]
        self.ordered.remove(rule)
        for name in rule.names:
            encoded_name = name.encode("utf-8", "surrogateescape")
            found = byte_map_find(&self.names, encoded_name, len(encoded_name))
            found[0] -= <uint64_t>1 << 32
            if (found[0] >> 32) == 0:
                self.free_numbers.append(<uint32_t>found[0])
                byte_map_remove(&self.names, encoded_name, len(encoded_name))
        return 0

    cdef int read_headers(self, const uint8_t* properties, size_t size) noexcept nogil:
        """Note the headers that bindings ask for. What cannot be read has been refused by the publisher's worker: it ends the headers."""
        cdef Cursor at
        cdef uint16_t flags, more
        cdef uint32_t table_size
        cdef uint8_t name_size, tag
        cdef const uint8_t* name
        cdef const uint8_t* value
        cdef uint64_t* found
        cdef Header* header
        cdef Py_ssize_t taken
        at.at = properties
        at.end = properties + size
        at.failed = False
        flags = cursor_u16(&at)
        more = flags
        while more & FLAG_MORE:
            more = cursor_u16(&at)
        if not flags & FLAG_HEADERS:
            return 0
        if flags & FLAG_CONTENT_TYPE:
            cursor_take(&at, cursor_u8(&at))
        if flags & FLAG_CONTENT_ENCODING:
            cursor_take(&at, cursor_u8(&at))
        table_size = cursor_u32(&at)
        if at.failed or table_size > cursor_left(&at):
            return 0
        at.end = at.at + table_size
        while cursor_left(&at):
            name_size = cursor_u8(&at)
            name = cursor_take(&at, name_size)
            tag = cursor_u8(&at)
            if at.failed:
                return 0
            taken = value_size(tag, at.at, cursor_left(&at))
            if taken < 0:
                return 0
            value = cursor_take(&at, taken)
            found = byte_map_find(&self.names, name, name_size)
            if found != NULL:
                header = &self.headers[<uint32_t>found[0]]
                if header.seen != self.current_match:   # of two with the same name the first counts
                    header.seen = self.current_match
                    header.tag = tag
                    header.value = value
                    header.value_size = taken
        return 0

    cdef bint holds(self, Rule rule) noexcept nogil:
        cdef size_t at
        cdef Wanted* wanted
        cdef Header* header
        cdef bint same
        for at in range(rule.wanted_count):
            wanted = &rule.wanted[at]
            header = &self.headers[wanted.name]
            same = header.seen == self.current_match and (
                wanted.tag == 0
                or same_value(wanted.tag, wanted.value, wanted.value_size, header.tag, header.value, header.value_size)
            )
            if same == rule.any:
                return rule.any
        return not rule.any

    cdef int route(self, const Subject* subject, Destinations into) except -1:
        cdef Rule rule
        cdef int matched = 0
        self.current_match += 1
        if self.names.count:
            self.read_headers(subject.properties, subject.properties_size)
        for rule in self.ordered:
            if self.holds(rule):
                into.add(rule.destination)
                matched = 1
        return matched
