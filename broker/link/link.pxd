from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.codec.wire cimport Buffer
from leveret.link.packets cimport PacketHead
from leveret.link.stream cimport Stream
from leveret.queue.message cimport Message


cdef class Link(Stream):
    cdef readonly object hello      # what we said of ourselves
    cdef readonly object peer       # the other side's Hello; None until it has come
    cdef readonly object receiver   # who answers its control packets
    cdef readonly object opened     # Future of the peer's Hello
    cdef dict waiting               # request id -> Future
    cdef set answering              # tasks that answer requests
    cdef uint32_t last_request_id
    cdef readonly uint64_t packets_in
    cdef readonly uint64_t packets_out

    cdef Buffer landing_packet      # what lies before the message that is landing

    # For a subclass: read a hot packet. message: NULL, and all `packet.size` bytes (no fewer than a head) are there; or the message in a
    # block of its own, and only what lies before it is at `packet`. The caller releases it.
    cdef int on_packet(self, PacketHead* packet, Message* message) except -1
    # Room for one packet of `size` bytes, its head filled in. The caller fills in the rest and calls `written(size)`.
    cdef uint8_t* packet(self, uint8_t type, uint8_t flags, uint32_t size) except NULL
    # A whole packet: `head` (its struct, `head_size` bytes; `size` is set here), then the message; a large one is held, not copied.
    cdef int packet_with_message(self, PacketHead* head, uint32_t head_size, Message* message) except -1
    cdef bint land_message(self, PacketHead* head, size_t size) except -1
    cdef int send_control(self, list content) except -1
