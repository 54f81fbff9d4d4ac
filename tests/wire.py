"""A client that is a bare socket: sends any bytes, right or wrong, and reads what the broker answers, frame by frame.

Owns one TCP connection. Frames and methods are encoded and decoded by pika's own codec, so that Leveret's is judged by another; wrong ones
are put together from `frame_bytes` or raw bytes. All waiting is bounded by the socket's timeout.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any, TypeVar

import pika.frame
import pika.spec
from pika.spec import Channel, Connection

from tests.deadline import WITHIN_S
from tests.node import Broker

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
CLIENT_CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}

M = TypeVar("M")


def frame_bytes(frame_type: int, channel_id: int, payload: bytes, end: bytes = FRAME_END) -> bytes:
    """One frame: type octet, channel, payload size, payload, end octet."""
    return struct.pack(">BHI", frame_type, channel_id, len(payload)) + payload + end


def method_bytes(channel_id: int, method: Any) -> bytes:
    """One method frame; `method` is one of pika.spec's."""
    return bytes(pika.frame.Method(channel_id, method).marshal())


def header_payload(class_id: int, body_size: int, flags: int = 0, properties: bytes = b"", weight: int = 0) -> bytes:
    """The payload of a content header frame, with whatever sizes and flags a test wants to claim."""
    return struct.pack(">HHQH", class_id, weight, body_size, flags) + properties


def publish_bytes(channel_id: int, exchange: str, routing_key: str, body: bytes, *, mandatory: bool = False) -> bytes:
    """A whole publish: method, header and, unless empty, one body frame."""
    frames = method_bytes(channel_id, pika.spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory))
    frames += frame_bytes(FRAME_HEADER, channel_id, header_payload(60, len(body)))
    if body:
        frames += frame_bytes(FRAME_BODY, channel_id, body)
    return frames


class WireClient:
    """One socket to the broker. `opened()` gives one past the whole handshake, `WireClient(broker)` one that has sent nothing."""

    def __init__(self, broker: Broker, timeout_s: float = WITHIN_S) -> None:
        self.broker = broker
        self.socket = socket.create_connection((broker.host, broker.port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    @classmethod
    def opened(cls, broker: Broker, *, timeout_s: float = WITHIN_S, **tune: int) -> WireClient:
        """Past connection.open-ok; `tune` (channel_max, frame_max, heartbeat) is what it answers to tune, the server's values else."""
        client = cls(broker, timeout_s)
        client.start()
        client.tune(**tune)
        client.send_method(0, Connection.Open(virtual_host="/"))
        client.expect(Connection.OpenOk)
        return client

    def start(
        self, response: bytes | None = None, mechanism: str = "PLAIN", capabilities: dict[str, bool] | None = None
    ) -> Connection.Start:
        """Send the protocol header and start-ok; gives the server's start. The answer (tune or close) is left to be read."""
        self.send(PROTOCOL_HEADER)
        start = self.expect(Connection.Start)
        if response is None:
            response = f"\0{self.broker.user}\0{self.broker.password}".encode()
        properties = {"product": "wire", "capabilities": CLIENT_CAPABILITIES if capabilities is None else capabilities}
        self.send_method(0, Connection.StartOk(client_properties=properties, mechanism=mechanism, response=response, locale="en_US"))
        return start

    def tune(self, **answer: int) -> Connection.Tune:
        """Wait for tune and send tune-ok with the server's values, or those in `answer`; gives the server's tune."""
        tune = self.expect(Connection.Tune)
        values = {"channel_max": tune.channel_max, "frame_max": tune.frame_max, "heartbeat": 0} | answer
        self.send_method(0, Connection.TuneOk(**values))
        return tune

    def open_channel(self, channel_id: int = 1) -> WireClient:
        """Open a channel and wait for open-ok."""
        self.send_method(channel_id, Channel.Open())
        self.expect(Channel.OpenOk)
        return self

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.socket.sendall(data)

    def send_method(self, channel_id: int, method: Any) -> None:
        """Send one method frame."""
        self.send(method_bytes(channel_id, method))

    def receive_exactly(self, size: int) -> bytes:
        """The next `size` bytes; `EOFError` when the broker closes first."""
        while len(self._received) < size:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise EOFError(f"closed by the broker with {self._received!r} unread")
            self._received += chunk
        data, self._received = self._received[:size], self._received[size:]
        return data

    def receive_some(self) -> bytes:
        """Whatever has come, waiting for a byte at least; `EOFError` when the broker closes first."""
        data, self._received = self._received or self.socket.recv(1 << 20), b""
        if not data:
            raise EOFError("closed by the broker")
        return data

    def receive(self) -> Any:
        """The next frame as pika's frame object."""
        head = self.receive_exactly(7)
        (size,) = struct.unpack(">I", head[3:])
        data = head + self.receive_exactly(size + 1)
        consumed, frame = pika.frame.decode_frame(data)
        assert consumed == len(data), f"pika reads {consumed} of {data!r}"
        return frame

    def expect(self, method_type: type[M], channel_id: int | None = None) -> M:
        """The next frame's method, which must be of this type; heartbeats are passed over."""
        frame = self.receive()
        while isinstance(frame, pika.frame.Heartbeat):
            frame = self.receive()
        assert isinstance(frame, pika.frame.Method), f"{frame!r} instead of {method_type}"
        assert isinstance(frame.method, method_type), f"{frame.method!r} instead of {method_type}"
        assert channel_id is None or frame.channel_number == channel_id, f"on channel {frame.channel_number}: {frame.method!r}"
        return frame.method

    def expect_connection_close(self, code: int, text: str, class_id: int = 0, method_id: int = 0) -> None:
        """The broker closes the connection for this reason; answers close-ok and waits for the end of the stream."""
        close = self.expect(Connection.Close, 0)
        assert (close.reply_code, close.reply_text, close.class_id, close.method_id) == (code, text, class_id, method_id)
        with contextlib.suppress(OSError):  # it need not wait for close-ok
            self.send_method(0, Connection.CloseOk())
        self.expect_end()

    def expect_channel_close(self, channel_id: int, code: int, text: str, class_id: int, method_id: int) -> None:
        """The broker closes the channel for this reason; answers close-ok and checks that the channel can be opened again."""
        close = self.expect(Channel.Close, channel_id)
        assert (close.reply_code, close.reply_text, close.class_id, close.method_id) == (code, text, class_id, method_id)
        self.send_method(channel_id, Channel.CloseOk())
        self.open_channel(channel_id)

    def expect_end(self) -> bytes:
        """Wait until the broker closes the socket; gives what it sent before. A reset counts: unread bytes of ours cause one."""
        try:
            while chunk := self.socket.recv(65536):
                self._received += chunk
        except ConnectionResetError:
            pass
        rest, self._received = self._received, b""
        return rest

    def close(self) -> None:
        """Drop the socket without a word."""
        self.socket.close()

    def __enter__(self) -> WireClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
