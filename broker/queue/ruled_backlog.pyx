"""A backlog under rules: who may come in, how long what is in may stay, and how long the queue may go unused.

The rules are `leveret.queue.rules.Rules`, from the queue's arguments; a queue without any pays one test a publish and one a delivery. As in
RabbitMQ, what is overdue is dropped when it comes to the front, never from the middle, and what is over the limit from the front. With a
dead letter exchange what has died becomes a dead letter (`bury`); where those lie and how they travel is for the queue, a subclass, and its
worker. The clock is the worker's, monotonic.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from leveret.codec.properties cimport HAS_EXPIRATION, PROPERTIES_OK, PropertiesView, view_properties
from leveret.queue.backlog cimport front
from leveret.queue.message cimport MESSAGE_EXPIRES, Message, message_properties, message_release, message_retain
from leveret.queue.ring cimport ENTRY_EXPIRED, ENTRY_MAXLEN, ENTRY_STORED, Entry

from leveret.queue.rules import OVERFLOWS


cdef uint64_t expiration_ms(Message* message) noexcept:
    """What the message's property expiration says; it was checked when the message came. UINT64_MAX: it has none.

    RabbitMQ takes a sign and leading zeros too.
    """
    cdef PropertiesView view
    cdef uint64_t value = 0
    cdef size_t at
    if (view_properties(message_properties(message), message.properties_size, &view) != PROPERTIES_OK
            or not view.flags & HAS_EXPIRATION):
        return UINT64_MAX
    for at in range(view.expiration.size):
        if c"0" <= view.expiration.data[at] <= c"9":
            value = value * 10 + (view.expiration.data[at] - c"0")
    return value


cdef class RuledBacklog(Backlog):
    """Abstract. `rules`: what holds from now on."""

    def __init__(self, rules):
        self.rules = rules
        self.message_ttl_ms = UINT64_MAX if rules.message_ttl_ms is None else rules.message_ttl_ms
        self.expires_ms = UINT64_MAX if rules.expires_ms is None else rules.expires_ms
        self.max_length = UINT64_MAX if rules.max_length is None else rules.max_length
        self.max_length_bytes = UINT64_MAX if rules.max_length_bytes is None else rules.max_length_bytes
        self.overflow = OVERFLOWS[rules.overflow]
        self.buries = rules.dead_letter_exchange is not None
        if rules.message_ttl_ms is not None:
            self.duties |= KEEPS_TIME
        if rules.max_length is not None or rules.max_length_bytes is not None:
            self.duties |= KEEPS_LIMIT
        if rules.expires_ms is not None:
            self.duties |= WATCHES_USE

    # What a subclass fills in.

    cdef int pump(self) except -1:
        """Go on with what is ready, and see to the next moment that something is due."""
        return 0

    cdef int pump_later(self) except -1:
        """`pump` must be called once more, in a later turn. Called once for each time that work is left; the worker keeps a list."""
        return 0

    cdef uint64_t now_ms(self) noexcept:
        """The worker's monotonic clock, above 0. Asked only where messages expire or use is watched."""
        return 1

    cdef int call_at(self, uint64_t moment_ms) except -1:
        """`come_due` must be called at that moment or soon after it, instead of at any moment told earlier."""
        return 0

    cdef int reserve_grave(self) except -1:
        """Make sure that the next `bury` finds room. Only where the queue has a dead letter exchange (`buries`)."""
        return 0

    cdef int bury(self, Entry* entry, uint32_t death) except -1:
        """The entry, with its reference, has died of `death` (a flag of `leveret.queue.ring`): it is a dead letter now."""
        return 0

    cdef int unused(self) except -1:
        """Nobody has used the queue for as long as its rules allow: it is to be deleted."""
        return 0

    # What may come in.

    cdef int refuse(self, Message* message) except -1:
        """The queue is full. The message may yet become a dead letter."""
        cdef Entry entry
        if self.overflow == OVERFLOW_REJECT_PUBLISH_DLX and self.buries:
            self.reserve_grave()
            message_retain(message)
            entry.message = message
            entry.position = self.next_position
            entry.expires_ms = 0
            entry.flags = 0
            self.next_position += 1
            self.bury(&entry, ENTRY_MAXLEN)
        self.refused += 1
        return 0

    cdef uint64_t deadline(self, Message* message) noexcept:
        """When the message expires, which comes now: the lower of the queue's time and its own; 0: never."""
        cdef uint64_t lifetime_ms = self.message_ttl_ms
        if message.flags & MESSAGE_EXPIRES:
            lifetime_ms = min(lifetime_ms, expiration_ms(message))
        if lifetime_ms == UINT64_MAX:
            return 0
        self.duties |= KEEPS_TIME
        return self.now_ms() + lifetime_ms

    cdef bint is_full(self, uint32_t body_size) noexcept:
        """Whether one more message would be more than the limit."""
        return (self.duties & KEEPS_LIMIT
                and (self.ready_count >= self.max_length or self.ready_bytes + body_size > self.max_length_bytes))

    # What must go.

    cdef int keep_rules(self) except -1:
        """Messages have become ready: drop what is over the limit or overdue, and wait for what will be."""
        if self.duties & KEEPS_LIMIT and self.overflow == OVERFLOW_DROP_HEAD:
            while self.ready_count and (self.ready_count > self.max_length or self.ready_bytes > self.max_length_bytes):
                self.lose_head(ENTRY_MAXLEN)
                self.dropped += 1
        if self.duties & KEEPS_TIME:
            if not self.expire():
                self.watch()
            elif not self.unfinished:
                self.unfinished = True
                self.pump_later()
        return 0

    cdef int expire(self) except -1:
        """Drop what is overdue at the front, at most 10,000 messages; 1 if there is more."""
        cdef Entry* head = front(self)
        cdef uint64_t now_ms
        cdef size_t budget = EXPIRIES_MAX
        if head == NULL or head.expires_ms == 0:
            return 0
        now_ms = self.now_ms()
        while head != NULL and head.expires_ms and head.expires_ms <= now_ms:
            if budget == 0:
                return 1
            budget -= 1
            self.lose_head(ENTRY_EXPIRED)
            self.expired += 1
            head = front(self)
        return 0

    cdef int expire_all(self) except -1:
        """Drop all that is overdue at the front, which slices have nearly always done before: nobody may get what is overdue."""
        while self.duties & KEEPS_TIME and self.expire():
            pass
        return 0

    cdef int lose_head(self, uint32_t death) except -1:
        """The oldest ready message has died. MemoryError: it has not."""
        cdef Entry entry
        if self.buries:
            self.reserve_grave()
        self.pop(&entry)
        if self.buries:
            return self.bury(&entry, death)
        if entry.flags & ENTRY_STORED:
            self.journal.settle(entry.position, entry.message)
        message_release(entry.message)
        return 0

    # When to look again.

    cdef int watch(self) except -1:
        """Ask to be called when the oldest message is overdue or the queue has been unused for too long, whichever comes first."""
        cdef Entry* head = front(self)
        cdef uint64_t moment_ms = 0
        if head != NULL:
            moment_ms = head.expires_ms
        if self.duties & WATCHES_USE and self.consumer_count == 0 and (
                moment_ms == 0 or self.used_ms + self.expires_ms < moment_ms):
            moment_ms = self.used_ms + self.expires_ms
        if moment_ms and (self.due_ms == 0 or moment_ms < self.due_ms):
            self.due_ms = moment_ms
            self.call_at(moment_ms)
        return 0

    def recover(self, size_t count, uint64_t size, uint64_t first, uint64_t last, uint64_t handed_through) -> None:
        """As `Backlog.recover`; what is overdue by now goes as soon as it is looked at."""
        if count:
            self.duties |= KEEPS_TIME       # one of them may have had an expiration
        Backlog.recover(self, count, size, first, last, handed_through)
        self.watch()

    def come_due(self) -> None:
        """The moment of `call_at` has come."""
        self.due_ms = 0
        if self.duties & WATCHES_USE and self.consumer_count == 0 and self.now_ms() >= self.used_ms + self.expires_ms:
            self.unused()
            return
        if not self.unfinished:     # else a pump is on its way; it sees to the next moment
            self.pump()

    def touch(self) -> None:
        """The queue is used: declared again, got from, or left by its last consumer just now."""
        if self.duties & WATCHES_USE:
            self.used_ms = self.now_ms()
            self.watch()
