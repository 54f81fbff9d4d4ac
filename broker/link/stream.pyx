"""A stream: one non-blocking socket with its input and its output in C.

It owns the descriptor, the unsent output and the unconsumed tail of the input. The poller calls it when the socket is ready; AMQP
connections and links are its subclasses and give it meaning by `on_bytes`. It never blocks, never drops, and knows no protocol.

Input: `on_bytes(data, size)` returns how many bytes it consumed; the rest is kept and comes again with more behind it. A subclass that
needs a large unit whole says so in `wanted`; it is then received straight into its place, not copied read by read. `pause(reason)` stops
reading (TCP back-pressure) and also stops the subclass's own loop, which looks at `paused`; `resume` goes on with what was kept.

Output: gathered in `out`, sent once at the end of the turn. Beyond `out_high` unsent bytes the stream is `congested` until they are fewer
than `out_low`: `on_congested` and `on_drained` tell the subclass, whose duty it is to stop whoever writes. `out` itself takes all that is
written.
"""

import os
import socket

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from leveret.codec.wire cimport buffer_consume, buffer_free, buffer_reserve, buffer_unread, buffer_write
from leveret.link.poller cimport Poller

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL
        MSG_DONTWAIT
    ssize_t recv(int fd, void* into, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)

cdef extern from "<sys/types.h>":
    ctypedef Py_ssize_t ssize_t

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)

cdef enum:
    OUT_KEPT = 64 * 1024        # an emptied output buffer larger than this is kept by few streams only (Poller.keep_room)
    OUT_HIGH = 256 * 1024
    OUT_LOW = 64 * 1024


