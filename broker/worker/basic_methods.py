"""basic.qos, consume, cancel, get and recover. (Publish, ack, reject and nack are `leveret.worker.channel`'s.)

A consumer's queue may be on this worker or on another; from `Subscription` on nobody sees the difference. A consumer begins inactive, so
that consume-ok precedes its first delivery wherever the queue is.
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from leveret.codec.errors import NotAllowed, PreconditionFailed
from leveret.codec.methods import (
    BasicCancel,
    BasicCancelOk,
    BasicConsume,
    BasicConsumeOk,
    BasicGet,
    BasicQos,
    BasicQosOk,
    BasicRecover,
    BasicRecoverAsync,
    BasicRecoverOk,
    Method,
)
from leveret.codec.tables import decode_table, encode_table, type_name
from leveret.link.link import LinkClosed
from leveret.worker import owner, reply_to
from leveret.worker.subscription import Subscription, priority_of

if TYPE_CHECKING:
    from leveret.worker.channel import Channel
    from leveret.worker.directory import QueueEntry
    from leveret.worker.neighbour import Neighbour
    from leveret.worker.queue_methods import QueueMethods
    from leveret.worker.worker import Worker

INTEGER_TYPES = {"byte", "short", "signedint", "long", "unsignedbyte", "unsignedshort", "unsignedint"}
GETTERS_KEPT = 16  # per channel, before those of deleted queues are looked for


class BasicMethods:
    def __init__(self, worker: Worker, queues: QueueMethods) -> None:
        self._worker = worker
        self._queues = queues

    def handlers(self) -> dict[type[Method], Any]:
        return {
            BasicQos: self.qos,
            BasicConsume: self.consume,
            BasicCancel: self.cancel,
            BasicCancelOk: self.cancel_ok,
            BasicGet: self.get,
            BasicRecover: self.recover,
            BasicRecoverAsync: self.recover_async,
        }

    def qos(self, channel: Channel, method: BasicQos, arguments: bytes) -> None:
        """global=false: limits of each consumer, those that are there included; global=true: limits that all of the channel share.

        As in RabbitMQ the former lift the latter, but not the other way round.
        """
        if method.global_qos:
            channel.set_global_prefetch(method.prefetch_count, method.prefetch_size)
        else:
            channel.set_prefetch(method.prefetch_count, method.prefetch_size)
            channel.set_global_prefetch(0, 0)
        channel.send(BasicQosOk())

    # --- consume

    def consume(self, channel: Channel, method: BasicConsume, arguments: bytes) -> Awaitable[None] | None:
        name = self._queues.name(channel, method, method.queue)
        if name == reply_to.NAME:
            self._consume_replies(channel, method)
            return None
        self._worker.check_permission(channel.connection, "read", "queue", name)
        tag = (method.consumer_tag or generated_tag()).encode()
        if tag in channel.consumers:
            raise NotAllowed(f"attempt to reuse consumer tag '{tag.decode()}'", method)
        entry = self._queues.find(channel, method, name)
        check_priority(method, arguments, entry)
        subscription = Subscription(
            channel,
            tag,
            queue_id=entry.id,
            queue_name=entry.name,
            no_ack=method.no_ack,
            exclusive=method.exclusive,
            prefetch=channel.prefetch,
            prefetch_bytes=channel.prefetch_bytes,
            arguments=method.arguments,
            owner=None if entry.local is not None else self._worker.state.workers[entry.worker],
        )
        if entry.local is None:
            return self._consume_remotely(channel, method, subscription, entry)
        owner.consume(entry.local, subscription)
        self._begin(channel, method, subscription)
        return None

    def _consume_replies(self, channel: Channel, method: BasicConsume) -> None:
        """A consumer of direct replies: no queue, no acks, one to a channel."""
        tag = (method.consumer_tag or generated_tag()).encode()
        if tag in channel.consumers:
            raise NotAllowed(f"attempt to reuse consumer tag '{tag.decode()}'", method)
        if not method.no_ack:
            raise PreconditionFailed("reply consumer cannot acknowledge", method)
        if channel.reply_consumer is not None:
            raise PreconditionFailed("reply consumer already set", method)
        subscription = Subscription(channel, tag, queue_id=0, queue_name=reply_to.NAME, no_ack=True, replies=True)
        channel.set_reply_consumer(subscription)
        self._begin(channel, method, subscription)

    async def _consume_remotely(self, channel: Channel, method: BasicConsume, subscription: Subscription, entry: QueueEntry) -> None:
        try:
            await self._attach(channel, subscription, entry)
        except BaseException:
            subscription.forget()
            raise
        if channel.closing:  # the connection has gone meanwhile
            subscription.forget()
            return
        self._begin(channel, method, subscription)

    async def _attach(self, channel: Channel, subscription: Subscription, entry: QueueEntry) -> None:
        subscription.handle = await self._worker.ask_owner(
            entry,
            "attach",
            {
                "queue_id": entry.id,
                "ref": subscription.ref,
                "tag": subscription.tag,
                "no_ack": subscription.no_ack,
                "exclusive": subscription.exclusive,
                "priority": priority_of(subscription.arguments),
                "prefetch": subscription.prefetch_there(),
                "prefetch_bytes": subscription.prefetch_bytes,
                "arguments": encode_table(subscription.arguments),
                "about": {
                    "name": f"{channel.connection.name} ({channel.id})",
                    "number": channel.id,
                    "connection_name": channel.connection.name,
                    "peer_host": channel.connection.session.peer_host,
                    "peer_port": channel.connection.session.peer_port,
                    "user": channel.connection.user,
                },
            },
        )

    def _begin(self, channel: Channel, method: BasicConsume, subscription: Subscription) -> None:
        channel.add_consumer(subscription)
        if not method.nowait:
            channel.send(BasicConsumeOk(consumer_tag=subscription.tag.decode()))
        subscription.start()

    async def attach_anew(self, channel: Channel, lost: Subscription, entry: QueueEntry) -> None:
        """The worker that had the queue has died and come back: the consumer goes on, under its old tag."""
        subscription = Subscription(
            channel,
            lost.tag,
            queue_id=entry.id,
            queue_name=entry.name,
            no_ack=lost.no_ack,
            exclusive=lost.exclusive,
            prefetch=lost.prefetch,
            prefetch_bytes=lost.prefetch_bytes,
            arguments=lost.arguments,
            owner=lost.owner,
        )
        await self._attach(channel, subscription, entry)
        if channel.closing or channel.consumers.get(lost.tag) is not lost:
            subscription.forget()
            return
        channel.add_consumer(subscription)
        subscription.start()

    # --- cancel

    def cancel(self, channel: Channel, method: BasicCancel, arguments: bytes) -> Awaitable[None] | None:
        """Cancelling an unknown tag is answered like any other, as in RabbitMQ."""
        subscription = channel.consumers.get(method.consumer_tag.encode())
        if subscription is not None and subscription.owner is not None and subscription.handle:
            return self._cancel_remotely(channel, method, subscription, subscription.owner)
        if subscription is not None:
            channel.remove_consumer(subscription)
            self._worker.consumers_gone([subscription])
        self._cancel_ok(channel, method)
        return None

    def cancel_ok(self, channel: Channel, method: BasicCancelOk, arguments: bytes) -> None:
        """An answer to a cancel of ours; we ask for none, and some clients give it all the same."""

    async def _cancel_remotely(self, channel: Channel, method: BasicCancel, subscription: Subscription, home: Neighbour) -> None:
        """What the other worker had sent before it heard of this still comes, and before cancel-ok."""
        link = home.link
        if link is not None:
            # Should that worker die over it, nothing more comes from there either.
            with contextlib.suppress(LinkClosed):
                await link.request("cancel", {"handle": subscription.handle})
        if channel.consumers.get(subscription.tag) is subscription:
            channel.remove_consumer(subscription)
        self._cancel_ok(channel, method)

    def _cancel_ok(self, channel: Channel, method: BasicCancel) -> None:
        if not method.nowait:
            channel.send(BasicCancelOk(consumer_tag=method.consumer_tag))

    # --- get

    def get(self, channel: Channel, method: BasicGet, arguments: bytes) -> Awaitable[None] | None:
        name = self._queues.name(channel, method, method.queue)
        self._worker.check_permission(channel.connection, "read", "queue", name)
        entry = self._queues.find(channel, method, name)
        getter = channel.getters.get((entry.id, method.no_ack))
        if getter is None:
            getter = self._new_getter(channel, method, entry)
        if channel.routed or entry.local is None:
            return self._get(channel, entry, getter)
        channel.get_local(getter, entry)
        return None

    async def _get(self, channel: Channel, entry: QueueEntry, getter: Subscription) -> None:
        await self._queues.settle_order(channel, entry)
        if entry.local is not None:
            channel.get_local(getter, entry)
            return
        handle, *taken = await self._worker.ask_owner(
            entry, "get", {"queue_id": entry.id, "ref": getter.ref, "handle": getter.handle, "no_ack": getter.no_ack}
        )
        getter.handle = handle
        if channel.closing:
            getter.forget()
        elif taken:
            delivery_no, redelivered, messages, wire = taken
            channel.get_remote(getter, wire, delivery_no, redelivered, messages)
        else:
            channel.write_get_empty()

    def _new_getter(self, channel: Channel, method: BasicGet, entry: QueueEntry) -> Subscription:
        """What keeps this channel's unacked messages got from that queue."""
        if len(channel.getters) >= GETTERS_KEPT:
            for key, getter in list(channel.getters.items()):
                if key[0] not in self._worker.directory.queues:
                    del channel.getters[key]
                    getter.forget()
        getter = Subscription(
            channel,
            b"",
            queue_id=entry.id,
            queue_name=entry.name,
            no_ack=method.no_ack,
            owner=None if entry.local is not None else self._worker.state.workers[entry.worker],
            getter=True,
        )
        if entry.local is not None:
            getter.take_from(entry.local)
        channel.getters[entry.id, method.no_ack] = getter
        return getter

    # --- recover

    def recover(self, channel: Channel, method: BasicRecover, arguments: bytes) -> None:
        """The answer comes before what is redelivered, as from RabbitMQ."""
        channel.send(BasicRecoverOk())
        self.recover_async(channel, method, arguments)

    def recover_async(self, channel: Channel, method: BasicRecover | BasicRecoverAsync, arguments: bytes) -> None:
        """Everything unacked on the channel: requeue=true, back to its queues; requeue=false, to the same consumers once more."""
        if method.requeue:
            channel.recover()
        else:
            channel.redeliver()


def generated_tag() -> str:
    """A consumer tag such as RabbitMQ makes."""
    return "amq.ctag-" + base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()


def check_priority(method: BasicConsume, arguments: bytes, entry: QueueEntry) -> None:
    """x-priority must be an integer. Raises `PreconditionFailed` (406), which names the wire type."""
    if "x-priority" not in method.arguments:
        return
    kind = type_name(decode_table(arguments, typed=True)["x-priority"].tag)
    if kind not in INTEGER_TYPES:
        raise PreconditionFailed(f"invalid arg 'x-priority' for {entry}: \"expected integer, got {kind}\"", method)
