"""A channel: the publishes, deliveries and settlements of one AMQP channel.

Its connection calls it for every frame of the hot methods (publish and its content, ack, reject, nack, get); everything else about a
channel is in `leveret.worker.methods`. The publishing half is in `publisher.pxi`. Here it writes deliveries into its connection's
output, and knows for each delivery tag whose message it is. It never reads or writes the socket and never waits.
"""

import re
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from leveret.codec.frames cimport (
    FRAME_END,
    FRAME_HEADER,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    content_size,
    shown_frame,
    store_content_header,
    store_frame_head,
    write_deliver,
)
from leveret.codec.methods cimport (
    METHOD_BASIC_ACK,
    METHOD_BASIC_GET_EMPTY,
    METHOD_BASIC_GET_OK,
    METHOD_BASIC_NACK,
    METHOD_BASIC_RETURN,
)
from leveret.codec.properties cimport (
    HAS_EXPIRATION,
    HAS_HEADERS,
    HAS_REPLY_TO,
    HAS_USER_ID,
    PROPERTIES_OK,
    PropertiesView,
    properties_error,
    view_properties,
)
from leveret.codec.tables cimport find_in_table
from leveret.codec.wire cimport (
    Cursor,
    cursor_left,
    cursor_take,
    cursor_u8,
    load_u16,
    load_u64,
    store_u16,
    store_u32,
    store_u64,
)
from leveret.link.packets cimport ENQUEUE_WANTS_CONFIRM, PUBLISH_WANTS_VERDICT
from leveret.link.stream cimport BY_REFERENCE_MIN
from leveret.queue.ledger cimport Slot, ledger_append, ledger_erase, ledger_find, ledger_free, ledger_tidy
from leveret.queue.message cimport (
    MESSAGE_EXPIRES,
    MESSAGE_HEAD_SIZE,
    MESSAGE_IMMEDIATE,
    MESSAGE_MANDATORY,
    MESSAGE_PERSISTENT,
    MESSAGE_WIRE_OFFSET,
    Message,
    message_body,
    message_exchange,
    message_fill,
    message_from_wire,
    message_new,
    message_properties,
    message_release,
    message_retain,
    message_routing_key,
    message_size,
)
from leveret.queue.queue cimport PUBLISH_REFUSED, PUBLISH_STORED, SETTLE_ACK, SETTLE_DISCARD, SETTLE_REDELIVER, SETTLE_REQUEUE, Queue
from leveret.queue.ring cimport ENTRY_REDELIVERED, Entry
from leveret.worker.confirms cimport AWAITS_VERDICT, IMMEDIATE, REFUSED, ROUTED, TAKEN, Confirms, Publish
from leveret.worker.connection cimport LATE_READ_MAX, PAUSED_FLOW, PAUSED_HANDOVER, PAUSED_METHOD, Connection, count_far
from leveret.worker.directory cimport ExchangeEntry, QueueEntry
from leveret.worker.neighbour cimport Neighbour
from leveret.worker.state cimport ShardQueue
from leveret.worker.subscription cimport Subscription, credit_cost
from leveret.worker.transaction cimport Pending, Transaction

from leveret.codec.errors import (
    AccessRefused,
    FrameError,
    NotFound,
    PreconditionFailed,
    UnexpectedFrame,
    numbered_bytes,
)
from leveret.worker.sender_selected import further_keys

# More unacked messages than this, or more bytes of bodies, are requeued where they should be redelivered.
cdef enum:
    REDELIVER_MAX = 50_000
    REDELIVER_BYTES_MAX = 16 * 1024 * 1024

include "publisher.pxi"


