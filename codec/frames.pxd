"""Frames in C: finding the next one where it lies, and writing frames into a buffer. All inline, for the loops of whoever cimports it.

    0      1         3             7                size + 7   size + 8
    +------+---------+-------------+---- ... -------+----------+
    | type | channel | size        | payload        | 0xCE     |
    +------+---------+-------------+---- ... -------+----------+

`frame_max` counts all of this; 0 is no limit. `size` counts the payload alone.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from leveret.codec.methods cimport METHOD_BASIC_DELIVER, Method
from leveret.codec.wire cimport Buffer, buffer_reserve, load_u16, load_u32, store_u16, store_u32, store_u64

cdef enum:
    FRAME_METHOD = 1
    FRAME_HEADER = 2
    FRAME_BODY = 3
    FRAME_HEARTBEAT = 8
    FRAME_END = 0xCE

cdef enum:
    FRAME_HEAD_SIZE = 7         # before the payload
    FRAME_OVERHEAD = 8          # around the payload
    FRAME_MIN_SIZE = 4096       # the smallest frame_max that a peer may ask for
    CONTENT_HEAD_SIZE = 12      # class id, weight and body size: a content header's payload before its properties

# What `next_frame` may answer instead of a number of bytes.
cdef enum:
    FRAME_FAULT_TYPE = -1       # no frame type
    FRAME_FAULT_SIZE = -2       # larger than frame_max and 8 bytes more
    FRAME_FAULT_END = -3        # the octet after the payload is not 0xCE

cdef struct Frame:
    uint8_t type
    uint16_t channel
    uint32_t size               # of the payload
    const uint8_t* payload


cdef inline Py_ssize_t next_frame(const uint8_t* data, size_t size, uint32_t frame_max, Frame* frame) noexcept nogil:
    """The frame that `data` begins with: bytes it takes, 0 when more are needed, or a FRAME_FAULT_….

    Type and size are judged as soon as the 7 bytes before the payload are there: no more than frame_max + 8 bytes are ever waited for.
    A frame may be 8 bytes larger than frame_max: some clients count the payload only, and RabbitMQ lets them.
    """
    cdef uint32_t payload_size
    if size < FRAME_HEAD_SIZE:
        return 0
    # The size first: that is what RabbitMQ says of garbage.
    payload_size = load_u32(data + 3)
    if payload_size > frame_max and frame_max != 0:
        return FRAME_FAULT_SIZE
    if <uint8_t>(data[0] - 1) > 2 and data[0] != FRAME_HEARTBEAT:
        return FRAME_FAULT_TYPE
    if size < <size_t>payload_size + FRAME_OVERHEAD:
        return 0
    if data[FRAME_HEAD_SIZE + <size_t>payload_size] != FRAME_END:
        return FRAME_FAULT_END
    frame.type = data[0]
    frame.channel = load_u16(data + 1)
    frame.size = payload_size
    frame.payload = data + FRAME_HEAD_SIZE
    return <Py_ssize_t>payload_size + FRAME_OVERHEAD


cdef object frame_fault_error(Py_ssize_t fault, const uint8_t* data, size_t size, uint32_t frame_max)
cdef object frame_end_error(const Frame* frame, uint8_t octet)
cdef str shown_frame(uint8_t type, const uint8_t* payload, size_t size, size_t held)


cdef inline void store_frame_head(uint8_t* at, uint8_t type, uint16_t channel, uint32_t payload_size) noexcept nogil:
    """The 7 bytes before a payload."""
    at[0] = type
    store_u16(at + 1, channel)
    store_u32(at + 3, payload_size)


cdef inline size_t body_piece(uint32_t frame_max) noexcept nogil:
    """The largest payload of a body frame."""
    if frame_max > FRAME_OVERHEAD:
        return <size_t>(frame_max - FRAME_OVERHEAD)
    return <size_t>0xFFFFFFF0


cdef inline size_t content_size(size_t properties_size, size_t body_size, uint32_t frame_max) noexcept nogil:
    """Bytes of a content header's frame and of its body frames."""
    cdef size_t piece = body_piece(frame_max)
    return (FRAME_OVERHEAD + CONTENT_HEAD_SIZE + properties_size
            + body_size + (body_size + piece - 1) / piece * FRAME_OVERHEAD)


cdef inline uint8_t* store_content_header(
    uint8_t* at, uint16_t channel, uint16_t class_id, uint64_t body_size, const uint8_t* properties, uint32_t properties_size,
) noexcept nogil:
    """A content header's frame; properties: flags and list. Answers where it ends."""
    store_frame_head(at, FRAME_HEADER, channel, CONTENT_HEAD_SIZE + properties_size)
    store_u16(at + 7, class_id)
    store_u16(at + 9, 0)
    store_u64(at + 11, body_size)
    memcpy(at + 19, properties, properties_size)
    at += 19 + properties_size
    at[0] = FRAME_END
    return at + 1


cdef inline uint8_t* store_body_frames(
    uint8_t* at, uint16_t channel, const uint8_t* body, size_t size, uint32_t frame_max,
) noexcept nogil:
    """As many body frames as `size` bytes need; none for an empty body. Answers where they end."""
    cdef size_t piece = body_piece(frame_max)
    cdef size_t now
    while size > 0:
        now = piece if size > piece else size
        store_frame_head(at, FRAME_BODY, channel, <uint32_t>now)
        memcpy(at + FRAME_HEAD_SIZE, body, now)
        at += FRAME_HEAD_SIZE + now
        at[0] = FRAME_END
        at += 1
        body += now
        size -= now
    return at


