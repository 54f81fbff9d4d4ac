"""The cold methods: everything on a channel but publish, deliver, ack, reject, nack and get's fast path.

`leveret.worker.connection` hands each here as an object. This file finds the function for it; the families have a file each, named like the
protocol's classes. A method that needs another process returns an awaitable, and its connection waits for it; any other is done on return.
Refusals are raised as `AmqpError`; the connection answers them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from leveret.codec.errors import CommandInvalid
from leveret.codec.methods import Method
from leveret.worker.basic_methods import BasicMethods
from leveret.worker.channel_methods import ChannelMethods
from leveret.worker.exchange_methods import ExchangeMethods
from leveret.worker.queue_methods import QueueMethods

if TYPE_CHECKING:
    from leveret.worker.channel import Channel
    from leveret.worker.worker import Worker


class Methods:
    """The four families over one worker."""

    def __init__(self, worker: Worker) -> None:
        self.channel = ChannelMethods(worker)
        self.exchange = ExchangeMethods(worker)
        self.queue = QueueMethods(worker)
        self.basic = BasicMethods(worker, self.queue)
        self._handlers: dict[type[Method], Callable[[Channel, Method, bytes], Awaitable[None] | None]] = {
            **self.channel.handlers(),
            **self.exchange.handlers(),
            **self.queue.handlers(),
            **self.basic.handlers(),
        }

    def serve(self, channel: Channel, method: Method, arguments: bytes) -> Awaitable[None] | None:
        """Carry the method out, or begin to. `arguments`: its field table as the client's bytes, b"" if it has none."""
        handler = self._handlers.get(type(method))
        if handler is None:
            # A method that only servers send, or one of channel 0.
            raise CommandInvalid("unimplemented method", method)
        return handler(channel, method, arguments)
