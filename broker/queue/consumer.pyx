"""A consumer as its queue sees it: whether it can take a message, what it has taken and not settled, and how a message reaches it.

Subclasses say how: one writes into a connection of this process, one into the link to the worker where the client is. A basic.get is
served through a consumer too, one that never joins the rotation (`Queue.add_getter`). It knows nothing of channels, tags of deliveries
or sockets.
"""

from libc.stdint cimport uint32_t, uint64_t

from leveret.queue.ledger cimport ledger_free
from leveret.queue.message cimport Message, message_release


cdef class Consumer:
    """Tag, settings and unacked messages of one consumer; abstract.

    `tag`: at most 255 bytes, any. `priority`: any 64-bit integer, higher first. `prefetch` (messages) and `prefetch_bytes` (of
    bodies): 0 for no limit; of no effect with `no_ack`.
    Begins inactive, so that consume-ok can precede the first delivery.
    """

    def __init__(self, bytes tag not None, *, bint no_ack=False, bint exclusive=False, priority=0, uint32_t prefetch=0,
                 uint32_t prefetch_bytes=0, dict arguments=None):
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.prefetch = prefetch
        self.prefetch_bytes = prefetch_bytes
        self.arguments = {} if arguments is None else arguments
        self.next_delivery_no = 1
        self.turn.owner = <void*>self
        self.turn.priority = self.priority

    def __dealloc__(self):
        cdef size_t index
        for index in range(self.ledger.head, self.ledger.tail):
            if self.ledger.slots[index].item != NULL:
                message_release(<Message*>self.ledger.slots[index].item)
        ledger_free(&self.ledger)

    # What a subclass fills in.

    cdef bint can_take(self) noexcept:
        """Whether one more message may be handed over now.

        A subclass narrows it (socket full, credit spent, the channel's shared prefetch) and calls `ready_again` when its own reason ends.
        The queue asks before every delivery, and asks a consumer that said no only after `ready_again`.
        """
        return self.active and self.within_prefetch()

    cdef bint within_prefetch(self) noexcept:
        """Whether both limits leave room for the message that the queue offers (`Queue.offered_bytes`).

        A message larger than the limit in bytes is delivered when nothing else is unacked: it would wait for ever otherwise.
        """
        if self.prefetch and self.ledger.live >= self.prefetch:
            return False
        return self.prefetch_bytes == 0 or self.ledger.live == 0 or self.unacked_bytes + self.queue.offered_bytes <= self.prefetch_bytes

    cdef int deliver(self, Message* message, uint64_t delivery_no, bint redelivered) except -1:
        """Send it on. `message` is lent for the call: retain it to keep it.

        Called within publishes and settles of others, so a subclass deals with its own connection's errors itself. If it raises all the
        same, the message goes back to its place, the consumer is deactivated, and whoever called the queue gets the error.
        It may make `can_take` false, deactivate consumers or remove them; it must not publish into or settle with the queue.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it delivers")

    # What its owner calls.

    cdef int ready_again(self) except -1:
        """Tell the queue that `can_take` may be true again: back into the rotation, and on with what waits."""
        if self.queue is not None:
            self.queue.consumer_ready(self)
        return 0

    def activate(self) -> None:
        """Deliveries may begin (or go on): consume-ok has been written."""
        self.active = True
        self.ready_again()

    def deactivate(self) -> None:
        """No delivery from now on; what is unacked stays so. Before removing the consumers of a closing connection, deactivate all of
        them, lest the one's messages be handed to the next."""
        self.active = False
        if self.queue is not None:
            self.queue.consumer_blocked(self)

    def set_prefetch(self, uint32_t prefetch, uint32_t prefetch_bytes=0) -> None:
        """Change the limits at once; below what is unacked now, the next delivery waits for settles."""
        self.prefetch = prefetch
        self.prefetch_bytes = prefetch_bytes
        self.ready_again()

    @property
    def unacked_count(self) -> int:
        """Delivered and not settled."""
        return self.ledger.live
