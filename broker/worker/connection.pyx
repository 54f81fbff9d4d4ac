"""A client's connection: from the socket's bytes to the frames of its channels, and the ways in which it ends.

It owns the channels and the loop over frames. Publish, content, ack, reject, nack and get go straight to their channel, in C; all other
methods become objects and go to `leveret.worker.session` (channel 0) or `leveret.worker.methods`, in Python. While one of those waits for
another process the whole connection is not read: the order of its methods is kept, and nothing piles up.

Errors are caught here and nowhere else: an `AmqpError` out of a channel's method closes the channel if it is soft and the connection if it
is hard; any other exception is a bug, logged whole and answered with 541. Everything else in the worker goes on.
"""

import asyncio
import logging
import time

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from leveret.codec.frames cimport (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEAD_SIZE,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    Frame,
    body_piece,
    frame_end_error,
    frame_fault_error,
    next_frame,
    shown_frame,
    store_frame_head,
    write_body_frames,
    write_heartbeat,
    write_method_frame,
)
from leveret.codec.methods cimport (
    METHOD_BASIC_ACK,
    METHOD_BASIC_CONSUME,
    METHOD_BASIC_GET,
    METHOD_BASIC_NACK,
    METHOD_BASIC_PUBLISH,
    METHOD_BASIC_REJECT,
    METHOD_CHANNEL_CLOSE,
    METHOD_CHANNEL_CLOSE_OK,
    METHOD_CHANNEL_OPEN,
    METHOD_CONNECTION_CLOSE,
    METHOD_CONNECTION_CLOSE_OK,
    METHOD_EXCHANGE_BIND,
    METHOD_EXCHANGE_DECLARE,
    METHOD_EXCHANGE_UNBIND,
    METHOD_QUEUE_BIND,
    METHOD_QUEUE_DECLARE,
    METHOD_QUEUE_UNBIND,
    Method,
    decode_method_at,
)
from leveret.codec.wire cimport buffer_unread, load_u16, load_u32
from leveret.link.forecast cimport FORESEEN_BODY_MAX, FORESEEN_BODY_MIN
from leveret.link.stream cimport BY_REFERENCE_MIN, LANDING_MIN, PAUSED_CLOSING, unsent
from leveret.queue.message cimport Message, message_body, message_release, message_size
from leveret.worker.channel cimport EXPECTS_BODY, EXPECTS_HEADER, EXPECTS_METHOD, Channel
from leveret.worker.state cimport FLOW_HOLD_MS, FLOW_PER_TICK

from leveret.codec.errors import (
    AccessRefused,
    AmqpError,
    ChannelError,
    CommandInvalid,
    ConnectionForced,
    FrameError,
    InternalError,
    NotAllowed,
    ResourceError,
    UnexpectedFrame,
)
from leveret.codec.methods import (
    ChannelClose,
    ChannelCloseOk,
    ChannelOpenOk,
    ConnectionBlocked,
    ConnectionClose,
    ConnectionUnblocked,
)

log = logging.getLogger(__name__)

cdef enum:
    FRAME_MAX_BEFORE_TUNE = 16384   # large enough for a JSON web token, small enough for a thousand strangers
    PROTOCOL_HEADER_SIZE = 8
    CLOSE_OK_SIZE = 12
    CHANNELS_FIRST = 2
    # See `weigh_far`.
    FAR_FIRST = 64
    FAR_LAST = 65536
    FAR_PER_TURN_MAX = 8
    FAR_BODY_LARGE = 16 * 1024
    # See `weigh_read`.
    SMALL_READ_MAX = 8              # messages and settlements
    SMALL_READ_BYTES_MAX = 16 * 1024
    SMALL_READ_GAP_US = 100
    SMALL_READS_GONE_US = 10_000
    SMALL_READS_LEAST = 8
    SMALL_READS_FIRST = 64
    SMALL_READS_MOST = 32768
    LATE_READ_MIN = 2
    LATE_READ_BYTES_MAX = 64 * 1024
    LATE_READS_WORTH = 4
    ANSWERS_UNREAD_MAX = 4 * 1024 * 1024    # 200,000 confirms; one that publishes first and reads later has as many in its socket

