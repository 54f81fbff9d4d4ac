"""Where the messages of one queue lie: an array of its runs in segments, and the counts of what is live in them.

The segment store makes one for each queue and is the only one to change it; the worker holds it beside its queue, hands it back with every
call and reads the counts. It knows no message: that a position is live is a bit in its run.
"""

from libc.stdlib cimport free


cdef class QueueIndex:
    def __dealloc__(self):
        free(self.runs)
        free(self.open_entries)

    @property
    def first_position(self):
        """Lowest position of a run with something live, written or being written; 0 if there is none."""
        return self.runs[self.run_head].first if self.run_count else 0

    @property
    def last_position(self):
        """Highest position ever added or loaded; 0 if there was none."""
        return self.highest
