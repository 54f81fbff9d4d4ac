"""Queues and consumers that a Python test can drive and look into: they turn bodies into messages and write down what is delivered.

Only the tests use them. Every message that goes in stays referenced here too, so that a test can tell at any time who else holds it.
`RecordingJournal` is the disk of such a queue: it commits when it is told to and pages as much as it is told to.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from leveret.queue.consumer cimport Consumer
from leveret.queue.journal cimport Journal, Page
from leveret.queue.ledger cimport LEDGER_HOLES_MAX, Ledger
from leveret.queue.message cimport MESSAGE_EXPIRES, MESSAGE_PERSISTENT, Message, message_body, message_new, message_release
from leveret.queue.queue cimport Queue
from leveret.queue.ring cimport ENTRY_REDELIVERED, ENTRY_STORED, Entry, Ring, ring_at, ring_push_back
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

    def publish_body(self, bytes body not None, str expiration=None, *, bint persistent=False):
        """What `publish` answers."""
        return self.publish(self.message_of(
            body, Properties(expiration=expiration).encode(),
            (0 if expiration is None else MESSAGE_EXPIRES) | (MESSAGE_PERSISTENT if persistent else 0)))

    cdef Message* message_of(self, bytes body, bytes properties, int flags) except NULL:
        """A message with one reference, which is this object's."""
        cdef const unsigned char* data = body
        cdef Message* message = message_new(
            NULL, 0, NULL, 0, <const uint8_t*>properties, <uint32_t>len(properties), <uint32_t>len(body), flags)
        if message == NULL:
            raise MemoryError
        memcpy(message_body(message), data, len(body))
        if self.message_count == self.message_capacity:
            self.message_capacity = max(<size_t>16, 2 * self.message_capacity)
            self.messages = <Message**>realloc(self.messages, self.message_capacity * sizeof(Message*))
        self.messages[self.message_count] = message
        self.message_count += 1
        return message

    def settle_range(self, Consumer consumer not None, uint64_t first, uint64_t last, int outcome):
        return self.settle(consumer, first, last, outcome)

    def get(self, Consumer getter not None):
        """(delivery number, body, redelivered), or None."""
        cdef uint64_t delivery_no = 0
        cdef Entry entry
        if not self.take(getter, &delivery_no, &entry):
            return None
        got = (delivery_no, body_of(entry.message), bool(entry.flags & ENTRY_REDELIVERED))
        message_release(entry.message)
        return got

    def held(self):
        """How many references the queue and its consumers hold to each message ever published or paged in, in order."""
        cdef size_t index
        return [self.messages[index].references - 1 for index in range(self.message_count)]

    def ready(self):
        """(position, body, redelivered) of every ready message, oldest first; those that are paged out as they would come back."""
        cdef size_t index
        found = self.paged()
        for index in range(self.tail.count):
            found.append((ring_at(&self.tail, index).position, body_of(ring_at(&self.tail, index).message),
                          bool(ring_at(&self.tail, index).flags & ENTRY_REDELIVERED)))
        for index in range(self.ring.count):
            found.append((ring_at(&self.ring, index).position, body_of(ring_at(&self.ring, index).message),
                          bool(ring_at(&self.ring, index).flags & ENTRY_REDELIVERED)))
        for index in range(self.heap.count):
            found.append((self.heap.entries[index].position, body_of(self.heap.entries[index].message),
                          bool(self.heap.entries[index].flags & ENTRY_REDELIVERED)))
        return sorted(found)

    def paged(self):
        """(position, body, redelivered) of every message that is paged out, oldest first."""
        if self.paged_count == 0:
            return []
        journal = <RecordingJournal>self.journal
        kept = journal.live | journal.scratch
        return [(position, kept[position], position <= self.handed_through)
                for position in sorted(kept) if self.paged_first <= position <= self.paged_last]

    def let_go(self, size_t keep, uint64_t keep_bytes):
        """`page_out`: how many messages have left memory."""
        before = self.paged_count
        self.page_out(keep, keep_bytes)
        return self.paged_count - before

    def return_counts(self):
        """How often each ready message has come back, oldest first; the ring's only."""
        cdef size_t index
        return [ring_at(&self.ring, index).flags >> 8 for index in range(self.ring.count)]

    def places(self):
        """How many of the ready lie in the ring, how many in the heap, and the ring's capacity. Behind what is paged out: `tail_size`."""
        return self.ring.count, self.heap.count, self.ring.capacity

    def tail_size(self):
        return self.tail.count

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
            assert self.paged_count == 0 or self.heap.entries[index].position < self.paged_first
        tail_bytes = 0
        for index in range(self.tail.count):
            tail_bytes += ring_at(&self.tail, index).message.body_size
            assert index == 0 or ring_at(&self.tail, index - 1).position < ring_at(&self.tail, index).position
        assert self.tail_bytes == tail_bytes
        if self.paged_count:
            assert self.ring.count == 0 or ring_at(&self.ring, self.ring.count - 1).position < self.paged_first
            assert self.paged_first <= self.paged_last
            assert self.tail.count == 0 or self.paged_last < ring_at(&self.tail, 0).position
        else:
            assert self.tail.count == 0 and self.paged_bytes == 0
        paged = self.paged()
        lost = (<RecordingJournal>self.journal).lost if self.paged_count else ()
        assert self.paged_count == len(paged) + len(lost)
        if not lost:
            assert self.paged_bytes == sum(len(body) for _, body, _ in paged)
        assert self.ready_count == self.ring.count + self.heap.count + self.tail.count + self.paged_count
        assert self.ready_bytes == ready_bytes + tail_bytes + self.paged_bytes
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
                    assert self.paged_count == 0 or ledger.slots[index].number < self.paged_first
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


