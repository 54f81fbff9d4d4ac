from libc.stdint cimport uint64_t

from leveret.queue.message cimport Message
from leveret.queue.ring cimport Entry, Ring


cdef struct Page:               # what one `page_in` has brought
    size_t count                # messages
    uint64_t size               # bytes of their bodies
    size_t lost                 # messages that cannot be read any more, beside those
    uint64_t last               # nothing up to this position is paged out any more


cdef class Journal:
    cdef int add(self, uint64_t position, uint64_t expires_ms, Message* message) except -1
    cdef int settle(self, uint64_t position, Message* message) except -1
    cdef int expect(self, bint somebody) except -1
    cdef int mark(self) except -1
    cdef size_t page_out(self, Ring* ring, uint64_t* size) except? 0
    cdef int page_in(self, uint64_t first, Ring* into, Page* page) except -1
    cdef int drop_pages(self, uint64_t first, uint64_t last) except -1
