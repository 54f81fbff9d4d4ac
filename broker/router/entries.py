"""What the topology consists of: one class for each kind of object, with its two outward forms, a change and a record.

Plain data; the rules are `leveret.router.topology`'s, which alone makes and changes these.

Ids. Everything that is stored has an id from one counter (u32, from 1, never used twice while the store lives). An exchange's or queue's
id is what packets carry. Id 0 is the record of the shards, of which there is one.

Shards. A queue lives on a shard, for good: that is where its messages are stored. Worker `shard % workers` owns the shard. There are at
least as many shards as workers; their number never shrinks, so that a node with fewer workers than before still serves every queue.

Changes, as the workers get them (`{"change": …}` maps); a snapshot is the same maps, in an order in which they can be applied:

    vhost_added          name, description, tags
    vhost_removed        name                       its exchanges, queues and permissions were removed by changes before this one
    user_put             name, password_hash, hashing_algorithm, tags
    user_removed         name                       permissions were cleared before
    permissions_set      user, vhost, configure, write, read
    permissions_cleared  user, vhost
    exchange_added       id, vhost, name, type, durable, auto_delete, internal, arguments
    exchange_removed     id, vhost, name
    queue_added          id, vhost, name, shard, worker, durable, exclusive, auto_delete, owner, arguments
    queue_removed        id, vhost, name, worker

Records, as the store keeps them: a map with `kind` and the fields of the object, under its id. Durable ones are what comes back after the
node restarts; the others belong to the *session*: they outlive the router's process, not the node's. To change a record: raise
`RECORDS_VERSION`, teach `bring_forward` to make the new form of the one before (`restore` knows the newest only), and say so in the list
below.

    1   kinds vhost, user, permissions, exchange, queue, binding (fields as `record` of each class); a queue had `worker` for its `shard`
    2   kind shards
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from leveret.router.exchanges.exchange import EXCHANGE_BIT, Exchange

RECORDS_VERSION: Final = 2
SHARDS_ID: Final = 0
SHARDS_MAX: Final = 64  # as many as workers at most (leveret.config): what a stored number may be

Change = dict[str, Any]
Record = dict[str, Any]


class Stored(NamedTuple):
    """One record to write (`record`) or to take away (None), durably or for this session."""

    id: int
    durable: bool
    record: Record | None


@dataclass(slots=True)
class Applied:
    """What a command did."""

    result: dict[str, Any]
    changes: list[Change] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)


def bring_forward(version: int, records: Mapping[int, Record]) -> dict[int, Record | None] | None:
    """What must be written to make records of an older version those of `RECORDS_VERSION`; None if that version is unknown."""
    if version != 1:
        return None
    changes: dict[int, Record | None] = {}
    count = 1
    for record_id, record in records.items():
        if record.get("kind") == "queue":
            shard = record.get("worker")
            changes[record_id] = {name: value for name, value in record.items() if name != "worker"} | {"shard": shard}
            if isinstance(shard, int):  # else `restore` has the words for it
                count = max(count, shard + 1)
    changes[SHARDS_ID] = {"kind": "shards", "count": count}
    return changes


BindingKey = tuple[int, str, bytes]  # destination (an exchange's with EXCHANGE_BIT), binding key, arguments in normal form


@dataclass(slots=True, eq=False)
class Binding:
    """A way from an exchange to a queue or an exchange."""

    id: int
    source: ExchangeEntry
    destination: QueueEntry | ExchangeEntry
    routing_key: str
    arguments: bytes

    @property
    def durable(self) -> bool:
        """A binding is stored for good only if both its ends are."""
        return self.source.durable and self.destination.durable

    @property
    def key(self) -> BindingKey:
        return (self.destination.destination, self.routing_key, self.arguments)

    def record(self) -> Record:
        return {
            "kind": "binding",
            "source": self.source.id,
            "destination": self.destination.destination,
            "routing_key": self.routing_key,
            "arguments": self.arguments,
        }


@dataclass(slots=True, eq=False)
class ExchangeEntry:
    """An exchange: its properties, its bindings, and its matcher."""

    id: int
    vhost: str
    name: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: bytes
    matcher: Exchange
    bindings: dict[BindingKey, Binding] = field(default_factory=dict)
    inbound: dict[int, Binding] = field(default_factory=dict)  # by the binding's id
    alternate: str | None = None

    @property
    def destination(self) -> int:
        return EXCHANGE_BIT | self.id

    @property
    def described(self) -> str:
        return f"exchange '{self.name}' in vhost '{self.vhost}'"

    def added(self) -> Change:
        return {
            "change": "exchange_added",
            "id": self.id,
            "vhost": self.vhost,
            "name": self.name,
            "type": self.type,
            "durable": self.durable,
            "auto_delete": self.auto_delete,
            "internal": self.internal,
            "arguments": self.arguments,
        }

    def record(self) -> Record:
        return {"kind": "exchange"} | {name: value for name, value in self.added().items() if name not in ("change", "id")}


@dataclass(slots=True, eq=False)
class QueueEntry:
    """A queue as the directory knows it.

    shard: where its messages are; worker: index of the one that owns that shard in this run; owner: the connection of an exclusive one,
    else "".
    """

    id: int
    vhost: str
    name: str
    shard: int
    worker: int
    durable: bool
    exclusive: bool
    auto_delete: bool
    owner: str
    arguments: bytes
    inbound: dict[int, Binding] = field(default_factory=dict)

    @property
    def destination(self) -> int:
        return self.id

    @property
    def described(self) -> str:
        return f"queue '{self.name}' in vhost '{self.vhost}'"

    def added(self) -> Change:
        return {
            "change": "queue_added",
            "id": self.id,
            "vhost": self.vhost,
            "name": self.name,
            "shard": self.shard,
            "worker": self.worker,
            "durable": self.durable,
            "exclusive": self.exclusive,
            "auto_delete": self.auto_delete,
            "owner": self.owner,
            "arguments": self.arguments,
        }

    def record(self) -> Record:
        return {"kind": "queue"} | {name: value for name, value in self.added().items() if name not in ("change", "id", "worker")}


@dataclass(slots=True, eq=False)
class VhostEntry:
    """A vhost and what is in it."""

    id: int
    name: str
    description: str
    tags: tuple[str, ...]
    exchanges: dict[str, ExchangeEntry] = field(default_factory=dict)
    queues: dict[str, QueueEntry] = field(default_factory=dict)

    def added(self) -> Change:
        return {"change": "vhost_added", "name": self.name, "description": self.description, "tags": list(self.tags)}

    def record(self) -> Record:
        return {"kind": "vhost", "name": self.name, "description": self.description, "tags": list(self.tags)}


@dataclass(slots=True, eq=False)
class UserEntry:
    """A user. The password is only here as a salted hash."""

    id: int
    name: str
    password_hash: str = field(repr=False)
    hashing_algorithm: str
    tags: tuple[str, ...]

    def added(self) -> Change:
        return {"change": "user_put"} | {name: value for name, value in self.record().items() if name != "kind"}

    def record(self) -> Record:
        return {
            "kind": "user",
            "name": self.name,
            "password_hash": self.password_hash,
            "hashing_algorithm": self.hashing_algorithm,
            "tags": list(self.tags),
        }


@dataclass(slots=True, eq=False)
class PermissionsEntry:
    """What one user may do in one vhost."""

    id: int
    user: str
    vhost: str
    configure: str
    write: str
    read: str

    def added(self) -> Change:
        return {"change": "permissions_set"} | {name: value for name, value in self.record().items() if name != "kind"}

    def record(self) -> Record:
        return {
            "kind": "permissions",
            "user": self.user,
            "vhost": self.vhost,
            "configure": self.configure,
            "write": self.write,
            "read": self.read,
        }
