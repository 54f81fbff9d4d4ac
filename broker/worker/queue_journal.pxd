from libc.stdint cimport uint64_t

from leveret.queue.journal cimport Journal
from leveret.storage.segment_store cimport QueueIndex

cdef class QueueJournal(Journal)        # before the next lines: the modules name each other

from leveret.worker.committer cimport Committer
from leveret.worker.message_store cimport MessageStore
from leveret.worker.state cimport ShardQueue

cdef enum:
    # A queue with more than this in memory lets go of what the journal can bring back, but for the part that is next.
    CROWDED_MESSAGES = 16_384
    CROWDED_BYTES = 16 * 1024 * 1024
    KEEP_MESSAGES = 4096
    KEEP_BYTES = 4 * 1024 * 1024
    # Under memory pressure.
    PRESSED_MESSAGES = 1024
    PRESSED_BYTES = 1024 * 1024
    # What one step moves to the scratch store.
    SCRATCH_STEP_BYTES = 4 * 1024 * 1024


cdef class QueueJournal(Journal):
    cdef readonly ShardQueue queue
    cdef readonly Committer committer
    cdef readonly MessageStore store        # None: nothing of the queue survives the process
    cdef readonly QueueIndex index
    cdef QueueIndex scratch                 # what is paged out without being durable; None: nothing was yet
    cdef bint crowded                       # in the committer's list
    cdef uint64_t marked_at_ms

    cdef int relieve(self) except -1
