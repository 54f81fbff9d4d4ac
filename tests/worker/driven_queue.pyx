"""A queue of a worker with a Python face: persistent messages go in, are handed to `RecordingConsumer`s and acknowledged by number.

Only the tests of what lies behind a durable queue use it: its journal, the store and the committer.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from leveret.queue.consumer cimport Consumer
from leveret.queue.message cimport MESSAGE_PERSISTENT, Message, message_body, message_new, message_release
from leveret.queue.queue cimport SETTLE_ACK
from leveret.worker.state cimport ShardQueue


cdef class DrivenQueue(ShardQueue):
    def put(self, bytes body not None):
        """Publish a persistent message; whether the journal has it."""
        cdef const unsigned char* data = body
        cdef Message* message = message_new(NULL, 0, NULL, 0, b"\0\0", 2, <unsigned int>len(body), MESSAGE_PERSISTENT)
        if message == NULL:
            raise MemoryError
        memcpy(message_body(message), data, len(body))
        try:
            return bool(self.publish(message))
        finally:
            message_release(message)

    def ack(self, Consumer consumer not None, uint64_t first, uint64_t last):
        """Acknowledge the consumer's deliveries with these numbers; how many there were."""
        return self.settle(consumer, first, last, SETTLE_ACK)

    def pump_now(self):
        """What a later turn would do of a pump that did not finish."""
        return bool(self.pump())
