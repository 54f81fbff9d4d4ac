from typing import Any

from leveret.queue.queue import Queue

class Consumer:
    queue: Queue | None
    tag: bytes
    no_ack: bool
    exclusive: bool
    active: bool
    consuming: bool
    cancelled: bool
    priority: int
    prefetch: int
    prefetch_bytes: int
    unacked_bytes: int
    arguments: dict[str, Any]
    next_delivery_no: int

    def __init__(
        self,
        tag: bytes,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
        prefetch: int = 0,
        prefetch_bytes: int = 0,
        arguments: dict[str, Any] | None = None,
    ) -> None: ...
    def activate(self) -> None: ...
    def deactivate(self) -> None: ...
    def set_prefetch(self, prefetch: int, prefetch_bytes: int = 0) -> None: ...
    @property
    def unacked_count(self) -> int: ...
