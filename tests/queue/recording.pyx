"""Queues and consumers that a Python test can drive and look into: they turn bodies into messages and write down what is delivered.

Only the tests use them. Every message that goes in stays referenced here too, so that a test can tell at any time who else holds it.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from leveret.queue.consumer cimport Consumer
from leveret.queue.ledger cimport LEDGER_HOLES_MAX, Ledger
from leveret.queue.message cimport MESSAGE_EXPIRES, Message, message_body, message_new, message_release
from leveret.queue.queue cimport Queue
from leveret.queue.ring cimport Entry, ring_at
from leveret.queue.rotation cimport Level, Turn

from leveret.codec.properties import Properties


cdef bytes body_of(Message* message):
    return message_body(message)[:message.body_size]


cdef class RecordingConsumer(Consumer):
    """Takes `room` messages more (-1: any number) and notes each as (delivery number, body, redelivered)."""

    cdef public list deliveries
    cdef public long room
    cdef public object error        # raised instead of the next delivery
    cdef public object on_delivery  # called with this consumer after each is noted

    def __init__(self, tag=b"", **settings):
        super().__init__(tag, **settings)
        self.deliveries = []
        self.room = -1

    cdef bint can_take(self) noexcept:
        return self.room != 0 and Consumer.can_take(self)

    cdef int deliver(self, Message* message, uint64_t delivery_no, bint redelivered) except -1:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.deliveries.append((delivery_no, body_of(message), redelivered))
        if self.room > 0:
            self.room -= 1
        if self.on_delivery is not None:
            self.on_delivery(self)
        return 0

    def make_room(self, long room):
        """Its own reason not to take has ended."""
        self.room = room
        self.ready_again()

    def outstanding(self):
        """Delivery numbers it has not settled, ascending."""
        cdef size_t index
        return [self.ledger.slots[index].key for index in range(self.ledger.head, self.ledger.tail)
                if self.ledger.slots[index].item != NULL]

    def ledger_size(self):
        """(slots between head and tail, capacity)."""
        return self.ledger.tail - self.ledger.head, self.ledger.capacity


cdef class RecordingQueue(Queue):
    """A queue with a Python face on its hot path."""

    cdef Message** messages
    cdef size_t message_count
    cdef size_t message_capacity
    cdef public int pumps_due       # calls of `pump_later` not yet answered by `run_pump`
    cdef public uint64_t clock_ms
    cdef public object call_at_ms   # the latest moment asked for
    cdef public int letters_came
    cdef public int found_unused

    def __init__(self, **settings):
        super().__init__(1, "q", "/", **settings)
        self.clock_ms = 1000

    def __dealloc__(self):
        cdef size_t index
        for index in range(self.message_count):
            message_release(self.messages[index])
        free(self.messages)

    cdef int pump_later(self) except -1:
        self.pumps_due += 1
        return 0

    cdef uint64_t now_ms(self) noexcept:
        return self.clock_ms

    cdef int call_at(self, uint64_t moment_ms) except -1:
        self.call_at_ms = moment_ms
        return 0

    cdef int dead_letters_came(self) except -1:
        self.letters_came += 1
        return 0

    cdef int unused(self) except -1:
        self.found_unused += 1
        return 0

    def pass_time(self, uint64_t milliseconds):
        """The clock goes on; the queue is called if it asked to be."""
        self.clock_ms += milliseconds
        while self.call_at_ms is not None and self.call_at_ms <= self.clock_ms:
            self.call_at_ms = None
            self.come_due()
        while self.pumps_due:
            self.run_pump()

    def letters(self):
        """(number, body, reason) of the dead letters that are not buried yet."""
        cdef Ledger* ledger = &self.dead_letters.ledger
        cdef size_t index
        reasons = {4: "expired", 8: "rejected", 16: "maxlen"}
        return [(ledger.slots[index].key, body_of(<Message*>ledger.slots[index].item), reasons[ledger.slots[index].flags & 28])
                for index in range(ledger.head, ledger.tail) if ledger.slots[index].item != NULL]

    def send_again(self, uint64_t first, uint64_t last):
        return self.resend(first, last)

    def run_pump(self):
        """Answer one `pump_later`: whether there is more to do."""
        self.pumps_due -= 1
        return bool(self.pump())

    def publish_body(self, bytes body not None, str expiration=None):
        """What `publish` answers."""
        cdef const unsigned char* data = body
        cdef bytes properties = Properties(expiration=expiration).encode()
        cdef Message* message = message_new(
            NULL, 0, NULL, 0, <const uint8_t*>properties, <uint32_t>len(properties), <uint32_t>len(body),
            0 if expiration is None else MESSAGE_EXPIRES)
        if message == NULL:
            raise MemoryError
        memcpy(message_body(message), data, len(body))
        if self.message_count == self.message_capacity:
            self.message_capacity = max(<size_t>16, 2 * self.message_capacity)
            self.messages = <Message**>realloc(self.messages, self.message_capacity * sizeof(Message*))
        self.messages[self.message_count] = message
        self.message_count += 1
        return self.publish(message)

    def settle_range(self, Consumer consumer not None, uint64_t first, uint64_t last, int outcome):
        return self.settle(consumer, first, last, outcome)

    def get(self, Consumer getter not None):
        """(delivery number, body, redelivered), or None."""
        cdef uint64_t delivery_no = 0
        cdef Entry entry
        if not self.take(getter, &delivery_no, &entry):
            return None
        got = (delivery_no, body_of(entry.message), bool(entry.flags & 1))
        message_release(entry.message)
        return got

    def held(self):
        """How many references the queue and its consumers hold to each message ever published, in order."""
        cdef size_t index
        return [self.messages[index].references - 1 for index in range(self.message_count)]

    def ready(self):
        """(position, body, redelivered) of every ready message, oldest first."""
        cdef size_t index
        found = []
        for index in range(self.ring.count):
            found.append((ring_at(&self.ring, index).position, body_of(ring_at(&self.ring, index).message),
                          bool(ring_at(&self.ring, index).flags & 1)))
        for index in range(self.heap.count):
            found.append((self.heap.entries[index].position, body_of(self.heap.entries[index].message),
                          bool(self.heap.entries[index].flags & 1)))
        return sorted(found)

    def return_counts(self):
        """How often each ready message has come back, oldest first; the ring's only."""
        cdef size_t index
        return [ring_at(&self.ring, index).flags >> 8 for index in range(self.ring.count)]

    def places(self):
        """How many of the ready lie in the ring, how many in the heap, and the ring's capacity."""
        return self.ring.count, self.heap.count, self.ring.capacity

    def verify(self):
        """Assert what must hold between any two calls."""
        cdef Consumer consumer
        cdef Level* level
        cdef Turn* turn
        cdef Ledger* ledger
        cdef size_t index, live, size
        cdef size_t unacked = 0
        cdef uint64_t unacked_bytes = 0
        cdef uint64_t ready_bytes = 0
        for index in range(self.ring.count):
            ready_bytes += ring_at(&self.ring, index).message.body_size
            assert index == 0 or ring_at(&self.ring, index - 1).position < ring_at(&self.ring, index).position
        for index in range(self.heap.count):
            ready_bytes += self.heap.entries[index].message.body_size
            assert index == 0 or self.heap.entries[(index - 1) // 2].position < self.heap.entries[index].position
        assert self.ready_count == self.ring.count + self.heap.count
        assert self.ready_bytes == ready_bytes
        consuming = 0
        for consumer in self.attached:
            assert consumer.queue is self
            consuming += consumer.consuming
            ledger = &consumer.ledger
            live = 0
            for index in range(ledger.head, ledger.tail):
                assert index == ledger.head or ledger.slots[index - 1].key < ledger.slots[index].key
                if ledger.slots[index].item != NULL:
                    live += 1
                    unacked_bytes += (<Message*>ledger.slots[index].item).body_size
            assert live == ledger.live
            assert ledger.tail - ledger.head <= 2 * live + LEDGER_HOLES_MAX
            unacked += live
            assert consumer.consuming or consumer.turn.next == NULL
        assert self.consumer_count == consuming
        assert self.unacked_count == unacked
        assert self.unacked_bytes == unacked_bytes
        takers = 0
        for index in range(self.rotation.count):
            level = &self.rotation.levels[index]
            assert index == 0 or self.rotation.levels[index - 1].priority < level.priority
            turn = level.first
            size = 0
            while True:
                consumer = <Consumer>turn.owner
                assert consumer in self.attached and consumer.priority == level.priority
                assert turn.next.previous == turn
                takers += consumer.can_take()
                size += 1
                assert size <= self.consumer_count
                turn = turn.next
                if turn == level.first:
                    break
        assert self.unfinished == (self.pumps_due > 0)
        assert self.ready_count == 0 or takers == 0 or self.unfinished
