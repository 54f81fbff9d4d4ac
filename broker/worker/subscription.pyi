from typing import Any

from leveret.queue.consumer import Consumer
from leveret.queue.queue import Queue
from leveret.worker.channel import Channel
from leveret.worker.neighbour import Neighbour
from leveret.worker.state import ShardQueue

class Subscription:
    channel: Channel
    tag: bytes
    no_ack: bool
    exclusive: bool
    prefetch: int
    prefetch_bytes: int
    arguments: dict[str, Any]
    queue_id: int
    queue_name: str
    consumer: LocalConsumer | None
    owner: Neighbour | None
    ref: int
    handle: int
    reply_name: bytes | None
    getter: bool
    unacked_count: int
    cancelled: bool

    def __init__(
        self,
        channel: Channel,
        tag: bytes,
        *,
        queue_id: int,
        queue_name: str,
        no_ack: bool,
        exclusive: bool = False,
        prefetch: int = 0,
        prefetch_bytes: int = 0,
        arguments: dict[str, Any] | None = None,
        owner: Neighbour | None = None,
        getter: bool = False,
        replies: bool = False,
    ) -> None: ...
    def take_from(self, queue: Queue) -> None: ...
    def start(self) -> None: ...
    def go_on(self) -> None: ...
    def set_prefetch(self, prefetch: int, prefetch_bytes: int) -> None: ...
    def prefetch_there(self) -> int: ...
    def stop(self) -> None: ...
    def forget(self) -> None: ...
    def lose_owner(self) -> None: ...

class LocalConsumer(Consumer):
    queue: ShardQueue | None
    subscription: Subscription
    def __init__(self, subscription: Subscription) -> None: ...

class RemoteConsumer(Consumer):
    queue: ShardQueue | None
    client: Neighbour
    ref: int
    handle: int
    about: dict[str, Any] | None
    def __init__(self, client: Neighbour, ref: int, handle: int, tag: bytes, about: dict[str, Any] | None, **properties: Any) -> None: ...
    def take(self) -> tuple[Any, ...]: ...
    def set_held(self, held: bool) -> None: ...

def priority_of(arguments: dict[str, Any]) -> int: ...
