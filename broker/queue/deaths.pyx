"""The deaths of a message: what a dead letter's headers tell of the queues in which it has died, and why, as in RabbitMQ 4.

    x-death                                 array of tables, the latest first, one for each queue and reason:
                                            count, reason, queue, time (of the first, seconds since 1970), exchange, routing-keys and,
                                            if it had one, original-expiration
    x-first-death-queue, -reason, -exchange the first of all, for good
    x-last-death-queue, -reason, -exchange  the latest

Headers are spliced as bytes: what is not ours stays as the publisher wrote it, and a message that has died a thousand times costs no
thousand objects. What a client has put under these names means nothing and is replaced (RabbitMQ 3.13 and older believed it).

The worker's `dead_letters` calls this, and whoever puts a dead letter into a queue. Pure.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from leveret.codec.properties cimport (
    HAS_CONTENT_ENCODING,
    HAS_CONTENT_TYPE,
    HAS_EXPIRATION,
    HAS_HEADERS,
    MORE_FLAGS,
    PROPERTIES_OK,
    PropertiesView,
    properties_error,
    view_properties,
)
from leveret.codec.tables cimport find_in_table, value_width
from leveret.codec.wire cimport (
    Buffer,
    buffer_at,
    buffer_free,
    buffer_mark,
    buffer_u8,
    buffer_u16,
    buffer_u32,
    buffer_u64,
    buffer_write,
    load_u16,
    load_u32,
    load_u64,
    store_u32,
    store_u64,
)

from leveret.codec.tables import find_field

cdef enum:
    COUNT_SIZE = 15             # of "count" and its number, with which each table of ours begins

cdef tuple FIRST = (b"x-first-death-queue", b"x-first-death-reason", b"x-first-death-exchange")
cdef tuple LAST = (b"x-last-death-queue", b"x-last-death-reason", b"x-last-death-exchange")


cdef int write_name(Buffer* out, bytes name, uint8_t tag) except -1:
    buffer_u8(out, <uint8_t>len(name))
    buffer_write(out, <const uint8_t*>name, len(name))
    return buffer_u8(out, tag)


cdef int write_string(Buffer* out, const uint8_t* data, size_t size) except -1:
    buffer_u32(out, <uint32_t>size)
    return buffer_write(out, data, size)


cdef int write_field(Buffer* out, bytes name, bytes value) except -1:
    write_name(out, name, c"S")
    return write_string(out, <const uint8_t*>value, len(value))


cdef int write_table(Buffer* out, bytes queue, bytes reason, bytes exchange, bytes routing_key, list further_keys,
                     const PropertiesView* view, uint64_t time_s) except -1:
    """One death, the first of its kind."""
    cdef size_t mark, keys_mark
    buffer_u8(out, c"F")
    mark = buffer_mark(out)
    buffer_u32(out, 0)
    write_name(out, b"count", c"l")
    buffer_u64(out, 1)
    write_field(out, b"reason", reason)
    write_field(out, b"queue", queue)
    write_name(out, b"time", c"T")
    buffer_u64(out, time_s)
    write_field(out, b"exchange", exchange)
    write_name(out, b"routing-keys", c"A")
    keys_mark = buffer_mark(out)
    buffer_u32(out, 0)
    for key in [routing_key, *further_keys]:
        buffer_u8(out, c"S")
        write_string(out, <const uint8_t*><bytes>key, len(key))
    store_u32(buffer_at(out, keys_mark), <uint32_t>(buffer_mark(out) - keys_mark - 4))
    if view.flags & HAS_EXPIRATION:
        write_name(out, b"original-expiration", c"S")
        write_string(out, view.expiration.data, view.expiration.size)
    store_u32(buffer_at(out, mark), <uint32_t>(buffer_mark(out) - mark - 4))
    return 0


cdef bint has_string(const uint8_t* table, size_t size, const char* name, size_t name_size, bytes value) except -1:
    """Whether the table's field of that name is this string."""
    cdef uint8_t tag = 0
    cdef size_t value_size = 0
    cdef const uint8_t* found = find_in_table(table, size, name, name_size, &tag, &value_size)
    return (found != NULL and tag == c"S" and value_size == 4 + <size_t>len(value)
            and memcmp(found + 4, <const uint8_t*>value, len(value)) == 0)


cdef int write_deaths(Buffer* out, const uint8_t* old, size_t old_size, bytes queue, bytes reason, bytes exchange, bytes routing_key,
                      list further_keys, const PropertiesView* view, uint64_t time_s) except -1:
    """The array x-death: this death in front, or counted once more and moved there; `old`: the array's content, all tables of ours."""
    cdef const uint8_t* at = old
    cdef const uint8_t* end = old + old_size
    cdef const uint8_t* same = NULL
    cdef size_t size
    cdef size_t mark
    cdef uint8_t* count
    write_name(out, b"x-death", c"A")
    mark = buffer_mark(out)
    buffer_u32(out, 0)
    while at < end and same == NULL:
        size = 5 + load_u32(at + 1)
        if has_string(at + 5, size - 5, "queue", 5, queue) and has_string(at + 5, size - 5, "reason", 6, reason):
            same = at
        at += size
    if same == NULL:
        write_table(out, queue, reason, exchange, routing_key, further_keys, view, time_s)
        buffer_write(out, old, old_size)
    else:
        buffer_write(out, same, at - same)
        count = buffer_at(out, buffer_mark(out)) - (at - same) + 5 + COUNT_SIZE - 8
        store_u64(count, load_u64(count) + 1)
        buffer_write(out, old, same - old)
        buffer_write(out, at, end - at)
    store_u32(buffer_at(out, mark), <uint32_t>(buffer_mark(out) - mark - 4))
    return 0


