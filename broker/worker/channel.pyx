"""A channel: the publishes, deliveries and settlements of one AMQP channel.

Its connection calls it for every frame of the hot methods (publish and its content, ack, reject, nack, get); everything else about a
channel is in `leveret.worker.methods`. It hands messages to queues, to other workers and to the router, writes deliveries into its
connection's output, and knows for each delivery tag whose message it is. It never reads or writes the socket and never waits.

A message's way: `on_publish` keeps the names and finds the exchange, `on_header` makes the message, `on_body` fills it in, and when it is
whole `publish` sends it where it belongs: the default exchange's to its queue, here or on another worker; all others to the router.
"""

import re

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
    store_body_frames,
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
from leveret.codec.properties cimport HAS_EXPIRATION, HAS_HEADERS, HAS_REPLY_TO, HAS_USER_ID, PROPERTIES_OK, PropertiesView, properties_error, view_properties
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
from leveret.queue.ledger cimport Slot, ledger_append, ledger_erase, ledger_find, ledger_free, ledger_tidy
from leveret.queue.message cimport (
    MESSAGE_IMMEDIATE,
    MESSAGE_MANDATORY,
    MESSAGE_PERSISTENT,
    Message,
    message_body,
    message_exchange,
    message_from_wire,
    message_new,
    message_properties,
    message_release,
    message_retain,
    message_routing_key,
    message_size,
    MESSAGE_WIRE_OFFSET,
)
from leveret.queue.queue cimport SETTLE_ACK, SETTLE_DISCARD, SETTLE_REDELIVER, SETTLE_REQUEUE
from leveret.queue.ring cimport ENTRY_REDELIVERED, Entry
from leveret.worker.confirms cimport AWAITS_VERDICT, IMMEDIATE, ROUTED, TAKEN, Confirms, Publish
from leveret.worker.connection cimport PAUSED_FLOW, Connection
from leveret.worker.directory cimport QueueEntry
from leveret.worker.neighbour cimport Neighbour
from leveret.worker.state cimport ShardQueue
from leveret.worker.subscription cimport Subscription, credit_cost
from leveret.worker.transaction cimport Pending, Transaction

from leveret.worker.sender_selected import further_keys

from leveret.codec.errors import (
    AccessRefused,
    FrameError,
    NotFound,
    PreconditionFailed,
    UnexpectedFrame,
    numbered_bytes,
)

cdef enum:
    NAME_SIZE_MAX = 255
    KEY_AT = 256                    # where the routing key begins in `names`
    CLASS_BASIC = 60
    PUBLISH_BIT_MANDATORY = 1
    PUBLISH_BIT_IMMEDIATE = 2
    REPLY_TO_SIZE = 21

cdef const char* REPLY_TO = "amq.rabbitmq.reply-to"
EXPIRATION_MS_MAX = 315_360_000_000     # ten years


cdef bint is_ascii(const uint8_t* text, size_t size) noexcept nogil:
    cdef size_t at
    cdef uint8_t seen = 0
    for at in range(size):
        seen |= text[at]
    return seen < 0x80


cdef int check_utf8(const uint8_t* text, size_t size) except -1:
    """Names are UTF-8 (RabbitMQ 4: 501). Nearly all are ASCII, which costs a glance."""
    if not is_ascii(text, size):
        try:
            (<const char*>text)[:size].decode("utf-8")
        except UnicodeDecodeError:
            raise FrameError("Malformed UTF-8 in shortstr") from None
    return 0


cdef bint is_expiration(const uint8_t* text, size_t size) noexcept nogil:
    """A number of milliseconds of at most ten years, in decimal digits."""
    cdef uint64_t value = 0
    cdef size_t at
    if size == 0 or size > 12:
        return False
    for at in range(size):
        if text[at] < 48 or text[at] > 57:
            return False
        value = value * 10 + text[at] - 48
    return value <= <uint64_t>315360000000ULL


cdef object bad_expiration(bytes expiration):
    """The PreconditionFailed, in RabbitMQ's words."""
    text = expiration.decode("utf-8", "replace")
    digits = re.match(r"[+-]?[0-9]+", text)
    if digits is None:
        reason = "no_integer"
    elif digits.end() < len(text):
        reason = f'{{leftover_string,"{text[digits.end():]}"}}'
    elif int(digits[0]) < 0:
        reason = f"{{value_negative,{int(digits[0])}}}"
    elif int(digits[0]) > EXPIRATION_MS_MAX:
        reason = f"{{value_too_big,{int(digits[0])}}}"
    else:
        return None
    return PreconditionFailed(f"invalid expiration '{text}': {reason}")


