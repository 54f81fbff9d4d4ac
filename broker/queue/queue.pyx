"""A queue: messages in order, the consumers that take turns at them, and what each has taken and not settled.

Its worker calls it for every publish, settle and get, and it calls a consumer's `deliver` in return. It knows no socket, clock or store,
and makes no Python object for a message.

How a message goes: `publish` hands it straight to the consumer whose turn it is, or pushes it into the backlog, which is the queue's base
(`leveret.queue.backlog`, and under rules `leveret.queue.ruled_backlog`). `pump` pops the oldest for as long as somebody can take it. A
message handed over with acknowledgement lies in the consumer's ledger until it is settled; one that comes back returns to the place where
it was, marked redelivered. A queue with a journal (`leveret.queue.journal`) tells it of every persistent message that comes and goes.

What has died by a rule, and what consumers reject, lies in one more ledger, that of `dead_letters`, until the worker has brought it to
where it goes (`leveret.worker.dead_letters`).

Between calls holds: with messages ready, nobody in the rotation can take one, or `unfinished` is set. All state is in order before
`deliver` is called, so what a consumer does there (it may close its connection, which removes consumers) meets a sound queue.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memset

from leveret.queue.backlog cimport push
from leveret.queue.consumer cimport Consumer
from leveret.queue.ledger cimport (
    Ledger,
    Slot,
    ledger_append,
    ledger_erase,
    ledger_find,
    ledger_free,
    ledger_reserve,
    ledger_retract,
    ledger_seek,
    ledger_tidy,
)
from leveret.queue.message cimport MESSAGE_EXPIRES, MESSAGE_PERSISTENT, Message, message_release, message_retain
from leveret.queue.ring cimport ENTRY_DEATHS, ENTRY_REDELIVERED, ENTRY_REJECTED, ENTRY_STORED, Entry, entry_returned
from leveret.queue.rotation cimport (
    Turn,
    rotation_advance,
    rotation_first,
    rotation_free,
    rotation_join,
    rotation_leave,
    rotation_reserve,
)
from leveret.queue.ruled_backlog cimport KEEPS_TIME, OVERFLOW_DROP_HEAD, WATCHES_USE

from leveret.queue.rules import NO_RULES


class InExclusiveUse(Exception):
    """A consumer asked for a queue that has an exclusive one, or asked to be exclusive on a queue that has consumers (reply code 403)."""


cdef int by_position(const void* left, const void* right) noexcept nogil:
    cdef uint64_t left_position = (<const Entry*>left).position
    cdef uint64_t right_position = (<const Entry*>right).position
    return -1 if left_position < right_position else left_position > right_position


cdef class Queue(RuledBacklog):
    """The state of one queue. `id` is the router's, never reused; name and vhost are for showing."""

    def __init__(self, uint32_t id, str name not None, str vhost not None, *, bint durable=False, bint auto_delete=False,
                 bint exclusive=False, dict arguments=None, rules=NO_RULES):
        RuledBacklog.__init__(self, rules)
        self.id = id
        self.name = name
        self.vhost = vhost
        self.durable = durable
        self.auto_delete = auto_delete
        self.exclusive = exclusive
        self.arguments = {} if arguments is None else arguments
        self.attached = {}
        if self.buries:
            self.dead_letters = Consumer(b"")
            self.add_getter(self.dead_letters)

    def __dealloc__(self):
        rotation_free(&self.rotation)

    # The hot path.

    cdef int publish(self, Message* message) except -1:
        """Take a message in, retaining it; PUBLISH_STORED if the journal has it now, PUBLISH_REFUSED if the queue is full, else 0.

        MemoryError: not taken. An error out of a consumer's `deliver`: taken.
        """
        cdef Consumer consumer
        cdef Entry entry
        cdef bint stored = self.stores and message.flags & MESSAGE_PERSISTENT
        cdef bint ruled = self.duties | (message.flags & MESSAGE_EXPIRES)
        cdef uint64_t expires_ms = 0
        if ruled:
            if self.overflow != OVERFLOW_DROP_HEAD and self.is_full(message.body_size):
                self.refuse(message)
                return PUBLISH_REFUSED
            expires_ms = self.deadline(message)
        if self.ready_count == 0 and not self.handing:
            self.offered_bytes = message.body_size
            consumer = self.next_consumer()
            if consumer is not None:
                if consumer.no_ack:     # gone as soon as it is here
                    stored = False
                else:
                    ledger_reserve(&consumer.ledger)
                if stored:
                    self.journal.add(self.next_position, expires_ms, message)
                message_retain(message)
                entry.message = message
                entry.position = self.next_position
                entry.expires_ms = expires_ms
                entry.flags = ENTRY_STORED if stored else 0
                self.next_position += 1
                self.published += 1
                self.hand(consumer, &entry)
                if self.ready_count and not self.unfinished:    # `deliver` removed a consumer, whose messages came back
                    self.pump()
                return stored
        push(self, message, expires_ms, stored)
        self.published += 1
        if self.rotation.count and not self.unfinished:     # as when memory was out amid an earlier pump
            self.pump()
        if ruled and not self.handing:      # else the pump or publish below us goes on when `deliver` returns
            self.keep_rules()
        return stored

    cdef int offer(self, Message* message) except -1:
        """`publish` if a consumer takes it now (1; 2 if the journal has it), else nothing (0): a publish with the immediate flag."""
        if self.ready_count or self.handing or self.is_full(message.body_size):
            return 0
        self.offered_bytes = message.body_size
        if self.next_consumer() is None and not self.expects_consumer():
            return 0
        return 1 + self.publish(message)

    cdef bint expects_consumer(self):
        """Whether a consumer is about to begin: its client may have heard consume-ok before the queue hears that it can take."""
        cdef Consumer consumer
        for consumer in self.attached:
            if consumer.consuming and not consumer.active and consumer.next_delivery_no == 1:
                return True
        return False

    cdef int settle(self, Consumer consumer, uint64_t first, uint64_t last, int outcome) except -1:
        """Settle what the consumer holds with delivery numbers from `first` to `last`, both included; the number of messages settled.

        Numbers that are not outstanding are passed over. SETTLE_ACK and SETTLE_DISCARD let the messages go, the latter to the dead letters
        if the queue has them; SETTLE_REQUEUE puts them back in their places, redelivered. Afterwards deliveries go on, perhaps to the same
        consumer. MemoryError: none settled (requeue), or the first of them (discard with dead letters).
        SETTLE_REDELIVER settles nothing: the consumer is handed them once more, under their old numbers; their number is answered.
        """
        cdef Ledger* ledger = &consumer.ledger
        cdef size_t index
        cdef size_t count = 0
        cdef uint64_t size = 0
        cdef Slot* slot
        cdef Message* message
        if outcome == SETTLE_REDELIVER:
            return self.redeliver(consumer, first, last)
        if outcome == SETTLE_REQUEUE:
            count = self.requeue(consumer, first, last)
            if count and self.duties:
                self.keep_rules()
        elif outcome == SETTLE_DISCARD and self.dead_letters is not None:
            count = self.reject(consumer, first, last)
        else:
            index = ledger_seek(ledger, first)
            while index < ledger.tail:
                slot = &ledger.slots[index]
                if slot.key > last:
                    break
                index += 1
                if slot.item == NULL:
                    continue
                message = <Message*>slot.item
                size += message.body_size
                if slot.flags & ENTRY_STORED:
                    self.journal.settle(slot.number, message)
                message_release(message)
                ledger_erase(ledger, slot)
                count += 1
            if count:
                if outcome == SETTLE_ACK:
                    self.acked += count
                elif outcome == SETTLE_BURIED:
                    self.buried += count
                else:
                    self.discarded += count
                self.settled(consumer, count, size)
        if count:
            if consumer.cancelled and consumer.ledger.live == 0:
                self.detach(consumer)
            self.consumer_ready(consumer)
        return <int>count

    cdef int take(self, Consumer getter, uint64_t* delivery_no, Entry* entry) except -1:
        """The oldest ready message for a basic.get: 1, or 0 if there is none.

        `getter` has been added by `add_getter`. `entry.message` carries a reference that becomes the caller's, to be released once it has
        been sent. Without `no_ack` the message is also kept as unacked under `delivery_no`. MemoryError: nothing taken.
        """
        assert getter.queue is self
        if self.duties:
            self.touch()
            self.expire_all()
        if self.ready_count == 0:
            self.get_empty += 1
            return 0
        if not getter.no_ack:
            ledger_reserve(&getter.ledger)
        self.pop(entry)
        if self.duties & KEEPS_TIME:
            self.expire_all()       # what is told to be left is what could be got
            self.watch()
        delivery_no[0] = getter.next_delivery_no
        getter.next_delivery_no += 1
        if entry.flags & ENTRY_REDELIVERED:
            self.redelivered += 1
        if getter.no_ack:
            self.got_no_ack += 1
            if entry.flags & ENTRY_STORED:
                self.journal.settle(entry.position, entry.message)
            return 1
        if entry.position > self.handed_through:
            self.handed(entry.position)
        message_retain(entry.message)
        ledger_append(&getter.ledger, delivery_no[0], entry.message, entry.position, entry.expires_ms, entry.flags)
        self.unacked_count += 1
        self.unacked_bytes += entry.message.body_size
        getter.unacked_bytes += entry.message.body_size
        self.got += 1
        return 1

    cdef int pump(self) except -1:
        """Hand over what is ready to those who can take it: at most 1,000 messages. 1 if there is more to do, else 0.

        Also gives back the memory of at most 10,000 purged messages. When it ends with work left, it has called `pump_later`.
        """
        cdef Consumer consumer
        cdef Entry entry
        cdef size_t budget = PUMP_DELIVERIES_MAX
        cdef bint overdue = False
        if self.handing:        # the pump or publish below us goes on when `deliver` returns
            return 0
        self.unfinished = False
        if self.purged.count:
            self.release_purged(PUMP_RELEASES_MAX)
        while self.ready_count and budget:
            if self.duties & KEEPS_TIME:
                overdue = self.expire()
                if overdue or self.ready_count == 0:
                    break
            self.offered_bytes = self.next_bytes()
            consumer = self.next_consumer()
            if consumer is None:
                break
            if not consumer.no_ack:
                ledger_reserve(&consumer.ledger)
            self.pop(&entry)
            self.hand(consumer, &entry)
            budget -= 1
        if self.duties & (KEEPS_TIME | WATCHES_USE):
            overdue = overdue or self.expire()
            if not overdue:
                self.watch()
        if self.purged.count or overdue or (self.ready_count and budget == 0 and self.next_consumer() is not None):
            if not self.unfinished:
                self.unfinished = True
                self.pump_later()
            return 1
        return 0

    # Dead letters.

    cdef int dead_letters_came(self) except -1:
        """For a subclass to fill in: there is something new in `dead_letters`, to be fetched in a later turn. Called for every message."""
        return 0

    cdef int reserve_grave(self) except -1:
        ledger_reserve(&self.dead_letters.ledger)
        return 0

    cdef int bury(self, Entry* entry, uint32_t death) except -1:
        """Put the entry, with its reference, among the dead letters. Room in their ledger has been reserved."""
        cdef Consumer letters = self.dead_letters
        ledger_append(&letters.ledger, letters.next_delivery_no, entry.message, entry.position, 0,
                      entry.flags & ~<uint32_t>ENTRY_DEATHS | death)
        letters.next_delivery_no += 1
        letters.unacked_bytes += entry.message.body_size
        self.unacked_count += 1
        self.unacked_bytes += entry.message.body_size
        return self.dead_letters_came()

    cdef int reject(self, Consumer consumer, uint64_t first, uint64_t last) except -1:
        """Put what the consumer holds from `first` to `last` among the dead letters; their number. MemoryError: the first of them."""
        cdef Ledger* ledger = &consumer.ledger
        cdef size_t index = ledger_seek(ledger, first)
        cdef size_t count = 0
        cdef uint64_t size = 0
        cdef Slot* slot
        cdef Entry entry
        try:
            while index < ledger.tail and ledger.slots[index].key <= last:
                slot = &ledger.slots[index]
                index += 1
                if slot.item == NULL:
                    continue
                ledger_reserve(&self.dead_letters.ledger)
                entry.message = <Message*>slot.item
                entry.position = slot.number
                entry.expires_ms = 0
                entry.flags = slot.flags
                self.bury(&entry, ENTRY_REJECTED)
                ledger_erase(ledger, slot)
                size += entry.message.body_size
                count += 1
        finally:
            if count:
                self.discarded += count
                self.settled(consumer, count, size)
        return <int>count

    cdef int resend(self, uint64_t first, uint64_t last) except -1:
        """Dead letters from `first` to `last` may not have arrived: give them new numbers, behind all others. Their number.

        MemoryError: the first of them.
        """
        cdef Consumer letters = self.dead_letters
        cdef Ledger* ledger = &letters.ledger
        cdef size_t count = 0
        cdef size_t index
        cdef Slot slot
        while True:
            index = ledger_seek(ledger, first)
            while index < ledger.tail and ledger.slots[index].item == NULL:
                index += 1
            if index == ledger.tail or ledger.slots[index].key > last:
                break
            slot = ledger.slots[index]
            first = slot.key + 1
            ledger_append(ledger, letters.next_delivery_no, slot.item, slot.number, slot.expires_ms, slot.flags)
            letters.next_delivery_no += 1
            ledger_erase(ledger, ledger_find(ledger, slot.key))
            count += 1
        ledger_tidy(ledger)
        if count:
            self.dead_letters_came()
        return <int>count

    # Consumers.

    def may_consume(self, bint exclusive) -> bool:
        """Whether one more consumer, exclusive or not, is allowed beside those that are there."""
        return self.exclusive_consumer is None and not (exclusive and self.consumer_count > 0)

    def add_consumer(self, Consumer consumer not None) -> None:
        """Let it consume once it is activated. Raises InExclusiveUse; a consumer belongs to one queue, once."""
        if not self.may_consume(consumer.exclusive):
            raise InExclusiveUse(f"queue '{self.name}' in vhost '{self.vhost}' in exclusive use")
        assert consumer.queue is None
        rotation_reserve(&self.rotation, self.consumer_count + 1)
        self.attached[consumer] = None
        consumer.queue = self
        consumer.consuming = True
        self.consumer_count += 1
        if consumer.exclusive:
            self.exclusive_consumer = consumer
        if self.journal is not None:
            self.journal.expect(True)
        self.consumer_ready(consumer)

    def add_getter(self, Consumer getter not None) -> None:
        """Let it `take`; it is not counted as a consumer and nothing is delivered to it. Remove it by `remove_consumer`."""
        assert getter.queue is None
        self.attached[getter] = None
        getter.queue = self
        if self.journal is not None:
            self.journal.expect(True)

    def cancel_consumer(self, Consumer consumer not None) -> None:
        """basic.cancel: no more deliveries, but what it holds stays unacked and can be settled. It is removed when it holds nothing."""
        if consumer.queue is not self or not consumer.consuming:
            return
        consumer.active = False
        rotation_leave(&self.rotation, &consumer.turn)
        consumer.consuming = False
        consumer.cancelled = True
        self.consumer_count -= 1
        if self.exclusive_consumer is consumer:
            self.exclusive_consumer = None
        if consumer.ledger.live == 0:
            self.detach(consumer)
        if self.consumer_count == 0:
            self.touch()
            if self.journal is not None:
                self.journal.expect(False)

    def remove_consumer(self, Consumer consumer not None) -> int:
        """Its channel is gone, or its worker: what it holds goes back, redelivered. The number of messages requeued.

        MemoryError: it stays, cancelled, with what it holds.
        """
        cdef int count
        if consumer.queue is not self:
            return 0
        self.cancel_consumer(consumer)
        if consumer.queue is None:
            return 0
        count = self.requeue(consumer, 0, UINT64_MAX)
        self.detach(consumer)
        if count and self.duties and not self.handing:
            self.keep_rules()
        if count and not self.unfinished:
            self.pump()
        return count

    def replace_consumer(self, Consumer old not None, Consumer new not None) -> None:
        """`new` takes the place of `old`, with its turn among the others of its age and all that it holds, under the same numbers.

        For a client that is reached in another way from now on. `old` is forgotten. Deliveries go on when `new` is activated.
        """
        cdef Consumer each
        assert old.queue is self and new.queue is None and new.ledger.live == 0
        rotation_leave(&self.rotation, &old.turn)
        ledger_free(&new.ledger)
        new.ledger = old.ledger
        memset(&old.ledger, 0, sizeof(Ledger))
        new.unacked_bytes = old.unacked_bytes
        new.next_delivery_no = old.next_delivery_no
        new.consuming = old.consuming
        new.cancelled = old.cancelled
        new.queue = self
        if self.exclusive_consumer is old:
            self.exclusive_consumer = new
        self.attached = {new if each is old else each: None for each in self.attached}
        old.queue = None
        old.active = old.consuming = False
        old.unacked_bytes = 0

    def activate_together(self, list consumers not None) -> None:
        """Activate these consumers of the queue, then deliver: what has gathered goes to all in turns, not to whoever is the first."""
        cdef Consumer consumer
        self.offered_bytes = self.next_bytes()
        for consumer in consumers:
            consumer.active = True
            if consumer.consuming and consumer.turn.next == NULL and consumer.can_take():
                rotation_join(&self.rotation, &consumer.turn)
        if self.ready_count and not self.unfinished:
            self.pump()

    @property
    def consumers(self) -> list[Consumer]:
        """Those that consume, in order of arrival."""
        cdef Consumer consumer
        return [consumer for consumer in self.attached if consumer.consuming]

    cdef int consumer_ready(self, Consumer consumer) except -1:
        self.offered_bytes = self.next_bytes()
        if not consumer.consuming or not consumer.can_take():
            if self.ready_count and self.rotation.count and not self.unfinished:
                self.pump()     # what it gave back may be for others
            return 0
        if consumer.turn.next == NULL:
            rotation_join(&self.rotation, &consumer.turn)
        if self.ready_count and not self.unfinished:
            self.pump()
        return 0

    cdef int consumer_blocked(self, Consumer consumer) except -1:
        return rotation_leave(&self.rotation, &consumer.turn)

    # Administration.

    def purge(self) -> int:
        """Drop everything ready, at once for all who look; of more than 10,000 the memory comes back over the next pumps. The number."""
        cdef size_t count = self.drop_ready()
        if not self.handing:    # a consumer may yet be reading the one it is being handed
            self.release_purged(PUMP_RELEASES_MAX)
        if self.purged.count and not self.unfinished:
            self.unfinished = True
            self.pump_later()
        return count

    def clear(self) -> list[Consumer]:
        """The queue is being deleted: drop everything, ready and unacked, and let all consumers go. Those that consumed, for the caller
        to tell. Large amounts of memory come back over the next pumps, so keep pumping for as long as `unfinished`.

        The journal is let go first: whoever filled it in forgets the queue as a whole. Dead letters stay, for they are on their way."""
        cdef Consumer consumer
        cdef size_t index
        self.journal = None
        self.stores = False
        self.paged_count = 0
        self.duties = 0
        consumers = self.consumers
        for consumer in list(self.attached):
            if consumer is self.dead_letters:
                for index in range(consumer.ledger.head, consumer.ledger.tail):
                    consumer.ledger.slots[index].flags &= ~<uint32_t>ENTRY_STORED
                continue
            self.cancel_consumer(consumer)
            for index in range(consumer.ledger.head, consumer.ledger.tail):
                if consumer.ledger.slots[index].item != NULL:
                    self.drop(<Message*>consumer.ledger.slots[index].item)
            ledger_free(&consumer.ledger)
            consumer.unacked_bytes = 0
            self.detach(consumer)
        self.unacked_count = 0 if self.dead_letters is None else self.dead_letters.ledger.live
        self.unacked_bytes = 0 if self.dead_letters is None else self.dead_letters.unacked_bytes
        self.purge()
        return consumers

    def statistics(self) -> dict[str, object]:
        """Sizes and counters under the HTTP API's names (`GET /api/queues/{vhost}/{name}`); bytes are those of bodies."""
        return {
            "messages_ready": self.ready_count,
            "messages_unacknowledged": self.unacked_count,
            "messages": self.ready_count + self.unacked_count,
            "message_bytes_ready": self.ready_bytes,
            "message_bytes_unacknowledged": self.unacked_bytes,
            "message_bytes": self.ready_bytes + self.unacked_bytes,
            "messages_paged_out": self.paged_count,
            "message_bytes_paged_out": self.paged_bytes,
            "consumers": self.consumer_count,
            "message_stats": {
                "publish": self.published,
                "deliver": self.delivered,
                "deliver_no_ack": self.delivered_no_ack,
                "get": self.got,
                "get_no_ack": self.got_no_ack,
                "deliver_get": self.delivered + self.delivered_no_ack + self.got + self.got_no_ack,
                "redeliver": self.redelivered,
                "ack": self.acked,
                "get_empty": self.get_empty,
            },
        }

    # Inside.

    cdef bint may_get_back(self) noexcept:
        return self.unacked_count > 0

    cdef Consumer next_consumer(self):
        """Whose turn it is, or None. Those found unable to take leave the rotation until they call `ready_again`."""
        cdef Turn* turn = rotation_first(&self.rotation)
        cdef Consumer consumer
        while turn != NULL:
            consumer = <Consumer>turn.owner
            if consumer.can_take():
                return consumer
            rotation_leave(&self.rotation, turn)
            turn = rotation_first(&self.rotation)
        return None

    cdef int hand(self, Consumer consumer, Entry* entry) except -1:
        """Give the entry, and its reference, to the consumer whose turn it is. Room in its ledger has been reserved."""
        cdef uint64_t delivery_no = consumer.next_delivery_no
        cdef bint redelivered = entry.flags & ENTRY_REDELIVERED
        cdef bint no_ack = consumer.no_ack
        cdef bint done = False
        consumer.next_delivery_no = delivery_no + 1
        if redelivered:
            self.redelivered += 1
        if no_ack:
            self.delivered_no_ack += 1
        else:
            ledger_append(&consumer.ledger, delivery_no, entry.message, entry.position, entry.expires_ms, entry.flags)
            self.unacked_count += 1
            self.unacked_bytes += entry.message.body_size
            consumer.unacked_bytes += entry.message.body_size
            self.delivered += 1
            if entry.position > self.handed_through:
                self.handed(entry.position)
        rotation_advance(&self.rotation)
        self.handing = True
        try:                    # a `finally` costs nothing on the way that raises nothing, an `except` does
            consumer.deliver(entry.message, delivery_no, redelivered)
            done = True
        finally:
            self.handing = False
            if not done:
                self.undo_hand(consumer, delivery_no, entry)
        if no_ack:
            if entry.flags & ENTRY_STORED:
                self.journal.settle(entry.position, entry.message)
            message_release(entry.message)
        return 0

    cdef int handed(self, uint64_t position) except -1:
        """It is the highest so far that somebody has and may give back: after a crash it must come back as redelivered."""
        self.handed_through = position
        if self.journal is not None and not self.marked:
            self.marked = True
            self.journal.mark()
        return 0

    cdef int undo_hand(self, Consumer consumer, uint64_t delivery_no, Entry* entry) except -1:
        """`deliver` has raised: as if it had not been called, and not again for this consumer. What others can take waits for a pump."""
        if consumer.no_ack:
            self.delivered_no_ack -= 1
        else:
            if ledger_find(&consumer.ledger, delivery_no) == NULL:    # it was removed meanwhile, and this message requeued with the others
                return 0
            ledger_retract(&consumer.ledger)
            self.unacked_count -= 1
            self.unacked_bytes -= entry.message.body_size
            consumer.unacked_bytes -= entry.message.body_size
            self.delivered -= 1
        if entry.flags & ENTRY_REDELIVERED:
            self.redelivered -= 1
        consumer.next_delivery_no = delivery_no
        consumer.active = False
        rotation_leave(&self.rotation, &consumer.turn)
        try:
            self.put_back(entry, 1)
        except MemoryError:     # nowhere to keep it; the error under way tells the caller
            message_release(entry.message)
        if not self.unfinished:
            self.unfinished = True
            self.pump_later()
        return 0

    cdef int requeue(self, Consumer consumer, uint64_t first, uint64_t last) except -1:
        """Put the consumer's messages from `first` to `last` back; their number. MemoryError: none."""
        cdef Ledger* ledger = &consumer.ledger
        cdef size_t begin = ledger_seek(ledger, first)
        cdef size_t end = begin
        cdef size_t index
        cdef size_t count = 0
        cdef uint64_t size = 0
        cdef bint ascending = True
        cdef Slot* slot
        cdef Entry* run
        cdef Entry single
        while end < ledger.tail and ledger.slots[end].key <= last:
            count += ledger.slots[end].item != NULL
            end += 1
        if count == 0:
            return 0
        run = &single
        if count > 1:
            run = <Entry*>malloc(count * sizeof(Entry))
            if run == NULL:
                raise MemoryError("no memory to requeue messages")
        try:
            count = 0
            for index in range(begin, end):
                slot = &ledger.slots[index]
                if slot.item == NULL:
                    continue
                run[count].message = <Message*>slot.item
                run[count].position = slot.number
                run[count].expires_ms = slot.expires_ms
                run[count].flags = entry_returned(slot.flags)
                size += run[count].message.body_size
                # A consumer's deliveries ascend by position until it is handed one that came back.
                ascending = ascending and (count == 0 or run[count - 1].position < slot.number)
                count += 1
            if not ascending:
                qsort(run, count, sizeof(Entry), by_position)
            self.put_back(run, count)
        finally:
            if run != &single:
                free(run)
        for index in range(begin, end):
            if ledger.slots[index].item != NULL:
                ledger_erase(ledger, &ledger.slots[index])
        self.requeued += count
        self.settled(consumer, count, size)
        return <int>count

    cdef int redeliver(self, Consumer consumer, uint64_t first, uint64_t last) except -1:
        """Hand the consumer what it holds from `first` to `last` once more, marked redelivered; the number of messages.

        Its ledger may grow or lose entries while `deliver` runs, so each step finds its place anew.
        """
        cdef Ledger* ledger = &consumer.ledger
        cdef uint64_t at = first
        cdef size_t index
        cdef int count = 0
        while at <= last and consumer.queue is self:
            index = ledger_seek(ledger, at)
            while index < ledger.tail and ledger.slots[index].item == NULL:
                index += 1
            if index == ledger.tail or ledger.slots[index].key > last:
                break
            at = ledger.slots[index].key
            ledger.slots[index].flags = entry_returned(ledger.slots[index].flags)
            self.redelivered += 1
            count += 1
            consumer.deliver(<Message*>ledger.slots[index].item, at, True)
            at += 1
        return count

    cdef int settled(self, Consumer consumer, size_t count, uint64_t size) except -1:
        """`count` messages with bodies of `size` bytes have left the consumer's ledger."""
        ledger_tidy(&consumer.ledger)
        assert self.unacked_count >= count and self.unacked_bytes >= size
        self.unacked_count -= count
        self.unacked_bytes -= size
        consumer.unacked_bytes -= size
        return 0

    cdef int detach(self, Consumer consumer) except -1:
        """It holds nothing and is not in the rotation: forget it."""
        assert consumer.ledger.live == 0 and consumer.turn.next == NULL
        self.attached.pop(consumer, None)
        consumer.queue = None
        return 0
