"""A publisher under load: messages encoded once, stamped in place and written in large batches, within a confirm window and a rate.

The block holds every message that will be sent, one after the other, as bytes for the wire; it is sent over and over. Only the stamp in
each body changes, so a message costs a few stores and its share of one `send`. With a rate, a stamp tells when the message was *due*, so
that a broker (or a generator) that falls behind shows in the latencies instead of hiding in later sends. What comes due within a quarter of
a millisecond is written together, on an even grid: writing message by message as fast as the clock goes on would take a core, and wake the
broker for each. A stamp is the due moment all the same, so the wait for the next step counts as latency.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from leveret.codec.wire cimport load_u64, store_u64
from leveret.perf.histogram cimport Histogram
from leveret.perf.line cimport COLD, DONE, FAILED, GOING, TIME_UP, Line, Outcome, clock_ns

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int, const void*, size_t, int)
    enum: MSG_NOSIGNAL

cdef enum:
    BASIC_RETURN = 0x003C0032
    BASIC_ACK = 0x003C0050
    BASIC_NACK = 0x003C0078
    SEND_BYTES_MAX = 1 << 20        # of whole messages in one write; a larger message is a batch by itself
    BLOCK_BYTES_MAX = 1 << 26
    PACE_NS = 250_000               # with a rate: what comes due meanwhile leaves together
    TURNS_WITHOUT_READING = 64      # a publisher without confirms still hears connection.close, only a little later


cdef class Publisher(Line):
    """`Publisher(fd, channel_id, index, messages, stamps_at, body_size, window, rate, limit)`.

    `messages` are the wire bytes of each message of the block (method, header and body frames) and `stamps_at` where in each its body
    begins; `index` (below 65,536) goes into the stamps. `window` publishes may await their confirm (0: the channel is not in confirm mode),
    `rate` messages a second are due (0.0: as fast as it goes), `limit` messages are sent in all (0: no end).
    Raises ValueError for a block that is empty or above 64 MiB.
    """
    cdef readonly uint64_t published
    cdef readonly uint64_t confirmed
    cdef readonly uint64_t nacked
    cdef readonly uint64_t returned
    cdef readonly Histogram confirm_latency
    cdef uint8_t* block
    cdef size_t* offsets            # where each message of the block begins; one more for its end
    cdef size_t* stamps_at
    cdef uint32_t messages
    cdef uint32_t cursor            # next message of the block
    cdef unsigned int stamp_bytes
    cdef uint64_t index
    cdef uint64_t sequence_number
    cdef uint64_t window
    cdef double interval_ns
    cdef uint64_t limit
    cdef uint64_t started_ns
    cdef uint64_t next_step_ns      # with a rate: nothing is written before
    cdef public bint blocked        # connection.blocked has come: nothing new is written until unblocked
    # The batch that is being written.
    cdef size_t batch_at, batch_end
    cdef uint32_t batch_messages
    cdef uint32_t turns
    # Confirms: when each of the last `mask + 1` publishes was sent, 0 once it is confirmed.
    cdef uint64_t* awaiting
    cdef uint64_t mask
    cdef uint64_t settled           # every publish up to this sequence number is confirmed
    cdef uint64_t in_flight

    def __cinit__(
        self, int fd, uint16_t channel_id, uint64_t index, list messages, list stamps_at, uint64_t body_size, uint64_t window,
        double rate, uint64_t limit,
    ):
        cdef size_t total = sum(len(message) for message in messages)
        cdef size_t at = 0
        cdef bytes message
        if not messages or total > BLOCK_BYTES_MAX:
            raise ValueError(f"the messages take {total:,} bytes; they must fit into {BLOCK_BYTES_MAX:,}")
        self.index = index
        self.stamp_bytes = <unsigned int>min(body_size, 16)
        self.window = window
        self.interval_ns = 1e9 / rate if rate else 0.0
        self.limit = limit
        self.confirm_latency = Histogram()
        self.messages = len(messages)
        self.mask = 1
        while self.mask < window:
            self.mask *= 2
        self.mask -= 1
        self.block = <uint8_t*>malloc(total)
        self.offsets = <size_t*>malloc((self.messages + 1) * sizeof(size_t))
        self.stamps_at = <size_t*>malloc(self.messages * sizeof(size_t))
        self.awaiting = <uint64_t*>calloc(self.mask + 1, sizeof(uint64_t))
        if self.block == NULL or self.offsets == NULL or self.stamps_at == NULL or self.awaiting == NULL:
            raise MemoryError()
        for number, message in enumerate(messages):
            if not 0 < stamps_at[number] <= len(message) - <Py_ssize_t>self.stamp_bytes:
                raise ValueError("a stamp lies outside its message")
            self.offsets[<size_t>number] = at
            self.stamps_at[<size_t>number] = at + <size_t>stamps_at[number]
            memcpy(self.block + at, <const uint8_t*>message, len(message))
            at += len(message)
        self.offsets[self.messages] = at

    def __dealloc__(self):
        free(self.block)
        free(self.offsets)
        free(self.stamps_at)
        free(self.awaiting)

    @property
    def unconfirmed(self):
        """Publishes that await their confirm."""
        return self.in_flight

    @property
    def finished(self):
        """Whether `limit` messages have been sent and all confirms have come."""
        return self.limit > 0 and self.published >= self.limit and self.in_flight == 0

    @property
    def settled_down(self):
        """Whether no message is half written and no confirm is awaited."""
        return self.batch_at == self.batch_end and self.in_flight == 0

    def run(self, uint64_t until_ns):
        """Publish until `until_ns` of the monotonic clock or until `finished`. True when a method waits in `take_cold`.

        Raises LineBroken.
        """
        cdef Outcome outcome
        with nogil:
            outcome = self.loop(until_ns, False)
        return self.check(outcome) == COLD

    def settle(self, uint64_t until_ns):
        """Publish nothing new: finish the half-written batch and read confirms until none is awaited or `until_ns`. As `run` otherwise."""
        cdef Outcome outcome
        with nogil:
            outcome = self.loop(until_ns, True)
        return self.check(outcome) == COLD

    cdef Outcome loop(self, uint64_t until_ns, bint settling) noexcept nogil:
        cdef bint idle = True
        cdef bint stuck = False
        cdef Outcome outcome = GOING
        cdef uint64_t now, wake_ns
        if self.inbox_length:   # what came after the method that stopped it last time
            self.now_ns = clock_ns()
            outcome = self.walk()
        while outcome == GOING:
            now = clock_ns()
            if now >= until_ns:
                return TIME_UP
            if self.started_ns == 0:
                self.started_ns = now
            self.turns += 1
            if self.window or stuck or self.blocked or self.turns >= TURNS_WITHOUT_READING:
                self.turns = 0
                outcome = self.read(&idle)
                if outcome != GOING:
                    break
            wake_ns = until_ns
            if self.batch_at == self.batch_end and not settling and not self.blocked:
                wake_ns = self.prepare(now, until_ns)
            if self.batch_at == self.batch_end:
                if (settling or (self.limit and self.published >= self.limit)) and self.in_flight == 0:
                    return DONE
                outcome = self.wait(False, wake_ns)
                continue
            outcome = self.write(&stuck)
            if stuck and outcome == GOING:
                outcome = self.wait(True, until_ns)
        return outcome

    cdef uint64_t prepare(self, uint64_t now, uint64_t until_ns) noexcept nogil:
        """Stamp the next batch, as many messages as may go out now. With none, tells when to look again (`until_ns` at the latest)."""
        cdef uint64_t allowed = self.messages - self.cursor
        cdef uint64_t due, sent_ns
        cdef uint32_t last
        if self.limit:
            allowed = min(allowed, self.limit - self.sequence_number)
        if self.window:
            allowed = min(allowed, self.window - self.in_flight)
            # Sequence numbers in the ring must not run a whole round ahead of the oldest one that is unconfirmed.
            allowed = min(allowed, self.settled + self.mask + 1 - self.sequence_number)
        if self.interval_ns > 0:
            if now < self.next_step_ns:
                return min(until_ns, self.next_step_ns)
            due = <uint64_t>((now - self.started_ns) / self.interval_ns) + 1
            if due <= self.sequence_number:
                self.next_step_ns = self.step_after(now)
                return min(until_ns, self.next_step_ns)
            allowed = min(allowed, due - self.sequence_number)
        if allowed == 0:
            return until_ns
        self.batch_at = self.offsets[self.cursor]
        last = self.cursor
        while allowed:
            if last > self.cursor and self.offsets[last + 1] - self.batch_at > SEND_BYTES_MAX:
                break
            sent_ns = now
            if self.interval_ns > 0:
                sent_ns = min(now, self.started_ns + <uint64_t>(self.sequence_number * self.interval_ns))
            self.sequence_number += 1
            if self.stamp_bytes >= 8:
                store_u64(self.block + self.stamps_at[last], sent_ns)
            if self.stamp_bytes >= 16:
                store_u64(self.block + self.stamps_at[last] + 8, self.index << 48 | self.sequence_number)
            if self.window:
                self.awaiting[self.sequence_number & self.mask] = sent_ns
            last += 1
            allowed -= 1
        self.batch_messages = last - self.cursor
        self.batch_end = self.offsets[last]
        self.cursor = last if last < self.messages else 0
        if self.window:
            self.in_flight += self.batch_messages
        if self.interval_ns > 0 and self.sequence_number >= due:
            self.next_step_ns = self.step_after(now)
        return until_ns

    cdef uint64_t step_after(self, uint64_t now) noexcept nogil:
        """When to write again: as the next message comes due, or with those that come due until the grid's next step."""
        cdef uint64_t due_ns = self.started_ns + <uint64_t>(self.sequence_number * self.interval_ns) + 1
        cdef uint64_t step_ns = self.started_ns + ((now - self.started_ns) // PACE_NS + 1) * PACE_NS
        return due_ns if self.interval_ns >= PACE_NS else max(due_ns, step_ns)

    cdef Outcome write(self, bint* stuck) noexcept nogil:
        """Write on at the batch; when all of it has gone, its messages count as published."""
        cdef ssize_t size = send(self.fd, self.block + self.batch_at, self.batch_end - self.batch_at, MSG_NOSIGNAL)
        self.system_calls += 1
        stuck[0] = False
        if size >= 0:
            self.batch_at += <size_t>size
            if self.batch_at == self.batch_end:
                self.published += self.batch_messages
        elif errno == EAGAIN:
            stuck[0] = True
        elif errno != EINTR:
            # A reset often hides a connection.close that lies unread: read before complaining.
            self.error_number = errno
            return self.read_farewell()
        return GOING

    cdef Outcome read_farewell(self) noexcept nogil:
        cdef bint idle = False
        cdef int error_number = self.error_number
        cdef Outcome outcome = GOING
        while outcome == GOING and not idle:
            outcome = self.read(&idle)
        if outcome == COLD:
            return COLD
        self.error_number = error_number
        return FAILED

    cdef Outcome on_method(self, uint32_t method, const uint8_t* arguments, size_t size) noexcept nogil:
        if (method == BASIC_ACK or method == BASIC_NACK) and self.window and size == 9:
            return self.on_confirm(load_u64(arguments), arguments[8] & 1, method == BASIC_NACK)
        if method == BASIC_RETURN:
            self.returned += 1
            self.in_content = True
            return GOING
        return COLD

    cdef Outcome on_confirm(self, uint64_t sequence_number, bint multiple, bint nack) noexcept nogil:
        cdef uint64_t first = self.settled + 1 if multiple else sequence_number
        cdef uint64_t sent_ns
        cdef uint64_t before = self.in_flight
        if multiple and sequence_number == 0:
            sequence_number = self.sequence_number
        if sequence_number > self.sequence_number:
            return self.complain(b"a confirm came for a message that was never published")
        if sequence_number > self.settled:
            while first <= sequence_number:
                sent_ns = self.awaiting[first & self.mask]
                if sent_ns:
                    self.awaiting[first & self.mask] = 0
                    self.in_flight -= 1
                    if self.now_ns > sent_ns:
                        self.confirm_latency.add(self.now_ns - sent_ns, 1)
                first += 1
        if before == self.in_flight and not multiple:
            return self.complain(b"a confirm came twice for one message")
        if nack:
            self.nacked += before - self.in_flight
        else:
            self.confirmed += before - self.in_flight
        while self.settled < self.sequence_number and self.awaiting[(self.settled + 1) & self.mask] == 0:
            self.settled += 1
        return GOING
