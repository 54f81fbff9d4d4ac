"""Consumers on both sides of a worker's border.

A `Subscription` is a consumer (or the user of basic.get) as its channel sees it. Its queue is on this worker, where a `LocalConsumer` takes
its messages, or on another, where a `RemoteConsumer` does and sends them here. So a queue meets two kinds of `Consumer`, a channel one kind
of subscription, and neither asks where the other is.

Credit. A remote consumer may have CREDIT_WINDOW units under way at most; the subscription gives them back as it writes the messages into
its connection, and stops giving while that connection is congested. So a slow client's messages stay in the queue, not in a link. Prefetch
is apart from that and is kept by the queue.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.link.packets cimport DELIVER_REDELIVERED, PACKET_DELIVER, DeliverPacket
from leveret.queue.consumer cimport Consumer
from leveret.queue.message cimport MESSAGE_WIRE_OFFSET, Message, message_release, message_size
from leveret.queue.ring cimport ENTRY_REDELIVERED, Entry
from leveret.worker.channel cimport Channel
from leveret.worker.neighbour cimport Neighbour

from leveret.worker.reply_to import new_name


cdef class Subscription:
    """`owner`: the neighbour that has the queue, or None when it is here and `take_from` follows. `replies`: no queue, direct replies."""

    def __init__(self, Channel channel, bytes tag, *, uint32_t queue_id, str queue_name, bint no_ack, bint exclusive=False,
                 uint32_t prefetch=0, uint32_t prefetch_bytes=0, dict arguments=None, Neighbour owner=None, bint getter=False,
                 bint replies=False):
        self.channel = channel
        self.tag = tag
        self.queue_id = queue_id
        self.queue_name = queue_name
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = prefetch
        self.prefetch_bytes = prefetch_bytes
        self.arguments = arguments or {}
        self.owner = owner
        self.getter = getter
        if owner is not None or replies:
            self.ref = channel.state.new_ref()
            channel.state.add_subscription(self)
        if replies:
            self.reply_name = new_name(channel.state.index, self.ref)

    def take_from(self, queue):
        """Attach to a queue of this worker. Raises `InExclusiveUse`. Deliveries begin with `start`."""
        consumer = LocalConsumer(self)
        if self.getter:
            queue.add_getter(consumer)
        else:
            queue.add_consumer(consumer)
        self.consumer = consumer

    def start(self):
        """consume-ok has been written: let messages come."""
        if self.consumer is not None:
            self.consumer.activate()
        elif self.handle and self.channel.flow_stopped:
            self.credit_due = True
        elif self.handle:
            self.owner.send_credit(self.handle, CREDIT_WINDOW)

    def go_on(self):
        """The flow was stopped and goes on: tell the queue's worker, if it is another, that its messages may come again."""
        if self.credit_due:
            self.credit_due = False
            self.start()
        elif self.handle and self.owner.link is not None:
            self.owner.link.notify("go_on", {"handle": self.handle})

    def set_prefetch(self, uint32_t prefetch, uint32_t prefetch_bytes):
        self.prefetch = prefetch
        self.prefetch_bytes = prefetch_bytes
        if self.consumer is not None:
            self.consumer.set_prefetch(prefetch, prefetch_bytes)
        elif self.handle and self.owner.link is not None:
            self.owner.link.notify(
                "set_prefetch", {"handle": self.handle, "prefetch": self.prefetch_there(), "prefetch_bytes": prefetch_bytes})

    def prefetch_there(self):
        """The limit that the queue's worker keeps. A limit shared over the channel is kept here; the queue need not send more than it."""
        return min(filter(None, (self.prefetch, self.channel.global_prefetch)), default=0)

    def stop(self):
        """No more deliveries (the queue's worker has been told already, if it is another); what is unacked can still be settled."""
        self.cancelled = True
        if self.consumer is not None and self.consumer.queue is not None:
            self.consumer.queue.cancel_consumer(self.consumer)
        if self.unacked_count == 0:
            self.forget()

    def forget(self):
        """The channel closes: what is unacked goes back to the queue."""
        if self.consumer is not None:
            if self.consumer.queue is not None:
                self.consumer.queue.remove_consumer(self.consumer)
        else:
            self.channel.state.remove_subscription(self.ref)
            if self.handle and self.owner is not None and self.owner.link is not None:
                self.owner.link.notify("detach", {"handles": [self.handle]})
            self.handle = 0

    def lose_owner(self):
        """The worker that had the queue has died, and our unacked messages with it."""
        self.channel.state.remove_subscription(self.ref)
        self.handle = 0

    cdef int settle(self, uint64_t first, uint64_t last, int outcome) except -1:
        if self.consumer is not None:
            # No queue: it was deleted meanwhile, and what was unacked with it.
            if self.consumer.queue is not None:
                self.consumer.queue.settle(self.consumer, first, last, outcome)
            return 0
        if self.handle:
            self.owner.send_settle(self.handle, first, last, outcome)
        return 0

    cdef int give_credit(self) except -1:
        """Give back what was used, in halves of the window, so that credit packets are few."""
        if self.spent >= CREDIT_WINDOW // 2 and self.handle and not self.channel.connection.congested:
            self.owner.send_credit(self.handle, self.spent)
            self.spent = 0
        return 0


