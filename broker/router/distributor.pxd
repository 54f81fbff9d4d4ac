from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.codec.wire cimport Buffer
from leveret.link.link cimport Link
from leveret.link.packets cimport PacketHead, PublishPacket
from leveret.link.poller cimport Ending, Poller
from leveret.lookup.byte_map cimport ByteMap
from leveret.lookup.integer_map cimport IntegerMap
from leveret.queue.message cimport Message
from leveret.router.exchanges.exchange cimport Destinations, Subject
from leveret.router.graph cimport ExchangeGraph

cdef struct Group:                  # one worker's part of a route
    uint32_t worker
    uint32_t count
    uint32_t* queue_ids             # within the route's block

cdef struct Route:                  # one block: this, the groups, the queue ids
    uint64_t workers                # mask of the groups' workers
    size_t size                     # of the block
    uint32_t queue_count
    uint32_t group_count
    Group* groups


cdef struct Wire:                   # a message as a packet carries it
    const uint8_t* data
    uint32_t size
    Message* message                # the block that holds it; NULL: it lies in a link's input and must be copied


cdef class Source:
    """What the distributor keeps of an exchange that is published to."""
    cdef uint32_t id
    cdef ByteMap memo               # routing key -> Route*
    cdef size_t memo_bytes
    cdef uint64_t publish_in
    cdef uint64_t publish_out


cdef class Outlet(Ending):
    cdef Distributor distributor
    cdef readonly uint32_t index
    cdef readonly RouterLink link   # None while the worker is down
    cdef Buffer held                # written while it was down
    cdef bint behind                # so much waits for it that whoever publishes to it shall not be read
    cdef IntegerMap told            # origin + 1 << 32 | channel ref: has been sent a THROTTLE for this worker
    cdef uint64_t stopped           # mask of workers whose links are not read because of this one
    cdef uint64_t stopped_by        # mask of outlets because of which this worker's link is not read
    cdef uint32_t verdict_ref
    cdef uint32_t verdict_count
    cdef uint64_t verdict_first
    cdef uint64_t verdict_workers

    cdef size_t backlog(self) noexcept
    cdef int enqueue(
        self, const Group* group, const PublishPacket* packet, const Wire* wire, uint16_t origin,
    ) except -1
    cdef int enqueue_some(
        self, const uint32_t* ids, uint16_t count, uint8_t flags, const PublishPacket* packet, const Wire* wire, uint16_t origin,
    ) except -1
    cdef int check_backlog(self, Outlet origin, uint32_t channel_ref) except -1
    cdef int relieve(self) except -1
    cdef int verdict(self, uint32_t channel_ref, uint64_t publish_no, uint64_t workers) except -1
    cdef int flush_verdicts(self) except -1


cdef class RouterLink(Link):
    cdef Distributor distributor
    cdef Outlet outlet              # of the worker at the other end, once `Distributor.link_worker` has been called


cdef class Distributor:
    cdef Poller poller
    cdef readonly ExchangeGraph graph
    cdef readonly list outlets      # by the worker's index
    cdef void** outlet_array        # the same, borrowed
    cdef dict sources               # exchange id -> Source
    cdef IntegerMap source_map      # the same, borrowed
    cdef IntegerMap queue_workers   # queue id -> worker + 1
    cdef Destinations reached
    cdef size_t memo_entries
    cdef size_t memo_bytes
    cdef size_t memo_entries_max
    cdef size_t memo_bytes_max
    cdef size_t backlog_high        # of a worker that is down
    cdef size_t backlog_max
    cdef uint64_t memo_hits
    cdef uint64_t memo_misses
    cdef uint64_t unroutable

    cdef int publish(self, Outlet origin, const PublishPacket* packet, const Wire* wire, const Subject* subject) except -1
    cdef Route* find_route(self, Source source, const Subject* subject, bint* kept) except? NULL
    cdef int forget(self, Source source) except -1
