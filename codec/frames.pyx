"""Frames for Python: a sans-IO reader that is fed bytes and yields frames, and encoders of method, content and heartbeat frames.

The C side, which the workers and the load generator compile into their loops, is all in `frames.pxd`. Used from Python by tests, bare
clients and whatever does not carry messages. Knows sizes and ends of frames; what order they may come in is the connection's affair.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.methods cimport Method
from leveret.codec.wire cimport (
    Buffer, buffer_at, buffer_consume, buffer_free, buffer_mark, buffer_rewind, buffer_u8, buffer_unread, buffer_write, load_u32, store_u32,
)

from leveret.codec.errors import FrameError, quoted_bytes

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


cdef object frame_fault_error(Py_ssize_t fault, const uint8_t* data, size_t size, uint32_t frame_max):
    """The FrameError, in RabbitMQ's words, for what `next_frame` said of the `size` bytes at `data` (at least 7)."""
    cdef uint32_t payload_size = load_u32(data + 3)
    cdef Frame frame
    if fault == FRAME_FAULT_SIZE:
        limit = <long long>frame_max - FRAME_OVERHEAD
        return FrameError(f"type {data[0]}, all octets = <<>>: {{frame_too_large,{payload_size},{limit}}}")
    if fault == FRAME_FAULT_END:
        frame = Frame(data[0], 0, payload_size, data + FRAME_HEAD_SIZE)
        return frame_end_error(&frame, data[FRAME_HEAD_SIZE + <size_t>payload_size])
    return FrameError(f"{shown_frame(data[0], data + FRAME_HEAD_SIZE, payload_size, size - FRAME_HEAD_SIZE)}: unknown_frame")


cdef object frame_end_error(const Frame* frame, uint8_t octet):
    """The FrameError for a frame whose payload, all of it there, is followed by `octet` instead of FRAME_END."""
    return FrameError(f"{shown_frame(frame.type, frame.payload, frame.size, frame.size)}: {{invalid_frame_end_marker,{octet}}}")


cdef str shown_frame(uint8_t type, const uint8_t* payload, size_t size, size_t held):
    """A frame as RabbitMQ's reply texts show it. `held`: how much of the payload's `size` bytes has come."""
    cdef size_t shown = min(size, held, <size_t>16)
    which = "all" if size <= 16 else "first 16"
    return f"type {type}, {which} octets = {quoted_bytes(payload[:shown])}"


cdef int write_method_frame(Buffer* out, uint16_t channel, Method method) except -1:
    """The method's frame; on an exception the buffer is as it was. Does not look at frame_max: a method cannot be split."""
    cdef size_t mark = buffer_mark(out)
    try:
        write_frame_head(out, FRAME_METHOD, channel, 0)
        method.write(out)
        store_u32(buffer_at(out, mark) + 3, <uint32_t>(buffer_mark(out) - mark - FRAME_HEAD_SIZE))
        buffer_u8(out, FRAME_END)
    except BaseException:
        buffer_rewind(out, mark)
        raise
    return 0


cdef int write_heartbeat(Buffer* out) except -1:
    write_frame_head(out, FRAME_HEARTBEAT, 0, 0)
    return buffer_u8(out, FRAME_END)


cdef class ReceivedFrame:
    """A frame as it came. type: FRAME_METHOD 1, FRAME_HEADER 2, FRAME_BODY 3 or FRAME_HEARTBEAT 8; channel: 0..65535; payload: bytes."""

    cdef readonly int type
    cdef readonly int channel
    cdef readonly bytes payload

    def __init__(self, int type, int channel, bytes payload not None):
        self.type = type
        self.channel = channel
        self.payload = payload

    def __eq__(self, other):
        if not isinstance(other, ReceivedFrame):
            return NotImplemented
        return (self.type, self.channel, self.payload) == (other.type, other.channel, other.payload)

    def __hash__(self):
        return hash((self.type, self.channel, self.payload))

    def __repr__(self):
        return f"ReceivedFrame(type={self.type}, channel={self.channel}, payload={self.payload!r})"


