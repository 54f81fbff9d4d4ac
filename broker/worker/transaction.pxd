from leveret.queue.message cimport Message


cdef struct Pending:
    Message* message            # with a reference
    void* exchange              # its ExchangeEntry (with a reference), or NULL: the default exchange
    void* keys                  # further routing keys (bytes, with a reference), or NULL


cdef class Transaction:
    cdef Pending* pending
    cdef readonly size_t count
    cdef size_t size
    cdef public size_t acks   # delivery tags marked, see Channel.settle

    cdef int add(self, Message* message, object exchange, object keys) except -1
    cdef int clear(self) except -1
