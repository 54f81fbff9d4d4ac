"""A neighbour: another process of the node as this worker sees it, whether its link is up or not, and the packets that go and come.

Channels and queues hand it publishes, confirms, settles and credit; it writes them into the link. While the link is down, or holds more
than its bound, whoever publishes into it is not read (`wait`); what one more publish needs is held and sent first when the link is back.
Confirms are held too: the router may have handed us a publish of a worker that has only just started and is not linked to us yet. To the
successor of a process that has died they mean nothing, and it knows them by their channel refs. Settles and credit belong to a link and are
dropped with it. It decides nothing about queues or channels.
"""

from array import array

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from leveret.codec.wire cimport buffer_free, buffer_unread, buffer_write
from leveret.link.link cimport Link
from leveret.link.packets cimport (
    CONFIRM_NOT_TAKEN,
    CONFIRM_REFUSED,
    DELIVER_REDELIVERED,
    DELIVER_REPLY,
    ENQUEUE_WANTS_CONFIRM,
    PACKET_CONFIRM,
    PACKET_CREDIT,
    PACKET_DELIVER,
    PACKET_ENQUEUE,
    PACKET_PUBLISH,
    PACKET_RELIEVE,
    PACKET_SETTLE,
    PACKET_THROTTLE,
    PACKET_VERDICT,
    THROTTLE_SLOW,
    ConfirmPacket,
    CreditPacket,
    DeliverPacket,
    EnqueuePacket,
    PacketHead,
    PublishPacket,
    SettlePacket,
    ThrottlePacket,
    VerdictPacket,
)
from leveret.link.stream cimport BY_REFERENCE_MIN
from leveret.queue.message cimport (
    MESSAGE_DIED,
    MESSAGE_IMMEDIATE,
    MESSAGE_SHUNS_CYCLE,
    MESSAGE_WIRE_OFFSET,
    Message,
    message_from_wire,
    message_release,
    message_retain,
    message_size,
)
from leveret.queue.queue cimport PUBLISH_REFUSED, PUBLISH_STORED
from leveret.worker.connection cimport Connection
from leveret.worker.state cimport ShardQueue, WorkerState
from leveret.worker.subscription cimport RemoteConsumer, Subscription

cdef packed struct EnqueueOne:          # an ENQUEUE to a single queue
    EnqueuePacket packet
    uint32_t queue_id


