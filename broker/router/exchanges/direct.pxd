from leveret.lookup.byte_map cimport ByteMap
from leveret.router.exchanges.exchange cimport Exchange


cdef class DirectExchange(Exchange):
    cdef ByteMap keys       # binding key -> DestinationSet*
