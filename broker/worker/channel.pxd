from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.properties cimport PropertiesView
from leveret.link.poller cimport Ending
from leveret.queue.ledger cimport Ledger, Slot
from leveret.queue.message cimport Message
from leveret.worker.confirms cimport Confirms
from leveret.worker.directory cimport ExchangeEntry, QueueEntry
from leveret.worker.transaction cimport Transaction

cdef class Publisher(Ending)    # before the next lines: the modules name each other
cdef class Channel(Publisher)

from leveret.worker.connection cimport Connection
from leveret.worker.state cimport WorkerState
from leveret.worker.subscription cimport Subscription

cdef enum:
    CLASS_BASIC = 60

# What a channel waits for.
cdef enum:
    EXPECTS_METHOD = 0
    EXPECTS_HEADER = 1
    EXPECTS_BODY = 2


cdef class Publisher(Ending):
    cdef readonly Connection connection
    cdef WorkerState state
    cdef readonly uint16_t id
    cdef readonly uint32_t ref
    cdef readonly bint closing          # channel.close was sent: all but its answer is passed over
    cdef int expects

    # The publish under way: what basic.publish said, then the message being filled.
    cdef uint8_t* names                 # 512 bytes: exchange, then routing key at 256; NULL until the first publish
    cdef uint8_t exchange_size
    cdef uint8_t key_size
    cdef uint16_t message_flags
    cdef Message* message
    cdef uint32_t filled                # body bytes of it that have come
    cdef uint32_t method_size           # payloads of its frames
    cdef uint32_t header_size

    # What was found out for the last publish, good for as long as the directory is unchanged.
    cdef ExchangeEntry exchange         # None: the default exchange
    cdef uint64_t exchange_version
    cdef QueueEntry queue               # where the last routing key leads by the default exchange
    cdef uint64_t queue_version

    cdef bytes rewritten                # the properties of the message being filled, if they are not the publisher's own
    cdef bytes further_keys             # its routing keys from CC and BCC, each a size of 1 byte and the key
    cdef uint16_t further_count

    cdef readonly Transaction transaction   # None unless the channel is transactional
    cdef object committed               # Future: a commit waits for what it has published
    cdef uint64_t commit_through        # the last of that, as `Confirms` counts
    cdef uint64_t commit_refusals       # `Confirms.refusals` when it began

    cdef readonly bint confirming
    cdef readonly Confirms confirms     # None until one is needed
    cdef readonly bint routed           # something went through the router since the last barrier
    cdef bytes reply_name               # what stands for "amq.rabbitmq.reply-to" in this channel's requests; None: nobody waits for replies

    cdef readonly uint64_t published
    cdef readonly uint64_t confirmed
    cdef readonly uint64_t returned

    # Frames in.
    cdef int on_publish(self, const uint8_t* payload, size_t size) except -1
    cdef int on_header(self, const uint8_t* payload, size_t size) except -1
    cdef int on_body(self, const uint8_t* payload, size_t size) except -1
    # Publishing.
    cdef int check_exchange(self) except -1
    cdef int apply_properties(self, const uint8_t* properties, size_t size, PropertiesView* view) except -1
    cdef int publish_to_many(self, Message* message) except -1
    cdef bint tracked(self) noexcept
    cdef int finish_publish(self) except -1
    cdef int publish(self, Message* message) except -1
    cdef int publish_by_default(self, Message* message) except -1
    cdef int unroutable(self, Message* message) except -1
    cdef int give_back(self, Message* message) except -1
    cdef int settled_at_once(self, bint tracked) except -1
    cdef int settled_by_commit(self) except -1
    cdef int refused_at_once(self, bint tracked) except -1
    cdef int write_return(self, Message* message, uint16_t code, bytes text) except -1
    cdef int verdict(self, uint64_t publish_no, uint64_t workers) except -1
    cdef int answer(self, uint64_t publish_no, uint64_t worker_bit, bint refused, bint taken) except -1
    cdef Confirms need_confirms(self)
    cdef int drop_publish(self) except -1
    # Back-pressure.
    cdef int throttle(self, int worker) except -1
    cdef int slow_down(self) except -1


# Flags of a slot of the ledger: size of the body, and above it what a transaction will do with the message (0: nothing).
cdef enum:
    SLOT_SIZE_MASK = 0x3FFFFFFF
    SLOT_MARK_SHIFT = 30


cdef class Channel(Publisher):
    cdef uint64_t last_delivery_tag
    # Delivery tag -> Subscription (item, with a reference), delivery number (number), size and mark (flags).
    cdef Ledger unacked
    cdef uint64_t unacked_bytes         # of bodies
    cdef readonly uint32_t prefetch     # of each consumer, in messages and in bytes of bodies; 0: no limit
    cdef readonly uint32_t prefetch_bytes
    cdef readonly uint32_t global_prefetch  # of all consumers together
    cdef readonly uint32_t global_prefetch_bytes
    cdef readonly bint flow_stopped     # channel.flow: the client wants no deliveries
    cdef readonly Subscription reply_consumer   # of direct replies; None: there is none
    cdef readonly dict consumers        # tag -> Subscription
    cdef readonly dict getters          # (queue id, no_ack) -> Subscription
    cdef readonly list cancelled        # Subscriptions that still hold unacked messages
    cdef object parked                  # deque of deliveries from other workers that wait for room, or for the flow; None: none
    cdef readonly set settled_elsewhere     # Neighbours that have had acks of the last commit
    cdef public str last_queue          # the last one declared here

    cdef readonly uint64_t delivered
    cdef readonly uint64_t delivered_no_ack
    cdef readonly uint64_t redelivered
    cdef readonly uint64_t acked
    cdef readonly uint64_t got
    cdef readonly uint64_t got_no_ack
    cdef readonly uint64_t get_empty

    # Frames in.
    cdef int on_ack(self, const uint8_t* payload, size_t size) except -1
    cdef int on_reject(self, const uint8_t* payload, size_t size) except -1
    cdef int on_nack(self, const uint8_t* payload, size_t size) except -1
    cdef bint on_get(self, const uint8_t* payload, size_t size) except -1
    # Delivering.
    cdef bint has_room(self, uint32_t body_size, bint no_ack) noexcept
    cdef int deliver(self, Subscription subscription, Message* message, uint64_t delivery_no, bint redelivered) except -1
    cdef int write_delivery(self, Subscription subscription, Message* message, uint64_t delivery_no, bint redelivered) except -1
    cdef int write_get_ok(self, Subscription subscription, Message* message, uint64_t delivery_no, bint redelivered,
                          uint32_t message_count) except -1
    cdef uint64_t next_tag(self, Subscription subscription, uint64_t delivery_no, uint32_t body_size) except 0
    cdef int erase(self, Slot* slot) except -1
    cdef int unpark(self) except -1
    cdef int drained(self) except -1
    # Settling.
    cdef int settle(self, uint64_t tag, bint multiple, int outcome) except -1
    cdef int settle_all(self, uint64_t tag, int outcome) except -1
    cdef int mark(self, uint64_t tag, bint multiple, int outcome) except -1
    cdef list take_runs(self, bint marked)
    cdef int settle_runs(self, list runs) except -1
    cdef int note_settled(self, Subscription subscription) except -1
    cdef int settled(self, size_t count, int outcome) except -1
