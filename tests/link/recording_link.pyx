"""A link whose hot packets a Python test can write and read. Everything that happens to it goes into one list, in order."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from leveret.link.link cimport Link
from leveret.link.packets cimport PACKET_SIZE_MAX, PACKETS_VERSION, PacketHead, bytes_before_message
from leveret.link.poller cimport Ending, Poller
from leveret.queue.message cimport MESSAGE_WIRE_OFFSET, Message, message_from_wire, message_release

VERSION = PACKETS_VERSION
SIZE_MAX = PACKET_SIZE_MAX


cdef class RecordingLink(Link):
    """`note(link, event, *facts)` of the receiver hears of packets ("packet", type, flags, rest), "congested" and "drained".

    `landed` counts the packets whose message came in a block of its own. `message_holders` is how many hold the message that was sent last,
    this link itself included.
    """

    cdef readonly int landed
    cdef Message* message           # of `send_message`

    def __dealloc__(self):
        if self.message != NULL:
            message_release(self.message)

    @property
    def message_holders(self):
        return self.message.references

    cdef int on_packet(self, PacketHead* packet, Message* message) except -1:
        cdef uint8_t* rest = <uint8_t*>packet + sizeof(PacketHead)
        cdef size_t head_size = bytes_before_message(packet)
        cdef uint8_t* wire
        if message == NULL:
            self.receiver.note(self, "packet", packet.type, packet.flags, rest[:packet.size - sizeof(PacketHead)])
            return 0
        self.landed += 1
        wire = <uint8_t*>message + MESSAGE_WIRE_OFFSET
        before = rest[:head_size - sizeof(PacketHead)]
        self.receiver.note(self, "packet", packet.type, packet.flags, before + wire[:packet.size - head_size])
        return 0

    cdef int on_congested(self) except -1:
        self.receiver.note(self, "congested")
        return 0

    cdef int on_drained(self) except -1:
        self.receiver.note(self, "drained")
        return 0

    def send_packet(self, uint8_t type, uint8_t flags, bytes rest):
        """Write one packet."""
        cdef uint32_t size = <uint32_t>(sizeof(PacketHead) + len(rest))
        cdef uint8_t* at = self.packet(type, flags, size)
        memcpy(at + sizeof(PacketHead), <const uint8_t*>rest, len(rest))
        self.written(size)

    def send_message(self, uint8_t type, uint8_t flags, bytes before, bytes wire):
        """Write a packet as `packet_with_message` does: its head, `before`, and the message that is `wire` in a packet's layout."""
        cdef bytes head = bytes(sizeof(PacketHead)) + before
        cdef PacketHead* packet = <PacketHead*><uint8_t*>head
        if self.message != NULL:
            message_release(self.message)
        self.message = message_from_wire(wire, len(wire))
        assert self.message != NULL
        packet.type = type
        packet.flags = flags
        self.packet_with_message(packet, <uint32_t>len(head), self.message)

    def stop_reading(self, uint32_t reason):
        self.pause(reason)

    def go_on_reading(self, uint32_t reason):
        self.resume(reason)

    def read_later(self):
        self.poller.coalesce(self)


cdef class RecordingEnding(Ending):
    """Runs `work` at the end of the turn in which it was asked for."""

    cdef object work

    def __init__(self, work):
        self.work = work

    def ask(self, Poller poller):
        poller.want_ending(self)

    cdef int at_turn_end(self) except -1:
        self.work()
        return 0
