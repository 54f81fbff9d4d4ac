from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from leveret.queue.consumer cimport Consumer
from leveret.queue.message cimport Message

cdef class Subscription         # before the next lines: the modules name each other
cdef class LocalConsumer(Consumer)
cdef class RemoteConsumer(Consumer)

from leveret.worker.channel cimport Channel
from leveret.worker.neighbour cimport Neighbour

cdef enum:
    CREDIT_WINDOW = 16384       # units under way from another worker: at most 8 MB and one message
    CREDIT_UNIT_BYTES = 512     # a message costs one unit and one more for each of these


cdef inline uint32_t credit_cost(const Message* message) noexcept nogil:
    return 1 + message.body_size // CREDIT_UNIT_BYTES


cdef class Subscription:
    cdef readonly Channel channel
    cdef readonly bytes tag
    cdef readonly bint no_ack
    cdef readonly bint exclusive
    cdef readonly uint32_t prefetch
    cdef readonly uint32_t prefetch_bytes
    cdef readonly dict arguments
    cdef readonly uint32_t queue_id
    cdef readonly str queue_name
    cdef readonly LocalConsumer consumer    # on a queue of this worker
    cdef readonly Neighbour owner           # else: the worker that has it
    cdef readonly uint32_t ref              # how that worker names us
    cdef public uint32_t handle             # how we name our consumer there; 0: not attached (any more)
    cdef readonly bytes reply_name          # the routing key by which direct replies come; None for ordinary consumers
    cdef readonly bint getter               # serves basic.get, not a consumer
    cdef readonly uint32_t unacked_count
    cdef readonly bint cancelled            # by the client; forgotten once nothing of it is unacked
    cdef bint credit_due                    # it came while the flow was stopped and has had no credit yet
    cdef uint32_t parked                    # deliveries that wait in the channel: later ones wait behind them
    cdef uint32_t spent                     # credit used since it was last given
    cdef uint64_t settle_to                 # see Channel.settle_all
    cdef bint in_settle

    cdef int settle(self, uint64_t first, uint64_t last, int outcome) except -1
    cdef int give_credit(self) except -1


cdef class LocalConsumer(Consumer):
    cdef readonly Subscription subscription


cdef class RemoteConsumer(Consumer):
    cdef readonly Neighbour client          # the worker where the client is
    cdef readonly uint32_t ref              # its name for it
    cdef readonly uint32_t handle           # ours
    cdef readonly object about              # what `statistics` shows of the channel
    cdef bint held                          # its channel's flow is stopped
    cdef int64_t credit

    cdef int add_credit(self, uint32_t credit) except -1