cdef class Neighbour(Ending):
    def __init__(self, WorkerState state, str kind, int index):
        self.state = state
        self.kind = kind
        self.index = index
        self.waiting = []

    def __dealloc__(self):
        buffer_free(&self.held)

    def __str__(self):
        return self.kind if self.kind == "router" else f"{self.kind} {self.index}"

    def link_opened(self, WorkerLink link):
        """The link is up: what was held goes out first."""
        self.link = link
        link.neighbour = self
        if buffer_unread(&self.held):
            link.write(self.held.data + self.held.start, buffer_unread(&self.held))
            buffer_free(&self.held)
        if not link.congested:
            self.drained()

    def link_closed(self):
        self.link = None
        self.confirm_count = 0

    def statistics(self):
        link = self.link
        return {
            "peer": str(self),
            "open": link is not None,
            "backlog_bytes": link.unsent_bytes if link is not None else buffer_unread(&self.held),
            "congested": link is None or link.is_congested,
            "packets_in": link.packets_in if link is not None else 0,
            "packets_out": link.packets_out if link is not None else 0,
            "received_bytes": link.received_bytes if link is not None else 0,
            "sent_bytes": link.sent_bytes if link is not None else 0,
        }

    # --- publishes

    cdef int send_publish(self, Connection publisher, uint32_t exchange_id, uint32_t channel_ref, uint64_t publish_no,
                          uint8_t flags, bytes further_keys, uint16_t further_count, Message* message) except -1:
        cdef PublishPacket packet
        cdef bytes head
        packet.head.type = PACKET_PUBLISH
        packet.head.flags = flags
        packet.head.count = further_count
        packet.exchange_id = exchange_id
        packet.channel_ref = channel_ref
        packet.publish_no = publish_no
        if further_count == 0:
            return self.send(publisher, &packet.head, sizeof(PublishPacket), message)
        head = (<uint8_t*>&packet)[:sizeof(PublishPacket)] + further_keys
        return self.send(publisher, <PacketHead*><uint8_t*>head, <uint32_t>len(head), message)

    cdef int send_enqueue(self, Connection publisher, uint32_t queue_id, uint32_t channel_ref, uint64_t publish_no,
                          uint8_t flags, Message* message) except -1:
        cdef EnqueueOne packet
        packet.packet.head.type = PACKET_ENQUEUE
        packet.packet.head.flags = flags
        packet.packet.head.count = 1
        packet.packet.channel_ref = channel_ref
        packet.packet.origin = self.state.index
        packet.packet.reserved = 0
        packet.packet.publish_no = publish_no
        packet.queue_id = queue_id
        return self.send(publisher, &packet.packet.head, sizeof(EnqueueOne), message)

    cdef int send_enqueue_many(self, Connection publisher, list queue_ids, uint32_t channel_ref, uint64_t publish_no,
                               uint8_t flags, Message* message) except -1:
        """One packet for several queues (at most 65,535), so that one confirm speaks for all of them."""
        cdef EnqueuePacket packet
        cdef bytes head
        packet.head.type = PACKET_ENQUEUE
        packet.head.flags = flags
        packet.head.count = <uint16_t>len(queue_ids)
        packet.channel_ref = channel_ref
        packet.origin = self.state.index
        packet.reserved = 0
        packet.publish_no = publish_no
        head = (<uint8_t*>&packet)[:sizeof(EnqueuePacket)] + array("I", queue_ids).tobytes()
        return self.send(publisher, <PacketHead*><uint8_t*>head, <uint32_t>len(head), message)

    cdef int send(self, Connection publisher, PacketHead* head, uint32_t head_size, Message* message) except -1:
        if self.link is None:
            head.size = head_size + <uint32_t>(message_size(message) - MESSAGE_WIRE_OFFSET)
            buffer_write(&self.held, head, head_size)
            buffer_write(&self.held, <uint8_t*>message + MESSAGE_WIRE_OFFSET, head.size - head_size)
            return self.wait(publisher)
        self.link.packet_with_message(head, head_size, message)
        if self.link is not None and self.link.congested:
            return self.wait(publisher)
        return 0

    cdef int wait(self, Connection publisher) except -1:
        if publisher is None:       # dead letters, whose sender looks at the link itself
            return 0
        self.waiting.append(publisher)
        return publisher.wait_for_link()

    cdef bint has_room(self) noexcept:
        return self.link is not None and not self.link.congested

    def call_when_roomy(self, publisher):
        """Call its `link_has_room` once there is room."""
        if publisher not in self.waiting:
            self.waiting.append(publisher)

    cdef int drained(self) except -1:
        waiting, self.waiting = self.waiting, []
        for publisher in waiting:
            publisher.link_has_room()
        return 0

    # --- confirms

    cdef int send_confirm(self, uint32_t channel_ref, uint64_t publish_no) except -1:
        if self.confirm_count:
            if channel_ref == self.confirm_ref and publish_no == self.confirm_first + self.confirm_count:
                self.confirm_count += 1
                return 0
            self.flush_confirms()
        self.confirm_ref = channel_ref
        self.confirm_first = publish_no
        self.confirm_count = 1
        return self.state.poller.want_ending(self)

    cdef int send_exception(self, uint8_t flags, uint32_t channel_ref, uint64_t publish_no) except -1:
        """CONFIRM_NOT_TAKEN: an immediate message that no consumer of ours could take at once; CONFIRM_REFUSED: a queue is full."""
        self.flush_confirms()
        return self.write_confirm(flags, channel_ref, publish_no, 1)

    cdef int flush_confirms(self) except -1:
        cdef uint32_t count = self.confirm_count
        self.confirm_count = 0
        return self.write_confirm(0, self.confirm_ref, self.confirm_first, count) if count else 0

    cdef int write_confirm(self, uint8_t flags, uint32_t channel_ref, uint64_t first, uint32_t count) except -1:
        cdef ConfirmPacket packet
        packet.head.size = sizeof(ConfirmPacket)
        packet.head.type = PACKET_CONFIRM
        packet.head.flags = flags
        packet.head.count = 0
        packet.channel_ref = channel_ref
        packet.count = count
        packet.first_publish_no = first
        if self.link is None:
            return buffer_write(&self.held, &packet, sizeof(ConfirmPacket))
        memcpy(self.link.packet(PACKET_CONFIRM, flags, sizeof(ConfirmPacket)), &packet, sizeof(ConfirmPacket))
        return self.link.written(sizeof(ConfirmPacket))

    cdef int at_turn_end(self) except -1:
        return self.flush_confirms()

    # --- consumers

    cdef int send_settle(self, uint32_t handle, uint64_t first, uint64_t last, int outcome) except -1:
        cdef SettlePacket* packet
        if self.link is None:
            return 0
        packet = <SettlePacket*>self.link.packet(PACKET_SETTLE, <uint8_t>outcome, sizeof(SettlePacket))
        packet.consumer_handle = handle
        packet.reserved = 0
        packet.first_delivery_no = first
        packet.last_delivery_no = last
        return self.link.written(sizeof(SettlePacket))

    cdef int send_credit(self, uint32_t handle, uint32_t credit) except -1:
        cdef CreditPacket* packet
        if self.link is None:
            return 0
        packet = <CreditPacket*>self.link.packet(PACKET_CREDIT, 0, sizeof(CreditPacket))
        packet.consumer_handle = handle
        packet.credit = credit
        return self.link.written(sizeof(CreditPacket))

    cdef int send_reply(self, uint32_t ref, Message* message) except -1:
        """A direct reply for a requester there; dropped while the worker is down, as its requester is gone with it."""
        cdef DeliverPacket packet
        if self.link is None:
            return 0
        packet.head.type = PACKET_DELIVER
        packet.head.flags = DELIVER_REPLY
        packet.head.count = 0
        packet.consumer_ref = ref
        packet.reserved = 0
        packet.delivery_no = 0
        return self.link.packet_with_message(&packet.head, sizeof(DeliverPacket), message)

    cdef int send_slow(self, uint32_t channel_ref) except -1:
        """Its channel publishes into a queue of ours that is behind."""
        cdef ThrottlePacket* packet
        if self.link is None:
            return 0
        packet = <ThrottlePacket*>self.link.packet(PACKET_THROTTLE, THROTTLE_SLOW, sizeof(ThrottlePacket))
        packet.channel_ref = channel_ref
        packet.worker = self.state.index
        return self.link.written(sizeof(ThrottlePacket))


