"""The journal: to whom a queue tells what must survive the process, and who keeps what memory has no room for.

An interface. The queue calls it and knows nothing of disks, commits or batches; the worker fills it in (`leveret.worker.shard`). A queue
without one keeps everything in memory.

Every persistent message of a durable queue is added when it comes and settled when it is wanted no more; its entry is marked
ENTRY_STORED in between, so that nobody else pays for it. Positions identify messages: they ascend and are never given twice.

Paging. What is ready and far from its turn may leave memory: the queue then holds no entry for it, only how many there are. All that is
paged out lies in one stretch of positions, behind what the queue keeps in its ring and before what came since (`Backlog.tail`).
"""

from libc.stdint cimport uint64_t

from leveret.queue.message cimport Message
from leveret.queue.ring cimport Ring


cdef class Journal:
    cdef int add(self, uint64_t position, uint64_t expires_ms, Message* message) except -1:
        """A persistent message has come; it is retained for as long as need be. MemoryError: it is not added."""
        raise NotImplementedError

    cdef int settle(self, uint64_t position, Message* message) except -1:
        """A message that was added is wanted no more."""
        raise NotImplementedError

    cdef int expect(self, bint somebody) except -1:
        """Somebody has come who may take messages: what is handed out next should be on the disk as handed out before it is.

        False: the last consumer has been cancelled, and what has been handed out is all that will be.
        """
        return 0

    cdef int mark(self) except -1:
        """The queue has handed out further than at the last commit (`Queue.handed_through`)."""
        raise NotImplementedError

    cdef size_t page_out(self, Ring* ring, uint64_t* size) except? 0:
        """How many of the first entries of the ring may leave memory now, because they can be read again; `size`: bytes of their bodies."""
        raise NotImplementedError

    cdef int page_in(self, uint64_t first, Ring* into, Page* page) except -1:
        """Read the oldest messages that are paged out, `first` or behind it, and add their entries to the ring; a bounded number.

        What cannot be read any more is told of in the log, and as `lost`.
        """
        raise NotImplementedError

    cdef int drop_pages(self, uint64_t first, uint64_t last) except -1:
        """Everything that is paged out from `first` to `last` is wanted no more."""
        raise NotImplementedError
