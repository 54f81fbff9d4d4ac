"""The fanout exchange: a message goes to everything that is bound, once, whatever the keys say."""

from libc.stdint cimport uint64_t

from leveret.router.exchanges.destination_set cimport destination_set_add, destination_set_free, destination_set_remove
from leveret.router.exchanges.exchange cimport Destinations, Exchange, Subject


cdef class FanoutExchange(Exchange):
    """Everything that is bound."""

    def __dealloc__(self):
        destination_set_free(&self.bound)

    cdef int add(self, bytes key, uint64_t destination, dict arguments) except -1:
        return destination_set_add(&self.bound, destination)

    cdef int remove(self, bytes key, uint64_t destination, dict arguments) except -1:
        if not destination_set_remove(&self.bound, destination):
            raise KeyError(key)
        return 0

    cdef int route(self, const Subject* subject, Destinations into) except -1:
        into.add_all(&self.bound)
        return 1 if self.bound.count else 0
