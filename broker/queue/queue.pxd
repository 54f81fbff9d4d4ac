from libc.stdint cimport uint32_t, uint64_t

from leveret.queue.message cimport Message
from leveret.queue.ring cimport Entry
from leveret.queue.rotation cimport Rotation
from leveret.queue.ruled_backlog cimport RuledBacklog

cdef class Queue(RuledBacklog)  # before the next line: the two modules name each other

from leveret.queue.consumer cimport Consumer

cdef enum:
    PUMP_DELIVERIES_MAX = 1000  # per call of `pump`
    PUMP_RELEASES_MAX = 10000   # purged messages whose memory one call of `pump` gives back

# Outcomes of a settle; the packets' numbers.
cdef enum:
    SETTLE_ACK = 0
    SETTLE_REQUEUE = 1
    SETTLE_DISCARD = 2
    SETTLE_REDELIVER = 3        # settles nothing: the same consumer gets them once more
    SETTLE_BURIED = 4           # within a worker only: dead letters that have arrived, or have nowhere to go

# What `publish` answers; bits.
cdef enum:
    PUBLISH_STORED = 1          # the journal has it now
    PUBLISH_REFUSED = 2         # the queue is full and takes no more (x-overflow)


cdef class Queue(RuledBacklog):
    cdef readonly uint32_t id
    cdef readonly str name
    cdef readonly str vhost
    cdef readonly bint durable
    cdef readonly bint auto_delete
    cdef readonly bint exclusive
    cdef readonly dict arguments
    cdef readonly Consumer exclusive_consumer   # None: the queue is open to all

    # Held by consumers and getters, or dead and on its way: messages, and bytes of their bodies.
    cdef readonly size_t unacked_count
    cdef readonly uint64_t unacked_bytes

    # Counters since the queue was made.
    cdef readonly uint64_t published
    cdef readonly uint64_t delivered
    cdef readonly uint64_t delivered_no_ack
    cdef readonly uint64_t got
    cdef readonly uint64_t got_no_ack
    cdef readonly uint64_t redelivered
    cdef readonly uint64_t acked
    cdef readonly uint64_t requeued
    cdef readonly uint64_t discarded
    cdef readonly uint64_t get_empty
    cdef readonly uint64_t buried           # dead letters that are through

    cdef readonly Consumer dead_letters     # holds what has died until it has arrived; None: what dies is gone

    cdef bint marked                    # the journal knows that it has moved
    cdef Rotation rotation
    cdef uint32_t offered_bytes         # body of the message that consumers are asked about: `within_prefetch` looks at it
    cdef dict attached                  # Consumer -> None, in order of arrival: everybody who holds, or may hold, messages of ours
    cdef bint handing                   # within a consumer's `deliver`

    # The hot path.
    cdef int publish(self, Message* message) except -1
    cdef int offer(self, Message* message) except -1
    cdef int settle(self, Consumer consumer, uint64_t first, uint64_t last, int outcome) except -1
    cdef int take(self, Consumer getter, uint64_t* delivery_no, Entry* entry) except -1
    # Dead letters; the first is for a subclass to fill in.
    cdef int dead_letters_came(self) except -1
    cdef int reject(self, Consumer consumer, uint64_t first, uint64_t last) except -1
    cdef int resend(self, uint64_t first, uint64_t last) except -1
    # From the consumer.
    cdef int consumer_ready(self, Consumer consumer) except -1
    cdef int consumer_blocked(self, Consumer consumer) except -1
    # Inside.
    cdef bint expects_consumer(self)
    cdef Consumer next_consumer(self)
    cdef int hand(self, Consumer consumer, Entry* entry) except -1
    cdef int undo_hand(self, Consumer consumer, uint64_t delivery_no, Entry* entry) except -1
    cdef int requeue(self, Consumer consumer, uint64_t first, uint64_t last) except -1
    cdef int redeliver(self, Consumer consumer, uint64_t first, uint64_t last) except -1
    cdef int settled(self, Consumer consumer, size_t count, uint64_t size) except -1
    cdef int handed(self, uint64_t position) except -1
    cdef int detach(self, Consumer consumer) except -1
