from collections.abc import Callable, Iterable
from typing import Any

from leveret.link.poller import Poller
from leveret.queue.queue import Queue
from leveret.worker.channel import Channel
from leveret.worker.committer import Committer
from leveret.worker.connection import Connection
from leveret.worker.dead_letters import DeadLetterSender
from leveret.worker.deadlines import Deadlines
from leveret.worker.directory import Directory
from leveret.worker.neighbour import Neighbour
from leveret.worker.subscription import RemoteConsumer, Subscription

class ShardQueue(Queue):
    sender: DeadLetterSender | None
    def __init__(self, state: WorkerState, id: int, name: str, vhost: str, **properties: Any) -> None: ...

class WorkerState:
    index: int
    poller: Poller
    directory: Directory
    router: Neighbour
    committer: Committer
    workers: list[Neighbour]  # its own place holds None, and nobody looks there
    message_size_max: int
    blocked: bool
    queues: dict[int, ShardQueue]
    channels: dict[int, Channel]
    subscriptions: dict[int, Subscription]
    attached: dict[int, RemoteConsumer]
    throttled: dict[int, set[Connection | DeadLetterSender]]
    senders: dict[int, DeadLetterSender]
    deadlines: Deadlines[ShardQueue]
    on_unused: Callable[[ShardQueue], None] | None

    published: int
    confirmed: int
    returned: int
    dropped: int
    delivered: int
    delivered_no_ack: int
    redelivered: int
    acked: int
    got: int
    got_no_ack: int
    get_empty: int
    connections_opened: int
    connections_closed: int
    channels_opened: int
    channels_closed: int

    def __init__(self, poller: Poller, directory: Directory, index: int, worker_count: int, message_size_max: int) -> None: ...
    def now_ms(self) -> int: ...
    def add_queue(self, queue: ShardQueue) -> None: ...
    def remove_queue(self, id: int) -> ShardQueue: ...
    def add_channel(self, channel: Channel) -> None: ...
    def remove_channel(self, channel: Channel) -> None: ...
    def add_subscription(self, subscription: Subscription) -> None: ...
    def remove_subscription(self, ref: int) -> None: ...
    def attach(self, consumer: RemoteConsumer) -> None: ...
    def next_handle(self) -> int: ...
    def detach(self, handle: int) -> RemoteConsumer | None: ...
    def worker_lost(self, worker: int, routed: bool) -> None: ...
    def router_lost(self) -> None: ...
    def relieve(self, worker: int) -> None: ...
    def set_blocked(self, blocked: bool, connections: Iterable[Connection]) -> None: ...
    def totals(self) -> dict[str, Any]: ...