QUEUES_GONE_S = 1.0                 # how long connection.close waits for the router, which may be starting anew

cdef const uint8_t* PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
cdef const uint8_t* CLOSE_OK_FRAME = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\xce"
cdef const uint8_t* PROTOCOL_HEADER_0_9 = b"AMQP\x01\x01\x00\x09"


cdef bytes arguments_of(uint32_t kind, const uint8_t* payload, size_t size):
    """The field table that ends a declare, (un)bind or consume, as the client's own bytes: refusals and redeclares mind its wire types."""
    cdef size_t at = 6              # class, method, reserved
    cdef int names
    if kind == METHOD_QUEUE_DECLARE:
        names = 1
    elif kind == METHOD_EXCHANGE_DECLARE or kind == METHOD_BASIC_CONSUME:
        names = 2
    elif kind == METHOD_QUEUE_BIND or kind == METHOD_QUEUE_UNBIND or kind == METHOD_EXCHANGE_BIND or kind == METHOD_EXCHANGE_UNBIND:
        names = 3
    else:
        return b""
    # The method has been decoded: every length holds.
    while names:
        at += 1 + payload[at]
        names -= 1
    if kind != METHOD_QUEUE_UNBIND:
        at += 1                     # bits
    return payload[at:size]


cdef class Connection(Stream):
    """Takes over an accepted socket. `name`: `client address -> our address`, as RabbitMQ shows it."""

    def __init__(self, poller, sock, worker, session, str name, str owner):
        self.state = worker.state
        self.worker = worker
        self.session = session
        self.name = name
        self.owner = owner
        self.user = ""
        self.frame_max = FRAME_MAX_BEFORE_TUNE
        self.channel_max = 0
        self.far_worker = -1
        self.far_limit = FAR_FIRST
        self.small_reads_due = SMALL_READS_FIRST
        self.connected_at_ms = time.time_ns() // 1_000_000
        super().__init__(poller, sock)

    def __dealloc__(self):
        free(self.channels)

    def __repr__(self):
        return f"<Connection {self.name}>"

    # --- bytes in

    cdef Py_ssize_t on_bytes(self, const uint8_t* data, size_t size) except -1:
        cdef size_t at = 0
        cdef Py_ssize_t taken
        cdef Frame frame
        if not self.header_seen:
            if size < PROTOCOL_HEADER_SIZE:
                return 0
            self.on_protocol_header(data)
            at = PROTOCOL_HEADER_SIZE
        if self.landing != NULL and not self.paused and not self.lost_sync:
            self.on_landed_frame(data[0])
            if self.fd < 0:
                return size
            at = 1
        while not self.paused:
            # One `try` for a row of frames: entering one costs as much as serving a small frame.
            try:
                while not self.paused:
                    if self.lost_sync:
                        # Only the answer to our close still means something: a client sends it by itself.
                        if (self.closed and size >= CLOSE_OK_SIZE
                                and memcmp(data + size - CLOSE_OK_SIZE, CLOSE_OK_FRAME, CLOSE_OK_SIZE) == 0):
                            self.close("closed by us, and the client has agreed")
                        return size
                    taken = next_frame(data + at, size - at, self.frame_max, &frame)
                    if taken <= 0:
                        break
                    at += taken
                    self.on_frame(&frame)
                    if self.fd < 0:
                        return size
            except Exception as error:
                self.fail(self.channel_at(frame.channel), error)
                if self.fd < 0:
                    return size
                continue
            if self.paused:
                break
            if taken < 0:
                self.on_fault(taken, data + at, size - at)
                return size
            if size - at >= FRAME_HEAD_SIZE and data[at] == FRAME_BODY:
                at += self.land_body(data + at, size - at)
            break
        if self.paused & PAUSED_CLOSING:
            return size
        return at

    # --- reading less often

    cdef int on_readable(self) except -1:
        cdef uint64_t bytes_before = self.received_bytes
        cdef bint late = self.read_late
        self.read_late = False
        self.awaited = False
        self.unawaited = 0
        Stream.on_readable(self)
        if self.fd >= 0 and not self.paused:
            self.weigh_read(late, self.received_bytes - bytes_before)
        return 0

    cdef int weigh_read(self, bint late, uint64_t size) except -1:
        """Enough was read that brought little: is the next read to be a moment later, with all that has come by then?

        A client that writes each message, or each ack, by itself, and waits for no answer, costs a wake-up and a read for each of its
        writes (pika writes three times a message), ten times what the message costs. Nobody is kept waiting who waits: not for a confirm,
        an answer, a message that the ack would let through, or another worker (which the connection may be moved to). It must have gone on
        for a while, since the end of a row is read late for nothing: twice as long the next time if few late reads were worth it, half as
        long if several in a row were (pika acks in bursts, and takes its next messages in between).
        """
        cdef uint64_t since_us = self.poller.now_us - self.read_at_us
        self.read_at_us = self.poller.now_us
        if late:
            if not self.awaited and LATE_READ_MIN <= self.unawaited <= LATE_READ_MAX and size <= LATE_READ_BYTES_MAX:
                self.late_reads += 1
                return self.read_later()
            self.small_reads = 0
            if self.late_reads < LATE_READS_WORTH:
                self.small_reads_due = min(2 * self.small_reads_due, <uint32_t>SMALL_READS_MOST)
            else:
                self.small_reads_due = max(self.small_reads_due // 2, <uint32_t>SMALL_READS_LEAST)
        elif (self.awaited or self.unawaited > SMALL_READ_MAX or size > SMALL_READ_BYTES_MAX
                or since_us > SMALL_READS_GONE_US):
            self.small_reads = 0
        elif self.unawaited and since_us <= SMALL_READ_GAP_US:
            self.small_reads += 1
            if self.small_reads >= self.small_reads_due:
                self.late_reads = 0
                return self.read_later()
        return 0

    cdef int read_later(self) except -1:
        self.poller.coalesce(self)
        self.read_late = self.coalescing
        return 0

    cdef size_t land_body(self, const uint8_t* data, size_t size) except? 0:
        """A body frame has come in part: let the rest of its payload come straight into its message. How much was taken: all or nothing."""
        cdef uint32_t payload_size = load_u32(data + 3)
        cdef size_t came = size - FRAME_HEAD_SIZE
        cdef Channel channel
        cdef uint8_t* into
        if payload_size < LANDING_MIN or not self.open or self.closed:
            return 0
        channel = self.channel_at(load_u16(data + 1))
        if channel is None or channel.closing or channel.expects != EXPECTS_BODY:
            return 0
        if payload_size > channel.message.body_size - channel.filled:
            return 0        # refused when it is whole, like any other mistake
        into = message_body(channel.message) + channel.filled
        memcpy(into, data + FRAME_HEAD_SIZE, came)
        self.landing_frame.type = FRAME_BODY
        self.landing_frame.channel = channel.id
        self.landing_frame.size = payload_size
        self.landing_frame.payload = into
        self.land(channel.message, into + came, payload_size - came)
        self.forecast.body_size = 0
        if payload_size == channel.message.body_size and FORESEEN_BODY_MIN <= payload_size <= FORESEEN_BODY_MAX:
            # The end octet of this body, the next one's method and header, and its head.
            self.forecast.before = 1 + FRAME_OVERHEAD + channel.method_size + FRAME_OVERHEAD + channel.header_size + FRAME_HEAD_SIZE
            self.forecast.block_size = message_size(channel.message)
            self.forecast.body_at = message_body(channel.message) - <uint8_t*>channel.message
            self.forecast.body_size = payload_size
        return size

    cdef int on_landed_frame(self, uint8_t octet) except -1:
        """The payload has landed, and the octet after it has come."""
        cdef Message* message = self.landing
        self.landing = NULL
        try:
            if octet != FRAME_END:
                self.lost_sync = True
                self.failed_method = 0
                raise frame_end_error(&self.landing_frame, octet)
            self.on_frame(&self.landing_frame)
        except Exception as error:
            self.fail(None if self.lost_sync else self.channel_at(self.landing_frame.channel), error)
        finally:
            message_release(message)
        return 0

    cdef int on_protocol_header(self, const uint8_t* data) except -1:
        self.header_seen = True
        if memcmp(data, PROTOCOL_HEADER, PROTOCOL_HEADER_SIZE) == 0 or memcmp(data, PROTOCOL_HEADER_0_9, PROTOCOL_HEADER_SIZE) == 0:
            self.session.begin(self)
            return 0
        self.session.refuse_header(self, data[:PROTOCOL_HEADER_SIZE])
        self.lost_sync = True
        self.write(PROTOCOL_HEADER, PROTOCOL_HEADER_SIZE)
        return self.close_after_flush()

    cdef int on_fault(self, Py_ssize_t fault, const uint8_t* data, size_t size) except -1:
        """Nothing after a malformed frame can be read. Before connection.open the socket just closes, as RabbitMQ's does."""
        error = frame_fault_error(fault, data, size, self.frame_max)
        self.lost_sync = True
        self.failed_method = 0
        self.fail(None, error)
        return 0

    cdef int on_frame(self, Frame* frame) except -1:
        """Serve one frame. What it raises is the answer to its channel, or to the client: `fail`."""
        cdef Channel channel
        self.failed_method = 0
        if frame.channel == 0:
            return self.on_connection_frame(frame)
        if not self.open or self.closed:
            if not self.closed:
                raise UnexpectedFrame(shown_frame(frame.type, frame.payload, frame.size, frame.size))
            return 0
        channel = self.channel_at(frame.channel)
        if frame.type == FRAME_METHOD:
            if frame.size >= 4:
                self.failed_method = load_u32(frame.payload)
            return self.on_method(channel, frame)
        if frame.type == FRAME_HEARTBEAT:
            raise UnexpectedFrame(shown_frame(frame.type, frame.payload, frame.size, frame.size))
        if channel is None:
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        if channel.closing:
            return 0
        if channel.expects != EXPECTS_METHOD:
            self.failed_method = METHOD_BASIC_PUBLISH
        if frame.type == FRAME_HEADER:
            return channel.on_header(frame.payload, frame.size)
        return channel.on_body(frame.payload, frame.size)

    cdef int on_method(self, Channel channel, Frame* frame) except -1:
        cdef uint32_t kind = self.failed_method
        if channel is None:
            return self.on_cold(None, frame)
        if channel.closing:
            if kind == METHOD_CHANNEL_CLOSE_OK:
                self.remove_channel(channel)
            elif kind == METHOD_CHANNEL_CLOSE:
                # It crossed ours, whose close-ok is still to come: the id is not free before that.
                self.send_method(frame.channel, ChannelCloseOk())
            elif kind == METHOD_CHANNEL_OPEN:
                raise ChannelError("second 'channel.open' seen")
            return 0
        if channel.expects != EXPECTS_METHOD:
            if channel.expects == EXPECTS_HEADER:
                raise UnexpectedFrame("expected content header for class 60, got non content header frame instead")
            raise UnexpectedFrame("expected content body, got non content body frame instead")
        if kind == METHOD_BASIC_PUBLISH:
            return channel.on_publish(frame.payload, frame.size)
        if kind == METHOD_BASIC_ACK:
            return channel.on_ack(frame.payload, frame.size)
        if kind == METHOD_BASIC_REJECT:
            return channel.on_reject(frame.payload, frame.size)
        if kind == METHOD_BASIC_NACK:
            return channel.on_nack(frame.payload, frame.size)
        if kind == METHOD_BASIC_GET:
            self.awaited = True
            if channel.on_get(frame.payload, frame.size):
                return 0
        return self.on_cold(channel, frame)

    cdef int on_cold(self, Channel channel, Frame* frame) except -1:
        cdef uint32_t kind = self.failed_method
        cdef Method method
        self.awaited = True
        self.failed_method = 0          # a method that cannot be read is not named, unless its decoder names it
        method = decode_method_at(frame.payload, frame.size)
        self.failed_method = kind
        if channel is None:
            if kind != METHOD_CHANNEL_OPEN:
                raise ChannelError("expected 'channel.open'")
            return self.open_channel(frame.channel)
        if kind == METHOD_CHANNEL_OPEN:
            raise ChannelError("second 'channel.open' seen")
        if kind == METHOD_CHANNEL_CLOSE:
            self.remove_channel(channel)
            self.send_method(frame.channel, ChannelCloseOk())
            return 0
        if kind == METHOD_CHANNEL_CLOSE_OK:
            raise CommandInvalid("unimplemented method")
        return self.carry_on(
            channel, method, self.worker.methods.serve(channel, method, arguments_of(kind, frame.payload, frame.size)))

    cdef int on_connection_frame(self, Frame* frame) except -1:
        cdef uint32_t kind
        if frame.type == FRAME_HEARTBEAT:
            if frame.size:
                raise FrameError(f"{shown_frame(frame.type, frame.payload, frame.size, frame.size)}: unknown_frame")
            return 0
        if frame.type != FRAME_METHOD:
            raise UnexpectedFrame(shown_frame(frame.type, frame.payload, frame.size, frame.size))
        if frame.size >= 4:
            self.failed_method = load_u32(frame.payload)
        if self.closed:
            if self.failed_method == METHOD_CONNECTION_CLOSE_OK:
                self.close("closed by us, and the client has agreed")
            elif self.failed_method == METHOD_CONNECTION_CLOSE:
                self.session.answer_close(self)
            return 0
        self.awaited = True
        kind = self.failed_method
        self.failed_method = 0
        method = decode_method_at(frame.payload, frame.size)
        self.failed_method = kind
        return self.carry_on(None, method, self.session.on_method(self, method))

    # --- cold methods

    cdef int carry_on(self, Channel channel, object method, object result) except -1:
        """A cold method has been called. If it waits for something, the connection waits with it."""
        if result is None:
            return 0
        self.task = asyncio.ensure_future(self._wait(channel, method, result))
        return self.pause(PAUSED_METHOD)

    async def _wait(self, Channel channel, Method method, awaitable):
        try:
            await awaitable
        except Exception as error:
            self.failed_method = method.kind
            if self.fd >= 0:
                self.fail(channel, error)
            elif not isinstance(error, AmqpError):
                log.exception("%s on %s failed after the connection had closed", method.name, self.name)
        finally:
            self.task = None
            self.resume(PAUSED_METHOD)

    def open_channel(self, uint16_t id):
        if self.channel_max and <uint32_t>self.channel_count >= self.channel_max:
            raise NotAllowed(
                f"number of channels opened ({self.channel_count}) has reached the negotiated channel_max ({self.channel_max})")
        if self.channel_max and id > self.channel_max:
            # The protocol's rule, and what bounds our table: RabbitMQ lets the number be any, as long as there are not too many.
            raise NotAllowed(f"channel {id} is higher than the negotiated channel_max ({self.channel_max})")
        self.place_channel(id)
        self.send_method(id, ChannelOpenOk())
        return 0

    cdef Channel place_channel(self, uint16_t id):
        """A new channel under that id, which is free."""
        cdef Channel channel
        cdef size_t size
        cdef void** grown
        if id >= self.channels_size:
            size = max(<size_t>id + 1, self.channels_size * 2, CHANNELS_FIRST)
            grown = <void**>realloc(self.channels, size * sizeof(void*))
            if grown == NULL:
                raise MemoryError
            memset(grown + self.channels_size, 0, (size - self.channels_size) * sizeof(void*))
            self.channels = grown
            self.channels_size = size
        channel = Channel(self, id)
        Py_INCREF(channel)
        self.channels[id] = <void*>channel
        self.channel_count += 1
        return channel

    cdef Channel channel_at(self, uint16_t id):
        if id < self.channels_size and self.channels[id] != NULL:
            return <Channel>self.channels[id]
        return None

    def remove_channel(self, Channel channel):
        """Its close has been answered: the id is free again."""
        if self.channels[channel.id] == <void*>channel:
            self.channels[channel.id] = NULL
            self.channel_count -= 1
            if not channel.closing:
                self.worker.consumers_gone(channel.release())
            Py_DECREF(channel)

    def all_channels(self):
        """The channels that are open, by id."""
        return [<Channel>self.channels[id] for id in range(self.channels_size) if self.channels[id] != NULL]

    # --- errors

    def fail(self, Channel channel, error):
        """Answer an error: close the channel (soft), or the connection (hard, and everything on channel 0)."""
        if isinstance(error, MemoryError):
            log.error("no memory for what %s asks", self.name)
            error = ResourceError("out of memory")
        elif not isinstance(error, AmqpError):
            log.error("a bug while serving %s", self.name, exc_info=error)
            error = InternalError(type(error).__name__)
        if isinstance(error, AccessRefused) and not self.open:
            self.failed_method = 0      # RabbitMQ names no method for a refused login
        if not error.class_id:
            error.class_id = self.failed_method >> 16
            error.method_id = self.failed_method & 0xFFFF
        if error.hard or channel is None or not self.open:
            self.close_with(error)
            return
        if channel.closing:
            return
        log.warning("channel error on %s, channel %d, user '%s': %s", self.name, channel.id, self.user, error.reply_text)
        self.send_method(channel.id, ChannelClose(
            reply_code=error.reply_code, reply_text=error.reply_text,
            failing_class_id=error.class_id, failing_method_id=error.method_id))
        channel.closing = True
        self.worker.consumers_gone(channel.release())

    def close_with(self, error):
        """Send connection.close and wait for the answer, for three seconds at most."""
        if self.parted:
            self.close("closed by the client")
        if self.closed or self.fd < 0 or self.travelling:
            return
        log.warning("connection error on %s, user '%s': %s", self.name, self.user, error.reply_text)
        if not self.session.hears_close(self, error):
            return
        close = ConnectionClose(
            reply_code=error.reply_code, reply_text=error.reply_text,
            failing_class_id=error.class_id, failing_method_id=error.method_id)
        self.closed = True
        self.release_channels()
        if self.has_exclusive and not isinstance(error, ConnectionForced):
            # Its exclusive queues are gone when the client hears of it, as with RabbitMQ.
            self.worker.spawn(self.say_close(close, self.worker.exclusive_gone(self)))
        else:
            self.send_method(0, close)
        self.worker.parting.begin(self)
        # Read again, whatever stopped it: the answer must come through.
        self.resume(~<uint32_t>(PAUSED_CLOSING | PAUSED_METHOD))

    async def say_close(self, Method close, queues_gone):
        await asyncio.wait({queues_gone}, timeout=QUEUES_GONE_S)
        self.send_method(0, close)

    def release_channels(self):
        cdef size_t id
        cdef Channel channel
        for id in range(self.channels_size):
            if self.channels[id] == NULL:
                continue
            channel = <Channel>self.channels[id]
            self.channels[id] = NULL
            if not channel.closing:
                self.worker.consumers_gone(channel.release())
            Py_DECREF(channel)
        self.channel_count = 0

    cdef int on_closed(self, str reason) except -1:
        self.release_channels()
        self.worker.connection_closed(self, "closed by the client" if self.parted else reason)
        return 0

    cdef bint close_when_hung(self) noexcept:
        return self.paused & PAUSED_ALARM != 0

    # --- the session's

    def opened(self, vhost, str user):
        """connection.open-ok is being sent: channels may come."""
        self.vhost = vhost
        self.user = user
        self.open = True

    def client_closed(self):
        """connection.close has come: its answer is being sent, and nothing else counts any more."""
        self.closed = True
        self.release_channels()

    # --- output

    cdef int answered(self, size_t size) except -1:
        """`size` bytes of an answer are written: to a method, a publish or a get, not a delivery to a consumer, which waits for room.

        A client that asks and does not read is not read either, or its answers would fill the memory.
        """
        if unsent(self) == 0:
            self.answer_bytes = 0
        self.answer_bytes += size
        self.written(size)
        if self.answer_bytes > ANSWERS_UNREAD_MAX and unsent(self) > ANSWERS_UNREAD_MAX:
            self.pause(PAUSED_UNREAD)
        return 0

    cdef int answered_with(self, uint16_t channel_id, Message* message, size_t head_size) except -1:
        """Of an answer with a message all that goes before the body is written, `head_size` bytes: write the body, and count all of it."""
        if unsent(self) == 0:
            self.answer_bytes = 0
        self.out.length += head_size
        self.answer_bytes += head_size + message.body_size
        self.write_body(channel_id, message)
        return self.answered(0)

    cdef int write_body(self, uint16_t channel_id, Message* message) except -1:
        """The body frames of a message; those of a large one are sent from where it lies, and must be a message in a block of its own."""
        cdef size_t piece = body_piece(self.frame_max)
        cdef size_t left = message.body_size
        cdef const uint8_t* body = message_body(message)
        cdef size_t now
        if left < BY_REFERENCE_MIN or piece < BY_REFERENCE_MIN:
            write_body_frames(&self.out, channel_id, body, left, self.frame_max)
            return self.written(0)
        while left:
            now = piece if left > piece else left
            # Room for the end octet too: behind the piece nothing may fail.
            store_frame_head(self.reserve(FRAME_OVERHEAD), FRAME_BODY, channel_id, <uint32_t>now)
            self.out.length += FRAME_HEAD_SIZE
            self.write_from(message, body, now)
            self.reserve(1)[0] = FRAME_END
            self.written(1)
            body += now
            left -= now
        return 0

    cdef int send_method(self, uint16_t channel_id, Method method) except -1:
        if self.fd < 0:
            return 0
        cdef size_t before = buffer_unread(&self.out)
        if unsent(self) == 0:
            self.answer_bytes = 0
        write_method_frame(&self.out, channel_id, method)
        self.answer_bytes += buffer_unread(&self.out) - before
        return self.answered(0)

    def send(self, Method method):
        """Write a method on channel 0."""
        if not self.closed:
            self.send_method(0, method)

    def send_last(self, Method method):
        """Write a method on channel 0 and let the client close the socket, within three seconds.

        As RabbitMQ does. Were it closed at once, clients that read on while they take this answer in (Go's) would take the end for a
        failure. One that does not take the answer at all is not waited for any longer.
        """
        if self.fd < 0:
            return
        self.send_method(0, method)
        self.parted = True
        self.lost_sync = True           # whatever it still sends is passed over
        self.worker.parting.begin(self)
        self.resume(~<uint32_t>(PAUSED_CLOSING | PAUSED_METHOD))

    def parting_timed_out(self):
        """It was given time to close its socket after close-ok, or to answer our connection.close."""
        self.close("the client left its socket open" if self.parted else "the client did not answer connection.close")

    def send_frames(self, bytes frames):
        """Write whole frames that were encoded before. The client's answer to them is waited for, so they are few."""
        self.write(<const uint8_t*>frames, len(frames))

    def send_heartbeat(self):
        write_heartbeat(&self.out)
        self.written(0)

    cdef int on_drained(self) except -1:
        cdef size_t id
        self.answer_bytes = 0
        self.resume(PAUSED_UNREAD)
        for id in range(self.channels_size):
            if self.channels[id] != NULL:
                (<Channel>self.channels[id]).drained()
        return 0

    def be_silent(self):
        """Read no more and say no more; the session's timer closes the socket."""
        self.closed = True
        self.lost_sync = True

    def excuse_silence(self):
        """It was not read, so what it may have sent does not show: count from now."""
        self.received_at_ms = self.poller.now_ms

    # --- back-pressure

    cdef int published_on(self) except -1:
        """A channel publishes for the first time."""
        if not self.publisher:
            self.publisher = True
            if self.state.blocked:
                self.alarm_changed()
        return 0

    def alarm_changed(self):
        """An alarm came or went."""
        if not self.publisher or self.closed or self.travelling:
            return
        if self.state.blocked and not self.paused & PAUSED_ALARM:
            self.pause(PAUSED_ALARM)
            if self.blockable:
                self.send(ConnectionBlocked(reason=self.worker.alarm_reason))
        elif not self.state.blocked and self.paused & PAUSED_ALARM:
            self.resume(PAUSED_ALARM)
            if self.blockable:
                self.send(ConnectionUnblocked())

    @property
    def is_blocked(self):
        return self.paused & PAUSED_ALARM != 0

    @property
    def is_unread(self):
        """Not read, because it does not read."""
        return self.paused & PAUSED_UNREAD != 0

    @property
    def is_held_up(self):
        """Not read, or less, because something that it publishes to is behind."""
        return self.flowing or self.paused & (PAUSED_LINK | PAUSED_THROTTLE) != 0

    # --- hand-over to another worker

    cdef int weigh_far(self, int worker) except -1:
        """Enough messages for a look, or the first of another worker's: is that worker's the better place for this connection?

        A client that sends or takes a message at a time pays a wake-up of two processes for each, and large bodies are copied once more
        than need be; both end where the queue is. Batches of small messages cost next to nothing on the way, and are better off with two
        processes that share the work; they are looked at ever more rarely.
        """
        cdef uint64_t turns, messages
        if worker != self.far_worker:
            # The one that is counted already is this worker's.
            self.far_total += self.far_messages - 1
            self.far_worker = worker
            self.far_workers |= <uint64_t>1 << worker
            self.far_messages = 1
            self.far_bytes = 0
            self.far_reads = self.received_count
            self.far_writes = self.sent_count
            if FAR_FIRST <= self.far_limit <= FAR_LAST:
                self.far_limit = FAR_FIRST
            if self.far_limit > 1:
                return 0
        messages = self.far_messages
        turns = 1 + max(self.received_count - self.far_reads, self.sent_count - self.far_writes)
        self.far_total += messages
        if self.far_limit == 1 or messages <= turns * FAR_PER_TURN_MAX or self.far_bytes >= messages * FAR_BODY_LARGE:
            # What its consumers are sent while it stands still does not ask again.
            if self.poller.now_ms >= self.stays_until_ms and not self.paused & PAUSED_HANDOVER:
                self.worker.handover.consider(self, worker)
        elif self.far_limit < FAR_LAST:
            self.far_limit *= 2
        self.far_messages = 0
        self.far_bytes = 0
        self.far_reads = self.received_count
        self.far_writes = self.sent_count
        return 0

    def far_and_all(self):
        """Messages from and to other workers' queues so far, and all messages of its channels."""
        cdef uint64_t count = 0
        cdef Channel channel
        for channel in self.all_channels():
            count += channel.published + channel.delivered + channel.delivered_no_ack + channel.got + channel.got_no_ack
        return self.far_total, count

    def stand_still(self):
        """Read nothing until `go_on`."""
        self.pause(PAUSED_HANDOVER)

    def go_on(self):
        """It stays: read again."""
        self.travelling = False
        self.resume(PAUSED_HANDOVER)
        self.alarm_changed()

    # --- back-pressure of queues

    cdef int slow_down(self) except -1:
        """What it publishes to is behind: for the next moments only so many publishes are read per tick."""
        self.flow_until_ms = self.poller.now_ms + FLOW_HOLD_MS
        if not self.flowing:
            self.flowing = True
            self.flow_left = FLOW_PER_TICK
            self.state.add_flowing(self)
        return 0

    cdef bint flow_tick(self) except -1:
        """A new tick: whether it is still slowed down."""
        self.flowing = self.fd >= 0 and self.poller.now_ms < self.flow_until_ms
        self.flow_left = FLOW_PER_TICK
        self.resume(PAUSED_FLOW)
        return self.flowing

    def wait_for_link(self):
        self.link_waits += 1
        self.pause(PAUSED_LINK)
        return 0

    def link_has_room(self):
        self.link_waits -= 1
        if self.link_waits == 0:
            self.resume(PAUSED_LINK)

    def throttle(self, int worker):
        if self.throttles is None:
            self.throttles = set()
        self.throttles.add(worker)
        self.pause(PAUSED_THROTTLE)

    def relieve(self, int worker):
        if self.throttles is not None:
            self.throttles.discard(worker)
            if not self.throttles:
                self.resume(PAUSED_THROTTLE)

    def statistics(self):
        """The connection under the HTTP API's names."""
        return self.session.statistics(self)