cdef inline uint8_t* reserve_or_raise(Buffer* out, size_t size) except NULL nogil:
    cdef uint8_t* at = buffer_reserve(out, size)
    if at == NULL:
        with gil:
            raise MemoryError()
    return at


cdef inline int write_frame_head(Buffer* out, uint8_t type, uint16_t channel, uint32_t payload_size) except -1 nogil:
    store_frame_head(reserve_or_raise(out, FRAME_HEAD_SIZE), type, channel, payload_size)
    out.length += FRAME_HEAD_SIZE
    return 0


cdef inline int write_content_header(
    Buffer* out, uint16_t channel, uint16_t class_id, uint64_t body_size, const uint8_t* properties, uint32_t properties_size,
) except -1 nogil:
    cdef size_t size = FRAME_OVERHEAD + CONTENT_HEAD_SIZE + <size_t>properties_size
    store_content_header(reserve_or_raise(out, size), channel, class_id, body_size, properties, properties_size)
    out.length += size
    return 0


cdef inline int write_body_frames(Buffer* out, uint16_t channel, const uint8_t* body, size_t size, uint32_t frame_max) except -1 nogil:
    cdef uint8_t* at = reserve_or_raise(out, content_size(0, size, frame_max))
    out.length += <size_t>(store_body_frames(at, channel, body, size, frame_max) - at)
    return 0


cdef inline int write_content(
    Buffer* out, uint16_t channel, uint16_t class_id,
    const uint8_t* properties, uint32_t properties_size, const uint8_t* body, size_t body_size, uint32_t frame_max,
) except -1 nogil:
    """A content header's frame and its body frames."""
    cdef uint8_t* start = reserve_or_raise(out, content_size(properties_size, body_size, frame_max))
    cdef uint8_t* at = store_content_header(start, channel, class_id, body_size, properties, properties_size)
    at = store_body_frames(at, channel, body, body_size, frame_max)
    out.length += <size_t>(at - start)
    return 0


cdef inline size_t deliver_method_size(uint8_t consumer_tag_size, uint8_t exchange_size, uint8_t routing_key_size) noexcept nogil:
    """The payload of a basic.deliver."""
    return <size_t>16 + consumer_tag_size + exchange_size + routing_key_size


cdef inline uint8_t* store_deliver(
    uint8_t* at, uint16_t channel, const uint8_t* consumer_tag, uint8_t consumer_tag_size, uint64_t delivery_tag, bint redelivered,
    const uint8_t* exchange, uint8_t exchange_size, const uint8_t* routing_key, uint8_t routing_key_size,
    const uint8_t* properties, uint32_t properties_size, uint64_t body_size,
) noexcept nogil:
    """basic.deliver and its content header: all of a delivery before its body frames. Answers where it ends."""
    store_frame_head(at, FRAME_METHOD, channel, <uint32_t>deliver_method_size(consumer_tag_size, exchange_size, routing_key_size))
    store_u32(at + 7, METHOD_BASIC_DELIVER)
    at[11] = consumer_tag_size
    memcpy(at + 12, consumer_tag, consumer_tag_size)
    at += 12 + consumer_tag_size
    store_u64(at, delivery_tag)
    at[8] = redelivered
    at[9] = exchange_size
    memcpy(at + 10, exchange, exchange_size)
    at += 10 + exchange_size
    at[0] = routing_key_size
    memcpy(at + 1, routing_key, routing_key_size)
    at += 1 + routing_key_size
    at[0] = FRAME_END
    return store_content_header(at + 1, channel, METHOD_BASIC_DELIVER >> 16, body_size, properties, properties_size)


cdef inline int write_deliver(
    Buffer* out, uint16_t channel, const uint8_t* consumer_tag, uint8_t consumer_tag_size, uint64_t delivery_tag, bint redelivered,
    const uint8_t* exchange, uint8_t exchange_size, const uint8_t* routing_key, uint8_t routing_key_size,
    const uint8_t* properties, uint32_t properties_size, const uint8_t* body, size_t body_size, uint32_t frame_max,
) except -1 nogil:
    """basic.deliver with its content, every frame of it, into one reservation. body NULL: all but its frames, which the caller writes."""
    cdef size_t method_size = deliver_method_size(consumer_tag_size, exchange_size, routing_key_size)
    cdef uint8_t* start = reserve_or_raise(
        out, FRAME_OVERHEAD + method_size + content_size(properties_size, body_size if body != NULL else 0, frame_max))
    cdef uint8_t* at = store_deliver(
        start, channel, consumer_tag, consumer_tag_size, delivery_tag, redelivered, exchange, exchange_size, routing_key, routing_key_size,
        properties, properties_size, body_size)
    if body != NULL:
        at = store_body_frames(at, channel, body, body_size, frame_max)
    out.length += <size_t>(at - start)
    return 0


cdef int write_method_frame(Buffer* out, uint16_t channel, Method method) except -1
cdef int write_heartbeat(Buffer* out) except -1
