"""The loops of `bench/queues.py`: each runs one piece of a queue's work many times in C, so that what is timed is the queue's own cost.

Consumers here do the least a consumer can do. Times are taken by the caller around the call.
"""

from libc.stdint cimport UINT64_MAX, uint64_t
from libc.string cimport memset

from leveret.queue.consumer cimport Consumer
from leveret.queue.message cimport Message, message_body, message_new, message_release
from leveret.queue.queue cimport SETTLE_ACK, SETTLE_REQUEUE, Queue
from leveret.queue.ring cimport Entry


cdef class CountingConsumer(Consumer):
    """Counts deliveries."""

    cdef readonly uint64_t count

    cdef int deliver(self, Message* message, uint64_t delivery_no, bint redelivered) except -1:
        self.count += 1
        return 0


cdef Message* message_of(int body_size) except NULL:
    cdef Message* message = message_new(<const unsigned char*>b"", 0, <const unsigned char*>b"queue", 5, <const unsigned char*>b"\0\0", 2,
                                        body_size, 0)
    if message == NULL:
        raise MemoryError
    memset(message_body(message), ord("x"), body_size)
    return message


def publish_new(Queue queue not None, long count, int body_size):
    """Publish `count` messages, each made for it."""
    cdef long _
    cdef Message* message
    for _ in range(count):
        message = message_of(body_size)
        queue.publish(message)
        message_release(message)


def publish_same(Queue queue not None, long count):
    """Publish one message `count` times: the queue alone, without the allocator."""
    cdef long _
    cdef Message* message = message_of(16)
    for _ in range(count):
        queue.publish(message)
    message_release(message)


def publish_and_ack(Queue queue not None, Consumer consumer not None, long count):
    """Publish one message `count` times and ack each delivery at once."""
    cdef long _
    cdef uint64_t delivery_no
    cdef Message* message = message_of(16)
    for _ in range(count):
        delivery_no = consumer.next_delivery_no
        queue.publish(message)
        queue.settle(consumer, delivery_no, delivery_no, SETTLE_ACK)
    message_release(message)


def publish_and_ack_window(Queue queue not None, Consumer consumer not None, long count, long window):
    """Publish with `window` unacked behind, acking the oldest each time."""
    cdef long _
    cdef uint64_t oldest = consumer.next_delivery_no
    cdef Message* message = message_of(16)
    for _ in range(window):
        queue.publish(message)
    for _ in range(count):
        queue.publish(message)
        queue.settle(consumer, oldest, oldest, SETTLE_ACK)
        oldest += 1
    queue.settle(consumer, 0, UINT64_MAX, SETTLE_ACK)
    message_release(message)


def ack_each(Queue queue not None, Consumer consumer not None, uint64_t first, long count):
    cdef long index
    for index in range(count):
        queue.settle(consumer, first + index, first + index, SETTLE_ACK)


def settle_all(Queue queue not None, Consumer consumer not None, bint requeue):
    queue.settle(consumer, 0, UINT64_MAX, SETTLE_REQUEUE if requeue else SETTLE_ACK)


def requeue_each(Queue queue not None, Consumer consumer not None, uint64_t first, long count, long step):
    """Requeue `count` deliveries one by one, `step` numbers apart (it wraps around): in order, or scattered."""
    cdef long index
    cdef uint64_t number
    for index in range(count):
        number = first + <uint64_t>((index * step) % count)
        queue.settle(consumer, number, number, SETTLE_REQUEUE)


def get_each(Queue queue not None, Consumer getter not None, long count):
    cdef long _
    cdef uint64_t delivery_no
    cdef Entry entry
    for _ in range(count):
        if not queue.take(getter, &delivery_no, &entry):
            raise ValueError("the queue is empty")
        message_release(entry.message)


def pump_all(Queue queue not None):
    """Slice after slice."""
    while queue.pump():
        pass
