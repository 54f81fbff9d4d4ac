"""The distributor: publishes come in from workers' links, and go out to the workers that hold the queues they are routed to.

It owns the hot half of the router: for every exchange a memo of routing key -> prepared route, for every worker an outlet with its link,
its backlog and the verdicts for its publishers. A message is copied once per worker, from the input bytes of one link to the output of
another; no Python object is made for it. Everything is handed on within the turn in which it came, in the order in which it came. The
topology tells it which exchanges, alternates and queues there are and which routes have changed
(`leveret.router.topology.RoutingChanges`); it never changes the topology itself, and knows no names.

Memo. A route depends on the exchange and the key alone, unless a headers exchange is reached, in which case it is worked out each time.
Entries and bytes are bounded; when either bound is passed everything is forgotten at once, since a key that comes back is cheap to route
again and keys that never come back are not worth a list of the oldest.

Back-pressure. When a worker does not take its packets as fast as they come its link is congested: every channel that then publishes to it
gets a THROTTLE, once, and its worker stops reading that client. When the backlog has drained, a RELIEVE goes to all workers. What is under
way by then may still grow the backlog; beyond `backlog_max` the links of the workers that go on sending are not read until it has drained.

A worker that is down. What it had not confirmed is lost: after all verdicts that named it, a `worker_down` notice tells the others to nack
that, and what was still waiting in its link's output is dropped with the link. What is published to its queues from then on is held,
within the same bounds, and is the first thing it gets after its replica of the topology when it is back; confirms wait that long.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from leveret.codec.wire cimport buffer_free, buffer_reserve, buffer_unread
from leveret.link.link cimport Link
from leveret.link.packets cimport (
    ENQUEUE_WANTS_CONFIRM,
    PACKET_ENQUEUE,
    PACKET_PUBLISH,
    PACKET_RELIEVE,
    PACKET_THROTTLE,
    PACKET_VERDICT,
    PUBLISH_WANTS_VERDICT,
    WORKERS_MAX,
    EnqueuePacket,
    PacketHead,
    PublishPacket,
    ThrottlePacket,
    VerdictPacket,
)
from leveret.link.poller cimport Ending, Poller
from leveret.link.stream cimport BY_REFERENCE_MIN, unsent
from leveret.lookup.byte_map cimport byte_map_find, byte_map_free, byte_map_set
from leveret.lookup.integer_map cimport (
    integer_map_clear,
    integer_map_find,
    integer_map_free,
    integer_map_remove,
    integer_map_set,
)
from leveret.queue.message cimport MESSAGE_HEAD_SIZE, MESSAGE_WIRE_OFFSET, Message
from leveret.router.exchanges.exchange cimport Destinations, Exchange, Subject, destination_is_exchange
from leveret.router.graph cimport ExchangeGraph

cdef enum:
    PAUSED_BACKLOG = 2
    QUEUES_PER_PACKET = 65535       # `PacketHead.count` is 16 bits
    WIRE_HEAD = MESSAGE_HEAD_SIZE - MESSAGE_WIRE_OFFSET

MEMO_ENTRIES_MAX = 65_536
MEMO_BYTES_MAX = 32 * 1024 * 1024
BACKLOG_HIGH = 4 * 1024 * 1024
BACKLOG_MAX = 64 * 1024 * 1024


cdef class Source:
    def __dealloc__(self):
        cdef size_t at
        for at in range(self.memo.capacity):
            if self.memo.slots[at].hash:
                free(<void*>self.memo.slots[at].value)
        byte_map_free(&self.memo)


cdef class Outlet(Ending):
    """One worker, as the router reaches it."""

    def __dealloc__(self):
        buffer_free(&self.held)
        integer_map_free(&self.told)

    cdef size_t backlog(self) noexcept:
        return unsent(self.link) if self.link is not None else buffer_unread(&self.held)

    cdef int enqueue(
        self, const Group* group, const PublishPacket* packet, const Wire* wire, uint16_t origin,
    ) except -1:
        """Write the message for the group's queues; the last packet asks for the confirm."""
        cdef uint32_t done = 0, some
        cdef uint8_t flags
        while True:
            some = group.count - done
            flags = ENQUEUE_WANTS_CONFIRM if packet.head.flags & PUBLISH_WANTS_VERDICT else 0
            if some > QUEUES_PER_PACKET:
                some = QUEUES_PER_PACKET
                flags = 0
            self.enqueue_some(group.queue_ids + done, <uint16_t>some, flags, packet, wire, origin)
            done += some
            if done == group.count:
                return 0

    cdef int enqueue_some(
        self, const uint32_t* ids, uint16_t count, uint8_t flags, const PublishPacket* packet, const Wire* wire, uint16_t origin,
    ) except -1:
        cdef uint32_t ids_size = 4 * <uint32_t>count
        cdef uint32_t head_size = <uint32_t>sizeof(EnqueuePacket) + ids_size
        cdef bint by_reference = wire.message != NULL and wire.size >= BY_REFERENCE_MIN and self.link is not None
        cdef uint32_t size = head_size if by_reference else head_size + wire.size
        cdef uint8_t* at
        cdef EnqueuePacket* enqueue
        if self.link is not None:
            at = self.link.packet(PACKET_ENQUEUE, flags, size)
        else:
            at = buffer_reserve(&self.held, size)
            if at == NULL:
                raise MemoryError()
        enqueue = <EnqueuePacket*>at
        enqueue.head.size = head_size + wire.size
        enqueue.head.type = PACKET_ENQUEUE
        enqueue.head.flags = flags
        enqueue.head.count = count
        enqueue.channel_ref = packet.channel_ref
        enqueue.origin = origin
        enqueue.reserved = 0
        enqueue.publish_no = packet.publish_no
        memcpy(at + sizeof(EnqueuePacket), ids, ids_size)
        if not by_reference:
            memcpy(at + head_size, wire.data, wire.size)
        if self.link is not None:
            self.link.written(size)
            if by_reference:
                self.link.write_from(wire.message, wire.data, wire.size)
            if self.link is not None and self.link.congested:
                self.behind = True
        else:
            self.held.length += size
            if buffer_unread(&self.held) > self.distributor.backlog_high:
                self.behind = True
        return 0

    cdef int check_backlog(self, Outlet origin, uint32_t channel_ref) except -1:
        """This worker is behind: stop the channel that just published to it, and its worker's whole link if that is not enough."""
        cdef uint64_t key = (<uint64_t>(origin.index + 1) << 32) | channel_ref
        cdef ThrottlePacket* throttle
        if origin.link is None:
            return 0
        if integer_map_find(&self.told, key) == NULL:
            integer_map_set(&self.told, key, 1)
            throttle = <ThrottlePacket*>origin.link.packet(PACKET_THROTTLE, 0, sizeof(ThrottlePacket))
            throttle.channel_ref = channel_ref
            throttle.worker = self.index
            origin.link.written(sizeof(ThrottlePacket))
        if self.backlog() > self.distributor.backlog_max:
            self.stopped |= <uint64_t>1 << origin.index
            origin.stopped_by |= <uint64_t>1 << self.index
            origin.link.pause(PAUSED_BACKLOG)
        return 0

    cdef int relieve(self) except -1:
        """The backlog has drained: whoever was stopped because of it goes on."""
        cdef Outlet other
        cdef ThrottlePacket* relieve
        if not self.behind:
            return 0
        self.behind = False
        integer_map_clear(&self.told)
        for other in self.distributor.outlets:
            if other.link is not None:
                relieve = <ThrottlePacket*>other.link.packet(PACKET_RELIEVE, 0, sizeof(ThrottlePacket))
                relieve.channel_ref = 0
                relieve.worker = self.index
                other.link.written(sizeof(ThrottlePacket))
            if self.stopped >> other.index & 1:
                other.stopped_by &= ~(<uint64_t>1 << self.index)
                if other.stopped_by == 0 and other.link is not None:
                    other.link.resume(PAUSED_BACKLOG)
        self.stopped = 0
        return 0

    cdef int verdict(self, uint32_t channel_ref, uint64_t publish_no, uint64_t workers) except -1:
        if self.verdict_count:
            if (
                channel_ref == self.verdict_ref
                and publish_no == self.verdict_first + self.verdict_count
                and workers == self.verdict_workers
            ):
                self.verdict_count += 1
                return 0
            self.flush_verdicts()
        self.verdict_ref = channel_ref
        self.verdict_first = publish_no
        self.verdict_count = 1
        self.verdict_workers = workers
        return self.distributor.poller.want_ending(self)

    cdef int flush_verdicts(self) except -1:
        cdef VerdictPacket* verdict
        if self.verdict_count and self.link is not None:
            verdict = <VerdictPacket*>self.link.packet(PACKET_VERDICT, 0, sizeof(VerdictPacket))
            verdict.channel_ref = self.verdict_ref
            verdict.count = self.verdict_count
            verdict.first_publish_no = self.verdict_first
            verdict.workers = self.verdict_workers
            self.link.written(sizeof(VerdictPacket))
        self.verdict_count = 0
        return 0

    cdef int at_turn_end(self) except -1:
        return self.flush_verdicts()


