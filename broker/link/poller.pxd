from libc.stdint cimport uint8_t, uint64_t


cdef class Poller:
    cdef int epoll_fd
    cdef object loop                # the asyncio loop it is attached to
    cdef dict streams               # fd -> Stream: what holds a stream alive while it is open
    cdef uint8_t* chunk             # the one read buffer of all streams
    cdef size_t chunk_size
    cdef list pending               # streams with output not yet written in this turn
    cdef list endings               # callables run at the end of the turn, before the flush
    cdef bint in_turn
    cdef bint flush_called
    cdef readonly uint64_t now_ms   # monotonic, read once per turn

    cdef int add(self, Stream stream) except -1
    cdef int change(self, Stream stream) except -1
    cdef int remove(self, Stream stream) except -1
    cdef int want_flush(self, Stream stream) except -1
    cdef int end_turn(self) except -1


from leveret.link.stream cimport Stream  # noqa: E402 (the two know each other)