cdef int copy_others(Buffer* out, const uint8_t* headers, size_t size, list names) except -1:
    """The header fields but for those of these names, however often they stand there."""
    cdef const uint8_t* at = headers            # copied up to here
    cdef const uint8_t* field = headers
    cdef const uint8_t* next
    cdef const uint8_t* end = headers + size
    cdef bytes name
    while field < end:
        next = field + 1 + field[0]
        next += 1 + value_width(next[0], next + 1, end)
        if field[0] == 2 or field[0] == 7 or field[0] >= 18:    # as long as one of ours, so that the others cost no object
            name = (field + 1)[:field[0]]
            if name in names:
                buffer_write(out, at, field - at)
                at = next
        field = next
    return buffer_write(out, at, end - at)


cpdef bytes with_death(bytes properties, bint own, bytes queue, bytes reason, bytes exchange, bytes routing_key, bint new_key,
                       unsigned long long time_s):
    """The properties of the dead letter that a message with these properties becomes.

    own: the x-death headers in them are from here, else they are a client's; queue: where it died; reason: b"expired", b"rejected" or
    b"maxlen"; exchange, routing_key: with which it was published; new_key: its dead letter gets another routing key, and so loses CC;
    time_s: seconds since 1970. The expiration goes, or the letter would die of it again. Raises `FrameError` if they are no properties.
    """
    cdef const uint8_t* data = <const uint8_t*>properties
    cdef size_t size = <size_t>len(properties)
    cdef const uint8_t* at
    cdef const uint8_t* rest
    cdef const uint8_t* old = NULL
    cdef uint8_t tag = 0
    cdef size_t old_size = 0
    cdef size_t mark
    cdef PropertiesView view
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    cdef int fault = view_properties(data, size, &view)
    cdef uint16_t flags
    cdef list names = [b"x-death", *LAST]
    cdef list further_keys = []
    if fault != PROPERTIES_OK:
        raise properties_error(fault)
    if view.flags & HAS_HEADERS:
        if own:
            old = find_in_table(view.headers, view.headers_size, "x-death", 7, &tag, &old_size)
        carbon = find_field((view.headers - 4)[:view.headers_size + 4], "CC", typed=True)
        if carbon is not None and carbon.tag == "A":
            further_keys = [key.value if isinstance(key.value, bytes) else key.value.encode("utf-8", "surrogateescape")
                            for key in carbon.value if key.tag == "S"]
    if old == NULL:
        names += FIRST
    if new_key:
        names.append(b"CC")
    flags = load_u16(data)
    at = data + 2
    while flags & MORE_FLAGS:       # further words of flags are empty, and left out
        flags = load_u16(at)
        at += 2
    try:
        buffer_u16(&out, (view.flags | <uint16_t>HAS_HEADERS) & ~<uint16_t>HAS_EXPIRATION)
        rest = at
        if view.flags & HAS_CONTENT_TYPE:
            rest += 1 + rest[0]
        if view.flags & HAS_CONTENT_ENCODING:
            rest += 1 + rest[0]
        buffer_write(&out, at, rest - at)
        mark = buffer_mark(&out)
        buffer_u32(&out, 0)
        if view.flags & HAS_HEADERS:
            copy_others(&out, view.headers, view.headers_size, names)
            rest = view.headers + view.headers_size
        if old == NULL:
            for name, value in zip(FIRST, (queue, reason, exchange), strict=True):
                write_field(&out, name, value)
            write_deaths(&out, NULL, 0, queue, reason, exchange, routing_key, further_keys, &view, time_s)
        else:
            write_deaths(&out, old + 4, old_size - 4, queue, reason, exchange, routing_key, further_keys, &view, time_s)
        for name, value in zip(LAST, (queue, reason, exchange), strict=True):
            write_field(&out, name, value)
        store_u32(buffer_at(&out, mark), <uint32_t>(buffer_mark(&out) - mark - 4))
        if view.flags & HAS_EXPIRATION:
            buffer_write(&out, rest, view.expiration.data - 1 - rest)
            rest = view.expiration.data + view.expiration.size
        buffer_write(&out, rest, data + size - rest)
        return out.data[out.start:out.length]
    finally:
        buffer_free(&out)


cpdef bint closes_cycle(bytes properties, bytes queue) except -1:
    """Whether a dead letter (with headers of ours) that comes to this queue goes round in a circle all by itself.

    It does if it has died in the queue before and nobody has rejected it since then, that death included.
    """
    cdef PropertiesView view
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef uint8_t tag = 0
    cdef size_t size = 0
    if view_properties(<const uint8_t*>properties, len(properties), &view) != PROPERTIES_OK or not view.flags & HAS_HEADERS:
        return False
    at = find_in_table(view.headers, view.headers_size, "x-death", 7, &tag, &size)
    if at == NULL or tag != c"A":
        return False
    end = at + size
    at += 4
    while at < end:
        size = load_u32(at + 1)
        if has_string(at + 5, size, "reason", 6, b"rejected"):
            return False
        if has_string(at + 5, size, "queue", 5, queue):
            return True
        at += 5 + size
    return False