cdef class RouterLink(Link):
    """A link of the router: to a worker, or to management, which sends no hot packets. Its receiver has the `distributor`."""

    def __init__(self, poller, sock, hello, receiver):
        self.distributor = receiver.distributor
        super().__init__(poller, sock, hello, receiver)

    cdef int on_packet(self, PacketHead* packet, Message* landed) except -1:
        cdef PublishPacket* publish = <PublishPacket*>packet
        cdef const uint8_t* at = <const uint8_t*>packet + sizeof(PublishPacket)
        cdef const uint8_t* end = <const uint8_t*>packet + packet.size
        cdef uint16_t _more
        cdef Message* message
        cdef Wire wire
        cdef Subject subject
        if packet.type != PACKET_PUBLISH or self.outlet is None:
            return self.close(f"packet type {packet.type} is not expected here")
        subject.more_keys = at
        subject.more_count = packet.count
        if landed != NULL:      # without further keys, and its sizes are right
            message = landed
            at = <const uint8_t*>landed + MESSAGE_WIRE_OFFSET
            end = at + packet.size - sizeof(PublishPacket)
        else:
            for _more in range(packet.count):
                if at >= end or at + at[0] >= end:
                    return self.close("a publish packet's routing keys do not fit its size")
                at += 1 + at[0]
            # The packet's bytes are a message from `properties_size` on; what lies before is never looked at.
            message = <Message*>(at - MESSAGE_WIRE_OFFSET)
            if end - at < WIRE_HEAD or <uint64_t>(end - at) != (
                <uint64_t>WIRE_HEAD + message.exchange_size + message.routing_key_size + message.properties_size + message.body_size
            ):
                return self.close("a publish packet's message does not fit its size")
        wire.data = at
        wire.size = <uint32_t>(end - at)
        wire.message = landed
        subject.key = at + WIRE_HEAD + message.exchange_size
        subject.key_size = message.routing_key_size
        subject.properties = subject.key + subject.key_size
        subject.properties_size = message.properties_size
        return self.distributor.publish(self.outlet, publish, &wire, &subject)

    cdef int on_drained(self) except -1:
        if self.outlet is not None and self.outlet.link is self:
            self.outlet.relieve()
        return 0