cdef class Channel(Publisher):
    """`Channel(connection, id)`, made by channel.open."""

    def __init__(self, Connection connection, uint16_t id):
        self.connection = connection
        self.state = connection.state
        self.id = id
        self.ref = self.state.new_ref()
        self.consumers = {}
        self.getters = {}
        self.cancelled = []
        self.settled_elsewhere = set()
        self.last_queue = ""
        self.state.add_channel(self)

    def __dealloc__(self):
        ledger_free(&self.unacked)

    def __repr__(self):
        return f"<Channel {self.id} of {self.connection.name}>"

    @property
    def unacked_count(self):
        return self.unacked.live

    # --- deliver

    cdef bint has_room(self, uint32_t body_size, bint no_ack) noexcept:
        """Whether a delivery may be written now: socket not behind, flow not stopped, shared prefetch not used up.

        As in RabbitMQ, the latter is nothing to consumers that acknowledge nothing.
        """
        return (not self.connection.congested and not self.closing and not self.flow_stopped
                and (no_ack or self.global_prefetch == 0 or self.unacked.live < self.global_prefetch)
                and (no_ack or self.global_prefetch_bytes == 0 or self.unacked.live == 0
                     or self.unacked_bytes + body_size <= self.global_prefetch_bytes))

    cdef uint64_t next_tag(self, Subscription subscription, uint64_t delivery_no, uint32_t body_size) except 0:
        """The delivery tag for one more message, remembered until it is settled (unless nobody will)."""
        self.last_delivery_tag += 1
        if not subscription.no_ack:
            ledger_append(&self.unacked, self.last_delivery_tag, <void*>subscription, delivery_no, 0, body_size)
            Py_INCREF(subscription)
            subscription.unacked_count += 1
            self.unacked_bytes += body_size
        return self.last_delivery_tag

    cdef int erase(self, Slot* slot) except -1:
        """Its tag is settled. The caller holds the subscription, and tidies the ledger after the last of a row."""
        cdef Subscription subscription = <Subscription>slot.item
        self.unacked_bytes -= slot.flags & SLOT_SIZE_MASK
        ledger_erase(&self.unacked, slot)
        subscription.unacked_count -= 1
        Py_DECREF(subscription)
        return 0

    cdef int deliver(self, Subscription subscription, Message* message, uint64_t delivery_no, bint redelivered) except -1:
        """Write it, or keep it until it may be written. A body of BY_REFERENCE_MIN bytes or more is in a block of its own, which is held;
        a smaller one may lie in a link's input."""
        cdef Message* kept
        if self.closing or self.connection.closed:
            return 0    # it comes back to its queue when the channel's consumers are forgotten
        if subscription.owner is not None:
            if self.flow_stopped or subscription.parked or (
                    not subscription.no_ack and (self.global_prefetch or self.global_prefetch_bytes)
                    and (self.parked or not self.has_room(message.body_size, False))):
                if message.body_size >= BY_REFERENCE_MIN:
                    kept = message
                    message_retain(kept)
                else:
                    kept = message_from_wire(<uint8_t*>message + MESSAGE_WIRE_OFFSET, message_size(message) - MESSAGE_WIRE_OFFSET)
                if kept == NULL:
                    raise MemoryError
                self.park(subscription, <uint64_t>kept, delivery_no, redelivered)
                return 0
        return self.write_delivery(subscription, message, delivery_no, redelivered)

    cdef int write_delivery(self, Subscription subscription, Message* message, uint64_t delivery_no, bint redelivered) except -1:
        cdef Connection connection = self.connection
        cdef bint large = message.body_size >= BY_REFERENCE_MIN
        cdef uint64_t tag
        tag = self.next_tag(subscription, delivery_no, message.body_size)
        write_deliver(
            &connection.out, self.id, <const uint8_t*>PyBytes_AS_STRING(subscription.tag), <uint8_t>PyBytes_GET_SIZE(subscription.tag),
            tag, redelivered, message_exchange(message), message.exchange_size, message_routing_key(message), message.routing_key_size,
            message_properties(message), message.properties_size, NULL if large else message_body(message), message.body_size,
            connection.frame_max)
        if subscription.no_ack:
            self.delivered_no_ack += 1
            self.state.delivered_no_ack += 1
        else:
            self.delivered += 1
            self.state.delivered += 1
        if redelivered:
            self.redelivered += 1
            self.state.redelivered += 1
        if large:
            connection.write_body(self.id, message)
        else:
            connection.written(0)
        if subscription.owner is not None:
            subscription.spent += credit_cost(message)
            subscription.give_credit()
            count_far(connection, subscription.owner.index, message.body_size)
        return 0

    def park(self, Subscription subscription, uint64_t message, uint64_t delivery_no, bint redelivered):
        """Keep another worker's delivery that the shared prefetch has no room for. Bounded by the credit of the channel's consumers."""
        if self.parked is None:
            self.parked = deque()
        subscription.parked += 1
        self.parked.append((subscription, message, delivery_no, redelivered))

    cdef int unpark(self) except -1:
        cdef Message* message
        cdef Subscription subscription
        parked, self.parked = self.parked, None
        while parked:
            subscription, address, delivery_no, redelivered = parked[0]
            message = <Message*><uint64_t>address
            if not self.has_room(message.body_size, subscription.no_ack):
                break
            parked.popleft()
            subscription.parked -= 1
            try:
                if subscription.handle and not self.closing and not self.connection.closed:
                    self.write_delivery(subscription, message, delivery_no, redelivered)
            finally:
                message_release(message)
        if parked:
            self.parked = parked
        return 0

    def give_back_parked(self, Subscription subscription):
        """The consumer is cancelled: what it has not been sent goes back to its queue."""
        if not self.parked:
            return
        kept = deque()
        subscription.parked = 0
        for entry in self.parked:
            if entry[0] is not subscription:
                kept.append(entry)
                continue
            subscription.settle(entry[2], entry[2], SETTLE_REQUEUE)
            message_release(<Message*><uint64_t>entry[1])
        self.parked = kept

    cdef int drained(self) except -1:
        """The connection's output has room again: those who waited for it go on."""
        cdef Subscription subscription
        self.unpark()
        for subscription in list(self.consumers.values()):
            if subscription.consumer is not None:
                subscription.consumer.ready_again()
            else:
                subscription.give_credit()
        return 0

    # --- get

    cdef bint on_get(self, const uint8_t* payload, size_t size) except -1:
        """A basic.get from a queue of this worker, if it can be served without ado. False: it is for `leveret.worker.methods`."""
        cdef Cursor at
        cdef uint8_t name_size, bits
        cdef const uint8_t* name
        cdef void* found
        cdef QueueEntry entry
        if self.routed:
            return False
        at.at = payload + 6
        at.end = payload + size
        at.failed = size < 6
        if at.failed:
            return False
        name_size = cursor_u8(&at)
        name = cursor_take(&at, name_size)
        bits = cursor_u8(&at)
        if at.failed or cursor_left(&at) or name_size == 0:
            return False
        found = self.connection.vhost.find_queue(name, name_size)
        if found == NULL:
            return False
        entry = <QueueEntry>found
        if entry.local is None:
            return False
        subscription = self.getters.get((entry.id, bits & 1))
        if subscription is None:
            return False
        # A getter was made after all checks; permissions may have changed since, so its verdict ages with the directory.
        if self.queue_version != self.state.directory.version:
            self.worker.check_permission(self.connection, "read", "queue", entry.name)
        self.get_local(subscription, entry)
        return True

    def get_local(self, Subscription getter, QueueEntry entry):
        """Serve basic.get from a queue of this worker."""
        cdef ShardQueue queue = entry.local
        cdef Entry taken
        cdef uint64_t delivery_no = 0
        if not queue.take(getter.consumer, &delivery_no, &taken):
            self.write_get_empty()
            return
        try:
            self.write_get_ok(getter, taken.message, delivery_no, taken.flags & ENTRY_REDELIVERED, <uint32_t>queue.ready_count)
        finally:
            message_release(taken.message)

    def get_remote(self, Subscription getter, bytes wire, uint64_t delivery_no, bint redelivered, uint32_t message_count):
        """Serve basic.get with what another worker gave."""
        cdef Message* message = message_from_wire(<const uint8_t*>PyBytes_AS_STRING(wire), PyBytes_GET_SIZE(wire))
        if message == NULL:
            raise MemoryError
        try:
            self.write_get_ok(getter, message, delivery_no, redelivered, message_count)
            count_far(self.connection, getter.owner.index, message.body_size)
        finally:
            message_release(message)

    def write_get_empty(self):
        """basic.get-empty."""
        cdef uint8_t* at = self.connection.reserve(FRAME_OVERHEAD + 5)
        store_frame_head(at, FRAME_METHOD, self.id, 5)
        store_u32(at + 7, METHOD_BASIC_GET_EMPTY)
        at[11] = 0
        at[12] = FRAME_END
        self.get_empty += 1
        self.state.get_empty += 1
        self.connection.answered(FRAME_OVERHEAD + 5)

    cdef int write_get_ok(self, Subscription subscription, Message* message, uint64_t delivery_no, bint redelivered,
                          uint32_t message_count) except -1:
        cdef uint32_t method_size = <uint32_t>19 + message.exchange_size + message.routing_key_size
        cdef uint64_t tag
        cdef uint8_t* start
        cdef uint8_t* at
        if self.closing or self.connection.closed:
            return 0
        tag = self.next_tag(subscription, delivery_no, message.body_size)
        start = self.connection.reserve(FRAME_OVERHEAD + method_size + content_size(message.properties_size, 0, 0))
        at = start
        store_frame_head(at, FRAME_METHOD, self.id, method_size)
        store_u32(at + 7, METHOD_BASIC_GET_OK)
        store_u64(at + 11, tag)
        at[19] = redelivered
        at[20] = message.exchange_size
        memcpy(at + 21, message_exchange(message), message.exchange_size)
        at += 21 + message.exchange_size
        at[0] = message.routing_key_size
        memcpy(at + 1, message_routing_key(message), message.routing_key_size)
        at += 1 + message.routing_key_size
        store_u32(at, message_count)
        at[4] = FRAME_END
        at = store_content_header(at + 5, self.id, CLASS_BASIC, message.body_size, message_properties(message), message.properties_size)
        if subscription.no_ack:
            self.got_no_ack += 1
            self.state.got_no_ack += 1
        else:
            self.got += 1
            self.state.got += 1
        if redelivered:
            self.redelivered += 1
            self.state.redelivered += 1
        return self.connection.answered_with(self.id, message, at - start)

    # --- settle

    cdef int on_ack(self, const uint8_t* payload, size_t size) except -1:
        if size != 13:
            raise undecodable(payload, size)
        return self.settle(load_u64(payload + 4), payload[12] & 1, SETTLE_ACK)

    cdef int on_reject(self, const uint8_t* payload, size_t size) except -1:
        if size != 13:
            raise undecodable(payload, size)
        return self.settle(load_u64(payload + 4), False, SETTLE_REQUEUE if payload[12] & 1 else SETTLE_DISCARD)

    cdef int on_nack(self, const uint8_t* payload, size_t size) except -1:
        if size != 13:
            raise undecodable(payload, size)
        return self.settle(load_u64(payload + 4), payload[12] & 1, SETTLE_REQUEUE if payload[12] & 2 else SETTLE_DISCARD)

    cdef int settle(self, uint64_t tag, bint multiple, int outcome) except -1:
        cdef Slot* slot
        cdef Subscription subscription
        cdef uint64_t delivery_no
        if self.transaction is not None:
            return self.mark(tag, multiple, outcome)
        if multiple and tag == 0:
            return self.settle_all(self.last_delivery_tag, outcome)
        slot = ledger_find(&self.unacked, tag)
        if slot == NULL:
            raise PreconditionFailed(f"unknown delivery tag {tag}")
        if multiple:
            return self.settle_all(tag, outcome)
        subscription = <Subscription>slot.item
        delivery_no = slot.number
        self.erase(slot)
        ledger_tidy(&self.unacked)
        subscription.settle(delivery_no, delivery_no, outcome)
        self.note_settled(subscription)
        if subscription.cancelled and subscription.unacked_count == 0:
            self.forget_cancelled(subscription)
        return self.settled(1, outcome)

    cdef int settle_all(self, uint64_t tag, int outcome) except -1:
        """Everything unacked up to `tag`: one settle for each consumer concerned, since its deliveries ascend as the tags do."""
        cdef size_t index = self.unacked.head
        cdef size_t count = 0
        cdef Slot* slot
        cdef Subscription subscription
        cdef list concerned = []
        while index < self.unacked.tail:
            slot = &self.unacked.slots[index]
            index += 1
            if slot.key > tag:
                break
            if slot.item == NULL or slot.flags >> SLOT_MARK_SHIFT:
                continue
            subscription = <Subscription>slot.item
            subscription.settle_to = slot.number
            if not subscription.in_settle:
                subscription.in_settle = True
                concerned.append(subscription)
            self.erase(slot)
            count += 1
        ledger_tidy(&self.unacked)
        for subscription in concerned:
            subscription.in_settle = False
            subscription.settle(0, subscription.settle_to, outcome)
            self.note_settled(subscription)
            if subscription.cancelled and subscription.unacked_count == 0:
                self.forget_cancelled(subscription)
        return self.settled(count, outcome)

    cdef int note_settled(self, Subscription subscription) except -1:
        """Whether the client may be waiting for what its ack lets through: its window is half empty, and there are messages to fill it."""
        cdef Connection connection = self.connection
        cdef Queue queue
        connection.unawaited += 1
        if connection.awaited or connection.unawaited > LATE_READ_MAX:
            return 0        # nothing would come of it
        queue = subscription.consumer.queue if subscription.consumer is not None else None
        if (queue is None or self.global_prefetch or self.global_prefetch_bytes or subscription.prefetch_bytes
                or (2 * subscription.unacked_count < subscription.prefetch and queue.ready_count)):
            connection.awaited = True
        return 0

    def forget_cancelled(self, Subscription subscription):
        self.cancelled.remove(subscription)
        subscription.forget()

    cdef int settled(self, size_t count, int outcome) except -1:
        cdef Subscription subscription
        if outcome == SETTLE_ACK:
            self.acked += count
            self.state.acked += count
        if self.global_prefetch or self.global_prefetch_bytes:
            self.unpark()
            for subscription in list(self.consumers.values()):
                if subscription.consumer is not None:
                    subscription.consumer.ready_again()
        return 0

    def recover(self):
        """basic.recover with requeue: everything unacked goes back, but for what a transaction has acked."""
        if self.transaction is None or self.transaction.acks == 0:
            self.settle_all(self.last_delivery_tag, SETTLE_REQUEUE)
            return
        self.settle_runs(self.take_runs(False))

    def redeliver(self):
        """basic.recover without requeue: everything unacked comes again, to the same consumers, under new tags.

        What came by basic.get, or to a consumer that is cancelled, has nobody to come to and goes back to its queue. So does everything if
        it is much: it would all be written at once, whether the client reads or not, and hold up everybody else.
        """
        if self.unacked.live > REDELIVER_MAX or self.unacked_bytes > REDELIVER_BYTES_MAX:
            return self.recover()
        cdef size_t index
        cdef Slot* slot
        cdef Subscription subscription
        cdef list again = []
        for index in range(self.unacked.head, self.unacked.tail):
            slot = &self.unacked.slots[index]
            if slot.item == NULL or slot.flags >> SLOT_MARK_SHIFT:
                continue
            again.append((<Subscription>slot.item, slot.number))
            self.erase(slot)
        ledger_tidy(&self.unacked)
        for subscription, delivery_no in again:
            gone = subscription.getter or subscription.cancelled
            subscription.settle(delivery_no, delivery_no, SETTLE_REQUEUE if gone else SETTLE_REDELIVER)
        for subscription in list(self.cancelled):
            if subscription.unacked_count == 0:
                self.forget_cancelled(subscription)
        self.settled(0, SETTLE_REQUEUE)

    # --- transactions

    def select_transaction(self):
        """tx.select: publishes and acks wait for the commit from now on."""
        if self.transaction is None:
            self.transaction = Transaction()

    cdef int mark(self, uint64_t tag, bint multiple, int outcome) except -1:
        """Remember an ack, reject or nack until the commit. What is marked counts as settled for the client, not for the queue."""
        cdef Slot* slot
        cdef size_t index
        cdef uint64_t last = tag
        if multiple and tag == 0:
            last = self.last_delivery_tag
        else:
            slot = ledger_find(&self.unacked, tag)
            if slot == NULL or slot.flags >> SLOT_MARK_SHIFT:
                raise PreconditionFailed(f"unknown delivery tag {tag}")
            if not multiple:
                slot.flags |= <uint32_t>(outcome + 1) << SLOT_MARK_SHIFT
                self.transaction.acks += 1
                return 0
        for index in range(self.unacked.head, self.unacked.tail):
            slot = &self.unacked.slots[index]
            if slot.key > last:
                break
            if slot.item != NULL and not slot.flags >> SLOT_MARK_SHIFT:
                slot.flags |= <uint32_t>(outcome + 1) << SLOT_MARK_SHIFT
                self.transaction.acks += 1
        return 0

    def spread(self):
        """Where else than on this worker the transaction has work: indices of workers, and whether some of it goes through the router.

        One publish or ack alone is a whole anyway.
        """
        cdef Transaction transaction = self.transaction
        cdef Pending* pending
        cdef size_t at
        cdef void* found
        cdef Slot* slot
        cdef set workers = set()
        cdef bint routed = False
        if transaction.count + transaction.acks < 2:
            return workers, False
        for at in range(transaction.count):
            pending = &transaction.pending[at]
            if pending.exchange != NULL or pending.keys != NULL:
                routed = True
                break
            found = self.connection.vhost.find_queue(message_routing_key(pending.message), pending.message.routing_key_size)
            if found != NULL and (<QueueEntry>found).local is None:
                workers.add((<QueueEntry>found).worker)
        if routed:
            return {other.index for other in self.state.workers if other is not None}, True
        if transaction.acks:
            for at in range(self.unacked.head, self.unacked.tail):
                slot = &self.unacked.slots[at]
                if slot.item != NULL and slot.flags >> SLOT_MARK_SHIFT and (<Subscription>slot.item).owner is not None:
                    workers.add((<Subscription>slot.item).owner.index)
        return workers, False

    def commit(self):
        """tx.commit: publish and settle all of it. A Future of the number of publishes that were refused, or None if all is done."""
        cdef Transaction transaction = self.transaction
        cdef Pending* pending
        cdef size_t at
        cdef Confirms confirms = self.need_confirms()
        self.commit_refusals = confirms.refusals
        try:
            for at in range(transaction.count):
                pending = &transaction.pending[at]
                self.exchange = <ExchangeEntry>pending.exchange if pending.exchange != NULL else None
                self.further_keys = <bytes>pending.keys if pending.keys != NULL else None
                self.further_count = count_keys(self.further_keys)
                self.queue_version = 0
                self.publish(pending.message)
        finally:
            # What was found out for the next publish was overwritten.
            self.exchange_version = 0
            self.queue_version = 0
            self.further_count = 0
            transaction.clear()
        self.settle_marked()
        if self.state.committer.has_work():     # the acks too must be on the disk before commit-ok
            self.settled_by_commit()
        self.commit_through = confirms.next - 1
        if confirms.first > self.commit_through:
            return None
        self.committed = self.state.poller.loop.create_future()
        return self.committed

    def settle_marked(self):
        """Carry out the acks of the transaction; `settled_elsewhere` names the other workers that have been told of some."""
        runs = self.take_runs(True)
        self.transaction.acks = 0
        self.settled_elsewhere = {run[0].owner for run in runs if run[0].owner is not None}
        self.settle_runs(runs)

    cdef list take_runs(self, bint marked):
        """Take out what the transaction has marked, or what it has not: (consumer, first and last delivery number, how many, mark).

        A run has consecutive numbers, so that a million messages make one of them, and nothing that stays is between two of its own.
        """
        cdef size_t index
        cdef Slot* slot
        cdef list runs = []
        cdef Subscription subscription = None
        cdef uint64_t first = 0
        cdef uint64_t last = 0
        cdef size_t count = 0
        cdef uint32_t mark = 0
        for index in range(self.unacked.head, self.unacked.tail):
            slot = &self.unacked.slots[index]
            if slot.item == NULL or (slot.flags >> SLOT_MARK_SHIFT != 0) != marked:
                continue
            if count and (slot.flags >> SLOT_MARK_SHIFT != mark or slot.number != last + 1 or <Subscription>slot.item is not subscription):
                runs.append((subscription, first, last, count, mark))
                count = 0
            if count == 0:
                subscription = <Subscription>slot.item
                first = slot.number
                mark = slot.flags >> SLOT_MARK_SHIFT
            last = slot.number
            count += 1
            self.erase(slot)
        if count:
            runs.append((subscription, first, last, count, mark))
        ledger_tidy(&self.unacked)
        return runs

    cdef int settle_runs(self, list runs) except -1:
        """Settle what `take_runs` has taken: as it was marked; what was not goes back."""
        cdef Subscription subscription
        for subscription, first, last, count, mark in runs:
            subscription.settle(first, last, mark - 1 if mark else SETTLE_REQUEUE)
            self.settled(count, mark - 1 if mark else SETTLE_REQUEUE)
        # Only now: to forget a subscription puts back whatever its queue has not heard of.
        for subscription in list(self.cancelled):
            if subscription.unacked_count == 0:
                self.forget_cancelled(subscription)
        return 0

    def rollback(self):
        """tx.rollback: forget the publishes, and that anything was acked; the messages stay unacked."""
        cdef size_t index
        self.transaction.clear()
        for index in range(self.unacked.head, self.unacked.tail):
            self.unacked.slots[index].flags &= SLOT_SIZE_MASK
        self.transaction.acks = 0

    # --- qos, flow, consumers

    def set_prefetch(self, uint32_t prefetch, uint32_t prefetch_bytes):
        """basic.qos, global=false: the limits of each consumer, those that are there and those to come."""
        self.prefetch = prefetch
        self.prefetch_bytes = prefetch_bytes
        for subscription in self.consumers.values():
            subscription.set_prefetch(prefetch, prefetch_bytes)

    def set_global_prefetch(self, uint32_t prefetch, uint32_t prefetch_bytes):
        """basic.qos, global=true: the limits that all consumers of the channel share."""
        self.global_prefetch = prefetch
        self.global_prefetch_bytes = prefetch_bytes
        for subscription in self.consumers.values():
            if subscription.owner is not None:
                subscription.set_prefetch(subscription.prefetch, subscription.prefetch_bytes)
        self.drained()

    def set_flow(self, bint active):
        """channel.flow: deliveries pause, or go on."""
        cdef bint was_stopped = self.flow_stopped
        self.flow_stopped = not active
        if active and was_stopped:
            self.drained()
            for subscription in self.consumers.values():
                subscription.go_on()

    def set_reply_consumer(self, Subscription subscription):
        """Direct replies come to it."""
        self.reply_consumer = subscription
        self.reply_name = subscription.reply_name

    def add_consumer(self, Subscription subscription):
        self.consumers[subscription.tag] = subscription

    def remove_consumer(self, Subscription subscription):
        """It gets no more; kept until the last of its unacked messages is settled."""
        self.consumers.pop(subscription.tag, None)
        if subscription is self.reply_consumer:
            self.reply_consumer = None
            self.reply_name = None
        self.give_back_parked(subscription)
        subscription.stop()
        if subscription.unacked_count:
            self.cancelled.append(subscription)

    def drop_getter(self, Subscription getter):
        """Its queue, or the worker that had it, is gone."""
        for key, subscription in list(self.getters.items()):
            if subscription is getter:
                del self.getters[key]

    # --- for cold methods

    def send(self, method):
        """Write a method, unless the channel or its connection is closing."""
        if not self.closing and not self.connection.closed:
            self.connection.send_method(self.id, method)

    def begin_closing(self):
        """channel.close has been sent: all but the answer is passed over from now on, and what was unacked goes back."""
        self.closing = True
        self.release()

    def release(self):
        """Let go of everything: consumers, unacked messages, an unfinished publish. The channel is closed or closing."""
        cdef size_t index
        cdef Subscription subscription
        cdef dict detached = {}
        self.closing = True
        self.drop_publish()
        holders = [*self.consumers.values(), *self.getters.values(), *self.cancelled]
        self.consumers = {}
        self.getters = {}
        self.cancelled = []
        for index in range(self.unacked.head, self.unacked.tail):
            if self.unacked.slots[index].item != NULL:
                Py_DECREF(<object>self.unacked.slots[index].item)
        ledger_free(&self.unacked)
        self.unacked_bytes = 0
        self.reply_consumer = None
        # First all, then each: or the one's messages would be handed to the next.
        for subscription in holders:
            if subscription.consumer is not None:
                subscription.consumer.deactivate()
        for subscription in holders:
            if subscription.handle and subscription.owner is not None:
                detached.setdefault(subscription.owner, []).append(subscription.handle)
                subscription.lose_owner()
            else:
                subscription.forget()
        for owner, handles in detached.items():
            if owner.link is not None:
                owner.link.notify("detach", {"handles": handles})
        if self.parked:
            for _subscription, address, _delivery_no, _redelivered in self.parked:
                message_release(<Message*><uint64_t>address)
            self.parked = None
        self.state.remove_channel(self)
        return [subscription for subscription in holders if not subscription.getter]

    def barrier_passed(self):
        """What went through the router has reached its queues."""
        self.routed = False

    def statistics(self):
        """The channel under the HTTP API's names."""
        connection = self.connection
        return {
            "name": f"{connection.name} ({self.id})",
            "number": self.id,
            "connection_name": connection.name,
            "user": connection.user,
            "vhost": connection.vhost.name,
            "consumer_count": len(self.consumers),
            "prefetch_count": self.prefetch,
            "global_prefetch_count": self.global_prefetch,
            "confirm": self.confirming,
            "transactional": self.transaction is not None,
            "messages_unacknowledged": self.unacked.live,
            "messages_unconfirmed": self.unconfirmed_count,
            "messages_uncommitted": self.transaction.count if self.transaction is not None else 0,
            "acks_uncommitted": self.transaction.acks if self.transaction is not None else 0,
            "state": "closing" if self.closing else "flow" if connection.paused & ~(PAUSED_METHOD | PAUSED_HANDOVER) else "running",
            "message_stats": {
                "publish": self.published,
                "confirm": self.confirmed,
                "return_unroutable": self.returned,
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