cdef class LocalConsumer(Consumer):
    def __init__(self, Subscription subscription):
        super().__init__(
            subscription.tag,
            no_ack=subscription.no_ack,
            exclusive=subscription.exclusive,
            priority=priority_of(subscription.arguments),
            prefetch=subscription.prefetch,
            prefetch_bytes=subscription.prefetch_bytes,
            arguments=subscription.arguments,
        )
        self.subscription = subscription

    cdef bint can_take(self) noexcept:
        return self.active and self.within_prefetch() and self.subscription.channel.has_room(self.queue.offered_bytes, self.no_ack)

    cdef int deliver(self, Message* message, uint64_t delivery_no, bint redelivered) except -1:
        return self.subscription.channel.deliver(self.subscription, message, delivery_no, redelivered)


cdef class RemoteConsumer(Consumer):
    """The consumer, on a queue of this worker, of a client that is on another. `about`: its channel, for `statistics`."""

    def __init__(self, Neighbour client, uint32_t ref, uint32_t handle, bytes tag, about, **properties):
        super().__init__(tag, **properties)
        self.client = client
        self.ref = ref
        self.handle = handle
        self.about = about

    cdef bint can_take(self) noexcept:
        return self.active and not self.held and self.credit > 0 and self.within_prefetch() and self.client.link is not None

    cdef int deliver(self, Message* message, uint64_t delivery_no, bint redelivered) except -1:
        cdef DeliverPacket packet
        self.credit -= credit_cost(message)
        packet.head.type = PACKET_DELIVER
        packet.head.flags = DELIVER_REDELIVERED if redelivered else 0
        packet.head.count = 0
        packet.consumer_ref = self.ref
        packet.reserved = 0
        packet.delivery_no = delivery_no
        return self.client.link.packet_with_message(&packet.head, sizeof(DeliverPacket), message)

    def take(self):
        """basic.get: (delivery number, redelivered, messages left, the message as a packet would carry it), or () when there is none."""
        cdef Entry taken
        cdef uint64_t delivery_no = 0
        cdef Message* message
        if not self.queue.take(self, &delivery_no, &taken):
            return ()
        message = taken.message
        wire = (<uint8_t*>message + MESSAGE_WIRE_OFFSET)[:message_size(message) - MESSAGE_WIRE_OFFSET]
        message_release(message)
        return delivery_no, taken.flags & ENTRY_REDELIVERED != 0, self.queue.ready_count, wire

    def set_held(self, bint held):
        """channel.flow: the client wants nothing for now, or wants it again."""
        self.held = held
        if not held:
            self.ready_again()

    cdef int add_credit(self, uint32_t credit) except -1:
        self.credit += credit
        if not self.active:
            self.activate()
        else:
            self.ready_again()
        return 0


def priority_of(arguments):
    """The consumer's priority out of its arguments (`x-priority`, 0 by default)."""
    return arguments.get("x-priority", 0)