cdef uint16_t count_keys(bytes keys) except? 0:
    """How many routing keys, each with its size before it, `keys` holds; None: none."""
    cdef size_t at = 0
    cdef uint16_t count = 0
    if keys is None:
        return 0
    while at < <size_t>len(keys):
        at += 1 + keys[at]
        count += 1
    return count


cdef object undecodable(const uint8_t* payload, size_t size):
    """The FrameError, in RabbitMQ's words, for a method whose arguments are cut short or too long."""
    return FrameError(f"cannot decode {numbered_bytes(payload[4:min(size, <size_t>260)])}")


cdef class Channel(Ending):
    """`Channel(connection, id)`, made by channel.open."""

    def __init__(self, Connection connection, uint16_t id):
        self.connection = connection
        self.state = connection.state
        self.id = id
        self.ref = self.state.new_ref()
        self.consumers = {}
        self.getters = {}
        self.cancelled = []
        self.last_queue = ""
        self.state.add_channel(self)

    def __dealloc__(self):
        free(self.names)
        if self.message != NULL:
            message_release(self.message)
        ledger_free(&self.unacked)

    def __repr__(self):
        return f"<Channel {self.id} of {self.connection.name}>"

    @property
    def worker(self):
        """What cold methods need: links, settings, directory."""
        return self.connection.worker

    @property
    def unacked_count(self):
        return self.unacked.live

    @property
    def unconfirmed_count(self):
        return self.confirms.unsettled if self.confirming else 0

    # --- publish: frames in

    cdef int on_publish(self, const uint8_t* payload, size_t size) except -1:
        cdef Cursor at
        cdef uint8_t exchange_size, key_size, bits
        cdef const uint8_t* exchange
        cdef const uint8_t* key
        at.at = payload + 6                 # class, method, reserved
        at.end = payload + size
        at.failed = size < 6
        if at.failed:
            at.at = at.end
        exchange_size = cursor_u8(&at)
        exchange = cursor_take(&at, exchange_size)
        key_size = cursor_u8(&at)
        key = cursor_take(&at, key_size)
        bits = cursor_u8(&at)
        if at.failed or cursor_left(&at):
            raise undecodable(payload, size)
        check_utf8(exchange, exchange_size)
        check_utf8(key, key_size)
        if self.names == NULL:
            self.names = <uint8_t*>malloc(2 * KEY_AT)
            if self.names == NULL:
                raise MemoryError
            self.connection.published_on()
            self.exchange_size = 0
            self.exchange_version = 0
        if exchange_size != self.exchange_size or memcmp(exchange, self.names, exchange_size) != 0:
            memcpy(self.names, exchange, exchange_size)
            self.exchange_size = exchange_size
            self.exchange_version = 0
        if key_size != self.key_size or memcmp(key, self.names + KEY_AT, key_size) != 0:
            memcpy(self.names + KEY_AT, key, key_size)
            self.key_size = key_size
            self.queue_version = 0
        self.message_flags = MESSAGE_MANDATORY if bits & PUBLISH_BIT_MANDATORY else 0
        if bits & PUBLISH_BIT_IMMEDIATE:
            self.message_flags |= MESSAGE_IMMEDIATE
        if self.exchange_version != self.state.directory.version:
            self.check_exchange()
        self.expects = EXPECTS_HEADER
        return 0

    cdef int check_exchange(self) except -1:
        """May the user publish to the exchange, and is it there? The verdict holds until the directory changes."""
        cdef str name = (<const char*>self.names)[:self.exchange_size].decode("utf-8")
        cdef Connection connection = self.connection
        self.exchange = None
        self.worker.check_permission(connection, "write", "exchange", name)
        if name:
            self.exchange = connection.vhost.find_exchange(self.names, self.exchange_size)
            if self.exchange is None:
                raise NotFound(f"no exchange '{name}' in vhost '{connection.vhost.name}'")
            if self.exchange.internal:
                raise AccessRefused(f"cannot publish to internal {self.exchange}")
        self.exchange_version = self.state.directory.version
        return 0

    cdef int on_header(self, const uint8_t* payload, size_t size) except -1:
        cdef PropertiesView view
        cdef const uint8_t* properties
        cdef uint32_t properties_size
        cdef uint64_t body_size
        cdef int fault
        if self.expects != EXPECTS_HEADER:
            if self.expects == EXPECTS_BODY:
                raise UnexpectedFrame("expected content body, got non content body frame instead")
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        if size < 14:
            self.connection.failed_method = 0
            raise FrameError(f"{shown_frame(FRAME_HEADER, payload, size, size)}: unknown_frame")
        if load_u16(payload) != CLASS_BASIC:
            raise UnexpectedFrame(f"expected content header for class 60, got one for class {load_u16(payload)} instead")
        if load_u16(payload + 2) != 0:      # weight: RabbitMQ knows no other header than one of weight 0
            raise UnexpectedFrame("expected content header for class 60, got non content header frame instead")
        self.expects = EXPECTS_METHOD       # should anything below be refused
        body_size = load_u64(payload + 4)
        if body_size > self.state.message_size_max:
            raise PreconditionFailed(
                f"message size {body_size} is larger than configured max size {self.state.message_size_max}")
        fault = view_properties(payload + 12, size - 12, &view)
        if fault != PROPERTIES_OK:
            raise properties_error(fault)
        if view.delivery_mode == 2:
            self.message_flags |= MESSAGE_PERSISTENT
        properties = payload + 12
        properties_size = <uint32_t>(size - 12)
        self.further_count = 0
        if view.flags & (HAS_USER_ID | HAS_EXPIRATION | HAS_REPLY_TO | HAS_HEADERS):
            self.apply_properties(properties, properties_size, &view)
            if self.rewritten is not None:
                properties = <const uint8_t*>PyBytes_AS_STRING(self.rewritten)
                properties_size = <uint32_t>PyBytes_GET_SIZE(self.rewritten)
        self.message = message_new(
            self.names, self.exchange_size, self.names + KEY_AT, self.key_size,
            properties, properties_size, <uint32_t>body_size, self.message_flags)
        if self.message == NULL:
            raise MemoryError
        self.filled = 0
        if body_size == 0:
            return self.finish_publish()
        self.expects = EXPECTS_BODY
        return 0

    cdef int apply_properties(self, const uint8_t* properties, size_t size, PropertiesView* view) except -1:
        """The rules for properties that mean something to the broker; leaves `rewritten` and `further_keys`."""
        cdef uint8_t tag
        cdef size_t value_size, at
        self.rewritten = None
        if view.flags & HAS_USER_ID:
            self.check_user_id(view.user_id.data[:view.user_id.size])
        if view.flags & HAS_EXPIRATION and not is_expiration(view.expiration.data, view.expiration.size):
            error = bad_expiration(view.expiration.data[:view.expiration.size])
            if error is not None:       # such as "+5" or "0007…": odd, and a number all the same
                raise error
        if view.flags & HAS_REPLY_TO and view.reply_to.size == REPLY_TO_SIZE and memcmp(view.reply_to.data, REPLY_TO, REPLY_TO_SIZE) == 0:
            if self.reply_consumer is None:
                raise PreconditionFailed("fast reply consumer does not exist")
            at = view.reply_to.data - properties
            self.rewritten = (properties[:at - 1] + bytes([len(self.reply_consumer.reply_name)]) + self.reply_consumer.reply_name
                              + properties[at + REPLY_TO_SIZE:size])
        if view.flags & HAS_HEADERS and (
                find_in_table(view.headers, view.headers_size, "CC", 2, &tag, &value_size) != NULL
                or find_in_table(view.headers, view.headers_size, "BCC", 3, &tag, &value_size) != NULL):
            self.further_keys, self.further_count, self.rewritten = further_keys(
                self.rewritten if self.rewritten is not None else properties[:size])
        return 0

    def check_user_id(self, bytes user_id):
        """user_id is the sender's own name, unless it may speak for others (tag impersonator)."""
        session = self.connection.session
        if user_id != session.user_bytes and not session.impersonator:
            raise PreconditionFailed(
                f"user_id property set to '{user_id.decode('utf-8', 'replace')}' but authenticated user was '{self.connection.user}'")

    cdef int on_body(self, const uint8_t* payload, size_t size) except -1:
        cdef Message* message = self.message
        if self.expects != EXPECTS_BODY:
            if self.expects == EXPECTS_HEADER:
                raise UnexpectedFrame("expected content header for class 60, got non content header frame instead")
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        if size > message.body_size - self.filled:
            raise FrameError("content body frame exceeds remaining content size")
        memcpy(message_body(message) + self.filled, payload, size)
        self.filled += <uint32_t>size
        if self.filled == message.body_size:
            return self.finish_publish()
        return 0

    cdef int finish_publish(self) except -1:
        cdef Message* message = self.message
        self.message = NULL
        self.expects = EXPECTS_METHOD
        self.published += 1
        self.state.published += 1
        try:
            if self.transaction is not None:
                self.transaction.add(message, self.exchange, self.further_keys if self.further_count else None)
            else:
                self.publish(message)
        finally:
            message_release(message)
        if self.connection.flowing:
            self.connection.flow_left -= 1
            if self.connection.flow_left <= 0:
                self.connection.pause(PAUSED_FLOW)
        return 0

    # --- publish: on its way

    cdef int publish(self, Message* message) except -1:
        cdef uint8_t flags = 0
        cdef uint64_t publish_no = 0
        cdef uint32_t open_flags = AWAITS_VERDICT | ROUTED
        cdef bint returnable = message.flags & (MESSAGE_MANDATORY | MESSAGE_IMMEDIATE)
        if self.exchange is None:
            return self.publish_by_default(message)
        self.routed = True
        if returnable or self.tracked():
            flags = PUBLISH_WANTS_VERDICT
            if returnable:
                message_retain(message)
            if message.flags & MESSAGE_IMMEDIATE:
                open_flags |= IMMEDIATE
            publish_no = self.need_confirms().open(0, open_flags, message if returnable else NULL)
        return self.state.router.send_publish(
            self.connection, self.exchange.id, self.ref, publish_no, flags, self.further_keys, self.further_count, message)

    cdef bint tracked(self) noexcept:
        """Whether it matters when a publish has been taken: for a confirm, or for a commit."""
        return self.confirming or self.transaction is not None

    cdef int publish_by_default(self, Message* message) except -1:
        """To the queue that the routing key names."""
        cdef QueueEntry queue
        cdef uint64_t publish_no = 0
        cdef void* found
        cdef bint tracked = self.tracked()
        cdef bint immediate = message.flags & MESSAGE_IMMEDIATE
        if self.further_count:
            return self.publish_to_many(message)
        if self.queue_version != self.state.directory.version:
            found = self.connection.vhost.find_queue(message_routing_key(message), message.routing_key_size)
            self.queue = <QueueEntry>found if found != NULL else None
            self.queue_version = self.state.directory.version
        queue = self.queue
        if queue is None:
            if (message.routing_key_size > REPLY_TO_SIZE and memcmp(message_routing_key(message), REPLY_TO, REPLY_TO_SIZE) == 0
                    and self.state.reply(message_routing_key(message), message.routing_key_size, message)):
                return self.settled_at_once(tracked)    # as in RabbitMQ 4.2, a reply counts as routed even if nobody waits for it
            return self.unroutable(message)
        if queue.local is not None:
            if immediate:
                if not queue.local.offer(message):
                    self.write_return(message, 313, b"NO_CONSUMERS")
            else:
                queue.local.publish(message)
                if (<ShardQueue>queue.local).is_behind():
                    self.connection.slow_down()
            return self.settled_at_once(tracked)
        if immediate:
            message_retain(message)
            publish_no = self.need_confirms().open(<uint64_t>1 << queue.worker, IMMEDIATE, message)
        elif tracked:
            publish_no = self.need_confirms().open(<uint64_t>1 << queue.worker, 0, NULL)
        return (<Neighbour>self.state.workers[queue.worker]).send_enqueue(
            self.connection, queue.id, self.ref, publish_no, ENQUEUE_WANTS_CONFIRM if publish_no else 0, message)

    cdef int settled_at_once(self, bint tracked) except -1:
        if tracked:
            self.need_confirms().open_settled()
            return self.state.poller.want_ending(self)
        return 0

    cdef int publish_to_many(self, Message* message) except -1:
        """By the default exchange to every queue that the routing key, CC or BCC names; once to each."""
        cdef QueueEntry queue
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(self.further_keys)
        cdef void* found = self.connection.vhost.find_queue(message_routing_key(message), message.routing_key_size)
        cdef uint16_t index
        cdef uint64_t workers = 0
        cdef uint64_t publish_no = 0
        cdef bint taken = False
        cdef dict queues = {}
        if found != NULL:
            queues[(<QueueEntry>found).id] = <QueueEntry>found
        for index in range(self.further_count):
            found = self.connection.vhost.find_queue(at + 1, at[0])
            if found != NULL:
                queues[(<QueueEntry>found).id] = <QueueEntry>found
            at += 1 + at[0]
        if not queues:
            return self.unroutable(message)
        for queue in queues.values():
            if queue.local is None:
                workers |= <uint64_t>1 << queue.worker
            elif message.flags & MESSAGE_IMMEDIATE:
                taken |= queue.local.offer(message)
            else:
                queue.local.publish(message)
                taken = True
        if workers == 0:
            if not taken:
                self.write_return(message, 313, b"NO_CONSUMERS")
            return self.settled_at_once(self.tracked())
        if message.flags & MESSAGE_IMMEDIATE:
            message_retain(message)
            publish_no = self.need_confirms().open(workers, IMMEDIATE | (TAKEN if taken else 0), message)
        elif self.tracked():
            publish_no = self.need_confirms().open(workers, 0, NULL)
        for queue in queues.values():
            if queue.local is None:
                # One confirm a worker: the first packet to it asks.
                (<Neighbour>self.state.workers[queue.worker]).send_enqueue(
                    self.connection, queue.id, self.ref, publish_no,
                    ENQUEUE_WANTS_CONFIRM if publish_no and workers >> queue.worker & 1 else 0, message)
                workers &= ~(<uint64_t>1 << queue.worker)
        return 0

    cdef int unroutable(self, Message* message) except -1:
        """Nobody takes it: returned if mandatory, and then confirmed like any other."""
        self.give_back(message)
        return self.settled_at_once(self.tracked())

    cdef int give_back(self, Message* message) except -1:
        """No queue was found for it."""
        if message.flags & MESSAGE_MANDATORY:
            return self.write_return(message, 312, b"NO_ROUTE")
        if message.flags & MESSAGE_IMMEDIATE:
            return self.write_return(message, 313, b"NO_CONSUMERS")
        self.state.dropped += 1
        return 0

    cdef int write_return(self, Message* message, uint16_t code, bytes text) except -1:
        cdef uint8_t text_size = <uint8_t>PyBytes_GET_SIZE(text)
        cdef uint32_t method_size = <uint32_t>9 + text_size + message.exchange_size + message.routing_key_size
        cdef uint32_t frame_max = self.connection.frame_max
        cdef uint8_t* start
        cdef uint8_t* at
        if self.closing or self.connection.closed:
            return 0
        start = self.connection.reserve(
            FRAME_OVERHEAD + method_size + content_size(message.properties_size, message.body_size, frame_max))
        at = start
        store_frame_head(at, FRAME_METHOD, self.id, method_size)
        store_u32(at + 7, METHOD_BASIC_RETURN)
        store_u16(at + 11, code)
        at[13] = text_size
        memcpy(at + 14, PyBytes_AS_STRING(text), text_size)
        at += 14 + text_size
        at[0] = message.exchange_size
        memcpy(at + 1, message_exchange(message), message.exchange_size)
        at += 1 + message.exchange_size
        at[0] = message.routing_key_size
        memcpy(at + 1, message_routing_key(message), message.routing_key_size)
        at += 1 + message.routing_key_size
        at[0] = FRAME_END
        at = store_content_header(at + 1, self.id, CLASS_BASIC, message.body_size, message_properties(message), message.properties_size)
        at = store_body_frames(at, self.id, message_body(message), message.body_size, frame_max)
        self.returned += 1
        self.state.returned += 1
        return self.connection.written(at - start)

    cdef Confirms need_confirms(self):
        if self.confirms is None:
            self.confirms = Confirms()
        return self.confirms

    def select_confirms(self):
        """confirm.select: the next publish is number 1."""
        if not self.confirming:
            self.need_confirms().start()
            self.confirming = True

    cdef int verdict(self, uint64_t publish_no, uint64_t workers) except -1:
        cdef Publish* publish
        if self.confirms is None:
            return 0
        if workers == 0:
            publish = self.confirms.find(publish_no)
            if publish != NULL and publish.returned != NULL:
                self.give_back(publish.returned)
                publish.flags |= TAKEN      # it has been returned: once is enough
            else:
                self.state.dropped += 1
        self.confirms.verdict(publish_no, workers)
        return self.state.poller.want_ending(self)

    cdef int answer(self, uint64_t publish_no, uint64_t worker_bit, bint refused, bint taken) except -1:
        if self.confirms is None:
            return 0
        self.confirms.answer(publish_no, worker_bit, refused, taken)
        return self.state.poller.want_ending(self)

    cdef int at_turn_end(self) except -1:
        """Write the confirms that this turn has brought."""
        cdef size_t index
        cdef uint8_t* at
        cdef Confirms confirms = self.confirms
        cdef uint64_t told
        if confirms is None:
            return 0
        told = confirms.told
        confirms.collect()
        for index in range(confirms.untaken_count):
            self.write_return(confirms.untaken[index], 313, b"NO_CONSUMERS")
            message_release(confirms.untaken[index])
        confirms.untaken_count = 0
        if self.committed is not None and confirms.first > self.commit_through:
            self.finish_commit()
        if not self.confirming or self.closing or self.connection.closed:
            return 0
        for index in range(confirms.answers_count):
            at = self.connection.reserve(FRAME_OVERHEAD + 13)
            store_frame_head(at, FRAME_METHOD, self.id, 13)
            store_u32(at + 7, METHOD_BASIC_NACK if confirms.answers[index].nack else METHOD_BASIC_ACK)
            store_u64(at + 11, confirms.answers[index].tag)
            at[19] = confirms.answers[index].multiple
            at[20] = FRAME_END
            self.connection.written(FRAME_OVERHEAD + 13)
        self.confirmed += confirms.told - told
        self.state.confirmed += confirms.told - told
        return 0

    # --- deliver

    cdef bint has_room(self, uint32_t body_size) noexcept:
        """Whether a delivery may be written now: the socket is not behind, the client has not stopped the flow, the shared prefetch not used up."""
        return (not self.connection.congested and not self.closing and not self.flow_stopped
                and (self.global_prefetch == 0 or self.unacked.live < self.global_prefetch)
                and (self.global_prefetch_bytes == 0 or self.unacked.live == 0
                     or self.unacked_bytes + body_size <= self.global_prefetch_bytes))

    cdef uint64_t next_tag(self, Subscription subscription, uint64_t delivery_no, uint32_t body_size) except 0:
        """The delivery tag for one more message, remembered until it is settled (unless nobody will)."""
        self.last_delivery_tag += 1
        if not subscription.no_ack:
            ledger_append(&self.unacked, self.last_delivery_tag, <void*>subscription, delivery_no, body_size)
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
        cdef Connection connection = self.connection
        cdef Message* kept
        cdef uint64_t tag
        if self.closing or connection.closed:
            return 0    # it comes back to its queue when the channel's consumers are forgotten
        if subscription.owner is not None:
            if self.flow_stopped or (not subscription.no_ack and (self.global_prefetch or self.global_prefetch_bytes)
                                     and (self.parked or not self.has_room(message.body_size))):
                kept = message_from_wire(<uint8_t*>message + MESSAGE_WIRE_OFFSET, message_size(message) - MESSAGE_WIRE_OFFSET)
                if kept == NULL:
                    raise MemoryError
                self.park(subscription, <uint64_t>kept, delivery_no, redelivered)
                return 0
            subscription.spent += credit_cost(message)
        tag = self.next_tag(subscription, delivery_no, message.body_size)
        write_deliver(
            &connection.out, self.id, <const uint8_t*>PyBytes_AS_STRING(subscription.tag), <uint8_t>PyBytes_GET_SIZE(subscription.tag),
            tag, redelivered, message_exchange(message), message.exchange_size, message_routing_key(message), message.routing_key_size,
            message_properties(message), message.properties_size, message_body(message), message.body_size, connection.frame_max)
        if subscription.no_ack:
            self.delivered_no_ack += 1
            self.state.delivered_no_ack += 1
        else:
            self.delivered += 1
            self.state.delivered += 1
        if redelivered:
            self.redelivered += 1
            self.state.redelivered += 1
        connection.written(0)
        if subscription.owner is not None:
            subscription.give_credit()
        return 0

    def park(self, Subscription subscription, uint64_t message, uint64_t delivery_no, bint redelivered):
        """Keep another worker's delivery that the shared prefetch has no room for. Bounded by the credit of the channel's consumers."""
        if self.parked is None:
            self.parked = []
        self.parked.append((subscription, message, delivery_no, redelivered))

    cdef int unpark(self) except -1:
        cdef Message* message
        cdef Subscription subscription
        parked, self.parked = self.parked, None
        while parked:
            subscription, address, delivery_no, redelivered = parked[0]
            message = <Message*><uint64_t>address
            if not self.has_room(message.body_size):
                break
            parked.pop(0)
            try:
                if subscription.handle:
                    self.deliver(subscription, message, delivery_no, redelivered)
            finally:
                message_release(message)
        if parked:
            self.parked = parked
        return 0

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
        self.connection.written(FRAME_OVERHEAD + 5)

    cdef int write_get_ok(self, Subscription subscription, Message* message, uint64_t delivery_no, bint redelivered,
                          uint32_t message_count) except -1:
        cdef uint32_t method_size = <uint32_t>19 + message.exchange_size + message.routing_key_size
        cdef uint32_t frame_max = self.connection.frame_max
        cdef uint64_t tag
        cdef uint8_t* start
        cdef uint8_t* at
        if self.closing or self.connection.closed:
            return 0
        tag = self.next_tag(subscription, delivery_no, message.body_size)
        start = self.connection.reserve(
            FRAME_OVERHEAD + method_size + content_size(message.properties_size, message.body_size, frame_max))
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
        at = store_body_frames(at, self.id, message_body(message), message.body_size, frame_max)
        if subscription.no_ack:
            self.got_no_ack += 1
            self.state.got_no_ack += 1
        else:
            self.got += 1
            self.state.got += 1
        if redelivered:
            self.redelivered += 1
            self.state.redelivered += 1
        return self.connection.written(at - start)

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
            if subscription.cancelled and subscription.unacked_count == 0:
                self.forget_cancelled(subscription)
        return self.settled(count, outcome)

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
        """basic.recover with requeue: everything unacked goes back."""
        self.settle_all(self.last_delivery_tag, SETTLE_REQUEUE)

    def redeliver(self):
        """basic.recover without requeue: everything unacked comes again, to the same consumers, under new tags.

        What came by basic.get, or to a consumer that is cancelled, has nobody to come to and goes back to its queue.
        """
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
        self.commit_through = confirms.next - 1
        if confirms.first > self.commit_through:
            return None
        self.committed = self.state.poller.loop.create_future()
        return self.committed

    def finish_commit(self):
        committed, self.committed = self.committed, None
        if not committed.done():
            committed.set_result(self.confirms.refusals - self.commit_refusals)

    def settle_marked(self):
        """Carry out the acks of the transaction."""
        cdef size_t index
        cdef Slot* slot
        cdef Subscription subscription
        cdef list marked = []
        for index in range(self.unacked.head, self.unacked.tail):
            slot = &self.unacked.slots[index]
            if slot.item != NULL and slot.flags >> SLOT_MARK_SHIFT:
                marked.append((<Subscription>slot.item, slot.number, (slot.flags >> SLOT_MARK_SHIFT) - 1))
                self.erase(slot)
        ledger_tidy(&self.unacked)
        self.transaction.acks = 0
        for subscription, delivery_no, outcome in marked:
            subscription.settle(delivery_no, delivery_no, outcome)
            if subscription.cancelled and subscription.unacked_count == 0 and subscription in self.cancelled:
                self.forget_cancelled(subscription)
            self.settled(1, outcome)

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
        self.flow_stopped = not active
        if active:
            self.drained()

    def set_reply_consumer(self, Subscription subscription):
        """Direct replies come to it."""
        self.reply_consumer = subscription

    def add_consumer(self, Subscription subscription):
        self.consumers[subscription.tag] = subscription

    def remove_consumer(self, Subscription subscription):
        """It gets no more; kept until the last of its unacked messages is settled."""
        self.consumers.pop(subscription.tag, None)
        if subscription is self.reply_consumer:
            self.reply_consumer = None
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
        self.closing = True
        self.expects = EXPECTS_METHOD
        if self.message != NULL:
            message_release(self.message)
            self.message = NULL
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
        if self.transaction is not None:
            self.transaction.clear()
        if self.committed is not None and not self.committed.done():
            self.committed.cancel()
        # First all, then each: or the one's messages would be handed to the next.
        for subscription in holders:
            if subscription.consumer is not None:
                subscription.consumer.deactivate()
        for subscription in holders:
            subscription.forget()
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
            "state": "closing" if self.closing else "flow" if connection.paused & ~2 else "running",
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
