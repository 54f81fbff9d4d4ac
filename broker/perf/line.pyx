"""One AMQP connection under load: a non-blocking socket, the frames read from it and the bytes still to be written, all without the GIL.

`Publisher` and `Consumer` are its two kinds. A session (`leveret.perf.session`) has done the handshake and opened the channel before; a
line takes over the socket, moves messages until a given time, and comes back to Python for whatever is not hot: a method other than the
few that a load knows, or the end of the line. A message makes no Python object.

A body begins with a stamp, as much of it as fits:

    0        8          10               16
    +--------+----------+----------------+----------
    | sent   | publisher| sequence number| filling      all big-endian; `sent` in ns of the monotonic clock
    +--------+----------+----------------+----------
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import os

from leveret.codec.wire cimport buffer_consume, buffer_free, buffer_reserve, buffer_unread, load_u16, load_u32, load_u64

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int, void*, size_t, int)
    ssize_t send(int, const void*, size_t, int)
    enum: MSG_NOSIGNAL

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int ppoll(pollfd*, unsigned long, const timespec*, const void*)
    enum: POLLIN
    enum: POLLOUT

cdef enum:
    FRAME_METHOD = 1
    FRAME_HEADER = 2
    FRAME_BODY = 3
    FRAME_HEARTBEAT = 8
    FRAME_END = 0xCE


cdef uint64_t clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1_000_000_000 + <uint64_t>now.tv_nsec


class LineBroken(Exception):
    """The broker ended the line without a word, or sent what is not AMQP; the text says which."""


cdef class Line:
    def __cinit__(self, int fd, uint16_t channel_id, *_args, **_kwargs):
        self.fd = fd
        self.channel_id = channel_id
        self.inbox = <uint8_t*>malloc(INBOX_SIZE)
        if self.inbox == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.inbox)
        buffer_free(&self.out)
        buffer_free(&self.cold)

    def take_cold(self):
        """The method that stopped the line, as (channel id, payload of its frame)."""
        payload = self.cold.data[self.cold.start:self.cold.length]
        buffer_consume(&self.cold, buffer_unread(&self.cold))
        return self.cold_channel_id, payload

    cdef check(self, Outcome outcome):
        """Raise for an outcome that ends the line; give the others back."""
        if outcome == ENDED:
            raise LineBroken("the broker closed the socket without connection.close")
        if outcome == BROKEN:
            raise LineBroken(self.complaint.decode())
        if outcome == FAILED:
            raise LineBroken(os.strerror(self.error_number))
        return outcome

    def listen(self, uint64_t until_ns):
        """Only read until `until_ns` of the monotonic clock. True when a method waits in `take_cold`. Raises LineBroken."""
        cdef Outcome outcome
        with nogil:
            outcome = self.listening(until_ns)
        return self.check(outcome) == COLD

    cdef Outcome listening(self, uint64_t until_ns) noexcept nogil:
        cdef bint idle = True
        cdef Outcome outcome = self.walk()      # what came after the method that stopped it last time
        while outcome == GOING:
            if clock_ns() >= until_ns:
                return TIME_UP
            outcome = self.read(&idle)
            if outcome == GOING and idle:
                outcome = self.wait(False, until_ns)
        return outcome

    cdef Outcome complain(self, const char* complaint) noexcept nogil:
        self.complaint = complaint
        return BROKEN

    cdef Outcome keep_cold(self, uint16_t channel_id, const uint8_t* payload, size_t size) noexcept nogil:
        cdef uint8_t* at = buffer_reserve(&self.cold, size)
        if at == NULL:
            return self.complain(b"out of memory")
        memcpy(at, payload, size)
        self.cold.length += size
        self.cold_channel_id = channel_id
        return COLD

    cdef Outcome on_method(self, uint32_t method, const uint8_t* arguments, size_t size) noexcept nogil:
        """A method on our channel. GOING when it was hot; COLD hands it to Python."""
        return COLD

    cdef Outcome on_content(self) noexcept nogil:
        """The content after a hot method is complete; `body_size` and `stamp` tell of it."""
        return GOING

    cdef Outcome read(self, bint* idle) noexcept nogil:
        """Read once and walk the frames. Sets `idle` when nothing was there to read."""
        cdef ssize_t size = recv(self.fd, self.inbox + self.inbox_length, INBOX_SIZE - self.inbox_length, 0)
        self.system_calls += 1
        idle[0] = False
        if size > 0:
            self.inbox_length += <size_t>size
            self.now_ns = clock_ns()
            return self.walk()
        if size == 0:
            return ENDED
        if errno == EAGAIN or errno == EINTR:
            idle[0] = True
            return GOING
        self.error_number = errno
        return FAILED

    cdef Outcome walk(self) noexcept nogil:
        """Take all whole frames out of the inbox. A body frame may be taken in parts; any other waits until it is whole."""
        cdef uint8_t* at = self.inbox
        cdef uint8_t* end = at + self.inbox_length
        cdef uint16_t channel_id
        cdef uint32_t size, part
        cdef Outcome outcome = GOING
        while outcome == GOING:
            if self.frame_left:
                if at == end:
                    break
                part = <uint32_t>min(<uint64_t>(end - at), self.frame_left)
                if self.stamp_size < 16 and self.frame_left > 1:
                    size = <uint32_t>min(<uint64_t>min(part, 16 - self.stamp_size), self.frame_left - 1)
                    memcpy(self.stamp + self.stamp_size, at, size)
                    self.stamp_size += size
                at += part
                self.frame_left -= part
                if self.frame_left == 0:
                    if (at - 1)[0] != FRAME_END:
                        outcome = self.complain(b"a body frame does not end with the octet 206")
                    elif self.body_left == 0:
                        self.in_content = False
                        outcome = self.on_content()
                continue
            if end - at < 7:
                break
            channel_id = load_u16(at + 1)
            size = load_u32(at + 3)
            if at[0] == FRAME_BODY:
                if not self.in_content or size > self.body_left or size == 0 or channel_id != self.channel_id:
                    outcome = self.complain(b"a body frame came that no content header announced")
                    break
                self.body_left -= size
                self.frame_left = <uint64_t>size + 1
                at += 7
                continue
            if <uint64_t>size + 8 > INBOX_SIZE:
                outcome = self.complain(b"a frame is larger than frame_max")
                break
            if <uint64_t>(end - at) < <uint64_t>size + 8:
                break
            if at[7 + size] != FRAME_END:
                outcome = self.complain(b"a frame does not end with the octet 206")
                break
            if at[0] == FRAME_METHOD and size >= 4:
                if self.in_content:
                    outcome = self.complain(b"a method came where content was due")
                    break
                outcome = COLD
                if channel_id == self.channel_id:
                    outcome = self.on_method(load_u32(at + 7), at + 11, size - 4)
                if outcome == COLD:
                    outcome = self.keep_cold(channel_id, at + 7, size)
            elif at[0] == FRAME_HEADER and size >= 14 and self.in_content and channel_id == self.channel_id:
                self.body_size = load_u64(at + 11)
                self.body_left = self.body_size
                self.stamp_size = 0
                if self.body_size == 0:
                    self.in_content = False
                    outcome = self.on_content()
            elif at[0] != FRAME_HEARTBEAT:
                outcome = self.complain(b"a frame came that has no place here")
                break
            at += size + 8
        self.inbox_length = <size_t>(end - at)
        if self.inbox_length and at != self.inbox:
            memmove(self.inbox, at, self.inbox_length)
        return outcome

    cdef Outcome flush(self, bint* stuck) noexcept nogil:
        """Write what is in `out`. Sets `stuck` when the socket takes no more for now."""
        cdef ssize_t size
        stuck[0] = False
        while buffer_unread(&self.out):
            size = send(self.fd, self.out.data + self.out.start, buffer_unread(&self.out), MSG_NOSIGNAL)
            self.system_calls += 1
            if size >= 0:
                buffer_consume(&self.out, <size_t>size)
            elif errno == EAGAIN:
                stuck[0] = True
                break
            elif errno != EINTR:
                self.error_number = errno
                return FAILED
        return GOING

    cdef Outcome wait(self, bint writable, uint64_t until_ns) noexcept nogil:
        """Sleep until there is something to read (or, if `writable`, room to write), at the latest until `until_ns`."""
        cdef pollfd polled
        cdef timespec timeout
        cdef uint64_t now = clock_ns()
        if until_ns <= now:
            return GOING
        polled.fd = self.fd
        polled.events = POLLIN | POLLOUT if writable else POLLIN
        polled.revents = 0
        timeout.tv_sec = (until_ns - now) // 1_000_000_000
        timeout.tv_nsec = (until_ns - now) % 1_000_000_000
        self.system_calls += 1
        if ppoll(&polled, 1, &timeout, NULL) < 0 and errno != EINTR:
            self.error_number = errno
            return FAILED
        return GOING
