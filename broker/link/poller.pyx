"""The poller: one epoll set for all sockets of a process, below its asyncio loop.

It owns the epoll descriptor, the read buffer that all streams share, and the order of a turn: read what is ready, run the endings that the
reading gathered (confirms, verdicts), write every stream that has output, once. `worker` and `router` make one at start; streams add
themselves. It never looks into bytes.

A stream that brings little at a time and often, and whose owner knows that nobody waits for it, can be read less often (`coalesce`): what
comes within `coalesce_us` is read together, as network cards do with their interrupts. A wake-up costs more than the message it brings.

Why not the loop's own transports: a read goes from the kernel to C code without a Python call between, back-pressure is one bit per stream,
an idle connection costs no handle objects, and a descriptor can be handed to another process. Timers, tasks and everything cold stay with
asyncio. It sits below the loop in one of two ways:

- as the loop's selector (`leveret.link.loop`): `wait` watches the loop's own descriptors too, and is where the process sleeps. A turn then
  costs one wait; the loop is gone back to at the end of the turn in which it got something to do, and when its next timer is due.
- nested in any loop (`attach`), which sees a single descriptor that becomes readable and calls `turn`.
"""

import asyncio
import os

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINTR, ENOENT, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.math cimport ceil
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from leveret.codec.wire cimport buffer_free, buffer_unread
from leveret.link.pieces cimport pieces_drop
from leveret.link.stream cimport Stream, unsent

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLEXCLUSIVE
    ctypedef union epoll_data_t:
        int fd
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* into)

# `epoll_wait` counts in milliseconds.
cdef extern from "<sys/timerfd.h>" nogil:
    enum:
        TFD_CLOEXEC
        TFD_NONBLOCK
        TFD_TIMER_ABSTIME
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* to, itimerspec* before)

cdef enum:
    EVENTS_PER_TURN = 256
    WATCHED_READ = 1                    # `selectors.EVENT_READ` and
    WATCHED_WRITE = 2                   # `selectors.EVENT_WRITE`
    WAIT_MAX_MS = 24 * 3600 * 1000
    ROOMY_STREAMS_MAX = 16              # large output buffers kept while empty ...
    ROOM_BYTES_MAX = 8 * 1024 * 1024    # ... each at most this large: a link's, which takes 4 MiB before it is congested
    COALESCE_US = 300
    COALESCE_EARLY_US = 50              # a stream whose time comes so soon is read in a turn that there is anyway


cdef uint64_t monotonic_us() noexcept nogil:
    """Microseconds on a clock that never jumps."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1000000 + <uint64_t>now.tv_nsec // 1000


cdef uint64_t monotonic_ms() noexcept nogil:
    """Milliseconds on the same clock."""
    return monotonic_us() // 1000


cdef int watched_events(uint32_t events) noexcept:
    """As asyncio's epoll selector sees them: an error or a hang-up is ready for both."""
    return (WATCHED_READ if events & ~<uint32_t>EPOLLOUT else 0) | (WATCHED_WRITE if events & ~<uint32_t>EPOLLIN else 0)


cdef class Ending:
    cdef int at_turn_end(self) except -1:
        raise NotImplementedError


