"""The graph of exchanges: from one exchange over bindings and alternate exchanges to all queues that a message goes to.

It owns which exchanges there are and their alternates; what an exchange's own bindings match is the exchange's. The distributor walks it.
The array of destinations is also the list of what is still to be walked, and holds each exchange once, so a cycle ends by itself.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.lookup.integer_map cimport integer_map_find, integer_map_free, integer_map_remove, integer_map_set
from leveret.router.exchanges.exchange cimport DESTINATION_EXCHANGE_BIT, Destinations, Exchange, Subject, destination_is_exchange


cdef class Vertex:
    """An exchange in the graph."""


cdef class ExchangeGraph:
    """All exchanges of the node, of every vhost: ids are unique over them."""

    def __init__(self):
        self.vertices = {}

    def __dealloc__(self):
        integer_map_free(&self.by_id)

    def add(self, Exchange exchange not None):
        """Take an exchange in."""
        cdef Vertex vertex = Vertex.__new__(Vertex)
        vertex.exchange = exchange
        self.vertices[exchange.id] = vertex
        integer_map_set(&self.by_id, exchange.id, <uint64_t><void*>vertex)

    def remove(self, uint32_t exchange_id):
        """Forget an exchange; bindings that lead to it lead nowhere."""
        integer_map_remove(&self.by_id, exchange_id)
        del self.vertices[exchange_id]

    def set_alternate(self, uint32_t exchange_id, uint32_t alternate_id):
        """Where messages go that no binding of `exchange_id` matches; 0: nowhere."""
        cdef Vertex vertex = self.vertices[exchange_id]
        vertex.alternate = alternate_id

    def queues_reached(self, uint32_t start, bytes key, bytes properties=b""):
        """The ids of the queues that a message goes to, in the order they are found: for tests and for explaining a route."""
        cdef Destinations into = Destinations()
        cdef Subject subject
        cdef bint by_key = True
        subject.key = key
        subject.key_size = len(key)
        subject.properties = properties
        subject.properties_size = len(properties)
        subject.more_count = 0
        self.reach(start, &subject, into, &by_key)
        return [destination for destination in into.to_list() if destination >> DESTINATION_EXCHANGE_BIT == 0]

    cdef int reach(self, uint32_t start, const Subject* subject, Destinations into, bint* by_key) except -1:
        """Fill `into` with every destination, exchanges among them. `by_key`: whether the same key always leads to the same ones."""
        cdef size_t at = 0
        cdef uint64_t* found
        cdef Vertex vertex
        cdef int matched
        by_key[0] = subject.more_count == 0
        into.clear()
        into.add((<uint64_t>1 << DESTINATION_EXCHANGE_BIT) | start)
        while at < into.count:
            if destination_is_exchange(into.items[at]):
                found = integer_map_find(&self.by_id, <uint32_t>into.items[at])
                if found != NULL:
                    vertex = <Vertex><void*>found[0]
                    if not vertex.exchange.by_key:
                        by_key[0] = False
                    matched = vertex.exchange.route(subject, into)
                    if subject.more_count:
                        matched |= self.route_more(vertex.exchange, subject, into)
                    if not matched and vertex.alternate:
                        into.add((<uint64_t>1 << DESTINATION_EXCHANGE_BIT) | vertex.alternate)
            at += 1
        return 0

    cdef int route_more(self, Exchange exchange, const Subject* subject, Destinations into) except -1:
        """The same message by its further keys; each destination gets it once all the same."""
        cdef Subject further = subject[0]
        cdef const uint8_t* at = subject.more_keys
        cdef size_t _index
        cdef int matched = 0
        for _index in range(subject.more_count):
            further.key = at + 1
            further.key_size = at[0]
            matched |= exchange.route(&further, into)
            at += 1 + at[0]
        return matched
