from libc.stdint cimport uint32_t, uint64_t

from leveret.lookup.integer_map cimport IntegerMap
from leveret.router.exchanges.exchange cimport Destinations, Exchange, Subject


cdef class Vertex:
    cdef readonly Exchange exchange
    cdef readonly uint32_t alternate    # id of the exchange that takes what this one's bindings do not match; 0: none


cdef class ExchangeGraph:
    cdef dict vertices                  # id -> Vertex: what keeps them alive
    cdef IntegerMap by_id               # id -> Vertex, borrowed

    cdef int route_more(self, Exchange exchange, const Subject* subject, Destinations into) except -1
    cdef int reach(self, uint32_t start, const Subject* subject, Destinations into, bint* by_key) except -1
