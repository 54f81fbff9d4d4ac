"""The pieces of a stream's output that are not copied into its buffer: parts of messages, sent from where they lie.

A stream's output is its buffer with pieces between some of its bytes. A piece holds a reference to its message until the last byte of it
has been taken by the kernel, or until the stream drops its output. Places in the buffer are kept as distances from one piece to the next,
so they stay right when the buffer slides or grows. Inline, for the stream alone; nothing here knows sockets.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memmove

from leveret.codec.wire cimport Buffer, buffer_consume, buffer_unread
from leveret.queue.message cimport Message, message_release, message_retain

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len

cdef struct Piece:
    Message* message    # with a reference
    const uint8_t* data
    size_t size
    size_t before       # bytes of the buffer that go out after the piece before it and before this one

cdef struct Pieces:
    Piece* items
    uint32_t head       # the first one that is not sent
    uint32_t tail
    uint32_t capacity
    size_t size         # bytes of all pieces
    size_t before       # bytes of the buffer before the last piece

cdef enum:
    PIECES_FIRST = 4
    PIECES_KEPT = 256   # room for more than these is given back once they are sent


cdef inline bint pieces_empty(const Pieces* pieces) noexcept nogil:
    return pieces.head == pieces.tail


cdef inline bint pieces_add(Pieces* pieces, const Buffer* buffer, Message* message, const uint8_t* data, size_t size) noexcept nogil:
    """`size` bytes at `data`, which is inside `message`, follow what is in the buffer now. False: memory is out."""
    cdef uint32_t capacity
    cdef Piece* items
    cdef Piece* piece
    if pieces.tail == pieces.capacity:
        if pieces.head > pieces.capacity / 2:
            memmove(pieces.items, pieces.items + pieces.head, (pieces.tail - pieces.head) * sizeof(Piece))
            pieces.tail -= pieces.head
            pieces.head = 0
        else:
            capacity = pieces.capacity * 2 if pieces.capacity else PIECES_FIRST
            items = <Piece*>realloc(pieces.items, capacity * sizeof(Piece))
            if items == NULL:
                return False
            pieces.items = items
            pieces.capacity = capacity
    piece = &pieces.items[pieces.tail]
    pieces.tail += 1
    message_retain(message)
    piece.message = message
    piece.data = data
    piece.size = size
    piece.before = buffer_unread(buffer) - pieces.before
    pieces.before += piece.before
    pieces.size += size
    return True


cdef inline int pieces_gather(
    const Pieces* pieces, const Buffer* buffer, iovec* vectors, int vectors_max, size_t* total,
) noexcept nogil:
    """The output from its beginning as at most `vectors_max` (2 or more) vectors; how many, and in `total` their bytes."""
    cdef const Piece* piece
    cdef uint8_t* at = buffer.data + buffer.start
    cdef size_t left = buffer_unread(buffer)
    cdef uint32_t index = pieces.head
    cdef int count = 0
    total[0] = 0
    while index < pieces.tail and count + 2 <= vectors_max:
        piece = &pieces.items[index]
        if piece.before:
            vectors[count].iov_base = at
            vectors[count].iov_len = piece.before
            at += piece.before
            left -= piece.before
            total[0] += piece.before
            count += 1
        vectors[count].iov_base = <void*>piece.data
        vectors[count].iov_len = piece.size
        total[0] += piece.size
        count += 1
        index += 1
    if index == pieces.tail and left and count < vectors_max:
        vectors[count].iov_base = at
        vectors[count].iov_len = left
        total[0] += left
        count += 1
    return count


cdef inline void pieces_drop(Pieces* pieces) noexcept nogil:
    """Let go of all of them, sent or not, and of the memory for them."""
    while pieces.head < pieces.tail:
        message_release(pieces.items[pieces.head].message)
        pieces.head += 1
    free(pieces.items)
    pieces.items = NULL
    pieces.head = 0
    pieces.tail = 0
    pieces.capacity = 0
    pieces.size = 0
    pieces.before = 0


cdef inline void pieces_consume(Pieces* pieces, Buffer* buffer, size_t size) noexcept nogil:
    """The first `size` bytes of the output are sent: let go of them."""
    cdef Piece* piece
    cdef size_t now
    while size and pieces.head < pieces.tail:
        piece = &pieces.items[pieces.head]
        if piece.before:
            now = piece.before if piece.before < size else size
            buffer_consume(buffer, now)
            piece.before -= now
            pieces.before -= now
            size -= now
        now = piece.size if piece.size < size else size
        piece.data += now
        piece.size -= now
        pieces.size -= now
        size -= now
        if piece.size or piece.before:
            return
        message_release(piece.message)
        pieces.head += 1
    if pieces.head == pieces.tail:
        pieces.head = 0
        pieces.tail = 0
        if pieces.capacity > PIECES_KEPT:
            pieces_drop(pieces)
    if size:
        buffer_consume(buffer, size)