cdef class RecordingJournal(Journal):
    """What a crash leaves is `committed` and `marked_through`, as they were at the last `commit`."""

    cdef readonly RecordingQueue queue
    cdef public dict live           # position -> body: added and not settled
    cdef public set lost            # positions of what was live and cannot be read any more; the queue does not know yet
    cdef public dict scratch        # position -> body: paged out without being stored
    cdef public bint has_scratch    # whether what is not stored may be paged out
    cdef public long page_out_max   # messages that one call lets go
    cdef public long page_in_max    # ... brings back, at least 1
    cdef public dict committed
    cdef public uint64_t marked_through
    cdef public uint64_t stored_through
    cdef public long page_ins
    cdef uint64_t highest

    def __init__(self, RecordingQueue queue not None):
        self.queue = queue
        self.live = {}
        self.lost = set()
        self.scratch = {}
        self.committed = {}
        self.has_scratch = True
        self.page_out_max = 1 << 30
        self.page_in_max = 1 << 30

    def commit(self):
        """All that was added, settled and handed out is on the disk."""
        self.committed = dict(self.live)
        self.stored_through = self.highest
        if self.queue.marked:
            self.queue.marked = False
            self.marked_through = self.queue.handed_through

    def recover(self, RecordingQueue queue not None, uint64_t handed_through):
        """The journal of the next process, over what was committed; `queue` is told."""
        after = RecordingJournal(queue)
        after.live = dict(self.committed)
        after.committed = self.committed
        after.marked_through = handed_through
        after.highest = after.stored_through = max(after.live, default=0)
        after.page_in_max = self.page_in_max
        after.has_scratch = self.has_scratch
        queue.keep_journal(after, True)
        queue.recover(len(after.live), sum(map(len, after.live.values())), min(after.live, default=0), after.highest, handed_through)
        return after

    cdef int add(self, uint64_t position, uint64_t expires_ms, Message* message) except -1:
        assert message.flags & MESSAGE_PERSISTENT
        assert position > self.highest
        self.highest = position
        self.live[position] = body_of(message)
        return 0

    cdef int settle(self, uint64_t position, Message* message) except -1:
        body = self.live.pop(position)
        assert body == body_of(message)
        return 0

    cdef int mark(self) except -1:
        return 0

    cdef size_t page_out(self, Ring* ring, uint64_t* size) except? 0:
        cdef size_t count = 0
        cdef Entry* entry
        size[0] = 0
        while count < ring.count and <long>count < self.page_out_max:
            entry = ring_at(ring, count)
            if entry.flags & ENTRY_STORED:
                if entry.position > self.stored_through:
                    break
                assert self.live[entry.position] == body_of(entry.message)
            elif self.has_scratch:
                self.scratch[entry.position] = body_of(entry.message)
            else:
                break
            size[0] += entry.message.body_size
            count += 1
        return count

    cdef int page_in(self, uint64_t first, Ring* into, Page* page) except -1:
        """As from a store, what is live there comes, wanted or not."""
        cdef Message* message
        cdef uint32_t flags
        self.page_ins += 1
        kept = self.live | self.scratch
        due = sorted(position for position in kept if first <= position <= self.queue.paged_last)
        gone = [position for position in self.lost if position >= first]
        assert due or gone, f"nothing is paged out from {first} on"
        page.count = 0
        page.last = self.queue.paged_last
        page.size = 0
        for position in due[:self.page_in_max]:
            flags = ENTRY_REDELIVERED if position <= self.queue.handed_through else 0
            if position in self.scratch:
                message = self.queue.message_of(self.scratch.pop(position), b"\0\0", 0)
            else:
                message = self.queue.message_of(self.live[position], b"\0\0", MESSAGE_PERSISTENT)
                flags |= ENTRY_STORED
            ring_push_back(into, message, position, 0, flags)
            message.references += 1
            page.count += 1
            page.size += message.body_size
            page.last = position
        gone = [position for position in gone if position <= page.last]
        self.lost.difference_update(gone)
        page.lost = len(gone)
        return 0

    def lose(self, *positions):
        """As when a part of the store is damaged."""
        for position in positions:
            del self.live[position]
            self.lost.add(position)

    cdef int drop_pages(self, uint64_t first, uint64_t last) except -1:
        for kept in (self.live, self.scratch):
            for position in [position for position in kept if first <= position <= last]:
                del kept[position]
        return 0