cdef class Poller:
    """Attach to the running loop with `attach()`, or be its selector; `close()` when the process ends.

    `chunk_size` is the most that one stream reads in one turn (bytes; 1 MiB if it carries large bodies): it bounds how long one busy peer
    holds the others up.
    """

    def __cinit__(self, loop, size_t chunk_size=256 * 1024):
        self.epoll_fd = -1
        self.timer_fd = -1
        self.coalesce_us = COALESCE_US
        self.streams = NULL
        self.chunk = NULL
        self.loop = loop
        self.pending = []
        self.roomy = []
        self.endings = []
        self.coalesced = []
        self.chunk_size = chunk_size
        self.chunk = <uint8_t*>malloc(chunk_size)
        if self.chunk == NULL:
            raise MemoryError
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.look_at_clock()
        self.watched = {}

    def __dealloc__(self):
        free(self.chunk)
        free(self.streams)
        if self.epoll_fd >= 0:
            os.close(self.epoll_fd)
        if self.timer_fd >= 0:
            os.close(self.timer_fd)

    def attach(self):
        """Begin: from now on the loop calls `turn` whenever a stream is ready."""
        self.loop.add_reader(self.epoll_fd, self.turn)

    def fileno(self):
        """The descriptor of the epoll set: readable while a stream is ready for something."""
        return self.epoll_fd

    def close(self):
        """Close every stream and let go of the loop, if that does not live on us. Safe to call twice."""
        cdef int fd
        if self.epoll_fd < 0:
            return
        for fd in range(self.streams_size):
            if self.streams[fd] != NULL:
                (<Stream>self.streams[fd]).close("the process is ending")
        if not self.driving:
            self.loop.remove_reader(self.epoll_fd)
            self.end()

    def end(self):
        """Close the epoll set. Safe to call twice."""
        if self.epoll_fd >= 0:
            os.close(self.epoll_fd)
            self.epoll_fd = -1
        if self.timer_fd >= 0:
            os.close(self.timer_fd)
            self.timer_fd = -1

    # --- the loop's own descriptors

    def watch(self, int fd, int events):
        """Have `wait` tell of the descriptor: WATCHED_READ, WATCHED_WRITE or both. Raises OSError if it is none, or is watched already."""
        cdef epoll_event event
        self.driving = True
        event.events = (EPOLLIN if events & WATCHED_READ else 0) | (EPOLLOUT if events & WATCHED_WRITE else 0)
        event.data.u64 = 0
        event.data.fd = fd
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        self.watched[fd] = events

    def unwatch(self, int fd):
        """Tell no more of it. One that is closed already has left the set by itself."""
        cdef epoll_event event
        del self.watched[fd]
        epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, fd, &event)

    cdef int add(self, Stream stream) except -1:
        cdef int size
        cdef void** grown
        if stream.fd >= self.streams_size:
            size = max(stream.fd + 1, self.streams_size * 2, 64)
            grown = <void**>realloc(self.streams, size * sizeof(void*))
            if grown == NULL:
                raise MemoryError
            memset(grown + self.streams_size, 0, (size - self.streams_size) * sizeof(void*))
            self.streams = grown
            self.streams_size = size
        if self.streams[stream.fd] != NULL:
            raise AssertionError(f"descriptor {stream.fd} is watched already")
        self.change(stream)     # first, because it may fail
        Py_INCREF(stream)
        self.streams[stream.fd] = <void*>stream
        self.streams_open += 1
        return 0

    cdef int change(self, Stream stream) except -1:
        """Watch for what the stream wants now: readable unless it is paused or read later, writable while output waits."""
        cdef epoll_event event
        cdef uint32_t events = 0
        if not stream.paused and not stream.coalescing:
            events |= EPOLLIN
        if unsent(stream) and not stream.flush_pending:
            events |= EPOLLOUT
        if stream.hung and not events:
            return 0
        if stream.registered and events == stream.events:
            return 0
        if stream.exclusive:
            return self.stand_last(stream, events)
        event.events = events
        event.data.u64 = 0
        event.data.fd = stream.fd
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_MOD if stream.registered else EPOLL_CTL_ADD, stream.fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        stream.registered = True
        stream.hung = False
        stream.events = events
        return 0

    cdef int stand_last(self, Stream stream, uint32_t events) except -1:
        """Watch an exclusive stream for these, from the end of the row of all who watch the same descriptor: the others are woken first.

        Whatever is there already is told of once more, so nothing is missed between leaving and coming back.
        """
        cdef epoll_event event
        event.events = events | EPOLLEXCLUSIVE
        event.data.u64 = 0
        event.data.fd = stream.fd
        if stream.registered:
            epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, stream.fd, &event)
            stream.registered = False
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, stream.fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        stream.registered = True
        stream.events = events
        return 0

    cdef int remove(self, Stream stream) except -1:
        cdef epoll_event event
        if stream.registered:
            event.events = 0
            if epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, stream.fd, &event) < 0 and errno != ENOENT:
                raise OSError(errno, os.strerror(errno))
            stream.registered = False
        if stream.roomy:
            stream.roomy = False
            self.roomy.remove(stream)
        if self.streams[stream.fd] != NULL:
            self.streams[stream.fd] = NULL
            self.streams_open -= 1
            Py_DECREF(stream)
        return 0

    cdef int coalesce(self, Stream stream) except -1:
        """Read the stream next in `coalesce_us`, and whatever has come by then at once. For a stream that is being read now."""
        cdef epoll_event event
        if self.timer_fd < 0:
            self.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
            if self.timer_fd < 0:
                return 0        # none to be had: the stream is read as it comes
            event.events = EPOLLIN
            event.data.u64 = 0
            event.data.fd = self.timer_fd
            if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, self.timer_fd, &event) < 0:
                os.close(self.timer_fd)
                self.timer_fd = -1      # one that is not watched would never wake us
                return 0
        if not stream.coalescing:
            stream.coalescing = True
            stream.coalesced_until_us = self.now_us + self.coalesce_us
            self.coalesced.append(stream)
            self.change(stream)
        return 0

    cdef int read_coalesced(self) except -1:
        """Read the streams whose time has come."""
        cdef Stream stream
        while self.coalesced:
            stream = <Stream>self.coalesced[0]
            if stream.fd >= 0 and stream.coalesced_until_us > self.now_us + COALESCE_EARLY_US:
                break           # all wait for the same time, so those behind it do too
            self.coalesced.pop(0)
            stream.coalescing = False
            if stream.fd < 0:
                continue
            try:
                if not stream.paused:
                    stream.on_readable()
                # It may be asked for at once again: then it never went back into the epoll set.
                if stream.fd >= 0 and not stream.coalescing:
                    self.change(stream)
            except Exception as error:
                self.report(stream, error)
        return 0

    cdef int set_timer(self) except -1:
        """Be woken when the first of them is to be read."""
        cdef itimerspec to
        cdef uint64_t due_us = (<Stream>self.coalesced[0]).coalesced_until_us if self.coalesced else 0
        if due_us == self.timer_us:
            return 0
        memset(&to, 0, sizeof(to))
        to.it_value.tv_sec = <time_t>(due_us // 1000000)
        to.it_value.tv_nsec = <long>(due_us % 1000000) * 1000
        if timerfd_settime(self.timer_fd, TFD_TIMER_ABSTIME, &to, NULL) < 0:
            raise OSError(errno, os.strerror(errno))
        self.timer_us = due_us
        return 0

    cdef int want_flush(self, Stream stream) except -1:
        if not stream.flush_pending:
            stream.flush_pending = True
            self.pending.append(stream)
            if not self.in_turn:
                self.call_end()
        return 0

    cdef int keep_room(self, Stream stream) except -1:
        """The stream's large output buffer is empty: keep it, and give back that of the stream which has kept one for longest.

        A busy stream fills its buffer every turn, and growing it anew by doubling was a tenth of what a message of 1 or 64 KB costs between
        two workers. Kept for few, because a thousand streams may each have had their burst.
        """
        cdef Stream oldest
        if stream.out.capacity > ROOM_BYTES_MAX:
            buffer_free(&stream.out)
        elif not stream.roomy:
            stream.roomy = True
            self.roomy.append(stream)
            if len(self.roomy) > ROOMY_STREAMS_MAX:
                oldest = self.roomy.pop(0)
                oldest.roomy = False
                if not buffer_unread(&oldest.out):
                    buffer_free(&oldest.out)
        return 0

    cdef int want_ending(self, Ending ending) except -1:
        if not ending.ending_pending:
            ending.ending_pending = True
            self.endings.append(ending)
            if not self.in_turn:
                self.call_end()
        return 0

    cdef int call_end(self) except -1:
        """Output was written outside a turn, by a task: end a turn of its own as soon as the loop comes round."""
        if not self.end_called and not self.driving:    # `wait` begins with it
            self.end_called = True
            self.loop.call_soon(self._end_called)
        return 0

    cdef void look_at_clock(self) noexcept:
        self.now_us = monotonic_us()
        self.now_ms = self.now_us // 1000

    def _end_called(self):
        self.end_called = False
        self.look_at_clock()
        self.in_turn = True
        try:
            self.end_turn()
        finally:
            self.in_turn = False

    def turn(self):
        """One turn of a nested poller."""
        self.serve_ready(0, None)

    def wait(self, timeout_s):
        """Serve streams, turn after turn, until there is something for the loop; what it is, as (descriptor, events) of those watched.

        timeout_s: at most so long; None: for ever. Comes back with nothing when a turn's work, or a timer's before, has set `woken`.
        """
        cdef list found = []
        cdef uint64_t until_ms = 0
        cdef int wait_ms = -1
        cdef double asked_ms
        self.woken = False
        if self.endings or self.pending:
            self._end_called()
        if self.woken:
            # What it has just asked for came after the loop had reckoned `timeout_s`: look once, and go back.
            timeout_s = 0.0
        if timeout_s is not None:
            # Rounded up, as asyncio's own selectors do: a timer must not find that it has come too early.
            asked_ms = ceil(<double>timeout_s * 1000.0)
            wait_ms = 0 if asked_ms <= 0 else WAIT_MAX_MS if asked_ms > WAIT_MAX_MS else <int>asked_ms
            until_ms = monotonic_ms() + wait_ms
        while self.serve_ready(wait_ms, found) and not found and not self.woken:
            if timeout_s is not None:
                if self.now_ms >= until_ms:
                    break
                wait_ms = <int>(until_ms - self.now_ms)
        return found

    cdef bint serve_ready(self, int wait_ms, list found) except -1:
        """One turn: wait, then everything readable and writable now, then the endings, then the output. False if there was nothing.

        wait_ms: at most so long; -1: for ever. What is ready of the loop's own descriptors goes into `found`.
        """
        cdef epoll_event events[EVENTS_PER_TURN]
        cdef int ready, index, fd
        cdef Stream stream
        if found is None:
            ready = epoll_wait(self.epoll_fd, events, EVENTS_PER_TURN, wait_ms)
        else:
            with nogil:
                ready = epoll_wait(self.epoll_fd, events, EVENTS_PER_TURN, wait_ms)
        if ready < 0:
            if errno != EINTR:
                raise OSError(errno, os.strerror(errno))
            return False
        self.look_at_clock()
        self.in_turn = True
        try:
            for index in range(ready):
                fd = events[index].data.fd
                # A stream earlier in this batch may have closed this one; the number may even belong to a new one by now, to which a
                # spurious event does no harm.
                if fd >= self.streams_size or self.streams[fd] == NULL:
                    if found is not None and fd in self.watched:
                        found.append((fd, watched_events(events[index].events)))
                    continue
                stream = <Stream>self.streams[fd]
                try:
                    self.serve(stream, events[index].events)
                except Exception as error:
                    self.report(stream, error)
            if self.coalesced or self.timer_us:
                self.read_coalesced()
                self.set_timer()
            self.end_turn()
        finally:
            self.in_turn = False
        return ready > 0

    cdef int serve(self, Stream stream, uint32_t events) except -1:
        if events & EPOLLOUT:
            stream.flush()
            if stream.fd < 0:
                return 0
        if events & EPOLLIN and not stream.paused:
            return stream.on_readable()
        if events & (EPOLLERR | EPOLLHUP):
            if not stream.paused:
                return stream.on_readable()
            return self.hang_up(stream)
        return 0

    cdef int hang_up(self, Stream stream) except -1:
        """The peer has gone while we do not read it. epoll would report that for ever, so look away until it is read again."""
        cdef epoll_event event
        if stream.close_when_hung():
            return stream.close("the peer closed the connection while it was blocked")
        event.events = 0
        epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, stream.fd, &event)
        stream.registered = False
        stream.hung = True
        return 0

    cdef int end_turn(self) except -1:
        cdef Stream stream
        cdef Ending ending
        cdef list todo
        while self.endings or self.pending:
            todo = self.endings
            self.endings = []
            for ending in todo:
                ending.ending_pending = False
                try:
                    ending.at_turn_end()
                except Exception as error:
                    self.report(None, error)
            todo = self.pending
            self.pending = []
            for stream in todo:
                stream.flush_pending = False
                if stream.fd < 0:       # closed meanwhile, and perhaps written to after that
                    pieces_drop(&stream.pieces)
                    buffer_free(&stream.out)
                    continue
                try:
                    stream.flush()
                except Exception as error:
                    self.report(stream, error)
        return 0

    cdef int report(self, Stream stream, error) except -1:
        """A bug reached the loop: log it whole, close the stream that it came from, and go on for everybody else."""
        self.loop.call_exception_handler({"message": f"error while serving {stream!r}", "exception": error})
        if stream is not None and stream.fd >= 0:
            stream.close(f"internal error: {type(error).__name__}")
        return 0


def running_poller() -> Poller:
    """The poller below the running asyncio loop: that which drives it, or else a new one, nested in it."""
    loop = asyncio.get_running_loop()
    poller = getattr(loop, "poller", None)
    if poller is None:
        poller = Poller(loop)
        poller.attach()
    return poller
