from libc.stdint cimport int64_t, uint32_t, uint64_t

from leveret.queue.ledger cimport Ledger
from leveret.queue.message cimport Message
from leveret.queue.rotation cimport Turn

cdef class Consumer             # before the next line: the two modules name each other

from leveret.queue.queue cimport Queue


cdef class Consumer:
    cdef readonly Queue queue           # None before it is added and after it is removed
    cdef readonly bytes tag
    cdef readonly bint no_ack
    cdef readonly bint exclusive
    cdef readonly bint active           # between `activate` and `deactivate`
    cdef readonly bint consuming        # counts among the queue's consumers; not a getter, not cancelled
    cdef readonly bint cancelled
    cdef readonly int64_t priority
    cdef readonly uint32_t prefetch     # most unacked at a time; 0: no limit
    cdef readonly uint32_t prefetch_bytes   # most bytes of unacked bodies at a time, one message apart; 0: no limit
    cdef readonly uint64_t unacked_bytes
    cdef readonly dict arguments
    cdef readonly uint64_t next_delivery_no
    cdef Ledger ledger                  # delivery number -> message (item), position (number), expiry, flags; each slot holds a reference
    cdef Turn turn                      # the queue's

    cdef bint can_take(self) noexcept
    cdef bint within_prefetch(self) noexcept
    cdef int deliver(self, Message* message, uint64_t delivery_no, bint redelivered) except -1
    cdef int ready_again(self) except -1
