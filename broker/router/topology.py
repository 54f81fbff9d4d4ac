"""The topology: vhosts, exchanges, bindings, the queue directory, users and permissions, and the rules by which they change.

A pure state machine. `Topology.apply(command)` changes it and says what is to be done about it: the result for whoever asked, the changes
for the workers' replicas, the records to store. It raises the `AmqpError` that RabbitMQ's users know and then has changed nothing. The
router process (`leveret.router.router`) calls it, one command after the other; it never touches a socket, a clock or a disk. Random names
and placement are the only choices made here.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from leveret.auth.permissions import check_pattern
from leveret.codec.errors import AccessRefused, AmqpError, InternalError, NotAllowed, NotFound, PreconditionFailed, ResourceLocked
from leveret.codec.tables import type_name
from leveret.router.arguments import (
    check_queue_arguments,
    check_same_exchange_arguments,
    check_same_field,
    check_same_queue_arguments,
    decoded,
    normal,
)
from leveret.router.commands import (
    ANY_WORKER,
    NO_ARGUMENTS,
    Bind,
    ClearPermissions,
    Command,
    ConnectionGone,
    CreateVhost,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    DeleteUser,
    DeleteVhost,
    PutUser,
    SetPermissions,
    Unbind,
    WorkerGone,
)
from leveret.router.entries import (
    SHARDS_ID,
    SHARDS_MAX,
    Applied,
    Binding,
    Change,
    ExchangeEntry,
    PermissionsEntry,
    QueueEntry,
    Record,
    Stored,
    UserEntry,
    VhostEntry,
)
from leveret.router.exchanges.exchange import EXCHANGE_BIT, Exchange
from leveret.router.exchanges.types import EXCHANGE_TYPES

ID_MAX: Final = 2**32 - 1
NAME_BYTES_MAX: Final = 255

PREDECLARED: Final = (
    ("", "direct", False),
    ("amq.direct", "direct", False),
    ("amq.fanout", "fanout", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    ("amq.rabbitmq.trace", "topic", True),
    ("amq.topic", "topic", False),
)


class RoutingChanges(Protocol):
    """Who is told of everything that routes depend on: the distributor (`leveret.router.distributor`)."""

    def exchange_added(self, matcher: Exchange) -> None: ...

    def exchange_removed(self, exchange_id: int) -> None: ...

    def queue_added(self, queue_id: int, worker: int) -> None: ...

    def queue_removed(self, queue_id: int) -> None: ...

    def alternate_changed(self, exchange_id: int, alternate_id: int) -> None:
        """alternate_id: the exchange that takes what this one cannot route; 0: none."""

    def routes_changed(self, exchange_ids: Iterable[int]) -> None:
        """Routes that begin at one of these exchanges may lead elsewhere now."""


class Unrouted:
    """A node without a distributor: for the rules alone."""

    def exchange_added(self, matcher: Exchange) -> None:
        """Nobody routes by it."""

    def exchange_removed(self, exchange_id: int) -> None:
        """Nobody did."""

    def queue_added(self, queue_id: int, worker: int) -> None:
        """Nobody looks for it."""

    def queue_removed(self, queue_id: int) -> None:
        """Nobody did."""

    def alternate_changed(self, exchange_id: int, alternate_id: int) -> None:
        """Nobody follows it."""

    def routes_changed(self, exchange_ids: Iterable[int]) -> None:
        """Nobody remembers any."""


class BrokenRecord(Exception):
    """The store holds something that does not fit together; the message is a sentence about it."""


def guard_name(kind: str, name: str) -> str:
    """A name as it may be declared: line ends are taken out as RabbitMQ does, `amq.` is the broker's."""
    if name.startswith("amq."):
        raise AccessRefused(f"{kind} name '{name}' contains reserved prefix 'amq.*'")
    return name


def strip_line_ends(name: str) -> str:
    """RabbitMQ takes CR and LF out of names that are declared."""
    return name.replace("\r", "").replace("\n", "")


def _guard_length(kind: str, name: str) -> None:
    if len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES_MAX:
        raise PreconditionFailed(f"{kind} name is longer than {NAME_BYTES_MAX} bytes")


def generated_name() -> str:
    """A name for a queue whose client left it to us: `amq.gen-` and 128 random bits in base64url, as RabbitMQ makes them."""
    return "amq.gen-" + base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode("ascii")


