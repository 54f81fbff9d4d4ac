from leveret.router.exchanges.destination_set cimport DestinationSet
from leveret.router.exchanges.exchange cimport Exchange


cdef class FanoutExchange(Exchange):
    cdef DestinationSet bound
