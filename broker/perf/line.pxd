from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.wire cimport Buffer

cdef enum:
    INBOX_SIZE = 1 << 18        # above the largest frame_max that a session agrees to, so a whole method frame always fits

cdef enum Outcome:
    GOING = 0
    TIME_UP = 1                 # `until_ns` has come
    DONE = 2                    # the number of messages asked for has been reached
    COLD = 3                    # a method for Python lies in `cold`
    ENDED = 4                   # the broker closed the socket
    BROKEN = 5                  # what the broker sent is not AMQP: `complaint` says why
    FAILED = 6                  # a system call failed: `error_number`

cdef uint64_t clock_ns() noexcept nogil


cdef class Line:
    cdef readonly int fd
    cdef uint16_t channel_id
    cdef uint8_t* inbox
    cdef size_t inbox_length
    cdef Buffer out
    cdef Buffer cold
    cdef uint16_t cold_channel_id
    cdef const char* complaint
    cdef int error_number
    cdef uint64_t now_ns            # when the bytes being read arrived
    # The content (header and body) that is being read.
    cdef bint in_content
    cdef uint64_t body_left         # bytes of it that have not begun to arrive in a frame
    cdef uint64_t frame_left        # bytes of the current body frame, its end octet included
    cdef uint64_t body_size
    cdef uint8_t stamp[16]          # the body's first bytes
    cdef unsigned int stamp_size
    cdef readonly uint64_t system_calls

    cdef check(self, Outcome outcome)
    cdef Outcome on_method(self, uint32_t method, const uint8_t* arguments, size_t size) noexcept nogil
    cdef Outcome on_content(self) noexcept nogil
    cdef Outcome listening(self, uint64_t until_ns) noexcept nogil
    cdef Outcome read(self, bint* idle) noexcept nogil
    cdef Outcome walk(self) noexcept nogil
    cdef Outcome keep_cold(self, uint16_t channel_id, const uint8_t* payload, size_t size) noexcept nogil
    cdef Outcome flush(self, bint* stuck) noexcept nogil
    cdef Outcome wait(self, bint writable, uint64_t until_ns) noexcept nogil
    cdef Outcome complain(self, const char* complaint) noexcept nogil
