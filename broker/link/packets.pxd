"""The packets that processes send each other: one table of fixed layouts, read and written in C.

Version 2. All numbers are little-endian; every packet begins with a `PacketHead`, whose `size` counts the whole packet. Hot packets are the
structs below, followed (where it says so) by a message as `leveret.queue.message` lays it out from `properties_size` on. Everything that is
not hot is a CONTROL packet: a msgpack map (see `leveret.link.link`).

To change a layout: raise `PACKETS_VERSION` (the two ends of a link compare it in their hello and refuse a stranger), change the struct
here, and change its writers and readers, which are the modules that cimport its name. All processes of a node run the same build, so no
old layout is kept.

    who writes                        packet      who reads
    publisher's worker             -> PUBLISH  -> router                matches the exchange's bindings
    router, or publisher's worker  -> ENQUEUE  -> queue's worker        one per worker, with all of its queues
    router                         -> VERDICT  -> publisher's worker    which workers were given it; none: unroutable
    queue's worker                 -> CONFIRM  -> publisher's worker    taken (or refused) by that worker
    queue's worker                 -> DELIVER  -> consumer's worker     at most as many as it has been given CREDIT for
    consumer's worker              -> SETTLE   -> queue's worker        ack, requeue, discard
    consumer's worker              -> CREDIT   -> queue's worker
    router, or queue's worker      -> THROTTLE -> publisher's worker    the channel's target is behind: stop reading it, or slow it down
    router                         -> RELIEVE  -> every worker          that target has caught up

A `channel_ref` names a channel within its own worker, a `consumer_ref` a consumer within the consumer's worker, a `consumer_handle` the
same consumer within the queue's worker. Refs are never reused while packets that carry them may be under way.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PACKETS_VERSION = 2
    WORKERS_MAX = 64            # a verdict's mask of workers is one 64-bit word
    PACKET_SIZE_MAX = 0x28000000   # 640 MiB: the largest message (512 MiB) and its head

cdef enum:
    PACKET_CONTROL = 1
    PACKET_PUBLISH = 2
    PACKET_ENQUEUE = 3
    PACKET_VERDICT = 4
    PACKET_CONFIRM = 5
    PACKET_DELIVER = 6
    PACKET_SETTLE = 7
    PACKET_CREDIT = 8
    PACKET_THROTTLE = 9
    PACKET_RELIEVE = 10

# Flags of a head.
cdef enum:
    PUBLISH_WANTS_VERDICT = 1   # confirm mode, mandatory or immediate: answer with VERDICT
    ENQUEUE_WANTS_CONFIRM = 1   # answer with CONFIRM
    CONFIRM_REFUSED = 1         # the queue's worker would not take it: nack
    CONFIRM_NOT_TAKEN = 2       # an immediate message that no consumer could take at once
    DELIVER_REDELIVERED = 1
    DELIVER_REPLY = 2           # a direct reply: to be checked against the reply consumer's name
    SETTLE_ACK = 0
    SETTLE_REQUEUE = 1
    SETTLE_DISCARD = 2
    SETTLE_REDELIVER = 3        # not settled: delivered to the same consumer once more
    THROTTLE_SLOW = 1           # a queue has more than its consumers keep up with; nobody says when to go on, it wears off

cdef packed struct PacketHead:
    uint32_t size
    uint8_t type
    uint8_t flags
    uint16_t count              # ENQUEUE: number of queue ids; PUBLISH: of further routing keys

cdef packed struct PublishPacket:      # then `head.count` routing keys (CC, BCC), each a size of 1 byte and the key; then the message
    PacketHead head
    uint32_t exchange_id
    uint32_t channel_ref
    uint64_t publish_no         # 1, 2, 3 … per channel

cdef packed struct EnqueuePacket:      # then `head.count` queue ids of 4 bytes, then the message
    PacketHead head
    uint32_t channel_ref
    uint16_t origin             # index of the publisher's worker, to whom the CONFIRM goes
    uint16_t reserved
    uint64_t publish_no

cdef packed struct VerdictPacket:      # for `count` publishes in a row with the same outcome
    PacketHead head
    uint32_t channel_ref
    uint32_t count
    uint64_t first_publish_no
    uint64_t workers            # bit i: worker i was given it and will CONFIRM; 0: unroutable

cdef packed struct ConfirmPacket:      # for `count` publishes in a row
    PacketHead head
    uint32_t channel_ref
    uint32_t count
    uint64_t first_publish_no

cdef packed struct DeliverPacket:      # then the message
    PacketHead head
    uint32_t consumer_ref
    uint32_t reserved
    uint64_t delivery_no        # 1, 2, 3 … per consumer

cdef packed struct SettlePacket:       # everything unacked of the consumer from first to last, both included
    PacketHead head
    uint32_t consumer_handle
    uint32_t reserved
    uint64_t first_delivery_no
    uint64_t last_delivery_no

cdef packed struct CreditPacket:
    PacketHead head
    uint32_t consumer_handle
    uint32_t credit             # this many more may be delivered

cdef packed struct ThrottlePacket:     # RELIEVE too, with channel_ref 0
    PacketHead head
    uint32_t channel_ref
    uint32_t worker             # index of the worker that is behind


cdef inline size_t bytes_before_message(const PacketHead* head) noexcept nogil:
    """Of a packet that carries a message: what lies before it. 0: it carries none, or the head alone does not tell (routing keys)."""
    if head.type == PACKET_ENQUEUE:
        return sizeof(EnqueuePacket) + 4 * <size_t>head.count
    if head.type == PACKET_DELIVER:
        return sizeof(DeliverPacket)
    if head.type == PACKET_PUBLISH and head.count == 0:
        return sizeof(PublishPacket)
    return 0
