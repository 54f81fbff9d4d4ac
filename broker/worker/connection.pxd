from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.frames cimport Frame
from leveret.codec.methods cimport Method
from leveret.link.stream cimport Stream
from leveret.queue.message cimport Message

cdef class Connection(Stream)   # before the next lines: the modules name each other

from leveret.worker.channel cimport Channel
from leveret.worker.directory cimport Vhost
from leveret.worker.state cimport WorkerState

# Reasons for not reading (`Stream.paused`).
cdef enum:
    PAUSED_METHOD = 2           # a cold method is under way
    PAUSED_LINK = 4             # a link that it publishes into is full or down
    PAUSED_THROTTLE = 8         # a worker that it publishes to is behind
    PAUSED_ALARM = 16           # an alarm is on
    PAUSED_UNREAD = 64          # the client does not read what it is answered
    PAUSED_FLOW = 32            # it publishes faster than a queue's consumers consume, and has used up this moment's share
    PAUSED_HANDOVER = 128       # it is being handed over to another worker


cdef enum:
    LATE_READ_MAX = 64          # messages and settlements of one read that are worth reading the next one late, see `weigh_read`


cdef class Connection(Stream):
    cdef readonly WorkerState state
    cdef readonly object worker         # leveret.worker.worker.Worker: what cold methods need
    cdef readonly object session        # leveret.worker.session.Session: who the client is, how far the handshake has come
    cdef readonly str name              # "127.0.0.1:41234 -> 127.0.0.1:5672"
    cdef readonly str owner             # unique over the node's life: what exclusive queues are owned by
    cdef readonly Vhost vhost           # None before connection.open
    cdef readonly str user
    cdef readonly bint header_seen      # the protocol header has come
    cdef readonly bint open             # connection.open-ok was sent
    cdef readonly bint closed           # connection.close was sent: all but its answer is passed over
    cdef readonly bint publisher        # has published: what an alarm blocks
    cdef public bint blockable          # the client has declared connection.blocked
    cdef public bint cancel_notify      # the client has declared consumer_cancel_notify
    cdef public uint32_t frame_max      # 0: no limit
    cdef public uint32_t channel_max
    cdef public bint has_exclusive      # the router must hear of its end
    cdef void** channels                # id -> Channel, each with a reference
    cdef size_t channels_size
    cdef readonly int channel_count
    cdef int link_waits                 # links that it waits for
    cdef set throttles                  # workers that are behind
    cdef bint flowing                   # slowed down: publishes are counted
    cdef int flow_left                  # how many more it may make before the next tick
    cdef uint64_t flow_until_ms
    cdef Frame landing_frame            # the body frame whose payload is landing
    cdef uint64_t answer_bytes          # of answers, written since the output was last empty or drained
    cdef uint32_t failed_method         # class id << 16 | method id of the frame being served
    cdef bint lost_sync                 # a malformed frame: what follows cannot be read
    cdef bint parted                    # the client's close has been answered: it closes the socket
    cdef object task                    # the cold method under way
    cdef readonly uint64_t connected_at_ms  # wall clock

    # What it has to do with the queues of other workers, counted for `leveret.worker.handover`: messages published straight into them or
    # delivered from them, one worker after the other.
    cdef int far_worker                 # whose queues the latest ones were of; -1: none yet
    cdef uint32_t far_messages          # of that worker's alone, one after the other
    cdef public uint32_t far_limit      # as many of these are worth a look; 1: every one, and whatever that gains
    cdef uint64_t far_bytes             # of their bodies
    cdef uint64_t far_reads             # `received_count` and `sent_count` when the counting of these began
    cdef uint64_t far_writes
    cdef uint64_t far_total             # of all workers, over its life here, up to the last look
    cdef readonly uint64_t far_workers  # bit i: had to do with a queue of worker i since it came here
    cdef public uint64_t stays_until_ms     # no question of a hand-over before
    cdef public uint64_t far_at_look    # what `far_and_all` said at the last look
    cdef public uint64_t all_at_look
    cdef public int stays               # attempts in a row that found it unquiet or the other worker unwilling
    cdef public int moves               # hand-overs so far
    cdef public bint travelling         # its socket and its state are on the way to another worker, and nothing is written here

    # What the reads bring, for `weigh_read`.
    cdef bint awaited                   # this one: something that somebody waits for
    cdef uint32_t unawaited             # this one: publishes and settlements that nobody waits for
    cdef bint read_late                 # the next one is late
    cdef uint32_t small_reads           # in a row, each soon after the one before
    cdef uint32_t small_reads_due       # as many, and the next is late
    cdef uint32_t late_reads            # in a row
    cdef uint64_t read_at_us

    cdef Channel channel_at(self, uint16_t id)
    cdef int weigh_read(self, bint late, uint64_t size) except -1
    cdef int read_later(self) except -1
    cdef size_t land_body(self, const uint8_t* data, size_t size) except? 0
    cdef int on_landed_frame(self, uint8_t octet) except -1
    cdef int on_frame(self, Frame* frame) except -1
    cdef int on_method(self, Channel channel, Frame* frame) except -1
    cdef int on_cold(self, Channel channel, Frame* frame) except -1
    cdef int on_connection_frame(self, Frame* frame) except -1
    cdef int on_protocol_header(self, const uint8_t* data) except -1
    cdef int on_fault(self, Py_ssize_t fault, const uint8_t* data, size_t size) except -1
    cdef int carry_on(self, Channel channel, object method, object result) except -1
    cdef int answered(self, size_t size) except -1
    cdef int answered_with(self, uint16_t channel_id, Message* message, size_t head_size) except -1
    cdef int write_body(self, uint16_t channel_id, Message* message) except -1
    cdef int send_method(self, uint16_t channel_id, Method method) except -1
    cdef Channel place_channel(self, uint16_t id)
    cdef int weigh_far(self, int worker) except -1
    cdef int published_on(self) except -1
    cdef int slow_down(self) except -1
    cdef bint flow_tick(self) except -1


cdef inline int count_far(Connection connection, int worker, uint32_t body_size) except -1:
    """A message goes straight into, or comes from, a queue of another worker."""
    connection.awaited = True
    connection.far_messages += 1
    connection.far_bytes += body_size
    if connection.far_messages >= connection.far_limit or worker != connection.far_worker:
        return connection.weigh_far(worker)
    return 0
