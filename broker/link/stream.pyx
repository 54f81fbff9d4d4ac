"""A stream: one non-blocking socket with its input and its output in C.

It owns the descriptor, the unsent output and the unconsumed tail of the input. The poller calls it when the socket is ready; AMQP
connections and links are its subclasses and give it meaning by `on_bytes`. It never blocks, never drops, and knows no protocol.

Input: `on_bytes(data, size)` returns how many bytes it consumed; the rest is kept and comes again with more behind it. A subclass that
needs a large unit whole says so in `wanted`; it is then received straight into its place, not copied read by read. A large body *lands*:
the subclass makes its message, consumes what has come of it, and says by `land` where the rest belongs; the next reads go there, and
what follows comes with the last of them. If the subclass says what kind of body will follow (`forecast`), several of these are received
into their messages by the same read: it takes the block that is offered (`take_offered`). When all of a body has come, `on_landed` is
called, then `on_bytes` again. `pause(reason)` stops reading (TCP back-pressure) and also stops the subclass's own loop, which looks at
`paused`; `resume` goes on with what was kept.

Output: gathered in `out`, sent once at the end of the turn. Large bodies are sent from where they lie (`write_from`), with the bytes before
and after them in one system call. Beyond `out_high` unsent bytes (and `out_uncounted` of large bodies) the stream is `congested` until they
are fewer than `out_low`: `on_congested` and `on_drained` tell the subclass, whose duty it is to stop whoever writes. The output itself
takes all that is written.
"""

import os
import socket

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memmove, memset

from leveret.codec.wire cimport buffer_consume, buffer_free, buffer_reserve, buffer_unread, buffer_write
from leveret.link.forecast cimport (
    BESIDE_FORESEEN,
    FORESEEN_MAX,
    forecast_blocks,
    forecast_body,
    forecast_release,
)
from leveret.link.pieces cimport iovec, pieces_add, pieces_consume, pieces_drop, pieces_empty, pieces_gather
from leveret.link.poller cimport Poller
from leveret.queue.message cimport Message, message_release, message_retain

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL
        MSG_DONTWAIT
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t recv(int fd, void* into, size_t size, int flags)
    ssize_t recvmsg(int fd, msghdr* message, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)

cdef extern from "<sys/types.h>":
    ctypedef Py_ssize_t ssize_t

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int fd)

cdef enum:
    OUT_KEPT = 64 * 1024        # an emptied output buffer larger than this is kept by few streams only (Poller.keep_room)
    OUT_HIGH = 256 * 1024
    OUT_LOW = 64 * 1024
    OUT_UNCOUNTED = 768 * 1024  # each send wakes the reader, and one of 1 MiB costs 12 % less than four
    # With the rest of a large body at most so much of what follows it is read. More means fewer system calls, which on TCP is worth more
    # than that the bodies that lie whole in it are copied once.
    BESIDE_LANDING = 256 * 1024
    VECTORS_PER_SEND = 64       # 2 MiB of bodies of 64 KB
    LANDED_PER_TURN = 1024 * 1024   # a stream of large bodies is read on until so much has come: few and large sends cost half as much


