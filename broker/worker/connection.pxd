from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.frames cimport Frame
from leveret.codec.methods cimport Method
from leveret.link.stream cimport Stream

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
    cdef uint64_t answer_bytes          # of answers, written since the output was last empty or drained
    cdef uint32_t failed_method         # class id << 16 | method id of the frame being served
    cdef bint lost_sync                 # a malformed frame: what follows cannot be read
    cdef bint parted                    # the client's close has been answered: it closes the socket
    cdef object task                    # the cold method under way
    cdef readonly uint64_t connected_at_ms  # wall clock

    cdef Channel channel_at(self, uint16_t id)
    cdef int on_frame(self, Frame* frame) except -1
    cdef int on_method(self, Channel channel, Frame* frame) except -1
    cdef int on_cold(self, Channel channel, Frame* frame) except -1
    cdef int on_connection_frame(self, Frame* frame) except -1
    cdef int on_protocol_header(self, const uint8_t* data) except -1
    cdef int on_fault(self, Py_ssize_t fault, const uint8_t* data, size_t size) except -1
    cdef int carry_on(self, Channel channel, object method, object result) except -1
    cdef int answered(self, size_t size) except -1
    cdef int send_method(self, uint16_t channel_id, Method method) except -1
    cdef int published_on(self) except -1
    cdef int slow_down(self) except -1
    cdef bint flow_tick(self) except -1
