"""channel.flow, confirm.select, tx.* and access.request: what changes a channel itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leveret.codec.errors import NotImplementedByBroker
from leveret.codec.methods import (
    AccessRequest,
    AccessRequestOk,
    ChannelFlow,
    ChannelFlowOk,
    ConfirmSelect,
    ConfirmSelectOk,
    Method,
    TxCommit,
    TxRollback,
    TxSelect,
)

if TYPE_CHECKING:
    from leveret.worker.channel import Channel
    from leveret.worker.worker import Worker


class ChannelMethods:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def handlers(self) -> dict[type[Method], Any]:
        return {
            AccessRequest: self.access_request,
            ChannelFlow: self.flow,
            ConfirmSelect: self.confirm_select,
            TxSelect: self.transaction,
            TxCommit: self.transaction,
            TxRollback: self.transaction,
        }

    def access_request(self, channel: Channel, method: AccessRequest, arguments: bytes) -> None:
        """A relic of AMQP 0-8: answered, without meaning, as RabbitMQ does."""
        channel.send(AccessRequestOk(ticket=1))

    def flow(self, channel: Channel, method: ChannelFlow, arguments: bytes) -> None:
        """active=true is what already is; pausing is refused with RabbitMQ's words."""
        if not method.active:
            raise NotImplementedByBroker("active=false", method)
        channel.send(ChannelFlowOk(active=True))

    def confirm_select(self, channel: Channel, method: ConfirmSelect, arguments: bytes) -> None:
        """Idempotent; counting begins with the first one."""
        channel.select_confirms()
        if not method.nowait:
            channel.send(ConfirmSelectOk())

    def transaction(self, channel: Channel, method: Method, arguments: bytes) -> None:
        """Transactions come with a later version. Refused, so that nobody relies on what is not there."""
        raise NotImplementedByBroker(f"{method.name} is not supported by this version of Leveret", method)
