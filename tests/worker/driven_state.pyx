"""A worker's state whose channels and neighbours are lists: what the committer answers, and to whom, is written down.

Only the tests of the committer use it. `expect` says that a publish waits for the commit that gathers, as a channel or a link does.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from leveret.link.packets cimport CONFIRM_REFUSED
from leveret.worker.neighbour cimport Neighbour
from leveret.worker.state cimport WorkerState


cdef class DrivenState(WorkerState):
    """`answers`: (worker of the channel, channel, first publish number, how many, refused), in order."""

    cdef readonly list answers

    def __init__(self, poller, directory, int index, int worker_count, message_size_max):
        super().__init__(poller, directory, index, worker_count, message_size_max)
        self.answers = []
        for other in range(worker_count):
            if other != index:
                self.workers[other] = DrivenNeighbour(self, other)

    cdef int confirm(self, uint32_t channel_ref, uint64_t first, uint32_t count, int worker, uint8_t flags) except -1:
        self.answers.append((worker, channel_ref, first, count, bool(flags & CONFIRM_REFUSED)))
        return 0

    def expect(self, uint16_t origin, uint32_t channel_ref, uint64_t publish_no):
        self.committer.wait_for(origin, channel_ref, publish_no)


cdef class DrivenNeighbour(Neighbour):
    """Another worker, to which a confirm would go as a packet."""

    cdef DrivenState driven

    def __init__(self, DrivenState state, int index):
        super().__init__(state, "worker", index)
        self.driven = state

    cdef int flush_confirms(self) except -1:
        return 0

    cdef int write_confirm(self, uint8_t flags, uint32_t channel_ref, uint64_t first, uint32_t count) except -1:
        self.driven.answers.append((self.index, channel_ref, first, count, bool(flags & CONFIRM_REFUSED)))
        return 0
