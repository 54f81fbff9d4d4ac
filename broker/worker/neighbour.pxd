from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.wire cimport Buffer
from leveret.link.link cimport Link
from leveret.link.packets cimport PacketHead
from leveret.link.poller cimport Ending
from leveret.queue.message cimport Message

cdef class Neighbour(Ending)    # before the next lines: the modules name each other
cdef class WorkerLink(Link)

from leveret.worker.connection cimport Connection
from leveret.worker.state cimport WorkerState


cdef class Neighbour(Ending):
    cdef readonly str kind              # "router" or "worker"
    cdef readonly int index
    cdef WorkerState state
    cdef readonly WorkerLink link       # None while it is down
    cdef Buffer held                    # publishes made while it is down
    cdef list waiting                   # connections not read, and senders of dead letters that stop, until the link has room
    # CONFIRMs to it, gathered while they follow each other.
    cdef uint32_t confirm_ref
    cdef uint64_t confirm_first
    cdef uint32_t confirm_count

    cdef int send_publish(self, Connection publisher, uint32_t exchange_id, uint32_t channel_ref, uint64_t publish_no,
                          uint8_t flags, bytes further_keys, uint16_t further_count, Message* message) except -1
    cdef int send_enqueue(self, Connection publisher, uint32_t queue_id, uint32_t channel_ref, uint64_t publish_no,
                          uint8_t flags, Message* message) except -1
    cdef int send_enqueue_many(self, Connection publisher, list queue_ids, uint32_t channel_ref, uint64_t publish_no,
                               uint8_t flags, Message* message) except -1
    cdef int send(self, Connection publisher, PacketHead* head, uint32_t head_size, Message* message) except -1
    cdef int send_confirm(self, uint32_t channel_ref, uint64_t publish_no) except -1
    cdef int send_exception(self, uint8_t flags, uint32_t channel_ref, uint64_t publish_no) except -1
    cdef int flush_confirms(self) except -1
    cdef int write_confirm(self, uint8_t flags, uint32_t channel_ref, uint64_t first, uint32_t count) except -1
    cdef int send_settle(self, uint32_t handle, uint64_t first, uint64_t last, int outcome) except -1
    cdef int send_credit(self, uint32_t handle, uint32_t credit) except -1
    cdef int send_reply(self, uint32_t ref, Message* message) except -1
    cdef int send_slow(self, uint32_t channel_ref) except -1
    cdef int wait(self, Connection publisher) except -1
    cdef bint has_room(self) noexcept
    cdef int drained(self) except -1


cdef class WorkerLink(Link):
    cdef WorkerState state
    cdef Neighbour neighbour            # None until the hello has come, and for management

    cdef int on_enqueue(self, PacketHead* packet, Message* message) except -1
    cdef int on_deliver(self, PacketHead* packet, Message* message) except -1
    cdef int on_settle(self, PacketHead* packet) except -1
    cdef int on_credit(self, PacketHead* packet) except -1
