"""queue.declare, bind, unbind, purge and delete.

Names and rights are checked against the directory. What the topology says is the router's to decide; what is in a queue is known to the
worker that owns it, which may be this one (`leveret.worker.owner`) or another, asked over its link.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from leveret.codec.errors import AccessRefused, AmqpError, NotFound, ResourceLocked
from leveret.codec.methods import (
    Method,
    QueueBind,
    QueueBindOk,
    QueueDeclare,
    QueueDeclareOk,
    QueueDelete,
    QueueDeleteOk,
    QueuePurge,
    QueuePurgeOk,
    QueueUnbind,
    QueueUnbindOk,
)
from leveret.codec.tables import find_field
from leveret.worker import owner, reply_to
from leveret.worker.exchange_methods import without_line_breaks

if TYPE_CHECKING:
    from leveret.worker.channel import Channel
    from leveret.worker.connection import Connection
    from leveret.worker.directory import QueueEntry
    from leveret.worker.worker import Worker


class QueueMethods:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def handlers(self) -> dict[type[Method], Any]:
        return {
            QueueDeclare: self.declare,
            QueueBind: self.bind,
            QueueUnbind: self.unbind,
            QueuePurge: self.purge,
            QueueDelete: self.delete,
        }

    # --- finding

    def name(self, channel: Channel, method: Method, name: str) -> str:
        """The queue's name; an empty one means the last declared on this channel."""
        if name:
            return name
        if not channel.last_queue:
            raise NotFound("no previously declared queue", method)
        return str(channel.last_queue)

    def find(self, channel: Channel, method: Method, name: str) -> QueueEntry:
        """The queue of that name, if this connection may touch it. Raises 404, or 405 for another connection's exclusive queue."""
        vhost = channel.connection.vhost
        entry = vhost.queues.get(name)
        if entry is None:
            raise NotFound(f"no queue '{name}' in vhost '{vhost.name}'", method)
        if entry.exclusive and entry.owner != channel.connection.owner:
            raise locked(entry, method)
        return entry

    async def settle_order(self, channel: Channel, entry: QueueEntry) -> None:
        """Whatever this channel has published through exchanges is in the queue before what follows looks at it."""
        if channel.routed:
            await self._worker.barrier(entry.worker)

    async def status(self, channel: Channel, entry: QueueEntry) -> list[int]:
        """Messages ready and consumers."""
        await self.settle_order(channel, entry)
        if entry.local is not None:
            return owner.status(entry.local)
        status: list[int] = await self._worker.ask_owner(entry, "queue_status", {"queue_id": entry.id})
        return status

    # --- declare

    def declare(self, channel: Channel, method: QueueDeclare, arguments: bytes) -> Awaitable[None]:
        connection = channel.connection
        name = without_line_breaks(method.queue)
        if name == reply_to.NAME or name.startswith(reply_to.PREFIX):
            return self._declare_reply_name(channel, method, name)
        if method.passive:
            self._worker.directory.permissions.check_any(connection.user, connection.vhost.name, "queue", name)
            return self._declare_ok(channel, method, self.find(channel, method, name))
        if name.startswith("amq."):
            raise AccessRefused(f"queue name '{name}' contains reserved prefix 'amq.*'", method)
        self._worker.check_permission(connection, "configure", "queue", name)
        if arguments and name not in connection.vhost.queues:
            self._check_dead_letter_exchange(connection, name, arguments)
        return self._declare(channel, method, name, arguments)

    def _check_dead_letter_exchange(self, connection: Connection, name: str, arguments: bytes) -> None:
        """A new queue's dead letters take messages out of the queue and put them into the exchange: its maker must be allowed both."""
        exchange = find_field(arguments, "x-dead-letter-exchange", typed=True)
        if exchange is None or exchange.tag != "S":  # the router refuses it
            return
        self._worker.check_permission(connection, "read", "queue", name)
        value = exchange.value if isinstance(exchange.value, str) else exchange.value.decode("utf-8", "replace")
        self._worker.check_permission(connection, "write", "exchange", value)

    async def _declare_reply_name(self, channel: Channel, method: QueueDeclare, name: str) -> None:
        """A name for direct replies is no queue, but declaring it tells whether somebody waits there, as on RabbitMQ."""
        place = reply_to.place_of(name)
        waits = name == reply_to.NAME
        if place is not None and place[0] == self._worker.index:
            waits = self._worker.waits_for_replies(place[1], name)
        elif place is not None and place[0] < len(self._worker.state.workers):
            link = self._worker.state.workers[place[0]].link
            waits = link is not None and await link.request("reply_name", {"ref": place[1], "name": name})
        if not waits:
            raise NotFound(f"no queue '{name}' in vhost '{channel.connection.vhost.name}'", method)
        if not method.nowait:
            channel.send(QueueDeclareOk(queue=name, message_count=0, consumer_count=1))

    async def _declare(self, channel: Channel, method: QueueDeclare, name: str, arguments: bytes) -> None:
        connection = channel.connection
        if method.exclusive:
            connection.has_exclusive = True
        declared = await self._worker.ask_router(
            "declare_queue",
            {
                "vhost": connection.vhost.name,
                "name": name,
                "durable": method.durable,
                "exclusive": method.exclusive,
                "auto_delete": method.auto_delete,
                "arguments": arguments,
                "owner": connection.owner,
                "worker": self._worker.index,
            },
        )
        entry = connection.vhost.queues.get(declared["name"])
        if entry is None:  # deleted again before we heard of it
            raise NotFound(f"no queue '{declared['name']}' in vhost '{connection.vhost.name}'", method)
        channel.last_queue = entry.name
        await self._declare_ok(channel, method, entry)

    async def _declare_ok(self, channel: Channel, method: QueueDeclare, entry: QueueEntry) -> None:
        channel.last_queue = entry.name
        if method.nowait:
            return
        messages, consumers = await self.status(channel, entry)
        channel.send(QueueDeclareOk(queue=entry.name, message_count=messages, consumer_count=consumers))

    # --- bind

    def bind(self, channel: Channel, method: QueueBind, arguments: bytes) -> Awaitable[None]:
        return self._change(channel, "bind", method, arguments, QueueBindOk(), method.nowait)

    def unbind(self, channel: Channel, method: QueueUnbind, arguments: bytes) -> Awaitable[None]:
        return self._change(channel, "unbind", method, arguments, QueueUnbindOk(), False)

    def _change(
        self, channel: Channel, verb: str, method: QueueBind | QueueUnbind, arguments: bytes, ok: Method, nowait: bool
    ) -> Awaitable[None]:
        connection = channel.connection
        name = without_line_breaks(self.name(channel, method, method.queue))
        exchange = without_line_breaks(method.exchange)
        routing_key = method.routing_key
        if not method.queue and not routing_key:
            routing_key = name
        if not exchange:
            raise AccessRefused("operation not permitted on the default exchange", method)
        self._worker.check_permission(connection, "write", "queue", name)
        self._worker.check_permission(connection, "read", "exchange", exchange)
        if name == reply_to.NAME or name.startswith(reply_to.PREFIX):
            raise AccessRefused("cannot bind or unbind to a volatile (direct reply-to) queue", method)
        body = {
            "vhost": connection.vhost.name,
            "source": exchange,
            "destination": name,
            "destination_type": "queue",
            "routing_key": routing_key,
            "arguments": arguments,
            "owner": connection.owner,
        }
        return self._apply(channel, verb, body, None if nowait else ok)

    async def _apply(self, channel: Channel, verb: str, body: dict[str, Any], ok: Method | None) -> None:
        await self._worker.ask_router(verb, body)
        if ok is not None:
            channel.send(ok)

    # --- purge and delete

    def purge(self, channel: Channel, method: QueuePurge, arguments: bytes) -> Awaitable[None]:
        name = self.name(channel, method, method.queue)
        self._worker.check_permission(channel.connection, "read", "queue", name)
        return self._purge(channel, method, self.find(channel, method, name))

    async def _purge(self, channel: Channel, method: QueuePurge, entry: QueueEntry) -> None:
        await self.settle_order(channel, entry)
        if entry.local is not None:
            count = entry.local.purge()
        else:
            count = await self._worker.ask_owner(entry, "purge", {"queue_id": entry.id})
        if not method.nowait:
            channel.send(QueuePurgeOk(message_count=count))

    def delete(self, channel: Channel, method: QueueDelete, arguments: bytes) -> Awaitable[None] | None:
        name = without_line_breaks(self.name(channel, method, method.queue))
        self._worker.check_permission(channel.connection, "configure", "queue", name)
        if name not in channel.connection.vhost.queues:
            # Deleting what is not there succeeds, as in RabbitMQ.
            if not method.nowait:
                channel.send(QueueDeleteOk(message_count=0))
            return None
        return self._delete(channel, method, self.find(channel, method, name))

    async def _delete(self, channel: Channel, method: QueueDelete, entry: QueueEntry) -> None:
        await self.settle_order(channel, entry)
        # Consumers of this very channel hear of the end after the answer, as from RabbitMQ.
        cancels = self._worker.held_cancels[channel] = []
        try:
            if entry.local is not None:
                count = await owner.delete(self._worker, entry.local, if_unused=method.if_unused, if_empty=method.if_empty)
            else:
                count = await self._worker.ask_owner(
                    entry, "delete_queue", {"queue_id": entry.id, "if_unused": method.if_unused, "if_empty": method.if_empty}
                )
        except AmqpError as error:
            raise error.caused_by(method) from None
        finally:
            del self._worker.held_cancels[channel]
        if not method.nowait:
            channel.send(QueueDeleteOk(message_count=count))
        for cancel in cancels:
            channel.send(cancel)


def locked(entry: QueueEntry, method: Method) -> ResourceLocked:
    """405: another connection's exclusive queue."""
    return ResourceLocked(
        f"cannot obtain exclusive access to locked {entry}. It could be originally declared on another connection or the exclusive "
        "property value does not match that of the original declaration.",
        method,
    )
