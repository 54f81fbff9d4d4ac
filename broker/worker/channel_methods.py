"""channel.flow, confirm.select, tx.* and access.request: what changes a channel itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from leveret.codec.errors import PreconditionFailed
from leveret.codec.methods import (
    AccessRequest,
    AccessRequestOk,
    ChannelFlow,
    ChannelFlowOk,
    ConfirmSelect,
    ConfirmSelectOk,
    Method,
    TxCommit,
    TxCommitOk,
    TxRollback,
    TxRollbackOk,
    TxSelect,
    TxSelectOk,
)

if TYPE_CHECKING:
    from leveret.worker.channel import Channel
    from leveret.worker.subscription import Subscription
    from leveret.worker.worker import Worker


class ChannelMethods:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def handlers(self) -> dict[type[Method], Any]:
        return {
            AccessRequest: self.access_request,
            ChannelFlow: self.flow,
            ConfirmSelect: self.confirm_select,
            ChannelFlowOk: self.flow_ok,
            TxSelect: self.tx_select,
            TxCommit: self.tx_commit,
            TxRollback: self.tx_rollback,
        }

    def access_request(self, channel: Channel, method: AccessRequest, arguments: bytes) -> None:
        """A relic of AMQP 0-8: answered, without meaning, as RabbitMQ does."""
        channel.send(AccessRequestOk(ticket=1))

    def flow(self, channel: Channel, method: ChannelFlow, arguments: bytes) -> Awaitable[None] | None:
        """active=false: nothing is delivered after flow-ok, until active=true. (RabbitMQ refuses to pause, with 540.)"""
        if not method.active:
            elsewhere = [subscription for subscription in channel.consumers.values() if subscription.handle]
            if elsewhere:
                return self._stop_flow(channel, elsewhere)
            channel.set_flow(False)
        channel.send(ChannelFlowOk(active=method.active))
        if method.active:
            channel.set_flow(True)
        return None

    async def _stop_flow(self, channel: Channel, elsewhere: list[Subscription]) -> None:
        """Queues on other workers hold their messages first: what they had sent by then still comes, before flow-ok."""
        answers = [
            subscription.owner.link.ask("hold", {"handle": subscription.handle})
            for subscription in elsewhere
            if subscription.owner is not None and subscription.owner.link is not None
        ]
        # A worker that dies over it sends nothing more either.
        await asyncio.gather(*answers, return_exceptions=True)
        channel.set_flow(False)
        channel.send(ChannelFlowOk(active=False))

    def flow_ok(self, channel: Channel, method: ChannelFlowOk, arguments: bytes) -> None:
        """An answer to what we never send; harmless."""

    def confirm_select(self, channel: Channel, method: ConfirmSelect, arguments: bytes) -> None:
        """Idempotent; counting begins with the first one."""
        if channel.transaction is not None:
            raise PreconditionFailed("cannot switch from tx to confirm mode", method)
        channel.select_confirms()
        if not method.nowait:
            channel.send(ConfirmSelectOk())

    def tx_select(self, channel: Channel, method: TxSelect, arguments: bytes) -> None:
        if channel.confirming:
            raise PreconditionFailed("cannot switch from confirm to tx mode", method)
        channel.select_transaction()
        channel.send(TxSelectOk())

    def tx_commit(self, channel: Channel, method: TxCommit, arguments: bytes) -> Awaitable[None] | None:
        """Publishes first, then acks, as RabbitMQ does; the answer waits until all of it is as safe as a confirm promises."""
        if channel.transaction is None:
            raise PreconditionFailed("channel is not transactional", method)
        elsewhere, routed = channel.spread()
        if elsewhere:
            return self._commit_as_one(channel, method, elsewhere, routed)
        taken = channel.commit()
        if taken is not None or channel.settled_elsewhere:
            return self._committed(channel, method, taken)
        channel.send(TxCommitOk())
        return None

    async def _commit_as_one(self, channel: Channel, method: TxCommit, elsewhere: set[int], routed: bool) -> None:
        """Nobody concerned commits to its disk until all of the transaction has come, so that a crash leaves all or nothing of it there."""
        async with self._worker.commits_held(elsewhere):
            if channel.closing or channel.connection.closed:
                return
            taken = channel.commit()
            if routed:
                # One that is down, or does not answer, has lost what it was sent, and its part of the transaction is refused.
                await asyncio.gather(*[self._worker.barrier(worker) for worker in elsewhere], return_exceptions=True)
        await self._committed(channel, method, taken)

    async def _committed(self, channel: Channel, method: TxCommit, taken: asyncio.Future[int] | None) -> None:
        written = [owner.link.ask("written", {}) for owner in channel.settled_elsewhere if owner.link is not None]
        try:
            refused = await taken if taken is not None else 0
        except asyncio.CancelledError:  # the channel has closed over it
            return
        # An owner that dies over it has kept the messages, or not: they come again, redelivered.
        outcomes = await asyncio.gather(*written, return_exceptions=True)
        if refused or any(isinstance(outcome, BaseException) for outcome in outcomes):
            raise PreconditionFailed("partial tx completion", method)
        channel.send(TxCommitOk())

    def tx_rollback(self, channel: Channel, method: TxRollback, arguments: bytes) -> None:
        """Publishes are forgotten, and so are acks: what was acked is unacked again, and not redelivered."""
        if channel.transaction is None:
            raise PreconditionFailed("channel is not transactional", method)
        channel.rollback()
        channel.send(TxRollbackOk())
