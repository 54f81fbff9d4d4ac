"""The loops of `bench/links.py`: a link that sends ENQUEUE packets in turns and counts what comes, all in C."""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from leveret.link.link cimport Link
from leveret.link.packets cimport PACKET_ENQUEUE, EnqueuePacket, PacketHead
from leveret.queue.message cimport Message, message_body, message_new, message_release


cdef packed struct OneQueue:
    EnqueuePacket packet
    unsigned int queue_id


cdef class LoadLink(Link):
    """Sends copies of one message to one queue, a bounded piece per turn, and counts packets of the other side.

    `on_drained` and `on_all` are called without arguments: the first when the kernel takes bytes again, the second when `expected` packets
    have come.
    """

    cdef public uint64_t count
    cdef public uint64_t expected
    cdef public object drained
    cdef public object all_came
    cdef Message* message

    def load(self, int body_size):
        """Use messages with bodies of `body_size` bytes from now on."""
        if self.message != NULL:
            message_release(self.message)
        self.message = message_new(b"", 0, b"queue", 5, b"\0\0", 2, body_size, 0)
        if self.message == NULL:
            raise MemoryError
        memset(message_body(self.message), ord("x"), body_size)

    def __dealloc__(self):
        if self.message != NULL:
            message_release(self.message)

    def send(self, uint64_t count, size_t bytes_per_turn):
        """Write up to `count` packets or about `bytes_per_turn` bytes, fewer when the link is congested. How many it was."""
        cdef OneQueue head
        cdef uint64_t sent = 0
        cdef uint64_t before = self.packets_out
        cdef size_t written = 0
        memset(&head, 0, sizeof(head))
        head.packet.head.type = PACKET_ENQUEUE
        head.packet.head.count = 1
        while sent < count and written < bytes_per_turn and not self.congested:
            head.packet.publish_no = before + sent
            self.packet_with_message(<PacketHead*>&head, sizeof(head), self.message)
            written += head.packet.head.size
            sent += 1
        return sent

    cdef int on_packet(self, PacketHead* packet, Message* message) except -1:
        self.count += 1
        if self.count == self.expected:
            self.all_came()
        return 0

    cdef int on_drained(self) except -1:
        if self.drained is not None:
            self.drained()
        return 0
