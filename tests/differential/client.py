"""A client that is hardly more than a socket: sends any frames on any channel, and keeps every frame that comes back.

Owns one TCP connection (`WireConnection`) and puts methods and their content together into `Arrival`s. It knows no state of the protocol
beyond that: what may be sent when is the business of whoever writes the script. `wait` serves several connections at once, since what one
client does shows at another.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from leveret.codec import methods
from leveret.codec.frames import PROTOCOL_HEADER, FrameReader, ReceivedFrame, encode_method_frame
from leveret.codec.methods import Method, decode_method
from leveret.codec.properties import decode_content_header

from tests.node import Broker

FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT = 1, 2, 3, 8
CONNECT_WITHIN_S = 20.0
WITH_CONTENT = ("basic.deliver", "basic.return", "basic.get-ok")
CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "exchange_exchange_bindings": True,
    "publisher_confirms": True,
}


@dataclass
class Arrival:
    """A method that came, and what came with it. properties: as on the wire; body_frames: payload sizes of the body's frames."""

    channel: int
    method: Method
    properties: bytes = b""
    body: bytes = b""
    body_frames: tuple[int, ...] = ()


class WireConnection:
    """One open connection. `on_arrival` is called with it for every whole method, `on_end` once when the broker closes the socket."""

    def __init__(
        self,
        broker: Broker,
        on_arrival: Callable[[Arrival], None],
        on_end: Callable[[], None],
        *,
        frame_max: int = 131072,
        channel_max: int = 2047,
    ) -> None:
        """Goes through the handshake; `AssertionError` when the broker refuses, `OSError` when it cannot be reached."""
        self.socket = socket.create_connection((broker.host, broker.port), timeout=CONNECT_WITHIN_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended = False
        self._reader = FrameReader()
        self._partial: dict[int, tuple[Arrival, int]] = {}
        self._handshake: list[Method] = []
        self.on_arrival: Callable[[Arrival], None] = lambda arrival: self._handshake.append(arrival.method)
        self.on_end = on_end
        self.send(PROTOCOL_HEADER)
        self._await("connection.start")
        response = f"\0{broker.user}\0{broker.password}".encode()
        properties = {"product": "differential", "capabilities": CAPABILITIES}
        self.send_method(0, methods.ConnectionStartOk(client_properties=properties, mechanism="PLAIN", response=response))
        self._await("connection.tune")
        self.send_method(0, methods.ConnectionTuneOk(channel_max=channel_max, frame_max=frame_max, heartbeat=0))
        self.send_method(0, methods.ConnectionOpen(virtual_host="/"))
        self._await("connection.open-ok")
        self.frame_max = frame_max
        self.on_arrival = on_arrival

    def _await(self, name: str) -> None:
        wait([self], lambda: bool(self._handshake) or self.ended, CONNECT_WITHIN_S)
        assert self._handshake, f"closed while waiting for {name}" if self.ended else f"no {name} within {CONNECT_WITHIN_S} s"
        method = self._handshake.pop(0)
        assert method.name == name, f"{method!r} instead of {name}"

    def send(self, data: bytes) -> None:
        """Send raw bytes. A connection that the broker has reset is told by `on_end`, not by an error here."""
        if self.ended:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it said before is still to be read
            self.socket.sendall(data)

    def send_method(self, channel: int, method: Method) -> None:
        """Send one method frame."""
        self.send(encode_method_frame(channel, method))

    def close(self) -> None:
        """Drop the socket without a word; nothing more is told."""
        self.ended = True
        self.socket.close()

    def read(self) -> None:
        """Take what the socket has; called when it is readable."""
        try:
            data = self.socket.recv(262144)
        except ConnectionResetError:
            data = b""
        if not data:
            self.ended = True
            self.socket.close()
            self.on_end()
            return
        self._reader.feed(data)
        for frame in self._reader:
            self._on_frame(frame)

    def _on_frame(self, frame: ReceivedFrame) -> None:
        if frame.type == FRAME_METHOD:
            assert frame.channel not in self._partial, f"a method within a content, on channel {frame.channel}: {frame!r}"
            arrival = Arrival(frame.channel, decode_method(frame.payload))
            if arrival.method.name in WITH_CONTENT:
                self._partial[frame.channel] = (arrival, -1)
            else:
                self.on_arrival(arrival)
        elif frame.type == FRAME_HEADER:
            arrival, size = self._partial[frame.channel]
            assert size < 0, f"a second header on channel {frame.channel}"
            header = decode_content_header(frame.payload)
            arrival.properties = header.properties
            self._partial[frame.channel] = (arrival, header.body_size)
            self._complete(frame.channel)
        elif frame.type == FRAME_BODY:
            arrival, _ = self._partial[frame.channel]
            arrival.body += frame.payload
            arrival.body_frames += (len(frame.payload),)
            self._complete(frame.channel)
        else:
            assert frame.type == FRAME_HEARTBEAT, f"unknown frame {frame!r}"

    def _complete(self, channel: int) -> None:
        arrival, size = self._partial[channel]
        assert len(arrival.body) <= size, f"{len(arrival.body)} bytes of a body of {size}"
        if len(arrival.body) == size:
            del self._partial[channel]
            self.on_arrival(arrival)


def wait(connections: Iterable[WireConnection], until: Callable[[], bool], within_s: float) -> bool:
    """Serve all connections until `until()` is true; whether it became so within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    connections = list(connections)
    while not until():
        alive = [connection for connection in connections if not connection.ended]
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not alive:
            return until()
        by_socket = {connection.socket: connection for connection in alive}
        readable, _, _ = select.select(list(by_socket), [], [], left_s)
        for ready in readable:
            by_socket[ready].read()
    return True
