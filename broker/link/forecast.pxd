"""What a stream expects behind the large body that is landing: more of its kind, so that they can be received into messages too.

A publisher of large bodies sends one after the other, each with as many bytes before its body as the one before. So the next read has room
for that many bytes, a block for a message, that many bytes, a block, and so on; whoever makes the next message takes the block that is
offered, if it is one for such a message, and finds the body in it. A forecast that does not come true costs a copy, as without it.
Inline, for the stream alone; nothing here knows sockets or frames.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport malloc

from leveret.queue.message cimport Message, message_release

cdef enum:
    FORESEEN_MAX = 16                   # blocks of one read: fewer and larger reads cost less ...
    FORESEEN_BYTES_MAX = 1024 * 1024    # ... but this much is a turn's share
    FORESEEN_BODY_MIN = 16 * 1024       # a smaller body is copied for less
    FORESEEN_BODY_MAX = 256 * 1024
    BESIDE_FORESEEN = 4 * 1024          # read behind the last block: enough for the next body to begin in it

cdef struct Forecast:
    size_t before       # bytes before each body, since the end of the one before
    size_t block_size   # of a message with such a body
    size_t body_at      # where it begins in the block
    size_t body_size    # 0: nothing is expected
    size_t came         # with the last read: about as much is expected of the next


cdef inline int forecast_blocks(const Forecast* forecast, size_t room, Message** blocks) noexcept nogil:
    """Make the blocks that the next read is likely to fill; how many. Each has one reference, the caller's.

    room: for what comes before the bodies, bytes.
    """
    cdef int count = 0
    cdef size_t each = forecast.before + forecast.body_size
    cdef size_t most = min(1 + forecast.came / each, FORESEEN_BYTES_MAX / each, room / forecast.before)
    while count < FORESEEN_MAX and <size_t>count < most:
        blocks[count] = <Message*>malloc(forecast.block_size)
        if blocks[count] == NULL:
            break
        blocks[count].references = 1
        count += 1
    return count


cdef inline uint8_t* forecast_body(const Forecast* forecast, Message* block) noexcept nogil:
    return <uint8_t*>block + forecast.body_at


cdef inline void forecast_release(Message** blocks, int count) noexcept nogil:
    """Give the caller's references back: what nobody has taken is freed."""
    cdef int index
    for index in range(count):
        message_release(blocks[index])
