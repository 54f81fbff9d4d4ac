from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from leveret.link.poller cimport Ending

cdef class Committer(Ending)            # before the next lines: the modules name each other

from leveret.worker.message_store cimport MessageStore
from leveret.worker.queue_journal cimport QueueJournal
from leveret.worker.state cimport WorkerState

cdef enum:
    # A commit up to this size is made in the loop itself, if the disk is quick and the loop has little else to do: the hand-overs to the
    # thread and of the interpreter's lock cost more than the commit. Above it, it pays that acks come in meanwhile, for what is settled
    # before its own commit begins is never written.
    INLINE_BYTES = 96 * 1024
    # How much may gather of messages that nobody waits for.
    LINGER_BYTES = 256 * 1024
    # How far ahead of what it hands out a busy queue's record is.
    LEASE = 65_536


cdef struct Waiter:             # publishes in a row of one channel, to be confirmed after the commit
    uint64_t first_publish_no
    uint32_t count
    uint32_t channel_ref
    uint16_t origin             # index of the channel's worker


cdef struct Waiters:
    Waiter* items
    size_t count
    size_t capacity


cdef class Committer(Ending):
    cdef WorkerState state
    cdef readonly int64_t wall_offset_ms
    cdef readonly list stores           # the MessageStores of the worker's shards
    cdef readonly MessageStore scratch  # None until something had to go there
    cdef public object make_scratch     # called for its log when that is the case; None: there is no such place
    cdef public uint64_t memory_max     # bytes that the worker's queues may hold in memory before they page; 0: no limit
    cdef list marked                    # QueueJournals whose queue has handed out further
    cdef list crowded                   # ... holds more than it should
    cdef set leased                     # ... has a lease: its record says more than was handed out
    cdef Waiters gathering              # for the commit that comes
    cdef Waiters flying                 # for the one under way
    cdef dict holds                     # who keeps the next commit back -> the timer that ends it
    cdef double held_since_s            # since when somebody has, without a commit between
    cdef list asking                    # Futures of those who wait for the commit that comes
    cdef list asked                     # ... for the one under way
    cdef list batches                   # (store, batch) under way on the thread; None: no commit is
    cdef list errors                    # what the thread has found, for each of them
    cdef bint urgent                    # somebody waits for what has gathered, or it is not to wait
    cdef uint64_t gathered_bytes        # of messages since the last commit began
    cdef bint lingering                 # a timer is under way that commits what nobody waits for
    cdef bint catching_up               # the next round does what the logs have put off
    cdef double looked_behind_s         # when it was asked last whether they have
    cdef object behind_error            # what went wrong there and ends the process, found by the thread
    cdef double loop_cpu_s              # the loop's thread had used when the last commit was done
    cdef bint flushed                   # this turn's output has been written
    cdef object thread
    cdef readonly object failed         # Future: the store is broken, the process must end
    cdef readonly bint full             # the last commit found the disk full
    cdef readonly double commit_s       # how long commits take, recent ones counting more
    cdef readonly uint64_t commits
    cdef readonly uint64_t commits_failed
    cdef readonly uint64_t committed_bytes
    cdef bint closed

    cdef int want(self) except -1
    cdef int want_message(self, uint64_t size) except -1
    cdef int want_soon(self) except -1
    cdef int wait_for(self, uint16_t origin, uint32_t channel_ref, uint64_t publish_no) except -1
    cdef bint has_work(self)
    cdef int begin(self) except -1
    cdef int finish(self, list batches, list errors, double took_s) except -1
    cdef int answer(self, bint refused) except -1
    cdef double relieve_pressure(self) except -1
    cdef MessageStore need_scratch(self)
    cdef bint write_scratch(self) except -1
