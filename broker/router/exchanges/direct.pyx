"""The direct exchange: a message goes where its routing key equals the binding key. One hash look-up.

The default exchange is one of these too, with a binding for every queue under the queue's name that only the topology makes and takes off.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from leveret.lookup.byte_map cimport byte_map_find, byte_map_free, byte_map_remove, byte_map_set
from leveret.router.exchanges.destination_set cimport (
    DestinationSet, destination_set_add, destination_set_free, destination_set_remove,
)
from leveret.router.exchanges.exchange cimport Destinations, Exchange, Subject


cdef class DirectExchange(Exchange):
    """Exact keys."""

    def __dealloc__(self):
        cdef size_t at
        for at in range(self.keys.capacity):
            if self.keys.slots[at].hash:
                destination_set_free(<DestinationSet*>self.keys.slots[at].value)
                free(<void*>self.keys.slots[at].value)
        byte_map_free(&self.keys)

    cdef int add(self, bytes key, uint64_t destination, dict arguments) except -1:
        cdef uint64_t* found = byte_map_find(&self.keys, key, len(key))
        cdef DestinationSet* bound
        if found != NULL:
            return destination_set_add(<DestinationSet*>found[0], destination)
        bound = <DestinationSet*>calloc(1, sizeof(DestinationSet))
        if bound == NULL:
            raise MemoryError()
        destination_set_add(bound, destination)
        return byte_map_set(&self.keys, key, len(key), <uint64_t>bound)

    cdef int remove(self, bytes key, uint64_t destination, dict arguments) except -1:
        cdef uint64_t* found = byte_map_find(&self.keys, key, len(key))
        cdef DestinationSet* bound
        if found == NULL or not destination_set_remove(<DestinationSet*>found[0], destination):
            raise KeyError(key)
        bound = <DestinationSet*>found[0]
        if bound.count == 0:
            free(bound)
            byte_map_remove(&self.keys, key, len(key))
        return 0

    cdef int route(self, const Subject* subject, Destinations into) except -1:
        cdef uint64_t* found = byte_map_find(&self.keys, subject.key, subject.key_size)
        if found == NULL:
            return 0
        into.add_all(<DestinationSet*>found[0])
        return 1