cdef class Stream:
    """`Stream(poller, sock)` takes a connected socket over and begins to read it. sock: a `socket.socket`, or a descriptor."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        self.out_high = OUT_HIGH
        self.out_low = OUT_LOW
        self.out_uncounted = OUT_UNCOUNTED
        self.beside_landing = BESIDE_LANDING

    def __init__(self, Poller poller, sock):
        self.poller = poller
        self.received_at_ms = self.sent_at_ms = poller.now_ms
        # Blocking or not: every read and write of ours says that it does not wait.
        self.fd = sock if isinstance(sock, int) else sock.detach()
        try:
            poller.add(self)
        except OSError:
            c_close(self.fd)
            self.fd = -1
            raise

    def __dealloc__(self):
        pieces_drop(&self.pieces)
        if self.landing != NULL:
            message_release(self.landing)
        buffer_free(&self.out)
        buffer_free(&self.rest)
        if self.fd >= 0:
            c_close(self.fd)

    @property
    def unsent_bytes(self):
        """Bytes written and not yet taken by the kernel."""
        return unsent(self)

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

    cdef int write_from(self, Message* message, const uint8_t* data, size_t size) except -1:
        """`size` bytes at `data`, a part of `message`, come next. They are not copied: the message is held until they are sent."""
        if not pieces_add(&self.pieces, &self.out, message, data, size):
            return self.close("out of memory")      # half a frame or packet has been written
        return self.written(0)

    cdef int written(self, size_t size) except -1:
        self.out.length += size
        if not self.flush_pending:
            if self.fd < 0:
                pieces_drop(&self.pieces)
                buffer_consume(&self.out, buffer_unread(&self.out))
                return 0
            self.poller.want_flush(self)
        if not self.congested and unsent(self) > self.out_high + min(self.pieces.size, self.out_uncounted):
            self.congested = True
            self.on_congested()
        return 0

    cdef Py_ssize_t send_some(self, size_t* asked) except? -1:
        """One system call with as much of the output as it takes: what `send` answers, and in `asked` what it was given."""
        cdef iovec vectors[VECTORS_PER_SEND]
        cdef msghdr header
        if pieces_empty(&self.pieces):
            asked[0] = buffer_unread(&self.out)
            return send(self.fd, self.out.data + self.out.start, asked[0], MSG_NOSIGNAL | MSG_DONTWAIT)
        memset(&header, 0, sizeof(header))
        header.msg_iov = vectors
        header.msg_iovlen = pieces_gather(&self.pieces, &self.out, vectors, VECTORS_PER_SEND, asked)
        return sendmsg(self.fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT)

    cdef int flush(self) except -1:
        cdef Py_ssize_t sent
        cdef size_t asked
        while unsent(self):
            sent = self.send_some(&asked)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                return self.close(self.reason_of(errno))
            self.sent_bytes += sent
            self.sent_count += 1
            self.sent_at_ms = self.poller.now_ms
            pieces_consume(&self.pieces, &self.out, sent)
            if <size_t>sent < asked:
                break  # the socket is full: epoll says when it is not
        if unsent(self) == 0:
            if self.out.capacity > OUT_KEPT:
                self.poller.keep_room(self)
            if self.closing:
                return self.close("closed")
        if not self.flush_pending:
            self.poller.change(self)
        if self.congested and unsent(self) < self.out_low:
            self.congested = False
            self.on_drained()
        return 0

    # --- input

    cdef int land(self, Message* message, uint8_t* at, size_t left) except -1:
        """What comes next, `left` bytes (0: it is all there), belongs to `message` at `at`. The caller has consumed all before it."""
        message_retain(message)
        self.landing = message
        self.landing_at = at
        self.landing_left = left
        return 0

    cdef int drop_landing(self) except -1:
        if self.landing != NULL:
            message_release(self.landing)
            self.landing = NULL
            self.landing_left = 0
        return 0

    cdef int on_readable(self) except -1:
        cdef uint64_t before = self.received_bytes
        while self.receive() and self.fd >= 0 and not self.paused and self.received_bytes - before < LANDED_PER_TURN:
            pass
        return 0

    cdef bint receive(self) except -1:
        """One read. Whether there is reason to try another one at once."""
        cdef Py_ssize_t received
        cdef size_t kept = buffer_unread(&self.rest)
        cdef size_t room
        cdef uint8_t* into
        if self.landing_left:
            return self.receive_landing()
        if self.wanted > self.poller.chunk_size or kept >= self.poller.chunk_size:
            # A large unit: receive it where it will be read.
            room = self.wanted - kept if self.wanted > kept else self.poller.chunk_size
            into = buffer_reserve(&self.rest, room)
            if into == NULL:
                self.close("out of memory")
                return False
            received = recv(self.fd, into, room, MSG_DONTWAIT)
            if received <= 0:
                self.nothing_received(received)
                return False
            self.rest.length += received
            self.count_received(received)
            if buffer_unread(&self.rest) >= self.wanted:
                self.feed_rest()
            return False
        if kept:
            memcpy(self.poller.chunk, self.rest.data + self.rest.start, kept)
        room = self.poller.chunk_size - kept
        received = recv(self.fd, self.poller.chunk + kept, room, MSG_DONTWAIT)
        if received <= 0:
            self.nothing_received(received)
            return False
        self.count_received(received)
        buffer_free(&self.rest)
        self.wanted = 0
        self.feeding = True
        try:
            self.feed_chunk(self.poller.chunk, kept + received)
        finally:
            self.feeding = False
        return self.landing_left != 0 and <size_t>received == room

    cdef bint receive_landing(self) except -1:
        """The rest of a message into its place, what is expected behind it into blocks, and what follows into the chunk.

        Whether there was as much as could be taken.
        """
        cdef iovec vectors[2 + 2 * FORESEEN_MAX]
        cdef Message* blocks[FORESEEN_MAX]
        cdef msghdr header
        cdef Py_ssize_t received
        cdef size_t left = self.landing_left
        cdef size_t beside = min(self.beside_landing, self.poller.chunk_size)
        cdef size_t asked = left
        cdef uint8_t* chunk = self.poller.chunk
        cdef int count = 0
        cdef int index
        if self.forecast.body_size:
            beside = min(beside, BESIDE_FORESEEN)
            count = forecast_blocks(&self.forecast, self.poller.chunk_size - beside, blocks)
        memset(&header, 0, sizeof(header))
        vectors[0].iov_base = self.landing_at
        vectors[0].iov_len = left
        for index in range(count):
            vectors[2 * index + 1].iov_base = chunk
            vectors[2 * index + 1].iov_len = self.forecast.before
            vectors[2 * index + 2].iov_base = forecast_body(&self.forecast, blocks[index])
            vectors[2 * index + 2].iov_len = self.forecast.body_size
            chunk += self.forecast.before
            asked += self.forecast.before + self.forecast.body_size
        vectors[2 * count + 1].iov_base = chunk
        vectors[2 * count + 1].iov_len = beside
        asked += beside
        header.msg_iov = vectors
        header.msg_iovlen = 2 * count + 2
        received = recvmsg(self.fd, &header, MSG_DONTWAIT)
        try:
            if received <= 0:
                self.nothing_received(received)
                return False
            self.count_received(received)
            self.forecast.came = received
            if <size_t>received < left:
                self.landing_at += received
                self.landing_left -= received
                return False
            self.landing_left = 0
            self.feeding = True
            self.on_landed()
            self.feed_foreseen(blocks, count, received - left)
        finally:
            self.feeding = False
            self.offered = NULL
            forecast_release(blocks, count)
        return <size_t>received == asked

    cdef int feed_foreseen(self, Message** blocks, int count, size_t size) except -1:
        """Serve `size` bytes that have come into the chunk and into blocks, as `receive_landing` has laid them out."""
        cdef Forecast forecast = self.forecast      # as it was when they came
        cdef const uint8_t* at = self.poller.chunk
        cdef bint foreseen = True
        cdef Py_ssize_t consumed
        cdef size_t now
        cdef int index
        for index in range(count):
            now = min(size, forecast.before)
            size -= now
            if foreseen and now and self.fd >= 0:
                self.offered = blocks[index]
                consumed = self.on_bytes(at, now)
                foreseen = (<size_t>consumed == forecast.before and self.offered == NULL
                            and self.landing_at == forecast_body(&forecast, blocks[index]) and self.landing_left == forecast.body_size)
                self.offered = NULL
                if not foreseen:
                    self.take_in(at + consumed, now - consumed)
            else:
                self.take_in(at, now)
            at += forecast.before
            now = min(size, forecast.body_size)
            size -= now
            if not foreseen:
                self.take_in(forecast_body(&forecast, blocks[index]), now)
            elif now:
                self.landing_at += now
                self.landing_left -= now
                if self.landing_left == 0:
                    self.on_landed()
        if not foreseen:
            self.take_in(at, size)
        elif size and self.fd >= 0:
            self.feed_chunk(at, size)
        return 0

    cdef Message* take_offered(self, size_t block_size, size_t body_at) noexcept:
        """The block that is offered, with a reference for the caller, if it is one for a message like that; else NULL."""
        cdef Message* block = self.offered
        if block == NULL or block_size != self.forecast.block_size or body_at != self.forecast.body_at:
            return NULL
        self.offered = NULL
        message_retain(block)
        return block

    cdef int take_in(self, const uint8_t* data, size_t size) except -1:
        """Bytes that were received into another place than theirs."""
        cdef size_t now
        if self.fd < 0 or size == 0:
            return 0
        if self.landing_left and not buffer_unread(&self.rest):
            now = min(self.landing_left, size)
            memmove(self.landing_at, data, now)     # it may be their place all the same
            self.landing_at += now
            self.landing_left -= now
            data += now
            size -= now
            if self.landing_left == 0:
                self.on_landed()
        if size:
            buffer_write(&self.rest, data, size)
            if not self.paused:
                self.feed_rest()
        return 0

    cdef int feed_chunk(self, const uint8_t* data, size_t size) except -1:
        """Serve `size` bytes of the chunk and keep what is not consumed."""
        cdef Py_ssize_t consumed = self.on_bytes(data, size)
        if self.fd >= 0 and <size_t>consumed < size:
            buffer_write(&self.rest, data + consumed, size - consumed)
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
        self.let_go()
        return self.on_closed(reason)

    cdef int let_go(self) except -1:
        """Forget the socket and what waits on it, and tell nobody. It ends, unless another process has a descriptor of it too."""
        if self.fd < 0:
            return 0
        self.poller.remove(self)
        c_close(self.fd)
        self.fd = -1
        pieces_drop(&self.pieces)
        buffer_free(&self.out)
        self.drop_landing()
        if not self.feeding:
            buffer_free(&self.rest)
        self.paused |= PAUSED_CLOSING
        return 0

    # --- for subclasses to fill in

    cdef Py_ssize_t on_bytes(self, const uint8_t* data, size_t size) except -1:
        raise NotImplementedError

    cdef int on_landed(self) except -1:
        return 0

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
