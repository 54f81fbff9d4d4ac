from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.lookup.byte_map cimport ByteMap
from leveret.queue.queue cimport Queue


cdef class ExchangeEntry:
    cdef readonly uint32_t id
    cdef readonly str name
    cdef readonly str vhost
    cdef readonly str type
    cdef readonly bint durable
    cdef readonly bint auto_delete
    cdef readonly bint internal
    cdef readonly bytes arguments
    cdef bytes name_bytes


cdef class QueueEntry:
    cdef readonly uint32_t id
    cdef readonly str name
    cdef readonly str vhost
    cdef readonly bint durable
    cdef readonly bint auto_delete
    cdef readonly bint exclusive
    cdef readonly bytes arguments
    cdef readonly str owner         # id of the connection whose exclusive queue it is; "" for others
    cdef readonly int shard         # where its messages are stored
    cdef readonly int worker        # index of the worker that owns the shard
    cdef public Queue local         # the queue itself when that is us, else None
    cdef bytes name_bytes


cdef class Vhost:
    cdef readonly str name
    cdef readonly dict exchanges    # name -> ExchangeEntry
    cdef readonly dict queues       # name -> QueueEntry
    cdef ByteMap exchange_map       # the same by bytes, for the hot path: borrowed pointers
    cdef ByteMap queue_map

    cdef ExchangeEntry find_exchange(self, const uint8_t* name, size_t size)
    cdef void* find_queue(self, const uint8_t* name, size_t size) noexcept


cdef class Directory:
    cdef readonly dict vhosts       # name -> Vhost
    cdef readonly dict queues       # id -> QueueEntry
    cdef readonly object users      # leveret.auth.users.Users
    cdef readonly object permissions
    cdef readonly uint64_t version  # grows with every change: whoever keeps a verdict compares it
