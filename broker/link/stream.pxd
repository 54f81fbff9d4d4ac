from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.codec.wire cimport Buffer
from leveret.link.poller cimport Poller


cdef class Stream:
    cdef Poller poller
    cdef readonly int fd            # -1 once closed
    cdef Buffer out                 # written, not yet sent
    cdef Buffer rest                # received, not yet consumed: an unfinished frame or packet
    cdef size_t wanted              # bytes that `on_bytes` needs before it can go on; 0: any
    cdef uint32_t events            # what epoll watches now
    cdef bint flush_pending
    cdef bint congested             # `out` is beyond `out_high` and has not fallen below `out_low` since
    cdef bint closing               # close as soon as `out` is sent
    cdef uint32_t paused            # bits: reasons for not reading; 0: reading
    cdef size_t out_high
    cdef size_t out_low
    cdef readonly uint64_t received_bytes
    cdef readonly uint64_t sent_bytes
    cdef readonly uint64_t received_at_ms
    cdef readonly uint64_t sent_at_ms

    cdef int write(self, const void* data, size_t size) except -1
    cdef uint8_t* reserve(self, size_t size) except NULL
    cdef int written(self, size_t size) except -1
    cdef int flush(self) except -1
    cdef int on_readable(self) except -1
    cdef int feed(self, const uint8_t* data, size_t size) except -1
    cdef int pause(self, uint32_t reason) except -1
    cdef int resume(self, uint32_t reason) except -1
    # What a subclass fills in.
    cdef Py_ssize_t on_bytes(self, const uint8_t* data, size_t size) except -1
    cdef int on_congested(self) except -1
    cdef int on_drained(self) except -1
    cdef int on_closed(self, str reason) except -1
