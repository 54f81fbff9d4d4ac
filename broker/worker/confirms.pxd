from libc.stdint cimport uint32_t, uint64_t

from leveret.queue.message cimport Message


cdef enum:
    AWAITS_VERDICT = 1          # the router has not said yet who was given it
    ROUTED = 2                  # went through the router; else straight to a queue's worker
    REFUSED = 4                 # at least one worker would not take it, or was lost: nack
    DONE = 8
    TOLD = 16                   # acked out of order, ahead of an older one
    IMMEDIATE = 32              # to be returned if nobody could take it at once
    TAKEN = 64                  # somebody could


cdef struct Publish:
    uint64_t workers            # bit i: worker i has still to answer (or, before the verdict, has answered already)
    Message* returned           # kept for basic.return until the verdict; NULL if it need not be
    uint32_t flags


cdef struct Answer:
    uint64_t tag                # as the client counts: 1 is the first publish after confirm.select
    bint multiple
    bint nack


cdef class Confirms:
    cdef Publish* ring
    cdef size_t mask            # ring size - 1
    cdef uint64_t first         # publish number of the oldest one not settled
    cdef uint64_t next          # publish number that the next publish gets
    cdef uint64_t told          # the client has been told of all up to here, this one included
    cdef uint64_t base          # publish number before the first one that the client counts
    cdef uint64_t untold_last   # of those acked and passed by `first` but not told yet: the newest,
    cdef uint64_t untold_count  # and how many they are
    cdef readonly uint64_t refusals     # publishes that were refused, over the channel's life
    cdef Message** untaken      # immediate messages that nobody took, with a reference: to be returned before the answers
    cdef size_t untaken_count
    cdef size_t untaken_size
    cdef uint64_t* ahead        # settled ahead of an older one and not told yet
    cdef size_t ahead_count
    cdef size_t ahead_size
    cdef Answer* answers
    cdef size_t answers_count
    cdef size_t answers_size

    cdef uint64_t open(self, uint64_t workers, uint32_t flags, Message* returned) except 0
    cdef int open_settled(self) except -1
    cdef Publish* find(self, uint64_t publish_no) noexcept nogil
    cdef int settle(self, uint64_t publish_no, Publish* publish) except -1
    cdef int verdict(self, uint64_t publish_no, uint64_t workers) except -1
    cdef int answer(self, uint64_t publish_no, uint64_t worker_bit, bint refused, bint taken) except -1
    cdef int add_untaken(self, Message* message) except -1
    cdef int lose_workers(self, uint64_t workers, bint routed) except -1
    cdef int lose_router(self) except -1
    cdef int collect(self) except -1
    cdef int add_answer(self, uint64_t publish_no, bint multiple, bint nack) except -1
    cdef int advance(self) except -1