class Topology:
    """The whole state. `workers`: how many there are; `shards`: how many those own together, at least one each."""

    def __init__(self, workers: int, routing: RoutingChanges | None = None, place_balanced: bool = False) -> None:
        self.workers = workers
        self.shards = workers
        self.place_balanced = place_balanced
        self.routing: RoutingChanges = routing if routing is not None else Unrouted()
        self.next_id = 1
        self.vhosts: dict[str, VhostEntry] = {}
        self.users: dict[str, UserEntry] = {}
        self.permissions: dict[tuple[str, str], PermissionsEntry] = {}
        self.exchanges: dict[int, ExchangeEntry] = {}
        self.queues: dict[int, QueueEntry] = {}
        self.queue_counts = [0] * workers
        self._exclusive: dict[str, dict[int, QueueEntry]] = {}
        self._alternates: dict[tuple[str, str], dict[int, ExchangeEntry]] = {}  # (vhost, alternate's name) -> those that name it
        self._applied = Applied({})
        self._told: set[int] = set()  # exchanges whose routes this command has changed
        self._handlers: Mapping[type[Any], Callable[[Any], dict[str, Any]]] = {
            DeclareExchange: self._declare_exchange,
            DeleteExchange: self._delete_exchange,
            DeclareQueue: self._declare_queue,
            DeleteQueue: self._delete_queue,
            Bind: self._bind,
            Unbind: self._unbind,
            CreateVhost: self._create_vhost,
            DeleteVhost: self._delete_vhost,
            PutUser: self._put_user,
            DeleteUser: self._delete_user,
            SetPermissions: self._set_permissions,
            ClearPermissions: self._clear_permissions,
            ConnectionGone: self._connection_gone,
            WorkerGone: self._worker_gone,
        }

    def apply(self, command: Command) -> Applied:
        """Carry the command out. Raises an `AmqpError` and then nothing has changed."""
        self._applied = Applied({})
        self._told.clear()
        self._applied.result = self._handlers[type(command)](command)
        return self._applied

    def snapshot(self) -> Iterator[Change]:
        """All that a worker's replica holds, as changes to an empty one."""
        for vhost in self.vhosts.values():
            yield vhost.added()
        for user in self.users.values():
            yield user.added()
        for permissions in self.permissions.values():
            yield permissions.added()
        for exchange in self.exchanges.values():
            yield exchange.added()
        for queue in self.queues.values():
            yield queue.added()

    # --- what is stored

    def restore(self, records: Mapping[int, Record], next_id: int, *, session: bool = False) -> list[int]:
        """Take in what was stored: first the durable records, into an empty topology, then those of the session.

        The two are not written in one transaction, so a record of the session may name what is no longer there, or hold a name that has
        been given out again: such are left out, and their ids returned. Anything that does not fit among the durable ones raises
        `BrokenRecord`.
        """
        by_kind: dict[str, list[tuple[int, Record]]] = {}
        for record_id in sorted(records):
            by_kind.setdefault(str(records[record_id].get("kind")), []).append((record_id, records[record_id]))
        readers: dict[str, Callable[[int, Record], None]] = {
            "shards": self._restore_shards,
            "vhost": self._restore_vhost,
            "user": self._restore_user,
            "permissions": self._restore_permissions,
            "exchange": self._restore_exchange,
            "queue": self._restore_queue,
            "binding": self._restore_binding,
        }
        unknown = by_kind.keys() - readers.keys()
        if unknown:
            raise BrokenRecord(f"the stored definitions hold records of an unknown kind: {', '.join(sorted(unknown))}")
        left_out: list[int] = []
        for kind, reader in readers.items():
            for record_id, record in by_kind.get(kind, ()):
                try:
                    reader(record_id, record)
                except (KeyError, TypeError, ValueError, AmqpError) as error:
                    if not session:
                        sentence = f"record {record_id} of the stored definitions, a {kind}, does not fit: {error!r}"
                        raise BrokenRecord(sentence) from error
                    left_out.append(record_id)
        self.next_id = max(self.next_id, next_id, max(records, default=0) + 1)
        return left_out

    def _restore_shards(self, record_id: int, record: Record) -> None:
        count = record["count"]
        if record_id != SHARDS_ID or not 1 <= count <= SHARDS_MAX:
            raise ValueError(f"{count!r} shards")
        self.shards = max(self.shards, count)

    def _restore_vhost(self, record_id: int, record: Record) -> None:
        self.vhosts[record["name"]] = VhostEntry(record_id, record["name"], record["description"], tuple(record["tags"]))

    def _restore_user(self, record_id: int, record: Record) -> None:
        user = UserEntry(record_id, record["name"], record["password_hash"], record["hashing_algorithm"], tuple(record["tags"]))
        self.users[user.name] = user

    def _restore_permissions(self, record_id: int, record: Record) -> None:
        entry = PermissionsEntry(record_id, record["user"], record["vhost"], record["configure"], record["write"], record["read"])
        self.permissions[entry.user, entry.vhost] = entry

    def _restore_exchange(self, record_id: int, record: Record) -> None:
        fields = {name: record[name] for name in ("name", "type", "durable", "auto_delete", "internal", "arguments")}
        vhost = self.vhosts[record["vhost"]]
        if fields["name"] in vhost.exchanges:
            raise KeyError(f"there are two exchanges '{fields['name']}'")
        self._add_exchange(vhost, record_id, **fields)

    def _restore_queue(self, record_id: int, record: Record) -> None:
        names = ("vhost", "name", "shard", "durable", "exclusive", "auto_delete", "owner", "arguments")
        queue = QueueEntry(record_id, worker=record["shard"] % self.workers, **{name: record[name] for name in names})
        if not 0 <= queue.shard < self.shards:
            raise ValueError(f"it is on shard {queue.shard}, and there are {self.shards}")
        vhost = self.vhosts[queue.vhost]
        if queue.name in vhost.queues:
            raise KeyError(f"there are two queues '{queue.name}'")
        self._add_queue(vhost, queue)

    def _restore_binding(self, record_id: int, record: Record) -> None:
        destination = record["destination"]
        ends: Mapping[int, QueueEntry | ExchangeEntry] = self.exchanges if destination & EXCHANGE_BIT else self.queues
        end = ends[destination & ID_MAX]
        self._add_binding(Binding(record_id, self.exchanges[record["source"]], end, record["routing_key"], record["arguments"]))

    def shards_record(self) -> Stored:
        """The number of shards, for the store."""
        return Stored(SHARDS_ID, True, {"kind": "shards", "count": self.shards})

    def records(self) -> Iterator[Stored]:
        """Every record there is: what a store made from nothing would hold."""
        yield self.shards_record()
        for vhost in self.vhosts.values():
            yield Stored(vhost.id, True, vhost.record())
        for user in self.users.values():
            yield Stored(user.id, True, user.record())
        for permissions in self.permissions.values():
            yield Stored(permissions.id, True, permissions.record())
        for exchange in self.exchanges.values():
            yield Stored(exchange.id, exchange.durable, exchange.record())
            for binding in exchange.bindings.values():
                yield Stored(binding.id, binding.durable, binding.record())
        for queue in self.queues.values():
            yield Stored(queue.id, queue.durable, queue.record())

    def _new_id(self) -> int:
        if self.next_id > ID_MAX:
            raise InternalError("the node has used up its ids; export its definitions and import them into an empty data directory")
        self.next_id += 1
        return self.next_id - 1

    def _changed(self, change: Change) -> None:
        self._applied.changes.append(change)

    def _store(self, record_id: int, durable: bool, record: Record | None) -> None:
        self._applied.stored.append(Stored(record_id, durable, record))

    # --- vhosts

    def _vhost(self, name: str) -> VhostEntry:
        vhost = self.vhosts.get(name)
        if vhost is None:
            raise NotAllowed(f"vhost {name} not found")
        return vhost

    def _create_vhost(self, command: CreateVhost) -> dict[str, Any]:
        _guard_length("vhost", command.name)
        if command.name in self.vhosts:
            return {"created": False}
        if not command.name:
            raise PreconditionFailed("a vhost must have a name")
        if command.user and command.user not in self.users:
            raise NotFound(f"no user '{command.user}'")
        vhost = VhostEntry(self._new_id(), command.name, command.description, command.tags)
        self.vhosts[vhost.name] = vhost
        self._changed(vhost.added())
        self._store(vhost.id, True, vhost.record())
        for name, kind, internal in PREDECLARED:
            self._make_exchange(vhost, name, kind, durable=True, auto_delete=False, internal=internal, arguments=NO_ARGUMENTS)
        if command.user:
            self._set_permissions(SetPermissions(command.user, vhost.name, ".*", ".*", ".*"))
        return {"created": True}

    def _delete_vhost(self, command: DeleteVhost) -> dict[str, Any]:
        vhost = self.vhosts.get(command.name)
        if vhost is None:
            return {"deleted": False}
        for queue in list(vhost.queues.values()):
            self._remove_queue(queue)
        for exchange in list(vhost.exchanges.values()):
            if exchange.id in self.exchanges:  # an auto-delete one may have gone with its last binding
                self._remove_exchange(exchange)
        for user, in_vhost in list(self.permissions):
            if in_vhost == vhost.name:
                self._clear_permissions(ClearPermissions(user, in_vhost))
        del self.vhosts[vhost.name]
        self._changed({"change": "vhost_removed", "name": vhost.name})
        self._store(vhost.id, True, None)
        return {"deleted": True}

    # --- users and permissions

    def _put_user(self, command: PutUser) -> dict[str, Any]:
        _guard_length("user", command.name)
        if not command.name:
            raise PreconditionFailed("a user must have a name")
        known = self.users.get(command.name)
        user = UserEntry(
            known.id if known is not None else self._new_id(),
            command.name,
            command.password_hash,
            command.hashing_algorithm,
            command.tags,
        )
        self.users[user.name] = user
        self._changed(user.added())
        self._store(user.id, True, user.record())
        return {"created": known is None}

    def _delete_user(self, command: DeleteUser) -> dict[str, Any]:
        user = self.users.pop(command.name, None)
        if user is None:
            return {"deleted": False}
        for of_user, vhost in list(self.permissions):
            if of_user == user.name:
                self._clear_permissions(ClearPermissions(of_user, vhost))
        self._changed({"change": "user_removed", "name": user.name})
        self._store(user.id, True, None)
        return {"deleted": True}

    def _set_permissions(self, command: SetPermissions) -> dict[str, Any]:
        self._vhost(command.vhost)
        if command.user not in self.users:
            raise NotFound(f"no user '{command.user}'")
        for pattern in (command.configure, command.write, command.read):
            check_pattern(pattern)
        known = self.permissions.get((command.user, command.vhost))
        entry = PermissionsEntry(
            known.id if known is not None else self._new_id(),
            command.user,
            command.vhost,
            command.configure,
            command.write,
            command.read,
        )
        self.permissions[entry.user, entry.vhost] = entry
        self._changed(entry.added())
        self._store(entry.id, True, entry.record())
        return {}

    def _clear_permissions(self, command: ClearPermissions) -> dict[str, Any]:
        entry = self.permissions.pop((command.user, command.vhost), None)
        if entry is None:
            return {"deleted": False}
        self._changed({"change": "permissions_cleared", "user": entry.user, "vhost": entry.vhost})
        self._store(entry.id, True, None)
        return {"deleted": True}

    # --- exchanges

    def _declare_exchange(self, command: DeclareExchange) -> dict[str, Any]:
        vhost = self._vhost(command.vhost)
        name = strip_line_ends(command.name)
        _guard_length("exchange", name)
        if command.type not in EXCHANGE_TYPES:
            raise PreconditionFailed(f"unknown exchange type '{command.type}'")
        _guard_not_default(name)
        found = vhost.exchanges.get(name)
        if found is not None:
            for property_name in ("type", "durable", "auto_delete", "internal"):
                check_same_field(property_name, getattr(found, property_name), getattr(command, property_name), found.described)
            check_same_exchange_arguments(found.arguments, command.arguments, found.described)
            return {"id": found.id, "created": False}
        guard_name("exchange", name)
        made = self._make_exchange(
            vhost, name, command.type, command.durable, command.auto_delete, command.internal, command.arguments or NO_ARGUMENTS
        )
        return {"id": made.id, "created": True}

    def _make_exchange(
        self, vhost: VhostEntry, name: str, type: str, durable: bool, auto_delete: bool, internal: bool, arguments: bytes
    ) -> ExchangeEntry:
        alternate_of(arguments, f"exchange '{name}' in vhost '{vhost.name}'")
        made = self._add_exchange(vhost, self._new_id(), name, type, durable, auto_delete, internal, arguments)
        self._changed(made.added())
        self._store(made.id, made.durable, made.record())
        return made

    def _add_exchange(
        self, vhost: VhostEntry, id: int, name: str, type: str, durable: bool, auto_delete: bool, internal: bool, arguments: bytes
    ) -> ExchangeEntry:
        matcher = EXCHANGE_TYPES[type](id)
        entry = ExchangeEntry(id, vhost.name, name, type, durable, auto_delete, internal, arguments, matcher)
        entry.alternate = alternate_of(arguments, entry.described)
        vhost.exchanges[name] = entry
        self.exchanges[id] = entry
        self.routing.exchange_added(matcher)
        if entry.alternate is not None:
            self._alternates.setdefault((vhost.name, entry.alternate), {})[id] = entry
            alternate = vhost.exchanges.get(entry.alternate)
            self.routing.alternate_changed(id, alternate.id if alternate is not None else 0)
        waiting = self._alternates.get((vhost.name, name))
        if waiting:
            for other in waiting.values():
                self.routing.alternate_changed(other.id, id)
            self._routes_changed(*waiting.values())
        return entry

    def _delete_exchange(self, command: DeleteExchange) -> dict[str, Any]:
        vhost = self._vhost(command.vhost)
        _guard_not_default(command.name)
        if command.name.startswith("amq."):
            raise AccessRefused(f"deletion of system exchange '{command.name}' in vhost '{vhost.name}' not allowed")
        exchange = vhost.exchanges.get(command.name)
        if exchange is None:
            return {"deleted": False}
        if command.if_unused and exchange.bindings:
            raise PreconditionFailed(f"{exchange.described} in use")
        self._remove_exchange(exchange)
        return {"deleted": True}

    def _remove_exchange(self, exchange: ExchangeEntry) -> None:
        """Take it out with its bindings, and with them auto-delete exchanges whose last binding that was. Iterative: chains can be long."""
        going = [exchange]
        while going:
            exchange = going.pop()
            if self.exchanges.pop(exchange.id, None) is None:
                continue
            del self.vhosts[exchange.vhost].exchanges[exchange.name]
            self._routes_changed(exchange)
            for binding in list(exchange.bindings.values()):
                self._remove_binding(binding)
            for binding in list(exchange.inbound.values()):
                self._remove_binding(binding)
                if binding.source.auto_delete and not binding.source.bindings:
                    going.append(binding.source)
            if exchange.alternate is not None:
                named = self._alternates[exchange.vhost, exchange.alternate]
                del named[exchange.id]
                if not named:
                    del self._alternates[exchange.vhost, exchange.alternate]
            for other in self._alternates.get((exchange.vhost, exchange.name), {}).values():
                self.routing.alternate_changed(other.id, 0)
            self.routing.exchange_removed(exchange.id)
            self._changed({"change": "exchange_removed", "id": exchange.id, "vhost": exchange.vhost, "name": exchange.name})
            self._store(exchange.id, exchange.durable, None)

    # --- queues

    def _declare_queue(self, command: DeclareQueue) -> dict[str, Any]:
        vhost = self._vhost(command.vhost)
        name = strip_line_ends(command.name)
        _guard_length("queue", name)
        owner = command.owner if command.exclusive else ""
        if command.exclusive and not owner:
            raise PreconditionFailed("an exclusive queue needs a connection that owns it")
        if name:
            guard_name("queue", name)
        else:
            name = generated_name()
            while name in vhost.queues:
                name = generated_name()
        durable = command.durable and not command.exclusive
        found = vhost.queues.get(name)
        if found is not None:
            if found.owner != owner:
                raise locked(found)
            check_same_field("durable", found.durable, durable, found.described)
            check_same_field("auto_delete", found.auto_delete, command.auto_delete, found.described)
            check_same_queue_arguments(found.arguments, command.arguments, found.described)
            return {"id": found.id, "name": name, "worker": found.worker, "created": False}
        check_queue_arguments(command.arguments, f"queue '{name}' in vhost '{vhost.name}'")
        worker = self._place(command)
        arguments = command.arguments or NO_ARGUMENTS
        # Its shard is the worker's first. The worker's others are of a time with more workers; they only drain.
        queue = QueueEntry(
            self._new_id(), vhost.name, name, worker, worker, durable, command.exclusive, command.auto_delete, owner, arguments
        )
        self._add_queue(vhost, queue)
        self._changed(queue.added())
        self._store(queue.id, queue.durable, queue.record())
        return {"id": queue.id, "name": name, "worker": worker, "created": True}

    def _place(self, command: DeclareQueue) -> int:
        """The worker for a new queue: an exclusive one stays with its connection."""
        if command.worker != ANY_WORKER and not 0 <= command.worker < self.workers:
            raise InternalError(f"there is no worker {command.worker}")
        if command.exclusive and command.worker != ANY_WORKER:
            return command.worker
        locator = decoded(command.arguments).get("x-queue-leader-locator")
        balanced = self.place_balanced if locator is None else locator.value == "balanced"
        if command.worker == ANY_WORKER or balanced:
            return min(range(self.workers), key=self.queue_counts.__getitem__)
        return command.worker

    def _add_queue(self, vhost: VhostEntry, queue: QueueEntry) -> None:
        vhost.queues[queue.name] = queue
        self.queues[queue.id] = queue
        self.queue_counts[queue.worker] += 1
        if queue.owner:
            self._exclusive.setdefault(queue.owner, {})[queue.id] = queue
        self.routing.queue_added(queue.id, queue.worker)
        default = vhost.exchanges[""]
        default.matcher.bind(queue.id, _key_bytes(queue.name), {})
        self.routing.routes_changed({default.id})

    def _delete_queue(self, command: DeleteQueue) -> dict[str, Any]:
        vhost = self._vhost(command.vhost)
        queue = vhost.queues.get(command.name)
        if queue is None or command.queue_id not in (0, queue.id):
            return {"deleted": False}
        self._remove_queue(queue)
        return {"deleted": True}

    def _remove_queue(self, queue: QueueEntry) -> None:
        vhost = self.vhosts[queue.vhost]
        del vhost.queues[queue.name]
        del self.queues[queue.id]
        self.queue_counts[queue.worker] -= 1
        if queue.owner:
            owned = self._exclusive[queue.owner]
            del owned[queue.id]
            if not owned:
                del self._exclusive[queue.owner]
        default = vhost.exchanges[""]
        default.matcher.unbind(queue.id, _key_bytes(queue.name), {})
        self.routing.routes_changed({default.id})
        bindings = list(queue.inbound.values())
        # From a list: CPython keeps 2,000 tuples of each length that grew out of a generator, a megabyte in the end.
        self._routes_changed(*[binding.source for binding in bindings])
        for binding in bindings:
            self._remove_binding(binding)
        for binding in bindings:
            if binding.source.auto_delete and not binding.source.bindings:
                self._remove_exchange(binding.source)
        self.routing.queue_removed(queue.id)
        self._changed({"change": "queue_removed", "id": queue.id, "vhost": queue.vhost, "name": queue.name, "worker": queue.worker})
        self._store(queue.id, queue.durable, None)

    def _connection_gone(self, command: ConnectionGone) -> dict[str, Any]:
        queues = list(self._exclusive.get(command.owner, {}).values())
        for queue in queues:
            self._remove_queue(queue)
        return {"deleted": len(queues)}

    def _worker_gone(self, command: WorkerGone) -> dict[str, Any]:
        queues = [queue for owned in self._exclusive.values() for queue in owned.values() if queue.worker == command.worker]
        for queue in queues:
            self._remove_queue(queue)
        return {"deleted": len(queues)}

    # --- bindings

    def _ends(self, command: Bind | Unbind) -> tuple[ExchangeEntry | None, QueueEntry | ExchangeEntry | None]:
        vhost = self._vhost(command.vhost)
        _guard_not_default(command.source)
        if command.destination_type == "exchange":
            _guard_not_default(command.destination)
            return vhost.exchanges.get(command.source), vhost.exchanges.get(command.destination)
        if command.destination_type != "queue":
            raise PreconditionFailed(f"a binding leads to a queue or an exchange, not to a '{command.destination_type}'")
        return vhost.exchanges.get(command.source), vhost.queues.get(command.destination)

    def _bind(self, command: Bind) -> dict[str, Any]:
        source, destination = self._ends(command)
        if source is None:
            raise NotFound(f"no exchange '{command.source}' in vhost '{command.vhost}'")
        if destination is None:
            raise NotFound(f"no {command.destination_type} '{command.destination}' in vhost '{command.vhost}'")
        _guard_not_locked(destination, command.owner)
        if len(_key_bytes(command.routing_key)) > NAME_BYTES_MAX:
            raise PreconditionFailed(f"binding key is longer than {NAME_BYTES_MAX} bytes")
        arguments = normal(command.arguments)
        if (destination.destination, command.routing_key, arguments) in source.bindings:
            return {"created": False}
        binding = Binding(self._new_id(), source, destination, command.routing_key, arguments)
        self._add_binding(binding)
        self._routes_changed(source)
        self._store(binding.id, binding.durable, binding.record())
        return {"created": True}

    def _add_binding(self, binding: Binding) -> None:
        # First the matcher: it refuses arguments that its type does not take.
        destination = binding.destination.destination
        binding.source.matcher.bind(destination, _key_bytes(binding.routing_key), decoded(binding.arguments))
        binding.source.bindings[binding.key] = binding
        binding.destination.inbound[binding.id] = binding

    def _unbind(self, command: Unbind) -> dict[str, Any]:
        source, destination = self._ends(command)
        if source is None or destination is None:
            return {"deleted": False}
        binding = source.bindings.get((destination.destination, command.routing_key, normal(command.arguments)))
        if binding is None:  # as in RabbitMQ, even if the queue is another connection's
            return {"deleted": False}
        _guard_not_locked(destination, command.owner)
        self._routes_changed(source)
        self._remove_binding(binding)
        if source.auto_delete and not source.bindings:
            self._remove_exchange(source)
        return {"deleted": True}

    def _remove_binding(self, binding: Binding) -> None:
        """Take it off; whoever calls tells of changed routes and of auto-delete."""
        binding.source.matcher.unbind(binding.destination.destination, _key_bytes(binding.routing_key), decoded(binding.arguments))
        del binding.source.bindings[binding.key]
        del binding.destination.inbound[binding.id]
        self._store(binding.id, binding.durable, None)

    def _routes_changed(self, *exchanges: ExchangeEntry) -> None:
        """Tell the distributor: routes from these, and from whatever leads to them, may have changed.

        Called before bindings go and after they have come. Nothing is routed while a command is carried out, so each exchange is told of
        once, and a long chain that goes as a whole is walked once.
        """
        unread = [exchange for exchange in exchanges if exchange.id not in self._told]
        reached = {exchange.id for exchange in unread}
        while unread:
            exchange = unread.pop()
            before: list[ExchangeEntry] = [binding.source for binding in exchange.inbound.values()]
            before += self._alternates.get((exchange.vhost, exchange.name), {}).values()
            for source in before:
                if source.id not in reached and source.id not in self._told:
                    reached.add(source.id)
                    unread.append(source)
        if reached:
            self._told |= reached
            self.routing.routes_changed(reached)


def alternate_of(arguments: bytes, described: str) -> str | None:
    """The alternate exchange that the arguments name. Raises `PreconditionFailed` if that is not a string."""
    value = decoded(arguments).get("alternate-exchange")
    if value is None:
        return None
    if not isinstance(value.value, str):
        raise PreconditionFailed(f"invalid type '{type_name(value.tag)}' for arg 'alternate-exchange' in {described}")
    return value.value


def locked(queue: QueueEntry) -> ResourceLocked:
    """RabbitMQ's refusal to let another connection touch an exclusive queue, or to declare it with the other exclusiveness."""
    return ResourceLocked(
        f"cannot obtain exclusive access to locked {queue.described}. It could be originally declared on another connection or the "
        "exclusive property value does not match that of the original declaration."
    )


def _guard_not_default(name: str) -> None:
    if not name:
        raise AccessRefused("operation not permitted on the default exchange")


def _guard_not_locked(destination: QueueEntry | ExchangeEntry, owner: str) -> None:
    if isinstance(destination, QueueEntry) and destination.owner and destination.owner != owner:
        raise locked(destination)


def _key_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
