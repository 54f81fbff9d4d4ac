"""A message as one refcounted block of C memory: a small head, then exchange, routing key, properties and body as the publisher sent them.

Whoever stores a pointer holds a reference (`message_retain`) and gives it back (`message_release`); the last one frees the block. From
`properties_size` to the end the block is laid out as the packets carry it (`leveret.link.packets`), so that sending one to another process
is a single copy. Nothing here is ever changed after it has been filled in; what belongs to one queue's copy (redelivered, position) is the
queue's. A body may arrive in pieces: `message_new` reserves all of it, and the connection fills it before anybody else sees the message.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef enum:
    MESSAGE_PERSISTENT = 1      # delivery-mode 2
    MESSAGE_MANDATORY = 2       # the publisher asked for a basic.return when nobody takes it
    MESSAGE_IMMEDIATE = 4
    MESSAGE_EXPIRES = 8         # has the property expiration
    MESSAGE_DIED = 16           # a dead letter: its x-death headers are the broker's own (`leveret.queue.deaths`)
    MESSAGE_SHUNS_CYCLE = 32    # it died last without anybody's rejection: no queue in which it has died takes it again

cdef struct Message:
    uint32_t references
    # From here on as in a packet (little-endian, this machine's order).
    uint32_t properties_size    # property flags and property list, as in the content header
    uint32_t body_size
    uint8_t exchange_size
    uint8_t routing_key_size
    uint16_t flags
    # exchange, routing key, properties, body follow.

cdef enum:
    MESSAGE_HEAD_SIZE = 16      # sizeof(Message)
    MESSAGE_WIRE_OFFSET = 4     # where the part that travels begins: after `references`


cdef inline uint8_t* message_exchange(Message* message) noexcept nogil:
    return <uint8_t*>message + MESSAGE_HEAD_SIZE


cdef inline uint8_t* message_routing_key(Message* message) noexcept nogil:
    return <uint8_t*>message + MESSAGE_HEAD_SIZE + message.exchange_size


cdef inline uint8_t* message_properties(Message* message) noexcept nogil:
    return <uint8_t*>message + MESSAGE_HEAD_SIZE + message.exchange_size + message.routing_key_size


cdef inline uint8_t* message_body(Message* message) noexcept nogil:
    return message_properties(message) + message.properties_size


cdef inline size_t message_size(const Message* message) noexcept nogil:
    """Bytes of the whole block: what one message costs in memory, the allocator's own share aside."""
    return (<size_t>MESSAGE_HEAD_SIZE + message.exchange_size + message.routing_key_size
            + message.properties_size + message.body_size)


cdef inline void message_fill(
    Message* message,
    const uint8_t* exchange, uint8_t exchange_size,
    const uint8_t* routing_key, uint8_t routing_key_size,
    const uint8_t* properties, uint32_t properties_size,
    uint32_t body_size, uint16_t flags,
) noexcept nogil:
    """All but the references and the body."""
    message.properties_size = properties_size
    message.body_size = body_size
    message.exchange_size = exchange_size
    message.routing_key_size = routing_key_size
    message.flags = flags
    memcpy(message_exchange(message), exchange, exchange_size)
    memcpy(message_routing_key(message), routing_key, routing_key_size)
    memcpy(message_properties(message), properties, properties_size)


cdef inline Message* message_new(
    const uint8_t* exchange, uint8_t exchange_size,
    const uint8_t* routing_key, uint8_t routing_key_size,
    const uint8_t* properties, uint32_t properties_size,
    uint32_t body_size, uint16_t flags,
) noexcept nogil:
    """A message with one reference and its body not yet filled in, or NULL when memory is out."""
    cdef Message* message = <Message*>malloc(
        <size_t>MESSAGE_HEAD_SIZE + exchange_size + routing_key_size + properties_size + body_size)
    if message == NULL:
        return NULL
    message.references = 1
    message_fill(message, exchange, exchange_size, routing_key, routing_key_size, properties, properties_size, body_size, flags)
    return message


cdef inline Message* message_begun(const uint8_t* wire, size_t came, size_t size) noexcept nogil:
    """A message of which the first `came` of `size` bytes of a packet are there, the rest to be filled in.

    NULL: as for `message_from_wire`, or what has come is less than the head's fields.
    """
    cdef Message* message
    if came < MESSAGE_HEAD_SIZE - MESSAGE_WIRE_OFFSET or came > size:
        return NULL
    message = <Message*>malloc(size + MESSAGE_WIRE_OFFSET)
    if message == NULL:
        return NULL
    message.references = 1
    memcpy(<uint8_t*>message + MESSAGE_WIRE_OFFSET, wire, came)
    if message_size(message) != size + MESSAGE_WIRE_OFFSET:
        free(message)
        return NULL
    return message


cdef inline Message* message_from_wire(const uint8_t* wire, size_t size) noexcept nogil:
    """A message out of a packet's bytes (`size` of them, head fields first), or NULL when memory is out or the sizes disagree."""
    return message_begun(wire, size, size)


cdef inline void message_retain(Message* message) noexcept nogil:
    message.references += 1


cdef inline void message_release(Message* message) noexcept nogil:
    message.references -= 1
    if message.references == 0:
        free(message)
