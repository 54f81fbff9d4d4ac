from typing import Any

from leveret.queue.consumer import Consumer
from leveret.queue.ruled_backlog import RuledBacklog
from leveret.queue.rules import Rules

class InExclusiveUse(Exception): ...

class Queue(RuledBacklog):
    id: int
    name: str
    vhost: str
    durable: bool
    auto_delete: bool
    exclusive: bool
    arguments: dict[str, Any]
    exclusive_consumer: Consumer | None

    unacked_count: int
    unacked_bytes: int

    published: int
    delivered: int
    delivered_no_ack: int
    got: int
    got_no_ack: int
    redelivered: int
    acked: int
    requeued: int
    discarded: int
    get_empty: int
    buried: int

    dead_letters: Consumer | None

    def __init__(
        self,
        id: int,
        name: str,
        vhost: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        exclusive: bool = False,
        arguments: dict[str, Any] | None = None,
        rules: Rules = ...,
    ) -> None: ...
    def may_consume(self, exclusive: bool) -> bool: ...
    def add_consumer(self, consumer: Consumer) -> None: ...
    def add_getter(self, getter: Consumer) -> None: ...
    def cancel_consumer(self, consumer: Consumer) -> None: ...
    def remove_consumer(self, consumer: Consumer) -> int: ...
    def replace_consumer(self, old: Consumer, new: Consumer) -> None: ...
    def activate_together(self, consumers: list[Consumer]) -> None: ...
    @property
    def consumers(self) -> list[Consumer]: ...
    def purge(self) -> int: ...
    def clear(self) -> list[Consumer]: ...
    def statistics(self) -> dict[str, Any]: ...
