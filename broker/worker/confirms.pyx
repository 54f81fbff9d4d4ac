"""The publishes of one channel that somebody has still to answer, and the acks and nacks that follow.

Owned by a channel; pure: it is told what happened and says, once per turn, what to tell the client. It is the one producer of a channel's
confirms, so that every publish is answered exactly once and cumulative acks never overtake a nack.

A publish is *open* from the moment it leaves the channel until everyone it went to has answered. A publish to a queue of this worker is
settled at once; one to another worker's queue waits for that worker's CONFIRM; one through a named exchange waits for the router's VERDICT
(which workers were given it) and a CONFIRM from each. VERDICT and CONFIRM travel on different links and may come in either order, so
`workers` toggles a bit for each: it is zero exactly when both sides have named the same workers.

Acks go out cumulatively up to the oldest open publish. What is settled ahead of it is acked singly, so that one slow worker does not hold
up the others' confirms; a nack waits until it is the oldest, so that no cumulative ack ever covers it.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc

from leveret.queue.message cimport Message, message_release

cdef enum:
    RING_FIRST = 16


cdef class Confirms:
    """Publish numbers count from 1 over the life of the channel; `start` makes the client's own counting begin."""

    def __cinit__(self):
        self.first = 1
        self.next = 1

    def __dealloc__(self):
        cdef uint64_t publish_no = self.first
        cdef size_t index
        while publish_no < self.next:
            if self.ring[publish_no & self.mask].returned != NULL:
                message_release(self.ring[publish_no & self.mask].returned)
            publish_no += 1
        free(self.ring)
        for index in range(self.untaken_count):
            message_release(self.untaken[index])
        free(self.untaken)
        free(self.ahead)
        free(self.answers)

    def start(self):
        """confirm.select: the next publish is the client's number 1. What is open already is not answered."""
        self.base = self.next - 1
        self.told = self.base
        self.untold_count = 0

    @property
    def unsettled(self):
        """Publishes not yet answered."""
        return self.next - self.first

    cdef uint64_t open(self, uint64_t workers, uint32_t flags, Message* returned) except 0:
        """A publish has left; takes over the reference to `returned`. Returns its number."""
        cdef size_t size, index
        cdef Publish* grown
        cdef uint64_t publish_no = self.next
        cdef uint64_t moved
        size = self.mask + 1 if self.ring != NULL else 0
        if self.next - self.first >= size:
            grown = <Publish*>malloc((size * 2 if size else RING_FIRST) * sizeof(Publish))
            if grown == NULL:
                raise MemoryError
            index = (size * 2 if size else RING_FIRST) - 1
            moved = self.first
            while moved < self.next:
                grown[moved & index] = self.ring[moved & self.mask]
                moved += 1
            free(self.ring)
            self.ring = grown
            self.mask = index
        self.ring[publish_no & self.mask].workers = workers
        self.ring[publish_no & self.mask].flags = flags
        self.ring[publish_no & self.mask].returned = returned
        self.next += 1
        return publish_no

    cdef int open_settled(self) except -1:
        """A publish that was answered as soon as it was made."""
        cdef uint64_t publish_no
        if self.first == self.next:
            self.untold_last = self.next
            self.untold_count += 1
            self.next += 1
            self.first = self.next
            return 0
        publish_no = self.open(0, 0, NULL)
        return self.settle(publish_no, self.find(publish_no))

    cdef Publish* find(self, uint64_t publish_no) noexcept nogil:
        """The open publish of that number, or NULL when it was answered already."""
        cdef Publish* publish
        if publish_no < self.first or publish_no >= self.next:
            return NULL
        publish = &self.ring[publish_no & self.mask]
        return NULL if publish.flags & DONE else publish

    cdef int settle(self, uint64_t publish_no, Publish* publish) except -1:
        cdef size_t size
        cdef uint64_t* grown
        publish.flags |= DONE
        if publish.flags & REFUSED:
            self.refusals += 1
        if publish.returned != NULL:
            if publish.flags & (IMMEDIATE | TAKEN | REFUSED) == IMMEDIATE:
                self.add_untaken(publish.returned)
            else:
                message_release(publish.returned)
            publish.returned = NULL
        if publish_no == self.first:
            return self.advance()
        if publish.flags & REFUSED:
            return 0
        if self.ahead_count == self.ahead_size:
            size = self.ahead_size * 2 if self.ahead_size else RING_FIRST
            grown = <uint64_t*>realloc(self.ahead, size * sizeof(uint64_t))
            if grown == NULL:
                raise MemoryError
            self.ahead = grown
            self.ahead_size = size
        self.ahead[self.ahead_count] = publish_no
        self.ahead_count += 1
        return 0

    cdef int advance(self) except -1:
        cdef uint32_t flags
        while self.first < self.next:
            flags = self.ring[self.first & self.mask].flags
            if not flags & DONE or flags & REFUSED:
                break
            if not flags & TOLD and self.first > self.base:
                self.untold_last = self.first
                self.untold_count += 1
            self.first += 1
        return 0

    cdef int verdict(self, uint64_t publish_no, uint64_t workers) except -1:
        """The router's word: which workers were given it. The caller has already returned an unroutable one."""
        cdef Publish* publish = self.find(publish_no)
        if publish == NULL or not publish.flags & AWAITS_VERDICT:
            return 0
        publish.flags &= ~<uint32_t>AWAITS_VERDICT
        publish.workers ^= workers
        if publish.workers == 0:
            self.settle(publish_no, publish)
        return 0

    cdef int add_untaken(self, Message* message) except -1:
        cdef size_t size
        cdef Message** grown
        if self.untaken_count == self.untaken_size:
            size = self.untaken_size * 2 if self.untaken_size else 4
            grown = <Message**>realloc(self.untaken, size * sizeof(Message*))
            if grown == NULL:
                raise MemoryError
            self.untaken = grown
            self.untaken_size = size
        self.untaken[self.untaken_count] = message
        self.untaken_count += 1
        return 0

    cdef int answer(self, uint64_t publish_no, uint64_t worker_bit, bint refused, bint taken) except -1:
        """A worker's CONFIRM. taken: not by nobody (a message with the immediate flag)."""
        cdef Publish* publish = self.find(publish_no)
        if publish == NULL:
            return 0
        publish.workers ^= worker_bit
        if refused:
            publish.flags |= REFUSED
        if taken:
            publish.flags |= TAKEN
        if publish.workers == 0 and not publish.flags & AWAITS_VERDICT:
            self.settle(publish_no, publish)
        return 0

    cdef int lose_workers(self, uint64_t workers, bint routed) except -1:
        """These workers have died: whatever still waited for one of them, by this road, is refused."""
        cdef uint64_t publish_no = self.first
        cdef Publish* publish
        while publish_no < self.next:
            publish = &self.ring[publish_no & self.mask]
            if not publish.flags & (DONE | AWAITS_VERDICT) and publish.workers & workers and ((publish.flags & ROUTED) != 0) == routed:
                publish.flags |= REFUSED
                self.settle(publish_no, publish)
            publish_no += 1
        return 0

    cdef int lose_router(self) except -1:
        """The router has died: nobody knows which of its publishes were still passed on, so all open ones are refused."""
        cdef uint64_t publish_no = self.first
        cdef Publish* publish
        while publish_no < self.next:
            publish = &self.ring[publish_no & self.mask]
            if publish.flags & ROUTED and not publish.flags & DONE:
                publish.flags |= REFUSED
                self.settle(publish_no, publish)
            publish_no += 1
        return 0

    cdef int collect(self) except -1:
        """Put what the client must be told into `answers` (overwriting the last turn's)."""
        cdef uint64_t last
        cdef size_t index
        cdef Publish* publish
        self.answers_count = 0
        while True:
            if self.untold_count:
                # Up to the newest that was not told, for clients do not expect to hear twice of one.
                self.add_answer(self.untold_last, self.untold_count > 1, False)
                self.untold_count = 0
            if self.first - 1 > self.told:
                self.told = self.first - 1
            last = self.first
            while last < self.next and self.ring[last & self.mask].flags & DONE and self.ring[last & self.mask].flags & REFUSED:
                last += 1
            if last == self.first:
                break
            # A run of refusals at the front: all before it has been told, so that one nack covers the run.
            if last - 1 > self.base:
                self.add_answer(last - 1, last - 1 - max(self.first - 1, self.base) > 1, True)
            self.told = last - 1 if last - 1 > self.told else self.told
            self.first = last
            self.advance()
        for index in range(self.ahead_count):
            if self.ahead[index] < self.first or self.ahead[index] <= self.base:
                continue
            publish = &self.ring[self.ahead[index] & self.mask]
            if not publish.flags & TOLD:
                publish.flags |= TOLD
                self.add_answer(self.ahead[index], False, False)
        self.ahead_count = 0
        return 0

    cdef int add_answer(self, uint64_t publish_no, bint multiple, bint nack) except -1:
        cdef size_t size
        cdef Answer* grown
        if self.answers_count == self.answers_size:
            size = self.answers_size * 2 if self.answers_size else 4
            grown = <Answer*>realloc(self.answers, size * sizeof(Answer))
            if grown == NULL:
                raise MemoryError
            self.answers = grown
            self.answers_size = size
        self.answers[self.answers_count].tag = publish_no - self.base
        self.answers[self.answers_count].multiple = multiple
        self.answers[self.answers_count].nack = nack
        self.answers_count += 1
        return 0
