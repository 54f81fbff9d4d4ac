from libc.stdint cimport uint32_t, uint64_t

from leveret.queue.heap cimport Heap
from leveret.queue.journal cimport Journal
from leveret.queue.message cimport Message
from leveret.queue.ring cimport Entry, Ring
from leveret.queue.rotation cimport Rotation

cdef class Queue                # before the next line: the two modules name each other

from leveret.queue.consumer cimport Consumer

cdef enum:
    PUMP_DELIVERIES_MAX = 1000  # per call of `pump`
    PUMP_RELEASES_MAX = 10000   # purged messages whose memory one call of `pump` gives back
    # Paging: with less than this in the ring, more is read; so consumers do not wait for the disk one message at a time.
    PAGE_IN_BELOW_MESSAGES = 1000
    PAGE_IN_BELOW_BYTES = 1024 * 1024

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

# What a queue looks after beside order; bits of `duties`.
cdef enum:
    KEEPS_TIME = 1              # a message of it may expire
    KEEPS_LIMIT = 2             # x-max-length, x-max-length-bytes
    WATCHES_USE = 4             # x-expires

cdef enum:
    EXPIRIES_MAX = 10000        # per call of `expire`
    OVERFLOW_DROP_HEAD = 0      # the numbers of `leveret.queue.rules.OVERFLOWS`
    OVERFLOW_REJECT_PUBLISH = 1
    OVERFLOW_REJECT_PUBLISH_DLX = 2


cdef class Queue:
    cdef readonly uint32_t id
    cdef readonly str name
    cdef readonly str vhost
    cdef readonly bint durable
    cdef readonly bint auto_delete
    cdef readonly bint exclusive
    cdef readonly dict arguments
    cdef readonly Consumer exclusive_consumer   # None: the queue is open to all
    cdef readonly size_t consumer_count         # without getters and cancelled ones
    cdef readonly bint unfinished               # the last pump stopped at its bound; one more is due

    # Sizes: messages, and bytes of their bodies.
    cdef readonly size_t ready_count
    cdef readonly size_t unacked_count
    cdef readonly uint64_t ready_bytes
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
    cdef readonly uint64_t expired          # these four: dead, whether there is a dead letter exchange or not
    cdef readonly uint64_t dropped          # from the front, for the limit
    cdef readonly uint64_t refused          # for the limit, on their way in
    cdef readonly uint64_t buried           # dead letters that are through

    # Its rules, as numbers; UINT64_MAX: no such limit.
    cdef readonly uint32_t duties
    cdef readonly object rules              # leveret.queue.rules.Rules
    cdef uint64_t message_ttl_ms
    cdef uint64_t expires_ms
    cdef uint64_t max_length
    cdef uint64_t max_length_bytes
    cdef uint32_t overflow
    cdef uint64_t used_ms                   # when it was last used
    cdef uint64_t due_ms                    # `call_at` was told this moment; 0: none
    cdef readonly Consumer dead_letters     # holds what has died until it has arrived; None: what dies is gone

    cdef Ring ring                      # ready, oldest first
    cdef Heap heap                      # ready too, see leveret.queue.heap
    cdef Ring tail                      # ready too, behind what is paged out; empty when nothing is
    cdef Ring purged                    # no longer ours, memory not yet given back
    cdef uint64_t next_position
    cdef readonly Journal journal       # None: everything stays in memory
    cdef readonly bint stores           # persistent messages go into it; else it only serves paging
    cdef readonly size_t paged_count    # of the ready ones: not in memory
    cdef readonly uint64_t paged_bytes
    cdef uint64_t tail_bytes
    cdef uint64_t paged_first           # where they begin; all of them lie behind the ring's last and before the tail's first
    cdef uint64_t paged_last
    cdef readonly uint64_t handed_through   # the highest position ever handed out
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
    cdef int pump(self) except -1
    # Paging.
    cdef int page_out(self, size_t keep, uint64_t keep_bytes) except -1
    cdef int refill(self) except -1
    cdef int join_tail(self) except -1
    # What a subclass fills in.
    cdef int pump_later(self) except -1
    cdef uint64_t now_ms(self) noexcept
    cdef int call_at(self, uint64_t moment_ms) except -1
    cdef int dead_letters_came(self) except -1
    cdef int unused(self) except -1
    # Rules.
    cdef int refuse(self, Message* message) except -1
    cdef uint64_t deadline(self, Message* message) noexcept
    cdef bint is_full(self, uint32_t body_size) noexcept
    cdef int keep_rules(self) except -1
    cdef int expire(self) except -1
    cdef int expire_all(self) except -1
    cdef int lose_head(self, uint32_t death) except -1
    cdef int bury(self, Entry* entry, uint32_t death) except -1
    cdef int reject(self, Consumer consumer, uint64_t first, uint64_t last) except -1
    cdef int watch(self) except -1
    cdef int resend(self, uint64_t first, uint64_t last) except -1
    # From the consumer.
    cdef int consumer_ready(self, Consumer consumer) except -1
    cdef int consumer_blocked(self, Consumer consumer) except -1
    # Inside.
    cdef bint expects_consumer(self)
    cdef Consumer next_consumer(self)
    cdef int hand(self, Consumer consumer, Entry* entry) except -1
    cdef int undo_hand(self, Consumer consumer, uint64_t delivery_no, Entry* entry) except -1
    cdef int pop(self, Entry* entry) except -1
    cdef int put_back(self, Entry* run, size_t count) except -1
    cdef int requeue(self, Consumer consumer, uint64_t first, uint64_t last) except -1
    cdef int redeliver(self, Consumer consumer, uint64_t first, uint64_t last) except -1
    cdef uint32_t next_bytes(self) noexcept
    cdef int settled(self, Consumer consumer, size_t count, uint64_t size) except -1
    cdef int handed(self, uint64_t position) except -1
    cdef int drop(self, Message* message) except -1
    cdef int release_purged(self, size_t count) except -1
    cdef int detach(self, Consumer consumer) except -1
