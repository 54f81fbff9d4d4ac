"""A consumer under load: counts deliveries, measures their latency, checks their order and acknowledges them as it is told.

Order is checked per queue and publisher: sequence numbers must rise, a redelivery excepted. Consumer tags are the decimal number of the
queue (as `leveret.perf.loader` sets them), which is how a delivery's queue is known.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from leveret.codec.wire cimport buffer_reserve, buffer_unread, load_u64, store_u16, store_u32, store_u64
from leveret.perf.histogram cimport VALUE_BITS, Histogram
from leveret.perf.line cimport COLD, GOING, TIME_UP, Line, Outcome, clock_ns

cdef enum:
    BASIC_DELIVER = 0x003C003C
    BASIC_ACK = 0x003C0050
    ACK_FRAME_SIZE = 21
    OUT_BYTES_MAX = 1 << 20     # acks that the broker does not take; above it nothing is read until it does


cdef class Consumer(Line):
    """`Consumer(fd, channel_id, queues, publishers, ack_every)`: `queues` and `publishers` bound the numbers in tags and stamps;
    `ack_every` is 0 for no acks (the broker was told no-ack), 1 for one ack a message, n for one `multiple` ack per n messages
    (and for the rest as soon as nothing more is there to read)."""
    cdef readonly uint64_t received
    cdef readonly uint64_t received_bytes
    cdef readonly uint64_t redelivered
    cdef readonly uint64_t overtaken    # messages that came after a later one of the same publisher and queue
    cdef readonly uint64_t foreign      # messages without a stamp of this run
    cdef readonly Histogram latency
    cdef uint64_t* last                 # [queue][publisher] -> last sequence number
    cdef uint32_t queues
    cdef uint32_t publishers
    cdef uint32_t ack_every
    cdef uint32_t unacked
    cdef uint64_t delivery_tag
    cdef uint32_t queue
    cdef bint is_redelivered

    def __cinit__(self, int fd, uint16_t channel_id, uint32_t queues, uint32_t publishers, uint32_t ack_every):
        self.latency = Histogram()
        self.queues = queues
        self.publishers = publishers
        self.ack_every = ack_every
        self.last = <uint64_t*>calloc(max(1, <size_t>queues * publishers), sizeof(uint64_t))
        if self.last == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.last)

    @property
    def last_ns(self):
        """When bytes arrived last, on the monotonic clock; 0 before any did."""
        return self.now_ns

    def run(self, uint64_t until_ns):
        """Consume until `until_ns` of the monotonic clock. True when a method waits in `take_cold`. Raises LineBroken."""
        cdef Outcome outcome
        with nogil:
            outcome = self.loop(until_ns)
        return self.check(outcome) == COLD

    cdef Outcome loop(self, uint64_t until_ns) noexcept nogil:
        cdef bint idle = False
        cdef bint stuck = False
        cdef Outcome outcome = GOING
        if self.inbox_length:   # what came after the method that stopped it last time
            self.now_ns = clock_ns()
            outcome = self.walk()
        while outcome == GOING:
            if clock_ns() >= until_ns:
                return TIME_UP
            idle = True
            if buffer_unread(&self.out) < OUT_BYTES_MAX:
                outcome = self.read(&idle)
                if outcome != GOING:
                    break
            if idle and self.unacked:
                self.write_ack(True)
            if buffer_unread(&self.out):
                outcome = self.flush(&stuck)
            if outcome == GOING and idle:
                outcome = self.wait(buffer_unread(&self.out) > 0, until_ns)
        if outcome == COLD:
            self.flush(&stuck)
        return outcome

    cdef Outcome on_method(self, uint32_t method, const uint8_t* arguments, size_t size) noexcept nogil:
        cdef uint32_t tag_size, index
        if method != BASIC_DELIVER or size < 10:
            return COLD
        tag_size = arguments[0]
        if size < 1 + tag_size + 9:
            return self.complain(b"basic.deliver is too short")
        self.queue = 0
        for index in range(tag_size):
            self.queue = self.queue * 10 + (arguments[1 + index] - 48)
        self.delivery_tag = load_u64(arguments + 1 + tag_size)
        self.is_redelivered = arguments[9 + tag_size] & 1
        self.in_content = True
        return GOING

    cdef Outcome on_content(self) noexcept nogil:
        cdef uint64_t sent_ns, sequence_number
        cdef uint32_t publisher
        cdef uint64_t* last
        self.received += 1
        self.received_bytes += self.body_size
        if self.is_redelivered:
            self.redelivered += 1
        if self.stamp_size >= 8:
            sent_ns = load_u64(self.stamp)
            # A stamp older than 18 minutes is not ours; nor (the difference is unsigned) is one from the future.
            if self.now_ns - sent_ns < <uint64_t>1 << VALUE_BITS:
                self.latency.add(self.now_ns - sent_ns, 1)
            else:
                self.foreign += 1
        if self.stamp_size >= 16:
            sequence_number = load_u64(self.stamp + 8)
            publisher = <uint32_t>(sequence_number >> 48)
            sequence_number = sequence_number << 16 >> 16
            if publisher < self.publishers and self.queue < self.queues:
                last = self.last + <size_t>self.queue * self.publishers + publisher
                if sequence_number > last[0]:
                    last[0] = sequence_number
                elif not self.is_redelivered:
                    self.overtaken += 1
        if self.ack_every == 0:
            return GOING
        self.unacked += 1
        if self.unacked >= self.ack_every:
            return self.write_ack(self.ack_every > 1)
        return GOING

    cdef Outcome write_ack(self, bint multiple) noexcept nogil:
        """basic.ack of the last delivery tag (`multiple`: and of all before it)."""
        cdef uint8_t* at = buffer_reserve(&self.out, ACK_FRAME_SIZE)
        if at == NULL:
            return self.complain(b"out of memory")
        at[0] = 1
        store_u16(at + 1, self.channel_id)
        store_u32(at + 3, ACK_FRAME_SIZE - 8)
        store_u32(at + 7, BASIC_ACK)
        store_u64(at + 11, self.delivery_tag)
        at[19] = multiple
        at[20] = 0xCE
        self.out.length += ACK_FRAME_SIZE
        self.unacked = 0
        return GOING
