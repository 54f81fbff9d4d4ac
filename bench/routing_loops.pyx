"""The loops of `bench/routing.py`: each runs one piece of routing many times in C, so that what is timed is the router's own cost.

Publishes go in as the packet bytes that a link would hand over, and out into the buffers of workers that are down: all of the router's work
but the sockets. Times are taken by the caller around the call.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from leveret.codec.wire cimport buffer_consume, buffer_unread
from leveret.link.packets cimport PACKET_PUBLISH, PublishPacket
from leveret.queue.message cimport MESSAGE_HEAD_SIZE, MESSAGE_WIRE_OFFSET, Message
from leveret.router.distributor cimport Distributor, Outlet, Route, Source, Wire
from leveret.router.exchanges.exchange cimport Destinations, Exchange, Subject

cdef enum:
    HELD_KEPT = 1 << 20


cdef void set_subject(Subject* subject, bytes key, bytes properties):
    subject.key = key
    subject.key_size = len(key)
    subject.properties = properties
    subject.properties_size = len(properties)
    subject.more_count = 0


def match_all(Exchange exchange, list keys, uint32_t rounds, bytes properties=b""):
    """Match each key against the exchange's own bindings, `rounds` times over; destinations found."""
    cdef Destinations into = Destinations()
    cdef Subject subject
    cdef uint64_t found = 0
    cdef uint32_t _round
    cdef bytes key
    for _round in range(rounds):
        for key in keys:
            set_subject(&subject, key, properties)
            into.clear()
            exchange.route(&subject, into)
            found += into.count
    return found


def find_routes(Distributor distributor, uint32_t exchange_id, list keys, uint32_t rounds):
    """Find the prepared route of each key, `rounds` times over; queues found."""
    cdef Source source = distributor.sources[exchange_id]
    cdef Subject subject
    cdef Route* route
    cdef bint kept
    cdef uint64_t found = 0
    cdef uint32_t _round
    cdef bytes key
    for _round in range(rounds):
        for key in keys:
            set_subject(&subject, key, b"")
            route = distributor.find_route(source, &subject, &kept)
            found += route.queue_count
            if not kept:
                free(route)
    return found


def publish(Distributor distributor, uint32_t exchange_id, bytes key, uint32_t body_size, uint32_t count):
    """`count` publishes of `body_size` bytes from worker 0; bytes written for all workers."""
    cdef uint32_t wire_size = MESSAGE_HEAD_SIZE - MESSAGE_WIRE_OFFSET + 1 + <uint32_t>len(key) + 2 + body_size
    cdef PublishPacket* packet = <PublishPacket*>calloc(1, sizeof(PublishPacket) + wire_size)
    cdef uint8_t* at = <uint8_t*>packet + sizeof(PublishPacket)
    cdef Message* message = <Message*>(at - MESSAGE_WIRE_OFFSET)
    cdef Wire wire = Wire(at, wire_size, NULL)
    cdef Outlet origin = distributor.outlets[0]
    cdef Outlet outlet
    cdef Subject subject
    cdef uint64_t written = 0
    cdef uint32_t number
    cdef size_t unread
    if packet == NULL:
        raise MemoryError()
    try:
        packet.head.size = sizeof(PublishPacket) + wire_size
        packet.head.type = PACKET_PUBLISH
        packet.exchange_id = exchange_id
        packet.channel_ref = 1
        message.exchange_size = 1
        message.routing_key_size = <uint8_t>len(key)
        message.properties_size = 2
        message.body_size = body_size
        subject.key = at + MESSAGE_HEAD_SIZE - MESSAGE_WIRE_OFFSET + 1
        subject.key_size = len(key)
        subject.properties = subject.key + subject.key_size
        subject.properties_size = 2
        subject.more_count = 0
        memcpy(<void*>subject.key, <const uint8_t*>key, len(key))
        for number in range(count):
            packet.publish_no = number + 1
            distributor.publish(origin, packet, &wire, &subject)
            for outlet in distributor.outlets:
                unread = buffer_unread(&outlet.held)
                if unread > HELD_KEPT:
                    written += unread
                    buffer_consume(&outlet.held, unread)
        return written
    finally:
        free(packet)
