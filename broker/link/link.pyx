"""A link: the line between two processes of a node, carrying packets.

It owns the framing of packets, the hello with which each side says who it is, and requests with their answers. Hot packets go to
`on_packet`, which `worker` and `router` fill in by subclassing; control packets (msgpack) go to a receiver, in the order of their arrival
and between the hot packets among which they were sent: a request that follows a thousand enqueues is seen after them. A link never opens
itself (see `leveret.link.dial`), never drops a packet while it is open, and knows no AMQP.

Control packets, version 1, a msgpack array each:

    [0, version, kind, index, pid]                          hello, the first packet of either side
    [1, request id, verb, body]                             request
    [2, request id, result]                                 answer
    [3, request id, code, text, class id, method id]        answer: an AMQP error for the client on whose behalf the request was
    [4, request id, text]                                   answer: the request failed
    [5, verb, body]                                         notice, not answered
"""

import asyncio
import logging
from dataclasses import dataclass
from inspect import isawaitable

import msgpack

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from leveret.codec.wire cimport buffer_consume, buffer_free, buffer_unread, buffer_write
from leveret.link.packets cimport PACKET_CONTROL, PACKET_SIZE_MAX, PACKETS_VERSION, PacketHead, bytes_before_message
from leveret.link.stream cimport BY_REFERENCE_MIN, LANDING_MIN, Stream
from leveret.queue.message cimport MESSAGE_WIRE_OFFSET, Message, message_begun, message_release, message_size

from leveret.codec.errors import AmqpError, from_code

log = logging.getLogger(__name__)

