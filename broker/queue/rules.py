"""What a queue does with messages that grow too old or too many, and with itself when nobody uses it.

`Rules` is what a queue's arguments ask for, as numbers. The worker makes it for each queue of its own, and the queue keeps it
(`leveret.queue.queue`). Values have been checked when the queue was declared (`leveret.router.arguments`); nothing here refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

TTL_MS_MAX: Final = 315_360_000_000  # ten years, RabbitMQ's bound for x-message-ttl, x-expires and a message's expiration

# x-overflow, and its number in the queue.
OVERFLOWS: Final = {"drop-head": 0, "reject-publish": 1, "reject-publish-dlx": 2}


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one queue; None: no such rule.

    message_ttl_ms: 0 to ten years, for every message; expires_ms: 1 ms to ten years without use, after which the queue is deleted;
    max_length: ready messages; max_length_bytes: bytes of their bodies; overflow: a key of `OVERFLOWS`; dead_letter_exchange: name, ""
    is the default exchange; dead_letter_routing_key: at most 255 bytes, None: the message's own keys.
    """

    message_ttl_ms: int | None = None
    expires_ms: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str = "drop-head"
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: bytes | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Rules:
        """The rules that a queue's arguments (plain values) ask for; others of them are passed over."""
        exchange, key = arguments.get("x-dead-letter-exchange"), arguments.get("x-dead-letter-routing-key")
        return cls(
            message_ttl_ms=arguments.get("x-message-ttl"),
            expires_ms=arguments.get("x-expires"),
            max_length=arguments.get("x-max-length"),
            max_length_bytes=arguments.get("x-max-length-bytes"),
            overflow=arguments.get("x-overflow", "drop-head"),
            # A long string of bytes that are not UTF-8 is no exchange's name: nothing will be found under it.
            dead_letter_exchange=exchange.decode("utf-8", "replace") if isinstance(exchange, bytes) else exchange,
            dead_letter_routing_key=key.encode() if isinstance(key, str) else key,
        )


NO_RULES: Final = Rules()
