"""A session: who a connection's client is, and how far its handshake has come (channel 0, apart from errors).

`leveret.worker.connection` calls it for the protocol header and for each method on channel 0. It owns the steps start, tune, open and
close, and the texts of their refusals; it never touches a channel or a message.

    protocol header -> start, start-ok -> tune, tune-ok, open -> open-ok … close -> close-ok

As RabbitMQ does: a refused login is told by connection.close if the client has declared authentication_failure_close; what else goes wrong
before the client is known is answered by silence and, three seconds later, a closed socket, so that guessing is slow.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from leveret.auth import mechanisms
from leveret.codec.errors import (
    AccessRefused,
    AmqpError,
    ChannelError,
    CommandInvalid,
    NotAllowed,
    quoted_bytes,
)
from leveret.codec.frames import encode_method_frame
from leveret.codec.methods import (
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    ConnectionUpdateSecret,
    ConnectionUpdateSecretOk,
    Method,
)
from leveret.link.listener import ends_of, send_without_pacing
from leveret.logs import tell

if TYPE_CHECKING:
    from leveret.config import Settings
    from leveret.worker.connection import Connection

log = logging.getLogger(__name__)

SILENT_CLOSE_DELAY_S = 3.0
FRAME_SIZE_MIN = 4096
CHANNEL_MAX_MIN = 1

# Stages, by the names that RabbitMQ's texts use.
STARTING, TUNING, OPENING, RUNNING = "starting", "tuning", "opening", "running"


def server_properties(settings: Settings) -> dict[str, Any]:
    """What connection.start tells of the broker."""
    return {
        "product": settings.product,
        "version": settings.version,
        "cluster_name": settings.node_name,
        "platform": f"Python {platform.python_version()}",
        "copyright": "Copyright (c) the Leveret authors.",
        "information": "Licensed under the Apache License 2.0.",
        "durability": settings.durability,  # ours: what a confirm means, for whoever measures
        "capabilities": {
            "publisher_confirms": True,
            "exchange_exchange_bindings": True,
            "basic.nack": True,
            "consumer_cancel_notify": True,
            "connection.blocked": True,
            "consumer_priorities": True,
            "authentication_failure_close": True,
            "per_consumer_qos": True,
            "direct_reply_to": True,
        },
    }


class Greeting:
    """What every client hears alike, encoded once: `start` and `tune` are whole frames on channel 0, `mechanisms` what start offers."""

    def __init__(self, settings: Settings) -> None:
        self.mechanisms = mechanisms.offered(settings.anonymous_login_user)
        self.start = encode_method_frame(
            0,
            ConnectionStart(
                version_major=0,
                version_minor=9,
                server_properties=server_properties(settings),
                mechanisms=" ".join(self.mechanisms).encode(),
                locales=b"en_US",
            ),
        )
        self.tune = encode_method_frame(
            0, ConnectionTune(channel_max=settings.channel_max, frame_max=settings.frame_max_bytes, heartbeat=settings.heartbeat_s)
        )


def shown_host(host: str) -> str:
    """An address as RabbitMQ shows it: IPv4 clients of a dual-stack socket by their own address."""
    return host.removeprefix("::ffff:")


class Session:
    """One client. `peer_host`, `peer_port`, `host`, `port`: both ends of the socket; "" and 0 for a Unix socket.

    descriptor: the socket's, which is asked for its ends, and not paced if both are here. Raises OSError if the client has gone already.
    """

    __slots__ = (
        "_timer",
        "client_properties",
        "heartbeat_s",
        "host",
        "impersonator",
        "mechanism",
        "name",
        "peer_host",
        "peer_port",
        "port",
        "stage",
        "user",
        "user_bytes",
    )

    def __init__(self, descriptor: int) -> None:
        peer_host, self.peer_port, host, self.port = ends_of(descriptor)
        if peer_host == host:  # whatever address of this machine the client has called
            send_without_pacing(descriptor)
        self.peer_host, self.host = shown_host(peer_host), shown_host(host)
        self.name = f"{self.peer_host}:{self.peer_port} -> {self.host}:{self.port}"
        self.stage = STARTING
        self.user = ""
        self.user_bytes = b""
        self.impersonator = False
        self.mechanism = ""
        self.heartbeat_s = 0
        self.client_properties: dict[str, Any] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def given_name(self) -> str:
        """The connection's name by its client; "" if it gave none, or something that is no text."""
        name = self.client_properties.get("connection_name")
        return name if isinstance(name, str) else ""

    # --- time

    def handshake_timed_out(self, connection: Connection) -> None:
        """The client has had its time to open the connection."""
        log.warning("closing %s: handshake timeout in state %s", self.name, self.stage)
        connection.close("handshake timeout")

    def ended(self, connection: Connection, reason: str) -> None:
        """The socket is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.stage == RUNNING:
            tell(log, f"closed connection {self.name} (user '{self.user}', vhost '{connection.vhost.name}'): {reason}")
        elif connection.header_seen:
            tell(log, f"closed connection {self.name} in state {self.stage}: {reason}")

    def resume(self, user: str, impersonator: bool, mechanism: str, heartbeat_s: int, client_properties: dict[str, Any]) -> None:
        """The connection comes from another worker, where its client has opened it."""
        self.user = user
        self.user_bytes = user.encode()
        self.impersonator = impersonator
        self.mechanism = mechanism
        self.heartbeat_s = heartbeat_s
        self.client_properties = client_properties
        self.stage = RUNNING

    # --- steps

    def begin(self, connection: Connection) -> None:
        """The protocol header was right."""
        connection.send_frames(connection.worker.greeting.start)

    def refuse_header(self, connection: Connection, header: bytes) -> None:
        """It was not; ours is sent instead and the socket closes."""
        hint = " (an HTTP client on the AMQP port?)" if header[:4] in (b"GET ", b"POST", b"HEAD") else ""
        hint = " (a TLS client on the plain port?)" if header[:2] == b"\x16\x03" else hint
        log.warning("closing %s: bad protocol header %s%s", self.name, quoted_bytes(header), hint)

    def on_method(self, connection: Connection, method: Method) -> Awaitable[None] | None:
        """A method on channel 0."""
        if isinstance(method, ConnectionClose) and self.stage != STARTING:
            return self._close(connection, method)
        if isinstance(method, ConnectionStartOk) and self.stage == STARTING:
            self._start_ok(connection, method)
        elif isinstance(method, ConnectionTuneOk) and self.stage == TUNING:
            self._tune_ok(connection, method)
        elif isinstance(method, ConnectionOpen) and self.stage == OPENING:
            self._open(connection, method)
        elif isinstance(method, ConnectionUpdateSecret) and self.stage == RUNNING:
            self._update_secret(connection, method)
        else:
            raise ChannelError(f"unexpected method in connection state {self.stage}", method)
        return None

    def _start_ok(self, connection: Connection, method: ConnectionStartOk) -> None:
        self.client_properties = method.client_properties
        self.mechanism = method.mechanism
        capabilities = method.client_properties.get("capabilities")
        if isinstance(capabilities, dict):
            connection.blockable = capabilities.get("connection.blocked") is True
            connection.cancel_notify = capabilities.get("consumer_cancel_notify") is True
        worker = connection.worker
        anonymous_user = worker.settings.anonymous_login_user
        if method.mechanism not in worker.greeting.mechanisms:
            raise CommandInvalid(f"unknown authentication mechanism '{method.mechanism}'", method)
        login = mechanisms.Login(method.mechanism, method.response, self.peer_host, anonymous_user)
        try:
            user = mechanisms.authenticate(worker.directory.users, login)
        except AccessRefused:
            log.warning("refused login on %s: user '%s', mechanism %s", self.name, mechanisms.shown_name(login), method.mechanism)
            raise
        self.user = user.name
        self.user_bytes = user.name.encode()
        self.impersonator = "impersonator" in user.tags
        self.stage = TUNING
        connection.send_frames(worker.greeting.tune)

    def _tune_ok(self, connection: Connection, method: ConnectionTuneOk) -> None:
        settings = connection.worker.settings
        check_negotiated("frame_max", method.frame_max, FRAME_SIZE_MIN, settings.frame_max_bytes)
        check_negotiated("channel_max", method.channel_max, CHANNEL_MAX_MIN, settings.channel_max)
        connection.frame_max = method.frame_max
        connection.channel_max = method.channel_max
        self.heartbeat_s = method.heartbeat
        self.stage = OPENING

    def _open(self, connection: Connection, method: ConnectionOpen) -> None:
        worker = connection.worker
        vhost = worker.directory.vhosts.get(method.virtual_host)
        if vhost is None:
            raise NotAllowed(f"vhost {method.virtual_host} not found", method)
        worker.directory.permissions.check_open(self.user, method.virtual_host)
        worker.newcomers.leave(connection)
        self.stage = RUNNING
        connection.opened(vhost, self.user)
        connection.send(ConnectionOpenOk())
        if self.heartbeat_s:
            worker.heartbeats.add(connection, self.heartbeat_s)
        name = self.given_name
        tell(log, f"opened connection {self.name}{f' ({name})' if name else ''}: user '{self.user}', vhost '{vhost.name}'")

    def _update_secret(self, connection: Connection, method: ConnectionUpdateSecret) -> None:
        """The client shows a new password (or, one day, a newer token) of the same user; its connection goes on if that is right."""
        worker = connection.worker
        try:
            worker.directory.users.authenticate(self.user, method.new_secret, self.peer_host, self.mechanism)
        except AccessRefused as error:
            raise NotAllowed("New secret was refused by one of the backends", method) from error
        worker.directory.permissions.check_open(self.user, connection.vhost.name)
        log.info("connection %s of user '%s' has updated its secret: %s", self.name, self.user, method.reason)
        connection.send(ConnectionUpdateSecretOk())

    def _close(self, connection: Connection, method: ConnectionClose) -> Awaitable[None] | None:
        """The client closes. Its exclusive queues are gone before it hears close-ok, as people assume."""
        connection.client_closed()
        if connection.has_exclusive:
            return self._close_with_queues(connection)
        connection.send_last(ConnectionCloseOk())
        return None

    async def _close_with_queues(self, connection: Connection) -> None:
        await connection.worker.exclusive_gone(connection)
        connection.send_last(ConnectionCloseOk())

    def answer_close(self, connection: Connection) -> None:
        """The client's close has crossed ours: agree, and be done."""
        connection.send_last(ConnectionCloseOk())

    def hears_close(self, connection: Connection, error: AmqpError) -> bool:
        """Whether the client is told of this error by connection.close. If not, its socket closes silently after three seconds."""
        if self.stage == RUNNING:
            return True
        capabilities = self.client_properties.get("capabilities")
        if self.stage == STARTING and isinstance(error, AccessRefused):
            told = isinstance(capabilities, dict) and capabilities.get("authentication_failure_close") is True
        else:
            # The client is known by now; what it asked for can be refused in words.
            told = self.stage in (TUNING, OPENING) and isinstance(error, NotAllowed)
        if not told:
            self._timer = connection.worker.child.loop.call_later(SILENT_CLOSE_DELAY_S, connection.close, "refused in the handshake")
            connection.be_silent()
        return told

    def statistics(self, connection: Connection) -> dict[str, Any]:
        """The connection under the HTTP API's names."""
        return {
            "name": self.name,
            "owner": connection.owner,
            "user": self.user,
            "user_who_performed_action": self.user,
            "vhost": connection.vhost.name if connection.vhost is not None else "",
            "protocol": "AMQP 0-9-1",
            "state": self._state(connection),
            "channels": connection.channel_count,
            "channel_max": connection.channel_max,
            "frame_max": connection.frame_max,
            "timeout": self.heartbeat_s,
            "client_properties": self.client_properties,
            "user_provided_name": self.given_name,
            "host": self.host,
            "port": self.port,
            "peer_host": self.peer_host,
            "peer_port": self.peer_port,
            "ssl": False,
            "auth_mechanism": self.mechanism,
            "connected_at": connection.connected_at_ms,
            "recv_oct": connection.received_bytes,
            "recv_cnt": connection.received_count,
            "send_oct": connection.sent_bytes,
            "send_cnt": connection.sent_count,
            "send_pend": connection.unsent_bytes,
        }

    def _state(self, connection: Connection) -> str:
        if self.stage != RUNNING:
            return self.stage
        if connection.closed:
            return "closing"
        if connection.is_blocked:
            return "blocked"
        return "flow" if connection.is_held_up else RUNNING


def check_negotiated(field: str, value: int, lowest: int, highest: int) -> None:
    """RabbitMQ's rule for what tune-ok asks for: not below the minimum, not above what tune offered; 0 (no limit) is above. Raises 530."""
    if value and value < lowest:
        raise NotAllowed(f"negotiated {field} = {value} is lower than the minimum allowed value ({lowest})")
    if value == 0 or value > highest:
        raise NotAllowed(f"negotiated {field} = {value} is higher than the maximum allowed value ({highest})")
