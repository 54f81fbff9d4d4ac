"""What a transactional channel has published and not yet committed.

Owned by a channel between tx.select and its close. It keeps messages and where they are to go, in order; the channel sends them at commit
or drops them at rollback. The acks of a transaction are marks in the channel's own ledger.
"""

from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdlib cimport free, realloc

from leveret.queue.message cimport Message, message_release, message_retain


cdef class Transaction:
    def __dealloc__(self):
        self.clear()
        free(self.pending)

    cdef int add(self, Message* message, object exchange, object keys) except -1:
        """Keep a publish. exchange: an ExchangeEntry or None; keys: bytes or None."""
        cdef Pending* grown
        cdef Pending* pending
        cdef size_t size
        if self.count == self.size:
            size = self.size * 2 if self.size else 16
            grown = <Pending*>realloc(self.pending, size * sizeof(Pending))
            if grown == NULL:
                raise MemoryError
            self.pending = grown
            self.size = size
        pending = &self.pending[self.count]
        message_retain(message)
        pending.message = message
        pending.exchange = NULL
        pending.keys = NULL
        if exchange is not None:
            Py_INCREF(exchange)
            pending.exchange = <void*>exchange
        if keys is not None:
            Py_INCREF(keys)
            pending.keys = <void*>keys
        self.count += 1
        return 0

    cdef int clear(self) except -1:
        """Let all of them go."""
        cdef size_t at
        for at in range(self.count):
            message_release(self.pending[at].message)
            Py_XDECREF(<PyObject*>self.pending[at].exchange)
            Py_XDECREF(<PyObject*>self.pending[at].keys)
        self.count = 0
        return 0
