"""The loops of `bench/codec.py`: each runs one piece of the codec many times in C, so that what is timed is what the hot path pays.

Buffers are emptied between rounds of a loop and keep their memory, as a connection's do. Times are taken by the caller around the call.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.codec.frames cimport FRAME_BODY, Frame, next_frame, write_body_frames, write_deliver, write_method_frame
from leveret.codec.methods cimport Method, decode_method_at
from leveret.codec.properties cimport PROPERTIES_OK, PropertiesView, view_properties
from leveret.codec.tables cimport check_table, find_in_table
from leveret.codec.wire cimport Buffer, buffer_free

cdef enum:
    FULL_BYTES = 64 * 1024      # a buffer is written out and empty again after so many


def scan(bytes stream not None, uint32_t frame_max, long times):
    """Walk the frames of `stream` `times` times; the number of bodies' bytes seen in one walk."""
    cdef const uint8_t* data = stream
    cdef size_t size = len(stream)
    cdef size_t at
    cdef uint64_t body_bytes = 0
    cdef Py_ssize_t taken
    cdef Frame frame
    cdef long _
    for _ in range(times):
        at = 0
        body_bytes = 0
        while at < size:
            taken = next_frame(data + at, size - at, frame_max, &frame)
            if taken <= 0:
                raise ValueError(f"no whole frame at byte {at}")
            if frame.type == FRAME_BODY:
                body_bytes += frame.size
            at += taken
    return body_bytes


def deliver(bytes body not None, bytes properties not None, uint32_t frame_max, long times):
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    cdef const uint8_t* tag = <const uint8_t*>b"ctag1.0123456789abcdef"
    cdef const uint8_t* key = <const uint8_t*>b"bench.queue"
    cdef const uint8_t* listed = properties
    cdef const uint8_t* content = body
    cdef uint32_t properties_size = <uint32_t>len(properties)
    cdef size_t size = len(body)
    cdef long number
    for number in range(times):
        write_deliver(&out, 1, tag, 22, number, False, tag, 0, key, 11, listed, properties_size, content, size, frame_max)
        if out.length >= FULL_BYTES:
            out.length = 0
    buffer_free(&out)


def split_body(bytes body not None, uint32_t frame_max, long times):
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    cdef const uint8_t* content = body
    cdef size_t size = len(body)
    cdef long _
    for _ in range(times):
        write_body_frames(&out, 1, content, size, frame_max)
        out.length = 0
    buffer_free(&out)


def view(bytes properties not None, long times):
    cdef const uint8_t* data = properties
    cdef size_t size = len(properties)
    cdef PropertiesView seen
    cdef long _
    for _ in range(times):
        if view_properties(data, size, &seen) != PROPERTIES_OK:
            raise ValueError("malformed properties")


def check(bytes table not None, long times):
    """Check the content of an encoded table (after its length)."""
    cdef const uint8_t* data = table
    cdef size_t size = len(table)
    cdef long _
    for _ in range(times):
        if check_table(data + 4, size - 4):
            raise ValueError("malformed table")


def find(bytes table not None, bytes name not None, long times):
    cdef const uint8_t* data = table
    cdef const char* key = name
    cdef size_t size = len(table)
    cdef size_t key_size = len(name)
    cdef size_t value_size
    cdef uint8_t tag
    cdef long _
    for _ in range(times):
        if find_in_table(data + 4, size - 4, key, key_size, &tag, &value_size) == NULL:
            raise ValueError("no such field")


def decode(bytes payload not None, long times):
    cdef const uint8_t* data = payload
    cdef size_t size = len(payload)
    cdef long _
    for _ in range(times):
        decode_method_at(data, size)


def write_method(Method method not None, long times):
    cdef Buffer out = Buffer(NULL, 0, 0, 0)
    cdef long _
    for _ in range(times):
        write_method_frame(&out, 1, method)
        if out.length >= FULL_BYTES:
            out.length = 0
    buffer_free(&out)
