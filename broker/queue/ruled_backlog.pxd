from libc.stdint cimport uint32_t, uint64_t

from leveret.queue.backlog cimport Backlog
from leveret.queue.message cimport Message
from leveret.queue.ring cimport Entry

# What a queue looks after beside order; bits of `duties`.
cdef enum:
    KEEPS_TIME = 1              # a message of it may expire
    KEEPS_LIMIT = 2             # x-max-length, x-max-length-bytes
    WATCHES_USE = 4             # x-expires

cdef enum:
    EXPIRIES_MAX = 10000        # per call of `expire`
    OVERFLOW_DROP_HEAD = 0      # the numbers of `leveret.queue.rules.OVERFLOWS`
    OVERFLOW_REJECT_PUBLISH = 1
    OVERFLOW_REJECT_PUBLISH_DLX = 2


cdef class RuledBacklog(Backlog):
    # The rules as numbers; UINT64_MAX: no such limit.
    cdef readonly uint32_t duties
    cdef readonly object rules              # leveret.queue.rules.Rules
    cdef uint64_t message_ttl_ms
    cdef uint64_t expires_ms
    cdef uint64_t max_length
    cdef uint64_t max_length_bytes
    cdef uint32_t overflow
    cdef bint buries                        # what dies becomes a dead letter

    cdef readonly size_t consumer_count     # the queue's: with consumers it is in use. Without getters and cancelled ones
    cdef readonly bint unfinished           # the last pump stopped at its bound; one more is due
    cdef uint64_t used_ms                   # when it was last used
    cdef uint64_t due_ms                    # `call_at` was told this moment; 0: none

    # Counters since the queue was made: dead, whether there is a dead letter exchange or not.
    cdef readonly uint64_t expired
    cdef readonly uint64_t dropped          # from the front, for the limit
    cdef readonly uint64_t refused          # for the limit, on their way in

    # What a subclass fills in.
    cdef int pump(self) except -1
    cdef int pump_later(self) except -1
    cdef uint64_t now_ms(self) noexcept
    cdef int call_at(self, uint64_t moment_ms) except -1
    cdef int unused(self) except -1
    cdef int reserve_grave(self) except -1
    cdef int bury(self, Entry* entry, uint32_t death) except -1
    # What may come in.
    cdef int refuse(self, Message* message) except -1
    cdef uint64_t deadline(self, Message* message) noexcept
    cdef bint is_full(self, uint32_t body_size) noexcept
    # What must go.
    cdef int keep_rules(self) except -1
    cdef int expire(self) except -1
    cdef int expire_all(self) except -1
    cdef int lose_head(self, uint32_t death) except -1
    # When to look again.
    cdef int watch(self) except -1
