"""exchange.declare, delete, bind and unbind: checked against the directory, decided by the router."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from leveret.codec.errors import AccessRefused, NotFound
from leveret.codec.methods import (
    ExchangeBind,
    ExchangeBindOk,
    ExchangeDeclare,
    ExchangeDeclareOk,
    ExchangeDelete,
    ExchangeDeleteOk,
    ExchangeUnbind,
    ExchangeUnbindOk,
    Method,
)

if TYPE_CHECKING:
    from leveret.worker.channel import Channel
    from leveret.worker.worker import Worker


def without_line_breaks(name: str) -> str:
    """A declared name without CR and LF, which RabbitMQ strips."""
    return name.replace("\r", "").replace("\n", "")


class ExchangeMethods:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def handlers(self) -> dict[type[Method], Any]:
        return {
            ExchangeDeclare: self.declare,
            ExchangeDelete: self.delete,
            ExchangeBind: self.bind,
            ExchangeUnbind: self.unbind,
        }

    def declare(self, channel: Channel, method: ExchangeDeclare, arguments: bytes) -> Awaitable[None] | None:
        name = without_line_breaks(method.exchange)
        if not name:
            raise AccessRefused("operation not permitted on the default exchange", method)
        connection = channel.connection
        if method.passive:
            self._worker.directory.permissions.check_any(connection.user, connection.vhost.name, "exchange", name)
            if name not in connection.vhost.exchanges:
                raise NotFound(f"no exchange '{name}' in vhost '{connection.vhost.name}'", method)
            if not method.nowait:
                channel.send(ExchangeDeclareOk())
            return None
        self._worker.check_permission(connection, "configure", "exchange", name)
        alternate = method.arguments.get("alternate-exchange")
        if isinstance(alternate, str) and name not in connection.vhost.exchanges:
            # Messages will go out of the one and into the other. Anything but a string is refused by the router.
            self._worker.check_permission(connection, "read", "exchange", name)
            self._worker.check_permission(connection, "write", "exchange", alternate)
        return self._declare(channel, method, name, arguments)

    async def _declare(self, channel: Channel, method: ExchangeDeclare, name: str, arguments: bytes) -> None:
        await self._worker.ask_router(
            "declare_exchange",
            {
                "vhost": channel.connection.vhost.name,
                "name": name,
                "type": method.type,
                "durable": method.durable,
                "auto_delete": method.auto_delete,
                "internal": method.internal,
                "arguments": arguments,
            },
        )
        if not method.nowait:
            channel.send(ExchangeDeclareOk())

    async def _delete(self, channel: Channel, method: ExchangeDelete, name: str) -> None:
        await self._worker.ask_router(
            "delete_exchange", {"vhost": channel.connection.vhost.name, "name": name, "if_unused": method.if_unused}
        )
        if not method.nowait:
            channel.send(ExchangeDeleteOk())

    def delete(self, channel: Channel, method: ExchangeDelete, arguments: bytes) -> Awaitable[None]:
        name = without_line_breaks(method.exchange)
        if not name:
            raise AccessRefused("operation not permitted on the default exchange", method)
        self._worker.check_permission(channel.connection, "configure", "exchange", name)
        return self._delete(channel, method, name)

    def bind(self, channel: Channel, method: ExchangeBind, arguments: bytes) -> Awaitable[None]:
        return self._change(channel, "bind", method, arguments, ExchangeBindOk())

    def unbind(self, channel: Channel, method: ExchangeUnbind, arguments: bytes) -> Awaitable[None]:
        return self._change(channel, "unbind", method, arguments, ExchangeUnbindOk())

    def _change(self, channel: Channel, verb: str, method: ExchangeBind | ExchangeUnbind, arguments: bytes, ok: Method) -> Awaitable[None]:
        source, destination = without_line_breaks(method.source), without_line_breaks(method.destination)
        if not source or not destination:
            raise AccessRefused("operation not permitted on the default exchange", method)
        self._worker.check_permission(channel.connection, "write", "exchange", destination)
        self._worker.check_permission(channel.connection, "read", "exchange", source)
        body = {
            "vhost": channel.connection.vhost.name,
            "source": source,
            "destination": destination,
            "destination_type": "exchange",
            "routing_key": method.routing_key,
            "arguments": arguments,
        }
        return self._apply(channel, verb, body, None if method.nowait else ok)

    async def _apply(self, channel: Channel, verb: str, body: dict[str, Any], ok: Method | None) -> None:
        await self._worker.ask_router(verb, body)
        if ok is not None:
            channel.send(ok)
