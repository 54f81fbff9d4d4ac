from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.link.poller cimport Poller
from leveret.lookup.integer_map cimport IntegerMap
from leveret.queue.message cimport Message
from leveret.queue.queue cimport Queue
from leveret.worker.directory cimport Directory

cdef class WorkerState          # before the next lines: the modules name each other

from leveret.worker.channel cimport Publisher
from leveret.worker.committer cimport Committer
from leveret.worker.connection cimport Connection
from leveret.worker.neighbour cimport Neighbour


cdef enum:
    # A queue with consumers is behind when it holds more than this; its publishers are slowed down.
    BEHIND_MESSAGES = 10000
    BEHIND_BYTES = 32 * 1024 * 1024
    FLOW_TICK_MS = 1
    FLOW_PER_TICK = 250         # publishes that a slowed connection may still make: no fewer than RabbitMQ takes at its best
    FLOW_HOLD_MS = 5            # how long it stays slowed after the last reason for it


cdef class ShardQueue(Queue):
    cdef WorkerState state
    cdef uint64_t slowed_at_ms          # when, and for which channel, a THROTTLE was last sent
    cdef uint32_t slowed_ref
    cdef public object sender           # leveret.worker.dead_letters.DeadLetterSender; None: it has no dead letter exchange
    cdef bint letters_wait              # the sender is to look, in a later turn
    cdef bint cycle_told

    cdef bint is_behind(self) noexcept
    cdef bint closes_cycle(self, Message* message) except -1


cdef class WorkerState:
    cdef readonly int index
    cdef readonly Poller poller
    cdef readonly Directory directory
    cdef readonly Neighbour router
    cdef readonly list workers          # index -> Neighbour (our own place: None)
    cdef readonly Committer committer
    cdef public uint64_t message_size_max
    cdef readonly bint blocked          # an alarm is on: connections that publish are not read

    cdef readonly dict queues           # id -> ShardQueue: this worker's shard
    cdef IntegerMap queue_map           # the same by number, for packets: borrowed pointers
    cdef readonly dict channels         # ref -> Channel
    cdef readonly dict senders          # ref -> DeadLetterSender
    cdef IntegerMap channel_map         # both by number
    cdef readonly dict subscriptions    # ref -> Subscription with messages from another worker
    cdef IntegerMap subscription_map
    cdef readonly dict attached         # handle -> RemoteConsumer
    cdef IntegerMap attached_map
    cdef uint32_t last_ref              # of channels, subscriptions and remote consumers alike
    cdef list unfinished                # queues whose pump stopped at its bound
    cdef bint pump_called
    cdef list with_letters              # queues whose dead letters are to be sent
    cdef bint send_called
    cdef readonly object deadlines      # leveret.worker.deadlines.Deadlines of the queues
    cdef public object on_unused        # called with a queue that its rules (x-expires) delete
    cdef list flowing                   # connections that are slowed down
    cdef readonly dict throttled        # index of a worker that is behind -> set of connections and senders

    # Over the life of the worker, of closed channels too.
    cdef readonly uint64_t published
    cdef readonly uint64_t confirmed
    cdef readonly uint64_t returned
    cdef readonly uint64_t dropped      # unroutable and not mandatory
    cdef readonly uint64_t delivered
    cdef readonly uint64_t delivered_no_ack
    cdef readonly uint64_t redelivered
    cdef readonly uint64_t acked
    cdef readonly uint64_t got
    cdef readonly uint64_t got_no_ack
    cdef readonly uint64_t get_empty
    cdef public uint64_t connections_opened
    cdef public uint64_t connections_closed
    cdef public uint64_t channels_opened
    cdef public uint64_t channels_closed

    cdef uint32_t new_ref(self) noexcept
    cdef void* find_queue(self, uint32_t id) noexcept
    cdef void* find_channel(self, uint32_t ref) noexcept      # a Publisher: a channel, or a sender of dead letters
    cdef void* find_subscription(self, uint32_t ref) noexcept
    cdef void* find_attached(self, uint32_t handle) noexcept
    cdef int pump_later(self, ShardQueue queue) except -1
    cdef int send_letters_later(self, ShardQueue queue) except -1
    cdef int verdict(self, uint32_t channel_ref, uint64_t first, uint32_t count, uint64_t workers) except -1
    cdef int confirm(self, uint32_t channel_ref, uint64_t first, uint32_t count, int worker, uint8_t flags) except -1
    cdef int reply(self, const uint8_t* name, size_t size, Message* message) except -1
    cdef int reply_here(self, uint32_t ref, Message* message) except -1
    cdef int throttle(self, uint32_t channel_ref, int worker) except -1
    cdef int slow_down(self, uint32_t channel_ref) except -1
    cdef int slow_publisher(self, ShardQueue queue, int origin, uint32_t channel_ref) except -1
    cdef int add_flowing(self, Connection connection) except -1
