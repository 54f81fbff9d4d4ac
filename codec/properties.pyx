"""A message's properties: the bytes of a content header after its body size, as an object and back, and checked in place.

The hot path keeps properties as the publisher's bytes and only runs `view_properties` over them; objects are made where somebody wants to
read or write them (get by HTTP, dead-lettering, clients). What a property means is the broker's affair.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memset

from leveret.codec.tables cimport (
    TABLE_MALFORMED, TABLE_OK, TABLE_TOO_DEEP, check_table, read_opaque_shortstr, read_table, table_error, write_opaque_shortstr,
    write_table,
)
from leveret.codec.wire cimport (
    Buffer, Cursor, buffer_at, buffer_free, buffer_u8, buffer_u16, buffer_u64, buffer_write, cursor_take, cursor_u8,
    cursor_u16, cursor_u32, cursor_u64, store_u16,
)

from leveret.codec.errors import FrameError, quoted_bytes
from leveret.codec.tables import Timestamp

# Name and wire type, in the order of the flag bits.
PROPERTIES = (
    ("content_type", "shortstr"), ("content_encoding", "shortstr"), ("headers", "table"), ("delivery_mode", "octet"),
    ("priority", "octet"), ("correlation_id", "shortstr"), ("reply_to", "shortstr"), ("expiration", "shortstr"),
    ("message_id", "shortstr"), ("timestamp", "timestamp"), ("type", "shortstr"), ("user_id", "shortstr"),
    ("app_id", "shortstr"), ("cluster_id", "shortstr"),
)
NO_PROPERTIES = b"\x00\x00"
cdef enum:
    ALL_PROPERTIES = 0xFFFC


cdef inline int _view_string(Cursor* at, ShortString* string) noexcept nogil:
    string.size = cursor_u8(at)
    string.data = cursor_take(at, string.size)
    return 0


cdef int view_properties(const uint8_t* properties, size_t size, PropertiesView* view) noexcept nogil:
    """Check the `size` bytes of a message's properties, headers and all, and say where each one lies. Allocates nothing.

    PROPERTIES_OK, or a fault for `properties_error`; takes and refuses the same bytes as `decode_properties`. The pointers live as
    long as the bytes.
    """
    cdef Cursor at
    cdef uint16_t flags, more
    cdef int fault
    # Field by field: to wipe the whole struct would cost more than everything else for most messages.
    view.flags = 0
    view.delivery_mode = 0
    view.priority = 0
    view.headers_size = 0
    view.timestamp = 0
    at.at = properties
    at.end = properties + size
    at.failed = False
    flags = cursor_u16(&at)
    more = flags
    while more & MORE_FLAGS:
        more = cursor_u16(&at)          # zeros, and so an end, past the last byte
        if more & ~<uint16_t>MORE_FLAGS:
            return PROPERTIES_MALFORMED
    view.flags = flags & <uint16_t>ALL_PROPERTIES
    if flags & HAS_CONTENT_TYPE:
        _view_string(&at, &view.content_type)
    if flags & HAS_CONTENT_ENCODING:
        _view_string(&at, &view.content_encoding)
    if flags & HAS_HEADERS:
        view.headers_size = cursor_u32(&at)
        view.headers = cursor_take(&at, view.headers_size)
        if view.headers == NULL:
            return PROPERTIES_MALFORMED
        fault = check_table(view.headers, view.headers_size)
        if fault != TABLE_OK:
            return PROPERTIES_TABLE_TOO_DEEP if fault == TABLE_TOO_DEEP else PROPERTIES_TABLE_MALFORMED
    if flags & HAS_DELIVERY_MODE:
        view.delivery_mode = cursor_u8(&at)
    if flags & HAS_PRIORITY:
        view.priority = cursor_u8(&at)
    if flags & HAS_CORRELATION_ID:
        _view_string(&at, &view.correlation_id)
    if flags & HAS_REPLY_TO:
        _view_string(&at, &view.reply_to)
    if flags & HAS_EXPIRATION:
        _view_string(&at, &view.expiration)
    if flags & HAS_MESSAGE_ID:
        _view_string(&at, &view.message_id)
    if flags & HAS_TIMESTAMP:
        view.timestamp = cursor_u64(&at)
    if flags & HAS_TYPE:
        _view_string(&at, &view.type)
    if flags & HAS_USER_ID:
        _view_string(&at, &view.user_id)
    if flags & HAS_APP_ID:
        _view_string(&at, &view.app_id)
    if flags & HAS_CLUSTER_ID:
        _view_string(&at, &view.cluster_id)
    return PROPERTIES_OK if not at.failed and at.at == at.end else PROPERTIES_MALFORMED


cdef object properties_error(int fault):
    """The exception for what `view_properties` found."""
    if fault == PROPERTIES_TABLE_TOO_DEEP:
        return table_error(TABLE_TOO_DEEP)
    if fault == PROPERTIES_TABLE_MALFORMED:
        return table_error(TABLE_MALFORMED)
    return FrameError("malformed message properties")


cdef class Properties:
    """The fourteen properties of class basic; None for one that is not there. Keyword arguments only; equal when all are.

    Strings: str, at most 255 bytes of UTF-8 (bytes that are none become surrogate escapes and go out again as they came); headers: a table
    as `leveret.codec.tables` has them; delivery_mode (2: persistent), priority: 0..255; timestamp: seconds since 1970, 0..2**64 - 1.
    """

    cdef public str content_type
    cdef public str content_encoding
    cdef public dict headers
    cdef public object delivery_mode
    cdef public object priority
    cdef public str correlation_id
    cdef public str reply_to
    cdef public str expiration
    cdef public str message_id
    cdef public object timestamp
    cdef public str type
    cdef public str user_id
    cdef public str app_id
    cdef public str cluster_id

    def __init__(
        self, *, str content_type=None, str content_encoding=None, dict headers=None, delivery_mode=None, priority=None,
        str correlation_id=None, str reply_to=None, str expiration=None, str message_id=None, timestamp=None, str type=None,
        str user_id=None, str app_id=None, str cluster_id=None,
    ):
        self.content_type = content_type
        self.content_encoding = content_encoding
        self.headers = headers
        self.delivery_mode = delivery_mode
        self.priority = priority
        self.correlation_id = correlation_id
        self.reply_to = reply_to
        self.expiration = expiration
        self.message_id = message_id
        self.timestamp = timestamp
        self.type = type
        self.user_id = user_id
        self.app_id = app_id
        self.cluster_id = cluster_id

    def encode(self):
        """Flags and list, as a content header holds them. `ValueError` and `TypeError` for values that do not fit."""
        cdef Buffer out = Buffer(NULL, 0, 0, 0)
        cdef uint16_t flags = 0
        cdef int place = 15
        try:
            buffer_u16(&out, 0)
            for name, kind in PROPERTIES:
                value = getattr(self, name)
                if value is not None:
                    flags |= <uint16_t>(1 << place)
                    if kind == "shortstr":
                        write_opaque_shortstr(&out, value)
                    elif kind == "table":
                        write_table(&out, value)
                    elif kind == "octet":
                        buffer_u8(&out, <uint8_t>_within(name, value, 0xFF))
                    else:
                        buffer_u64(&out, _within(name, value, 0xFFFFFFFFFFFFFFFF))
                place -= 1
            store_u16(buffer_at(&out, 0), flags)
            return out.data[:out.length]
        finally:
            buffer_free(&out)

    def __eq__(self, other):
        if not isinstance(other, Properties):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name, _ in PROPERTIES)

    __hash__ = None

    def __repr__(self):
        present = [f"{name}={getattr(self, name)!r}" for name, _ in PROPERTIES if getattr(self, name) is not None]
        return f"Properties({', '.join(present)})"


cdef uint64_t _within(str name, value, uint64_t high) except? 0:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 0 <= value <= high:
        raise ValueError(f"{name} must be 0..{high}, not {value}")
    return value


def decode_properties(bytes data not None, *, bint typed=False):
    """The `Properties` that flags and list are; typed: headers as `decode_table(…, typed=True)` gives them.

    `FrameError` (501) for bytes cut short or left over, flags in a further flag word and malformed headers (RabbitMQ: 541 without a text);
    `CommandSyntaxError` (502) for headers nested too deep.
    """
    cdef Cursor at
    cdef uint16_t flags, more
    cdef int place = 15
    at.at = <const uint8_t*>data
    at.end = at.at + len(data)
    at.failed = False
    flags = more = cursor_u16(&at)
    while more & MORE_FLAGS:
        more = cursor_u16(&at)
        if more & ~<uint16_t>MORE_FLAGS:
            raise properties_error(PROPERTIES_MALFORMED)
    properties = Properties()
    for name, kind in PROPERTIES:
        if flags & (1 << place):
            if kind == "shortstr":
                value = read_opaque_shortstr(&at)
            elif kind == "table":
                value = read_table(&at, typed)
            elif kind == "octet":
                value = cursor_u8(&at)
            else:
                value = Timestamp(cursor_u64(&at))
            setattr(properties, name, value)
        place -= 1
    if at.failed or at.at != at.end:
        raise properties_error(PROPERTIES_MALFORMED)
    return properties


def check_properties(bytes data not None):
    """Raise what is wrong with a message's properties by the hot path's own check, `view_properties`.

    Answers what it saw: a dict of names to bytes (strings and the headers' content) and ints.
    """
    cdef PropertiesView view
    cdef int fault
    memset(&view, 0, sizeof(PropertiesView))
    fault = view_properties(<const uint8_t*>data, len(data), &view)
    if fault != PROPERTIES_OK:
        raise properties_error(fault)
    seen = {}
    for flag, name, string in (
        (HAS_CONTENT_TYPE, "content_type", _bytes_of(view.content_type)),
        (HAS_CONTENT_ENCODING, "content_encoding", _bytes_of(view.content_encoding)),
        (HAS_CORRELATION_ID, "correlation_id", _bytes_of(view.correlation_id)),
        (HAS_REPLY_TO, "reply_to", _bytes_of(view.reply_to)),
        (HAS_EXPIRATION, "expiration", _bytes_of(view.expiration)),
        (HAS_MESSAGE_ID, "message_id", _bytes_of(view.message_id)),
        (HAS_TYPE, "type", _bytes_of(view.type)),
        (HAS_USER_ID, "user_id", _bytes_of(view.user_id)),
        (HAS_APP_ID, "app_id", _bytes_of(view.app_id)),
        (HAS_CLUSTER_ID, "cluster_id", _bytes_of(view.cluster_id)),
        (HAS_HEADERS, "headers", view.headers[:view.headers_size] if view.headers != NULL else b""),
        (HAS_DELIVERY_MODE, "delivery_mode", view.delivery_mode),
        (HAS_PRIORITY, "priority", view.priority),
        (HAS_TIMESTAMP, "timestamp", view.timestamp),
    ):
        if view.flags & <uint16_t>flag:
            seen[name] = string
    return seen


cdef bytes _bytes_of(ShortString string):
    return string.data[:string.size] if string.data != NULL else b""


cdef class ContentHeader:
    """A content header's payload.

    class_id: 60 (basic) for every content there is; weight: 0 from everybody; body_size: bytes of the body frames together, up to
    2**64 - 1 (the broker's bound is lower); properties: flags and list, still bytes.
    """

    cdef readonly uint16_t class_id
    cdef readonly uint16_t weight
    cdef readonly uint64_t body_size
    cdef readonly bytes properties

    def __init__(self, uint16_t class_id, uint64_t body_size, bytes properties not None=NO_PROPERTIES, *, uint16_t weight=0):
        self.class_id = class_id
        self.weight = weight
        self.body_size = body_size
        self.properties = properties

    def encode(self):
        """The payload of its frame, as bytes."""
        cdef Buffer out = Buffer(NULL, 0, 0, 0)
        try:
            buffer_u16(&out, self.class_id)
            buffer_u16(&out, self.weight)
            buffer_u64(&out, self.body_size)
            buffer_write(&out, <const char*>self.properties, len(self.properties))
            return out.data[:out.length]
        finally:
            buffer_free(&out)

    cdef tuple _parts(self):
        return (self.class_id, self.weight, self.body_size, self.properties)

    def __eq__(self, other):
        if not isinstance(other, ContentHeader):
            return NotImplemented
        return self._parts() == (<ContentHeader>other)._parts()

    def __hash__(self):
        return hash(self._parts())

    def __repr__(self):
        return f"ContentHeader(class_id={self.class_id}, weight={self.weight}, body_size={self.body_size}, properties={self.properties!r})"


def decode_content_header(bytes payload not None):
    """The `ContentHeader` that a header frame's payload is; its properties are not looked into.

    `FrameError` (501), in RabbitMQ's words, for less than 12 bytes.
    """
    cdef Cursor at
    if len(payload) < 12:
        raise FrameError(f"type 2, all octets = {quoted_bytes(payload)}: unknown_frame")
    at.at = <const uint8_t*>payload
    at.end = at.at + len(payload)
    at.failed = False
    class_id = cursor_u16(&at)
    weight = cursor_u16(&at)
    return ContentHeader(class_id, cursor_u64(&at), payload[12:], weight=weight)
