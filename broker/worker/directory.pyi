from collections.abc import Mapping, Sequence
from typing import Any

from leveret.auth.permissions import Permissions
from leveret.auth.users import Users
from leveret.worker.state import ShardQueue

class ExchangeEntry:
    id: int
    name: str
    vhost: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: bytes
    def __init__(self, change: Mapping[str, Any]) -> None: ...

class QueueEntry:
    id: int
    name: str
    vhost: str
    durable: bool
    auto_delete: bool
    exclusive: bool
    arguments: bytes
    owner: str
    shard: int
    worker: int
    local: ShardQueue | None
    def __init__(self, change: Mapping[str, Any]) -> None: ...

class Vhost:
    name: str
    exchanges: dict[str, ExchangeEntry]
    queues: dict[str, QueueEntry]
    def __init__(self, name: str) -> None: ...
    def add_exchange(self, entry: ExchangeEntry) -> None: ...
    def remove_exchange(self, name: str) -> None: ...
    def add_queue(self, entry: QueueEntry) -> None: ...
    def remove_queue(self, name: str) -> None: ...

class Directory:
    vhosts: dict[str, Vhost]
    queues: dict[int, QueueEntry]
    users: Users
    permissions: Permissions
    version: int
    def __init__(self) -> None: ...
    def apply(self, change: Mapping[str, Any]) -> ExchangeEntry | QueueEntry | None: ...
    def begin_snapshot(self, changes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]: ...
    def has(self, change: Mapping[str, Any]) -> bool: ...