cdef enum:
    HELLO = 0
    REQUEST = 1
    RESULT = 2
    REFUSAL = 3
    FAILURE = 4
    NOTICE = 5
    HELLO_SIZE_MAX = 4096
    OUT_HIGH = 4 * 1024 * 1024
    OUT_LOW = 1024 * 1024
    # On a Unix socket a system call costs less than to copy the bodies that would lie whole in what is read: nearly all of each body lands.
    BESIDE_LANDING = 16 * 1024
    LANDING_FIRST = 64          # bytes of a packet that tell whether it can land: its head, a few queues, its message's sizes
    BEFORE_LANDING_MAX = 4096   # of a packet that lands: a thousand queues


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a process is: its kind (`supervisor`, `router`, `worker`, `management`), its index among its kind, its pid."""

    kind: str
    index: int
    pid: int
    version: int = PACKETS_VERSION


class LinkClosed(Exception):
    """The link closed before the answer came; whether the request was carried out is unknown."""


class RequestFailed(Exception):
    """The other process could not carry out the request: a bug or an overload there, told in words."""


cdef class Link(Stream):
    """`Link(poller, sock, hello, receiver)` over a connected Unix socket; says hello at once.

    The receiver has four methods, all called from the loop: `on_link_open(link)` when the peer's hello has come,
    `on_request(link, verb, body)`
    returning the result or an awaitable of it, `on_notice(link, verb, body)`, and `on_link_closed(link)`, once, if the link was open.
    """

    def __init__(self, poller, sock, hello, receiver):
        self.hello = hello
        self.receiver = receiver
        self.waiting = {}
        self.answering = set()
        self.opened = poller.loop.create_future()
        self.out_high = OUT_HIGH
        self.out_low = OUT_LOW
        self.out_uncounted = 0      # a link's backlog is OUT_HIGH, however it lies
        self.beside_landing = BESIDE_LANDING
        super().__init__(poller, sock)
        self.send_control([HELLO, PACKETS_VERSION, hello.kind, hello.index, hello.pid])

    def __dealloc__(self):
        buffer_free(&self.landing_packet)

    def __repr__(self):
        peer = f"{self.peer.kind} {self.peer.index}" if self.peer is not None else "a stranger"
        return f"<{type(self).__name__} to {peer}>"

    # --- control packets out

    async def request(self, str verb, body=None, timeout_s=None):
        """Ask, and wait for the result.

        Raises what the peer's handler raised if that was an `AmqpError`, `RequestFailed` if it was anything else, `LinkClosed` when the
        link closes first, `TimeoutError` after `timeout_s` seconds.
        """
        future = self.ask(verb, body)
        if timeout_s is None:
            return await future
        async with asyncio.timeout(timeout_s):
            return await future

    def ask(self, str verb, body=None):
        """Like `request`, but sent before this returns: a Future of the result."""
        if self.fd < 0:
            raise LinkClosed(f"{self!r} is closed")
        self.last_request_id += 1
        request_id = self.last_request_id
        future = self.poller.loop.create_future()
        self.waiting[request_id] = future
        self.send_control([REQUEST, request_id, verb, body])
        return future

    def notify(self, str verb, body=None):
        """Tell, and expect no answer. On a closed link nothing happens."""
        if self.fd >= 0:
            self.send_control([NOTICE, verb, body])

    cdef int send_control(self, list content) except -1:
        # What a client has said of itself travels too: text that is not UTF-8 passes unchanged, and what msgpack has no type for (a
        # decimal) as text.
        cdef bytes packed = msgpack.packb(content, default=str, unicode_errors="surrogateescape")
        cdef uint32_t size = sizeof(PacketHead) + len(packed)
        cdef uint8_t* at
        if self.fd < 0:
            return 0
        at = self.packet(PACKET_CONTROL, 0, size)
        memcpy(at + sizeof(PacketHead), <const uint8_t*>packed, len(packed))
        return self.written(size)

    # --- packets out

    cdef uint8_t* packet(self, uint8_t type, uint8_t flags, uint32_t size) except NULL:
        cdef uint8_t* at = self.reserve(size)
        cdef PacketHead* head = <PacketHead*>at
        head.size = size
        head.type = type
        head.flags = flags
        head.count = 0
        self.packets_out += 1
        return at

    cdef int packet_with_message(self, PacketHead* head, uint32_t head_size, Message* message) except -1:
        cdef uint32_t wire_size = <uint32_t>(message_size(message) - MESSAGE_WIRE_OFFSET)
        cdef uint8_t* at
        head.size = head_size + wire_size
        self.packets_out += 1
        if wire_size >= BY_REFERENCE_MIN:
            memcpy(self.reserve(head_size), head, head_size)
            self.out.length += head_size
            return self.write_from(message, <uint8_t*>message + MESSAGE_WIRE_OFFSET, wire_size)
        at = self.reserve(head.size)
        memcpy(at, head, head_size)
        memcpy(at + head_size, <uint8_t*>message + MESSAGE_WIRE_OFFSET, wire_size)
        return self.written(head.size)

    # --- packets in

    cdef Py_ssize_t on_bytes(self, const uint8_t* data, size_t size) except -1:
        cdef size_t at = 0
        cdef PacketHead* head
        while size - at >= sizeof(PacketHead) and not self.paused:
            head = <PacketHead*>(data + at)
            if head.size < sizeof(PacketHead) or head.size > (PACKET_SIZE_MAX if self.peer is not None else HELLO_SIZE_MAX):
                self.close(f"a packet of {head.size} bytes was announced")
                return size
            if head.size > size - at:
                if head.size >= LANDING_MIN:
                    if size - at < LANDING_FIRST:
                        break
                    if self.land_message(head, size - at):
                        return size
                self.wanted = head.size
                break
            self.packets_in += 1
            if head.type == PACKET_CONTROL:
                self.on_control((<const uint8_t*>head)[sizeof(PacketHead):head.size])
            elif self.peer is None:
                self.close("a packet before the hello")
            else:
                self.on_packet(head, NULL)
            if self.fd < 0:
                return size
            at += head.size
        return at

    cdef bint land_message(self, PacketHead* head, size_t size) except -1:
        """Of a packet with a message the first `size` bytes have come: let the message land in a block of its own, if it can."""
        cdef size_t before = bytes_before_message(head)
        cdef Message* message
        if before == 0 or before > BEFORE_LANDING_MAX or size < before or self.peer is None:
            return False
        message = message_begun(<const uint8_t*>head + before, size - before, head.size - before)
        if message == NULL:
            return False    # memory is out, or the sizes disagree: judged when all has come
        buffer_write(&self.landing_packet, head, before)
        self.land(message, <uint8_t*>message + MESSAGE_WIRE_OFFSET + size - before, head.size - size)
        message_release(message)
        return True

    cdef int on_landed(self) except -1:
        cdef Message* message = self.landing
        self.landing = NULL
        self.packets_in += 1
        try:
            self.on_packet(<PacketHead*>(self.landing_packet.data + self.landing_packet.start), message)
        finally:
            message_release(message)
            buffer_consume(&self.landing_packet, buffer_unread(&self.landing_packet))
        return 0

    cdef int on_packet(self, PacketHead* packet, Message* message) except -1:
        return self.close(f"packet type {packet.type} is not expected here")

    def on_control(self, bytes packed):
        try:
            kind, *rest = msgpack.unpackb(packed, raw=False, strict_map_key=False, unicode_errors="surrogateescape")
            if self.peer is None:
                self._on_hello(kind, rest)
            elif kind == REQUEST:
                self._on_request(*rest)
            elif kind == NOTICE:
                self.receiver.on_notice(self, *rest)
            elif kind == RESULT or kind == REFUSAL or kind == FAILURE:
                self._on_answer(kind, *rest)
            else:
                self.close(f"control packet kind {kind} is not known")
        except (msgpack.UnpackException, ValueError, TypeError) as error:
            # Our own processes do not write such packets: a bug, or a stranger.
            log.exception("a control packet on %r could not be read", self)
            self.close(f"a control packet could not be read: {error}")

    def _on_hello(self, kind, rest):
        if kind != HELLO or rest[:1] != [PACKETS_VERSION]:
            self.close(f"expected a hello of version {PACKETS_VERSION}, got {[kind, *rest]!r}")
            return
        version, peer_kind, index, pid = rest
        self.peer = Hello(kind=peer_kind, index=index, pid=pid, version=version)
        if not self.opened.done():
            self.opened.set_result(self.peer)
        self.receiver.on_link_open(self)

    def _on_request(self, request_id, verb, body):
        try:
            result = self.receiver.on_request(self, verb, body)
        except AmqpError as error:
            self._refuse(request_id, error)
        except Exception as error:
            self._fail(request_id, verb, error)
        else:
            if isawaitable(result):
                task = asyncio.ensure_future(self._answer(request_id, verb, result))
                self.answering.add(task)
                task.add_done_callback(self.answering.discard)
            else:
                self.send_control([RESULT, request_id, result])

    async def _answer(self, request_id, verb, awaitable):
        try:
            result = await awaitable
        except AmqpError as error:
            self._refuse(request_id, error)
        except Exception as error:
            self._fail(request_id, verb, error)
        else:
            self.send_control([RESULT, request_id, result])

    def _refuse(self, request_id, error):
        self.send_control([REFUSAL, request_id, error.reply_code, error.reply_text, error.class_id, error.method_id])

    def _fail(self, request_id, verb, error):
        if not isinstance(error, (LinkClosed, TimeoutError, RequestFailed)):
            log.error("request %r from %r failed", verb, self, exc_info=error)
        self.send_control([FAILURE, request_id, f"{type(error).__name__}: {error}"])

    def _on_answer(self, kind, request_id, *content):
        # Read first: what cannot be read closes the link, which is then the answer.
        error = None
        if kind == REFUSAL:
            error = from_code(*content)
        else:
            result, = content
            if kind == FAILURE:
                error = RequestFailed(result)
        future = self.waiting.pop(request_id, None)
        if future is None or future.done():
            return  # whoever asked gave up (timeout, cancelled)
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    # --- end

    cdef int on_closed(self, str reason) except -1:
        closed = LinkClosed(f"{self!r} closed: {reason}")
        waiting, self.waiting = self.waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(closed)
        if not self.opened.done():
            self.opened.set_exception(closed)
            self.opened.exception()  # whoever does not wait for it need not hear of it
        if self.peer is not None:
            self.receiver.on_link_closed(self)
        return 0
