"""The cold half of a client connection: handshake, channel, declarations, one request and its answer at a time, blocking.

Loader processes use one to get ready and then hand its socket to a `Publisher` or `Consumer`; the parent keeps one for what must be done
before and after a load, and the benches open idle connections with it. It sends no heartbeats (it asks for none) and knows no deliveries.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from leveret.codec import methods
from leveret.codec.errors import AmqpError
from leveret.codec.frames import PROTOCOL_HEADER, FrameReader, encode_method_frame
from leveret.logs import escaped
from leveret.perf.plan import Target

FRAME_MAX: Final = 131_072  # what RabbitMQ proposes; a line's inbox holds two
CHANNEL_ID: Final = 1
_TIMEOUT_S: Final = 30.0
_UNANSWERED_BINDS: Final = 200
_METHOD: Final = 1
_HEAD_SIZE: Final = 7
_TOLD_CHARACTERS_MAX: Final = 60

Reply = TypeVar("Reply", bound=methods.Method)


class BrokerRefused(Exception):
    """The broker closed the channel or the connection and said why.

    scope: "channel" or "connection"; reply_code and reply_text: as in its close method.
    """

    def __init__(self, scope: str, reply_code: int, reply_text: str) -> None:
        super().__init__(f"{scope} closed by the broker: {reply_code} {reply_text}")
        self.scope = scope
        self.reply_code = reply_code
        self.reply_text = reply_text


class BrokerUnreachable(Exception):
    """No connection, none any more, or what answers does not speak AMQP 0-9-1; the text says which."""


def refusal(method: methods.Method) -> BrokerRefused | None:
    """What a method that nobody asked for means: an exception for the two closes, None for anything else."""
    if isinstance(method, methods.ChannelClose):
        return BrokerRefused("channel", method.reply_code, method.reply_text)
    if isinstance(method, methods.ConnectionClose):
        return BrokerRefused("connection", method.reply_code, method.reply_text)
    return None


def told(server_properties: Mapping[str, Any]) -> str:
    """What a broker calls itself, "" if nothing: product, version, and the durability if it has one: "Leveret 0.1.0, durability disk"."""
    texts = [value if isinstance(value := server_properties.get(name), str) else "" for name in ("product", "version", "durability")]
    product, version, durability = (escaped(text[:_TOLD_CHARACTERS_MAX]) for text in texts)
    return f"{product} {version}".strip() + (f", durability {durability}" if durability else "")


class Session:
    """An open connection with one open channel (`CHANNEL_ID`). Every call may raise BrokerRefused or BrokerUnreachable.

    `name` is shown by the broker as the connection's name. `frame_max` is what both sides agreed to, in bytes with the 8 around a payload.
    `server` is what the broker calls itself, in a few words.
    """

    def __init__(self, target: Target, name: str) -> None:
        self._reader = FrameReader(FRAME_MAX)
        try:
            self._socket = socket.create_connection((target.host, target.port), _TIMEOUT_S)
        except OSError as error:
            raise BrokerUnreachable(f"no connection to {target.host}:{target.port}: {error.strerror or error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frame_max = FRAME_MAX
        self.server = ""
        try:
            self._shake_hands(target, name)
            self.request(CHANNEL_ID, methods.ChannelOpen(), methods.ChannelOpenOk)
        except BaseException:
            self._socket.close()
            raise

    def _shake_hands(self, target: Target, name: str) -> None:
        self._send(PROTOCOL_HEADER)
        self.server = told(self._await(0, methods.ConnectionStart).server_properties)
        capabilities = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True, "consumer_cancel_notify": True}
        # A broker that refuses the user says so with connection.close only to a client that announces this capability.
        capabilities["authentication_failure_close"] = True
        properties = {"product": "leveret perf", "connection_name": name, "capabilities": capabilities}
        response = b"\0" + target.user.encode() + b"\0" + target.password.encode()
        self._send_method(0, methods.ConnectionStartOk(client_properties=properties, mechanism="PLAIN", response=response, locale="en_US"))
        tune = self._await(0, methods.ConnectionTune)
        self.frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
        self._send_method(0, methods.ConnectionTuneOk(channel_max=tune.channel_max, frame_max=self.frame_max, heartbeat=0))
        self.request(0, methods.ConnectionOpen(virtual_host=target.vhost), methods.ConnectionOpenOk)

    def request(self, channel_id: int, method: methods.Method, reply: type[Reply]) -> Reply:
        """Send a method and wait for its answer."""
        self._send_method(channel_id, method)
        return self._await(channel_id, reply)

    def declare_queue(self, queue: str, *, durable: bool = False, passive: bool = False) -> methods.QueueDeclareOk:
        declare = methods.QueueDeclare(queue=queue, durable=durable, passive=passive)
        return self.request(CHANNEL_ID, declare, methods.QueueDeclareOk)

    def declare_exchange(self, exchange: str, kind: str, *, durable: bool) -> None:
        self.request(CHANNEL_ID, methods.ExchangeDeclare(exchange=exchange, type=kind, durable=durable), methods.ExchangeDeclareOk)

    def bind(self, queue: str, exchange: str, binding_key: str) -> None:
        self.request(CHANNEL_ID, methods.QueueBind(queue=queue, exchange=exchange, routing_key=binding_key), methods.QueueBindOk)

    def bind_all(self, queue: str, exchange: str, binding_keys: Iterable[str]) -> None:
        """Bind with every key, most of them without waiting for an answer, and return when the broker has taken all."""
        keys = iter(binding_keys)
        while batch := list(itertools.islice(keys, _UNANSWERED_BINDS)):
            for key in batch[:-1]:
                self._send_method(CHANNEL_ID, methods.QueueBind(queue=queue, exchange=exchange, routing_key=key, nowait=True))
            self.bind(queue, exchange, batch[-1])

    def delete_queue(self, queue: str) -> None:
        self.request(CHANNEL_ID, methods.QueueDelete(queue=queue), methods.QueueDeleteOk)

    def delete_exchange(self, exchange: str) -> None:
        self.request(CHANNEL_ID, methods.ExchangeDelete(exchange=exchange), methods.ExchangeDeleteOk)

    def confirm_select(self) -> None:
        self.request(CHANNEL_ID, methods.ConfirmSelect(), methods.ConfirmSelectOk)

    def qos(self, prefetch_count: int) -> None:
        self.request(CHANNEL_ID, methods.BasicQos(prefetch_count=prefetch_count), methods.BasicQosOk)

    def start_consuming(self, queue: str, consumer_tag: str, *, no_ack: bool) -> None:
        """Ask for deliveries without waiting for the answer: from here on a `Consumer` reads the socket."""
        self._send_method(CHANNEL_ID, methods.BasicConsume(queue=queue, consumer_tag=consumer_tag, no_ack=no_ack, nowait=False))

    def answer_close(self, method: methods.Method) -> None:
        """Send close-ok for a close that a line received. What follows from the broker is not read."""
        if isinstance(method, methods.ConnectionClose):
            self._send_method(0, methods.ConnectionCloseOk())
        elif isinstance(method, methods.ChannelClose):
            self._send_method(CHANNEL_ID, methods.ChannelCloseOk())

    def detach(self) -> int:
        """Make the socket non-blocking and tell its descriptor, for a line. Nothing has been read beyond the last answer."""
        self._socket.setblocking(False)
        return self._socket.fileno()

    def ask_to_close_channel(self) -> None:
        """Send channel.close on a line's socket. Its close-ok, which the line hears, proves that all before it has been taken."""
        self._socket.settimeout(_TIMEOUT_S)
        self._send_method(CHANNEL_ID, methods.ChannelClose(reply_code=200, reply_text="done"))
        self._socket.setblocking(False)

    def close(self) -> None:
        """Say goodbye if the broker still listens, and close the socket. Never raises for what the broker does."""
        try:
            self._socket.settimeout(2.0)
            self.request(0, methods.ConnectionClose(reply_code=200, reply_text="done"), methods.ConnectionCloseOk)
        except (BrokerRefused, BrokerUnreachable):
            pass
        finally:
            self._socket.close()

    def drop(self, *, politely: bool) -> None:
        """Close the socket of a line. `politely`: send connection.close first and read until the broker hangs up, at most for 2 s.

        Not to be said after half a frame. What is read may begin in the midst of a frame, so it is not looked at.
        """
        try:
            if politely:
                self._socket.settimeout(2.0)
                self._socket.sendall(encode_method_frame(0, methods.ConnectionClose(reply_code=200, reply_text="done")))
                self._socket.shutdown(socket.SHUT_WR)
                while self._socket.recv(1 << 20):
                    pass
        except OSError:
            pass  # it is gone already, which is what was wanted
        finally:
            self._socket.close()

    def _send_method(self, channel_id: int, method: methods.Method) -> None:
        self._send(encode_method_frame(channel_id, method))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise BrokerUnreachable(f"the broker hung up: {error.strerror or error}") from None

    def _await(self, channel_id: int, wanted: type[Reply]) -> Reply:
        for came_on, method in self._methods():
            if isinstance(method, wanted) and came_on == channel_id:
                return method
            if (refused := refusal(method)) is not None:
                self.answer_close(method)
                raise refused
        raise AssertionError("_methods ends by raising only")

    def _methods(self) -> Iterator[tuple[int, methods.Method]]:
        """Methods as they come, other frames left out."""
        while True:
            head = self._take(_HEAD_SIZE)
            if head.startswith(b"AMQP"):
                raise BrokerUnreachable(f"the broker speaks another protocol: it answered {head!r}")
            try:
                self._reader.feed(head)
                size = int.from_bytes(head[3:], "big")
                # The reader refuses a head with an impossible size before its payload is waited for.
                if size > FRAME_MAX:
                    next(self._reader)
                self._reader.feed(self._take(size + 1))
                frame = next(self._reader)
                if frame.type == _METHOD:
                    yield frame.channel, methods.decode_method(frame.payload)
            except (AmqpError, StopIteration) as error:
                raise BrokerUnreachable(f"what answers does not speak AMQP 0-9-1: {error}") from None

    def _take(self, size: int) -> bytes:
        """Exactly the next `size` bytes: a line may read on where this ends."""
        taken = bytearray()
        while len(taken) < size:
            try:
                received = self._socket.recv(size - len(taken))
            except TimeoutError:
                raise BrokerUnreachable(f"no answer from the broker within {_TIMEOUT_S:.0f} s") from None
            except OSError as error:
                raise BrokerUnreachable(f"the broker hung up: {error.strerror or error}") from None
            if not received:
                raise BrokerUnreachable("the broker closed the connection without a word")
            taken += received
        return bytes(taken)
