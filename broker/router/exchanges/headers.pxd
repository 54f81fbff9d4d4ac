from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.lookup.byte_map cimport ByteMap
from leveret.router.exchanges.exchange cimport Exchange

cdef struct Wanted:                 # one argument of a binding
    uint32_t name                   # its number in `HeadersExchange.names`
    uint8_t tag                     # wire type, or 0: any value will do
    const uint8_t* value            # inside the rule's `encoded`
    size_t value_size

cdef struct Header:                 # one header of the message at hand
    uint64_t seen                   # the match in which it was
    uint8_t tag
    const uint8_t* value
    size_t value_size


cdef class Rule:
    cdef uint64_t destination
    cdef bint any
    cdef Wanted* wanted
    cdef size_t wanted_count
    cdef list encoded               # the values' bytes
    cdef list names


cdef class HeadersExchange(Exchange):
    cdef dict rules                 # (destination, key, arguments) -> [Rule, uses]
    cdef list ordered               # the rules
    cdef ByteMap names              # header name -> uses << 32 | number
    cdef list free_numbers
    cdef Header* headers            # by number
    cdef uint32_t header_count
    cdef uint64_t current_match

    cdef uint32_t name_number(self, bytes name) except? 0
    cdef int read_headers(self, const uint8_t* properties, size_t size) noexcept nogil
    cdef bint holds(self, Rule rule) noexcept nogil
