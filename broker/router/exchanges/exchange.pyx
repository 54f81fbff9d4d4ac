"""The interface of an exchange type, and the reusable array that routing collects destinations in.

An exchange type answers one question, `route`: which destinations do my bindings name for this message? It is pure: it knows integers and
bytes, not queues, vhosts, sockets or clocks; names, durability, arguments of the exchange and who may bind are the topology's
(`leveret.router.topology`), walking from exchange to exchange is the graph's (`leveret.router.graph`). The topology calls `bind` and
`unbind` exactly once per binding. Nothing here makes a Python object while a message is routed.

A new type is a file beside this one with a subclass that fills in `add`, `remove` and `route`, and a line in `types.py`.
"""

from libc.stdlib cimport free, realloc

from leveret.lookup.integer_map cimport integer_map_clear, integer_map_find, integer_map_free, integer_map_set

cdef enum:
    SCANNED_UP_TO = 16      # so many are compared one by one, beyond that a hash set answers
    SEEN_KEPT_MAX = 65536   # slots of the hash set that are kept for the next message

EXCHANGE_BIT = <uint64_t>1 << DESTINATION_EXCHANGE_BIT


cdef class Destinations:
    """A set of destinations in the order they were found; one is made once and used for every message."""

    def __dealloc__(self):
        free(self.items)
        integer_map_free(&self.seen)

    cdef void clear(self) noexcept:
        self.count = 0
        if self.seen.capacity > SEEN_KEPT_MAX:
            integer_map_free(&self.seen)
        else:
            integer_map_clear(&self.seen)

    cdef int add(self, uint64_t destination) except -1:
        cdef size_t at, capacity
        cdef uint64_t* moved
        if self.count <= SCANNED_UP_TO:
            for at in range(self.count):
                if self.items[at] == destination:
                    return 0
            if self.count == SCANNED_UP_TO:
                for at in range(self.count):
                    integer_map_set(&self.seen, self.items[at], 1)
                integer_map_set(&self.seen, destination, 1)
        else:
            if integer_map_find(&self.seen, destination) != NULL:
                return 0
            integer_map_set(&self.seen, destination, 1)
        if self.count == self.capacity:
            capacity = self.capacity * 2 if self.capacity else 64
            moved = <uint64_t*>realloc(self.items, capacity * sizeof(uint64_t))
            if moved == NULL:
                raise MemoryError()
            self.items = moved
            self.capacity = capacity
        self.items[self.count] = destination
        self.count += 1
        return 0

    cdef int add_all(self, const DestinationSet* found) except -1:
        cdef uint32_t at
        for at in range(found.count):
            self.add(found.destinations[at])
        return 0

    def to_list(self):
        """The destinations, as `Exchange.bind` takes them."""
        return [self.items[at] for at in range(self.count)]


cdef class Exchange:
    """One exchange's bindings, arranged for matching."""

    def __init__(self, id):
        """`id`: 1 to 2**32 - 1, as the topology gave it out."""
        self.id = id
        self.by_key = True

    def bind(self, destination, bytes key, dict arguments):
        """Add a binding.

        `destination`: a queue's id, or `EXCHANGE_BIT | id` of an exchange; `key`: at most 255 bytes; `arguments`: as the client gave them.
        Binding the same three again counts again, and takes as many `unbind`s.
        """
        self.add(key, destination, arguments)

    def unbind(self, destination, bytes key, dict arguments):
        """Take a binding off; one that is not there is our own mistake and raises KeyError."""
        self.remove(key, destination, arguments)

    def match(self, bytes key, bytes properties=b""):
        """The destinations that this exchange's own bindings name: for tests and for explaining a route, not for messages."""
        cdef Destinations into = Destinations()
        cdef Subject subject
        subject.key = key
        subject.key_size = len(key)
        subject.properties = properties
        subject.properties_size = len(properties)
        subject.more_count = 0
        self.route(&subject, into)
        return into.to_list()

    cdef int add(self, bytes key, uint64_t destination, dict arguments) except -1:
        raise NotImplementedError

    cdef int remove(self, bytes key, uint64_t destination, dict arguments) except -1:
        raise NotImplementedError

    cdef int route(self, const Subject* subject, Destinations into) except -1:
        """Add what the bindings name for `subject` to `into`; 1 when any binding matched, else 0."""
        raise NotImplementedError
