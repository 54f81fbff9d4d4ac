"""What the broker gives back of what one pika channel publishes: `basic.return` in order, and publishes that pika itself cannot make.

Owns the returned messages of a blocking channel. Tests publish, call `settled()` to be sure that every return has come, and look at
`messages`. `publish_immediate` sets the flag that pika has dropped.
"""

from __future__ import annotations

from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from tests.deadline import eventually


class Returns:
    """The returns of a channel: (reply code, reply text, exchange, routing key, body) each."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.channel = channel
        self.messages: list[tuple[int, str, str, str, bytes]] = []
        channel.add_on_return_callback(self._on_return)

    def _on_return(self, _: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self.messages.append((method.reply_code, method.reply_text, method.exchange, method.routing_key, body))

    def wait(self, count: int) -> list[tuple[int, str, str, str, bytes]]:
        """Let events come until `count` messages have been returned, and give all there are; `AssertionError` when they do not come."""

        def look() -> bool:
            self.channel.connection.process_data_events(0.1)
            return len(self.messages) >= count

        eventually(look, what=f"{count} returned messages")
        return self.messages


def publish_immediate(
    channel: BlockingChannel,
    exchange: str,
    routing_key: str,
    body: bytes,
    properties: pika.BasicProperties | None = None,
    *,
    mandatory: bool = False,
) -> None:
    """Publish with `immediate` set. pika's own publish has no such flag any more; the method and its content are sent by its parts."""
    method = pika.spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory, immediate=True)
    channel._impl._send_method(method, (properties or pika.BasicProperties(), body))
    channel.connection.process_data_events(0)  # sends it
