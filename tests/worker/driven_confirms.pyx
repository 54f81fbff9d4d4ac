"""`Confirms` with a Python face: what channels, links and the router tell it in C, a test tells it here."""

from libc.stdint cimport uint64_t

from leveret.queue.message cimport Message, message_new, message_release, message_retain
from leveret.worker.confirms cimport AWAITS_VERDICT, IMMEDIATE, ROUTED, Confirms


cdef class DrivenConfirms(Confirms):
    """Workers are given as masks: bit i for worker i. Publishes may carry `kept`, the one message that is there to be returned."""

    cdef Message* kept

    def __cinit__(self):
        self.kept = message_new(b"", 0, b"key", 3, b"\0\0", 2, 0, 0)
        if self.kept == NULL:
            raise MemoryError

    def __dealloc__(self):
        message_release(self.kept)

    def publish_here(self):
        """To a queue of this worker: settled at once."""
        self.open_settled()

    def publish_to(self, uint64_t worker):
        """To a queue of another worker. Gives the publish number."""
        return self.open(worker, 0, NULL)

    def publish_routed(self, bint mandatory, bint immediate=False):
        """Through the router. Gives the publish number."""
        if mandatory or immediate:
            message_retain(self.kept)
        return self.open(0, AWAITS_VERDICT | ROUTED | (IMMEDIATE if immediate else 0), self.kept if mandatory or immediate else NULL)

    def told_verdict(self, uint64_t publish_no, uint64_t workers):
        self.verdict(publish_no, workers)

    def told_confirm(self, uint64_t publish_no, uint64_t worker, bint refused, bint taken=True):
        self.answer(publish_no, worker, refused, taken)

    def lost_worker(self, uint64_t worker, bint routed):
        self.lose_workers(worker, routed)

    def lost_router(self):
        self.lose_router()

    def collected(self):
        """What the client is told at the end of the turn: (tag, multiple, nack) of each answer, in order."""
        cdef size_t index
        self.collect()
        return [(self.answers[index].tag, bool(self.answers[index].multiple), bool(self.answers[index].nack))
                for index in range(self.answers_count)]

    @property
    def to_be_returned(self):
        """Immediate messages that nobody took."""
        return self.untaken_count

    @property
    def messages_kept(self):
        """Publishes whose message is still there to be returned."""
        return self.kept.references - 1
