from libc.stdint cimport uint8_t, uint32_t, uint64_t

from leveret.link.packets cimport PacketHead
from leveret.link.stream cimport Stream
from leveret.queue.message cimport Message


cdef class Link(Stream):
    cdef readonly object peer       # the other side's Hello, once it has come
    cdef readonly object receiver   # who answers its control packets
    cdef dict waiting               # request id -> Future
    cdef uint32_t next_request_id
    cdef readonly uint64_t packets_in
    cdef readonly uint64_t packets_out

    cdef int on_packet(self, PacketHead* packet) except -1      # a hot one: a subclass reads it
    cdef uint8_t* packet(self, uint8_t type, uint8_t flags, uint32_t size) except NULL
    cdef int packet_with_message(self, const void* head, size_t head_size, Message* message) except -1
