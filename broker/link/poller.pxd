from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.link.stream cimport Stream


cdef uint64_t monotonic_ms() noexcept nogil


cdef class Poller:
    cdef readonly object loop       # the asyncio loop it is attached to
    cdef int epoll_fd
    cdef int timer_fd               # wakes us when a coalesced stream is to be read; -1 until there is one
    cdef uint64_t timer_us          # when it will; 0: it will not
    cdef list coalesced             # streams that are read later, the next one first
    cdef public uint64_t coalesce_us    # by so much; one value for all of them, or their order would not hold
    cdef void** streams             # fd -> Stream, each with a reference: what keeps a stream alive while it is open
    cdef int streams_size
    cdef readonly int streams_open
    cdef uint8_t* chunk             # the one read buffer of all streams
    cdef size_t chunk_size
    cdef list pending               # streams with output not yet written in this turn
    cdef list roomy                 # streams that keep a large output buffer, the one that came first at the front
    cdef list endings               # Ending objects to be run at the end of the turn, before the flush
    cdef dict watched               # the loop's own descriptors, when we are its selector: fd -> WATCHED_READ, WATCHED_WRITE
    cdef bint driving               # we are the loop's selector
    cdef public bint woken          # the loop has got something to do: `wait` comes back at the end of the turn
    cdef bint in_turn
    cdef bint end_called
    cdef readonly uint64_t now_ms   # monotonic, read once per turn; `monotonic_ms` tells what it is now
    cdef uint64_t now_us            # the same

    cdef int add(self, Stream stream) except -1
    cdef int change(self, Stream stream) except -1
    cdef int stand_last(self, Stream stream, uint32_t events) except -1
    cdef int remove(self, Stream stream) except -1
    cdef int coalesce(self, Stream stream) except -1
    cdef int read_coalesced(self) except -1
    cdef int set_timer(self) except -1
    cdef void look_at_clock(self) noexcept
    cdef int want_flush(self, Stream stream) except -1
    cdef int keep_room(self, Stream stream) except -1
    cdef int want_ending(self, Ending ending) except -1
    cdef int end_turn(self) except -1
    cdef int call_end(self) except -1
    cdef bint serve_ready(self, int wait_ms, list found) except -1
    cdef int serve(self, Stream stream, uint32_t events) except -1
    cdef int hang_up(self, Stream stream) except -1
    cdef int report(self, Stream stream, error) except -1


cdef class Ending:
    """Work gathered over a turn and done once at its end: a channel's confirms, a link's verdicts."""
    cdef bint ending_pending
    cdef int at_turn_end(self) except -1