cdef class WorkerLink(Link):
    """A link of a worker: to the router, to another worker, or from management (which sends no hot packets)."""

    def __init__(self, WorkerState state, poller, sock, hello, receiver):
        self.state = state
        super().__init__(poller, sock, hello, receiver)

    cdef int on_drained(self) except -1:
        if self.neighbour is not None:
            self.neighbour.drained()
        return 0

    cdef int on_packet(self, PacketHead* packet, Message* message) except -1:
        cdef VerdictPacket* verdict
        cdef ConfirmPacket* confirm
        cdef ThrottlePacket* throttle
        if packet.type == PACKET_ENQUEUE:
            return self.on_enqueue(packet, message)
        if packet.type == PACKET_DELIVER:
            return self.on_deliver(packet, message)
        if packet.type == PACKET_SETTLE:
            return self.on_settle(packet)
        if packet.type == PACKET_CREDIT:
            return self.on_credit(packet)
        if packet.type == PACKET_VERDICT:
            verdict = <VerdictPacket*>packet
            return self.state.verdict(verdict.channel_ref, verdict.first_publish_no, verdict.count, verdict.workers)
        if packet.type == PACKET_CONFIRM:
            confirm = <ConfirmPacket*>packet
            return self.state.confirm(confirm.channel_ref, confirm.first_publish_no, confirm.count, self.peer.index, packet.flags)
        throttle = <ThrottlePacket*>packet
        if packet.type == PACKET_THROTTLE:
            if packet.flags & THROTTLE_SLOW:
                return self.state.slow_down(throttle.channel_ref)
            return self.state.throttle(throttle.channel_ref, throttle.worker)
        if packet.type == PACKET_RELIEVE:
            self.state.relieve(throttle.worker)
            return 0
        return self.close(f"packet type {packet.type} is not expected here")

    cdef int on_enqueue(self, PacketHead* packet, Message* message) except -1:
        cdef EnqueuePacket* enqueue = <EnqueuePacket*>packet
        cdef uint8_t* ids = <uint8_t*>packet + sizeof(EnqueuePacket)
        cdef size_t head_size = sizeof(EnqueuePacket) + 4 * <size_t>packet.count
        cdef uint32_t queue_id
        cdef uint16_t index
        cdef void* found
        cdef int answer
        cdef bint taken = False
        cdef bint stored = False
        cdef bint refused = False
        cdef uint8_t flags = 0
        cdef Neighbour origin
        if packet.size < head_size:
            return self.close("an enqueue packet is shorter than its head")
        if message == NULL:
            message = message_from_wire(<uint8_t*>packet + head_size, packet.size - head_size)
        else:
            message_retain(message)
        if message == NULL:
            return self.close("an enqueue packet's message does not fit its size, or memory is out")
        try:
            for index in range(packet.count):
                memcpy(&queue_id, ids + 4 * index, 4)
                # A queue that is not there was deleted while the packet was under way: its messages are gone with it, and confirmed.
                found = self.state.find_queue(queue_id)
                if found == NULL:
                    continue
                if message.flags & (MESSAGE_IMMEDIATE | MESSAGE_DIED):
                    if message.flags & MESSAGE_IMMEDIATE:
                        answer = (<ShardQueue>found).offer(message)
                        taken |= answer > 0
                        stored |= answer > 1
                    elif not (message.flags & MESSAGE_SHUNS_CYCLE and (<ShardQueue>found).closes_cycle(message)):
                        # A dead letter that a full queue refuses is lost, as in RabbitMQ.
                        stored |= (<ShardQueue>found).publish(message) & PUBLISH_STORED
                else:
                    answer = (<ShardQueue>found).publish(message)
                    stored |= answer & PUBLISH_STORED
                    refused |= answer & PUBLISH_REFUSED
                    if (<ShardQueue>found).is_behind():
                        self.state.slow_publisher(<ShardQueue>found, enqueue.origin, enqueue.channel_ref)
            if message.flags & MESSAGE_IMMEDIATE and not taken:
                flags = CONFIRM_NOT_TAKEN
            elif refused:
                flags = CONFIRM_REFUSED
        finally:
            message_release(message)
        if packet.flags & ENQUEUE_WANTS_CONFIRM:
            if stored and not flags:
                self.state.committer.wait_for(enqueue.origin, enqueue.channel_ref, enqueue.publish_no)
            elif enqueue.origin == self.state.index:
                self.state.confirm(enqueue.channel_ref, enqueue.publish_no, 1, self.state.index, flags)
            elif enqueue.origin < len(self.state.workers):
                origin = <Neighbour>self.state.workers[enqueue.origin]
                if flags:
                    origin.send_exception(flags, enqueue.channel_ref, enqueue.publish_no)
                else:
                    origin.send_confirm(enqueue.channel_ref, enqueue.publish_no)
        return 0

    cdef int on_deliver(self, PacketHead* packet, Message* message) except -1:
        cdef DeliverPacket* deliver = <DeliverPacket*>packet
        cdef void* found = self.state.find_subscription(deliver.consumer_ref)
        cdef Subscription subscription
        if found == NULL:
            return 0  # its channel is closed; the owner will hear of it and take the message back
        if message == NULL:
            # The packet's bytes are a message from `properties_size` on; what lies before is never looked at.
            message = <Message*>(<uint8_t*>packet + sizeof(DeliverPacket) - MESSAGE_WIRE_OFFSET)
            if message.body_size >= BY_REFERENCE_MIN:
                # The channel will hold it, so it must be a block of its own.
                message = message_from_wire(<uint8_t*>message + MESSAGE_WIRE_OFFSET, packet.size - sizeof(DeliverPacket))
                if message == NULL:
                    return self.close("a deliver packet's message does not fit its size, or memory is out")
                try:
                    return self.on_deliver(packet, message)
                finally:
                    message_release(message)
        if packet.flags & DELIVER_REPLY:
            return self.state.reply_here(deliver.consumer_ref, message)
        subscription = <Subscription>found
        return subscription.channel.deliver(subscription, message, deliver.delivery_no, packet.flags & DELIVER_REDELIVERED)

    cdef int on_settle(self, PacketHead* packet) except -1:
        cdef SettlePacket* settle = <SettlePacket*>packet
        cdef void* found = self.state.find_attached(settle.consumer_handle)
        cdef RemoteConsumer consumer
        if found == NULL:
            return 0
        consumer = <RemoteConsumer>found
        if consumer.queue is not None:
            consumer.queue.settle(consumer, settle.first_delivery_no, settle.last_delivery_no, packet.flags)
        return 0

    cdef int on_credit(self, PacketHead* packet) except -1:
        cdef CreditPacket* credit = <CreditPacket*>packet
        cdef void* found = self.state.find_attached(credit.consumer_handle)
        if found != NULL:
            (<RemoteConsumer>found).add_credit(credit.credit)
        return 0
