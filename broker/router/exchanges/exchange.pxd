from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.router.exchanges.destination_set cimport DestinationSet
from leveret.lookup.integer_map cimport IntegerMap

cdef enum:
    DESTINATION_EXCHANGE_BIT = 32

cdef struct Subject:                # what a message is routed by; pointers into the packet that carries it
    const uint8_t* key
    size_t key_size
    const uint8_t* properties       # property flags and list, as in a content header; headers exchanges read it
    size_t properties_size
    const uint8_t* more_keys        # further routing keys (CC, BCC), each a size of 1 byte and the key
    size_t more_count


cdef inline bint destination_is_exchange(uint64_t destination) noexcept nogil:
    return (destination >> DESTINATION_EXCHANGE_BIT) != 0


cdef class Destinations:
    cdef uint64_t* items            # each once, in the order they were found
    cdef size_t count
    cdef size_t capacity
    cdef IntegerMap seen            # only filled once there are many

    cdef void clear(self) noexcept
    cdef int add(self, uint64_t destination) except -1
    cdef int add_all(self, const DestinationSet* found) except -1


cdef class Exchange:
    cdef readonly uint32_t id
    cdef readonly bint by_key       # the routing key alone decides: a route may be remembered by it

    cdef int add(self, bytes key, uint64_t destination, dict arguments) except -1
    cdef int remove(self, bytes key, uint64_t destination, dict arguments) except -1
    cdef int route(self, const Subject* subject, Destinations into) except -1
