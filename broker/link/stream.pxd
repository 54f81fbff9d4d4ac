from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.codec.wire cimport Buffer, buffer_unread
from leveret.link.forecast cimport Forecast
from leveret.link.pieces cimport Pieces
from leveret.link.poller cimport Poller
from leveret.queue.message cimport Message

cdef enum:
    # Bodies of at least this many bytes (or, of several frames, with frames of that size) are sent from where they lie. `Stream.write_from`
    # takes any size; below this a copy is cheaper than a reference.
    BY_REFERENCE_MIN = 16 * 1024
    # A body of at least this many bytes that has come in part is received into its message from there on.
    LANDING_MIN = 4 * 1024


cdef class Stream:
    cdef readonly Poller poller
    cdef readonly int fd            # -1 once closed
    cdef Buffer out                 # written, not yet sent; between its bytes:
    cdef Pieces pieces              # what is sent from where it lies
    cdef Buffer rest                # received, not yet consumed: an unfinished frame or packet
    cdef size_t wanted              # bytes from the first unconsumed one that `on_bytes` needs before it can go on; 0: any
    cdef Message* landing           # with a reference: the message that what comes next belongs into; NULL: nothing does
    cdef uint8_t* landing_at        # where, and how many bytes of it are still to come; 0: all have come, and the subclass has not taken it
    cdef size_t landing_left
    cdef Forecast forecast          # what is expected behind it
    cdef Message* offered           # while a read is served: a block that the next message may be made in (`take_offered`); NULL: none
    cdef uint32_t events            # what epoll watches now
    cdef bint registered            # in the epoll set
    cdef bint exclusive             # of a descriptor that other processes watch too: one of those that sleep is woken, not all
    cdef bint hung                  # the peer has gone while paused: out of the epoll set until it is read again
    cdef bint coalescing            # out of the epoll set for a moment, so that what comes meanwhile is read together
    cdef uint64_t coalesced_until_us
    cdef bint flush_pending
    cdef bint roomy                 # keeps an emptied `out` beyond OUT_KEPT (the poller's `roomy` list)
    cdef bint congested             # `out` went beyond `out_high` and has not fallen below `out_low` since
    cdef bint closing               # close as soon as `out` is sent; nothing is read any more
    cdef bint feeding               # `on_bytes` is running
    cdef bint feed_called
    cdef uint32_t paused            # bits: reasons for not reading; 0: reading
    cdef size_t out_high
    cdef size_t out_low
    cdef size_t out_uncounted       # of the unsent, so many bytes that are not copied do not count for `out_high`
    cdef size_t beside_landing      # how much of what follows a landing body is read with it, at most
    cdef readonly uint64_t received_bytes
    cdef readonly uint64_t sent_bytes
    cdef readonly uint64_t received_count   # reads
    cdef readonly uint64_t sent_count       # writes
    cdef readonly uint64_t received_at_ms
    cdef readonly uint64_t sent_at_ms

    # What a subclass calls.
    cdef int write(self, const void* data, size_t size) except -1
    cdef uint8_t* reserve(self, size_t size) except NULL
    cdef int written(self, size_t size) except -1
    cdef int write_from(self, Message* message, const uint8_t* data, size_t size) except -1
    cdef Message* take_offered(self, size_t block_size, size_t body_at) noexcept
    cdef int land(self, Message* message, uint8_t* at, size_t left) except -1
    cdef int flush(self) except -1
    cdef int pause(self, uint32_t reason) except -1
    cdef int resume(self, uint32_t reason) except -1
    cpdef int close_after_flush(self) except -1
    cpdef int close(self, str reason) except -1
    cdef int let_go(self) except -1
    # What a subclass fills in.
    cdef Py_ssize_t on_bytes(self, const uint8_t* data, size_t size) except -1
    cdef int on_landed(self) except -1
    cdef int on_congested(self) except -1
    cdef int on_drained(self) except -1
    cdef int on_closed(self, str reason) except -1
    cdef bint close_when_hung(self) noexcept
    # The poller's.
    cdef int on_readable(self) except -1
    cdef bint receive(self) except -1
    cdef bint receive_landing(self) except -1
    cdef int feed_chunk(self, const uint8_t* data, size_t size) except -1
    cdef int feed_foreseen(self, Message** blocks, int count, size_t size) except -1
    cdef int take_in(self, const uint8_t* data, size_t size) except -1
    cdef int feed_rest(self) except -1
    cdef Py_ssize_t send_some(self, size_t* asked) except? -1
    cdef int drop_landing(self) except -1
    cdef int count_received(self, size_t size) except -1
    cdef int nothing_received(self, Py_ssize_t received) except -1
    cdef str reason_of(self, int error)


cdef enum:
    PAUSED_CLOSING = 1              # the only reason that `Stream` itself gives; subclasses begin at 2


cdef inline size_t unsent(Stream stream) noexcept:
    """Bytes written and not yet taken by the kernel, copied or not."""
    return buffer_unread(&stream.out) + stream.pieces.size