cdef class Stream:
    """`Stream(poller, sock)` takes the descriptor over from a connected `socket.socket` and begins to read it."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        self.out_high = OUT_HIGH
        self.out_low = OUT_LOW

    def __init__(self, Poller poller, sock):
        self.poller = poller
        sock.setblocking(False)
        self.received_at_ms = self.sent_at_ms = poller.now_ms
        self.fd = sock.detach()
        try:
            poller.add(self)
        except OSError:
            c_close(self.fd)
            self.fd = -1
            raise

    def __dealloc__(self):
        buffer_free(&self.out)
        buffer_free(&self.rest)
        if self.fd >= 0:
            c_close(self.fd)

    @property
    def unsent_bytes(self):
        """Bytes written and not yet taken by the kernel."""
        return buffer_unread(&self.out)

    @property
    def is_congested(self):
        return self.congested

    @property
    def is_closed(self):
        return self.fd < 0

    # --- output

    cdef int write(self, const void* data, size_t size) except -1:
        buffer_write(&self.out, data, size)
        return self.written(0)

    cdef uint8_t* reserve(self, size_t size) except NULL:
        """Room for `size` bytes at the end of the output; `written` says how many of them were used."""
        cdef uint8_t* at = buffer_reserve(&self.out, size)
        if at == NULL:
            raise MemoryError
        return at

    cdef int written(self, size_t size) except -1:
        self.out.length += size
        if not self.flush_pending:
            if self.fd < 0:
                buffer_consume(&self.out, buffer_unread(&self.out))
                return 0
            self.poller.want_flush(self)
        if not self.congested and buffer_unread(&self.out) > self.out_high:
            self.congested = True
            self.on_congested()
        return 0

    cdef int flush(self) except -1:
        cdef Py_ssize_t sent
        cdef size_t unsent = buffer_unread(&self.out)
        while unsent:
            sent = send(self.fd, self.out.data + self.out.start, unsent, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                return self.close(self.reason_of(errno))
            self.sent_bytes += sent
            self.sent_count += 1
            self.sent_at_ms = self.poller.now_ms
            buffer_consume(&self.out, sent)
            if <size_t>sent < unsent:
                unsent -= sent
                break  # the socket is full: epoll says when it is not
            unsent = 0
        if unsent == 0:
            if self.out.capacity > OUT_KEPT:
                self.poller.keep_room(self)
            if self.closing:
                return self.close("closed")
        if not self.flush_pending:
            self.poller.change(self)
        if self.congested and unsent < self.out_low:
            self.congested = False
            self.on_drained()
        return 0

    # --- input

    cdef int on_readable(self) except -1:
        cdef Py_ssize_t received, consumed
        cdef size_t kept = buffer_unread(&self.rest)
        cdef size_t total, room
        cdef uint8_t* into
        if self.wanted > self.poller.chunk_size or kept >= self.poller.chunk_size:
            # A large unit: receive it where it will be read.
            room = self.wanted - kept if self.wanted > kept else self.poller.chunk_size
            into = buffer_reserve(&self.rest, room)
            if into == NULL:
                return self.close("out of memory")
            received = recv(self.fd, into, room, MSG_DONTWAIT)
            if received <= 0:
                return self.nothing_received(received)
            self.rest.length += received
            self.count_received(received)
            if buffer_unread(&self.rest) < self.wanted:
                return 0
            return self.feed_rest()
        if kept:
            memcpy(self.poller.chunk, self.rest.data + self.rest.start, kept)
        received = recv(self.fd, self.poller.chunk + kept, self.poller.chunk_size - kept, MSG_DONTWAIT)
        if received <= 0:
            return self.nothing_received(received)
        self.count_received(received)
        total = kept + received
        self.wanted = 0
        self.feeding = True
        try:
            consumed = self.on_bytes(self.poller.chunk, total)
        finally:
            self.feeding = False
        buffer_free(&self.rest)
        if self.fd >= 0 and <size_t>consumed < total:
            buffer_write(&self.rest, self.poller.chunk + consumed, total - consumed)
        return 0

    cdef int count_received(self, size_t size) except -1:
        self.received_bytes += size
        self.received_count += 1
        self.received_at_ms = self.poller.now_ms
        return 0

    cdef int feed_rest(self) except -1:
        """Go on with what was kept, without reading more."""
        cdef Py_ssize_t consumed
        if buffer_unread(&self.rest) == 0 or self.fd < 0:
            return 0
        self.wanted = 0
        self.feeding = True
        try:
            consumed = self.on_bytes(self.rest.data + self.rest.start, buffer_unread(&self.rest))
        finally:
            self.feeding = False
        if self.fd < 0:
            buffer_free(&self.rest)
            return 0
        buffer_consume(&self.rest, consumed)
        if buffer_unread(&self.rest) == 0:
            buffer_free(&self.rest)
        return 0

    cdef int nothing_received(self, Py_ssize_t received) except -1:
        if received == 0:
            return self.close("the peer closed the connection")
        if errno == EAGAIN or errno == EINTR:
            return 0
        return self.close(self.reason_of(errno))

    cdef str reason_of(self, int error):
        if error == ECONNRESET or error == EPIPE:
            return "the peer reset the connection"
        return os.strerror(error)

    cdef int pause(self, uint32_t reason) except -1:
        cdef uint32_t before = self.paused
        self.paused |= reason
        if before == 0 and self.fd >= 0:
            self.poller.change(self)
        return 0

    cdef int resume(self, uint32_t reason) except -1:
        if not self.paused & reason:
            return 0
        self.paused &= ~reason
        if self.paused == 0 and self.fd >= 0:
            self.poller.change(self)
            # Not from here: whoever resumes may stand in the middle of another stream's bytes.
            if buffer_unread(&self.rest) and not self.feed_called:
                self.feed_called = True
                self.poller.loop.call_soon(self._feed_called)
        return 0

    def _feed_called(self):
        self.feed_called = False
        if self.fd < 0 or self.paused or self.feeding:
            return
        self.poller.in_turn = True
        try:
            self.feed_rest()
        except Exception as error:
            self.poller.loop.call_exception_handler({"message": f"error while serving {self!r}", "exception": error})
            self.close(f"internal error: {type(error).__name__}")
        finally:
            self.poller.end_turn()
            self.poller.in_turn = False

    # --- end

    cpdef int close_after_flush(self) except -1:
        """Read no more, and close once everything written has been sent."""
        if self.fd < 0:
            return 0
        self.closing = True
        self.pause(PAUSED_CLOSING)
        self.poller.want_flush(self)
        return 0

    cpdef int close(self, str reason) except -1:
        """Close now; unsent output is lost. `on_closed` is called once, with the reason."""
        if self.fd < 0:
            return 0
        self.poller.remove(self)
        c_close(self.fd)
        self.fd = -1
        buffer_free(&self.out)
        if not self.feeding:
            buffer_free(&self.rest)
        self.paused |= PAUSED_CLOSING
        return self.on_closed(reason)

    cdef int let_go(self) except -1:
        """Forget the socket without ending it: another process has a descriptor of it too, and serves it from now on."""
        if self.fd < 0:
            return 0
        self.poller.remove(self)
        c_close(self.fd)
        self.fd = -1
        buffer_free(&self.out)
        buffer_free(&self.rest)
        self.paused |= PAUSED_CLOSING
        return 0

    # --- for subclasses to fill in

    cdef Py_ssize_t on_bytes(self, const uint8_t* data, size_t size) except -1:
        raise NotImplementedError

    cdef int on_congested(self) except -1:
        return 0

    cdef int on_drained(self) except -1:
        return 0

    cdef int on_closed(self, str reason) except -1:
        return 0

    cdef bint close_when_hung(self) noexcept:
        """Whether a peer that goes away while this stream is paused ends it at once, unread bytes and all."""
        return False


def socket_pair():
    """A connected pair of Unix stream sockets, for a process and its child."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