cdef class FrameReader:
    """Bytes in by `feed`, whole frames out by iterating; what is left of an unfinished frame is kept for the next round.

    frame_max: 0 (no limit) or the agreed number of bytes; may be set when tune-ok says another. Iterating raises `FrameError` at the first
    frame that is none, and again each time after: the sender's bytes have no meaning any more. `unread` is what it holds.
    """

    cdef public uint32_t frame_max
    cdef Buffer held

    def __cinit__(self, uint32_t frame_max=0):
        self.frame_max = frame_max

    def __dealloc__(self):
        buffer_free(&self.held)

    @property
    def unread(self):
        return buffer_unread(&self.held)

    def feed(self, bytes data not None):
        buffer_write(&self.held, <const char*>data, len(data))

    def __iter__(self):
        return self

    def __next__(self):
        cdef Frame frame
        cdef const uint8_t* data = self.held.data + self.held.start
        cdef size_t size = buffer_unread(&self.held)
        cdef Py_ssize_t taken = next_frame(data, size, self.frame_max, &frame)
        if taken == 0:
            raise StopIteration
        if taken < 0:
            raise frame_fault_error(taken, data, size, self.frame_max)
        received = ReceivedFrame(frame.type, frame.channel, frame.payload[:frame.size])
        buffer_consume(&self.held, taken)
        return received


def encode_frame(uint8_t type, uint16_t channel, bytes payload not None):
    """One frame. type and channel as given (also wrong ones, for tests); payload: at most 4 GiB."""
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    if len(payload) > 0xFFFFFFFF:
        raise ValueError("a frame's payload holds at most 4294967295 bytes")
    try:
        write_frame_head(&out, type, channel, <uint32_t>len(payload))
        buffer_write(&out, <const char*>payload, len(payload))
        buffer_u8(&out, FRAME_END)
        return out.data[:out.length]
    finally:
        buffer_free(&out)


def encode_method_frame(uint16_t channel, Method method not None):
    """The frame of a method; raises what `Method.encode` raises."""
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    try:
        write_method_frame(&out, channel, method)
        return out.data[:out.length]
    finally:
        buffer_free(&out)


def encode_content(uint16_t channel, uint16_t class_id, bytes properties not None, bytes body not None, uint32_t frame_max=0):
    """A content header's frame and as many body frames as frame_max (0: no limit; else more than 8) makes necessary.

    properties: flags and list, as `Properties.encode` gives them.
    """
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    if 0 < frame_max <= FRAME_OVERHEAD:
        raise ValueError(f"frame_max {frame_max} leaves no room for a body")
    try:
        write_content(
            &out, channel, class_id, <const uint8_t*>properties, <uint32_t>len(properties), <const uint8_t*>body, len(body), frame_max)
        return out.data[:out.length]
    finally:
        buffer_free(&out)


def encode_deliver(
    uint16_t channel, bytes consumer_tag not None, uint64_t delivery_tag, bint redelivered, bytes exchange not None,
    bytes routing_key not None, bytes properties not None, bytes body not None, uint32_t frame_max=0,
):
    """The frames of one delivery, by the very function that the hot path writes them with.

    consumer_tag, exchange, routing_key: at most 255 bytes each, else `ValueError`; the rest as for `encode_content`.
    """
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    if 0 < frame_max <= FRAME_OVERHEAD:
        raise ValueError(f"frame_max {frame_max} leaves no room for a body")
    if max(len(consumer_tag), len(exchange), len(routing_key)) > 255:
        raise ValueError("a short string holds at most 255 bytes")
    try:
        write_deliver(
            &out, channel, <const uint8_t*>consumer_tag, <uint8_t>len(consumer_tag), delivery_tag, redelivered,
            <const uint8_t*>exchange, <uint8_t>len(exchange), <const uint8_t*>routing_key, <uint8_t>len(routing_key),
            <const uint8_t*>properties, <uint32_t>len(properties), <const uint8_t*>body, len(body), frame_max)
        return out.data[:out.length]
    finally:
        buffer_free(&out)