cdef class Distributor:
    """`worker_count`: 1 to 64. The memo's and backlogs' bounds are those of this module unless given."""

    def __init__(
        self,
        Poller poller,
        int worker_count,
        *,
        memo_entries_max=MEMO_ENTRIES_MAX,
        memo_bytes_max=MEMO_BYTES_MAX,
        backlog_high=BACKLOG_HIGH,
        backlog_max=BACKLOG_MAX,
    ):
        cdef Outlet outlet
        if not 1 <= worker_count <= WORKERS_MAX:
            raise ValueError(f"a node has 1 to {WORKERS_MAX} workers, not {worker_count}")
        self.poller = poller
        self.graph = ExchangeGraph()
        self.reached = Destinations()
        self.sources = {}
        self.memo_entries_max = memo_entries_max
        self.memo_bytes_max = memo_bytes_max
        self.backlog_high = backlog_high
        self.backlog_max = backlog_max
        self.outlets = []
        self.outlet_array = <void**>calloc(worker_count, sizeof(void*))
        if self.outlet_array == NULL:
            raise MemoryError()
        for index in range(worker_count):
            outlet = Outlet.__new__(Outlet)
            outlet.distributor = self
            outlet.index = index
            self.outlets.append(outlet)
            self.outlet_array[index] = <void*>outlet

    def __dealloc__(self):
        free(self.outlet_array)
        integer_map_free(&self.source_map)
        integer_map_free(&self.queue_workers)

    # --- what the topology tells

    def exchange_added(self, Exchange matcher not None):
        cdef Source source = Source.__new__(Source)
        source.id = matcher.id
        self.graph.add(matcher)
        self.sources[matcher.id] = source
        integer_map_set(&self.source_map, matcher.id, <uint64_t><void*>source)

    def exchange_removed(self, uint32_t exchange_id):
        self.forget(self.sources[exchange_id])
        integer_map_remove(&self.source_map, exchange_id)
        del self.sources[exchange_id]
        self.graph.remove(exchange_id)

    def queue_added(self, uint32_t queue_id, uint32_t worker):
        integer_map_set(&self.queue_workers, queue_id, worker + 1)

    def queue_removed(self, uint32_t queue_id):
        integer_map_remove(&self.queue_workers, queue_id)

    def alternate_changed(self, uint32_t exchange_id, uint32_t alternate_id):
        self.graph.set_alternate(exchange_id, alternate_id)

    def routes_changed(self, exchange_ids):
        for exchange_id in exchange_ids:
            source = self.sources.get(exchange_id)
            if source is not None:
                self.forget(source)

    # --- workers that come and go

    def link_worker(self, RouterLink link not None):
        """The worker at the other end, which has been sent its replica of the topology, gets what was held for it, and may publish."""
        cdef Outlet outlet = self.outlets[link.peer.index]
        cdef uint8_t* at
        cdef size_t size = buffer_unread(&outlet.held)
        outlet.link = link
        link.outlet = outlet
        if size:
            at = link.reserve(size)
            memcpy(at, outlet.held.data + outlet.held.start, size)
            buffer_free(&outlet.held)
            link.written(size)
        if not link.congested:
            outlet.relieve()

    def unlink_worker(self, RouterLink link not None):
        """The link is closed. Returns whether it was the worker's: a link that was replaced is nobody's."""
        cdef Outlet outlet = link.outlet
        cdef Outlet other
        if outlet is None or outlet.link is not link:
            return False
        # Whoever published to this worker must know that it did before hearing that the worker is down.
        for other in self.outlets:
            other.flush_verdicts()
        outlet.link = None
        link.outlet = None
        outlet.verdict_count = 0
        outlet.relieve()
        outlet.stopped_by = 0
        for other in self.outlets:
            # Its successor numbers its channels from the beginning: nobody there has been told anything.
            integer_map_clear(&other.told)
            other.stopped &= ~(<uint64_t>1 << outlet.index)
        return True

    def flush_verdicts(self):
        """Write out every verdict that waits for more of its kind, before something that must come after them."""
        cdef Outlet outlet
        for outlet in self.outlets:
            outlet.flush_verdicts()

    # --- publishes

    cdef int publish(self, Outlet origin, const PublishPacket* packet, const Wire* wire, const Subject* subject) except -1:
        cdef uint64_t* found = integer_map_find(&self.source_map, packet.exchange_id)
        cdef uint64_t workers = 0
        cdef uint32_t at
        cdef Source source
        cdef Route* route
        cdef Outlet outlet
        cdef bint kept
        if found != NULL:   # else it was deleted while the message was under way
            source = <Source><void*>found[0]
            source.publish_in += 1
            route = self.find_route(source, subject, &kept)
            try:
                source.publish_out += route.queue_count
                workers = route.workers
                for at in range(route.group_count):
                    outlet = <Outlet>self.outlet_array[route.groups[at].worker]
                    outlet.enqueue(&route.groups[at], packet, wire, <uint16_t>origin.index)
                    if outlet.behind:
                        outlet.check_backlog(origin, packet.channel_ref)
            finally:
                if not kept:
                    free(route)
        if workers == 0:
            self.unroutable += 1
        if packet.head.flags & PUBLISH_WANTS_VERDICT:
            origin.verdict(packet.channel_ref, packet.publish_no, workers)
        return 0

    cdef Route* find_route(self, Source source, const Subject* subject, bint* kept) except? NULL:
        """The prepared route. kept: it is the memo's; else the caller frees it."""
        cdef uint64_t* found = byte_map_find(&source.memo, subject.key, subject.key_size) if subject.more_count == 0 else NULL
        cdef uint32_t counts[WORKERS_MAX]
        cdef uint32_t group_of[WORKERS_MAX]
        cdef uint32_t queue_count = 0, group_count = 0, worker
        cdef uint64_t workers = 0
        cdef size_t at, size
        cdef uint32_t* ids
        cdef Route* route
        cdef Group* group
        cdef bint by_key
        if found != NULL:
            self.memo_hits += 1
            kept[0] = True
            return <Route*>found[0]
        self.memo_misses += 1
        self.graph.reach(source.id, subject, self.reached, &by_key)
        for at in range(self.reached.count):
            if destination_is_exchange(self.reached.items[at]):
                continue
            found = integer_map_find(&self.queue_workers, self.reached.items[at])
            if found == NULL:
                continue
            worker = <uint32_t>(found[0] - 1)
            if not workers >> worker & 1:
                workers |= <uint64_t>1 << worker
                counts[worker] = 0
                group_of[worker] = group_count
                group_count += 1
            counts[worker] += 1
            queue_count += 1
        size = sizeof(Route) + group_count * sizeof(Group) + queue_count * sizeof(uint32_t)
        route = <Route*>malloc(size)
        if route == NULL:
            raise MemoryError()
        route.workers = workers
        route.size = size
        route.queue_count = queue_count
        route.group_count = group_count
        route.groups = <Group*>(<uint8_t*>route + sizeof(Route))
        ids = <uint32_t*>(<uint8_t*>route.groups + group_count * sizeof(Group))
        # Groups in the order of their first queue, each with room for its own.
        for at in range(self.reached.count):
            if destination_is_exchange(self.reached.items[at]):
                continue
            found = integer_map_find(&self.queue_workers, self.reached.items[at])
            if found == NULL:
                continue
            worker = <uint32_t>(found[0] - 1)
            group = &route.groups[group_of[worker]]
            if counts[worker]:
                group.worker = worker
                group.count = 0
                group.queue_ids = ids
                ids += counts[worker]
                counts[worker] = 0
            group.queue_ids[group.count] = <uint32_t>self.reached.items[at]
            group.count += 1
        kept[0] = by_key and size <= self.memo_bytes_max // 4
        if kept[0]:
            if self.memo_entries >= self.memo_entries_max or self.memo_bytes + size + subject.key_size > self.memo_bytes_max:
                for every in self.sources.values():
                    self.forget(every)
            byte_map_set(&source.memo, subject.key, subject.key_size, <uint64_t>route)
            source.memo_bytes += size + subject.key_size
            self.memo_bytes += size + subject.key_size
            self.memo_entries += 1
        return route

    cdef int forget(self, Source source) except -1:
        """Empty the exchange's memo."""
        cdef size_t at
        if source.memo.capacity == 0:
            return 0
        for at in range(source.memo.capacity):
            if source.memo.slots[at].hash:
                free(<void*>source.memo.slots[at].value)
        self.memo_entries -= source.memo.count
        self.memo_bytes -= source.memo_bytes
        source.memo_bytes = 0
        byte_map_free(&source.memo)
        return 0

    # --- for tests and management

    def queues_of(self, uint32_t exchange_id, bytes key not None, bytes properties=b""):
        """Where a message goes, by way of the memo: worker -> queue ids. Counts as no publish."""
        cdef Subject subject
        cdef bint kept
        cdef Route* route
        cdef Source source = self.sources[exchange_id]
        cdef uint32_t at, place
        subject.key = key
        subject.key_size = len(key)
        subject.properties = properties
        subject.properties_size = len(properties)
        subject.more_count = 0
        route = self.find_route(source, &subject, &kept)
        try:
            return {
                route.groups[at].worker: [route.groups[at].queue_ids[place] for place in range(route.groups[at].count)]
                for at in range(route.group_count)
            }
        finally:
            if not kept:
                free(route)

    def statistics(self):
        """Counters since the process began, by exchange id; the memo; every worker's link."""
        cdef Source source
        cdef Outlet outlet
        return {
            "exchanges": {
                str(source.id): {"publish_in": source.publish_in, "publish_out": source.publish_out} for source in self.sources.values()
            },
            "unroutable": self.unroutable,
            "memo": {
                "entries": self.memo_entries, "bytes": self.memo_bytes, "hits": self.memo_hits, "misses": self.memo_misses,
            },
            "links": [
                {
                    "peer": f"worker {outlet.index}",
                    "open": outlet.link is not None,
                    "backlog_bytes": outlet.backlog(),
                    "congested": outlet.behind,
                    "packets_in": outlet.link.packets_in if outlet.link is not None else 0,
                    "packets_out": outlet.link.packets_out if outlet.link is not None else 0,
                    "received_bytes": outlet.link.received_bytes if outlet.link is not None else 0,
                    "sent_bytes": outlet.link.sent_bytes if outlet.link is not None else 0,
                }
                for outlet in self.outlets
            ],
        }
